"""Networks whose first layers stay as they were drawn, and linear probes of what every layer has computed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab.data import Data, Split, standardise
from experiments.parts.canvas import Canvas
from experiments.parts.networks import NORMED, Layers

POOLED = 2  # the number of layers that are followed by max pooling
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # of squared weights, chosen for each probe on validation images
PROBE_STEPS, PROBE_RATE = 500, 0.1


class Fixed(nnx.Variable):
    """An array that is not trained, as training changes an `nnx.Param` only."""


@dataclasses.dataclass(frozen=True)
class Frozen(Canvas):
    """The settings of the networks.

    Args:
      features: The numbers of channels of the layers.
      probed: The number of training images that probes are fitted to.
    """

    features: tuple[int, ...] = (8, 16, 32, 32)
    probed: int = 1000
    steps: int = 800
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)


def network(config: Frozen, data: Data, seed: int) -> nnx.Module:
    """Build layers with batch norm and ReLU, some max pooling, and a linear read-out of the mean."""
    pools = [{"pool": cl.max_pool if depth < POOLED else None} for depth, _ in enumerate(config.features)]
    layers = [
        {"features": width, "kernel_size": 3, **NORMED, **pool} for width, pool in zip(config.features, pools, strict=True)
    ]
    return Layers(data.image_shape, len(data.classes), layers, seed)


def trained(config: Frozen, data: Data, count: int, rate: float, seed: int) -> cl.Fitted:
    """Train a network whose first layers keep their random parameters, but not their batch statistics."""
    model: Any = network(config, data, seed)
    for stage in model.stages[:count]:
        for _, module in nnx.iter_modules(stage):
            parameters = {name: value for name, value in vars(module).items() if isinstance(value, nnx.Param)}
            for name, value in parameters.items():
                setattr(module, name, Fixed(value[...]))
    return cl.fit(model, data, config.recipe(rate, seed))


def features(model: Any, data: Data, split: Split) -> list[jax.Array]:
    """Return the mean over positions of every layer's output for the images of a split."""

    @jax.jit
    def run(x: jax.Array) -> list[jax.Array]:
        means = []
        for stage in model.stages:
            x = stage(x)
            means.append(x.mean(range(1, x.ndim - 1)))
        return means

    model.eval()
    return run(standardise(jnp.asarray(split.images), data.mean, data.std))


@functools.partial(jax.jit, static_argnames="classes")
def fit_probe(x: jax.Array, labels: jax.Array, penalty: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """Fit weights and biases of a linear classifier by the mean cross-entropy and a penalty of squared weights."""

    def loss(probe: tuple[jax.Array, jax.Array]) -> jax.Array:
        scores = x @ probe[0] + probe[1]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean() + penalty * jnp.sum(probe[0] ** 2)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        probe, state = carry
        updates, state = optimizer.update(jax.grad(loss)(probe), state)
        return (optax.apply_updates(probe, updates), state), None

    optimizer = optax.adam(optax.cosine_decay_schedule(PROBE_RATE, PROBE_STEPS))
    probe = jnp.zeros((x.shape[-1], classes)), jnp.zeros(classes)
    (probe, _), _ = jax.lax.scan(step, (probe, optimizer.init(probe)), None, PROBE_STEPS)
    return probe


def probe_accuracies(config: Frozen, model: Any, data: Data) -> list[float]:
    """Fit a linear classifier to the features after every layer, and return their accuracies on test images."""
    assert data.validation is not None
    splits = data.train.take(np.arange(min(config.probed, len(data.train)))), data.validation, data.test
    labels = [jnp.asarray(split.labels) for split in splits]
    accuracies = []
    for layer in zip(*(features(model, data, split) for split in splits), strict=True):
        mean, std = layer[0].mean(0), layer[0].std(0) + 1e-6
        x = [(h - mean) / std for h in layer]
        scores = {}
        for penalty in PENALTIES:
            weights, biases = fit_probe(x[0], labels[0], jnp.float32(penalty), len(data.classes))
            validation, test = (
                float(jnp.mean((h @ weights + biases).argmax(-1) == y)) for h, y in zip(x[1:], labels[1:], strict=True)
            )
            scores[penalty] = validation, test
        accuracies.append(max(scores.values())[1])
    return accuracies
