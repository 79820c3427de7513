"""How many kernels must positions be able to mix: is there a best rank between a convolution and free local kernels?

A low-rank layer gives every position its own mixture of r shared kernels. Two questions. (i) Does the risk have its minimum
where it should? A teacher mixes two kernels (half of every mixture is common to all positions) and adds noise to what it
makes of Gaussian images; students of every rank fit it by least squares on few images. Too low a rank cannot follow it, too
high a rank learns its noise. Left end: a convolution, which is rank one with constant proportions; right end: free kernels.
Bottom line: the teacher's noise; null: predicting zero. (ii) What is the best rank for a classifier, the network of the ladder
at rank r in every layer, whose positions start apart or all alike? Baselines: a convolution, free kernels with either start,
and a linear classifier as null.

Answer: (i) it should, and does: rank two, for each of ten teachers. (ii) On signals at random places three seeds show no rank
to beat the convolution; mixtures are within 0.4 points of it if all positions start alike, and far below if they start apart.

    python -m experiments.low_rank --teacher-seeds 10                       (5 minutes on 2 busy cores)
    python -m experiments.low_rank --data fashion_mnist --manual-dir DIR

Reference: Elsayed, Ramachandran, Shlens and Kornblith 2020, Revisiting spatial invariance with low-rank local connectivity.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

import convlab as cl
from convlab import measure, report, train
from convlab.layers import connect, spatial
from convlab.rungs import Layout
from experiments.command import parse
from experiments.settings import Source

TEACHER, LINEAR = "teacher", "linear classifier"
FREE = {  # classifiers: rung, and noise between the kernels of positions at the start (None: nothing in common)
    "low_rank": ("low_rank", None),
    "low rank, starts shared": ("low_rank", 0.0),
    "locally_connected": ("locally_connected", None),
    "locally connected, starts shared": ("locally_connected", 0.0),
}
COLOURS = {"low_rank": "tiled", "locally_connected": "dense"}  # of those that start shared
STYLES = {name: report.RUNG_STYLE[COLOURS[rung]]._replace(label=name) for name, (rung, noise) in FREE.items() if noise == 0}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      teacher_seeds: Runs with other teachers, images and initial weights.
      teacher_ranks: Ranks of the students.
      rank: Of the teacher.
      common: Noise of the teacher's mixtures between positions, relative to what is common to them.
      noise: Standard deviation of what is added to the teacher's outputs, which have about 1.
      space: Pixels along each axis of the Gaussian images.
      channels: Of these images, and of the teacher's outputs.
      size: Number of them to learn from.
      teacher_steps: Of Adam on all of them, its rate falling along a cosine.
      teacher_rate: That rate.
      data: Name of the data set of the second question.
      ranks: Of the classifiers.
      seeds: Runs with other initial weights and orders.
      features: Channels of their layers.
      steps: Of their training.
      batch_size: Images a step.
      learning_rates: Of Adam, falling along a cosine: each network has the one of the best mean accuracy on validation images.
      validation: Share of the training images that are these.
    """

    teacher_seeds: int = 5
    teacher_ranks: tuple[int, ...] = (1, 2, 3, 4, 6, 9, 14, 20)
    rank: int = 2
    common: float = 1.0
    noise: float = 1.0
    space: tuple[int, ...] = (8, 8)
    channels: int = 2
    size: int = 40
    teacher_steps: int = 1000
    teacher_rate: float = 0.03
    data: str = "mnist1d"
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 3
    features: tuple[int, ...] = (16, 32, 64)
    steps: int = 600
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    validation: float = 0.1


SMOKE = Config(
    teacher_seeds=1,
    teacher_ranks=(2,),
    teacher_steps=5,
    data="digits",
    ranks=(2,),
    seeds=1,
    features=(4, 4),
    steps=3,
    learning_rates=(1e-2,),
)


def free_rank(layout: Layout) -> int:
    """The rank that kernels of their own at every position have: no mixture of more kernels says more."""
    return min(math.prod(layout.positions), math.prod(layout.kernel))


@functools.partial(jax.jit, static_argnames=("apply", "steps", "rate"))
def least_squares(parameters: Any, x: jax.Array, y: jax.Array, *, apply: train.Apply, steps: int, rate: float) -> Any:
    """Fit a network to targets by full-batch Adam; return its parameters. (`fit` trains classifiers.)"""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def error(parameters):
        return jnp.mean((apply(parameters, {}, x, jax.random.key(0), True)[0] - y) ** 2)

    def step(carry, _):
        updates, state = optimizer.update(jax.grad(error)(carry[0]), carry[1])
        return (optax.apply_updates(carry[0], updates), state), None

    return lax.scan(step, (parameters, optimizer.init(parameters)), length=steps)[0][0]


