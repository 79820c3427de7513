"""Does a fully connected network learn to look locally, as a convolution does, when small weights are set to zero?

S-net (a 9x9 layer of stride 2, then two dense ones) is trained with its first layer as a convolution, locally connected and
dense, and dense once more with beta-lasso, which adds an L1 penalty to the same SGD and sets every weight below a threshold to
exactly zero. How many weights are left, and where do they look?

Nothing draws unit (i, j) of a dense layer to the pixels around (i, j): units are exchangeable. So a unit is as local as the
patch of the window's size that holds most of it, wherever that is ("patch" of its squared weights, "inputs" of those that are
not zero), and the share inside the window that its convolution would have ("window") can say little. As few weights lie in
one patch easily, the null deals the weights of every pixel to the units anew ("dealt"). Null baselines of the accuracy: a
linear classifier (Adam, no augmentation), and the share of the largest class.

Answer: partly. Of 1,229,312 first weights beta-lasso leaves 34,000 (S-CONV has 648, S-LOCAL 108,000) at an accuracy that three
seeds do not tell from plain SGD's, and more of them lie in one patch than chance puts there. But a unit still looks at several
places, and no gain is seen on plain SGD or on the linear classifier, where locality and sharing gain two points.

    python -m experiments.learn_convolution                                                            (some minutes, 2 cores)
    python -m experiments.learn_convolution --data fashion_mnist --manual-dir DIR --size 10000 --flip  (8 minutes)

Reference: Neyshabur 2020, Towards learning convolutions from scratch.
"""

import dataclasses
import functools
import itertools
import time
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import data as images
from convlab import measure, optim, report
from convlab.report import RUNG_STYLE
from experiments.command import parse
from experiments.settings import Source

LINEAR = "linear classifier"
SGD, LASSO = "S-FC", "S-FC, beta-lasso"
NETS = {  # the first layer, and whether beta-lasso trains it
    "S-CONV": ("conv", False),
    "S-LOCAL": ("locally_connected", False),
    SGD: ("dense", False),
    LASSO: ("dense", True),
}
DEALT = ", dealt"
RUNGS = ("conv", "locally_connected", "dense", "tiled")  # whose looks the networks have in pictures
STYLES = {name: RUNG_STYLE[rung]._replace(label=name) for name, rung in zip(NETS, RUNGS, strict=True)}
STYLES |= {name + DEALT: STYLES[name]._replace(label=name + DEALT, line=":", marker="") for name in (SGD, LASSO)}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      size: Number of training images; absent, all.
      flip: Mirror every second training image.
      shift: Share of their side by which training images are moved, at most.
      nets: Which networks.
      width: Channels of the first layer, alpha.
      patch: Share of the image's side that a patch has, 9 of 28 pixels as the window.
      seeds: Runs with other initial weights, subsets and orders.
      steps: Of training, the same everywhere.
      batch_size: Images a step.
      learning_rate: Of SGD with momentum 0.9, falling along a cosine.
      lam: Of beta-lasso: the weight of the L1 penalty.
      beta: Of beta-lasso: the threshold over `lam`.
    """

    size: int | None = None
    flip: bool = False
    shift: float = 1 / 7
    nets: tuple[str, ...] = tuple(NETS)
    width: int = 8
    patch: float = 9 / 28
    seeds: int = 3
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.3
    lam: float = 4e-5
    beta: float = 100.0


SMOKE = Config(size=100, nets=(LASSO,), width=2, seeds=1, steps=3)


def train(config: Config, data: images.Data, name: str, seed: int) -> cl.train.Fitted:
    """Train a network by its recipe."""
    training = cl.Config(steps=config.steps, batch_size=config.batch_size, seed=seed, evaluations=1, progress=False)
    if name == LINEAR:
        return cl.fit(cl.models.MLP(data.image_shape, len(data.classes), (), rngs=nnx.Rngs(seed)), data, training)
    connectivity, is_lasso = NETS[name]
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = optim.beta_lasso(rate, config.lam * is_lasso, config.beta, momentum=0.9)
    model = cl.models.SNet(
        data.image_shape, len(data.classes), width=config.width, connectivity=connectivity, rngs=nnx.Rngs(seed)
    )
    return cl.fit(model, data, training, optimizer=optimizer, augment=augmentation(config, data.image_shape))


@functools.cache
def augmentation(config: Config, image_shape: tuple[int, ...]) -> Any:
    """What is done to training images; one object, so that the step is compiled once."""
    moved = functools.partial(images.random_crop, pad=round(config.shift * image_shape[0]))
    return images.chain(moved, images.random_flip) if config.flip else images.chain(moved)


@functools.partial(jax.jit, static_argnames=("window", "sides"))
def shares(w: jax.Array, window: cl.Window, sides: tuple[int, ...]) -> dict[str, jax.Array]:
    """How local a dense weight is: in the window, in the best patches of these sides, and as inputs in those of the first."""
    patches = {f"patch_{side}": measure.patch_share(w, side) for side in sides}
    inputs = {"inputs": measure.patch_share(w != 0, sides[0]), "distance": measure.mean_distance(w)}
    return {"window": measure.local_share(w, window, w.shape[2:4]), **inputs, **patches}


def look(model: Any, image_shape: tuple[int, ...], patch: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Tell how many weights a trained network has left, and how local the first are; return the first as a dense weight."""
    layers = {"first": model.stages[0].layer, **dict(zip(("hidden", "last"), model.head.layers, strict=True))}
    row: dict[str, Any] = {name: int(np.count_nonzero(layer.kernel[...])) for name, layer in layers.items()}
    dense: Any = cl.relax(model, "dense", image_shape)
    w = dense.stages[0].layer.kernel[...]
    for null, each in (("", w), ("_dealt", measure.dealt(w, jax.random.key(seed)))):
        told = shares(each, layers["first"].layout.window, (patch, *sides(image_shape)))
        row |= {name + null: float(value) for name, value in told.items()}
        row["patch" + null] = row[f"patch_{patch}{null}"]
    return row, np.asarray(w)


