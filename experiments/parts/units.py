"""Networks of units: one layer, or two smaller ones with the same receptive field."""

import itertools
import math
from typing import Any, NamedTuple

from flax import nnx

import convlab as cl
from convlab import algebra
from convlab.data import Data
from experiments.parts.networks import NORMED, Layers


class Kind(NamedTuple):
    """A unit: the taps of its layers along each axis, and the relative width between two layers."""

    sizes: tuple[int, ...]
    between: float = 1.0


LAW = algebra.middle_width(3, 2, 2, 1)
REFERENCE = "3x3"
KINDS = {
    REFERENCE: Kind((3,)),
    "2x2 twice": Kind((2, 2)),
    "2x2 twice, wide between": Kind((2, 2), LAW),
    "5x5": Kind((5,)),
    "3x3 twice": Kind((3, 3)),
}
BETWEEN: dict[str, dict[str, Any]] = {
    "nothing": {"activation": nnx.identity},
    "ReLU": {},
    "batch norm, ReLU": {"batch_norm": True},
}
PADDINGS = {"one side": ("SAME", "SAME"), "in turn": ("SAME", "SAME_LOWER")}


def network(
    data: Data, units: int, kind: str, between: str = "", padding: str = "", *, width: int, seed: int = 0
) -> nnx.Module:
    """Build a 3x3 stem, units of a kind, and a linear read-out of the mean over positions.

    Args:
      data: The images.
      units: The number of units. Max pooling follows the stem and each unit while 4 pixels are left along each axis.
      kind: A name in `KINDS`.
      between: A name in `BETWEEN`: the operations between two layers of a unit. If empty, "nothing".
      padding: A name in `PADDINGS`: the padding of even kernels. If empty, "one side".
      width: The number of channels of the stem and of every unit.
      seed: The seed of the initial weights.
    """
    sides = itertools.cycle(PADDINGS[padding or "one side"])
    pooled = math.floor(math.log2(min(data.image_shape[:-1]) / 4))  # layers after which 4 pixels are left of each axis

    def layer(size: int, width: int, **options: Any) -> dict[str, Any]:
        return {"features": width, "kernel_size": size, "padding": "SAME" if size % 2 else next(sides), **options}

    layers = []
    for unit in range(units + 1):
        *inner, last = KINDS[kind].sizes if unit else (3,)
        layers += [layer(size, math.ceil(KINDS[kind].between * width), **BETWEEN[between or "nothing"]) for size in inner]
        layers.append(layer(last, width, **NORMED, pool=cl.max_pool if unit < pooled else None))
    return Layers(data.image_shape, len(data.classes), layers, seed)
