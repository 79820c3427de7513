"""How sure the seeds make us: the mean over runs and its interval."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convlab.report.rows import Row, check_columns, plain

SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)
"""The bounds of what cannot be less than nothing or more than all, and of what cannot be less than nothing."""
ROUNDING = 1e-6
"""The share of a range by which a value may pass its bounds: shares are often summed in single precision."""


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Iterable[Any], level: float = 0.95, *, bounds: tuple[float, float] | None = None) -> Interval:
    r"""Estimate a mean and its Student-t interval from independent runs.

    $$\bar x \pm t_{n-1} \, s / \sqrt n$$

    With `bounds` the interval is taken on a scale $\varphi$ and brought back, so that its ends stay where the quantity can be:

    $$\varphi^{-1}\big(\varphi(\bar x) \pm t_{n-1} \, \varphi'(\bar x) \, s / \sqrt n\big)$$

    Between two finite bounds a and b, $\varphi(x) = \arcsin \sqrt{(x - a) / (b - a)}$, and ends beyond its range are put at a
    bound. Above a alone it is $\log(x - a)$, below b alone $-\log(b - x)$. The derivative carries the deviation s over to the
    scale, so values may lie on a bound. The mean stays the arithmetic one, and it lies between the ends.

    Args:
      values: One number per run. One NaN makes all three numbers NaN: a run that diverged is not left out.
      level: The probability that the interval covers the true mean of Gaussian values, between 0 and 1.
      bounds: The least and the largest number that the quantity can be, such as (0, 1) for a share or (0, inf) for a time.
        If None, there are none. Values that pass a finite range by a millionth of it, as rounded shares do, are put back.

    Returns:
      The mean and both ends; the ends are NaN for a single run, which says nothing of the spread.

    Raises:
      ValueError: There are no values, `level` is not between 0 and 1, the bounds are in the wrong order, or a value is
        outside them.

    Example:
      >>> round(interval([0.91, 0.93, 0.95]).low, 4)  # 0.93 - 4.303 * 0.02 / sqrt(3)
      0.8803
      >>> _, low, high = interval([1.0, 0.99, 0.93], bounds=(0, 1))  # without bounds 0.8792 to 1.0674
      >>> round(low, 4), round(high, 4)
      (0.8062, 1.0)

    References: Student, 1908; Bartlett 1947, The use of transformations.
    """
    from scipy.special import stdtrit

    low, high = bounds or (-math.inf, math.inf)
    x = _inside(np.array([float(value) for value in values]), low, high)
    check_level(level)
    with np.errstate(invalid="ignore"):
        mean = float(np.clip(x.mean(), x.min(), x.max()))  # a rounded mean of equal values may differ from them
        if x.size == 1:
            return Interval(mean, math.nan, math.nan)
        spread = x.std(ddof=1) if np.ptp(x) else 0.0
        reach = float(stdtrit(x.size - 1, (1 + level) / 2) * spread / x.size**0.5)
    return Interval(mean, *(_ends(mean, reach, low, high) if reach > 0 else (mean - reach, mean + reach)))


def _inside(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the values between the bounds, those that rounding put outside at a bound."""
    if x.size == 0:
        raise ValueError("values is empty: an interval needs at least one run")
    if not low < high:
        raise ValueError(f"bounds are ({low}, {high}) but need the least number first, then a larger one")
    slack = ROUNDING * (high - low) if math.isfinite(high - low) else 0.0
    outside = x[(x < low - slack) | (x > high + slack)]
    if outside.size:
        raise ValueError(f"values holds {outside[0]:g}, which is outside of the bounds ({low:g}, {high:g})")
    return np.clip(x, low, high)


def _ends(mean: float, reach: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends of an interval that reaches as far without bounds, taken on a scale within them."""
    reaches, within = np.array([-reach, reach]), low < mean < high  # a mean on a bound is one that was rounded to it
    with np.errstate(divide="ignore", over="ignore"):
        if within and math.isfinite(high - low):
            share = (mean - low) / (high - low)
            turns = reaches / (high - low) / (2 * np.sqrt(share * (1 - share)))
            ends = low + (high - low) * np.sin(np.clip(np.arcsin(np.sqrt(share)) + turns, 0, np.pi / 2)) ** 2
        elif within and math.isfinite(low):
            ends = low + (mean - low) * np.exp(reaches / (mean - low))
        elif within and math.isfinite(high):
            ends = high - (high - mean) * np.exp(-reaches / (high - mean))
        else:
            ends = mean + reaches
    first, last = np.clip(ends, low, high).tolist()
    return min(first, mean), max(last, mean)  # in order, however they were rounded


def summarise(
    rows: Sequence[Row],
    by: str | Sequence[str],
    values: str | Sequence[str],
    level: float = 0.95,
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> list[dict[str, Any]]:
    """Average the runs of every group over their seeds.

    Args:
      rows: One flat row per run.
      by: The names whose values make a group. A name that is constant within groups (parameters, say) may be added here to
        keep it in the summary.
      values: The names to average.
      level: The probability that an interval covers the true mean of Gaussian values, between 0 and 1.
      bounds: The least and the largest number that a value can be, by its name; see `interval`. Values that are not named
        have none.

    Returns:
      One row per group in order of first appearance: the names of `by`, then for every value its mean `<value>`, and
      `<value>_low` and `<value>_high`, then `seeds`, the number of runs. None where no run of the group has the value.

    Raises:
      ValueError: There are no rows, no row has one of the names, only some runs of a group have a value, a value is outside
        its bounds, or `bounds` names what is not averaged.

    Example:
      >>> rows = [{"rung": "conv", "seed": s, "accuracy": a} for s, a in enumerate([0.9, 0.8])]
      >>> [row] = summarise(rows, by="rung", values="accuracy", bounds={"accuracy": (0, 1)})
      >>> row["rung"], round(row["accuracy"], 3), row["seeds"]
      ('conv', 0.85, 2)
    """
    by, values = names(by), names(values)
    check_columns(rows, (*by, *values))
    if idle := [name for name in bounds or {} if name not in values]:
        raise ValueError(f"bounds names {idle} but the values are {values}")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(plain(name, row.get(name)) for name in by), []).append(row)
    summary = []
    for key, runs in groups.items():
        line: dict[str, Any] = dict(zip(by, key, strict=True))
        for name in values:
            line |= _average(name, key, runs, level, (bounds or {}).get(name))
        summary.append(line | {"seeds": len(runs)})
    return summary


def interval_of(row: Row, name: str) -> Interval:
    """Collect what `summarise` says of a value in one row: its mean and both ends.

    Example:
      >>> [row] = summarise([{"seed": s, "accuracy": a} for s, a in enumerate([0.91, 0.93, 0.95])], [], "accuracy")
      >>> round(interval_of(row, "accuracy").low, 4)
      0.8803
    """
    return Interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))


def best(summary: Sequence[Row], by: str | Sequence[str], value: str) -> list[dict[str, Any]]:
    """Keep of every group the row of the highest value: a setting that was chosen, by validation images say.

    Args:
      summary: Rows, such as `summarise` makes them.
      by: Names whose values make a group.
      value: Name of what is to be high; a row that lacks it, or has NaN, is never before one that has it.

    Returns:
      One row per group in order of first appearance; of equal ones the first.

    Raises:
      ValueError: No row has one of the names.

    Example:
      >>> rows = [{"rung": "conv", "rate": rate, "validation": score} for rate, score in ((0.1, 0.8), (0.3, 0.9), (1.0, None))]
      >>> best(rows, "rung", "validation")
      [{'rung': 'conv', 'rate': 0.3, 'validation': 0.9}]
    """
    by = names(by)
    check_columns(summary, (*by, value))
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in summary:
        group = tuple(plain(name, row.get(name)) for name in by)
        if group not in chosen or _height(row, value) > _height(chosen[group], value):
            chosen[group] = row
    return [dict(row) for row in chosen.values()]


def _height(row: Row, value: str) -> float:
    height = row.get(value)
    return float("-inf") if height is None or height != height else float(height)


def _average(
    name: str, key: tuple[Any, ...], runs: list[Row], level: float, bounds: tuple[float, float] | None
) -> dict[str, float | None]:
    """Return one value's mean and ends in one group, by their names."""
    labels = (name, f"{name}_low", f"{name}_high")
    present = [run[name] for run in runs if run.get(name) is not None]
    if not present:
        return dict.fromkeys(labels)
    if len(present) < len(runs):
        raise ValueError(f"{name} is there in {len(present)} of the {len(runs)} runs of {key}: all or none are needed")
    try:
        return dict(zip(labels, interval(present, level, bounds=bounds), strict=True))
    except ValueError as error:
        raise ValueError(f"{name} of {key}: {error}") from None


def names(given: str | Sequence[str]) -> list[str]:
    """Return a list of names, where one may be given by itself."""
    return [given] if isinstance(given, str) else list(given)


def check_level(level: float) -> None:
    """Raise a ValueError if a level is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level} but a probability between 0 and 1 is needed")
