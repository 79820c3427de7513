"""A convolution of single channels, as one multiplication of the shifted image for every tap.

Each group of a depthwise convolution reads one channel. Matrix products and XLA's grouped convolution then have almost nothing
to multiply at a time. A product of the whole image with one weight per channel is a single pass over memory instead. The
channels stay the innermost axis, as in the image.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form
from convlab.unfold import extend, taps

LARGE = 2**12  # the minimum number of entries of an output image for which the gradient by the kernel runs image by image
FEW = 8  # the maximum number of features of a group that are added one by one


def h(x: Float[Array, "s n *pixels 1"], v: Float[Array, "s *kernel 1 d"], form: Form) -> Float[Array, "s n *out d"]:
    """Add up the shifted images, each multiplied by the weights of its tap."""
    parts = (image[..., None] * w for image, w in zip(_shifted(_padded(x, form), form), _weights(v, form), strict=True))
    return jnp.moveaxis(functools.reduce(jnp.add, parts), -2, 0)


def gradient_v(x: Float[Array, "s n *pixels 1"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel 1 d"]:
    """Sum the products of the cotangent with every shifted image.

    Large images are summed one after the other, entry by entry, which is a fast pass over memory. What remains is one image
    per tap to be summed over its positions. With more taps than images, these would need more memory than the images.
    """
    n, shape, dtype = x.shape[1], form.shape("v", x, g), jnp.promote_types(g.dtype, jnp.float32)
    count = math.prod(form.taps)
    x, g = _padded(x, form), jnp.moveaxis(g, 0, -2)
    if isinstance(n, int) and n > 1 and count <= n and math.prod(g.shape[1:]) >= LARGE:

        def add(m: Array | int, sums: list[Array]) -> list[Array]:
            image, part = (lax.dynamic_slice_in_dim(array, m, 1) for array in (x, g))
            products = (shifted[..., None] * part for shifted in _shifted(image, form))
            return [total + product[0].astype(dtype) for total, product in zip(sums, products, strict=True)]

        sums = lax.fori_loop(0, n, add, [jnp.zeros_like(g, shape=g.shape[1:], dtype=dtype)] * count)
    else:
        sums = [jnp.sum(shifted[..., None] * g, 0, dtype=dtype) for shifted in _shifted(x, form)]
    sums = [total.sum(range(form.ndim)) for total in sums]
    return jnp.stack(sums, 1).astype(g.dtype).reshape(shape)


def gradient_x(v: Float[Array, "s *kernel 1 d"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s n *pixels 1"]:
    """Add up the cotangents, each multiplied by the weights of a tap, at the pixels that the tap reads.

    A tap reads every `stride`-th pixel. Pixels with the same remainder are added up first, then the remainders interleave, so
    that no zeros between the cotangents are added.
    """
    g = jnp.moveaxis(g, 0, -2)
    strides = [axis.stride for axis in form.axes]
    lengths = [-(-axis.pixels // axis.stride) for axis in form.axes]
    sums: dict[tuple[int, ...], Array] = {}
    for tap, w in zip(itertools.product(*map(range, form.taps)), _weights(v, form), strict=True):
        part = _over_features(g, w)
        steps = [divmod(axis.dilation * a - axis.low, axis.stride) for a, axis in zip(tap, form.axes, strict=True)]
        moves = zip(steps, lengths, form.outputs, strict=True)
        pads = [(0, 0, 0), *((first, length - first - outputs, 0) for (first, _), length, outputs in moves), (0, 0, 0)]
        part, remainder = lax.pad(part, jnp.zeros((), part.dtype), pads), tuple(remainder for _, remainder in steps)
        sums[remainder] = sums[remainder] + part if remainder in sums else part
    nothing = jnp.zeros_like(g, shape=(g.shape[0], *lengths, len(v)))

    def interleaved(*remainder: int) -> Array:
        r = len(remainder)
        if r == form.ndim:
            return sums.get(remainder, nothing)
        part = jnp.stack([interleaved(*remainder, m) for m in range(strides[r])], 2 + r)
        part = part.reshape(*part.shape[: 1 + r], -1, *part.shape[3 + r :])
        return lax.slice_in_dim(part, 0, form.pixels[r], axis=1 + r)

    return jnp.moveaxis(interleaved(), -1, 0)[..., None]


def _over_features(g: Float[Array, "n *out s d"], w: Float[Array, "s d"]) -> Float[Array, "n *out s"]:
    """Sum the products over the features of each group, half precision in float32.

    A few features are added one by one, without a reduction.
    """
    if g.shape[-1] > FEW:
        return jnp.sum(g * w, -1)
    dtype = jnp.promote_types(g.dtype, jnp.float32)
    return functools.reduce(jnp.add, ((g[..., d] * w[:, d]).astype(dtype) for d in range(g.shape[-1]))).astype(g.dtype)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _padded(x: Float[Array, "s n *pixels 1"], form: Form) -> Float[Array, "n *pixels s"]:
    """Pad images to all that windows read, with channels last."""
    return extend(jnp.moveaxis(x[..., 0], 0, -1), form.axes, 1)


def _shifted(x: Float[Array, "n *pixels s"], form: Form) -> Iterator[Float[Array, "n *out s"]]:
    """Yield for every tap the pixels of padded images that all outputs read through it."""
    images = [x]
    for r, axis in enumerate(form.axes):
        images = [tap for image in images for tap in taps(image, axis, 1 + r)]
    return iter(images)


def _weights(v: Array, form: Form) -> Iterator[Array]:
    """Yield the weights of every tap: (s, d)."""
    return (v[(slice(None), *tap, 0)] for tap in itertools.product(*map(range, form.taps)))
