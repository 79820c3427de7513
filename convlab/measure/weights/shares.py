r"""Indices of how local and how shared a weight is.

Their values for Gaussian weights and for convolutions are known. A share is $\|P w\|^2 / \|w\|^2$ for an orthogonal
projection P. For Gaussian weights its mean is the ratio of dimensions. The other indices measure how few weights hold
most of a unit, or how much a tap differs between positions. All are ratios, so that scaling the weight does not change
them. The square of a complex weight stands for that of its absolute value.
"""

from collections.abc import Iterable, Sequence

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
from convlab.geometry import Size, Space, Window, as_integer, as_space

Axes = int | Sequence[int]


def local_share(w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1) -> Float[Array, ""]:
    r"""Compute the share of the squared norm of a dense weight that lies inside the windows.

    $$\|P W\|^2 / \|W\|^2, \qquad (P W)_{ijklcd} = W_{ijklcd} \text{ where } (i, j) \text{ reads } (k, l), \text{ else } 0$$

    It is the sum of "shared" and "local" in `decompose`.

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: The window that counts as local.
      space: The number of input pixels along each spatial axis.
      groups: The number of groups of channels. Weights between groups count as outside.

    Returns:
      The share. For Gaussian weights its mean is the fraction of weights that lie inside.

    Raises:
      ValueError: `w` has other output positions or pixels.
      TypeError: `w` is neither floating nor complex.

    Example:
      >>> round(float(local_share(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5))), 4)  # 10 * 13 live taps of 20 * 20
      0.325
    """
    w = check.inexact("w", w)
    kept = lift_local_to_dense(project_dense_to_local(w, window, space, groups), window, space, groups)
    return _share(jnp.sum(squares(kept)), jnp.sum(squares(w - kept)))


def tiled_share(v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Size = 1) -> Float[Array, ""]:
    r"""Compute the share of a local kernel's squared norm that repeats every `period` positions.

    $$\|P V\|^2 / \|V\|^2, \qquad P V \text{ the nearest kernel with } V_{ij} = V_{i \bmod p,\, j \bmod q}$$

    Norms are those of the dense matrices, which are not formed. Dead taps do not count, and taps that read the same pixel add.

    Args:
      v: One kernel per output position.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      period: The positions along each side of the tile. With 1, the result is the share of the nearest convolution.

    Returns:
      The share. For Gaussian weights its mean is the number of the tile's live weights over the live weights of all positions.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or a period exceeds the positions.
      TypeError: `v` is neither floating nor complex, or `period` is not an integer.

    Example:
      >>> window, v = Window(3, padding="CIRCULAR"), jnp.arange(6.0)[:, None, None, None] % 2 * jnp.ones((3, 1, 1))
      >>> [float(tiled_share(v, window, (6,), period)) for period in (1, 2)]
      [0.5, 1.0]
    """
    v, space, _ = _live_kernel(v, window, space)
    kept = lift_tiled_to_local(project_local_to_tiled(v, window, space, period), window, space)
    return _share(squared_norm(kept, window, space), squared_norm(v - kept, window, space))


