"""How well do a textbook's networks tell birds from planes, with and without shared weights?

This is the two-class task of *Deep Learning with PyTorch* (Stevens, Antiga and Viehmann 2020), with 10,000 training and 2,000
test images of CIFAR-10. The networks are the perceptrons of chapter 7 and the networks of chapter 8. All train by the book's
recipe: cross entropy, plain SGD in batches of 64, 100 epochs, and a learning rate of 1e-2, or 3e-3 for the deep networks. We
add one network that is not in the book: Net with a different kernel at every position. The book's numbers are shown next to
ours. The book trained each network once and looked at the same 2,000 images while choosing. Null models: the share of the
most frequent class, and a linear classifier. The latter has a tenth of the learning rate, because at the full one its accuracy
jumps by 20 points from one epoch to the next.

Kernels start as PyTorch's do: uniform up to 1/sqrt(fan-in), where the fan-in is that of one window on every rung. There are
four differences from the book. Biases start at zero (PyTorch draws them like kernels). Pixels are standardised by the moments
of these two classes, not of all ten. Zero padding around an image is therefore the mean grey of the training images. The last
batch of an epoch is filled with images of the next epoch. There are 10 blocks, not 100, unless --deep-blocks is set.

Answer: the book's convolution reaches the accuracy that the book prints (89 %). Without shared weights the same network learns
nearly all training images and loses 2.0 points on test images, paired by eight seeds [1.4, 2.6]. Three seeds do not show a
difference for width, depth, dropout and residual connections, which stay within a point of Net. A linear classifier already
reaches 80 %. After 12 epochs ten blocks have 86 % with weights of their own, and 74 % as one block applied ten times, because
its batch norm has one running mean for ten depths. With the statistics of the batch both have 86 to 87 %.

    python -m experiments.birds_and_planes                                  (cifar10 from its server)
    python -m experiments.birds_and_planes --data folder:PATH/cifar10.zip   (train/airplane/*.png and so on)
    python -m experiments.birds_and_planes --nets net net_local --seeds 1   (some of the networks)

Each network and seed is saved below ROOT/birds_and_planes_runs. An interrupted run continues, and finished networks are not
trained again.

The column `batch_accuracy` is the accuracy with the statistics of the test batch in place of batch norm's running ones. It
tells whether a tied network has learnt little, or its running statistics fit none of its depths.
"""

import dataclasses
import pathlib
import typing
from typing import Any

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data, standardise
from experiments.parts.book_networks import LINEAR, NET, Name, Network, networks
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source, gain_of

