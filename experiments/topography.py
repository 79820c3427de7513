"""Does a penalty that makes neighbouring units alike produce smooth maps of orientation?

The channels of a locally connected layer lie on a grid at every position, so that the layer is a sheet of units, as a piece of
cortex is. A penalty alpha times the mean of 1 - cos between the kernels of neighbouring units makes neighbours alike. Networks
with alpha 0, 1 and 10 are trained on images. Two controls are convolutions, whose kernels are the same at all positions, with
and without the penalty.

Gratings then measure the preferred orientation of every unit of the first layer. The roughness of a map is the mean angle
between the orientations of neighbouring units. It is 45 degrees for random orientations. Test images measure which class every
unit of the last layer prefers, and how many neighbours prefer different classes. The null models are the same maps with their
units shuffled.

    python -m experiments.topography                                                    (76 seconds on 2 busy cores)
    python -m experiments.topography --cifar --data folder:PATH/cifar10.zip             (9 minutes on 2 cores)
    python -m experiments.topography --full --data folder:PATH/cifar10.zip              (one GPU)

Reference: Lu et al. 2025, End-to-end topographic networks as models of cortical map formation and human visual behaviour.
"""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import convlab as cl
from convlab import optim, report
from convlab.data import Data
from experiments.parts.sheets import Sheets, class_sheet, first_sheet, read_map, smoothness, write_map
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once
from experiments.shared.settings import Recipe, above, with_p

LOCAL, CONV = "locally connected", "convolution"
CONNECTIVITY = {LOCAL: "locally_connected", CONV: "conv"}
REFERENCE = {"network": LOCAL, "alpha": 0.0}
ANGLES = ("roughness", "shuffled")  # in degrees
COUNTED = ("pinwheels", "shuffled_pinwheels")  # per 100 units
CHANGES = ("class_changes", "shuffled_class_changes")
BELOW = {"below_shuffled": ANGLES, "classes_below_shuffled": CHANGES}  # paired differences between a map and its null
SHARES = ("accuracy", "train_accuracy", "selectivity", "shared", *CHANGES)
BOUNDS: dict[str, tuple[float, float]] = dict.fromkeys(SHARES, report.SHARE)
BOUNDS |= dict.fromkeys(ANGLES, (0.0, 90.0)) | dict.fromkeys(COUNTED, (0.0, 100.0))
FORMATS = {"accuracy": ".1%", "train_accuracy": ".1%", "gain": "+.1%", "alpha": "g"}
FORMATS |= dict.fromkeys(ANGLES + COUNTED, ".1f") | dict.fromkeys(CHANGES, ".0%")
FORMATS |= {"below_shuffled": "+.1f", "classes_below_shuffled": "+.0%"}
PRINTED = (
    "network",
    "alpha",
    "accuracy",
    "gain",
    "p",
    "roughness",
    "below_shuffled",
    "class_changes",
    "classes_below_shuffled",
)


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """The settings of the experiment.

    Args:
      alphas: The weights of the penalty. The convolutions have the first and the last one.
      width: The number of channels of every layer, which lie on a grid at every position.
      taps: The number of taps of the first layer along each axis.
      strides: The strides of the first layer.
      size: The number of training images, drawn again for every seed.
      shuffles: The number of times that the units of a sheet are shuffled.
      learning_rate: The learning rate of Adam, which is constant.
    """

    alphas: tuple[float, ...] = (0.0, 1.0, 10.0)
    width: int = 16
    taps: int = 5
    strides: int = 1
    size: int = 1000
    shuffles: int = 1000
    epochs: int = 20
    learning_rate: float = 1e-3
    seeds: int = 3


SMOKE = Config(size=50, epochs=1, width=4, alphas=(1.0,), seeds=2, shuffles=5)
CIFAR = Config(data="cifar10", size=10_000, epochs=10, taps=9, strides=3)
FULL = dataclasses.replace(CIFAR, size=50_000, epochs=60, width=64, strides=1, seeds=5, batch_size=250)


class Case(NamedTuple):
    """One network to train: its kind, the weight of the penalty, and the seed."""

    network: str
    alpha: float
    seed: int


