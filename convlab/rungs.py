"""The table of rungs: for each, the arrays it starts with, the op that applies them, and how far its bias is shared.

Every rung starts with the output variance of the convolution with its window: the fan-in of a kernel is that of one window,
never of all positions, and a dense weight sees the border as its convolution would.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from convlab import check
from convlab.convert import lift_conv_to_dense
from convlab.geometry import Padding, Size, Space, Window, as_axes, as_integer, as_space
from convlab.ops.conv import conv
from convlab.ops.dense import dense
from convlab.ops.local import locally_connected
from convlab.ops.low_rank import low_rank
from convlab.ops.tiled import tiled

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What fixes the shapes of a layer: its rung, window and channels, and what else the rung needs to know.

    Args:
      rung: A name in `RUNGS`.
      window: Where each output position reads.
      in_features: Input channels.
      out_features: Output channels.
      space: Pixels along each spatial axis of the input; needed wherever something differs by position.
      groups: Groups of channels that do not see each other (conv and locally connected).
      period: Positions along each side of a tile (tiled).
      rank: Number of kernels that are mixed (low rank).
      use_bias: False, "channel", "position", or True for what is usual on the rung.

    Raises:
      ValueError: A value is missing, out of range or unknown.
      TypeError: A value is not an integer where it must be.
    """

    rung: str
    window: Window
    in_features: int
    out_features: int
    space: Space | None = None
    groups: int = 1
    period: Size | None = None
    rank: int | None = None
    use_bias: bool | str = True

    def __post_init__(self):
        if self.rung not in RUNGS:
            raise ValueError(f"rung {self.rung!r} is unknown; needs one of {', '.join(RUNGS)}")
        for name in ("in_features", "out_features"):
            as_integer(name, getattr(self, name))
        check.divides(self.groups, self.in_features, "input channels")
        check.divides(self.groups, self.out_features, "output channels")
        for name, absent in (("groups", 1), ("period", None), ("rank", None)):
            if getattr(self, name) != absent and name not in RUNGS[self.rung].takes:
                raise ValueError(f"a {self.rung} layer takes no {name}, got {getattr(self, name)!r}")
        if self.use_bias not in (True, False, "channel", "position"):
            raise ValueError(f"use_bias must be True, False, 'channel' or 'position', got {self.use_bias!r}")
        if self.space is None and (self.bias_sharing == "position" or RUNGS[self.rung].by_position):
            raise ValueError(f"space is missing: a {self.rung} layer whose arrays differ by position needs the pixels it reads")
        if self.space is not None:
            object.__setattr__(self, "space", as_space(self.space))
            object.__setattr__(self, "window", self.window.of_rank(len(self.space)))
        if self.window.rank is None:
            raise ValueError(f"{self.window} leaves the number of spatial axes open; give kernel_size as a tuple, or space")
        for name in ("period", "rank"):
            if name in RUNGS[self.rung].takes and getattr(self, name) is None:
                raise ValueError(f"{name} is missing: a {self.rung} layer needs it")
        if self.period is not None:
            period = as_axes("period", self.period, self.window.rank)
            object.__setattr__(self, "period", period)
            if self.space is not None:
                check.period(period, self.window, self.space)
        if self.rank is not None:
            as_integer("rank", self.rank)

    @property
    def positions(self) -> tuple[int, ...]:
        """Output positions along each axis."""
        if self.space is None:
            raise ValueError(f"a {self.rung} layer without space has no fixed number of positions")
        return self.window.output_shape(self.space)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of one kernel: (*window, c, d)."""
        assert self.window.rank is not None
        return (*self.window.taps(self.window.rank), self.in_features // self.groups, self.out_features)

    @property
    def bias_sharing(self) -> str | None:
        """How far the bias is shared: "channel", "position" or None."""
        if isinstance(self.use_bias, str):
            return self.use_bias
        return RUNGS[self.rung].bias if self.use_bias else None

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of the bias: (d,) per channel or (*out, d) per position."""
        return (*(self.positions if self.bias_sharing == "position" else ()), self.out_features)


class Start(NamedTuple):
    """How a layer starts: initializer of one kernel, dtype, and noise between positions (None: independent)."""

    kernel_init: Initializer
    dtype: DTypeLike
    tied_noise: float | None = None


class Rung(NamedTuple):
    """One row of the table."""

    start: Callable[[jax.Array, Layout, Start], Arrays]
    apply: Callable[..., jax.Array]
    bias: str
    takes: tuple[str, ...]
    arrays: tuple[str, ...] = ("kernel",)
    by_position: bool = True


def lay_window(
    kernel_size: Size, strides: Size | None, padding: Padding, kernel_dilation: Size | None, space: Space | None
) -> Window:
    """Make a layer's window as Flax would: None means 1; an int kernel_size is one axis, or one size along all of `space`."""
    window = Window(kernel_size, 1 if strides is None else strides, padding, 1 if kernel_dilation is None else kernel_dilation)
    return window if window.rank else window.of_rank(1 if space is None else len(as_space(space)))


