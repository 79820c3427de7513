"""Networks at every rung, trained on sets of growing size: the runs behind the ladder's figures."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import data, train
from experiments.settings import Finished, Source, at_once, code_of, progress_of

RUNGS: dict[str, dict[str, Any]] = {
    "linear": {},
    "dense": {"connectivity": "dense"},
    "global convolution": {"connectivity": "shared"},
    "locally connected": {"connectivity": "locally_connected"},
    "low rank 4": {"connectivity": "low_rank", "rank": 4},
    "tiled 4": {"connectivity": "tiled", "period": 4},
    "tiled 2": {"connectivity": "tiled", "period": 2},
    "convolution": {"connectivity": "conv"},
}
SYMMETRIC = ("linear", "dense")  # networks that learn the same from reordered pixels, from first weights reordered alike
REORDERED, FLATTENED, SHIFTED = "reordered pixels", "all pixels read", "shifted in training"
CANDIDATES = (1e-3, 3e-3, 1e-2, 3e-2)  # learning rates of Adam
CHOICE_SEEDS = (1000, 1001)  # of the runs that rates are chosen by; no other run has them
LEARNT = 0.01  # training loss below which a set counts as learnt
MOVED = 0.005  # change of accuracy by twice the steps that is too large to ignore
SCORED = 1000  # training images at most that the training loss is of
CHUNK = 50  # steps in one call


@dataclasses.dataclass(frozen=True)
class Sizes(Source):
    """The networks, and the sets that they are trained on.

    Args:
      name: The name of the report.
      distances: The largest distances from the centre of the canvas, in pixels.
      margin: The empty pixels around an image. With 0 the canvas is the image.
      sizes: The numbers of training images.
      steps: The numbers of training steps, one for each size.
      seeds: The number of runs, each with its own images, order, places and first weights.
      rungs: The networks, by their names in the figure.
      reordered: The networks that are also trained on reordered pixels, at the first distance.
      flattened: The networks that are also trained with a read-out of all pixels, at the first distance.
      shifted: The networks that are also trained on images shifted at random, at the first distance.
      rates: The learning rates by network. Where it is empty, they are chosen on validation images.
      choice: The sizes that learning rates are chosen at; only the first of them but at the first distance.
      held_out: Whether the images to validate on are kept out of the training sets.
      doublings: How often the steps are doubled while a set is not learnt and twice the steps change the accuracy.
      stop: Whether a network skips larger sets when all its seeds reach the target, but at the first distance.
      copies: The number of places at which every test image is put.
      features: The channels of the three layers.
      batch_size: The number of images in a step.
      target: The accuracy to reach.
    """

    name: str = "ladder"
    distances: tuple[int, ...] = (4, 0)
    margin: int = 4
    sizes: tuple[int, ...] = (62, 250, 1000)
    steps: tuple[int, ...] = (100, 250, 500)
    seeds: int = 3
    rungs: tuple[str, ...] = tuple(RUNGS)
    reordered: tuple[str, ...] = ("locally connected", "convolution")
    flattened: tuple[str, ...] = ()
    shifted: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    choice: tuple[int, ...] = (500, 8000)
    held_out: bool = True
    doublings: int = 0
    stop: bool = False
    copies: int = 4
    features: tuple[int, ...] = (8, 16, 32)
    batch_size: int = 32
    target: float = 0.9


class Curve(NamedTuple):
    """One line of a figure: a network in one situation, trained on sets of every size."""

    rung: str
    distance: int
    control: str = ""

    @property
    def name(self) -> str:
        """What the figure and the table call it."""
        return f"{self.rung}, {self.control}" if self.control else self.rung


def curves_of(config: Sizes) -> Iterator[Curve]:
    """Yield all lines, those of the first distance first."""
    for distance in config.distances:
        yield from (Curve(rung, distance) for rung in config.rungs)
        if distance == config.distances[0]:
            controls = {REORDERED: config.reordered, FLATTENED: config.flattened, SHIFTED: config.shifted}
            yield from (Curve(rung, distance, control) for control, rungs in controls.items() for rung in rungs)


@functools.cache
def images(config: Sizes, choosing: bool = False) -> data.Data:
    """Load the images; to choose rates, with a fifth of each class held out to validate on."""
    loaded = images(config, True) if config.held_out and not choosing else config.load()
    return loaded.hold_out(0.2, seed=0) if choosing else dataclasses.replace(loaded, validation=None)


@functools.cache
def training_set(config: Sizes, distance: int, reordered: bool, seed: int, choosing: bool) -> data.Data:
    """Place the images of one seed on the canvas, as many as the largest set has."""
    loaded = images(config, choosing)
    space = [n + 2 * config.margin for n in loaded.image_shape[:-1]]
    placed = data.place_on_canvas(loaded, space, distance, size=max(config.sizes), copies=config.copies, seed=seed)
    if reordered:
        placed = placed.map(functools.partial(data.permute_pixels, key=jax.random.key(seed)))
    return placed.with_standardisation("scale")  # the background stays 0, as the padding is


def places(config: Sizes, distance: int) -> int:
    """Count the places at which an image may stand."""
    return (2 * distance + 1) ** (len(images(config).image_shape) - 1)


@functools.cache
def builder(config: Sizes, rung: str, flatten: bool) -> Callable[[nnx.Rngs], train.Trainable]:
    """Compile the construction of a network."""
    loaded = images(config)
    shape = *(n + 2 * config.margin for n in loaded.image_shape[:-1]), loaded.image_shape[-1]
    classes = len(loaded.classes)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        if rung == "linear":
            return cl.models.MLP(shape, classes, (), rngs=rngs)
        return cl.models.Pyramid(shape, classes, config.features, flatten=flatten, rngs=rngs, **RUNGS[rung])

    return train.compiled_build(build, shape)


@functools.cache
def shift(by: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the shift of centred images in training, one function for each distance."""
    return data.chain(functools.partial(data.random_shift, by=by))


