"""Kernels by the pixels they read: on this the algebra multiplies them, and finds the window of what comes out."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from convlab import check
from convlab.geometry import PADDINGS, Space, Window, as_axes

ANYWHERE = ("VALID", "SAME", "SAME_LOWER", "FULL", "CAUSAL")  # paddings with zeros, the first that fits gives the name
BY_SPACE = ("SAME", "SAME_LOWER")  # what these add depends on the pixels, where a stride does not divide them


class Reach(NamedTuple):
    """One spatial axis of a kernel: tap `a` of output `i` reads pixel `stride * i + step * a - low`."""

    size: int
    stride: int
    step: int
    low: int
    high: int

    @property
    def extent(self) -> int:
        """Pixels from the first tap to the last."""
        return self.step * (self.size - 1) + 1


def reach(v: Array, rank: int, window: Window, space: Space | None) -> tuple[tuple[Reach, ...], str]:
    """Lay a kernel's window out, and tell what lies outside the image ("zero" also where nothing outside is read).

    Raises:
      ValueError: `v` is not a kernel of this window, or its padding depends on the pixels and `space` is not given.
    """
    window = window.of_rank(rank)
    check.taps("v", v.shape[:rank], window)
    strides, dilations = as_axes("strides", window.strides, rank), as_axes("dilation", window.dilation, rank)
    if space is None:
        if window.padding in BY_SPACE and max(strides) > 1:
            raise ValueError(f"space is missing: what {window} adds to an image depends on the pixels of that image")
        space = tuple(t * (a - 1) + 1 for a, t in zip(window.taps(rank), dilations, strict=True))
    axes = window.axes(space)
    laid = tuple(Reach(axis.size, axis.stride, axis.dilation, axis.low, axis.high) for axis in axes)
    return laid, axes[0].mode if any(axis.low or axis.high for axis in axes) else "zero"


def settle(v: Array, axes: Sequence[Reach], mode: str) -> tuple[Array, Window]:
    """Return a kernel and its window, whose name is found; taps of zero are added where a window around 0 needs them."""
    if mode == "zero":
        return v, Window(*_plain(axes), _zeros(axes), tuple(axis.step for axis in axes))
    wide = []
    for number, axis in enumerate(axes):
        if _missing(axis) is None:  # on a finer grid there is always an answer
            between = [(0, 0, (axis.step - 1) * (place == number)) for place in range(v.ndim)]
            v, axis = jax.lax.pad(v, jnp.zeros((), v.dtype), between), axis._replace(size=axis.extent, step=1)
        more = _missing(axis)
        assert more is not None
        v = jnp.pad(v, [more if place == number else (0, 0) for place in range(v.ndim)])
        wide.append(axis._replace(size=axis.size + sum(more)))
    name = next(name for name, (_, outside) in PADDINGS.items() if outside == mode)
    return v, Window(*_plain(wide), name, tuple(axis.step for axis in wide))


def _missing(axis: Reach) -> tuple[int, int] | None:
    """Fewest taps of zero, before or after, with which a window around 0 reads from where this one does."""
    for z in range(2 * axis.extent):
        middle = (axis.extent - 1 + z * axis.step) // 2
        if middle in (axis.low, axis.low + z * axis.step):
            return (0, z) if middle == axis.low else (z, 0)
    return None


def _plain(axes: Sequence[Reach]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(axis.size for axis in axes), tuple(axis.stride for axis in axes)


def _zeros(axes: Sequence[Reach]) -> str | tuple[tuple[int, int], ...]:
    """The name of a padding with zeros, or its pixels where it has none that holds on every image."""
    pads = tuple((axis.low, axis.high) for axis in axes)
    for name in ANYWHERE:
        pad, _ = PADDINGS[name]
        known = (name not in BY_SPACE or all(axis.stride == 1 for axis in axes)) and (name != "CAUSAL" or len(axes) == 1)
        if known and pads == tuple(pad(axis.extent, axis.extent, axis.stride) for axis in axes):
            return name
    return pads
