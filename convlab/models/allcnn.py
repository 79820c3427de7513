"""The all-convolutional network."""

from collections.abc import Sequence
from typing import Any, Unpack

from flax import nnx

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import Activation, ConnectionOptions, Connections, Head, Stack, Stage

LAYERS = (  # channels relative to the width, taps along each axis, stride, padding
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
    """All-CNN-C, a network of convolutions without pooling.

    It has 3x3 layers, two 1x1 layers, and a mean over positions. Layers of stride 2 replace the poolings.

    | | | halved | | | halved | unpadded | 1x1 | 1x1, linear |
    |---|---|---|---|---|---|---|---|---|
    | 96 | 96 | 96 | 192 | 192 | 192 | 192 | 192 | classes |

    On (32, 32, 3) with ten classes it has 1,369,738 weights and a mean over 6x6 positions, as in the paper, whose other
    layers are padded. The last layer is linear here, while the paper's table names a ReLU. There is no dropout.

    Args:
      image_shape: The shape (*space, c) of one image, with at least 9 pixels along each axis.
      classes: The number of outputs.
      width: The number of channels of the first three layers. The others have twice as many.
      batch_norm: Whether to normalise each channel before the activation. These layers then have no bias of their own.
      activation: The activation after every layer but the last.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the images are too small.

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
        **connection_options: Unpack[ConnectionOptions],
    ):
        shape, stages = check.image_shape(image_shape), []
        if min(shape[:-1], default=0) < 9:
            raise ValueError(f"image_shape is {shape} but AllCNN needs at least 9 pixels along each axis")
        as_integer("width", width)
        as_integer("classes", classes)
        check.flag("batch_norm", batch_norm)
        common: dict[str, Any] = {"connections": Connections(**connection_options), "rngs": rngs}
        normed: dict[str, Any] = {"batch_norm": batch_norm, "use_bias": not batch_norm, "activation": activation}
        for factor, size, strides, padding in LAYERS:
            stages.append(Stage(shape, factor * width, size, strides, padding=padding, **normed, **common))
            shape = stages[-1].output_shape
        self.stages = nnx.List([*stages, Stage(shape, classes, 1, activation=nnx.identity, **common)])
        self.head = Head((*shape[:-1], classes), (), mean=True, rngs=rngs)
