"""Kernels by name: one channel in, one out, (*window, 1, 1); `on_channels` makes them act on each of several channels.

All correlate, as `convlab.conv` does: tap a reads the pixel a - (k - 1) / 2 further on where the window lies around the pixel.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from convlab import check
from convlab.geometry import as_integer
from convlab.ops.pool import binomial

Stencil = Float[Array, "a b 1 1"]


def derivative(axis: int, order: int = 1, rank: int = 2) -> Stencil:
    r"""Return the central difference that differentiates along one axis.

    $$\sum_a V_a\, a^p = p!\; [p = \text{order}]$$

    for all powers p below its number of taps: it is exact for polynomials of such degrees. [-1/2, 0, 1/2] is the first
    derivative, [1, -2, 1] the second.

    Args:
      axis: Along which.
      order: Of the derivative, at least 1.
      rank: Number of spatial axes.

    Raises:
      ValueError: `order` is below 1, or there is no such axis.

    Example:
      >>> derivative(1)[..., 0, 0]
      Array([[-0.5,  0. ,  0.5]], dtype=float32)
    """
    half = (as_integer("order", order) + 1) // 2
    offsets, powers = np.arange(-half, half + 1), np.arange(2 * half + 1)
    needed = np.where(powers == order, math.factorial(order), 0)
    return _stencil(axis, np.linalg.solve(offsets ** powers[:, None].astype(float), needed), [1], rank)


def sobel(axis: int, rank: int = 2) -> Stencil:
    """Return Sobel's edge kernel: the derivative along one axis of what is blurred along the others.

    Args:
      axis: Across the edge.
      rank: Number of spatial axes.

    Raises:
      ValueError: There is no such axis.

    Example:
      >>> 8 * sobel(1)[..., 0, 0]
      Array([[-1.,  0.,  1.],
             [-2.,  0.,  2.],
             [-1.,  0.,  1.]], dtype=float32)
    """
    return _stencil(axis, [-0.5, 0.0, 0.5], binomial(3), rank)


def upright_cross(size: int = 3) -> Stencil:
    """Return ones along the middle row and the middle column, zeros elsewhere: a +.

    Args:
      size: Taps along both axes, odd.

    Raises:
      ValueError: An even size.

    Example:
      >>> upright_cross()[..., 0, 0]
      Array([[0., 1., 0.],
             [1., 1., 1.],
             [0., 1., 0.]], dtype=float32)
    """
    total = np.zeros((_odd(size), size))
    total[size // 2] = total[:, size // 2] = 1
    return jnp.asarray(total)[..., None, None]


def diagonal_cross(size: int = 3) -> Stencil:
    """Return ones along both diagonals, zeros elsewhere: an x.

    Args:
      size: Taps along both axes, odd.

    Raises:
      ValueError: An even size.

    Example:
      >>> diagonal_cross()[..., 0, 0]
      Array([[1., 0., 1.],
             [0., 1., 0.],
             [1., 0., 1.]], dtype=float32)
    """
    diagonal = np.eye(_odd(size))
    return jnp.asarray(np.maximum(diagonal, diagonal[::-1]))[..., None, None]


def on_channels(v: Stencil, channels: int) -> Float[Array, "a b c c"]:
    """Let a kernel of one channel act on each of several.

    Args:
      v: A kernel from one channel to one.
      channels: Input and output channels.

    Raises:
      ValueError: `v` has several channels.
      TypeError: `v` is not floating.

    Example:
      >>> on_channels(sobel(0), 4).shape
      (3, 3, 4, 4)
    """
    v, _ = check.kernel("v", v, spatial=1, others="c d")
    check.agree("v has {} channels", v.shape[-2:], "needs {}", (1, 1))
    return v * jnp.eye(as_integer("channels", channels), dtype=v.dtype)


def _stencil(axis: int, along: ArrayLike, across: ArrayLike, rank: int) -> Array:
    """Return the product of one kernel per axis: `along` the given axis, and `across` all others."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is none of {rank} spatial axes")
    sides = [across] * rank
    sides[axis] = along
    return jnp.asarray(functools.reduce(np.multiply.outer, sides), float)[..., None, None]


def _odd(size: int) -> int:
    if as_integer("size", size) % 2 == 0:
        raise ValueError(f"size is {size}; needs an odd number, whose window has a central tap")
    return size
