"""What a network with each of four paddings can know about the positions of two boxes.

With CIRCULAR and with FULL padding every network of this form gives an image and the moved image the same scores, trained or
not.

The argument for FULL padding (two pixels of zeros for three taps): it keeps every output whose window touches the image. All
outputs that it leaves out are 0, because black is 0, there is no bias, and ReLU(0) = 0. Layer by layer its maps are therefore
those of an infinite black plane, cut to a part that holds everything that is not 0. The strides multiply to 8, and 16 rows are
a multiple of 8. Moving the boxes therefore moves the last map by two rows, and no box leaves the image. The maximum over
positions stays the same, as no response is below 0.

With CIRCULAR padding, rows that leave on one side enter on the other, and nothing is cropped. A padding that crops (VALID,
SAME) breaks the argument, and so does a shift by four rows. With FULL padding a bias, or a black that is not 0, also breaks it.

Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
"""

import collections
import itertools
import math
from typing import Any

import jax
import numpy as np
from flax import nnx

from convlab.models import Connections, Stage
from convlab.tasks.scenes import BOX, END, GAP, LEFT, SIDE

TAPS, LAYERS = 3, ((32, 1), (32, 2), (64, 2), (64, 2))  # width and stride
STRIDE = math.prod(stride for _, stride in LAYERS)
FIELD = 1 + sum((TAPS - 1) * math.prod(stride for _, stride in LAYERS[:number]) for number in range(len(LAYERS)))
PADDINGS = {"VALID": "VALID", "SAME": 1, "CIRCULAR": "CIRCULAR", "FULL": TAPS - 1}
OUTSIDE: dict[str, Any] = {"CIRCULAR": "wrap", "FULL": "constant"}  # the mode of `np.pad` for pixels beyond the border


class Order(nnx.Module):
    """Four layers, the maximum of every channel over all positions, and a linear read-out."""

    def __init__(self, padding: str, seed: int, *, use_bias: bool = False):
        rngs, shape, stages = nnx.Rngs(seed), (SIDE, SIDE, 3), []
        options: dict[str, Any] = {
            "padding": PADDINGS[padding],
            "use_bias": use_bias,
            "connections": Connections("conv"),
            "rngs": rngs,
        }
        for width, stride in LAYERS:
            stages.append(Stage(shape, width, TAPS, stride, **options))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(shape[-1], 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for stage in self.stages:
            x = stage(x)
        return self.head(x.max((1, 2)))


def knowable(padding: str) -> float:
    """Return the best accuracy possible from the set of an image's windows, for CIRCULAR or FULL padding.

    Columns are sufficient, because some row of windows holds both boxes, and modulo the strides both classes have the same
    rows.
    """
    shares = collections.defaultdict(lambda: np.zeros(2))
    for left, label in itertools.product(range(*LEFT), range(2)):
        for right in range(left + GAP, END):
            colours = np.zeros((2, SIDE), bool)
            for colour, column in zip(colours, (right, left) if label else (left, right), strict=True):
                colour[column : column + BOX] = True
            colours = np.pad(colours, [(0, 0), (FIELD - 1, FIELD - 1)], mode=OUTSIDE[padding])
            begins = range(0, FIELD - 1 + SIDE, STRIDE)
            seen = frozenset(colours[:, begin : begin + FIELD].tobytes() for begin in begins)
            shares[seen][label] += 1 / (END - left - GAP) / (LEFT[1] - LEFT[0])
    return float(sum(share.max() for share in shares.values()) / 2)
