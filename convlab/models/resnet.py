"""Residual networks, for small images and for large ones, with the stems that have been tried in front of them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from convlab.geometry import Window, as_integer
from convlab.models.stage import Activation, Head, Stack, Stage, Wires, Wiring
from convlab.ops.pool import max_pool

PADDING = "SAME_LOWER"  # with odd windows and strides of 1 or 2, the (k - 1) / 2 pixels a side of the original
POOL_WINDOW = Window(3, 2, PADDING)


class Stem(NamedTuple):
    """What stands before the blocks.

    Attributes:
      layers: Of each its channels as a share of the network's width, its taps along each axis, and its stride.
      pool: Whether 3x3 max pooling of stride 2 follows.
    """

    layers: tuple[tuple[float, int, int], ...]
    pool: bool


STEMS: dict[str, Stem] = {
    "3x3": Stem(((1, 3, 1),), pool=False),  # of small images
    "7x7": Stem(((1, 7, 2),), pool=True),
    "3x3x3": Stem(((1 / 2, 3, 2), (1 / 2, 3, 1), (1, 3, 1)), pool=True),  # of ResNet-C
    "5x5": Stem(((1, 5, 2),), pool=True),
    "2x2": Stem(((1, 2, 2),), pool=True),
    "patchify": Stem(((1, 4, 4),), pool=False),
}

RESNETS: dict[int, dict[str, Any]] = {  # depth -> arguments of ResNet
    18: {"blocks": (2, 2, 2, 2), "width": 64, "stem": "7x7", "projection": True},
    34: {"blocks": (3, 4, 6, 3), "width": 64, "stem": "7x7", "projection": True},
} | {6 * n + 2: {"blocks": (n, n, n), "width": 16, "stem": "3x3", "projection": False} for n in (3, 5, 7, 9, 18)}


class Block(nnx.Module):
    r"""Two 3x3 layers that learn what to add to their input; the last activation comes after the sum.

    $$H = \sigma(F(X) + S X)$$

    F is layer, batch norm, activation, layer, batch norm. S is the identity where the shape stays; elsewhere a 1x1 layer with
    batch norm (`projection`), or every stride-th pixel with channels of zeros after its own.

    Args:
      image_shape: (*space, c) of one image.
      features: Output channels.
      strides: Of the first layer.
      wiring: The rung of all layers.
      projection: What S is where the shape changes.
      activation: After the first layer and after the sum.
      rngs: Keys; the stream `params` is used.

    Attributes:
      output_shape: (*out, d) of one image.

    Raises:
      ValueError: Fewer output than input channels without a projection.

    Reference: He et al. 2016, Deep residual learning for image recognition, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        features: int,
        strides: int = 1,
        *,
        wiring: Wiring,
        projection: bool = True,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
    ):
        if not projection and features < image_shape[-1]:
            raise ValueError(f"a block without projection keeps its input's {image_shape[-1]} channels but has {features}")
        own: dict[str, Any] = {"padding": PADDING, "use_bias": False, "batch_norm": True, "wiring": wiring, "rngs": rngs}
        first = Stage(image_shape, features, 3, strides, activation=activation, **own)
        second = Stage(first.output_shape, features, 3, activation=nnx.identity, **own)
        projected = projection and second.output_shape != tuple(image_shape)
        self.stages = nnx.List([first, second])
        self.shortcut = Stage(image_shape, features, 1, strides, activation=nnx.identity, **own) if projected else None
        self.strides = strides
        self.activation = activation
        self.output_shape = second.output_shape

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        h = x
        for stage in self.stages:
            h = stage(h)
        return self.activation(h + (self._carried(x) if self.shortcut is None else self.shortcut(x)))

    def _carried(self, x: Float[Array, "n k l c"]) -> Float[Array, "n i j d"]:
        """Every stride-th pixel, with channels of zeros after its own."""
        *space, features = self.output_shape
        kept = x[:, *(slice(None, None, self.strides) for _ in space)]
        return jnp.pad(kept, [(0, 0)] * (1 + len(space)) + [(0, features - x.shape[-1])])


class ResNet(Stack):
    """A stem, groups of residual blocks, a mean read-out; each group but the first halves the image and doubles the channels.

    Of every depth in `RESNETS` that table holds the arguments: `ResNet(image_shape, classes, **RESNETS[20], rngs=rngs)`.

    | depth | blocks | width | stem | shortcut | trained numbers, batch norm included |
    |---|---|---|---|---|---|
    | 18 | 2, 2, 2, 2 | 64 | 7x7 | projection | 11,689,512 with 1000 classes |
    | 34 | 3, 4, 6, 3 | 64 | 7x7 | projection | 21,797,672 with 1000 classes |
    | 6n + 2 | n, n, n | 16 | 3x3 | zeros | 269,722 with n = 3 and 10 classes (272,474 with projections) |

    The stems, and their weights on three channels at width 64:

    | 3x3 | 7x7 | 3x3x3 | 5x5 | 2x2 | patchify |
    |---|---|---|---|---|---|
    | stride 1 | stride 2, pooled | strides 2, 1, 1, pooled | stride 2, pooled | stride 2, pooled | 4x4, stride 4 |
    | 1,728 | 9,408 | 28,512 | 4,800 | 768 | 3,072 |

    Every layer but the last is followed by batch norm and has no bias.

    Args:
      image_shape: (*space, c) of one image.
      classes: Number of outputs.
      blocks: Number of blocks in each group.
      width: Channels of the first group.
      stem: A name in `STEMS`.
      projection: What brings the input of a block to its output where the shape changes, as in `Block`.
      activation: After every layer but the last.
      rngs: Keys; the stream `params` is used.
      **wires: How the spatial layers are connected: arguments of `Wiring`.

    Raises:
      ValueError: An unknown connectivity or stem, or a group without blocks.

    Example:
      >>> from jax import numpy as jnp
      >>> model = nnx.eval_shape(lambda: ResNet((32, 32, 3), 10, **RESNETS[20], rngs=nnx.Rngs(0)))
      >>> len(model.stages), model.stages[-1].output_shape
      (10, (8, 8, 64))

    Reference: He et al. 2016, Deep residual learning for image recognition; of stem 3x3x3, He et al. 2019, Bag of tricks.
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
        **wires: Unpack[Wires],
    ):
        if stem not in STEMS:
            raise ValueError(f"stem {stem!r} is unknown; needs one of {', '.join(STEMS)}")
        as_integer("width", width)
        wiring = Wiring(**wires)
        own: dict[str, Any] = {"activation": activation, "wiring": wiring, "rngs": rngs}
        normed: dict[str, Any] = {"padding": PADDING, "use_bias": False, "batch_norm": True, "pool_window": POOL_WINDOW}
        shape, stages = tuple(image_shape), []
        for number, (share, size, strides) in enumerate(STEMS[stem].layers, 1):
            pool = max_pool if STEMS[stem].pool and number == len(STEMS[stem].layers) else None
            stages.append(Stage(shape, math.ceil(share * width), size, strides, pool=pool, **normed, **own))
            shape = stages[-1].output_shape
        for group, many in enumerate(blocks):
            for number in range(as_integer("blocks", many)):
                strides = 2 if group and not number else 1
                stages.append(Block(shape, width * 2**group, strides, projection=projection, **own))
                shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, kernel_init=wiring.kernel_init, rngs=rngs)
