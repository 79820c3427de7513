"""Can a network that detects a digit also locate it, at positions where it never saw it?

Scenes show digits on a dark ground. The network says whether one of them is the target digit, by the largest entry of its last
response map. In training the target digit stands only on the left of the scene, and the others anywhere. A hit means that the
peak of the map lies on the target digit. Hits are counted in scenes of test images, with the target digit on the left and on
the right. One network is trained on three rungs. Baselines: correlation with the mean image of the target digit, and a random
position.

Answer: the convolution can, in seven scenes of ten on either side, but its seeds differ very much (19 to 98 %). A local network
finds it in a third of the scenes on the left and, in the mean, less often than chance on the right. Five seeds do not
distinguish a dense network from chance on either side.

    python -m experiments.waldo                                                        (5 minutes on 2 cores)

Reference: Zhang et al., Dive into Deep Learning, section 7.1 ("Where's Waldo").
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import report
from convlab.data import Data
from experiments.parts.scenes import STRIDE, Scenes, Searcher, hits, mapping
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Recipe, styles

SEEN, UNSEEN = "where it was in training", "where it never was"
TEMPLATE, CHANCE = "mean image, correlated", "drawn at random"
STYLES = report.RUNG_STYLE | styles({TEMPLATE: "tiled"})
BOUNDS = {"hits": report.SHARE, "accuracy": report.SHARE}
FORMATS = {"hits": ".1%", "accuracy": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """The settings of the experiment.

    Args:
      data: The name of the data set of the figures.
      rungs: The rungs of the network.
      wanted: The class of the target figure.
      side: The number of pixels of a scene along each axis, at least three times that of a figure.
      clutter: The numbers of other figures in test scenes. Training scenes have any number up to the last.
      size: The number of training scenes, half of them with the target figure.
      test_size: The number of test scenes for every side and number of other figures.
      widths: The numbers of channels of the two layers before the map.
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


def run(config: Config) -> Rows:
    """Return one row per rung, side, number of other figures and seed."""
    data = config.load()
    train, test = (Scenes(split, config.wanted, config.side) for split in (data.train, data.test))
    return [row for seed in track(range(config.seeds), "seeds") for row in searched(config, train, test, seed)]


def searched(config: Config, train: Scenes, test: Scenes, seed: int) -> Rows:
    """Train the networks of one seed, and return their rows."""
    numbers, both = range(config.clutter[-1] + 1), (False, True)
    split, _ = train.sample(seed, config.size, numbers, both, right=False)
    check, _ = test.sample(1000 + seed, config.test_size, numbers, both, right=False)
    scenes = Data("scenes", split, check, ("absent", "there"))
    tests = {
        (side, others): test.sample(2000 + seed, config.test_size, (others,), (True,), side == UNSEEN)
        for side, others in itertools.product((SEEN, UNSEEN), config.clutter)
    }
    rows = []
    for rung in config.rungs:
        fitted = cl.fit(Searcher(scenes.image_shape, config.widths, rung, seed), scenes, config.recipe(seed))
        response, accuracy = mapping(fitted.model(), scenes), fitted.history[-1]["test_accuracy"]
        print(f"{rung}, seed {seed}: {accuracy:.1%} of scenes classified right", flush=True)
        for (side, others), (split, corners) in tests.items():
            share = hits(np.asarray(response(np.asarray(split.images))), corners, test.n, STRIDE)
            rows.append({"detector": rung, "side": side, "clutter": others, "seed": seed, "hits": share, "accuracy": accuracy})
    template = np.asarray(train.figures[train.wanted], np.float32).mean(0)
    template = jnp.asarray(template - template.mean())[..., None, None]
    correlated = functools.partial(cl.conv, v=template, window=cl.Window(template.shape[:2]))
    for (side, others), (split, corners) in tests.items():
        maps = np.asarray(correlated(jnp.asarray(split.images, jnp.float32)))[..., 0]
        rows.append(
            {"detector": TEMPLATE, "side": side, "clutter": others, "seed": seed, "hits": hits(maps, corners, test.n, 1)}
        )
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["detector", "side", "clutter"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config) -> Any:
    """Draw hits on both sides in scenes without other figures, in the mean and for each seed."""
    figure, axes = report.new_figure(2, size=(13.0, 5.5))
    figure_side = config.load().image_shape[0]
    rows = [row for row in rows if row["clutter"] == config.clutter[0]]
    for axis, side in zip(axes, (SEEN, UNSEEN), strict=True):
        lines = [line for line in table(rows, config) if line["side"] == side]
        height = {line["detector"]: number for number, line in enumerate(lines)}
        points = [(row["hits"], height[row["detector"]] + 0.2) for row in rows if row["side"] == side]
        axis.plot(*zip(*points, strict=True), "|", color="0.3", markersize=10, label="one seed")
        report.comparison(
            axis,
            [line | {"detector": STYLES[line["detector"]].label} for line in lines],
            "detector",
            "hits",
            label=f"mean of {config.seeds} seeds, 95 % interval",
            x_label="peaks on the wanted digit",
            x_format=".0%",
            title=side,
            baselines={CHANCE: (figure_side / config.side) ** 2},
            styles={style.label: style for style in STYLES.values()},
        )
        axis.set_xlim(-0.03, 1.03)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
