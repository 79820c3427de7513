"""The training loop: it feeds batches to the step and calls the services."""

from __future__ import annotations  # so that `help` shows the names of types, not what they stand for

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

from convlab.data import Data, StoredImages, batches
from convlab.data.arrays import Values
from convlab.data.batching import shuffled_indices
from convlab.geometry import as_integer
from convlab.train.checkpoint import Checkpoints
from convlab.train.checks import (
    as_data,
    check_metrics,
    check_model,
    check_optimizer,
    check_types,
    from_folder,
    update_optimizer,
)
from convlab.train.config import Config, make_optimizer
from convlab.train.fitted import Fitted
from convlab.train.identity import identity
from convlab.train.log import Log
from convlab.train.mesh import Placement, is_first
from convlab.train.raw_inputs import check_inputs
from convlab.train.services import Service, evaluate_regularly, explain_interrupt, save_checkpoints, show_progress, write_log
from convlab.train.step import (
    Augment,
    Loss,
    Metrics,
    ParameterMetrics,
    Trainable,
    as_trainable,
    init_optimizer,
    initial_state,
    train_step,
    train_steps,
)
from convlab.train.training import RunGroup, Training, check_parameter_metrics

MAX_OPTIMIZERS = 16  # the optimizers passed to `fit` whose compiled steps are kept
_passed: list[optax.GradientTransformation] = []


def fit(
    model: nnx.Module | linen.Module | Trainable,
    data: Data | tuple[Values, Values],
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    test: tuple[Values, Values] | None = None,
    loss: Loss | None = None,
    metrics: Metrics | None = None,
    optimizer: optax.GradientTransformation | None = None,
    optimizer_state: optax.OptState | None = None,
    augment: Augment | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    log: Log | str | os.PathLike[str] | None = None,
    parameter_metrics: ParameterMetrics | None = None,
) -> Fitted:
    """Train a network on the training images and score it on the test images.

    Images in memory are copied to the device once. Images on disk are read ahead, batch by batch. Both give the same batches.

    The model receives images standardised by `Data.standardisation`, and zero padding surrounds them with the value 0. Under
    "moments" this value stands for the channel means of the training images, under "scale" and "none" for the stored value 0.

    Args:
      model: A Flax NNX module (not modified), a Linen module, or a `Trainable`. It maps standardised images to one logit per
        class, or to what `loss` takes.
      data: The data set, such as `convlab.load` returns, or a pair (x, y) of arrays for `convlab.Data.from_arrays`.
      config: The configuration of the run.
      test: The pair (x, y) of test images and labels, if `data` is a pair. If None, 20 % of each class.
      loss: A jittable function of logits and labels, such as `optax.sigmoid_binary_cross_entropy`. It returns a scalar or one
        value per example or element, whose mean is the loss. If None, the softmax cross-entropy of classes. Labels can be
        targets of any shape (see `convlab.data.Split`), which need a loss, such as `optax.squared_error`. Pass the same
        function to several runs, since each new one is compiled.
      metrics: A function of the logits and labels of a whole split, as NumPy arrays, that returns scalars by name. It is not
        compiled, so any library can compute them. The columns of the history are `test_<name>` and `validation_<name>`. It is
        called once on random logits before training.
      optimizer: An Optax gradient transformation that replaces the optimizer of `config`. Its `update` also receives the
        loss as `value` and the gradient as `grad`. Pass the same object to several runs, since each new one is compiled. The
        programs of the last 16 objects are kept, each at least 3 MB.
      optimizer_state: The optimizer's state to start from, such as `Fitted.optimizer_state` of an earlier run.
        `convlab.transfer_optimizer_state` converts it to another rung. If None, a new state. A checkpoint takes precedence.
      augment: A jittable function of a batch of raw training images and a key, which returns the augmented batch. It is
        compiled into the step. See `convlab.data.chain`.
      checkpoints: The options for saving the run, or a folder of this run alone. If the folder holds checkpoints, the run
        resumes from the last intact one and continues with the same batches, random keys and result as without a stop.
        The numbers inside `optimizer` and other functions are not compared and must be the same. SIGTERM and Ctrl-C save
        the run before they end the process. A finished run continues if `config` has more epochs or steps. If
        `config.progress`, a line says whether the run starts anew, resumes or is finished.
      log: The options for writing the history during training, or a folder for it.
      parameter_metrics: A jittable function that maps the evaluated parameters to scalars by name, such as
        `convlab.measure.locality_metrics` makes. The scalars are added to each row of the history.

    Returns:
      The trained network. `fitted.model()` is the module, `fitted.history[-1]` holds its last scores by name, and
      `fitted.evaluate(images, labels)` scores it on other images.

    Raises:
      ValueError: The model does not return one logit per class, or `optimizer_state` belongs to another model. The checkpoint
        belongs to another run. `config` sets `patience` without a validation split, or a mesh that does not fit the batch.
        `parameter_metrics` returns a value that is not a scalar or has the name of a score. Images are not finite. There is one
        class only. The model state changes its shape or dtype. `optimizer` needs arguments that a step does not pass. `loss`
        does not take the logits and labels, or labels are targets and it is None. `metrics` fails, or returns the name of
        another column. `augment` changes the number of images, axes or channels. `model` standardises its images itself, or
        takes images of another shape.
      TypeError: An argument has the wrong type.
      DamagedError: There are checkpoints, but all are damaged.
      FloatingPointError: A loss is not finite, or a parameter is not finite when the run is evaluated or saved. The error names
        the step, the arrays that are not finite (or the largest array), and the last checkpoint.

    Example:
      >>> fit(convlab.models.MLP((8, 8, 1), 10, rngs=nnx.Rngs(0)), convlab.load("digits")).history[-1]  # doctest: +SKIP
      {'step': 113, ..., 'test_accuracy': 0.96}
    """
    checkpoints, log = from_folder("checkpoints", checkpoints, Checkpoints), from_folder("log", log, Log)
    data, functions = as_data(data, test), {"loss": loss, "metrics": metrics, "parameter_metrics": parameter_metrics}
    check_types(data, config, optimizer, **functions, augment=augment)
    check_inputs(model, data)
    model, services = as_trainable(model, data.image_shape, config.seed), []
    if checkpoints is None:
        services.append(explain_interrupt)
    else:
        record = identity(model, data, config, optimizer is not None, augment, loss)
        services.append(functools.partial(save_checkpoints, checkpoints, record))
    if log is not None:
        services.append(functools.partial(write_log, log))
    options = {
        "optimizer": optimizer,
        "optimizer_state": optimizer_state,
        "augment": augment,
        **functions,
    }
    [fitted] = fit_group([model], RunGroup([data], [config]), services, **options)
    return fitted


