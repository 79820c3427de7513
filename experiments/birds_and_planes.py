"""Which of a book's networks tells birds from planes, and what would its convolution do without shared weights?

The two-class task of *Deep Learning with PyTorch* (Stevens, Antiga and Viehmann 2020): 10,000 training and 2,000 test images
of CIFAR-10, the perceptrons of its chapter 7, the networks of its chapter 8, all by its recipe (cross entropy, plain SGD in
batches of 64, rate 1e-2 and 3e-3 for the deep ones, 100 epochs), and one that it does not have: Net with a kernel of its own
at every position. The book's figures stand beside ours; it trained each network once, and looked at the same 2,000 images
whenever it chose. Null baselines: the share of the largest class, and a linear classifier, at a tenth of the rate, as at
the full one its accuracy jumps by 20 points from one epoch to the next.

Kernels start as PyTorch's do: uniform up to 1/sqrt(fan-in), the fan-in being that of one window at every rung. Ours are the
biases, which start at zero (PyTorch draws them likewise); pixels standardised by the moments of these two classes (the book's
are of all ten), so that zero padding around an image is the mean grey of the training images; an order of images in which the
last batch of an epoch goes on into the next; and blocks that are 10, not 100, where --deep-blocks does not say otherwise.

Answer: its convolution does, with the accuracy that it prints (89 %). Without shared weights the same network learns all
training images and gets 1.9 points less on the others, seed by seed [-0.2, 4.0]: three seeds do not show a difference. Nor do
they for width, depth, dropout and residuals, which stay within a point of Net; a linear classifier is already at 80 %. Ten
blocks reach 90 % with weights of their own, and 71 % as one block applied ten times: its batch norm has one running mean for
ten depths, and with the statistics of the batch it is right 88 to 89 % of the time.

    python -m experiments.birds_and_planes                                  (cifar10 from its server)
    python -m experiments.birds_and_planes --data folder:PATH/cifar10.zip   (train/airplane/*.png and so on)
    python -m experiments.birds_and_planes --nets net net_local --seeds 1   (a part)

Each network and seed is saved below ROOT/birds_and_planes_runs: an interrupted run goes on where it was, and what is finished
is not trained again.
"""

import dataclasses
import pathlib
import typing
from typing import Any

import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data
from experiments.parts.book_networks import LINEAR, NET, Name, Network, networks
from experiments.shared.command import Rows, main
from experiments.shared.settings import Source

LARGEST = "largest class"
SGD: dict[str, Any] = {"optimizer": "sgd", "schedule": "constant", "evaluations": 1, "progress": False}
BOOK_SECONDS = 172.7  # of training Net, on its authors' CPU
BOUNDS = {"train_accuracy": report.SHARE, "accuracy": report.SHARE, "seconds": report.POSITIVE}
COLUMNS = ("net", "weights", "multiply_adds", "train_accuracy", "book_train", "accuracy", "book", "seconds", "book_seconds")
ENDS = ("train_accuracy_low", "train_accuracy_high", "accuracy_low", "accuracy_high", "seeds")
FORMATS = {"train_accuracy": ".1%", "accuracy": ".1%", "book_train": ".0%", "book": ".0%", "seconds": ".0f", "gain": "+.1%"}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      classes: The two that are told apart.
      nets: Which networks.
      deep_blocks: Of the deep networks; the book has 100.
      epochs: Passes over the training images.
      seeds: Runs with other initial weights, orders and dropout.
      batch_size: Images a step.
      learning_rate: Of SGD, constant.
      deep_learning_rate: Of the deep networks.
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

    @property
    def dataset(self) -> str:
        """The data set's name, without the folder or archive it comes from."""
        return pathlib.Path(self.data).stem


SMOKE = Config(data="digits", classes=("0", "1"), nets=("linear", "l2", "deep_tied"), deep_blocks=2, epochs=1, seeds=1)


def train(config: Config, data: Data, network: Network) -> Rows:
    """One row per seed."""
    options = {"epochs": config.epochs, "batch_size": config.batch_size, "learning_rate": network.learning_rate}
    printed = network if config.classes == Config.classes else network._replace(train=None, test=None)
    rows = []
    for seed in range(config.seeds):
        model = network.build(rngs=nnx.Rngs(seed))
        folder = pathlib.Path(config.root, "birds_and_planes_runs", config.dataset, f"{network.label} {seed}")
        training = cl.Config(**SGD, **options, seed=seed)
        fitted = cl.fit(model, data, training, optimizer=network.optimizer, checkpoints=cl.Checkpoints(folder, keep=1))
        cost, last = cl.count(model, data.image_shape).total, fitted.history[-1]
        row = {"net": network.label, "weights": cost.weights, "multiply_adds": cost.multiply_adds, "seed": seed}
        learnt = fitted.evaluate(np.asarray(data.train.images), data.train.labels)["accuracy"]
        row |= {"train_accuracy": learnt, "book_train": printed.train, "accuracy": last["test_accuracy"], "book": printed.test}
        rows.append(row | {"seconds": last["seconds"], "book_seconds": BOOK_SECONDS if printed.train else None})
        print(f"{network.label}, seed {seed}: {last['test_accuracy']:.1%} in {last['seconds']:.0f} s", flush=True)
    return rows


def run(config: Config) -> Rows:
    """One row per network and seed, and one for the largest class."""
    data = config.load().relabel({name: name for name in config.classes})
    largest = np.bincount(data.train.labels).argmax()
    splits = {"train_accuracy": data.train, "accuracy": data.test}
    shares = {name: float((split.labels == largest).mean()) for name, split in splits.items()}
    rows: Rows = [{"net": LARGEST, "weights": 0, "multiply_adds": 0, "seed": 0, **shares}]
    known = networks(data.image_shape, config.deep_blocks, config.learning_rate, config.deep_learning_rate)
    return rows + [row for name in config.nets for row in train(config, data, known[name])]


def table(rows: Rows, config: Config) -> Rows:
    """The mean over seeds, beside what the book prints; and what a network has above Net, seed by seed, if Net was run."""
    constant = ["net", "weights", "multiply_adds", "book_train", "book", "book_seconds"]
    lines = report.summarise(rows, constant, list(BOUNDS), bounds=BOUNDS)
    gains: dict[str, dict[str, Any]] = {}
    if NET in {row["net"] for row in rows}:
        for line in report.paired([row for row in rows if row["net"] != LARGEST], "net", {"net": NET}, "accuracy"):
            gains[line["net"]] = {f"gain{end}": line[f"accuracy_difference{end}"] for end in ("", "_low", "_high")}
            gains[line["net"]]["p"] = line["accuracy_p_holm"]
    return [{name: line[name] for name in (*COLUMNS, *ENDS)} | gains.get(line["net"], {}) for line in lines]


def draw(rows: Rows, config: Config) -> Any:
    """Test accuracy of every network, the book's figures beside it, and the null baselines."""
    lines = table(rows, config)
    figure, [axis] = report.new_figure(size=(13.0, 6.5))
    null = [line for line in lines if line["net"] in (LARGEST, LINEAR)]
    report.comparison(
        axis,
        [line for line in lines if line not in null] or null,
        "net",
        "accuracy",
        label="here, 95 % interval",
        x_label="accuracy on test images",
        x_format=".0%",
        title=f"{config.classes[0]} or {config.classes[1]}: {config.dataset}, {config.epochs:g} epochs",
        references={"the book, one run": "book"},
        baselines={line["net"]: report.interval_of(line, "accuracy") for line in null},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
