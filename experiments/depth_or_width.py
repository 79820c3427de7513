"""Is a network better deep or wide, if its weights or its multiply-adds are limited?

Networks have 3x3 layers of equal width with batch norm and ReLU, and a linear read-out of the mean over positions. Max pooling
halves the image after the first two layers. For every depth the experiment finds the width at which the network costs as much
as one of three layers: once in weights, and once in multiply-adds. The two differ because the later layers see a smaller image.

A deeper network also has a larger receptive field. The third kind of network has 1x1 layers after the second, so that depth
adds nonlinear layers and no further pixels. It has equal weights too.

Digits stand at random places on a canvas. Every network has the learning rate that is best on validation images, and is
compared by seed with the network of three layers of its kind. The null model is a linear classifier of the pixels.

    python -m experiments.depth_or_width                                               (13 minutes on 2 busy cores)
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx

import convlab as cl
from convlab import measure, report
from convlab.data import Data
from experiments.parts import canvas, tuned
from experiments.parts.canvas import Canvas
from experiments.parts.networks import NORMED, Layers, linear
from experiments.parts.tuned import LINEAR, LINEAR_RATES
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once
from experiments.shared.settings import styles

POOLED = 2  # the number of layers that are followed by 2x2 max pooling; a single layer is followed by 4x4
REFERENCE = 3  # the depth whose costs the others match


class Kind(NamedTuple):
    """A kind of network: the matched cost, and the kernel size of the layers after the pooled ones."""

    cost: str
    later: int = 3


WEIGHTS, MULTIPLY_ADDS, POINTWISE = "equal weights", "equal multiply-adds", "equal weights, 1x1 layers after the second"
KINDS = {WEIGHTS: Kind("weights"), MULTIPLY_ADDS: Kind("multiply_adds"), POINTWISE: Kind("weights", 1)}
STYLES = styles({WEIGHTS: "conv", MULTIPLY_ADDS: "tiled", POINTWISE: "dense"})
COSTS = ("width", "weights", "multiply_adds")
FORMATS = tuned.FORMATS
PRINTED = ("kind", "depth", *COSTS, "accuracy", "gain", "p")


@dataclasses.dataclass(frozen=True)
class Config(Canvas):
    """The settings of the experiment.

    Args:
      depths: The numbers of layers.
      width: The number of channels of the networks with three layers.
    """

    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    width: int = 16
    size: int = 300
    steps: int = 600
    seeds: int = 8


SMOKE = Config(depths=(1, 3), width=3, size=50, copies=1, steps=2, rates=(0.01,), seeds=2)


def network(data: Data, depth: int, later: int, width: int, seed: int) -> nnx.Module:
    """Build layers of equal width, with 3x3 kernels and pooling first, and a linear read-out of the mean."""
    pooled = [2 ** (POOLED // min(depth, POOLED))] * min(depth, POOLED)
    layers: list[dict[str, Any]] = [{"kernel_size": 3, "pool": cl.max_pool, "pool_window": cl.Window(n, n)} for n in pooled]
    layers += [{"kernel_size": later}] * (depth - len(layers))
    return Layers(data.image_shape, len(data.classes), [{"features": width, **NORMED, **layer} for layer in layers], seed)


def cost_of(data: Data, cost: str, model: nnx.Module) -> int:
    """Count the weights or the multiply-adds of a network, or of its shapes."""
    return getattr(cl.count(model, data.image_shape).total, cost)


def width_of(config: Config, data: Data, kind: Kind, depth: int) -> int:
    """Return the width at which a network costs as much as the one of three 3x3 layers."""
    costs = functools.partial(cost_of, data, kind.cost)
    target = costs(nnx.eval_shape(lambda: network(data, REFERENCE, 3, config.width, 0)))
    return measure.match_width(lambda width: network(data, depth, kind.later, width, 0), target, cost=costs)


def trained(config: Config, build: Any, rate: float, seed: int) -> Rows:
    """Train a network and return one row."""
    data = canvas.placed(config, seed)
    fitted = cl.fit(build(seed=seed), data, config.recipe(rate, seed))
    return [canvas.scores(fitted, data)]


def compared(config: Config, part: tuple[str, int] | None) -> Rows:
    """Return one row per seed of a network of a kind and depth, or of the linear classifier."""
    data = canvas.placed(config, 0)
    if part is None:
        name, against, rates = LINEAR, None, LINEAR_RATES
        build, costs = functools.partial(linear, data), {}
    else:
        (kind, depth), rates = part, None
        name, against = (f"{n} layers, {kind}" for n in (depth, REFERENCE))
        width = width_of(config, data, KINDS[kind], depth)
        build = functools.partial(network, data, depth, KINDS[kind].later, width)
        total = cl.count(nnx.eval_shape(lambda: build(0)), data.image_shape).total
        costs = dict(zip(COSTS, (width, total.weights, total.multiply_adds), strict=True)) | {"kind": kind, "depth": depth}
    rows = canvas.tuned(config, name, functools.partial(trained, config, build), rates)
    return [{"against": against, **costs} | row for row in rows]


def run(config: Config) -> Rows:
    """Return one row per network and seed, with its `gain` over the three layers of its kind."""
    networks = [(kind, depth) for kind in KINDS for depth in sorted({REFERENCE, *config.depths})]
    parts = at_once(functools.partial(compared, config), (None, *networks), "networks")
    return tuned.with_gains([row for rows in parts for row in rows])


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with corrected p-values against the three layers of the same kind."""
    return tuned.compared(rows, "kind", "depth", *COSTS, "rate")


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy against the number of layers for every kind of network."""
    lines = table(rows, config)
    [null] = [line for line in lines if line["network"] == LINEAR]
    figure, [axis] = report.new_figure(size=(12.0, 7.0))
    report.curves(
        axis,
        [line for line in lines if line is not null],
        "depth",
        "accuracy",
        "kind",
        x_label="number of layers",
        y_label="test images classified right, 95 % interval",
        y_format=".0%",
        title=f"{config.dataset} at random places, {config.size:,} training images",
        baselines={LINEAR: report.interval_of(null, "accuracy")},
        styles=STYLES,
    )
    axis.set_xticks([*config.depths])
    axis.set_ylim(0, 1.02)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
