"""What the first layers of a network make of images: how far each condenses, how many dimensions it fills, what it aliases."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window, as_axes, as_integer
from convlab.measure.activations import activation_rank
from convlab.measure.equivariance.downsampling import aliased_energy
from convlab.ops.conv import conv
from convlab.ops.pool import max_pool


class Stem(NamedTuple):
    """What one layer before the blocks of a network, or all of them together, makes of an image.

    Attributes:
      name: "conv 7x7/2" with the taps and the stride, "max" for pooling, "total".
      channels: Going out.
      window_ratio: Output channels over what one window reads, c_out / (k k c_in): below 1 a window is condensed.
      stride_ratio: Over the pixels that come new with each output, c_out / (s s c_in): below 1 the image is condensed.
      weights: Of the kernel.
      multiply_adds: For one image, taps on padding left out.
      field: Pixels that one output sees along each axis.
      jump: Pixels between neighbouring outputs.
      bound: Dimensions that outputs at one position can fill before the ReLU, min(c_out, k k c_in); of pooling, its channels.
      rank: That they do fill on the given images; of pooling, before it.
      rank_after: That they fill after the ReLU, at most c_out; of pooling, after it.
      aliasing: Share of the energy before striding at frequencies that the stride cannot tell from lower ones.
    """

    name: str
    channels: int
    window_ratio: float
    stride_ratio: float
    weights: int
    multiply_adds: int
    field: tuple[int, ...]
    jump: tuple[int, ...]
    bound: int
    rank: int
    rank_after: int
    aliasing: float


def stem_report(
    layers: Sequence[tuple[Window, int]],
    images: Float[Array, "n k l c"],
    key: jax.Array,
    *,
    pool: Window | None = None,
    kernels: Sequence[Float[Array, "a b c d"]] | None = None,
) -> list[Stem]:
    """Tell what the first layers of a network, ReLUs between them, make of images: layer by layer and in total.

    Args:
      layers: Window and output channels of each.
      images: What the ranks and the aliasing are measured on; enough that no rank is that of too few positions.
      key: Draws kernels, Gaussian with mean squares of one over what a window reads.
      pool: Window of the max pooling that follows.
      kernels: Of the layers, trained or chosen; None draws them.

    Returns:
      One row a layer, one for pooling, and "total": its ratios are those of the field and the jump, its ranks those of
      the last row, its aliasing the largest.

    Raises:
      ValueError: No layers, or kernels that do not fit them; images without spatial axes, not finite, or all zero.
      TypeError: `images` are not floating, or a width is not an integer.

    Example:
      >>> images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
      >>> first, total = stem_report([(Window(3, 2), 32)], images, jax.random.key(1))
      >>> first.name, round(first.window_ratio, 3), round(first.stride_ratio, 3), first.rank, first.rank_after
      ('conv 3x3/2', 1.185, 2.667, 27, 32)

    Reference: of stems, He et al. 2019, Bag of tricks for image classification.
    """
    if not layers:
        raise ValueError("layers is empty: a stem has at least one")
    if kernels is not None and len(kernels) != len(layers):
        raise ValueError(f"kernels has {len(kernels)} entries but the stem has {len(layers)} layers; needs one of each")
    layers = [(window, as_integer(f"the width in layers[{number}]", width)) for number, (window, width) in enumerate(layers)]
    axes = jnp.ndim(images) - 2
    if axes < 1:
        raise ValueError(f"images has shape {jnp.shape(images)}; needs (n, *space, c)")
    x, space = check.images(images, axes, f"images has shape {jnp.shape(images)}")
    if not bool(jnp.isfinite(x).all() & x.any()):
        raise ValueError("images holds numbers that are not finite, or zeros alone; needs some that say what a layer keeps")
    rows, channels = [], x.shape[-1]
    for number, (window, width) in enumerate(layers):
        shape = (*window.taps(axes), x.shape[-1], width)
        drawn = jax.random.normal(jax.random.fold_in(key, number), shape, x.dtype) / math.sqrt(math.prod(shape[:-1]))
        v = drawn if kernels is None else jnp.asarray(kernels[number])
        check.agree(f"kernels[{number}] returns {{}} channels", v.shape[-1:], "its layer is of {}", (width,))
        row, x = _row(rows, x, window.of_rank(axes), v)
        rows.append(row)
    if pool is not None:
        rows.append(_row(rows, x, pool.of_rank(axes))[0])
    ratios = _ratios(rows[-1].channels, channels, rows[-1].field, rows[-1].jump)
    sums = {name: sum(getattr(row, name) for row in rows) for name in ("weights", "multiply_adds")}
    total = rows[-1]._replace(name="total", **ratios, **sums, aliasing=max(row.aliasing for row in rows))
    return [*rows, total]


def _row(rows: Sequence[Stem], x: Array, window: Window, v: Array | None = None) -> tuple[Stem, Array]:
    """Return what a convolution and a ReLU, or max pooling where there is no kernel, make of images, and their result."""
    ndim = x.ndim - 2
    size, strides = window.taps(ndim), as_axes("strides", window.strides, ndim)

    def apply(window: Window) -> Array:
        return max_pool(x, window) if v is None else conv(x, v, window)

    h = apply(window)
    width, returned = h.shape[-1], h if v is None else jax.nn.relu(h)
    taps = math.prod(int((axis.reads >= 0).sum()) for axis in window.axes(x.shape[1:-1]))
    field, jump = _wider(rows, window, ndim)
    row = Stem(
        name=f"{'max' if v is None else 'conv'} {'x'.join(map(str, size))}/{strides[0] if len(set(strides)) == 1 else strides}",
        channels=width,
        **_ratios(width, x.shape[-1], size, strides),
        weights=0 if v is None else v.size,
        multiply_adds=0 if v is None else taps * v.shape[-2] * width,
        field=field,
        jump=jump,
        bound=width if v is None else min(width, v[..., 0].size),
        rank=rows[-1].rank_after if v is None else activation_rank(h).rank,
        rank_after=activation_rank(returned).rank,
        aliasing=float(aliased_energy(apply(Window(size, 1, "CIRCULAR", window.dilation)), strides)),  # no border takes part
    )
    return row, returned


def _wider(rows: Sequence[Stem], window: Window, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pixels that an output sees, and pixels from one to the next, after one more window."""
    field, jump = (rows[-1].field, rows[-1].jump) if rows else ((1,) * ndim, (1,) * ndim)
    strides, dilations = (as_axes(name, getattr(window, name), ndim) for name in ("strides", "dilation"))
    seen = (f + t * (k - 1) * j for f, j, k, t in zip(field, jump, window.taps(ndim), dilations, strict=True))
    return tuple(seen), tuple(j * s for j, s in zip(jump, strides, strict=True))


def _ratios(width: int, channels: int, size: Sequence[int], strides: Sequence[int]) -> dict[str, float]:
    ratios = {"window_ratio": size, "stride_ratio": strides}
    return {name: width / (math.prod(numbers) * channels) for name, numbers in ratios.items()}
