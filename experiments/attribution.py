"""Which attribution methods show what a network learnt?

One network is trained on photographs. Six methods then attribute its predictions on the test images that it classifies
correctly. They are the magnitude of the score's gradient, guided backpropagation, DeconvNet, the gradient times the image,
Grad-CAM, and occlusion. Guided backpropagation and DeconvNet are gradients with other rules for ReLUs. There are two tests.

The first test is faithfulness: hide the pixels that a method ranks highest, and count the predictions that stay the same. The
second test is learning: attribute the network before and after training, and correlate the ranks of the pixels. A method whose
maps are the same for an untrained network has not shown what was learnt. Baselines: random pixels, and the photograph's edges.

Answer: occlusion and the gradient times the image. Hiding the tenth of the pixels that they rank highest changes six
predictions of ten. For the other methods it changes at most three points more than hiding random pixels. The maps of guided
backpropagation have most in common with those of an untrained network. Three seeds of one network are an illustration only.

    python -m experiments.attribution                                                   (1 minute on 2 cores)
    python -m experiments.attribution --data folder:PATH/cifar10.zip --classes airplane bird

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
from experiments.parts.attribution_maps import (
    EDGES,
    METHODS,
    RANDOM,
    correlation,
    draw_pictures,
    edges,
    importance,
    kept_predictions,
    ranks,
)
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Recipe, styles

RUNGS = ("conv", "locally_connected", "dense", "global_conv", "tiled", "low_rank", "linear")
STYLES = styles(dict(zip((*METHODS, EDGES), RUNGS, strict=True)))
STYLES[RANDOM] = report.RUNG_STYLE["linear"]._replace(label=RANDOM, marker="o", line=":")
CORRELATION = (-1.0, 1.0)
BOUNDS = {
    "predictions_kept": report.SHARE,
    "correlation_untrained": CORRELATION,
    "correlation_edges": CORRELATION,
    "accuracy": report.SHARE,
}
FORMATS = {
    "hidden_share": ".0%",
    "predictions_kept": ".1%",
    "correlation_untrained": ".2f",
    "correlation_edges": ".2f",
    "accuracy": ".1%",
}


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """The settings of the experiment.

    Args:
      classes: The classes that the network distinguishes. If empty, all of the data set.
      size: The number of training images. If None, all.
      width: The number of channels of the network's first layer.
      images: The number of test images that are attributed.
      hidden_shares: The shares of the pixels to hide, those of highest rank first.
    """

    classes: tuple[str, ...] = ()
    size: int | None = None
    epochs: int = 20
    learning_rate: float = 2e-3
    width: int = 32
    images: int = 200
    hidden_shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    seeds: int = 3


SMOKE = Config(size=100, epochs=2, width=6, images=5, hidden_shares=(0.1, 0.4), seeds=1)


def load(config: Config) -> Data:
    """Load the images of the chosen classes."""
    data = config.load()
    data = data.relabel({name: name for name in config.classes}) if config.classes else data
    return data.subset(config.size, 0) if config.size else data


def run(config: Config) -> Result:
    """Return one row per method, seed and share hidden.

    The arrays hold activations by epoch and the maps of one image.
    """
    data = load(config)
    runs = [attribute(config, data, seed) for seed in track(range(config.seeds), "networks")]
    over_time = [row for _, rows, _ in runs for row in rows]
    return Result([row for rows, *_ in runs for row in rows], arrays={"over time": over_time, "picture": runs[0][2]})


def attribute(config: Config, data: Data, seed: int) -> tuple[Rows, Rows, dict[str, Any]]:
    """Train and attribute one network.

    Returns rows by method and share hidden, rows by layer and epoch, and the maps of one image.
    """
    images = data.train.images[: config.images], data.test.images
    train_images, test_images = (standardise(jnp.asarray(x), data.mean, data.std) for x in images)
    start = Net(data.image_shape, len(data.classes), width=config.width, activation=nnx.relu, rngs=nnx.Rngs(seed))
    fitted = cl.fit(
        start, data, config.recipe(seed, evaluations=10), parameter_metrics=measure.activation_metrics(start, train_images)
    )
    over_time = [
        {"layer": layer, "seed": seed, "epoch": row["epoch"], "deviation": row[f"{layer}/std"]}
        for row, layer in itertools.product(fitted.history, measure.feature_maps(start, train_images[:1]))
    ]
    model, labels, rows = fitted.model(), np.asarray(data.test.labels), []
    for network in (start, model):
        network.eval()
    right = np.flatnonzero(np.asarray(model(test_images).argmax(-1)) == labels)[: config.images]
    x, target = test_images[right], labels[right]
    after, before = importance(model, x, target), importance(start, x, target)
    after |= {EDGES: edges(x), RANDOM: jax.random.uniform(jax.random.key(seed), x.shape[:-1])}
    edge = ranks(after[EDGES])
    for method, maps in after.items():
        order, row = ranks(maps), {"method": method, "seed": seed, "accuracy": fitted.history[-1]["test_accuracy"]}
        row |= {"correlation_untrained": correlation(order, ranks(before[method]))} if method in before else {}
        row |= {"correlation_edges": correlation(order, edge)} if method != EDGES else {}
        rows += [
            row | {"hidden_share": share, "predictions_kept": kept_predictions(model, x, order, share)}
            for share in config.hidden_shares
        ]
    print(f"seed {seed}: {rows[-1]['accuracy']:.1%} right, {len(x)} images attributed", flush=True)
    picture = {"image": data.test.images[right[0]] / 255, "filters": fitted.parameters["stages"][0]["layer"]["kernel"]}
    picture |= {
        when: {method: maps[0] for method, maps in maps_of.items()} for when, maps_of in (("after", after), ("before", before))
    }
    picture["features"] = nnx.relu(next(iter(measure.feature_maps(model, x[:1]).values())))[0]
    return rows, over_time, picture


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["method", "hidden_share"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config, arrays: dict[str, Any]) -> Any:
    """Draw one photograph, its maps after and before training, the first layer, and the two tests."""
    figure, [blank] = report.new_figure(size=(24.0, 15.5))
    figure.delaxes(blank)
    with slide_style():
        [[above], [below]] = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1))
        panels = above.subplots(2, len(METHODS) + 2)
        faith, learning, activations = (part.subplots() for part in below.subfigures(1, 3, squeeze=False)[0])
    draw_pictures(panels, arrays["picture"])
    for axis in (faith, learning, activations):
        axis.spines[["top", "right"]].set_visible(False)
    lines = table(rows, config)
    words: dict[str, Any] = {"x_label": "pixels hidden, the most important first (share)", "y_format": ".0%", "styles": STYLES}
    words |= {"y_label": "predictions that stay, 95 % interval", "title": "faith: lower is better"}
    report.curves(faith, lines, "hidden_share", "predictions_kept", "method", **words)
    points = [line for line in lines if line["method"] in METHODS and line["hidden_share"] == config.hidden_shares[0]]
    words = {"x_label": "rank correlation with the map before training", "title": "learning: lower is better"}
    words |= {"label": "95 % interval", "baselines": {"nothing in common": 0.0}}
    report.comparison(learning, points, "method", "correlation_untrained", **words)
    bounds = {"deviation": report.POSITIVE}
    lines = report.summarise(arrays["over time"], ["layer", "epoch"], "deviation", bounds=bounds)
    words = {"x_label": "passes over the training images", "y_label": "deviation of what a layer returns"}
    report.curves(activations, lines, "epoch", "deviation", "layer", title="activations over training", **words)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
