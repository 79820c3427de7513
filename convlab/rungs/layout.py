"""The description of a layer: a `Layout` holds window and channels, a `Tying` what positions share."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array

from convlab import check
from convlab.choices import shown
from convlab.convert import nearest, repeat, squared_norm, zero_dead_taps
from convlab.geometry import Axis, Padding, Size, Space, Window, as_integer, as_space
from convlab.ops.transposed import transpose
from convlab.rungs.start import Start

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Tying(abc.ABC):
    """Describe what the positions of a layer have in common.

    Each rung is one subclass, whose fields are the rung's parameters. Rungs exchange one array, the
    kernels of one period. `kernels` makes it. `lift` and `project` turn it into the arrays of another rung, exactly or as the
    nearest layer. Distances are Frobenius norms of dense matrices, and for low rank those of the kernels. In the equations, E
    and E' write the kernels of this rung and of another one as dense matrices, as in `convlab.convert`.

    Attributes:
      name: The name of the rung.
      freer: The next freer rungs. They contain this rung, and so do the rungs that contain them.
      arrays: The names of the arrays. The first array holds kernels.
      rows: The names of the arrays whose first axes are the output positions.
      default_bias: The default sharing of the bias: "channel" or "position".
      has_groups: Whether the rung supports groups of channels.
      has_noise: Whether positions can start equal up to noise (`tied_noise`).
      by_pixel: Whether weights are stored by input pixel. The window then only fixes the output positions.
      is_linear: Whether `project` is a linear map.
    """

    name: ClassVar[str]
    freer: ClassVar[tuple[type["Tying"], ...]] = ()
    arrays: ClassVar[tuple[str, ...]] = ("kernel",)
    rows: ClassVar[tuple[str, ...]] = ()
    default_bias: ClassVar[str] = "channel"
    has_groups: ClassVar[bool] = False
    has_noise: ClassVar[bool] = True
    by_pixel: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "Tying":
        """Make a tying from parameters by name.

        Raises:
          ValueError: The rung has no parameter of that name.
        """
        for name in {*parameters} - {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"a {cls.name} layer takes no {name}, got {parameters[name]!r}")
        return cls(**parameters)

    @classmethod
    def within(cls, kind: type["Tying"]) -> bool:
        """Return True if another rung contains this one, whatever the parameters of both."""
        return cls is kind or any(freer.within(kind) for freer in cls.freer)

    def holds(self, other: "Tying") -> bool:
        """Return True if this tying contains another one of the same rung."""
        return True

    def comparable(self, layout: "Layout", freer: bool) -> str:
        """Describe, for errors, the parameters of freer or stricter layers on the same rung.

        An empty text means all parameters.
        """
        return ""

    def validated(self, layout: "Layout") -> "Tying":
        """Return the tying with its parameters checked and broadcast to all spatial axes."""
        return self

    def clipped(self, layout: "Layout") -> "Tying":
        """Return the tying with its parameters clipped to the positions and entries of a layout."""
        return self

    @abc.abstractmethod
    def tile(self, layout: "Layout") -> tuple[int, ...]:
        """Return the number of positions along each axis after which the kernels repeat."""

    @abc.abstractmethod
    def shapes(self, layout: "Layout") -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays, by name."""

    @abc.abstractmethod
    def start(self, key: jax.Array, layout: "Layout", spec: Start) -> Arrays:
        """Draw the initial arrays."""

    @abc.abstractmethod
    def apply(self, x: jax.Array, arrays: Arrays, layout: "Layout", **options: Any) -> jax.Array:
        """Apply the layer to images."""

    def fan_in(self, layout: "Layout") -> dict[str, int]:
        """Return the number of terms that each array sums over, by name."""
        return {name: math.prod(layout.kernel_shape[:-1]) for name in self.arrays}

    def kernels(self, arrays: Arrays, layout: "Layout") -> Array:
        """Return the kernels over one period, (*period, *window, c, d).

        Dead taps (see `Window.live`) are zero in kernels that positions share. A kernel of a single position keeps its values
        there.
        """
        return arrays["kernel"]

    def lift(self, v: Array, layout: "Layout") -> Arrays:
        """Write the kernels of a stricter rung as arrays of this rung, without changing the function.

        $$E V = E' V'$$
        """
        tile = self.tile(layout)
        return {"kernel": v if v.shape[: layout.ndim] == tile else zero_dead_taps(repeat(v, tile), *layout.where)}

    def project(self, v: Array, layout: "Layout") -> Arrays:
        r"""Find the arrays whose dense matrix is nearest to that of the given kernels.

        $$\min_{V} \|E V - E' V'\|$$
        """
        return {"kernel": nearest(v, *layout.where, self.tile(layout))}

    def squared_norm(self, arrays: Arrays, layout: "Layout") -> Array:
        r"""Return the squared Frobenius norm of the dense matrix.

        $$\sum_{ijklcd} W_{ijklcd}^2$$
        """
        return squared_norm(self.kernels(arrays, layout), *layout.where)

    def dead(self, layout: "Layout") -> int:
        """Count the entries of the arrays that are dead taps, so that they read padding at every position."""
        return dead_entries(layout, self.tile(layout))

    def multiply_adds(self, layout: "Layout") -> int:
        r"""Count the multiply-adds for one image. Taps that read padding are not counted.

        $$C D \, \#\{\, (i, j, a, b) : (a, b) \text{ reads a pixel at } (i, j) \,\}$$
        """
        return math.prod(int((axis.reads >= 0).sum()) for axis in layout.axes) * math.prod(layout.kernel_shape[-2:])


