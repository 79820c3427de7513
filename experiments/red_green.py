"""Can a convolution know positions? Only if its padding reveals the border.

Black images show one red and one green box. The class is which of the two is on the left, which a network can see without
knowing positions. In training, class 0 has both boxes in the upper half and class 1 in the lower half. Test images are
similar (the same distribution) or dissimilar (the same images, with class 0 moved down by 16 rows and class 1 up). A network
that learnt where the boxes are, instead of their order, fails on dissimilar images. The images are raw, so that black is the
value of zero padding.

Predictions before the run: VALID and SAME learn the position, are right on similar images, and fail on dissimilar ones.
CIRCULAR and FULL give both tests the same labels, image by image. On fresh images they are right at most as often as their
windows allow: they know of an image the set of its windows of 17 pixels, 8 apart. If no window holds both boxes, the order is
hidden. On a circle, red d columns left of green is also green 32 - d columns left of red (proof: `experiments.parts.paddings`).

The authors' code draws its validation and its "similar" images with the seed of its training images, so they are its first
1,000 training images. Here they are fresh, and so are the images that decide when training stops. The columns "as published"
refer to the first 1,000 training images, and to the same images moved.

Answer: VALID and SAME learn the position and not the order: they are right on 100 and 99 % of similar images, and on 0 and 6 %
of dissimilar ones. CIRCULAR and FULL give every image and the moved image the same scores. They are right on 66 and 86 %, where
67 and 87 % is the most that can be known.

    python -m experiments.red_green                                    (22 minutes on 2 cores)

Each run is saved below ROOT/red_green_runs when it ends. An interrupted experiment does not train it again.

Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
"""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import numpy as np
import optax

import convlab as cl
from convlab import report, tasks
from convlab.data import Data, Split
from convlab.optim import kernel_mask
from experiments.parts.paddings import OUTSIDE, PADDINGS, Order, knowable
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

PUBLISHED = "_as_published"
SHARES = ("similar", "dissimilar", f"similar{PUBLISHED}", f"dissimilar{PUBLISHED}", "same")
FORMATS = dict.fromkeys(SHARES, ".1%") | {"largest_change": ".2g", "epochs": ".0f"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      paddings: The paddings: names in `PADDINGS`.
      size: The number of training images.
      held: The number of images for validation, and for each of the tests.
      epochs: The largest number of passes over the training images.
      patience: The number of epochs without a better validation accuracy after which training stops.
      batch_size: The number of images per step.
      seeds: The number of runs, each with its own images and initial weights.
      root: The folder of the results.
    """

    paddings: tuple[str, ...] = tuple(PADDINGS)
    size: int = 2000
    held: int = 1000
    epochs: int = 50
    patience: int = 8
    batch_size: int = 200
    seeds: int = 10
    root: str = "runs"


SMOKE = Config(paddings=("CIRCULAR",), size=20, held=20, epochs=1, batch_size=10, seeds=2)


def sample_data(config: Config, seed: int) -> tuple[Data, Data]:
    """Draw the raw images of one seed, with the usual and with swapped rows."""
    sizes = config.size, config.held, config.held
    still, moved = (
        tasks.red_green(swap_rows=swap_rows).data(seed, *sizes).with_standardisation("none") for swap_rows in (False, True)
    )
    return still, moved


def trained(config: Config, optimizer: optax.GradientTransformation, part: tuple[int, str]) -> dict[str, Any]:
    """Train one network and evaluate it on both pairs of test sets."""
    seed, padding = part
    still, moved = sample_data(config, seed)
    steps = {"epochs": config.epochs, "batch_size": config.batch_size, "learning_rate": 1.0, "schedule": "constant"}
    recipe = cl.Config(**steps, evaluations=config.epochs, patience=config.patience, progress=False, seed=seed)
    name = f"{padding}, {config.size} images, {config.epochs} epochs, seed {seed}"
    saved = cl.Checkpoints(pathlib.Path(config.root, "red_green_runs", name), max_to_keep=1)
    fitted = cl.fit(Order(padding, seed), still, recipe, optimizer=optimizer, checkpoints=saved)
    first = np.arange(min(config.held, config.size))
    published = scores(fitted, still.train.take(first), moved.train.take(first))
    row = {"padding": padding, "seed": seed, "epochs": fitted.history[-1]["epoch"], **scores(fitted, still.test, moved.test)}
    row |= {f"{test}{PUBLISHED}": published[test] for test in ("similar", "dissimilar")}
    print(f"{name}: {row['similar']:.1%} similar, {row['dissimilar']:.1%} dissimilar, {row['epochs']:g} epochs", flush=True)
    return row


def scores(fitted: cl.Fitted, still: Split, moved: Split) -> dict[str, float]:
    """Return both accuracies, the share of equal labels, and the largest change of a score."""
    first, second = (fitted.logits(np.asarray(split.images)) for split in (still, moved))
    labels = first.argmax(1), second.argmax(1)
    return {
        "similar": float(np.mean(labels[0] == still.labels)),
        "dissimilar": float(np.mean(labels[1] == moved.labels)),
        "same": float(np.mean(labels[0] == labels[1])),
        "largest_change": float(np.abs(first - second).max()),
    }


def run(config: Config) -> Rows:
    """Return one row per padding and seed."""
    optimizer = optax.chain(optax.add_decayed_weights(5e-5, kernel_mask), optax.adadelta(1.0, rho=0.9, eps=1e-6))
    parts = itertools.product(range(config.seeds), config.paddings)
    return at_once(functools.partial(trained, config, optimizer), parts, "networks")


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    bounds = dict.fromkeys(SHARES, report.SHARE) | {"largest_change": report.POSITIVE}
    return report.summarise(rows, "padding", [*FORMATS], bounds=bounds)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracies on similar and on dissimilar images, with the most that can be known."""
    summary = table(rows, config)
    figure, axes = report.new_figure(2, size=(14.0, 5.5))
    most = {f"most that {padding} can know": knowable(padding) for padding in OUTSIDE}
    titles = {"similar": "similar: boxes as in training", "dissimilar": "dissimilar: boxes as in the other class"}
    for axis, (test, title) in zip(axes, titles.items(), strict=True):
        report.comparison(
            axis,
            summary,
            "padding",
            test,
            label=f"mean of {config.seeds} seeds, 95 % interval",
            x_label="accuracy on test images",
            x_format=".0%",
            title=title,
            references={"as published": f"{test}{PUBLISHED}"},
            baselines={"chance": 0.5} | most,
        )
        axis.set_xlim(-0.03, 1.03)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
