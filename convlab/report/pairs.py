"""Paired comparisons between groups of runs that share their seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from convlab import check
from convlab.report.rows import Row, check_columns, to_python_scalar
from convlab.report.seeds import Interval, as_numbers, check_level, column_names, interval

Key = tuple[Any, ...]


def p_value(differences: Iterable[Any]) -> float:
    r"""Compute the p-value of Student's two-sided paired t-test.

    It is the probability of a mean difference at least this large if the true difference is zero.

    $$p = P(|t_{n-1}| \ge \sqrt n \, |\bar x| / s)$$

    Args:
      differences: The differences, one per pair of runs that share their seed. At least two.

    Returns:
      The probability. It is 1 if all differences are zero, and NaN if a difference is NaN.

    Raises:
      ValueError: There are fewer than two differences.

    Example:
      >>> round(p_value([0.01, 0.02, 0.03]), 4)  # t = 3.4641 with 2 degrees of freedom
      0.0742

    Reference: Student, 1908.
    """
    from scipy.special import stdtr

    x = as_numbers("differences", differences)
    if x.size < 2:
        raise ValueError(f"differences: a paired test needs at least two differences, got {x.size}")
    if not x.any():
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = abs(x.mean()) / x.std(ddof=1) * x.size**0.5
    return float(2 * stdtr(x.size - 1, -t))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests by the Holm-Bonferroni method.

    If all null hypotheses hold, the smallest corrected p-value is below 0.05 with a probability of at most 0.05. The method
    multiplies the smallest p-value by the number of tests, the next one by the number less one, and so on. Each result is at
    least as large as the one before it, and at most 1.

    Args:
      p_values: The p-values of the single tests. A NaN stays NaN and counts as a test.

    Returns:
      The corrected p-values, in the same order.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    p_values = as_numbers("p_values", p_values).tolist()
    corrected, largest = [math.nan] * len(p_values), 0.0
    known = [test for test, p in enumerate(p_values) if not math.isnan(p)]
    for before, test in enumerate(sorted(known, key=lambda test: p_values[test])):
        largest = max(largest, min(1.0, (len(p_values) - before) * p_values[test]))
        corrected[test] = largest
    return corrected


def paired_differences(
    rows: Sequence[Row],
    by: str | Sequence[str],
    reference: Mapping[str, Any],
    values: str | Sequence[str],
    *,
    pair: str | Sequence[str] = "seed",
    ratio: bool = False,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    r"""Estimate the difference between each group and a reference group, paired by seed.

    $$\bar d \pm t_{n-1} \, s_d / \sqrt n, \qquad d_s = x_s - y_s$$

    Here x is the value of the group and y that of the reference, for n pairs of runs s. The effect of a seed that is common to
    both runs cancels. With `ratio`, $d_s = \log(x_s / y_s)$, and the exponentials of the mean and the ends are returned. They
    describe the geometric mean of the ratios.

    Args:
      rows: One flat row per run.
      by: The columns whose values make a group.
      reference: The values of the reference group, by columns in `by`. Every group is compared with the group that has these
        values and the same values in the other columns. For instance `{"rung": "conv"}` compares rungs at the same size if `by`
        is `["rung", "size"]`.
      values: The columns to compare.
      pair: The columns whose values the two runs of a pair share.
      ratio: Whether to compare by ratios, which needs values above 0.
      level: The probability that an interval covers the true difference of Gaussian differences, between 0 and 1.

    Returns:
      One row per group other than a reference, in order of first appearance, with the columns of `by`. For each value there
      are `<value>_difference` (or `<value>_ratio`) with the ends `_low` and `_high`, the p-value `<value>_p` of the paired
      test, and `<value>_p_holm`, corrected for all tests of the call. The last column, `pairs`, is the number of pairs. With
      one pair the ends and p-values are NaN. If no pair has the value, they are None.

    Raises:
      ValueError: There are no rows, or a column is in none of them. Or a group has no reference, a run has no partner or
        several, or only some pairs have a value. Or `ratio` is True and a value is not above 0.

    Example:
      >>> scores = {"conv": (0.90, 0.80, 0.85), "dense": (0.88, 0.79, 0.83)}
      >>> rows = [{"rung": rung, "seed": s, "accuracy": a} for rung in scores for s, a in enumerate(scores[rung])]
      >>> [row] = paired_differences(rows, "rung", {"rung": "conv"}, "accuracy")
      >>> row["rung"], round(row["accuracy_difference"], 4), round(row["accuracy_p"], 4), row["pairs"]
      ('dense', -0.0167, 0.0377, 3)

    References: Student, 1908; Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    by, values, pair = column_names("by", by), column_names("values", values), column_names("pair", pair)
    check_columns("rows", rows, (*by, *values, *pair))
    check.instance("reference", reference, Mapping, "a mapping from columns to values")
    check.flag("ratio", ratio)
    check_level(level)
    if not reference or not {*reference} <= {*by}:
        raise ValueError(f"reference has the names {[*reference]} but needs some of {by}, the columns of by")
    groups = _groups(rows, by, pair)
    lines = []
    for key, runs in groups.items():
        partner_key = tuple(reference.get(name, value) for name, value in zip(by, key, strict=True))
        if partner_key != key:
            line: dict[str, Any] = dict(zip(by, key, strict=True))
            partners = _partners(groups, key, partner_key, pair)
            for name in values:
                numbers = [(run.get(name), partner.get(name)) for run, partner in partners]
                line |= _contrast(name, _differences(name, key, numbers, ratio), ratio, level)
            lines.append(line | {"pairs": len(runs)})
    _correct(lines, values)
    return lines


