"""Which of the ways to ask a network what it looks at tells anything about what it learnt?

One network is trained on photographs and asked about those of the test set that it gets right, in six ways: the size of the
score's gradient, the same with the two other rules for ReLUs (guided backpropagation, DeconvNet), the gradient times the image,
Grad-CAM, and occlusion. Two tests.
Faith: hide the pixels that a way calls the most important, and count predictions that stay. Learning: ask the same network
before training, and correlate the ranks of its pixels with those after; a way that says the same of a network that knows
nothing has not told what was learnt. Baselines: pixels drawn at random, and the photograph's own edges.

Answer: occlusion and the gradient times the image, which find a tenth of the pixels without which six predictions of ten fall.
The pixels of the others matter at most three points more than pixels drawn at random, and guided backpropagation has most in
common with an untrained network. Three seeds of one network: an illustration.

    python -m experiments.looking                                                      (1 minute on 2 cores)
    python -m experiments.looking --data folder:PATH/cifar10.zip --classes airplane bird

Reference: Adebayo et al. 2018, Sanity checks for saliency maps; Samek et al. 2017, Evaluating the visualization of what a deep
neural network has learned.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import algebra, measure, report
from convlab.data import Data, standardise
from convlab.measure.looking import RULES
from convlab.models import Net
from convlab.report.drawing import slide_style
from experiments.command import parse
from experiments.settings import Recipe

TIMES, GRAD_CAM, OCCLUSION, EDGES, RANDOM = "gradient x image", "Grad-CAM", "occlusion", "edges", "random"
WAYS = (*RULES, TIMES, GRAD_CAM, OCCLUSION)
UNITS = {TIMES: "score", GRAD_CAM: "weighted activation", OCCLUSION: "score lost"}
STYLES = {
    way: report.RUNG_STYLE[rung]._replace(label=way)
    for way, rung in zip(
        (*WAYS, EDGES),
        ("conv", "locally_connected", "dense", "shared", "tiled", "low_rank", "null"),
        strict=True,
    )
} | {RANDOM: report.RUNG_STYLE["null"]._replace(label=RANDOM, marker="o", line=":")}
CORRELATION = (-1.0, 1.0)
LAST = "stages/1/layer"  # of the network: the last layer with positions
PARTS = 8  # an occluding window has an eighth of the image's side, and moves by half of its own


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """What is run.

    Args:
      classes: That are told apart; absent, all of the data set.
      size: Training images; absent, all.
      width: Channels of the network's first layer.
      images: Test images that are asked about.
      hidden: Shares of the pixels that are hidden, the most important first.
    """

    classes: tuple[str, ...] = ()
    size: int | None = None
    epochs: int = 20
    learning_rate: float = 2e-3
    width: int = 32
    images: int = 200
    hidden: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    seeds: int = 3


SMOKE = Config(size=100, epochs=2, width=6, images=5, hidden=(0.1, 0.4), seeds=1)


def asked(config: Config) -> Data:
    """The images of the wanted classes."""
    data = config.load()
    data = data.relabel({name: name for name in config.classes}) if config.classes else data
    return data.subset(config.size, 0) if config.size else data


def importance(model: nnx.Module, x: jax.Array, target: np.ndarray) -> dict[str, jax.Array]:
    """How important each pixel is, (n, k, l), by every way; maps of coarser grids are spread over the image."""
    space = x.shape[1:-1]
    size = [max(2, side // PARTS) for side in space]
    window = cl.Window(size, [side // 2 for side in size], "VALID")
    gradients = {rule: measure.saliency(model, x, target, rule) for rule in RULES}
    maps = {rule: jnp.abs(gradient).sum(-1) for rule, gradient in gradients.items()}
    maps[TIMES] = (gradients["gradient"] * x).sum(-1)
    maps[GRAD_CAM] = measure.grad_cam(model, x, LAST, target)
    maps[OCCLUSION] = measure.occlusion(model, x, target, window)
    return {way: jax.image.resize(each, (len(x), *space), "linear") for way, each in maps.items()}


def edges(x: jax.Array) -> jax.Array:
    """How steep each image is at each pixel, (n, k, l)."""
    slopes = [cl.conv(x.mean(-1, keepdims=True), algebra.derivative(axis), _around(axis))[..., 0] for axis in range(2)]
    return jnp.hypot(*slopes)


def _around(axis: int) -> cl.Window:
    return cl.Window((3, 1) if axis == 0 else (1, 3), padding="EDGE")


def ranks(maps: jax.Array) -> np.ndarray:
    """Ranks of the pixels of every map, less their mean."""
    flat = np.asarray(jax.scipy.stats.rankdata(maps.reshape(len(maps), -1), axis=1))
    return flat - flat.mean(1, keepdims=True)


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's, of two maps an image; 0 where a map is the same everywhere; mean over images."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.mean(np.sum(one * two, 1) / np.where(lengths > 0, lengths, 1)))


def staying(model: nnx.Module, x: jax.Array, order: np.ndarray, share: float) -> float:
    """How many predictions stay when the pixels of highest order take the mean colour of all images, which is zero.

    Of equal ones those go that are drawn at random, as where a map is zero.
    """
    many, ties = round(share * order.shape[1]), np.random.default_rng(0).random(order.shape)
    hidden = np.zeros(order.shape, bool)
    np.put_along_axis(hidden, np.lexsort((ties, -order), 1)[:, :many], True, 1)
    predict: Callable[[jax.Array], jax.Array] = jax.jit(lambda x: model(x).argmax(-1))
    return float(jnp.mean(predict(jnp.where(hidden.reshape(*x.shape[:-1], 1), 0, x)) == predict(x)))


def run(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """One row per way, seed and share hidden; one per layer, seed and epoch; and the maps of one photograph."""
    data = asked(config)
    some = standardise(jnp.asarray(data.train.images[: config.images]), data.mean, data.std)
    rows, over_time, picture = [], [], {}
    for seed in range(config.seeds):
        start = Net(data.image_shape, len(data.classes), width=config.width, activation=nnx.relu, rngs=nnx.Rngs(seed))
        fitted = cl.fit(start, data, config.recipe(seed, evaluations=10), watch=measure.watch_activations(start, some))
        for row, layer in itertools.product(fitted.history, measure.feature_maps(start, some[:1])):
            told = {name: row[f"{layer}/{name}"] for name in ("deviation", "dead")}
            over_time.append({"layer": layer, "seed": seed, "epoch": row["epoch"], **told})
        model = fitted.model()
        for each in (start, model):
            each.eval()
        everything = standardise(jnp.asarray(data.test.images), data.mean, data.std)
        right = np.flatnonzero(np.asarray(model(everything).argmax(-1)) == np.asarray(data.test.labels))[: config.images]
        x, target = everything[right], np.asarray(data.test.labels)[right]
        after, before = importance(model, x, target), importance(start, x, target)
        after |= {EDGES: edges(x), RANDOM: jax.random.uniform(jax.random.key(seed), x.shape[:-1])}
        edge = ranks(after[EDGES])
        for way, maps in after.items():
            order = ranks(maps)
            own = {"way": way, "seed": seed, "accuracy": fitted.history[-1]["test_accuracy"]}
            own |= {"untrained": correlation(order, ranks(before[way]))} if way in before else {}
            own |= {"edges": correlation(order, edge)} if way != EDGES else {}
            rows += [own | {"hidden": share, "stay": staying(model, x, order, share)} for share in config.hidden]
        print(f"seed {seed}: {rows[-1]['accuracy']:.1%} right, {len(x)} images asked about", flush=True)
        if seed == 0:
            picture = {"image": data.test.images[right[0]] / 255, "filters": fitted.parameters["stages"][0]["layer"]["kernel"]}
            picture |= {
                when: {way: maps[0] for way, maps in each.items()} for when, each in (("after", after), ("before", before))
            }
            picture["features"] = nnx.relu(next(iter(measure.feature_maps(model, x[:1]).values())))[0]
    return rows, over_time, picture


def draw(rows: list[dict[str, Any]], over_time: list[dict[str, Any]], picture: dict[str, Any], config: Config) -> Any:
    """One photograph, its maps after training and before, what the first layer is, and the two tests."""
    figure, [blank] = report.new_figure(size=(24.0, 15.5))
    figure.delaxes(blank)
    with slide_style():
        [[above], [below]] = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1))
        panels = above.subplots(2, len(WAYS) + 2)
        faith, learning, activations = (part.subplots() for part in below.subfigures(1, 3, squeeze=False)[0])
    _pictures(panels, picture)
    for axis in (faith, learning, activations):
        axis.spines[["top", "right"]].set_visible(False)
    report.curves(
        faith,
        report.summarise(rows, ["way", "hidden"], "stay", bounds={"stay": report.SHARE}),
        "hidden",
        "stay",
        "way",
        x_label="pixels hidden, the most important first (share)",
        y_label="predictions that stay, 95 % interval",
        y_format=".0%",
        title="faith: lower is better",
        styles=STYLES,
    )
    report.comparison(
        learning,
        report.summarise(
            [row for row in rows if row["way"] in WAYS and row["hidden"] == config.hidden[0]],
            "way",
            "untrained",
            bounds={"untrained": CORRELATION},
        ),
        "way",
        "untrained",
        label="95 % interval",
        x_label="rank correlation with the map before training",
        title="learning: lower is better",
        baselines={"nothing in common": 0.0},
    )
    report.curves(
        activations,
        report.summarise(over_time, ["layer", "epoch"], "deviation", bounds={"deviation": report.POSITIVE}),
        "epoch",
        "deviation",
        "layer",
        x_label="passes over the training images",
        y_label="deviation of what a layer returns",
        title="activations over training",
    )
    return figure


def _pictures(axes: Any, picture: dict[str, Any]) -> None:
    """The photograph and its edges, the maps after training above those before, the first layer and what it makes of it."""
    image = picture["image"]
    axes[0, 0].imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set(xticks=[], yticks=[])
    axes[0, 0].set_title("a test image")
    report.heat(axes[1, 0], image, picture["after"][EDGES], "its edges", label="steepness")
    for row, when in zip(axes[:, 1:-1], ("after", "before"), strict=True):
        for axis, way in zip(row, WAYS, strict=True):
            report.heat(axis, image, picture[when][way], f"{way}\n{when} training", label=UNITS.get(way, "sum of |gradient|"))
    kernels = np.moveaxis(np.asarray(picture["filters"]).mean(2), -1, 0)
    report.filters(axes[0, -1], kernels, "kernels of\nthe first layer", columns=6)
    report.feature_sheet(axes[1, -1], picture["features"], "what they make\nof the image", columns=6)


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows, over_time, picture = run(config)
    bounds = {"stay": report.SHARE, "untrained": CORRELATION, "edges": CORRELATION, "accuracy": report.SHARE}
    report.save_report(
        "looking",
        rows,
        config,
        figure=draw(rows, over_time, picture, config),
        summary=report.summarise(rows, ["way", "hidden"], list(bounds), bounds=bounds),
        formats={"hidden": ".0%", "stay": ".1%", "untrained": ".2f", "edges": ".2f", "accuracy": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
