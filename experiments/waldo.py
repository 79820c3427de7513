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
from typing import Any

import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import report
from convlab.data import Data
from experiments.parts.scenes import STRIDE, Scenes, Searcher, hits, mapping
from experiments.shared.command import Result, Rows, main
from experiments.shared.settings import Recipe, styles

SEEN, UNSEEN = "where it was in training", "where it never was"
TEMPLATE, CHANCE = "mean image, correlated", "drawn at random"
STYLES = report.RUNG_STYLE | styles({TEMPLATE: "tiled"})
MARK = "#E69F00"  # of the wanted digit, and of a peak
BOUNDS = {"hits": report.SHARE, "accuracy": report.SHARE}
FORMATS = {"hits": ".1%", "accuracy": ".1%"}


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


def run(config: Config) -> Result:
    """One row per rung, side, number of others and seed; and a scene with the maps of all rungs."""
    data = config.load()
    train, test = (Scenes(split, config.wanted, config.side) for split in (data.train, data.test))
    found = [searched(config, train, test, seed) for seed in range(config.seeds)]
    return Result([row for rows, _ in found for row in rows], arrays=found[0][1])


def searched(config: Config, train: Scenes, test: Scenes, seed: int) -> tuple[Rows, dict[str, Any]]:
    """The rows of one seed, and a scene with its maps."""
    numbers, both = range(config.clutter[-1] + 1), (False, True)
    split, _ = train.many(seed, config.size, numbers, both, right=False)
    check, _ = test.many(1000 + seed, config.test_size, numbers, both, right=False)
    scenes = Data("scenes", split, check, ("absent", "there"))
    tests = {
        (side, others): test.many(2000 + seed, config.test_size, (others,), (True,), side == UNSEEN)
        for side, others in itertools.product((SEEN, UNSEEN), config.clutter)
    }
    split, places = tests[UNSEEN, config.clutter[-1]]
    rows, picture = [], {"scene": split.images[0, ..., 0], "place": places[0], "size": test.n}
    for rung in config.rungs:
        fitted = cl.fit(Searcher(scenes.image_shape, config.widths, rung, seed), scenes, config.recipe(seed))
        found, accuracy = mapping(fitted.model(), scenes), fitted.history[-1]["test_accuracy"]
        print(f"{rung}, seed {seed}: {accuracy:.1%} of scenes classified right", flush=True)
        for (side, others), (split, places) in tests.items():
            share = hits(np.asarray(found(np.asarray(split.images))), places, test.n, STRIDE)
            rows.append({"by": rung, "side": side, "others": others, "seed": seed, "hits": share, "accuracy": accuracy})
        picture[rung] = np.asarray(found(tests[UNSEEN, config.clutter[-1]][0].images[:1]))[0]
    template = np.asarray(train.figures[train.wanted], np.float32).mean(0)
    template = jnp.asarray(template - template.mean())[..., None, None]
    correlated = functools.partial(cl.conv, v=template, window=cl.Window(template.shape[:2]))
    for (side, others), (split, places) in tests.items():
        maps = np.asarray(correlated(jnp.asarray(split.images, jnp.float32)))[..., 0]
        rows.append({"by": TEMPLATE, "side": side, "others": others, "seed": seed, "hits": hits(maps, places, test.n, 1)})
    return rows, picture


def table(rows: Rows, config: Config) -> Rows:
    """The mean over seeds."""
    return report.summarise(rows, ["by", "side", "others"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config, picture: dict[str, Any]) -> Any:
    """The maps of the rungs over a scene, and hits against the number of other figures on both sides."""
    from matplotlib.patches import Rectangle

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
        side = picture["size"]
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), side, side, fill=False, edgecolor=MARK, linewidth=2.5))
    for axis, side in zip(axes[-2:], (SEEN, UNSEEN), strict=True):
        report.curves(
            axis,
            [line for line in table(rows, config) if line["side"] == side],
            "others",
            "hits",
            "by",
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
