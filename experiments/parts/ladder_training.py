"""The training of one of the ladder's networks on sets of one size, for all seeds together."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import data, train
from experiments.parts.sizes import FLATTENED, REORDERED, RUNGS, SHIFTED, Curve, Sizes, images, places, training_set
from experiments.shared.command import Rows

CHOICE_SEEDS = (1000, 1001)  # seeds of the runs that choose learning rates; no other run has them
SCORED = 1000  # the largest number of training images that the training loss is computed on
STEPS_PER_CALL = 50  # steps per compiled call


@functools.cache
def builder(config: Sizes, rung: str, flatten: bool) -> Callable[[nnx.Rngs], train.Trainable]:
    """Return a compiled function that builds a network."""
    loaded = images(config)
    shape = *(n + 2 * config.margin for n in loaded.image_shape[:-1]), loaded.image_shape[-1]
    classes = len(loaded.classes)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        if rung == "linear":
            return cl.models.MLP(shape, classes, (), rngs=rngs)
        return cl.models.Pyramid(shape, classes, config.features, flatten=flatten, rngs=rngs, **RUNGS[rung])

    return train.jit_build(build, shape)


@functools.cache
def shift(by: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the random shift of centred training images, one function for each distance."""
    return data.chain(functools.partial(data.random_shift, max_shift=by))


def trained(config: Sizes, curve: Curve, size: int, steps: int, rate: float, choosing: bool = False) -> Rows:
    """Train all seeds of a network on sets of one size and return one row for each."""
    seeds = CHOICE_SEEDS if choosing else range(config.seeds)
    placed = [training_set(config, curve.distance, curve.control == REORDERED, seed, choosing) for seed in seeds]
    if curve.control == SHIFTED:  # trained on centred images, tested at all places
        centred = [training_set(config, 0, False, seed, choosing) for seed in seeds]
        placed = [dataclasses.replace(moved, train=still.train) for still, moved in zip(centred, placed, strict=True)]
    sets = [dataclasses.replace(data, train=data.train.take(np.arange(size))) for data in placed]
    options = {
        "steps": steps,
        "batch_size": config.batch_size,
        "learning_rate": rate,
        "evaluations": 1,
        "steps_per_call": STEPS_PER_CALL,
    }
    runs = cl.fit_many(
        builder(config, curve.rung, curve.control == FLATTENED),
        sets,
        [cl.Config(**options, seed=seed, progress=False) for seed in seeds],
        augment=shift(curve.distance) if curve.control == SHIFTED else None,
    )
    rows = []
    for seed, run, one in zip(seeds, runs, sets, strict=True):
        scored = run.evaluate(one.train.images[:SCORED], one.train.labels[:SCORED])
        scores = {name: value for name, value in run.history[-1].items() if name.endswith("_accuracy")}
        rows.append(
            {
                "network": curve.name,
                "rung": curve.rung,
                "control": curve.control,
                "classes": len(sets[0].classes),
                "places": places(config, curve.distance),
                "size": size,
                "distinct": min(size, len(images(config, choosing).train)),
                "seed": seed,
                "weights": sum(array.size for array in jax.tree.leaves(run.parameters)),
                "rate": rate,
                "steps": steps,
                "train_loss": scored["loss"],
                "train_accuracy": scored["accuracy"],
                "accuracy": scores["test_accuracy"],
                "error": 1 - scores["test_accuracy"],
            }
            | ({"validation": scores["validation_accuracy"]} if choosing else {})
        )
    return rows
