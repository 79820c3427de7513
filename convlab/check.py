"""Check what comes through the public door: every error says what was got, what is needed, and why."""

import contextlib
import contextvars
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from convlab.geometry import MAXIMUM_RANK, Axis, Space, Window

_allow_large_arrays = contextvars.ContextVar("allow_large_arrays", default=False)


def is_known(value: Any) -> bool:
    """Whether a number or an array can be looked at, as nobody is tracing it."""
    return not isinstance(value, Tracer)


def floating(name: str, value: ArrayLike) -> jax.Array:
    """Return `value` as an array.

    Raises:
      TypeError: Its dtype is not floating; integers would be rounded or would overflow without a word.
      ValueError: It is empty.
    """
    return _floating(name, value, whole=0)


def _floating(name: str, value: ArrayLike, whole: int) -> jax.Array:
    """Return `value` as an array of which no axis from `whole` on is empty."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype} but needs a floating one; cast it, e.g. {name}.astype('float32')")
    if 0 in array.shape[whole:]:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    return array


def kernel(name: str, value: ArrayLike, spatial: int, others: str) -> tuple[jax.Array, int]:
    """Return a kernel and its number of spatial axes, read off its own axes: `spatial` sets of them and `others`.

    Raises:
      ValueError: The number of axes fits no kernel with 1 to 3 spatial axes, or one of them is empty.
      TypeError: Its dtype is not floating.
    """
    array = floating(name, value)
    rank, rest = divmod(array.ndim - len(others.split()), spatial)
    if rest or not 1 <= rank <= MAXIMUM_RANK:
        sets = " and ".join(["one axis per spatial axis"] * spatial)
        raise ValueError(f"{name} has shape {array.shape}; needs {sets} (1 to {MAXIMUM_RANK} spatial axes), then ({others})")
    return array, rank


def images(value: ArrayLike, rank: int, because: str) -> tuple[jax.Array, tuple[int, ...]]:
    """Return images as an array and the shape of their space; a batch may be empty.

    Raises:
      ValueError: Too few axes for `rank` spatial axes and channels, or no pixels or channels.
      TypeError: Its dtype is not floating.
    """
    array = _floating("x", value, whole=-1 - rank)
    if array.ndim < rank + 1:
        raise ValueError(f"x has shape {array.shape}; needs {rank} spatial axes and channels, as {because}")
    return array, array.shape[array.ndim - 1 - rank : -1]


def lay(window: Window, space: Space) -> tuple[Axis, ...]:
    """Lay a window on an image.

    Raises:
      TypeError: `window` is not a Window.
      ValueError: It fits nowhere, or has another number of spatial axes.
    """
    if not isinstance(window, Window):
        raise TypeError(f"window must be a Window, got {window!r}; Window({window!r}) makes one of a size")
    return window.axes(space)


def divides(groups: int, count: int, what: str) -> None:
    """Raise ValueError unless `groups` is a positive integer that divides `count`."""
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups must be an integer of at least 1, got {groups!r}")
    if count % groups:
        raise ValueError(f"{groups} groups do not divide {count} {what}")


def channels(x: jax.Array, name: str, v: jax.Array, groups: int = 1) -> None:
    """Raise ValueError unless kernel `v` (..., c, d) reads the channels of `x` in `groups` groups."""
    c, d = v.shape[-2:]
    divides(groups, d, f"output channels of {name}")
    if x.shape[-1] != c * groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels but {name} of shape {v.shape} reads {c} in each of {groups} groups: {c * groups}"
        )


def period(got: tuple[int, ...], window: Window, space: Space) -> None:
    """Raise ValueError unless every kernel of a tile has a position to stand at."""
    out = window.output_shape(space)
    if any(p > i for p, i in zip(got, out, strict=True)):
        raise ValueError(f"period {got} exceeds the {out} positions of {window} on {space} pixels")


def agree(holds: str, got: tuple[int, ...], needs: str, needed: tuple[int, ...]) -> None:
    """Raise ValueError unless `got`, named in `holds` by {}, equals `needed`, named in `needs` likewise."""
    if tuple(got) != tuple(needed):
        raise ValueError(f"{holds.format(tuple(got))} but {needs.format(tuple(needed))}")


def positions(name: str, got: tuple[int, ...], window: Window, space: Space) -> None:
    """Raise ValueError unless `name` has one entry per output position of the window on the image."""
    needed = window.output_shape(space)
    agree(f"{name} holds kernels for {{}} positions", got, f"{window} on {space} pixels has {{}}", needed)


def taps(name: str, got: tuple[int, ...], window: Window) -> None:
    """Raise ValueError unless the kernels in `name` have one entry per tap of the window."""
    agree(f"{name} holds kernels of {{}} taps", got, f"{window} has {{}}", window.taps(len(got)))


def bytes_of(tree: Any) -> int:
    """Add up the bytes of arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def allow_large_arrays() -> Iterator[None]:
    """Inside, arrays that would not fit into the memory that is free are made all the same, instead of a MemoryError.

    Example:
      >>> with allow_large_arrays():
      ...     pass  # build, relax or train what you know to fit
    """
    before = _allow_large_arrays.set(True)
    try:
        yield
    finally:
        _allow_large_arrays.reset(before)


def fits(needed: dict[str, Any]) -> None:
    """Raise MemoryError unless the arrays, by what they are for, find room on the device that JAX computes on."""
    if _allow_large_arrays.get():
        return
    sizes = {what: bytes_of(tree) for what, tree in needed.items()}
    free, total = _free(), sum(sizes.values())
    if free is not None and total > free:
        parts = ", ".join(f"{size / 1e9:,.2f} GB for {what}" for what, size in sizes.items())
        raise MemoryError(
            f"needs {total:,} bytes ({parts}) but {free:,} are free; convlab.allow_large_arrays() turns this check off"
        )


def _free() -> int | None:
    """Bytes that are free on the first device; None where nothing says so."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = pathlib.Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo.read_text(), re.MULTILINE) if meminfo.exists() else None
    return int(found[1]) * 1024 if found else None


def promote(*arrays: jax.Array) -> list[jax.Array]:
    """Cast arrays to their common dtype."""
    dtype = jnp.result_type(*arrays)
    return [array.astype(dtype) for array in arrays]
