"""What does each rung of the ladder cost, and what does it buy?

The same network (three 3x3 layers, batch norm, 2x2 max pooling, a read-out that knows no position) is trained at every rung
on the same images, with the same number of steps: accuracy on test images, on test images moved by a few pixels, and after
one fixed permutation of all pixels, the control in which locality and sharing must not help. Null baselines: a linear
classifier, and the share of the largest class.

Answer: on signals at random places (mnist1d) locality and sharing both buy accuracy, sharing the more; on centred digits they
buy none, but sharing keeps over half of it when the digits move. Once the pixels are permuted both are worth nothing, or less.

    python -m experiments.ladder                                            (2 minutes on 2 cores)
    python -m experiments.ladder --data mnist1d --sizes 400 1200 4000       (1 minute)
"""

import dataclasses
import functools
import itertools
import time

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import data, report
from experiments.command import parse
from experiments.settings import Source

RUNGS = ("dense", "shared", "locally_connected", "tiled", "low_rank", "conv")


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      margin: Empty pixels added around every image, so that moving it loses nothing.
      shift: Pixels by which test images are moved, in all directions.
      sizes: Numbers of training images.
      seeds: Runs with other initial weights, subsets, orders and permutations.
      rungs: Which rungs.
      features: Channels of the layers.
      period: Of the tiled rung.
      rank: Of the low-rank rung.
      steps: Of training, the same everywhere.
      batch_size: Images a step.
      learning_rate: Of Adam, falling along a cosine.
    """

    margin: int = 2
    shift: int = 2
    sizes: tuple[int, ...] = (100, 400, 1400)
    seeds: int = 3
    rungs: tuple[str, ...] = RUNGS
    features: tuple[int, ...] = (16, 32, 64)
    period: int = 2
    rank: int = 2
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 3e-3


SMOKE = Config(sizes=(50,), seeds=1, rungs=("dense", "conv"), features=(4, 4), steps=5)


def build(config: Config, rung: str, image_shape: tuple[int, ...], classes: int, seed: int) -> nnx.Module:
    """The network at a rung; "null" is the linear classifier."""
    if rung == "null":
        return cl.models.MLP(image_shape, classes, (), rngs=nnx.Rngs(seed))
    wiring = {"connectivity": rung, "period": config.period, "rank": config.rank}
    return cl.models.Pyramid(image_shape, classes, config.features, **wiring, rngs=nnx.Rngs(seed))


def shifted_accuracy(fitted: cl.train.Fitted, images: np.ndarray | data.Stored, labels: np.ndarray, by: int) -> float:
    """Mean accuracy over test images moved by `by` pixels along one or more axes, in every direction."""
    moves = [move for move in itertools.product((-by, 0, by), repeat=images.ndim - 2) if any(move)]
    return float(np.mean([fitted.evaluate(data.shift(np.asarray(images), move), labels)["accuracy"] for move in moves]))


def run(config: Config) -> list[dict]:
    """One row per rung, number of training images and seed."""
    plain = config.load()
    space = tuple(n + 2 * config.margin for n in plain.image_shape[:-1])
    plain = plain.map(functools.partial(data.embed, space=space))
    permuted = [plain.map(functools.partial(data.permute_pixels, key=jax.random.key(s))) for s in range(config.seeds)]
    rows = []
    for rung, size, seed in itertools.product(("null", *config.rungs), config.sizes, range(config.seeds)):
        begin = time.perf_counter()
        training = cl.Config(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=seed,
            evaluations=1,
            progress=False,
        )
        model = build(config, rung, plain.image_shape, len(plain.classes), seed)
        fitted, control = (cl.fit(model, each.subset(size, seed), training) for each in (plain, permuted[seed]))
        cost = cl.count(model, plain.image_shape).total
        rows.append(
            {
                "rung": rung,
                "chance": float(np.bincount(plain.test.labels).max() / len(plain.test)),
                "weights": cost.weights,
                "multiply_adds": cost.multiply_adds,
                "size": size,
                "seed": seed,
                "accuracy": fitted.history[-1]["test_accuracy"],
                "shifted": shifted_accuracy(fitted, plain.test.images, plain.test.labels, config.shift),
                "permuted": control.history[-1]["test_accuracy"],
                "step_ms": 1e3 * fitted.step_seconds,
                "seconds": time.perf_counter() - begin,
            }
        )
    return rows


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    summary = report.summarise(
        rows, ["rung", "weights", "multiply_adds", "size"], ["accuracy", "shifted", "permuted", "step_ms"]
    )
    figure, axes = report.new_figure(3, size=(13.0, 5.5))
    titles = {"accuracy": "test images", "permuted": "pixels permuted", "shifted": f"moved by {config.shift} pixels"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        report.curves(
            axis,
            summary,
            "size",
            name,
            x_label="training images",
            y_label=f"accuracy on {config.data}, 95 % interval",
            title=title,
            y_format=".0%",
            log_x=True,
            labels={"null": "linear classifier"},
            baselines={"largest class": rows[0]["chance"]} if name == "shifted" else None,
        )
    axes[1].sharey(axes[0])
    report.save_report(
        "ladder" if config.data == Config.data else f"ladder_{config.data}",
        rows,
        config,
        figure=figure,
        summary=summary,
        formats={"accuracy": ".1%", "shifted": ".1%", "permuted": ".1%", "step_ms": ".2f"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
