"""Means over runs with different seeds, and their confidence intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convlab import check
from convlab.choices import shown
from convlab.report.rows import Row, check_columns, to_python_scalar

SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)
"""The bounds of shares (0 to 1) and of positive quantities such as times (0 to infinity)."""
ROUNDING = 1e-6
"""The fraction of a range by which a value may exceed its bounds, since shares are often summed in single precision."""


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
      mean: The mean.
      low: The lower end of the interval.
      high: The upper end of the interval.
    """

    mean: float
    low: float
    high: float


def interval(values: Iterable[Any], level: float = 0.95, *, bounds: tuple[float, float] | None = None) -> Interval:
    r"""Estimate a mean and its Student-t confidence interval from independent runs.

    $$\bar x \pm t_{n-1} \, s / \sqrt n$$

    With `bounds` the interval is computed on a transformed scale $\varphi$ and transformed back, so that its ends stay within
    the bounds:

    $$\varphi^{-1}\big(\varphi(\bar x) \pm t_{n-1} \, \varphi'(\bar x) \, s / \sqrt n\big)$$

    For two finite bounds a and b, $\varphi(x) = \arcsin \sqrt{(x - a) / (b - a)}$, and ends outside of its range are clipped to
    a bound. For a lower bound a alone, $\varphi(x) = \log(x - a)$. For an upper bound b alone, $\varphi(x) = -\log(b - x)$. The
    derivative $\varphi'$ converts the standard deviation s to the transformed scale, so values may lie on a bound. The returned
    mean is the arithmetic one, and it lies between the ends.

    Args:
      values: The values, one per run. A single NaN makes all three numbers NaN, so that a run that diverged is not left out.
      level: The probability that the interval covers the true mean of Gaussian values, between 0 and 1.
      bounds: The smallest and the largest possible value of the quantity, such as (0, 1) for a share or (0, inf) for a time.
        If None, there are none. Values that exceed a finite range by at most a millionth of it are clipped, as rounded shares
        may do.

    Returns:
      The mean and both ends. For a single run the ends are NaN, since the spread is unknown.

    Raises:
      ValueError: There are no values, `level` is not between 0 and 1, the bounds are in the wrong order, or a value is outside
        of the bounds.

    Example:
      >>> round(interval([0.91, 0.93, 0.95]).low, 4)  # 0.93 - 4.303 * 0.02 / sqrt(3)
      0.8803
      >>> _, low, high = interval([1.0, 0.99, 0.93], bounds=(0, 1))  # without bounds 0.8792 to 1.0674
      >>> round(low, 4), round(high, 4)
      (0.8062, 1.0)

    References: Student, 1908; Bartlett 1947, The use of transformations.
    """
    from scipy.special import stdtrit

    low, high = as_bounds(bounds)
    x = _inside(as_numbers("values", values), low, high)
    check_level(level)
    with np.errstate(invalid="ignore"):
        mean = float(np.clip(x.mean(), x.min(), x.max()))  # a rounded mean of equal values may differ from them
        if x.size == 1:
            return Interval(mean, math.nan, math.nan)
        spread = x.std(ddof=1) if np.ptp(x) else 0.0
        reach = float(stdtrit(x.size - 1, (1 + level) / 2) * spread / x.size**0.5)
    return Interval(mean, *(_ends(mean, reach, low, high) if reach > 0 else (mean - reach, mean + reach)))


