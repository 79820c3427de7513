"""The pages of the documentation: their snippets run, every public name has an entry, and experiments have one form."""

import contextlib
import importlib
import inspect
import io
import pathlib
import re

import pytest

import convlab

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
WITH_SNIPPETS = sorted(page for page in DOCS.rglob("*.md") if SNIPPET.search(page.read_text("utf-8")))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")
PACKAGES = sorted(
    ".".join(path.relative_to(ROOT).parts[:-1])
    for path in ROOT.glob("convlab/*/__init__.py")
    if "__all__" in path.read_text("utf-8")
)
INNER = {
    "convlab.convert",
    "convlab.data",
    "convlab.kernels",
    "convlab.ops",
}  # documented in part, or for those who read the code
HEADINGS = ["How it was measured", "What would change the answer", "Run it"]


def relative(path):
    return path.relative_to(DOCS).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=relative)
def test_snippets_of_a_page_run(page):
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for snippet in SNIPPET.findall(page.read_text("utf-8")):
            exec(compile(snippet, relative(page), "exec"), names)


def test_every_public_name_is_in_the_reference_once():
    entries = []
    for page in (DOCS / "reference").glob("*.md"):
        for module, names in re.findall(r"```\{api\} (\S+)\n(.*?)```", page.read_text("utf-8"), re.S):
            entries += [(module, name) for name in names.split()] or [(module, "*")]
    assert len(entries) == len(set(entries))
    functions = [name for name in convlab.__all__ if not inspect.ismodule(getattr(convlab, name))]
    assert sorted(name for module, name in entries if module == "convlab") == sorted(functions)
    missing = {package for package in PACKAGES if (package, "*") not in entries} - INNER
    assert not missing, f"{missing} have no page of reference"
    for module, name in entries:
        assert importlib.import_module(module) if name == "*" else hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_page_of_an_experiment_has_the_common_form(name):
    text = (DOCS / "experiments" / f"{name}.md").read_text("utf-8")
    front, _, body = text.removeprefix("---\n").partition("\n---\n\n")
    assert re.fullmatch("theme: [a-z ]+", front)
    assert re.match(r"# [^\n]+\?\n\n\w", body), "a question, then its answer"
    assert re.findall("^## (.*)$", body, re.M)[-3:] == HEADINGS
    figures = re.findall(r"!\[.*?\]\((.*?)\)", body, re.S)
    assert figures, "a figure before the details"
    assert all((DOCS / "experiments" / figure).exists() for figure in figures)
    assert "/table.md" in body
    assert "```{provenance}" in body


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_page_of_an_experiment_is_short(name):
    text = (DOCS / "experiments" / f"{name}.md").read_text("utf-8").split("\n---\n", 1)[1]
    text = re.sub(r"^(```|:::).*?^\1", "", text, flags=re.S | re.M)
    paragraphs = [part for part in text.split("\n\n") if not re.match(r"[-|:]", part)]
    assert sum(len(part.split()) for part in paragraphs) <= 250
