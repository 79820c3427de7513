r"""Between the rungs: `lift` re-writes a kernel on a freer rung, `project` finds the nearest one on a stricter rung.

Every kernel stands for a dense matrix, and E is the linear map that builds it: `lift` applies E, or the part of E that
leads to the freer rung. Distances are those of the dense matrices (Frobenius), so that all projections are orthogonal in
one space, nest and commute: with W the dense matrix of the argument, `project` returns

$$V = (E^\top E)^+ E^\top W$$

$E^\top E$ counts how often two taps read the same pixel. Under zero padding it is diagonal and holds n(a, b), the number of
positions at which tap (a, b) is live: projecting is the mean over live taps. Under "REFLECT", "EDGE" and windows that wrap
around the image, several taps of one position read the same pixel: their weights add on lifting, and the pseudo-inverse
gives the least-norm solution. It factors over the axes, so only matrices of one axis' taps are inverted.
"""

import string

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Size, Space, Window, as_axes, as_integer, as_space


def lift_conv_to_local(v: Float[Array, "a b c d"], window: Window, space: Space) -> Float[Array, "i j a b c d"]:
    r"""Give every position the same kernel, with dead taps set to zero.

    $$V'_{ijabcd} = V_{abcd} \quad \text{where tap } (a, b) \text{ is live at } (i, j), \text{ else } 0$$

    Args:
      v: The kernel of a convolution (with groups, c counts the channels of one group).
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.

    Raises:
      ValueError: `v` is not a kernel of this window, or the window fits nowhere on `space`.
      TypeError: `v` is not floating.

    Example:
      >>> lift_conv_to_local(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 3, 3, 2, 7)
    """
    v, space = _conv_kernel(v, window, space)
    return lift_tiled_to_local(v[(None,) * len(space)], window, space)


def project_local_to_conv(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, "a b c d"]:
    r"""Find the convolution nearest to a locally connected kernel: the mean of each tap over its live positions.

    $$V_{abcd} = \frac{1}{n(a, b)} \sum_{ij \,:\, (a, b) \text{ live}} V'_{ijabcd}$$

    Args:
      v: One kernel per output position.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.

    Returns:
      The kernel; taps that are live nowhere are zero. Where several taps read one pixel, the module's general formula.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is not floating.

    Example:
      >>> project_local_to_conv(jnp.ones((4, 5, 3, 3, 2, 7)), Window(3), (4, 5)).shape
      (3, 3, 2, 7)
    """
    return project_local_to_tiled(v, window, space, 1)[(0,) * len(as_space(space))]


