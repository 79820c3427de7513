"""Are two 2x2 layers as accurate as a 3x3 layer, and two 3x3 layers as a 5x5 layer, at equal cost?

A discussion asked for this comparison. The network is a 3x3 stem, then units of one layer or two, each followed by batch norm
and ReLU, then the mean over positions. Units differ in their kernels, in what lies between their two layers (nothing, ReLU,
batch norm and ReLU) and in their width there. That width is the unit's, or 1.354 times as much, which is necessary to represent
every kernel. Even kernels pad always on the same side, or on alternating sides. The width of every network is chosen so that it
has the weights, or the multiply-adds, of the network of 3x3 layers, to which it is compared by seed.

Answer: none is shown to beat 3x3 layers. In the mean of five seeds two 2x2 layers come within half a point with batch norm
between and padding on alternating sides. They lose one to two points with nothing between. Corrected for sixteen tests, only
3x3 twice, with nothing or a ReLU between, is shown to lose. A linear classifier is not shown to differ from 3x3 layers: the
networks are too small to say more.

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
from experiments.shared.progress import track
from experiments.shared.settings import Training, above, with_p

LINEAR = "linear classifier"
FORMATS = {"accuracy": ".1%", "gain": "+.1%"}
PRINTED = ("matched", "kind", "between", "padding", "accuracy", "gain", "p")
COSTS = {
    "weights": lambda model, shape: measure.count_weights(model),
    "multiply-adds": lambda model, shape: cl.count(model, shape).total.multiply_adds,
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """The settings of the experiment.

    Args:
      width: The number of channels of the network of 3x3 layers, to which the others are matched.
      units: The number of units. Max pooling follows the stem and each unit while 8 pixels are left along each axis.
      kinds: The units: names in `KINDS`.
      between: The layers between two convolutions of a unit: names in `BETWEEN`.
      costs: The costs that are matched: names in `COSTS`.
    """

    width: int = 24
    units: int = 3
    kinds: tuple[str, ...] = tuple(KINDS)
    between: tuple[str, ...] = tuple(BETWEEN)
    costs: tuple[str, ...] = tuple(COSTS)


SMOKE = Config(size=100, epochs=1, units=1, kinds=(REFERENCE, "2x2 twice"), between=("ReLU",), costs=("weights",), seeds=2)


def networks(config: Config) -> Rows:
    """List the networks to compare: every kind with all its options between layers and for padding."""
    made = []
    for cost, name in itertools.product(config.costs, config.kinds):
        twice, even = len(KINDS[name].sizes) > 1, KINDS[name].sizes[0] % 2 == 0
        for between, padding in itertools.product(config.between if twice else (None,), PADDINGS if even else (None,)):
            made.append({"matched": cost, "kind": name, "between": between, "padding": padding})
    return made


def run(config: Config) -> Rows:
    """Return one row per network and seed, with its `gain` over the network of 3x3 layers."""
    data = config.load()
    shape, rows, scores = data.image_shape, [], {}
    for seed in range(config.seeds):
        model = linear(data, seed)
        weights = measure.count_weights(model)
        rows.append({"kind": LINEAR, "seed": seed, "weights": weights, "accuracy": config.accuracy(model, data, seed)})
    for case in track(networks(config), "networks"):
        options = {name: case[name] or "" for name in ("kind", "between", "padding")}
        build = functools.partial(network, data, config.units, **options)
        cost = functools.partial(COSTS[case["matched"]], shape=shape)
        target = cost(nnx.eval_shape(lambda: network(data, config.units, REFERENCE, width=config.width)))
        width = measure.match_width(lambda width, build=build: build(width=width), target, cost=cost)
        shapes = nnx.eval_shape(lambda build=build, width=width: build(width=width))
        costs = {"weights": measure.count_weights(shapes), "multiply_adds": cl.count(shapes, shape).total.multiply_adds}
        key = (*options.values(), width)
        if key not in scores:
            scores[key] = [config.accuracy(build(width=width, seed=seed), data, seed) for seed in range(config.seeds)]
        rows += [case | {"width": width, **costs, "seed": seed, "accuracy": score} for seed, score in enumerate(scores[key])]
        print(", ".join(filter(None, case.values())), f"width {width}: {sum(scores[key]) / config.seeds:.1%}", flush=True)
    return above(rows, {"kind": REFERENCE})


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with p-values of the gains that are corrected for the number of networks."""
    by, values = ["matched", "kind", "between", "padding"], ["accuracy", "gain"]
    summary = report.summarise(rows, [*by, "width", "weights", "multiply_adds"], values, bounds={"accuracy": report.SHARE})
    lines = [line for line in summary if line["kind"] == LINEAR]
    for matched in config.costs:
        runs, means = ([row for row in group if row.get("matched") == matched] for group in (rows, summary))
        lines += with_p(means, runs, by, {"kind": REFERENCE, "between": None, "padding": None})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw the gain of each network over 3x3 layers, at equal weights and at equal multiply-adds."""
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
    """Return the name of a network in the figure."""
    between = f"; {line['between']}" if line["between"] else ""
    return f"{line['kind']}{between}" + (f"; pads {line['padding']}" if line["padding"] else "")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
