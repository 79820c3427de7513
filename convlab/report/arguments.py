"""Checks of the arguments that figures and files of results have in common, by their names."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from convlab import check
from convlab.choices import one_of, shown
from convlab.extras import require
from convlab.report.rows import check_columns
from convlab.report.seeds import Interval, column_names


def check_arguments(**arguments: Any) -> None:
    """Check arguments of functions that draw or write results, each as its name says.

    An argument of `OPTIONAL` can be None.

    Raises:
      TypeError: An argument has the wrong type.
      ValueError: An argument has the wrong value.

    Example:
      >>> check_arguments(title="accuracy", log_x=1)
      Traceback (most recent call last):
      TypeError: log_x must be True or False, got 1
    """
    for name, value in arguments.items():
        if value is not None or name not in OPTIONAL:
            KINDS[name](name, value)


def check_numbers(name: str, rows: Any, columns: tuple[str, ...]) -> None:
    """Check that some columns of rows hold numbers. Missing cells are allowed.

    Raises:
      TypeError: A cell is no number. The error names the argument `name`, which chose the columns.
    """
    for column in columns:
        for cell in (row.get(column) for row in rows):
            try:
                float(0.0 if cell is None else cell)
            except (TypeError, ValueError, OverflowError):
                raise TypeError(f"{name} must be a column of numbers, but {column} holds {shown(cell)}") from None


def _axis(name: str, value: Any) -> None:
    check.instance(name, value, require("matplotlib.axes").Axes, "axes of matplotlib, such as new_figure() makes")


def _axes(name: str, value: Any) -> None:
    for axis in check.sequence(name, value, "axes of matplotlib, such as new_figure(2) makes"):
        _axis(name, axis)


def _figure(name: str, value: Any) -> None:
    check.instance(name, value, require("matplotlib.figure").Figure, "a figure of matplotlib, such as new_figure() makes")


def _rows(name: str, value: Any) -> None:
    check_columns(name, value, ())


def _format(name: str, value: Any) -> None:
    try:
        format(0.5, check.text(name, value))
    except ValueError:
        raise ValueError(f"{name} must be a format specification of numbers, such as '.1%', got {shown(value)}") from None


def _size(name: str, value: Any) -> None:
    sides = [check.number(name, side) for side in check.sequence(name, value, "two numbers")]
    if len(sides) != 2 or not all(0 < side < math.inf for side in sides):
        raise ValueError(f"{name} must be the width and the height in inches, both above 0, got {shown(value)}")


def _end(name: str, value: Any) -> None:
    one_of(name, value, ("left", "right"))


def _position(name: str, value: Any) -> None:
    for end in value if isinstance(value, Interval) else (value,):
        check.number(name, end)


def _style(name: str, value: Any) -> None:
    from convlab.report.drawing import Style

    check.instance(name, value, Style, "a mapping from groups to convlab.report.Style")


def _mapping_of(entries: str, kind: Callable[[str, Any], Any]) -> Callable[[str, Any], None]:
    def checked(name: str, value: Any) -> None:
        for entry in check.mapping(name, value, entries).values():
            kind(name, entry)

    return checked


KINDS: Mapping[str, Callable[[str, Any], Any]] = {
    "axis": _axis,
    "axes": _axes,
    "figure": _figure,
    "size": _size,
    **dict.fromkeys(("rows", "summary"), _rows),
    **dict.fromkeys(("x", "y", "by", "name", "value", "columns"), column_names),
    **dict.fromkeys(("title", "label", "x_label", "y_label", "loss_label", "accuracy_label"), check.text),
    **dict.fromkeys(("x_format", "y_format"), _format),
    **dict.fromkeys(("log_x", "log_y", "log_loss", "band", "keep_previous"), check.flag),
    **dict.fromkeys(("vmax", "bottom"), check.not_negative),
    "seconds": functools.partial(check.not_negative, needed="a number of seconds"),
    "baselines": _mapping_of("positions by label", _position),
    "baseline_labels": _end,
    "labels": _mapping_of("labels by group", check.text),
    "references": _mapping_of("columns by label", check.text),
    "styles": _mapping_of("styles by group", _style),
    "formats": _mapping_of("format specifications by column", _format),
    "folder": check.folder,
    "root": check.path,
}
"""The check of every argument, by its name."""
OPTIONAL = {"baselines", "baseline_labels", "labels", "references", "styles", "formats", "figure", "vmax", "bottom", "seconds"}
OPTIONAL |= {"columns"}
"""The names of arguments that can be None."""
