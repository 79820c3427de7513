"""An interactive page on one window: the dense matrix, the image, the output, and the effect of a shift."""

import html
import importlib.resources
import json
import os
import pathlib
import tempfile
import webbrowser
from collections.abc import Sequence
from typing import Any, NamedTuple

from convlab import check
from convlab.choices import one_of
from convlab.geometry import Space, Window, as_integer, as_space

LARGEST = 64  # pixels along an axis
CONNECTIVITY = ("dense", "locally_connected", "tiled", "low_rank", "global_conv", "conv", "symmetric")


class Explorer(NamedTuple):
    """An interactive page. A notebook shows it; `show` opens it in a browser, `save` writes it.

    Attributes:
      text: The page, one HTML document that loads nothing.
    """

    text: str

    def __repr__(self) -> str:
        return f"Explorer({len(self.text):,} characters of HTML)"

    def _repr_html_(self) -> str:
        """Return the page in a frame. Notebooks call it."""
        return f'<iframe srcdoc="{html.escape(self.text)}" style="width: 100%; height: 760px; border: 0"></iframe>'

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the page to a file and return its path."""
        target = pathlib.Path(path).expanduser()
        target.write_text(self.text, "utf-8")
        return target

    def show(self) -> None:
        """Open the page in the default browser."""
        with tempfile.NamedTemporaryFile("w", suffix=".html", delete=False, encoding="utf-8") as file:
            file.write(self.text)
        webbrowser.open(pathlib.Path(file.name).as_uri())


def explore(window: Window, space: Space, connectivity: str = "conv", *, period: int = 2, rank: int = 2) -> Explorer:
    """Make an interactive page that shows what a layer on this window computes.

    The page shows the dense matrix with one colour per weight, an image, its output, and what a shift of the image changes in
    the output beyond the shift. Its controls change the layer.

    Args:
      window: The pixels that each position reads.
      space: The number of input pixels along one or two spatial axes, at most 64 along each.
      connectivity: The connectivity of the layer: "dense", "locally_connected", "tiled", "low_rank", "global_conv", "conv" or
        "symmetric".
      period: The period of tiled kernels.
      rank: The number of kernels that a low-rank layer mixes.

    Raises:
      ValueError: The window fits nowhere, the image has too many pixels or more than two spatial axes, or a value is out of
        range or unknown.
      TypeError: An argument has the wrong type.

    Example:
      >>> explore(Window(3, strides=2), (9, 9))
      Explorer(...)
    """
    sizes = as_space(space)
    if len(sizes) > 2 or max(sizes) > LARGEST:
        raise ValueError(f"space is {sizes}; the page shows one or two spatial axes of at most {LARGEST} pixels")
    one_of("connectivity", connectivity, CONNECTIVITY)
    as_integer("period", period)
    as_integer("rank", rank)
    window = check.window(window).with_ndim(len(sizes))
    window.axes(sizes)
    return Explorer(fill(START | settings(window, sizes) | {"rung": connectivity, "period": period, "rank": rank}))


START: dict[str, Any] = {"picture": "seven", "noise": 0}


def settings(window: Window, space: Sequence[int]) -> dict[str, Any]:
    """Write a window on an image as the page's settings. A signal becomes an image of one row."""
    row = [1] * (2 - len(space))
    parts = {"space": space, "size": window.size, "strides": window.strides, "dilation": window.dilation}
    paddings = [padding if isinstance(padding, str) else f"{padding[0]}:{padding[1]}" for padding in window.paddings]
    texts = {name: _joined([*row, *value]) for name, value in parts.items()}  # pyright: ignore[reportGeneralTypeIssues]
    return texts | {"padding": _joined(["VALID"] * len(row) + paddings)}


def _joined(values: Sequence[Any]) -> str:
    """Write one value for both axes if they are equal."""
    return ",".join(map(str, dict.fromkeys(values) if len(set(values)) == 1 else values))


def fill(start: Any) -> str:
    """Return the page with its first settings, or with the settings whose numbers it is to print."""
    page = importlib.resources.files("convlab.report").joinpath("explore.html").read_text("utf-8")
    before, after = page.split("/*START*/{}/*END*/")
    return before + json.dumps(start).replace("</", "<\\/") + after
