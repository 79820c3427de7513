"""A layer of any rung: a `Layout` says where it reads, a `Tying` what its positions have in common."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from convlab import check
from convlab.convert import nearest, repeat, silence, squared_norm
from convlab.geometry import Axis, Padding, Size, Space, Window, as_integer, as_space
from convlab.rungs.start import Start

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Tying(abc.ABC):
    """What the positions of a layer have in common. One subclass is one rung; its fields are the rung's parameters.

    Between rungs a layer is given by its kernels V over one period: `kernels` writes them, `lift` takes those of a stricter
    rung exactly, `project` finds the nearest to those of any. Distances are those of the dense matrices.

    Attributes:
      name: The name of the rung.
      freer: The next freer rungs. A rung is contained in those, and in what contains those.
      arrays: The names of the arrays, the first of which holds kernels.
      rows: The names of the arrays whose first axes are the output positions.
      bias: How far the bias is usually shared: "channel" or "position".
      has_groups: Whether channels may stand in groups.
      has_noise: Whether positions may start alike up to noise.
      by_pixel: Whether the weights are stored by pixel, the window saying only which output positions there are.
      is_linear: Whether `project` is linear.
    """

    name: ClassVar[str]
    freer: ClassVar[tuple[type["Tying"], ...]] = ()
    arrays: ClassVar[tuple[str, ...]] = ("kernel",)
    rows: ClassVar[tuple[str, ...]] = ()
    bias: ClassVar[str] = "channel"
    has_groups: ClassVar[bool] = False
    has_noise: ClassVar[bool] = True
    by_pixel: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Tying":
        """Make the tying from the rung's parameters by name.

        Raises:
          ValueError: The rung has no such parameter.
        """
        for name in {*parameters} - {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"a {cls.name} layer takes no {name}, got {parameters[name]!r}")
        return cls(**parameters)

    @classmethod
    def within(cls, kind: type["Tying"]) -> bool:
        """Return True if every layer of this rung is one of another, whatever their parameters."""
        return cls is kind or any(freer.within(kind) for freer in cls.freer)

    def holds(self, other: "Tying") -> bool:
        """Return True if every layer of another tying of the same rung is one of this."""
        return True

    def settled(self, layout: "Layout") -> "Tying":
        """Check the parameters for a layout, and write those of an axis once for every axis."""
        return self

    def fitted(self, layout: "Layout") -> "Tying":
        """Reduce the parameters to what the positions and entries of a layout allow."""
        return self

    @abc.abstractmethod
    def tile(self, layout: "Layout") -> tuple[int, ...]:
        """Return after how many positions the kernels repeat, along every axis: their period."""

    @abc.abstractmethod
    def shapes(self, layout: "Layout") -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays, by name."""

    @abc.abstractmethod
    def start(self, key: jax.Array, layout: "Layout", how: Start) -> Arrays:
        """Draw the arrays."""

    @abc.abstractmethod
    def apply(self, x: jax.Array, arrays: Arrays, layout: "Layout", **options: Any) -> jax.Array:
        """Apply the arrays to images."""

    def fan_in(self, layout: "Layout") -> dict[str, int]:
        """Count the terms of the sum over each array, by name."""
        return {name: math.prod(layout.kernel[:-1]) for name in self.arrays}

    def kernels(self, arrays: Arrays, layout: "Layout") -> Array:
        """Write the kernels over one period, (*period, *window, c, d); dead taps are zero but those of mixtures."""
        return arrays["kernel"]

    def lift(self, v: Array, layout: "Layout") -> Arrays:
        """Write the kernels of a stricter rung, over its period, as the arrays of this rung: the same function."""
        tile = self.tile(layout)
        return {"kernel": v if v.shape[: layout.ndim] == tile else silence(repeat(v, tile), *layout.where)}

    def project(self, v: Array, layout: "Layout") -> Arrays:
        """Find the arrays whose dense matrix is nearest to that of kernels of any period."""
        return {"kernel": nearest(v, *layout.where, self.tile(layout))}

    def squared_norm(self, arrays: Arrays, layout: "Layout") -> Array:
        """Sum the squares of the dense matrix."""
        return squared_norm(self.kernels(arrays, layout), *layout.where)

    def dead(self, layout: "Layout") -> int:
        """Count the entries of the arrays that read padding at every position."""
        return dead_entries(layout, self.tile(layout))

    def multiply_adds(self, layout: "Layout") -> int:
        """Count the products for one image; a tap that reads padding costs nothing."""
        return math.prod(int((axis.reads >= 0).sum()) for axis in layout.axes) * math.prod(layout.kernel[-2:])


