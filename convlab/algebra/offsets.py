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

    Tap `a` of output `i` reads pixel `stride * i + dilation * a - low`.
    """

    size: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def extent(self) -> int:
        """The number of pixels from the first tap to the last."""
        return self.dilation * (self.size - 1) + 1


def axis_taps(v: Array, ndim: int, window: Window, space: Space | None) -> tuple[tuple[AxisTaps, ...], str]:
    """Return the taps of a kernel along each axis, and its padding mode.

    If the window reads no padding, the mode is "zero".

    Raises:
      ValueError: `v` is not a kernel of this window, or `space` is None although the padding depends on it.
    """
    window = window.with_ndim(ndim)
    check.taps("v", v.shape[:ndim], window)
    strides, dilations = as_axes("strides", window.strides, ndim), as_axes("dilation", window.dilation, ndim)
    if space is None:
        if window.padding in DEPENDS_ON_SPACE and max(strides) > 1:
            raise ValueError(f"space is missing; the padding of {window} depends on the number of pixels")
        space = tuple(t * (a - 1) + 1 for a, t in zip(window.taps(ndim), dilations, strict=True))
    axes = window.axes(space)
    taps = tuple(AxisTaps(axis.size, axis.stride, axis.dilation, axis.low, axis.high) for axis in axes)
    return taps, axes[0].mode if any(axis.low or axis.high for axis in axes) else "zero"


def kernel_and_window(v: Array, axes: Sequence[AxisTaps], mode: str) -> tuple[Array, Window]:
    """Return a kernel with the window that reads these pixels.

    The padding gets its name, if it has one. Zero taps are added to a kernel on a torus until its window is centred.
    """
    if mode == "zero":
        return v, Window(*_sizes_and_strides(axes), _zero_padding(axes), tuple(axis.dilation for axis in axes))
    centred = []
    for r, axis in enumerate(axes):
        if _zero_taps(axis) is None:  # with a dilation of 1, there is always a solution
            interior = [(0, 0, (axis.dilation - 1) * (q == r)) for q in range(v.ndim)]
            v, axis = jax.lax.pad(v, jnp.zeros((), v.dtype), interior), axis._replace(size=axis.extent, dilation=1)
        zeros = _zero_taps(axis)
        assert zeros is not None
        v = jnp.pad(v, [zeros if q == r else (0, 0) for q in range(v.ndim)])
        centred.append(axis._replace(size=axis.size + sum(zeros)))
    name = next(name for name, (_, outside) in PADDINGS.items() if outside == mode)
    return v, Window(*_sizes_and_strides(centred), name, tuple(axis.dilation for axis in centred))


def _zero_taps(axis: AxisTaps) -> tuple[int, int] | None:
    """Return the fewest zero taps, before and after, that centre the window, or None if no number does."""
    for z in range(2 * axis.extent):
        middle = (axis.extent - 1 + z * axis.dilation) // 2
        if middle in (axis.low, axis.low + z * axis.dilation):
            return (0, z) if middle == axis.low else (z, 0)
    return None


def _sizes_and_strides(axes: Sequence[AxisTaps]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(axis.size for axis in axes), tuple(axis.stride for axis in axes)


def _zero_padding(axes: Sequence[AxisTaps]) -> str | tuple[tuple[int, int], ...]:
    """Return the name of a zero padding, or its sizes if no name is right for every number of pixels."""
    pads = tuple((axis.low, axis.high) for axis in axes)
    for name in ZERO_PADDINGS:
        pad, _ = PADDINGS[name]
        fixed = name not in DEPENDS_ON_SPACE or all(axis.stride == 1 for axis in axes)
        applies = fixed and (name != "CAUSAL" or len(axes) == 1)
        if applies and pads == tuple(pad(axis.extent, axis.extent, axis.stride) for axis in axes):
            return name
    return pads
