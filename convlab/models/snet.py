"""The shallow and the deep network of "Towards learning convolutions from scratch"."""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from flax import nnx

from convlab import check
from convlab.geometry import as_integer
from convlab.models.stage import ConnectionOptions, Connections, Head, Stack, Stage


class _Normed(Stack):
    """Spatial layers, a hidden dense layer and a linear one, with batch norm and ReLU between them."""

    layers: ClassVar[tuple[tuple[int, int, int], ...]]  # channels relative to the width, taps along each axis, stride
    hidden: ClassVar[int]  # units of the dense layer, relative to the width

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        width: int = 16,
        rngs: nnx.Rngs,
        **connection_options: Unpack[ConnectionOptions],
    ):
        as_integer("width", width)
        as_integer("classes", classes)
        connections = Connections(**connection_options)
        common: dict[str, Any] = {
            "padding": "SAME_LOWER",
            "use_bias": False,
            "batch_norm": True,
            "connections": connections,
            "rngs": rngs,
        }
        shape, stages = check.image_shape(image_shape), []
        for factor, size, strides in self.layers:
            stages.append(Stage(shape, factor * width, size, strides, **common))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (self.hidden * width, classes), batch_norm=True, kernel_init=connections.kernel_init, rngs=rngs)


class SNet(_Normed):
    """S-net: a 9x9 layer of stride 2, then a hidden dense layer of 24 widths and a linear one.

    The numbers of weights, without biases and batch norm, for width w, c classes, and s x s pixels of 3 channels, s even:

    | connectivity | in the paper | weights |
    |---|---|---|
    | conv | S-CONV | 6 s^2 w^2 + (243 + 24 c) w |
    | locally_connected | S-LOCAL | 6 s^2 w^2 + (243 s^2 / 4 + 24 c) w |
    | dense | S-FC | 6 s^2 w^2 + (3 s^4 / 4 + 24 c) w |

    Batch norm and ReLU follow every layer but the last, and these layers have no bias. Spatial layers are normalised per
    channel at every rung, so that a relaxed network computes the same function in training, too. The paper's S-FC
    normalises each unit.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      width: The number of channels of the spatial layer, the paper's alpha.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the width is below 1.

    Example:
      >>> model = nnx.eval_shape(lambda: SNet((32, 32, 3), 10, connectivity="dense", rngs=nnx.Rngs(0)))
      >>> model.stages[0].layer.kernel.shape, [layer.kernel.shape for layer in model.head.layers]
      ((16, 16, 32, 32, 3, 16), [(4096, 384), (384, 10)])

    Reference: Neyshabur 2020, Towards learning convolutions from scratch, section 2.
    """

    layers = ((1, 9, 2),)
    hidden = 24


class DNet(_Normed):
    """D-net: eight 3x3 layers, then a hidden dense layer of 64 widths and a linear one.

    The spatial layers have 1 to 16 widths, and every second one has stride 2. The numbers of weights, without biases and
    batch norm, for width w, c classes, and s x s pixels of 3 channels, s a multiple of 16:

    | connectivity | in the paper | weights |
    |---|---|---|
    | conv | D-CONV | (2286 + 4 s^2) w^2 + (27 + 64 c) w |
    | locally_connected | D-LOCAL | (45 + 4) s^2 w^2 + (27 s^2 + 64 c) w |
    | dense | D-FC | (127 s^4 / 128 + 4 s^2) w^2 + (3 s^4 + 64 c) w |

    Batch norm, ReLU and biases are those of `SNet`.

    Args:
      image_shape: The shape (*space, c) of one image.
      classes: The number of outputs.
      width: The number of channels of the first layer, the paper's alpha.
      rngs: The random streams, of which `params` is used.
      **connection_options: The connections of the spatial layers, as arguments of `Connections`.

    Raises:
      ValueError: The connectivity is unknown, or the width is below 1.

    Example:
      >>> model = nnx.eval_shape(lambda: DNet((32, 32, 3), 10, rngs=nnx.Rngs(0)))
      >>> model.stages[-1].output_shape, [layer.kernel.shape for layer in model.head.layers]
      ((2, 2, 256), [(1024, 1024), (1024, 10)])

    Reference: Neyshabur 2020, Towards learning convolutions from scratch, section 2.
    """

    layers = ((1, 3, 1), (2, 3, 2), (2, 3, 1), (4, 3, 2), (4, 3, 1), (8, 3, 2), (8, 3, 1), (16, 3, 2))
    hidden = 64
