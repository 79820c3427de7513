"""Are two 2x2 layers as accurate as one 3x3 layer at equal cost?

A discussion asked for this comparison. The network is a 3x3 stem, then units of one layer or two, each followed by batch norm
and ReLU, then the mean over positions. Units differ in their kernels and in what lies between their two layers (nothing, ReLU,
batch norm and ReLU). Even kernels pad always on the same side, or on alternating sides. The middle of a unit may be 1.354 times
as wide, which is necessary to represent every 3x3 kernel. Two kinds of unit halve the resolution themselves: 3x3 of stride 2,
and 2x2 of stride 2 followed by 2x2. The width of every network is chosen so that it has the weights of the network of 3x3
layers. Every network has the learning rate that is best on validation images, and is compared by seed with the network of 3x3
layers of the same stride. The time of a training step is relative to that network too.

Answer: they are not. On CIFAR-10 two 2x2 layers lose 2.1 to 4.2 points to 3x3 layers with as many weights, and take 1.3 to 1.5
times as long. Two 3x3 layers, 5x5 layers, and 2x2 layers that halve the resolution lose too. All losses are shown.

    python -m experiments.two_by_two                                                (3 1/2 minutes on 2 busy cores)
    python -m experiments.two_by_two --full --data folder:PATH/cifar10.zip      (about an hour on 2 cores)
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure, report
from convlab.data import Data
from experiments.parts import networks, training_step, tuned, units
from experiments.parts.tuned import LINEAR
from experiments.parts.units import BETWEEN, KINDS, REFERENCES, network
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.stopwatch import compiled, interleave

FORMATS = tuned.FORMATS | {"step_time": ".2f"}
PRINTED = ("network", "accuracy", "gain", "p", "step_time")


@dataclasses.dataclass(frozen=True)
class Config(tuned.Tuned):
    """The settings of the experiment.

    Args:
      width: The number of channels of the network of 3x3 layers, whose weights the others have.
      units: The number of units.
      kinds: The units: names in `KINDS`.
      between: The layers between two convolutions of a unit: names in `BETWEEN`.
      seconds: The seconds for which the training step of each network is timed.
    """

    width: int = 24
    units: int = 3
    kinds: tuple[str, ...] = tuple(KINDS)
    between: tuple[str, ...] = tuple(BETWEEN)
    seconds: float = 1.0


SMOKE = Config(size=100, epochs=1, units=1, kinds=("3x3", "2x2 twice"), between=("ReLU",), rates=(0.1,), seeds=2, seconds=0)
FULL = Config(data="cifar10", size=10_000, epochs=5, seeds=6)


def cases(config: Config) -> list[dict[str, Any]]:
    """List the networks to compare: every kind with all its options between layers and for padding."""
    return [
        {"kind": kind, "between": between, "padding": padding}
        for kind in config.kinds
        for between in (config.between if len(KINDS[kind].sizes) > 1 else ("",))
        for padding in KINDS[kind].paddings
    ]


def built(data: Data, config: Config, case: dict[str, Any]) -> tuple[functools.partial, dict[str, int]]:
    """Return a function that builds a network from a seed, with the width that is matched to 3x3 layers, and its costs."""

    def shapes(width: int, case: dict[str, Any] = case) -> Any:
        return nnx.eval_shape(lambda: network(data, config.units, **case, width=width))

    target = measure.count_weights(shapes(config.width, {"kind": REFERENCES[KINDS[case["kind"]].stride]}))
    width = measure.match_width(shapes, target, cost=measure.count_weights)
    multiply_adds = cl.count(shapes(width), data.image_shape).total.multiply_adds
    costs = {"width": width, "weights": measure.count_weights(shapes(width)), "multiply_adds": multiply_adds}
    return functools.partial(network, data, config.units, **case, width=width), costs


def step_times(config: Config, data: Data, models: list[nnx.Module]) -> list[float]:
    """Time the forward and backward pass of one batch of each network, in turns, and return the medians in ms."""
    contenders = []
    draw = np.random.default_rng(0).standard_normal
    for model in models:
        call, weights = training_step.pure(model)
        x = draw((config.batch_size, *data.image_shape), np.float32)
        scores = draw(jax.eval_shape(call, weights, x).shape, np.float32)
        contenders.append(compiled({}, training_step.both(call, 0), (weights, x, scores)))
    return [row["ms"] for row in interleave(contenders, config.seconds, 3)]


def run(config: Config) -> Result:
    """Return one row per network and seed, with its `gain` over the network of 3x3 layers that it is compared to."""
    runs = tuned.Runs(config, "two_by_two", __file__, str(units.__file__), str(networks.__file__))
    lines, builders = [], []
    for case in track(cases(config), "networks"):
        build, costs = built(runs.data, config, case)
        trained = runs.rows((case, costs, config.units), lambda seed, build=build: build(seed=seed))
        names = {"network": "; ".join(filter(None, case.values())), "against": REFERENCES[KINDS[case["kind"]].stride]}
        lines.append([names | costs | row for row in trained])
        builders.append(build)
        print(f"{names['network']}, width {costs['width']}: {trained[0]['accuracy']:.1%}", flush=True)
    times = step_times(config, runs.data, [build(seed=0) for build in builders])
    milliseconds = {group[0]["network"]: time for group, time in zip(lines, times, strict=True)}
    timed = [row | {"step_time": milliseconds[row["network"]] / milliseconds[row["against"]]} for rows in lines for row in rows]
    rows = [{"network": LINEAR, "against": None, **row} for row in runs.linear()] + timed
    return Result(tuned.with_gains(rows), reused=runs.finished.reused)


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with p-values of the gains that are corrected for the number of networks of a stride."""
    return tuned.compared(rows, "width", "weights", "multiply_adds", "step_time", "rate")


def draw(rows: Rows, config: Config) -> Any:
    """Draw the gain of each network over 3x3 layers of its stride."""
    lines = table(rows, config)
    means = {line["network"]: line["accuracy"] for line in lines}
    figure, [axis] = report.new_figure(size=(15.0, 9.0))
    report.comparison(
        axis,
        [
            line | {"network": line["network"].replace("; ", "\n", 1)}
            for line in lines
            if line["network"] not in (LINEAR, *REFERENCES.values())
        ],
        "network",
        "gain",
        label=f"mean of {config.seeds} seeds, 95 % interval",
        x_label="accuracy above 3x3 layers of the same stride with as many weights",
        x_format="+.0%",
        title=f"{config.dataset}: 3x3 layers {means['3x3']:.1%}, linear classifier {means[LINEAR]:.1%}",
        baselines={"3x3 layers of the same stride": 0.0},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False, full=FULL)