def cases(config: Config) -> list[Case]:
    """List the networks to train."""
    kinds = [(LOCAL, alpha) for alpha in config.alphas]
    kinds += [(CONV, alpha) for alpha in dict.fromkeys((config.alphas[0], config.alphas[-1]))]
    return [Case(*kind, seed) for kind in kinds for seed in range(config.seeds)]


def trained(data: Data, config: Config, case: Case) -> dict[str, Any]:
    """Train a network and return its row, with its maps if it is of the first seed."""
    subset = data.subset(config.size, case.seed)
    sizes = config.width, config.taps, config.strides
    model = Sheets(data.image_shape, len(data.classes), *sizes, CONNECTIVITY[case.network], case.seed)
    optimizer = optax.adam(config.learning_rate)
    if case.alpha:
        optimizer = optax.chain(optim.add_penalty(optim.neighbour_penalty(model, circular=True), case.alpha), optimizer)
    fitted = cl.fit(model, subset, config.recipe(case.seed), optimizer=optimizer)
    learnt = fitted.evaluate(subset.train.images, subset.train.labels)["accuracy"]
    model = fitted.model()
    orientations, selectivity = first_sheet(model, data.image_shape)
    classes = class_sheet(model, subset)
    return case._asdict() | {
        "accuracy": fitted.history[-1]["test_accuracy"],
        "train_accuracy": learnt,
        **smoothness(orientations, classes, jax.random.key(case.seed), config.shuffles),
        "selectivity": float(jnp.mean(selectivity)),
        "shared": cl.shares(model, data.image_shape)[0].shared,
        "orientation": None if case.seed else write_map(orientations, "orientation"),
        "class": None if case.seed else write_map(classes, "class"),
        "classes": None if case.seed else json.dumps(list(data.classes)),
    }


def run(config: Config) -> Rows:
    """Return one row per network, penalty and seed."""
    rows = at_once(functools.partial(trained, config.load(), config), cases(config), "networks")
    return above(rows, REFERENCE | {"alpha": config.alphas[0]})


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with paired differences between maps and shuffled units.

    The p-value is that of each accuracy against that without penalty, corrected.
    """
    by = ["network", "alpha"]
    rows = [row | {name: row[null] - row[value] for name, (value, null) in BELOW.items()} for row in rows]
    lines = report.summarise(rows, by, [*BOUNDS, "gain", *BELOW], bounds=BOUNDS)
    return with_p(lines, rows, by, REFERENCE | {"alpha": config.alphas[0]})


def draw(rows: Rows, config: Config) -> Any:
    """Draw the sheets of the locally connected networks of the first seed.

    Orientations of the first layer are above, classes of the last layer below.
    """
    lines = [line for line in table(rows, config) if line["network"] == LOCAL]
    first = [row for row in rows if row["network"] == LOCAL and row["seed"] == 0]
    columns = len(lines)
    figure, axes = report.new_figure(2 * columns, rows=2, size=(4.6 * columns + 1, 11.0))
    for at, (row, line) in enumerate(zip(first, lines, strict=True)):
        accuracy, last = report.interval_of(line, "accuracy"), at == columns - 1
        title = (
            f"\N{GREEK SMALL LETTER ALPHA} = {line['alpha']:g}\n"
            f"accuracy {accuracy.mean:.0%} [{accuracy.low:.0%}, {accuracy.high:.0%}]\n"
            f"neighbours {line['roughness']:.0f}\N{DEGREE SIGN} apart, shuffled {line['shuffled']:.0f}\N{DEGREE SIGN}"
        )
        label = "preferred orientation\nof the first layer's units"
        report.sheet(axes[at], read_map(row["orientation"], "orientation"), title, kind="orientation", label=label, bar=last)
        title = f"neighbours of another class\n{line['class_changes']:.0%}, shuffled {line['shuffled_class_changes']:.0%}"
        words: dict[str, Any] = {"label": "preferred class\nof the last layer's units", "classes": json.loads(row["classes"])}
        report.sheet(axes[columns + at], read_map(row["class"], "class"), title, kind="class", bar=last, **words)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, cifar=CIFAR, full=FULL)
