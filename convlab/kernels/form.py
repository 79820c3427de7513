"""The form that every implementation computes a derivative of: what is summed over, and the shapes that follow from it.

Arrays are named "x" (images), "v" (kernels) and "h" (the layer, or its cotangent). A derivative is named after the array whose
shape it has.
"""

import dataclasses
from collections.abc import Callable, Iterable

from jax.lax import PrecisionLike
from jaxtyping import Array

from convlab.geometry import Axis

LETTERS = {"x": {"s": 0, "n": 1, "c": -1}, "v": {"s": 0, "c": -2, "d": -1}, "h": {"s": 0, "n": 1, "d": -1}}
OTHERS = {"h": ("x", "v"), "x": ("v", "h"), "v": ("x", "h")}  # what each derivative is bilinear in


@dataclasses.dataclass(frozen=True)
class Form:
    """What is summed, and how.

    Args:
      family: A name in `table.FAMILIES`: whether v holds a kernel per position, one for all, or one per position of a tile.
      axes: The pixels that each position reads along each axis. Implementations know padding with zeros only.
      implementation: The name of an implementation of the family, or "auto".
      precision: The precision of the multiplications, as in `jax.lax`.
      period: The positions of a tile along each axis, for the family "tiled".
    """

    family: str
    axes: tuple[Axis, ...]
    implementation: str = "auto"
    precision: PrecisionLike = None
    period: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def pixels(self) -> tuple[int, ...]:
        """Pixels of an image along each axis."""
        return tuple(axis.pixels for axis in self.axes)

    @property
    def taps(self) -> tuple[int, ...]:
        """Taps of a window along each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Output positions along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def by_position(self) -> bool:
        """Whether every output position has a kernel of its own."""
        return self.family == "local"

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernels that v holds along each axis, none for a convolution."""
        return self.outputs if self.by_position else self.period

    @property
    def has_strides(self) -> bool:
        """Whether some pixels lie between the windows of neighbouring outputs."""
        return any(axis.stride > 1 for axis in self.axes)

    def with_axes(self, axes: Iterable[Axis]) -> "Form":
        """Return the same form along other axes."""
        return dataclasses.replace(self, axes=tuple(axes))

    def shape(self, wrt: str, p: Array, q: Array) -> tuple[int, ...]:
        """Shape of the derivative by `wrt`, given the other two arrays."""
        size = sizes(wrt, p, q)
        space = {"x": self.pixels, "v": (*self.kernels, *self.taps), "h": self.outputs}[wrt]
        before, after = ([size[letter] for letter, at in LETTERS[wrt].items() if (at < 0) == last] for last in (False, True))
        return (*before, *space, *after)


Product = Callable[[Array, Array, Form], Array]  # of two of x, v, h, and the form: the third


def closed(axis: Axis) -> Axis:
    """Return the axis padded so far above that the image ends where the last window does; a negative padding cuts."""
    return axis._replace(high=axis.reach - axis.low - axis.pixels)


def mirrored(axis: Axis) -> Axis:
    """Return the axis along which pixels read the cotangents, which the stride spreads, by the taps in reverse."""
    low = axis.dilation * (axis.size - 1) - axis.low
    return closed(axis._replace(pixels=axis.stride * (axis.outputs - 1) + 1, outputs=axis.pixels, stride=1, low=low))


def sizes(wrt: str, p: Array, q: Array) -> dict[str, int]:
    """Sizes of the letters that the two arrays beside the derivative by `wrt` have."""
    arrays = dict(zip(OTHERS[wrt], (p, q), strict=True))
    return {letter: arrays[name].shape[at] for name in arrays for letter, at in LETTERS[name].items()}
