r"""Does a dense layer become local by itself, and which property of its inputs causes this?

A dense network with one hidden layer tells two processes on a circle apart by their correlation length. The inputs are Gaussian
processes passed through a sigmoid, which gives them edges, or their Gaussian clones, which have the same mean and covariance.
Everything else is equal: gradient descent on the squared error of labels -1 and 1, small initial weights, new examples at every
step. The inverse participation ratio measures how few weights carry a hidden unit:

$$\sum_k w_k^4 \,/\, \Big( \sum_k w_k^2 \Big)^2$$

It is 1 / s for s equal weights. For d Gaussian weights, as at the start, it is 3 / (d + 2), which is the null model.

Prediction: its median over the units grows on the sigmoid process, whose higher moments reveal where its edges are, and grows
more for a larger gain. On the clone it stays the same.

Answer: yes, in settings chosen for it. Where the edges are sharp, units become bumps at different positions, with four times
the participation ratio of the clone. In other settings that were tried it was 1.0 to 2.6 times.

    python -m experiments.emergence                              (3 minutes)

Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab import measure, report, tasks
from experiments.parts.hidden_layer import Descent, Parameters, train
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import styles

PROCESS, CLONE = "nonlinear process", "Gaussian clone"
STYLES = styles({PROCESS: "locally_connected", CLONE: "dense"})
BOUNDS = {"participation": report.SHARE, "error": report.SHARE}
FORMATS = {"participation": ".4f", "error": ".1%", "times_the_clone": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config(Descent):
    """The settings of the experiment.

    Args:
      space: The number of pixels around the circle, or along each axis of a torus.
      lengths: The correlation length of each class, in pixels.
      gains: The gains of the sigmoid, in increasing order.
      seeds: The number of runs, each with its own examples and initial weights.
      root: The folder of the results.
    """

    space: tuple[int, ...] = (200,)
    lengths: tuple[float, float] = (2.0, 14.0)
    gains: tuple[float, ...] = (0.3, 1.0, 3.0)
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(space=(20,), lengths=(1.0, 4.0), gains=(3.0,), units=4, steps=20, looks=2, seeds=2)
FULL = Config(
    space=(400,), lengths=(2.0, 20.0), gains=(0.3, 1.0, 3.0, 10.0), units=100, steps=200_000, batch_size=256, seeds=20
)


def participation_of(parameters: Parameters) -> jax.Array:
    """Return the inverse participation ratio of each hidden unit's weights."""
    return measure.inverse_participation_ratio(parameters["w"], -1)


def run(config: Config) -> Rows:
    """Return one row per gain, input, seed and measurement."""
    rows, seeds = [], jnp.arange(config.seeds)
    first = jax.vmap(config.start, (0, None))(seeds, math.prod(config.space))
    before = np.median(participation_of(first), 1)
    for gain, name in track(itertools.product(config.gains, STYLES), "inputs"):
        task = tasks.nonlinear_process(config.space, config.lengths, gain, gaussian_clone=name == CLONE)
        _, participation, errors = train(task, config, participation_of, seeds, first)
        after = np.median(participation, 2)
        for seed in range(config.seeds):
            labels = {"gain": gain, "input": name, "seed": seed}
            rows.append(labels | {"step": 0, "participation": float(before[seed])})
            for number, (ratio, error) in enumerate(zip(after[seed], errors[seed], strict=True), 1):
                step = number * (config.steps // config.looks)
                rows.append(labels | {"step": step, "participation": float(ratio), "error": float(error)})
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average the last measurements, with the ratio of the process to the clone, paired by seed."""
    end = [row for row in rows if row["step"] == rows[-1]["step"]]
    lines = report.summarise(end, ["gain", "input"], list(BOUNDS), bounds=BOUNDS)
    by = {(row["gain"], row["input"], row["seed"]): row["participation"] for row in end}
    for line in (line for line in lines if line["input"] == PROCESS):
        gain, seeds = line["gain"], range(line["seeds"])
        ratios = [by[gain, PROCESS, seed] / by[gain, CLONE, seed] for seed in seeds]
        times = report.interval(ratios, bounds=report.POSITIVE)
        line |= {f"times_the_clone{end}": value for end, value in zip(("", "_low", "_high"), times, strict=True)}
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw the participation ratio by gain at the end, and by step at the largest gain."""
    figure, (left, right) = report.new_figure(2, size=(13.0, 6.0))
    shown: dict[str, Any] = {"y_label": "inverse participation ratio, 95 % interval", "styles": STYLES}
    shown |= {"baselines": {"as at the start": 3 / (math.prod(config.space) + 2)}, "baseline_labels": "right"}
    words: dict[str, Any] = {"x_label": "gain: how sharp the edges of the inputs are", "log_x": True}
    words |= {"title": f"concentration of a unit's weights after {config.steps:,} steps"}
    report.curves(left, table(rows, config), "gain", "participation", "input", **words, **shown)
    last = [row for row in rows if row["gain"] == config.gains[-1]]
    summary = report.summarise(last, ["input", "step"], "participation", bounds={"participation": report.SHARE})
    x_label, title = "steps of gradient descent", f"while it trains, at gain {config.gains[-1]:g}"
    report.curves(right, summary, "step", "participation", "input", x_label=x_label, title=title, band=True, **shown)
    right.xaxis.set_major_formatter("{x:,.0f}")
    right.locator_params(axis="x", nbins=5)
    for axis in (left, right):
        axis.set_ylim(bottom=0)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
