"""Kernels over one period: the kernel at place t of a tile is that of all positions i with i mod q = t, along every axis.

A convolution has a period of 1, a locally connected layer one of all its positions. Between the two nothing is written out:
what a projection asks of the positions, $E^\\top E$, is counted for every place, and factors over the axes.
"""

import functools
import string
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab.geometry import Axis, Space, Window


def repeat(v: Float[Array, "p q a b c d"], period: Sequence[int]) -> Float[Array, "i j a b c d"]:
    """Write kernels over a longer period: place t takes the kernel of place t mod p.

    Example:
      >>> repeat(jnp.arange(2.0).reshape(2, 1, 1, 1), (5,)).ravel()
      Array([0., 1., 0., 1., 0.], dtype=float32)
    """
    for r, size in enumerate(period):
        v = v if v.shape[r] == size else v.take(np.arange(size) % v.shape[r], axis=r)
    return v


def silence(v: Float[Array, "p q a b c d"], window: Window, space: Space) -> Float[Array, "p q a b c d"]:
    """Set dead taps to zero: those that read padding at every position of their place in the tile.

    Example:
      >>> silence(jnp.ones((3, 3, 1, 1)), Window(3), (3,))[..., 0, 0]
      Array([[0., 1., 1.],
             [1., 1., 1.],
             [1., 1., 0.]], dtype=float32)
    """
    axes = window.axes(space)
    live = [np.stack([(axis.reads >= 0)[t::p].any(0) for t in range(p)]) for axis, p in zip(axes, v.shape, strict=False)]
    table = functools.reduce(np.logical_and.outer, live)
    table = table.transpose(*range(0, table.ndim, 2), *range(1, table.ndim, 2))
    return jnp.where(table[..., None, None], v, 0)


def gather(v: Float[Array, "p q a b c d"], window: Window, space: Space, period: Sequence[int]) -> Float[Array, "p q a b c d"]:
    r"""Add up what kernels give to each tap of another period: $E^\top E' V'$, with E of the one and E' of the other period.

    Where every tap reads a pixel of its own, that is each kernel times the number of positions at which its tap is live.
    """
    axes = zip(window.axes(space), period, v.shape, strict=False)
    return _along_axes([counts(axis, p, q) for axis, p, q in axes], silence(v, window, space))


def nearest(v: Float[Array, "p q a b c d"], window: Window, space: Space, period: Sequence[int]) -> Float[Array, "p q a b c d"]:
    r"""Find the kernels of a period whose dense matrix is nearest: $(E^\top E)^+ E^\top E' V'$.

    Example:
      >>> nearest(jnp.ones((4, 3, 1, 1)), Window(3), (4,), (2,)).shape
      (2, 3, 1, 1)
    """
    means = []
    for axis, p, q in zip(window.axes(space), period, v.shape, strict=False):
        shared = counts(axis, p, q)
        means.append(np.einsum("pab,pqbc->pqac", np.linalg.pinv(shared.sum(1), hermitian=True), shared))
    return _along_axes(means, silence(v, window, space))


def squared_norm(v: Float[Array, "p q a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    r"""Sum the squares of the dense matrix of kernels, which is not formed.

    $$\sum_{ij} \sum_{ab,\,a'b' \text{ live, on one pixel}} V_{ijab} V_{ija'b'}$$

    Args:
      v: One kernel for each place of a period; dead taps do not count.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.

    Example:
      >>> float(squared_norm(jnp.ones((4, 5, 3, 3, 1, 1)), Window(3), (4, 5)))  # 10 * 13 live taps
      130.0
    """
    shared = [counts(axis, p, p) for axis, p in zip(window.axes(space), v.shape, strict=False)]
    return jnp.sum(_along_axes(shared, v) * v)


def counts(axis: Axis, p: int, q: int) -> np.ndarray:
    """Count the positions of places t and s of periods p and q at which taps a and b read one pixel: (p, q, a, b)."""
    reads, i = axis.reads, np.arange(axis.outputs)
    same = ((reads[:, :, None] == reads[:, None, :]) & (reads[:, :, None] >= 0)).astype(float)
    shared = np.zeros((p, q, axis.size, axis.size))
    np.add.at(shared, (i % p, i % q), same)
    return shared


def _along_axes(matrices: Sequence[np.ndarray], v: Array) -> Array:
    """Apply one matrix (p, q, a, b) an axis: from places s and taps b to places t and taps a."""
    letters = iter(string.ascii_letters)
    p, q, a, b = ("".join(next(letters) for _ in matrices) for _ in range(4))
    operands = ",".join(map("".join, zip(p, q, a, b, strict=True)))
    arrays = [jnp.asarray(matrix, v.dtype) for matrix in matrices]
    return jnp.einsum(f"{operands},{q}{b}...->{p}{a}...", *arrays, v, precision=jax.lax.Precision.HIGHEST)
