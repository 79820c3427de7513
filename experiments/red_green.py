"""Can a convolution tell where things are? Only as far as its padding tells it where the border is.

Black images with one red and one green box; the class is which of the two is on the left, which a network without places can
see. In training, class 0 has both boxes in the upper half and class 1 in the lower half. Test images are similar (the same
law) or dissimilar (the same images, class 0 moved down by 16 rows, class 1 up): a network that learnt where the boxes are,
instead of their order, fails there. A convolution around a circle with global pooling cannot learn where; zero padding lets
it. The last column of the table: images of which both versions get the same label.

Answer: as soon as there is a border it learns the place and not the order (0, 23 and 64 % right where the classes change
places, without padding, with one pixel of zeros and with two); around a circle both tests get the same labels, image by image.

    python -m experiments.red_green                           (on 2 cores 8 minutes for five of its ten seeds)

Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
"""

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import report, tasks
from convlab.models import Stage, Wiring
from convlab.optim import kernel_mask
from convlab.tasks.scenes import END, GAP, LEFT, SIDE
from experiments.command import parse

LAYERS = ((32, 1), (32, 2), (64, 2), (64, 2))  # width and stride
STRIDE = math.prod(stride for _, stride in LAYERS)
PADDINGS = {"VALID": "VALID", "SAME": 1, "CIRCULAR": "CIRCULAR", "FULL": 2}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      paddings: Names in `PADDINGS`.
      size: Training images.
      held: Images for validation, and for each of the two tests.
      epochs: Passes over the training images at most.
      patience: Epochs without a better validation accuracy before training stops.
      batch_size: Images a step.
      seeds: Runs with other images and initial weights.
      root: Folder that the results go to.
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


class Order(nnx.Module):
    """Four layers without bias, the largest of every channel over all positions, and a linear read-out."""

    def __init__(self, padding: str, seed: int):
        rngs, shape, stages = nnx.Rngs(seed), (SIDE, SIDE, 3), []
        for width, stride in LAYERS:
            stages.append(
                Stage(shape, width, 3, stride, padding=PADDINGS[padding], use_bias=False, wiring=Wiring("conv"), rngs=rngs)
            )
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(shape[-1], 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for stage in self.stages:
            x = stage(x)
        return self.head(x.max((1, 2)))


def knowable(stride: int) -> float:
    """The accuracy of the best guess around a circle: from the columns that green is after red, and red's modulo the stride."""
    shares = np.zeros((2, SIDE, stride))
    for left in range(*LEFT):
        for right in range(left + GAP, END):
            for label, (red, green) in enumerate(((left, right), (right, left))):
                shares[label, (green - red) % SIDE, red % stride] += 1 / (END - left - GAP) / (LEFT[1] - LEFT[0])
    return float(shares.max(0).sum() / 2)


def run(config: Config) -> list[dict[str, Any]]:
    """One row per padding and seed."""
    optimizer = optax.chain(optax.add_decayed_weights(5e-5, kernel_mask), optax.adadelta(1.0, rho=0.9, eps=1e-6))
    rows = []
    for padding in config.paddings:
        for seed in range(config.seeds):
            data = tasks.red_green().data(seed, config.size, config.held, config.held)
            training = cl.Config(
                epochs=config.epochs,
                batch_size=config.batch_size,
                learning_rate=1.0,
                schedule="constant",
                evaluations=config.epochs,
                patience=config.patience,
                progress=False,
                seed=seed,
            )
            fitted = cl.fit(Order(padding, seed), data, training, optimizer=optimizer)
            similar, still = data.test, np.asarray(data.test.images)
            moved = np.roll(still, SIDE // 2, 1)  # 16 rows down is 16 rows up, around a circle: `red_green(moved=True)`
            first, second = (np.asarray(fitted.logits(images)).argmax(1) for images in (still, moved))
            row = {"similar": np.mean(first == similar.labels), "dissimilar": np.mean(second == similar.labels)}
            row = {name: float(score) for name, score in (row | {"same": np.mean(first == second)}).items()}
            rows.append({"padding": padding, "seed": seed, **row})
            print(f"{padding}, seed {seed}: {row['similar']:.1%} similar, {row['dissimilar']:.1%} dissimilar", flush=True)
    return rows


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    summary = report.summarise(rows, "padding", ["similar", "dissimilar", "same"])
    figure, axes = report.new_figure(2, size=(14.0, 5.0))
    for axis, test in zip(axes, ("similar", "dissimilar"), strict=True):
        report.comparison(
            axis,
            summary,
            "padding",
            test,
            label=f"mean of {config.seeds} seeds, 95 % interval",
            x_label="accuracy on test images",
            x_format=".0%",
            title={"similar": "boxes where they were in training", "dissimilar": "boxes where the other class was"}[test],
            baselines={"chance": 0.5, f"most that a circle can know, with strides of {STRIDE} together": knowable(STRIDE)},
        )
        axis.set_xlim(-0.03, 1.03)
    report.save_report(
        "red_green",
        rows,
        config,
        figure=figure,
        summary=summary,
        formats={"similar": ".1%", "dissimilar": ".1%", "same": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
