"""Runs under way: their state on the devices, and what the loop knows beside it.

All that trains and scores is written for one run. Several runs of one program lie along a new first axis of every array: a
`Stack` joins what goes in, maps it over that axis, and splits what comes out.
"""

import collections
import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from convlab.data import Data
from convlab.train.checkpoint import METRIC, Run
from convlab.train.config import Config
from convlab.train.fitted import EVALUATION_BATCH, Fitted, measure, padded, score
from convlab.train.mesh import Placement
from convlab.train.step import FIXED, ParameterMetrics, State, Tree, by_path, logits_of, train_step, train_steps

SPLITS = ("validation", "test")
SCORES = {"step", "epoch", "seconds", "loss", *(f"{split}_{key}" for split in SPLITS for key in ("loss", "accuracy"))}
CHUNKS = collections.defaultdict(lambda: 8, cpu=1)  # steps in one call by platform: see `Config`; not measured elsewhere


class Stack:
    """Runs by their data and configurations: one alone, or several in one program."""

    def __init__(self, sets: Sequence[Data], configs: Sequence[Config], vmapped: bool = False):
        self.sets, self.configs, self.vmapped = sets, configs, vmapped

    def join(self, trees: Sequence[Tree]) -> Tree:
        """Join the trees of all runs into one."""
        return jax.tree.map(lambda *leaves: stacked(leaves), *trees) if self.vmapped else trees[0]

    def split(self, tree: Tree) -> list[Tree]:
        """Return the tree of every run, from one that `join` made."""
        return [jax.tree.map(lambda leaf, k=k: leaf[k], tree) for k in range(len(self.configs))] if self.vmapped else [tree]

    def over(self, call: Callable, donate: tuple[int, ...] = ()) -> Callable:
        """Map a compiled function of the arrays of one run over all; those that it may `donate` give up their memory."""
        return _mapped(call, donate) if self.vmapped else call

    def name(self, run: int) -> str:
        """Name a run in an error, by what may be its own."""
        config = self.configs[run]
        return f"run {run} (seed {config.seed}, learning_rate {config.learning_rate})"


def stacked(leaves: Sequence[Any], axis: int = 0) -> Any:
    """Stack arrays where they are: on their device, or in NumPy's memory."""
    return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves, axis)


@functools.lru_cache(maxsize=16)
def _mapped(call: Callable, donate: tuple[int, ...]) -> Callable:
    def mapped(*arrays: Any, **fixed: Any) -> Any:
        return jax.vmap(functools.partial(call, **fixed))(*arrays)

    return jax.jit(mapped, static_argnames=FIXED, donate_argnums=donate)


