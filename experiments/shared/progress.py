"""Progress of the parts of a run, one after the other or in parallel threads."""

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

from convlab.progress import PlainProgress as PlainProgress
from convlab.progress import duration as duration
from convlab.progress import progress_of as progress_of
from convlab.progress import track as track

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
