"""Axes of figures: logarithmic ticks, points below a logarithmic axis, and limits that show every point."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

DIGIT_WIDTH = 0.11
"""The width of a digit in a tick label, in inches."""
BELOW = "below the axis"
"""The label of points that lie below a logarithmic axis, in the legend."""
MARGIN = 0.03
"""The margin around points for which axes are widened, as a fraction of their range."""
NO_POINTS, CAPS = (None, "", " ", "None", "none"), ("|", "_")


def log_ticks(axis: "matplotlib.axes.Axes", values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with ticks at the values themselves unless their labels would overlap."""
    axis.set_xscale("log")
    sizes = np.unique(values)
    labels = [f"{size:,.0f}" if size == round(size) else f"{size:g}" for size in sizes]
    panel = axis.get_subplotspec()
    inches = 0.75 * axis.figure.bbox.width / axis.figure.dpi / (panel.get_gridspec().ncols if panel else 1)
    gaps = np.diff(np.log(sizes)) / np.log(sizes[-1] / sizes[0]) * inches / DIGIT_WIDTH if len(sizes) > 1 else []
    if all(gap > (len(left) + len(right)) / 2 + 1 for gap, left, right in zip(gaps, labels, labels[1:], strict=False)):
        axis.set_xticks(sizes, labels)
        axis.minorticks_off()


def bottom_of(heights: Sequence[float]) -> float:
    """Return a bottom for a logarithmic axis: half of the least positive height, or 1 if there is none.

    Example:
      >>> bottom_of([0.0, 0.5, 0.02])
      0.01
    """
    return min((float(height) for height in heights if height > 0), default=2.0) / 2


def draw_below(axis: "matplotlib.axes.Axes", x: Any, bottom: float, **style: Any) -> None:
    """Draw points that lie below a logarithmic axis as hollow markers on its bottom, with an entry in the legend.

    Args:
      axis: The axes to draw on.
      x: The horizontal positions of the points.
      bottom: The bottom of the axis.
      **style: The colour and the marker of the points.
    """
    if len(x):
        hollow: dict[str, Any] = {"linestyle": "none", "mfc": "white", "mew": 2}
        axis.plot(x, [bottom] * len(x), **style, **hollow, clip_on=False, zorder=3)
        axis.plot([], [], color="0.3", marker="o", label=BELOW, **hollow)


def show_all_points(figure: "matplotlib.figure.Figure") -> None:
    """Widen the axes of a figure until no marker lies outside of them.

    Lines without markers and the ends of intervals may leave the axes. On a logarithmic axis a value that is not above 0 is
    not shown.

    Args:
      figure: The figure.
    """
    for axis in figure.axes:
        points = [line for line in axis.lines if line.get_marker() not in (*NO_POINTS, *CAPS)]
        points = [line for line in points if line.get_transform().contains_branch(axis.transData)]
        for name in ("x", "y"):
            scale, limits = getattr(axis, f"get_{name}scale")(), getattr(axis, f"get_{name}lim")()
            values = np.concatenate([[], *(np.asarray(getattr(line, f"get_{name}data")(), float).ravel() for line in points)])
            values = values[np.isfinite(values) & ((values > 0) | (scale != "log"))]
            if len(values):
                getattr(axis, f"set_{name}lim")(_widened(limits, float(values.min()), float(values.max()), scale == "log"))


def _widened(limits: tuple[float, float], least: float, most: float, log: bool) -> tuple[float, float]:
    """Return limits that contain two values with a margin, in the same direction, and unchanged where they do already."""
    low, high = sorted(limits)
    margin = MARGIN * (np.log(max(high, most) / min(low, least)) if log else max(high, most) - min(low, least))
    low = low if low <= least else least / np.exp(margin) if log else least - margin
    high = high if high >= most else most * np.exp(margin) if log else most + margin
    return (low, high) if limits[0] <= limits[1] else (high, low)
