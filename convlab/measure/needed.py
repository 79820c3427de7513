"""How many examples it takes: sizes of training sets bracketed seed by seed, and how the need grows with a task.

What learns is a function of sizes and seeds that returns scores, all of a round at once: a compiled one that looks at the first
of many examples, as `convlab.train.learner` makes it, or `one_by_one` of whatever can be trained.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from convlab.geometry import as_integer
from convlab.report import Interval

Learn = Callable[[Int[np.ndarray, "s"], Int[np.ndarray, "s"]], Float[np.ndarray, "s"]]


class Needed(NamedTuple):
    """How many examples it took to reach a target.

    Attributes:
      examples: Of every seed, between the sizes tried where the score crosses the target; inf where the largest size did not
        reach it, and the least size where that did already.
      scores: By seed and size, all that was tried.
    """

    examples: tuple[float, ...]
    scores: dict[tuple[int, int], float]


class Slope(NamedTuple):
    """How a need grows: the exponent, and a bootstrap interval over seeds.

    Attributes:
      exponent: Of the power law.
      at_one: The need that it has at 1.
    """

    exponent: Interval
    at_one: float


def one_by_one(learn: Callable[[int, int], float]) -> Learn:
    """Make of something that learns from one size and seed at a time what `examples_needed` asks for."""

    def scores(sizes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return np.array([learn(int(size), int(seed)) for size, seed in zip(sizes, seeds, strict=True)], float)

    return scores


def examples_needed(
    learn: Learn,
    target: float,
    seeds: Sequence[int],
    *,
    least: int,
    most: int,
    factor: float = math.sqrt(2),
    path: str | os.PathLike[str] | None = None,
    show: Callable[[int, int, float], None] = lambda size, seed, score: None,
) -> Needed:
    r"""Find for every seed the smallest training set that reaches a target, on a geometric grid of sizes.

    $$n^* = n_j \,(n_{j+1} / n_j)^{(t - s_j) / (s_{j+1} - s_j)}, \qquad s_j < t \le s_{j+1}$$

    Steps along the grid double until a size reaches the target, and then are halved between the last two; so few large sizes
    are tried, and none far beyond what is needed. All seeds take a step in one call, each at its own size, so that what learns
    is compiled once. Scores are taken to grow with the size: where noise makes two crossings, one of them is found.

    Args:
      learn: Takes sizes and seeds, as many of each as there are seeds, and returns the score of each, the larger the better.
      target: Score to reach.
      seeds: Of the runs.
      least: Smallest size.
      most: Largest size.
      factor: Between neighbouring sizes of the grid.
      path: File to which every score is added, and from which those of a run before are taken, of the same `learn`. A last
        line that was cut off is left out.
      show: Told every new score as it is known: size, seed, score.

    Raises:
      ValueError: No seeds, sizes or factor out of order, or a score is not a number.

    Example:
      >>> learn = one_by_one(lambda size, seed: 1 - 10 / size)
      >>> [round(n) for n in examples_needed(learn, 0.9, [0], least=10, most=1000).examples]
      [101]
    """
    grid = _grid(least, most, factor)
    if not seeds:
        raise ValueError("seeds is empty; needs at least one run")
    scores = {} if path is None else _read(pathlib.Path(path))
    ends = {seed: (-1, len(grid)) for seed in seeds}  # the last that fell short, the first that did not
    while waiting := {seed: grid[place] for seed in seeds if (place := _next(*ends[seed], len(grid))) is not None}:
        missing = [seed for seed, size in waiting.items() if (seed, size) not in scores]
        if missing:
            asked = [waiting.get(seed, grid[0]) for seed in seeds]  # those that are done learn from the fewest, for nothing
            found = np.asarray(learn(np.array(asked), np.array(seeds)), float)
            for seed, size, score in zip(seeds, asked, found.tolist(), strict=True):
                if seed in missing:
                    scores[seed, size] = score
                    show(size, seed, score)
            if path is not None:
                _add(pathlib.Path(path), {key: scores[key] for key in ((seed, waiting[seed]) for seed in missing)})
        for seed, size in waiting.items():
            if math.isnan(scores[seed, size]):
                raise ValueError(f"the score of {size} examples and seed {seed} is nan, which neither reaches a target nor not")
            low, high = ends[seed]
            place = grid.index(size)
            ends[seed] = (low, place) if scores[seed, size] >= target else (place, high)
    return Needed(tuple(_crossing(grid, *ends[seed], seed, scores, target) for seed in seeds), scores)


def slope(needed: Mapping[float, Sequence[float]], *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Slope:
    r"""Fit a power law to needs, and tell how sure the seeds make of its exponent.

    $$\log n^* = \alpha \log k + \beta$$

    by least squares over all seeds; the interval is that of the bootstrap, which draws seeds anew at every k.

    Args:
      needed: n* of every seed, by what was varied; see `Needed.examples`.
      draws: Of the bootstrap.
      seed: Of the draws.
      level: Probability that the interval stands for.

    Raises:
      ValueError: Fewer than two values were varied, or a need is not known (inf: the target was not reached).

    Example:
      >>> law = slope({2.0: [12.0, 12.0], 4.0: [48.0, 48.0], 8.0: [192.0, 192.0]})
      >>> round(law.exponent.mean, 6), round(law.at_one, 6)
      (2.0, 3.0)

    Reference: Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    if len(needed) < 2:
        raise ValueError(f"needed has the values {list(needed)}; a slope needs at least two")
    if unknown := [k for k, each in needed.items() if not (len(each) and np.isfinite(each).all() and min(each) > 0)]:
        raise ValueError(f"the target was not reached at {unknown}: what was needed there is not known, only that it is more")
    logs = [np.log(np.asarray(each, float)) for each in needed.values()]
    k = np.log(np.asarray(list(needed), float))
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.choice(each, (draws, len(each))).mean(1) for each in logs], 1)
    weights = np.array([len(each) for each in logs], float)
    centred = k - np.average(k, weights=weights)
    fit = centred * weights / np.sum(weights * centred**2)
    exponent = float(fit @ [each.mean() for each in logs])
    low, high = np.quantile(drawn @ fit, ((1 - level) / 2, (1 + level) / 2))
    mean = np.average([each.mean() for each in logs], weights=weights)
    return Slope(Interval(exponent, float(low), float(high)), float(np.exp(mean - exponent * np.average(k, weights=weights))))


