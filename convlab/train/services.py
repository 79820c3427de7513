"""What goes along with a training: saving, logging, scores and a progress bar, behind one interface.

A service is a context made from a training. It is entered before the first step, and yields what to call after every call of
steps. Services are entered in their order and called in the reverse one, so that the first wraps all others: a run goes on from
its checkpoint before its log is started, and its last row is in the log before it is saved.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from convlab.train.checkpoint import Checkpoints, Run, Saver
from convlab.train.log import Log
from convlab.train.signals import Stop
from convlab.train.step import ParameterMetrics
from convlab.train.training import Training

Service = Callable[[Training], contextlib.AbstractContextManager[Callable[[], None]]]
PROGRESS_SECONDS = 0.2


@contextlib.contextmanager
def saving(checkpoints: Checkpoints, identity: dict[str, Any], training: Training) -> Iterator[Callable[[], None]]:
    """Go on from the last checkpoint; save the run when it is due, at its end, and when a signal asks it to stop."""
    with Saver(checkpoints, identity) as saver, Stop() as stop:
        if run := saver.last(Run(training.state, [], [], 0.0)):
            training.resume(run)
        training.last_checkpoint, every = saver.told, checkpoints.every
        due = {*range(every, training.steps + 1, every)}
        training.ends |= due

        def save() -> None:
            is_due = training.is_over or training.step in due
            is_asked = stop.is_asked(training.placement, is_due)
            if is_due or is_asked:
                saver.save(training.run())
            if is_asked:
                saver.wait()
                stop.obey()

        yield save


@contextlib.contextmanager
def logging(log: Log, training: Training) -> Iterator[Callable[[], None]]:
    """Write every row of the history as soon as it is known."""
    [history] = training.histories
    with log.writer() as writer:
        writer.start(history)
        yield lambda: writer.add(history[-1]) if history[-1:] and history[-1]["step"] == training.step else None


@contextlib.contextmanager
def scoring(parameter_metrics: ParameterMetrics | None, training: Training) -> Iterator[Callable[[], None]]:
    """Score the runs, and what is watched of their parameters, as often as their configuration says."""
    scored, watched = training.config.scored(training.steps), parameter_metrics and jax.jit(parameter_metrics)
    training.ends |= scored
    yield lambda: training.score(watched) if training.step in scored else None


@contextlib.contextmanager
def showing(training: Training) -> Iterator[Callable[[], None]]:
    """Show step, loss, last accuracy, images per second and time left."""
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
                accuracies = [history[-1]["test_accuracy"] for history in training.histories if history]
                score = f" · test accuracy {np.mean(accuracies):.1%}" if accuracies else ""
                bar.update(task, completed=training.step, loss=loss, rate=rate, score=score)

        yield show
