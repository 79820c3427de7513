"""The loop: batches in, steps, scores, history."""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from convlab.data import Data, Stored, batches
from convlab.data.feeding import order
from convlab.train.checkpoint import Checkpoints, Run, Saver, last_step
from convlab.train.config import SCHEDULES, Config, optimizer_of
from convlab.train.fitted import Fitted, measure, score
from convlab.train.progress import progress_bar
from convlab.train.signals import Stop
from convlab.train.step import Apply, Augment, State, Trainable, Tree, train_step, trainable


def fit(
    model: nnx.Module | linen.Module | Trainable,
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    optimizer: optax.GradientTransformation | None = None,
    augment: Augment | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train a classifier on the training images and score it on the test images.

    Images in memory are put on the device once; images on disk are read ahead, batch by batch. The batches are the same.

    Args:
      model: A Flax NNX module (left as it is), a Linen module, or a `Trainable`; it sees standardised images and returns
        one logit per class.
      data: What `convlab.load` returns.
      config: How to train.
      optimizer: An Optax transformation instead of the one that `config` names.
      augment: Changes every batch of raw training images, with a key; see `convlab.data.chain`. Part of the compiled step.
      checkpoints: Where to save the run. If it was saved there before, it goes on from the last whole checkpoint, with the same
        batches, random keys and result as if it had never stopped. SIGTERM and Ctrl-C then save before they end the process.

    Raises:
      ValueError: The model's output is not one logit per class, or what was saved is of another model, data set or
        configuration.
      DamagedError: There are checkpoints, and none is whole.
      FloatingPointError: The loss is not finite; the error names the step, the arrays that are not finite, and the last
        checkpoint.

    Example:
      >>> fit(convlab.models.MLP((8, 8, 1), 10, rngs=nnx.Rngs(0)), convlab.load("digits")).history[-1]  # doctest: +SKIP
      {'step': 113, ..., 'test_accuracy': 0.96}
    """
    begin = time.perf_counter()
    apply, parameters, rest = trainable(model, data.image_shape, config.seed)
    _check_outputs(apply, parameters, rest, data)
    steps = config.steps_on(len(data.train))
    rates = np.ones(steps, np.float32)
    if optimizer is None:
        optimizer = optimizer_of(config.optimizer, config.weight_decay)
        rates = np.asarray(SCHEDULES[config.schedule](config.learning_rate, steps)(jnp.arange(steps)) * rates)
    state = State(parameters, rest, optimizer.init(parameters), jax.random.key(config.seed), jnp.zeros((), jnp.int32))
    state = jax.tree.map(jnp.copy, state)  # steps give up their input's memory; the caller keeps his arrays

    scored = {math.ceil(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
    history: list[dict[str, float]] = []
    losses = _Losses(checkpoints)
    stopwatch = _Stopwatch()
    with contextlib.ExitStack() as stack:
        saver = stop = None
        if checkpoints is not None:
            saver, stop = stack.enter_context(Saver(checkpoints, config, data)), stack.enter_context(Stop())
            if (run := saver.last(state)) is not None:
                state, history, begin = run.state, run.history, begin - run.seconds
                losses.values = list(run.losses)
        first = int(state.step) + 1
        show = stack.enter_context(progress_bar(config, steps, first))
        for step, batch in enumerate(feed(data, config, steps, first - 1), first):
            state, loss = train_step(
                state, *batch, data.mean, data.std, rates[step - 1], apply=apply, optimizer=optimizer, augment=augment
            )
            losses.add(step, loss, state.parameters)
            show(step, loss)
            if step == first or step in scored:
                jax.block_until_ready(state)
                stopwatch.stop(counted=step > first)
            if step in scored:
                row = {"step": step, "epoch": step * config.batch_size / len(data.train)}
                row |= {"seconds": time.perf_counter() - begin, "loss": losses.mean(state.parameters)}
                for name, split in (("validation", data.validation), ("test", data.test)):
                    if split is not None:
                        scores = score(apply, state.parameters, state.rest, split.images, data.mean, data.std)
                        row |= {f"{name}_{k}": v for k, v in measure(scores, split.labels).items()}
                history.append(row)
            if saver is not None and stop is not None:
                stopped = stop.number is not None
                if stopped or step == steps or step % saver.checkpoints.every == 0:
                    losses.settle(state.parameters)
                    saver.save(Run(state, history, list(losses.values), time.perf_counter() - begin))
                if stopped:
                    saver.wait()
                    stop.obey()
            if step == first or step in scored:
                stopwatch.start()
    seconds = time.perf_counter() - begin
    step_seconds = stopwatch.total / max(steps - first, 1)
    return Fitted(apply, state.parameters, state.rest, history, config, seconds, step_seconds, data.mean, data.std)


def fit_seeds(
    build: Callable[[nnx.Rngs], nnx.Module],
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Fitted]:
    """Fit the same network from several seeds, of its initial arrays and of the order of the images, with one compilation.

    Args:
      build: Makes the network from its keys.
      data: What `convlab.load` returns.
      config: How to train; its seed is replaced.
      seeds: One run each.

    Raises:
      ValueError: As of `fit`.
    """
    return [fit(build(nnx.Rngs(seed)), data, dataclasses.replace(config, seed=seed)) for seed in seeds]


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


def _check_outputs(apply: Apply, parameters: Tree, rest: Tree, data: Data) -> None:
    x = jax.ShapeDtypeStruct((2, *data.image_shape), jnp.float32)
    logits, _ = jax.eval_shape(lambda p, r, x: apply(p, r, x, jax.random.key(0), False), parameters, rest, x)
    if logits.shape != (2, len(data.classes)):
        raise ValueError(
            f"the model makes outputs of shape {logits.shape} from 2 images but {data.name} has {len(data.classes)} classes:"
            f" needs {(2, len(data.classes))}"
        )


class _Losses:
    """The losses since the last row of the history, looked at as they become known, without waiting for them.

    Raises:
      FloatingPointError: From all methods, where one is not finite.
    """

    def __init__(self, checkpoints: Checkpoints | None):
        self.checkpoints = checkpoints
        self.values: list[float] = []
        self.waiting: collections.deque[tuple[int, jax.Array]] = collections.deque()

    def add(self, step: int, loss: jax.Array, parameters: Tree) -> None:
        """Note the loss of a step, and look at those that are known by now."""
        self.waiting.append((step, loss))
        while self.waiting and self.waiting[0][1].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            self._look(parameters)

    def settle(self, parameters: Tree) -> None:
        """Wait for all."""
        while self.waiting:
            self._look(parameters)

    def mean(self, parameters: Tree) -> float:
        """Wait for all, and start anew."""
        self.settle(parameters)
        values, self.values = self.values, []
        return float(np.mean(values))

    def _look(self, parameters: Tree) -> None:
        step, loss = self.waiting.popleft()
        value = float(loss)
        if not math.isfinite(value):
            leaves = jax.tree_util.tree_leaves_with_path(parameters)
            bad = [jax.tree_util.keystr(path) for path, leaf in leaves if not jnp.isfinite(leaf).all()]
            arrays = f"; not finite after it: {', '.join(bad[:5])}{' and others' * (len(bad) > 5)}" if bad else ""
            saved = "" if self.checkpoints is None else f"; {last_step(self.checkpoints)}"
            raise FloatingPointError(f"the loss of step {step} is {value}{arrays}{saved}; try a smaller learning_rate")
        self.values.append(value)


class _Stopwatch:
    """Adds up the time between start and stop, where it counts."""

    def __init__(self):
        self.total, self.begin = 0.0, time.perf_counter()

    def start(self) -> None:
        self.begin = time.perf_counter()

    def stop(self, counted: bool) -> None:
        self.total += (time.perf_counter() - self.begin) * counted


def _pick(images: Any, labels: Any, places: np.ndarray) -> tuple[Any, Any]:
    return images[places], labels[places]
