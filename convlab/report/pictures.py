"""Figures of the weights of units, of feature maps, and of heat maps over images."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convlab import check
from convlab.geometry import as_integer
from convlab.report.arguments import check_arguments
from convlab.report.drawing import RUNG_STYLE, figure_of, slide_style

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

FRAME = 1  # the number of pixels between images
ROUNDING = 1e-5  # the distance by which pixels may lie outside of 0 to 1
NEGLIGIBLE = 1e-6  # numbers of heat maps up to this one, and weights up to this share of the largest, are drawn as zero
NEGATIVE, POSITIVE = RUNG_STYLE["dense"].colour, RUNG_STYLE["conv"].colour


def heatmap(
    axis: "matplotlib.axes.Axes", image: Any, values: Any, title: str = "", *, label: str, vmax: float | None = None
) -> "matplotlib.figure.Figure":
    """Draw a heat map over an image, with positive numbers in blue and negative ones in orange.

    Larger absolute values have a stronger colour. The colour scale includes negative numbers only if there are any below
    rounding. If no number is above 1e-6, all are taken for rounding errors of zero, unless `vmax` is given.

    Args:
      axis: The axes to draw on.
      image: The image, (k, l), (k, l, 1) or (k, l, 3), with pixels from 0 to 1. It is drawn in gray.
      values: The values of the heat map, (i, j): one number per pixel, or a coarser grid that covers the whole image.
      title: The title of the panel.
      label: The label of the colour scale, with its unit.
      vmax: The absolute value with the full colour. If None, the largest one of the heat map.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: `image` or `values` has the wrong shape or is not finite, or `image` has pixels outside of 0 to 1.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> heatmap(axis, np.ones((6, 8)) / 2, np.eye(3, 4), "Grad-CAM", label="share of the score")
      <Figure size 1200x500 with 2 Axes>
    """
    check_arguments(axis=axis, title=title, label=label, vmax=vmax)
    image, values = check.as_floats("image", image, masks=True), check.as_floats("values", values, masks=True)
    if image.ndim not in (2, 3) or values.ndim != 2 or not (image.size and values.size):
        raise ValueError(f"image has shape {image.shape} and values {values.shape}; needs (k, l) or (k, l, c), and (i, j)")
    if not (np.isfinite(image).all() and np.isfinite(values).all()):
        raise ValueError("image or values holds NaN or inf; needs finite numbers, since these have no colour")
    if image.ndim == 3 and image.shape[-1] not in (1, 3):
        raise ValueError(f"image has {image.shape[-1]} channels; needs 1 or 3")
    if image.min() < -ROUNDING or image.max() > 1 + ROUNDING:
        raise ValueError(f"image has pixels from {image.min()} to {image.max()}; needs 0 to 1: divide 8-bit pixels by 255")
    gray = np.clip(image.mean(-1) if image.ndim == 3 else image, 0, 1)
    largest = np.abs(values).max()
    scale = vmax or (largest if largest > NEGLIGIBLE else 1.0)
    extent = (-0.5, gray.shape[1] - 0.5, gray.shape[0] - 0.5, -0.5)
    with slide_style():
        from matplotlib.colors import LinearSegmentedColormap, to_rgba

        least = -scale if values.min() < -NEGLIGIBLE * scale else 0
        stops = (
            [(0, NEGATIVE, 0.85), (0.5, NEGATIVE, 0), (0.5, POSITIVE, 0), (1, POSITIVE, 0.85)]
            if least
            else [(0, POSITIVE, 0), (1, POSITIVE, 0.85)]
        )
        colours = LinearSegmentedColormap.from_list(
            "heatmap", [(stop, to_rgba(colour, alpha)) for stop, colour, alpha in stops]
        )
        axis.imshow(gray, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
        drawn = axis.imshow(values, cmap=colours, vmin=least, vmax=scale, interpolation="nearest", extent=extent)
        bar = axis.figure.colorbar(drawn, ax=axis, shrink=0.8)
        bar.set_label(label)
        axis.set_title(title)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure_of(axis)


def filter_grid(
    axis: "matplotlib.axes.Axes", images: Any, title: str = "", *, columns: int = 8, label: str = ""
) -> "matplotlib.figure.Figure":
    """Draw the weights of units side by side, each unit on a scale of its own.

    Positive weights are blue, negative ones orange, and zero is white. A unit whose weights are below 1e-6 of the largest
    weight of all units is taken for rounding errors of zero.

    Args:
      axis: The axes to draw on.
      images: The weights, (units, k, l).
      title: The title of the panel.
      columns: The number of units in a row.
      label: The label below the panel.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: `images` has the wrong shape or no unit, or `columns` is below 1.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> filter_grid(axis, np.random.default_rng(0).normal(size=(6, 7, 5)), "dense", columns=3)
      <Figure size 1200x500 with 1 Axes>
    """
    check_arguments(axis=axis, title=title, label=label)
    images, columns = check.as_floats("images", images, masks=True), as_integer("columns", columns)
    if images.ndim != 3 or images.size == 0:
        raise ValueError(f"images has shape {images.shape}; needs (units, k, l)")
    units, k, l = images.shape  # noqa: E741
    rows = -(-units // columns)
    check.shape_fits("the picture of columns", rows * (k + FRAME) + FRAME, columns * (l + FRAME) + FRAME, itemsize=16)
    sheet = np.full((rows * (k + FRAME) + FRAME, columns * (l + FRAME) + FRAME), np.nan)
    scale = np.abs(images).max((1, 2), keepdims=True)
    for unit, image in enumerate(images / np.where(scale > NEGLIGIBLE * scale.max(), scale, np.inf)):
        top, left = (FRAME + index * (side + FRAME) for index, side in zip(divmod(unit, columns), (k, l), strict=True))
        sheet[top : top + k, left : left + l] = image
    with slide_style():
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("weights", [NEGATIVE, "#FFFFFF", POSITIVE]).with_extremes(bad="#BFBFBF")
        axis.imshow(np.ma.masked_invalid(sheet), cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title)
        axis.set(xlabel=label, xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure_of(axis)


def feature_map_grid(
    axis: "matplotlib.axes.Axes", maps: Any, title: str = "", *, columns: int = 8, label: str = ""
) -> "matplotlib.figure.Figure":
    """Draw the feature maps of one image side by side, each channel on a scale of its own.

    The colours are those of `filter_grid`.

    Args:
      axis: The axes to draw on.
      maps: The output of a layer for one image, (i, j, d).
      title: The title of the panel.
      columns: The number of channels in a row.
      label: The label below the panel.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: `maps` has the wrong shape, or `columns` is below 1.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> feature_map_grid(axis, np.random.default_rng(0).normal(size=(7, 5, 6)), "first layer", columns=3)
      <Figure size 1200x500 with 1 Axes>
    """
    maps = check.as_floats("maps", maps, masks=True)
    if maps.ndim != 3 or maps.size == 0:
        raise ValueError(f"maps has shape {maps.shape}; needs (i, j, d)")
    return filter_grid(axis, np.moveaxis(maps, -1, 0), title, columns=columns, label=label)
