"""One kernel per position, computed for a block of positions at a time.

The windows of one block fit into the cache. They are gathered again for the gradient instead of kept, so a k x k copy of the
image never exists. The batch is the innermost axis, after the channels. A pixel is then one long contiguous run. Gathering
copies such runs by a table of their numbers, at the cost of one transpose of the input. Slices that are stacked tap by tap
would take three times as long: XLA decides for every entry which slice it comes from. Cotangents are not gathered into
windows, so they keep their channels innermost, which is cheaper still.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from convlab.geometry import Axis
from convlab.kernels.form import Form, by_position, closed, known_sizes

BYTES = 2**18  # the size of the windows and kernels of a block, measured best on CPUs with 1 to 2 MiB of cache per core
fence = lax.optimization_barrier  # keeps XLA from fusing a gather or an update into a product, which undoes the blocking


class Grid(NamedTuple):
    """Divide the output positions into equal blocks.

    The stack is a further axis, with windows of one tap.

    Attributes:
      axes: The axes of one block.
      blocks: The number of blocks along each axis.
    """

    axes: tuple[Axis, ...]
    blocks: tuple[int, ...]

    @property
    def block(self) -> tuple[int, ...]:
        """The number of positions of a block along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def slab(self) -> tuple[int, ...]:
        """The number of pixels that a block reads along each axis."""
        return tuple(axis.reach for axis in self.axes)

    def reads(self) -> np.ndarray:
        """Return the number of the pixel of the slab that each position reads through each tap: (positions, taps)."""
        numbers = np.zeros((1, 1), np.int32)
        for axis in self.axes:
            numbers = axis.pixels * numbers[:, None, :, None] + axis.reads[:, None, :]
            numbers = numbers.reshape(numbers.shape[0] * axis.outputs, -1)
        return numbers.astype(np.int32)

    def readers(self) -> np.ndarray:
        """Return for each pixel of the slab the entries of the windows that read it: (readers, pixels).

        Entries are numbered in the order of `reads`. Pixels with fewer readers than others are filled with a number after the
        last entry.
        """
        reads = self.reads().ravel()
        order = np.argsort(reads, kind="stable")
        counts = np.bincount(reads, minlength=math.prod(self.slab))
        rank = np.arange(len(reads)) - (np.cumsum(counts) - counts)[reads[order]]  # among the readers of the same pixel
        table = np.full((counts.max(), len(counts)), len(reads), np.int32)
        table[rank, reads[order]] = order
        return table

    def sweep(self, body: Callable[[Array, list[Array], Array], Array], carry: Array) -> Array:
        """Run `body(number of the first position, first pixel, carry)` over all blocks.

        Positions are numbered row by row. Those of a block have consecutive numbers.
        """

        def visit(m: Array, carry: Array) -> Array:
            m, first = jnp.asarray(m, np.uint32), []  # without a sign, no index is tested for being negative
            number = m * math.prod(self.block)
            for axis, count in zip(reversed(self.axes), reversed(self.blocks), strict=True):
                m, index = m // count, m % count
                first.insert(0, index * axis.outputs * axis.stride)
            return body(number, first, carry)

        return lax.fori_loop(0, math.prod(self.blocks), visit, carry)


def make_grid(stack: int, form: Form, position_bytes: int) -> Grid:
    """Make the grid of the largest blocks whose windows fit `BYTES`, with entire rows first."""
    axes = (Axis(stack, stack, 1, 1, 1, 0, 0, "zero"), *form.axes)
    capacity, block = max(BYTES // position_bytes, 1), []
    for axis in reversed(axes):
        size = max(size for size in range(1, axis.outputs + 1) if axis.outputs % size == 0 and size <= capacity)
        capacity = capacity // size if size == axis.outputs else 1
        block.insert(0, size)
    blocks = tuple(axis.outputs // size for axis, size in zip(axes, block, strict=True))
    parts = (axis._replace(outputs=size, low=0, high=0) for axis, size in zip(axes, block, strict=True))
    return Grid(tuple(part._replace(pixels=part.reach) for part in parts), blocks)


def _images(x: Array, form: Form) -> Array:
    """Pad images and move their batch to the last axis: (s, *pixels, c, n)."""
    return fence(_pad(jnp.moveaxis(x, 1, -1), form))


def _pad(x: Array, form: Form, sign: int = 1) -> Array:
    """Pad (s, *pixels, c, n) to all that windows read. With `sign` -1, remove the padding."""
    pads = [(sign * axis.low, sign * axis.high, 0) for axis in map(closed, form.axes)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0), (0, 0, 0)])


