"""What does a network do with the freedom to stop being a convolution, given to it on the way?

LeNet with batch norm is trained; after some epochs every layer becomes its exact image on a freer rung, locally connected or
dense, the optimizer's momentum and schedule with it, and training goes on to the same number of epochs (d'Ascoli et al. 2019).
Baselines: the network that is never released, those that have the freer rung from their own start, a linear classifier.

Answer: on Fashion-MNIST little, and it hardly uses it. Released after two epochs or more, dense kernels end half a point above
the network that is never released, and local ones 0.0 to 0.3; corrected for ten releases, three seeds show neither. Released
after an epoch or more, both end two to three points above networks that had the freedom from a start of their own.

    python -m experiments.relax                                                        (some minutes)
    python -m experiments.relax --data fashion_mnist --manual-dir DIR --size 2000 --epochs 10 --releases 0 1 2 4 7  (11 minutes)
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data, embed
from experiments.parts.networks import linear
from experiments.shared.command import Rows, main
from experiments.shared.settings import Recipe, above, with_p

LEAST = 12  # pixels that LeNet needs along each axis
NEVER = {"rung": "conv", "release": None}
FORMATS = {"accuracy": ".1%", "gain": ".1%", "unshared": ".1%"}
LABELS = {"locally_connected": "released to local", "dense": "released to dense"}
STARTS = {"conv": "never released", "locally_connected": "local from the start", "dense": "dense from the start"}
STARTS |= {"linear": "linear classifier"}


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """What is run.

    Args:
      size: Training images.
      epochs: Passes over the training images, before and after the release together.
      releases: After how many of them the network is released.
      rungs: What it is released to.
      learning_rate: Of SGD with momentum, falling along a cosine over all epochs: a released network goes on where it was.
      momentum: Of SGD.
    """

    size: int = 1000
    epochs: int = 20
    releases: tuple[int, ...] = (0, 1, 3, 6, 10, 15)
    rungs: tuple[Literal["locally_connected", "dense"], ...] = ("locally_connected", "dense")
    batch_size: int = 32
    seeds: int = 3
    learning_rate: float = 0.05
    momentum: float = 0.9


SMOKE = Config(size=100, epochs=2, releases=(1,), rungs=("locally_connected",), seeds=1)


class Course:
    """One seed's training: the same recipe for every network, and the convolution kept where it may be released."""

    def __init__(self, config: Config, data: Data, seed: int):
        self.config, self.data, self.seed = config, data.subset(config.size, seed), seed

    def train(self, model: nnx.Module, epochs: int, optimizer: Any, remembered: Any = None, part: int = 0) -> cl.Fitted:
        """Train for some epochs, in an order of images of their own."""
        seed, batch = 1000 * part + self.seed, self.config.batch_size
        recipe = cl.Config(epochs=epochs, batch_size=batch, evaluations=1, progress=False, seed=seed)
        return cl.fit(model, self.data, recipe, optimizer=optimizer, optimizer_state=remembered)

    def build(self, connectivity: str) -> nnx.Module:
        """The network at a rung."""
        shape, classes = self.data.image_shape, len(self.data.classes)
        return cl.models.LeNet(shape, classes, batch_norm=True, connectivity=connectivity, rngs=nnx.Rngs(self.seed))


def run(config: Config) -> Rows:
    """One row per network, epoch of release and seed, with its `gain`: what it has above the network never released."""
    data = config.load()
    space = tuple(max(n, LEAST) for n in data.image_shape[:-1])
    data = data.map(functools.partial(embed, space=space))
    steps = config.epochs * config.size // config.batch_size
    optimizer = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, steps), momentum=config.momentum)
    rows = []
    for seed in range(config.seeds):
        course = Course(config, data, seed)
        rows.append(row("linear", None, seed, course.train(linear(data, seed), config.epochs, optimizer)))
        rows += [row(rung, None, seed, course.train(course.build(rung), config.epochs, optimizer)) for rung in config.rungs]
        model, remembered, done = course.build("conv"), None, 0
        for release in (*config.releases, config.epochs):
            if release > done:
                fitted = course.train(model, release - done, optimizer, remembered, part=done)
                model, remembered, done = fitted.model(), fitted.optimizer_state, release
            if release == config.epochs:
                rows.append(row("conv", None, seed, fitted))
                break
            for rung in config.rungs:
                free = cl.relax(model, rung, data.image_shape, optimizer=optimizer)
                kept = (
                    None
                    if remembered is None
                    else cl.transfer_optimizer_state(optimizer, remembered, model, free, data.image_shape)
                )
                freed = course.train(free, config.epochs - release, optimizer, kept, part=release)
                changes = cl.diff(free, freed.model(), data.image_shape, show=False)
                unshared = float(np.mean([1 - change.shared for change in changes]))
                rows.append(row(rung, release, seed, freed) | {"unshared": unshared})
                print(f"seed {seed}, {LABELS[rung]} after {release}: {rows[-1]['accuracy']:.1%}", flush=True)
    return above(rows, NEVER)


def row(rung: str, release: int | None, seed: int, fitted: cl.Fitted) -> dict[str, Any]:
    """What is reported of a run; without a release it was trained as it is from the start."""
    last, weights = fitted.history[-1], sum(leaf.size for leaf in jax.tree.leaves(fitted.parameters))
    start = {"rung": rung, "release": release, "weights": weights, "seed": seed}
    return start | {"accuracy": last["test_accuracy"], "loss": last["loss"]}


def table(rows: Rows, config: Config) -> Rows:
    """Mean and interval of every network, and how likely the gain of a release is by chance, corrected for their number."""
    bounds = {"accuracy": report.SHARE, "unshared": report.SHARE}
    summary = report.summarise(rows, ["rung", "release", "weights"], ["accuracy", "gain", "unshared"], bounds=bounds)
    pairs = [row for row in rows if row["rung"] == "conv" or row["release"] is not None]
    return with_p(summary, pairs, ["rung", "release"], NEVER)


def draw(rows: Rows, config: Config) -> Any:
    """What a release buys, and what kernels use it for, against its epoch."""
    summary = table(rows, config)
    starts = {line["rung"]: report.interval_of(line, "gain") for line in summary if line["release"] is None}
    baselines = {label: starts[rung] for rung, label in STARTS.items() if rung in starts}
    released = [line for line in summary if line["release"] is not None]
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    panels = [
        ("gain", "gain over never released, 95 % interval", f"what freedom buys on {config.data}", baselines),
        ("unshared", "squares not shared, 95 % interval", "what kernels use it for", None),
    ]
    shown = {"labels": LABELS, "x_label": f"epoch of release, of {config.epochs}", "y_format": ".1%"}
    for axis, (name, y_label, title, heights) in zip(axes, panels, strict=True):
        report.curves(axis, released, "release", name, y_label=y_label, title=title, baselines=heights, **shown)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
