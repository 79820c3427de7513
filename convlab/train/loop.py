"""The loop: batches in, steps, and services."""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import linen, nnx

from convlab.data import Data, Stored, batches
from convlab.data.feeding import order
from convlab.train.checkpoint import Checkpoints
from convlab.train.checks import check, check_kinds, check_optimizer, in_folder
from convlab.train.config import Config, optimizer_of
from convlab.train.fitted import Fitted
from convlab.train.identity import identity
from convlab.train.log import Log
from convlab.train.mesh import Placement, is_first
from convlab.train.services import Service, logging, saving, scoring, showing
from convlab.train.step import Augment, ParameterMetrics, Trainable, initial, trainable
from convlab.train.training import Stack, Training, check_parameter_metrics


def fit(
    model: nnx.Module | linen.Module | Trainable,
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    optimizer: optax.GradientTransformation | None = None,
    optimizer_state: optax.OptState | None = None,
    augment: Augment | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    log: Log | str | os.PathLike[str] | None = None,
    parameter_metrics: ParameterMetrics | None = None,
) -> Fitted:
    """Train a classifier on the training images and score it on the test images.

    Images in memory are put on the device once; images on disk are read ahead, batch by batch. The batches are the same.

    The model sees images as `Data.standardisation` has them, and zero padding puts the value 0 around them. Under "moments"
    that is the mean grey of the training images; under "scale" and "none" it is the stored value 0.

    Args:
      model: A Flax NNX module (left as it is), a Linen module, or a `Trainable`; it sees standardised images and returns
        one logit per class.
      data: What `convlab.load` returns.
      config: How to train.
      optimizer: An Optax transformation instead of the one that `config` names. Besides gradient and parameters it is told the
        loss, as `value`, and the gradient, as `grad`.
      optimizer_state: What the optimizer remembers at the start: `Fitted.optimizer_state` of a run before, to another rung by
        `convlab.transfer_optimizer_state`. Absent, nothing; what a checkpoint remembers goes before.
      augment: Changes every batch of raw training images, with a key; see `convlab.data.chain`. Part of the compiled step.
      checkpoints: Where to save the run, or a folder for it alone. If it was saved there before, it goes on from the last whole
        checkpoint, with the same batches, random keys and result as if it had never stopped; the numbers inside `optimizer` and
        inside functions must be the same, as they cannot be compared. SIGTERM and Ctrl-C save before they end the process.
      log: Where to write the history while it grows, or a folder for it.
      parameter_metrics: A jittable function of the scored parameters that returns scalars by name, such as
        `convlab.measure.index_metrics` makes. They join each row of the history.

    Raises:
      ValueError: The model's output is not one logit per class, `optimizer_state` is of another model, what was saved is of
        another run, `config` has a patience but the data no validation split, its mesh does not fit the batch, `watch`
        returns what is not a scalar or has the name of a score, the training images are not finite, the model state changes
        its form, or `optimizer` asks for more than it is told.
      TypeError: An argument is of another kind.
      DamagedError: There are checkpoints, and none is whole.
      FloatingPointError: A loss is not finite, or a parameter when the run is scored or saved; the error names the step, the
        arrays that are not finite (or the largest), and the last checkpoint.

    Example:
      >>> fit(convlab.models.MLP((8, 8, 1), 10, rngs=nnx.Rngs(0)), convlab.load("digits")).history[-1]  # doctest: +SKIP
      {'step': 113, ..., 'test_accuracy': 0.96}
    """
    checkpoints, log = in_folder("checkpoints", checkpoints, Checkpoints), in_folder("log", log, Log)
    check_kinds(data, config, optimizer)
    model, services = trainable(model, data.image_shape, config.seed), []
    if checkpoints is not None:
        facts = identity(model, data, config, optimizer is not None, augment)
        services.append(functools.partial(saving, checkpoints, facts))
    if log is not None:
        services.append(functools.partial(logging, log))
    options = {
        "optimizer": optimizer,
        "optimizer_state": optimizer_state,
        "augment": augment,
        "parameter_metrics": parameter_metrics,
    }
    [fitted] = train([model], Stack([data], [config]), services, **options)
    return fitted


def train(
    models: Sequence[Trainable],
    stack: Stack,
    services: Sequence[Service] = (),
    *,
    optimizer: optax.GradientTransformation | None = None,
    optimizer_state: optax.OptState | None = None,
    augment: Augment | None = None,
    parameter_metrics: ParameterMetrics | None = None,
) -> list[Fitted]:
    """Train a run, or all that one program holds; see `fit`."""
    model, config = models[0], stack.configs[0]
    for data in stack.sets:
        check(model, data, config)
    check_parameter_metrics(parameter_metrics, model.parameters)
    steps = config.steps_on(len(stack.sets[0].train))
    rates = [each.rates(steps) if optimizer is None else np.ones(steps, np.float32) for each in stack.configs]
    optimizer = optimizer or optimizer_of(config.optimizer, config.weight_decay)
    placement = Placement(config, model.rows)
    check_optimizer(optimizer, model.parameters)
    pairs = zip(models, stack.configs, strict=True)
    state = stack.join([initial(each, optimizer, own.seed, own.recipe, optimizer_state) for each, own in pairs])
    fixed = {"apply": model.apply, "optimizer": optimizer, "augment": augment, "recipe": config.recipe}
    placement.check_agreed(config)
    with contextlib.ExitStack() as contexts:
        contexts.enter_context(placement.ambient())
        training = Training(stack, state, stack.join(rates), fixed, placement)
        around = *services, *[showing] * (config.progress and is_first()), functools.partial(scoring, parameter_metrics)
        calls = [contexts.enter_context(service(training)) for service in around]
        feeding = feeds(stack, steps, training.step)
        while not training.is_over:
            training.advance(list(itertools.islice(feeding, training.stride)))
            for call in reversed(calls):
                call()
        return training.fitted()


def feed(data: Data, config: Config, steps: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of all steps after `start`, from images that stay on the device or are read ahead from disk."""
    return feeds(Stack([data], [config]), steps, start)


def feeds(stack: Stack, steps: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the joined batches of all runs; those of one data set share its copy on the device."""
    size, first = stack.configs[0].batch_size, stack.sets[0].train
    seeds = [config.seed if config.shuffle else None for config in stack.configs]
    if isinstance(first.images, Stored):  # of a run alone
        yield from batches(first, size, seed=seeds[0], start=start, stop=steps)
        return
    held: Any = {id(data): (data.train.images, data.train.labels) for data in stack.sets}
    on_cpu = jax.default_backend() == "cpu"  # the images are on the device already, and NumPy takes faster than XLA
    held, take = (held, _take) if on_cpu else (jax.device_put(held), jax.jit(_take))
    for step in range(start, steps):
        numbers = [order(range(step * size, (step + 1) * size), len(first), seed) for seed in seeds]
        yield stack.join([take(held[id(data)], chosen) for data, chosen in zip(stack.sets, numbers, strict=True)])


def _take(arrays: tuple[Any, Any], numbers: np.ndarray) -> tuple[Any, Any]:
    images, labels = arrays
    return images[numbers], labels[numbers]
