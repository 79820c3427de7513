"""Where every output position of a window reads: the index pattern on which all rungs of the ladder stand."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Size = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]
Space = Sequence[int]

MAXIMUM_RANK = 3


class Axis(NamedTuple):
    """One spatial axis of a window laid on an image: `outputs` windows of `size` taps over `pixels` pixels.

    Tap `a` of output `i` stands at coordinate `stride * i + dilation * a - low`; `mode` says what a coordinate outside
    the image reads ("zero": nothing).
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
        """Pixel that each tap of each output reads, -1 where it reads padding: int, (outputs, size)."""
        i, a = np.arange(self.outputs)[:, None], np.arange(self.size)
        return OUTSIDE[self.mode](self.stride * i + self.dilation * a - self.low, self.pixels)

    @property
    def extent(self) -> int:
        """Coordinates from the first tap of an output to its last."""
        return self.dilation * (self.size - 1) + 1

    @property
    def reach(self) -> int:
        """Coordinates from the first that any output reads to the last."""
        return self.stride * (self.outputs - 1) + self.extent


OUTSIDE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # the pixel that coordinate k reads in an image of n, -1: none
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


# name -> (pixels added below and above from pixels, window extent and stride; what they read)
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
    """Say which pixels each output position reads: size, strides, padding and dilation of a sliding window.

    Output `i` reads through tap `a` the pixel `stride * i + dilation * a - low` along each spatial axis; `low` follows
    from the padding. An int means the same along every axis and leaves the rank open; a sequence fixes it.

    Args:
      size: Taps along each axis, at least 1.
      strides: Pixels between neighbouring outputs, at least 1.
      padding: What is added around the image. With zeros: "SAME" (ceil(n / stride) outputs, the odd pixel above),
        "SAME_LOWER" (the odd pixel below), "VALID" (nothing), "FULL" (every overlap), "CAUSAL" (one axis, all below),
        an int, or per axis an int or a (low, high) pair. With pixels, (extent - 1) // 2 below and extent // 2 above:
        "CIRCULAR" (the image repeats), "REFLECT" (mirrored at the border pixel), "EDGE" (the border pixel repeats).
      dilation: Pixels between neighbouring taps, at least 1.

    Raises:
      ValueError: A size, stride or dilation below 1, a negative or unknown padding, or ranks that disagree.
      TypeError: A size, stride, dilation or padding that is not an integer.

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
        ranks = {name: len(value) for name, value in named.items() if isinstance(value, tuple)}
        if len(set(ranks.values())) > 1:
            raise ValueError(f"{self} mixes numbers of spatial axes: {ranks}; every sequence needs one entry per axis")
        if ranks:
            self._settle(next(iter(ranks.values())))

    def _settle(self, rank: int) -> None:
        """Broadcast every int to `rank` axes, so that equal windows compare equal."""
        if not 1 <= rank <= MAXIMUM_RANK:
            raise ValueError(f"{self} has {rank} spatial axes; needs 1 to {MAXIMUM_RANK}")
        if self.padding == "CAUSAL" and rank != 1:
            raise ValueError(f"padding 'CAUSAL' knows one spatial axis (time); this window has {rank}")
        for name in ("size", "strides", "dilation"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) * rank if isinstance(value, int) else value)
        if isinstance(self.padding, int):
            object.__setattr__(self, "padding", ((self.padding, self.padding),) * rank)

    @property
    def rank(self) -> int | None:
        """Number of spatial axes, None while every argument is an int."""
        return len(self.size) if isinstance(self.size, tuple) else None

    def of_rank(self, rank: int) -> "Window":
        """Return this window with every int broadcast to `rank` spatial axes.

        Raises:
          ValueError: The window already has another rank, or `rank` is not 1, 2 or 3.
        """
        if self.rank is None:
            window = Window(self.size, self.strides, self.padding, self.dilation)
            window._settle(rank)
            return window
        if self.rank != rank:
            raise ValueError(f"{self} has {self.rank} spatial axes but {rank} are needed here")
        return self

    def taps(self, rank: int) -> tuple[int, ...]:
        """Return the taps along each of `rank` spatial axes.

        Raises:
          ValueError: The window has another rank.
        """
        return as_axes("size", self.of_rank(rank).size, rank)

    def axes(self, space: Space) -> tuple[Axis, ...]:
        """Lay the window on an image of `space` pixels: one `Axis` per spatial axis.

        Raises:
          ValueError: No output position fits, an empty space, or another rank than the window's.
        """
        sizes = as_space(space)
        return _axes(self.of_rank(len(sizes)), sizes)

    def output_shape(self, space: Space) -> tuple[int, ...]:
        """Count the output positions along each axis of an image of `space` pixels.

        Raises:
          ValueError: No output position fits.
        """
        return tuple(axis.outputs for axis in self.axes(space))

    def reads(self, space: Space) -> np.ndarray:
        """Number of the pixel (row by row) that each tap reads, -1 where it reads zero padding: int, (*out, *window)."""
        axes = self.axes(space)
        pixels = np.zeros((), int)
        for axis in axes:
            pixels = pixels[..., None, None] * axis.pixels + axis.reads
        return np.where(self.live(space), _interleaved(pixels), -1)

    def live(self, space: Space) -> np.ndarray:
        """Which taps read a real pixel (the others are dead: they only ever see zero padding): bool, (*out, *window).

        Example:
          >>> Window(3).live((4,)).sum(axis=0)
          array([3, 4, 3])
        """
        alive = [axis.reads >= 0 for axis in self.axes(space)]
        return _interleaved(functools.reduce(np.logical_and.outer, alive))

    def coverage(self, space: Space) -> np.ndarray:
        """How many output positions read each pixel: int, (*space).

        Example:
          >>> Window(3).coverage((3, 3))
          array([[4, 6, 4],
                 [6, 9, 6],
                 [4, 6, 4]])
        """
        counts = [(axis.reads[..., None] == np.arange(axis.pixels)).any(1).sum(0) for axis in self.axes(space)]
        return functools.reduce(np.multiply.outer, counts)

    @classmethod
    def full(cls, space: Space) -> "Window":
        """Return the window of every offset that can reach a pixel: 2n - 1 taps an axis, stride 1, zero padding.

        With it, a locally connected layer is the re-indexed dense layer, and a convolution is shared but not local.

        Example:
          >>> Window.full((4, 5)).size
          (7, 9)
        """
        return cls(1).widened(space)

    def widened(self, space: Space) -> "Window":
        """Return the window with the same output positions and every offset that can reach a pixel: locality given up."""
        reach = tuple(axis.stride * (axis.outputs - 1) for axis in self.axes(space))
        size = tuple(n + r for n, r in zip(space, reach, strict=True))
        return Window(size, tuple(axis.stride for axis in self.axes(space)), tuple((r, r) for r in reach))


def as_space(space: Space) -> tuple[int, ...]:
    """Return the pixels along each spatial axis as a tuple.

    Raises:
      ValueError: An axis without pixels.
      TypeError: `space` is not a sequence of integers.
    """
    sizes = _integers("space", space, least=1)
    if isinstance(sizes, int):
        raise TypeError(f"space must be a sequence of integers, one per spatial axis, got {space!r}")
    return sizes


def as_axes(name: str, value: Size, rank: int) -> tuple[int, ...]:
    """Return `value` as one integer of at least 1 per spatial axis; an int means the same along all.

    Raises:
      ValueError: An entry below 1, or another number of entries than `rank`.
      TypeError: Not integers.
    """
    numbers = _integers(name, value, least=1)
    if isinstance(numbers, int):
        return (numbers,) * rank
    if len(numbers) != rank:
        raise ValueError(f"{name} has {len(numbers)} entries {numbers} but {rank} spatial axes need one each")
    return numbers


def as_integer(name: str, value: object, least: int = 1) -> int:
    """Return `value` as an int of at least `least`.

    Raises:
      ValueError: It is smaller.
      TypeError: It is not an integer.
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


