"""Pictures in one style, readable on a slide: every rung has its own colour and marker everywhere."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convlab.extras import require
from convlab.report.rows import Row, check_columns, plain
from convlab.report.seeds import Interval

Baseline = float | Interval

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


class Style(NamedTuple):
    """How one rung is drawn and called in pictures."""

    label: str
    colour: str
    marker: str
    line: str = "-"


RUNG_STYLE = {
    "dense": Style("dense", "#D55E00", "o"),
    "global_conv": Style("shared, not local", "#CC79A7", "P"),
    "locally_connected": Style("locally connected", "#E69F00", "s"),
    "tiled": Style("tiled", "#009E73", "^"),
    "low_rank": Style("low rank", "#56B4E9", "D"),
    "conv": Style("convolution", "#0072B2", "v"),
    "linear": Style("linear", "#767676", "X", "--"),
}
"""Freest first, in colours that colour-blind readers tell apart (Okabe and Ito, 2008); gray is for null baselines."""

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
DODGE = 0.018
"""Share of the horizontal range by which neighbouring lines stand apart, at most."""
SPREAD = 0.07
"""Share of the horizontal range that the points of all lines at one place cover, at most."""
DIGIT_WIDTH = 0.11
"""Inches, of a digit below a tick."""


@contextlib.contextmanager
def slide_style() -> Iterator[None]:
    with require("matplotlib").rc_context(SLIDE):
        yield


def new_figure(
    panels: int = 1, *, rows: int = 1, size: tuple[float, float] = (12.0, 5.0)
) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """Make a figure that never opens a window and leaves matplotlib's settings alone.

    Args:
      panels: Number of pictures.
      rows: Rows they fill, left to right, then down.
      size: Width and height in inches.

    Raises:
      ValueError: `panels` or `rows` is below 1.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, axes = new_figure(panels=3)
      >>> len(axes)
      3
    """
    if min(panels, rows) < 1:
        raise ValueError(f"panels is {panels} and rows is {rows} but each must be at least 1")
    with slide_style():
        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        axes = [figure.add_subplot(rows, -(-panels // rows), panel + 1) for panel in range(panels)]
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=SLIDE["xtick.labelsize"])
    return figure, axes


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
    band: bool = False,
    baselines: Mapping[str, Baseline] | None = None,
    labels: Mapping[str, str] | None = None,
    styles: Mapping[str, Style] | None = None,
) -> None:
    """Draw the mean of every group against `x`, with its interval; one legend outside the panels serves them all.

    Args:
      axis: Where to draw.
      summary: Rows with x, y, y_low, y_high (as `summarise` makes them); ends that are absent or NaN are not drawn.
      x: Name of the horizontal quantity.
      y: Name of the averaged quantity.
      by: Name that makes the lines; names of rungs get their own style.
      x_label: Says what x is, with its unit.
      y_label: Says what y is, with its unit.
      title: Of the panel.
      y_format: Format specification of the numbers on the vertical axis, e.g. ".0%".
      log_x: Space x logarithmically.
      band: Draw intervals as bands rather than bars.
      baselines: Heights of gray horizontal lines by label, e.g. {"chance": 0.1}; an `Interval` is shaded.
      labels: What to call a group in the legend, e.g. {"linear": "linear classifier"}.
      styles: Of groups that are no rungs, so that a group looks the same in all panels.

    Raises:
      ValueError: No row has one of the names.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, [axis] = new_figure()
      >>> rows = [{"rung": "conv", "size": n, "accuracy": 1 - 1 / n} for n in (10, 100)]
      >>> curves(axis, rows, "size", "accuracy", x_label="training images", y_label="test accuracy", log_x=True)
    """
    check_columns(summary, (x, y, by))
    with slide_style():
        drawn = styles_of([plain(by, row.get(by)) for row in summary])
        for place, (name, style) in enumerate(drawn.items()):
            style = (styles or {}).get(name, style)
            rows = [row for row in summary if plain(by, row.get(by)) == name and row.get(y) is not None]
            points, style = _points(rows, x, y), style._replace(label=(labels or {}).get(name, style.label))
            apart = min(DODGE, SPREAD / len(drawn)) * (place - (len(drawn) - 1) / 2)
            _line(axis, points if band else _dodged(points, apart, log_x), style, band)
        _baselines(axis, baselines or {})
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.set_title(title)
        if y_format:
            axis.yaxis.set_major_formatter(f"{{x:{y_format}}}")
        if log_x:
            _log_ticks(axis, [float(row[x]) for row in summary if row.get(x) is not None])
        draw_legend(axis)


def points(
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
) -> None:
    """Draw one point per category and group, on a logarithmic height: ratios and sizes that differ by orders of magnitude.

    Args:
      axis: Where to draw.
      rows: Rows with x, y and by; a height that is absent is not drawn.
      x: Name of the category.
      y: Name of the height, above 0.
      by: Name that makes the groups.
      x_label: Says what the categories are.
      y_label: Says what y is, with its unit.
      title: Of the panel.
      baselines: Heights of gray horizontal lines by label.
      styles: Of groups that are no rungs, so that a group looks the same in all panels.

    Raises:
      ValueError: No row has one of the names.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure, [axis] = new_figure()
      >>> points(axis, [{"rung": "conv", "shape": "8x8", "ms": 3.0}], "shape", "ms", x_label="shape", y_label="ms")
    """
    check_columns(rows, (x, y, by))
    with slide_style():
        places = {name: place for place, name in enumerate(dict.fromkeys(row.get(x) for row in rows))}
        drawn = styles_of([plain(by, row.get(by)) for row in rows])
        for number, (name, style) in enumerate(drawn.items()):
            style = (styles or {}).get(name, style)
            mine = [row for row in rows if plain(by, row.get(by)) == name and row.get(y)]
            shift = 0.5 * ((number + 0.5) / len(drawn) - 0.5)
            where = [places[row.get(x)] + shift for row in mine]
            heights = [float(row[y]) for row in mine]
            axis.plot(where, heights, color=style.colour, marker=style.marker, label=style.label, linestyle="none")
        _baselines(axis, baselines or {})
        axis.set(xlabel=x_label, ylabel=y_label, yscale="log")
        axis.set_xticks(range(len(places)), [str(name) for name in places], rotation=60, ha="right", rotation_mode="anchor")
        axis.set_title(title)
        draw_legend(axis)


def _baselines(axis: "matplotlib.axes.Axes", heights: Mapping[str, Baseline]) -> None:
    """Draw what heights are compared with: a pale grid, and gray lines by label."""
    axis.grid(axis="y", color="#E6E6E6")
    axis.set_axisbelow(True)
    draw_baselines(axis.axhline, axis.axhspan, heights)


def draw_baselines(line: Callable[..., Any], span: Callable[..., Any], baselines: Mapping[str, Baseline]) -> None:
    """Draw gray lines by label, and intervals as bands, by the axis's own functions for lines and bands of one direction."""
    colour = RUNG_STYLE["linear"].colour
    for (label, at), dashes in zip(baselines.items(), itertools.cycle(("--", ":", "-.", (0, (8, 2, 1, 2, 1, 2))))):
        mean, *ends = at if isinstance(at, Interval) else [at]
        line(mean, color=colour, linestyle=dashes, label=label, zorder=1)
        if ends:
            span(*ends, color=colour, alpha=0.12, linewidth=0, zorder=0)


