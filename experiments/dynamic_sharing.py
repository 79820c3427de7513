"""How often must the kernels of a locally connected network be made equal, for it to be worth a convolution?

A brain cannot copy weights from place to place at every step, but perhaps now and then. LeNet starts as a convolution, every
position learns on its own, and at every m-th update all kernels become their mean. Scored just before a projection (as
trained) and just after it, against m; beside it how equal the kernels still are before it: Pogodin's signal-to-noise ratio
of the weights. Baselines: the convolution, the network that is never projected, the same with kernels that start apart, and
a linear classifier.

Projecting at every update is SGD on the convolution, at a rate that is divided by n, the number of positions at which a tap
is live: the mean of gradients, not their sum. So rates of spatial arrays are multiplied by n to a power: 0 is plain SGD, and
with 1 the network projected at every update is the convolution trained beside it, up to rounding. Each m has the power of the
best mean accuracy on validation images, of the network as trained. LeNet has no batch norm here, whose statistics would be
of the networks before a projection.

Answer: the more often the better, and not told from the convolution only at every update (0.6 points below [-3.3, 4.6], five
seeds). The gain needs the larger rates that go with sums, and the rarer the projections, the smaller the rates that the
network bears; at the rates of plain SGD the period makes little difference. Starting as a convolution is worth something by
itself, even if nothing is ever projected.

    python -m experiments.dynamic_sharing --seeds 5                         (9 minutes on 2 busy cores, 3 of processor time)
    python -m experiments.dynamic_sharing --data fashion_mnist --manual-dir DIR --powers 0 0.25 0.5

Reference: Pogodin, Mehta, Lillicrap and Latham 2021, Towards biologically plausible convolutional networks.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import optax

import convlab as cl
from convlab import data, measure, optim, report
from experiments.parts.periodic_sharing import APART, CONV, LINEAR, NOISE, SHARED, build, optimizer, trained, with_power
from experiments.shared.command import Rows, main
from experiments.shared.settings import Source, styles

CHOICE = ("network", "every")  # each of them has one power
LAYERS = styles({"first layer": "conv", "second layer": "tiled"})
FORMATS: dict[str, str] = dict.fromkeys(("validation_accuracy", "accuracy", "projected_accuracy"), ".1%")


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """What is run.

    Args:
      margin: Empty pixels added around every image; LeNet needs 12 along each axis.
      size: Number of training images.
      validation: Share of all training images that rates are chosen by.
      every: Numbers of updates from one projection to the next; one as long as the run, so never before its end, is added.
      powers: To which the number of live positions is taken, in the rates of spatial arrays.
      seeds: Runs with other initial weights, subsets and orders.
      steps: The run ends one update before this one, which every period should divide.
      batch_size: Images a step.
      learning_rate: Of SGD, constant.
      momentum: Of SGD.
    """

    data: str = "mnist1d"
    margin: int = 0
    size: int = 1000
    validation: float = 0.25
    every: tuple[int, ...] = (1, 10, 100, 1000)
    powers: tuple[float, ...] = (0.0, 0.5, 1.0)
    seeds: int = 3
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 0.03
    momentum: float = 0.9

    @property
    def name(self) -> str:
        """The name of the report."""
        return "dynamic_sharing" if self.data in (Config.data, SMOKE.data) else f"dynamic_sharing_{self.data}"


SMOKE = Config(data="digits", margin=2, size=100, every=(), powers=(0.0,), seeds=1, steps=3)


def run(config: Config) -> Rows:
    """One row per network, period, power and seed."""
    plain = config.load()
    space = tuple(n + 2 * config.margin for n in plain.image_shape[:-1])
    plain = plain.map(functools.partial(data.embed, space=space))
    shape, classes = plain.image_shape, len(plain.classes)
    first = build(SHARED, shape, classes, 0)
    projection, never = jax.jit(optim.sharing_projection(first)), config.steps
    sgd = optax.sgd(config.learning_rate, momentum=config.momentum)
    optimizers = {every: optimizer(sgd, first, every) for every in (*config.every, never)}
    kinds = [(LINEAR, None, 0.0), (CONV, None, 0.0), *itertools.product([APART], [never], config.powers)]
    kinds += itertools.product([SHARED], optimizers, config.powers)
    rows = []
    for (name, every, power), seed in itertools.product(kinds, range(config.seeds)):
        images = plain.hold_out(config.validation, seed).subset(config.size, seed)
        training = cl.Config(steps=config.steps - 1, batch_size=config.batch_size, seed=seed, evaluations=1, progress=False)
        network = build(name, shape, classes, seed)
        rule: dict[str, Any] = {"optimizer": sgd}
        if every is not None:
            rule = {"optimizer": optimizers[every], "optimizer_state": with_power(optimizers[every], network, power)}
            rule["watch"] = measure.index_metrics(network, "signal_to_noise")
        row = {"network": name, "every": every, "power": power, "seed": seed}
        rows.append(row | trained(network, images, training, rule, every=every, projection=projection))
    return rows


def averaged(rows: Rows) -> Rows:
    """All scores, in the mean over the seeds."""
    return report.summarise(rows, [*CHOICE, "power"], [*FORMATS, *NOISE], bounds=dict.fromkeys(FORMATS, report.SHARE))


def table(rows: Rows, config: Config) -> Rows:
    """The same of the best power for every network and period."""
    return report.best(averaged(rows), CHOICE, "validation_accuracy")


def panel(axis: Any, lines: dict[str, tuple[Rows, str]], config: Config, **words: Any) -> None:
    """Draw the projected networks against the period: for every line of the figure its rows, and the name of its value."""
    places = {**{every: every for every in config.every}, config.steps: 10 * max(config.every, default=1)}
    points = [
        {"line": line, "place": places[row["every"]]} | {f"y{end}": row[f"{name}{end}"] for end in ("", "_low", "_high")}
        for line, (rows, name) in lines.items()
        for row in rows
        if row["network"] == SHARED
    ]
    x_label = "updates from one projection to the next"
    report.curves(axis, points, "place", "y", "line", x_label=x_label, log_x=True, **words)
    axis.set_xticks(list(places.values()), [*(f"{every:,}" for every in config.every), "never"])


def draw(rows: Rows, config: Config) -> Any:
    """Accuracy just before and just after a projection, and how equal kernels are before it, against the period."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    chosen, plain = table(rows, config), [row for row in averaged(rows) if row["power"] == 0]
    right = {"before a projection": (chosen, "accuracy"), "after it": (chosen, "projected_accuracy")}
    right["before, rates of plain SGD"] = plain, "accuracy"
    others = {row["network"]: report.interval_of(row, "accuracy") for row in chosen if row["network"] != SHARED}
    y_label = f"accuracy on {config.data}, 95 % interval"
    panel(axes[0], right, config, y_label=y_label, y_format=".0%", baselines=others)
    equal = {line: (chosen, name) for line, name in zip(LAYERS, NOISE, strict=True)}
    [apart] = [row for row in chosen if row["network"] == APART]
    starts = {f"start apart, {line}": report.interval_of(apart, name) for line, (_, name) in equal.items()}
    panel(axes[1], equal, config, y_label="signal to noise of weights, log10", baselines=starts, styles=LAYERS)
    axes[1].set_xlim(axes[0].get_xlim())
    axes[0].set_title(f"LeNet on {config.size:,} training images")
    axes[1].set_title("how equal kernels are before it")
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
