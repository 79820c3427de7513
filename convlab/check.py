"""Checks of arguments, whose errors name what was got, what is needed, and why."""

import contextlib
import contextvars
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from convlab.geometry import Space, Window, as_integer

_allow_large_arrays = contextvars.ContextVar("allow_large_arrays", default=False)


def is_concrete(value: Any) -> bool:
    """Return True if `value` is concrete, that is, not a tracer."""
    return not isinstance(value, Tracer)


def inexact(name: str, value: ArrayLike) -> jax.Array:
    """Return `value` as an array and check that it is floating or complex and not empty.

    Raises:
      TypeError: The dtype is neither floating nor complex. Integers would be rounded or overflow silently.
      ValueError: The array is empty.
    """
    return _inexact(name, value, first_filled=0)


def floating(name: str, value: ArrayLike) -> jax.Array:
    """Return `value` as an array and check that it is floating and not empty.

    Raises:
      TypeError: The dtype is not floating.
      ValueError: The array is empty.
    """
    return real(name, inexact(name, value))


def real(name: str, array: jax.Array) -> jax.Array:
    """Return an array and check that it is not complex.

    Raises:
      TypeError: The array is complex.
    """
    if jnp.iscomplexobj(array):
        raise TypeError(f"{name} has dtype {array.dtype} but needs a real one; pass real numbers, e.g. abs({name})")
    return array


