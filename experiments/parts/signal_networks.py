"""The networks of MNIST-1D's table with published accuracies, and rungs between them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

import convlab as cl
from convlab.layers import connect

START = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default
LAYERS = ((25, 5), (25, 3), (25, 3))  # channels and taps


class Network(NamedTuple):
    """A row of the table: the network, and its published accuracies in order and shuffled."""

    build: Callable[[int], nnx.Module]
    paper: tuple[float, float] | None = None
    notebook: tuple[float, float] | None = None


class Perceptron(nnx.Module):
    """Two hidden layers of 100 units, the second with a residual connection."""

    def __init__(self, seed: int):
        make = functools.partial(nnx.Linear, kernel_init=START, rngs=nnx.Rngs(seed))
        self.first, self.second, self.last = make(40, 100), make(100, 100), make(100, 10)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = nnx.relu(self.first(x[..., 0]))
        return self.last(h + nnx.relu(self.second(h)))


class Strided(nnx.Module):
    """Three layers of stride two on a rung, each with a ReLU, and a linear read-out of all samples."""

    def __init__(self, seed: int, connectivity: str, **options: Any):
        rngs, n, c = nnx.Rngs(seed), 40, 1
        self.layers = nnx.List([])
        for d, taps in LAYERS:
            sizes = c, d, (taps,), 2
            self.layers.append(connect(connectivity, *sizes, padding=1, space=(n,), kernel_init=START, rngs=rngs, **options))
            [n], c = self.layers[-1].layout.window.output_shape((n,)), d
        self.last = nnx.Linear(n * c, 10, kernel_init=START, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.last(x.reshape(len(x), -1))


def logistic(seed: int) -> nnx.Module:
    """Build a linear classifier."""
    return cl.models.MLP((40, 1), 10, (), kernel_init=START, rngs=nnx.Rngs(seed))


NETWORKS = {
    "logistic": Network(logistic, (0.32, 0.32), (0.315, 0.315)),
    "perceptron": Network(Perceptron, (0.68, 0.68), (0.651, 0.660)),
    "dense": Network(functools.partial(Strided, connectivity="dense")),
    "locally connected": Network(functools.partial(Strided, connectivity="locally_connected")),
    "low rank 2": Network(functools.partial(Strided, connectivity="low_rank", rank=2)),
    "tiled 2": Network(functools.partial(Strided, connectivity="tiled", period=2)),
    "convolution": Network(functools.partial(Strided, connectivity="conv"), (0.94, 0.56), (0.923, 0.587)),
}
