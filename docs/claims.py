"""Sphinx extension for the pages of claims: every claim of a text, with its verdict, number, check and command."""

import csv
import pathlib
import re
import tomllib
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = pathlib.Path(__file__).parent
PAGES = DOCS / "claims"
CLAIMS = DOCS.parent / "experiments" / "claims.toml"
TABLE = DOCS.parent / "experiments" / "results" / "claims" / "table.csv"
OTHER = "other"
COLOURS = {"true": "success", "yes": "success", "false": "danger", "no": "danger", "open": "secondary"}  # else "warning"
SECTIONS = {
    "7": "Convolutional Neural Networks",
    "7.1": "From Fully Connected Layers to Convolutions",
    "7.2": "Convolutions for Images",
    "7.3": "Padding and Stride",
    "7.4": "Multiple Input and Multiple Output Channels",
    "7.5": "Pooling",
    "7.6": "Convolutional Neural Networks (LeNet)",
    "8.1": "Deep Convolutional Neural Networks (AlexNet)",
}  # of Dive into Deep Learning


class Entry(NamedTuple):
    """A claim or question with its result.

    Attributes:
      kind: The kind of entry: "claim", "question" or "open".
      quote: The quotation.
      text: The text that it is from.
      place: The place in the text.
      check: The check that decides it, by module and name, or the experiment.
      arguments: The arguments of the check that are not its defaults.
      verdict: The committed verdict.
      result: The committed number with its unit.
      counter: The committed result in the counter-case.
    """

    kind: str
    quote: str
    text: str
    place: str
    check: str
    arguments: dict[str, Any]
    verdict: str
    result: str
    counter: str

    @property
    def group(self) -> str:
        """The heading that the entry stands under."""
        if self.text != "Dive into Deep Learning":
            return "Questions of ours" if self.text == "ours" else self.text
        section = re.match(r"\d+(\.\d+)?", self.place)
        return f"{section[0]} {SECTIONS[section[0]]}" if section else "Earlier editions"


def in_digits(number: str) -> str:
    """Format a count in full, and any other number with three digits."""
    value = float(number)
    return f"{value:,.0f}" if value == round(value) else f"{value:,.3g}"