def _grid(least: int, most: int, factor: float) -> list[int]:
    least = as_integer("least", least)
    if most < least or not factor > 1:
        raise ValueError(f"least is {least}, most {most}, factor {factor}; needs sizes that grow from the one to the other")
    steps = math.floor(math.log(most / least) / math.log(factor) + 1e-9)
    return sorted({round(least * factor**step) for step in range(steps + 1)} | {most})


def _next(low: int, high: int, many: int) -> int | None:
    """The next place of the grid to try, between the last that fell short and the first that did not; None at the end."""
    if high - low <= 1:
        return None
    return min(2 * low + 2, many - 1) if high == many else (low + high) // 2


def _crossing(grid: list[int], low: int, high: int, seed: int, scores: dict[tuple[int, int], float], target: float) -> float:
    if high == len(grid):
        return math.inf
    if low < 0:
        return float(grid[high])
    one, two = grid[low], grid[high]
    below, above = scores[seed, one], scores[seed, two]
    return one * (two / one) ** ((target - below) / (above - below))


def _read(path: pathlib.Path) -> dict[tuple[int, int], float]:
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return {(row["seed"], row["size"]): row["score"] for row in rows}


def _add(path: pathlib.Path, scores: Mapping[tuple[int, int], float]) -> None:
    lines = [json.dumps({"seed": seed, "size": size, "score": score}) for (seed, size), score in scores.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("" if whole else "\n")
        file.write("".join(f"{line}\n" for line in lines))
