"""The parts of a training step, to be timed separately."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import train
from experiments.parts.rivals import MOMENTUM, NETWORKS, RATE, convlab_model


class Part(NamedTuple):
    """A part of a step: a function of arrays, and the operations and array entries that it needs at least."""

    name: str
    call: Callable
    arguments: tuple[Any, ...]
    flops: float
    numbers: int


class Bias(cl.Conv):
    """The bias of a stage's layer, without its separately timed convolution."""

    def __init__(self, layer: cl.Conv):
        super().__init__(layer.out_features, layer.out_features, (1, 1), rngs=nnx.Rngs(0))
        self.bias, self.kernel = layer.bias, None  # pyright: ignore[reportAttributeAccessIssue]

    def _without_bias(self, inputs: jax.Array, out_sharding: Any = None) -> tuple[jax.Array, jax.Array]:
        """Return the images as they are, and the bias."""
        return inputs, self.bias[...]  # pyright: ignore[reportOptionalSubscript]


def size(*trees: Any) -> int:
    """Count the entries of all arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(trees))


def both(call: Callable, *wanted: int) -> Callable:
    """Return the forward and backward pass as a function of the arguments and a cotangent.

    If `wanted` holds the indices of arguments, only their gradients are returned.
    """

    def run(*arguments: Any) -> Any:
        h, pull = jax.vjp(call, *arguments[:-1])
        gradients = pull(arguments[-1])
        return [gradients[index] for index in wanted] if wanted else (h, gradients)

    return run


def of(name: str) -> Iterator[Part]:
    """Yield the parts of a network's step, each with random inputs."""
    network, model = NETWORKS[name], convlab_model(name, nnx.Rngs(0))
    draw = np.random.default_rng(0).standard_normal
    x = draw((network.batch, *network.image_shape), np.float32)
    for number, stage in enumerate(model.stages, 1):
        v, conv = stage.layer.kernel[...], functools.partial(cl.conv, window=stage.layer.layout.window)
        h = draw(jax.eval_shape(conv, x, v).shape, np.float32)
        work = 2 * h.size * v.size / v.shape[-1], size(x, v, h)
        yield Part(f"convolution {number}, forward", conv, (x, v), *work)
        yield Part(f"convolution {number}, gradient by kernel", both(conv, 1), (x, v, h), *work)
        if number > 1:
            yield Part(f"convolution {number}, gradient by images", both(conv, 0), (x, v, h), *work)
        stage.layer = Bias(stage.layer)
        call, weights = pure(stage)
        x = draw((network.batch, *stage.output_shape), np.float32)
        norm = "norm, " * network.batch_norm
        yield Part(f"bias, {norm}activation, pooling {number}", both(call), (weights, h, x), 0.0, 3 * h.size + 2 * x.size)
    call, weights = pure(model.head)
    g = draw((network.batch, network.head[-1]), np.float32)
    yield Part("dense layers", both(call), (weights, x, g), 6.0 * network.batch * size(weights), 3 * size(weights, x, g))
    optimizer, parameters = optax.sgd(RATE, momentum=MOMENTUM), nnx.state(model, nnx.Param)
    yield Part("optimizer", optimizer.update, (parameters, optimizer.init(parameters)), 0.0, 5 * size(parameters))


def pure(module: nnx.Module) -> tuple[Callable, Any]:
    """Turn a module in training mode into a function of its weights and images.

    Returns the function and the weights.
    """
    apply, weights, model_state, *_ = train.as_trainable(module, ())
    return lambda weights, x: apply(weights, model_state, x, jax.random.key(0), True)[0], weights
