"""The network of the ladder."""

from collections.abc import Sequence

from flax import nnx
from jax.nn.initializers import Initializer

from convlab.layers import DEFAULT_KERNEL_INIT
from convlab.models.stage import Head, Stack, Stage, Wiring
from convlab.ops.pool import max_pool


class Pyramid(Stack):
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
      kernel_init: Initializer of one kernel, and of the dense layers.
      rngs: Keys; the stream `params` is used.

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
        connectivity: str = "conv",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        rngs: nnx.Rngs,
    ):
        wiring = Wiring(connectivity, period, rank, tied_noise, kernel_init)
        shape, stages = tuple(image_shape), []
        for number, d in enumerate(features, 1):
            pool = max_pool if number < len(features) else None
            stages.append(Stage(shape, d, 3, wiring=wiring, batch_norm=True, pool=pool, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, kernel_init=kernel_init, rngs=rngs)
