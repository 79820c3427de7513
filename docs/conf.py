"""Sphinx configuration of the documentation.

Build it with `python -m sphinx -W -b html docs OUT`, after `pip install -e '.[docs]'`.
"""

import pathlib
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import convlab  # noqa: E402

project = "convlab"
author = "The convlab authors"
copyright = author
release = version = convlab.__version__

urls = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
repository = urls.get("Repository", "")  # of links to Colab and to the sources

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "claims",
    "docstrings",
    "experiment_pages",
    "notebook_pages",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook is executed again when its code changes
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

default_role = "code"
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True}
toc_object_entries = False

html_theme = "sphinx_book_theme"
html_title = "convlab"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2, "navbar_persistent": [], "repository_url": repository}

nitpicky = True
nitpick_ignore_regex = [  # annotations name types of other libraries, whose inventories need a network
    ("py:.*", r"(collections|flax|jax|jaxlib|jaxtyping|linen|matplotlib|nnx|np|numpy|optax|orbax|os|pathlib|scipy)\..*"),
    ("py:.*", r"ArrayTree|BCOO|ndarray|''|'[a-z ]+'"),
    ("py:class", r"Augment|Loss|Metrics|ParameterMetrics|Tree|Values"),  # types of arguments, named in signatures
    (
        "py:.*",
        r"convlab\.(geometry\.Axis|report\.results\.ResultTable|rungs\.symmetric\.Symmetric|measure\..*)",
    ),  # results, not built
]
html_static_path = ["_static"]
html_extra_path = ["../convlab/report/explore.html"]
html_css_files = ["custom.css"]
