"""The networks of *Deep Learning with PyTorch*, chapter 8, which classify birds and planes."""

import dataclasses
from collections.abc import Sequence
from typing import Unpack

from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import MOST_BLOCKS, Activation, ConnectionOptions, Connections, Head, Stack, Stage
from convlab.ops.pool import max_pool

HIDDEN = 32  # units of the dense layer
BLOCK_INIT = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")  # Kaiming, for ReLU
BLOCK_SCALE = 0.5  # initial scale of the batch norm of a block, which keeps a deep sum of blocks small


class Net(Stack):
    """The two-class network of *Deep Learning with PyTorch*.

    It has 3x3 layers with tanh and 2x2 max pooling, then a dense layer of 32 units. On (32, 32, 3) it has 18,090 weights as
    a convolution and 772,194 locally connected. The book's variants are options. All but the first are in its section 8.5
    and have `width=32`:

    | Net | NetWidth | NetBatchNorm | NetDropout | NetDepth | NetRes |
    |---|---|---|---|---|---|
    | | | `batch_norm=True` | `dropout=0.4` | `depth=3, activation=nnx.relu` | and `residual=True` |
    | 18,090 weights | 38,386 | 38,482 | 38,386 | 16,130 | 16,130 |

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      width: The number of channels of the first layer. The others have half as many.
      depth: The number of 3x3 layers, each followed by a pooling.
      residual: Whether each layer after the second has a residual connection, before the pooling.
      batch_norm: Whether to normalise each channel of the 3x3 layers before the activation.
      dropout: The share of the channels of each image that are dropped in training, after each pooling.
      activation: The activation after every layer but the last.
      rngs: The random streams, of which `params` and, with dropout, `dropout` are used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, the images are too small for the poolings, `dropout` is outside 0 to 1, or a
        residual network has fewer than three layers.

    Example:
      >>> from jax import numpy as jnp
      >>> Net(rngs=nnx.Rngs(0))(jnp.ones((5, 32, 32, 3))).shape
      (5, 2)

    Reference: Stevens, Antiga and Viehmann 2020, Deep Learning with PyTorch, sections 8.3 and 8.5.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        classes: int = 2,
        *,
        width: int = 16,
        depth: int = 2,
        residual: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.0,
        activation: Activation = nnx.tanh,
        rngs: nnx.Rngs,
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("width", width, 2)
        as_integer("depth", depth)
        as_integer("classes", classes)
        if check.flag("residual", residual) and depth < 3:
            raise ValueError(f"depth is {depth} but residual=True needs at least 3: it applies to layers after the second")
        connections = Connections(**connection_options)
        common = {
            "connections": connections,
            "activation": activation,
            "batch_norm": batch_norm,
            "pool": max_pool,
            "dropout": dropout,
            "rngs": rngs,
        }
        shape, stages = check.image_shape(image_shape), []
        for number in range(depth):
            d = width // 2 if number else width
            stages.append(Stage(shape, d, 3, residual=residual and number > 1, **common))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (HIDDEN, classes), activation=activation, kernel_init=connections.kernel_init, rngs=rngs)


class NetDeep(Stack):
    """The deep residual network of *Deep Learning with PyTorch* (NetResDeep).

    It has a 3x3 layer, residual blocks, and a dense layer of 32 units, all with ReLU. A block is a 3x3 layer with no bias,
    followed by batch norm, ReLU and a residual connection. Max pooling halves the image before and after the blocks. The
    kernels of the blocks start Gaussian with variance 2 over fan-in. `kernel_init` sets the other layers only.

    The book's code makes one block and repeats it in the list, so that all layers of its "100 blocks" have the same
    weights. `tied=True` does the same. The running statistics are then those of the last application. On (32, 32, 3) with
    100 blocks the tied network has 75,810 weights, and the untied one 994,530.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      width: The number of channels of every spatial layer.
      blocks: The number of blocks, applied one after another.
      tied: Whether all blocks are the same module.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the images are too small to pool twice.

    Example:
      >>> from jax import numpy as jnp
      >>> NetDeep(blocks=3, tied=True, rngs=nnx.Rngs(0))(jnp.ones((5, 32, 32, 3))).shape
      (5, 2)

    Reference: Stevens, Antiga and Viehmann 2020, Deep Learning with PyTorch, section 8.5.3.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        classes: int = 2,
        *,
        width: int = 32,
        blocks: int = 10,
        tied: bool = False,
        rngs: nnx.Rngs,
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("classes", classes)
        as_integer("width", width)
        as_integer("blocks", blocks, most=MOST_BLOCKS)
        check.flag("tied", tied)
        connections = Connections(**connection_options)
        first = Stage(image_shape, width, 3, connections=connections, pool=max_pool, rngs=rngs)
        block = {"connections": dataclasses.replace(connections, kernel_init=BLOCK_INIT), "use_bias": False, "rngs": rngs}
        norm = {"batch_norm": True, "norm_scale": BLOCK_SCALE, "residual": True}
        shape = first.output_shape
        self.stages = nnx.List([first, *(Stage(shape, width, 3, **block, **norm) for _ in range(1 if tied else blocks))])
        self.repeats = blocks if tied else 1
        self.pool_window = first.pool_window
        self.head = Head(
            (*self.pool_window.output_shape(shape[:-1]), width),
            (HIDDEN, classes),
            kernel_init=connections.kernel_init,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "n k l c"]) -> Float[Array, "n classes"]:
        """Return the logits, one per class, of each standardised image."""
        first, *blocks = self.stages
        x = first(x)
        for block in blocks * self.repeats:
            x = block(x)
        return self.head(max_pool(x, self.pool_window))
