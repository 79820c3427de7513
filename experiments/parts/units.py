"""Networks of units: one layer, or two smaller ones, that keep or halve the resolution."""

import itertools
import math
from typing import Any, NamedTuple

from flax import nnx

import convlab as cl
from convlab import algebra
from convlab.data import Data
from experiments.parts.networks import NORMED, Layers

PADDINGS = {"pads one side": ("SAME", "SAME"), "pads in turn": ("SAME", "SAME_LOWER")}
LAW = algebra.middle_width(3, 2, 2, 1)


class Kind(NamedTuple):
    """A unit.

    Args:
      sizes: The taps of its layers along each axis.
      between: The relative width between two layers.
      stride: The stride of its first layer. If 1, max pooling halves the resolution instead.
      paddings: The paddings that are compared, by their names in `PADDINGS`.
    """

    sizes: tuple[int, ...]
    between: float = 1.0
    stride: int = 1
    paddings: tuple[str, ...] = ("",)


REFERENCES = {1: "3x3", 2: "3x3 of stride 2"}  # by the stride of the units that are compared to it
KINDS = {
    "3x3": Kind((3,)),
    "2x2 twice": Kind((2, 2), paddings=tuple(PADDINGS)),
    "2x2 twice, wide between": Kind((2, 2), LAW, paddings=("pads in turn",)),
    "5x5": Kind((5,)),
    "3x3 twice": Kind((3, 3)),
    "3x3 of stride 2": Kind((3,), stride=2),
    "2x2 of stride 2, then 2x2": Kind((2, 2), stride=2, paddings=("pads in turn",)),
}
BETWEEN: dict[str, dict[str, Any]] = {
    "nothing between": {"activation": nnx.identity},
    "ReLU": {},
    "batch norm, ReLU": {"batch_norm": True},
}


def network(
    data: Data, units: int, kind: str, between: str = "", padding: str = "", *, width: int, seed: int = 0
) -> nnx.Module:
    """Build a 3x3 stem, units of a kind, and a linear read-out of the mean over positions.

    Args:
      data: The images.
      units: The number of units. Max pooling follows the stem, and each unit of stride 1, while 4 pixels are left along each
        axis.
      kind: A name in `KINDS`.
      between: A name in `BETWEEN`: the operations between two layers of a unit. If empty, "nothing between".
      padding: A name in `PADDINGS`: the padding of even kernels. If empty, "pads one side".
      width: The number of channels of the stem and of every unit.
      seed: The seed of the initial weights.
    """
    made, sides = KINDS[kind], itertools.cycle(PADDINGS[padding or "pads one side"])
    halvings = math.floor(math.log2(min(data.image_shape[:-1]) / 4))  # after which 4 pixels are left of each axis

    def layer(size: int, width: int, **options: Any) -> dict[str, Any]:
        return {"features": width, "kernel_size": size, "padding": "SAME" if size % 2 else next(sides), **options}

    layers = [layer(3, width, **NORMED, pool=cl.max_pool if halvings > 0 else None)]
    for unit in range(1, units + 1):
        *inner, last = made.sizes
        strides = itertools.chain([made.stride], itertools.repeat(1))
        between_width, options = math.ceil(made.between * width), BETWEEN[between or "nothing between"]
        layers += [layer(size, between_width, strides=next(strides), **options) for size in inner]
        pool = cl.max_pool if made.stride == 1 and unit < halvings else None
        layers.append(layer(last, width, strides=next(strides), **NORMED, pool=pool))
    return Layers(data.image_shape, len(data.classes), layers, seed)