@dataclasses.dataclass(frozen=True)
class Layout:
    """Describe a layer: everything that fixes the shapes of its arrays.

    Args:
      tying: The description of what positions have in common.
      window: The pixels that each output position reads.
      in_features: The number of input channels.
      out_features: The number of output channels.
      space: The number of input pixels along each spatial axis. Required if any array differs by position.
      groups: The number of groups of channels, on rungs that support groups.
      use_bias: False, "channel", "position", or True for the rung's default.
      transposed: Whether the layer is the transpose of the one described. It then maps outputs (i, j, d) to pixels (k, l, c),
        and its bias belongs to the pixels.

    Raises:
      ValueError: A value is missing, out of range or unknown.
      TypeError: A size is not an integer.
    """

    tying: Tying
    window: Window
    in_features: int
    out_features: int
    space: Space | None = None
    groups: int = 1
    use_bias: bool | str = True
    transposed: bool = False

    def __post_init__(self):
        check.instance("tying", self.tying, Tying, "a tying of convlab.rungs")
        check.window(self.window)
        check.flag("transposed", self.transposed)
        for name in ("in_features", "out_features"):
            as_integer(name, getattr(self, name))
        check.group_count(self.groups, self.in_features, "input channels")
        check.group_count(self.groups, self.out_features, "output channels")
        if self.groups != 1 and not self.tying.has_groups:
            raise ValueError(f"a {self.rung} layer takes no groups, got {self.groups!r}")
        if not isinstance(self.use_bias, (bool, np.bool_, str)) or self.use_bias not in (True, False, "channel", "position"):
            raise ValueError(f"use_bias must be True, False, 'channel' or 'position', got {shown(self.use_bias)}")
        if self.space is None and (self.bias_sharing == "position" or self.tying.rows):
            raise ValueError(
                f"space is missing: a {self.rung} layer with arrays per position needs the image size, such as (28, 28)"
            )
        if self.space is not None:
            object.__setattr__(self, "space", as_space(self.space))
            object.__setattr__(self, "window", self.window.with_ndim(len(self.space)))
        if self.window.ndim is None:
            raise ValueError(f"{self.window} leaves the number of spatial axes open; give kernel_size as a tuple, or space")
        object.__setattr__(self, "tying", self.tying.validated(self))

    @property
    def rung(self) -> str:
        """The name of the rung."""
        return self.tying.name

    @property
    def where(self) -> tuple[Window, Space]:
        """The window and the number of pixels along each axis.

        Raises:
          ValueError: The pixels are not known.
        """
        if self.space is None:
            raise ValueError(f"space is missing: where the pixels of a {self.rung} layer are unknown, so are its positions")
        return self.window, self.space

    def zero_dead_taps(self, v: Array) -> Array:
        """Set the dead taps of kernels over one period to zero. If the pixels are unknown, change nothing."""
        return v if self.space is None else zero_dead_taps(v, *self.where)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The window on these pixels, one `Axis` per spatial axis."""
        window, space = self.where
        return window.axes(space)

    @property
    def positions(self) -> tuple[int, ...]:
        """The number of output positions along each axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def ndim(self) -> int:
        """The number of spatial axes."""
        assert self.window.ndim is not None
        return self.window.ndim

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of one kernel: (*window, c, d)."""
        return (*self.window.taps(self.ndim), self.in_features // self.groups, self.out_features)

    @property
    def bias_sharing(self) -> str | None:
        """The sharing of the bias: "channel", "position" or None."""
        if isinstance(self.use_bias, str):
            return self.use_bias
        return self.tying.default_bias if self.use_bias else None

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """The shape of the bias: (d,) per channel or (*out, d) per position.

        If the layer is transposed, (c,) or (*space, c).
        """
        features = self.in_features if self.transposed else self.out_features
        if self.bias_sharing != "position":
            return (features,)
        return (*(self.where[1] if self.transposed else self.positions), features)

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the arrays whose first axes are the output positions, the bias included."""
        if self.transposed:  # the output rows of the layer described are input rows
            return ()
        return (*self.tying.rows, *(("bias",) if self.tying.rows and self.bias_sharing == "position" else ()))

    def start(self, key: jax.Array, spec: Start) -> Arrays:
        r"""Draw the initial arrays of the layer by name, without the bias.

        $$V_i = (U + s E_i) / \sqrt{1 + s^2} \quad \text{with noise } s$$

        This is the kernel of position i with `tied_noise` s. The initializer draws U once for all positions and E_i for each.
        With 0 the layer starts as a convolution, with None its positions are independent. The variance is the same for all
        s.

        Raises:
          ValueError: `tied_noise` is negative, or the rung has one kernel.
          MemoryError: The arrays would not fit into the free memory; see `convlab.allow_large_arrays`.
        """
        if spec.tied_noise is not None:
            check.number("tied_noise", spec.tied_noise)
            spec = spec._replace(tied_noise=float(spec.tied_noise))
        if spec.tied_noise is not None and not self.tying.has_noise:
            raise ValueError(f"a {self.rung} layer takes no tied_noise: it has one kernel")
        if spec.tied_noise is not None and not 0 <= spec.tied_noise < math.inf:
            needs = "a standard deviation relative to the kernel's, at least 0 and finite"
            raise ValueError(f"tied_noise is {needs}; got {spec.tied_noise}")
        if check.is_concrete(key):
            shapes = {name: jax.ShapeDtypeStruct(shape, spec.dtype) for name, shape in self.tying.shapes(self).items()}
            check.fits_in_memory({f"the {self.rung} layer": shapes})
        if self.transposed:
            spec = spec._replace(kernel_init=_with_exchanged_channels(spec.kernel_init))
        return self.tying.start(key, self, spec)

    def forward(
        self, x: jax.Array, arrays: Arrays, bias: jax.Array | None, *, dtype: DTypeLike | None = None, **options: Any
    ) -> jax.Array:
        r"""Apply the layer and add the bias, in `dtype`. If None, it is the common dtype of all arrays.

        $$H_{ijd} = \sum_{abc} V_{ijabcd}\, X_{si + ta - p,\, sj + tb - p,\, c} + u_{ijd}$$

        Raises:
          ValueError: The images have other channels or, if the layer knows its pixels, another size.
        """
        x = jnp.asarray(x)
        operands = [x, *arrays.values(), *([] if bias is None else [bias])]
        dtype = jnp.result_type(*operands) if dtype is None else dtype
        h = self.apply(x.astype(dtype), {name: array.astype(dtype) for name, array in arrays.items()}, **options)
        return h if bias is None else h + bias.astype(dtype)

    def apply(self, x: jax.Array, arrays: Arrays, **options: Any) -> jax.Array:
        """Apply the layer without bias to arrays of one dtype.

        If the number of pixels of a transposed layer is unknown, it is that of `Window.input_shape`.

        Raises:
          ValueError: The images have other channels or, if the layer knows its pixels, another size.
        """
        self.check_images("h" if self.transposed else "x", x)
        if self.transposed:
            return self._apply_transposed(x, arrays, **options)
        return self.tying.apply(x, arrays, self, **options)

    def check_images(self, name: str, images: jax.Array) -> None:
        """Check that the layer can read images.

        Args:
          name: The name of the argument, for errors.
          images: The images, in the dtype of the computation.

        Raises:
          ValueError: The images have other channels, too few axes or, if the layer knows its pixels, another size.
          TypeError: The dtype is neither floating nor complex.
        """
        features = self.out_features if self.transposed else self.in_features
        images, pixels = check.images(images, self.ndim, f"this layer has {self.ndim} spatial axes", name)
        if (got := images.shape[-1]) != features:
            channels = "channel" if got == 1 else "channels"
            raise ValueError(f"{name} has {got} {channels} but this layer was made for {features} in_features")
        if self.space is not None:
            needed = self.positions if self.transposed else self.space
            check.equal_shapes(f"{name} holds images of {{}} pixels", pixels, "this layer was made for {}", tuple(needed))

    def _apply_transposed(
        self, h: jax.Array, arrays: Arrays, *, preferred_element_type: DTypeLike | None = None, **options: Any
    ) -> jax.Array:
        named = (h, *(arrays[name] for name in self.tying.arrays))
        h, *operands = (array.astype(preferred_element_type or array.dtype) for array in named)
        channels = self.in_features, self.out_features
        return transpose(self._apply_arrays, h, operands, self.window, self.space, channels, **options)

    def _apply_arrays(self, x: jax.Array, *arrays: jax.Array, window: Window, **options: Any) -> jax.Array:
        """Apply the layer that is not transposed to its arrays in the order of their names."""
        return self.tying.apply(x, dict(zip(self.tying.arrays, arrays, strict=True)), self, **options)


