"""How many examples it takes: sizes of training sets bracketed seed by seed, and how the need grows with a task.

What learns is a function of sizes and seeds that returns scores, all of a round at once: a compiled one that looks at the first
of many examples, as `convlab.train.learner` makes it, or `one_by_one` of whatever can be trained.
"""

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from convlab.geometry import as_integer
from convlab.report import Interval, add_lines, read_lines

FARTHEST = 8  # times the last size that fell short, at most, is tried next
Learn = Callable[[Int[np.ndarray, "s"], Int[np.ndarray, "s"]], Float[np.ndarray, "s"]]


class SampleComplexity(NamedTuple):
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


class _OneByOne(NamedTuple):
    learn: Callable[[int, int], float]

    def __call__(self, sizes: Int[np.ndarray, "s"], seeds: Int[np.ndarray, "s"]) -> Float[np.ndarray, "s"]:
        return np.array([self.learn(int(size), int(seed)) for size, seed in zip(sizes, seeds, strict=True)], float)


def one_by_one(learn: Callable[[int, int], float]) -> Learn:
    """Make of something that learns from one size and seed at a time what `examples_needed` asks for.

    It is never asked for what is known.
    """
    return _OneByOne(learn)


def examples_needed(
    learn: Learn,
    target: float,
    seeds: Sequence[int],
    *,
    least: int,
    most: int,
    factor: float = math.sqrt(2),
    path: str | os.PathLike[str] | None = None,
    of: str = "",
    show: Callable[[int, int, float], None] = lambda size, seed, score: None,
) -> SampleComplexity:
    r"""Find for every seed the smallest training set that reaches a target, on a geometric grid of sizes.

    $$n^* = n_j \,(n_{j+1} / n_j)^{(t - s_j) / (s_{j+1} - s_j)}, \qquad s_j < t \le s_{j+1}$$

    Steps along the grid double, up to a factor of eight in size, until a size reaches the target, and then are halved between
    the last two; so few large sizes are tried, and none far beyond what is needed. All seeds take a step in one call, each at
    its own size, so that what learns is compiled once. Scores are taken to grow with the size: where noise makes two crossings,
    one of them is found.

    Args:
      learn: Takes sizes and seeds, as many of each as there are seeds, and returns the score of each, the larger the better.
      target: Score to reach.
      seeds: Of the runs.
      least: Smallest size.
      most: Largest size.
      factor: Between neighbouring sizes of the grid.
      path: File to which every score is added as it is known, and from which those of a run before are taken. Lines that are
        damaged are left out.
      of: What learns, and by which numbers; scores that the file has of anything else are left alone.
      show: Told every new score as it is known: size, seed, score.

    Raises:
      ValueError: No seeds, sizes or factor out of order, a target or a score that is not a number, or not one score a seed.
      TypeError: A size or a seed is not an integer.

    Example:
      >>> learn = one_by_one(lambda size, seed: 1 - 10 / size)
      >>> [round(n) for n in examples_needed(learn, 0.9, [0], least=10, most=1000).examples]
      [101]
    """
    grid = _grid(as_integer("least", least), as_integer("most", most), factor)
    seeds = [as_integer("seeds", seed, least=0) for seed in seeds]
    if not seeds or math.isnan(target):
        raise ValueError(f"seeds are {seeds} and the target is {target}; needs at least one run, and a number to reach")
    far = max(1, math.floor(math.log(FARTHEST) / math.log(factor) + 1e-9))
    known = {} if path is None else _read(pathlib.Path(path), of)
    scores = {}
    ends = {seed: (-1, len(grid)) for seed in seeds}  # the last that fell short, the first that did not
    while waiting := {seed: grid[place] for seed in seeds if (place := _next(*ends[seed], len(grid), far)) is not None}:
        missing = {seed: size for seed, size in waiting.items() if (seed, size) not in known}
        if missing:
            # those that are done learn from the fewest, for nothing, so that there are as many runs in every call
            asked = missing if isinstance(learn, _OneByOne) else {seed: waiting.get(seed, grid[0]) for seed in seeds}
            found = np.asarray(learn(np.array(list(asked.values())), np.array(list(asked))), float)
            if found.shape != (len(asked),):
                raise ValueError(f"the scores have shape {found.shape}; needs one for each of {len(asked)} runs")
            told = zip(asked.items(), found.tolist(), strict=True)
            new = {run: score for run, score in told if run[0] in missing}
            good = {run: score for run, score in new.items() if not math.isnan(score)}
            if path is not None:
                _add(pathlib.Path(path), of, good)
            known |= good
            for (seed, size), score in good.items():
                show(size, seed, score)
            if bad := [run for run in new if run not in good]:
                raise ValueError(f"scores of (seed, size) {bad} are nan, which neither reaches a target nor falls short of it")
        for seed, size in waiting.items():
            scores[seed, size] = known[seed, size]
            low, high = ends[seed]
            place = grid.index(size)
            ends[seed] = (low, place) if scores[seed, size] >= target else (place, high)
    tried = [{size: score for (of_seed, size), score in scores.items() if of_seed == seed} for seed in seeds]
    return SampleComplexity(tuple(crossing(curve, target) for curve in tried), scores)


