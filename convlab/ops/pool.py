"""Pooling: what shrinks an image between layers. Mean and blur are convolutions of each channel, the others are not linear.

All run axis by axis over the strided slices of the windows, so k x k taps cost 2k slices, every derivative exists,
and no gradient falls to the slow select-and-scatter. Windows that do not overlap are blocks of a reshaped image instead: the
gradient of their mean is a broadcast, that of their maximum a broadcast and a comparison.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from convlab import check
from convlab.geometry import Axis, Window
from convlab.unfold import extend, taps

LANES = 16  # channels from which on the blocks of `max_pool` were measured faster than its slices


def max_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Take the largest pixel of every window, channel by channel; padding never wins.

    $$H_{ijc} = \max_{ab} X_{i+a,\,j+b,\,c}$$

    The gradient goes to the first of equal pixels, row by row, as in `jax.lax.reduce_window` and PyTorch.

    Args:
      x: Images, any number of leading batch axes.
      window: Where each position reads. With every argument an int, all axes but the first and last are spatial.

    Raises:
      ValueError: The window fits nowhere, or a position sees padding only.
      TypeError: `x` is not floating.

    Example:
      >>> max_pool(jnp.arange(6.0).reshape(2, 3, 1), Window((2, 2), padding="VALID")).squeeze()
      Array([4., 5.], dtype=float32)
    """
    with jax.named_scope("max_pool"):
        x, axes = _lay(x, window)
        if _apart(axes) and x.shape[-1] >= LANES:
            return _max_of_blocks(_blocks(x, axes, -jnp.inf), len(axes))
        return _reduce(x, axes, -jnp.inf, _first_largest)


def mean_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Average every window, channel by channel: a convolution with equal weights that sum to 1.

    $$H_{ijc} = \frac{1}{AB} \sum_{ab} X_{i+a,\,j+b,\,c}$$

    Zero padding counts as pixels of value zero, so that the op is a convolution.

    Args:
      x: Images, any number of leading batch axes.
      window: Where each position reads. With every argument an int, all axes but the first and last are spatial.

    Raises:
      ValueError: The window fits nowhere, or a position sees padding only.
      TypeError: `x` is not floating.

    Example:
      >>> mean_pool(jnp.arange(4.0).reshape(2, 2, 1), Window((2, 2), strides=2)).squeeze()
      Array(1.5, dtype=float32)
    """
    with jax.named_scope("mean_pool"):
        x, axes = _lay(x, window)
        if _apart(axes):
            return _blocks(x, axes, 0.0).mean(tuple(range(-2 * len(axes), -1, 2)))
        return _reduce(x, axes, 0.0, lambda pixels: _mix(pixels, [1 / len(pixels)] * len(pixels)))


def blur_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Blur with binomial weights, then keep every stride-th pixel: downsampling that respects the sampling theorem.

    $$H_{ijc} = \sum_{ab} \beta_a \beta_b \, X_{i+a,\,j+b,\,c}, \qquad \beta_a = \binom{A-1}{a} / 2^{A-1}$$

    The weights sum to 1 and, from two taps on, remove the highest frequency [1, -1, 1, ...].

    Args:
      x: Images, any number of leading batch axes.
      window: Where each position reads. With every argument an int, all axes but the first and last are spatial.

    Raises:
      ValueError: The window fits nowhere, or a position sees padding only.
      TypeError: `x` is not floating.

    Example:
      >>> blur_pool(jnp.array([[1.0], [-1.0], [1.0], [-1.0]]), Window((3,), strides=2, padding="CIRCULAR")).squeeze()
      Array([0., 0.], dtype=float32)

    Reference: Zhang 2019, Making convolutional networks shift-invariant again.
    """
    with jax.named_scope("blur_pool"):
        x, axes = _lay(x, window)
        return _reduce(x, axes, 0.0, lambda pixels: _mix(pixels, binomial(len(pixels))))


