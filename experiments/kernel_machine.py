r"""Is a convolution with random kernels a kernel machine in the limit of infinite width?

Random 3x3 kernels at stride 2 and ReLU are followed by a linear read-out, fitted by ridge regression to the features of every
position, or to their mean over positions. As the width grows, the Gram matrix of the features tends to an expectation in closed
form, the arc-cosine kernel k of the windows p. It is taken at equal positions, or between all pairs of positions:

$$K(x, x') = \frac{1}{N} \sum_{ij} k(p_{ij}, p'_{ij}), \quad \frac{1}{N^2} \sum_{ij, i'j'} k(p_{ij}, p'_{i'j'}), \quad
k(p, q) = \frac{|p| |q|}{2 \pi} (\sin\theta + (\pi - \theta) \cos\theta)$$

With a read-out of every position, shared kernels and a different kernel at every position have the same expectation. Sharing
shows only in the mean over positions. Null model: ridge regression on the pixels.

Answer: yes, and the distance falls about as one over the root of the width. With a read-out of every position, sharing does not
change the limit. The accuracies at 1,024 kernels differ by 0.1 points [-0.2, 0.3] over ten seeds.

    python -m experiments.kernel_machine                                               (1 minute on 2 cores)

Reference: Cho and Saul 2009, Kernel methods for deep learning (k); Mairal et al. 2014, Convolutional kernel networks.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.gram_matrices import limits, products, windows
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source, styles

EVERY, MEAN, OWN, PIXELS = "every position", "mean over positions", "every position, a kernel each", "ridge on pixels"
BOUNDS = {"error": report.POSITIVE, "accuracy": report.SHARE}
STYLES = styles({EVERY: "conv", OWN: "locally_connected", MEAN: "dense"})
FORMATS = {"accuracy": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      size: The number of training images.
      test_size: The number of test images.
      widths: The numbers of random kernels, in increasing order.
      ridge: The weight of the squared norm, in units of the mean diagonal of the Gram matrix.
      seeds: The number of draws of kernels and of training images.
    """

    size: int = 500
    test_size: int = 297
    widths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    ridge: float = 1e-4
    seeds: int = 10


SMOKE = Config(size=30, test_size=20, widths=(4, 16), seeds=2)


def accuracy(gram: jax.Array, labels: np.ndarray, size: int, ridge: float) -> float:
    """Fit ridge regression to the first `size` images and return its accuracy on the others."""
    train, test = gram[:size, :size], gram[size:, :size]
    targets = jax.nn.one_hot(labels[:size], labels.max() + 1)
    centre = targets.mean(0)
    dual = jnp.linalg.solve(train + ridge * jnp.trace(train) / size * jnp.eye(size), targets - centre)
    return float(jnp.mean((test @ dual + centre).argmax(1) == labels[size:]))


def run(config: Config) -> Rows:
    """Return one row per read-out, width and seed. A width of None is infinite."""
    data = config.load()
    rows = []
    for seed in track(range(config.seeds), "draws"):
        split, test = data.subset(config.size, seed).train, data.test.take(np.arange(config.test_size))
        images = np.concatenate([np.asarray(part.images, np.float32) for part in (split, test)])
        labels = np.concatenate([np.asarray(part.labels) for part in (split, test)])
        images = (images - data.mean) / data.std
        score = functools.partial(accuracy, labels=labels, size=config.size, ridge=config.ridge)
        flat = images.reshape(len(images), -1)
        rows.append({"readout": PIXELS, "seed": seed, "accuracy": score(jnp.asarray(flat @ flat.T))})
        p = windows(images)
        at_positions, mean = limits(p)
        limit: dict[str, jax.Array] = {EVERY: at_positions, MEAN: mean, OWN: at_positions}
        rows += [{"readout": readout, "seed": seed, "accuracy": score(gram)} for readout, gram in limit.items()]
        summed, sums = 0, (0.0, 0.0, 0.0)
        for width in config.widths:
            added = products(p, jax.random.fold_in(jax.random.key(seed), width), width - summed)
            sums, summed = tuple(a + b for a, b in zip(sums, added, strict=True)), width
            for readout, total in zip((EVERY, MEAN, OWN), sums, strict=True):
                gram = total / width
                error = float(jnp.linalg.norm(gram - limit[readout]) / jnp.linalg.norm(limit[readout]))
                rows.append({"readout": readout, "width": width, "seed": seed, "error": error, "accuracy": score(gram)})
    return rows


def slope(rows: Rows, readout: str) -> report.Interval:
    """Fit the exponent of the error as a power of the width, for every seed."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    lines = [[row for row in rows if row["readout"] == readout and row["seed"] == seed and "width" in row] for seed in seeds]
    logs = [np.log([[row["width"], row["error"]] for row in line]).T for line in lines]
    return report.interval([np.polyfit(x, y, 1)[0] for x, y in logs])


def table(rows: Rows, config: Config) -> Rows:
    """Average error and accuracy over the seeds."""
    return report.summarise(rows, ["readout", "width"], list(BOUNDS), bounds=BOUNDS)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the distance from the limit and the accuracy against the width."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    finite = report.summarise([row for row in rows if "width" in row], ["readout", "width"], list(BOUNDS), bounds=BOUNDS)
    limited = [row for row in rows if "width" not in row]
    limit = report.summarise(limited, "readout", "accuracy", bounds={"accuracy": report.SHARE})
    shown = {"x_label": "random kernels", "log_x": True, "styles": STYLES}
    y_label = "distance from the limit, 95 % interval"
    words: dict[str, Any] = {"y_label": y_label, "title": "Gram matrix, relative error", "log_y": True}
    report.curves(axes[0], finite, "width", "error", "readout", **words, **shown)
    slopes = [
        f"{readout}: width^{mean:.2f} [{low:.2f}, {high:.2f}]"
        for readout in STYLES
        for mean, low, high in [slope(rows, readout)]
    ]
    axes[0].text(0.03, 0.03, "\n".join(slopes), transform=axes[0].transAxes, size=12)
    baselines = {
        line["readout"] if line["readout"] == PIXELS else f"limit, {line['readout']}": report.interval_of(line, "accuracy")
        for line in limit
        if line["readout"] != OWN
    }
    title = f"{config.dataset}, {config.size} training images"
    y_label = "accuracy on test images, 95 % interval"
    report.curves(
        axes[1],
        finite,
        "width",
        "accuracy",
        "readout",
        y_label=y_label,
        y_format=".0%",
        title=title,
        baselines=baselines,
        **shown,
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