def trained(config: Sizes, curve: Curve, size: int, steps: int, rate: float, choosing: bool = False) -> list[dict[str, Any]]:
    """Train all seeds of a network on sets of one size; return one row for each."""
    seeds = CHOICE_SEEDS if choosing else range(config.seeds)
    placed = [training_set(config, curve.distance, curve.control == REORDERED, seed, choosing) for seed in seeds]
    if curve.control == SHIFTED:  # trained on centred images, tested at all places
        centred = [training_set(config, 0, False, seed, choosing) for seed in seeds]
        placed = [dataclasses.replace(far, train=near.train) for near, far in zip(centred, placed, strict=True)]
    sets = [dataclasses.replace(whole, train=whole.train.take(np.arange(size))) for whole in placed]
    options = {"steps": steps, "batch_size": config.batch_size, "learning_rate": rate, "evaluations": 1, "chunk": CHUNK}
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


class Runs:
    """All runs of a configuration; those that were finished before are taken from a file."""

    def __init__(self, config: Sizes):
        self.config, self.rates = config, dict.fromkeys(((c.rung, c.distance) for c in curves_of(config)), math.nan)
        self.finished = Finished(pathlib.Path(config.root, "ladder_runs", f"{config.data}.jsonl"), code_of(__file__))
        fixed = ("seeds", "margin", "held_out", "copies", "features", "batch_size")
        self.fixed = tuple(getattr(config, name) for name in fixed)

    def trained(self, curve: Curve, size: int, steps: int, rate: float, choosing: bool = False) -> list[dict[str, Any]]:
        """Train all seeds, or look up what they came to."""
        call = curve, size, steps, rate, choosing
        return self.finished.rows((self.fixed, tuple(curve), *call[1:]), lambda: trained(self.config, *call))

    def learnt(self, curve: Curve, size: int) -> list[dict[str, Any]]:
        """Train with the planned steps, then with twice as many while the set is not learnt and that changes the accuracy."""
        steps, rate = self.steps(size), self.rates[curve.rung, curve.distance]
        rows = self.trained(curve, size, steps, rate)
        for _ in range(self.config.doublings):
            if mean_of(rows, "train_loss") <= LEARNT:
                break
            steps, before = 2 * steps, mean_of(rows, "accuracy")
            rows = self.trained(curve, size, steps, rate)
            if abs(mean_of(rows, "accuracy") - before) <= MOVED:
                break
        return rows

    def steps(self, size: int) -> int:
        """Return the planned number of steps."""
        return self.config.steps[self.config.sizes.index(size)]

    def choose(self, rung: str, distance: int) -> float:
        """Choose the rate that is best on validation images, on average over two seeds and the sizes of the choice."""
        first = distance == self.config.distances[0]
        near = [
            min(sizes_of(self.config, Curve(rung, distance)), key=lambda size: abs(math.log(size / n)))
            for n in self.config.choice
        ]
        sizes = sorted({*near} if first else {near[0]})
        scores = {}
        for rate in CANDIDATES:
            rows = [row for n in sizes for row in self.trained(Curve(rung, distance), n, self.steps(n), rate, choosing=True)]
            scores[rate] = mean_of(rows, "validation")
        return max(scores, key=lambda rate: scores[rate])

    def line(self, curve: Curve, show: Callable[[int], None]) -> list[dict[str, Any]]:
        """Train one network on sets of growing size."""
        rows, sizes = [], sizes_of(self.config, curve)
        for number, size in enumerate(sizes, 1):
            new = self.learnt(curve, size)
            rows, reached = rows + new, min(row["accuracy"] for row in new) >= self.config.target
            over = self.config.stop and reached and curve.distance != self.config.distances[0]
            show(len(sizes) - number + 1 if over else 1)
            if over:
                break
        return rows


