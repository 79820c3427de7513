"""Checks that arrays fit into memory before they are made."""

import contextlib
import contextvars
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax

UNCHECKED = 2**24  # the bytes of an array that always fits, since reading the free memory takes longer than making it

_allow_large_arrays = contextvars.ContextVar("allow_large_arrays", default=False)


@contextlib.contextmanager
def allow_large_arrays() -> Iterator[None]:
    """Turn off the memory check inside this context.

    Arrays larger than the free memory are then allocated, instead of raising a MemoryError.

    Example:
      >>> with allow_large_arrays():
      ...     pass  # build, relax or train a network that is known to fit
    """
    before = _allow_large_arrays.set(True)
    try:
        yield
    finally:
        _allow_large_arrays.reset(before)


def bytes_of(tree: Any) -> int:
    """Add up the bytes of a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fits_in_memory(needed: dict[str, Any]) -> None:
    """Check that arrays fit into the free memory of the device that JAX computes on.

    Args:
      needed: The arrays or their shapes, by the purpose that the error names.

    Raises:
      MemoryError: The arrays need more than the free memory.
    """
    _fit({purpose: bytes_of(tree) for purpose, tree in needed.items()})


def shape_fits(purpose: str, *shape: Any, itemsize: int = 8) -> None:
    """Check that an array of a shape fits into the free memory. A small one costs nothing.

    Args:
      purpose: The purpose that the error names, with the argument that sets the size.
      shape: The sizes of the axes. Those that are not known before the program runs count as 1.
      itemsize: The bytes of one entry.

    Raises:
      MemoryError: The array needs more than the free memory.
    """
    size = math.prod(n for n in shape if isinstance(n, int)) * itemsize
    if size > UNCHECKED:
        _fit({purpose: size})


def _fit(sizes: dict[str, int]) -> None:
    if _allow_large_arrays.get():
        return
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
