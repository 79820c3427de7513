"""Networks that several experiments train: convolutions in a row, and the linear classifier."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

import convlab as cl
from convlab.data import Data
from convlab.models import Connections, Head, Stack, Stage

NORMED = {"batch_norm": True, "use_bias": False}  # batch norm before the activation, which makes a bias redundant


class Layers(Stack):
    """Convolutions in a row, and a linear read-out of the mean over positions.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of scores.
      layers: The arguments of `Stage` for every layer, by name.
      seed: The seed of the initial weights.
    """

    def __init__(self, image_shape: Sequence[int], classes: int, layers: Sequence[dict[str, Any]], seed: int):
        rngs, stages, shape = nnx.Rngs(seed), [], tuple(image_shape)
        for layer in layers:
            stages.append(Stage(shape, connections=Connections("conv"), rngs=rngs, **layer))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, rngs=rngs)


def linear(data: Data, seed: int) -> nnx.Module:
    """Build the linear classifier of the images of a data set."""
    return cl.models.MLP(data.image_shape, len(data.classes), (), rngs=nnx.Rngs(seed))