def crossing(scores: Mapping[int, float], target: float) -> float:
    r"""Interpolate the size of training set at which a score reaches a target, between sizes that were tried.

    $$n^* = n_j \,(n_{j+1} / n_j)^{(t - s_j) / (s_{j+1} - s_j)}$$

    Here $n_{j+1}$ is the smallest size whose score reaches the target $t$, and $n_j$ the size below it.

    Args:
      scores: The score of one run at each size.
      target: The score to reach.

    Returns:
      The size; the smallest that was tried if its score reaches the target, and inf if no score does.

    Raises:
      ValueError: There are no scores, or a number is nan.

    Example:
      >>> round(crossing({100: 0.8, 400: 0.9, 1600: 0.95}, 0.85))
      200
    """
    if not scores or any(math.isnan(number) for number in (target, *scores.values())):
        raise ValueError(f"scores are {dict(scores)} and the target is {target}; needs numbers, at one size at least")
    sizes = sorted(scores)
    high = next((size for size in sizes if scores[size] >= target), None)
    if high is None:
        return math.inf
    low = max((size for size in sizes if size < high), default=high)
    if low == high or not math.isfinite(scores[high] - scores[low]):
        return float(high)
    return low * (high / low) ** ((target - scores[low]) / (scores[high] - scores[low]))


def slope(needed: Mapping[float, Sequence[float]], *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Slope:
    r"""Fit a power law to needs, and tell how sure the seeds make of its exponent.

    $$\log n^* = \alpha \log k + \beta$$

    by least squares over all seeds; the interval is that of the bootstrap, which draws seeds anew at every k, with deviations
    larger by $\sqrt{s / (s - 1)}$ for s seeds. Of few seeds it is still too narrow: simulated, 95 % stands for 83 of two
    seeds, 90 of four and 91 of eight. With a single seed at some k its ends are nan.

    Args:
      needed: n* of every seed, by what was varied; see `SampleComplexity.examples`.
      draws: Of the bootstrap.
      seed: Of the draws.
      level: Probability that the interval stands for.

    Raises:
      ValueError: Fewer than two values were varied, one is not positive, a need is not a positive number (inf: the target was
        not reached), or there are no draws or levels outside 0 to 1.

    Example:
      >>> law = slope({2.0: [12.0, 12.0], 4.0: [48.0, 48.0], 8.0: [192.0, 192.0]})
      >>> round(law.exponent.mean, 6), round(law.at_one, 6)
      (2.0, 3.0)

    Reference: Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    if len(needed) < 2 or not all(k > 0 for k in needed):
        raise ValueError(f"needed has the values {list(needed)}; a slope needs at least two, all positive")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws is {draws} and level {level}; needs at least one, and a probability between 0 and 1")
    logs = {k: np.log(np.atleast_1d(np.asarray(each, float))) for k, each in needed.items() if np.min(each, initial=1) > 0}
    if unknown := [k for k in needed if k not in logs or not (logs[k].size and np.isfinite(logs[k]).all())]:
        raise ValueError(f"needs at {unknown} are not positive numbers (inf where the target was not reached)")
    x = np.log(np.asarray(list(needed), float))
    rng = np.random.default_rng(seed)
    drawn = np.stack([_drawn_means(each, draws, rng) for each in logs.values()], 1)
    means, weights = np.array([[each.mean(), len(each)] for each in logs.values()]).T
    centred = x - np.average(x, weights=weights)
    fit = centred * weights / np.sum(weights * centred**2)
    exponent = float(fit @ means)
    low, high = np.quantile(drawn @ fit, ((1 - level) / 2, (1 + level) / 2))
    at_one = math.exp(np.average(means, weights=weights) - exponent * np.average(x, weights=weights))
    return Slope(Interval(exponent, float(low), float(high)), at_one)


def _drawn_means(each: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of samples drawn anew, as far from the mean as those of new seeds would be; nan of a single one."""
    if len(each) == 1:
        return np.full(draws, np.nan)
    drawn = rng.choice(each, (draws, len(each))).mean(1)
    return each.mean() + math.sqrt(len(each) / (len(each) - 1)) * (drawn - each.mean())


def _grid(least: int, most: int, factor: float) -> list[int]:
    if most < least or not 1 < factor < math.inf:
        raise ValueError(f"least is {least}, most {most}, factor {factor}; needs sizes that grow from the one to the other")
    steps = math.floor(math.log(most / least) / math.log(factor) + 1e-9)
    return sorted({round(least * factor**step) for step in range(steps + 1)} | {most})


def _next(low: int, high: int, many: int, far: int) -> int | None:
    """The next place of the grid to try, between the last that fell short and the first that did not; None at the end."""
    if high - low <= 1:
        return None
    return min(2 * low + 2, low + far, many - 1) if high == many else (low + high) // 2


def _read(path: pathlib.Path, of: str) -> dict[tuple[int, int], float]:
    scores = {}
    for row in read_lines(path):
        try:
            if row["of"] == of and not math.isnan(row["score"]):
                scores[as_integer("seed", row["seed"], least=0), as_integer("size", row["size"])] = float(row["score"])
        except (ValueError, TypeError, KeyError):
            continue
    return scores


def _add(path: pathlib.Path, of: str, scores: Mapping[tuple[int, int], float]) -> None:
    add_lines(path, [{"of": of, "seed": seed, "size": size, "score": score} for (seed, size), score in scores.items()])
