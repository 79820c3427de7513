"""What is the best rank of a low-rank layer, between a convolution and free local kernels?

A low-rank layer gives every position its own mixture of r shared kernels. There are two questions.

(i) Does the risk have its minimum at the true rank? A teacher mixes two kernels (half of every mixture is common to all
positions) and adds noise to its outputs on Gaussian images. Students of every rank fit it by least squares on few images. If
the rank is too low they cannot represent it, and if it is too high they learn its noise. The left end is a convolution, which
is rank one with constant weights, and the right end free kernels. The lower bound is the teacher's noise. Null model:
predicting zero.

(ii) What is the best rank of a classifier? It is the network of the ladder with rank r in every layer. Its positions start
independent or all equal. Baselines: a convolution, free kernels with either start, and a linear classifier as null model.

Answer: (i) yes: the minimum is at rank two, for each of ten teachers. (ii) On signals at random places three seeds show no rank
that beats the convolution. Mixtures are within 0.4 points of it if all positions start equal, and far below if they start
independent.

    python -m experiments.low_rank --teacher-seeds 10                       (5 minutes on 2 busy cores)
    python -m experiments.low_rank --data fashion_mnist --manual-dir DIR

Reference: Elsayed, Ramachandran, Shlens and Kornblith 2020, Revisiting spatial invariance with low-rank local connectivity.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from flax import nnx

import convlab as cl
from convlab import measure, report
from convlab.layers import spatial_layers
from experiments.parts.students import TEACHER, Teaching, free_rank, teach
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source, styles

LINEAR = "linear classifier"
FREE = {  # the rung of a classifier and its `tied_noise` (None: the positions start independent)
    "low_rank": ("low_rank", None),
    "low rank, starts shared": ("low_rank", 0.0),
    "locally_connected": ("locally_connected", None),
    "locally connected, starts shared": ("locally_connected", 0.0),
}
STYLES = styles({"low rank, starts shared": "tiled", "locally connected, starts shared": "dense"})
FORMATS = {"validation_accuracy": ".1%", "accuracy": ".1%"}
BOUNDS = dict.fromkeys(("risk", "zero_risk", "noise_floor"), report.POSITIVE) | dict.fromkeys(FORMATS, report.SHARE)


@dataclasses.dataclass(frozen=True)
class Config(Source, Teaching):
    """The settings of the experiment.

    Args:
      data: The name of the data set of the second question.
      ranks: The ranks of the classifiers.
      seeds: The number of runs of every classifier, each with its own initial weights and batch order.
      features: The numbers of channels of the classifiers' layers.
      steps: The number of training steps of the classifiers.
      batch_size: The number of images per step.
      learning_rates: The learning rates of Adam, which decay along a cosine. Each network has the one with the best mean
        accuracy on validation images.
      validation: The share of the training images that is held out for validation.
    """

    data: str = "mnist1d"
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 3
    features: tuple[int, ...] = (16, 32, 64)
    steps: int = 600
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    validation: float = 0.1

    @property
    def name(self) -> str:
        """The name of the report."""
        return "low_rank" if self.data in ("mnist1d", "digits") else f"low_rank_{self.dataset}"


SMOKE = Config(
    teacher_seeds=1,
    teacher_ranks=(2,),
    teacher_steps=5,
    data="digits",
    ranks=(2,),
    seeds=1,
    features=(4, 4),
    steps=3,
    learning_rates=(1e-2,),
)


def classify(config: Config) -> Iterator[dict[str, Any]]:
    """Train the classifiers. Yield one row of accuracy per classifier, learning rate and seed."""
    images = config.load()
    shape, classes = images.image_shape, len(images.classes)
    options: dict[str, Any] = {"steps": config.steps, "batch_size": config.batch_size, "evaluations": 1, "progress": False}
    kinds: list[tuple[str, int | None]] = [(LINEAR, None), ("conv", 1)]
    kinds += [(name, rank) for name, (rung, _) in FREE.items() for rank in (config.ranks if rung == "low_rank" else (0,))]
    runs = itertools.product(kinds, config.learning_rates, range(config.seeds))
    for (name, rank), rate, seed in track(runs, "classifiers"):
        if name == LINEAR:
            model: nnx.Module = cl.models.MLP(shape, classes, (), rngs=nnx.Rngs(seed))
        else:
            rung, noise = FREE.get(name, (name, None))
            connection_options: dict[str, Any] = {"connectivity": rung, "rank": rank or 1, "tied_noise": noise}
            model = cl.models.Pyramid(shape, classes, config.features, **connection_options, rngs=nnx.Rngs(seed))
        if rank == 0:
            rank = max(free_rank(layer.layout) for layer in spatial_layers(model).values())
        training = cl.Config(learning_rate=rate, seed=seed, **options)
        last = cl.fit(model, images.hold_out(config.validation, seed), training).history[-1]
        row = {
            "task": config.dataset,
            "network": name,
            "rank": rank,
            "weights": measure.count_weights(model),
            "learning_rate": rate,
        }
        yield row | {"seed": seed, "validation_accuracy": last["validation_accuracy"], "accuracy": last["test_accuracy"]}


def run(config: Config) -> Rows:
    """Return one row per student and seed, and one per classifier, learning rate and seed."""
    return [*teach(config), *classify(config)]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds. Classifiers have the learning rate that is best on validation images."""
    lines = report.summarise(rows, ["task", "network", "rank", "weights", "learning_rate"], list(BOUNDS), bounds=BOUNDS)
    return report.best_rows(lines, ["task", "network", "rank"], "validation_accuracy")


def draw(rows: Rows, config: Config) -> Any:
    """Draw the risk of the students and the accuracy of the classifiers against the rank.

    The convolution stands left of rank one.
    """
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    lines = table(rows, config)
    students, (null, *classifiers) = ([line for line in lines if line["task"] == task] for task in (TEACHER, config.dataset))
    words: dict[str, dict[str, Any]] = {
        "risk": {
            "y_label": "squared error on new images, 95 % interval",
            "title": f"students of a teacher of rank {config.rank}, {config.size} images",
            "baselines": {"predicting zero": students[0]["zero_risk"], "the teacher's noise": students[0]["noise_floor"]},
        },
        "accuracy": {
            "y_label": f"accuracy on {config.dataset}, 95 % interval",
            "y_format": ".0%",
            "title": "the network of the ladder",
            "baselines": {LINEAR: report.interval_of(null, "accuracy")},
        },
    }
    for axis, lines, (value, shown) in zip(axes, (students, classifiers), words.items(), strict=True):
        lines = [line | {"place": 0.6 if line["network"] == "conv" else line["rank"]} for line in lines]
        shown |= {"x_label": "rank of the kernels", "log_x": True, "styles": STYLES, "baseline_labels": "right"}
        report.curves(axis, lines, "place", value, "network", **shown)
        axis.margins(y=0.1)
        ticks = {line["place"]: f"{line['rank']}" for line in lines} | {lines[0]["place"]: "conv", lines[-1]["place"]: "free"}
        axis.set_xticks(list(ticks), list(ticks.values()))
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
