"""Print the lowest versions that pyproject.toml allows of the packages named on the command line."""

import pathlib
import re
import sys
import tomllib

project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
bounds = dict(re.match(r"([\w-]+)\s*>=\s*([\w.]+)", line).groups() for line in project["dependencies"])  # pyright: ignore
bounds.setdefault("jaxlib", bounds["jax"])
print(" ".join(f"{name}=={bounds[name]}" for name in sys.argv[1:]))