def inverse_participation_ratio(w: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    r"""Compute how concentrated the weights of each unit are.

    $$\sum_{kl} W_{kl}^4 \,/\, \Big(\sum_{kl} W_{kl}^2\Big)^2$$

    Args:
      w: The weights.
      axes: The axes over one unit's weights, for example the pixels that it reads. The other axes count units.

    Returns:
      One number for each unit, from 1 / n for n weights of equal size to 1 for a single nonzero weight. It is nan if all
      weights are zero. The mean for Gaussian weights is 3 / (n + 2).

    Raises:
      TypeError: `w` is neither floating nor complex.
      ValueError: `w` is empty.

    Example:
      >>> inverse_participation_ratio(jnp.array([[0.0, 0.0, 3.0, 0.0], [2.0, -2.0, 2.0, 2.0]]), 1)
      Array([1.  , 0.25], dtype=float32)

    Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks.
    """
    w = check.inexact("w", w)
    entries = check.sequence("axes", axes, "integers") if isinstance(axes, Iterable) else [axes]
    axes = tuple(as_integer("axes", axis, least=None) for axis in entries)
    if any(not -w.ndim <= axis < w.ndim for axis in axes) or len({axis % w.ndim for axis in axes}) < len(axes):
        raise ValueError(f"axes are {axes}; needs different ones of the {w.ndim} axes of w")
    # The largest absolute value becomes 1, so that the fourth power does not overflow.
    parts = squares(w / jnp.max(jnp.abs(w), axes, keepdims=True))
    return jnp.sum(parts * parts, axes) / jnp.sum(parts, axes) ** 2


def signal_to_noise(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    r"""Compute the squared mean of a tap over its variance between positions, averaged over taps.

    $$\mathrm{SNR} = \operatorname{mean}_{abcd} \frac{m_{abcd}^2}{\operatorname{mean}_{ij} (V_{ijabcd} - m_{abcd})^2},
      \qquad m_{abcd} = \operatorname{mean}_{ij} V_{ijabcd}$$

    The means over positions include only positions where the tap is live. Taps that are live at fewer than two positions are
    left out, and so are taps that are zero everywhere, as after a mask.

    Args:
      v: One kernel per output position.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Returns:
      The ratio. It is infinite, up to rounding, for a shared kernel. For a shared kernel plus independent noise of s times its
      size it is s**-2. For Gaussian weights, whose taps are live at n > 3 positions, its mean is 1 / (n - 3).

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> v = jnp.array([1.0, 3.0, 1.0, 3.0])[:, None, None, None]  # mean 2, deviation 1
      >>> float(signal_to_noise(v, Window(1), (4,)))
      4.0

    Reference: Pogodin, Mehta, Lillicrap and Latham 2021, Towards biologically plausible convolutional networks (SNR_w).
    """
    v, space, live = _live_kernel(v, window, space)
    positions = tuple(range(len(space)))
    counts = live.sum(positions).astype(v.real.dtype)
    mean = v.sum(positions) / counts
    spread = jnp.sum(squares(jnp.where(live, v - mean, 0)), positions) / counts
    return jnp.mean(squares(mean) / spread, where=(counts > 1) & jnp.any(v != 0, positions))


def neighbour_distance(v: Float[Array, "i j a b c d"], window: Window, space: Space, offset: Sequence[int]) -> Float[Array, ""]:
    r"""Compute the relative squared distance between kernels of positions that are `offset` apart.

    $$D(s, t) = \frac{\sum_{ijabcd} (V_{ijabcd} - V_{i+s,\,j+t,\,abcd})^2}
      {\sum_{ijabcd} V_{ijabcd}^2 + V_{i+s,\,j+t,\,abcd}^2}$$

    The sums include pairs of positions that both exist, and taps that are live at both.

    Args:
      v: One kernel per output position.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      offset: The number of positions from one to the other along each spatial axis; may be negative.

    Returns:
      The distance: 0 if kernels are shared, 2 if they are opposite. Its mean is 1 for independent kernels of mean zero.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or no two positions are `offset` apart.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> v = jnp.array([1.0, 1.0, -1.0, -1.0])[:, None, None, None]
      >>> [round(float(neighbour_distance(v, Window(1), (4,), (offset,))), 4) for offset in (1, 2)]
      [0.6667, 2.0]
    """
    v, space, live = _live_kernel(v, window, space)
    out = v.shape[: len(space)]
    offset = [as_integer("offset", entry, least=None) for entry in check.sequence("offset", offset, "integers")]
    if len(offset) != len(out) or any(abs(s) >= i for s, i in zip(offset, out, strict=True)):
        raise ValueError(
            f"offset {tuple(offset)} exceeds the {out} positions; needs an absolute value below them along each axis"
        )
    here = tuple(slice(max(-s, 0), i - max(s, 0)) for s, i in zip(offset, out, strict=True))
    there = tuple(slice(max(s, 0), i - max(-s, 0)) for s, i in zip(offset, out, strict=True))
    both = live[here] & live[there]
    first, second = jnp.where(both, v[here], 0), jnp.where(both, v[there], 0)
    return jnp.sum(squares(first - second)) / jnp.sum(squares(first) + squares(second))


def squares(w: Array) -> Array:
    """Return the squared absolute value of every entry, with all its derivatives."""
    return jnp.real(w * jnp.conj(w))


def _share(kept: Array, removed: Array) -> Array:
    return kept / (kept + removed)


def _live_kernel(v: Array, window: Window, space: Space) -> tuple[Array, tuple[int, ...], np.ndarray]:
    """Return a local kernel with zeros as dead taps, its space, and a mask of its live entries."""
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:ndim], window, space)
    check.taps("v", v.shape[ndim : 2 * ndim], window)
    live = window.live(space)[..., None, None]
    return jnp.where(live, v, 0), as_space(space), live
