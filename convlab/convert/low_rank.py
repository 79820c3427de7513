"""Conversion between mixtures of a few kernels and locally connected kernels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.convert.period import zero_dead_taps
from convlab.convert.tiled import local_kernel
from convlab.geometry import Space, Window, as_integer


def lift_low_rank_to_local(
    basis: Float[Array, "r a b c d"],
    weights: Float[Array, "i j r"],
    window: Window | None = None,
    space: Space | None = None,
) -> Float[Array, "i j a b c d"]:
    r"""Lift a mixture of kernels to a locally connected kernel.

    $$V_{ijabcd} = \sum_r w_{ijr} U_{rabcd}$$

    Args:
      basis: The shared kernels.
      weights: The proportions at each position.
      window: The pixels that each position reads. If it and `space` are given, dead taps are set to zero as by
        the other lifts. If None, they keep the values of the mixture, and the result keeps its rank.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: `basis` and `weights` disagree with each other or with the window, or one of `window` and `space` is missing.
      TypeError: An array is neither floating nor complex.

    Example:
      >>> lift_low_rank_to_local(jnp.ones((6, 3, 3, 2, 7)), jnp.ones((4, 5, 6))).shape
      (4, 5, 3, 3, 2, 7)
    """
    basis, rank = check.kernel("basis", basis, spatial=1, others="r c d")
    weights = check.inexact("weights", weights)
    check.equal_shapes("weights has {} axes", (weights.ndim,), "positions and r need {}", (rank + 1,))
    check.equal_shapes("weights mixes {} kernels", weights.shape[-1:], "basis holds {}", basis.shape[:1])
    v = jnp.tensordot(weights, basis, 1, precision=jax.lax.Precision.HIGHEST)
    if window is None and space is None:
        return v
    if window is None or space is None:
        raise ValueError("window and space say together which taps are dead: give both or none")
    return zero_dead_taps(local_kernel(v, window, space), window, space)


def project_local_to_low_rank(
    v: Float[Array, "i j a b c d"], rank: int
) -> tuple[Float[Array, "r a b c d"], Float[Array, "i j r"]]:
    r"""Find the nearest mixture of `rank` kernels by truncated singular value decomposition.

    $$\min_{U, w} \sum_{ijabcd} \Big(V_{ijabcd} - \sum_r w_{ijr} U_{rabcd}\Big)^2$$

    The kernels of all positions are the rows of one matrix; the squared error is the sum of its squared singular values
    beyond `rank`. A kernel that all positions share comes back as itself with weights 1.

    Args:
      v: One kernel per output position. Dead taps count like others unless they are zero, as after lifting.
      rank: The number of kernels, 1 to min(positions, entries of one kernel).

    Returns:
      basis: The kernels, orthogonal, largest first.
      weights: The weights of the kernels at each position. For each kernel their mean square over positions is 1, and those of
        different kernels are orthogonal.

    Raises:
      ValueError: `rank` is out of range.
      TypeError: `v` is neither floating nor complex, or `rank` is not an integer.

    Example:
      >>> basis, weights = project_local_to_low_rank(jnp.ones((4, 5, 3, 3, 2, 7)), 1)
      >>> basis.shape, weights.shape
      ((1, 3, 3, 2, 7), (4, 5, 1))

    Reference: Eckart and Young 1936.
    """
    v, axes = check.kernel("v", v, spatial=2, others="c d")
    out, entries = v.shape[:axes], v.shape[axes:]
    matrix = v.reshape(int(np.prod(out)), -1)
    rank = as_integer("rank", rank)
    if rank > min(matrix.shape):
        raise ValueError(f"rank {rank} exceeds {min(matrix.shape)}: v is a matrix of {matrix.shape} (positions, entries)")
    left, sigma, right = _singular(matrix.astype(jnp.promote_types(v.dtype, jnp.float32)))
    total = left[:, :rank].sum(0)
    sign = jnp.where(total == 0, 1, jnp.sign(total))  # of complex numbers the phase
    weights = left[:, :rank] * (jnp.conj(sign) * len(matrix) ** 0.5)
    basis = right[:rank] * (sign * sigma[:rank] / len(matrix) ** 0.5)[:, None]
    return basis.reshape(rank, *entries).astype(v.dtype), weights.reshape(*out, rank).astype(v.dtype)


def _singular(matrix: Array) -> tuple[Array, Array, Array]:
    """Compute the singular value decomposition, also if rows or columns are equal.

    LAPACK returns nan of some such matrices: where all rows are one, so are their remainders at every step, each a rounding
    error of the one before, until they underflow. A reflection of rows and of columns gives every entry a rounding of its own.
    """
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(matrix)))
    size = jnp.where(size > 0, size, 1)
    rows, columns = (jnp.asarray(np.random.default_rng(0).normal(size=(n, 1)), matrix.dtype) for n in matrix.shape)
    left, sigma, right = jnp.linalg.svd(_reflect(_reflect(matrix / size, rows).T, columns).T, full_matrices=False)
    return _reflect(left, rows), sigma * size, _reflect(right.T, columns).T


def _reflect(matrix: Array, normal: Array) -> Array:
    """Reflect the columns of a matrix in the plane with a normal vector."""
    projection = jnp.matmul(normal.T, matrix, precision=jax.lax.Precision.HIGHEST) / jnp.sum(normal * normal)
    return matrix - 2 * normal * projection
