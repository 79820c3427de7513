"""How does a convolutional network change if it is released from weight sharing during training?

LeNet with batch norm is trained. After some epochs every layer is relaxed exactly to a freer rung, locally connected or dense.
The optimizer's momentum and schedule are kept, and training continues to the same number of epochs (d'Ascoli et al. 2019).
Baselines: the network that is never released, networks trained on the freer rung from the start, and a linear classifier.

Answer: on Fashion-MNIST it changes little, and hardly uses its freedom. Released after two epochs or more, dense kernels end
half a point above the network that is never released, and local ones 0.0 to 0.3. Corrected for ten releases, three seeds show
neither. Released after an epoch or more, both end two to three points above networks trained on the freer rung from the start.
Corrected for ten releases, three seeds do not quite show this either (p = 0.06 to 0.08).

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
from convlab.data import Data, centre_on_canvas
from experiments.parts.networks import linear
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Recipe, above, with_p

LEAST = 12  # the smallest image side that LeNet accepts, in pixels
NEVER = {"rung": "conv", "release": None}
FORMATS = {"accuracy": ".1%", "gain": ".1%", "unshared": ".1%"}
LABELS = {"locally_connected": "released to local", "dense": "released to dense"}
STARTS = {"conv": "never released", "locally_connected": "local from the start", "dense": "dense from the start"}
STARTS |= {"linear": "linear classifier"}


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """The settings of the experiment.

    Args:
      size: The number of training images.
      epochs: The number of passes over the training images, before and after the release together.
      releases: The numbers of epochs after which the network is released.
      rungs: The rungs that it is released to.
      learning_rate: The learning rate of SGD, which decays along a cosine over all epochs. A release does not restart it.
      momentum: The momentum of SGD.
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
    """The training of one seed: the same recipe for every network."""

    def __init__(self, config: Config, data: Data, seed: int):
        self.config, self.data, self.seed = config, data.subset(config.size, seed), seed

    def train(self, model: nnx.Module, epochs: int, optimizer: Any, optimizer_state: Any = None, part: int = 0) -> cl.Fitted:
        """Train for some epochs, in an order of images that depends on the part of the training."""
        seed, batch = 1000 * part + self.seed, self.config.batch_size
        recipe = cl.Config(epochs=epochs, batch_size=batch, evaluations=1, progress=False, seed=seed)
        return cl.fit(model, self.data, recipe, optimizer=optimizer, optimizer_state=optimizer_state)

    def build(self, connectivity: str) -> nnx.Module:
        """Build the network on a rung."""
        shape, classes = self.data.image_shape, len(self.data.classes)
        return cl.models.LeNet(shape, classes, batch_norm=True, connectivity=connectivity, rngs=nnx.Rngs(self.seed))


def run(config: Config) -> Rows:
    """Return one row per network, epoch of release and seed.

    `gain` is the accuracy above that of the network that is never released.
    """
    data = config.load()
    space = tuple(max(n, LEAST) for n in data.image_shape[:-1])
    data = data.map(functools.partial(centre_on_canvas, space=space))
    steps = config.epochs * config.size // config.batch_size
    optimizer = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, steps), momentum=config.momentum)
    rows = []
    for seed in track(range(config.seeds), "seeds"):
        course = Course(config, data, seed)
        rows.append(row("linear", None, seed, course.train(linear(data, seed), config.epochs, optimizer)))
        rows += [row(rung, None, seed, course.train(course.build(rung), config.epochs, optimizer)) for rung in config.rungs]
        model, optimizer_state, done = course.build("conv"), None, 0
        for release in (*config.releases, config.epochs):
            if release > done:
                fitted = course.train(model, release - done, optimizer, optimizer_state, part=done)
                model, optimizer_state, done = fitted.model(), fitted.optimizer_state, release
            if release == config.epochs:
                rows.append(row("conv", None, seed, fitted))
                break
            for rung in config.rungs:
                free = cl.relax(model, rung, data.image_shape, optimizer=optimizer)
                transferred = (
                    None
                    if optimizer_state is None
                    else cl.transfer_optimizer_state(optimizer, optimizer_state, model, free, data.image_shape)
                )
                freed = course.train(free, config.epochs - release, optimizer, transferred, part=release)
                changes = cl.diff(free, freed.model(), data.image_shape)
                unshared = float(np.mean([1 - change.shared for change in changes]))
                rows.append(row(rung, release, seed, freed) | {"unshared": unshared})
                print(f"seed {seed}, {LABELS[rung]} after {release}: {rows[-1]['accuracy']:.1%}", flush=True)
    return above(rows, NEVER)


def row(rung: str, release: int | None, seed: int, fitted: cl.Fitted) -> dict[str, Any]:
    """Return the row of a run. If `release` is None, the network was trained on its rung from the start."""
    last, weights = fitted.history[-1], sum(leaf.size for leaf in jax.tree.leaves(fitted.parameters))
    start = {"rung": rung, "release": release, "weights": weights, "seed": seed}
    return start | {"accuracy": last["test_accuracy"], "loss": last["loss"]}


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with p-values of the gains that are corrected for the number of releases."""
    bounds = {"accuracy": report.SHARE, "unshared": report.SHARE}
    summary = report.summarise(rows, ["rung", "release", "weights"], ["accuracy", "gain", "unshared"], bounds=bounds)
    pairs = [row for row in rows if row["rung"] == "conv" or row["release"] is not None]
    return with_p(summary, pairs, ["rung", "release"], NEVER)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the gain of a release, and the share of weights that becomes unshared."""
    summary = table(rows, config)
    starts = {line["rung"]: report.interval_of(line, "gain") for line in summary if line["release"] is None}
    baselines = {label: starts[rung] for rung, label in STARTS.items() if rung in starts}
    released = [line for line in summary if line["release"] is not None]
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    panels = [
        ("gain", "gain over never released, 95 % interval", f"what freedom buys on {config.dataset}", baselines),
        ("unshared", "squares not shared, 95 % interval", "what kernels use it for", None),
    ]
    shown = {"labels": LABELS, "x_label": f"epoch of release, of {config.epochs}", "y_format": ".1%"}
    for axis, (name, y_label, title, heights) in zip(axes, panels, strict=True):
        report.curves(axis, released, "release", name, y_label=y_label, title=title, baselines=heights, **shown)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
