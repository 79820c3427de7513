"""The description of the trilinear form whose derivatives every implementation computes.

Arrays are named "x" (images), "v" (kernels) and "h" (the layer, or its cotangent). A derivative is named after the array whose
shape it has.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

import jax.numpy as jnp
from jax.lax import PrecisionLike
from jaxtyping import Array, Float

from convlab.geometry import Axis

LETTERS = {"x": {"s": 0, "n": 1, "c": -1}, "v": {"s": 0, "c": -2, "d": -1}, "h": {"s": 0, "n": 1, "d": -1}}
OTHERS = {"h": ("x", "v"), "x": ("v", "h"), "v": ("x", "h")}  # the two arrays in which each derivative is bilinear


@dataclasses.dataclass(frozen=True)
class Form:
    """Describe a trilinear form: its terms, its shapes and how it is computed.

    Args:
      family: A name in `table.FAMILIES`. The kernels v are "local" (one per position), "conv" (one for all positions) or
        "tiled" (one per position of a tile).
      axes: The pixels that each position reads along each axis. Implementations support padding with zeros only.
      implementation: The name of an implementation of the family, or "auto".
      precision: The precision of the multiplications, as in `jax.lax`.
      period: The number of positions of a tile along each axis, for the family "tiled".
      eager: Whether the form is computed by an eager call, whose first time consists of compilation.
    """

    family: str
    axes: tuple[Axis, ...]
    implementation: str = "auto"
    precision: PrecisionLike = None
    period: tuple[int, ...] = ()
    eager: bool = False

    @property
    def ndim(self) -> int:
        """The number of spatial axes."""
        return len(self.axes)

    @property
    def pixels(self) -> tuple[int, ...]:
        """The number of pixels of an image along each axis."""
        return tuple(axis.pixels for axis in self.axes)

    @property
    def taps(self) -> tuple[int, ...]:
        """The number of taps of a window along each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The number of output positions along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def by_position(self) -> bool:
        """Whether every output position has a separate kernel."""
        return self.family == "local"

    @property
    def kernels(self) -> tuple[int, ...]:
        """The number of kernels in v along each axis. It is empty for a convolution."""
        return self.outputs if self.by_position else self.period

    @property
    def has_strides(self) -> bool:
        """Whether a stride is larger than 1."""
        return any(axis.stride > 1 for axis in self.axes)

    @property
    def is_disjoint(self) -> bool:
        """Whether no two windows overlap and no window has gaps."""
        return all(axis.size == 1 or (axis.size <= axis.stride and axis.dilation == 1) for axis in self.axes)

    def with_axes(self, axes: Iterable[Axis]) -> "Form":
        """Return the form with other axes."""
        return dataclasses.replace(self, axes=tuple(axes))

    def shape(self, wrt: str, p: Array, q: Array) -> tuple[int, ...]:
        """Return the shape of the derivative by `wrt`, given the other two arrays."""
        size = sizes(wrt, p, q)
        space = {"x": self.pixels, "v": (*self.kernels, *self.taps), "h": self.outputs}[wrt]
        before, after = (
            [size[letter] for letter, axis in LETTERS[wrt].items() if (axis < 0) == last] for last in (False, True)
        )
        return (*before, *space, *after)


Product = Callable[[Array, Array, Form], Array]  # maps two of x, v and h, and the form, to the third


def proxy(form: Form, wrt: str, p: Array, q: Array) -> Array:
    """Return an array that stands for the derivative when JAX transposes.

    It has the shape, dtype and varying mesh axes of the derivative, but meaningless values. `shard_map` tracks the axes along
    which an array varies, and transposing by a replicated array would sum over devices.
    """
    return jnp.broadcast_to(p.sum() * q.sum(), form.shape(wrt, p, q))


def closed(axis: Axis) -> Axis:
    """Return the axis with the upper padding at which the image ends with the last window.

    The padding is negative if the last window ends inside the image.
    """
    return axis._replace(high=axis.reach - axis.low - axis.pixels)


def mirrored(axis: Axis) -> Axis:
    """Return the axis along which pixels read cotangents, by the taps in reverse order.

    The cotangents stand `stride` pixels apart, with zeros between them.
    """
    low = axis.dilation * (axis.size - 1) - axis.low
    return closed(axis._replace(pixels=axis.stride * (axis.outputs - 1) + 1, outputs=axis.pixels, stride=1, low=low))


BATCH = 32  # the batch for which an exported program with a symbolic batch is optimised


def known_sizes(wrt: str, p: Array, q: Array) -> dict[str, int]:
    """Return the size of each letter, with `BATCH` in the place of a symbolic dimension of `jax.export`.

    These sizes choose implementations and blocks. The result of an implementation does not depend on them.
    """
    return {letter: size if isinstance(size, int) else BATCH for letter, size in sizes(wrt, p, q).items()}


def sizes(wrt: str, p: Array, q: Array) -> dict[str, int]:
    """Return the size of each letter in the two arrays that the derivative by `wrt` is computed from."""
    arrays = dict(zip(OTHERS[wrt], (p, q), strict=True))
    return {letter: arrays[name].shape[axis] for name in arrays for letter, axis in LETTERS[name].items()}


def by_position(array: Array, form: Form) -> Float[Array, "positions a b"]:
    """Merge the stack with the positions of a local layer, and the axes between these and the last."""
    return array.reshape(len(array) * math.prod(form.outputs), -1, array.shape[-1])
