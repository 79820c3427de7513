"""Does a dense network learn local kernels when its small weights are set to zero?

S-net (a 9x9 layer of stride 2, then two dense layers) is trained with its first layer as a convolution, locally connected and
dense, and dense once more with beta-lasso. Beta-lasso adds an L1 penalty to the same SGD and sets every weight below a
threshold to exactly zero. The experiment counts the weights that are left and measures where they lie.

Nothing ties unit (i, j) of a dense layer to the pixels around (i, j), because units are exchangeable. The share of a unit's
squared weights inside the window of its convolution ("window") is therefore of little use. Instead the experiment finds, for
each unit, the patch of the window's size that holds the largest share, wherever that patch is. The column "patch" is this share
of the squared weights, and "inputs" that of the nonzero weights. A few weights easily lie in one patch. The null model
therefore shuffles which units read each pixel ("shuffled"). Null models of the accuracy: a linear classifier (Adam, no
augmentation), and the share of the most frequent class.

Answer: partly. Of 1,229,312 first weights beta-lasso leaves 34,000 (S-CONV has 648, S-LOCAL 108,000), at an accuracy that three
seeds do not distinguish from plain SGD's. More of them lie in one patch than in the null model. But a unit still reads several
places. No gain over plain SGD or the linear classifier is seen, where locality and sharing gain two points.

    python -m experiments.learn_convolution                                                            (some minutes, 2 cores)
    python -m experiments.learn_convolution --data fashion_mnist --manual-dir DIR --size 10000 --flip  (8 minutes)

Reference: Neyshabur 2020, Towards learning convolutions from scratch.
"""

import dataclasses
import itertools
import time
from typing import Any

from convlab import report
from experiments.parts import locality
from experiments.parts.s_nets import LASSO, LINEAR, NETS, SNets, first_weights, weights_left
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import chance

COUNTS, DISTANCES = ("first_weights", "hidden_weights", "last_weights"), ("distance", "distance_shuffled")
LOCAL = ("window", "window_shuffled", "patch", "patch_shuffled", "inputs", "inputs_shuffled")
FORMATS = dict.fromkeys(("chance", "accuracy", *LOCAL), ".1%") | dict.fromkeys(COUNTS, ",.0f") | dict.fromkeys(DISTANCES, ".2f")


@dataclasses.dataclass(frozen=True)
class Config(SNets):
    """The settings of the experiment.

    Args:
      size: The number of training images. If None, all.
      nets: The networks to train.
      patch: The side of a patch, as a share of the image's side. The default, 9 of 28 pixels, is the window's.
      seeds: The number of runs, each with its own initial weights, subset and batch order.
    """

    size: int | None = None
    nets: tuple[str, ...] = tuple(NETS)
    patch: float = 9 / 28
    seeds: int = 3


SMOKE = Config(size=100, nets=(LASSO,), width=2, seeds=1, steps=3)


def run(config: Config) -> Rows:
    """Return one row per network and seed."""
    data = config.load()
    patch, rows = round(config.patch * data.image_shape[0]), []
    for name, seed in track(itertools.product((LINEAR, *config.nets), range(config.seeds)), "networks"):
        begin = time.perf_counter()
        fitted = config.fit(name, data.subset(config.size or len(data.train), seed), seed)
        row = {"net": name, "seed": seed, "chance": chance(data.test.labels), "accuracy": fitted.history[-1]["test_accuracy"]}
        if name != LINEAR:
            model = fitted.model()
            weights, window = first_weights(model, data.image_shape)
            row |= weights_left(model) | locality.of_weights(weights, window, patch, seed)
        rows.append(row | {"seconds": time.perf_counter() - begin})
        print(f"{name}, seed {seed}: {row['accuracy']:.1%} with {row.get('first_weights', 0):,} first weights", flush=True)
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average accuracy, the numbers of nonzero weights and where they lie over the seeds."""
    bounds = dict.fromkeys(["accuracy", *LOCAL], report.SHARE) | dict.fromkeys([*COUNTS, *DISTANCES], report.POSITIVE)
    return report.summarise(rows, ["net", "chance"], ["accuracy", *COUNTS, *LOCAL, *DISTANCES], bounds=bounds)


def draw(rows: Rows, config: Config) -> Any:
    """Draw where the first weights lie, and the accuracy."""
    lines = {line["net"]: line for line in table(rows, config)}
    nets = [lines[name] | {"net": f"{name}\n{lines[name]['first_weights']:,.0f} weights"} for name in config.nets]
    figure, (patches, accuracies) = report.new_figure(2, size=(13.0, 6.0))
    words: dict[str, Any] = {"label": f"mean of {config.seeds} seeds, 95 % interval", "x_format": ".0%"}
    report.comparison(
        patches,
        nets,
        "net",
        "patch",
        x_label="squared weights in the best patch of each unit",
        title="locality of the first weights",
        references={"shuffled among units": "patch_shuffled"},
        **words,
    )
    report.comparison(
        accuracies,
        nets,
        "net",
        "accuracy",
        x_label=f"accuracy on {config.dataset}",
        title="accuracy",
        baselines={LINEAR: report.interval_of(lines[LINEAR], "accuracy")},
        **words,
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
