"""Sphinx extension for the notebooks: a file to download, and a link that opens it in Colab.

The notebooks are text. The build writes each as NAME.ipynb next to its page, without outputs. The workflow that publishes the
site copies these files to the branch `notebooks`, where Colab reads them.
"""

import pathlib
from typing import Any

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx

FOLDER, INDEX = "notebooks", "notebooks/index"
INSTALL = "%pip install -q 'convlab-jax[experiments]'"
COLAB = "https://colab.research.google.com/github/{slug}/blob/notebooks/{name}.ipynb"
LINKS = '<p><a href="{name}.ipynb" download>Download the notebook</a>{colab}</p>'
BADGE = ' · <a href="{url}">Open in Colab</a>'


def to_notebook(text: str) -> nbformat.NotebookNode:
    """Convert a text notebook to a Jupyter notebook that begins with the installation."""
    notebook = read_myst_markdown_notebook(text)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same in every build
    return notebook


def links(name: str, repository: str) -> str:
    """Return the links of a notebook's page. Without a repository there is none to Colab."""
    slug = repository.removeprefix("https://github.com/").strip("/")
    return LINKS.format(name=name, colab=BADGE.format(url=COLAB.format(slug=slug, name=name)) if repository else "")


def add_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Write the links below the title of a notebook's page."""
    if page.startswith(f"{FOLDER}/") and page != INDEX:
        before, title, after = source[0].partition("\n# ")
        head, body = after.split("\n", 1)
        name = page.removeprefix(f"{FOLDER}/")
        source[0] = f"{before}{title}{head}\n\n{links(name, app.config.repository)}\n{body}"


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Write the files to download."""
    if error is None and app.builder.format == "html":
        for path in pathlib.Path(app.srcdir, FOLDER).glob("*.md"):
            if path.stem != pathlib.Path(INDEX).stem:
                nbformat.write(to_notebook(path.read_text("utf-8")), pathlib.Path(app.outdir, FOLDER, f"{path.stem}.ipynb"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("repository", "", "html")
    app.connect("source-read", add_links)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True}
