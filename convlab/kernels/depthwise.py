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

from convlab.geometry import Axis
from convlab.kernels.form import Form
from convlab.unfold import extend, taps


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
    """Add up the cotangents, each multiplied by the weights of a tap, at the pixels that the tap reads."""
    g = jnp.moveaxis(g, 0, -2)
    total = jnp.zeros_like(g, shape=(g.shape[0], *form.pixels, len(v)))
    for tap, w in zip(itertools.product(*map(range, form.taps)), _weights(v, form), strict=True):
        part = jnp.sum(g * w, -1)
        pads = [(0, 0, 0), *map(_pads, tap, form.axes), (0, 0, 0)]
        total += lax.pad(part, jnp.zeros((), part.dtype), pads)
    return jnp.moveaxis(total, -1, 0)[..., None]


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _pads(tap: int, axis: Axis) -> tuple[int, int, int]:
    """Return the padding that moves the outputs of an axis to the pixels that a tap reads."""
    first = axis.dilation * tap - axis.low
    return first, axis.pixels - first - axis.stride * (axis.outputs - 1) - 1, axis.stride - 1


def _shifted(x: Array, form: Form) -> Iterator[Array]:
    """Yield for every tap the pixels that all outputs read through it: (n, *out, s)."""
    images = [extend(jnp.moveaxis(x[..., 0], 0, -1), form.axes, 1)]
    for r, axis in enumerate(form.axes):
        images = [tap for image in images for tap in taps(image, axis, 1 + r)]
    return iter(images)


def _weights(v: Array, form: Form) -> Iterator[Array]:
    """Yield the weights of every tap: (s, d)."""
    return (v[(slice(None), *tap, 0)] for tap in itertools.product(*map(range, form.taps)))
