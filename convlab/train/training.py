"""The progress of one or several runs: state on the devices, histories and timing.

The code that trains and scores is written for one run. Several runs in one program are stacked along a new first axis of every
array. A `RunGroup` stacks the inputs, maps functions over that axis, and splits the outputs.
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
from convlab.train.checkpoint import Snapshot, validation_score
from convlab.train.config import Config
from convlab.train.fitted import EVALUATION_BATCH, Fitted, collect_logits, padded_batches, scores
from convlab.train.mesh import Placement
from convlab.train.step import (
    STATIC_ARGUMENTS,
    Metrics,
    ParameterMetrics,
    State,
    Tree,
    compute_logits,
    leaves_by_path,
    train_step,
    train_steps,
)

SPLITS = ("validation", "test")
SCORES = {"step", "epoch", "seconds", "loss", *(f"{split}_{key}" for split in SPLITS for key in ("loss", "accuracy"))}
STEPS_PER_CALL = collections.defaultdict(lambda: 8, cpu=1)  # steps per call, by platform; measured on CPU only (see `Config`)


class RunGroup:
    """The data sets and configurations of one run, or of several runs in one program.

    Args:
      datasets: The data sets, one per run.
      configs: The configurations, one per run.
      vmapped: Whether the runs share one program. If False, there is exactly one run.
    """

    def __init__(self, datasets: Sequence[Data], configs: Sequence[Config], vmapped: bool = False):
        self.datasets, self.configs, self.vmapped = datasets, configs, vmapped

    def stack(self, trees: Sequence[Tree]) -> Tree:
        """Stack the trees of vmapped runs along a new first axis, or return the tree of a single run."""
        return jax.tree.map(lambda *leaves: stack_arrays(leaves), *trees) if self.vmapped else trees[0]

    def unstack(self, tree: Tree) -> list[Tree]:
        """Split a stacked tree into the trees of the runs."""
        return [jax.tree.map(lambda leaf, k=k: leaf[k], tree) for k in range(len(self.configs))] if self.vmapped else [tree]

    def vmap(self, call: Callable, donate: tuple[int, ...] = ()) -> Callable:
        """Map a jitted function of one run's arrays over all runs.

        Args:
          call: The function.
          donate: The positions of the arguments whose memory is donated.
        """
        return _vmapped(call, donate) if self.vmapped else call

    def describe(self, run: int) -> str:
        """Describe a run for error messages by its index, seed and learning rate."""
        config = self.configs[run]
        return f"run {run} (seed {config.seed}, learning_rate {config.learning_rate})"


def stack_arrays(leaves: Sequence[Any], axis: int = 0) -> Any:
    """Stack JAX arrays on their device, and NumPy arrays in host memory."""
    return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves, axis)


@functools.lru_cache(maxsize=16)
def _vmapped(call: Callable, donate: tuple[int, ...]) -> Callable:
    def vmapped(*arrays: Any, **static: Any) -> Any:
        return jax.vmap(functools.partial(call, **static))(*arrays)

    return jax.jit(vmapped, static_argnames=STATIC_ARGUMENTS, donate_argnums=donate)


class Training:
    """The progress of one run, or of several in one program: state, histories and timing.

    Args:
      group: The data sets and configurations of the runs.
      state: The stacked state before the first step.
      learning_rates: The learning rate of each step, stacked over the runs.
      static: The static arguments of a step, by name.
      placement: The placement of arrays on devices.
      metrics: A function of the logits and labels of a split, which returns scalars by name, or None.

    Attributes:
      step: The number of steps taken.
      boundaries: The steps at which a call of several steps must end, so that services can act there.
      histories: The history of each run, one row per evaluation.
      loss: The losses of the last call, possibly still being computed.
      describe_checkpoint: A function that names the checkpoint from which the run can resume, or returns an empty text.
    """

    def __init__(
        self,
        group: RunGroup,
        state: State,
        learning_rates: np.ndarray,
        static: dict[str, Any],
        placement: Placement,
        metrics: Metrics | None = None,
    ):
        self.metrics = metrics
        self.group, self.learning_rates, self.static, self.placement = group, learning_rates, static, placement
        self.config, self.steps = group.configs[0], learning_rates.shape[-1]
        self.moments = group.stack([data.mean for data in group.datasets]), group.stack([data.std for data in group.datasets])
        self.boundaries, self.loss = {self.steps}, jnp.zeros(())
        self.describe_checkpoint: Callable[[], str] = str
        self.histories: list[list[dict[str, float]]] = [[] for _ in group.configs]
        self.losses: list[list[float]] = [[] for _ in group.configs]
        self.pending: collections.deque[tuple[int, jax.Array]] = collections.deque()
        self.state, self.step, self.best = placement.put_state(state), 0, None
        self.begin, self.timer = time.perf_counter(), StepTimer()

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from the contents of a checkpoint."""
        self.state, self.step, self.best = self.placement.put_state(snapshot.state), int(snapshot.state.step), snapshot.best
        self.histories, self.losses = [list(snapshot.history)], [list(snapshot.losses)]
        self.begin -= snapshot.seconds

    @property
    def next_steps(self) -> int:
        """The number of steps of the next call: those of a full call, or 1 if a boundary lies inside it."""
        steps = self.config.steps_per_call or STEPS_PER_CALL[jax.default_backend()]
        return steps if self.boundaries.isdisjoint(range(self.step + 1, self.step + steps)) else 1

    def advance(self, batches: Sequence[tuple[Any, Any]]) -> None:
        """Take one step per batch, all in one call."""
        count, axis = len(batches), int(self.group.vmapped)
        rates = self.learning_rates[..., self.step : self.step + count]
        if count == 1:
            call, batch, rates = train_step, batches[0], rates[..., 0]
        else:
            call, batch = train_steps, [stack_arrays(parts, axis) for parts in zip(*batches, strict=True)]
        batch = self.placement.put_batch(*batch, axis=int(count > 1))
        self.state, self.loss = self.group.vmap(call, donate=(0,))(self.state, *batch, *self.moments, rates, **self.static)
        if jax.process_count() > 1 and jax.default_backend() == "cpu":  # else concurrent calls would mix their collectives
            jax.block_until_ready(self.state)
        self.step += count
        self.pending.append((self.step, self.loss))
        while self.pending and self.pending[0][1].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            self._record_losses()
        self.timer.count(count, self.state)

    def evaluate(self, parameter_metrics: ParameterMetrics | None = None) -> None:
        """Add a row to the history of every run.

        Raises:
          FloatingPointError: A loss or a parameter is not finite.
        """
        with self.timer.paused(self.state):
            self.check_finite()
            size, images = self.config.batch_size, len(self.group.datasets[0].train)
            progress = {"step": self.step, "epoch": self.step * size / images, "seconds": self.seconds}
            parts = self.losses, *map(self._evaluate, SPLITS), self._metrics(parameter_metrics)
            for history, losses, validation, test, metrics in zip(self.histories, *parts, strict=True):
                history.append(progress | {"loss": float(np.mean(losses))} | validation | test | metrics)
            self.losses = [[] for _ in self.losses]
            if self.config.patience is not None and best_row(self.histories[0]) is self.histories[0][-1]:
                best = self.state.evaluation_parameters, self.state.model_state
                self.best = jax.tree.map(jnp.copy, self.placement.gather(best))

    def _evaluate(self, name: str) -> list[dict[str, float]]:
        """Score every run on a split, or return empty rows if the data have no such split."""
        splits = [split for data in self.group.datasets if (split := getattr(data, name)) is not None]
        if not splits:
            return [{} for _ in self.histories]

        def call(batch: Any) -> jax.Array:
            [batch], (mean, std) = self.placement.put_batch(batch), self.moments
            arrays = self.state.evaluation_parameters, self.state.model_state, batch, mean, std
            return self.group.vmap(compute_logits)(*arrays, apply=self.static["apply"])

        size = self.placement.round_up(EVALUATION_BATCH)
        batches = zip(*(padded_batches(split.images, size) for split in splits), strict=True)
        stacked = ((self.group.stack([images for images, _ in runs]), runs[0][1]) for runs in batches)
        runs = zip(self.group.unstack(collect_logits(call, stacked, int(self.group.vmapped))), splits, strict=True)
        rows = [scores(logits, split.labels, self.static["loss"], self.metrics) for logits, split in runs]
        return [{f"{name}_{key}": value for key, value in row.items()} for row in rows]

    def _metrics(self, parameter_metrics: ParameterMetrics | None) -> list[dict[str, float]]:
        if parameter_metrics is None:
            return [{} for _ in self.histories]
        metrics = self.placement.gather(self.group.vmap(parameter_metrics)(self.state.evaluation_parameters))
        return [{name: float(value) for name, value in row.items()} for row in self.group.unstack(jax.device_get(metrics))]

    def check_finite(self) -> None:
        """Wait for all pending losses, and check the losses and parameters.

        The parameters are checked separately, because a finite loss can have a gradient that is not finite.

        Raises:
          FloatingPointError: A loss or a parameter is not finite. Such a state is neither scored nor saved.
        """
        while self.pending:
            self._record_losses()
        finite = jax.device_get(self.group.vmap(are_finite)(self.state.parameters))
        for run, paths in enumerate(map(_where_false, self.group.unstack(finite))):
            if paths and self.group.vmapped:
                self._raise(f"the parameters of {self.group.describe(run)} are not finite after step {self.step}")
            if paths:
                self._raise(f"after step {self.step}, {_listed(paths)} not finite, although all losses are finite")

    def _record_losses(self) -> None:
        """Take the losses of one call off the queue and record them."""
        last, loss = self.pending.popleft()
        columns = np.asarray(loss, np.float64).reshape(len(self.losses), -1).T.tolist()
        for step, values in enumerate(columns, last - len(columns) + 1):
            for run, value in enumerate(values):
                if not math.isfinite(value):
                    name = f" of {self.group.describe(run)}" * self.group.vmapped
                    parameters = self.group.unstack(self.state.parameters)[run]
                    self._raise(f"the loss{name} is {value} at step {step}; before this step, {_diagnose(parameters)}")
                self.losses[run].append(value)

    def _raise(self, problem: str) -> NoReturn:
        """Raise the error that ends the run, and name the checkpoint to resume from."""
        checkpoint = self.describe_checkpoint()
        raise FloatingPointError(f"{problem}; {checkpoint}{'; ' * bool(checkpoint)}try a smaller learning_rate")

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken or the patience of the configuration is exhausted."""
        history, patience = self.histories[0], self.config.patience
        if self.step == self.steps or patience is None or not history:
            return self.step == self.steps
        best = best_row(history)["step"]
        return sum(row["step"] > best for row in history) >= patience

    @property
    def seconds(self) -> float:
        """The wall time of the run, including the time before an interruption."""
        return time.perf_counter() - self.begin

    def snapshot(self) -> Snapshot:
        """Return the contents of a checkpoint.

        Raises:
          FloatingPointError: A loss or a parameter is not finite.
        """
        with self.timer.paused(self.state):
            self.check_finite()
            state = self.placement.gather(self.state)
        return Snapshot(state, list(self.histories[0]), list(self.losses[0]), self.seconds, self.best)

    def fitted(self) -> list[Fitted]:
        """Return the results of all runs.

        They have the best parameters if `patience` is set, else the last ones.
        """
        with self.timer.paused(self.state):
            state = self.placement.gather(self.state)
        common = {"seconds": self.seconds, "step_seconds": self.timer.mean, "metrics": self.metrics}
        common |= {name: self.static[name] for name in ("apply", "loss")}
        arrays = self.group.unstack((*(self.best or (state.evaluation_parameters, state.model_state)), state.optimizer_state))
        runs = zip(arrays, self.histories, self.group.configs, self.group.datasets, strict=True)
        return [
            Fitted(
                parameters=parameters,
                model_state=model_state,
                history=history,
                config=config,
                mean=data.mean,
                std=data.std,
                image_shape=data.image_shape,
                dtype=data.train.images.dtype,
                classes=data.classes,
                pixel_range=data.pixel_range,
                optimizer_state=optimizer_state,
                **common,
            )
            for (parameters, model_state, optimizer_state), history, config, data in runs
        ]


def best_row(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the first row with the best validation score."""
    return max(history, key=lambda row: (validation_score(row), -row["step"]))


