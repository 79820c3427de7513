"""Figures of a layer as its sheet: kernels side by side, or maps of what the units prefer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convlab import check
from convlab.choices import one_of
from convlab.report.arguments import check_arguments
from convlab.report.drawing import figure_of, slide_style
from convlab.report.pictures import FRAME, NEGATIVE, NEGLIGIBLE, POSITIVE

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

KINDS = ("kernels", "orientation", "value", "class")
NONE = "#BFBFBF"  # the colour of frames, and of units without orientation or class
DEGREES = (0, 45, 90, 135, 180)
MOST_CLASSES = 20  # the number of colours that can be told apart


def sheet(
    axis: "matplotlib.axes.Axes",
    units: Any,
    title: str = "",
    *,
    kind: str = "kernels",
    label: str = "",
    classes: Sequence[str] | None = None,
    bar: bool = True,
) -> "matplotlib.figure.Figure":
    """Draw the units of a layer at their places on the sheet, as `measure.arrange_on_sheet` makes it.

    | kind | units | picture |
    |---|---|---|
    | "kernels" | (rows, columns, a, b, c), c of 1 or 3 | kernels side by side, each on a scale of its own |
    | "orientation" | (rows, columns), radians | hues that repeat after 180 degrees, as orientations do |
    | "value" | (rows, columns), such as spatial frequencies | dark to bright |
    | "class" | (rows, columns), integers | one colour per class |

    Kernels of one channel have positive weights in blue, negative ones in orange and zero in white. Those of three channels
    have colours, with zero in gray. Units without an orientation or a class, which are nan or negative, are gray.

    Args:
      axis: The axes to draw on.
      units: The kernels or the map, as the table says.
      title: The title of the panel.
      kind: The quantity that the sheet shows.
      label: The label of the colour scale with its unit; of kernels, the label below the panel.
      classes: The names of the classes. If None, their numbers.
      bar: Whether to draw the colour scale of a map.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: The kind is unknown, or `units` has another shape than it needs, or more than 20 classes.
      TypeError: An argument has the wrong type.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, axes = new_figure(2)
      >>> random = np.random.default_rng(0)
      >>> figure = sheet(axes[0], random.normal(size=(6, 8, 5, 5, 1)), "kernels")
      >>> sheet(axes[1], random.uniform(0, np.pi, (6, 8)), "map", kind="orientation", label="degrees")
      <Figure size 1200x500 with 3 Axes>
    """
    check_arguments(axis=axis, title=title, label=label)
    one_of("kind", kind, KINDS)
    check.flag("bar", bar)
    names = None if classes is None else [check.text("classes", name) for name in check.sequence("classes", classes, "names")]
    units = check.as_floats("units", units)
    if units.ndim != (5 if kind == "kernels" else 2) or not units.size:
        needed = "kernels (rows, columns, a, b, c)" if kind == "kernels" else "a map (rows, columns)"
        raise ValueError(f"units has shape {units.shape}; needs {needed} to draw kind {kind!r}")
    with slide_style():
        if kind == "kernels":
            _draw_kernels(axis, units)
        else:
            drawn, ticks, texts = _draw_map(axis, units, kind, names)
            if bar:
                scale = axis.figure.colorbar(drawn, ax=axis, shrink=0.8)
                scale.set_label(label)
                if ticks is not None:
                    scale.set_ticks(ticks, labels=texts)
        axis.set_title(title)
        axis.set(xlabel=label if kind == "kernels" else "", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure_of(axis)


def _draw_kernels(axis: "matplotlib.axes.Axes", units: np.ndarray) -> None:
    """Draw kernels side by side, with frames between them."""
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns, a, b, c = units.shape
    if c not in (1, 3) or not np.isfinite(units).all():
        raise ValueError(f"units has kernels of {c} channels, or values that are not finite; needs 1 or 3, and finite ones")
    check.shape_fits("the picture of units", rows * (a + FRAME), columns * (b + FRAME), c, itemsize=16)
    scale = np.abs(units).max((2, 3, 4), keepdims=True)
    weights = (1 + units / np.where(scale > NEGLIGIBLE * scale.max(), scale, np.inf)) / 2
    around = ((0, 0), (0, 0), (0, FRAME), (0, FRAME), (0, 0))
    framed = (
        np.pad(weights, around, constant_values=np.nan).swapaxes(1, 2).reshape(rows * (a + FRAME), columns * (b + FRAME), c)
    )
    framed = np.pad(framed, ((FRAME, 0), (FRAME, 0), (0, 0)), constant_values=np.nan)
    colours = LinearSegmentedColormap.from_list("weights", [NEGATIVE, "#FFFFFF", POSITIVE]).with_extremes(bad=NONE)
    picture = np.ma.masked_invalid(framed[..., 0]) if c == 1 else np.nan_to_num(framed, nan=1.0)
    axis.imshow(picture, cmap=colours, vmin=0, vmax=1, interpolation="nearest")


def _draw_map(
    axis: "matplotlib.axes.Axes", units: np.ndarray, kind: str, names: list[str] | None
) -> tuple[Any, Sequence[float] | None, Sequence[str] | None]:
    """Draw a map, and return its picture with the ticks and texts of its colour scale."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    def draw(values: np.ndarray, colours: Any, **limits: Any) -> Any:
        masked = np.ma.masked_invalid(values)
        return axis.imshow(masked, cmap=colours.with_extremes(bad=NONE), interpolation="nearest", **limits)

    if kind == "orientation":
        drawn = draw(np.degrees(units) % 180, colormaps["hsv"], vmin=0, vmax=180)
        return drawn, DEGREES, [f"{degree}\N{DEGREE SIGN}" for degree in DEGREES]
    if kind == "value":
        return draw(units, colormaps["viridis"]), None, None
    largest = np.nanmax(units, initial=-1)
    count = len(names) if names is not None else int(min(largest, MOST_CLASSES)) + 1
    if not np.array_equal(units, np.round(units)) or not largest < count <= MOST_CLASSES:
        raise ValueError(
            f"units holds numbers up to {largest}; needs integers below the number of classes, which is at most {MOST_CLASSES}"
        )
    palette: Any = colormaps["tab10" if count <= 10 else "tab20"]
    colours = ListedColormap(palette.colors[: max(count, 1)])
    drawn = draw(np.where(units < 0, np.nan, units), colours, vmin=-0.5, vmax=max(count, 1) - 0.5)
    return drawn, range(count), names or [str(number) for number in range(count)]
