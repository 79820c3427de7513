"""Networks from one specification at any rung: `connectivity=` says how their spatial layers are wired."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from convlab.geometry import Padding, Size, Window
from convlab.layers import connect
from convlab.ops.pool import max_pool

MOMENTUM = 0.9  # of the running statistics, as in PyTorch; Flax's 0.99 has not forgotten its start after 300 steps
Activation = Callable[[jax.Array], jax.Array]
Pool = Callable[[jax.Array, Window], jax.Array]


@dataclasses.dataclass(frozen=True)
class Wiring:
    """How the spatial layers of a network are connected: arguments of `convlab.layers.connect`."""

    connectivity: str = "conv"
    period: int = 2
    rank: int = 2
    tied_noise: float | None = None


class Stage(nnx.Module):
    """One spatial layer and what follows it: batch norm, activation, pooling.

    Attributes:
      output_shape: (*out, d) of one image.
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
        activation: Activation = nnx.relu,
        batch_norm: bool = False,
        pool: Pool | None = None,
        pool_size: int = 2,
        rngs: nnx.Rngs,
    ):
        *space, channels = image_shape
        options = dataclasses.asdict(wiring)
        self.layer = connect(
            options.pop("connectivity"),
            channels,
            features,
            kernel_size,
            strides,
            padding=padding,
            space=space,
            rngs=rngs,
            **options,
        )
        space = self.layer.layout.window.output_shape(space)
        self.norm = nnx.BatchNorm(features, momentum=MOMENTUM, rngs=rngs) if batch_norm else None
        self.activation = activation
        self.pool = pool
        self.pool_window = Window((pool_size,) * len(space), pool_size, "VALID")
        if pool is not None:
            space = self.pool_window.output_shape(space)
        self.output_shape = (*space, features)

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        x = self.layer(x)
        x = self.activation(x if self.norm is None else self.norm(x))
        return x if self.pool is None else self.pool(x, self.pool_window)