def teach(config: Config) -> Iterator[dict[str, Any]]:
    """Yield one row per student and seed: its risk, and what of it no student can learn."""
    layer = functools.partial(
        connect, in_features=config.channels, out_features=config.channels, kernel_size=3, space=config.space, use_bias=False
    )
    students = [("conv", 1), *(("low_rank", rank) for rank in config.teacher_ranks), ("locally_connected", 0)]
    for (rung, rank), seed in itertools.product(students, range(config.teacher_seeds)):
        keys = jax.random.split(jax.random.key(seed), 4)
        teacher = layer("low_rank", rank=config.rank, tied_noise=config.common, rngs=nnx.Rngs(2 * seed))
        student = layer(rung, rank=rank or 1, rngs=nnx.Rngs(2 * seed + 1))
        shape = (*config.space, config.channels)
        x, far = jax.random.normal(keys[0], (config.size, *shape)), jax.random.normal(keys[1], (2000, *shape))
        y, wanted = (
            teacher(images) + config.noise * jax.random.normal(key, images.shape)
            for images, key in zip((x, far), keys[2:], strict=True)
        )
        apply, parameters, *_ = train.trainable(student, shape)
        parameters = least_squares(parameters, x, y, apply=apply, steps=config.teacher_steps, rate=config.teacher_rate)
        made = apply(parameters, {}, far, keys[0], False)[0]
        yield {
            "task": TEACHER,
            "network": rung,
            "rank": rank or free_rank(student.layout),
            "weights": measure.weights_of(student),
            "seed": seed,
            "risk": float(jnp.mean((made - wanted) ** 2)),
            "zero": float(jnp.mean(wanted**2)),
            "floor": float(jnp.mean((teacher(far) - wanted) ** 2)),
        }


def classify(config: Config) -> Iterator[dict[str, Any]]:
    """Yield one row per classifier and seed: its accuracy on test images."""
    images = config.load()
    shape, classes = images.image_shape, len(images.classes)
    kinds: list[tuple[str, int | None]] = [(LINEAR, None), ("conv", 1)]
    kinds += [(name, rank) for name, (rung, _) in FREE.items() for rank in (config.ranks if rung == "low_rank" else (0,))]
    for (name, rank), rate, seed in itertools.product(kinds, config.learning_rates, range(config.seeds)):
        if name == LINEAR:
            model: nnx.Module = cl.models.MLP(shape, classes, (), rngs=nnx.Rngs(seed))
        else:
            rung, noise = FREE.get(name, (name, None))
            wires: dict[str, Any] = {"connectivity": rung, "rank": rank or 1, "tied_noise": noise}
            model = cl.models.Pyramid(shape, classes, config.features, **wires, rngs=nnx.Rngs(seed))
        if rank == 0:
            rank = max(free_rank(layer.layout) for layer in spatial(model).values())
        training = cl.Config(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=rate,
            seed=seed,
            evaluations=1,
            progress=False,
        )
        last = cl.fit(model, images.hold_out(config.validation, seed), training).history[-1]
        yield {
            "task": config.data,
            "network": name,
            "rank": rank,
            "weights": measure.weights_of(model),
            "learning_rate": rate,
            "seed": seed,
            "validation_accuracy": last["validation_accuracy"],
            "accuracy": last["test_accuracy"],
        }


def draw(summary: list[dict[str, Any]], config: Config) -> Any:
    """Risk of the students, and accuracy of the classifiers, against the rank; the convolution stands left of rank one."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    taught, (null, *classifiers) = ([row for row in summary if row["task"] == task] for task in (TEACHER, config.data))
    panels: list[tuple[list[dict[str, Any]], str, dict[str, Any]]] = [
        (
            taught,
            "risk",
            {
                "y_label": "squared error on new images, 95 % interval",
                "title": f"students of a teacher of rank {config.rank}, {config.size} images",
                "baselines": {"predicting zero": taught[0]["zero"], "the teacher's noise": taught[0]["floor"]},
            },
        ),
        (
            classifiers,
            "accuracy",
            {
                "y_label": f"accuracy on {config.data}, 95 % interval",
                "y_format": ".0%",
                "title": "the network of the ladder",
                "baselines": {LINEAR: report.interval_of(null, "accuracy")},
            },
        ),
    ]
    for axis, (rows, value, words) in zip(axes, panels, strict=True):
        rows = [row | {"place": 0.6 if row["network"] == "conv" else row["rank"]} for row in rows]
        report.curves(axis, rows, "place", value, "network", x_label="rank of the kernels", log_x=True, styles=STYLES, **words)
        places = {row["place"]: f"{row['rank']}" for row in rows} | {rows[0]["place"]: "conv", rows[-1]["place"]: "free"}
        axis.set_xticks(list(places), list(places.values()))
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = [*teach(config), *classify(config)]
    bounds = dict.fromkeys(["risk", "zero", "floor"], report.POSITIVE)
    bounds |= dict.fromkeys(["validation_accuracy", "accuracy"], report.SHARE)
    summary = report.summarise(rows, ["task", "network", "rank", "weights", "learning_rate"], list(bounds), bounds=bounds)
    summary = report.best(summary, ["task", "network", "rank"], "validation_accuracy")
    report.save_report(
        "low_rank" if config.data in (Config.data, SMOKE.data) else f"low_rank_{config.data}",
        rows,
        config,
        figure=draw(summary, config),
        summary=summary,
        formats={"validation_accuracy": ".1%", "accuracy": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
