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

NEVER: dict[str, Any] = {"marker": "x", "markersize": 11, "mew": 3, "linestyle": "none"}
PRICE: dict[str, Any] = {"marker": "_", "markersize": 24, "mew": 2, "linestyle": "none", "zorder": 1}
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
    """Draw the examples that every rung needs in every task, and crosses where the target was never reached."""
    figure, [axis] = report.new_figure(size=(13.0, 6.5))
    cases = list(itertools.product(config.flip_second_half, config.distances))
    lines: list[dict[str, Any]] = [
        line | {"place": cases.index((line["flip_second_half"], line["distance"])) + 0.12 * config.rungs.index(line["rung"])}
        for line in table(rows, config)
    ]
    for line in lines:
        reached = line["examples_needed"] is not None
        height, mark = (line["same_price"], PRICE) if reached else (config.most, NEVER)
        axis.plot(line["place"], height, **mark, color=report.RUNG_STYLE[line["rung"]].colour)
    for mark, label in ((PRICE, "one price for every coefficient"), (NEVER, f"never: at chance with {config.most:,}")):
        axis.plot([], [], **mark, color="0.3", label=label)
    words: dict[str, Any] = {"x_label": "", "y_label": f"examples needed for {config.target:.0%} right, 95 % interval"}
    words |= {"title": "four kinds of layer in tasks that violate their assumptions", "log_y": True}
    for rung in config.rungs:
        points, styles = [line for line in lines if line["rung"] == rung], {rung: report.RUNG_STYLE[rung]._replace(line="none")}
        report.curves(axis, points, "place", "examples_needed", "rung", styles=styles, **words)
    middle = 0.06 * (len(config.rungs) - 1)
    axis.set_xticks([number + middle for number in range(len(cases))], [task_name(*case) for case in cases])
    return figure


def task_name(flip_second_half: bool, distance: int) -> str:
    """Return the name of a task, with the assumptions that it violates."""
    wrong = " and ".join(["locality"] * (distance > 1) + ["sharing"] * flip_second_half)
    relation = "two relations" if flip_second_half else "the same everywhere"
    return f"{wrong or 'no assumption'} wrong:\n{distance} apart,\n{relation}"


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
