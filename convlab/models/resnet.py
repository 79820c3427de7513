"""Residual networks for small and large images, with a choice of stems."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import one_of
from convlab.geometry import Window, as_integer
from convlab.layers.texts import Text, count_text, in_one_line
from convlab.models.stage import MOST_BLOCKS, Activation, ConnectionOptions, Connections, Head, Stack, Stage
from convlab.ops.pool import max_pool
from convlab.rungs import window_text
from convlab.signatures import ConstructorSignature

PADDING = "SAME_LOWER"  # for odd windows and strides 1 and 2 it adds (k - 1) / 2 pixels per side, as in the paper
POOL_WINDOW = Window(3, 2, PADDING)


class Stem(NamedTuple):
    """Describe the layers before the residual blocks.

    Attributes:
      layers: The layers, each as its channels relative to the network's width, its taps along each axis, and its stride.
      pool: Whether 3x3 max pooling of stride 2 follows.
    """

    layers: tuple[tuple[float, int, int], ...]
    pool: bool


STEMS: dict[str, Stem] = {
    "3x3": Stem(((1, 3, 1),), pool=False),  # for small images
    "7x7": Stem(((1, 7, 2),), pool=True),
    "3x3x3": Stem(((1 / 2, 3, 2), (1 / 2, 3, 1), (1, 3, 1)), pool=True),  # as in ResNet-C
    "5x5": Stem(((1, 5, 2),), pool=True),
    "2x2": Stem(((1, 2, 2),), pool=True),
    "patchify": Stem(((1, 4, 4),), pool=False),
}

RESNETS: dict[int, dict[str, Any]] = {  # depth -> arguments of ResNet
    18: {"blocks": (2, 2, 2, 2), "width": 64, "stem": "7x7", "projection": True},
    34: {"blocks": (3, 4, 6, 3), "width": 64, "stem": "7x7", "projection": True},
} | {6 * n + 2: {"blocks": (n, n, n), "width": 16, "stem": "3x3", "projection": False} for n in (3, 5, 7, 9, 18)}


class Block(nnx.Module):
    r"""Residual block: two 3x3 layers and a shortcut, with the last activation after the sum.

    $$H = \sigma(F(X) + S X)$$

    F is layer, batch norm, activation, layer, batch norm. S is the identity if the shape is unchanged. Otherwise S is a 1x1
    layer with batch norm (`projection`), or a subsampling by the stride that appends channels of zeros.

    Args:
      image_shape: The shape (*space, c) of one image.
      features: The number of output channels.
      strides: The stride of the first layer.
      connections: The connections of all layers.
      projection: Whether S is a 1x1 layer if the shape changes.
      activation: The activation after the first layer and after the sum.
      rngs: The random streams, of which `params` is used.

    Attributes:
      output_shape: The shape (*out, d) of one output image.

    Raises:
      ValueError: There are fewer output than input channels and no projection.

    Example:
      >>> Block((8, 8, 2), 6, 2, connections=Connections(), rngs=nnx.Rngs(0))(jnp.ones((5, 8, 8, 2))).shape
      (5, 4, 4, 6)

    Reference: He et al. 2016, Deep residual learning for image recognition, sections 3.2 and 3.3.
    """

    __signature__ = ConstructorSignature()

    def __init__(
        self,
        image_shape: Sequence[int],
        features: int,
        strides: int = 1,
        *,
        connections: Connections,
        projection: bool = True,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
    ):
        image_shape = check.image_shape(image_shape)
        as_integer("features", features)
        as_integer("strides", strides)
        if not check.flag("projection", projection) and features < image_shape[-1]:
            raise ValueError(
                f"features is {features} but a block without projection needs at least its {image_shape[-1]} input channels"
            )
        common: dict[str, Any] = {
            "padding": PADDING,
            "use_bias": False,
            "batch_norm": True,
            "connections": connections,
            "rngs": rngs,
        }
        first = Stage(image_shape, features, 3, strides, activation=activation, **common)
        second = Stage(first.output_shape, features, 3, activation=nnx.identity, **common)
        projected = projection and second.output_shape != tuple(image_shape)
        self.stages = nnx.List([first, second])
        self.shortcut = Stage(image_shape, features, 1, strides, activation=nnx.identity, **common) if projected else None
        self.strides = strides
        self.activation = activation
        self.output_shape = second.output_shape

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        h = x
        for stage in self.stages:
            h = stage(h)
        return self.activation(h + (self._subsampled(x) if self.shortcut is None else self.shortcut(x)))

    def _subsampled(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        """Subsample by the stride, and append channels of zeros."""
        *space, features = self.output_shape
        subsampled = x[:, *(slice(None, None, self.strides) for _ in space)]
        return jnp.pad(subsampled, [(0, 0)] * (1 + len(space)) + [(0, features - x.shape[-1])])

    def __nnx_repr__(self) -> Text:
        return in_one_line(self, self._parts)

    def _parts(self) -> list[str]:
        """Return the texts that describe the block."""
        first, second = (stage.layer for stage in self.stages)
        widths = f"{first.layout.in_features} -> {first.layout.out_features} -> {second.layout.out_features}"
        shortcut = "identity" if self.shortcut is None else "projection"
        return [widths, type(first).__name__, f"window {window_text(first.layout.window)}", shortcut, count_text(self)]


class ResNet(Stack):
    """Residual network: a stem, groups of residual blocks, and a mean read-out.

    Each group but the first halves the image and doubles the channels. The table `RESNETS` holds the arguments by depth, as
    in `ResNet(image_shape, classes, **RESNETS[20], rngs=rngs)`.

    | depth | blocks | width | stem | shortcut | parameters, batch norm included |
    |---|---|---|---|---|---|
    | 18 | 2, 2, 2, 2 | 64 | 7x7 | projection | 11,689,512 with 1000 classes |
    | 34 | 3, 4, 6, 3 | 64 | 7x7 | projection | 21,797,672 with 1000 classes |
    | 6n + 2 | n, n, n | 16 | 3x3 | zeros | 269,722 with n = 3 and 10 classes (272,474 with projections) |

    The stems, and their numbers of weights on three channels at width 64:

    | 3x3 | 7x7 | 3x3x3 | 5x5 | 2x2 | patchify |
    |---|---|---|---|---|---|
    | stride 1 | stride 2, pooled | strides 2, 1, 1, pooled | stride 2, pooled | stride 2, pooled | 4x4, stride 4 |
    | 1,728 | 9,408 | 28,512 | 4,800 | 768 | 3,072 |

    Batch norm follows every layer but the last, and these layers have no bias.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      blocks: The number of blocks in each group.
      width: The number of channels of the first group.
      stem: The name of a stem in `STEMS`.
      projection: Whether shortcuts that change the shape are 1x1 layers, as in `Block`.
      activation: The activation after every layer but the last.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity or the stem is unknown, or a group has no blocks.

    Example:
      >>> from jax import numpy as jnp
      >>> model = nnx.eval_shape(lambda: ResNet((32, 32, 3), 10, **RESNETS[20], rngs=nnx.Rngs(0)))
      >>> len(model.stages), model.stages[-1].output_shape
      (10, (8, 8, 64))

    Reference: He et al. 2016, Deep residual learning for image recognition; for the stem 3x3x3, He et al. 2019, Bag of
    tricks.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        blocks: Sequence[int] = (2, 2, 2, 2),
        *,
        width: int = 64,
        stem: str = "7x7",
        projection: bool = True,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
        **connection_options: Unpack[ConnectionOptions],
    ):
        one_of("stem", stem, STEMS)
        as_integer("width", width)
        as_integer("classes", classes)
        check.flag("projection", projection)
        connections = Connections(**connection_options)
        common: dict[str, Any] = {"activation": activation, "connections": connections, "rngs": rngs}
        normed: dict[str, Any] = {"padding": PADDING, "use_bias": False, "batch_norm": True, "pool_window": POOL_WINDOW}
        shape, stages = check.image_shape(image_shape), []
        for number, (factor, size, strides) in enumerate(STEMS[stem].layers, 1):
            pool = max_pool if STEMS[stem].pool and number == len(STEMS[stem].layers) else None
            stages.append(Stage(shape, math.ceil(factor * width), size, strides, pool=pool, **normed, **common))
            shape = stages[-1].output_shape
        for group, count in enumerate(check.sequence("blocks", blocks, "integers")):
            for number in range(as_integer("blocks", count, most=MOST_BLOCKS)):
                strides = 2 if group and not number else 1
                stages.append(Block(shape, width * 2**group, strides, projection=projection, **common))
                shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, kernel_init=connections.kernel_init, rngs=rngs)