def check_parameter_metrics(parameter_metrics: ParameterMetrics | None, parameters: Tree) -> set[str]:
    """Check that parameter metrics are scalars with names unlike those of scores, and return the names.

    Raises:
      ValueError: They are not.
    """
    if parameter_metrics is None:
        return set()
    metrics = jax.eval_shape(parameter_metrics, parameters)
    if not isinstance(metrics, Mapping):
        raise ValueError(f"parameter_metrics returns a {type(metrics).__name__}; needs a dict of scalars by name")
    for name, value in metrics.items():
        if name in SCORES:
            raise ValueError(f"parameter_metrics returns {name!r}, which is the name of a score; choose another name")
        if value.shape != ():
            raise ValueError(f"parameter_metrics returns an array of shape {value.shape} as {name!r}; needs scalars")
    return {*metrics}


@jax.jit
def are_finite(tree: Tree) -> Tree:
    """Return for each array of a tree whether all its values are finite."""
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def _where_false(tree: Tree) -> list[str]:
    return [path for path, value in leaves_by_path(tree).items() if not value]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' and others' * (len(names) > 5)} {'is' if len(names) == 1 else 'are'}"


def _diagnose(parameters: Tree) -> str:
    """Name the arrays that are not finite, or the array with the largest value."""
    if paths := _where_false(are_finite(parameters)):
        return f"{_listed(paths)} not finite already"
    size, name = max((float(jnp.abs(leaf).max(initial=0)), path) for path, leaf in leaves_by_path(parameters).items())
    return f"all parameters were finite, and the largest magnitude was {size:.2g} in {name}"


class StepTimer:
    """Timer of training steps.

    It excludes the first call, which compiles, and everything between steps.
    """

    def __init__(self):
        self.total, self.steps, self.begin = 0.0, 0, math.nan

    def count(self, steps: int, state: State) -> None:
        """Count the steps of a call.

        The first call is not counted. The timer starts when its state is ready.
        """
        if math.isnan(self.begin):
            jax.block_until_ready(state)
            self.begin = time.perf_counter()
        else:
            self.steps += steps

    @contextlib.contextmanager
    def paused(self, state: State) -> Iterator[None]:
        """Wait for pending steps, then pause the timer."""
        jax.block_until_ready(state)
        self.total += 0.0 if math.isnan(self.begin) else time.perf_counter() - self.begin
        yield
        self.begin = self.begin if math.isnan(self.begin) else time.perf_counter()

    @property
    def mean(self) -> float:
        """The mean seconds per step."""
        return self.total / max(self.steps, 1)
