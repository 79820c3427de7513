"""What units have learned to look at, as pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convlab.report.drawing import slide_style

if TYPE_CHECKING:
    import matplotlib.axes

FRAME = 1  # pixels between pictures


def filters(axis: "matplotlib.axes.Axes", images: Any, title: str = "", *, columns: int = 8, label: str = "") -> None:
    """Draw the weights of units side by side: white is none, blue positive and orange negative, each unit on its own scale.

    Args:
      axis: Where to draw.
      images: Weights, (units, k, l).
      title: Of the panel.
      columns: Units in a row.
      label: Below the panel.

    Raises:
      ValueError: `images` are not pictures of at least one unit, or `columns` is below 1.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> filters(axis, np.random.default_rng(0).normal(size=(6, 7, 5)), "dense", columns=3)
    """
    images = np.asarray(images, float)
    if images.ndim != 3 or images.size == 0 or columns < 1:
        raise ValueError(f"images has shape {images.shape} and columns is {columns}; needs (units, k, l) and 1 or more")
    units, k, l = images.shape  # noqa: E741
    rows = -(-units // columns)
    sheet = np.full((rows * (k + FRAME) + FRAME, columns * (l + FRAME) + FRAME), np.nan)
    scale = np.abs(images).max((1, 2), keepdims=True)
    for unit, image in enumerate(images / np.where(scale > 0, scale, 1)):
        top, left = (FRAME + place * (side + FRAME) for place, side in zip(divmod(unit, columns), (k, l), strict=True))
        sheet[top : top + k, left : left + l] = image
    with slide_style():
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("weights", ["#D55E00", "#FFFFFF", "#0072B2"]).with_extremes(bad="#BFBFBF")
        axis.imshow(np.ma.masked_invalid(sheet), cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title)
        axis.set(xlabel=label, xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
