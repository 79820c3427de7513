"""Do more outputs than a patch has numbers buy anything, and what do the stems in use make of an image?

A discussion held that a first layer from 27 numbers (3x3x3) to 32 "dilutes" and that more outputs than the patch are pointless.
First panel: a 3x3 layer of stride 2 with d outputs, a ReLU after it or nothing, then one and the same network that
reads out the mean over positions (every position is more accurate and so unsteady that nothing shows). Without the ReLU
all widths from the patch on are the same functions; with it they are not. Second panel: the stems of `models.STEMS` by the two
ratios that were mixed up, outputs a number of the patch and outputs a number of new pixels, and what aliases.

Answer: without a ReLU nothing from the nine numbers of the patch on, as it must be; with one perhaps a point of accuracy, 1.3
[-0.6, 3.1] at 36 outputs, which five seeds do not show. All of these networks are far below a linear classifier.

    python -m experiments.stems                                                        (1 minute on 2 cores)
    python -m experiments.stems --data fashion_mnist --manual-dir DIR --size 2000  (8 minutes)
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure, models, report
from convlab.models import Head, Stack, Stage, Wiring
from convlab.models.resnet import PADDING, POOL_WINDOW
from experiments.command import parse
from experiments.settings import Training

RELU, NOTHING, LINEAR = "ReLU after the stem", "nothing after the stem", "linear classifier"
RIGHT = {"accuracy": report.SHARE}
AFTER = {RELU: nnx.relu, NOTHING: nnx.identity}
STYLES = {name: report.RUNG_STYLE[rung]._replace(label=name) for name, rung in ((RELU, "conv"), (NOTHING, "dense"))}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """What is run.

    Args:
      outputs: Of the first layer.
      width: Channels of what follows, and of the stems in use.
      stems: Names in `models.STEMS`.
    """

    outputs: tuple[int, ...] = (1, 2, 4, 9, 18, 36)
    width: int = 24
    stems: tuple[str, ...] = tuple(models.STEMS)
    learning_rate: float = 0.05


SMOKE = Config(size=100, outputs=(4,), width=5, stems=("2x2",), epochs=1, seeds=2)


class Stemmed(Stack):
    """A first layer of d outputs, and a network that is the same for every d but for its 1x1 layer's inputs."""

    def __init__(self, shape: Sequence[int], classes: int, outputs: int, after: str, width: int, seed: int):
        rngs = nnx.Rngs(seed)
        own: dict[str, Any] = {"wiring": Wiring("conv"), "rngs": rngs}
        first = Stage(shape, outputs, 3, 2, activation=AFTER[after], **own)
        mixed = Stage(first.output_shape, width, 1, batch_norm=True, use_bias=False, **own)
        last = Stage(mixed.output_shape, 2 * width, 3, batch_norm=True, use_bias=False, **own)
        self.stages = nnx.List([first, mixed, last])
        self.head = Head(last.output_shape, (classes,), mean=True, rngs=rngs)


def trained(config: Config, data: Any) -> list[dict[str, Any]]:
    """One row per number of outputs, what follows, and seed; and the linear classifier."""
    shape, classes, rows = data.image_shape, len(data.classes), []

    def accuracy(model: nnx.Module, seed: int) -> float:
        return config.fit(model, data, seed).history[-1]["test_accuracy"]

    for after, outputs in itertools.product(AFTER, config.outputs):
        for seed in range(config.seeds):
            model = Stemmed(shape, classes, outputs, after, config.width, seed)
            rows.append({"stem": after, "outputs": outputs, "seed": seed, "accuracy": accuracy(model, seed)})
        print(f"{after}, {outputs} outputs: {rows[-1]['accuracy']:.1%}", flush=True)
    for seed in range(config.seeds):
        rows.append(
            {"stem": LINEAR, "seed": seed, "accuracy": accuracy(models.MLP(shape, classes, (), rngs=nnx.Rngs(seed)), seed)}
        )
    return rows


def in_use(config: Config, data: Any) -> list[dict[str, Any]]:
    """One row per stem of `models.STEMS`, as a whole, on images of the data set."""
    images = jnp.asarray((np.asarray(data.train.images[:100], np.float32) - data.mean) / data.std)
    rows = []
    for name in config.stems:
        stem = models.STEMS[name]
        layers = [(cl.Window(size, step, PADDING), math.ceil(share * config.width)) for share, size, step in stem.layers]
        told = measure.stem_report(layers, images, jax.random.key(0), pool=POOL_WINDOW if stem.pool else None)
        rows.append({"stem": name, "first": told[0].window_ratio} | told[-1]._asdict())
    return rows


def draw(rows: list[dict[str, Any]], stems: list[dict[str, Any]], config: Config, patch: int) -> Any:
    """Accuracy against the outputs of the first layer; the stems in use by both ratios."""
    figure, axes = report.new_figure(2, size=(15.0, 6.5))
    [null] = report.summarise([row for row in rows if row["stem"] == LINEAR], "stem", "accuracy", bounds=RIGHT)
    report.curves(
        axes[0],
        report.summarise([row for row in rows if row["stem"] != LINEAR], ["stem", "outputs"], "accuracy", bounds=RIGHT),
        "outputs",
        "accuracy",
        "stem",
        x_label=f"outputs of the first layer (its patch has {patch} numbers)",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        log_x=True,
        title=f"{config.data}, {config.size} images",
        baselines={LINEAR: report.interval_of(null, "accuracy")},
        styles=STYLES,
    )
    axes[0].axvline(patch, color="0.6", linestyle=":")
    for row in stems:
        place = row["window_ratio"], row["stride_ratio"]
        axes[1].plot(*place, "o", color=report.RUNG_STYLE["conv"].colour, markersize=10)
        axes[1].annotate(f"  {row['stem']}: {row['aliasing']:.0%} aliased", place, rotation=40, va="bottom")
    axes[1].axhline(1, color="0.6", linestyle=":")
    axes[1].axvline(1, color="0.6", linestyle=":")
    axes[1].set(xscale="log", yscale="log", xlabel="outputs / numbers in the field", ylabel="outputs / numbers in new pixels")
    axes[1].set_title(f"stems in use, {config.width} channels")
    axes[1].margins(0.25)
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    data = config.load()
    rows, stems = trained(config, data), in_use(config, data)
    shown = [
        "stem",
        "window_ratio",
        "stride_ratio",
        "weights",
        "multiply_adds",
        "field",
        "jump",
        "rank",
        "rank_after",
        "aliasing",
    ]
    table = [{name: row[name] if np.isscalar(row[name]) else "x".join(map(str, row[name])) for name in shown} for row in stems]
    report.save_report(
        "stems",
        rows + table,
        config,
        figure=draw(rows, stems, config, 9 * data.image_shape[-1]),
        summary=report.summarise(rows, ["stem", "outputs"], "accuracy", bounds=RIGHT) + table,
        formats={"accuracy": ".1%", "aliasing": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
