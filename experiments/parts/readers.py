"""Networks that read a circle of words: convolutions, locally connected layers and dense layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure
from convlab.models import MLP

BAG, CONVOLUTION, LOCAL, DENSE = "bag of words", "convolution", "locally connected", "dense"
# taps and dilation of each layer, by the receptive field of the stack in words
STACKS = {1: ((1, 1),), 3: ((3, 1),), 5: ((3, 1), (3, 1)), 9: ((3, 1), (3, 3)), 15: ((3, 1), (3, 2), (3, 4))}


class Reader(nnx.Module):
    """Layers around a circle, each with a ReLU, the mean over all positions, and a linear read-out.

    Args:
      stack: The taps and dilation of each layer.
      shape: The number of words in a text, and the size of the vocabulary.
      width: The number of channels of every layer.
      shared: Whether all positions share a kernel.
      rngs: The random keys of the initial weights.
    """

    def __init__(self, stack: Sequence[tuple[int, int]], shape: tuple[int, int], width: int, *, shared: bool, rngs: nnx.Rngs):
        options: dict[str, Any]
        layer, options = (cl.Conv, {}) if shared else (cl.LocallyConnected, {"space": shape[:1]})
        options |= {"padding": "CIRCULAR", "kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        channels = [shape[1], *[width] * len(stack)]
        self.layers = nnx.List(
            layer(c, d, (taps,), kernel_dilation=dilation, **options)
            for c, d, (taps, dilation) in zip(channels[:-1], channels[1:], stack, strict=True)
        )
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        """Return the features of each position, before pooling."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x).mean(-2))


class Network(NamedTuple):
    """A network: its name, kind, receptive field in words, and builder from random keys."""

    name: str
    kind: str
    receptive_field: int
    build: Callable[[nnx.Rngs], nnx.Module]


def networks(shape: tuple[int, int], width: int, stacks: Sequence[int], local: int) -> Iterator[Network]:
    """Yield the convolutions of some stacks, local layers and a dense network.

    Local layers of the stack `local` and the dense network are left out if `local` is 0.
    """
    kinds = [(CONVOLUTION if stack > 1 else BAG, stack) for stack in stacks] + ([(LOCAL, local)] if local else [])
    for kind, stack in kinds:

        def build(rngs: nnx.Rngs, kind: str = kind, stack: int = stack) -> Reader:
            return Reader(STACKS[stack], shape, width, shared=kind != LOCAL, rngs=rngs)

        field = field_in_words(build(nnx.Rngs(0)), shape)
        yield Network(BAG if kind == BAG else f"{kind}, sees {field} words", kind, field, build)
    if local:
        yield Network(DENSE, DENSE, shape[0], lambda rngs: MLP(shape, 2, (2 * width,), rngs=rngs))


def field_in_words(model: Reader, shape: tuple[int, int]) -> int:
    """Return the number of words from the first to the last that one position depends on."""
    return int(np.ptp(np.flatnonzero(measure.receptive_field(model.features, shape)))) + 1
