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
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import measure, optim, report
from convlab.data import Data
from convlab.report import RUNG_STYLE
from experiments.command import parse
from experiments.settings import Source

TICKET, OTHER, RANDOM = "smallest pruned, rewound", "same mask, other first weights", "mask at random"
PIXELS, DEALT = "against inputs at any pixel", "against the same pixels, dealt anew"
DISTANCES = (TICKET, PIXELS, "distance"), (TICKET, DEALT, "distance_dealt"), (RANDOM, RANDOM, "distance")
LINEAR = "linear classifier"
RIGHT = {"accuracy": report.SHARE}
RUNGS = {TICKET: "dense", OTHER: "shared", RANDOM: "low_rank", PIXELS: "locally_connected", DEALT: "tiled"}
STYLES = {name: RUNG_STYLE[rung]._replace(label=name) for name, rung in RUNGS.items()}  # like no rung in the other pictures


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      size: Number of training images; absent, all.
      features: Units of the hidden layers.
      share: Of the weights that are left, pruned in each round.
      rounds: How often.
      by: "layer" prunes this share of every layer, "global" the smallest weights of all layers.
      patch: Side of the patch, in pixels, whose share of a unit's inputs is told.
      seeds: Runs with other initial weights, subsets and orders.
      steps: Of training in every round.
      batch_size: Images a step.
      learning_rate: Of Adam, falling along a cosine.
    """

    size: int | None = None
    features: tuple[int, ...] = (256,)
    share: float = 0.2
    rounds: int = 20
    by: str = "global"
    patch: int = 5
    seeds: int = 3
    steps: int = 800
    batch_size: int = 64
    learning_rate: float = 1e-3


SMOKE = Config(size=100, features=(16,), rounds=1, share=0.5, patch=3, seeds=1, steps=5)


@functools.partial(jax.jit, static_argnames="patch")
def read(kept: jax.Array, key: jax.Array, patch: int) -> dict[str, jax.Array]:
    """How local the inputs are that hidden units have kept: against inputs at any pixel, and against these dealt anew."""
    dealt = measure.dealt(kept, key)
    distance = measure.mean_distance(kept)
    return {
        "pixels": distance,
        "distance": distance / measure.mean_distance(jnp.ones_like(kept)),
        "distance_dealt": distance / measure.mean_distance(dealt),
        "patch": measure.patch_share(kept, patch),
        "patch_dealt": measure.patch_share(dealt, patch),
    }


def shuffled(mask: Any, seed: int) -> Any:
    """As many weights in every array, at random."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda kept: jnp.asarray(random.permutation(np.ravel(kept)).reshape(kept.shape)), mask)


def one_seed(config: Config, data: Data, seed: int) -> list[dict[str, Any]]:
    """One row per round and way to go on from its mask, and one of the linear classifier."""
    training = cl.Config(steps=config.steps, batch_size=config.batch_size, seed=seed, evaluations=1, chunk=20, progress=False)

    def build(features: tuple[int, ...], key: int) -> cl.train.Trainable:
        model = cl.models.MLP(data.image_shape, len(data.classes), features, rngs=nnx.Rngs(key))
        return cl.train.trainable(model, data.image_shape)

    model, other = (build(config.features, key) for key in (seed, config.seeds + seed))
    every = jax.tree.map(lambda array: jnp.ones(array.shape, bool), model.parameters)
    adam = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    optimizer = optax.chain(adam, optim.keep_pruned(every))  # one for all masks, which are in its state: compiled once
    scores = []

    def train(parameters: Any, mask: Any) -> Any:
        start: Any = optimizer.init(parameters)
        fitted = cl.fit(
            model._replace(parameters=parameters), data, training, optimizer=optimizer, optimizer_state=(*start[:-1], mask)
        )
        scores.append(fitted.history[-1]["test_accuracy"])
        return fitted.parameters

    linear = cl.fit(build((), seed), data, dataclasses.replace(training, learning_rate=config.learning_rate))
    rows = [{"weights": LINEAR, "seed": seed, "accuracy": linear.history[-1]["test_accuracy"]}]
    for number, (_, mask) in enumerate(
        optim.iterative_pruning(train, model.parameters, config.share, config.rounds, by=config.by)
    ):
        drawn, count = shuffled(mask, seed), weights_left(mask)
        train(optim.rewind(other.parameters, mask), mask)
        train(optim.rewind(model.parameters, drawn), drawn)
        for name, kept, accuracy in zip((TICKET, OTHER, RANDOM), (mask, mask, drawn), scores[-3:], strict=True):
            left = {"round": number, "left": 100 * count / weights_left(every), "count": count}
            told = read(kept["stages"][0]["layer"]["kernel"], jax.random.key(seed), config.patch)
            print(f"seed {seed}, round {number}, {name}: {accuracy:.1%}", flush=True)
            rows.append({"weights": name, **left, "seed": seed, "accuracy": accuracy} | {key: float(told[key]) for key in told})
    return rows


def weights_left(mask: Any) -> int:
    """Count the weights that a mask keeps, without the biases."""
    kernels = jax.tree.map(lambda is_kernel, kept: np.sum(kept) if is_kernel else 0, optim.kernel_mask(mask), mask)
    return int(sum(jax.tree.leaves(kernels)))


def run(config: Config) -> list[dict[str, Any]]:
    """All rows of all seeds."""
    data = config.load()
    size = config.size or len(data.train)
    chance = {"chance": float(np.bincount(data.test.labels).max() / len(data.test))}
    return [row | chance for seed in range(config.seeds) for row in one_seed(config, data.subset(size, seed), seed)]


def draw(rows: list[dict[str, Any]], config: Config) -> Any:
    """Accuracy, and how far apart inputs are, against the share of the weights that is left."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    pruned = [row for row in rows if row["weights"] != LINEAR]
    [null] = report.summarise([row for row in rows if row["weights"] == LINEAR], "weights", "accuracy", bounds=RIGHT)
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
        baselines={LINEAR: report.interval_of(null, "accuracy")},
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


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    bounds = RIGHT | dict.fromkeys(["distance", "distance_dealt"], report.POSITIVE)
    bounds |= dict.fromkeys(["patch", "patch_dealt"], report.SHARE)
    summary = report.summarise(rows, ["weights", "chance", "round", "left", "count"], list(bounds), bounds=bounds)
    report.save_report(
        "prune",
        rows,
        config,
        figure=draw(rows, config),
        summary=[row for row in summary if (row["round"] or 0) % 5 == 0],  # the others are in table.csv
        formats={
            "chance": ".1%",
            "left": ".1f",
            "accuracy": ".1%",
            "distance": ".3f",
            "distance_dealt": ".3f",
            "patch": ".1%",
            "patch_dealt": ".1%",
        },
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
