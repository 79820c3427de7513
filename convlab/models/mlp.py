"""The multilayer perceptron, with hidden vectors or hidden images."""

import dataclasses
from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import Activation, ConnectionOptions, Connections, Head, Stack, Stage
from convlab.signatures import ConstructorSignature

DEFAULT = Connections(connectivity="dense")


class MLP(Stack):
    r"""Multilayer perceptron, whose hidden layers are vectors or images.

    $$H_{ijd} = \sigma\Big(u_{ijd} + \sum_{klc} W_{ijklcd} X_{klc}\Big)$$

    With `kernel_size=None` every hidden layer is one vector that reads its whole input, so that all rungs agree. With a
    kernel size every hidden layer is an image, and `connectivity` selects the pixels that it reads. The read-out is linear.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      features: The number of channels of each hidden layer. An empty sequence makes the linear classifier.
      kernel_size: The number of taps along each axis, or None for the whole image.
      activation: The activation after each hidden layer.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`. The default connectivity is
        "dense".

    Raises:
      ValueError: The connectivity is unknown, or the kernel does not fit.

    Example:
      >>> from jax import numpy as jnp
      >>> MLP((28, 28, 1), 10, (256,), rngs=nnx.Rngs(0))(jnp.ones((5, 28, 28, 1))).shape
      (5, 10)
    """

    __signature__ = ConstructorSignature(connection_options=lambda network: DEFAULT)

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        features: Sequence[int] = (256,),
        *,
        kernel_size: int | None = None,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("classes", classes)
        connections = dataclasses.replace(DEFAULT, **connection_options)
        shape, stages = check.image_shape(image_shape), []
        for d in check.sequence("features", features, "integers"):
            size, padding = (shape[:-1], "VALID") if kernel_size is None else (kernel_size, "SAME")
            stages.append(Stage(shape, d, size, padding=padding, activation=activation, connections=connections, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), kernel_init=connections.kernel_init, rngs=rngs)
