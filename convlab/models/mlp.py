"""The network that the derivation starts from."""

from collections.abc import Sequence

from flax import nnx
from jax.nn.initializers import Initializer

from convlab.layers import DEFAULT_KERNEL_INIT
from convlab.models.stage import Activation, Head, Stack, Stage, Wiring


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
      connectivity: As in `convlab.layers.connect`.
      period: Of "tiled".
      rank: Of "low_rank".
      tied_noise: Of the rungs with several kernels.
      kernel_init: Initializer of one kernel, and of the dense layers.
      activation: After each hidden layer.
      rngs: Keys; the stream `params` is used.

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
        connectivity: str = "dense",
        period: int = 2,
        rank: int = 2,
        tied_noise: float | None = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
    ):
        wiring = Wiring(connectivity, period, rank, tied_noise, kernel_init)
        shape, stages = tuple(image_shape), []
        for d in features:
            size, padding = (shape[:-1], "VALID") if kernel_size is None else (kernel_size, "SAME")
            stages.append(Stage(shape, d, size, padding=padding, activation=activation, wiring=wiring, rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), kernel_init=kernel_init, rngs=rngs)
