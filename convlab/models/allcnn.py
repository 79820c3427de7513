"""The network of convolutions and nothing else."""

from collections.abc import Sequence
from typing import Any, Unpack

from flax import nnx

from convlab.geometry import as_integer
from convlab.models.stage import Activation, Head, Stack, Stage, Wires, Wiring

LAYERS = (  # channels in widths, taps along each axis, stride, padding
    (1, 3, 1, "SAME_LOWER"),
    (1, 3, 1, "SAME_LOWER"),
    (1, 3, 2, "SAME_LOWER"),
    (2, 3, 1, "SAME_LOWER"),
    (2, 3, 1, "SAME_LOWER"),
    (2, 3, 2, "SAME_LOWER"),
    (2, 3, 1, "VALID"),
    (2, 1, 1, "SAME_LOWER"),
)


class AllCNN(Stack):
    """All-CNN-C: 3x3 layers, of which those of stride 2 stand for the poolings, two 1x1 layers, and the mean over positions.

    | | | halved | | | halved | unpadded | 1x1 | 1x1, linear |
    |---|---|---|---|---|---|---|---|---|
    | 96 | 96 | 96 | 192 | 192 | 192 | 192 | 192 | classes |

    On (32, 32, 3) with ten classes: 1,369,738 weights, and a mean over 6x6 positions as in the paper, whose layers are
    otherwise padded. The last layer is linear here (the paper's table names a ReLU), and there is no dropout.

    Args:
      image_shape: (*space, c) of one image; at least 9 pixels along each axis.
      classes: Number of outputs.
      width: Channels of the first three layers; the others have twice as many.
      batch_norm: Normalise each channel before the activation; these layers then have no bias of their own.
      activation: After every layer but the last.
      rngs: Keys; the stream `params` is used.
      **wires: How the spatial layers are connected: arguments of `Wiring`.

    Raises:
      ValueError: An unknown connectivity, or images that are too small.

    Example:
      >>> model = nnx.eval_shape(lambda: AllCNN((32, 32, 3), 10, rngs=nnx.Rngs(0)))
      >>> model.stages[-1].output_shape
      (6, 6, 10)

    Reference: Springenberg et al. 2015, Striving for simplicity: the all convolutional net, table 1 and section 3.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        width: int = 96,
        batch_norm: bool = False,
        activation: Activation = nnx.relu,
        rngs: nnx.Rngs,
        **wires: Unpack[Wires],
    ):
        if min(image_shape[:-1]) < 9:
            raise ValueError(f"AllCNN needs at least 9 pixels along each axis, got image_shape {tuple(image_shape)}")
        as_integer("width", width)
        own: dict[str, Any] = {"wiring": Wiring(**wires), "rngs": rngs}
        normed: dict[str, Any] = {"batch_norm": batch_norm, "use_bias": not batch_norm, "activation": activation}
        shape, stages = tuple(image_shape), []
        for widths, size, strides, padding in LAYERS:
            stages.append(Stage(shape, widths * width, size, strides, padding=padding, **normed, **own))
            shape = stages[-1].output_shape
        self.stages = nnx.List([*stages, Stage(shape, classes, 1, activation=nnx.identity, **own)])
        self.head = Head((*shape[:-1], classes), (), mean=True, rngs=rngs)
