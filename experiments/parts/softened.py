"""Local networks whose kernels are moved a part of the way to shared kernels."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import convlab as cl
from convlab import optim
from convlab.data import Data, standardise
from experiments.parts import canvas
from experiments.parts.canvas import Canvas
from experiments.parts.networks import linear
from experiments.parts.tuned import CHOICE_SEED, LINEAR
from experiments.shared.command import Rows

CONV, LOCAL, APART = "convolution", "local, starts as a convolution", "local, starts independent"
CENTRED, MOVED = "always in the centre", "at random places"
MOVE = 4  # the pixels by which images move to measure equivariance error and shift consistency: the network's total stride


@dataclasses.dataclass(frozen=True)
class Softened(Canvas):
    """The settings of the networks.

    Args:
      networks: The networks.
      strengths: The parts of the way to shared kernels. The networks with 0 and 1 are always made.
      features: The numbers of channels of the layers.
      tuning_steps: The number of steps of the fine-tuning.
      tuning_rate: The learning rate of the fine-tuning, as a part of the network's.
    """

    networks: tuple[str, ...] = (LINEAR, CONV, LOCAL, APART)
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75)
    features: tuple[int, ...] = (8, 16, 32)
    tuning_steps: int = 300
    tuning_rate: float = 0.3
    size: int = 300
    steps: int = 600
    seeds: int = 8


def layers_of(config: Softened) -> range:
    """Return the numbers of the layers, from 1."""
    return range(1, len(config.features) + 1)


def build(config: Softened, kind: str, images: Data, seed: int) -> nnx.Module:
    """Build a network. Local kernels start equal at all positions or independent."""
    if kind == LINEAR:
        return linear(images, seed)
    local: dict[str, Any] = {"connectivity": "locally_connected", "tied_noise": 0.0 if kind == LOCAL else None}
    options = {} if kind == CONV else local
    return cl.models.Pyramid(images.image_shape, len(images.classes), config.features, rngs=nnx.Rngs(seed), **options)


def placed(config: Softened, where: str, seed: int) -> Data:
    """Place all images of a data set in the centre or at random places of the canvas."""
    shift = 0 if where == CENTRED else config.margin
    return canvas.placed(config, seed, shift, shift)


@functools.partial(jax.jit, static_argnums=0)
def statistics(graph: Any, state: Any, x: jax.Array) -> Any:
    """Return the running statistics after a training step of a network on images."""
    model = nnx.merge(graph, state)
    model(x)
    return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def moved(fitted: cl.Fitted, images: Data, strength: float) -> cl.Fitted:
    """Move local kernels a part of the way to shared ones, and take the batch statistics of the result."""
    projection = optim.sharing_projection(fitted.model())
    parameters = jax.tree.map(lambda w, p: w + strength * (p - w), fitted.parameters, projection(fitted.parameters))
    fitted = dataclasses.replace(fitted, parameters=parameters)
    model = fitted.model()
    model.train()
    model.set_attributes(momentum=0.0, raise_if_not_found=False)  # the running statistics become the next batch's
    x = standardise(jnp.asarray(images.train.images), images.mean, images.std)
    return dataclasses.replace(fitted, model_state=statistics(*nnx.split(model), x))


@functools.partial(jax.jit, static_argnums=0)
def equivariance_errors(graph: Any, state: Any, x: jax.Array) -> list[jax.Array]:
    """Return the relative equivariance error of every layer.

    It is the difference between shifting and then applying a layer, and the other way round. The shift is a roll of the layer's
    input by as many pixels as `MOVE` pixels of the image.
    """
    errors, shift, axes = [], MOVE, (1, 2)
    for stage in nnx.merge(graph, state).stages:
        h = stage(x)
        after = shift * h.shape[1] // x.shape[1]
        expected = jnp.roll(h, (after, after), axes)
        errors.append(jnp.linalg.norm(stage(jnp.roll(x, (shift, shift), axes)) - expected) / jnp.linalg.norm(expected))
        x, shift = h, after
    return errors


def fine_tuned(config: Softened, fitted: cl.Fitted, images: Data, rate: float, seed: int) -> cl.Fitted:
    """Train a network on, without any constraint."""
    recipe = dataclasses.replace(config.recipe(rate * config.tuning_rate, seed + 1), steps=config.tuning_steps)
    return cl.fit(fitted.model(), images, recipe)


def measured(config: Softened, fitted: cl.Fitted, images: Data) -> dict[str, float]:
    """Measure accuracy, shift consistency, and the equivariance error of every layer, with the border."""
    accuracy = {
        name: fitted.evaluate(split.images, split.labels)["accuracy"]
        for name, split in (("validation", images.validation), ("accuracy", images.test))
        if split is not None
    }
    x = standardise(canvas.centred(config), images.mean, images.std)
    errors = zip(layers_of(config), equivariance_errors(*nnx.split(fitted.model()), x), strict=True)
    named = {f"error_{depth}": float(error) for depth, error in errors}
    return accuracy | {"consistency": canvas.consistency(config, fitted, MOVE)} | named


def trained(config: Softened, kind: str, where: str, rate: float, seed: int) -> Rows:
    """Train a network, move its kernels by every strength, and train each of the results on.

    There is one row for every strength, before and after the fine-tuning. The run that chooses the learning rate has a single
    row, as has the linear classifier.
    """
    images = placed(config, where, seed)
    fitted = cl.fit(build(config, kind, images, seed), images, config.recipe(rate, seed))
    if seed == CHOICE_SEED or kind == LINEAR:
        last = fitted.history[-1]
        return [{"stage": "trained", "accuracy": last["test_accuracy"], "validation": last["validation_accuracy"]}]
    rows = []
    for strength in (None,) if kind == CONV else sorted({0.0, *config.strengths, 1.0}):
        network = fitted if strength is None else moved(fitted, images, strength)
        tuned = fine_tuned(config, network, images, rate, seed)
        for stage, result in (("projected", network), ("fine-tuned", tuned)):
            rows.append({"strength": strength, "stage": stage} | measured(config, result, images))
    return rows
