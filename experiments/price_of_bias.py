"""How many examples does an inductive bias save, and what does it cost where it is wrong?

Locality and weight sharing turn a dense layer into a convolution. Four tasks satisfy or violate each of them. The label is the
sign of the correlation of pixels on a circle, at a distance of one pixel or of seven. It has the same sign everywhere, or the
opposite one on the second half of the circle (`tasks.correlation_sign`). Four layers assume locality, sharing, both or neither:
windows of three pixels or of all pixels, one kernel or one for each position. Everything else is the same: a few units,
squares, their sums over positions, and a linear read-out. A rung therefore has a coefficient for every product of two pixels
that its assumptions leave free. Each task can be expressed exactly on the rung that assumes what the task satisfies. The
experiment measures the smallest training set with which networks trained by Adam reach the target on new examples.

Predictions: each free coefficient has the same price in examples, so the rung that assumes everything that the task satisfies
needs the fewest. A rung that assumes what the task violates is at chance with any number of examples. Baselines: chance, the
largest set tried, and the accuracy that the products seen by a rung allow at all, by least squares on many examples.

Answer: a coefficient costs 2 to 3 examples on every rung except the convolution, which needs 4 in all, less than two for each.
The dense layer needs 380. The price is not the same everywhere: dense layers pay 2.6 to 2.8 in the mean of each task, more than
the 2.4 fitted to all. A rung that assumes what the task violates stays at chance with 8,192 examples.

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
from convlab.train import make_learner
from experiments.parts.squares import Squares, sayable
from experiments.shared.command import Rows, main
from experiments.shared.progress import track

FORMATS = {"accuracy_limit": ".1%", "examples_needed": ",.0f", "same_price": ",.0f", "best_accuracy": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      length: The number of pixels of the circle.
      distances: The distances between the two pixels of a pair, at short range and at long range.
      flip_second_half: Whether the two halves of the circle have opposite relations.
      rungs: The rungs of the layer. "global_conv" is one kernel of all offsets.
      units: The number of units of the layer.
      target: The accuracy to reach.
      least: The size of the smallest training set.
      most: The size of the largest training set.
      many: The number of examples that determine which accuracy a rung allows at all.
      steps: The largest number of training steps.
      learning_rate: The learning rate of Adam.
      seeds: The number of runs, each with its own examples and initial weights.
      root: The folder of the results.
    """

    length: int = 16
    distances: tuple[int, ...] = (1, 7)
    flip_second_half: tuple[bool, ...] = (False, True)
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


SMOKE = Config(
    length=8, distances=(1,), flip_second_half=(False,), rungs=("conv",), least=32, most=64, many=99, steps=20, seeds=2
)
FULL = Config(length=32, distances=(1, 3, 7, 15), units=8, most=65_536, many=400_000, steps=10_000, seeds=32)


def run(config: Config) -> Rows:
    """Return one row per task, rung and seed.

    `accuracy_limit` is the accuracy that the rung allows at all, and `best_accuracy` that with the largest training set tried.
    """
    rows = []
    parts = itertools.product(config.flip_second_half, config.distances, config.rungs)
    for flip_second_half, distance, rung in track(parts, "tasks and rungs"):
        task = tasks.correlation_sign(config.length, distance, flip_second_half=flip_second_half)
        build = functools.partial(Squares, config.length, rung, config.units)
        optimizer = optax.adam(config.learning_rate)
        learn = make_learner(build, task.sample, config.most, max_steps=config.steps, optimizer=optimizer)
        needed = tasks.examples_needed(
            learn, config.target, range(config.seeds), min_examples=config.least, max_examples=config.most
        )
        coefficients, limit = sayable(task, rung, config.many)
        labels = {
            "flip_second_half": flip_second_half,
            "distance": distance,
            "rung": rung,
            "coefficients": coefficients,
            "accuracy_limit": limit,
        }
        for seed, examples in enumerate(needed.examples):
            best = needed.scores[max(key for key in needed.scores if key[0] == seed)]
            rows.append(labels | {"seed": seed, "examples_needed": examples, "best_accuracy": best})
        print(*labels.values(), *(f"{examples:.0f}" for examples in needed.examples), flush=True)
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Return geometric means over the seeds, next to the prediction of one common price.

    If some seed did not reach the target, the line has the accuracy instead.
    """
    by = ["flip_second_half", "distance", "rung", "coefficients", "accuracy_limit"]
    logs = [row | {"log": math.log(row["examples_needed"])} for row in rows]
    means = report.summarise(logs, by, ["log", "best_accuracy"], bounds={"best_accuracy": report.SHARE})
    reached = [row for row in means if math.isfinite(row["log"])]
    price = math.exp(np.mean([row["log"] - math.log(row["coefficients"]) for row in reached])) if reached else math.nan
    lines = []
    for row in means:
        is_reached = row in reached
        ends = {f"examples_needed{end}": math.exp(row[f"log{end}"]) if is_reached else None for end in ("", "_low", "_high")}
        same = {"same_price": price * row["coefficients"] if is_reached else None}
        best = {f"best_accuracy{end}": None if is_reached else row[f"best_accuracy{end}"] for end in ("", "_low", "_high")}
        lines.append({name: row[name] for name in by} | ends | same | best | {"seeds": row["seeds"]})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw the examples that every rung needs, with a panel for each task.

    If the target was never reached, the accuracy is shown instead.
    """
    lines = table(rows, config)
    cases, colour = list(itertools.product(config.flip_second_half, config.distances)), report.RUNG_STYLE["dense"].colour
    figure, axes = report.new_figure(len(cases), rows=len(config.flip_second_half), size=(14.0, 8.5))
    for axis, (flip_second_half, distance) in zip(axes, cases, strict=True):
        points = [row for row in lines if (row["flip_second_half"], row["distance"]) == (flip_second_half, distance)]
        report.comparison(
            axis,
            [row | {"rung": report.RUNG_STYLE[row["rung"]].label} for row in points],
            "rung",
            "examples_needed",
            label=f"geometric mean of {config.seeds} seeds, 95 % interval",
            x_label=f"examples needed for {config.target:.0%} right",
            title=f"pairs {distance} apart, {'two relations, by position' if flip_second_half else 'the same everywhere'}",
            references={"one price for every coefficient, fitted to all": "same_price"},
            baselines={"largest set tried": config.most},
        )
        axis.set(xscale="log", xlim=(config.least / 2, 1.5 * config.most), ylim=(len(points) - 0.5, -0.5))
        for index, row in enumerate(points):
            if row["examples_needed"] is None:
                axis.plot([config.most], [index], "X", color=colour, markersize=12)
                axis.text(
                    0.7 * config.most,
                    index,
                    f"never: {row['best_accuracy']:.0%} right",
                    color=colour,
                    size=14,
                    ha="right",
                    va="center",
                )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
