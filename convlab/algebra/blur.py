"""Blur whose kernel varies over the image, as a low-rank layer."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab import check
from convlab.algebra.composition import EXACT, flip
from convlab.choices import one_of
from convlab.convert import project_local_to_low_rank
from convlab.display import short_repr
from convlab.extras import require
from convlab.geometry import Space, Window, as_integer, as_space
from convlab.layers import Layer, LowRank
from convlab.rungs import Layout, Mixed


class VaryingBlur(NamedTuple):
    """A blur that varies over the image, as `varying_blur` returns it.

    Attributes:
      layer: The low-rank layer without bias that blurs images.
      error: The error of all kernels that the truncation to `rank` makes, relative to their norm. It is 0 for kernels of zeros.
      operator_error: An upper bound of the largest factor by which that error multiplies the norm of an image.
    """

    layer: LowRank
    error: Float[Array, ""]
    operator_error: Float[Array, ""]

    __repr__ = short_repr

    @property
    def adjoint(self) -> Layer:
        r"""The transposed layer, a `convlab.LowRankTranspose`, with the present weights of `layer`.

        $$\langle A x, y \rangle = \langle x, A^\top y \rangle$$
        """
        arrays = {name: nnx.Param(getattr(self.layer, name)[...]) for name in Mixed.arrays}
        return Layer.from_layout(dataclasses.replace(self.layer.layout, transposed=True), arrays)

    def to_lineax(self) -> Any:
        """Return the blur of one image (*space, c) as a `lineax.FunctionLinearOperator`, for its solvers.

        Raises:
          ImportError: lineax is not installed.
        """
        layout = self.layer.layout
        image = jax.ShapeDtypeStruct((*(layout.space or ()), layout.in_features), self.layer.basis.dtype)
        return require("lineax", extra="lineax").FunctionLinearOperator(self.layer, image)


def varying_blur(
    psfs: Float[Array, "n a b c d"],
    positions: ArrayLike | Sequence[Sequence[float]],
    space: Space,
    window: Window | None = None,
    *,
    rank: int | None = None,
    interpolation: str | None = None,
) -> VaryingBlur:
    r"""Interpolate point-spread functions between known ones, as a low-rank layer.

    Let P be the known point-spread functions, for A x B taps, and m(i, j) the interpolation weights at an output position.
    They are at least 0 and add up to 1. The output gathers the light with the point-spread function at its own position:

    $$H_{ijd} = \sum_{abc} V_{ijabcd} X_{i+a,\,j+b,\,c}, \qquad V_{ijabcd} = \sum_n m_{ijn} P_{n,\,A-1-a,\,B-1-b,\,cd}$$

    The kernels of all positions are one matrix, $V = M P$, of rank N at most. Its truncated singular value decomposition is the
    low-rank layer, $V_{ijabcd} \approx \sum_r w_{ijr} U_{rabcd}$. With singular values $\sigma$, the relative error is

    $$\lVert V - \textstyle\sum_r w_r U_r \rVert_F / \lVert V \rVert_F = \sqrt{\sum_{s > r} \sigma_s^2 / \sum_s \sigma_s^2}$$

    Truncation does not keep the sums of the kernels, and so changes the brightness.

    The kernels are flipped because layers compute cross-correlations. A point of light at the centre of the image then appears
    as `psfs` holds it, up to the change of the kernel within one window. In the other model, each point (i, j) of the scene
    scatters its light with the point-spread function at (i, j). That is the transpose of a blur with flipped kernels,
    `varying_blur(jax.vmap(flip)(psfs), positions, space).adjoint`.

    There are two rules of interpolation, and both return the known point-spread functions at their positions. "linear" is
    multilinear between the positions of a grid, and constant beyond its edge. "inverse_distance" takes any positions. At a
    point q, the weight of the function at $p_n$ is in proportion to $\lvert q - p_n \rvert^{-2}$.

    Args:
      psfs: The known point-spread functions. For gray images, c = d = 1. The taps along an axis should be odd in number, as the
        centre of an even number lies between two pixels.
      positions: The pixel coordinates of each known point-spread function, (n, one per spatial axis). They may be fractions,
        and may lie outside the image.
      space: The number of pixels of the image along each spatial axis.
      window: The pixels that each position reads, with the padding at the borders. An output lies at the centre of its window.
        If None, the window has the size of the kernels, stride 1 and padding "SAME", so the scene is dark outside the image.
      rank: The number of kernels that positions mix. If None, the numerical rank, at which the error is that of rounding.
      interpolation: The rule, "linear" or "inverse_distance". If None, "linear" where the positions form a full grid.

    Raises:
      ValueError: The positions do not fit `psfs`, two are equal, or they form no grid for "linear". Or `rank` exceeds the
        number of kernels, of taps with channels, or of positions. Or `rank` is None for traced `psfs`.
      TypeError: `psfs` is not floating.

    Example:
      >>> psfs = jnp.stack([jnp.eye(5), jnp.eye(5)[::-1]])[..., None, None] / 5  # motion that turns from left to right
      >>> blur = varying_blur(psfs, [(8, 0), (8, 15)], (16, 16))
      >>> blur.layer(jnp.ones((16, 16, 1))).shape, blur.layer.layout.tying
      ((16, 16, 1), Mixed(rank=2))

    Reference: Nagy and O'Leary 1998, Restoring images degraded by spatially variant blur. Denis et al. 2015, Fast
    approximations of shift-variant blur. Shepard 1968, A two-dimensional interpolation function for irregularly-spaced data.
    """
    psfs, ndim = check.kernel("psfs", psfs, spatial=1, others="n c d")
    check.real("psfs", psfs)
    space = as_space(space)
    check.equal_shapes("space has {} axes", (len(space),), f"psfs of shape {psfs.shape} has {{}}", (ndim,))
    window = check.window_of("psfs", psfs.shape[1 : 1 + ndim], window)
    known = _positions(positions, (len(psfs), ndim))
    outputs = window.output_shape(space)
    check.shape_fits("the weights of psfs at all positions of space", *outputs, len(psfs), itemsize=16)
    mixing = _interpolate(known, _centres(window, space), interpolation)

    q, r = np.linalg.qr(mixing.reshape(-1, len(psfs)))
    basis, weights, errors, bounds = _mixtures(q, r, psfs, _repeats(window, space) ** 0.5)
    rank = _rank(rank, errors, math.prod(psfs.shape[1:]))

    layout = Layout(Mixed(rank), window, psfs.shape[-2], psfs.shape[-1], space, use_bias=False)
    arrays = {"basis": basis[:rank], "weights": weights[:, :rank].reshape(*outputs, rank)}
    layer = Layer.from_layout(layout, {name: nnx.Param(array) for name, array in arrays.items()})
    assert isinstance(layer, LowRank)
    return VaryingBlur(layer, errors[rank], bounds[rank])


def _positions(value: ArrayLike | Sequence[Sequence[float]], needed: tuple[int, int]) -> np.ndarray:
    """Return distinct positions as an array of floats (kernels, axes)."""
    positions = check.as_floats("positions", value)
    check.equal_shapes("positions has shape {}", positions.shape, "psfs holds one kernel per position and needs {}", needed)
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite, but one is infinite or NaN")
    distinct, counts = np.unique(positions, axis=0, return_counts=True)
    if len(distinct) < len(positions):
        raise ValueError(f"positions must differ, but {tuple(distinct[counts > 1][0].tolist())} occurs more than once")
    return positions


def _centres(window: Window, space: Space) -> list[np.ndarray]:
    """Return the pixel coordinates of the centres of the windows along each axis."""
    return [
        axis.stride * np.arange(axis.outputs) - axis.low + axis.dilation * (axis.size - 1) / 2 for axis in window.axes(space)
    ]


def _interpolate(known: np.ndarray, centres: list[np.ndarray], interpolation: str | None) -> np.ndarray:
    """Return the weights (i, j, n) of known positions at every point of a grid."""
    is_grid = math.prod(len(np.unique(coordinates)) for coordinates in known.T) == len(known)
    rule = ("linear" if is_grid else "inverse_distance") if interpolation is None else interpolation
    one_of("interpolation", rule, RULES)
    if rule == "linear" and not is_grid:
        raise ValueError(f"interpolation 'linear' needs positions on a full grid, but these {len(known)} form none")
    return RULES[rule](known, centres)


def _linear(known: np.ndarray, centres: list[np.ndarray]) -> np.ndarray:
    """Interpolate linearly along each axis between the positions of a grid."""
    weights = np.ones((*[1] * len(centres), len(known)))
    for axis, (coordinates, points) in enumerate(zip(known.T, centres, strict=True)):
        nodes, number = np.unique(coordinates, return_inverse=True)
        hats = np.stack([np.interp(points, nodes, one) for one in np.eye(len(nodes))], -1)[:, number]
        weights = weights * hats.reshape(*[-1 if other == axis else 1 for other in range(len(centres))], len(known))
    return weights


def _inverse_distance(known: np.ndarray, centres: list[np.ndarray]) -> np.ndarray:
    """Weight all positions by their inverse squared distances."""
    points = np.stack(np.meshgrid(*centres, indexing="ij"), -1)
    squares = sum((points[..., axis, None] - coordinates) ** 2 for axis, coordinates in enumerate(known.T))
    nearest = np.min(squares, -1, keepdims=True)
    weights = np.where(squares == nearest, 1, nearest / np.where(squares == nearest, 1, squares))
    return weights / weights.sum(-1, keepdims=True)


RULES = {"linear": _linear, "inverse_distance": _inverse_distance}


def _repeats(window: Window, space: Space) -> int:
    """Return the largest number of positions at which one tap reads the same pixel.

    It is 1 unless padding repeats pixels.
    """
    return math.prod(
        max(int(np.bincount(reads[reads >= 0], minlength=1).max()) for reads in axis.reads.T) for axis in window.axes(space)
    )


@jax.jit
def _mixtures(q: Array, r: Array, psfs: Array, repeats: float | Array) -> tuple[Array, Array, Array, Array]:
    """Decompose the kernels of all positions, and find the error of every rank.

    The decomposition is that of the small matrix R P, where M = Q R and the columns of Q are orthonormal. Kernels and weights
    are those that `project_local_to_low_rank` finds from the kernels of all positions.

    Args:
      q: The orthonormal factor of the interpolation weights, (positions, rows).
      r: Their triangular factor, (rows, n).
      psfs: The known point-spread functions.
      repeats: The largest norm of an image that holds what one tap reads, for images of norm 1.

    Returns:
      basis: The kernels, largest first.
      weights: Their weights, (positions, r).
      errors: The relative error of the kernels after truncation to rank 0, 1, and so on.
      bounds: The bounds of the operator norm of these errors.
    """
    kernels = jax.vmap(flip)(psfs).astype(jnp.promote_types(psfs.dtype, jnp.float32))
    small = jnp.tensordot(r.astype(kernels.dtype), kernels, 1, precision=EXACT)
    rows, ones = len(small), (1,) * (kernels.ndim - 4)  # further position axes
    rank = min(rows, math.prod(kernels.shape[1:]))
    basis, weights = project_local_to_low_rank(small.reshape(rows, *ones, *kernels.shape[1:]), rank)
    weights = jnp.matmul(q.astype(kernels.dtype), weights.reshape(rows, rank), precision=EXACT)
    scale = jnp.where(weights.sum(0) < 0, -1, 1) * (len(q) / rows) ** 0.5  # the mean square over all positions is 1
    basis, weights = basis / jnp.expand_dims(scale, range(1, basis.ndim)), weights * scale
    squares = _tail_sums((basis**2).sum(range(1, basis.ndim)))
    norms = jnp.linalg.norm(basis, axis=(-2, -1)).sum(range(1, basis.ndim - 2))  # of each kernel as a convolution, at most
    errors = jnp.sqrt(squares / jnp.where(squares[0] == 0, 1, squares[0]))
    bounds = repeats * _tail_sums(jnp.abs(weights).max(0) * norms)
    return basis.astype(psfs.dtype), weights.astype(psfs.dtype), errors, bounds


def _tail_sums(values: Array) -> Array:
    """Return the sums of all values from each index on, and 0."""
    return jnp.append(jnp.cumsum(values[::-1])[::-1], 0)


def _rank(rank: int | None, errors: Array, entries: int) -> int:
    """Return the rank as an integer. If it is None, find the least rank whose error is that of rounding."""
    most = len(errors) - 1
    if rank is None:
        if not check.is_concrete(errors):
            raise ValueError("rank must be an integer where psfs is traced, since the shapes of the layer depend on it")
        return max(1, int((errors > max(most, entries) * jnp.finfo(errors.dtype).eps).sum()))
    if as_integer("rank", rank) > most:
        raise ValueError(f"rank must be at most {most}, the largest that the kernels of psfs can have, got {rank}")
    return as_integer("rank", rank)
