"""How sure paired runs make us of a difference: runs of several groups that share their seed, compared seed by seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from convlab.report.rows import Row, check_columns, plain
from convlab.report.seeds import Interval, interval, names

Key = tuple[Any, ...]


def p_value(differences: Iterable[Any]) -> float:
    r"""Compute how likely differences this large are if there is none: Student's two-sided paired test.

    $$p = P(|t_{n-1}| \ge \sqrt n \, |\bar x| / s)$$

    Args:
      differences: One number per pair of runs that share their seed, at least two.

    Returns:
      A probability. It is 1 where all differences are zero, and NaN where one is.

    Raises:
      ValueError: There are fewer than two differences.

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
    """Correct the probabilities of several tests, so that one in twenty sets has any below 0.05 by chance.

    The smallest is multiplied by the number of tests, the next by one less, and so on. None falls below the one before it.

    Args:
      probabilities: The probability of every test by itself. A NaN stays NaN and counts as a test.

    Returns:
      The corrected probabilities, in the same order.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    corrected, least = [math.nan] * len(probabilities), 0.0
    known = [test for test, probability in enumerate(probabilities) if not math.isnan(probability)]
    for rank, test in enumerate(sorted(known, key=lambda test: probabilities[test])):
        least = max(least, min(1.0, (len(probabilities) - rank) * probabilities[test]))
        corrected[test] = least
    return corrected


def paired(
    rows: Sequence[Row],
    by: str | Sequence[str],
    against: Mapping[str, Any],
    values: str | Sequence[str],
    *,
    pair: str | Sequence[str] = "seed",
    ratio: bool = False,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    r"""Estimate the difference of every group from a reference, seed by seed.

    $$\bar d \pm t_{n-1} \, s_d / \sqrt n, \qquad d_s = x_s - y_s$$

    with x of the group and y of the reference, for n pairs of runs s. What a seed does to both runs alike cancels. With
    `ratio` the same is done with $d_s = \log(x_s / y_s)$, and its exponential is reported: a geometric mean of ratios.

    Args:
      rows: One flat row per run.
      by: The names whose values make a group.
      against: The values that make the reference, by names in `by`. Every group is compared with the one that has these
        values and is otherwise equal: `{"rung": "conv"}` compares rungs at the same size if `by` is `["rung", "size"]`.
      values: The names to compare.
      pair: The names whose values the two runs of a pair share.
      ratio: Whether to compare by ratios, which needs values above 0.
      level: The probability that an interval covers the true difference of Gaussian differences, between 0 and 1.

    Returns:
      One row per group other than a reference, in order of first appearance. It has the names of `by`. For every value
      follow `<value>_difference` (or `<value>_ratio`) with the ends `_low` and `_high`, `<value>_p` by the paired test,
      and `<value>_p_holm`, corrected for all tests of the call. Last is `pairs`, the number of pairs. With one pair the
      ends and probabilities are NaN; they are None where no pair has the value.

    Raises:
      ValueError: There are no rows, no row has one of the names, a group has no reference, a run has no partner or two,
        only some pairs have a value, or a value that is not above 0 is to be divided.

    Example:
      >>> scores = {"conv": (0.90, 0.80, 0.85), "dense": (0.88, 0.79, 0.83)}
      >>> rows = [{"rung": rung, "seed": s, "accuracy": a} for rung in scores for s, a in enumerate(scores[rung])]
      >>> [row] = paired(rows, "rung", {"rung": "conv"}, "accuracy")
      >>> row["rung"], round(row["accuracy_difference"], 4), round(row["accuracy_p"], 4), row["pairs"]
      ('dense', -0.0167, 0.0377, 3)

    References: Student, 1908; Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    by, values, pair = names(by), names(values), names(pair)
    check_columns(rows, (*by, *values, *pair))
    if not against or not {*against} <= {*by}:
        raise ValueError(f"against has the names {[*against]} but needs some of {by}, which make the groups")
    groups = _groups(rows, by, pair)
    lines = []
    for key, runs in groups.items():
        other = tuple(against.get(name, value) for name, value in zip(by, key, strict=True))
        if other != key:
            line: dict[str, Any] = dict(zip(by, key, strict=True))
            partners = _partners(groups, key, other, pair)
            for name in values:
                numbers = [(run.get(name), partner.get(name)) for run, partner in partners]
                line |= _contrast(name, _differences(name, key, numbers, ratio), ratio, level)
            lines.append(line | {"pairs": len(runs)})
    _correct(lines, values)
    return lines


def _groups(rows: Sequence[Row], by: list[str], pair: list[str]) -> dict[Key, dict[Key, Row]]:
    """Sort the runs by group, then by what pairs them."""
    groups: dict[Key, dict[Key, Row]] = {}
    for row in rows:
        key, run = (tuple(plain(name, row.get(name)) for name in chosen) for chosen in (by, pair))
        runs = groups.setdefault(key, {})
        if run in runs:
            raise ValueError(f"two runs of {key} have {pair} {run}: a pair needs one run of each group")
        runs[run] = row
    return groups


def _partners(groups: dict[Key, dict[Key, Row]], key: Key, other: Key, pair: list[str]) -> list[tuple[Row, Row]]:
    """Return the pairs of a group and its reference."""
    if other not in groups:
        raise ValueError(f"no run is of {other}, with which {key} is to be compared: the groups are {[*groups]}")
    runs, references = groups[key], groups[other]
    if alone := [run for run in (*runs, *references) if (run in runs) != (run in references)]:
        raise ValueError(f"{key} and {other} are not paired: one of them lacks runs with {pair} {alone}")
    return [(row, references[run]) for run, row in runs.items()]


def _differences(name: str, key: Key, numbers: Sequence[tuple[Any, Any]], ratio: bool) -> np.ndarray | None:
    """Return the difference of every pair, of logarithms if `ratio`; None where no pair has the value."""
    present = [pair for pair in numbers if None not in pair]
    if not present:
        return None
    if len(present) < len(numbers):
        raise ValueError(f"{name} is there in {len(present)} of the {len(numbers)} pairs of {key}: all or none are needed")
    x, y = np.array(present, float).T
    least = np.fmin.reduce([*x, *y])  # but for NaN
    if ratio and least <= 0:
        raise ValueError(f"{name} of {key} is {least:g} in a pair: a ratio needs values above 0")
    with np.errstate(invalid="ignore"):
        return np.log(x) - np.log(y) if ratio else x - y


def _contrast(name: str, differences: np.ndarray | None, ratio: bool, level: float) -> dict[str, Any]:
    """Name the estimate, its ends and the probability of one value in one group."""
    kind = f"{name}_ratio" if ratio else f"{name}_difference"
    labels = [kind, f"{kind}_low", f"{kind}_high", f"{name}_p", f"{name}_p_holm"]
    if differences is None:
        return dict.fromkeys(labels)
    found = interval(differences, level)
    if ratio:
        found = Interval(*map(float, np.exp(found)))
    p = p_value(differences) if len(differences) > 1 else math.nan
    return dict(zip(labels, (*found, p, p), strict=True))


def _correct(lines: Sequence[dict[str, Any]], values: Sequence[str]) -> None:
    """Replace all corrected probabilities, which stand as they are, by Holm's."""
    tests = [(line, f"{name}_p_holm") for line in lines for name in values if line[f"{name}_p"] is not None]
    for (line, label), probability in zip(tests, holm([line[label] for line, label in tests]), strict=True):
        line[label] = probability
