"""Services around the training loop: checkpoints, logs, scores and a progress bar.

A service is a context manager made from a `Training`. The loop enters it before the first step. It yields a function that the
loop calls after every call of steps. Services are entered in order and called in reverse order, so the first one wraps all
others. A run therefore resumes from its checkpoint before its log starts, and its last row is logged before it is saved.
"""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from convlab.progress import progress_of
from convlab.train.checkpoint import CheckpointManager, Checkpoints, Snapshot
from convlab.train.log import Log
from convlab.train.mesh import Exchange, is_first
from convlab.train.signals import StopSignal, exit_after
from convlab.train.step import ParameterMetrics
from convlab.train.training import Training

Service = Callable[[Training], contextlib.AbstractContextManager[Callable[[], None]]]
PROGRESS_SECONDS = 0.2


@contextlib.contextmanager
def save_checkpoints(checkpoints: Checkpoints, identity: dict[str, Any], training: Training) -> Iterator[Callable[[], None]]:
    """Resume from the last checkpoint and save the run.

    The run is saved at the intervals of `checkpoints`, at its end, and on a signal to stop.
    """
    with CheckpointManager(checkpoints, identity) as manager, StopSignal() as stop:
        if snapshot := manager.restore_latest(Snapshot(training.state, [], [], 0.0)):
            training.resume(snapshot)
        if training.config.progress and is_first():
            print(_describe_start(training, manager.root), file=sys.stderr)
        training.describe_checkpoint = manager.describe_latest
        exchange, interval = Exchange(training.placement), checkpoints.every_steps
        due = {*range(interval, training.steps + 1, interval)} if interval else set()
        training.boundaries |= due

        def save() -> None:
            is_due = training.is_finished or training.step in due
            by_time, signal_number = exchange(training.step, manager.is_due, stop.signal_number, is_due)
            if is_due or by_time or signal_number:
                manager.save(training.snapshot(), training.is_finished)
            if signal_number:
                last = manager.describe_latest()
                exit_after(signal_number, f"{_describe_stop(training)}; {last}; to go on, run the same call of fit again")

        yield save


def _describe_start(training: Training, folder: pathlib.Path) -> str:
    """Describe whether a run with checkpoints starts, resumes or is finished."""
    if training.is_finished:
        return f"the run in {folder} is finished: its result is that of step {training.step}"
    if training.step:
        return f"the run in {folder} resumes after step {training.step} of {training.steps}"
    return f"a new run of {training.steps} steps starts; {folder} holds no checkpoint yet"


def _describe_stop(training: Training) -> str:
    return f"training stopped after step {training.step} of {training.steps}"


@contextlib.contextmanager
def explain_interrupt(training: Training) -> Iterator[Callable[[], None]]:
    """Make the KeyboardInterrupt of Ctrl-C explain that a run without checkpoints was not saved."""
    try:
        yield lambda: None
    except KeyboardInterrupt as error:
        error.args = (f"{_describe_stop(training)}; nothing was saved; to resume another time, pass checkpoints=folder to fit",)
        raise


@contextlib.contextmanager
def write_log(log: Log, training: Training) -> Iterator[Callable[[], None]]:
    """Write each new row of the history to the log."""
    [history] = training.histories
    with log.writer() as writer:
        writer.start(history)
        yield lambda: writer.add(history[-1]) if history[-1:] and history[-1]["step"] == training.step else None


@contextlib.contextmanager
def evaluate_regularly(parameter_metrics: ParameterMetrics | None, training: Training) -> Iterator[Callable[[], None]]:
    """Evaluate the network and the parameter metrics at the steps that the configuration selects."""
    steps, metrics = training.config.evaluation_steps(training.steps), parameter_metrics and jax.jit(parameter_metrics)
    training.boundaries |= steps
    yield lambda: training.evaluate(metrics) if training.step in steps else None


@contextlib.contextmanager
def show_progress(training: Training) -> Iterator[Callable[[], None]]:
    """Show the step, the time left, the loss, the last accuracy and the images per second, see `progress_of`."""
    steps, first = training.steps, training.step
    with progress_of("training", steps, first) as advance:
        begin, done, shown = time.perf_counter(), first, 0.0

        def show() -> None:
            nonlocal done, shown
            now, size = time.perf_counter(), training.config.batch_size * len(training.histories)
            if training.step == steps or now - shown > PROGRESS_SECONDS:
                loss = np.asarray(training.loss).reshape(len(training.histories), -1)[:, -1].mean()
                last = [history[-1] for history in training.histories if history]
                accuracies = [row["test_accuracy"] for row in last if "test_accuracy" in row]  # none without classes
                score = f", test accuracy {np.mean(accuracies):.1%}" if accuracies else ""
                rate = (training.step - first) * size / (now - begin)
                advance(training.step - done, f"loss {loss:.3f}{score}, {rate:,.0f} images/s")
                done, shown = training.step, now

        yield show
