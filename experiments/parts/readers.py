"""Networks that read a circle of words: convolutions that see a few of them at once, kernels of their own, dense layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure
from convlab.models import MLP

BAG, CONVOLUTION, LOCAL, DENSE = "bag of words", "convolution", "locally connected", "dense"
# taps and dilation of each layer, by the words that they see together
STACKS = {1: ((1, 1),), 3: ((3, 1),), 5: ((3, 1), (3, 1)), 9: ((3, 1), (3, 3)), 15: ((3, 1), (3, 2), (3, 4))}


class Reader(nnx.Module):
    """Layers around a circle, each with a ReLU, the mean over all places, and a linear read-out.

    Args:
      stack: Taps and dilation of each layer.
      shape: The words of a text, and the words there are.
      width: Channels of every layer.
      shared: Whether all places share a kernel.
      rngs: Draws first weights.
    """

    def __init__(self, stack: Sequence[tuple[int, int]], shape: tuple[int, int], width: int, *, shared: bool, rngs: nnx.Rngs):
        own: dict[str, Any]
        layer, own = (cl.Conv, {}) if shared else (cl.LocallyConnected, {"space": shape[:1]})
        own |= {"padding": "CIRCULAR", "kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        channels = [shape[1], *[width] * len(stack)]
        self.layers = nnx.List(
            layer(c, d, (taps,), kernel_dilation=dilation, **own)
            for c, d, (taps, dilation) in zip(channels[:-1], channels[1:], stack, strict=True)
        )
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        """What each place knows of the words around it."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x).mean(-2))


class Network(NamedTuple):
    """One that is trained: what it is called, what it is, the words that a place sees, and how it is built of random keys."""

    name: str
    kind: str
    sees: int
    build: Callable[[nnx.Rngs], nnx.Module]


def networks(shape: tuple[int, int], width: int, stacks: Sequence[int], local: int) -> Iterator[Network]:
    """Yield convolutions of some stacks; and, where `local` is a stack, the same of kernels of their own, and dense layers."""
    kinds = [(CONVOLUTION if stack > 1 else BAG, stack) for stack in stacks] + ([(LOCAL, local)] if local else [])
    for kind, stack in kinds:

        def build(rngs: nnx.Rngs, kind: str = kind, stack: int = stack) -> Reader:
            return Reader(STACKS[stack], shape, width, shared=kind != LOCAL, rngs=rngs)

        sees = field(build(nnx.Rngs(0)), shape)
        yield Network(BAG if kind == BAG else f"{kind}, sees {sees} words", kind, sees, build)
    if local:
        yield Network(DENSE, DENSE, shape[0], lambda rngs: MLP(shape, 2, (2 * width,), rngs=rngs))


def field(model: Reader, shape: tuple[int, int]) -> int:
    """Count the words from the first to the last that one place sees, followed through the network."""
    return int(np.ptp(np.flatnonzero(measure.receptive_field(model.features, shape)))) + 1