def _interleaved(table: np.ndarray) -> np.ndarray:
    """Bring axes (i, a, j, b, ...) into the order (i, j, ..., a, b, ...)."""
    return table.transpose(*range(0, table.ndim, 2), *range(1, table.ndim, 2))


def _integers(name: str, value: object, least: int) -> int | tuple[int, ...]:
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and np.ndim(value) == 1:
        return tuple(as_integer(name, entry, least) for entry in value)
    return as_integer(name, value, least)


def _padding(padding: Padding) -> str | int | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding not in PADDINGS:
            raise ValueError(f"padding {padding!r} is unknown; needs one of {', '.join(PADDINGS)}, ints or (low, high) pairs")
        return padding
    if not isinstance(padding, (Sequence, np.ndarray)):
        return as_integer("padding", padding, least=0)
    pairs = []
    for entry in padding:
        pair = _integers("padding", entry, least=0)
        pairs.append((pair, pair) if isinstance(pair, int) else pair)
        if len(pairs[-1]) != 2:
            raise ValueError(f"padding needs an int or a (low, high) pair per spatial axis, got {entry!r} in {padding!r}")
    return tuple(pairs)


@functools.lru_cache(maxsize=1024)
def _axes(window: Any, space: tuple[int, ...]) -> tuple[Axis, ...]:
    """Lay out a window whose integers are all broadcast to the axes of `space`."""
    axes, padding = [], window.padding
    for r, (n, size, stride, dilation) in enumerate(zip(space, window.size, window.strides, window.dilation, strict=True)):
        extent = dilation * (size - 1) + 1
        if isinstance(padding, str):
            pad, mode = PADDINGS[padding]
            low, high = pad(n, extent, stride)
        else:
            (low, high), mode = padding[r], "zero"
        outputs = (n + low + high - extent) // stride + 1
        if outputs < 1:
            raise ValueError(
                f"{window} fits nowhere on {space} pixels: along axis {r} it spans {extent} pixels but only"
                f" {n} + {low} + {high} are there with padding"
            )
        axes.append(Axis(n, outputs, size, stride, dilation, low, high, mode))
    return tuple(axes)