def lift_tiled_to_local(
    v: Float[Array, "p q a b c d"], window: Window, space: Space, period: Size | None = None
) -> Float[Array, "i j a b c d"]:
    r"""Give every position the kernel of its place in the tile, with dead taps set to zero.

    $$V'_{ijabcd} = V_{i \bmod p,\, j \bmod q,\, abcd} \quad \text{where } (a, b) \text{ is live at } (i, j), \text{ else } 0$$

    Args:
      v: One kernel per place in the tile.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      period: Positions along each side of the tile; read off `v` when absent.

    Raises:
      ValueError: `v` does not hold kernels of this window and period.
      TypeError: `v` is not floating.

    Example:
      >>> lift_tiled_to_local(jnp.ones((2, 2, 3, 3, 1, 7)), Window(3), (4, 5), 2).shape
      (4, 5, 3, 3, 1, 7)
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    if period is not None:
        check.agree("v holds tiles of {} kernels", v.shape[:rank], "period is {}", as_axes("period", period, rank))
    check.taps("v", v.shape[rank : 2 * rank], window)
    for r, positions in enumerate(window.output_shape(space)):
        v = v.take(np.arange(positions) % v.shape[r], axis=r)
    return _silence(v, window, space)


def project_local_to_tiled(
    v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Size
) -> Float[Array, "p q a b c d"]:
    r"""Find the tiled kernel nearest to a locally connected one: each tap's mean over the live positions of its place.

    Args:
      v: One kernel per output position.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      period: Positions along each side of the tile: an int, or one per axis.

    Returns:
      One kernel per place in the tile; taps that are live nowhere are zero.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or a period exceeds the positions.
      TypeError: `v` is not floating, or `period` is not an integer.

    Example:
      >>> project_local_to_tiled(jnp.ones((4, 5, 3, 3, 1, 7)), Window(3), (4, 5), 2).shape
      (2, 2, 3, 3, 1, 7)
    """
    v, space = _local_kernel(v, window, space)
    rank, axes = len(space), window.axes(space)
    period = as_axes("period", period, rank)
    check.period(period, window, space)
    v = _silence(v, window, space)
    letters = iter(string.ascii_letters)
    i, a, b, p = ("".join(next(letters) for _ in range(rank)) for _ in range(4))
    means = [jnp.asarray(_means(axis, q), v.dtype) for axis, q in zip(axes, period, strict=True)]
    each = ",".join(map("".join, zip(p, i, b, a, strict=True)))
    return jnp.einsum(f"{each},{i}{a}...->{p}{b}...", *means, v, precision=jax.lax.Precision.HIGHEST)


def lift_local_to_dense(
    v: Float[Array, "i j a b c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j k l c d"]:
    r"""Write a locally connected kernel as a dense weight: zero outside the windows; taps on one pixel add.

    $$W_{ijklcd} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{ijabcd}$$

    Args:
      v: One kernel per output position; with groups, c counts the channels of one group.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      groups: Groups of channels; weights between groups are zero.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or `groups` does not divide d.
      TypeError: `v` is not floating.

    Example:
      >>> lift_local_to_dense(jnp.ones((4, 5, 3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 4, 5, 2, 7)
    """
    v, space = _local_kernel(v, window, space)
    v = _block_diagonal(v, groups)
    rank, out, reads = len(space), window.output_shape(space), _flat_reads(window, space)
    w = jnp.zeros((len(reads), int(np.prod(space)), *v.shape[2 * rank :]), v.dtype)
    w = w.at[np.arange(len(reads))[:, None], reads].add(v.reshape(*reads.shape, *w.shape[2:]), mode="drop")
    return w.reshape(*out, *space, *w.shape[2:])


def project_dense_to_local(
    w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j a b c d"]:
    r"""Find the locally connected kernel nearest to a dense weight: keep what lies inside the windows.

    $$V_{ijabcd} = W_{ijklcd} / m \quad \text{where } m \text{ taps of } (i, j), (a, b) \text{ among them, read } (k, l)$$

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      groups: Groups of channels; weights between groups are dropped.

    Returns:
      One kernel per output position, dead taps zero; m is 1 except where padding repeats pixels.

    Raises:
      ValueError: `w` has other output positions or pixels, or `groups` does not divide its channels.
      TypeError: `w` is not floating.

    Example:
      >>> project_dense_to_local(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 3, 3, 2, 7)
    """
    w, rank = check.kernel("w", w, spatial=2, others="c d")
    check.agree("w holds weights for {} pixels", w.shape[rank : 2 * rank], "space is {}", as_space(space))
    check.positions("w", w.shape[:rank], window, space)
    w, out, size = _blocks(w, groups), w.shape[:rank], window.taps(rank)
    reads = _flat_reads(window, space)
    w = w.reshape(len(reads), -1, *w.shape[2 * rank :])
    v = w.at[np.arange(len(reads))[:, None], reads].get(mode="fill", fill_value=0)
    many = np.maximum((reads[:, :, None] == reads[:, None, :]).sum(-1), 1)
    return (v / many[..., None, None].astype(v.dtype)).reshape(*out, *size, *v.shape[2:])


def lift_conv_to_dense(
    v: Float[Array, "a b c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j k l c d"]:
    """Write a convolution as a dense weight: what E does. Arguments and errors as of the two lifts it composes.

    Example:
      >>> lift_conv_to_dense(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 4, 5, 2, 7)
    """
    return lift_local_to_dense(lift_conv_to_local(v, window, space), window, space, groups)


def project_dense_to_conv(
    w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "a b c d"]:
    r"""Find the convolution nearest to a dense weight: $(E^\top E)^+ E^\top W$, by way of the nearest local kernel.

    Arguments and errors as of the two projections it composes; their order does not matter.

    Example:
      >>> project_dense_to_conv(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5)).shape
      (3, 3, 2, 7)
    """
    return project_local_to_conv(project_dense_to_local(w, window, space, groups), window, space)


def lift_low_rank_to_local(
    basis: Float[Array, "r a b c d"],
    weights: Float[Array, "i j r"],
    window: Window | None = None,
    space: Space | None = None,
) -> Float[Array, "i j a b c d"]:
    r"""Mix the kernel of every position from the shared ones.

    $$V_{ijabcd} = \sum_r w_{ijr} U_{rabcd}$$

    Args:
      basis: The shared kernels.
      weights: The proportions at each position.
      window: Where each position reads. With it and `space`, dead taps are set to zero as by the other lifts; without,
        they keep the values of the mixture, and so the result its rank.
      space: Pixels along each spatial axis of the input.

    Raises:
      ValueError: `basis` and `weights` disagree with each other or with the window, or one of `window` and `space` is missing.
      TypeError: An array is not floating.

    Example:
      >>> lift_low_rank_to_local(jnp.ones((6, 3, 3, 2, 7)), jnp.ones((4, 5, 6))).shape
      (4, 5, 3, 3, 2, 7)
    """
    basis, rank = check.kernel("basis", basis, spatial=1, others="r c d")
    weights = check.floating("weights", weights)
    check.agree("weights has {} axes", (weights.ndim,), "positions and r need {}", (rank + 1,))
    check.agree("weights mixes {} kernels", weights.shape[-1:], "basis holds {}", basis.shape[:1])
    v = jnp.tensordot(weights, basis, 1, precision=jax.lax.Precision.HIGHEST)
    if window is None and space is None:
        return v
    if window is None or space is None:
        raise ValueError("window and space say together which taps are dead: give both or none")
    v, space = _local_kernel(v, window, space)
    return _silence(v, window, space)


def project_local_to_low_rank(
    v: Float[Array, "i j a b c d"], rank: int
) -> tuple[Float[Array, "r a b c d"], Float[Array, "i j r"]]:
    r"""Find the nearest mixture of `rank` kernels by truncated singular value decomposition, which is optimal.

    The kernels of all positions are the rows of one matrix; the squared error is the sum of its squared singular values
    beyond `rank`. A kernel that all positions share comes back as itself with weights 1.

    Args:
      v: One kernel per output position; set dead taps to zero first, as lifting does, or their values count.
      rank: Number of kernels, 1 to min(positions, entries of one kernel).

    Returns:
      basis: The kernels, orthogonal, largest first.
      weights: The proportions at each position, orthogonal columns of mean square 1.

    Raises:
      ValueError: `rank` is out of range.
      TypeError: `v` is not floating, or `rank` is not an integer.

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
    sign = jnp.where(left.sum(0) < 0, -1, 1).astype(sigma.dtype)[:rank]
    weights = left[:, :rank] * (sign * len(matrix) ** 0.5)
    basis = right[:rank] * (sign * sigma[:rank] / len(matrix) ** 0.5)[:, None]
    return basis.reshape(rank, *entries).astype(v.dtype), weights.reshape(*out, rank).astype(v.dtype)


def decompose(w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1) -> dict[str, Float[Array, ""]]:
    """Split the squared norm of a dense weight into shares: of a convolution, of locality alone, and of the rest.

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: The window that counts as local.
      space: Pixels along each spatial axis of the input.
      groups: Groups of channels; weights between groups belong to the rest.

    Returns:
      "shared": share of the nearest convolution; "local": inside the windows but not shared; "rest": outside.
      They sum to 1 (nan for a zero weight). A Gaussian weight has shares equal to the ratios of the dimensions.

    Raises:
      ValueError: `w` has other output positions or pixels.
      TypeError: `w` is not floating.

    Example:
      >>> shares = decompose(lift_conv_to_dense(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)), Window(3), (4, 5))
      >>> round(float(shares["shared"]), 5)
      1.0
    """
    v = project_dense_to_local(w, window, space, groups)
    local = lift_local_to_dense(v, window, space, groups)
    shared = lift_conv_to_dense(project_local_to_conv(v, window, space), window, space, groups)
    parts = {"shared": shared, "local": local - shared, "rest": w - local}
    squares = {name: jnp.sum(part * part) for name, part in parts.items()}
    return {name: square / sum(squares.values()) for name, square in squares.items()}


def squared_norm(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    r"""Sum the squares of the dense matrix of a locally connected kernel, which is not formed.

    $$\sum_{ij} \sum_{ab,\,a'b' \text{ live, on one pixel}} V_{ijab} V_{ija'b'}$$

    Args:
      v: One kernel per output position; dead taps do not count.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is not floating.

    Example:
      >>> float(squared_norm(jnp.ones((4, 5, 3, 3, 1, 1)), Window(3), (4, 5)))  # 10 * 13 live taps
      130.0
    """
    v, space = _local_kernel(v, window, space)
    u, rank = v, len(space)
    for r, axis in enumerate(window.axes(space)):
        same = (axis.reads[:, :, None] == axis.reads[:, None, :]) & (axis.reads[:, :, None] >= 0)
        u = jnp.moveaxis(u, (r, rank + r), (0, 1))
        u = jnp.einsum("iab,ib...->ia...", jnp.asarray(same, v.dtype), u, precision=jax.lax.Precision.HIGHEST)
        u = jnp.moveaxis(u, (0, 1), (r, rank + r))
    return jnp.sum(u * v)


def _means(axis: Axis, period: int) -> np.ndarray:
    """Per place in the tile, the matrix that takes the taps of position i to the tile's: G+ M_i, (p, i, a, a).

    M_i[a, b] says whether taps a and b of position i read one pixel; G sums M_i over the positions of the place.
    """
    reads = axis.reads
    m = ((reads[:, :, None] == reads[:, None, :]) & (reads[:, :, None] >= 0)).astype(float)
    place = np.arange(axis.outputs) % period == np.arange(period)[:, None]
    gram = np.einsum("pi,iab->pab", place, m)
    return np.einsum("pab,pi,ibc->piac", np.linalg.pinv(gram, hermitian=True), place, m)


def _singular(matrix: Array) -> tuple[Array, Array, Array]:
    """Decompose a matrix by its singular values, also where its rows or columns are copies of each other.

    LAPACK returns nan of some such matrices: where all rows are one, so are their remainders at every step, each a rounding
    error of the one before, until they underflow. A reflection of rows and of columns gives every entry a rounding of its own.
    """
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(matrix)))
    size = jnp.where(size > 0, size, 1)
    rows, columns = (jnp.asarray(np.random.default_rng(0).normal(size=(n, 1)), matrix.dtype) for n in matrix.shape)
    left, sigma, right = jnp.linalg.svd(_reflect(_reflect(matrix / size, rows).T, columns).T, full_matrices=False)
    return _reflect(left, rows), sigma * size, _reflect(right.T, columns).T