def start(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    """Draw the arrays of a layer (without its bias), by name.

    With `tied_noise` s, position i starts at (U + s E_i) / sqrt(1 + s**2): U common to all positions, E_i its own, both
    drawn by the initializer. 0 starts as a convolution, None without anything in common; the variance is the same for all.

    Raises:
      MemoryError: Arrays of a layer with positions would not fit into the memory that is free; see `convlab.any_size`.
    """
    if how.tied_noise is not None and "tied_noise" not in RUNGS[layout.rung].takes:
        raise ValueError(f"a {layout.rung} layer takes no tied_noise: it has one kernel")
    if how.tied_noise is not None and how.tied_noise < 0:
        raise ValueError(f"tied_noise is a standard deviation relative to the kernel's, at least 0; got {how.tied_noise}")
    draw = RUNGS[layout.rung].start
    if layout.space is not None and check.is_known(key):
        check.fits({f"the {layout.rung} layer": jax.eval_shape(lambda key: draw(key, layout, how), key)})
    return draw(key, layout, how)


def forward(
    x: jax.Array,
    arrays: Arrays,
    bias: jax.Array | None,
    layout: Layout,
    *,
    dtype: DTypeLike | None = None,
    **options,
) -> jax.Array:
    """Cast images and arrays to `dtype` (absent: their common floating one), apply the rung's op, add the bias."""
    x = jnp.asarray(x)
    if layout.space is not None:
        rank = len(layout.space)
        check.agree("x holds images of {} pixels", x.shape[-1 - rank : -1], "this layer was made for {}", tuple(layout.space))
    given = [x, *arrays.values(), *([] if bias is None else [bias])]
    dtype = jnp.result_type(*given) if dtype is None else dtype
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    h = RUNGS[layout.rung].apply(x.astype(dtype), arrays, layout, **options)
    return h if bias is None else h + bias.astype(dtype)


def _mixed(key: jax.Array, how: Start, common: Callable, own: Callable) -> jax.Array:
    """Mix what positions have in common with what is their own, at constant variance."""
    if how.tied_noise is None:
        return own(key)
    first, second = jax.random.split(key)
    return (common(first) + how.tied_noise * own(second)) / math.sqrt(1 + how.tied_noise**2)


def _kernels(key: jax.Array, many: tuple[int, ...], shape: tuple[int, ...], how: Start) -> jax.Array:
    """Draw `many` kernels, each as the initializer would draw a convolution's."""

    def own(key):
        draw = jax.vmap(lambda each: how.kernel_init(each, shape, how.dtype))
        return draw(jax.random.split(key, math.prod(many))).reshape(*many, *shape)

    return _mixed(key, how, lambda key: how.kernel_init(key, shape, how.dtype), own)


def _start_conv(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    return {"kernel": how.kernel_init(key, layout.kernel, how.dtype)}


def _start_tiled(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    assert isinstance(layout.period, tuple)
    return {"kernel": _kernels(key, layout.period, layout.kernel, how)}


def _start_local(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    assert layout.space is not None
    kernel = _kernels(key, layout.positions, layout.kernel, how)
    return {"kernel": jnp.where(layout.window.live(layout.space)[..., None, None], kernel, 0)}


def _start_low_rank(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    rank = layout.rank or 1
    first, second = jax.random.split(key)
    basis = _kernels(first, (rank,), layout.kernel, how._replace(tied_noise=None))
    own = (*layout.positions, rank)
    weights = _mixed(
        second,
        how,
        lambda key: jax.random.normal(key, (rank,), how.dtype),
        lambda key: jax.random.normal(key, own, how.dtype),
    )
    weights = jnp.broadcast_to(weights, own)
    return {"basis": basis, "weights": weights / jnp.linalg.norm(weights, axis=-1, keepdims=True)}


def _start_dense(key: jax.Array, layout: Layout, how: Start) -> Arrays:
    assert layout.space is not None
    window, space, one = layout.window, layout.space, (*layout.space, *layout.kernel[-2:])
    rank = len(space)
    seen = window.live(space).mean(tuple(range(rank, 2 * rank)))[(..., *(None,) * (rank + 2))]

    def common(key):
        return lift_conv_to_dense(how.kernel_init(key, layout.kernel, how.dtype), window, space)

    def own(key):
        return _kernels(key, layout.positions, one, how._replace(tied_noise=None)) * jnp.sqrt(seen).astype(how.dtype)

    return {"kernel": _mixed(key, how, common, own)}


def _apply_local(x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
    return locally_connected(x, arrays["kernel"], layout.window, layout.groups, **options)


def _apply_tiled(x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
    return tiled(x, arrays["kernel"], layout.window, **options)


def _apply_low_rank(x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
    return low_rank(x, arrays["basis"], arrays["weights"], layout.window, **options)


def _apply_dense(x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
    return dense(x, arrays["kernel"], **options)


def _apply_conv(x: jax.Array, arrays: Arrays, layout: Layout, **options) -> jax.Array:
    return conv(x, arrays["kernel"], layout.window, layout.groups, **options)


RUNGS: dict[str, Rung] = {
    "dense": Rung(_start_dense, _apply_dense, "position", ("tied_noise",)),
    "locally_connected": Rung(_start_local, _apply_local, "position", ("groups", "tied_noise")),
    "tiled": Rung(_start_tiled, _apply_tiled, "channel", ("period", "tied_noise"), by_position=False),
    "low_rank": Rung(_start_low_rank, _apply_low_rank, "channel", ("rank", "tied_noise"), ("basis", "weights")),
    "conv": Rung(_start_conv, _apply_conv, "channel", ("groups",), by_position=False),
}
