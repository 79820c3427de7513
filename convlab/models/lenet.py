"""The network that made convolutions known."""

from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab.models.stage import Activation, Head, Pool, Stack, Stage, Wires, Wiring
from convlab.ops.pool import max_pool


class LeNet(Stack):
    """LeNet-5 with today's habits: 5x5 layers of 6 and 16 channels, each pooled 2x2, then dense layers 120, 84, classes.

    61,706 weights on (28, 28, 1) with ten classes, as the textbooks count it.

    Args:
      image_shape: (*space, c) of one image; at least 12 pixels along each axis.
      classes: Number of outputs.
      activation: After every layer but the last; the original has `nnx.sigmoid`.
      pool: `max_pool`, `mean_pool` (the original) or `blur_pool`.
      batch_norm: Normalise each channel of the spatial layers before the activation.
      rngs: Keys; the stream `params` is used.
      **wires: How the spatial layers are connected: arguments of `Wiring`.

    Raises:
      ValueError: An unknown connectivity, or images that are too small.

    Example:
      >>> from jax import numpy as jnp
      >>> LeNet((28, 28, 1), 10, rngs=nnx.Rngs(0))(jnp.ones((5, 28, 28, 1))).shape
      (5, 10)

    Reference: LeCun et al. 1998; Zhang et al., Dive into Deep Learning, section 7.6.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        activation: Activation = nnx.relu,
        pool: Pool = max_pool,
        batch_norm: bool = False,
        rngs: nnx.Rngs,
        **wires: Unpack[Wires],
    ):
        wiring = Wiring(**wires)
        shared = {
            "wiring": wiring,
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
        self.head = Head(
            second.output_shape, (120, 84, classes), activation=activation, kernel_init=wiring.kernel_init, rngs=rngs
        )
