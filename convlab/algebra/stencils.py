"""Named kernels with one input and one output channel, of shape (*window, 1, 1).

They are for cross-correlation, as in `convlab.conv`: in a centred window of k taps, tap a reads the pixel at the offset
a - (k - 1) / 2. `depthwise_kernel` applies them to several channels.
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

HIGHEST_ORDER, MOST_AXES = 20, 30
Stencil = Float[Array, "a b 1 1"]


def derivative(axis: int, order: int = 1, ndim: int = 2) -> Stencil:
    r"""Return the central difference for the derivative along one axis.

    $$\sum_a V_a\, a^p = p!\; [p = \text{order}]$$

    This holds for all powers p below the number of taps, so that the kernel is exact for polynomials of these degrees. The
    first derivative is [-1/2, 0, 1/2], the second is [1, -2, 1].

    Args:
      axis: The spatial axis along which to differentiate.
      order: The order of the derivative, at least 1.
      ndim: The number of spatial axes.

    Raises:
      ValueError: `order` is below 1, or there is no such axis.

    Example:
      >>> derivative(1)[..., 0, 0]
      Array([[-0.5,  0. ,  0.5]], dtype=float32)
    """
    half = (as_integer("order", order) + 1) // 2
    if order > HIGHEST_ORDER:
        raise ValueError(f"order must be at most {HIGHEST_ORDER}, where double precision resolves the taps; got {order}")
    offsets, powers = np.arange(-half, half + 1), np.arange(2 * half + 1)
    needed = np.where(powers == order, math.factorial(order), 0)
    return _stencil(axis, np.linalg.solve(offsets ** powers[:, None].astype(float), needed), [1], ndim)


def sobel(axis: int, ndim: int = 2) -> Stencil:
    r"""Return Sobel's edge kernel: a derivative along one axis and a blur along the others.

    $$V_{ab} = \tfrac12 [-1, 0, 1]_a \; \tfrac14 [1, 2, 1]_b \quad \text{for axis 0}$$

    Args:
      axis: The spatial axis of the derivative, at right angles to the edge.
      ndim: The number of spatial axes.

    Raises:
      ValueError: There is no such axis.

    Example:
      >>> 8 * sobel(1)[..., 0, 0]
      Array([[-1.,  0.,  1.],
             [-2.,  0.,  2.],
             [-1.,  0.,  1.]], dtype=float32)
    """
    return _stencil(axis, [-0.5, 0.0, 0.5], binomial(3), ndim)


def upright_cross(size: int = 3) -> Stencil:
    r"""Return a kernel with ones in the middle row and the middle column, like the sign +.

    $$V_{ab} = [\, a = m \vee b = m \,], \qquad m = (A - 1) / 2, \quad \text{for } A \text{ taps along each axis}$$

    Args:
      size: The number of taps along both axes, an odd number.

    Raises:
      ValueError: `size` is even.

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
    r"""Return a kernel with ones on both diagonals, like the letter x.

    $$V_{ab} = [\, a = b \vee a + b = A - 1 \,] \quad \text{for } A \text{ taps along each axis}$$

    Args:
      size: The number of taps along both axes, an odd number.

    Raises:
      ValueError: `size` is even.

    Example:
      >>> diagonal_cross()[..., 0, 0]
      Array([[1., 0., 1.],
             [0., 1., 0.],
             [1., 0., 1.]], dtype=float32)
    """
    diagonal = np.eye(_odd(size))
    return jnp.asarray(np.maximum(diagonal, diagonal[::-1]))[..., None, None]


def depthwise_kernel(v: Stencil, channels: int) -> Float[Array, "a b c c"]:
    r"""Return the kernel that applies a single-channel kernel to each of several channels.

    $$V'_{abcd} = [\, c = d \,]\, V_{ab}$$

    Args:
      v: A kernel with one input and one output channel.
      channels: The number of input channels, which is also that of output channels.

    Raises:
      ValueError: `v` has several channels.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> depthwise_kernel(sobel(0), 4).shape
      (3, 3, 4, 4)
    """
    v, _ = check.kernel("v", v, spatial=1, others="c d")
    check.equal_shapes("v has {} channels", v.shape[-2:], "needs {}", (1, 1))
    channels = as_integer("channels", channels)
    check.shape_fits("a kernel of as many channels", *v.shape[:-2], channels, channels, itemsize=v.dtype.itemsize)
    return v * jnp.eye(channels, dtype=v.dtype)


def _stencil(axis: int, kernel: ArrayLike, other_kernel: ArrayLike, ndim: int) -> Array:
    """Return the outer product of `kernel` along one axis and `other_kernel` along all others."""
    axis, ndim = as_integer("axis", axis, least=None), as_integer("ndim", ndim)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis is {axis}; needs one of {ndim} spatial axes")
    if ndim > MOST_AXES:
        raise ValueError(f"ndim must be at most {MOST_AXES}, got {ndim}")
    check.shape_fits("a kernel of ndim axes", np.size(kernel), *[np.size(other_kernel)] * (ndim - 1))
    kernels = [other_kernel] * ndim
    kernels[axis] = kernel
    return jnp.asarray(functools.reduce(np.multiply.outer, kernels), float)[..., None, None]


def _odd(size: int) -> int:
    if as_integer("size", size) % 2 == 0:
        raise ValueError(f"size is {size}; needs an odd number, for which there is a central tap")
    check.shape_fits("a kernel of size taps", size, size)
    return size