class Training:
    """A run under way, or several in one program: it takes steps, is scored, and can be saved.

    Attributes:
      step: The number of steps taken.
      ends: Steps after which a call of several steps ends, so that services can do their part.
      histories: The rows of every run, one for each score.
      loss: The losses of the last call, not waited for.
      last_checkpoint: Says from which checkpoint the run can go on, where it is saved.
    """

    def __init__(self, stack: Stack, state: State, rates: np.ndarray, fixed: dict[str, Any], placement: Placement):
        self.stack, self.rates, self.fixed, self.placement = stack, rates, fixed, placement
        self.config, self.steps = stack.configs[0], rates.shape[-1]
        self.moments = stack.join([data.mean for data in stack.sets]), stack.join([data.std for data in stack.sets])
        self.ends, self.loss = {self.steps}, jnp.zeros(())
        self.last_checkpoint: Callable[[], str] = str
        self.histories: list[list[dict[str, float]]] = [[] for _ in stack.configs]
        self.losses: list[list[float]] = [[] for _ in stack.configs]
        self.waiting: collections.deque[tuple[int, jax.Array]] = collections.deque()
        self.state, self.step, self.best = placement.state(state), 0, None
        self.begin, self.stopwatch = time.perf_counter(), Stopwatch()

    def resume(self, run: Run) -> None:
        """Go on from what a checkpoint holds."""
        self.state, self.step, self.best = self.placement.state(run.state), int(run.state.step), run.best
        self.histories, self.losses = [list(run.history)], [list(run.losses)]
        self.begin -= run.seconds

    @property
    def stride(self) -> int:
        """The number of steps in the next call: a chunk, or one where a step within it is an end."""
        chunk = self.config.chunk or CHUNKS[jax.default_backend()]
        return chunk if self.ends.isdisjoint(range(self.step + 1, self.step + chunk)) else 1

    def advance(self, batches: Sequence[tuple[Any, Any]]) -> None:
        """Take the steps of these batches; several in one call."""
        count, axis = len(batches), int(self.stack.vmapped)
        rates = self.rates[..., self.step : self.step + count]
        if count == 1:
            call, batch, rates = train_step, batches[0], rates[..., 0]
        else:
            call, batch = train_steps, [stacked(parts, axis) for parts in zip(*batches, strict=True)]
        batch = self.placement.batch(*batch, axis=int(count > 1))
        self.state, self.loss = self.stack.over(call, donate=(0,))(self.state, *batch, *self.moments, rates, **self.fixed)
        if jax.process_count() > 1 and jax.default_backend() == "cpu":  # where calls overtake each other, and exchanges mix
            jax.block_until_ready(self.state)
        self.step += count
        self.waiting.append((self.step, self.loss))
        while self.waiting and self.waiting[0][1].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            self._look()
        self.stopwatch.count(count, self.state)

    def score(self, parameter_metrics: ParameterMetrics | None = None) -> None:
        """Add a row to the history of every run."""
        with self.stopwatch.paused(self.state):
            self.check()
            size, images = self.config.batch_size, len(self.stack.sets[0].train)
            known = {"step": self.step, "epoch": self.step * size / images, "seconds": self.seconds}
            parts = self.losses, *map(self._scores, SPLITS), self._metrics(parameter_metrics)
            for history, losses, validation, test, watched in zip(self.histories, *parts, strict=True):
                history.append(known | {"loss": float(np.mean(losses))} | validation | test | watched)
            self.losses = [[] for _ in self.losses]
            if self.config.patience is not None and best_of(self.histories[0]) is self.histories[0][-1]:
                self.best = jax.tree.map(jnp.copy, self.placement.fetch((self.state.scored, self.state.model_state)))

    def _scores(self, name: str) -> list[dict[str, float]]:
        """Score every run on a split, where there is one."""
        splits = [split for data in self.stack.sets if (split := getattr(data, name)) is not None]
        if not splits:
            return [{} for _ in self.histories]

        def call(batch: Any) -> jax.Array:
            [batch], (mean, std) = self.placement.batch(batch), self.moments
            arrays = self.state.scored, self.state.model_state, batch, mean, std
            return self.stack.over(logits_of)(*arrays, apply=self.fixed["apply"])

        cuts = zip(*(padded(split.images, self.placement.multiple(EVALUATION_BATCH)) for split in splits), strict=True)
        logits = score(call, ((self.stack.join([batch for batch, _ in cut]), cut[0][1]) for cut in cuts))
        rows = [measure(one, split.labels) for one, split in zip(self.stack.split(logits), splits, strict=True)]
        return [{f"{name}_{key}": value for key, value in row.items()} for row in rows]

    def _metrics(self, parameter_metrics: ParameterMetrics | None) -> list[dict[str, float]]:
        known = parameter_metrics and self.placement.fetch(self.stack.over(parameter_metrics)(self.state.scored))
        return [{name: float(value) for name, value in one.items()} for one in self.stack.split(jax.device_get(known or {}))]

    def check(self) -> None:
        """Wait for all losses, and look at the parameters: those of a loss may be finite when its gradient is not.

        Raises:
          FloatingPointError: One is not finite, and so is neither scored nor saved.
        """
        while self.waiting:
            self._look()
        known = jax.device_get(self.stack.over(are_finite)(self.state.parameters))
        for run, bad in enumerate(map(_where_false, self.stack.split(known))):
            if bad and self.stack.vmapped:
                self._stop(f"the parameters of {self.stack.name(run)} are not finite after step {self.step}")
            if bad:
                self._stop(f"after step {self.step} {_listed(bad)} not finite, though the losses up to it are")

    def _look(self) -> None:
        """Take the losses of a call off the queue, and note them."""
        last, loss = self.waiting.popleft()
        columns = np.asarray(loss, np.float64).reshape(len(self.losses), -1).T.tolist()
        for step, values in enumerate(columns, last - len(columns) + 1):
            for run, value in enumerate(values):
                if not math.isfinite(value):
                    name, at = (self.stack.name(run), f" at step {step}") if self.stack.vmapped else (f"step {step}", "")
                    parameters = self.stack.split(self.state.parameters)[run]
                    self._stop(f"the loss of {name} is {value}{at}; before it {_offender(parameters)}")
                self.losses[run].append(value)

    def _stop(self, found: str) -> NoReturn:
        """End the run, and say from where it can go on."""
        saved = self.last_checkpoint()
        raise FloatingPointError(f"{found}; {saved}{'; ' * bool(saved)}try a smaller learning_rate")

    @property
    def is_over(self) -> bool:
        """Whether all steps are taken, or the scores have not become better for as long as the configuration's patience."""
        history, patience = self.histories[0], self.config.patience
        if self.step == self.steps or patience is None or not history:
            return self.step == self.steps
        best = best_of(history)["step"]
        return sum(row["step"] > best for row in history) >= patience

    @property
    def seconds(self) -> float:
        """Wall time of all, also before the run was interrupted."""
        return time.perf_counter() - self.begin

    def run(self) -> Run:
        """Return what a checkpoint holds."""
        with self.stopwatch.paused(self.state):
            self.check()
            state = self.placement.fetch(self.state)
        return Run(state, list(self.histories[0]), list(self.losses[0]), self.seconds, self.best)

    def fitted(self) -> list[Fitted]:
        """Return what is left when it is over: the best parameters if it had a patience, else the last."""
        with self.stopwatch.paused(self.state):
            state = self.placement.fetch(self.state)
        times, apply = (self.seconds, self.stopwatch.mean), self.fixed["apply"]
        arrays = self.stack.split((*(self.best or (state.scored, state.model_state)), state.optimizer))
        runs = zip(arrays, self.histories, self.stack.configs, self.stack.sets, strict=True)
        return [
            Fitted(apply, parameters, model_state, history, config, *times, data.mean, data.std, optimizer)
            for (parameters, model_state, optimizer), history, config, data in runs
        ]


