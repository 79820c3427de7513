"""Gather the windows of images, which every rung multiplies with its kernel and pooling reduces.

Windows are built from slices, one axis at a time, and every derivative is a sum of slices. An axis of k taps and stride s costs
ceil(k / s) slices: without overlap the windows are a reshaped image. There are no multiplications, so an infinite pixel affects
only the windows that contain it.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Size, Window, as_integer, as_size


def extend(x: Array, axes: tuple[Axis, ...], start: int, fill: float = 0.0) -> Array:
    """Pad images so that all windows lie inside. Their spatial axes begin at axis `start`."""
    padded = [axis.low + axis.pixels + axis.high for axis in axes]
    check.shape_fits(
        "images padded for window", *x.shape[:start], *padded, *x.shape[start + len(axes) :], itemsize=x.dtype.itemsize
    )
    for mode in sorted({axis.mode for axis in axes if axis.low or axis.high}):
        pads = [(axis.low, axis.high) if axis.mode == mode else (0, 0) for axis in axes]
        pads = [(0, 0)] * start + pads + [(0, 0)] * (x.ndim - start - len(axes))
        if mode == "zero":
            x = lax.pad(x, jnp.asarray(fill, x.dtype), [(*pad, 0) for pad in pads])
        else:
            x = jnp.pad(x, pads, mode=mode)
    return x


def taps(x: Array, axis: Axis, number: int) -> Iterator[Array]:
    r"""Yield, tap by tap, a strided slice of the padded images `x`: what all outputs read along an axis.

    $$X_{s i + t a} \quad \text{for every tap } a$$
    """
    for a in range(axis.size):
        first = axis.dilation * a
        yield lax.slice_in_dim(x, first, first + axis.stride * (axis.outputs - 1) + 1, axis.stride, number)


def windows(x: Array, axes: tuple[Axis, ...], start: int, after: int = 1) -> Array:
    r"""Gather the windows of images whose spatial axes begin at axis `start`.

    $$P_{ijabc} = X_{s i + t a - p,\, s j + t b - p,\, c}$$

    The taps become new axes in front of the last `after` axes.
    """
    gathered = [size for axis in axes for size in (axis.outputs, axis.size)]
    check.shape_fits(
        "all patches of window", *x.shape[:start], *gathered, *x.shape[start + len(axes) :], itemsize=x.dtype.itemsize
    )
    x = extend(x, axes, start)
    for r, axis in enumerate(axes):
        x = _windows_along(x, axis, start + r, x.ndim - after)
    return x


def _windows_along(x: Array, axis: Axis, number: int, at: int) -> Array:
    """Gather the windows along axis `number` of padded images, with the taps as a new axis at `at`.

    With stride s, a window of k taps consists of ceil(k / s) successive blocks of s pixels.
    """
    if axis.dilation > 1:
        return jnp.stack(list(taps(x, axis, number)), at)
    s, count = axis.stride, -(-axis.size // axis.stride)
    blocks = axis.outputs - 1 + count
    pads = [(0, 0, 0)] * x.ndim
    pads[number] = (0, blocks * s - x.shape[number], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)  # the surplus is cut off below
    x = jnp.moveaxis(x.reshape(*x.shape[:number], blocks, s, *x.shape[number + 1 :]), number + 1, at)
    x = jnp.stack([lax.slice_in_dim(x, q, q + axis.outputs, axis=number) for q in range(count)], at)
    x = x.reshape(*x.shape[:at], count * s, *x.shape[at + 2 :])
    return lax.slice_in_dim(x, 0, axis.size, axis=at)


def window_of_size(window: Window | Size) -> Window:
    """Return the window, or for a size the window of this size that moves by its size."""
    if isinstance(window, Window):
        return window
    size = as_size("window", window)
    return Window(size, size, "VALID")


def unfold(x: Float[Array, "*n k l c"], window: Window | Size, ndim: int | None = None) -> Float[Array, "*n i j a b c"]:
    r"""Gather the patches of images that the windowed layers multiply with their kernels.

    $$P_{ijabc} = X_{s i + t a - p,\, s j + t b - p,\, c}$$

    Args:
      x: The images, with any number of leading batch axes.
      window: The pixels that each output position reads (stride s, dilation t, padding p). A size s, one int or one per axis,
        means windows that do not overlap: Window(s, strides=s, padding="VALID").
      ndim: The number of spatial axes. If None, that of the window. If all its arguments are ints, all axes of the images but
        the first and last are spatial.

    Returns:
      One window per output position. The axes are batch axes, output positions, taps, channels.

    Raises:
      ValueError: The window fits nowhere, or has another number of spatial axes.
      TypeError: `x` is neither floating nor complex.

    Example:
      >>> unfold(jnp.arange(5.0)[:, None], Window((3,), padding="VALID"))[..., 0]
      Array([[0., 1., 2.],
             [1., 2., 3.],
             [2., 3., 4.]], dtype=float32)
    """
    window = window_of_size(window)
    ndim = window.ndim or max(jnp.ndim(x) - 2, 1) if ndim is None else as_integer("ndim", ndim)
    x, space = check.images(x, ndim, f"{window} has {ndim} spatial axes")
    return windows(x, window.axes(space), x.ndim - 1 - ndim)


def interleave(parts: Mapping[tuple[int, ...], Array], lengths: Sequence[int], start: int) -> Array:
    """Interleave arrays along the axes from `start`: entry m of part t of p becomes entry p m + t.

    Args:
      parts: The arrays by the number of the part along each axis, in row-major order. Some may be shorter by one entry.
      lengths: The length of the result along each axis.
      start: The first of the axes.
    """
    merged = dict(parts)
    for r, length in reversed([*enumerate(lengths)]):
        at, groups = start + r, {}
        for tile, part in merged.items():
            groups.setdefault(tile[:r], []).append(part)
        for tile, group in groups.items():
            longest = -(-length // len(group))
            pads = [[(0, longest - part.shape[at] if axis == at else 0, 0) for axis in range(part.ndim)] for part in group]
            padded = [lax.pad(part, jnp.zeros((), part.dtype), pad) for part, pad in zip(group, pads, strict=True)]
            array = jnp.stack(padded, at + 1)
            array = array.reshape(*array.shape[:at], -1, *array.shape[at + 2 :])
            groups[tile] = lax.slice_in_dim(array, 0, length, axis=at)
        merged = groups
    return merged[()]
