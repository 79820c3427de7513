"""The results of the ladder's runs: examples needed, their prices and growth, and the table."""

import math
from typing import Any

import numpy as np

from convlab import report, tasks
from experiments.parts.sizes import Sizes
from experiments.shared.command import Rows

CONV = "convolution"
EXPONENTS = {"linear": 1.0, "dense": 1.0, "locally connected": 1.0, CONV: 0.0, "global convolution": 0.0}  # predicted
FORMATS = {"error_at_*": ".1%", "largest_training_loss": ".3f", "rate": "g"}
PRINTED = ("places", "network", "error_at_*", "examples_needed", "price", "exponent", "predicted_exponent")


def grouped(rows: Rows) -> dict[tuple[str, int], Rows]:
    """Group rows into lines, by network and number of places."""
    lines: dict[tuple[str, int], Rows] = {}
    for row in rows:
        lines.setdefault((row["network"], row["places"]), []).append(row)
    return lines


def needs(rows: Rows, target: float) -> dict[tuple[str, int], dict[int, float]]:
    """Return the number of training images that each line and seed needs for the target.

    It is interpolated between sizes. If the largest set does not reach the target, it is inf.
    """
    needed: dict[tuple[str, int], dict[int, float]] = {}
    for line, runs in grouped(rows).items():
        scores: dict[int, dict[int, float]] = {}
        for row in runs:
            scores.setdefault(row["seed"], {})[row["size"]] = row["accuracy"]
        needed[line] = {seed: tasks.threshold_crossing(curve, target) for seed, curve in scores.items()}
    return needed


def prices(needed: dict[tuple[str, int], dict[int, float]], config: Sizes) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the ratios of needs to the convolution's with the same seed and places.

    Lines with needs outside the range of sizes tried are left out.
    """
    within = {line: by_seed for line, by_seed in needed.items() if inside(by_seed, config)}
    rows = [
        {"network": name, "places": count, "seed": seed, "price": need}
        for (name, count), by_seed in within.items()
        if (CONV, count) in within
        for seed, need in by_seed.items()
    ]
    if not rows:
        return {}
    compared = report.paired_differences(rows, ["network", "places"], {"network": CONV}, "price", ratio=True)
    names = {"price": "price_ratio", "price_low": "price_ratio_low", "price_high": "price_ratio_high", "p_holm": "price_p_holm"}
    return {(row["network"], row["places"]): {new: row[old] for new, old in names.items()} for row in compared}


def table(rows: Rows, config: Sizes) -> Rows:
    """Return one line of the table per line of the figure.

    It has errors by size, examples needed, price, growth and training loss.
    """
    needed, lines = needs(rows, config.target), []
    paid, growth = prices(needed, config), exponents(needed, config)
    for (name, count), runs in grouped(rows).items():
        line = {"places": count, "network": name, "weights": runs[0]["weights"]}
        for size in config.sizes:
            errors = [row["error"] for row in runs if row["size"] == size]
            ends = report.interval(errors, bounds=report.SHARE) if errors else (None, None, None)
            line |= dict(zip((f"error_at_{size}", f"error_at_{size}_low", f"error_at_{size}_high"), ends, strict=True))
        line["examples_needed"] = shown(needed[name, count], [row["size"] for row in runs])
        line |= paid.get((name, count), {}) | (growth.get(name, {}) if count == max(row["places"] for row in rows) else {})
        losses = [np.mean([row["train_loss"] for row in runs if row["size"] == size]) for size in {r["size"] for r in runs}]
        lines.append(line | {"largest_training_loss": float(max(losses)), "rate": runs[0]["rate"]})
    return lines


def geometric_mean(needed: dict[int, float]) -> float:
    """Average needs on a logarithmic scale."""
    return float(np.exp(np.mean(np.log(list(needed.values())))))


def shown(by_seed: dict[int, float], sizes: list[int]) -> str:
    """Write the geometric mean of the needs, or how many seeds have none between the sizes tried."""
    at_most, above = (sum(need <= min(sizes) for need in by_seed.values()), sum(math.isinf(need) for need in by_seed.values()))
    if not at_most and not above:
        return f"{geometric_mean(by_seed):,.0f}"
    bound = f"at most {min(sizes):,}" if at_most else f"over {max(sizes):,}"
    return bound if max(at_most, above) == len(by_seed) else f"{bound} for {at_most or above} of {len(by_seed)} seeds"


def exponents(needed: dict[tuple[str, int], dict[int, float]], config: Sizes) -> dict[str, dict[str, Any]]:
    """Fit a power of the number of places to the needs of every seed.

    The interval is that of the seeds' exponents.
    """
    growth = {}
    for rung in config.rungs:
        by_places = {count: by_seed for (name, count), by_seed in needed.items() if name == rung and inside(by_seed, config)}
        if len(by_places) > 1:
            logs = [[math.log(by_seed[seed]) for by_seed in by_places.values()] for seed in range(config.seeds)]
            powers = np.polyfit(np.log(list(by_places)), np.transpose(logs), 1)[0]
            law = report.interval(powers)
            growth[rung] = {"exponent": law.mean, "exponent_low": law.low, "exponent_high": law.high}
            growth[rung] |= {"predicted_exponent": EXPONENTS.get(rung)}
    return growth


def inside(by_seed: dict[int, float], config: Sizes) -> bool:
    """Return True if all needs lie between the smallest and the largest size."""
    return all(min(config.sizes) < need < math.inf for need in by_seed.values())
