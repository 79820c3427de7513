"""Figures in a style for slides, in which a rung always has the same colour and marker."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convlab import check
from convlab.extras import require
from convlab.geometry import as_integer
from convlab.report.arguments import check_arguments, check_numbers
from convlab.report.limits import bottom_of, draw_below, log_ticks, show_all_points
from convlab.report.rows import Row, check_columns, to_python_scalar
from convlab.report.seeds import Interval

Baseline = float | Interval

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


class Style(NamedTuple):
    """Describe how the lines and points of one group are drawn.

    Attributes:
      label: The label in the legend.
      colour: The colour of lines and markers.
      marker: The marker, in matplotlib's notation.
      line: The line style, in matplotlib's notation.
    """

    label: str
    colour: str
    marker: str
    line: str = "-"


RUNG_STYLE = {
    "dense": Style("dense", "#D55E00", "o"),
    "global_conv": Style("global convolution", "#CC79A7", "P"),
    "locally_connected": Style("locally connected", "#E69F00", "s"),
    "tiled": Style("tiled", "#009E73", "^"),
    "low_rank": Style("low rank", "#56B4E9", "D"),
    "conv": Style("convolution", "#0072B2", "v"),
    "linear": Style("linear", "#767676", "X", "--"),
}
"""The style of each rung, from the freest to the strictest.

The colours are distinguishable for colour-blind readers (Okabe and Ito, 2008). Gray is reserved for null baselines.
"""

SLIDE: dict[Any, Any] = {
    "font.size": 14,
    "axes.titlesize": 16,
    "axes.labelsize": 15,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "legend.fontsize": 14,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "axes.edgecolor": "#4D4D4D",
    "axes.titlepad": 10,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
DOTS_PER_INCH = 160
MAXIMUM_PANELS = 1000
DODGE = 0.018
"""The largest distance between neighbouring lines, as a fraction of the horizontal range."""
SPREAD = 0.07
"""The largest width that the points of all lines at one x cover, as a fraction of the horizontal range."""


@contextlib.contextmanager
def slide_style() -> Iterator[None]:
    """Apply the style of slides to matplotlib inside a `with` block."""
    with require("matplotlib").rc_context(SLIDE):
        yield


def new_figure(
    panels: int = 1, *, rows: int = 1, size: tuple[float, float] = (12.0, 5.0)
) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """Create a figure without opening a window or changing matplotlib's settings.

    In a notebook, the figure shows itself as the last value of a cell.

    Args:
      panels: The number of panels.
      rows: The number of rows of panels. Panels are ordered from left to right, then downwards.
      size: The width and height in inches.

    Returns:
      The figure and the axes of its panels.

    Raises:
      ValueError: `panels` or `rows` is not between 1 and 1000, or `size` is not two positive numbers.
      TypeError: A number is no number, or no integer.
      MemoryError: The picture would not fit into memory.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, axes = new_figure(panels=3)
      >>> len(axes)
      3
    """
    panels, rows = as_integer("panels", panels, most=MAXIMUM_PANELS), as_integer("rows", rows, most=MAXIMUM_PANELS)
    check_arguments(size=size)
    check.shape_fits("the picture of size", *(side * DOTS_PER_INCH for side in size), 4, itemsize=1)
    with slide_style():
        from convlab.report.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        axes = [figure.add_subplot(rows, -(-panels // rows), panel + 1) for panel in range(panels)]
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=SLIDE["xtick.labelsize"])
    return figure, axes


def figure_of(axis: "matplotlib.axes.Axes") -> "matplotlib.figure.Figure":
    """Return the figure that holds axes."""
    return axis.figure  # pyright: ignore[reportReturnType]


def curves(
    axis: "matplotlib.axes.Axes",
    summary: Sequence[Row],
    x: str,
    y: str,
    by: str = "rung",
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    y_format: str = "",
    log_x: bool = False,
    log_y: bool = False,
    bottom: float | None = None,
    band: bool = False,
    baselines: Mapping[str, Baseline] | None = None,
    baseline_labels: str | None = None,
    labels: Mapping[str, str] | None = None,
    styles: Mapping[str, Style] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw the mean and interval of each group against `x` as a line.

    All panels of a figure share one legend, outside of the panels.

    Args:
      axis: The axes to draw on.
      summary: The rows, with columns `x`, `y`, `<y>_low` and `<y>_high`, as from `summarise`. Missing ends of intervals are not
        drawn.
      x: The column of the horizontal quantity.
      y: The column of the averaged quantity.
      by: The column whose values make the groups. Rungs have a style of their own.
      x_label: The label of x, with its unit.
      y_label: The label of y, with its unit.
      title: The title of the panel.
      y_format: The format specification of the numbers on the vertical axis, e.g. ".0%".
      log_x: Whether the x axis is logarithmic.
      log_y: Whether the y axis is logarithmic. Points below it are then drawn on its bottom, as hollow markers, and intervals
        end there.
      bottom: The bottom of a logarithmic y axis. If None, it is below all positive heights.
      band: Whether to draw intervals as bands instead of bars.
      baselines: The heights of gray horizontal lines by label, e.g. {"chance": 0.1}. An `Interval` is shaded.
      baseline_labels: The end of the gray lines at which their labels stand, "left" or "right". If None, they stand in the
        legend.
      labels: The labels of groups in the legend, e.g. {"linear": "linear classifier"}.
      styles: The styles of groups that are not rungs. Pass them to give a group the same style in all panels.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: A column is in none of the rows.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, [axis] = new_figure()
      >>> rows = [{"rung": "conv", "size": n, "accuracy": 1 - 1 / n} for n in (10, 100)]
      >>> curves(axis, rows, "size", "accuracy", x_label="training images", y_label="test accuracy", log_x=True)
      <Figure size 1200x500 with 1 Axes>
    """
    check_arguments(axis=axis, x=x, y=y, by=by, x_label=x_label, y_label=y_label, title=title, y_format=y_format)
    check_arguments(log_x=log_x, log_y=log_y, bottom=bottom, band=band)
    check_arguments(baselines=baselines, baseline_labels=baseline_labels, labels=labels, styles=styles)
    check_columns("summary", summary, (x, y, by))
    check_numbers("x", summary, (x,))
    check_numbers("y", summary, (y, f"{y}_low", f"{y}_high"))
    with slide_style():
        drawn = styles_of([to_python_scalar(by, row.get(by)) for row in summary])
        bottom = _log_heights(axis, _heights(summary, y, f"{y}_low"), bottom) if log_y else None
        for number, (name, style) in enumerate(drawn.items()):
            style = (styles or {}).get(name, style)
            rows = [row for row in summary if to_python_scalar(by, row.get(by)) == name and row.get(y) is not None]
            points, style = _points(rows, x, y), style._replace(label=(labels or {}).get(name, style.label))
            offset = min(DODGE, SPREAD / len(drawn)) * (number - (len(drawn) - 1) / 2)
            points = points if band else _dodged(points, offset, log_x)
            _line(axis, points, style, band, bottom)
        _baselines(axis, baselines or {}, baseline_labels)
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.set_title(title)
        if y_format:
            axis.yaxis.set_major_formatter(f"{{x:{y_format}}}")
        if log_x:
            log_ticks(axis, [float(row[x]) for row in summary if row.get(x) is not None])
        draw_legend(axis)
    return figure_of(axis)


