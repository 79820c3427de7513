"""Pooling: downsampling of images between layers.

Mean pooling and blur pooling are depthwise convolutions. Max pooling and polyphase pooling are not linear.

All of them run axis by axis over strided slices of the image. So k x k taps cost 2k slices, every derivative exists, and no
gradient uses the slow select-and-scatter. Windows that do not overlap are blocks of a reshaped image instead. The gradient of
their mean is a broadcast, and that of their maximum is a broadcast and a comparison.
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
from convlab.geometry import Axis, Size, Window
from convlab.unfold import extend, taps, window_of_size

LANES = 16  # the number of channels from which `max_pool` was measured faster by blocks than by slices


def max_pool(x: Float[Array, "*n k l c"], window: Window | Size) -> Float[Array, "*n i j c"]:
    r"""Take the maximum over every window, channel by channel.

    $$H_{ijc} = \max_{ab} X_{i+a,\,j+b,\,c}$$

    Padding is minus infinity, so it is never the maximum. The gradient goes to the first of equal pixels in row-major order, as
    in `jax.lax.reduce_window` and PyTorch.

    Args:
      x: The images, with any number of leading batch axes.
      window: The pixels that each position reads. If all its arguments are ints, all axes but the first and last are spatial. A
        size s, one int or one per axis, means windows that do not overlap: Window(s, strides=s, padding="VALID").

    Raises:
      ValueError: The window fits nowhere, or a position reads padding only.
      TypeError: `x` is not floating.

    Example:
      >>> max_pool(jnp.arange(6.0).reshape(2, 3, 1), Window((2, 2), padding="VALID")).squeeze()
      Array([4., 5.], dtype=float32)
    """
    with jax.named_scope("max_pool"):
        x, axes = _axes(x, window_of_size(window))
        return _max(check.real("x", x), axes)


def mean_pool(x: Float[Array, "*n k l c"], window: Window | Size) -> Float[Array, "*n i j c"]:
    r"""Average every window, channel by channel: a convolution with equal weights that sum to 1.

    $$H_{ijc} = \frac{1}{AB} \sum_{ab} X_{i+a,\,j+b,\,c}$$

    Zero padding counts as pixels of value zero, so that the op is a convolution.

    Args:
      x: The images, with any number of leading batch axes.
      window: The pixels that each position reads. If all its arguments are ints, all axes but the first and last are spatial. A
        size s, one int or one per axis, means windows that do not overlap: Window(s, strides=s, padding="VALID").

    Raises:
      ValueError: The window fits nowhere, or a position reads padding only.
      TypeError: `x` is neither floating nor complex.

    Example:
      >>> mean_pool(jnp.arange(4.0).reshape(2, 2, 1), Window((2, 2), strides=2)).squeeze()
      Array(1.5, dtype=float32)
    """
    with jax.named_scope("mean_pool"):
        x, axes = _axes(x, window_of_size(window))
        return _mean(x, axes)


def blur_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Downsample after a blur with binomial weights, which reduces aliasing.

    $$H_{ijc} = \sum_{ab} \beta_a \beta_b \, X_{i+a,\,j+b,\,c}, \qquad \beta_a = \binom{A-1}{a} / 2^{A-1}$$

    The weights sum to 1. With two or more taps, they remove the highest frequency [1, -1, 1, ...].

    Args:
      x: The images, with any number of leading batch axes.
      window: The pixels that each position reads. If all its arguments are ints, all axes but the first and last are spatial.

    Raises:
      ValueError: The window fits nowhere, or a position reads padding only.
      TypeError: `x` is neither floating nor complex.

    Example:
      >>> blur_pool(jnp.array([[1.0], [-1.0], [1.0], [-1.0]]), Window((3,), strides=2, padding="CIRCULAR")).squeeze()
      Array([0., 0.], dtype=float32)

    Reference: Zhang 2019, Making convolutional networks shift-invariant again.
    """
    with jax.named_scope("blur_pool"):
        x, axes = _axes(x, window)
        return _blur(x, axes)


