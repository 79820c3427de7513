"""How sure the seeds make us: the mean over runs and its interval."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from convlab.report.rows import Row, columns, plain


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Iterable[Any], level: float = 0.95) -> Interval:
    r"""Estimate a mean and its Student-t interval from independent runs.

    $$\bar x \pm t_{n-1} \, s / \sqrt n$$

    Args:
      values: One number per run. One NaN makes all three numbers NaN: a run that diverged is not left out.
      level: Probability that the interval covers the true mean of Gaussian values, between 0 and 1.

    Returns:
      The mean and both ends; the ends are NaN for a single run, which says nothing of the spread.

    Raises:
      ValueError: There are no values, or `level` is not between 0 and 1.

    Example:
      >>> round(interval([0.91, 0.93, 0.95]).low, 4)  # 0.93 - 4.303 * 0.02 / sqrt(3)
      0.8803

    Reference: Student, 1908.
    """
    from scipy.special import stdtrit

    x = np.array([float(value) for value in values])
    if x.size == 0:
        raise ValueError("values is empty: an interval needs at least one run")
    if not 0 < level < 1:
        raise ValueError(f"level is {level} but a probability between 0 and 1 is needed")
    with np.errstate(invalid="ignore"):
        mean = float(x.mean())
        if x.size == 1:
            return Interval(mean, float("nan"), float("nan"))
        reach = float(stdtrit(x.size - 1, (1 + level) / 2) * x.std(ddof=1) / x.size**0.5)
    return Interval(mean, mean - reach, mean + reach)


def p_value(differences: Iterable[Any]) -> float:
    r"""Ask how likely differences as large as these are if there is none: Student's two-sided paired test.

    $$p = P(|t_{n-1}| \ge \sqrt n \, |\bar x| / s)$$

    Args:
      differences: One per pair of runs that share their seed, at least two.

    Returns:
      A probability; 1 where all differences are zero, NaN where one is.

    Raises:
      ValueError: There are fewer than two.

    Example:
      >>> round(p_value([0.01, 0.02, 0.03]), 4)  # t = 3.4641 with 2 degrees of freedom
      0.0742

    Reference: Student, 1908.
    """
    from scipy.special import stdtr

    x = np.array([float(difference) for difference in differences])
    if x.size < 2:
        raise ValueError(f"a paired test needs at least two differences, got {x.size}")
    if not x.any():
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = abs(x.mean()) / x.std(ddof=1) * x.size**0.5
    return float(2 * stdtr(x.size - 1, -t))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Correct the probabilities of several tests for their number, so that one in twenty sets has any below 0.05 by chance.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none falls below one before it.

    Args:
      probabilities: Of each test by itself.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    corrected, least = [float("nan")] * len(probabilities), 0.0
    for rank, place in enumerate(sorted(range(len(probabilities)), key=lambda place: probabilities[place])):
        least = max(least, min(1.0, (len(probabilities) - rank) * probabilities[place]))
        corrected[place] = least
    return corrected


def summarise(
    rows: Sequence[Row], by: str | Sequence[str], values: str | Sequence[str], level: float = 0.95
) -> list[dict[str, Any]]:
    """Average the runs of every group over their seeds.

    Args:
      rows: One flat row per run.
      by: Names whose values make a group. A name that is constant within groups (parameters, say) may be added here to
        keep it in the summary.
      values: Names to average.
      level: Of the interval.

    Returns:
      One row per group in order of first appearance: the names of `by`, then for every value its mean `<value>`, and
      `<value>_low` and `<value>_high`, then `seeds`, the number of runs. None where no run of the group has the value.

    Raises:
      ValueError: There are no rows, no row has one of the names, or only some runs of a group have a value.

    Example:
      >>> rows = [{"rung": "conv", "seed": s, "accuracy": a} for s, a in enumerate([0.9, 0.8])]
      >>> [row] = summarise(rows, by="rung", values="accuracy")
      >>> row["rung"], round(row["accuracy"], 3), row["seeds"]
      ('conv', 0.85, 2)
    """
    by, values = ([names] if isinstance(names, str) else list(names) for names in (by, values))
    unknown = [name for name in (*by, *values) if name not in columns(rows)]
    if not rows or unknown:
        raise ValueError(f"no row has {unknown or 'anything'}: the {len(rows)} rows have {columns(rows)}")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(plain(name, row.get(name)) for name in by), []).append(row)
    return [
        dict(zip(by, key, strict=True)) | _averages(key, runs, values, level) | {"seeds": len(runs)}
        for key, runs in groups.items()
    ]


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
    by = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in (*by, value) if name not in columns(summary)]:
        raise ValueError(f"no row has {unknown}: the {len(summary)} rows have {columns(summary)}")
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in summary:
        group = tuple(plain(name, row.get(name)) for name in by)
        if group not in chosen or _height(row, value) > _height(chosen[group], value):
            chosen[group] = row
    return [dict(row) for row in chosen.values()]


def _height(row: Row, value: str) -> float:
    height = row.get(value)
    return float("-inf") if height is None or height != height else float(height)


def _averages(key: tuple[Any, ...], runs: list[Row], values: list[str], level: float) -> dict[str, float | None]:
    averages: dict[str, float | None] = {}
    for name in values:
        present = [run[name] for run in runs if run.get(name) is not None]
        if present and len(present) < len(runs):
            raise ValueError(f"{name} is there in {len(present)} of the {len(runs)} runs of {key}: all or none are needed")
        mean, low, high = interval(present, level) if present else (None, None, None)
        averages |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return averages