def polyphase_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Blur, then keep every stride-th pixel, beginning where most energy is kept: downsampling that commutes with shifts.

    $$H_{ijc} = B_{si+p,\,sj+q,\,c}, \qquad (p, q) = \arg\max_{p, q} \sum_{ijc} B_{si+p,\,sj+q,\,c}^2$$

    B is the image blurred by the window at stride 1, as in `blur_pool`; a window of one tap leaves it as it is. One beginning
    is chosen for all channels of an image. With circular padding a shifted image gives the shifted output, by how much its
    pixels decide: s divides the shift, or the output moves by the multiple below or above it. Derivatives are those of the
    pixels that are kept.

    Args:
      x: Images, any number of leading batch axes.
      window: Size of the blur, strides, and what the blur sees outside. With every argument an int, all axes but the first
        and last are spatial.

    Raises:
      ValueError: The window fits nowhere, a position sees padding only, or the stride does not divide the positions that the
        window has at stride 1.
      TypeError: `x` is not floating.

    Example:
      >>> x = jnp.array([0.0, 1.0, 0.0, 2.0])[:, None]
      >>> window = Window((1,), strides=2, padding="CIRCULAR")
      >>> polyphase_pool(x, window).squeeze(), polyphase_pool(jnp.roll(x, 1), window).squeeze()
      (Array([1., 2.], dtype=float32), Array([2., 1.], dtype=float32))

    Reference: Chaman and Dokmanic 2021, Truly shift-invariant convolutional neural networks, section 3.
    """
    with jax.named_scope("polyphase_pool"):
        x, strided = _lay(x, window)
        axes = dataclasses.replace(window.of_rank(len(strided)), strides=1).axes(tuple(axis.pixels for axis in strided))
        blurred = _reduce(x, axes, 0.0, lambda pixels: _mix(pixels, binomial(len(pixels))))
        positions, strides = [axis.outputs for axis in axes], [axis.stride for axis in strided]
        if any(n % s for n, s in zip(positions, strides, strict=True)):
            raise ValueError(f"{window} has {positions} positions at stride 1, but strides {strides} must divide them")
        rank, start = len(axes), x.ndim - 1 - len(axes)
        cut = [length for n, s in zip(positions, strides, strict=True) for length in (n // s, s)]
        parts = blurred.reshape(*x.shape[:start], *cut, x.shape[-1])
        parts = jnp.moveaxis(parts, range(start + 1, start + 2 * rank, 2), range(start, start + rank))
        parts = parts.reshape(*x.shape[:start], -1, *cut[::2], x.shape[-1])
        energy = jnp.sum(parts * parts, range(start + 1, parts.ndim), keepdims=True)
        return jnp.take_along_axis(parts, jnp.argmax(energy, start, keepdims=True), start).squeeze(start)


def binomial(size: int) -> list[float]:
    """Return the `size` weights of a binomial blur; they sum to 1."""
    return [math.comb(size - 1, a) / 2 ** (size - 1) for a in range(size)]


def _lay(x: Array, window: Window) -> tuple[Array, tuple[Axis, ...]]:
    rank = window.rank or max(jnp.ndim(x) - 2, 1)
    x, space = check.images(x, rank, f"{window} is laid on {rank} of them")
    axes = window.axes(space)
    if not all((axis.reads >= 0).any(1).all() for axis in axes):
        raise ValueError(f"{window} on {space} pixels has positions that see padding only; pad by less than its size")
    return x, axes


def _reduce(x: Array, axes: tuple[Axis, ...], fill: float, reduce: Callable[[list[Array]], Array]) -> Array:
    """Reduce the taps of every window, last axis first, so that ties fall to the first pixel row by row."""
    start = x.ndim - 1 - len(axes)
    x = extend(x, axes, start, fill)
    for r in reversed(range(len(axes))):
        x = reduce(list(taps(x, axes[r], start + r)))
    return x


def _apart(axes: tuple[Axis, ...]) -> bool:
    """Whether every pixel is in one window at most, and no window has gaps."""
    return all(axis.stride == axis.size and axis.dilation == 1 for axis in axes)


def _blocks(x: Array, axes: tuple[Axis, ...], fill: float) -> Float[Array, "*n i a j b c"]:
    """Cut images into windows that do not overlap."""
    start = x.ndim - 1 - len(axes)
    x = extend(x, axes, start, fill)
    batch, channels = x.shape[:start], x.shape[-1]
    x = x[..., *(slice(axis.outputs * axis.size) for axis in axes), slice(None)]
    return x.reshape(*batch, *(length for axis in axes for length in (axis.outputs, axis.size)), channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_of_blocks(blocks: Float[Array, "*n i a j b c"], rank: int) -> Float[Array, "*n i j c"]:
    """Take the largest pixel of each block; the derivative takes the tangent of the same pixel."""
    return _largest(blocks, rank)[0]


@_max_of_blocks.defjvp
def _tangent_of_largest(rank: int, blocks: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    largest, number = _largest(blocks[0], rank)
    taps = tuple(range(-2 * rank, -1, 2))
    sizes = [length if axis - blocks[0].ndim in taps else 1 for axis, length in enumerate(blocks[0].shape)]
    numbers = np.arange(math.prod(sizes), dtype=number.dtype).reshape(sizes)
    return largest, jnp.where(jnp.expand_dims(number, taps) == numbers, tangents[0], 0).sum(taps)


def _largest(blocks: Float[Array, "*n i a j b c"], rank: int) -> tuple[Float[Array, "*n i j c"], Int[Array, "*n i j c"]]:
    """The largest pixel of each block, and which it is, row by row; the first of equal ones."""
    sizes = blocks.shape[-2 * rank :: 2]
    best, *others = (
        blocks[..., *(part for a in tap for part in (a, slice(None)))] for tap in itertools.product(*map(range, sizes))
    )
    number = jnp.zeros(best.shape, np.min_scalar_type(-math.prod(sizes)))
    for m, pixel in enumerate(others, 1):
        wins = _wins(pixel, best)
        best, number = jnp.where(wins, pixel, best), jnp.where(wins, jnp.asarray(m, number.dtype), number)
    return best, number


def _first_largest(pixels: list[Array]) -> Array:
    return functools.reduce(lambda best, pixel: jnp.where(_wins(pixel, best), pixel, best), pixels)


def _wins(pixel: Array, best: Array) -> Array:
    """Return where a later pixel is larger than the best so far, or NaN, which always stays."""
    return (pixel > best) | jnp.isnan(pixel)


def _mix(pixels: list[Array], weights: Sequence[float]) -> Array:
    return sum(pixel * weight for pixel, weight in zip(pixels, weights, strict=True))  # pyright: ignore[reportReturnType]
