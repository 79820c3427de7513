"""Progress of long work on standard error: a bar in a terminal, plain lines in a file, a pipe or a notebook."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Part = TypeVar("Part")
LOCK = threading.Lock()


@contextlib.contextmanager
def progress_of(description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show on standard error how many parts are finished, and the time left.

    A terminal shows a progress bar. Without one, lines are printed; see `PlainProgress`.

    Args:
      description: The name of the parts.
      total: The number of parts.
      done: The number of parts that were finished before.

    Yields:
      A function to call with the number of newly finished parts, and with a text to show if there is news, such as a loss.
    """
    from rich import console, progress, table, text

    screen = console.Console(stderr=True)
    if not screen.is_terminal:
        with PlainProgress(description, total, done) as plain:
            yield plain.advance
        return

    class News(progress.TextColumn):
        """A text that is cut if the terminal is too narrow."""

        def render(self, task: progress.Task) -> text.Text:
            news = super().render(task)
            news.no_wrap, news.overflow = True, "ellipsis"
            return news

    uncut: dict[str, Any] = {"table_column": table.Column(no_wrap=True)}  # a narrow terminal cuts the news only
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(12),
        progress.MofNCompleteColumn(**uncut),
        News("{task.fields[news]}", markup=False, table_column=table.Column()),
        progress.TextColumn("time left"),
        progress.TimeRemainingColumn(elapsed_when_finished=False, **uncut),
    )
    redirected = sys.stdout.isatty()  # lines on standard output go above the bar, unless they go to a file
    with progress.Progress(
        *columns, console=screen, speed_estimate_period=600, redirect_stdout=redirected, transient=True
    ) as bar:
        task = bar.add_task(description, total=total, completed=done, news="")

        def advance(number: int, news: str | None = None) -> None:
            fields: dict[str, Any] = {} if news is None else {"news": news}
            bar.update(task, advance=number, **fields)

        yield advance


def track(parts: Iterable[Part], description: str = "runs") -> Iterator[Part]:
    """Yield parts one after the other and show progress, as `rich.progress.track` does.

    Example:
      >>> list(track("abc"))
      ['a', 'b', 'c']
    """
    parts = [*parts]
    with progress_of(description, len(parts)) as show:
        for part in parts:
            yield part
            show(1)


class PlainProgress:
    """Progress as lines on standard error, for output that is no terminal.

    The first line comes after 5 seconds, and then at most one in 10 seconds, if parts were finished or a minute has passed.
    After lines the last one tells the end.

    Args:
      description: The start of every line.
      total: The number of parts.
      done: The number of parts that were finished before.
      first: The seconds before the first line.
      pause: The seconds between two lines.
    """

    def __init__(self, description: str, total: int, done: int = 0, *, first: float = 5.0, pause: float = 10.0):
        self.description, self.total, self.first, self.pause = description, total, first, pause
        self.before, self.done, self.news = done, done, ""
        self.ended, self.begin = threading.Event(), time.monotonic()
        self.thread = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> "PlainProgress":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def advance(self, number: int, news: str | None = None) -> None:
        """Count newly finished parts."""
        with LOCK:
            self.done += number
            self.news = self.news if news is None else news

    def line(self, seconds: float) -> str:
        """Return the line after some seconds."""
        new, missing = self.done - self.before, self.total - self.done
        left = f", about {duration(seconds * missing / new)} left" if new and missing else ""
        news = f", {self.news}" if self.news else ""
        return f"{self.description}: {self.done} of {self.total} done after {duration(seconds)}{left}{news}"

    def _print(self) -> None:
        """Print lines until the end."""
        wait, shown, last, is_over = self.first, -1, 0.0, False
        while not is_over:
            is_over = self.ended.wait(wait)
            wait, seconds = self.pause, time.monotonic() - self.begin
            if self.done != shown and not (is_over and shown < 0) or seconds - last >= 6 * self.pause:
                shown, last = self.done, seconds
                print(self.line(seconds), file=sys.stderr, flush=True)


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
