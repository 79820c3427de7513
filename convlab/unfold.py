"""The windows of an image: what every rung multiplies its kernel with, and pooling reduces.

Windows are built from strided slices, one axis at a time, so an axis costs its number of taps and every derivative is a
sum of slices; nothing is multiplied, so an infinite pixel stays in the windows that hold it.
"""

import functools
from collections.abc import Callable, Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Window


def extend(x: Array, axes: tuple[Axis, ...], start: int, fill: float = 0.0) -> Array:
    """Pad the spatial axes of `x`, which begin at `start`, so that every window of `axes` lies inside."""
    low_high = [(axis.low, axis.high) for axis in axes]
    if not any(map(any, low_high)):
        return x
    pads = [(0, 0)] * start + low_high + [(0, 0)] * (x.ndim - start - len(axes))
    if axes[0].mode == "zero":
        return lax.pad(x, jnp.asarray(fill, x.dtype), [(*pad, 0) for pad in pads])
    return jnp.pad(x, pads, mode=axes[0].mode)


def taps(x: Array, axis: Axis, number: int) -> Iterator[Array]:
    """Yield, tap by tap, what all outputs read along axis `number` of the extended image `x`: a strided slice each."""
    for a in range(axis.size):
        first = axis.dilation * a
        yield lax.slice_in_dim(x, first, first + axis.stride * (axis.outputs - 1) + 1, axis.stride, number)


def windows(x: Array, axes: tuple[Axis, ...], start: int, after: int = 1) -> Array:
    """Gather the windows of images whose spatial axes begin at `start`; the taps stand before the last `after` axes."""
    x = extend(x, axes, start)
    for r, axis in enumerate(axes):
        x = jnp.stack(list(taps(x, axis, start + r)), x.ndim - after)
    return x


def fold(
    p: Array, axes: tuple[Axis, ...], start: int, after: int = 1, between: Callable[[Array], Array] = lambda p: p
) -> Array:
    """Add up windows where they overlap, axis by axis with `between` after each: the transpose of `windows` without padding."""
    for r in reversed(range(len(axes))):
        axis, number = axes[r], start + r
        sums = []
        for a in range(axis.size):
            pads = [(0, 0, 0)] * (p.ndim - 1)
            pads[number] = (axis.dilation * a, axis.dilation * (axis.size - 1 - a), axis.stride - 1)
            tap = lax.index_in_dim(p, a, p.ndim - after - 1, keepdims=False)
            sums.append(lax.pad(tap, jnp.zeros((), p.dtype), pads))
        p = between(functools.reduce(jnp.add, sums))
    return p


def unfold(x: Float[Array, "*n k l c"], window: Window, rank: int | None = None) -> Float[Array, "*n i j a b c"]:
    r"""Gather the windows of images: the patches that all rungs multiply with their kernels.

    $$P_{ijabc} = X_{s i + t a - p,\, s j + t b - p,\, c}$$

    Args:
      x: Images, any number of leading batch axes.
      window: Where each output position reads (stride s, dilation t, padding p).
      rank: Number of spatial axes; needed only where every argument of the window is an int.

    Returns:
      One window per output position: batch axes, output positions, taps, channels.

    Raises:
      ValueError: The window fits nowhere, or the number of spatial axes is not known.
      TypeError: `x` is not floating.

    Example:
      >>> unfold(jnp.arange(5.0)[:, None], Window((3,), padding="VALID"))[..., 0]
      Array([[0., 1., 2.],
             [1., 2., 3.],
             [2., 3., 4.]], dtype=float32)
    """
    rank = window.rank if rank is None else rank
    if rank is None:
        raise ValueError(f"{window} leaves the number of spatial axes open; give its size as a tuple, or rank")
    x, space = check.images(x, rank, f"{window} is laid on {rank} of them")
    return windows(x, window.axes(space), x.ndim - 1 - rank)
