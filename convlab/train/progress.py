"""What is shown while training runs."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from convlab.train.config import Config
from convlab.train.mesh import is_first

PROGRESS_SECONDS = 0.2


@contextlib.contextmanager
def progress_bar(config: Config, steps: int, first: int = 1) -> Iterator[Callable[[int, jax.Array, list], None]]:
    """Show step, loss, last accuracy, images per second and time left; yields what tells it how far training is."""
    if not config.progress or not is_first():
        yield lambda step, loss, history: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("loss {task.fields[loss]:.3f}{task.fields[score]} · {task.fields[rate]:,.0f} images/s"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("training", total=steps, loss=math.nan, rate=0.0, score="")
        begin, shown = time.perf_counter(), 0.0

        def show(step: int, loss: jax.Array, history: list[dict[str, float]]) -> None:
            nonlocal shown
            now = time.perf_counter()
            if step == steps or now - shown > PROGRESS_SECONDS:
                shown, rate = now, (step - first + 1) * config.batch_size / (now - begin)
                score = f" · test accuracy {history[-1]['test_accuracy']:.1%}" if history else ""
                bar.update(task, completed=step, loss=float(jnp.ravel(loss)[-1]), rate=rate, score=score)

        yield show
