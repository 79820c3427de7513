"""Which way of halving an image makes a trained network most accurate, and its predictions steadiest?

One network has three 3x3 layers with batch norm and ReLU, and halves the image after the first two. Only the halving differs:
the maximum or the mean of some pixels, a blur and every second pixel, a maximum and a blur, the polyphase grid with the most
energy, or layers of stride two. None of these has weights, so all networks have equally many. Layers of stride two save nearly
half of the multiply-adds, so a wider network of them that has as many multiply-adds as the others is trained too.

Digits stand at random places on a canvas. The experiment measures the accuracy on test images at all places, and the shift
consistency: the share of predictions that stay when a centred digit moves by one pixel. Every network has the learning rate
that is best on validation images, and is compared by seed with the 2x2 maximum. The null model is a linear classifier.

    python -m experiments.pooling                                                      (4 minutes on 2 cores)
    python -m experiments.pooling --data folder:PATH/cifar10.zip --margin 0 --copies 1 --size 10000 --width 24 --steps 3000

Reference: Zhang 2019, Making convolutional networks shift-invariant again; Chaman and Dokmanic 2021.
"""

import dataclasses
import functools
from typing import Any

from flax import nnx

import convlab as cl
from convlab import report
from experiments.parts import canvas, tuned
from experiments.parts.canvas import Canvas
from experiments.parts.halvings import HALVINGS, REFERENCE, WIDER, network, width_of
from experiments.parts.networks import linear
from experiments.parts.tuned import LINEAR, LINEAR_RATES
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

FORMATS = tuned.FORMATS | {"consistency": ".1%"}
PRINTED = ("network", "accuracy", "gain", "p", "consistency", "p_consistency")


@dataclasses.dataclass(frozen=True)
class Config(Canvas):
    """The settings of the experiment.

    Args:
      halvings: The ways of halving the image: names in `HALVINGS`.
      width: The number of channels of the first layer. It doubles with every layer.
      shift: The number of pixels by which a centred image moves to every side and corner.
    """

    halvings: tuple[str, ...] = tuple(HALVINGS)
    width: int = 8
    shift: int = 1
    size: int = 300
    steps: int = 600
    seeds: int = 8


SMOKE = Config(halvings=(REFERENCE, WIDER), size=50, copies=1, width=2, steps=2, rates=(0.01,), seeds=2)


def trained(config: Config, build: Any, rate: float, seed: int) -> Rows:
    """Train a network and return one row."""
    data = canvas.placed(config, seed)
    fitted = cl.fit(build(seed=seed), data, config.recipe(rate, seed))
    return [canvas.scores(fitted, data) | {"consistency": canvas.consistency(config, fitted, config.shift)}]


def compared(config: Config, name: str) -> Rows:
    """Return one row per seed of a network, with its width and costs."""
    data = canvas.placed(config, 0)
    if name == LINEAR:
        build, costs, rates = functools.partial(linear, data), {}, LINEAR_RATES
    else:
        width, rates = width_of(data, name, config.width), None
        build = functools.partial(network, data, name, width)
        count = cl.count(nnx.eval_shape(lambda: build(0)), data.image_shape).total
        costs = {"width": width, "weights": count.weights, "multiply_adds": count.multiply_adds}
    names = {"against": None if name == LINEAR else REFERENCE, **costs}
    return [names | row for row in canvas.tuned(config, name, functools.partial(trained, config, build), rates)]


def run(config: Config) -> Rows:
    """Return one row per network and seed, with its `gain` over the 2x2 maximum."""
    parts = at_once(functools.partial(compared, config), (LINEAR, *config.halvings), "networks")
    return tuned.with_gains([row for rows in parts for row in rows])


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with p-values against the 2x2 maximum that are corrected for the number of networks."""
    halved = [row for row in rows if row["against"] is not None]
    tests = report.paired_differences(halved, "network", {"network": REFERENCE}, ["consistency"])
    p_values = {test["network"]: test["consistency_p_holm"] for test in tests}
    steady = report.summarise(rows, "network", ["consistency"], bounds={"consistency": report.SHARE})
    lines = tuned.compared(rows, "width", "weights", "multiply_adds", "rate")
    return [
        line
        | {name: value for name, value in other.items() if name.startswith("consistency")}
        | {"p_consistency": p_values.get(line["network"])}
        for line, other in zip(lines, steady, strict=True)
    ]


def draw(rows: Rows, config: Config) -> Any:
    """Draw accuracy and shift consistency for every way of halving."""
    lines = table(rows, config)
    null = next(line for line in lines if line["network"] == LINEAR)
    figure, axes = report.new_figure(2, size=(15.0, 6.0))
    labels = {
        "accuracy": "test images classified right",
        "consistency": f"shift consistency: predictions that stay, {config.shift} pixel",
    }
    for axis, (value, label) in zip(axes, labels.items(), strict=True):
        shown = [line for line in lines if line is not null]
        baselines = {LINEAR: report.interval_of(null, value)}
        words: dict[str, Any] = {"label": f"mean of {config.seeds} seeds, 95 % interval", "x_label": label, "x_format": ".0%"}
        report.comparison(axis, shown, "network", value, **words, baselines=baselines)
    axes[1].set_yticklabels([])
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
