"""Timing for the benchmarks: contenders that alternate in one process, and peak rates of the machine."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PATIENCE = 10


@dataclasses.dataclass
class Contender:
    """One implementation to be timed.

    Args:
      labels: The columns that describe it in its row.
      call: A function that runs it once and waits for the result.
      steps: The number of units of work in one call. Times are per unit.
      compile_seconds: The time for tracing and compiling. None if nothing is compiled ahead of time.
      temporary_bytes: The memory that the compiled program allocates in addition to arguments and results.
    """

    labels: dict[str, Any]
    call: Callable[[], Any]
    steps: int = 1
    compile_seconds: float | None = None
    temporary_bytes: int | None = None


def compiled(labels: dict[str, Any], function: Callable, arguments: Sequence[Any], steps: int = 1) -> Contender:
    """Compile a function for given arguments and return it as a contender."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    memory = program.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes
    return Contender(labels, lambda: jax.block_until_ready(program(*arguments)), steps, seconds, temporary)


def interleave(contenders: Sequence[Contender], seconds: float, least: int, pause: float = 0.0) -> list[dict[str, Any]]:
    """Time contenders that take turns in one process.

    Each contender runs for `seconds` of work or `least` calls, whichever is longer. The slowest ones stop after `PATIENCE`
    times as many seconds, but not before one call after the warm-up. Before each call there is a pause of `pause` seconds,
    because PyTorch's threads spin for some 10 ms before they fall asleep.

    The result has one row per contender, with its labels, the median time `ms`, the quartiles `ms_low` and `ms_high`, the
    number of `calls`, `compile_s` and `temp_mib`.
    """
    times: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender.call()

    def unfinished(elapsed: list[float]) -> bool:
        return not elapsed or (len(elapsed) < least or sum(elapsed) < seconds) and sum(elapsed) <= PATIENCE * seconds

    while any(map(unfinished, times)):
        for contender, elapsed in zip(contenders, times, strict=True):
            if unfinished(elapsed):
                time.sleep(pause)
                begin = time.perf_counter()
                contender.call()
                elapsed.append(time.perf_counter() - begin)
    rows = []
    for contender, elapsed in zip(contenders, times, strict=True):
        low, median, high = 1e3 / contender.steps * np.quantile(elapsed, (0.25, 0.5, 0.75))
        memory = contender.temporary_bytes
        rows.append(
            {
                **contender.labels,
                "ms": float(median),
                "ms_low": float(low),
                "ms_high": float(high),
                "calls": len(elapsed),
                "compile_s": contender.compile_seconds,
                "temp_mib": None if memory is None else memory / 2**20,
            }
        )
    return rows


def ceilings(dtype: str, least: int, large: bool = True) -> dict[str, float]:
    """Measure the machine's peak rates: `gflops`, `gbs` and `fresh_gbs`.

    `gflops` is the rate of a matrix product, `gbs` that of adding 1 in place, and `fresh_gbs` that of adding 1 into new memory.
    The last two differ on CPU, because the system hands out new memory page by page and has to clear it.
    """
    side, size = (2048, 2**24) if large else (64, 2**10)
    matrix, vector = jnp.ones((side, side), dtype), jnp.ones(size, dtype)
    loop = 8

    def in_place(a: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, loop, lambda _, a: a + 1, a)[0]

    product, warm, fresh = interleave(
        [
            compiled({}, lambda a: a @ a, [matrix]),
            compiled({}, in_place, [vector], loop),
            compiled({}, lambda a: a + 1, [vector]),
        ],
        0.3 if large else 0.0,
        least,
    )
    moved = 2 * vector.nbytes / 1e6
    return {"gflops": 2 * side**3 / 1e6 / product["ms"], "gbs": moved / warm["ms"], "fresh_gbs": moved / fresh["ms"]}


def floor(roof: dict[str, float], flops: float, moved: float) -> tuple[float, str]:
    """Return the least time in ms at the machine's peak rates, and its bound.

    The bound is "arithmetic" or "bytes".
    """
    arithmetic, traffic = flops / 1e6 / roof["gflops"], moved / 1e6 / roof["gbs"]
    return max(arithmetic, traffic), "arithmetic" if arithmetic > traffic else "bytes"
