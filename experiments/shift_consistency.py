"""Does a network see the same thing one pixel further, and what does it cost to make it?

One network of two 3x3 layers with batch norm and ReLU, each downsampled by two in one of six ways, then the mean over
positions. With circular padding the layers commute with every shift, so that what is lost is lost in downsampling; with zero
padding also at the border. Around an image zero padding is the mean grey of the training images, as pixels are standardised.
Counted before training and after: on how many test images the prediction stays as it was under
all shifts around the circle, and how many shifted images are classified right. Null: the share of the largest class among the
predictions, squared and summed, which labels drawn independently would agree by.

Answer: only with circular padding and polyphase downsampling, exactly; a blur comes near. Both together cost 2.7 points of
accuracy on still images against max pooling [0.6, 4.8], seed by seed. With zero padding at most a third of predictions stay.

    python -m experiments.shift_consistency                                            (2 minutes on 2 cores)

Reference: Zhang 2019, Making convolutional networks shift-invariant again; Chaman and Dokmanic 2021, Truly shift-invariant
convolutional neural networks.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure, report
from convlab.data import standardise
from convlab.models import Head, Stack, Stage, Wiring
from experiments.command import parse
from experiments.settings import Training

BEFORE, AFTER, CHANCE = "before training", "after training", "chance, mean over networks"
STYLES = {
    padding: report.RUNG_STYLE[rung]._replace(label=padding, line="none")
    for padding, rung in (("CIRCULAR", "conv"), ("SAME", "dense"))
}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """What is run.

    Args:
      test_size: Test images that are shifted.
      shifts: How many shifts are tried; absent, all.
      ways: Names in `measure.WAYS`.
      paddings: Of layers and windows.
      widths: Channels of the layers.
    """

    test_size: int = 297
    shifts: int | None = None
    ways: tuple[str, ...] = tuple(measure.WAYS)
    paddings: tuple[str, ...] = tuple(STYLES)
    widths: tuple[int, ...] = (16, 32)
    epochs: int = 15


SMOKE = Config(size=100, test_size=20, shifts=3, ways=("polyphase",), paddings=("CIRCULAR",), epochs=1, widths=(4, 5), seeds=2)


class Halving(Stack):
    """Layers that are downsampled by two, and a linear read-out of the mean over positions."""

    def __init__(self, shape: Sequence[int], classes: int, way: str, padding: str, widths: Sequence[int], seed: int):
        rngs, stages = nnx.Rngs(seed), []
        own: dict[str, Any] = {"wiring": Wiring("conv"), "rngs": rngs, "padding": padding}
        own |= {"batch_norm": True, "use_bias": False, "pool": measure.WAYS[way], "pool_window": cl.Window(3, 2, padding)}
        for width in widths:
            stages.append(Stage(shape, width, 3, **own))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), mean=True, rngs=rngs)


def scores(model: nnx.Module, images: jax.Array, labels: np.ndarray, shifts: Sequence[tuple[int, ...]]) -> dict[str, float]:
    """How often predictions stay, are right, are right on shifted images, and would agree by chance."""
    model.eval()
    predict: Callable[[jax.Array], jax.Array] = jax.jit(lambda x: model(x).argmax(-1))
    still = predict(images)
    moved = jnp.stack([predict(measure.shift(images, by)) for by in shifts])
    shares = jnp.bincount(still, length=int(labels.max()) + 1) / len(still)
    return {
        "consistency": float(jnp.mean(moved == still)),
        "accuracy": float(jnp.mean(still == labels)),
        "shifted_accuracy": float(jnp.mean(moved == labels)),
        "by_chance": float(jnp.sum(shares**2)),
    }


def run(config: Config) -> list[dict[str, Any]]:
    """One row per way, padding, seed and time."""
    data = config.load()
    test = data.test.take(np.arange(config.test_size))
    images, labels = standardise(jnp.asarray(test.images), data.mean, data.std), np.asarray(test.labels)
    shifts = measure.shifts(data.image_shape[:-1], config.shifts)
    rows = []
    for way, padding, seed in itertools.product(config.ways, config.paddings, range(config.seeds)):
        model = Halving(data.image_shape, len(data.classes), way, padding, config.widths, seed)
        fitted = config.fit(model, data, seed)
        for when, each in ((BEFORE, model), (AFTER, fitted.model())):
            own = {"way": way, "padding": padding, "when": when, "seed": seed}
            rows.append(own | scores(each, images, labels, shifts))
        print(f"{way}, {padding}, seed {seed}: {rows[-1]['consistency']:.1%} stay", flush=True)
    return rows


def draw(summary: list[dict[str, Any]], config: Config) -> Any:
    """Consistency before and after training, and accuracy on shifted images, way by way."""
    figure, axes = report.new_figure(3, size=(18.0, 6.5))
    null = {when: np.mean([line["by_chance"] for line in summary if line["when"] == when]) for when in (BEFORE, AFTER)}
    panels = [(BEFORE, "consistency"), (AFTER, "consistency"), (AFTER, "shifted_accuracy")]
    for axis, (when, value) in zip(axes, panels, strict=True):
        lines = [line | {"place": config.ways.index(line["way"])} for line in summary if line["when"] == when]
        kept = value == "consistency"
        report.curves(
            axis,
            lines,
            "place",
            value,
            "padding",
            x_label="",
            y_label=f"{'predictions that stay' if kept else 'shifted images classified right'}, 95 % interval",
            y_format=".0%",
            title=when if kept else f"{config.data}, after training",
            baselines={CHANCE: float(null[when])} if kept else None,
            styles=STYLES,
        )
        axis.set_xticks(range(len(config.ways)), config.ways, rotation=30, ha="right")
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    values = ["consistency", "accuracy", "shifted_accuracy", "by_chance"]
    summary = report.summarise(rows, ["when", "way", "padding"], values, bounds=dict.fromkeys(values, report.SHARE))
    report.save_report(
        "shift_consistency",
        rows,
        config,
        figure=draw(summary, config),
        summary=summary,
        formats=dict.fromkeys(values, ".1%"),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