def styles_of(names: Sequence[Any]) -> dict[Any, Style]:
    """Styles by group in order of appearance; groups that are no rungs take those of the rungs that are not there."""
    names = list(dict.fromkeys(names))
    spare = [style for rung, style in RUNG_STYLE.items() if rung not in names and rung != "linear"]
    spare = itertools.cycle(spare or RUNG_STYLE.values())
    return {name: RUNG_STYLE.get(name) or next(spare)._replace(label=str(name)) for name in names}


def _points(rows: Sequence[Row], x: str, y: str) -> np.ndarray:
    """Lines x, mean, low, high by growing x; NaN for what is not there."""
    cells = [[row.get(name) for row in rows] for name in (x, y, f"{y}_low", f"{y}_high")]
    points = np.array([[float("nan") if cell is None else float(cell) for cell in line] for line in cells])
    return points[:, np.argsort(points[0], kind="stable")]


def _dodged(points: np.ndarray, share: float, log: bool) -> np.ndarray:
    """Move a line sideways by a share of its width, so that the bars of several lines do not cover each other."""
    x = np.log(points[0]) if log else points[0]
    x = x + share * (np.ptp(x) if x.size else 0)
    return np.vstack([np.exp(x) if log else x, points[1:]])


def _line(axis: "matplotlib.axes.Axes", points: np.ndarray, style: Style, band: bool) -> None:
    x, mean, low, high = points
    colour = style.colour
    axis.plot(x, mean, linestyle=style.line, color=colour, marker=style.marker, label=style.label, mec="white", mew=0.7)
    if band:
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    else:
        axis.errorbar(x, mean, yerr=(mean - low, high - mean), fmt="none", ecolor=colour, elinewidth=1.8, capsize=4)


def _log_ticks(axis: "matplotlib.axes.Axes", values: Sequence[float]) -> None:
    """Space x logarithmically and mark the sizes that were run, if their numbers do not run into one another."""
    axis.set_xscale("log")
    sizes = np.unique(values)
    labels = [f"{size:,.0f}" if size == round(size) else f"{size:g}" for size in sizes]
    place = axis.get_subplotspec()
    inches = 0.75 * axis.figure.bbox.width / axis.figure.dpi / (place.get_gridspec().ncols if place else 1)
    gaps = np.diff(np.log(sizes)) / np.log(sizes[-1] / sizes[0]) * inches / DIGIT_WIDTH if len(sizes) > 1 else []
    if all(gap > (len(left) + len(right)) / 2 + 1 for gap, left, right in zip(gaps, labels, labels[1:], strict=False)):
        axis.set_xticks(sizes, labels)
        axis.minorticks_off()


def draw_legend(axis: "matplotlib.axes.Axes") -> None:
    """Draw the figure's only legend anew: one entry per label of any panel."""
    figure = axis.figure
    for legend in list(figure.legends):
        legend.remove()
    handles = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(figure.axes) == 1:
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
    else:
        for columns in dict.fromkeys(-(-len(handles) // lines) for lines in range(-(-len(handles) // 5), len(handles) + 1)):
            legend = figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
            if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
                break
            legend.remove()


def save_figure(figure: "matplotlib.figure.Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG."""
    with slide_style():
        figure.savefig(path, dpi=DOTS_PER_INCH, format="png")