def dot_plot(
    axis: "matplotlib.axes.Axes",
    rows: Sequence[Row],
    x: str,
    y: str,
    by: str = "rung",
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    baselines: Mapping[str, Baseline] | None = None,
    styles: Mapping[str, Style] | None = None,
) -> "matplotlib.figure.Figure":
    """Draw one point per category and group on a logarithmic vertical axis.

    Args:
      axis: The axes to draw on.
      rows: The rows, with columns `x`, `y` and `by`. A missing `y` is not drawn. A `y` of 0 or less is drawn on the bottom of
        the axis, as a hollow marker.
      x: The column of the category.
      y: The column of the height.
      by: The column whose values make the groups.
      x_label: The label of the categories.
      y_label: The label of y, with its unit.
      title: The title of the panel.
      baselines: The heights of gray horizontal lines by label.
      styles: The styles of groups that are not rungs. Pass them to give a group the same style in all panels.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: A column is in none of the rows.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, [axis] = new_figure()
      >>> dot_plot(axis, [{"rung": "conv", "shape": "8x8", "ms": 3.0}], "shape", "ms", x_label="shape", y_label="ms")
      <Figure size 1200x500 with 1 Axes>
    """
    check_arguments(axis=axis, x=x, y=y, by=by, x_label=x_label, y_label=y_label, title=title)
    check_arguments(baselines=baselines, styles=styles)
    check_columns("rows", rows, (x, y, by))
    check_numbers("y", rows, (y,))
    with slide_style():
        categories = {name: number for number, name in enumerate(dict.fromkeys(row.get(x) for row in rows))}
        drawn = styles_of([to_python_scalar(by, row.get(by)) for row in rows])
        bottom = _log_heights(axis, _heights(rows, y))
        for number, (name, style) in enumerate(drawn.items()):
            style = (styles or {}).get(name, style)
            members = [row for row in rows if to_python_scalar(by, row.get(by)) == name and row.get(y) is not None]
            offset = 0.5 * ((number + 0.5) / len(drawn) - 0.5)
            positions = np.array([categories[row.get(x)] + offset for row in members])
            heights = np.array(_heights(members, y))
            marks: dict[str, Any] = {"color": style.colour, "marker": style.marker}
            axis.plot(positions[heights > 0], heights[heights > 0], **marks, label=style.label, linestyle="none")
            draw_below(axis, positions[heights <= 0], bottom, **marks)
        _baselines(axis, baselines or {})
        axis.set(xlabel=x_label, ylabel=y_label)
        labels = [str(name) for name in categories]
        axis.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_title(title)
        draw_legend(axis)
    return figure_of(axis)


