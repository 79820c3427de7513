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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import measure, report
from convlab.data import Data, standardise
from convlab.models import Net
from convlab.report.drawing import slide_style
from experiments.parts.attributions import EDGES, RANDOM, WAYS, correlation, draw_pictures, edges, importance, ranks, staying
from experiments.shared.command import Result, Rows, main
from experiments.shared.settings import Recipe, styles

RUNGS = ("conv", "locally_connected", "dense", "global_conv", "tiled", "low_rank", "linear")
STYLES = styles(dict(zip((*WAYS, EDGES), RUNGS, strict=True)))
STYLES[RANDOM] = report.RUNG_STYLE["linear"]._replace(label=RANDOM, marker="o", line=":")
CORRELATION = (-1.0, 1.0)
BOUNDS = {"stay": report.SHARE, "untrained": CORRELATION, "edges": CORRELATION, "accuracy": report.SHARE}
FORMATS = {"hidden": ".0%", "stay": ".1%", "untrained": ".2f", "edges": ".2f", "accuracy": ".1%"}


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


def run(config: Config) -> Result:
    """One row per way, seed and share hidden; beside them one per layer, seed and epoch, and the maps of one photograph."""
    data = asked(config)
    found = [looked(config, data, seed) for seed in range(config.seeds)]
    over_time = [row for _, rows, _ in found for row in rows]
    return Result([row for rows, *_ in found for row in rows], arrays={"over time": over_time, "picture": found[0][2]})


def looked(config: Config, data: Data, seed: int) -> tuple[Rows, Rows, dict[str, Any]]:
    """Train one network; return rows by way and share hidden, rows by layer and epoch, and the maps of one photograph."""
    images = data.train.images[: config.images], data.test.images
    some, everything = (standardise(jnp.asarray(each), data.mean, data.std) for each in images)
    start = Net(data.image_shape, len(data.classes), width=config.width, activation=nnx.relu, rngs=nnx.Rngs(seed))
    fitted = cl.fit(start, data, config.recipe(seed, evaluations=10), parameter_metrics=measure.activation_metrics(start, some))
    over_time = [
        {"layer": layer, "seed": seed, "epoch": row["epoch"], "deviation": row[f"{layer}/deviation"]}
        for row, layer in itertools.product(fitted.history, measure.feature_maps(start, some[:1]))
    ]
    model, labels, rows = fitted.model(), np.asarray(data.test.labels), []
    for network in (start, model):
        network.eval()
    right = np.flatnonzero(np.asarray(model(everything).argmax(-1)) == labels)[: config.images]
    x, target = everything[right], labels[right]
    after, before = importance(model, x, target), importance(start, x, target)
    after |= {EDGES: edges(x), RANDOM: jax.random.uniform(jax.random.key(seed), x.shape[:-1])}
    edge = ranks(after[EDGES])
    for way, maps in after.items():
        order, row = ranks(maps), {"way": way, "seed": seed, "accuracy": fitted.history[-1]["test_accuracy"]}
        row |= {"untrained": correlation(order, ranks(before[way]))} if way in before else {}
        row |= {"edges": correlation(order, edge)} if way != EDGES else {}
        rows += [row | {"hidden": share, "stay": staying(model, x, order, share)} for share in config.hidden]
    print(f"seed {seed}: {rows[-1]['accuracy']:.1%} right, {len(x)} images asked about", flush=True)
    picture = {"image": data.test.images[right[0]] / 255, "filters": fitted.parameters["stages"][0]["layer"]["kernel"]}
    picture |= {when: {way: maps[0] for way, maps in each.items()} for when, each in (("after", after), ("before", before))}
    picture["features"] = nnx.relu(next(iter(measure.feature_maps(model, x[:1]).values())))[0]
    return rows, over_time, picture


def table(rows: Rows, config: Config) -> Rows:
    """The mean over seeds."""
    return report.summarise(rows, ["way", "hidden"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config, arrays: dict[str, Any]) -> Any:
    """One photograph, its maps after training and before, what the first layer is, and the two tests."""
    figure, [blank] = report.new_figure(size=(24.0, 15.5))
    figure.delaxes(blank)
    with slide_style():
        [[above], [below]] = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1))
        panels = above.subplots(2, len(WAYS) + 2)
        faith, learning, activations = (part.subplots() for part in below.subfigures(1, 3, squeeze=False)[0])
    draw_pictures(panels, arrays["picture"])
    for axis in (faith, learning, activations):
        axis.spines[["top", "right"]].set_visible(False)
    lines = table(rows, config)
    words: dict[str, Any] = {"x_label": "pixels hidden, the most important first (share)", "y_format": ".0%", "styles": STYLES}
    words |= {"y_label": "predictions that stay, 95 % interval", "title": "faith: lower is better"}
    report.curves(faith, lines, "hidden", "stay", "way", **words)
    some = [line for line in lines if line["way"] in WAYS and line["hidden"] == config.hidden[0]]
    words = {"x_label": "rank correlation with the map before training", "title": "learning: lower is better"}
    words |= {"label": "95 % interval", "baselines": {"nothing in common": 0.0}}
    report.comparison(learning, some, "way", "untrained", **words)
    bounds = {"deviation": report.POSITIVE}
    lines = report.summarise(arrays["over time"], ["layer", "epoch"], "deviation", bounds=bounds)
    words = {"x_label": "passes over the training images", "y_label": "deviation of what a layer returns"}
    report.curves(activations, lines, "epoch", "deviation", "layer", title="activations over training", **words)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
