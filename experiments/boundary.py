"""Do the features at a pixel reveal how far it is from the border?

Convolutions with random weights and ReLU are stacked, all with the same padding mode. A linear read-out, fitted by ridge
regression, predicts from the features at a pixel its distance from the border, on new images. Noise has no content that could
reveal the distance. Images have such content, so their null model is a read-out of the raw window. Around an image zero padding
is the mean grey of the training images, because pixels are standardised. Around noise it is the mean, 0.

Answer: yes with zero padding, and more at every layer (64 % of the variance after eight layers, on noise). With circular
padding not at all. With repeated border pixels a little, and less in deeper layers.

    python -m experiments.boundary                                                     (1 minute on 2 cores)
    python -m experiments.boundary --data fashion_mnist --manual-dir DIR

Reference: Islam et al. 2020, How much position information do convolutional neural networks encode?
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import report
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source, styles

NOISE, IMAGES = "Gaussian noise", "images"
STYLES = styles({"SAME": "dense", "CIRCULAR": "conv", "REFLECT": "tiled", "EDGE": "locally_connected"})
FORMATS = {"explained_variance": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      data: The name of the data set.
      size: The number of images that the read-out is fitted to, and the number that it is evaluated on.
      paddings: The padding modes, which keep the size.
      depth: The largest number of layers.
      width: The number of channels of every layer.
      ridge: The weight of the read-out's squared norm, in units of the mean squared feature.
      seeds: The number of runs, each with its own network, noise and images.
    """

    size: int = 100
    paddings: tuple[str, ...] = tuple(STYLES)
    depth: int = 8
    width: int = 32
    ridge: float = 1e-4
    seeds: int = 5


SMOKE = Config(size=20, depth=2, width=5, seeds=2)


def distance(space: tuple[int, ...]) -> np.ndarray:
    """Return the distance of each pixel from the nearest border."""
    i, j = np.indices(space)
    return np.minimum.reduce([i, j, space[0] - 1 - i, space[1] - 1 - j]).astype(np.float32)


def readable(h: jax.Array, ridge: float) -> float:
    """Return the share of the variance of the distance that a linear read-out of the features explains.

    The read-out is fitted to the first half of the images and evaluated on the second half.
    """
    distances = jnp.broadcast_to(distance(h.shape[1:3]), h.shape[:3])
    h = jnp.concatenate([h, jnp.ones_like(h[..., :1])], -1)
    (x, held), (y, target) = (jnp.split(array.reshape(2, -1, *array.shape[3:]), 2) for array in (h, distances))
    x, held, y, target = x[0], held[0], y[0], target[0]
    squares = x.T @ x
    weights = jnp.linalg.solve(squares + ridge * jnp.trace(squares) / len(squares) * jnp.eye(len(squares)), x.T @ y)
    return float(1 - jnp.mean((held @ weights - target) ** 2) / jnp.var(target))


def run(config: Config) -> Rows:
    """Return one row per kind of image, padding, depth and seed."""
    data = config.load()
    rows = []
    for seed in track(range(config.seeds), "draws"):
        rng = np.random.default_rng(seed)
        split = data.train.take(rng.choice(len(data.train), 2 * config.size, replace=False))
        images = (np.asarray(split.images, np.float32) - data.mean) / data.std
        kernels = [
            jnp.asarray(rng.standard_normal((3, 3, c, config.width)) * (2 / (9 * c)) ** 0.5, jnp.float32)
            for c in (images.shape[-1], *[config.width] * (config.depth - 1))
        ]
        for kind, x in ((NOISE, rng.standard_normal(images.shape).astype(np.float32)), (IMAGES, images)):
            for padding in config.paddings:
                h, window = jnp.asarray(x), cl.Window((3, 3), padding=padding)
                raw = cl.unfold(h, window).reshape(*h.shape[:-1], -1)
                rows.append(row(kind, padding, 0, seed, readable(raw, config.ridge)))
                for depth, v in enumerate(kernels, 1):
                    h = jax.nn.relu(cl.conv(h, v, window))
                    rows.append(row(kind, padding, depth, seed, readable(h, config.ridge)))
    return rows


def row(kind: str, padding: str, depth: int, seed: int, explained: float) -> dict[str, Any]:
    """Return the row of one read-out. Depth 0 is the raw window."""
    return {"input": kind, "padding": padding, "depth": depth, "seed": seed, "explained_variance": explained}


def table(rows: Rows, config: Config) -> Rows:
    """Average the explained share over the seeds."""
    return report.summarise(
        rows, ["input", "padding", "depth"], "explained_variance", bounds={"explained_variance": (-math.inf, 1)}
    )


def draw(rows: Rows, config: Config) -> Any:
    """Draw the explained share on noise and on images, against the depth."""
    summary = table(rows, config)
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    for axis, kind in zip(axes, (NOISE, IMAGES), strict=True):
        report.curves(
            axis,
            [line for line in summary if line["input"] == kind],
            "depth",
            "explained_variance",
            "padding",
            x_label="3x3 layers with random weights (0: the raw window)",
            y_label="variance explained, 95 % interval",
            y_format=".0%",
            title=f"distance from the border, {kind if kind == NOISE else config.dataset}",
            baselines={"nothing": 0.0},
            styles=STYLES,
        )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