def polyphase_pool(x: Float[Array, "*n k l c"], window: Window) -> Float[Array, "*n i j c"]:
    r"""Downsample by keeping the polyphase component of most energy, which commutes with shifts.

    $$H_{ijc} = B_{si+p,\,sj+q,\,c}, \qquad (p, q) = \arg\max_{p, q} \sum_{ijc} B_{si+p,\,sj+q,\,c}^2$$

    B is the image blurred by the window at stride 1, as in `blur_pool`. A window of one tap does not blur. One offset (p, q) is
    chosen for all channels of an image.

    With circular padding, a shifted image gives a shifted output. If s divides the shift, the output moves by exactly the
    shift. Otherwise it moves by the multiple of s below or above the shift, depending on the pixels. Derivatives are those of
    the pixels that are kept.

    Args:
      x: The images, with any number of leading batch axes.
      window: The size of the blur, the strides and the padding of the blur. If all its arguments are ints, all axes but the
        first and last are spatial.

    Raises:
      ValueError: The window fits nowhere, a position reads padding only, or the stride does not divide the number of positions
        that the window has at stride 1.
      TypeError: `x` is neither floating nor complex.

    Example:
      >>> x = jnp.array([0.0, 1.0, 0.0, 2.0])[:, None]
      >>> window = Window((1,), strides=2, padding="CIRCULAR")
      >>> polyphase_pool(x, window).squeeze(), polyphase_pool(jnp.roll(x, 1), window).squeeze()
      (Array([1., 2.], dtype=float32), Array([2., 1.], dtype=float32))

    Reference: Chaman and Dokmanic 2021, Truly shift-invariant convolutional neural networks, section 3.
    """
    with jax.named_scope("polyphase_pool"):
        x, strided = _axes(x, window)
        axes = dataclasses.replace(window.with_ndim(len(strided)), strides=1).axes(tuple(axis.pixels for axis in strided))
        blurred = _blur(x, axes)
        positions, strides = [axis.outputs for axis in axes], [axis.stride for axis in strided]
        if any(n % s for n, s in zip(positions, strides, strict=True)):
            raise ValueError(f"{window} has {positions} positions at stride 1, but strides {strides} must divide them")
        ndim, start = len(axes), x.ndim - 1 - len(axes)
        cut = [length for n, s in zip(positions, strides, strict=True) for length in (n // s, s)]
        parts = blurred.reshape(*x.shape[:start], *cut, x.shape[-1])
        parts = jnp.moveaxis(parts, range(start + 1, start + 2 * ndim, 2), range(start, start + ndim))
        parts = parts.reshape(*x.shape[:start], -1, *cut[::2], x.shape[-1])
        energy = jnp.sum(jnp.real(parts * jnp.conj(parts)), range(start + 1, parts.ndim), keepdims=True)
        return jnp.take_along_axis(parts, jnp.argmax(energy, start, keepdims=True), start).squeeze(start)


_compiled = functools.partial(jax.jit, static_argnums=1, inline=True)  # one program for eager calls


@_compiled
def _max(x: Array, axes: tuple[Axis, ...]) -> Array:
    if _disjoint(axes) and x.shape[-1] >= LANES:
        return _max_of_blocks(_blocks(x, axes, -jnp.inf), len(axes))
    return _reduce(x, axes, -jnp.inf, _first_largest)


@_compiled
def _mean(x: Array, axes: tuple[Axis, ...]) -> Array:
    if _disjoint(axes):
        return _blocks(x, axes, 0.0).mean(tuple(range(-2 * len(axes), -1, 2)))
    return _weighted(x, axes, lambda size: [1 / size] * size)


@_compiled
def _blur(x: Array, axes: tuple[Axis, ...]) -> Array:
    return _weighted(x, axes, binomial)


def _weighted(x: Array, axes: tuple[Axis, ...], weights: Callable[[int], Sequence[float]]) -> Array:
    """Add the taps of every window with the same weights along every axis, half precision in float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _reduce(wide, axes, 0.0, lambda pixels: _mix(pixels, weights(len(pixels)))).astype(x.dtype)


def binomial(size: int) -> list[float]:
    """Return the `size` weights of a binomial blur, which sum to 1."""
    return [math.comb(size - 1, a) / 2 ** (size - 1) for a in range(size)]


def _axes(x: Array, window: Window) -> tuple[Array, tuple[Axis, ...]]:
    ndim = check.window(window).ndim or max(jnp.ndim(x) - 2, 1)
    x, space = check.images(x, ndim, f"{window} has {ndim} spatial axes")
    axes = window.axes(space)
    check.output_fits(x, axes, x.shape[-1])
    if not all((axis.reads >= 0).any(1).all() for axis in axes):
        raise ValueError(f"{window} has positions that read padding only on {space} pixels; pad by less than its size")
    return x, axes


def _reduce(x: Array, axes: tuple[Axis, ...], fill: float, reduce: Callable[[list[Array]], Array]) -> Array:
    """Reduce the taps of every window, last axis first: ties then go to the first pixel row by row."""
    start = x.ndim - 1 - len(axes)
    x = extend(x, axes, start, fill)
    for r in reversed(range(len(axes))):
        x = reduce(list(taps(x, axes[r], start + r)))
    return x


def _disjoint(axes: tuple[Axis, ...]) -> bool:
    """Return True if no two windows overlap and no window has gaps."""
    return all(axis.stride == axis.size and axis.dilation == 1 for axis in axes)


def _blocks(x: Array, axes: tuple[Axis, ...], fill: float) -> Float[Array, "*n i a j b c"]:
    """Reshape images into windows that do not overlap."""
    start = x.ndim - 1 - len(axes)
    x = extend(x, axes, start, fill)
    batch, channels = x.shape[:start], x.shape[-1]
    x = x[..., *(slice(axis.outputs * axis.size) for axis in axes), slice(None)]
    return x.reshape(*batch, *(length for axis in axes for length in (axis.outputs, axis.size)), channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_of_blocks(blocks: Float[Array, "*n i a j b c"], ndim: int) -> Float[Array, "*n i j c"]:
    """Take the largest pixel of each block. The derivative takes the tangent of the same pixel."""
    return _largest(blocks, ndim)[0]


@_max_of_blocks.defjvp
def _tangent_of_largest(ndim: int, blocks: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    largest, number = _largest(blocks[0], ndim)
    taps = tuple(range(-2 * ndim, -1, 2))
    sizes = [length if axis - blocks[0].ndim in taps else 1 for axis, length in enumerate(blocks[0].shape)]
    numbers = np.arange(math.prod(sizes), dtype=number.dtype).reshape(sizes)
    return largest, jnp.where(jnp.expand_dims(number, taps) == numbers, tangents[0], 0).sum(taps)


def _largest(blocks: Float[Array, "*n i a j b c"], ndim: int) -> tuple[Float[Array, "*n i j c"], Int[Array, "*n i j c"]]:
    """Return the largest pixel of each block and its number in row-major order, the first of equal pixels."""
    sizes = blocks.shape[-2 * ndim :: 2]
    best, *others = (
        blocks[..., *(part for a in tap for part in (a, slice(None)))] for tap in itertools.product(*map(range, sizes))
    )
    number = jnp.zeros(best.shape, np.min_scalar_type(-math.prod(sizes)))
    for m, pixel in enumerate(others, 1):
        larger = _is_larger(pixel, best)
        best, number = jnp.where(larger, pixel, best), jnp.where(larger, jnp.asarray(m, number.dtype), number)
    return best, number


def _first_largest(pixels: list[Array]) -> Array:
    return functools.reduce(lambda best, pixel: jnp.where(_is_larger(pixel, best), pixel, best), pixels)


def _is_larger(pixel: Array, best: Array) -> Array:
    """Return where a later pixel replaces the largest so far. NaN counts as larger than every number."""
    return (pixel > best) | jnp.isnan(pixel)


def _mix(pixels: list[Array], weights: Sequence[float]) -> Array:
    return sum(pixel * weight for pixel, weight in zip(pixels, weights, strict=True))  # pyright: ignore[reportReturnType]
