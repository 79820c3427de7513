"""The first layers of a network, its stem: compression ratios, ranks and aliasing."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window, as_axes, as_integer
from convlab.measure.activations import activation_rank
from convlab.measure.equivariance.downsampling import aliased_energy
from convlab.ops.conv import conv
from convlab.ops.pool import max_pool


class StemCost(NamedTuple):
    """What one layer of a stem, or the whole stem, costs and keeps of an image.

    A stem is the layers before the blocks of a network.

    Attributes:
      name: "conv 7x7/2" with the taps and the stride, "max" for pooling, or "total".
      channels: The number of output channels.
      window_ratio: Output channels over the inputs in one window, c_out / (k k c_in). Below 1, a window is compressed.
      stride_ratio: Output channels over the inputs in one stride, c_out / (s s c_in). Below 1, the image is compressed.
      weights: The number of weights in the kernel.
      multiply_adds: The number of products for one image, without taps on padding.
      receptive_field: The number of pixels along each axis that one output depends on.
      effective_stride: The pixels along each axis between the receptive fields of neighbouring outputs.
      rank_bound: The largest possible rank of the outputs before the ReLU, min(c_out, k k c_in). For pooling, its channels.
      rank: The rank on the given images before the ReLU. For pooling, the rank of its input.
      rank_after_relu: The rank after the ReLU, at most c_out. For pooling, the rank of its output.
      aliasing: The share of the energy before striding at frequencies that the stride aliases with lower ones.
    """

    name: str
    channels: int
    window_ratio: float
    stride_ratio: float
    weights: int
    multiply_adds: int
    receptive_field: tuple[int, ...]
    effective_stride: tuple[int, ...]
    rank_bound: int
    rank: int
    rank_after_relu: int
    aliasing: float


def stem_report(
    layers: Sequence[tuple[Window, int]],
    images: Float[Array, "n k l c"],
    key: jax.Array,
    *,
    pool: Window | None = None,
    kernels: Sequence[Float[Array, "a b c d"]] | None = None,
) -> list[StemCost]:
    r"""Measure what the first layers of a network cost and how much of images they keep.

    $$\text{window ratio} = \frac{D}{A B\, C}, \qquad \text{stride ratio} = \frac{D}{s^2 C}$$

    for C input and D output channels, and a window of A x B taps with stride s.

    The layers have ReLUs between them.

    Args:
      layers: The window and the number of output channels of each layer.
      images: The images on which ranks and aliasing are measured. There must be enough positions that their number does not
        limit a rank.
      key: The random key for drawing Gaussian kernels, whose variance is one over the inputs in a window.
      pool: The window of the max pooling after the layers, if there is one.
      kernels: The kernels of the layers. If None, they are drawn.

    Returns:
      One row for each layer, one for pooling, and "total". The total's ratios use its receptive field and effective
      stride. Its ranks are those of the last row, and its aliasing is the largest of the rows.

    Raises:
      ValueError: `layers` is empty, or kernels do not fit the layers. Or the images have no spatial axes, are not finite, or
        are all zero.
      TypeError: `images` are not floating, kernels are complex, or a width is not an integer.

    Example:
      >>> images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
      >>> first, total = stem_report([(Window(3, 2), 32)], images, jax.random.key(1))
      >>> first.name, round(first.window_ratio, 3), round(first.stride_ratio, 3), first.rank, first.rank_after_relu
      ('conv 3x3/2', 1.185, 2.667, 27, 32)

    Reference: He et al. 2019, Bag of tricks for image classification (stems).
    """
    layers = check.sequence("layers", layers, "pairs of a window and a number of channels")
    check.key("key", key)
    if kernels is not None:
        kernels = check.sequence("kernels", kernels, "kernels")
    if not layers:
        raise ValueError("layers is empty; needs at least one layer")
    if kernels is not None and len(kernels) != len(layers):
        raise ValueError(
            f"kernels has {len(kernels)} entries but the stem has {len(layers)} layers; needs one kernel for each layer"
        )
    layers = [_layer(number, layer) for number, layer in enumerate(layers)]
    x = check.image_batch("images", images)
    ndim = x.ndim - 2
    if not bool(jnp.isfinite(x).all() & x.any()):
        raise ValueError(
            "images has entries that are not finite, or only zeros; needs finite images that are not all zero to measure a rank"
        )
    rows, channels = [], x.shape[-1]
    for number, (window, width) in enumerate(layers):
        shape = (*window.taps(ndim), x.shape[-1], width)
        check.shape_fits(f"the kernel of layers[{number}]", *shape)
        drawn = jax.random.normal(jax.random.fold_in(key, number), shape, x.dtype) / math.sqrt(math.prod(shape[:-1]))
        v = drawn if kernels is None else check.floating(f"kernels[{number}]", kernels[number])
        check.equal_shapes(f"kernels[{number}] returns {{}} channels", v.shape[-1:], "its layer has {}", (width,))
        row, x = _row(rows, x, window.with_ndim(ndim), v)
        rows.append(row)
    if pool is not None:
        rows.append(_row(rows, x, check.window(pool, "pool").with_ndim(ndim))[0])
    ratios = _ratios(rows[-1].channels, channels, rows[-1].receptive_field, rows[-1].effective_stride)
    sums = {name: sum(getattr(row, name) for row in rows) for name in ("weights", "multiply_adds")}
    total = rows[-1]._replace(name="total", **ratios, **sums, aliasing=max(row.aliasing for row in rows))
    return [*rows, total]


def _layer(number: int, layer: Any) -> tuple[Window, int]:
    """Return the window and the width of one layer of `layers`."""
    pair = check.sequence(f"layers[{number}]", layer, "a window and a number of channels")
    if len(pair) != 2:
        raise ValueError(f"layers[{number}] must be a window and a number of channels, got {len(pair)} entries")
    return check.window(pair[0], f"the window in layers[{number}]"), as_integer(f"the width in layers[{number}]", pair[1])


def _row(rows: Sequence[StemCost], x: Array, window: Window, v: Array | None = None) -> tuple[StemCost, Array]:
    """Return the row of one layer and its output.

    The layer is a convolution with ReLU, or max pooling if `v` is None.
    """
    ndim = x.ndim - 2
    size, strides = window.taps(ndim), as_axes("strides", window.strides, ndim)

    def apply(window: Window) -> Array:
        return max_pool(x, window) if v is None else conv(x, v, window)

    h = apply(window)
    width, activations = h.shape[-1], h if v is None else jax.nn.relu(h)
    taps = math.prod(int((axis.reads >= 0).sum()) for axis in window.axes(x.shape[1:-1]))
    receptive_field, effective_stride = _field_after(rows, window, ndim)
    row = StemCost(
        name=f"{'max' if v is None else 'conv'} {'x'.join(map(str, size))}/{strides[0] if len(set(strides)) == 1 else strides}",
        channels=width,
        **_ratios(width, x.shape[-1], size, strides),
        weights=0 if v is None else v.size,
        multiply_adds=0 if v is None else taps * v.shape[-2] * width,
        receptive_field=receptive_field,
        effective_stride=effective_stride,
        rank_bound=width if v is None else min(width, v[..., 0].size),
        rank=rows[-1].rank_after_relu if v is None else activation_rank(h).rank,
        rank_after_relu=activation_rank(activations).rank,
        # The window is circular here, so that the border has no effect.
        aliasing=float(aliased_energy(apply(Window(size, 1, "CIRCULAR", window.dilation)), strides)),
    )
    return row, activations


def _field_after(rows: Sequence[StemCost], window: Window, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the receptive field and the effective stride after one more window."""
    field, stride = (rows[-1].receptive_field, rows[-1].effective_stride) if rows else ((1,) * ndim, (1,) * ndim)
    strides, dilations = (as_axes(name, getattr(window, name), ndim) for name in ("strides", "dilation"))
    fields = (f + t * (k - 1) * j for f, j, k, t in zip(field, stride, window.taps(ndim), dilations, strict=True))
    return tuple(fields), tuple(j * s for j, s in zip(stride, strides, strict=True))


def _ratios(width: int, channels: int, size: Sequence[int], strides: Sequence[int]) -> dict[str, float]:
    ratios = {"window_ratio": size, "stride_ratio": strides}
    return {name: width / (math.prod(numbers) * channels) for name, numbers in ratios.items()}
