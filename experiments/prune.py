"""Does pruning make a dense network locally connected, and do its winning tickets train well?

A perceptron with one hidden layer is trained in rounds. After every round its smallest weights are pruned, and the remaining
weights are reset to their initial values (iterative magnitude pruning, as in the lottery ticket hypothesis). Every round
measures the accuracy, and the distance between the inputs that a hidden unit has kept, relative to a null model. There are two
null models of the distance: inputs at random pixels, and the pixels that the mask reads, shuffled between the units. The second
is needed because reading only the middle of the images also brings inputs together. The control of the accuracy is a random
mask with as many weights in every array. Null models of the accuracy: a linear classifier, and the share of the most frequent
class.

Answer: a little, and late. The mask is not local before nine weights of ten are gone. With one of a hundred left, the inputs of
a unit are a tenth closer than at random. Three seeds do not distinguish the rewound network from the whole one down to a tenth
of its weights, and it is well above a random mask. At that size nearly all of this lead is due to the initial weights: it is
gone with other ones. With a hundredth left, when the mask has become local, most of the lead is due to the mask.

    python -m experiments.prune                                                     (some minutes, 2 cores)
    python -m experiments.prune --data fashion_mnist --manual-dir DIR --size 10000  (6 minutes)

References: Frankle and Carbin 2019; Pellegrini and Biroli 2022.
"""

import dataclasses
from typing import Any

import jax

from convlab import report
from experiments.parts.locality import of_mask
from experiments.parts.pruning import OTHER, RANDOM, TICKET, Pruning, count_weights, weights_left
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import chance, styles

PIXELS, SHUFFLED = "against inputs at any pixel", "against the same pixels, shuffled"
DISTANCES = (TICKET, PIXELS, "distance"), (TICKET, SHUFFLED, "distance_shuffled"), (RANDOM, RANDOM, "distance")
LINEAR = "linear classifier"
PERCENTS = (100, 50, 20, 10, 5, 2)  # the ticks of the figure
RIGHT = {"accuracy": report.SHARE}
BOUNDS = RIGHT | dict.fromkeys(("distance", "distance_shuffled"), report.POSITIVE)
BOUNDS |= dict.fromkeys(("patch", "patch_shuffled"), report.SHARE)
FORMATS = {"percent_left": ".1f"} | dict.fromkeys(("chance", "accuracy", "patch", "patch_shuffled"), ".1%")
FORMATS |= dict.fromkeys(("distance", "distance_shuffled"), ".3f")
STYLES = styles({TICKET: "dense", OTHER: "global_conv", RANDOM: "low_rank", PIXELS: "locally_connected", SHUFFLED: "tiled"})


@dataclasses.dataclass(frozen=True)
class Config(Pruning):
    """The settings of the experiment.

    Args:
      size: The number of training images. If None, all.
      patch: The side of the patch, in pixels, in which a unit's inputs are counted.
      seeds: The number of runs, each with its own initial weights, subset and batch order.
    """

    size: int | None = None
    patch: int = 5
    seeds: int = 3


SMOKE = Config(size=100, features=(16,), rounds=1, fraction=0.5, patch=3, seeds=1, steps=5)


def run(config: Config) -> Rows:
    """Return one row per round, retraining and seed, and those of the linear classifier."""
    data, rows = config.load(), []
    null = {"chance": chance(data.test.labels)}
    for seed in track(range(config.seeds), "seeds"):
        images = data.subset(config.size or len(data.train), seed)
        rows.append({"weights": LINEAR, "seed": seed, "accuracy": config.linear(images, seed)} | null)
        for name, number, mask, accuracy in config.prune(images, seed, other=config.seeds + seed):
            count, kernel = weights_left(mask), mask["stages"][0]["layer"]["kernel"]
            left = {"round": number, "percent_left": 100 * count / count_weights(mask), "weights_left": count}
            local = of_mask(kernel, jax.random.key(seed), config.patch)
            print(f"seed {seed}, round {number}, {name}: {accuracy:.1%}", flush=True)
            rows.append({"weights": name, "seed": seed, "accuracy": accuracy} | null | left | local)
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average every fifth round over the seeds. The other rounds are in table.csv."""
    summary = report.summarise(
        rows, ["weights", "chance", "round", "percent_left", "weights_left"], list(BOUNDS), bounds=BOUNDS
    )
    return [line for line in summary if (line["round"] or 0) % 5 == 0]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the distance between inputs and the accuracy, from all weights to the share that is left at the end."""
    figure, (local, accurate) = report.new_figure(2, size=(13.0, 6.5))
    pruned = [row for row in rows if row["weights"] != LINEAR]
    null = next(report.interval_of(line, "accuracy") for line in table(rows, config) if line["weights"] == LINEAR)
    shown: dict[str, Any] = {"x_label": "weights left (%)", "log_x": True, "band": True, "styles": STYLES}
    apart = [
        {"weights": name, "percent_left": row["percent_left"], "distance": row[column]}
        for kind, name, column in DISTANCES
        for row in pruned
        if row["weights"] == kind
    ]
    report.curves(
        local,
        report.summarise(apart, ["weights", "percent_left"], "distance", bounds={"distance": report.POSITIVE}),
        "percent_left",
        "distance",
        "weights",
        y_label="distance over that at random, 95 % interval",
        title="distance between the inputs of a unit",
        baselines={"at random": 1.0},
        **shown,
    )
    report.curves(
        accurate,
        report.summarise(pruned, ["weights", "percent_left"], "accuracy", bounds=RIGHT),
        "percent_left",
        "accuracy",
        "weights",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        title=f"accuracy, {config.dataset}",
        baselines={LINEAR: null},
        baseline_labels="left",
        **shown,
    )
    for axis in (local, accurate):
        axis.set_xticks(PERCENTS, [f"{percent}" for percent in PERCENTS])
        axis.minorticks_off()
        axis.set_xlim(110, 0.9 * min(row["percent_left"] for row in pruned))
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
