"""Conversion between locally connected kernels and dense weights."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.convert.tiled import local_kernel
from convlab.geometry import Space, Window, as_space


def lift_local_to_dense(
    v: Float[Array, "i j a b c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j k l c d"]:
    r"""Write a locally connected kernel as a dense weight, zero outside the windows.

    Weights of taps that read the same pixel add.

    $$W_{ijklcd} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{ijabcd}$$

    Args:
      v: One kernel per output position; with groups, c counts the channels of one group.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      groups: The number of groups of channels. Weights between groups are zero.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or `groups` does not divide d.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> lift_local_to_dense(jnp.ones((4, 5, 3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 4, 5, 2, 7)
    """
    v, space = local_kernel(v, window, space), as_space(space)
    v = _block_diagonal(v, groups)
    rank, out = len(space), window.output_shape(space)
    check.shape_fits("the dense weight of space", *out, *space, *v.shape[2 * rank :], itemsize=v.dtype.itemsize)
    reads = _flat_reads(window, space)
    w = jnp.zeros((len(reads), int(np.prod(space)), *v.shape[2 * rank :]), v.dtype)
    w = w.at[np.arange(len(reads))[:, None], reads].add(v.reshape(*reads.shape, *w.shape[2:]), mode="drop")
    return w.reshape(*out, *space, *w.shape[2:])


def project_dense_to_local(
    w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j a b c d"]:
    r"""Find the nearest locally connected kernel: the weights inside the windows.

    $$V_{ijabcd} = W_{ijklcd} / m$$

    Here (k, l) is the pixel that tap (a, b) reads at (i, j), and m is the number of taps at (i, j) that read it.

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      groups: The number of groups of channels. Weights between groups are dropped.

    Returns:
      One kernel per output position, with dead taps set to zero. m is 1 unless padding repeats pixels. With groups, c
      counts the channels of one group.

    Raises:
      ValueError: `w` has other output positions or pixels, or `groups` does not divide its channels.
      TypeError: `w` is neither floating nor complex.

    Example:
      >>> project_dense_to_local(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 3, 3, 2, 7)
    """
    w, rank = check.kernel("w", w, spatial=2, others="c d")
    check.equal_shapes("w holds weights for {} pixels", w.shape[rank : 2 * rank], "space is {}", as_space(space))
    check.positions("w", w.shape[:rank], window, space)
    w, out, size = _blocks(w, groups), w.shape[:rank], window.taps(rank)
    reads = _flat_reads(window, space)
    w = w.reshape(len(reads), -1, *w.shape[2 * rank :])
    v = w.at[np.arange(len(reads))[:, None], reads].get(mode="fill", fill_value=0)
    check.shape_fits("the taps of window that read one pixel", *reads.shape, reads.shape[1], itemsize=1)
    counts = np.maximum((reads[:, :, None] == reads[:, None, :]).sum(-1), 1)
    return (v / counts[..., None, None].astype(v.dtype)).reshape(*out, *size, *v.shape[2:])


def _flat_reads(window: Window, space: Space) -> np.ndarray:
    """Return pixel numbers as (positions, taps). Dead taps point past the last pixel."""
    reads = window.reads(space)
    rank = reads.ndim // 2
    reads = reads.reshape(int(np.prod(reads.shape[:rank])), -1)
    return np.where(reads < 0, int(np.prod(space)), reads)


def _block_diagonal(v: Array, groups: int) -> Array:
    """Place the kernels (..., c/g, d) of g groups on the diagonal of (..., c, d)."""
    check.group_count(groups, v.shape[-1], "output channels")
    v = v.reshape(*v.shape[:-1], groups, -1)
    v = jnp.where(np.eye(groups, dtype=bool)[:, None, :, None], v[..., None, :, :, :], 0)
    return v.reshape(*v.shape[:-4], groups * v.shape[-3], -1)


def _blocks(w: Array, groups: int) -> Array:
    """Keep from (..., c, d) the kernels (..., c/g, d) of g groups."""
    check.group_count(groups, w.shape[-1], "output channels")
    check.group_count(groups, w.shape[-2], "input channels")
    w = w.reshape(*w.shape[:-2], groups, w.shape[-2] // groups, groups, -1)
    w = jnp.moveaxis(jnp.diagonal(w, axis1=-4, axis2=-2), -1, -2)
    return w.reshape(*w.shape[:-2], -1)