def _inexact(name: str, value: ArrayLike, first_filled: int) -> jax.Array:
    """Return `value` as a floating or complex array. Axes before axis `first_filled` may be empty."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(f"{name} has dtype {array.dtype} but needs a floating one; cast it, e.g. {name}.astype('float32')")
    if any(size == 0 for size in array.shape[first_filled:] if isinstance(size, int)):
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    return array


def kernel(name: str, value: ArrayLike, spatial: int, others: str) -> tuple[jax.Array, int]:
    """Return a kernel and its number of spatial axes.

    Args:
      name: The name of the argument, for errors.
      value: The kernel.
      spatial: The number of axes that the kernel has for each spatial axis.
      others: The names of the other axes, separated by spaces.

    Raises:
      ValueError: No kernel with spatial axes has this number of axes, or an axis is empty.
      TypeError: The dtype is neither floating nor complex.
    """
    array = inexact(name, value)
    ndim, remainder = divmod(array.ndim - len(others.split()), spatial)
    if remainder or ndim < 1:
        sets = " and ".join(["one axis per spatial axis"] * spatial)
        raise ValueError(f"{name} has shape {array.shape}; needs {sets} (at least one spatial axis), then ({others})")
    return array, ndim


def images(value: ArrayLike, ndim: int, because: str, name: str = "x") -> tuple[jax.Array, tuple[int, ...]]:
    """Return images as an array, and their number of pixels along each axis. A batch may be empty.

    Raises:
      ValueError: There are too few axes for `ndim` spatial axes and channels, or no pixels or channels.
      TypeError: The dtype is neither floating nor complex.
    """
    array = _inexact(name, value, first_filled=-1 - ndim)
    if array.ndim < ndim + 1:
        raise ValueError(f"{name} has shape {array.shape}; needs {ndim} spatial axes and channels, as {because}")
    return array, array.shape[array.ndim - 1 - ndim : -1]


def image_shape(value: Any) -> tuple[int, ...]:
    """Return the shape (*space, c) of one image as a tuple.

    Raises:
      ValueError: There is no axis, or an axis is empty.
      TypeError: The shape is not a sequence of integers.
    """
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        raise TypeError(f"image_shape must be a sequence (*space, c) of integers, such as (28, 28, 1), got {value!r}")
    shape = tuple(as_integer("image_shape", size) for size in value)
    if not shape:
        raise ValueError("image_shape must have an axis for the channels, as in (28, 28, 1), got ()")
    return shape


def window(value: object) -> Window:
    """Return `value`, a window.

    Raises:
      TypeError: `value` is not a Window.
    """
    if not isinstance(value, Window):
        raise TypeError(f"window must be a convlab.Window such as Window(3), got {value!r}")
    return value


def window_of(name: str, shape: Sequence[int], value: Window | None) -> Window:
    """Return the window of kernels of a shape. If `value` is None, it has stride 1 and padding "SAME".

    Raises:
      TypeError: `value` is neither a Window nor None.
      ValueError: The kernels have other taps or another number of spatial axes.
    """
    if value is None:
        return Window(tuple(shape))
    taps(name, tuple(shape), window(value))
    return value


def group_count(groups: int, count: int, counted: str) -> None:
    """Check that `groups` is a positive integer that divides `count`.

    Raises:
      ValueError: `groups` is no such integer. The error names what is counted by `counted`.
    """
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups must be an integer of at least 1, got {groups!r}")
    if count % groups:
        raise ValueError(f"groups must divide the {count} {counted}, got {groups}")


def channels(x: jax.Array, name: str, v: jax.Array, groups: int = 1) -> None:
    """Check that a kernel (..., c, d) reads the channels of images in `groups` groups.

    Raises:
      ValueError: `x` has another number of channels, or `groups` does not divide the output channels of `v`.
    """
    c, d = v.shape[-2:]
    group_count(groups, d, f"output channels of {name}")
    if x.shape[-1] != c * groups:
        needed = f"{c}" if groups == 1 else f"{c * groups}, which are {c} in each of {groups} groups"
        raise ValueError(f"x has {x.shape[-1]} channels but {name} of shape {v.shape} reads {needed}")


def period(got: tuple[int, ...], window: Window, space: Space) -> None:
    """Check that a tile has at most as many positions along each axis as the output.

    Raises:
      ValueError: The period exceeds the positions along an axis.
    """
    out = window.output_shape(space)
    if any(p > i for p, i in zip(got, out, strict=True)):
        raise ValueError(f"period {got} exceeds the {out} positions of {window} on {space} pixels")


def equal_shapes(holds: str, got: tuple[int, ...], needs: str, needed: tuple[int, ...]) -> None:
    """Check that two shapes are equal. Each text shows its shape in place of {}.

    Raises:
      ValueError: The shapes differ.
    """
    if tuple(got) != tuple(needed):
        raise ValueError(f"{holds.format(tuple(got))} but {needs.format(tuple(needed))}")


def positions(name: str, got: tuple[int, ...], window: Window, space: Space) -> None:
    """Check that `name` has one entry per output position of the window on the image.

    Raises:
      ValueError: The number of positions differs along an axis.
    """
    needed = window.output_shape(space)
    equal_shapes(f"{name} holds kernels for {{}} positions", got, f"{window} on {space} pixels has {{}}", needed)


def taps(name: str, got: tuple[int, ...], window: Window) -> None:
    """Check that the kernels in `name` have one entry per tap of the window.

    Raises:
      ValueError: The number of taps differs along an axis.
    """
    equal_shapes(f"{name} holds kernels of {{}} taps", got, f"{window} has {{}}", window.taps(len(got)))


def bytes_of(tree: Any) -> int:
    """Add up the bytes of a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def allow_large_arrays() -> Iterator[None]:
    """Turn off the memory check inside this context.

    Arrays that need more than the free memory are then made instead of raising a MemoryError.

    Example:
      >>> with allow_large_arrays():
      ...     pass  # build, relax or train a network that is known to fit
    """
    before = _allow_large_arrays.set(True)
    try:
        yield
    finally:
        _allow_large_arrays.reset(before)


def fits_in_memory(needed: dict[str, Any]) -> None:
    """Check that arrays fit into the free memory of the device that JAX computes on.

    Args:
      needed: The arrays or their shapes, by the purpose that the error names.

    Raises:
      MemoryError: The arrays need more than the free memory.
    """
    if _allow_large_arrays.get():
        return
    sizes = {purpose: bytes_of(tree) for purpose, tree in needed.items()}
    free, total = _free(), sum(sizes.values())
    if free is not None and total > free:
        parts = ", ".join(f"{size / 1e9:,.2f} GB for {purpose}" for purpose, size in sizes.items())
        raise MemoryError(
            f"needs {total:,} bytes ({parts}) but {free:,} are free; convlab.allow_large_arrays() turns the check off"
        )


def _free() -> int | None:
    """Return the free bytes of the first device, or None if they are unknown."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = pathlib.Path("/proc/meminfo")
    available = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo.read_text(), re.MULTILINE) if meminfo.exists() else None
    return int(available[1]) * 1024 if available else None


def promote(*arrays: jax.Array) -> list[jax.Array]:
    """Cast arrays to their common dtype."""
    dtype = jnp.result_type(*arrays)
    return [array.astype(dtype) for array in arrays]