@dataclasses.dataclass(frozen=True)
class Layout:
    """What fixes the shapes of a layer: its tying, window and channels.

    Args:
      tying: What positions have in common.
      window: Where each output position reads.
      in_features: Input channels.
      out_features: Output channels.
      space: Pixels along each spatial axis of the input; needed wherever something differs by position.
      groups: Groups of channels that do not see each other, on rungs that have them.
      use_bias: False, "channel", "position", or True for what is usual on the rung.

    Raises:
      ValueError: A value is missing, out of range or unknown.
      TypeError: A value is not an integer where it must be.
    """

    tying: Tying
    window: Window
    in_features: int
    out_features: int
    space: Space | None = None
    groups: int = 1
    use_bias: bool | str = True

    def __post_init__(self):
        for name in ("in_features", "out_features"):
            as_integer(name, getattr(self, name))
        check.divides(self.groups, self.in_features, "input channels")
        check.divides(self.groups, self.out_features, "output channels")
        if self.groups != 1 and not self.tying.has_groups:
            raise ValueError(f"a {self.rung} layer takes no groups, got {self.groups!r}")
        if self.use_bias not in (True, False, "channel", "position"):
            raise ValueError(f"use_bias must be True, False, 'channel' or 'position', got {self.use_bias!r}")
        if self.space is None and (self.bias_sharing == "position" or self.tying.rows):
            raise ValueError(f"space is missing: a {self.rung} layer whose arrays differ by position needs the pixels it reads")
        if self.space is not None:
            object.__setattr__(self, "space", as_space(self.space))
            object.__setattr__(self, "window", self.window.of_rank(len(self.space)))
        if self.window.rank is None:
            raise ValueError(f"{self.window} leaves the number of spatial axes open; give kernel_size as a tuple, or space")
        object.__setattr__(self, "tying", self.tying.settled(self))

    @property
    def rung(self) -> str:
        """Name of the rung."""
        return self.tying.name

    @property
    def where(self) -> tuple[Window, Space]:
        """The window and the pixels that it lies on.

        Raises:
          ValueError: The pixels are not known.
        """
        if self.space is None:
            raise ValueError(f"space is missing: where the pixels of a {self.rung} layer are unknown, so are its positions")
        return self.window, self.space

    def silence(self, v: Array) -> Array:
        """Set the dead taps of kernels over one period to zero; where the pixels are not known, none is."""
        return v if self.space is None else silence(v, *self.where)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The window laid on the pixels, one `Axis` per spatial axis."""
        window, space = self.where
        return window.axes(space)

    @property
    def positions(self) -> tuple[int, ...]:
        """Output positions along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        assert self.window.rank is not None
        return self.window.rank

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of one kernel: (*window, c, d)."""
        return (*self.window.taps(self.ndim), self.in_features // self.groups, self.out_features)

    @property
    def bias_sharing(self) -> str | None:
        """How far the bias is shared: "channel", "position" or None."""
        if isinstance(self.use_bias, str):
            return self.use_bias
        return self.tying.bias if self.use_bias else None

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of the bias: (d,) per channel or (*out, d) per position."""
        return (*(self.positions if self.bias_sharing == "position" else ()), self.out_features)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the arrays, of a layer with positions, whose first axes are the output positions."""
        return (*self.tying.rows, *(("bias",) if self.tying.rows and self.bias_sharing == "position" else ()))

    def start(self, key: jax.Array, how: Start) -> Arrays:
        """Draw the arrays of a layer (without its bias), by name.

        With `tied_noise` s, position i starts at (U + s E_i) / sqrt(1 + s**2): U common to all positions, E_i its own, both
        drawn by the initializer. 0 starts as a convolution, None without anything in common; the variance is the same for all.

        Raises:
          MemoryError: Arrays of a layer with positions would not fit into the memory that is free; see `convlab.any_size`.
        """
        if how.tied_noise is not None and not self.tying.has_noise:
            raise ValueError(f"a {self.rung} layer takes no tied_noise: it has one kernel")
        if how.tied_noise is not None and how.tied_noise < 0:
            raise ValueError(f"tied_noise is a standard deviation relative to the kernel's, at least 0; got {how.tied_noise}")
        if self.space is not None and check.is_known(key):
            shapes = {name: jax.ShapeDtypeStruct(shape, how.dtype) for name, shape in self.tying.shapes(self).items()}
            check.fits({f"the {self.rung} layer": shapes})
        return self.tying.start(key, self, how)

    def forward(
        self, x: jax.Array, arrays: Arrays, bias: jax.Array | None, *, dtype: DTypeLike | None = None, **options: Any
    ) -> jax.Array:
        """Cast images and arrays to `dtype` (absent: their common floating one), apply the rung's op, add the bias."""
        x = jnp.asarray(x)
        if self.space is not None:
            pixels = x.shape[-1 - self.ndim : -1]
            check.agree("x holds images of {} pixels", pixels, "this layer was made for {}", tuple(self.space))
        given = [x, *arrays.values(), *([] if bias is None else [bias])]
        dtype = jnp.result_type(*given) if dtype is None else dtype
        arrays = {name: array.astype(dtype) for name, array in arrays.items()}
        h = self.tying.apply(x.astype(dtype), arrays, self, **options)
        return h if bias is None else h + bias.astype(dtype)


def lay_window(
    kernel_size: Size | Window, strides: Size | None, padding: Padding, kernel_dilation: Size | None, space: Space | None
) -> Window:
    """Make a layer's window as Flax would: None means 1; an int kernel_size is one axis, or one size along all of `space`."""
    if isinstance(kernel_size, Window):
        if (strides, padding, kernel_dilation) != (1, "SAME", 1):
            raise ValueError(f"kernel_size is {kernel_size}; strides, padding and kernel_dilation are part of that window")
        window = kernel_size
    else:
        ones = (1 if size is None else size for size in (strides, kernel_dilation))
        window = Window(kernel_size, next(ones), padding, next(ones))
    return window if window.rank else window.of_rank(1 if space is None else len(as_space(space)))


def dead_entries(layout: Layout, tile: tuple[int, ...]) -> int:
    """Count the entries of the kernels of a tile that read padding at every position of their place in it."""
    tables = [(axis.reads >= 0, p) for axis, p in zip(layout.axes, tile, strict=True)]
    ever = math.prod(sum(int(table[t::p].any(0).sum()) for t in range(p)) for table, p in tables)
    return (math.prod(table.shape[1] * p for table, p in tables) - ever) * math.prod(layout.kernel[-2:])
