"""How much do methods of downsampling change when an image moves by one pixel?

Max, mean, strided, blur and adaptive polyphase downsampling by two are applied to images, to the responses of edge kernels, and
to noise. All use circular padding, so that there is no border. The experiment measures three numbers:

- The difference between the result for a moved image and the moved result, at the better of the two nearest positions.
- The change of the mean over positions.
- The share of the energy before sampling that lies above the Nyquist frequency of the samples.

Polyphase downsampling is the null model: it makes no error.

Answer: polyphase makes no error, and striding makes the largest. Blur keeps the mean in its place, but its result for the moved
image is not the moved result.

    python -m experiments.downsampling                                                 (1 minute on 2 cores)

Reference: Zhang 2019, Making convolutional networks shift-invariant again; Chaman and Dokmanic 2021.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import algebra, measure, report
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source

KINDS = ("images", "edges of images", "noise")
VALUES = {
    "error": "error (relative)",
    "mean_change": "mean change (relative)",
    "aliased_energy": "aliased energy (share)",
}
BOUNDS = {"error": report.POSITIVE, "mean_change": report.POSITIVE, "aliased_energy": report.SHARE}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      data: The name of the data set.
      batch: The number of images in each draw.
      window: The number of taps of max, mean and blur along each axis.
      seeds: The number of draws of images.
    """

    batch: int = 100
    window: int = 3
    seeds: int = 5


SMOKE = Config(batch=5, seeds=2)


def run(config: Config) -> Rows:
    """Return one row per kind of image, method and draw."""
    data = config.load()
    edges = algebra.depthwise_kernel(algebra.sobel(0), data.image_shape[-1])
    rows = []
    for seed in track(range(config.seeds), "draws"):
        rng = np.random.default_rng(seed)
        split = data.train.take(rng.choice(len(data.train), config.batch, replace=False))
        images = jnp.asarray(np.asarray(split.images, np.float32) / 255)
        responses = cl.conv(images, edges, cl.Window(3, padding="CIRCULAR"), groups=data.image_shape[-1])
        noise = jnp.asarray(rng.uniform(size=images.shape), jnp.float32)
        for kind, x in zip(KINDS, (images, jnp.maximum(responses, 0), noise), strict=True):
            rows += [{"input": kind, "seed": seed, **row} for row in measure.compare_downsampling(x, config.window)]
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average the three numbers over the draws."""
    return report.summarise(rows, ["input", "method"], list(VALUES), bounds=BOUNDS)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the three numbers for every method."""
    summary = table(rows, config)
    figure, axes = report.new_figure(3, size=(18.0, 6.5))
    methods = list(dict.fromkeys(line["method"] for line in summary))
    styles = {
        kind: report.RUNG_STYLE[rung]._replace(label=kind, line="none")
        for kind, rung in zip(KINDS, ("dense", "conv", "tiled"), strict=True)
    }
    for axis, (name, label) in zip(axes, VALUES.items(), strict=True):
        lines = [line | {"place": methods.index(line["method"])} for line in summary]
        words: dict[str, Any] = {"y_label": f"{label}, 95 % interval", "styles": styles}
        title = f"downsampling of {config.dataset} by two, {config.window} x {config.window} windows" if axis is axes[1] else ""
        report.curves(axis, lines, "place", name, "input", x_label="", title=title, **words)
        axis.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
        axis.axhline(0, color="0.5", linestyle="--", zorder=0)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
