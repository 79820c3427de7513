"""A run under way: its state on the devices, and what the loop knows beside it."""

import collections
import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from convlab.data import Data
from convlab.train.checkpoint import METRIC, Run, Saver
from convlab.train.config import Config
from convlab.train.fitted import Fitted, measure, score
from convlab.train.mesh import Placement
from convlab.train.step import State, Trainable, Tree, Watch, train_step, train_steps

SPLITS = ("validation", "test")
SCORES = {"step", "epoch", "seconds", "loss", *(f"{split}_{key}" for split in SPLITS for key in ("loss", "accuracy"))}


class Training:
    """A run that takes steps, is scored, and can be saved.

    Attributes:
      loss: Of the last step, or of each step of the last call; not waited for.
      history: One row per score.
    """

    def __init__(
        self, model: Trainable, data: Data, config: Config, placement: Placement, run: Run, saver: Saver | None = None
    ):
        self.model, self.data, self.config, self.placement = model, data, config, placement
        self.state, self.history, self.best = placement.state(run.state), list(run.history), run.best
        self.losses, self.loss = Losses(saver, run.losses), jnp.zeros(())
        self.begin, self.watch = time.perf_counter() - run.seconds, Stopwatch()

    def advance(self, step: int, batches: Sequence[tuple[Any, Any]], rates: np.ndarray, options: dict[str, Any]) -> None:
        """Take the steps of these batches, the last of which is number `step`; several in one call."""
        if len(batches) == 1:
            call, batch, rate = train_step, batches[0], rates[0]
        else:
            call, batch, rate = train_steps, [np.stack(parts) for parts in zip(*batches, strict=True)], rates
        batch = self.placement.batch(*batch, axis=int(len(batches) > 1))
        self.state, self.loss = call(self.state, *batch, self.data.mean, self.data.std, rate, **options)
        if jax.process_count() > 1 and jax.default_backend() == "cpu":  # where calls overtake each other, and exchanges mix
            jax.block_until_ready(self.state)
        self.losses.add(step, self.loss, self.state)
        self.watch.count(len(batches), self.state)

    def score(self, step: int, watch: Watch | None = None) -> dict[str, float]:
        """Add a row to the history, and return it."""
        with self.watch.paused(self.state):
            self.check()
            loss = self.losses.mean()
            row = {"step": step, "epoch": step * self.config.batch_size / len(self.data.train), "seconds": self.seconds}
            row["loss"] = loss
            for name, split in (("validation", self.data.validation), ("test", self.data.test)):
                if split is not None:
                    arrays = self.state.scored, self.state.rest
                    logits = score(self.model.apply, *arrays, split.images, (self.data.mean, self.data.std), self.placement)
                    row |= {f"{name}_{key}": value for key, value in measure(logits, split.labels).items()}
            if watch is not None:
                row |= {name: float(value) for name, value in self.placement.fetch(jax.jit(watch)(self.state.scored)).items()}
            self.history.append(row)
            if self.config.patience is not None and best_of(self.history) is row:
                self.best = jax.tree.map(jnp.copy, self.placement.fetch((self.state.scored, self.state.rest)))
        return row

    def check(self) -> None:
        """Wait for all losses, and look at the parameters: those of a loss may be finite when its gradient is not.

        Raises:
          FloatingPointError: One is not finite, and so is neither scored nor saved.
        """
        self.losses.settle(self.state)
        if bad := not_finite(self.state.parameters):
            step = int(jax.device_get(self.state.step))
            self.losses.stop(f"after step {step} {_listed(bad)} not finite, though the losses up to it are")

    def is_over(self) -> bool:
        """Whether the scores have not become better for as long as the configuration's patience."""
        if self.config.patience is None or not self.history:
            return False
        best = best_of(self.history)
        return sum(row["step"] > best["step"] for row in self.history) >= self.config.patience

    def run(self) -> Run:
        """What a checkpoint holds."""
        with self.watch.paused(self.state):
            self.check()
            state = self.placement.fetch(self.state)
        return Run(state, list(self.history), list(self.losses.values), self.seconds, self.best)

    def fitted(self) -> Fitted:
        """What is left when it is over: the best parameters if it had a patience, else the last."""
        with self.watch.paused(self.state):
            state = self.placement.fetch(self.state)
        parameters, rest = self.best or (state.scored, state.rest)
        data, seconds = self.data, self.watch.mean
        times, moments = (self.seconds, seconds), (data.mean, data.std)
        return Fitted(self.model.apply, parameters, rest, self.history, self.config, *times, *moments, state.optimizer)

    @property
    def seconds(self) -> float:
        """Wall time of all, also before the run was interrupted."""
        return time.perf_counter() - self.begin