def run(config: Sizes) -> tuple[list[dict[str, Any]], bool]:
    """Train every network on sets of every size; return one row for each and seed, and whether any was there before."""
    check(config)
    runs, curves = Runs(config), list(curves_of(config))
    for pair in runs.rates:
        runs.rates[pair] = dict(config.rates).get(pair[0], math.nan)
    if missing := [pair for pair, rate in runs.rates.items() if math.isnan(rate)]:
        with progress_of("choosing learning rates", len(missing)) as show:

            def chosen(pair: tuple[str, int]) -> float:
                rate = runs.choose(*pair)
                show(1)
                return rate

            runs.rates.update(zip(missing, at_once(chosen, missing), strict=True))
    total = sum(len(sizes_of(config, curve)) for curve in curves)
    with progress_of("training networks", total) as show:
        lines = at_once(functools.partial(runs.line, show=show), curves)
    return [row for rows in lines for row in rows], runs.finished.reused


def check(config: Sizes) -> None:
    """Raise a ValueError if the configuration does not fit together."""
    if len(config.steps) != len(config.sizes):
        raise ValueError(f"steps are {config.steps} for sizes {config.sizes}; needs a number of steps for each size")
    named = (*config.rungs, *config.reordered, *config.flattened, *config.shifted)
    if unknown := [rung for rung in named if rung not in RUNGS]:
        raise ValueError(f"rungs {unknown} are unknown; needs some of {', '.join(RUNGS)}")
    if beyond := [distance for distance in config.distances if not 0 <= distance <= config.margin]:
        raise ValueError(f"distances {beyond} do not fit a margin of {config.margin} pixels")


def sizes_of(config: Sizes, curve: Curve) -> list[int]:
    """Return the sizes up to twice the number of different placed images."""
    different = (1 if curve.control == SHIFTED else places(config, curve.distance)) * len(images(config).train)
    return [size for size in config.sizes if size <= 2 * different]


def mean_of(rows: list[dict[str, Any]], name: str) -> float:
    """Average one number over rows."""
    return float(np.mean([row[name] for row in rows]))