def best_of(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The first row of the highest validation accuracy."""
    return max(history, key=lambda row: (row[METRIC], -row["step"]))


def check_parameter_metrics(parameter_metrics: ParameterMetrics | None, parameters: Tree) -> None:
    """Raise ValueError unless parameter metrics are scalars by names that no score has."""
    if parameter_metrics is None:
        return
    told = jax.eval_shape(parameter_metrics, parameters)
    if not isinstance(told, Mapping):
        raise ValueError(f"parameter_metrics returns a {type(told).__name__}; needs a dict of scalars by name")
    for name, value in told.items():
        if name in SCORES:
            raise ValueError(f"parameter_metrics returns {name!r}, which is the name of a score; call it otherwise")
        if value.shape != ():
            raise ValueError(
                f"parameter_metrics returns an array of shape {value.shape} as {name!r}; needs scalars: reduce or index it"
            )


@jax.jit
def are_finite(tree: Tree) -> Tree:
    """Tell of each array whether all its numbers are finite."""
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def _where_false(tree: Tree) -> list[str]:
    return [path for path, value in by_path(tree).items() if not value]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' and others' * (len(names) > 5)} {'is' if len(names) == 1 else 'are'}"


def _offender(parameters: Tree) -> str:
    """Name the arrays that are not finite, or the one of the largest weight."""
    if bad := _where_false(are_finite(parameters)):
        return f"{_listed(bad)} not finite already"
    size, name = max((float(jnp.abs(leaf).max(initial=0)), path) for path, leaf in by_path(parameters).items())
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
