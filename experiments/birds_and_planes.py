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
import functools
import pathlib
import time
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data
from experiments.command import parse
from experiments.settings import Source

Name = Literal[
    "linear",
    "mlp",
    "mlp_deep",
    "net",
    "net_local",
    "l2",
    "wide",
    "dropout",
    "batch_norm",
    "depth",
    "residual",
    "deep_tied",
    "deep_untied",
]
LARGEST, LINEAR, NET = "largest class", "linear classifier", "Net"
PYTORCH_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
L2 = 1e-3  # times the sum of all squared parameters, added to the loss: a gradient of twice as much times the parameter
BOOK_SECONDS = 172.7  # of training Net, on its authors' CPU


COLUMNS = ("net", "weights", "multiply_adds", "train_accuracy", "book_train", "accuracy", "book", "seconds", "book_seconds")


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


SMOKE = Config(data="digits", classes=("0", "1"), nets=("linear", "l2", "deep_tied"), deep_blocks=2, epochs=1, seeds=1)


def dataset(config: Config) -> str:
    """Name the data set, without the folder or archive it comes from."""
    return pathlib.Path(config.data).stem


class Network(NamedTuple):
    """A network of the book: how it is called, how it is built, how it is trained, and what the book prints of it."""

    label: str
    build: Callable[..., nnx.Module]
    learning_rate: float
    train: float | None = None
    test: float | None = None
    l2: float = 0.0


def networks(config: Config, image_shape: tuple[int, ...]) -> dict[str, Network]:
    """All networks by name, with the accuracies that the book prints, in chapter 7 (perceptrons) and section 8.5."""
    mlp, net, deep = (
        functools.partial(kind, image_shape, 2, kernel_init=PYTORCH_INIT)
        for kind in (cl.models.MLP, cl.models.Net, cl.models.NetDeep)
    )
    mlp, wide = functools.partial(mlp, activation=nnx.tanh), functools.partial(net, width=32)
    deeper = functools.partial(wide, depth=3, activation=nnx.relu)
    blocks, rate, slow = config.deep_blocks, config.learning_rate, config.deep_learning_rate
    tied, untied = (functools.partial(deep, blocks=blocks, tied=tied) for tied in (True, False))
    return {
        "linear": Network(LINEAR, functools.partial(mlp, features=()), rate / 10),
        "mlp": Network("MLP 512", functools.partial(mlp, features=(512,)), rate, test=0.82),
        "mlp_deep": Network("MLP 1024-512-128", functools.partial(mlp, features=(1024, 512, 128)), rate, test=0.80),
        "net": Network(NET, net, rate, 0.93, 0.89),
        "net_local": Network("Net, locally connected", functools.partial(net, connectivity="locally_connected"), rate),
        "l2": Network("Net, L2", net, rate, test=0.87, l2=L2),
        "wide": Network("Net, wide", wide, rate, test=0.90),
        "dropout": Network("wide, dropout", functools.partial(wide, dropout=0.4), rate, test=0.88),
        "batch_norm": Network("wide, batch norm", functools.partial(wide, batch_norm=True), rate, test=0.89),
        "depth": Network("wide, three layers", deeper, rate, test=0.90),
        "residual": Network("wide, residual", functools.partial(deeper, residual=True), rate, test=0.90),
        "deep_tied": Network(f"{blocks} blocks, tied", tied, slow, test=0.86 if blocks == 100 else None),
        "deep_untied": Network(f"{blocks} blocks, untied", untied, slow),
    }