def _with_exchanged_channels(kernel_init: Initializer) -> Initializer:
    """Return an initializer of kernels (a, b, c, d) whose fan-in counts the channels d.

    These are the channels that a transposed layer reads.
    """

    def exchanged(key, shape, dtype=None, out_sharding=None):
        return jnp.swapaxes(kernel_init(key, (*shape[:-2], shape[-1], shape[-2]), dtype), -1, -2)

    return exchanged


DEFAULTS = (1, "SAME", 1)  # strides, padding and dilation


def make_window(
    kernel_size: Size | Window, strides: Size | None, padding: Padding, kernel_dilation: Size | None, space: Space | None
) -> Window:
    """Make the window of a layer from Flax's arguments.

    None means 1. If `space` is None, an int kernel_size means one spatial axis, else one size for all axes of `space`.

    Raises:
      ValueError: `kernel_size` is a Window, and another argument differs from its default.
    """
    strides, dilation = (1 if size is None else size for size in (strides, kernel_dilation))
    others = strides, padding, dilation
    window = kernel_size
    if not isinstance(window, Window):
        window = Window(window, strides, padding, dilation)
    elif any(not isinstance(got, (int, str)) or got != known for got, known in zip(others, DEFAULTS, strict=True)):
        raise ValueError(f"kernel_size is {window}; strides, padding and kernel_dilation are part of that window")
    return window if window.ndim else window.with_ndim(1 if space is None else len(as_space(space)))


def dead_entries(layout: Layout, tile: tuple[int, ...]) -> int:
    r"""Count the entries of the kernels of a tile that read padding at every position.

    $$C D \, \#\{\, (t, s, a, b) : (a, b) \text{ is dead at all } (i, j) \text{ with } i \bmod p = t,\; j \bmod q = s \,\}$$

    Here C and D count input and output channels, and dead taps are those of `Window.live`.
    """
    tables = [(axis.reads >= 0, p) for axis, p in zip(layout.axes, tile, strict=True)]
    ever = math.prod(sum(int(table[t::p].any(0).sum()) for t in range(p)) for table, p in tables)
    return (math.prod(table.shape[1] * p for table, p in tables) - ever) * math.prod(layout.kernel_shape[-2:])