def sides(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the patches that are drawn, in pixels."""
    return tuple(range(1, image_shape[0] + 1, 4))


def run(config: Config) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One row per network and seed; and first weights as dense ones, of one seed, by network."""
    whole = config.load()
    patch = round(config.patch * whole.image_shape[0])
    chance = float(np.bincount(whole.test.labels).max() / len(whole.test))
    rows, weights = [], {}
    for name, seed in itertools.product((LINEAR, *config.nets), range(config.seeds)):
        begin = time.perf_counter()
        fitted = train(config, whole.subset(config.size or len(whole.train), seed), name, seed)
        row = {"net": name, "seed": seed, "chance": chance, "accuracy": fitted.history[-1]["test_accuracy"]}
        if name != LINEAR:
            told, weights[name] = look(fitted.model(), whole.image_shape, patch, seed)
            row |= told
        rows.append(row | {"seconds": time.perf_counter() - begin})
        print(f"{name}, seed {seed}: {row['accuracy']:.1%} with {row.get('first', 0):,} first weights", flush=True)
    return rows, weights


def units(w: np.ndarray, number: int = 32) -> np.ndarray:
    """Some units that have inputs, drawn at random: their weights, and zeros where fewer have any."""
    pictures = np.moveaxis(w[..., 0, :], -1, 0).reshape(-1, *w.shape[2:4])
    living = pictures[np.abs(pictures).max((1, 2)) > 0]
    drawn = np.random.default_rng(0).permutation(len(living))[:number]
    return np.concatenate([living[drawn], np.zeros((number - len(drawn), *w.shape[2:4]))])


def profile(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shares in patches of every side as rows, of networks and, where the first layer is dense, of their nulls."""
    lines = []
    for net, column, share in ((row["net"], column, row[column]) for row in rows for column in row):
        side = column.removeprefix("patch_").removesuffix("_dealt")
        name = net + DEALT * column.endswith("_dealt")
        if side.isdigit() and name in STYLES:
            lines.append({"net": name, "side": int(side), "share": share})
    lines = sorted(lines, key=lambda line: [*STYLES].index(line["net"]))
    return report.summarise(lines, ["net", "side"], "share", bounds={"share": report.SHARE})


def draw(rows: list[dict[str, Any]], weights: dict[str, np.ndarray], summary: list[dict[str, Any]], config: Config) -> Any:
    """Accuracy against weights, where weights lie, and what units look at without and with beta-lasso."""
    dense = [name for name in config.nets if NETS[name][0] == "dense"]
    figure, axes = report.new_figure(2 + len(dense), rows=2, size=(13.0, 11.0))
    report.curves(
        axes[0],
        [row for row in summary if row["net"] != LINEAR],
        "first",
        "accuracy",
        "net",
        x_label="weights of the first layer that are not zero",
        y_label="accuracy on test images, 95 % interval",
        y_format=".0%",
        log_x=True,
        title=config.data,
        baselines={LINEAR: next(report.interval_of(row, "accuracy") for row in summary if row["net"] == LINEAR)},
        styles=STYLES,
    )
    report.curves(
        axes[1],
        profile(rows),
        "side",
        "share",
        "net",
        x_label="side of the patch (pixels)",
        y_label="share of squared weights, 95 % interval",
        y_format=".0%",
        title="in the best patch of each unit",
        band=True,
        styles=STYLES,
    )
    for axis, name in zip(axes[2:], dense, strict=True):
        report.filters(axis, units(weights[name]), name, label="32 units that have inputs, drawn at random; one seed")
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows, weights = run(config)
    counts, local = ["first", "hidden", "last"], ["window", "window_dealt", "patch", "patch_dealt", "inputs", "inputs_dealt"]
    distances = ["distance", "distance_dealt"]
    bounds = dict.fromkeys(["accuracy", *local], report.SHARE) | dict.fromkeys([*counts, *distances], report.POSITIVE)
    summary = report.summarise(rows, ["net", "chance"], ["accuracy", *counts, *local, *distances], bounds=bounds)
    formats = dict.fromkeys(("chance", "accuracy", *local), ".1%") | dict.fromkeys(counts, ",.0f")
    report.save_report(
        "learn_convolution",
        rows,
        config,
        figure=draw(rows, weights, summary, config),
        summary=summary,
        formats=formats | dict.fromkeys(distances, ".2f"),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
