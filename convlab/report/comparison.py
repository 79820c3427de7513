"""One quantity of many things, side by side: names down the page, where there is room for them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convlab.report.drawing import RUNG_STYLE, Baseline, draw_baselines, draw_legend, slide_style
from convlab.report.rows import Row, check_columns

if TYPE_CHECKING:
    import matplotlib.axes

MARKS = ("D", "s", "^")  # of references, hollow


def comparison(
    axis: "matplotlib.axes.Axes",
    summary: Sequence[Row],
    name: str,
    value: str,
    *,
    label: str,
    x_label: str,
    x_format: str = "",
    title: str = "",
    references: Mapping[str, str] | None = None,
    baselines: Mapping[str, Baseline] | None = None,
) -> None:
    """Draw one line for every row, from the top: its mean and interval, and beside it what others report of the same.

    Args:
      axis: Where to draw.
      summary: Rows with name, value, value_low and value_high (as `summarise` makes them); ends that are absent or NaN are
        not drawn.
      name: Column of what is compared.
      value: Column of the averaged quantity.
      label: What the means are called in the legend.
      x_label: Says what the quantity is, with its unit.
      x_format: Format specification of its numbers, e.g. ".0%".
      title: Of the panel.
      references: Columns of other figures of the quantity, by what the legend calls them; blank cells are not drawn.
      baselines: Places of gray vertical lines by label.

    Raises:
      ValueError: No row has one of the names.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> rows = [{"net": "Net", "accuracy": 0.88, "book": 0.89}, {"net": "MLP", "accuracy": 0.81}]
      >>> comparison(axis, rows, "net", "accuracy", label="here", x_label="accuracy", references={"book": "book"})
    """
    references = references or {}
    check_columns(summary, (name, value, *references.values()))
    with slide_style():
        axis.grid(color="#E6E6E6")
        axis.set_axisbelow(True)
        for place, row in enumerate(summary):
            low, high = (row.get(f"{value}_{end}") for end in ("low", "high"))
            if low is not None and high is not None:
                axis.plot([low, high], [place, place], "|-", color=RUNG_STYLE["conv"].colour, markersize=12)
        _dots(axis, summary, value, label, color=RUNG_STYLE["conv"].colour, marker="o", markersize=10)
        for (called, column), mark in zip(references.items(), MARKS, strict=False):
            if any(row.get(column) is not None for row in summary):
                _dots(axis, summary, column, called, color=RUNG_STYLE["dense"].colour, marker=mark, mfc="none", mew=2)
        draw_baselines(axis.axvline, axis.axvspan, baselines or {})
        axis.set_yticks(range(len(summary)), [str(row.get(name)) for row in summary])
        axis.invert_yaxis()
        axis.set_xlabel(x_label)
        axis.set_title(title)
        if x_format:
            axis.xaxis.set_major_formatter(f"{{x:{x_format}}}")
        draw_legend(axis)


def _dots(axis: "matplotlib.axes.Axes", rows: Sequence[Row], column: str, label: str, **style) -> None:
    places = [place for place, row in enumerate(rows) if row.get(column) is not None]
    axis.plot([float(rows[place][column]) for place in places], places, linestyle="none", label=label, **style)
