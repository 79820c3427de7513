"""Kernels over one period.

Along each axis, kernel t of a tile belongs to all positions i with i mod p = t.

A convolution has period 1, and the period of a locally connected layer is the number of its positions. Lifts and projections
between periods never write out the kernels of all positions. E is the map from kernels to the dense matrix, see
`convlab.convert`. A projection needs only $E^T E$, which is counted for every kernel of the tile and is a Kronecker product
over the axes.
"""

import string
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Space, Window, over_axes


def repeat(v: Float[Array, "p q a b c d"], period: Sequence[int]) -> Float[Array, "i j a b c d"]:
    r"""Repeat kernels over a longer period.

    $$V'_{ijabcd} = V_{i \bmod p,\, j \bmod q,\, abcd}$$

    Example:
      >>> repeat(jnp.arange(2.0).reshape(2, 1, 1, 1), (5,)).ravel()
      Array([0., 1., 0., 1., 0.], dtype=float32)
    """
    check.shape_fits("kernels at all positions of space", *period, *v.shape[len(period) :], itemsize=v.dtype.itemsize)
    for r, size in enumerate(period):
        v = v if v.shape[r] == size else v.take(np.arange(size) % v.shape[r], axis=r)
    return v


def zero_dead_taps(v: Float[Array, "p q a b c d"], window: Window, space: Space) -> Float[Array, "p q a b c d"]:
    r"""Set dead taps to zero.

    $$V'_{tsabcd} = V_{tsabcd} \text{ if } (a, b) \text{ is live at some } (i, j) \text{ with } i \bmod p = t,\;
      j \bmod q = s, \text{ else } 0$$

    A tap is dead in a kernel if it reads padding at every position that uses the kernel.

    Example:
      >>> zero_dead_taps(jnp.ones((3, 3, 1, 1)), Window(3), (3,))[..., 0, 0]
      Array([[0., 1., 1.],
             [1., 1., 1.],
             [1., 1., 0.]], dtype=float32)
    """
    axes = window.axes(space)
    live = [np.stack([(axis.reads >= 0)[t::p].any(0) for t in range(p)]) for axis, p in zip(axes, v.shape, strict=False)]
    table = over_axes(np.logical_and, live)
    return jnp.where(table[..., None, None], v, 0)


def gather(v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Sequence[int]) -> Float[Array, "p q a b c d"]:
    r"""Apply $E^\top E'$ to kernels V', where E' belongs to their period and E to another one.

    If no two taps of a window read the same pixel, the result for a tap is a sum over the positions where it is live.
    """
    axes = zip(window.axes(space), period, v.shape, strict=False)
    return _along_axes([counts(axis, p, q) for axis, p, q in axes], zero_dead_taps(v, window, space))


def nearest(v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Sequence[int]) -> Float[Array, "p q a b c d"]:
    r"""Find the nearest kernels of another period, $(E^\top E)^+ E^\top E' V'$.

    Example:
      >>> nearest(jnp.ones((4, 3, 1, 1)), Window(3), (4,), (2,)).shape
      (2, 3, 1, 1)
    """
    means = []
    for axis, p, q in zip(window.axes(space), period, v.shape, strict=False):
        shared = counts(axis, p, q)
        means.append(np.einsum("pab,pqbc->pqac", np.linalg.pinv(shared.sum(1), hermitian=True), shared))
    return _along_axes(means, zero_dead_taps(v, window, space))


def squared_norm(v: Float[Array, "p q a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    r"""Compute the squared norm of the dense matrix of kernels without forming the matrix.

    $$\sum_{ij} \sum_{ab,\,a'b' \text{ live, on one pixel}} V_{ijab} \bar V_{ija'b'}$$

    Args:
      v: One kernel for each place of a period; dead taps do not count.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Example:
      >>> float(squared_norm(jnp.ones((4, 5, 3, 3, 1, 1)), Window(3), (4, 5)))  # 10 * 13 live taps
      130.0
    """
    shared = [counts(axis, p, p) for axis, p in zip(window.axes(space), v.shape, strict=False)]
    return jnp.real(jnp.sum(_along_axes(shared, v) * jnp.conj(v)))


def counts(axis: Axis, p: int, q: int) -> np.ndarray:
    r"""Count the positions in class t mod p and s mod q where taps a and b read one pixel: (p, q, a, b).

    $$n_{tsab} = \#\{\, i : i \bmod p = t,\; i \bmod q = s,\; \text{taps } a \text{ and } b \text{ read one pixel at } i \,\}$$
    """
    check.shape_fits("the taps of window that read one pixel", axis.outputs, axis.size, axis.size)
    check.shape_fits("the taps of window in each kernel", p, q, axis.size, axis.size)
    reads, i = axis.reads, np.arange(axis.outputs)
    same = ((reads[:, :, None] == reads[:, None, :]) & (reads[:, :, None] >= 0)).astype(float)
    shared = np.zeros((p, q, axis.size, axis.size))
    np.add.at(shared, (i % p, i % q), same)
    return shared


def _along_axes(matrices: Sequence[np.ndarray], v: Array) -> Array:
    """Apply one matrix (p, q, a, b) per axis to the period and the taps."""
    letters = iter(string.ascii_letters)
    p, q, a, b = ("".join(next(letters) for _ in matrices) for _ in range(4))
    operands = ",".join(map("".join, zip(p, q, a, b, strict=True)))
    arrays = [jnp.asarray(matrix, v.dtype) for matrix in matrices]
    return jnp.einsum(f"{operands},{q}{b}...->{p}{a}...", *arrays, v, precision=jax.lax.Precision.HIGHEST)
