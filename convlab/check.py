"""Checks of arguments, whose errors name what was got, what is needed, and why."""

import numbers
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from convlab.choices import shown
from convlab.geometry import Axis, Space, Window, as_integer
from convlab.memory import allow_large_arrays, bytes_of, fits_in_memory, shape_fits

__all__ = [
    "allow_large_arrays",
    "array",
    "as_floats",
    "bytes_of",
    "channels",
    "dtype",
    "equal_shapes",
    "fits_in_memory",
    "flag",
    "floating",
    "folder",
    "function",
    "group_count",
    "image_batch",
    "image_shape",
    "images",
    "inexact",
    "initializer",
    "instance",
    "is_concrete",
    "kernel",
    "key",
    "mapping",
    "not_negative",
    "number",
    "optimizer",
    "options",
    "output_fits",
    "path",
    "period",
    "positions",
    "promote",
    "real",
    "sequence",
    "shape_fits",
    "taps",
    "text",
    "tree",
    "window",
    "window_of",
]


def is_concrete(value: Any) -> bool:
    """Return True if `value` is concrete, that is, not a tracer."""
    return not isinstance(value, Tracer)


def instance(name: str, value: Any, kinds: type | tuple[type, ...], needed: str) -> Any:
    """Return `value` and check that it is an instance of one of some classes.

    Raises:
      TypeError: It is not. The error describes what is needed.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {needed}, got {shown(value)}")
    return value


def function(name: str, value: Any, needed: str = "a function") -> Any:
    """Return `value` and check that it can be called.

    Raises:
      TypeError: It cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} must be {needed}, got {shown(value)}")
    return value


def text(name: str, value: Any) -> str:
    """Return `value` and check that it is a string.

    Raises:
      TypeError: It is none.
    """
    return instance(name, value, str, "a string")


def path(name: str, value: Any, needed: str = "a path") -> pathlib.Path:
    """Return the path of a file or a folder.

    Raises:
      TypeError: `value` is no path.
      ValueError: It is empty, which would be the current folder, or holds a null character.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be {needed}, got {shown(value)}")
    if not os.fspath(value):
        raise ValueError(f"{name} must be {needed}, got an empty text; the current directory is '.'")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name} must be {needed}, without null characters, got {shown(value)}")
    return pathlib.Path(value)


def folder(name: str, value: Any) -> pathlib.Path:
    """Return the path of a folder, which may not exist yet.

    Raises:
      TypeError: `value` is no path.
      ValueError: It is empty or the path of a file.
    """
    result = path(name, value, "the path of a folder")
    if result.expanduser().is_file():
        raise ValueError(f"{name} must be the path of a folder, got that of a file, {shown(os.fspath(value))}")
    return result


def flag(name: str, value: Any) -> Any:
    """Return `value` and check that it is True or False, or an array of one of them.

    Raises:
      TypeError: It is neither.
    """
    if isinstance(value, jax.Array) and value.dtype == bool and value.ndim == 0:
        return value
    return instance(name, value, (bool, np.bool_), "True or False")


def number(name: str, value: Any) -> Any:
    """Return a real number as a float, or unchanged if it is an array without axes.

    Raises:
      TypeError: It is no real number.
    """
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number):
        return real(name, jnp.asarray(value))
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    instance(name, value, (numbers.Real, np.floating, np.integer), "a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, got {shown(value)}") from None


def not_negative(name: str, value: Any, needed: str = "a number") -> Any:
    """Return a real number as `number` does, and check that it is finite and at least 0.

    Raises:
      TypeError: It is no real number.
      ValueError: It is negative, infinite or NaN.
    """
    result = number(name, value)
    if not 0 <= result < float("inf"):
        raise ValueError(f"{name} must be {needed} of at least 0, got {shown(value)}")
    return result


def key(name: str, value: Any) -> Any:
    """Return `value` and check that it is one random key.

    Raises:
      TypeError: It is none.
    """
    is_key = isinstance(value, (jax.Array, np.ndarray)) and (
        (value.ndim == 0 and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)) or (value.dtype == np.uint32 and value.ndim == 1)
    )
    if not is_key:
        raise TypeError(f"{name} must be one random key, such as jax.random.key(0), got {shown(value)}")
    return value


def sequence(name: str, value: Any, entries: str) -> list[Any]:
    """Return the entries of a sequence as a list. Strings and mappings are none.

    Raises:
      TypeError: `value` is no sequence.
    """
    if isinstance(value, (str, bytes, Mapping, type)) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence of {entries}, got {shown(value)}")
    return list(value)


def mapping(name: str, value: Any, entries: str) -> Mapping[Any, Any]:
    """Return `value` and check that it is a mapping.

    Raises:
      TypeError: It is none.
    """
    return instance(name, value, Mapping, f"a mapping of {entries}")


def tree(name: str, value: Any) -> Any:
    """Return `value` and check that it is a pytree of arrays and numbers.

    Raises:
      TypeError: A leaf is neither.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        kind = getattr(leaf, "dtype", None)
        if kind is None or (isinstance(leaf, np.ndarray) and kind.kind in "OSU"):
            array(f"{name}{jax.tree_util.keystr(path)}", leaf)
    return value