def _inside(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Check that the values lie within the bounds, and clip those that exceed them by rounding."""
    if x.size == 0:
        raise ValueError("values is empty: an interval needs at least one run")
    if not low < high:
        raise ValueError(f"bounds are ({low}, {high}); needs the lower number first, then a larger one")
    slack = ROUNDING * (high - low) if math.isfinite(high - low) else 0.0
    outside = x[(x < low - slack) | (x > high + slack)]
    if outside.size:
        raise ValueError(f"values holds {outside[0]:g}, which is outside of the bounds ({low:g}, {high:g})")
    return np.clip(x, low, high)


def _ends(mean: float, reach: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends of an interval within the bounds.

    Without bounds, the interval would extend from `mean - reach` to `mean + reach`.
    """
    reaches, within = np.array([-reach, reach]), low < mean < high  # a mean on a bound was rounded to it
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
    return min(first, mean), max(last, mean)  # in order despite rounding


def summarise(
    rows: Sequence[Row],
    by: str | Sequence[str],
    values: str | Sequence[str],
    level: float = 0.95,
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> list[dict[str, Any]]:
    """Average the runs of each group over their seeds, with confidence intervals.

    Args:
      rows: One flat row per run.
      by: The columns whose values make a group. Add a column that is constant within groups to keep it in the summary.
      values: The columns to average.
      level: The probability that an interval covers the true mean of Gaussian values, between 0 and 1.
      bounds: The smallest and the largest possible value of a column, by column; see `interval`. Other columns have no bounds.

    Returns:
      One row per group in order of first appearance. It has the columns of `by`, then for each value its mean `<value>`,
      `<value>_low` and `<value>_high`, then `seeds`, the number of runs. The three are None if no run of the group has the
      value.

    Raises:
      ValueError: There are no rows, or a column is in none of them. Or only some runs of a group have a value, or a value is
        outside of its bounds. Or `bounds` names a column that is not averaged.

    Example:
      >>> rows = [{"rung": "conv", "seed": s, "accuracy": a} for s, a in enumerate([0.9, 0.8])]
      >>> [row] = summarise(rows, by="rung", values="accuracy", bounds={"accuracy": (0, 1)})
      >>> row["rung"], round(row["accuracy"], 3), row["seeds"]
      ('conv', 0.85, 2)
    """
    by, values = column_names("by", by), column_names("values", values)
    check_columns("rows", rows, (*by, *values))
    check_level(level)
    if bounds is not None:
        check.instance("bounds", bounds, Mapping, "a mapping from columns to bounds")
    if unused := [name for name in bounds or {} if name not in values]:
        raise ValueError(f"bounds names {unused} but the values are {values}")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(to_python_scalar(name, row.get(name)) for name in by), []).append(row)
    summary = []
    for key, runs in groups.items():
        line: dict[str, Any] = dict(zip(by, key, strict=True))
        for name in values:
            line |= _average(name, key, runs, level, (bounds or {}).get(name))
        summary.append(line | {"seeds": len(runs)})
    return summary


def interval_of(row: Row, name: str) -> Interval:
    """Return the mean and interval of a value in one row of a summary from `summarise`.

    Example:
      >>> [row] = summarise([{"seed": s, "accuracy": a} for s, a in enumerate([0.91, 0.93, 0.95])], [], "accuracy")
      >>> round(interval_of(row, "accuracy").low, 4)
      0.8803
    """
    check.instance("row", row, Mapping, "a mapping from columns to values")
    labels = [f"{name}{end}" for end in ("", "_low", "_high")]
    if missing := [label for label in labels if label not in row]:
        raise ValueError(
            f"row has no {', '.join(missing)}, the interval of name {shown(name)}; it has {', '.join(map(str, row))}"
        )
    return Interval(*(row[label] for label in labels))


def best_rows(summary: Sequence[Row], by: str | Sequence[str], value: str) -> list[dict[str, Any]]:
    """Keep the row with the highest value in each group.

    It selects, for instance, the learning rate with the best validation accuracy for each rung.

    Args:
      summary: The rows, for instance from `summarise`.
      by: The columns whose values make a group.
      value: The column to maximise. A missing value or NaN is lower than any number.

    Returns:
      One row per group in order of first appearance. Of equal rows the first is kept.

    Raises:
      ValueError: A column is in none of the rows.

    Example:
      >>> rows = [{"rung": "conv", "rate": rate, "validation": score} for rate, score in ((0.1, 0.8), (0.3, 0.9), (1.0, None))]
      >>> best_rows(rows, "rung", "validation")
      [{'rung': 'conv', 'rate': 0.3, 'validation': 0.9}]
    """
    by = column_names("by", by)
    check_columns("summary", summary, (*by, *column_names("value", [value])))
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in summary:
        group = tuple(to_python_scalar(name, row.get(name)) for name in by)
        if group not in chosen or _sort_key(row, value) > _sort_key(chosen[group], value):
            chosen[group] = row
    return [dict(row) for row in chosen.values()]


def _sort_key(row: Row, value: str) -> float:
    """Return a value of a row, or minus infinity if it is missing or NaN."""
    number = row.get(value)
    return float("-inf") if number is None or number != number else float(check.number(f"value {value}", number))


def _average(
    name: str, key: tuple[Any, ...], runs: list[Row], level: float, bounds: tuple[float, float] | None
) -> dict[str, float | None]:
    """Return the mean and ends of one value in one group, by column."""
    labels = (name, f"{name}_low", f"{name}_high")
    present = [run[name] for run in runs if run.get(name) is not None]
    if not present:
        return dict.fromkeys(labels)
    if len(present) < len(runs):
        raise ValueError(f"{name} is present in {len(present)} of the {len(runs)} runs of {key}; needs all or none")
    try:
        return dict(zip(labels, interval(present, level, bounds=bounds), strict=True))
    except ValueError as error:
        raise ValueError(f"{name} of {key}: {error}") from None


def column_names(name: str, columns: str | Sequence[str]) -> list[str]:
    """Return a list of column names from one name or several.

    Raises:
      TypeError: A column name is no string.
    """
    names = [columns] if isinstance(columns, str) else check.sequence(name, columns, "column names")
    return [check.instance(name, column, str, "names of columns") for column in names]


def as_numbers(name: str, values: Iterable[Any]) -> np.ndarray:
    """Return numbers as an array of floats.

    Raises:
      TypeError: A value is no real number.
    """
    return np.array([float(check.number(name, value)) for value in check.sequence(name, values, "numbers")])


def as_bounds(bounds: Any) -> tuple[float, float]:
    """Return the bounds of a quantity, infinite ones if there are none.

    Raises:
      ValueError: They are not two numbers.
      TypeError: They are no numbers.
    """
    if bounds is None:
        return -math.inf, math.inf
    ends = as_numbers("bounds", bounds).tolist()
    if len(ends) != 2:
        raise ValueError(f"bounds must be the lowest and the highest value, got {len(ends)} numbers")
    return ends[0], ends[1]


def check_level(level: float) -> None:
    """Raise ValueError if a confidence level is not between 0 and 1."""
    check.number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; needs a probability between 0 and 1")
