"""Sphinx extension for the pages of experiments: the provenance of a result, and a gallery of all pages."""

import datetime
import json
import pathlib
import re
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS.parent / "experiments" / "results"
PAGES = DOCS / "experiments"


class Page(NamedTuple):
    """A page of an experiment.

    Attributes:
      name: The name of the file without its suffix.
      theme: The theme in the front matter.
      question: The title.
      answer: The first sentence below the title.
      figure: The path of the first figure, relative to the page.
    """

    name: str
    theme: str
    question: str
    answer: str
    figure: str


def read_page(path: pathlib.Path) -> Page:
    """Read the parts of a page that the gallery shows."""
    text = path.read_text("utf-8")
    theme, question, body = re.fullmatch(r"---\ntheme: (.*?)\n---\n\n# (.*?)\n\n(.*)", text, re.S).groups()  # pyright: ignore
    answer = re.match(r".*?\.(?=\s)", " ".join(body.split("\n\n")[0].split()) + " ")[0]  # pyright: ignore
    return Page(path.stem, theme, question, answer, re.search(r"!\[.*?\]\((.*?)\)", body, re.S)[1])  # pyright: ignore


def read_pages() -> list[Page]:
    """Read the pages of all experiments."""
    return [read_page(path) for path in sorted(PAGES.glob("*.md")) if path.stem != "index"]


def describe_time(seconds: float | None) -> str:
    """Describe the duration of a run, in seconds, minutes or hours."""
    if seconds is None:
        return "not recorded, as rows of an earlier run were reused"
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


class Provenance(SphinxDirective):
    """Directive that writes how the committed results were made: command, time, machine, versions, date."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return a block with the command, and a sentence, for every result."""
        result: list[nodes.Node] = []
        for name in self.arguments[0].split():
            path = RESULTS / name / "provenance.json"
            self.env.note_dependency(str(path))
            run = json.loads(path.read_text("utf-8"))
            date = datetime.datetime.fromisoformat(run["utc"]).date().isoformat()
            devices = run["processor"] if run["backend"] == "cpu" else f"{run['devices']} x {run['device']}"
            software = {"convlab": "convlab", "jax": "JAX", "flax": "Flax", "python": "Python"}
            versions = ", ".join(f"{title} {run[name]}" for name, title in software.items() if name in run)
            text = f"Time: {describe_time(run['seconds'])}, on {run['cores']} cores ({devices}), {date}, with {versions}."
            block = nodes.literal_block(run["command"], run["command"], language="bash")
            result += [block, nodes.paragraph(text, text)]
        return result


class Gallery(SphinxDirective):
    """Directive that shows a card with a thumbnail for every page, one tab per theme."""

    def run(self) -> list[nodes.Node]:
        """Return the tabs."""
        pages = read_pages()
        themes = {"all": pages} | {
            theme: [p for p in pages if p.theme == theme] for theme in dict.fromkeys(p.theme for p in pages)
        }
        lines = ["::::::{tab-set}"]
        for theme, chosen in themes.items():
            lines += [f":::::{{tab-item}} {theme}", "::::{grid} 1 2 2 3", ":gutter: 3"]
            for page in chosen:
                card = [f":::{{grid-item-card}} {page.question}", f":link: {page.name}", ":link-type: doc"]
                lines += [*card, f":img-top: {page.figure}", "", page.answer, ":::"]
            lines += ["::::", ":::::"]
        lines += ["::::::", "", "```{toctree}", ":hidden:", "", *(page.name for page in pages), "```"]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), 0, node)
        return node.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("provenance", Provenance)
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True}
