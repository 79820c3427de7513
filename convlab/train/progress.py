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
def progress_bar(config: Config, steps: int, first: int = 1) -> Iterator[Callable[[int, jax.Array], None]]:
    """Show step, loss, images per second and time left; yields what tells it how far training is."""
    if not config.progress or not is_first():
        yield lambda step, loss: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("loss {task.fields[loss]:.3f} · {task.fields[rate]:,.0f} images/s"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task, begin, shown = bar.add_task("training", total=steps, loss=math.nan, rate=0.0), time.perf_counter(), 0.0

        def show(step: int, loss: jax.Array) -> None:
            nonlocal shown
            now = time.perf_counter()
            if step == steps or now - shown > PROGRESS_SECONDS:
                shown, rate = now, (step - first + 1) * config.batch_size / (now - begin)
                bar.update(task, completed=step, loss=float(jnp.ravel(loss)[-1]), rate=rate)

        yield show
