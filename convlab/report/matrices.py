"""Figures of dense weight matrices that show which weights are equal."""

from typing import TYPE_CHECKING, Any

import numpy as np

from convlab.report.drawing import slide_style

if TYPE_CHECKING:
    import matplotlib.axes


def matrix_picture(
    axis: "matplotlib.axes.Axes",
    labels: Any,
    title: str = "",
    *,
    grid: tuple[int, int] | None = None,
    x_label: str = "input pixel",
    y_label: str = "output",
) -> None:
    """Draw a dense weight matrix with one colour per distinct weight and white for no weight.

    Args:
      axis: The axes to draw on.
      labels: The matrix of integers, with one row per output and one column per input. An entry is the number of the weight, or
        0 for no weight. Cells are sharp for matrices of up to about 500 rows, the number of dots of a panel.
      title: The title of the panel. The number of distinct weights is written below it.
      grid: The widths of the output's and the input's image. A thin line is drawn after every image row.
      x_label: The label of the columns.
      y_label: The label of the rows.

    Raises:
      ValueError: `labels` is not a matrix of integers of at least 0.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> matrix_picture(axis, [[1, 2, 0], [0, 1, 2]], "convolution")
      >>> axis.get_title()
      'convolution\\n2 weights'
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels has shape {labels.shape} and dtype {labels.dtype}; needs a matrix of integers of at least 0")
    count = np.unique(labels[labels > 0]).size
    with slide_style():
        axis.set_anchor("N")
        axis.imshow(_colours(int(labels.max()))[labels], interpolation="nearest")
        axis.set_title(f"{title}\n{count:,} weight{'s' * (count != 1)}".strip())
        axis.set(xlabel=x_label, ylabel=y_label, xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
        for draw, width, length in zip((axis.axhline, axis.axvline), grid or (), labels.shape, strict=False):
            for edge in range(width, length, width):
                draw(edge - 0.5, color="black", linewidth=0.5, alpha=0.35)


def _colours(count: int) -> np.ndarray:
    """Return the colours of the weights in sRGB: white for no weight, then one colour per weight.

    The hues of consecutive weights differ by at least a fifth of the circle. The first nine weights have hues 40 degrees apart
    and three lightnesses. The others are random, since a regular pattern of colours could suggest equal weights where there are
    none. The colour of a weight depends on its number only.

    Reference: Ottosson, A perceptual color space for image processing, 2020.
    """
    k, random = np.arange(count), np.random.default_rng(0).random((count, 2)).T
    hue = 2 * np.pi * np.cumsum(np.where(k < 9, 4 / 9, 0.2 + 0.6 * random[0]))
    lightness = 0.48 + 0.34 * np.where(k < 9, k % 3 / 2, random[1])
    chroma = 0.14
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
    lms = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    light = np.clip(linear @ (lms @ lab) ** 3, 0, 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.concatenate([np.ones((1, 3)), srgb.T])
