"""Is it pointless for a first layer to have more outputs than its patch has numbers, and which stem is best?

A discussion held that a first layer from 27 numbers (3x3x3) to 32 "dilutes", and that more outputs than the patch are useless.

First part: a 3x3 layer of stride 2 has d outputs, followed by a ReLU or by nothing. The network after it is the same for every
d. Without the ReLU all numbers of outputs from the patch's on represent the same functions, and with it they do not.

Second part: the stems of `models.STEMS` before that same network. They are compared with the 7x7 stem of ResNet. The table has
the two ratios that the discussion confused, outputs per number of the patch and per number of new pixels, and the share of
aliased energy. Every network has the learning rate that is best on validation images.

    python -m experiments.stems                                                     (92 seconds on 2 busy cores)
    python -m experiments.stems --full --data folder:PATH/cifar10.zip           (67 minutes on 2 busy cores)
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure, models, report
from convlab.data import Data
from convlab.models.resnet import PADDING, POOL_WINDOW
from experiments.parts import networks, tuned
from experiments.parts.networks import NORMED, Layers
from experiments.parts.tuned import LINEAR
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import styles

RELU, NOTHING = "ReLU after the stem", "nothing after the stem"
AFTER = {RELU: nnx.relu, NOTHING: nnx.identity}
STYLES = styles({RELU: "conv", NOTHING: "dense"})
USUAL = "7x7"  # the stem that the others are compared to
MEASURED = (
    "window_ratio",
    "stride_ratio",
    "weights",
    "multiply_adds",
    "receptive_field",
    "effective_stride",
    "rank",
    "aliasing",
)
FORMATS = tuned.FORMATS | {"aliasing": ".1%"}
PRINTED = ("network", "accuracy", "gain", "p")
NAMES = {
    "3x3": "3x3, stride 1",
    USUAL: "7x7 (ResNet)",
    "3x3x3": "three 3x3 (ResNet-C)",
    "patchify": "4x4, stride 4 (patchify)",
}


@dataclasses.dataclass(frozen=True)
class Config(tuned.Tuned):
    """The settings of the experiment.

    Args:
      outputs: The numbers of outputs of the first layer, beside as many as its patch has numbers.
      width: The number of channels of the following layers, and of the stems in use.
      stems: The stems in use: names in `models.STEMS`.
    """

    outputs: tuple[int, ...] = (3, 18, 36)
    width: int = 24
    stems: tuple[str, ...] = tuple(models.STEMS)


SMOKE = Config(size=100, outputs=(), width=5, stems=("7x7", "2x2"), rates=(0.1,), epochs=1, seeds=2)
FULL = Config(data="cifar10", size=10_000, epochs=5, seeds=6, outputs=(3, 9, 32, 54, 64))


def network(data: Data, first: list[dict[str, Any]], width: int, seed: int) -> nnx.Module:
    """Build first layers, and a network after them that is always the same: a 1x1 and two 3x3 layers, and the mean."""
    mixed = {"features": width, "kernel_size": 1, **NORMED}
    halved = {"features": 2 * width, "kernel_size": 3, "strides": 2, **NORMED}
    last = {"features": 2 * width, "kernel_size": 3, **NORMED}
    return Layers(data.image_shape, len(data.classes), [*first, mixed, halved, last], seed)


def counted(outputs: int, after: str) -> list[dict[str, Any]]:
    """Return a first layer of d outputs."""
    return [{"features": outputs, "kernel_size": 3, "strides": 2, "activation": AFTER[after]}]


def in_use(stem: str, width: int) -> list[dict[str, Any]]:
    """Return the layers of a stem of `models.STEMS`, each with batch norm and a ReLU."""
    layers = [
        {"features": math.ceil(share * width), "kernel_size": size, "strides": step, "padding": PADDING, **NORMED}
        for share, size, step in models.STEMS[stem].layers
    ]
    layers[-1] |= {"pool": cl.max_pool, "pool_window": POOL_WINDOW} if models.STEMS[stem].pool else {}
    return layers


def measured(stem: str, config: Config, data: Data) -> dict[str, Any]:
    """Measure a stem of `models.STEMS` on images of the data set."""
    images = jnp.asarray((np.asarray(data.train.images[:100], np.float32) - data.mean) / data.std)
    layers = [
        (cl.Window(size, step, PADDING), math.ceil(share * config.width)) for share, size, step in models.STEMS[stem].layers
    ]
    pool = POOL_WINDOW if models.STEMS[stem].pool else None
    row = measure.stem_report(layers, images, jax.random.key(0), pool=pool)[-1]._asdict()
    return {name: row[name] if np.isscalar(row[name]) else "x".join(map(str, row[name])) for name in MEASURED}


def run(config: Config) -> Result:
    """Return one row per network and seed.

    The `gain` is over the first layer with as many outputs as its patch has numbers, or over the stem of 7x7.
    """
    runs = tuned.Runs(config, "stems", __file__, str(networks.__file__))
    patch = 9 * runs.data.image_shape[-1]
    rows: Rows = [{"network": LINEAR, "against": None, **row} for row in runs.linear()]

    def train(name: str, against: str, layers: list[dict[str, Any]], **columns: Any) -> None:
        def build(seed: int) -> nnx.Module:
            return network(runs.data, layers, config.width, seed)

        trained = runs.rows((name, config.width), build)
        rows.extend({"network": name, "against": against, **columns, **row} for row in trained)
        print(f"{name}: {trained[0]['accuracy']:.1%}", flush=True)

    named = "{} outputs, {}".format
    parts = [
        functools.partial(train, named(d, after), named(patch, after), counted(d, after), after=after, outputs=d)
        for after in AFTER
        for d in sorted({patch, *config.outputs})
    ]
    parts += [
        functools.partial(train, stem, USUAL, in_use(stem, config.width), **measured(stem, config, runs.data))
        for stem in config.stems
    ]
    for part in track(parts, "stems"):
        part()
    return Result(tuned.with_gains(rows), reused=runs.finished.reused)


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with p-values of the gains that are corrected for the networks of each comparison."""
    return tuned.compared(rows, "after", "outputs", "rate", *MEASURED)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy against the outputs of the first layer, and the accuracy of the stems in use."""
    lines, patch = table(rows, config), next(row["against"] for row in rows if row["against"]).split()[0]
    figure, axes = report.new_figure(2, size=(14.0, 6.0))
    linear = next(report.interval_of(line, "accuracy") for line in lines if line["network"] == LINEAR)
    report.curves(
        axes[0],
        [line for line in lines if line["outputs"]],
        "outputs",
        "accuracy",
        "after",
        x_label=f"outputs of the first layer (its patch has {patch} numbers)",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        log_x=True,
        title=f"{config.dataset}, {config.size:,} images",
        baselines={LINEAR: linear},
        styles=STYLES,
    )
    axes[0].axvline(int(patch), color="0.6", linestyle=":")
    axes[0].set_xticks(ticks := sorted({line["outputs"] for line in lines if line["outputs"]}), [f"{d}" for d in ticks])
    axes[0].minorticks_off()
    axes[0].locator_params(axis="y", nbins=5, steps=[1, 2, 5, 10])
    report.comparison(
        axes[1],
        [line | {"network": NAMES.get(line["network"], line["network"])} for line in lines if line["aliasing"] is not None],
        "network",
        "accuracy",
        label=f"mean of {config.seeds} seeds, 95 % interval",
        x_label="accuracy on test images",
        x_format=".0%",
        title=f"stems in use, {config.width} channels",
        baselines={LINEAR: linear},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
