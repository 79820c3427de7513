"""The network of the ladder."""

from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab.models.stage import Head, Stack, Stage, Wires, Wiring
from convlab.ops.pool import max_pool


class Pyramid(Stack):
    """The network of the ladder: 3x3 layers with batch norm and ReLU, 2x2 max pooling between them, a mean read-out.

    By default the head reads one mean per channel and knows no position, so all that a network can know of places is in its
    rung. A head that reads all pixels can learn places at every rung.

    Args:
      image_shape: (*space, c) of one image; at least 2 pixels an axis for every layer but the last.
      classes: Number of outputs.
      features: Channels of each layer.
      flatten: Whether the head reads all pixels of the last image instead of their mean per channel.
      rngs: Keys; the stream `params` is used.
      **wires: How the spatial layers are connected: arguments of `Wiring`.

    Raises:
      ValueError: An unknown connectivity, or images that are too small.

    Example:
      >>> from jax import numpy as jnp
      >>> Pyramid((12, 12, 1), 10, rngs=nnx.Rngs(0))(jnp.ones((5, 12, 12, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        features: Sequence[int] = (16, 32, 64),
        *,
        flatten: bool = False,
        rngs: nnx.Rngs,
        **wires: Unpack[Wires],
    ):
        wiring = Wiring(**wires)
        shape, stages = tuple(image_shape), []
        for number, d in enumerate(features, 1):
            pool = max_pool if number < len(features) else None
            stages.append(Stage(shape, d, 3, wiring=wiring, batch_norm=True, pool=pool, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=not flatten, kernel_init=wiring.kernel_init, rngs=rngs)
