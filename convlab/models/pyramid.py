"""A small convolutional network with batch norm and pooling, used in the main experiments."""

import warnings
from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import ConnectionOptions, Connections, Head, Stack, Stage
from convlab.ops.pool import max_pool


class Pyramid(Stack):
    """Stack of 3x3 layers with batch norm, ReLU and 2x2 max pooling, and a linear read-out.

    There is no pooling after the last spatial layer. By default the head reads one mean per channel and no positions, so
    that only the rung lets the network depend on position. A head that reads all pixels can depend on position at every
    rung.

    Args:
      image_shape: The shape (*space, c) of one image, such as (28, 28, 1) for grey images. A pair is a signal with channels;
        two equal sizes give a warning, as they look like the height and width of an image. Each axis of space halves after
        every layer but the last.
      classes: The number of outputs.
      features: The number of channels of each layer.
      flatten: Whether the head reads all pixels of the last image instead of their mean per channel.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the images are too small.

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
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("classes", classes)
        check.flag("flatten", flatten)
        features = check.sequence("features", features, "integers")
        connections = Connections(**connection_options)
        shape, stages = check.image_shape(image_shape), []
        if len(shape) == 2 and shape[0] == shape[1]:
            warnings.warn(
                f"image_shape {shape} means a signal of {shape[0]} positions with {shape[1]} channels; image_shape is (height,"
                f" width, channels) for images, such as {(*shape, 1)} for grey ones",
                stacklevel=6,  # past the wrapper of the constructor and the metaclass
            )
        for number, d in enumerate(features, 1):
            pool = max_pool if number < len(features) else None
            stages.append(Stage(shape, d, 3, connections=connections, batch_norm=True, pool=pool, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=not flatten, kernel_init=connections.kernel_init, rngs=rngs)
