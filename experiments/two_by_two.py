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
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import nnx

import convlab as cl
from convlab import algebra, measure, report
from convlab.models import Head, Stack, Stage, Wiring
from experiments.command import parse
from experiments.settings import Training


class Kind(NamedTuple):
    """A unit: the taps of its layers along each axis, and the width between two layers in units of its own."""

    sizes: tuple[int, ...]
    between: float = 1.0


LAW = algebra.middle_width(3, 2, 2, 1)
REFERENCE, LINEAR = "3x3", "linear classifier"
KINDS = {
    REFERENCE: Kind((3,)),
    "2x2 twice": Kind((2, 2)),
    "2x2 twice, wide between": Kind((2, 2), LAW),
    "5x5": Kind((5,)),
    "3x3 twice": Kind((3, 3)),
}
BETWEEN: dict[str, dict[str, Any]] = {
    "nothing": {"activation": nnx.identity},
    "ReLU": {},
    "batch norm, ReLU": {"batch_norm": True},
}
PADDINGS = {"one side": ("SAME", "SAME"), "in turn": ("SAME", "SAME_LOWER")}
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


def pooled(shape: Sequence[int]) -> dict[str, Any]:
    """Max pooling where at least 4 pixels are left of each axis."""
    return {"pool": cl.max_pool} if min(shape[:-1]) >= 8 else {}


class Units(Stack):
    """A stem, units, and a linear read-out of the mean over positions."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        kind: Kind,
        between: str,
        sides: Sequence[str],
        *,
        width: int,
        units: int,
        seed: int,
    ):
        rngs = nnx.Rngs(seed)
        own: dict[str, Any] = {"wiring": Wiring("conv"), "rngs": rngs}
        last = {"batch_norm": True, "use_bias": False}
        self.stages = nnx.List([Stage(shape, width, 3, **last, **pooled(shape), **own)])
        side = itertools.cycle(sides)
        for _ in range(units):
            for number, size in enumerate(kind.sizes, 1):
                inner = number < len(kind.sizes)
                shape = self.stages[-1].output_shape
                d, which = (math.ceil(kind.between * width), BETWEEN[between]) if inner else (width, last | pooled(shape))
                padding = next(side) if size % 2 == 0 else "SAME"
                self.stages.append(Stage(shape, d, size, padding=padding, **which, **own))
        self.head = Head(self.stages[-1].output_shape, (classes,), mean=True, rngs=rngs)


def networks(config: Config) -> list[dict[str, Any]]:
    """Which networks are compared: every kind with all that it can have between its layers and as padding."""
    made = []
    for cost, name in itertools.product(config.costs, config.kinds):
        twice, even = len(KINDS[name].sizes) > 1, KINDS[name].sizes[0] % 2 == 0
        for between, padding in itertools.product(config.between if twice else ("",), PADDINGS if even else ("",)):
            made.append({"matched": cost, "kind": name, "between": between, "padding": padding})
    return made


def run(config: Config) -> list[dict[str, Any]]:
    """One row per network and seed."""
    data = config.load()
    shape, classes = data.image_shape, len(data.classes)
    rows, done = [], {}

    def build(kind: str, between: str, padding: str, width: int, seed: int = 0) -> nnx.Module:
        options = {"width": width, "units": config.units, "seed": seed}
        return Units(shape, classes, KINDS[kind], between or "nothing", PADDINGS[padding or "one side"], **options)

    def train(model: nnx.Module, seed: int) -> float:
        return config.fit(model, data, seed).history[-1]["test_accuracy"]

    for seed in range(config.seeds):
        model = cl.models.MLP(shape, classes, (), rngs=nnx.Rngs(seed))
        rows.append({"kind": LINEAR, "seed": seed, "weights": measure.weights_of(model), "accuracy": train(model, seed)})
    for each in networks(config):
        which = {name: each[name] for name in ("kind", "between", "padding")}

        def cost(model: nnx.Module, cost: str = each["matched"]) -> int:
            return COSTS[cost](model, shape)

        target = cost(nnx.eval_shape(lambda: build(REFERENCE, "", "", config.width)))
        width = measure.match_width(lambda width, which=which: build(**which, width=width), target, cost=cost)
        shapes = nnx.eval_shape(lambda which=which, width=width: build(**which, width=width))
        costs = {"weights": measure.weights_of(shapes), "multiply_adds": cl.count(shapes, shape).total.multiply_adds}
        key = (*which.values(), width)
        done[key] = done.get(key) or [train(build(**which, width=width, seed=seed), seed) for seed in range(config.seeds)]
        rows += [each | {"width": width, **costs, "seed": seed, "accuracy": score} for seed, score in enumerate(done[key])]
        print(", ".join(filter(None, each.values())), f"width {width}: {sum(done[key]) / config.seeds:.1%}", flush=True)
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what each has above the network of 3x3 layers of the same seed."""
    reference = {row["seed"]: row["accuracy"] for row in rows if row["kind"] == REFERENCE}
    return [row | {"gain": row["accuracy"] - reference[row["seed"]]} for row in rows]


def tested(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and interval of every network, and how likely its gains are by chance, corrected for the number of networks."""
    by = ["matched", "kind", "between", "padding"]
    constant = [*by, "width", "weights", "multiply_adds"]
    summary = report.summarise(rows, constant, ["accuracy", "gain"], bounds={"accuracy": report.SHARE})
    others = [line for line in summary if line["kind"] not in (REFERENCE, LINEAR)]
    for matched in dict.fromkeys(line["matched"] for line in others):
        lines = [line for line in others if line["matched"] == matched]
        gains = [[row["gain"] for row in rows if all(row.get(name) == line[name] for name in by)] for line in lines]
        for line, p in zip(lines, report.holm([report.p_value(each) for each in gains]), strict=True):
            line["p"] = p
    return summary


def draw(summary: list[dict[str, Any]], config: Config) -> Any:
    """What each network has above the one of 3x3 layers, at equal weights and at equal multiply-adds."""
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


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = compared(run(config))
    summary = tested(rows)
    report.save_report(
        "two_by_two",
        rows,
        config,
        figure=draw(summary, config),
        summary=summary,
        formats={"accuracy": ".1%", "gain": "+.1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


def named(line: dict[str, Any]) -> str:
    """What a network is called in the figure."""
    between = f"; {line['between']}" if line["between"] else ""
    return f"{line['kind']}{between}" + (f"; pads {line['padding']}" if line["padding"] else "")


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
