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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data, standardise
from convlab.models import Net
from experiments.parts.attribution_maps import (
    EDGES,
    METHODS,
    RANDOM,
    correlation,
    edges,
    importance,
    kept_predictions,
    ranks,
)
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Recipe

DRAWN = 0.1  # the share of hidden pixels that the figure shows
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


def run(config: Config) -> Rows:
    """Return one row per method, seed and share hidden."""
    data = load(config)
    return [row for seed in track(range(config.seeds), "networks") for row in attribute(config, data, seed)]


def attribute(config: Config, data: Data, seed: int) -> Rows:
    """Train and attribute one network, and return one row per method and share hidden."""
    test_images = standardise(jnp.asarray(data.test.images), data.mean, data.std)
    start = Net(data.image_shape, len(data.classes), width=config.width, activation=nnx.relu, rngs=nnx.Rngs(seed))
    fitted = cl.fit(start, data, config.recipe(seed))
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
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["method", "hidden_share"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the two tests, with the method that changes most predictions on top."""
    figure, (faith, learning) = report.new_figure(2, size=(13.0, 5.5))
    share = min(config.hidden_shares, key=lambda share: abs(share - DRAWN))
    lines = {line["method"]: line for line in table(rows, config) if line["hidden_share"] == share}
    points = sorted((lines[method] for method in METHODS), key=lambda line: line["predictions_kept"])
    words: dict[str, Any] = {"label": f"mean of {config.seeds} seeds, 95 % interval"}
    report.comparison(
        faith,
        points,
        "method",
        "predictions_kept",
        x_label=f"predictions that stay, {share:.0%} of the pixels hidden",
        x_format=".0%",
        title="hide what a method marks: lower is better",
        baselines={"random pixels": report.interval_of(lines[RANDOM], "predictions_kept")},
        **words,
    )
    report.comparison(
        learning,
        points,
        "method",
        "correlation_untrained",
        x_label="rank correlation of the two maps",
        title="before and after training: near 0 is better",
        baselines={"nothing in common": 0.0},
        **words,
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
