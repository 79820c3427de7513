"""The multilayer perceptron, with hidden vectors or hidden images."""

from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab.models.stage import Activation, Head, Stack, Stage, Wires, Wiring


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
      **wires: The connections of the spatial layers, as arguments of `Wiring`, with "dense" as the default connectivity.

    Raises:
      ValueError: The connectivity is unknown, or the kernel does not fit.

    Example:
      >>> from jax import numpy as jnp
      >>> MLP((28, 28, 1), 10, (256,), rngs=nnx.Rngs(0))(jnp.ones((5, 28, 28, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        features: Sequence[int] = (256,),
        *,
        kernel_size: int | None = None,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
        **wires: Unpack[Wires],
    ):
        wiring = Wiring(**Wires(connectivity="dense") | wires)
        shape, stages = tuple(image_shape), []
        for d in features:
            size, padding = (shape[:-1], "VALID") if kernel_size is None else (kernel_size, "SAME")
            stages.append(Stage(shape, d, size, padding=padding, activation=activation, wiring=wiring, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), kernel_init=wiring.kernel_init, rngs=rngs)