class Head(nnx.Module):
    """Dense layers on all pixels of the last image, or on their mean per channel."""

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int],
        *,
        activation: Activation = nnx.relu,
        mean: bool = False,
        rngs: nnx.Rngs,
    ):
        self.mean = mean
        self.activation = activation
        sizes = [image_shape[-1] if mean else math.prod(image_shape), *widths]
        self.layers = nnx.List([nnx.Linear(c, d, rngs=rngs) for c, d in zip(sizes, sizes[1:], strict=False)])

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x.mean(1) if self.mean else x.reshape(x.shape[0], -1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class _Stack(nnx.Module):
    """Stages, then a head."""

    stages: nnx.List
    head: Head

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        """Return one score per class (logits) for each standardised image."""
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


class MLP(_Stack):
    r"""Hidden images, then a linear read-out: the network that the derivation starts from.

    $$H_{ijd} = \sigma\Big(u_{ijd} + \sum_{klc} W_{ijklcd} X_{klc}\Big)$$

    With `kernel_size=None` every hidden layer is one vector that reads its whole input: the usual multilayer perceptron,
    on which all rungs agree. With a kernel size every hidden layer is an image, and `connectivity` says what it reads.

    Args:
      image_shape: (*space, c) of one image.
      classes: Number of outputs.
      features: Channels of each hidden layer; none makes the linear classifier.
      kernel_size: Taps along each axis, or None for the whole image.
      connectivity: As in `convlab.layers.connect`.
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      activation: After each hidden layer.
      rngs: Keys; the stream `params` is used.

    Raises:
      ValueError: An unknown connectivity, or a kernel that does not fit.

    Example:
      >>> MLP((28, 28, 1), 10, (256,), rngs=nnx.Rngs(0))(jax.numpy.ones((5, 28, 28, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        features: Sequence[int] = (256,),
        *,
        kernel_size: int | None = None,
        connectivity: str = "dense",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
    ):
        wiring = Wiring(connectivity, period, rank, tied_noise)
        shape, stages = tuple(image_shape), []
        for d in features:
            size, padding = (shape[:-1], "VALID") if kernel_size is None else (kernel_size, "SAME")
            stages.append(Stage(shape, d, size, padding=padding, activation=activation, wiring=wiring, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), rngs=rngs)


class Pyramid(_Stack):
    """The network of the ladder: 3x3 layers with batch norm and ReLU, 2x2 max pooling between them, a mean read-out.

    The head sees one mean per channel and knows no position, so all that a network can know of places is in its rung.

    Args:
      image_shape: (*space, c) of one image; at least 2 pixels an axis for every layer but the last.
      classes: Number of outputs.
      features: Channels of each layer.
      connectivity: As in `convlab.layers.connect`.
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      rngs: Keys; the stream `params` is used.

    Raises:
      ValueError: An unknown connectivity, or images that are too small.

    Example:
      >>> Pyramid((12, 12, 1), 10, rngs=nnx.Rngs(0))(jax.numpy.ones((5, 12, 12, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        features: Sequence[int] = (16, 32, 64),
        *,
        connectivity: str = "conv",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        rngs: nnx.Rngs,
    ):
        wiring = Wiring(connectivity, period, rank, tied_noise)
        shape, stages = tuple(image_shape), []
        for number, d in enumerate(features, 1):
            pool = max_pool if number < len(features) else None
            stages.append(Stage(shape, d, 3, wiring=wiring, batch_norm=True, pool=pool, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, rngs=rngs)


class LeNet(_Stack):
    """LeNet-5 with today's habits: 5x5 layers of 6 and 16 channels, each pooled 2x2, then dense layers 120, 84, classes.

    61,706 weights on (28, 28, 1) with ten classes, as the textbooks count it.

    Args:
      image_shape: (*space, c) of one image; at least 12 pixels along each axis.
      classes: Number of outputs.
      connectivity: As in `convlab.layers.connect`.
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      activation: After every layer but the last; the original has `nnx.sigmoid`.
      pool: `max_pool`, `mean_pool` (the original) or `blur_pool`.
      batch_norm: Normalise each channel of the spatial layers before the activation.
      rngs: Keys; the stream `params` is used.

    Raises:
      ValueError: An unknown connectivity, or images that are too small.

    Example:
      >>> LeNet((28, 28, 1), 10, rngs=nnx.Rngs(0))(jax.numpy.ones((5, 28, 28, 1))).shape
      (5, 10)

    Reference: LeCun et al. 1998; Zhang et al., Dive into Deep Learning, section 7.6.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        connectivity: str = "conv",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        activation: Activation = nnx.relu,
        pool: Pool = max_pool,
        batch_norm: bool = False,
        rngs: nnx.Rngs,
    ):
        shared = {
            "wiring": Wiring(connectivity, period, rank, tied_noise),
            "activation": activation,
            "pool": pool,
            "batch_norm": batch_norm,
            "rngs": rngs,
        }
        if min(image_shape[:-1]) < 12:
            raise ValueError(f"LeNet needs at least 12 pixels along each axis, got image_shape {tuple(image_shape)}")
        first = Stage(image_shape, 6, 5, padding="SAME", **shared)
        second = Stage(first.output_shape, 16, 5, padding="VALID", **shared)
        self.stages = nnx.List([first, second])
        self.head = Head(second.output_shape, (120, 84, classes), activation=activation, rngs=rngs)


class Net(_Stack):
    """The two-class network of *Deep Learning with PyTorch*: 3x3 layers with tanh and 2x2 max pooling, then 32 units.

    On (32, 32, 3): 18,090 weights as a convolution, 772,194 locally connected.

    Args:
      image_shape: (*space, c) of one image.
      classes: Number of outputs.
      width: Channels of the first layer; the second has half as many.
      connectivity: As in `convlab.layers.connect`.
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      rngs: Keys; the stream `params` is used.

    Raises:
      ValueError: An unknown connectivity, or images that are too small to pool twice.

    Example:
      >>> Net(rngs=nnx.Rngs(0))(jax.numpy.ones((5, 32, 32, 3))).shape
      (5, 2)

    Reference: Stevens, Antiga and Viehmann 2020, Deep Learning with PyTorch, section 8.3.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        classes: int = 2,
        *,
        width: int = 16,
        connectivity: str = "conv",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        rngs: nnx.Rngs,
    ):
        wiring = Wiring(connectivity, period, rank, tied_noise)
        first = Stage(image_shape, width, 3, wiring=wiring, activation=nnx.tanh, pool=max_pool, rngs=rngs)
        second = Stage(first.output_shape, width // 2, 3, wiring=wiring, activation=nnx.tanh, pool=max_pool, rngs=rngs)
        self.stages = nnx.List([first, second])
        self.head = Head(second.output_shape, (32, classes), activation=nnx.tanh, rngs=rngs)
