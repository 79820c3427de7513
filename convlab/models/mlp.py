"""The network that the derivation starts from."""

from collections.abc import Sequence
from typing import Unpack

from flax import nnx

from convlab.models.stage import Activation, Head, Stack, Stage, Wires, Wiring


class MLP(Stack):
    r"""Hidden images, then a linear read-out: the network that the derivation starts from.

    $$H_{ijd} = \sigma\Big(u_{ijd} + \sum_{klc} W_{ijklcd} X_{klc}\Big)$$

    With `kernel_size=None` every hidden layer is one vector that reads its whole input: the usual multilayer perceptron,
    on which all rungs agree. With a kernel size every hidden layer is an image, and `connectivity` says what it reads.

    Args:
      image_shape: (*space, c) of one image.
      classes: Number of outputs.
      features: Channels of each hidden layer; none makes the linear classifier.
      kernel_size: Taps along each axis, or None for the whole image.
      activation: After each hidden layer.
      rngs: Keys; the stream `params` is used.
      **wires: How the spatial layers are connected: arguments of `Wiring`; "dense" unless it says otherwise.

    Raises:
      ValueError: An unknown connectivity, or a kernel that does not fit.

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
