"""A kernel per position, a few positions at a time: gather their windows, multiply, go on.

The windows of one block fit the cache, and are gathered again for the gradient instead of kept, so no k x k copy of the image
ever exists. The batch lies innermost, behind the channels: gathering a window then copies long runs, and one transpose of the
image on the way in is all that it costs. Cotangents need no window: they keep their channels innermost, which is cheaper still.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.geometry import Axis
from convlab.kernels.form import Form, closed, sizes
from convlab.unfold import fold, windows

BYTES = 3 * 2**20  # of the windows and kernels of a block; measured best on CPUs with 1 to 2 MiB of cache a core
fence = lax.optimization_barrier  # keeps XLA from fusing a gather or an update into a product, which undoes both


class Grid(NamedTuple):
    """Output positions cut into equal blocks. The stack is one more axis, of windows of one tap."""

    axes: tuple[Axis, ...]  # of one block
    starts: tuple[int, ...]  # number of blocks along each axis

    @property
    def block(self) -> tuple[int, ...]:
        """Positions of a block along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def slab(self) -> tuple[int, ...]:
        """Pixels that a block reads along each axis."""
        return tuple(axis.reach for axis in self.axes)

    def sweep(self, body: Callable[[list[Array], list[Array], Array], Array], carry: Array) -> Array:
        """Run `body(first position, first pixel, carry)` over all blocks."""

        def visit(m: Array, carry: Array) -> Array:
            position = []
            for axis, count in zip(reversed(self.axes), reversed(self.starts), strict=True):
                m, at = m // count, m % count
                position.insert(0, at * axis.outputs)
            return body(position, [at * axis.stride for at, axis in zip(position, self.axes, strict=True)], carry)

        return lax.fori_loop(0, math.prod(self.starts), visit, carry)


def grid(stack: int, form: Form, position_bytes: int) -> Grid:
    """Cut into the largest blocks whose windows fit `BYTES`, whole rows first."""
    axes = (Axis(stack, stack, 1, 1, 1, 0, 0, "zero"), *form.axes)
    room, blocks = max(BYTES // position_bytes, 1), []
    for axis in reversed(axes):
        size = max(size for size in range(1, axis.outputs + 1) if axis.outputs % size == 0 and size <= room)
        room = room // size if size == axis.outputs else 1
        blocks.insert(0, size)
    starts = tuple(axis.outputs // size for axis, size in zip(axes, blocks, strict=True))
    return Grid(tuple(axis._replace(outputs=size, low=0, high=0) for axis, size in zip(axes, blocks, strict=True)), starts)


def _images(x: Array, form: Form) -> Array:
    """Pad images and bring their batch innermost: (s, *pixels, c, n)."""
    return fence(_pad(jnp.moveaxis(x, 1, -1), form))


def _pad(x: Array, form: Form, sign: int = 1) -> Array:
    """Add to (s, *pixels, c, n) what windows read beyond the pixels; with the sign -1, cut it off again."""
    pads = [(sign * axis.low, sign * axis.high, 0) for axis in map(closed, form.axes)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0), (0, 0, 0)])


def _take(array: Array, first: list[Array], sizes: tuple[int, ...], after: int) -> Array:
    """Slice out a block of positions, then merge them: (positions, the last `after` axes)."""
    rest = array.shape[len(first) :]
    part = lax.dynamic_slice(array, (*first, *[0] * len(rest)), (*sizes, *rest))
    return part.reshape(math.prod(sizes), -1, *array.shape[array.ndim - after + 1 :])


def _put(array: Array, part: Array, first: list[Array], sizes: tuple[int, ...]) -> Array:
    rest = array.shape[len(first) :]
    return lax.dynamic_update_slice(array, fence(part).reshape(*sizes, *rest), (*first, *[0] * len(rest)))


def _gather(x: Array, pixel: list[Array], cut: Grid) -> Array:
    """The windows of a block: (positions, taps and channels, n)."""
    rest = x.shape[-2:]
    slab = lax.dynamic_slice(x, (*pixel, 0, 0), (*cut.slab, *rest))
    p = windows(slab, cut.axes, 0, after=2)
    return fence(p.reshape(math.prod(cut.block), -1, rest[-1]))


def h(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Multiply each position's windows by its kernel, a block of positions at a time."""
    cut = _cut("h", x, v, form)
    x = _images(x, form)

    def body(position: list[Array], pixel: list[Array], out: Array) -> Array:
        kernels = _take(v, position, cut.block, 2)
        p = _gather(x, pixel, cut)
        part = jnp.einsum("pda,pan->pdn", fence(jnp.swapaxes(kernels, 1, 2)), p, precision=form.precision)
        return _put(out, part, position, cut.block)

    out = cut.sweep(body, jnp.zeros_like(x, shape=(len(v), *form.outputs, v.shape[-1], x.shape[-1])))
    return jnp.moveaxis(fence(out), -1, 1)


def gradient_v(x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel c d"]:
    """Multiply each position's windows by its cotangents."""
    cut, shape = _cut("v", x, g, form), form.shape("v", x, g)
    x, g = _images(x, form), fence(jnp.moveaxis(g, 1, -2))

    def body(position: list[Array], pixel: list[Array], out: Array) -> Array:
        p = _gather(x, pixel, cut)
        part = jnp.einsum("pan,pnd->pad", p, fence(_take(g, position, cut.block, 2)), precision=form.precision)
        return _put(out, part, position, cut.block)

    return cut.sweep(body, jnp.zeros_like(x, shape=shape))


def gradient_x(v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s n *pixels c"]:
    """Multiply each position's cotangents by its kernel, and add what falls on the same pixel."""
    cut, channels, batch = _cut("x", v, g, form), v.shape[-2], g.shape[1]
    g = fence(jnp.moveaxis(g, 1, -2))

    def body(position: list[Array], pixel: list[Array], out: Array) -> Array:
        kernels = fence(_take(v, position, cut.block, 2))
        p = fence(jnp.einsum("pad,pnd->pan", kernels, fence(_take(g, position, cut.block, 2)), precision=form.precision))
        slab = fold(p.reshape(*cut.block, 1, *form.taps, channels, batch), cut.axes, 0, after=2, between=fence)
        before = lax.dynamic_slice(out, (*pixel, 0, 0), (*cut.slab, channels, batch))
        return lax.dynamic_update_slice(out, fence(before + slab), (*pixel, 0, 0))

    reach = (axis.reach for axis in form.axes)
    out = fence(cut.sweep(body, jnp.zeros_like(g, shape=(len(v), *reach, channels, batch))))
    return jnp.moveaxis(_pad(out, form, -1), -1, 1)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _cut(wrt: str, p: Array, q: Array, form: Form) -> Grid:
    """The grid for the derivative by `wrt`, given the other two arrays: a position costs its windows and its kernel."""
    size = sizes(wrt, p, q)
    return grid(size["s"], form, math.prod(form.taps) * size["c"] * (size["n"] + size["d"]) * p.dtype.itemsize)
