"""Texts and HTML of objects, for interactive sessions and notebooks."""

import base64
import dataclasses
import functools
import html
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.core import Tracer

from convlab.choices import shown

LONGEST = 80  # the most characters of the text of one value
CELL = 14  # the width of a cell of a grid, in pixels


def short_repr(self: Any) -> str:
    """Return the text of a dataclass or named tuple on one line, with arrays by dtype and shape.

    Fields with their default value are left out.

    Example:
      >>> import typing, numpy as np
      >>> class Pair(typing.NamedTuple):
      ...     name: str
      ...     values: np.ndarray
      ...     count: int = 3
      ...     __repr__ = short_repr
      >>> Pair("a", np.zeros((2, 3)))
      Pair(name='a', values=float64[2, 3])
    """
    defaults = _defaults(self)
    parts = [f"{name}={brief(getattr(self, name))}" for name in defaults if not _are_same(getattr(self, name), defaults[name])]
    return f"{type(self).__name__}({', '.join(parts)})"


def _defaults(self: Any) -> dict[str, Any]:
    """Return the defaults of the fields of a dataclass or named tuple, or `dataclasses.MISSING`, by name."""
    if dataclasses.is_dataclass(self):
        return {field.name: field.default for field in dataclasses.fields(self) if field.repr}
    return dict.fromkeys(self._fields, dataclasses.MISSING) | self._field_defaults


def _are_same(value: Any, default: Any) -> bool:
    """Return True if a value is its default, or an equal number or text."""
    return value is default or (type(value) is type(default) and isinstance(value, (int, float, str)) and value == default)


def fields_html(self: Any) -> str:
    """Return a table of all fields of a dataclass or named tuple, with their values and defaults, in HTML.

    Example:
      >>> @dataclasses.dataclass
      ... class Pair:
      ...     name: str
      ...     count: int = 3
      >>> fields_html(Pair("a")).count("<tr>")
      3
    """
    rows = [
        [name, brief(getattr(self, name)), "" if default is dataclasses.MISSING else brief(default)]
        for name, default in _defaults(self).items()
    ]
    return table_html([type(self).__name__, "value", "default"], rows)


def brief(value: Any) -> str:
    """Describe a value in at most about 80 characters, with arrays by dtype and shape.

    Example:
      >>> import numpy as np
      >>> brief(np.zeros((2, 3))), brief({"a": np.zeros(2), "b": np.zeros(3)}), brief(len), brief(list(range(100)))
      ('float64[2, 3]', '<dict: 2 arrays, 5 numbers>', 'len', '<list of 100>')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        is_number = value.shape == () and hasattr(value, "item") and not isinstance(value, Tracer)
        is_number = is_number and getattr(value.dtype, "kind", "key") in "iufc"  # random keys have no kind
        return f"{value.item():.4g}" if is_number else f"{value.dtype}{list(value.shape)}"
    if isinstance(value, functools.partial):
        return f"partial({brief(value.func)})"
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__name__
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (str, int, float, complex)) or value is None:
        return shown(value)
    kind, is_container = type(value).__name__, isinstance(value, (Mapping, list, tuple))
    arrays = [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "shape")]
    if not (is_container and arrays):
        text = repr(value)
        if len(text) <= LONGEST and "\n" not in text:
            return text
    if arrays:
        return f"<{kind}: {len(arrays)} arrays, {sum(getattr(leaf, 'size', 0) for leaf in arrays):,} numbers>"
    return f"<{kind} of {len(value)}>" if is_container else f"<{kind}>"


def table_html(
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    numeric: Sequence[bool] = (),
    title: str = "",
    raw: Sequence[bool] = (),
) -> str:
    """Return a table in HTML. All texts are escaped.

    Args:
      header: The column headers.
      cells: The text of the cells, row by row.
      numeric: The flags of the columns to align to the right. If empty, none.
      title: The caption.
      raw: The flags of the columns whose cells hold HTML already. If empty, none.

    Example:
      >>> table_html(["rung"], [["a<b"]])
      '<table><thead><tr><th>rung</th></tr></thead><tbody><tr><td>a&lt;b</td></tr></tbody></table>'
    """
    styles = [' style="text-align:right"' * right for right in numeric or [False] * len(header)]

    kept = [*raw] or [False] * len(header)

    def line(tag: str, texts: Sequence[str]) -> str:
        safe = [text if keep and tag == "td" else html.escape(text) for text, keep in zip(texts, kept, strict=True)]
        return f"<tr>{''.join(f'<{tag}{style}>{text}</{tag}>' for text, style in zip(safe, styles, strict=True))}</tr>"

    caption = f"<caption>{html.escape(title)}</caption>" * bool(title)
    body = "".join(line("td", texts) for texts in cells)
    return f"<table>{caption}<thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


def image_html(png: bytes, alt: str, width: int | None = None) -> str:
    """Return an image in HTML that contains its PNG data.

    Args:
      png: The bytes of the PNG.
      alt: The text that stands for the image.
      width: The width on the page, in pixels. If None, that of the image.

    Example:
      >>> image_html(b"png", "a digit")
      '<img alt="a digit" src="data:image/png;base64,cG5n">'
    """
    data = base64.b64encode(png).decode()
    size = "" if width is None else f' width="{width}" style="image-rendering:pixelated"'
    return f'<img alt="{html.escape(alt)}"{size} src="data:image/png;base64,{data}">'


def grid_html(colours: Sequence[Sequence[str]], alt: str) -> str:
    """Return a grid of coloured cells as SVG.

    Args:
      colours: The colour of every cell, row by row.
      alt: The text that describes the grid.

    Example:
      >>> grid_html([["red", "white"]], "one pixel").count("<rect")
      2
    """
    cells = "".join(
        f'<rect x="{CELL * column}" y="{CELL * row}" width="{CELL}" height="{CELL}" fill="{html.escape(colour)}"'
        ' stroke="#BFBFBF"/>'
        for row, line in enumerate(colours)
        for column, colour in enumerate(line)
    )
    return _svg(cells, (CELL * len(colours[0]), CELL * len(colours)), 0.5, alt)


def curve_html(values: Any, alt: str, width: int = 100, height: int = 32) -> str:
    """Return the curve of a sequence of numbers as SVG.

    Args:
      values: The numbers.
      alt: The text that describes the curve.
      width: The width in pixels.
      height: The height in pixels.

    Example:
      >>> "0.0,32.0 50.0,0.0 100.0,32.0" in curve_html([0, 1, 0], "a peak")
      True
    """
    low, high = min(values), max(values)
    scale, step = height / (high - low if high > low else 1), width / max(len(values) - 1, 1)
    points = " ".join(f"{step * number:.1f},{height - scale * (value - low):.1f}" for number, value in enumerate(values))
    line = f'<polyline points="{points}" fill="none" stroke="#0072B2"/>'
    return _svg(line, (width, height), 1, alt)


def _svg(content: str, size: tuple[int, int], margin: float, alt: str) -> str:
    """Return an SVG image of a width and height, with a margin around its content."""
    width, height = size
    box = f"{-margin:g} {-margin:g} {width + 2 * margin:g} {height + 2 * margin:g}"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="{box}"'
    return f'{start} role="img" aria-label="{html.escape(alt)}">{content}</svg>'
