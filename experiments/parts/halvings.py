"""Networks that differ in how they halve an image."""

from typing import Any

import jax
from flax import nnx

import convlab as cl
from convlab import measure
from convlab.data import Data
from experiments.parts.networks import NORMED, Layers

REFERENCE, WIDER = "maximum, 2x2", "stride 2, wider"
PAIR, THREE = cl.Window(2, 2, "VALID"), cl.Window(3, 2)


def max_blur(x: jax.Array, window: cl.Window) -> jax.Array:
    """Take the maximum of 2x2 pixels around every pixel, blur, and keep every second pixel."""
    return cl.blur_pool(cl.max_pool(x, cl.Window(2)), window)


HALVINGS: dict[str, dict[str, Any]] = {
    REFERENCE: {"pool": cl.max_pool, "pool_window": PAIR},
    "maximum, 3x3": {"pool": cl.max_pool, "pool_window": THREE},
    "mean, 2x2": {"pool": cl.mean_pool, "pool_window": PAIR},
    "mean, 3x3": {"pool": cl.mean_pool, "pool_window": THREE},
    "blur, 3x3": {"pool": cl.blur_pool, "pool_window": THREE},
    "maximum, then blur": {"pool": max_blur, "pool_window": THREE},
    "polyphase": {"pool": measure.DOWNSAMPLING_METHODS["polyphase"], "pool_window": THREE},
    "stride 2": {"strides": 2},
    WIDER: {"strides": 2},
}


def network(data: Data, halving: str, width: int, seed: int) -> nnx.Module:
    """Build three layers, the first two of which halve the image, and a linear read-out of the mean over positions."""
    layers = [{"features": width * 2**depth, "kernel_size": 3, **NORMED} for depth in range(3)]
    return Layers(data.image_shape, len(data.classes), [layer | HALVINGS[halving] for layer in layers[:2]] + layers[2:], seed)


def width_of(data: Data, halving: str, width: int) -> int:
    """Return the width of a network: the same for all, or that with as many multiply-adds as the 2x2 maximum."""

    def cost(model: nnx.Module) -> int:
        return cl.count(model, data.image_shape).total.multiply_adds

    if halving != WIDER:
        return width
    target = cost(nnx.eval_shape(lambda: network(data, REFERENCE, width, 0)))
    return measure.match_width(lambda wider: network(data, halving, wider, 0), target, cost=cost, widths=range(1, 257))
