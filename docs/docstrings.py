"""Sphinx extension that documents convlab's public names and reads the Markdown of their docstrings."""

import importlib
import inspect
import itertools
import re
import types
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import convlab

BLOCK = re.compile(r"^( *)\$\$(.+?)\$\$ *$", re.S | re.M)
MATH = re.compile(r"(?<![\\$`])\$([^$`\n]+)\$(?!\$)")
KEPT = re.compile(r"(\$\$.*?\$\$|`+[^`]*`+|\$[^$\n]+\$|^ *(?:>>>|\.\.\.)[^\n]*$)", re.S | re.M)  # equations, code and examples
ROW = re.compile(r"^( *)\|(.*)\| *$")


def read_table(lines: list[str]) -> list[str]:
    """Convert a Markdown table to the directive `list-table`."""
    indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines]
    result = [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in (row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)):
        result += [f"{indent}   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return [*result, ""]


def read_equations(text: str) -> str:
    """Convert `$$...$$` and `$...$` to reStructuredText."""

    def block(match: re.Match[str]) -> str:
        indent, lines = match[1], match[2].strip().splitlines()
        return "\n".join([f"{indent}.. math::", "", *(f"{indent}   {line.strip()}" for line in lines), ""])

    return MATH.sub(r":math:`\1`", BLOCK.sub(block, text))


def escape(text: str) -> str:
    """Escape asterisks and bars, which stand for shapes and magnitudes: (*n, h, w, c), |x|."""
    parts = KEPT.split(text)
    return "".join(part if k % 2 else re.sub(r"([*|])", r"\\\1", part) for k, part in enumerate(parts))


def list_returns(lines: list[str]) -> list[str]:
    """Convert several named results to a list, where napoleon would read the first name as a type."""
    if "Returns:" not in lines:
        return lines
    first = lines.index("Returns:") + 1
    last = next((k for k, line in enumerate(lines[first:], first) if line and not line.startswith(" ")), len(lines))
    entries = [re.sub(r"^( +)(\w+): ", r"\1- `\2`: ", line) for line in lines[first:last]]
    if sum(line.lstrip().startswith("- `") for line in entries) < 2:
        return lines
    return [*lines[:first], "  A tuple.", "", *entries, *lines[last:]]


def read_markdown(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert the Markdown of a docstring in place."""
    if isinstance(obj, Mapping):
        lines[:] = [f"Table with the keys {', '.join(f'`{key}`' for key in obj)}."]
    if isinstance(obj, types.GenericAlias):  # its docstring would be that of `dict`
        lines[:] = ["Type alias."]
    blocks = itertools.groupby(list_returns(lines), lambda line: bool(ROW.match(line)))
    texts = ["\n".join(read_table(list(rows)) if table else [escape("\n".join(rows))]) for table, rows in blocks]
    lines[:] = read_equations("\n".join(texts)).splitlines()
    if what in ("property", "attribute", "data") and lines:
        lines[0] = lines[0].replace(": ", " – ")  # napoleon would read "type: text"


def names_of(module: str) -> list[str]:
    """Return the public names that a package documents itself, without those that `convlab` has too."""
    package = importlib.import_module(module)
    return [name for name in package.__all__ if not hasattr(convlab, name) and not inspect.ismodule(getattr(package, name))]


class Api(SphinxDirective):
    """Directive that documents names of a module: those of its content, or all that `names_of` returns."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the documentation of every name."""
        module, text = self.arguments[0], " ".join(self.content)
        lines = []
        for name in text.split() or names_of(module):
            value = getattr(importlib.import_module(module), name)
            kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
            lines += [f".. auto{kind}:: {module}.{name}", ""]
        node = nodes.Element()
        source = ["```{eval-rst}", *lines, "```"]  # the pages are Markdown
        self.state.nested_parse(StringList(source, self.get_source_info()[0]), 0, node)
        return node.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and read docstrings before napoleon does."""
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", read_markdown, priority=400)
    return {"parallel_read_safe": True}
