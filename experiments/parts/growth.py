"""The time and memory that a call adds in a process of its own, and the slope at which they grow."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.shared.command import Rows
from experiments.shared.elsewhere import Elsewhere
from experiments.shared.stopwatch import Contender

RESIDENT, PEAK, MAPPED = "VmRSS", "VmHWM", "RssFile"  # Linux's names of memory: what is resident, its peak, pages of files
LEAST = 1e-3  # the smallest value of which a logarithm is taken


def slope(rows: Rows, value: str, least: float = LEAST) -> float | None:
    """Return the slope of the logarithm of a value in that of the size, or None for a single size.

    Values below `least` count as `least`.
    """
    if len(rows) < 2:
        return None
    size, measured = np.log([(row["size"], max(row[value], least)) for row in rows]).T
    return float(np.polyfit(size, measured, 1)[0])


def keeping(labels: dict[str, Any], call: Callable[[], Any]) -> list[Contender]:
    """Return two contenders: one runs a call and keeps its result, the other drops what is kept."""
    kept: list[Any] = []
    return [Contender(labels, lambda: kept.append(call())), Contender({}, kept.clear)]


def measure(make: Callable[[Any], Sequence[Contender]], cases: Sequence[Any], repetitions: int) -> Rows:
    """Measure the time and memory of calls, each in a process of its own, which take turns.

    Before every call the earlier result is dropped, and freed memory goes back to the system.

    Args:
      make: A function of a module that builds the two contenders of `keeping` from a case.
      cases: The cases, one per process.
      repetitions: The number of calls after the first one.

    Returns:
      One row per case, with the labels of its contender. `first_ms` and `first_peak_mib` are those of the first call, which
      compiles. `ms`, its quartiles `ms_low` and `ms_high`, and `peak_mib` are those of later calls. Memory is what a call adds
      to what is resident before it, at its peak. `mapped_mib` is the part that pages of files still hold after the call, which
      the system may take back. Where memory cannot be read, it is None.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Elsewhere()) for _ in cases]
        made = [process.contenders(make, case) for process, case in zip(processes, cases, strict=True)]
        calls: list[list[tuple[float, float, float]]] = [[] for _ in cases]
        for _ in range(1 + repetitions):
            for process, contenders, mine in zip(processes, made, calls, strict=True):
                mine.append(_call(process, *contenders))
    return [contender.labels | _summary(*mine) for (contender, _), mine in zip(made, calls, strict=True)]


def _call(process: Elsewhere, contender: Contender, drop: Contender) -> tuple[float, float, float]:
    """Run a contender once. Return its time in ms, the memory that it adds and its pages of files, in MiB.

    Memory that cannot be read is NaN.
    """
    drop.call()
    process.forget_peak()
    resident, mapped = process.memory(RESIDENT), process.memory(MAPPED)
    begin = time.perf_counter()
    contender.call()
    seconds = time.perf_counter() - begin
    peak, mapped_after = process.memory(PEAK), process.memory(MAPPED)
    return 1e3 * seconds, _difference(peak, resident), _difference(mapped_after, mapped)


def _difference(after: float | None, before: float | None) -> float:
    """Return a difference of amounts of memory, at least 0. If one is None, return NaN."""
    return np.nan if after is None or before is None else max(after - before, 0.0)


def _summary(first: tuple[float, float, float], *later: tuple[float, float, float]) -> dict[str, float | None]:
    """Return the columns of a case: the first call, and the medians of the later ones."""
    times, peaks, mapped = zip(*later, strict=True)
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    names = ("first_ms", "first_peak_mib", "ms", "ms_low", "ms_high", "peak_mib", "mapped_mib")
    values = (first[0], first[1], median, low, high, np.median(peaks), np.median(mapped))
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
