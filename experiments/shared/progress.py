"""Progress of the parts of a run, one after the other or in parallel threads."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

Part = TypeVar("Part")
Result = TypeVar("Result")


def at_once(run: Callable[[Part], Result], parts: Iterable[Part], description: str | None = "runs") -> list[Result]:
    """Run parts in parallel threads and show progress.

    Compiling and small steps keep only a single core busy. On CPU there is one thread per core, at most eight. On an
    accelerator there are two, so that one part compiles while the other computes. The results are in the order of the parts. If
    `description` is None, no progress is shown.
    """
    threads, parts = min(os.cpu_count() or 1, 8) if jax.default_backend() == "cpu" else 2, [*parts]
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(progress_of(description, len(parts))) if description else lambda number: None
        pool = stack.enter_context(ThreadPoolExecutor(threads))

        def shown(part: Part) -> Result:
            result = run(part)
            show(1)
            return result

        return list(pool.map(shown, parts))


def track(parts: Iterable[Part], description: str = "runs") -> Iterator[Part]:
    """Yield parts one after the other and show progress, as `rich.progress.track` does."""
    parts = [*parts]
    with progress_of(description, len(parts)) as show:
        for part in parts:
            yield part
            show(1)


@contextlib.contextmanager
def progress_of(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many parts are finished, and the time left.

    A terminal shows a progress bar. Without one, lines are printed; see `PlainProgress`. Yields a function to call with the
    number of newly finished parts.
    """
    from rich import console, progress

    screen = console.Console(stderr=True)
    if not screen.is_terminal:
        with PlainProgress(description, total) as plain:
            yield plain.advance
        return
    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()
    times = (
        progress.TimeElapsedColumn(),
        progress.TextColumn("time left"),
        progress.TimeRemainingColumn(elapsed_when_finished=False),
    )
    redirected = sys.stdout.isatty()  # lines on standard output go above the bar, unless they go to a file
    with progress.Progress(
        *columns, *times, console=screen, speed_estimate_period=600, redirect_stdout=redirected, transient=True
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda number: bar.advance(task, number)


class PlainProgress:
    """Progress as lines on standard error, for output that is no terminal.

    The first line comes after 5 seconds, and then at most one in 10 seconds, if parts were finished or a minute has passed.

    Args:
      description: The start of every line.
      total: The number of parts.
      first: The seconds before the first line.
      pause: The seconds between two lines.
    """

    def __init__(self, description: str, total: int, first: float = 5.0, pause: float = 10.0):
        self.description, self.total, self.first, self.pause = description, total, first, pause
        self.done, self.ended, self.begin = 0, threading.Event(), time.monotonic()
        self.thread = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> "PlainProgress":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def advance(self, number: int) -> None:
        """Count newly finished parts."""
        with LOCK:
            self.done += number

    def line(self, seconds: float) -> str:
        """Return the line after some seconds."""
        left = f", about {duration(seconds * (self.total - self.done) / self.done)} left" if self.done else ""
        return f"{self.description}: {self.done} of {self.total} done after {duration(seconds)}{left}"

    def _print(self) -> None:
        """Print lines until the end."""
        wait, shown, last = self.first, -1, 0.0
        while not self.ended.wait(wait):
            wait, seconds = self.pause, time.monotonic() - self.begin
            if self.done != shown or seconds - last >= 6 * self.pause:
                shown, last = self.done, seconds
                print(self.line(seconds), file=sys.stderr, flush=True)


LOCK = threading.Lock()


def duration(seconds: float) -> str:
    """Return a duration in words.

    Example:
      >>> duration(8.4), duration(100), duration(5000)
      ('8 s', '1 min 40 s', '1 h 23 min')
    """
    minutes, left = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
