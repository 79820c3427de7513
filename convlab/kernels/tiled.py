"""Kernels that repeat every few positions, as one strided convolution per kernel.

The convolution of one kernel pads the image by less than the layer does (less than nothing where its first window starts
inside), so no image is ever cut. With stride 1 the gradient by the image is itself a tiled layer, of the cotangent: pixels
repeat with the period too. The other way would spread every cotangent with p*q - 1 zeros and multiply them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form, closed, mirrored

Conv = Callable[[str, Array, Array, Form], Array]  # of the derivative's name, the other two arrays, and the form


def h(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form, conv: Conv) -> Float[Array, "s n *out d"]:
    """Convolve with every kernel, and weave the results."""
    parts = {tile: conv("h", x, v[:, *tile], _of_tile(form, tile)) for tile in _tiles(form)}
    return _weave(parts, form)


def gradient_v(
    x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form, conv: Conv
) -> Float[Array, "s *kernel c d"]:
    """Convolve the image with the cotangents of every kernel."""
    parts = [conv("v", x, _at_tile(g, form, tile), _of_tile(form, tile)) for tile in _tiles(form)]
    return jnp.stack(parts, 1).reshape(len(x), *form.period, *parts[0].shape[1:])


def gradient_x(
    v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form, conv: Conv
) -> Float[Array, "s n *pixels c"]:
    """Apply the tiled layer of the mirrored kernels to the cotangent; with strides, add up what every kernel gives."""
    if not form.has_strides:
        return h(g, *_mirrored(v, form), conv)
    parts = [conv("x", v[:, *tile], _at_tile(g, form, tile), _of_tile(form, tile)) for tile in _tiles(form)]
    return functools.reduce(jnp.add, parts)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _tiles(form: Form) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, form.period)))


def _of_tile(form: Form, tile: tuple[int, ...]) -> Form:
    """The convolution of one kernel: every p-th position, from the tile's own."""
    axes = []
    for axis, p, t in zip(form.axes, form.period, tile, strict=True):
        low, stride = axis.low - axis.stride * t, axis.stride * p
        axes.append(closed(axis._replace(outputs=len(range(t, axis.outputs, p)), stride=stride, low=low)))
    return dataclasses.replace(form, family="conv", axes=tuple(axes), period=())


def _at_tile(g: Array, form: Form, tile: tuple[int, ...]) -> Array:
    return g[:, :, *(slice(t, None, p) for t, p in zip(tile, form.period, strict=True))]


def _weave(parts: dict[tuple[int, ...], Array], form: Form) -> Array:
    """Put position m of tile place t at position p * m + t, axis by axis from the last."""
    for r in reversed(range(form.ndim)):
        p, outputs, at = form.period[r], form.outputs[r], 2 + r
        longest = -(-outputs // p)
        groups: dict[tuple[int, ...], list[Array]] = {}
        for tile, part in parts.items():
            pads = [(0, 0, 0)] * part.ndim
            pads[at] = (0, longest - part.shape[at], 0)
            groups.setdefault(tile[:r], []).append(lax.pad(part, jnp.zeros((), part.dtype), pads))
        parts = {
            tile: lax.slice_in_dim(_merge(jnp.stack(group, at + 1), at), 0, outputs, axis=at) for tile, group in groups.items()
        }
    return parts[()]


def _merge(array: Array, at: int) -> Array:
    return array.reshape(*array.shape[:at], -1, *array.shape[at + 2 :])


def _mirrored(v: Array, form: Form) -> tuple[Array, Form]:
    """Kernels and form of the layer that takes cotangents to pixels; pixel k reads output k + low - dilation * a by tap a."""
    ndim, period = form.ndim, tuple(map(min, form.period, form.pixels))  # no more kernels than pixels
    for r, (axis, p, q) in enumerate(zip(form.axes, form.period, period, strict=True)):
        a = axis.dilation * np.arange(axis.size)
        owner = (np.arange(q)[:, None] + axis.low - a) % p
        taps = jnp.moveaxis(v, (1 + r, 1 + ndim + r), (0, 1))[owner, np.arange(axis.size)]
        v = jnp.moveaxis(jnp.flip(taps, 1), (0, 1), (1 + r, 1 + ndim + r))
    return jnp.swapaxes(v, -1, -2), dataclasses.replace(form, axes=tuple(map(mirrored, form.axes)), period=period)
