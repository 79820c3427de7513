"""The loop: batches in, steps, scores, history."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import linen, nnx

from convlab.data import Data, Stored, batches
from convlab.data.feeding import order
from convlab.train.checkpoint import Checkpoints, Run, Saver
from convlab.train.checks import check, check_kinds, check_optimizer, in_folder
from convlab.train.config import Config, optimizer_of
from convlab.train.fitted import Fitted
from convlab.train.identity import identity
from convlab.train.log import Log
from convlab.train.mesh import Placement
from convlab.train.progress import progress_bar
from convlab.train.signals import Stop
from convlab.train.step import Augment, Trainable, Watch, initial, trainable
from convlab.train.training import Training, check_watch

CHUNKS = {"cpu": 1}  # steps in one call, by platform; see `Config`
CHUNK = 8  # elsewhere; not measured


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
    watch: Watch | None = None,
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
      optimizer_state: What the optimizer remembers at the start: `Fitted.optimizer` of a run before, to another rung by
        `convlab.carry`. Absent, nothing; what a checkpoint remembers goes before.
      augment: Changes every batch of raw training images, with a key; see `convlab.data.chain`. Part of the compiled step.
      checkpoints: Where to save the run, or a folder for it alone. If it was saved there before, it goes on from the last whole
        checkpoint, with the same batches, random keys and result as if it had never stopped; the numbers inside `optimizer` and
        inside functions must be the same, as they cannot be compared. SIGTERM and Ctrl-C save before they end the process.
      log: Where to write the history while it grows, or a folder for it.
      watch: A jittable function of the parameters that are scored, such as `convlab.measure.watch_indices` makes; it returns
        scalars by name, which join each row of the history.

    Raises:
      ValueError: The model's output is not one logit per class, `optimizer_state` is of another model, what was saved is of
        another run, `config` has a patience but the data no validation split, its mesh does not fit the batch, `watch`
        returns what is not a scalar or has the name of a score, the training images are not finite, the model's `rest` changes
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
    model = trainable(model, data.image_shape, config.seed)
    check(model, data, config)
    check_watch(watch, model.parameters)
    steps = config.steps_on(len(data.train))
    custom = optimizer is not None
    rates = np.ones(steps, np.float32) if custom else config.rates(steps)
    optimizer = optimizer if custom else optimizer_of(config.optimizer, config.weight_decay)
    placement = Placement(config, model.rows)
    check_optimizer(optimizer, model.parameters)
    run = Run(initial(model, optimizer, config.seed, config.recipe, optimizer_state), [], [], 0.0)
    step_options = {"apply": model.apply, "optimizer": optimizer, "augment": augment, "recipe": config.recipe}
    placement.check_agreed(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(placement.ambient())
        saver = stop = writer = None
        if checkpoints is not None:
            saver = stack.enter_context(Saver(checkpoints, identity(model, data, config, custom, augment)))
            stop = stack.enter_context(Stop())
            run = saver.last(run) or run
        if log is not None:
            writer = stack.enter_context(log.writer())
            writer.start(run.history)
        training = Training(model, data, config, placement, run, saver)
        first, scored = run.step + 1, config.scored(steps)
        show = stack.enter_context(progress_bar(config, steps, first))
        due = set() if saver is None else saver.due(steps)
        feeding = feed(data, config, steps, first - 1)
        chunk = config.chunk or CHUNKS.get(jax.default_backend(), CHUNK)
        for step, count in () if training.is_over() else _pieces(first, steps, scored | due, chunk):
            training.advance(step, list(itertools.islice(feeding, count)), rates[step - count : step], step_options)
            show(step, training.loss, training.history)
            if step in scored:
                row = training.score(step, watch)
                if writer is not None:
                    writer.add(row)
            over = step == steps or training.is_over()
            if saver is not None and stop is not None:
                is_due = over or step in due
                stopped = stop.is_asked(placement, is_due)
                if is_due or stopped:
                    saver.save(training.run())
                if stopped:
                    saver.wait()
                    stop.obey()
            if over:
                break
        return training.fitted()


def feed(data: Data, config: Config, steps: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of all steps after `start`, from images that stay on the device or are read ahead from disk."""
    size = config.batch_size
    if isinstance(data.train.images, Stored):
        yield from batches(data.train, size, seed=config.seed, start=start, stop=steps)
        return
    images, labels, take = data.train.images, data.train.labels, _pick
    if jax.default_backend() != "cpu":  # there the images are on the device already, and NumPy picks faster than XLA
        (images, labels), take = jax.device_put((images, labels)), jax.jit(_pick)
    for step in range(start, steps):
        yield take(images, labels, order(range(step * size, (step + 1) * size), len(data.train), config.seed))


def _pieces(first: int, last: int, ends: set[int], chunk: int) -> Iterator[tuple[int, int]]:
    """Cut the steps into calls of `chunk` steps, or of one just before an end; yield the last step and number of each."""
    step = first - 1
    while step < last:
        end = min(each for each in ends | {last} if each > step)
        count = chunk if end - step >= chunk else 1
        step += count
        yield step, count


def _pick(images: Any, labels: Any, places: np.ndarray) -> tuple[Any, Any]:
    return images[places], labels[places]
