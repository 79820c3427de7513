"""Does a network that learnt to say whether the digit is there also know where, at places it never saw it?

Scenes of digits scattered over a dark ground; the network says whether one of them is the wanted digit, by the largest entry of
its last response map. In training the wanted digit stands in the left of the scene only, the others anywhere. A hit: the map's
peak lies on the wanted digit, in scenes of test images, where it stands on the left again and where it stands on the right.
One network at three rungs. Baselines: correlation with the mean image of the wanted digit, and a place drawn at random.

Answer: as a convolution, in seven scenes of ten on either side, with seeds that differ very much (19 to 98 %). A local network
finds it a third of the time on the left and, in the mean, less often than chance on the right; a dense one is not told from
chance on either side by five seeds.

    python -m experiments.waldo                                                        (5 minutes on 2 cores)

Reference: Zhang et al., Dive into Deep Learning, section 7.1 ("Where's Waldo").
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data, Split, standardise
from convlab.models import Stage, Wiring
from experiments.command import parse
from experiments.settings import Recipe

SEEN, UNSEEN = "where it was in training", "where it never was"
TEMPLATE, CHANCE = "mean image, correlated", "drawn at random"
STRIDE = 2
MARK = "#E69F00"  # of the wanted digit, and of a peak


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """What is run.

    Args:
      data: Name of the data set that the figures come from.
      rungs: Of the network.
      wanted: Class that is looked for.
      side: Pixels of a scene along each axis, at least three times those of a figure.
      clutter: Numbers of other figures, in test scenes; training scenes have any number up to the last.
      size: Training scenes, half of them with the wanted figure.
      test_size: Scenes for every number of others and both sides.
      widths: Channels of the two layers before the map.
    """

    rungs: tuple[str, ...] = ("conv", "locally_connected", "dense")
    wanted: int = 3
    side: int = 24
    clutter: tuple[int, ...] = (0, 1, 2, 4)
    size: int = 4000
    test_size: int = 400
    widths: tuple[int, int] = (12, 24)
    epochs: int = 12
    learning_rate: float = 3e-3


SMOKE = Config(rungs=("conv",), clutter=(0, 2), size=100, test_size=20, widths=(3, 4), epochs=1, seeds=2)


class Searcher(nnx.Module):
    """Two layers and a map of one channel; its largest entry is the score of "it is there", against zero."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], connectivity: str, seed: int):
        rngs, wiring = nnx.Rngs(seed), Wiring(connectivity)
        first = Stage(shape, widths[0], 5, STRIDE, padding=2, wiring=wiring, rngs=rngs)
        second = Stage(first.output_shape, widths[1], 5, wiring=wiring, rngs=rngs)
        last = Stage(second.output_shape, 1, 1, wiring=wiring, activation=nnx.identity, rngs=rngs)
        self.stages = nnx.List([first, second, last])

    def map(self, x: jax.Array) -> jax.Array:
        """How much every position looks like the wanted figure."""
        for stage in self.stages:
            x = stage(x)
        return x[..., 0]

    def __call__(self, x: jax.Array) -> jax.Array:
        score = self.map(x).max((1, 2))
        return jnp.stack([jnp.zeros_like(score), score], -1)


