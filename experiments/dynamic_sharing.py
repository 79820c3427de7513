"""How often must kernels be made equal for a local network to be as accurate as a convolution?

A brain cannot copy weights from position to position at every step, but perhaps now and then. LeNet starts as a convolution,
every position learns separately, and at every m-th update all kernels are replaced by their mean. The accuracy is measured just
before such a projection (as trained) and just after it, against m. So is the similarity of the kernels before it, as Pogodin's
signal-to-noise ratio of the weights. Baselines: the convolution, the network that is never projected, the same with kernels
that start independent, and a linear classifier.

Projecting at every update is SGD on the convolution with the mean of the gradients in place of their sum. The learning rate is
in effect divided by n, the number of positions at which a tap is live. The learning rates of spatial arrays are therefore
multiplied by n to a power. With power 0 this is plain SGD. With power 1 the network projected at every update is the
convolution trained without projections, up to rounding. Each m has the power with the best mean accuracy on validation images,
of the network as trained. LeNet has no batch norm here, because its statistics would be those of the networks before a
projection.

Answer: more projections are better. Only the network projected at every update is not shown to differ from the convolution (0.6
points below [-3.3, 4.6], five seeds). The gain needs the larger learning rates of summed gradients. The rarer the projections,
the smaller the learning rates that the network tolerates. At the learning rates of plain SGD the period makes little
difference. Starting as a convolution helps even if nothing is ever projected.

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
from experiments.shared.progress import track
from experiments.shared.settings import Source, styles

CHOICE = ("network", "period")  # the columns for whose values one power is chosen
LAYERS = styles({"signal to noise 1": "conv", "signal to noise 2": "tiled"})
FORMATS: dict[str, str] = dict.fromkeys(("validation_accuracy", "accuracy", "projected_accuracy"), ".1%")


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      margin: The number of empty pixels added around every image. LeNet needs 12 pixels along each axis.
      size: The number of training images.
      validation: The share of the training images that is held out to choose the power.
      periods: The numbers of updates from one projection to the next. A period as long as the run, which never projects, is
        added.
      powers: The powers of the number of live positions that multiply the learning rates of spatial arrays.
      seeds: The number of runs, each with its own initial weights, subset and batch order.
      steps: The number of steps plus one: the run ends just before this update. Every period should divide it.
      batch_size: The number of images per step.
      learning_rate: The constant learning rate of SGD.
      momentum: The momentum of SGD.
    """

    data: str = "mnist1d"
    margin: int = 0
    size: int = 1000
    validation: float = 0.25
    periods: tuple[int, ...] = (1, 10, 100, 1000)
    powers: tuple[float, ...] = (0.0, 0.5, 1.0)
    seeds: int = 3
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 0.03
    momentum: float = 0.9

    @property
    def name(self) -> str:
        """The name of the report."""
        return "dynamic_sharing" if self.data in (Config.data, SMOKE.data) else f"dynamic_sharing_{self.dataset}"


SMOKE = Config(data="digits", margin=2, size=100, periods=(), powers=(0.0,), seeds=1, steps=3)


def run(config: Config) -> Rows:
    """Return one row per network, period, power and seed."""
    dataset = config.load()
    space = tuple(n + 2 * config.margin for n in dataset.image_shape[:-1])
    dataset = dataset.map(functools.partial(data.centre_on_canvas, space=space))
    shape, classes = dataset.image_shape, len(dataset.classes)
    first = build(SHARED, shape, classes, 0)
    projection, never = jax.jit(optim.sharing_projection(first)), config.steps
    sgd = optax.sgd(config.learning_rate, momentum=config.momentum)
    optimizers = {period: optimizer(sgd, first, period) for period in (*config.periods, never)}
    kinds = [(LINEAR, None, 0.0), (CONV, None, 0.0), *itertools.product([APART], [never], config.powers)]
    kinds += itertools.product([SHARED], optimizers, config.powers)
    rows = []
    for (name, period, power), seed in track(itertools.product(kinds, range(config.seeds)), "networks"):
        images = dataset.hold_out(config.validation, seed).subset(config.size, seed)
        training = cl.Config(steps=config.steps - 1, batch_size=config.batch_size, seed=seed, evaluations=1, progress=False)
        network = build(name, shape, classes, seed)
        options: dict[str, Any] = {"optimizer": sgd}
        if period is not None:
            options = {"optimizer": optimizers[period], "optimizer_state": with_power(optimizers[period], network, power)}
            options["parameter_metrics"] = measure.locality_metrics(network, "signal_to_noise")
        row = {"network": name, "period": period, "power": power, "seed": seed}
        rows.append(row | trained(network, images, training, options, period=period, projection=projection))
    return rows


def averaged(rows: Rows) -> Rows:
    """Average all scores over the seeds."""
    return report.summarise(rows, [*CHOICE, "power"], [*FORMATS, *NOISE], bounds=dict.fromkeys(FORMATS, report.SHARE))


def table(rows: Rows, config: Config) -> Rows:
    """Return the averages of the best power for every network and period."""
    return report.best_rows(averaged(rows), CHOICE, "validation_accuracy")


def panel(axis: Any, lines: dict[str, tuple[Rows, str]], config: Config, **words: Any) -> None:
    """Draw the projected networks against the period.

    `lines` holds, by the name of each line, its rows and the column to draw.
    """
    x_of_period = {**{period: period for period in config.periods}, config.steps: 10 * max(config.periods, default=1)}
    points = [
        {"line": line, "place": x_of_period[row["period"]]} | {f"y{end}": row[f"{name}{end}"] for end in ("", "_low", "_high")}
        for line, (rows, name) in lines.items()
        for row in rows
        if row["network"] == SHARED
    ]
    x_label = "updates from one projection to the next"
    report.curves(axis, points, "place", "y", "line", x_label=x_label, log_x=True, **words)
    axis.set_xticks(list(x_of_period.values()), [*(f"{period:,}" for period in config.periods), "never"])


def draw(rows: Rows, config: Config) -> Any:
    """Draw accuracies around a projection and the similarity of kernels before it, by period."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    chosen, plain = table(rows, config), [row for row in averaged(rows) if row["power"] == 0]
    left = {"accuracy": (chosen, "accuracy"), "projected accuracy": (chosen, "projected_accuracy")}
    left["accuracy, power 0"] = plain, "accuracy"
    others = {f"_{row['network']}": report.interval_of(row, "accuracy") for row in chosen if row["network"] != SHARED}
    y_label, title = f"accuracy on {config.dataset}, 95 % interval", f"LeNet on {config.size:,} training images"
    panel(axes[0], left, config, y_label=y_label, y_format=".0%", baselines=others, title=title)
    equal = {line: (chosen, name) for line, name in zip(LAYERS, NOISE, strict=True)}
    [apart] = [row for row in chosen if row["network"] == APART]
    starts = {f"_{APART}: {line[-1]}": report.interval_of(apart, name) for line, (_, name) in equal.items()}
    words: dict[str, Any] = {
        "y_label": "signal to noise of weights, log10",
        "title": "how equal kernels are before a projection",
    }
    panel(axes[1], equal, config, baselines=starts, styles=LAYERS, **words)
    axes[1].set_xlim(axes[0].get_xlim())
    for axis, lines in zip(axes, (others, starts), strict=True):
        lowest = min(line.mean for line in lines.values())
        for label, line in lines.items():
            side = "top" if axis is axes[1] and line.mean == lowest else "bottom"
            axis.text(0.13, line.mean, label[1:], transform=axis.get_yaxis_transform(), color="0.3", size=13, va=side)
    axes[1].margins(y=0.12)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
