"""A figure that compares one quantity between many rows, with the names at the vertical axis."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convlab.report.arguments import check_arguments, check_numbers
from convlab.report.drawing import RUNG_STYLE, Baseline, Style, draw_baselines, draw_legend, figure_of, slide_style
from convlab.report.rows import Row, check_columns

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MARKS = ("D", "s", "^")  # the hollow markers of references
BELOW = 0.025  # the distance of an interval of a reference from that of the mean, as a fraction of the panel's height


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
    styles: Mapping[str, Style] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw the mean and interval of each row on a line of its own, with reference values.

    Args:
      axis: The axes to draw on.
      summary: The rows from top to bottom, with columns `name`, `value`, `<value>_low` and `<value>_high`, as from `summarise`.
        Missing ends of intervals are not drawn.
      name: The column of the rows' names.
      value: The column of the averaged quantity.
      label: The legend's label of the means.
      x_label: The label of the quantity, with its unit.
      x_format: The format specification of the quantity, e.g. ".0%".
      title: The title of the panel.
      references: The columns of reference values of the same quantity, by their labels in the legend. Missing cells are not
        drawn. A reference with columns `<reference>_low` and `<reference>_high` is drawn with its interval, below the mean.
      baselines: The positions of gray vertical lines, by their labels in the legend.
      styles: The styles of rows, by their names. A row with a style has its colour. If None, means are blue and references
        orange.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: A column is in none of the rows.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> rows = [{"net": "Net", "accuracy": 0.88, "book": 0.89}, {"net": "MLP", "accuracy": 0.81}]
      >>> comparison(axis, rows, "net", "accuracy", label="here", x_label="accuracy", references={"book": "book"})
      <Figure size 1200x500 with 1 Axes>
    """
    check_arguments(axis=axis, name=name, value=value, label=label, x_label=x_label, x_format=x_format, title=title)
    check_arguments(references=references, baselines=baselines, styles=styles)
    references = references or {}
    check_columns("summary", summary, (name, value, *references.values()))
    for argument, column in (("value", value), *(("references", column) for column in references.values())):
        check_numbers(argument, summary, (column, f"{column}_low", f"{column}_high"))
    with slide_style():
        axis.grid(color="#E6E6E6")
        axis.set_axisbelow(True)
        known = [styles[row[name]].colour if styles and row.get(name) in styles else None for row in summary]
        _dots(axis, summary, value, label, known, color=RUNG_STYLE["conv"].colour, marker="o", markersize=10)
        hollow: dict[str, Any] = {"color": RUNG_STYLE["dense"].colour, "mfc": "white", "mew": 2}
        for (reference, column), mark in zip(references.items(), MARKS, strict=False):
            if any(row.get(column) is not None for row in summary):
                _dots(axis, summary, column, reference, known, marker=mark, **hollow)
        draw_baselines(axis.axvline, axis.axvspan, baselines or {})
        axis.set_yticks(range(len(summary)), [str(row.get(name)) for row in summary])
        axis.invert_yaxis()
        axis.set_xlabel(x_label)
        axis.set_title(title)
        if x_format:
            axis.xaxis.set_major_formatter(f"{{x:{x_format}}}")
        draw_legend(axis)
    return figure_of(axis)


def _dots(
    axis: "matplotlib.axes.Axes", rows: Sequence[Row], column: str, label: str, known: list[str | None], **style: Any
) -> None:
    """Draw the values of one column as markers with their intervals, skipping missing cells.

    Rows have a known colour or that of the style. Hollow markers that have intervals are drawn below their lines.
    """
    ends = f"{column}_low", f"{column}_high"
    below = BELOW * len(rows) * ("mfc" in style and any(row.get(ends[0]) is not None for row in rows))
    for colour in dict.fromkeys(known):
        shown: dict[str, Any] = style | ({"color": colour} if colour else {})
        members = [(line + below, row) for line, (row, shade) in enumerate(zip(rows, known, strict=True)) if shade == colour]
        for height, row in members:
            if row.get(ends[0]) is not None and row.get(ends[1]) is not None:
                axis.plot([row[end] for end in ends], [height, height], "|-", color=shown["color"], markersize=12)
        points = [(float(row[column]), height) for height, row in members if row.get(column) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), linestyle="none", label=f"_{label}" if colour else label, **shown)
    if any(known):
        gray: dict[str, Any] = style | {"color": "0.3"}
        axis.plot([], [], linestyle="none", label=label, **gray)
