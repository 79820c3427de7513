"""What networks are made of: stages, each a spatial layer at a rung and what follows it, and a head of dense layers."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import jax
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from convlab.geometry import Padding, Size, Window
from convlab.layers import DEFAULT_KERNEL_INIT, connect
from convlab.norm import BatchNorm

Activation = Callable[[jax.Array], jax.Array]
Pool = Callable[[jax.Array, Window], jax.Array]

HALVES = Window(2, 2, "VALID")  # blocks of 2 pixels an axis become one


@dataclasses.dataclass(frozen=True)
class Wiring:
    """How the spatial layers of a network are connected: arguments of `convlab.layers.connect`.

    Args:
      connectivity: A rung, or "global_conv".
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      kernel_init: Initializer of one kernel, and of the dense layers.
    """

    connectivity: str = "conv"
    period: int = 2
    rank: int = 2
    tied_noise: float | None = None
    kernel_init: Initializer = DEFAULT_KERNEL_INIT


class Wires(TypedDict, total=False):
    """The arguments of `Wiring`, as every network takes them."""

    connectivity: str
    period: int
    rank: int
    tied_noise: float | None
    kernel_init: Initializer


class Stage(nnx.Module):
    """One spatial layer and what follows it: batch norm, activation, what came in, pooling, dropout.

    Args:
      image_shape: (*space, c) of one image.
      features: Output channels.
      kernel_size: Taps along each axis.
      strides: Pixels between neighbouring outputs.
      wiring: The rung.
      padding: As in `Window`.
      use_bias: As in `convlab.layers.Conv`.
      batch_norm: Normalise each channel before the activation.
      norm_scale: Start of the scale that follows the normalisation.
      activation: After layer and norm.
      residual: Add the stage's input to what the activation returns, so that the layer learns the difference.
      pool: After that, over `pool_window`.
      pool_window: Which pixels become one; its ints are of every axis.
      dropout: Share of the channels of each image that are set to zero in training, the others scaled to the same mean.
      rngs: Keys; the streams `params` and, with dropout, `dropout` are used.

    Attributes:
      output_shape: (*out, d) of one image.

    Raises:
      ValueError: What does not fit, a share of dropout outside 0 to 1, or a residual stage whose output is not like its input.

    Reference: of dropping channels, Tompson et al. 2015; of residual stages, He et al. 2016.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        features: int,
        kernel_size: Size,
        strides: int = 1,
        *,
        wiring: Wiring,
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
        *space, channels = image_shape
        options = {field.name: getattr(wiring, field.name) for field in dataclasses.fields(wiring)}
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
        if residual and (*space, features) != tuple(image_shape):
            raise ValueError(f"a residual stage adds its input of {tuple(image_shape)} to its output of {(*space, features)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share of channels, at least 0 and below 1; got {dropout}")
        start = nnx.initializers.constant(norm_scale)
        self.norm = BatchNorm(features, scale_init=start, rngs=rngs) if batch_norm else None
        self.activation = activation
        self.residual = residual
        self.pool = pool
        self.pool_window = pool_window.of_rank(len(space))
        whole_channels = tuple(range(1, 1 + len(space)))
        self.dropout = nnx.Dropout(dropout, broadcast_dims=whole_channels, rngs=rngs) if dropout else None
        if pool is not None:
            space = self.pool_window.output_shape(space)
        self.output_shape = (*space, features)

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        h = self.layer(x)
        h = self.activation(h if self.norm is None else self.norm(h))
        h = h + x if self.residual else h
        h = h if self.pool is None else self.pool(h, self.pool_window)
        return h if self.dropout is None else self.dropout(h)


class Head(nnx.Module):
    """Dense layers on all pixels of the last image, or on their mean per channel.

    Args:
      image_shape: (*space, c) of the last image.
      widths: Units of each dense layer; none leaves the pixels, or the means, as they are.
      activation: After every layer but the last.
      mean: Read one mean per channel.
      batch_norm: Normalise each unit before the activation; these layers then have no bias of their own.
      kernel_init: Initializer of the layers.
      rngs: Keys; the stream `params` is used.
    """

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
        self.mean = mean
        self.activation = activation
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
            x = self.activation(x) if number < len(self.layers) else x
        return x


class Stack(nnx.Module):
    """Stages, then a head."""

    stages: nnx.List
    head: Head

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        """Return one score per class (logits) for each standardised image."""
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