class Scenes:
    """Draws scenes from the figures of a data set."""

    def __init__(self, split: Split, config: Config):
        self.figures, self.labels, self.config = np.asarray(split.images)[..., 0], np.asarray(split.labels), config
        self.n = self.figures.shape[1]
        if config.side < 3 * self.n:
            raise ValueError(f"side is {config.side} but figures have {self.n} pixels: needs at least {3 * self.n}")

    def draw(self, rng: np.random.Generator, others: int, wanted: bool, right: bool) -> tuple[np.ndarray, np.ndarray]:
        """One scene, and the first pixel of the figure that stands in the place of the wanted one."""
        scene, room = np.zeros((self.config.side,) * 2, np.uint8), self.config.side - self.n
        left = int(rng.integers(0, self.n // 2 + 1))
        place = np.array([rng.integers(0, room + 1), room - left if right else left])
        first = self.labels == self.config.wanted
        for number in range(others + 1):
            at = place
            while number and np.abs(at - place).max() < self.n:  # never over the one in its place
                at = rng.integers(0, room + 1, 2)
            kind = first if number == 0 and wanted else ~first
            figure = self.figures[rng.choice(np.flatnonzero(kind))]
            window = scene[at[0] : at[0] + self.n, at[1] : at[1] + self.n]
            np.maximum(window, figure, out=window)
        return scene[..., None], place

    def many(
        self, seed: int, number: int, others: Sequence[int], wanted: Sequence[bool], right: bool
    ) -> tuple[Split, np.ndarray]:
        """Scenes with each of some numbers of others in turn, and each of `wanted`; and the places."""
        rng = np.random.default_rng(seed)
        kinds = list(itertools.islice(itertools.cycle(itertools.product(wanted, others)), number))
        scenes, places = zip(*(self.draw(rng, many, there, right) for there, many in kinds), strict=True)
        return Split(np.stack(scenes), np.array([there for there, _ in kinds], np.int32)), np.stack(places)


def hits(maps: np.ndarray, places: np.ndarray, n: int, stride: int) -> float:
    """How often the peak of a map lies on the figure of n x n pixels that begins at its place."""
    flat = maps.reshape(len(maps), -1).argmax(1)
    peak = stride * np.stack(np.divmod(flat, maps.shape[2]), 1)
    return float(((peak >= places) & (peak < places + n)).all(1).mean())


def mapping(model: Any, scenes: Data) -> Callable[[np.ndarray], jax.Array]:
    """The response map as a function of raw scenes."""
    return jax.jit(lambda x: model.map(standardise(x, scenes.mean, scenes.std)))


def run(config: Config) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row per rung, side, number of others and seed; and a scene with the maps of all rungs."""
    data = config.load()
    train, test = Scenes(data.train, config), Scenes(data.test, config)
    rows, sides = [], {SEEN: False, UNSEEN: True}
    picture: dict[str, Any] = {}
    template = np.asarray(train.figures[train.labels == config.wanted], np.float32).mean(0)
    template -= template.mean()
    for seed in range(config.seeds):
        everything = range(config.clutter[-1] + 1)
        split, _ = train.many(seed, config.size, everything, (False, True), right=False)
        check, _ = test.many(1000 + seed, config.test_size, everything, (False, True), right=False)
        scenes = Data("scenes", split, check, ("absent", "there"))
        tests = {
            (name, others): test.many(2000 + seed, config.test_size, (others,), (True,), right)
            for (name, right), others in itertools.product(sides.items(), config.clutter)
        }
        found = {}
        for rung in config.rungs:
            fitted = cl.fit(Searcher(scenes.image_shape, config.widths, rung, seed), scenes, config.recipe(seed))
            model, accuracy = fitted.model(), fitted.history[-1]["test_accuracy"]
            found[rung] = mapping(model, scenes)
            print(f"{rung}, seed {seed}: {accuracy:.1%} of scenes classified right", flush=True)
            for (name, others), (split, places) in tests.items():
                share = hits(np.asarray(found[rung](split.images)), places, test.n, STRIDE)
                rows.append({"by": rung, "side": name, "others": others, "seed": seed, "hits": share, "accuracy": accuracy})
        for (name, others), (split, places) in tests.items():
            middle = functools.partial(cl.conv, v=jnp.asarray(template)[..., None, None], window=cl.Window(template.shape))
            maps = np.asarray(middle(jnp.asarray(split.images, jnp.float32)))[..., 0]
            share = hits(maps, places, test.n, 1)
            rows.append({"by": TEMPLATE, "side": name, "others": others, "seed": seed, "hits": share})
        if seed == 0:
            split, places = tests[UNSEEN, config.clutter[-1]]
            picture = {"scene": split.images[0, ..., 0], "place": places[0], "size": test.n}
            picture |= {rung: np.asarray(each(split.images[:1]))[0] for rung, each in found.items()}
    return rows, picture


def draw(rows: list[dict[str, Any]], picture: dict[str, Any], config: Config) -> Any:
    """The maps of the rungs over a scene, and hits against the number of other figures on both sides."""
    figure, axes = report.new_figure(3 + len(config.rungs), rows=2, size=(16.0, 10.5))
    for axis, rung in zip(axes, ("scene", *config.rungs), strict=False):
        scene = picture["scene"] / picture["scene"].max()
        if rung == "scene":
            axis.imshow(scene, cmap="gray")
            axis.set(title="the scene, the wanted digit framed", xticks=[], yticks=[])
        else:
            above = np.maximum(picture[rung] - np.median(picture[rung]), 0)
            report.heat(axis, scene, above, report.RUNG_STYLE[rung].label, label="response above its median")
            row, column = (STRIDE * (np.array(np.unravel_index(above.argmax(), above.shape)) + 0.5)) - 0.5
            axis.plot(column, row, "x", color=MARK, markersize=12, markeredgewidth=3, label="peak of a map")
        i, j = picture["place"]
        axis.add_patch(_frame(j, i, picture["size"]))
    summary = report.summarise(rows, ["by", "side", "others"], "hits", bounds={"hits": report.SHARE})
    styles = dict(report.RUNG_STYLE) | {TEMPLATE: report.RUNG_STYLE["tiled"]._replace(label=TEMPLATE)}
    for axis, side in zip(axes[-2:], (SEEN, UNSEEN), strict=True):
        report.curves(
            axis,
            [line for line in summary if line["side"] == side],
            "others",
            "hits",
            "by",
            x_label="other digits in the scene",
            y_label="peaks on the wanted digit, 95 % interval",
            y_format=".0%",
            title=side,
            baselines={CHANCE: (picture["size"] / config.side) ** 2},
            styles=styles,
        )
        axis.set_ylim(-0.03, 1.03)
    return figure


def _frame(column: int, row: int, size: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), size, size, fill=False, edgecolor=MARK, linewidth=2.5)


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows, picture = run(config)
    bounds = {"hits": report.SHARE, "accuracy": report.SHARE}
    report.save_report(
        "waldo",
        rows,
        config,
        figure=draw(rows, picture, config),
        summary=report.summarise(rows, ["by", "side", "others"], list(bounds), bounds=bounds),
        formats={"hits": ".1%", "accuracy": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
