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
from convlab.layers import spatial

LINEAR, CONV, APART, SHARED = "linear classifier", "convolution", "never projected, start apart", "projected"
NOISE = ("signal_to_noise_1", "signal_to_noise_2")  # of both layers, as decimal logarithms: they span orders of magnitude


def by_positions(power: Any, network: nnx.Module) -> optax.GradientTransformation:
    """Multiply the gradients of spatial arrays by a power of the number of positions at which each tap, or bias, is live."""
    changes = {}
    for path, layer in spatial(network).items():
        if layer.layout.space is not None:
            space, positions = layer.layout.space, layer.layout.positions
            live = layer.layout.window.live(space).sum(tuple(range(len(space))))
            for name, many in (("kernel", live[..., None, None]), ("bias", math.prod(positions))):
                changes[*path, name] = functools.partial(jnp.multiply, jnp.asarray(many, jnp.float32) ** power)
    return optax.stateless(lambda updates, _: optim.at_paths(changes)(updates))


def optimizer(sgd: optax.GradientTransformation, network: nnx.Module, every: int) -> optax.GradientTransformation:
    """Scale the gradients, take a step of SGD, project. The power stands in the state, where it can be set."""
    scaled = optax.inject_hyperparams(by_positions, static_args="network")(1.0, network)
    return optax.chain(scaled, sgd, optim.project_every(optim.sharing_projection(network), every))


def with_power(optimizer: optax.GradientTransformation, network: nnx.Module, power: float) -> optax.OptState:
    """What the optimizer is to remember at the start."""
    return optax.tree.set(optimizer.init(nnx.to_pure_dict(nnx.state(network, nnx.Param))), power=np.float32(power))


def build(kind: str, image_shape: tuple[int, ...], classes: int, seed: int) -> nnx.Module:
    """A network of the comparison; the projected one starts as the same function as the convolution."""
    if kind == LINEAR:
        return cl.models.MLP(image_shape, classes, (), rngs=nnx.Rngs(seed))
    rung = "locally_connected" if kind == APART else "conv"
    leaky = nnx.leaky_relu  # none of its units dies, which would be shared for ever
    lenet = cl.models.LeNet(image_shape, classes, activation=leaky, connectivity=rung, rngs=nnx.Rngs(seed))
    return cl.relax(lenet, "locally_connected", image_shape) if kind == SHARED else lenet


def trained(
    network: nnx.Module, images: Data, training: cl.Config, rule: dict[str, Any], *, every: int | None, projection: Callable
) -> dict[str, float]:
    """Train a network; return its scores, which are NaN if the rate was too large.

    They are scores of the network as trained; if it is projected, also after that; if not at every update, also how equal its
    kernels were.
    """
    names = ["validation_accuracy", "accuracy", *["projected_accuracy"] * (every is not None)]
    names += NOISE if every not in (None, 1) else ()
    try:
        fitted = cl.fit(network, images, training, **rule)
    except FloatingPointError:
        return dict.fromkeys(names, math.nan)
    last = fitted.history[-1]
    found = {"validation_accuracy": last["validation_accuracy"], "accuracy": last["test_accuracy"]}
    if "projected_accuracy" in names:
        projected = dataclasses.replace(fitted, parameters=projection(fitted.parameters))
        found["projected_accuracy"] = projected.evaluate(np.asarray(images.test.images), images.test.labels)["accuracy"]
    for number, name in enumerate(NOISE):
        if name in names:
            found[name] = math.log10(last[f"stages/{number}/layer/signal_to_noise"])
    return found
