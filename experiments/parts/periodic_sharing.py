"""LeNet as a convolution, and as networks whose kernels are made equal at every m-th update."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import optim
from convlab.data import Data
from convlab.layers import spatial_layers

LINEAR, CONV, APART, SHARED = "linear classifier", "convolution", "never projected, start apart", "projected"
NOISE = (
    "signal_to_noise_1",
    "signal_to_noise_2",
)  # of both layers, as decimal logarithms, because they span orders of magnitude


def by_positions(power: Any, network: nnx.Module) -> optax.GradientTransformation:
    """Multiply gradients by a power of the number of live positions of each tap or bias."""
    changes = {}
    for path, layer in spatial_layers(network).items():
        if layer.layout.space is not None:
            space, positions = layer.layout.space, layer.layout.positions
            live = layer.layout.window.live(space).sum(tuple(range(len(space))))
            for name, count in (("kernel", live[..., None, None]), ("bias", math.prod(positions))):
                changes[*path, name] = functools.partial(jnp.multiply, jnp.asarray(count, jnp.float32) ** power)
    return optax.stateless(lambda updates, _: optim.at_paths(changes)(updates))


def optimizer(sgd: optax.GradientTransformation, network: nnx.Module, period: int) -> optax.GradientTransformation:
    """Return an optimizer that scales the gradients, applies SGD and projects.

    The power of the scaling is set in its state.
    """
    scaled = optax.inject_hyperparams(by_positions, static_args="network")(1.0, network)
    return optax.chain(scaled, sgd, optim.project_every(optim.sharing_projection(network), period))


def with_power(optimizer: optax.GradientTransformation, network: nnx.Module, power: float) -> optax.OptState:
    """Return the initial optimizer state with a given power."""
    return optax.tree.set(optimizer.init(nnx.to_pure_dict(nnx.state(network, nnx.Param))), power=np.float32(power))


def build(kind: str, image_shape: tuple[int, ...], classes: int, seed: int) -> nnx.Module:
    """Build a network of the comparison. The projected one starts as the same function as the convolution."""
    if kind == LINEAR:
        return cl.models.MLP(image_shape, classes, (), rngs=nnx.Rngs(seed))
    rung = "locally_connected" if kind == APART else "conv"
    leaky = nnx.leaky_relu  # no unit dies; a dead unit would stay shared for ever
    lenet = cl.models.LeNet(image_shape, classes, activation=leaky, connectivity=rung, rngs=nnx.Rngs(seed))
    return cl.relax(lenet, "locally_connected", image_shape) if kind == SHARED else lenet


def trained(
    network: nnx.Module, images: Data, training: cl.Config, options: dict[str, Any], *, period: int | None, projection: Callable
) -> dict[str, float]:
    """Train a network and return its scores, NaN if training diverged.

    The scores are those of the network as trained. If it is projected, they include the accuracy after a projection, and if
    that is not at every update, also the signal-to-noise ratio of its kernels.

    Args:
      network: The network.
      images: The data set.
      training: The configuration of `fit`.
      options: The other arguments of `fit`.
      period: The number of updates from one projection to the next. If None, there are no projections.
      projection: The projection of the parameters.
    """
    names = ["validation_accuracy", "accuracy", *["projected_accuracy"] * (period is not None)]
    names += NOISE if period not in (None, 1) else ()
    try:
        fitted = cl.fit(network, images, training, **options)
    except FloatingPointError:
        return dict.fromkeys(names, math.nan)
    last = fitted.history[-1]
    scores = {"validation_accuracy": last["validation_accuracy"], "accuracy": last["test_accuracy"]}
    if "projected_accuracy" in names:
        projected = dataclasses.replace(fitted, parameters=projection(fitted.parameters))
        scores["projected_accuracy"] = projected.evaluate(np.asarray(images.test.images), images.test.labels)["accuracy"]
    for number, name in enumerate(NOISE):
        if name in names:
            scores[name] = math.log10(last[f"stages/{number}/layer/signal_to_noise"])
    return scores