def best_of(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The first row of the highest validation accuracy."""
    return max(history, key=lambda row: (row[METRIC], -row["step"]))


def check_watch(watch: Watch | None, parameters: Tree) -> None:
    """Raise ValueError unless a watch returns scalars by names that no score has."""
    if watch is None:
        return
    told = jax.eval_shape(watch, parameters)
    if not isinstance(told, Mapping):
        raise ValueError(f"watch returns a {type(told).__name__}; needs a dict of scalars by name")
    for name, value in told.items():
        if name in SCORES:
            raise ValueError(f"watch returns {name!r}, which is the name of a score; call it otherwise")
        if value.shape != ():
            raise ValueError(f"watch returns an array of shape {value.shape} as {name!r}; needs scalars: reduce or index it")


class Losses:
    """The losses since the last row of the history, looked at as they become known, without waiting for them.

    Raises:
      FloatingPointError: From all methods, where one is not finite.
    """

    def __init__(self, saver: Saver | None, values: Iterable[float] = ()):
        self.saver = saver
        self.values = list(values)
        self.waiting: collections.deque[tuple[int, jax.Array]] = collections.deque()

    def add(self, step: int, loss: jax.Array, state: State) -> None:
        """Note the losses of a call whose last step is number `step`, and look at those that are known by now."""
        self.waiting.append((step, loss))
        while self.waiting and self.waiting[0][1].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            self._look(state)

    def settle(self, state: State) -> None:
        """Wait for all."""
        while self.waiting:
            self._look(state)

    def mean(self) -> float:
        """The mean of those that are known, to start anew."""
        values, self.values = self.values, []
        return float(np.mean(values))

    def _look(self, state: State) -> None:
        last, loss = self.waiting.popleft()
        values = np.atleast_1d(np.asarray(loss, np.float64)).tolist()
        for step, value in enumerate(values, last - len(values) + 1):
            if not math.isfinite(value):
                self.stop(f"the loss of step {step} is {value}; before it {_offender(state.parameters)}")
        self.values += values

    def stop(self, found: str) -> NoReturn:
        """End the run, and say from where it can go on."""
        saved = "" if self.saver is None else f"; {self.saver.told()}"
        raise FloatingPointError(f"{found}{saved}; try a smaller learning_rate")


@jax.jit
def are_finite(tree: Tree) -> Tree:
    """Tell of each array whether all its numbers are finite."""
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def not_finite(tree: Tree) -> list[str]:
    """Paths of the arrays that hold a number that is not finite."""
    known = jax.tree_util.tree_leaves_with_path(jax.device_get(are_finite(tree)))
    return [jax.tree_util.keystr(path) for path, finite in known if not finite]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' and others' * (len(names) > 5)} {'is' if len(names) == 1 else 'are'}"


def _offender(parameters: Tree) -> str:
    """Name the arrays that are not finite, or the one of the largest weight."""
    if bad := not_finite(parameters):
        return f"{_listed(bad)} not finite already"
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)]
    size, name = max((float(jnp.abs(leaf).max(initial=0)), name) for name, leaf in leaves)
    return f"all parameters were finite, the largest {size:.2g} in {name}"


class Stopwatch:
    """Adds up the time of steps, without the first call, which compiles, and without what is done between steps."""

    def __init__(self):
        self.total, self.steps, self.begin = 0.0, 0, math.nan

    def count(self, steps: int, state: State) -> None:
        """Count steps that were taken; the first call is waited for and left out."""
        if math.isnan(self.begin):
            jax.block_until_ready(state)
            self.begin = time.perf_counter()
        else:
            self.steps += steps

    @contextlib.contextmanager
    def paused(self, state: State) -> Iterator[None]:
        """Wait for the steps, and stand still meanwhile."""
        jax.block_until_ready(state)
        self.total += 0.0 if math.isnan(self.begin) else time.perf_counter() - self.begin
        yield
        self.begin = self.begin if math.isnan(self.begin) else time.perf_counter()

    @property
    def mean(self) -> float:
        """Seconds a step."""
        return self.total / max(self.steps, 1)
