"""Figures of dense weight matrices that show which weights are equal."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from convlab import check
from convlab.choices import one_of, shown
from convlab.convert import matrix_entries
from convlab.geometry import Space, Window, as_integer
from convlab.report.arguments import check_arguments
from convlab.report.drawing import figure_of, new_figure, slide_style
from convlab.rungs import RUNGS, Layout, Shared, tying_texts, with_rung

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

WIDTH, TITLE = 6.0, 0.6  # of a figure, and the additional height of title and axis label, in inches


def matrix_picture(
    axis: "matplotlib.axes.Axes",
    labels: Any,
    title: str = "",
    *,
    grid: tuple[int, int] | None = None,
    x_label: str = "input pixel",
    y_label: str = "output",
) -> "matplotlib.figure.Figure":
    """Draw a dense weight matrix with one colour per distinct weight and white for no weight.

    Args:
      axis: The axes to draw on.
      labels: The matrix of integers, with one row per output and one column per input. An entry is the number of the weight, or
        0 for no weight. Cells are sharp for matrices of up to about 500 rows, the number of dots of a panel.
      title: The title of the panel. The number of distinct weights is written below it.
      grid: The widths of the output's and the input's image. A thin line is drawn after every image row.
      x_label: The label of the columns.
      y_label: The label of the rows.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: `labels` is not a matrix of integers of at least 0, or `grid` is not two positive integers.
      TypeError: An argument has the wrong type.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, [axis] = new_figure()
      >>> matrix_picture(axis, [[1, 2, 0], [0, 1, 2]], "convolution")
      <Figure size 1200x500 with 1 Axes>
      >>> axis.get_title()
      'convolution\\n2 weights'
    """
    check_arguments(axis=axis, title=title, x_label=x_label, y_label=y_label)
    try:
        labels = np.asarray(labels)
    except ValueError:
        raise ValueError(f"labels must be a matrix of integers, got {shown(labels)}") from None
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels has shape {labels.shape} and dtype {labels.dtype}; needs a matrix of integers of at least 0")
    widths = [] if grid is None else [as_integer("grid", width) for width in check.sequence("grid", grid, "two integers")]
    if grid is not None and len(widths) != 2:
        raise ValueError(f"grid must be the widths of the output's and of the input's image, got {shown(grid)}")
    check.shape_fits("the colours of labels", int(labels.max()), 3, itemsize=64)
    count = np.unique(labels[labels > 0]).size
    with slide_style():
        axis.set_anchor("N")
        axis.imshow(_colours(int(labels.max()))[labels], interpolation="nearest")
        axis.set_title(f"{title}\n{count:,} weight{'s' * (count != 1)}".strip())
        axis.set(xlabel=x_label, ylabel=y_label, xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
        for draw, width, length in zip((axis.axhline, axis.axvline), widths, labels.shape, strict=False):
            for edge in range(width, length, width):
                draw(edge - 0.5, color="black", linewidth=0.5, alpha=0.35)
    return figure_of(axis)


def dense_matrix(
    window: Window,
    space: Space,
    tying: str = "conv",
    *,
    channels: tuple[int, int] = (1, 1),
    groups: int = 1,
    transposed: bool = False,
    axis: "matplotlib.axes.Axes | None" = None,
    title: str | None = None,
    **parameters: Any,
) -> "matplotlib.figure.Figure":
    """Draw the dense matrix of a layer at any rung, with one colour per weight.

    Equal weights have equal colours. Cells that no weight reaches, such as those of dead taps, are white. The number of weights
    is written below the title. Where several taps read one pixel, every sum of weights has a colour of its own.

    Args:
      window: The pixels that each position reads. `Window.full(space)` gives a layer that is not local.
      space: The number of input pixels along each spatial axis.
      tying: The rung: "conv", "symmetric", "tiled", "low_rank", "locally_connected" or "dense".
      channels: The numbers of input and output channels. Rows are ordered by position, then channel.
      groups: The number of groups of channels, on rungs that support groups.
      transposed: Whether to draw the transposed layer.
      axis: The axes to draw on. If None, those of a new figure.
      title: The title. If None, the rung.
      **parameters: The parameters of the rung: `period` of "tiled" and `rank` of "low_rank".

    Returns:
      The figure.

    Raises:
      ValueError: The rung is unknown, or the window does not fit on `space`.
      MemoryError: The matrix would not fit into the free memory.
      ImportError: matplotlib is not installed.

    Example:
      >>> figure = dense_matrix(Window(3), (4, 5), "tiled", period=2)
      >>> figure.axes[0].get_title()
      'tiled, period 2x2\\n36 weights'
    """
    one_of("tying", tying, RUNGS)
    if title is not None:
        check.text("title", title)
    pair = [as_integer("channels", count) for count in check.sequence("channels", channels, "two integers")]
    if len(pair) != 2:
        raise ValueError(f"channels must be the numbers of input and output channels, got {shown(channels)}")
    layout = Layout(Shared(), check.window(window), *pair, space=space, groups=groups, transposed=transposed)
    layout = with_rung(layout, tying, **parameters)
    labels = weight_numbers(layout)
    if axis is None:
        rows, columns = labels.shape
        _, [axis] = new_figure(size=(WIDTH, min(max(WIDTH * rows / columns, WIDTH / 5), 2 * WIDTH) + TITLE))
    figure = matrix_picture(axis, labels, grid=_image_rows(layout))
    count = sum(map(math.prod, layout.tying.shapes(layout).values())) - layout.tying.dead(layout)
    name = ", ".join([tying.replace("_", " "), *tying_texts(layout)]) if title is None else title
    axis.set_title(f"{name}\n{count:,} weight{'s' * (count != 1)}".strip())
    return figure


def _image_rows(layout: Layout) -> tuple[int, int] | None:
    """Return the rows and columns of the matrix for one image row, or None without image rows."""
    if layout.ndim != 2:
        return None
    output, pixels = layout.positions[1] * layout.out_features, layout.where[1][1] * layout.in_features
    return (pixels, output) if layout.transposed else (output, pixels)


def weight_numbers(layout: Layout) -> np.ndarray:
    """Number the weights in the dense matrix of a layer, from 1: int, (rows, columns).

    Entries that are equal for all values of the weights have the same number. Entries that are always 0 have the number 0.

    Args:
      layout: The description of the layer, with its number of pixels.

    Raises:
      MemoryError: The matrix would not fit into the free memory.

    Example:
      >>> weight_numbers(Layout(Shared(), Window(3), 1, 1, space=(3,)))
      array([[2, 3, 0],
             [1, 2, 3],
             [0, 1, 2]])
    """
    (window, space), (first, *others) = layout.where, (shapes := layout.tying.shapes(layout))
    cells = math.prod(layout.positions) * layout.out_features, math.prod(space) * layout.in_features
    check.shape_fits("the picture of the matrix of window on space", *cells, itemsize=32)
    random = np.random.default_rng(0)
    arrays = {first: np.arange(1.0, 1 + math.prod(shapes[first])).reshape(shapes[first])}
    arrays |= {name: random.normal(size=shapes[name]) for name in others}
    arrays = {name: check.array(name, array.astype(np.float32)) for name, array in arrays.items()}
    by_pixel = layout.tying.by_pixel
    kernels = np.asarray(arrays[first] if by_pixel else layout.tying.kernels(arrays, layout))
    names, numbers = np.unique(kernels, return_inverse=True)  # the weights in their order
    entries = matrix_entries(numbers.reshape(kernels.shape), None if by_pixel else window, space, layout.groups)
    values, rows, columns, shape = entries.transpose() if layout.transposed else entries
    cells, cell = np.unique(rows * shape[1] + columns, return_inverse=True)
    sums, least = np.zeros(len(cells), np.int64), np.full(len(cells), len(names))
    np.add.at(sums, cell, random.integers(1, 2**62, len(names))[values])  # equal if the same weights are added
    np.minimum.at(least, cell, values)
    _, first_cell, group = np.unique(sums, return_index=True, return_inverse=True)
    labels = np.zeros(shape, int)
    labels.flat[cells] = 1 + np.argsort(np.argsort(least[first_cell], kind="stable"))[group]
    return labels


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
