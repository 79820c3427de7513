"""What does an assumption save where it holds, and what does it cost where it does not?

Locality and sharing are what makes a convolution of a dense layer. Four tasks keep or break either: do the pixels of a circle
agree with those one further on, or with those seven further on; everywhere, or on the first half only, while on the second
they must differ (`tasks.pairs`). Four layers assume either or not: windows of three pixels or of all, one kernel or one at
each position. All else is the same: a few units, squares, their sums over positions, and a linear read-out. So a rung weighs
those products of two pixels that its assumptions leave free, and each task can be said exactly by the rung that assumes what
it keeps. Measured is the smallest training set with which networks trained by Adam reach the target on new examples.

Predicted: each coefficient that is left free has the same price in examples, so that the rung which assumes all that the task
keeps needs the fewest; a rung that assumes what the task breaks is at chance whatever their number. Baselines: chance, the
largest set tried, and what the products that a rung sees can tell of the label at all, by least squares on many examples.

Answer: a coefficient costs 2 to 3 examples on every rung but the convolution, which needs 4 in all, less than two for each;
dense needs 380. It is not one price: dense pays 2.6 to 2.8, more than the 2.4 fitted to all, in the mean of each of its cells.
Whatever assumes what the task breaks stays at chance with 8,192.

    python -m experiments.price_of_bias                                                (2 minutes on 2 cores)

Reference: Zhang et al., Dive into Deep Learning, section 7.1: two assumptions, and what if they do not hold.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np
import optax

from convlab import report, tasks
from convlab.train import learner
from experiments.parts.squares import Squares, sayable
from experiments.shared.command import Rows, main

FORMATS = {"limit": ".1%", "needed": ",.0f", "same_price": ",.0f", "best": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      length: Pixels of the circle.
      apart: How far on the other pixel of a pair is, at short range and at long range.
      by_position: Whether the two halves of the circle have opposite relations.
      rungs: Of the layer; of "global_conv", one kernel of all offsets.
      units: Of the layer.
      target: Accuracy to reach.
      least: Smallest training set.
      most: Largest training set.
      many: Examples that tell what a rung can say at all.
      steps: Of training, at most.
      learning_rate: Of Adam.
      seeds: Runs with other examples and initial weights.
      root: Folder that the results go to.
    """

    length: int = 16
    apart: tuple[int, ...] = (1, 7)
    by_position: tuple[bool, ...] = (False, True)
    rungs: tuple[str, ...] = ("conv", "global_conv", "locally_connected", "dense")
    units: int = 4
    target: float = 0.85
    least: int = 2
    most: int = 8192
    many: int = 40_000
    steps: int = 2000
    learning_rate: float = 1e-2
    seeds: int = 8
    root: str = "runs"


SMOKE = Config(length=8, apart=(1,), by_position=(False,), rungs=("conv",), least=32, most=64, many=99, steps=20, seeds=2)
FULL = Config(length=32, apart=(1, 3, 7, 15), units=8, most=65_536, many=400_000, steps=10_000, seeds=32)


def run(config: Config) -> Rows:
    """One row per task, rung and seed; `best` is the accuracy with the largest training set that was tried."""
    rows = []
    for by_position, apart, rung in itertools.product(config.by_position, config.apart, config.rungs):
        task = tasks.pairs(config.length, apart, by_position=by_position)
        build = functools.partial(Squares, config.length, rung, config.units)
        learn = learner(build, task.sample, config.most, steps=config.steps, optimizer=optax.adam(config.learning_rate))
        needed = tasks.examples_needed(learn, config.target, range(config.seeds), least=config.least, most=config.most)
        coefficients, limit = sayable(task, rung, config.many)
        told = {"by_position": by_position, "apart": apart, "rung": rung, "coefficients": coefficients, "limit": limit}
        for seed, examples in enumerate(needed.examples):
            best = needed.scores[max(key for key in needed.scores if key[0] == seed)]
            rows.append(told | {"seed": seed, "needed": examples, "best": best})
        print(*told.values(), *(f"{examples:.0f}" for examples in needed.examples), flush=True)
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Geometric means over seeds, where all reached the target, beside the same price for every coefficient."""
    by = ["by_position", "apart", "rung", "coefficients", "limit"]
    logs = [row | {"log": math.log(row["needed"])} for row in rows]
    found = report.summarise(logs, by, ["log", "best"], bounds={"best": report.SHARE})
    reached = [row for row in found if math.isfinite(row["log"])]
    price = math.exp(np.mean([row["log"] - math.log(row["coefficients"]) for row in reached])) if reached else math.nan
    lines = []
    for row in found:
        there = row in reached
        ends = {f"needed{end}": math.exp(row[f"log{end}"]) if there else None for end in ("", "_low", "_high")}
        same = {"same_price": price * row["coefficients"] if there else None}
        best = {f"best{end}": None if there else row[f"best{end}"] for end in ("", "_low", "_high")}
        lines.append({name: row[name] for name in by} | ends | same | best | {"seeds": row["seeds"]})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Examples needed by every rung, a panel for each task; where the target was never reached, the accuracy instead."""
    lines = table(rows, config)
    cases, colour = list(itertools.product(config.by_position, config.apart)), report.RUNG_STYLE["dense"].colour
    figure, axes = report.new_figure(len(cases), rows=len(config.by_position), size=(14.0, 8.5))
    for axis, (by_position, apart) in zip(axes, cases, strict=True):
        mine = [row for row in lines if (row["by_position"], row["apart"]) == (by_position, apart)]
        report.comparison(
            axis,
            [row | {"rung": report.RUNG_STYLE[row["rung"]].label} for row in mine],
            "rung",
            "needed",
            label=f"geometric mean of {config.seeds} seeds, 95 % interval",
            x_label=f"examples needed for {config.target:.0%} right",
            title=f"pairs {apart} apart, {'two relations, by position' if by_position else 'the same everywhere'}",
            references={"one price for every coefficient, fitted to all": "same_price"},
            baselines={"largest set tried": config.most},
        )
        axis.set(xscale="log", xlim=(config.least / 2, 1.5 * config.most), ylim=(len(mine) - 0.5, -0.5))
        for place, row in enumerate(mine):
            if row["needed"] is None:
                axis.plot([config.most], [place], "X", color=colour, markersize=12)
                axis.text(
                    0.7 * config.most, place, f"never: {row['best']:.0%} right", color=colour, size=14, ha="right", va="center"
                )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
