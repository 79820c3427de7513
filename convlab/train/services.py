"""Services around the training loop: checkpoints, logs, scores and a progress bar.

A service is a context manager made from a `Training`. The loop enters it before the first step. It yields a function that the
loop calls after every call of steps. Services are entered in order and called in reverse order, so the first one wraps all
others. A run therefore resumes from its checkpoint before its log starts, and its last row is logged before it is saved.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from convlab.train.checkpoint import CheckpointManager, Checkpoints, Snapshot
from convlab.train.log import Log
from convlab.train.mesh import Exchange
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
                manager.wait_until_finished()
                exit_after(signal_number)

        yield save


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
    """Show a progress bar with step, loss, last accuracy, images per second and remaining time."""
    from rich import progress

    steps, first = training.steps, training.step
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("loss {task.fields[loss]:.3f}{task.fields[score]} · {task.fields[rate]:,.0f} images/s"),
        progress.TimeRemainingColumn(),
    ) as bar:
        task = bar.add_task("training", total=steps, loss=np.nan, rate=0.0, score="")
        begin, shown = time.perf_counter(), 0.0

        def show() -> None:
            nonlocal shown
            now, size = time.perf_counter(), training.config.batch_size * len(training.histories)
            if training.step == steps or now - shown > PROGRESS_SECONDS:
                shown, rate = now, (training.step - first) * size / (now - begin)
                loss = np.asarray(training.loss).reshape(len(training.histories), -1)[:, -1].mean()
                last = [history[-1] for history in training.histories if history]
                accuracies = [row["test_accuracy"] for row in last if "test_accuracy" in row]  # none without classes
                score = f" · test accuracy {np.mean(accuracies):.1%}" if accuracies else ""
                bar.update(task, completed=training.step, loss=loss, rate=rate, score=score)

        yield show
