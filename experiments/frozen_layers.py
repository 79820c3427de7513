"""Where in a network does the classifier begin?

Which layers of a network have to be learnt, and after which does a linear classifier know the classes? One network has four 3x3
layers and a linear read-out of the mean over positions. It is trained with its first k layers frozen: their kernels, scales and
biases stay as they were drawn, and only their batch statistics adapt. With k = 0 all is trained, and with k = 4 only the
read-out.

A probe is a linear classifier of the mean over positions of what the first k layers compute. Probes are fitted to the network
that was trained as a whole, and to the one of which only the read-out was trained, so that its layers are random. The null
model is a linear classifier of the pixels. Every network has the learning rate that is best on validation images, and every
probe the penalty.

    python -m experiments.frozen_layers                                                (2 minutes on 2 cores)

Reference: Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes.
"""

import functools
from typing import Any

import convlab as cl
from convlab import report
from experiments.parts import canvas
from experiments.parts.networks import linear
from experiments.parts.probes import Frozen, probe_accuracies, trained
from experiments.parts.tuned import CHOICE_SEED, LINEAR, LINEAR_RATES, SHARES
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once
from experiments.shared.settings import gain_of, styles

Config = Frozen
FROZEN, TRAINED, RANDOM = "network, first layers random", "probe of trained layers", "probe of random layers"
STYLES = styles({FROZEN: "conv", TRAINED: "tiled", RANDOM: "dense"})
FORMATS = {"accuracy": ".1%", "train_accuracy": ".1%", "gain": "+.1%"}
PRINTED = ("curve", "layers", "accuracy", "gain", "p")
SMOKE = Config(size=50, copies=1, features=(2, 3), steps=2, rates=(0.01,), seeds=2, probed=20)


def scores(config: Config, count: int | None, rate: float, seed: int) -> Rows:
    """Train a network whose first layers are frozen, or the linear classifier, and probe its layers."""
    data, probes = canvas.placed(config, seed), []
    if count is None:
        fitted = cl.fit(linear(data, seed), data, config.recipe(rate, seed))
    else:
        fitted = trained(config, data, count, rate, seed)
    if count in (0, len(config.features)) and seed != CHOICE_SEED:
        curve = TRAINED if count == 0 else RANDOM
        accuracies = probe_accuracies(config, fitted.model(), data)
        probes = [{"curve": curve, "layers": depth, "accuracy": score} for depth, score in enumerate(accuracies, 1)]
    return [*probes, {"curve": LINEAR if count is None else FROZEN, "layers": count} | canvas.scores(fitted, data)]


def tuned(config: Config, count: int | None) -> Rows:
    """Return the rows of a network with all seeds."""
    name, rates = (LINEAR, LINEAR_RATES) if count is None else (f"{count} layers frozen", None)
    return canvas.tuned(config, name, functools.partial(scores, config, count), rates)


def run(config: Config) -> Rows:
    """Return one row per network or probe, number of layers and seed."""
    parts = at_once(functools.partial(tuned, config), (None, *range(len(config.features) + 1)), "networks")
    return [row for rows in parts for row in rows]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with the gains of networks and of probes over their references.

    The p-values are corrected for the four networks, and for the four probes.
    """
    by, tests = ["curve", "layers"], {}
    for curves, reference in (((FROZEN,), {"layers": 0}), ((TRAINED, RANDOM), {"curve": RANDOM})):
        group = [row for row in rows if row["curve"] in curves]
        compared = report.paired_differences(group, by, reference, "accuracy")
        tests |= {(test["curve"], test["layers"]): gain_of(test) for test in compared}
    lines = report.summarise(rows, [*by, "rate"], ["accuracy", "train_accuracy"], bounds=SHARES)
    order = [LINEAR, FROZEN, TRAINED, RANDOM]
    lines = sorted(lines, key=lambda line: (order.index(line["curve"]), line["layers"] or 0))
    return [line | tests.get((line["curve"], line["layers"]), {}) for line in lines]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy of networks and probes against the number of layers."""
    lines = table(rows, config)
    [null] = [line for line in lines if line["curve"] == LINEAR]
    figure, [axis] = report.new_figure(size=(12.0, 7.0))
    report.curves(
        axis,
        [line for line in lines if line is not null],
        "layers",
        "accuracy",
        "curve",
        x_label=f"number of first layers, of {len(config.features)}",
        y_label="test images classified right, 95 % interval",
        y_format=".0%",
        title=f"{config.dataset} at random places, {config.size:,} training images",
        baselines={f"{LINEAR} of the pixels": report.interval_of(null, "accuracy")},
        styles=STYLES,
    )
    axis.set_xticks(range(len(config.features) + 1))
    axis.set_ylim(0, 1.02)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
