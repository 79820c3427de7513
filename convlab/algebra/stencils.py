"""Kernels by name: one channel in, one out, (*window, 1, 1); `on_channels` makes them act on each of several channels.

All correlate, as `convlab.conv` does: tap a reads the pixel a - (k - 1) / 2 further on where the window lies around the pixel.
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Size, as_axes, as_integer
from convlab.ops.pool import binomial

Stencil = Float[Array, "a b 1 1"]


def identity(channels: int = 1, size: Size = 1, rank: int = 2) -> Float[Array, "a b c c"]:
    """Return the kernel that leaves an image as it is: one at its central tap, channel by channel.

    Args:
      channels: Input and output channels.
      size: Taps along each axis, odd.
      rank: Number of spatial axes.

    Raises:
      ValueError: An even size.

    Example:
      >>> identity(2, 3).shape
      (3, 3, 2, 2)
    """
    return on_channels(_stencil(*(np.eye(1, a, a // 2)[0] for a in _odd(size, rank))), channels)


def shift(delta: Sequence[int]) -> Stencil:
    r"""Return the kernel that moves an image.

    $$H_{ij} = X_{i - \delta_1,\, j - \delta_2}$$

    Args:
      delta: Pixels along each spatial axis.

    Returns:
      A kernel of 2 |delta| + 1 taps an axis.

    Example:
      >>> shift((1, 0)).shape, shift((1, 0))[..., 0, 0].ravel()
      ((3, 1, 1, 1), Array([1., 0., 0.], dtype=float32))
    """
    return _stencil(*(np.eye(1, 2 * abs(d) + 1, abs(d) - d)[0] for d in delta))


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
    return _along(_axis(axis, rank), np.linalg.solve(offsets ** powers[:, None].astype(float), needed), rank)


def blur(size: Size, rank: int = 2) -> Stencil:
    r"""Return the binomial blur, whose weights sum to 1; from two taps on it removes the highest frequency [1, -1, 1, ...].

    $$V_{ab} = \beta_a \beta_b, \qquad \beta_a = \binom{A-1}{a} / 2^{A-1}$$

    Args:
      size: Taps along each axis.
      rank: Number of spatial axes.

    Raises:
      ValueError: A size below 1.

    Example:
      >>> blur(3, rank=1).squeeze()
      Array([0.25, 0.5 , 0.25], dtype=float32)

    Reference: Zhang 2019, Making convolutional networks shift-invariant again.
    """
    return _stencil(*(np.array(binomial(a)) for a in as_axes("size", size, rank)))


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
    sides = [np.array(binomial(3))] * rank
    sides[_axis(axis, rank)] = np.array([-0.5, 0.0, 0.5])
    return _stencil(*sides)


def laplace(rank: int = 2) -> Stencil:
    """Return the sum of the second derivatives along all axes, which sees edges of every direction and no slope.

    Args:
      rank: Number of spatial axes.

    Example:
      >>> laplace()[..., 0, 0]
      Array([[ 0.,  1.,  0.],
             [ 1., -4.,  1.],
             [ 0.,  1.,  0.]], dtype=float32)
    """
    total = np.zeros((3,) * rank)
    for axis in range(rank):
        total[tuple(slice(None) if q == axis else 1 for q in range(rank))] += [1, -2, 1]
    return jnp.asarray(total)[..., None, None]


def directional(angle: float) -> Stencil:
    r"""Return the edge kernel of any direction in two axes: two of Sobel's, mixed.

    $$V(\theta) = \cos\theta\; V_{\text{columns}} + \sin\theta\; V_{\text{rows}}$$

    An image that rises by 1 a pixel in direction $\varphi$ gives $\cos(\varphi - \theta)$.

    Args:
      angle: In radians, from the direction of the columns' numbers to that of the rows'.

    Example:
      >>> bool(jnp.allclose(directional(0.0), sobel(1)))
      True

    Reference: Freeman and Adelson 1991, The design and use of steerable filters.
    """
    return math.cos(angle) * sobel(1) + math.sin(angle) * sobel(0)


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
    (a,) = _odd(size, 1)
    total = np.zeros((a, a))
    total[a // 2] = total[:, a // 2] = 1
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
    (a,) = _odd(size, 1)
    return jnp.asarray(np.maximum(np.eye(a), np.eye(a)[::-1]))[..., None, None]


def on_channels(v: Stencil, channels: int) -> Float[Array, "a b c c"]:
    """Let a kernel of one channel act on each of several.

    Args:
      v: A kernel from one channel to one.
      channels: Input and output channels.

    Raises:
      ValueError: `v` has several channels.
      TypeError: `v` is not floating.

    Example:
      >>> on_channels(blur(3), 4).shape
      (3, 3, 4, 4)
    """
    v, _ = check.kernel("v", v, spatial=1, others="c d")
    check.agree("v has {} channels", v.shape[-2:], "needs {}", (1, 1))
    return v * jnp.eye(as_integer("channels", channels), dtype=v.dtype)


def _stencil(*sides: np.ndarray) -> Array:
    """The product of one kernel an axis."""
    return jnp.asarray(functools.reduce(np.multiply.outer, sides), float)[..., None, None]


def _along(axis: int, side: np.ndarray, rank: int) -> Array:
    return _stencil(*(side if q == axis else np.ones(1) for q in range(rank)))


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is none of {rank} spatial axes")
    return axis % rank


def _odd(size: Size, rank: int) -> tuple[int, ...]:
    sizes = as_axes("size", size, rank)
    if any(a % 2 == 0 for a in sizes):
        raise ValueError(f"size is {sizes}; needs odd numbers, whose windows have a central tap")
    return sizes