def _reflect(matrix: Array, normal: Array) -> Array:
    """Mirror the columns of a matrix in the plane that a vector stands on."""
    along = jnp.matmul(normal.T, matrix, precision=jax.lax.Precision.HIGHEST) / jnp.sum(normal * normal)
    return matrix - 2 * normal * along


def _flat_reads(window: Window, space: Space) -> np.ndarray:
    """Pixel numbers as (positions, taps); dead taps point past the last pixel, where updates are dropped."""
    reads = window.reads(space)
    rank = reads.ndim // 2
    reads = reads.reshape(int(np.prod(reads.shape[:rank])), -1)
    return np.where(reads < 0, int(np.prod(space)), reads)


def _silence(v: Array, window: Window, space: Space) -> Array:
    """Set dead taps to zero."""
    return jnp.where(window.live(space)[..., None, None], v, 0)


def _block_diagonal(v: Array, groups: int) -> Array:
    """Place the kernels (..., c/g, d) of g groups on the diagonal of (..., c, d)."""
    check.divides(groups, v.shape[-1], "output channels")
    v = v.reshape(*v.shape[:-1], groups, -1)
    v = jnp.where(np.eye(groups, dtype=bool)[:, None, :, None], v[..., None, :, :, :], 0)
    return v.reshape(*v.shape[:-4], groups * v.shape[-3], -1)


def _blocks(w: Array, groups: int) -> Array:
    """Keep from (..., c, d) the kernels (..., c/g, d) of g groups."""
    check.divides(groups, w.shape[-1], "output channels")
    check.divides(groups, w.shape[-2], "input channels")
    w = w.reshape(*w.shape[:-2], groups, w.shape[-2] // groups, groups, -1)
    w = jnp.moveaxis(jnp.diagonal(w, axis1=-4, axis2=-2), -1, -2)
    return w.reshape(*w.shape[:-2], -1)


def _conv_kernel(v: Array, window: Window, space: Space) -> tuple[Array, tuple[int, ...]]:
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    window.of_rank(rank)
    check.taps("v", v.shape[:rank], window)
    return v, as_space(space)


def _local_kernel(v: Array, window: Window, space: Space) -> tuple[Array, tuple[int, ...]]:
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    return v, as_space(space)
