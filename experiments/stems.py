"""Are more outputs than a patch has numbers useful, and how do the stems in use compare?

A discussion held that a first layer from 27 numbers (3x3x3) to 32 "dilutes" and that more outputs than the patch are pointless.

First panel: a 3x3 layer of stride 2 has d outputs, followed by a ReLU or by nothing. The network after it is the same for every
d and reads out the mean over positions. A read-out of every position is more accurate, but its accuracy varies too much to show
a difference. Without the ReLU all numbers of outputs from the patch's on represent the same functions, and with it they do not.

Second panel: the stems of `models.STEMS`, by the two ratios that the discussion confused, with the share of aliased energy.
They are the outputs per number of the patch, and the outputs per number of new pixels.

Answer: without a ReLU nothing is gained beyond the nine numbers of the patch, as theory demands. With one, the gain is perhaps
a point of accuracy, 1.3 [-0.6, 3.1] at 36 outputs, which five seeds do not show. All of these networks are far below a linear
classifier.

    python -m experiments.stems                                                        (1 minute on 2 cores)
    python -m experiments.stems --data fashion_mnist --manual-dir DIR --size 2000  (8 minutes)
"""

import dataclasses
import itertools
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
from experiments.parts.networks import NORMED, Layers, linear
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Training, styles

RELU, NOTHING, LINEAR = "ReLU after the stem", "nothing after the stem", "linear classifier"
RIGHT = {"accuracy": report.SHARE}
AFTER = {RELU: nnx.relu, NOTHING: nnx.identity}
STYLES = styles({RELU: "conv", NOTHING: "dense"})
SHOWN = (
    "stem",
    "window_ratio",
    "stride_ratio",
    "weights",
    "multiply_adds",
    "receptive_field",
    "effective_stride",
    "rank",
    "rank_after_relu",
    "aliasing",
)
FORMATS = {"accuracy": ".1%", "aliasing": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """The settings of the experiment.

    Args:
      outputs: The numbers of outputs of the first layer.
      width: The number of channels of the following layers, and of the stems in use.
      stems: The stems in use: names in `models.STEMS`.
    """

    outputs: tuple[int, ...] = (1, 2, 4, 9, 18, 36)
    width: int = 24
    stems: tuple[str, ...] = tuple(models.STEMS)
    learning_rate: float = 0.05


SMOKE = Config(size=100, outputs=(4,), width=5, stems=("2x2",), epochs=1, seeds=2)


def stemmed(data: Data, outputs: int, after: str, width: int, seed: int) -> nnx.Module:
    """Build a first layer of d outputs, and a network that is otherwise the same for all d."""
    first = {"features": outputs, "kernel_size": 3, "strides": 2, "activation": AFTER[after]}
    others = [{"features": width, "kernel_size": 1, **NORMED}, {"features": 2 * width, "kernel_size": 3, **NORMED}]
    return Layers(data.image_shape, len(data.classes), [first, *others], seed)


def trained(config: Config, data: Data) -> Rows:
    """Return the rows of the trained networks, and those of the linear classifier."""
    rows = []
    for after, outputs in track(itertools.product(AFTER, config.outputs), "stems"):
        for seed in range(config.seeds):
            right = config.accuracy(stemmed(data, outputs, after, config.width, seed), data, seed)
            rows.append({"stem": after, "outputs": outputs, "seed": seed, "accuracy": right})
        print(f"{after}, {outputs} outputs: {rows[-1]['accuracy']:.1%}", flush=True)
    for seed in range(config.seeds):
        rows.append({"stem": LINEAR, "seed": seed, "accuracy": config.accuracy(linear(data, seed), data, seed)})
    return rows


def in_use(config: Config, data: Data) -> Rows:
    """Return one row per stem of `models.STEMS`, measured on images of the data set."""
    images = jnp.asarray((np.asarray(data.train.images[:100], np.float32) - data.mean) / data.std)
    rows = []
    for name in config.stems:
        stem = models.STEMS[name]
        layers = [(cl.Window(size, step, PADDING), math.ceil(share * config.width)) for share, size, step in stem.layers]
        reports = measure.stem_report(layers, images, jax.random.key(0), pool=POOL_WINDOW if stem.pool else None)
        row = {"stem": name} | reports[-1]._asdict()
        rows.append({name: row[name] if np.isscalar(row[name]) else "x".join(map(str, row[name])) for name in SHOWN})
    return rows


def run(config: Config) -> Rows:
    """Return the rows of the trained networks and of the stems in use."""
    data = config.load()
    return trained(config, data) + in_use(config, data)


def table(rows: Rows, config: Config) -> Rows:
    """Average accuracies over the seeds, and add the stems in use."""
    right = [row for row in rows if "accuracy" in row]
    return report.summarise(right, ["stem", "outputs"], "accuracy", bounds=RIGHT) + [row for row in rows if "aliasing" in row]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy against the outputs of the first layer, and the stems in use by both ratios."""
    lines, patch = table(rows, config), 9 * config.load().image_shape[-1]
    figure, axes = report.new_figure(2, size=(15.0, 6.5))
    report.curves(
        axes[0],
        [line for line in lines if line["stem"] in STYLES],
        "outputs",
        "accuracy",
        "stem",
        x_label=f"outputs of the first layer (its patch has {patch} numbers)",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        log_x=True,
        title=f"{config.dataset}, {config.size} images",
        baselines={LINEAR: next(report.interval_of(line, "accuracy") for line in lines if line["stem"] == LINEAR)},
        styles=STYLES,
    )
    axes[0].axvline(patch, color="0.6", linestyle=":")
    for row in (line for line in lines if "aliasing" in line):
        position = row["window_ratio"], row["stride_ratio"]
        axes[1].plot(*position, "o", color=report.RUNG_STYLE["conv"].colour, markersize=10)
        axes[1].annotate(f"  {row['stem']}: {row['aliasing']:.0%} aliased", position, rotation=40, va="bottom")
    axes[1].axhline(1, color="0.6", linestyle=":")
    axes[1].axvline(1, color="0.6", linestyle=":")
    axes[1].set(xscale="log", yscale="log", xlabel="outputs / numbers in the field", ylabel="outputs / numbers in new pixels")
    axes[1].set_title(f"stems in use, {config.width} channels")
    axes[1].margins(0.25)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
