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
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Recipe, styles

SEEN, UNSEEN = "where it was in training", "where it never was"
TEMPLATE, CHANCE = "mean image, correlated", "drawn at random"
STYLES = report.RUNG_STYLE | styles({TEMPLATE: "tiled"})
MARK = "#E69F00"  # the colour of the frame of the target digit, and of a peak
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


def run(config: Config) -> Result:
    """Return one row per rung, side, number of other figures and seed, and one scene with maps."""
    data = config.load()
    train, test = (Scenes(split, config.wanted, config.side) for split in (data.train, data.test))
    searches = [searched(config, train, test, seed) for seed in track(range(config.seeds), "seeds")]
    return Result([row for rows, _ in searches for row in rows], arrays=searches[0][1])


def searched(config: Config, train: Scenes, test: Scenes, seed: int) -> tuple[Rows, dict[str, Any]]:
    """Train the networks of one seed. Return their rows, and a scene with their maps."""
    numbers, both = range(config.clutter[-1] + 1), (False, True)
    split, _ = train.sample(seed, config.size, numbers, both, right=False)
    check, _ = test.sample(1000 + seed, config.test_size, numbers, both, right=False)
    scenes = Data("scenes", split, check, ("absent", "there"))
    tests = {
        (side, others): test.sample(2000 + seed, config.test_size, (others,), (True,), side == UNSEEN)
        for side, others in itertools.product((SEEN, UNSEEN), config.clutter)
    }
    split, corners = tests[UNSEEN, config.clutter[-1]]
    rows, picture = [], {"scene": split.images[0, ..., 0], "place": corners[0], "size": test.n}
    for rung in config.rungs:
        fitted = cl.fit(Searcher(scenes.image_shape, config.widths, rung, seed), scenes, config.recipe(seed))
        response, accuracy = mapping(fitted.model(), scenes), fitted.history[-1]["test_accuracy"]
        print(f"{rung}, seed {seed}: {accuracy:.1%} of scenes classified right", flush=True)
        for (side, others), (split, corners) in tests.items():
            share = hits(np.asarray(response(np.asarray(split.images))), corners, test.n, STRIDE)
            rows.append({"detector": rung, "side": side, "clutter": others, "seed": seed, "hits": share, "accuracy": accuracy})
        picture[rung] = np.asarray(response(tests[UNSEEN, config.clutter[-1]][0].images[:1]))[0]
    template = np.asarray(train.figures[train.wanted], np.float32).mean(0)
    template = jnp.asarray(template - template.mean())[..., None, None]
    correlated = functools.partial(cl.conv, v=template, window=cl.Window(template.shape[:2]))
    for (side, others), (split, corners) in tests.items():
        maps = np.asarray(correlated(jnp.asarray(split.images, jnp.float32)))[..., 0]
        rows.append(
            {"detector": TEMPLATE, "side": side, "clutter": others, "seed": seed, "hits": hits(maps, corners, test.n, 1)}
        )
    return rows, picture


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["detector", "side", "clutter"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config, picture: dict[str, Any]) -> Any:
    """Draw the maps of all rungs over a scene, and hits against the number of other figures on both sides."""
    from matplotlib.patches import Rectangle

    figure, axes = report.new_figure(3 + len(config.rungs), rows=2, size=(16.0, 10.5))
    for axis, rung in zip(axes, ("scene", *config.rungs), strict=False):
        scene = picture["scene"] / picture["scene"].max()
        if rung == "scene":
            axis.imshow(scene, cmap="gray")
            axis.set(title="the scene, the wanted digit framed", xticks=[], yticks=[])
        else:
            above = np.maximum(picture[rung] - np.median(picture[rung]), 0)
            report.heatmap(axis, scene, above, report.RUNG_STYLE[rung].label, label="response above its median")
            row, column = (STRIDE * (np.array(np.unravel_index(above.argmax(), above.shape)) + 0.5)) - 0.5
            axis.plot(column, row, "x", color=MARK, markersize=12, markeredgewidth=3, label="peak of a map")
        i, j = picture["place"]
        side = picture["size"]
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), side, side, fill=False, edgecolor=MARK, linewidth=2.5))
    for axis, side in zip(axes[-2:], (SEEN, UNSEEN), strict=True):
        report.curves(
            axis,
            [line for line in table(rows, config) if line["side"] == side],
            "clutter",
            "hits",
            "detector",
            x_label="other digits in the scene",
            y_label="peaks on the wanted digit, 95 % interval",
            y_format=".0%",
            title=side,
            baselines={CHANCE: (picture["size"] / config.side) ** 2},
            styles=STYLES,
        )
        axis.set_ylim(-0.03, 1.03)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
