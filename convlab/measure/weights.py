r"""How local and how shared a weight is: indices between what is random and what is a convolution, with both values known.

A share is $\|P w\|^2 / \|w\|^2$ of an orthogonal projection P, and for Gaussian weights its mean is the ratio of dimensions.
The others look at one unit (how much of it few weights carry), at a tap across positions, or at what pruning has left.
All are ratios: a factor before the weight changes none of them.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.convert import (
    decompose,
    lift_local_to_dense,
    lift_tiled_to_local,
    project_dense_to_local,
    project_local_to_tiled,
    squared_norm,
)
from convlab.geometry import Size, Space, Window, as_space

Projection = Callable[[jax.Array], jax.Array]
Axes = int | Sequence[int]


def share(w: Float[Array, "..."], projection: Projection) -> Float[Array, ""]:
    r"""Tell which share of the squared norm of a weight an orthogonal projection keeps.

    $$\|P w\|^2 \,/\, (\|P w\|^2 + \|w - P w\|^2)$$

    The denominator is $\|w\|^2$ where P is orthogonal, and so the share is between 0 and 1 after rounding too.

    Args:
      w: The weight.
      projection: Takes it to another of the same shape.

    Returns:
      The share; nan for a weight of zeros. The mean for Gaussian weights is rank P / size of w.

    Example:
      >>> share(jnp.array([3.0, 1.0]), lambda w: jnp.full(2, w.mean()))  # what is common to all: 2 * 2**2 of 10
      Array(0.8, dtype=float32)
    """
    kept = projection(w)
    return _part(jnp.sum(kept * kept), jnp.sum((w - kept) ** 2))


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

    def onto_local(w):
        return lift_local_to_dense(project_dense_to_local(w, window, space, groups), window, space, groups)

    return share(check.floating("w", w), onto_local)


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


def circulant_share(w: Float[Array, "k l k l c d"]) -> Float[Array, ""]:
    r"""Tell which share of the squared norm of a dense weight commutes with all cyclic shifts $T_t$ of the N pixels.

    $$P W = \frac{1}{N} \sum_t T_t^{-1} W T_t$$

    is the nearest circular convolution with a window of the whole image, so that `decompose` knows it.

    Args:
      w: A dense weight with as many output positions as pixels.

    Returns:
      The share: 1 for a circular convolution; the mean for Gaussian weights is 1 / N.

    Raises:
      ValueError: The output positions are not the pixels.
      TypeError: `w` is not floating.

    Example:
      >>> round(float(circulant_share(jnp.eye(5)[:, :, None, None])), 5)
      1.0
    """
    w, rank = check.kernel("w", w, spatial=2, others="c d")
    out, space = w.shape[:rank], w.shape[rank : 2 * rank]
    check.agree("w has output positions {}", out, "shifting them with the pixels needs as many: {}", space)
    return decompose(w, Window(space, padding="CIRCULAR"), space)["shared"]


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
    w, axes = check.floating("w", w), _axes(axes)
    squares = (w / jnp.max(jnp.abs(w), axes, keepdims=True)) ** 2  # the largest is 1, so that none overflows
    return jnp.sum(squares * squares, axes) / jnp.sum(squares, axes) ** 2


def excess_kurtosis(w: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    r"""Tell how much heavier than a Gaussian's the tails of the weights are.

    $$\frac{\frac{1}{n} \sum (w - \bar w)^4}{\big(\frac{1}{n} \sum (w - \bar w)^2\big)^2} - 3$$

    Args:
      w: Weights.
      axes: Those to take together; the others stay.

    Returns:
      At least -2 (two values, equally often); nan where all weights are equal. The mean for n Gaussian weights is -6 / (n + 1).

    Example:
      >>> float(excess_kurtosis(jnp.array([1.0, -1.0, 1.0, -1.0]), 0))
      -2.0
    """
    w, axes = check.floating("w", w), _axes(axes)
    apart = w - jnp.mean(w, axes, keepdims=True)
    return inverse_participation_ratio(apart, axes) * math.prod(w.shape[axis] for axis in axes) - 3


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


def mean_distance(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"]) -> Float[Array, ""]:
    r"""Tell how far apart the inputs of a unit are that pruning has left: the mean over pairs of inputs of one unit.

    $$\sum_r |r| \, S(r) \,/\, \sum_r S(r), \qquad S(r) = \sum_{ijd} \#\{\text{pairs of inputs of } (i, j, d) \text{ at } r\}$$

    Inputs are weights that are not zero; two channels of one pixel are a pair at distance 0. Every pair counts once, so units
    with many inputs count for more.

    Args:
      w: A dense weight, or which of its entries are left.

    Returns:
      The mean Euclidean distance in pixels; nan where no unit has two inputs. The mean for inputs left at random is
      `mean_distance(jnp.ones_like(w))`, whatever share of them is left.

    Raises:
      ValueError: `w` is not a dense weight.

    Example:
      >>> w = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 5, 1, 1)  # one unit that reads pixels 0, 3 and 4
      >>> round(float(mean_distance(w)), 4), round(float(mean_distance(jnp.ones_like(w))), 4)
      (2.6667, 2.0)

    Reference: Pellegrini and Biroli 2022, Neural network pruning denoises the features and makes local connectivity emerge
    in visual tasks; S is the histogram that they draw.
    """
    w, rank = check.kernel("w", (jnp.asarray(w) != 0).astype(jnp.float32), spatial=2, others="c d")
    space = w.shape[rank : 2 * rank]
    counts = jnp.moveaxis(w.sum(-2), -1, rank).reshape(-1, math.prod(space))
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, space), indexing="ij"), -1).reshape(-1, rank)
    apart = jnp.linalg.norm((places[:, None] - places).astype(jnp.float32), axis=-1)
    distances = jnp.sum(jnp.matmul(counts, apart, precision=jax.lax.Precision.HIGHEST) * counts)
    inputs = counts.sum(1)
    return distances / jnp.sum(inputs * (inputs - 1))


def _part(kept: Array, rest: Array) -> Array:
    return kept / (kept + rest)


def _axes(axes: Axes) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _local(v: Array, window: Window, space: Space) -> tuple[Array, tuple[int, ...], np.ndarray]:
    """Return a locally connected kernel with dead taps set to zero, its space, and which entries are live."""
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    live = window.live(space)[..., None, None]
    return jnp.where(live, v, 0), as_space(space), live