def train(config: Config, data: Data, network: Network) -> list[dict[str, Any]]:
    """One row per seed."""
    training = cl.Config(
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer="sgd",
        learning_rate=network.learning_rate,
        schedule="constant",
        evaluations=1,
        progress=False,
    )
    optimizer = None
    if network.l2:
        optimizer = optax.chain(optax.add_decayed_weights(2 * network.l2), optax.sgd(network.learning_rate))
    printed = network if config.classes == Config.classes else network._replace(train=None, test=None)
    rows = []
    for seed in range(config.seeds):
        model = network.build(rngs=nnx.Rngs(seed))
        folder = pathlib.Path(config.root, "birds_and_planes_runs", dataset(config), f"{network.label} {seed}")
        fitted = cl.fit(
            model,
            data,
            dataclasses.replace(training, seed=seed),
            optimizer=optimizer,
            checkpoints=cl.Checkpoints(folder, keep=1),
        )
        cost = cl.count(model, data.image_shape).total
        last = fitted.history[-1]
        rows.append(
            {
                "net": network.label,
                "weights": cost.weights,
                "multiply_adds": cost.multiply_adds,
                "seed": seed,
                "train_accuracy": fitted.evaluate(np.asarray(data.train.images), data.train.labels)["accuracy"],
                "book_train": printed.train,
                "accuracy": last["test_accuracy"],
                "book": printed.test,
                "seconds": last["seconds"],
                "book_seconds": BOOK_SECONDS if printed.train else None,
            }
        )
        print(f"{network.label}, seed {seed}: {last['test_accuracy']:.1%} in {last['seconds']:.0f} s", flush=True)
    return rows


def run(config: Config) -> list[dict[str, Any]]:
    """One row per network and seed, and one for the largest class."""
    data = config.load()
    data = data.relabel({name: name for name in config.classes})
    largest = np.bincount(data.train.labels).argmax()
    shares = {
        name: float((split.labels == largest).mean())
        for name, split in (("train_accuracy", data.train), ("accuracy", data.test))
    }
    rows: list[dict[str, Any]] = [{"net": LARGEST, "weights": 0, "multiply_adds": 0, "seed": 0, **shares}]
    table = networks(config, data.image_shape)
    return rows + [row for name in config.nets for row in train(config, data, table[name])]


def above_net(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each network has above Net seed by seed, by its name, and the chance of that; nothing where Net was not run."""
    trained = [row for row in rows if row["net"] != LARGEST]
    if NET not in {row["net"] for row in trained}:
        return {}
    ends = ("", "_low", "_high")
    return {
        line["net"]: {f"gain{end}": line[f"accuracy_difference{end}"] for end in ends} | {"p": line["accuracy_p_holm"]}
        for line in report.paired(trained, "net", {"net": NET}, "accuracy")
    }


def draw(summary: list[dict[str, Any]], config: Config) -> Any:
    """Test accuracy of every network, the book's figures beside it, and the null baselines."""
    figure, [axis] = report.new_figure(size=(13.0, 6.5))
    null = [row for row in summary if row["net"] in (LARGEST, LINEAR)]
    report.comparison(
        axis,
        [row for row in summary if row not in null] or null,
        "net",
        "accuracy",
        label="here, 95 % interval",
        x_label="accuracy on test images",
        x_format=".0%",
        title=f"{config.classes[0]} or {config.classes[1]}: {dataset(config)}, {config.epochs:g} epochs",
        references={"the book, one run": "book"},
        baselines={row["net"]: report.interval_of(row, "accuracy") for row in null},
    )
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    constant = ["net", "weights", "multiply_adds", "book_train", "book", "book_seconds"]
    bounds = {"train_accuracy": report.SHARE, "accuracy": report.SHARE, "seconds": report.POSITIVE}
    summary = report.summarise(rows, constant, list(bounds), bounds=bounds)
    columns = [*COLUMNS, *(f"{name}_{end}" for name in ("train_accuracy", "accuracy") for end in ("low", "high")), "seeds"]
    gains = above_net(rows)
    summary = [{name: row[name] for name in columns} | gains.get(row["net"], {}) for row in summary]
    formats = {"train_accuracy": ".1%", "accuracy": ".1%", "book_train": ".0%", "book": ".0%", "seconds": ".0f"}
    report.save_report(
        "birds_and_planes",
        rows,
        config,
        figure=draw(summary, config),
        summary=summary,
        formats=formats | ({"gain": "+.1%"} if gains else {}),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
