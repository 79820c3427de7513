"""A convolution of single channels, as one multiplication of the shifted image for every tap.

Each group of a depthwise convolution reads one channel. Matrix products and XLA's grouped convolution then have almost nothing
to multiply at a time. A product of the whole image with one weight per channel is a single pass over memory instead. The
channels stay the innermost axis, as in the image.
"""

import functools
import itertools
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form
from convlab.unfold import extend, interleave, taps

FEW = 8  # the maximum number of features of a group that are added one by one


def h(x: Float[Array, "s n *pixels 1"], v: Float[Array, "s *kernel 1 d"], form: Form) -> Float[Array, "s n *out d"]:
    """Add up the shifted images, each multiplied by the weights of its tap."""
    parts = (image[..., None] * w for image, w in zip(_shifted(x, form), _weights(v, form), strict=True))
    return jnp.moveaxis(functools.reduce(jnp.add, parts), -2, 0)


def gradient_v(x: Float[Array, "s n *pixels 1"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel 1 d"]:
    """Sum the products of the cotangent with every shifted image."""
    g = jnp.moveaxis(g, 0, -2)
    sums = [jnp.sum(image[..., None] * g, range(1 + form.ndim)) for image in _shifted(x, form)]
    return jnp.stack(sums, 1).reshape(len(x), *form.taps, 1, g.shape[-1])


def gradient_x(v: Float[Array, "s *kernel 1 d"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s n *pixels 1"]:
    """Add up the cotangents, each multiplied by the weights of a tap, at the pixels that the tap reads.

    A tap reads every `stride`-th pixel. Pixels with the same remainder are added up first, then the remainders interleave, so
    that no zeros between the cotangents are added.
    """
    g = jnp.moveaxis(g, 0, -2)
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
    remainders = itertools.product(*(range(axis.stride) for axis in form.axes))
    total = interleave({remainder: sums.get(remainder, nothing) for remainder in remainders}, form.pixels, 1)
    return jnp.moveaxis(total, -1, 0)[..., None]


def _over_features(g: Float[Array, "n *out s d"], w: Float[Array, "s d"]) -> Float[Array, "n *out s"]:
    """Sum the products over the features of each group, half precision in float32.

    A few features are added one by one, without a reduction.
    """
    if g.shape[-1] > FEW:
        return jnp.sum(g * w, -1)
    dtype = jnp.promote_types(g.dtype, jnp.float32)
    return functools.reduce(jnp.add, ((g[..., d] * w[:, d]).astype(dtype) for d in range(g.shape[-1]))).astype(g.dtype)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _shifted(x: Array, form: Form) -> Iterator[Array]:
    """Yield for every tap the pixels that all outputs read through it: (n, *out, s)."""
    images = [extend(jnp.moveaxis(x[..., 0], 0, -1), form.axes, 1)]
    for r, axis in enumerate(form.axes):
        images = [tap for image in images for tap in taps(image, axis, 1 + r)]
    return iter(images)


def _weights(v: Array, form: Form) -> Iterator[Array]:
    """Yield the weights of every tap: (s, d)."""
    return (v[(slice(None), *tap, 0)] for tap in itertools.product(*map(range, form.taps)))
