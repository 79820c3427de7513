"""Kernels that repeat every few positions, as one strided convolution per kernel.

The convolution of one kernel pads the image by less than the layer does. The padding is negative if its first window starts
inside the image, so no slice of the image is ever copied. With stride 1 the gradient with respect to the image is a tiled layer
of the cotangent, since pixels repeat with the period too. Transposed convolutions would instead insert p*q - 1 zeros for every
cotangent and multiply them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab.kernels.form import Form, closed, mirrored
from convlab.unfold import interleave

Conv = Callable[[str, Array, Array, Form], Array]  # maps a derivative's name, the other two arrays and the form to it


def h(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form, conv: Conv) -> Float[Array, "s n *out d"]:
    """Convolve with every kernel, and interleave the results."""
    parts = {tile: conv("h", x, v[:, *tile], form_at(form, tile)) for tile in _tiles(form)}
    return interleave(parts, form.outputs, 2)


def gradient_v(
    x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form, conv: Conv
) -> Float[Array, "s *kernel c d"]:
    """Convolve the image with the cotangents of every kernel."""
    parts = [conv("v", x, _outputs_at(g, form, tile), form_at(form, tile)) for tile in _tiles(form)]
    return jnp.stack(parts, 1).reshape(len(x), *form.period, *parts[0].shape[1:])


def gradient_x(
    v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form, conv: Conv
) -> Float[Array, "s n *pixels c"]:
    """Apply the tiled layer of the mirrored kernels to the cotangent.

    With strides, the gradients of the convolutions with all kernels are added instead.
    """
    if not form.has_strides:
        return h(g, *_mirrored(v, form), conv)
    parts = [conv("x", v[:, *tile], _outputs_at(g, form, tile), form_at(form, tile)) for tile in _tiles(form)]
    return functools.reduce(jnp.add, parts)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _tiles(form: Form) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, form.period)))


def form_at(form: Form, tile: tuple[int, ...]) -> Form:
    """Return the form of the convolution of one kernel: every p-th position from `tile` on."""
    axes = []
    for axis, p, t in zip(form.axes, form.period, tile, strict=True):
        low, stride = axis.low - axis.stride * t, axis.stride * p
        axes.append(closed(axis._replace(outputs=len(range(t, axis.outputs, p)), stride=stride, low=low)))
    return dataclasses.replace(form, family="conv", axes=tuple(axes), period=())


def _outputs_at(g: Array, form: Form, tile: tuple[int, ...]) -> Array:
    return g[:, :, *(slice(t, None, p) for t, p in zip(tile, form.period, strict=True))]


def _mirrored(v: Array, form: Form) -> tuple[Array, Form]:
    """Return kernels and form of the layer that maps cotangents to pixels.

    Pixel k reads output k + low - dilation * a through tap a.
    """
    ndim, period = form.ndim, tuple(map(min, form.period, form.pixels))  # at most one kernel per pixel
    for r, (axis, p, q) in enumerate(zip(form.axes, form.period, period, strict=True)):
        a = axis.dilation * np.arange(axis.size)
        owner = (np.arange(q)[:, None] + axis.low - a) % p
        taps = jnp.moveaxis(v, (1 + r, 1 + ndim + r), (0, 1))[owner, np.arange(axis.size)]
        v = jnp.moveaxis(jnp.flip(taps, 1), (0, 1), (1 + r, 1 + ndim + r))
    return jnp.swapaxes(v, -1, -2), dataclasses.replace(form, axes=tuple(map(mirrored, form.axes)), period=period)