def optimizer(name: str, value: Any) -> Any:
    """Return `value` and check that it is an optimizer of Optax.

    Raises:
      TypeError: It is none.
    """
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise TypeError(
            f"{name} must be an Optax gradient transformation, got {type(value).__name__};"
            " to choose one by name, use Config(optimizer=...)"
        )
    return value


def array(name: str, value: Any) -> jax.Array:
    """Return `value` as an array.

    Raises:
      TypeError: It is no array of numbers.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be an array of numbers, got {shown(value)}") from None


def as_floats(name: str, value: Any, *, masks: bool = False) -> np.ndarray:
    """Return concrete numbers as an array of 64-bit floats. If `masks`, truth values are numbers too.

    Raises:
      TypeError: A value is no real number.
    """
    try:
        result = np.asarray(value)
        is_real = jnp.issubdtype(result.dtype, jnp.integer) or jnp.issubdtype(result.dtype, jnp.floating)
        if not is_real and not (masks and result.dtype == bool):
            raise TypeError
        return result.astype(float)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be numbers, got {shown(value)}") from None


def options(precision: Any, preferred_element_type: Any = None) -> None:
    """Check the precision of multiplications and the dtype of sums, as in `jax.lax`.

    Raises:
      ValueError: The precision is unknown.
      TypeError: `preferred_element_type` is no dtype.
    """
    for part in precision if isinstance(precision, tuple) and len(precision) == 2 else (precision,):
        if part is None or isinstance(part, (jax.lax.Precision, jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset)):
            continue
        if not isinstance(part, str) or part not in (*PRECISIONS, *jax.lax.DotAlgorithmPreset.__members__):
            raise ValueError(
                f"precision {shown(precision)} is unknown; needs one of {', '.join(PRECISIONS)}, or one of jax.lax"
            )
    dtype("preferred_element_type", preferred_element_type)


PRECISIONS = ("default", "high", "highest", "bfloat16", "bfloat16_3x", "float32", "tensorfloat32", "fastest")


def dtype(name: str, value: Any, optional: bool = True) -> Any:
    """Return `value` and check that it is the dtype of numbers, or, if it is optional, None.

    Raises:
      TypeError: It is neither.
    """
    try:
        is_array = isinstance(value, (jax.Array, np.ndarray))
        is_dtype = optional if value is None else not is_array and jnp.issubdtype(jnp.dtype(value), jnp.number)
    except (TypeError, ValueError, AttributeError):
        is_dtype = False
    if not is_dtype:
        raise TypeError(f"{name} must be a dtype, such as 'float32', got {shown(value)}")
    return value


def initializer(name: str, value: Any) -> Callable[..., Any]:
    """Return an initializer that also checks the shape of what `value` draws.

    Raises:
      TypeError: `value` is no function, or the drawn value is no array of numbers.
      ValueError: The drawn array has another shape.
    """
    function(name, value, "an initializer, that is, a function of a key, a shape and a dtype")

    def checked(key: Any, shape: Sequence[int], *arguments: Any, **options: Any) -> Any:
        if is_concrete(key):
            shape_fits(f"the array that {name} draws", *shape, itemsize=4)
        drawn = value(key, shape, *arguments, **options)
        unboxed = getattr(drawn, "raw_value", getattr(drawn, "value", drawn))  # Flax puts an array with its sharding in a box
        got = jnp.shape(array(f"the result of {name}", unboxed))
        equal_shapes(f"{name} returns an array of shape {{}}", got, "the shape {} is needed", tuple(shape))
        return drawn

    return checked


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


def real(name: str, array: Any) -> Any:
    """Return an array and check that it is not complex.

    Raises:
      TypeError: The array is complex.
    """
    if jnp.iscomplexobj(array):
        raise TypeError(f"{name} has dtype {array.dtype} but needs a real one; pass real numbers, e.g. abs({name})")
    return array


def _inexact(name: str, value: ArrayLike, first_filled: int) -> jax.Array:
    """Return `value` as a floating or complex array. Axes before axis `first_filled` may be empty."""
    result = array(name, value)
    if not jnp.issubdtype(result.dtype, jnp.inexact):
        raise TypeError(f"{name} has dtype {result.dtype} but needs a floating one; cast it, e.g. {name}.astype('float32')")
    if any(size == 0 for size in result.shape[first_filled:] if isinstance(size, int)):
        raise ValueError(f"{name} is empty: its shape is {result.shape}")
    return result


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


def image_batch(name: str, value: ArrayLike) -> jax.Array:
    """Return a batch of images (n, *space, c) as an array.

    Raises:
      ValueError: There are fewer than three axes, or no pixels.
      TypeError: The dtype is not floating.
    """
    batch = floating(name, value)
    if batch.ndim < 3:
        raise ValueError(f"{name} has shape {batch.shape}; needs images (n, *space, c) with at least one spatial axis")
    return batch


def image_shape(value: Any, name: str = "image_shape") -> tuple[int, ...]:
    """Return the shape (*space, c) of one image as a tuple.

    Raises:
      ValueError: There is no axis, or an axis is empty.
      TypeError: The shape is not a sequence of integers.
    """
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence (*space, c) of integers, such as (28, 28, 1), got {shown(value)}")
    shape = tuple(as_integer(name, size) for size in value)
    if not shape:
        raise ValueError(f"{name} must have an axis for the channels, as in (28, 28, 1), got ()")
    shape_fits(f"an image of {name}", *shape, itemsize=4)
    return shape


def window(value: object, name: str = "window") -> Window:
    """Return `value`, a window.

    Raises:
      TypeError: `value` is not a Window.
    """
    return instance(name, value, Window, "a convlab.Window such as Window(3)")


def window_of(name: str, shape: Sequence[int], value: Window | None) -> Window:
    """Return the window of kernels of a shape. If `value` is None, it has stride 1 and padding "SAME".

    Raises:
      TypeError: `value` is neither a Window nor None.
      ValueError: The kernels have other taps or another number of spatial axes.
    """
    if value is None:
        return Window(tuple(shape))
    taps(name, tuple(shape), window(value))
    return value.with_ndim(len(shape))


def group_count(groups: int, count: int, counted: str) -> None:
    """Check that `groups` is a positive integer that divides `count`.

    Raises:
      ValueError: `groups` is no such integer. The error names what is counted by `counted`.
    """
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups must be an integer of at least 1, got {shown(groups)}")
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
    out = _window(window).output_shape(space)
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
    needed = _window(window).output_shape(space)
    equal_shapes(f"{name} holds kernels for {{}} positions", got, f"{window} on {space} pixels has {{}}", needed)


def taps(name: str, got: tuple[int, ...], window: Window) -> None:
    """Check that the kernels in `name` have one entry per tap of the window.

    Raises:
      ValueError: The number of taps differs along an axis.
    """
    equal_shapes(f"{name} holds kernels of {{}} taps", got, f"{window} has {{}}", _window(window).taps(len(got)))


_window = window  # where an argument has this name


def output_fits(x: jax.Array, axes: Sequence[Axis], channels: int) -> None:
    """Check that the output of a windowed layer fits into memory.

    Strides, padding and dilation set its size.

    Raises:
      MemoryError: It does not fit.
    """
    outputs = [axis.outputs for axis in axes]
    shape_fits("the output at all positions of window", *x.shape[: x.ndim - 1 - len(axes)], *outputs, channels, itemsize=4)


def promote(*arrays: jax.Array) -> list[jax.Array]:
    """Cast arrays to their common dtype."""
    dtype = jnp.result_type(*arrays)
    return [array.astype(dtype) for array in arrays]
