"""The index pattern of sliding windows, which all rungs share: the pixel that each tap reads."""

import dataclasses
import functools
import html
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from convlab.choices import one_of, shown
from convlab.display import grid_html
from convlab.memory import shape_fits

LARGEST = 2**31 - 1  # the largest size, so that a product of two has 64 bits

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
        shape_fits("the pixels that every tap of window reads", self.outputs, self.size)
        i, a = np.arange(self.outputs)[:, None], np.arange(self.size)
        return OUTSIDE[self.mode](self.stride * i + self.dilation * a - self.low, self.pixels)

    @property
    def inside(self) -> np.ndarray:
        r"""Whether some tap of each output reads each pixel: bool, (outputs, pixels)."""
        shape_fits("the taps of window by space", self.outputs, self.size, self.pixels, itemsize=1)
        return (self.reads[..., None] == np.arange(self.pixels)).any(1)

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

SIZE_KEEPING = ("SAME", "SAME_LOWER", "CIRCULAR", "REFLECT", "EDGE", "CAUSAL")  # n pixels have ceil(n / stride) outputs


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
        the start), an int or a (low, high) pair. Negative numbers remove pixels. Image pixels, (extent - 1) // 2 at the start
        and extent // 2 at the end:
        "CIRCULAR" (the image repeats), "REFLECT" (it is mirrored at the border pixel), "EDGE" (the border pixel repeats).
        A sequence has one entry per axis, each of any kind: ("SAME", "CIRCULAR") suits a map of the globe.
      dilation: The distance between neighbouring taps in pixels, at least 1.

    Raises:
      ValueError: A size, stride or dilation is below 1, a padding is unknown, or sequences differ in length.
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
        if isinstance(self.padding, tuple) and len({*self.padding}) == 1:
            (name, *_) = self.padding
            if isinstance(name, str) and (ndim == 1 or name != "CAUSAL"):  # that name alone stands for one axis
                object.__setattr__(self, "padding", name)

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
            window._broadcast(as_integer("ndim", ndim))
            return window
        if self.ndim != as_integer("ndim", ndim):
            raise ValueError(f"{self} has {self.ndim} spatial axes but {ndim} are needed here")
        return self

    def taps(self, ndim: int) -> tuple[int, ...]:
        """Return the number of taps along each of `ndim` spatial axes.

        Raises:
          ValueError: The window has another number of spatial axes.
        """
        return as_axes("size", self.with_ndim(ndim).size, ndim)

    def axes(self, space: Space) -> tuple[Axis, ...]:
        """Return the window on an image of `space` pixels, as one `Axis` per spatial axis.

        Raises:
          ValueError: No output position fits, an axis has no pixels, or the window has another number of spatial axes.
        """
        sizes = as_space(space)
        if self.ndim not in (None, len(sizes)):
            raise ValueError(f"{self} has {self.ndim} spatial axes but {len(sizes)} are needed here, as space is {sizes}")
        return _axes(self.with_ndim(len(sizes)), sizes)

    def output_shape(self, space: Space) -> tuple[int, ...]:
        r"""Count the output positions along each axis of an image of `space` pixels.

        $$I = \lfloor (n + p + p' - e) / s \rfloor + 1, \qquad e = t (A - 1) + 1$$

        for n pixels, padding p before and p' after them, A taps, stride s and dilation t.

        Raises:
          ValueError: No output position fits.
        """
        return tuple(axis.outputs for axis in self.axes(space))

    def input_shape(self, positions: Space) -> tuple[int, ...]:
        """Return the number of pixels of the image that a transposed layer makes from output positions.

        With strides, several images have the same positions. The sizes returned are those of `jax.lax.conv_transpose`.

        Raises:
          ValueError: The window has another number of spatial axes, or no image has these positions.

        Example:
          >>> Window((3, 3), strides=2).input_shape((4, 5)), Window((3, 3), 2, "VALID").input_shape((4, 5))
          ((8, 10), (9, 11))
        """
        outputs = as_space(positions)
        window = self.with_ndim(len(outputs))
        arguments = zip(outputs, *(getattr(window, name) for name in ("size", "strides", "dilation", "paddings")), strict=True)
        space = tuple(_pixels(*axis) for axis in arguments)
        if min(space) < 1 or window.output_shape(space) != outputs:
            raise ValueError(f"positions are {outputs}, but {self} has these on no image")
        return space

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
        counts = [axis.inside.sum(0) for axis in self.axes(space)]
        return over_axes(np.multiply, counts)

    def _repr_html_(self) -> str | None:
        """Return a drawing of the pixels that two positions read, or None for a window that is too large. Notebooks call it."""
        ndim = self.ndim or (1 if self.padding == "CAUSAL" else 2)
        window = self.with_ndim(ndim)
        cut = [0 if isinstance(padding, str) else sum(max(-pad, 0) for pad in padding) for padding in window.paddings]
        sizes = zip(window.size, window.strides, window.dilation, cut, strict=True)  # pyright: ignore[reportArgumentType]
        axes = window.axes([dilation * (size - 1) + 1 + 2 * stride + less for size, stride, dilation, less in sizes])
        if ndim > 2 or max(axis.reach + axis.low + axis.high for axis in axes) > MOST_CELLS:
            return None
        colours = _drawn((axes[0] if ndim == 2 else Axis(1, 1, 1, 1, 1, 0, 0, "zero"), axes[-1]))
        return f"{grid_html(colours, repr(self))}<br><small>{html.escape(f'{self}: {LEGEND}')}</small>"

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


