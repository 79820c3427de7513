r"""How local and how shared a weight is: indices between what is random and what is a convolution, with both values known.

A share is $\|P w\|^2 / \|w\|^2$ of an orthogonal projection P, and for Gaussian weights its mean is the ratio of dimensions.
The others look at one unit (how much of it few weights carry) or at a tap across positions.
All are ratios: a factor before the weight changes none of them.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.convert import (
    lift_local_to_dense,
    lift_tiled_to_local,
    project_dense_to_local,
    project_local_to_tiled,
    squared_norm,
)
from convlab.geometry import Size, Space, Window, as_space

Axes = int | Sequence[int]


def local_share(w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1) -> Float[Array, ""]:
    """Tell which share of the squared norm of a dense weight lies inside the windows: "shared" and "local" of `decompose`.

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: The window that counts as local.
      space: Pixels along each spatial axis of the input.
      groups: Groups of channels; weights between groups count as outside.

    Returns:
      The share; the mean for Gaussian weights is that of the weights inside.

    Raises:
      ValueError: `w` has other output positions or pixels.
      TypeError: `w` is not floating.

    Example:
      >>> round(float(local_share(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5))), 4)  # 10 * 13 live taps of 20 * 20
      0.325
    """
    w = check.floating("w", w)
    kept = lift_local_to_dense(project_dense_to_local(w, window, space, groups), window, space, groups)
    return _part(jnp.sum(kept * kept), jnp.sum((w - kept) ** 2))


def tile_share(v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Size = 1) -> Float[Array, ""]:
    """Tell which share of the squared norm of a locally connected kernel repeats every `period` positions.

    Norms are those of the dense matrices, which are not formed: dead taps do not count, and taps that read one pixel add.

    Args:
      v: One kernel per output position.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      period: Positions along each side of the tile; 1 gives the share of the nearest convolution.

    Returns:
      The share; the mean for Gaussian weights is that of the live weights of the tile among those of all positions.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or a period exceeds the positions.
      TypeError: `v` is not floating, or `period` is not an integer.

    Example:
      >>> window, v = Window(3, padding="CIRCULAR"), jnp.arange(6.0)[:, None, None, None] % 2 * jnp.ones((3, 1, 1))
      >>> [float(tile_share(v, window, (6,), period)) for period in (1, 2)]
      [0.5, 1.0]
    """
    v, space, _ = _local(v, window, space)
    kept = lift_tiled_to_local(project_local_to_tiled(v, window, space, period), window, space)
    return _part(squared_norm(kept, window, space), squared_norm(v - kept, window, space))


def inverse_participation_ratio(w: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    r"""Tell how few weights carry a unit.

    $$\sum_{kl} W_{kl}^4 \,/\, \Big(\sum_{kl} W_{kl}^2\Big)^2$$

    Args:
      w: Weights.
      axes: Those of one unit, as the pixels that it reads; the others tell units apart.

    Returns:
      One number a unit, from 1 / n for n weights of one size to 1 for a single weight that is not zero; nan where all are zero.
      The mean for Gaussian weights is 3 / (n + 2).

    Example:
      >>> inverse_participation_ratio(jnp.array([[0.0, 0.0, 3.0, 0.0], [2.0, -2.0, 2.0, 2.0]]), 1)
      Array([1.  , 0.25], dtype=float32)

    Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks.
    """
    w, axes = check.floating("w", w), (axes,) if isinstance(axes, int) else tuple(axes)
    squares = (w / jnp.max(jnp.abs(w), axes, keepdims=True)) ** 2  # the largest is 1, so that none overflows
    return jnp.sum(squares * squares, axes) / jnp.sum(squares, axes) ** 2


def signal_to_noise(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    r"""Tell how large a tap's mean over positions is against its spread, averaged over taps.

    $$\mathrm{SNR} = \operatorname{mean}_{abcd} \frac{m_{abcd}^2}{\operatorname{mean}_{ij} (V_{ijabcd} - m_{abcd})^2},
      \qquad m_{abcd} = \operatorname{mean}_{ij} V_{ijabcd}$$

    Means over positions are over those where the tap is live; taps that are live at fewer than two are left out.

    Args:
      v: One kernel per output position.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.

    Returns:
      The ratio: infinite, up to rounding, for a shared kernel, s**-2 for one with independent noise of s times its size. The
      mean for Gaussian weights, whose taps are live at n > 3 positions, is 1 / (n - 3).

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is not floating.

    Example:
      >>> v = jnp.array([1.0, 3.0, 1.0, 3.0])[:, None, None, None]  # mean 2, deviation 1
      >>> float(signal_to_noise(v, Window(1), (4,)))
      4.0

    Reference: Pogodin, Mehta, Lillicrap and Latham 2021, Towards biologically plausible convolutional networks (SNR_w).
    """
    v, space, live = _local(v, window, space)
    positions = tuple(range(len(space)))
    many = live.sum(positions).astype(v.dtype)
    mean = v.sum(positions) / many
    spread = jnp.sum(jnp.where(live, v - mean, 0) ** 2, positions) / many
    return jnp.mean(mean**2 / spread, where=jnp.broadcast_to(many > 1, mean.shape))


def neighbour_distance(v: Float[Array, "i j a b c d"], window: Window, space: Space, offset: Sequence[int]) -> Float[Array, ""]:
    r"""Tell how far the kernels of positions that lie `offset` apart are from each other.

    $$D(s, t) = \frac{\sum_{ijabcd} (V_{ijabcd} - V_{i+s,\,j+t,\,abcd})^2}
      {\sum_{ijabcd} V_{ijabcd}^2 + V_{i+s,\,j+t,\,abcd}^2}$$

    over pairs of positions that are both there, and taps that are live at both.

    Args:
      v: One kernel per output position.
      window: Where each position reads.
      space: Pixels along each spatial axis of the input.
      offset: Positions from one to the other along each spatial axis; may be negative.

    Returns:
      0 where kernels are shared, 1 in the mean where they are independent of mean zero, 2 where they are opposite.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or no positions lie so far apart.
      TypeError: `v` is not floating.

    Example:
      >>> v = jnp.array([1.0, 1.0, -1.0, -1.0])[:, None, None, None]
      >>> [round(float(neighbour_distance(v, Window(1), (4,), (offset,))), 4) for offset in (1, 2)]
      [0.6667, 2.0]
    """
    v, space, live = _local(v, window, space)
    out = v.shape[: len(space)]
    if len(offset) != len(out) or any(abs(s) >= i for s, i in zip(offset, out, strict=True)):
        raise ValueError(f"offset {tuple(offset)} leads from none of {out} positions to another; needs less along each axis")
    here = tuple(slice(max(-s, 0), i - max(s, 0)) for s, i in zip(offset, out, strict=True))
    there = tuple(slice(max(s, 0), i - max(-s, 0)) for s, i in zip(offset, out, strict=True))
    both = live[here] & live[there]
    first, second = jnp.where(both, v[here], 0), jnp.where(both, v[there], 0)
    return jnp.sum((first - second) ** 2) / jnp.sum(first**2 + second**2)


def _part(kept: Array, rest: Array) -> Array:
    return kept / (kept + rest)


def _local(v: Array, window: Window, space: Space) -> tuple[Array, tuple[int, ...], np.ndarray]:
    """Return a locally connected kernel with dead taps set to zero, its space, and which entries are live."""
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    live = window.live(space)[..., None, None]
    return jnp.where(live, v, 0), as_space(space), live
