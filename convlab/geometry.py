"""The index pattern of sliding windows, which all rungs share: the pixel that each tap reads."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from convlab.choices import one_of

Size = int | Sequence[int]
Padding = str | int | Sequence[str | int | tuple[int, int]]
Space = Sequence[int]


class Axis(NamedTuple):
    """Describe one spatial axis of a window on an image.

    The axis has `outputs` windows of `size` taps over `pixels` pixels. Tap a of output i is at coordinate `stride * i +
    dilation * a - low`. The mode defines what a coordinate outside the image reads; under "zero" it reads nothing.

    Attributes:
      pixels: The number of pixels of the image along the axis.
      outputs: The number of output positions.
      size: The number of taps.
      stride: The distance between neighbouring outputs in pixels.
      dilation: The distance between neighbouring taps in pixels.
      low: The number of pixels added before the first pixel.
      high: The number of pixels added after the last pixel.
      mode: The kind of padding, a key of `OUTSIDE`.
    """

    pixels: int
    outputs: int
    size: int
    stride: int
    dilation: int
    low: int
    high: int
    mode: str

    @property
    def reads(self) -> np.ndarray:
        r"""The pixel that each tap of each output reads: int, (outputs, size). -1 marks zero padding.

        $$k = s i + t a - p \quad \text{inside the image, else what the mode defines}$$
        """
        i, a = np.arange(self.outputs)[:, None], np.arange(self.size)
        return OUTSIDE[self.mode](self.stride * i + self.dilation * a - self.low, self.pixels)

    @property
    def extent(self) -> int:
        r"""The number of coordinates from the first tap of an output to its last.

        $$t (A - 1) + 1 \quad \text{for } A \text{ taps of dilation } t$$
        """
        return self.dilation * (self.size - 1) + 1

    @property
    def reach(self) -> int:
        r"""The number of coordinates from the first that any output reads to the last.

        $$s (I - 1) + t (A - 1) + 1$$

        for I outputs of stride s and A taps of dilation t.
        """
        return self.stride * (self.outputs - 1) + self.extent


OUTSIDE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # pixel number of coordinate k among n pixels, -1: none
    "zero": lambda k, n: np.where((k >= 0) & (k < n), k, -1),
    "wrap": lambda k, n: k % n,
    "reflect": lambda k, n: n - 1 - np.abs(k % max(2 * n - 2, 1) - (n - 1)),
    "edge": lambda k, n: np.clip(k, 0, n - 1),
}


def _same(n: int, extent: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(n / stride) - 1) * stride + extent - n, 0)
    return total // 2, total - total // 2


def _around(n: int, extent: int, stride: int) -> tuple[int, int]:
    return (extent - 1) // 2, extent // 2


# name -> (function from pixels, window extent and stride to the padding at start and end; key of OUTSIDE)
PADDINGS: dict[str, tuple[Callable[[int, int, int], tuple[int, ...]], str]] = {
    "SAME": (_same, "zero"),
    "SAME_LOWER": (lambda n, extent, stride: _same(n, extent, stride)[::-1], "zero"),
    "VALID": (lambda n, extent, stride: (0, 0), "zero"),
    "FULL": (lambda n, extent, stride: (extent - 1, extent - 1), "zero"),
    "CIRCULAR": (_around, "wrap"),
    "REFLECT": (_around, "reflect"),
    "EDGE": (_around, "edge"),
    "CAUSAL": (lambda n, extent, stride: (extent - 1, 0), "zero"),
}


@dataclasses.dataclass(frozen=True)
class Window:
    """Define a sliding window: the pixels that each output position reads.

    Along each spatial axis, tap a of output i reads pixel `stride * i + dilation * a - low`, where `low` follows from the
    padding. An int applies to every axis and leaves the number of axes open. A sequence has one entry per axis.

    Args:
      size: The number of taps along each axis, at least 1.
      strides: The distance between neighbouring outputs in pixels, at least 1.
      padding: The pixels added around the image. Zeros: "SAME" (ceil(n / stride) outputs, an odd pixel goes to the end),
        "SAME_LOWER" (an odd pixel goes to the start), "VALID" (none), "FULL" (every overlap), "CAUSAL" (one axis, all at
        the start), an int or a (low, high) pair. Image pixels, (extent - 1) // 2 at the start and extent // 2 at the end:
        "CIRCULAR" (the image repeats), "REFLECT" (it is mirrored at the border pixel), "EDGE" (the border pixel repeats).
        A sequence has one entry per axis, each of any kind: ("SAME", "CIRCULAR") suits a map of the globe.
      dilation: The distance between neighbouring taps in pixels, at least 1.

    Raises:
      ValueError: A size, stride or dilation is below 1, padding is negative or unknown, or sequences differ in length.
      TypeError: A size, stride, dilation or padding is not an integer.

    Example:
      >>> Window((3, 5), strides=2, padding="SAME").output_shape((7, 8))
      (4, 4)
    """

    size: Size
    strides: Size = 1
    padding: Padding = "SAME"
    dilation: Size = 1

    def __post_init__(self):
        for name in ("size", "strides", "dilation"):
            object.__setattr__(self, name, _integers(name, getattr(self, name), least=1))
        object.__setattr__(self, "padding", _padding(self.padding))
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        ndims = {name: len(value) for name, value in named.items() if isinstance(value, tuple)}
        if len(set(ndims.values())) > 1:
            raise ValueError(f"{self} mixes numbers of spatial axes: {ndims}; every sequence needs one entry per axis")
        if ndims:
            self._broadcast(next(iter(ndims.values())))

    def _broadcast(self, ndim: int) -> None:
        """Broadcast every int to `ndim` axes, so that equal windows compare equal."""
        if ndim < 1:
            raise ValueError(f"{self} has {ndim} spatial axes; needs at least 1")
        if self.padding == "CAUSAL" and ndim != 1:
            raise ValueError(f"padding 'CAUSAL' needs one spatial axis (time), but this window has {ndim}")
        for name in ("size", "strides", "dilation"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) * ndim if isinstance(value, int) else value)
        if isinstance(self.padding, int):
            object.__setattr__(self, "padding", ((self.padding, self.padding),) * ndim)
        if isinstance(self.padding, tuple) and isinstance(self.padding[0], str) and len({*self.padding}) == 1 and ndim > 1:
            object.__setattr__(self, "padding", self.padding[0])

    @property
    def ndim(self) -> int | None:
        """The number of spatial axes, or None while every argument is an int."""
        return len(self.size) if isinstance(self.size, tuple) else None

    @property
    def paddings(self) -> tuple[str | tuple[int, int], ...]:
        """The padding of each axis, a name or a (low, high) pair.

        Raises:
          ValueError: The number of spatial axes is open.
        """
        if not isinstance(self.size, tuple):
            raise ValueError(f"{self} leaves the number of spatial axes open; give its size as a tuple")
        return (self.padding,) * len(self.size) if isinstance(self.padding, str) else self.padding  # pyright: ignore

    def with_ndim(self, ndim: int) -> "Window":
        """Return this window with every int broadcast to `ndim` spatial axes.

        Raises:
          ValueError: The window has another number of spatial axes, or `ndim` is below 1.
        """
        if self.ndim is None:
            window = Window(self.size, self.strides, self.padding, self.dilation)
            window._broadcast(ndim)
            return window
        if self.ndim != ndim:
            raise ValueError(f"{self} has {self.ndim} spatial axes but {ndim} are needed here")
        return self

    def taps(self, ndim: int) -> tuple[int, ...]:
        """Return the number of taps along each of `ndim` spatial axes.

        Raises:
          ValueError: The window has another number of spatial axes.
        """
        return as_axes("size", self.with_ndim(ndim).size, ndim)

    def axes(self, space: Space) -> tuple[Axis, ...]:
        """Lay the window on an image of `space` pixels: one `Axis` per spatial axis.

        Raises:
          ValueError: No output position fits, an axis has no pixels, or the window has another number of spatial axes.
        """
        sizes = as_space(space)
        return _axes(self.with_ndim(len(sizes)), sizes)

    def output_shape(self, space: Space) -> tuple[int, ...]:
        r"""Count the output positions along each axis of an image of `space` pixels.

        $$I = \lfloor (n + p + p' - e) / s \rfloor + 1, \qquad e = t (A - 1) + 1$$

        for n pixels, padding p before and p' after them, A taps, stride s and dilation t.

        Raises:
          ValueError: No output position fits.
        """
        return tuple(axis.outputs for axis in self.axes(space))

    def reads(self, space: Space) -> np.ndarray:
        r"""Return the row-major number of the pixel that each tap reads: int, (*out, *window).

        $$k L + l, \qquad k = s i + t a - p, \quad l = s j + t b - p$$

        for L pixels along the second axis.

        Dead taps, which read zero padding, have -1.
        """
        axes = self.axes(space)
        pixels = np.zeros((), int)
        for axis in axes:
            pixels = pixels[..., None, None] * axis.pixels + axis.reads
        return np.where(self.live(space), _interleaved(pixels), -1)

    def live(self, space: Space) -> np.ndarray:
        r"""Return which taps read a pixel of the image: bool, (*out, *window).

        $$\text{live}_{ijab} = [\, 0 \le s i + t a - p < n \,]\, [\, 0 \le s j + t b - p < m \,]$$

        This is for zero padding of an image of n x m pixels. A tap that reads zero padding at a position is dead there, and
        its weight has no effect. In a kernel that several positions share, a tap is dead if it is dead at all of them.
        Under "CIRCULAR", "REFLECT" and "EDGE" padding, all taps are live.

        Example:
          >>> Window(3).live((4,)).sum(axis=0)
          array([3, 4, 3])
        """
        alive = [axis.reads >= 0 for axis in self.axes(space)]
        return over_axes(np.logical_and, alive)

    def coverage(self, space: Space) -> np.ndarray:
        r"""Count the output positions that read each pixel: int, (*space).

        $$n_{kl} = \#\{\, (i, j) : \text{some tap of } (i, j) \text{ reads } (k, l) \,\}$$

        Example:
          >>> Window(3).coverage((3, 3))
          array([[4, 6, 4],
                 [6, 9, 6],
                 [4, 6, 4]])
        """
        counts = [(axis.reads[..., None] == np.arange(axis.pixels)).any(1).sum(0) for axis in self.axes(space)]
        return over_axes(np.multiply, counts)

    @classmethod
    def full(cls, space: Space) -> "Window":
        """Return the window of all offsets that can reach a pixel, with stride 1 and zero padding.

        It has 2n - 1 taps along an axis of n pixels. With it, a locally connected layer is a re-indexed dense layer, and a
        convolution shares weights without being local.

        Example:
          >>> Window.full((4, 5)).size
          (7, 9)
        """
        return cls(1).widened(space)

    def widened(self, space: Space) -> "Window":
        """Return the window with the same output positions and all offsets that can reach a pixel."""
        reach = tuple(axis.stride * (axis.outputs - 1) for axis in self.axes(space))
        size = tuple(n + r for n, r in zip(space, reach, strict=True))
        return Window(size, tuple(axis.stride for axis in self.axes(space)), tuple((r, r) for r in reach))


def as_space(space: Space) -> tuple[int, ...]:
    """Return the number of pixels along each spatial axis as a tuple.

    Raises:
      ValueError: An axis has no pixels.
      TypeError: `space` is not a sequence of integers.
    """
    sizes = _integers("space", space, least=1)
    if isinstance(sizes, int):
        raise TypeError(f"space must be a sequence of integers, one per spatial axis, got {space!r}")
    return sizes


def as_axes(name: str, value: Size, ndim: int) -> tuple[int, ...]:
    """Return `value` as one integer of at least 1 per spatial axis, repeating an int for all axes.

    Raises:
      ValueError: An entry is below 1, or the number of entries differs from `ndim`.
      TypeError: `value` is neither an integer nor a sequence of integers.
    """
    numbers = _integers(name, value, least=1)
    if isinstance(numbers, int):
        return (numbers,) * ndim
    if len(numbers) != ndim:
        raise ValueError(f"{name} has {len(numbers)} entries {numbers} but {ndim} spatial axes need one each")
    return numbers


def as_integer(name: str, value: object, least: int = 1) -> int:
    """Return `value` as an int of at least `least`.

    Raises:
      ValueError: `value` is smaller than `least`.
      TypeError: `value` is not an integer.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def over_axes(join: np.ufunc, tables: Sequence[np.ndarray]) -> np.ndarray:
    """Combine tables of one spatial axis each: (a), (b) to (a, b), or (i, a), (j, b) to (i, j, a, b)."""
    table = functools.reduce(join.outer, tables)
    return table if tables[0].ndim == 1 else _interleaved(table)


def _interleaved(table: np.ndarray) -> np.ndarray:
    """Reorder axes (i, a, j, b, ...) to (i, j, ..., a, b, ...)."""
    return table.transpose(*range(0, table.ndim, 2), *range(1, table.ndim, 2))


def _integers(name: str, value: object, least: int) -> int | tuple[int, ...]:
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and np.ndim(value) == 1:
        return tuple(as_integer(name, entry, least) for entry in value)
    return as_integer(name, value, least)


def _padding(padding: Padding) -> str | int | tuple[str | tuple[int, int], ...]:
    if isinstance(padding, (Sequence, np.ndarray)) and not isinstance(padding, str):
        return tuple(_entry(entry, padding) for entry in padding)
    return _name(padding) if isinstance(padding, str) else as_integer("padding", padding, least=0)


def _entry(entry: Any, padding: Any) -> str | tuple[int, int]:
    """Return the padding of one axis as a name or a (low, high) pair."""
    if isinstance(entry, str):
        return _name(entry)
    pair = _integers("padding", entry, least=0)
    low, *high = (pair, pair) if isinstance(pair, int) else pair
    if len(high) != 1:
        raise ValueError(f"padding needs a name, an int or a (low, high) pair per spatial axis, got {entry!r} in {padding!r}")
    return low, high[0]


def _name(name: str) -> str:
    one_of("padding", name, PADDINGS, extra=", ints or (low, high) pairs")
    return name


@functools.lru_cache(maxsize=1024)
def _axes(window: Any, space: tuple[int, ...]) -> tuple[Axis, ...]:
    """Lay a window on an image, with all integers broadcast to the axes of `space`."""
    axes, arguments = [], zip(space, window.size, window.strides, window.dilation, window.paddings, strict=True)
    for r, (n, size, stride, dilation, padding) in enumerate(arguments):
        extent = dilation * (size - 1) + 1
        if isinstance(padding, str):
            pad, mode = PADDINGS[padding]
            low, high = pad(n, extent, stride)
        else:
            (low, high), mode = padding, "zero"
        outputs = (n + low + high - extent) // stride + 1
        if outputs < 1:
            raise ValueError(
                f"{window} fits nowhere on {space} pixels: along axis {r} it spans {extent} pixels but only"
                f" {n} + {low} + {high} are there with padding"
            )
        axes.append(Axis(n, outputs, size, stride, dilation, low, high, mode))
    return tuple(axes)
