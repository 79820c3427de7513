"""The pixels that kernels read, from which the algebra derives the windows of its results."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from convlab import check
from convlab.geometry import PADDINGS, Space, Window, as_axes

ZERO_PADDINGS = ("VALID", "SAME", "SAME_LOWER", "FULL", "CAUSAL")  # in the order in which they are tried
DEPENDS_ON_SPACE = ("SAME", "SAME_LOWER")  # with strides, their size depends on the number of pixels


class AxisTaps(NamedTuple):
    """The taps of a kernel along one spatial axis.

    Tap `a` of output `i` reads pixel `stride * i + dilation * a - low`. The mode, a key of `geometry.OUTSIDE`, defines what it
    reads outside the image.
    """

    size: int
    stride: int
    dilation: int
    low: int
    high: int
    mode: str

    @property
    def extent(self) -> int:
        """The number of pixels from the first tap to the last."""
        return self.dilation * (self.size - 1) + 1

    @property
    def pads(self) -> bool:
        """Whether some output reads outside the image."""
        return self.low > 0 or self.high > 0


def axis_taps(v: Array, ndim: int, window: Window, space: Space | None) -> tuple[AxisTaps, ...]:
    """Return the taps of a kernel along each axis.

    Raises:
      ValueError: `v` is not a kernel of this window, or `space` is None although the padding depends on it.
    """
    window = window.with_ndim(ndim)
    check.taps("v", v.shape[:ndim], window)
    strides, dilations = as_axes("strides", window.strides, ndim), as_axes("dilation", window.dilation, ndim)
    if space is None:
        if any(padding in DEPENDS_ON_SPACE and s > 1 for padding, s in zip(window.paddings, strides, strict=True)):
            raise ValueError(f"space is missing; the padding of {window} depends on the number of pixels")
        removed = [0 if isinstance(padding, str) else max(0, -sum(padding)) for padding in window.paddings]
        space = tuple(t * (a - 1) + 1 + n for a, t, n in zip(window.taps(ndim), dilations, removed, strict=True))
    return tuple(AxisTaps(axis.size, axis.stride, axis.dilation, axis.low, axis.high, axis.mode) for axis in window.axes(space))


def kernel_and_window(v: Array, axes: Sequence[AxisTaps]) -> tuple[Array, Window]:
    """Return a kernel with the window that reads these pixels.

    The padding gets its name, if it has one. Along axes on which the image repeats, zero taps are added until the window is
    centred.
    """
    zeros = iter(_zero_paddings([axis for axis in axes if axis.mode == "zero"]))
    centred, paddings = [], []
    for r, axis in enumerate(axes):
        if axis.mode == "zero":
            centred.append(axis)
            paddings.append(next(zeros))
            continue
        if _zero_taps(axis) is None:  # with a dilation of 1, there is always a solution
            check.shape_fits("the kernel between the taps of window", *v.shape, axis.dilation, itemsize=v.dtype.itemsize)
            interior = [(0, 0, (axis.dilation - 1) * (q == r)) for q in range(v.ndim)]
            v, axis = jax.lax.pad(v, jnp.zeros((), v.dtype), interior), axis._replace(size=axis.extent, dilation=1)
        added = _zero_taps(axis)
        assert added is not None
        check.shape_fits("the kernel in its centred window", *v.shape, sum(added) + 1, itemsize=v.dtype.itemsize)
        v = jnp.pad(v, [added if q == r else (0, 0) for q in range(v.ndim)])
        centred.append(axis._replace(size=axis.size + sum(added)))
        paddings.append(next(name for name, (_, mode) in PADDINGS.items() if mode == axis.mode))
    sizes, strides, dilations = zip(*((axis.size, axis.stride, axis.dilation) for axis in centred), strict=True)
    return v, Window(sizes, strides, tuple(paddings), dilations)


def _zero_taps(axis: AxisTaps) -> tuple[int, int] | None:
    """Return the fewest zero taps, before and after, that centre the window, or None if no number does."""
    for z in range(2 * axis.extent):
        middle = (axis.extent - 1 + z * axis.dilation) // 2
        if middle in (axis.low, axis.low + z * axis.dilation):
            return (0, z) if middle == axis.low else (z, 0)
    return None


def _zero_paddings(axes: Sequence[AxisTaps]) -> Sequence[str | tuple[int, int]]:
    """Return the zero padding of each axis: a name, or sizes if no name is right for every image."""
    pads = tuple((axis.low, axis.high) for axis in axes)
    for name in ZERO_PADDINGS:
        pad, _ = PADDINGS[name]
        fixed = name not in DEPENDS_ON_SPACE or all(axis.stride == 1 for axis in axes)
        applies = fixed and (name != "CAUSAL" or len(axes) == 1)
        if applies and pads == tuple(pad(axis.extent, axis.extent, axis.stride) for axis in axes):
            return [name] * len(axes)
    return pads