def _groups(rows: Sequence[Row], by: list[str], pair: list[str]) -> dict[Key, dict[Key, Row]]:
    """Group the runs, and index the runs of a group by the values of the `pair` columns."""
    groups: dict[Key, dict[Key, Row]] = {}
    for row in rows:
        key, run = (tuple(to_python_scalar(name, row.get(name)) for name in columns) for columns in (by, pair))
        runs = groups.setdefault(key, {})
        if run in runs:
            raise ValueError(f"rows: two runs of {key} have {pair} {run}; a pair needs one run of each group")
        runs[run] = row
    return groups


def _partners(groups: dict[Key, dict[Key, Row]], key: Key, reference: Key, pair: list[str]) -> list[tuple[Row, Row]]:
    """Return the pairs of runs of a group and its reference."""
    if reference not in groups:
        raise ValueError(f"rows: no run is of {reference}, the reference of {key}; the groups are {[*groups]}")
    runs, references = groups[key], groups[reference]
    if unpaired := [run for run in (*runs, *references) if (run in runs) != (run in references)]:
        raise ValueError(f"rows: {key} and {reference} are not paired; one of them lacks runs with {pair} {unpaired}")
    return [(row, references[run]) for run, row in runs.items()]


def _differences(name: str, key: Key, numbers: Sequence[tuple[Any, Any]], ratio: bool) -> np.ndarray | None:
    """Return the difference of each pair, of logarithms if `ratio`, or None if no pair has the value."""
    present = [pair for pair in numbers if None not in pair]
    if not present:
        return None
    if len(present) < len(numbers):
        raise ValueError(f"{name} is present in {len(present)} of the {len(numbers)} pairs of {key}; needs all or none")
    x, y = np.array(present, float).T
    least = np.fmin.reduce([*x, *y])  # ignores NaN
    if ratio and least <= 0:
        raise ValueError(f"{name} of {key} is {least:g} in a pair; a ratio needs values above 0")
    with np.errstate(invalid="ignore"):
        return np.log(x) - np.log(y) if ratio else x - y


def _contrast(name: str, differences: np.ndarray | None, ratio: bool, level: float) -> dict[str, Any]:
    """Return the estimate, its ends and the p-value of one value in one group, by column."""
    kind = f"{name}_ratio" if ratio else f"{name}_difference"
    labels = [kind, f"{kind}_low", f"{kind}_high", f"{name}_p", f"{name}_p_holm"]
    if differences is None:
        return dict.fromkeys(labels)
    estimate = interval(differences, level)
    if ratio:
        estimate = Interval(*map(float, np.exp(estimate)))
    p = p_value(differences) if len(differences) > 1 else math.nan
    return dict(zip(labels, (*estimate, p, p), strict=True))


def _correct(lines: Sequence[dict[str, Any]], values: Sequence[str]) -> None:
    """Correct the p-values in the columns `<value>_p_holm`, in place."""
    tests = [(line, f"{name}_p_holm") for line in lines for name in values if line[f"{name}_p"] is not None]
    for (line, label), probability in zip(tests, holm([line[label] for line, label in tests]), strict=True):
        line[label] = probability
