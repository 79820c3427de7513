"""What the benchmarks share: contenders timed in turn in one process, and the ceilings of the machine that they run on."""

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
    """Something to time.

    Args:
      labels: What goes into its row.
      call: Runs it once and waits for the result.
      steps: Units of work in one call; times are per unit.
      compile_seconds: Of tracing and compiling; None where nothing is compiled ahead.
      temporary_bytes: That the compiled program asks for beside arguments and results.
    """

    labels: dict[str, Any]
    call: Callable[[], Any]
    steps: int = 1
    compile_seconds: float | None = None
    temporary_bytes: int | None = None


def compiled(labels: dict[str, Any], function: Callable, arguments: Sequence[Any], steps: int = 1) -> Contender:
    """Compile a function of arrays for these arguments."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    memory = program.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes
    return Contender(labels, lambda: jax.block_until_ready(program(*arguments)), steps, seconds, temporary)


def interleave(contenders: Sequence[Contender], seconds: float, least: int, pause: float = 0.0) -> list[dict[str, Any]]:
    """Time contenders in turn, `seconds` of work or `least` calls each, whichever is longer; one row each.

    Before each call all wait for `pause` seconds: PyTorch's threads spin for some 10 ms before they fall asleep.
    The slowest stop after `PATIENCE` times as many seconds, at one call at least beside the one that warms up. Each row has the
    labels, the median `ms`, its quartiles `ms_low` and `ms_high`, the number of `calls`, `compile_s` and `temp_mib`.
    """
    times: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender.call()

    def unfinished(each: list[float]) -> bool:
        return not each or (len(each) < least or sum(each) < seconds) and sum(each) <= PATIENCE * seconds

    while any(map(unfinished, times)):
        for contender, each in zip(contenders, times, strict=True):
            if unfinished(each):
                time.sleep(pause)
                begin = time.perf_counter()
                contender.call()
                each.append(time.perf_counter() - begin)
    rows = []
    for contender, each in zip(contenders, times, strict=True):
        low, median, high = 1e3 / contender.steps * np.quantile(each, (0.25, 0.5, 0.75))
        memory = contender.temporary_bytes
        rows.append(
            {
                **contender.labels,
                "ms": float(median),
                "ms_low": float(low),
                "ms_high": float(high),
                "calls": len(each),
                "compile_s": contender.compile_seconds,
                "temp_mib": None if memory is None else memory / 2**20,
            }
        )
    return rows


def ceilings(dtype: str, least: int, large: bool = True) -> dict[str, float]:
    """Measure what the machine can do: `gflops` of a matrix product, `gbs` of adding 1 in place, `fresh_gbs` into new memory.

    The last two differ on CPU: the system hands out new memory page by page, and has to clear it.
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
    """Return the milliseconds that arithmetic or bytes need at the machine's ceilings, and which of the two needs more."""
    arithmetic, traffic = flops / 1e6 / roof["gflops"], moved / 1e6 / roof["gbs"]
    return max(arithmetic, traffic), "arithmetic" if arithmetic > traffic else "bytes"
