"""LeNet-5, the first well-known convolutional network."""

from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import Activation, ConnectionOptions, Connections, Head, Pool, Stack, Stage
from convlab.ops.pool import max_pool


class LeNet(Stack):
    """LeNet-5 with ReLU and max pooling.

    It has 5x5 layers of 6 and 16 channels, each pooled 2x2, then dense layers of 120, 84 and `classes` units. On
    (28, 28, 1) with ten classes it has 61,706 weights, as textbooks count them.

    Args:
      image_shape: The shape (*space, c) of one image, with at least 12 pixels along each axis.
      classes: The number of outputs.
      activation: The activation after every layer but the last. The original has `nnx.sigmoid`.
      pool: The pooling: `max_pool`, `mean_pool` (the original) or `blur_pool`.
      batch_norm: Whether to normalise each channel of the spatial layers before the activation.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the images are too small.

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
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("classes", classes)
        connections = Connections(**connection_options)
        common = {
            "connections": connections,
            "activation": activation,
            "pool": pool,
            "batch_norm": batch_norm,
            "rngs": rngs,
        }
        shape = check.image_shape(image_shape)
        if min(shape[:-1], default=0) < 12:
            raise ValueError(f"image_shape is {shape} but LeNet needs at least 12 pixels along each axis")
        first = Stage(shape, 6, 5, padding="SAME", **common)
        second = Stage(first.output_shape, 16, 5, padding="VALID", **common)
        self.stages = nnx.List([first, second])
        self.head = Head(
            second.output_shape, (120, 84, classes), activation=activation, kernel_init=connections.kernel_init, rngs=rngs
        )