def _start(first: list[Array], array: Array) -> tuple[Array | np.uint32, ...]:
    """Return the first index along every axis of an array, given those along its first axes."""
    return (*first, *[np.uint32(0)] * (array.ndim - len(first)))


def _take(array: Float[Array, "positions a b"], number: Array, grid: Grid) -> Float[Array, "block a b"]:
    """Slice a block of positions."""
    return lax.dynamic_slice(array, _start([number], array), (math.prod(grid.block), *array.shape[1:]))


def _put(array: Float[Array, "positions a b"], part: Float[Array, "block a b"], number: Array) -> Array:
    """Write a block of positions into an array."""
    return lax.dynamic_update_slice(array, fence(part), _start([number], array))


def _gather(x: Array, pixel: list[Array], grid: Grid) -> Array:
    """Gather the windows of a block: (positions, taps and channels, n)."""
    channels, batch = x.shape[-2:]
    slab = lax.dynamic_slice(x, _start(pixel, x), (*grid.slab, channels, batch)).reshape(-1, channels * batch)
    p = slab.at[grid.reads()].get(mode="promise_in_bounds")
    return fence(p.reshape(math.prod(grid.block), -1, batch))


def _add_up(p: Array, grid: Grid, channels: int) -> Array:
    """Add up the windows of a block where they overlap, which transposes `_gather`: (*slab, channels, n)."""
    batch = p.shape[-1]
    p = p.reshape(-1, channels * batch)
    parts = (p.at[entries].get(mode="fill", fill_value=0) for entries in grid.readers())
    return functools.reduce(jnp.add, parts).reshape(*grid.slab, channels, batch)


def h(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Multiply each position's windows by its kernel, a block of positions at a time."""
    grid, shape = _make_grid("h", x, v, form), (len(v), *form.outputs, v.shape[-1], x.shape[1])
    x, v = _images(x, form), by_position(v, form)

    def body(number: Array, pixel: list[Array], out: Array) -> Array:
        kernels = fence(jnp.swapaxes(_take(v, number, grid), 1, 2))
        part = jnp.einsum("pda,pan->pdn", kernels, _gather(x, pixel, grid), precision=form.precision)
        return _put(out, part, number)

    out = grid.sweep(body, jnp.zeros_like(x, shape=(len(v), *shape[-2:])))
    return jnp.moveaxis(fence(out).reshape(shape), -1, 1)


def gradient_v(x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel c d"]:
    """Multiply each position's windows by its cotangents."""
    grid, shape = _make_grid("v", x, g, form), form.shape("v", x, g)
    x, g = _images(x, form), by_position(jnp.moveaxis(g, 1, -2), form)

    def body(number: Array, pixel: list[Array], out: Array) -> Array:
        p = _gather(x, pixel, grid)
        part = jnp.einsum("pan,pnd->pad", p, fence(_take(g, number, grid)), precision=form.precision)
        return _put(out, part, number)

    entries = math.prod(form.taps) * shape[-2]
    return grid.sweep(body, jnp.zeros_like(x, shape=(len(g), entries, shape[-1]))).reshape(shape)


def gradient_x(v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s n *pixels c"]:
    """Multiply each position's cotangents by its kernel, and add the products at each pixel."""
    grid, channels, batch = _make_grid("x", v, g, form), v.shape[-2], g.shape[1]
    reach = (len(v), *(axis.reach for axis in form.axes))
    v, g = by_position(v, form), by_position(jnp.moveaxis(g, 1, -2), form)

    def body(number: Array, pixel: list[Array], out: Array) -> Array:
        kernels, part = fence(_take(v, number, grid)), fence(_take(g, number, grid))
        p = fence(jnp.einsum("pad,pnd->pan", kernels, part, precision=form.precision))
        before = lax.dynamic_slice(out, _start(pixel, out), (*grid.slab, channels, batch))
        return lax.dynamic_update_slice(out, fence(before + _add_up(p, grid, channels)), _start(pixel, out))

    out = fence(grid.sweep(body, jnp.zeros_like(g, shape=(*reach, channels, batch))))
    return jnp.moveaxis(_pad(out, form, -1), -1, 1)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _make_grid(wrt: str, p: Array, q: Array, form: Form) -> Grid:
    """Make the grid for the derivative by `wrt`, by the memory of a position's windows and kernel."""
    size = known_sizes(wrt, p, q)
    return make_grid(size["s"], form, math.prod(form.taps) * size["c"] * (size["n"] + size["d"]) * p.dtype.itemsize)