def _baselines(axis: "matplotlib.axes.Axes", heights: Mapping[str, Baseline], end: str | None = None) -> None:
    """Draw a light grid and gray horizontal lines, with labels in the legend or at one end of the lines."""
    axis.grid(axis="y", color="#E6E6E6")
    axis.set_axisbelow(True)
    draw_baselines(axis.axhline, axis.axhspan, {f"_{label}" if end else label: mean for label, mean in heights.items()})
    for label, height in heights.items() if end else ():
        point = (0.01 if end == "left" else 0.99, height[0] if isinstance(height, Interval) else height)
        axis.annotate(label, point, (0, 3), axis.get_yaxis_transform(), "offset points", ha=end, color="0.35", size=13)


def draw_baselines(line: Callable[..., Any], span: Callable[..., Any], baselines: Mapping[str, Baseline]) -> None:
    """Draw labelled gray lines, and bands for intervals.

    Args:
      line: The method of the axes that draws a line, `axhline` or `axvline`.
      span: The method of the axes that draws a band, `axhspan` or `axvspan`.
      baselines: The positions of the lines by label.
    """
    colour = RUNG_STYLE["linear"].colour
    for (label, position), dashes in zip(baselines.items(), itertools.cycle(("--", ":", "-.", (0, (8, 2, 1, 2, 1, 2))))):
        mean, *ends = position if isinstance(position, Interval) else [position]
        line(mean, color=colour, linestyle=dashes, label=label, zorder=1)
        if ends:
            span(*ends, color=colour, alpha=0.12, linewidth=0, zorder=0)


def styles_of(names: Sequence[Any]) -> dict[Any, Style]:
    """Return the style of each group, in order of first appearance.

    Groups that are not rungs take the styles of the rungs that do not appear.
    """
    names = list(dict.fromkeys(names))
    spare = [style for rung, style in RUNG_STYLE.items() if rung not in names and rung != "linear"]
    spare = itertools.cycle(spare or RUNG_STYLE.values())
    return {name: RUNG_STYLE.get(name) or next(spare)._replace(label=str(name)) for name in names}


def _heights(rows: Sequence[Row], *names: str) -> list[float]:
    """Return the numbers of some columns, without missing cells."""
    return [float(row[name]) for row in rows for name in names if row.get(name) is not None]


def _log_heights(axis: "matplotlib.axes.Axes", heights: Sequence[float], bottom: float | None = None) -> float:
    """Make the y axis logarithmic, and return its bottom. It is fixed if it is given, or if heights lie below it."""
    axis.set_yscale("log")
    lowest = bottom_of(heights) if bottom is None else bottom
    if bottom is not None or min(heights, default=1.0) <= 0:
        axis.set_ylim(bottom=lowest)
    return lowest


def _points(rows: Sequence[Row], x: str, y: str) -> np.ndarray:
    """Return the arrays x, mean, low and high, sorted by x, with NaN for missing cells."""
    columns = [[row.get(name) for row in rows] for name in (x, y, f"{y}_low", f"{y}_high")]
    points = np.array([[float("nan") if cell is None else float(cell) for cell in column] for column in columns])
    return points[:, np.argsort(points[0], kind="stable")]


def _dodged(points: np.ndarray, offset: float, log: bool) -> np.ndarray:
    """Move a line sideways by a fraction of its width, so that the bars of several lines do not overlap."""
    x = np.log(points[0]) if log else points[0]
    x = x + offset * (np.ptp(x) if x.size else 0)
    return np.vstack([np.exp(x) if log else x, points[1:]])


def _line(axis: "matplotlib.axes.Axes", points: np.ndarray, style: Style, band: bool, bottom: float | None) -> None:
    """Draw one line with its intervals, on or above a bottom if there is one."""
    x, mean, low, high = points if bottom is None else np.vstack([points[0], np.maximum(points[1:], bottom)])
    colour = style.colour
    axis.plot(x, mean, linestyle=style.line, color=colour, marker=style.marker, label=style.label, mec="white", mew=0.7)
    if band:
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    else:
        axis.errorbar(x, mean, yerr=(mean - low, high - mean), fmt="none", ecolor=colour, elinewidth=1.8, capsize=4)
    if bottom is not None:
        draw_below(axis, x[points[1] < bottom], bottom, color=colour, marker=style.marker)


def draw_legend(axis: "matplotlib.axes.Axes") -> None:
    """Replace the figure's legend by one with an entry for each label of its panels."""
    figure = axis.figure
    for legend in list(figure.legends):
        legend.remove()
    handles = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    if len(figure.axes) == 1:
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
    else:
        for columns in dict.fromkeys(-(-len(handles) // lines) for lines in range(-(-len(handles) // 5), len(handles) + 1)):
            legend = figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
            if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
                break
            legend.remove()


def save_figure(figure: "matplotlib.figure.Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG. Axes are widened until they show every point."""
    show_all_points(figure)
    with slide_style():
        figure.savefig(path, dpi=DOTS_PER_INCH, format="png")