def fit_group(
    models: Sequence[Trainable],
    group: RunGroup,
    services: Sequence[Service] = (),
    *,
    optimizer: optax.GradientTransformation | None = None,
    optimizer_state: optax.OptState | None = None,
    augment: Augment | None = None,
    loss: Loss | None = None,
    metrics: Metrics | None = None,
    parameter_metrics: ParameterMetrics | None = None,
) -> list[Fitted]:
    """Train one run, or all runs of a group in one program.

    The options are those of `fit`.
    """
    model, config = models[0], group.configs[0]
    names = check_parameter_metrics(parameter_metrics, model.parameters)
    for data in group.datasets:
        shape = check_model(model, data, config, augment, loss)
        check_metrics(metrics, data, shape, names)
    steps = config.total_steps(len(group.datasets[0].train))
    constant = np.ones(steps, np.float32)  # for a custom optimizer, which has its own learning rate
    learning_rates = [run.learning_rates(steps) if optimizer is None else constant for run in group.configs]
    if optimizer is not None:
        keep_few_programs(optimizer)
    optimizer = optimizer or make_optimizer(config.optimizer, config.weight_decay)
    placement = Placement(config, model.rows)
    check_optimizer(optimizer, model.parameters)
    pairs = zip(models, group.configs, strict=True)
    states = [initial_state(model, optimizer, run.seed, run.step_options, optimizer_state) for model, run in pairs]
    static = {
        "apply": model.apply,
        "optimizer": optimizer,
        "augment": augment,
        "step_options": config.step_options,
        "loss": loss,
    }
    placement.check_same_config(config)
    with contextlib.ExitStack() as contexts:
        contexts.enter_context(placement.mesh_context())
        training = Training(group, group.stack(states), group.stack(learning_rates), static, placement, metrics)
        progress = [show_progress] * (config.progress and is_first())
        services = *services, *progress, functools.partial(evaluate_regularly, parameter_metrics)
        calls = [contexts.enter_context(service(training)) for service in services]
        group_batches = stacked_training_batches(group, steps, training.step)
        while not training.is_finished:
            training.advance(list(itertools.islice(group_batches, training.next_steps)))
            for call in reversed(calls):
                call()
        return training.fitted()


def keep_few_programs(optimizer: optax.GradientTransformation) -> None:
    """Drop all compiled steps if this optimizer is new and `MAX_OPTIMIZERS` others were passed since the last time.

    A compiled step holds its optimizer, so the programs of optimizers that are made anew for every run would add up.
    """
    if optimizer in _passed:
        return
    if len(_passed) >= MAX_OPTIMIZERS:
        _passed.clear()
        for function in (train_step, train_steps, init_optimizer, update_optimizer):
            function.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    _passed.append(optimizer)


def training_batches(data: Data, config: Config, steps: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the training batches from step `start` up to step `steps`.

    Images in memory are copied to the device once. Images on disk are read ahead.

    Args:
      data: The data set.
      config: The configuration, which determines batch size, seed and shuffling.
      steps: The number of steps of the whole run.
      start: The number of steps to skip.

    Raises:
      ValueError: A number is negative.
      TypeError: An argument has the wrong type.
    """
    check_types(data, config, None)
    steps, start = as_integer("steps", steps, 0), as_integer("start", start, 0)
    return stacked_training_batches(RunGroup([data], [config]), steps, start)


def stacked_training_batches(group: RunGroup, steps: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the training batches of all runs, stacked along a new first axis if the runs are vmapped.

    Runs with the same data set share its copy on the device.
    """
    size, first = group.configs[0].batch_size, group.datasets[0].train
    seeds = [config.seed if config.shuffle else None for config in group.configs]
    if isinstance(first.images, StoredImages):  # such data sets are trained on by one run at a time
        yield from batches(first, size, seed=seeds[0], start=start, stop=steps)
        return
    arrays: Any = {id(data): (data.train.images, data.train.labels) for data in group.datasets}
    on_cpu = jax.default_backend() == "cpu"  # no copy is needed there, and NumPy indexes faster than XLA
    arrays, take = (arrays, _take) if on_cpu else (jax.device_put(arrays), jax.jit(_take))
    for step in range(start, steps):
        indices = [shuffled_indices(range(step * size, (step + 1) * size), len(first), seed) for seed in seeds]
        yield group.stack([take(arrays[id(data)], selected) for data, selected in zip(group.datasets, indices, strict=True)])


def _take(arrays: tuple[Any, Any], indices: np.ndarray) -> tuple[Any, Any]:
    images, labels = arrays
    return images[indices], labels[indices]