MOST_CELLS = 60  # the most pixels along an axis of a drawing
LEGEND = "orange is read by the first position, blue by the middle one, green by both; gray is padding"
INSIDE, OUTSIDE_IMAGE = ("#FFFFFF", "#E69F00", "#56B4E9", "#009E73"), ("#D9D9D9", "#F0CF80", "#ABDAF4", "#80CEB9")


def _drawn(axes: tuple[Axis, Axis]) -> list[list[str]]:
    """Return the colours of the pixels and of the padding: which are read by the first position and by the middle one."""
    coordinates = [np.arange(-max(axis.low, 0), axis.pixels + max(axis.high, 0)) for axis in axes]
    read = np.zeros([len(along) for along in coordinates], int)
    for reader, half in ((1, 0), (2, 2)):
        seen = []
        for axis, along in zip(axes, coordinates, strict=True):
            output = axis.outputs // half if half else 0
            taps = axis.stride * output + axis.dilation * np.arange(axis.size) - axis.low
            seen.append(np.isin(along, [*taps, *axis.reads[output]]))
        read |= reader * np.logical_and.outer(*seen)
    inside = np.logical_and.outer(
        *[(along >= 0) & (along < axis.pixels) for axis, along in zip(axes, coordinates, strict=True)]
    )
    colours = np.where(inside, np.array(INSIDE)[read], np.array(OUTSIDE_IMAGE)[read])
    return colours.tolist()


def as_space(space: Space) -> tuple[int, ...]:
    """Return the number of pixels along each spatial axis as a tuple.

    Raises:
      ValueError: An axis has no pixels.
      TypeError: `space` is not a sequence of integers.
    """
    sizes = _integers("space", space, least=1)
    if isinstance(sizes, int):
        raise TypeError(f"space must be a sequence of integers, one per spatial axis, got {shown(space)}")
    if not sizes:
        raise ValueError("space must have at least one spatial axis, got ()")
    return sizes


def as_size(name: str, value: Size) -> int | tuple[int, ...]:
    """Return `value` as an integer of at least 1, or as a tuple of them.

    Raises:
      ValueError: An entry is below 1, or there is none.
      TypeError: `value` is neither an integer nor a sequence of integers.
    """
    numbers = _integers(name, value, least=1)
    if numbers == ():
        raise ValueError(f"{name} must have at least one entry, got ()")
    return numbers


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


def as_integer(name: str, value: object, least: int | None = 1, most: int = LARGEST) -> int:
    """Return `value` as an int of at least `least`, or any int if that is None.

    Raises:
      ValueError: `value` is smaller than `least`, or its absolute value exceeds `most`.
      TypeError: `value` is not an integer.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {shown(value)}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if abs(number) > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def over_axes(join: np.ufunc, tables: Sequence[np.ndarray]) -> np.ndarray:
    """Combine tables of one spatial axis each: (a), (b) to (a, b), or (i, a), (j, b) to (i, j, a, b)."""
    shape_fits("the table of window on space", *(size for table in tables for size in table.shape))
    table = functools.reduce(join.outer, tables)
    return table if tables[0].ndim == 1 else _interleaved(table)


def _interleaved(table: np.ndarray) -> np.ndarray:
    """Reorder axes (i, a, j, b, ...) to (i, j, ..., a, b, ...)."""
    return table.transpose(*range(0, table.ndim, 2), *range(1, table.ndim, 2))


def _integers(name: str, value: object, least: int | None) -> int | tuple[int, ...]:
    if _is_sequence(value):
        return tuple(as_integer(name, entry, least) for entry in value)
    return as_integer(name, value, least)


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Return True for a sequence with entries, which strings and arrays without axes are not."""
    return (isinstance(value, Sequence) and not isinstance(value, str)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _padding(padding: Padding) -> str | int | tuple[str | tuple[int, int], ...]:
    if _is_sequence(padding):
        return tuple(_entry(entry, padding) for entry in padding)
    return _name(padding) if isinstance(padding, str) else as_integer("padding", padding, least=None)


def _entry(entry: Any, padding: Any) -> str | tuple[int, int]:
    """Return the padding of one axis as a name or a (low, high) pair."""
    if isinstance(entry, str):
        return _name(entry)
    pair = _integers("padding", entry, least=None)
    low, *high = (pair, pair) if isinstance(pair, int) else pair
    if len(high) != 1:
        raise ValueError(f"padding needs a name, an int or a (low, high) pair per spatial axis, got {entry!r} in {padding!r}")
    return low, high[0]


def _name(name: str) -> str:
    one_of("padding", name.upper(), PADDINGS, extra=", ints or (low, high) pairs")  # in any case, as in jax.lax
    return name.upper()


def _pixels(outputs: int, size: int, stride: int, dilation: int, padding: str | tuple[int, int]) -> int:
    """Return the number of pixels of one axis with a number of outputs."""
    extent = dilation * (size - 1) + 1
    if padding in SIZE_KEEPING:
        return stride * outputs
    if padding == "VALID":
        return stride * (outputs - 1) + max(extent, stride)
    pads = PADDINGS[padding][0](0, extent, stride) if isinstance(padding, str) else padding
    return stride * (outputs - 1) + extent - sum(pads)


@functools.lru_cache(maxsize=1024)
def _axes(window: Any, space: tuple[int, ...]) -> tuple[Axis, ...]:
    """Return the axes of a window on an image, with all integers broadcast to the axes of `space`."""
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
