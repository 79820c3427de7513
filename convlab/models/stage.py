"""The parts of networks: stages with one spatial layer each, and a head of dense layers."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import reprlib
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import layout_of
from convlab.choices import one_of
from convlab.constructors import record_constructor
from convlab.display import short_repr
from convlab.geometry import Padding, Size, Window, as_integer, as_size
from convlab.layers import CONNECTIVITY, connect
from convlab.layers.layer import DEFAULT_KERNEL_INIT, Layer
from convlab.layers.texts import Text, count_text, in_one_line
from convlab.norm import BatchNorm
from convlab.ops.pool import max_pool
from convlab.rungs import sizes_text
from convlab.signatures import ConstructorSignature

Activation = Callable[[jax.Array], jax.Array]
Pool = Callable[[jax.Array, Window], jax.Array]

MOST_BLOCKS = 10_000  # a larger number would be built for hours
HALVES = Window(2, 2, "VALID")  # halves every axis
POOL_FIRST = 8  # the minimum number of channels for pooling first, below which it was measured slower
LAYER_CALL, NORM_CALL = Layer.__call__, BatchNorm.__call__  # as they are when no tool has wrapped them
MONOTONE: tuple[Activation, ...] = (  # nondecreasing activations, so the largest pixel stays the largest
    nnx.celu,
    nnx.elu,
    nnx.hard_sigmoid,
    nnx.hard_tanh,
    nnx.leaky_relu,
    nnx.log_sigmoid,
    nnx.relu,
    nnx.relu6,
    nnx.selu,
    nnx.sigmoid,
    nnx.softplus,
    nnx.tanh,
)


@dataclasses.dataclass(frozen=True, repr=False)
class Connections:
    """Describe how the spatial layers of a network are connected, for `convlab.layers.connect`.

    Args:
      connectivity: The rung of the layers ("dense", "locally_connected", "tiled", "low_rank", "conv" or "symmetric"), or
        "global_conv", a convolution of every offset that can reach a pixel.
      period: The period of "tiled".
      rank: The rank of "low_rank".
      tied_noise: The noise between positions, on rungs with several kernels.
      kernel_init: The initializer of one kernel, and of the dense layers.
    """

    connectivity: str = "conv"
    period: int = 2
    rank: int = 2
    tied_noise: float | None = None
    kernel_init: Initializer = DEFAULT_KERNEL_INIT

    __repr__ = short_repr

    def __post_init__(self):
        one_of("connectivity", self.connectivity, CONNECTIVITY)
        as_size("period", self.period)
        as_integer("rank", self.rank)
        if self.tied_noise is not None:
            check.number("tied_noise", self.tied_noise)
        check.function("kernel_init", self.kernel_init, "an initializer")


class ConnectionOptions(TypedDict, total=False):
    """The type of the keyword arguments of `Connections`, which every network accepts."""

    connectivity: str
    period: int
    rank: int
    tied_noise: float | None
    kernel_init: Initializer


class Stage(nnx.Module):
    """One spatial layer, batch norm, activation, residual connection, pooling and dropout, in this order.

    Args:
      image_shape: The shape (*space, c) of one image.
      features: The number of output channels.
      kernel_size: The number of taps along each axis.
      strides: The distance between neighbouring outputs in pixels.
      connections: The connections of the layer.
      padding: The padding, as in `Window`.
      use_bias: The sharing of the bias, as in `convlab.layers.Conv`.
      batch_norm: Whether to normalise each channel before the activation.
      norm_scale: The initial scale of the batch norm.
      activation: The activation after layer and batch norm.
      residual: Whether to add the stage's input to the output of the activation.
      pool: The pooling after the residual connection. If None, there is none.
      pool_window: The window of the pooling. Its ints apply to every axis.
      dropout: The share of the channels of each image that are set to zero in training. The others are scaled to keep the
        mean.
      rngs: The random streams, of which `params` and, with dropout, `dropout` are used.

    Attributes:
      output_shape: The shape (*out, d) of one output image.

    Raises:
      ValueError: The window does not fit, `dropout` is outside 0 to 1, or a residual stage changes the shape.

    Reference: for dropout of channels, Tompson et al. 2015; for residual connections, He et al. 2016.
    """

    __signature__ = ConstructorSignature()

    def __init__(
        self,
        image_shape: Sequence[int],
        features: int,
        kernel_size: Size,
        strides: int = 1,
        *,
        connections: Connections,
        padding: Padding = "SAME",
        use_bias: bool | str = True,
        batch_norm: bool = False,
        norm_scale: float = 1.0,
        activation: Activation = nnx.relu,
        residual: bool = False,
        pool: Pool | None = None,
        pool_window: Window = HALVES,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        *space, channels = image_shape = check.image_shape(image_shape)
        check.instance("connections", connections, Connections, "convlab.models.Connections")
        as_integer("features", features)
        for name, value in {"batch_norm": batch_norm, "residual": residual}.items():
            check.flag(name, value)
        for name, value in {"norm_scale": norm_scale, "dropout": dropout}.items():
            check.number(name, value)
        check.function("activation", activation)
        if pool is not None:
            check.function("pool", pool, "a function of images and a window")
        check.window(pool_window, "pool_window")
        options = {field.name: getattr(connections, field.name) for field in dataclasses.fields(connections)}
        self.layer = connect(
            options.pop("connectivity"),
            channels,
            features,
            kernel_size,
            strides,
            padding=padding,
            space=space,
            use_bias=use_bias,
            rngs=rngs,
            **options,
        )
        space = self.layer.layout.window.output_shape(space)
        if residual and (*space, features) != image_shape:
            raise ValueError(
                f"residual needs equal shapes, but the input has {image_shape} and the output {(*space, features)}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        scale_init = nnx.initializers.constant(norm_scale)
        self.norm = BatchNorm(features, scale_init=scale_init, rngs=rngs) if batch_norm else None
        self.activation = activation
        self.residual = residual
        self.pool = pool
        self.pool_window = pool_window.with_ndim(len(space))
        whole_channels = tuple(range(1, 1 + len(space)))
        self.dropout = nnx.Dropout(dropout, broadcast_dims=whole_channels, rngs=rngs) if dropout else None
        if pool is not None:
            space = self.pool_window.output_shape(space)
        self.output_shape = (*space, features)

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        if self._can_pool_first():
            h = self._pooled_first(x)
        else:
            h = self.layer(x)
            h = activated(self.activation, h if self.norm is None else self.norm(h))
            h = h + x if self.residual else h
            h = h if self.pool is None else check.array("the result of pool", self.pool(h, self.pool_window))
        return h if self.dropout is None else self.dropout(h)

    def _can_pool_first(self) -> bool:
        """Return True if the maximum commutes with the steps after the layer, and pooling first saves time.

        It is False if a subclass or a tool such as `nnx.tabulate` replaces the call of the layer or the norm, which then runs.
        """
        if (
            self.pool is not max_pool
            or self.residual
            or self.activation not in MONOTONE
            or np.max(self.pool_window.strides) == 1
        ):
            return False
        if type(self.layer).__call__ is not LAYER_CALL or not isinstance(self.norm, BatchNorm | None):
            return False
        if self.norm is not None and (type(self.norm).__call__ is not NORM_CALL or not self.norm._is_affine):
            return False
        layout, bias = layout_of(self.layer), self.layer.bias
        return layout is not None and layout.out_features >= POOL_FIRST and (bias is None or bias.ndim == 1)

    def _pooled_first(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        """Pool before bias, batch norm and activation, which are then applied to a fraction of the pixels.

        A negative scale of the batch norm turns the maximum into the minimum, so the sign moves before the pooling. Where
        several pixels are equal only after the activation, the gradient goes to the one that was the largest before.
        """
        h, bias = self.layer._without_bias(x)
        if self.norm is None:
            h = max_pool(h, self.pool_window)
            h = h if bias is None else h + bias
        else:
            scale, shift = self.norm._affine_map(h, offset=0 if bias is None else bias)
            sign = jnp.where(scale < 0, -1.0, 1.0)
            h = max_pool(h * sign, self.pool_window).astype(scale.dtype) * (scale * sign) + shift
        return activated(self.activation, h)

    def __nnx_repr__(self) -> Text:
        return in_one_line(self, self._parts)

    def _parts(self) -> list[str]:
        """Return the texts that describe the stage."""
        norm, dropout = "BatchNorm" if self.norm else "", f"dropout {self.dropout.rate}" if self.dropout else ""
        taps = self.pool_window.taps(len(self.output_shape) - 1)
        pool = "" if self.pool is None else f"{name_of(self.pool)} {sizes_text(taps)}"
        return [repr(self.layer), norm, name_of(self.activation), "residual" * self.residual, pool, dropout]


class Head(nnx.Module):
    """Dense layers on all pixels of the last image, or on their mean per channel.

    Args:
      image_shape: The shape (*space, c) of the last image.
      widths: The number of units of each dense layer. Without layers, the head returns the pixels or the means.
      activation: The activation after every layer but the last.
      mean: Whether to read one mean per channel.
      batch_norm: Whether to normalise each unit before the activation. These layers then have no bias of their own.
      kernel_init: The initializer of the layers.
      rngs: The random streams, of which `params` is used.
    """

    __signature__ = ConstructorSignature()

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int],
        *,
        activation: Activation = nnx.relu,
        mean: bool = False,
        batch_norm: bool = False,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        rngs: nnx.Rngs,
    ):
        image_shape = check.image_shape(image_shape)
        widths = [as_integer("widths", width) for width in check.sequence("widths", widths, "integers")]
        check.instance("rngs", rngs, nnx.Rngs, "a flax.nnx.Rngs such as nnx.Rngs(0)")
        kernel_init = check.initializer("kernel_init", kernel_init)
        self.mean = check.flag("mean", mean)
        self.activation = check.function("activation", activation)
        check.flag("batch_norm", batch_norm)
        sizes = [image_shape[-1] if mean else math.prod(image_shape), *widths]
        self.layers, self.norms = nnx.List([]), nnx.List([])
        for number, (c, d) in enumerate(itertools.pairwise(sizes), 1):
            normed = batch_norm and number < len(widths)
            self.layers.append(nnx.Linear(c, d, use_bias=not normed, kernel_init=kernel_init, rngs=rngs))
            self.norms.append(BatchNorm(d, rngs=rngs) if normed else None)

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x.mean(1) if self.mean else x.reshape(x.shape[0], -1)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True), 1):
            x = layer(x)
            x = x if norm is None else norm(x)
            x = activated(self.activation, x) if number < len(self.layers) else x
        return x

    def __nnx_repr__(self) -> Text:
        return in_one_line(self, self._parts)

    def _parts(self) -> list[str]:
        """Return the texts that describe the head."""
        widths = [layer.in_features for layer in self.layers[:1]] + [layer.out_features for layer in self.layers]
        return ["mean of the pixels" * self.mean, " -> ".join(map(str, widths)), count_text(self)]


def activated(activation: Activation, h: jax.Array) -> jax.Array:
    """Apply an activation and check that it keeps the shape.

    Raises:
      TypeError: The result is no array of numbers.
      ValueError: The result has another shape.
    """
    result = check.array("the result of activation", activation(h))
    check.equal_shapes("activation returns an array of shape {}", result.shape, "it was given {}", h.shape)
    return result


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, for texts."""
    return getattr(function, "__name__", type(function).__name__)


class Stack(nnx.Module):
    """A sequence of stages, followed by a head.

    Subclasses keep the arguments of their constructors, so that `convlab.Fitted.load` can build them again.
    """

    __signature__ = ConstructorSignature(connection_options=lambda network: Connections)
    stages: nnx.List
    head: Head

    def __nnx_repr__(self) -> Text:
        """Describe every part of the network in one line. `nnx.display` shows its arrays."""
        yield reprlib.Object(type(self), kv_sep=": ", comment=f" # {count_text(self)}")
        for number, stage in enumerate(getattr(self, "stages", ())):
            yield reprlib.Attr(f"stages/{number}", stage)
        if hasattr(self, "head"):
            yield reprlib.Attr("head", self.head)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        record_constructor(cls)

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        """Return the logits, one per class, of each standardised image."""
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