LARGEST = "largest class"
SGD: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant", "evaluations": 1, "progress": False}
BOOK_SECONDS = 172.7  # training time of Net on the CPU of the book's authors
SHARES = ("train_accuracy", "accuracy", "batch_accuracy")
BOUNDS = dict.fromkeys(SHARES, report.SHARE) | {"seconds": report.POSITIVE}
COLUMNS = (
    "net",
    "weights",
    "multiply_adds",
    "train_accuracy",
    "book_train",
    "accuracy",
    "book",
    "batch_accuracy",
    "seconds",
    "book_seconds",
)
ENDS = (*(f"{name}_{end}" for name in SHARES for end in ("low", "high")), "seeds")
FORMATS = dict.fromkeys(SHARES, ".1%") | {"book_train": ".0%", "book": ".0%", "seconds": ".0f", "gain": "+.1%"}
BATCH = 500  # the number of test images whose own statistics batch norm uses for `batch_accuracy`


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      classes: The two classes.
      nets: The networks to train.
      deep_blocks: The number of blocks of the deep networks. The book has 100.
      epochs: The number of passes over the training images.
      seeds: The number of runs, each with its own initial weights, batch order and dropout.
      batch_size: The number of images per step.
      learning_rate: The constant learning rate of SGD.
      deep_learning_rate: The constant learning rate of the deep networks.
    """

    data: str = "cifar10"
    classes: tuple[str, str] = ("airplane", "bird")
    nets: tuple[Name, ...] = typing.get_args(Name)
    deep_blocks: int = 10
    epochs: float = 100
    seeds: int = 3
    batch_size: int = 64
    learning_rate: float = 1e-2
    deep_learning_rate: float = 3e-3


SMOKE = Config(data="digits", classes=("0", "1"), nets=("linear", "l2", "deep_tied"), deep_blocks=2, epochs=1, seeds=1)


def batch_accuracy(model: nnx.Module, data: Data) -> float | None:
    """Return the accuracy on test images if batch norm uses their own statistics. Without batch norm return None.

    Batches are drawn from all classes, since the statistics of a single class would hide what tells it apart.
    """
    if not any(isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_modules(model)):
        return None
    model.set_attributes(use_running_average=False, raise_if_not_found=False)
    graph, state = nnx.split(model)
    predict = jax.jit(lambda state, x: nnx.merge(graph, state)(standardise(x, data.mean, data.std)).argmax(-1))
    images, labels = np.asarray(data.test.images), data.test.labels
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.array_split(order, -(-len(labels) // BATCH))
    return float(np.mean(np.concatenate([np.asarray(predict(state, images[part]) == labels[part]) for part in parts])))


def train(config: Config, data: Data, network: Network) -> Rows:
    """Train a network for all seeds and return one row for each."""
    options = {"epochs": config.epochs, "batch_size": config.batch_size, "learning_rate": network.learning_rate}
    printed = network if config.classes == Config.classes else network._replace(train=None, test=None)
    rows = []
    for seed in range(config.seeds):
        model = network.build(rngs=nnx.Rngs(seed))
        folder = pathlib.Path(config.root, "birds_and_planes_runs", config.dataset, f"{network.label} {seed}")
        training = cl.Config(**SGD, **options, seed=seed)
        fitted = cl.fit(model, data, training, optimizer=network.optimizer, checkpoints=cl.Checkpoints(folder, max_to_keep=1))
        cost, last = cl.count(model, data.image_shape).total, fitted.history[-1]
        row = {"net": network.label, "weights": cost.weights, "multiply_adds": cost.multiply_adds, "seed": seed}
        learnt = fitted.evaluate(np.asarray(data.train.images), data.train.labels)["accuracy"]
        row |= {"train_accuracy": learnt, "book_train": printed.train, "accuracy": last["test_accuracy"], "book": printed.test}
        row["batch_accuracy"] = batch_accuracy(fitted.model(), data)
        rows.append(row | {"seconds": last["seconds"], "book_seconds": BOOK_SECONDS if printed.train else None})
        print(f"{network.label}, seed {seed}: {last['test_accuracy']:.1%} in {last['seconds']:.0f} s", flush=True)
    return rows


def run(config: Config) -> Rows:
    """Return one row per network and seed, and one row for the most frequent class."""
    data = config.load().relabel({name: name for name in config.classes})
    largest = np.bincount(data.train.labels).argmax()
    splits = {"train_accuracy": data.train, "accuracy": data.test}
    shares = {name: float((split.labels == largest).mean()) for name, split in splits.items()}
    rows: Rows = [{"net": LARGEST, "weights": 0, "multiply_adds": 0, "seed": 0, **shares}]
    known = networks(data.image_shape, config.deep_blocks, config.learning_rate, config.deep_learning_rate)
    return rows + [row for name in track(config.nets, "networks") for row in train(config, data, known[name])]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, next to the book's numbers and the gains over Net.

    The gains are paired by seed. If Net was not run, there are none.
    """
    constant = ["net", "weights", "multiply_adds", "book_train", "book", "book_seconds"]
    measured = [name for name in BOUNDS if any(name in row for row in rows)]  # reports of earlier runs have no `batch_accuracy`
    lines = report.summarise(rows, constant, measured, bounds={name: BOUNDS[name] for name in measured})
    gains: dict[str, dict[str, Any]] = {}
    if NET in {row["net"] for row in rows}:
        for line in report.paired_differences([row for row in rows if row["net"] != LARGEST], "net", {"net": NET}, "accuracy"):
            gains[line["net"]] = gain_of(line)
    columns = [name for name in (*COLUMNS, *ENDS) if name in lines[0]]
    return [{name: line[name] for name in columns} | gains.get(line["net"], {}) for line in lines]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the test accuracy of every network, the book's numbers, and the null models."""
    lines = table(rows, config)
    figure, [axis] = report.new_figure(size=(13.0, 6.5))
    null = [line for line in lines if line["net"] in (LARGEST, LINEAR)]
    references = {"the book, one run": "book", "here, statistics of the batch": "batch_accuracy"}
    references = {label: name for label, name in references.items() if any(line.get(name) is not None for line in lines)}
    report.comparison(
        axis,
        [line for line in lines if line not in null] or null,
        "net",
        "accuracy",
        label="here, 95 % interval",
        x_label="accuracy on test images",
        x_format=".0%",
        title=f"{config.classes[0]} or {config.classes[1]}: {config.dataset}, {config.epochs:g} epochs",
        references=references,
        baselines={line["net"]: report.interval_of(line, "accuracy") for line in null},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