def read_entries() -> list[Entry]:
    """Read all claims, and their results from the committed table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        results = {(row["claim"], row["source"]): row for row in csv.DictReader(file)}
    entries = []
    for kind, claims in tomllib.loads(CLAIMS.read_text("utf-8")).items():
        for claim in claims:
            row = results[claim["quote"], claim["source"]]
            text, _, place = claim["source"].partition(", ")
            result = f"Number: {in_digits(row['number'])} ({row['unit']})" if row["number"] else ""
            check = claim.get("check") or claim["experiment"]
            labels = (claim["quote"], text, place, check, claim.get("arguments", {}))
            entries.append(Entry(kind, *labels, row["verdict"], result, row["counter-case"]))
    return entries


def find_pages() -> dict[str, str]:
    """Return the page on which each text has its claims. The page of `OTHER` has those of all texts without a page."""
    pages = {path.stem: path.read_text("utf-8") for path in sorted(PAGES.glob("*.md"))}
    return {name: page for page, text in pages.items() for name in re.findall(r"^```\{claims\} (.+)$", text, re.M)}


def only(quote: str, quotes: list[str]) -> str:
    """Return the first few words of a quotation that no other contains, for the flag `--only`."""
    words = quote.split(" ")
    for start in range(len(words)):
        for stop in range(start + 3, len(words) + 1):
            part = " ".join(words[start:stop]).rstrip(".,;:!?")
            if not set(part) & set("\"'`$\\!") and sum(part in other for other in quotes) == 1:
                return part
    raise ValueError(f"no words of {quote!r} tell it from the other claims")


def show_entry(entry: Entry, quotes: list[str]) -> tuple[list[nodes.Node], list[str]]:
    """Return the quotation, verdict and number as nodes, and the check and command as lines of Markdown."""
    quotation = nodes.block_quote("", nodes.paragraph(entry.quote, entry.quote))
    if entry.place:
        source = f"{entry.text}, {entry.place}"
        quotation += nodes.attribution(source, source)
    colour = COLOURS.get(entry.verdict, "warning")
    classes = ["sd-sphinx-override", "sd-badge", f"sd-bg-{colour}", f"sd-bg-text-{colour}"]
    badge = nodes.inline("", entry.verdict, classes=classes)
    if entry.kind == "open":
        link = f"Left to networks that are trained, in the experiment [{entry.check}](../experiments/{entry.check}.md)."
        return [quotation, nodes.paragraph("", "", badge)], [link]
    verdict = nodes.paragraph("", "", badge, nodes.Text(f" {entry.result}."))
    shown: list[nodes.Node] = [quotation, verdict]
    if entry.counter:
        counter = f"Counter-case, {entry.counter}."
        shown.append(nodes.paragraph(counter, counter))
    module, name = entry.check.split(".")
    call = ", ".join(f"{key}={value!r}" for key, value in entry.arguments.items())
    return shown, [
        f":::{{dropdown}} Decided by `{name}({call})` in `experiments/checks/{module}.py`",
        "```bash",
        f'python -m experiments.claims --only "{only(entry.quote, quotes)}"',
        "```",
        f"```{{literalinclude}} ../../experiments/checks/{module}.py",
        f":pyobject: {name}",
        "```",
        ":::",
    ]


class Claims(SphinxDirective):
    """Directive that shows the claims of a text, or, without an argument, counts the verdicts of every text."""

    optional_arguments = 1
    final_argument_whitespace = True

    def parse(self, lines: list[str]) -> list[nodes.Node]:
        """Return the nodes of lines of Markdown."""
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), 0, node)
        return node.children

    def run(self) -> list[nodes.Node]:
        """Return a section for every part of the text, or the table of counts.

        A part that is named like the page has no heading of its own.
        """
        for path in (CLAIMS, TABLE):
            self.env.note_dependency(str(path))
        entries, pages = read_entries(), find_pages()
        if not self.arguments:
            return self.parse(count_verdicts(entries, pages))
        text, quotes = self.arguments[0], [entry.quote for entry in entries]
        chosen = [e for e in entries if (e.text == text if text != OTHER else e.text not in pages)]
        if not chosen:
            raise self.error(f"no claim is from {text!r}; the texts are {', '.join(dict.fromkeys(e.text for e in entries))}")
        sections: list[nodes.Node] = []
        for group in sorted({e.group for e in chosen}):
            section = nodes.section("", nodes.title(group, group), ids=[nodes.make_id(f"claims {group}")])
            for entry in (e for e in chosen if e.group == group):
                shown, lines = show_entry(entry, quotes)
                section += [*shown, *self.parse(lines)]
            title = next(iter(self.state.document.findall(nodes.title)), None)
            sections += section.children[1:] if title and title.astext() == group else [section]
        return sections


def count_verdicts(entries: list[Entry], pages: dict[str, str]) -> list[str]:
    """Return a table of the verdicts of every page, and the pages as a hidden table of contents."""
    lines = ["| text | true | true in some cases | false | left to experiments | questions |", "|---|---|---|---|---|---|"]
    names = list(dict.fromkeys(pages.values()))
    for page in names:
        here = [e for e in entries if pages.get(e.text, pages[OTHER]) == page]
        claims = [e.verdict for e in here if e.kind == "claim"]
        counts = [claims.count("true"), sum(v.startswith("true if") for v in claims), claims.count("false")]
        counts += [sum(e.kind == kind for e in here) for kind in ("open", "question")]
        lines.append(f"| [](./{page}.md) | " + " | ".join(map(str, counts)) + " |")
    return [*lines, "", "```{toctree}", ":hidden:", "", *names, "```"]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("claims", Claims)
    return {"parallel_read_safe": True}
