"""Are two 2x2 layers as good as a 3x3 layer, and two 3x3 layers as a 5x5 layer, at equal cost?

A discussion asked for the comparison and never saw it. One network: a 3x3 stem, then units that are one layer or two, each with
batch norm and ReLU after it, then the mean over positions. Units differ in their kernels, in what lies between two layers of a
unit (nothing, ReLU, batch norm and ReLU) and in how wide it is there (as the unit, or 1.354 times as wide, which the law asks
for if nothing is to be lost); even kernels pad on one side always or on sides in turn. The width of every network is chosen so
that it has the weights, or the multiply-adds, of the network of 3x3 layers, to which it is compared seed by seed.

Answer: none is shown to beat 3x3 layers. In the mean of five seeds two 2x2 layers come within half a point with batch norm
between and padding in turn, and lose one to two with nothing between. Corrected for sixteen tests, only 3x3 twice, with nothing
or a ReLU between, is shown to lose. A linear classifier is not told from 3x3 layers: the networks are too small to say more.

    python -m experiments.two_by_two                                                   (some minutes)
    python -m experiments.two_by_two --data fashion_mnist --manual-dir DIR   (20 minutes on 2 cores)
"""

import dataclasses
import functools
import itertools
from typing import Any

from flax import nnx

import convlab as cl
from convlab import measure, report
from experiments.parts.networks import linear
from experiments.parts.units import BETWEEN, KINDS, PADDINGS, REFERENCE, network
from experiments.shared.command import Rows, main
from experiments.shared.settings import Training, above, with_p

LINEAR = "linear classifier"
FORMATS = {"accuracy": ".1%", "gain": "+.1%"}
COSTS = {
    "weights": lambda model, shape: measure.weights_of(model),
    "multiply-adds": lambda model, shape: cl.count(model, shape).total.multiply_adds,
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """What is run.

    Args:
      width: Channels of the network of 3x3 layers, to which the others are matched.
      units: Of every network; max pooling follows the stem and each of them while 8 pixels are left of each axis.
      kinds: Names in `KINDS`.
      between: Names in `BETWEEN`.
      costs: What is matched.
    """

    width: int = 24
    units: int = 3
    kinds: tuple[str, ...] = tuple(KINDS)
    between: tuple[str, ...] = tuple(BETWEEN)
    costs: tuple[str, ...] = tuple(COSTS)


SMOKE = Config(size=100, epochs=1, units=1, kinds=(REFERENCE, "2x2 twice"), between=("ReLU",), costs=("weights",), seeds=2)


def networks(config: Config) -> Rows:
    """Which networks are compared: every kind with all that it can have between its layers and as padding."""
    made = []
    for cost, name in itertools.product(config.costs, config.kinds):
        twice, even = len(KINDS[name].sizes) > 1, KINDS[name].sizes[0] % 2 == 0
        for between, padding in itertools.product(config.between if twice else ("",), PADDINGS if even else ("",)):
            made.append({"matched": cost, "kind": name, "between": between, "padding": padding})
    return made


def run(config: Config) -> Rows:
    """One row per network and seed, with its `gain`: what it has above the network of 3x3 layers."""
    data = config.load()
    shape, rows, done = data.image_shape, [], {}
    for seed in range(config.seeds):
        model = linear(data, seed)
        weights = measure.weights_of(model)
        rows.append({"kind": LINEAR, "seed": seed, "weights": weights, "accuracy": config.accuracy(model, data, seed)})
    for each in networks(config):
        which = {name: each[name] for name in ("kind", "between", "padding")}
        build = functools.partial(network, data, config.units, **which)
        cost = functools.partial(COSTS[each["matched"]], shape=shape)
        target = cost(nnx.eval_shape(lambda: network(data, config.units, REFERENCE, width=config.width)))
        width = measure.match_width(lambda width, build=build: build(width=width), target, cost=cost)
        shapes = nnx.eval_shape(lambda build=build, width=width: build(width=width))
        costs = {"weights": measure.weights_of(shapes), "multiply_adds": cl.count(shapes, shape).total.multiply_adds}
        key = (*which.values(), width)
        if key not in done:
            done[key] = [config.accuracy(build(width=width, seed=seed), data, seed) for seed in range(config.seeds)]
        rows += [each | {"width": width, **costs, "seed": seed, "accuracy": score} for seed, score in enumerate(done[key])]
        print(", ".join(filter(None, each.values())), f"width {width}: {sum(done[key]) / config.seeds:.1%}", flush=True)
    return above(rows, {"kind": REFERENCE})


def table(rows: Rows, config: Config) -> Rows:
    """Mean and interval of every network, and how likely its gains are by chance, corrected for the number of networks."""
    by, values = ["matched", "kind", "between", "padding"], ["accuracy", "gain"]
    summary = report.summarise(rows, [*by, "width", "weights", "multiply_adds"], values, bounds={"accuracy": report.SHARE})
    lines = [line for line in summary if line["kind"] == LINEAR]
    for matched in config.costs:
        runs, means = ([row for row in group if row.get("matched") == matched] for group in (rows, summary))
        lines += with_p(means, runs, by, {"kind": REFERENCE, "between": "", "padding": ""})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """What each network has above the one of 3x3 layers, at equal weights and at equal multiply-adds."""
    summary = table(rows, config)
    figure, axes = report.new_figure(len(config.costs), size=(11.0 + 3.0 * (len(config.costs) - 1), 7.5))
    for axis, matched in zip(axes, config.costs, strict=True):
        lines = [line for line in summary if line["matched"] == matched and line["kind"] != REFERENCE]
        null = next(report.interval_of(line, "gain") for line in summary if line["kind"] == LINEAR)
        report.comparison(
            axis,
            [line | {"network": named(line)} for line in lines],
            "network",
            "gain",
            label=f"mean of {config.seeds} seeds, 95 % interval of the differences",
            x_label=f"accuracy above 3x3, {config.size} images",
            x_format="+.1%",
            title=f"equal {matched}",
            baselines={"3x3 layers": 0.0, LINEAR: null},
        )
        if axis is not axes[0]:
            axis.set_yticklabels([])
    return figure


def named(line: dict[str, Any]) -> str:
    """What a network is called in the figure."""
    between = f"; {line['between']}" if line["between"] else ""
    return f"{line['kind']}{between}" + (f"; pads {line['padding']}" if line["padding"] else "")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
