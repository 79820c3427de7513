"""Does pruning the small weights of a dense network leave it locally connected, and do its winning tickets train as well?

A perceptron with one hidden layer is trained, the smallest weights are pruned, those that are left go back to their first
values, and so on, round after round (iterative magnitude pruning; as many weights are left as the lottery ticket asks for). In
every round: accuracy, and how far apart the inputs are that the hidden units have kept, in units of what it would be at random.
There are two such nulls, as reading only the middle of the images brings inputs together, too: inputs at any pixel, and at the
pixels that the mask reads, dealt to the units anew. The control of the accuracy has as many weights in every array, at random.
Null baselines: a linear classifier, and the share of the largest class.

Answer: a little, and late. The mask is not local before nine weights of ten are gone; with one of a hundred left the inputs
of a unit are a tenth closer than at random. Rewound, the network is not told from the whole one by three seeds down to a tenth
of its weights, and is well above a mask at random. That lead is nearly all the first weights' there: with other ones it is
gone. With a hundredth left, when the mask has become local, most of it is the mask's.

    python -m experiments.prune                                                     (some minutes, 2 cores)
    python -m experiments.prune --data fashion_mnist --manual-dir DIR --size 10000  (6 minutes)

References: Frankle and Carbin 2019; Pellegrini and Biroli 2022.
"""

import dataclasses
from typing import Any

import jax

from convlab import report
from experiments.parts.locality import of_mask
from experiments.parts.pruning import OTHER, RANDOM, TICKET, Pruning, weights_left, weights_of
from experiments.shared.command import Rows, main
from experiments.shared.settings import chance, styles

PIXELS, DEALT = "against inputs at any pixel", "against the same pixels, dealt anew"
DISTANCES = (TICKET, PIXELS, "distance"), (TICKET, DEALT, "distance_dealt"), (RANDOM, RANDOM, "distance")
LINEAR = "linear classifier"
RIGHT = {"accuracy": report.SHARE}
BOUNDS = RIGHT | dict.fromkeys(("distance", "distance_dealt"), report.POSITIVE)
BOUNDS |= dict.fromkeys(("patch", "patch_dealt"), report.SHARE)
FORMATS = {"left": ".1f"} | dict.fromkeys(("chance", "accuracy", "patch", "patch_dealt"), ".1%")
FORMATS |= dict.fromkeys(("distance", "distance_dealt"), ".3f")
STYLES = styles({TICKET: "dense", OTHER: "global_conv", RANDOM: "low_rank", PIXELS: "locally_connected", DEALT: "tiled"})


@dataclasses.dataclass(frozen=True)
class Config(Pruning):
    """What is run.

    Args:
      size: Number of training images; absent, all.
      patch: Side of the patch, in pixels, whose share of a unit's inputs is told.
      seeds: Runs with other initial weights, subsets and orders.
    """

    size: int | None = None
    patch: int = 5
    seeds: int = 3


SMOKE = Config(size=100, features=(16,), rounds=1, share=0.5, patch=3, seeds=1, steps=5)


def run(config: Config) -> Rows:
    """One row per round, way to go on from its mask, and seed, and those of the linear classifier."""
    data, rows = config.load(), []
    null = {"chance": chance(data.test.labels)}
    for seed in range(config.seeds):
        images = data.subset(config.size or len(data.train), seed)
        rows.append({"weights": LINEAR, "seed": seed, "accuracy": config.linear(images, seed)} | null)
        for name, number, mask, accuracy in config.prune(images, seed, other=config.seeds + seed):
            count, kernel = weights_left(mask), mask["stages"][0]["layer"]["kernel"]
            left = {"round": number, "left": 100 * count / weights_of(mask), "count": count}
            local = of_mask(kernel, jax.random.key(seed), config.patch)
            print(f"seed {seed}, round {number}, {name}: {accuracy:.1%}", flush=True)
            rows.append({"weights": name, "seed": seed, "accuracy": accuracy} | null | left | local)
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Every fifth round, in the mean over the seeds; the others are in table.csv."""
    summary = report.summarise(rows, ["weights", "chance", "round", "left", "count"], list(BOUNDS), bounds=BOUNDS)
    return [line for line in summary if (line["round"] or 0) % 5 == 0]


def draw(rows: Rows, config: Config) -> Any:
    """Accuracy, and how far apart inputs are, against the share of the weights that is left."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    pruned = [row for row in rows if row["weights"] != LINEAR]
    null = next(report.interval_of(line, "accuracy") for line in table(rows, config) if line["weights"] == LINEAR)
    shown = {"x_label": "weights left (%)", "log_x": True, "styles": STYLES}
    report.curves(
        axes[0],
        report.summarise(pruned, ["weights", "left"], "accuracy", bounds=RIGHT),
        "left",
        "accuracy",
        "weights",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        title=f"{config.data}, {config.share:.0%} pruned a round",
        baselines={LINEAR: null},
        **shown,
    )
    apart = [
        {"weights": name, "left": row["left"], "distance": row[column]}
        for kind, name, column in DISTANCES
        for row in pruned
        if row["weights"] == kind
    ]
    report.curves(
        axes[1],
        report.summarise(apart, ["weights", "left"], "distance", bounds={"distance": report.POSITIVE}),
        "left",
        "distance",
        "weights",
        y_label="distance of inputs / at random, 95 % interval",
        title="inputs of the same hidden unit",
        baselines={"at random": 1.0},
        **shown,
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
