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
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import data, measure, optim, report
from convlab.layers import spatial
from experiments.command import parse
from experiments.settings import Source

LINEAR, CONV, APART, SHARED = "linear classifier", "convolution", "never projected, start apart", "projected"
NOISE = ("signal_to_noise_1", "signal_to_noise_2")  # of both layers, as decimal logarithms: they span orders of magnitude
CHOICE = ("network", "every")  # each of them has one power
SHOWN = ("accuracy", "projected_accuracy", *NOISE)


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


SMOKE = Config(data="digits", margin=2, size=100, every=(), powers=(0.0,), seeds=1, steps=3)


def by_positions(power: Any, network: nnx.Module) -> optax.GradientTransformation:
    """Multiply the gradients of spatial arrays by a power of the number of positions at which each tap, or bias, is live."""
    changes = {}
    for path, layer in spatial(network).items():
        if layer.layout.space is not None:
            space, positions = layer.layout.space, layer.layout.positions
            live = layer.layout.window.live(space).sum(tuple(range(len(space))))
            for name, many in (("kernel", live[..., None, None]), ("bias", math.prod(positions))):
                changes[*path, name] = functools.partial(jnp.multiply, jnp.asarray(many, jnp.float32) ** power)
    return optax.stateless(lambda updates, _: optim.at_paths(changes)(updates))


def optimizer(config: Config, network: nnx.Module, every: int) -> optax.GradientTransformation:
    """Scale the gradients, take a step of SGD, project. The power stands in the state, where it can be set."""
    scaled = optax.inject_hyperparams(by_positions, static_args="network")(1.0, network)
    sgd = optax.sgd(config.learning_rate, momentum=config.momentum)
    return optax.chain(scaled, sgd, optim.project_every(optim.sharing(network), every))


def with_power(optimizer: optax.GradientTransformation, network: nnx.Module, power: float) -> optax.OptState:
    """What the optimizer is to remember at the start."""
    return optax.tree.set(optimizer.init(nnx.to_pure_dict(nnx.state(network, nnx.Param))), power=np.float32(power))


def build(kind: str, image_shape: tuple[int, ...], classes: int, seed: int) -> nnx.Module:
    """A network of the comparison; the projected one starts as the same function as the convolution."""
    if kind == LINEAR:
        return cl.models.MLP(image_shape, classes, (), rngs=nnx.Rngs(seed))
    rung = "locally_connected" if kind == APART else "conv"
    leaky = nnx.leaky_relu  # none of its units dies, which would be shared for ever
    lenet = cl.models.LeNet(image_shape, classes, activation=leaky, connectivity=rung, rngs=nnx.Rngs(seed))
    return cl.relax(lenet, "locally_connected", image_shape) if kind == SHARED else lenet


def scores(fitted: cl.Fitted, every: int | None, projection: Callable, test: data.Split) -> dict[str, Any]:
    """Of a network as trained; if it is projected, also after that; if not at every update, also how equal kernels were."""
    last = fitted.history[-1]
    told = {"validation_accuracy": last["validation_accuracy"], "accuracy": last["test_accuracy"]}
    if every is not None:
        projected = dataclasses.replace(fitted, parameters=projection(fitted.parameters))
        told["projected_accuracy"] = projected.evaluate(np.asarray(test.images), test.labels)["accuracy"]
    if every not in (None, 1):
        ratios = [last[f"stages/{number}/layer/signal_to_noise"] for number in range(len(NOISE))]
        told |= {name: math.log10(ratio) for name, ratio in zip(NOISE, ratios, strict=True)}
    return told


def run(config: Config) -> list[dict[str, Any]]:
    """One row per network, period, power and seed."""
    plain = config.load()
    space = tuple(n + 2 * config.margin for n in plain.image_shape[:-1])
    plain = plain.map(functools.partial(data.embed, space=space))
    shape, classes = plain.image_shape, len(plain.classes)
    first = build(SHARED, shape, classes, 0)
    projection, never = jax.jit(optim.sharing(first)), config.steps
    optimizers = {every: optimizer(config, first, every) for every in (*config.every, never)}
    sgd = optax.sgd(config.learning_rate, momentum=config.momentum)
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
            rule["watch"] = measure.watch_indices(network, "signal_to_noise")
        row: dict[str, Any] = {"network": name, "every": every, "power": power, "seed": seed}
        try:
            rows.append(row | scores(cl.fit(network, images, training, **rule), every, projection, images.test))
        except FloatingPointError:  # a rate that is too large
            absent = {1: NOISE, None: SHOWN[1:]}.get(every, ())
            rows.append(row | {name: math.nan for name in ("validation_accuracy", *SHOWN) if name not in absent})
    return rows


def draw(summary: list[dict[str, Any]], config: Config) -> Any:
    """Accuracy just before and just after a projection, and how equal kernels are before it, against the period."""
    figure, axes = report.new_figure(2, size=(13.0, 6.0))
    chosen = report.best(summary, CHOICE, "validation_accuracy")
    plain = [row for row in summary if row["power"] == 0]
    baselines = {row["network"]: report.interval_of(row, "accuracy") for row in chosen if row["network"] != SHARED}
    apart = [row for row in chosen if row["network"] == APART]
    colours = dict(zip(("first layer", "second layer"), (report.RUNG_STYLE[rung] for rung in ("conv", "tiled")), strict=True))
    panels: list[tuple[dict[str, tuple[list[dict[str, Any]], str]], dict[str, Any]]] = [
        (
            {
                "before a projection": (chosen, "accuracy"),
                "after it": (chosen, "projected_accuracy"),
                "before, rates of plain SGD": (plain, "accuracy"),
            },
            {"y_label": f"accuracy on {config.data}, 95 % interval", "y_format": ".0%", "baselines": baselines},
        ),
        (
            {line: (chosen, name) for line, name in zip(colours, NOISE, strict=True)},
            {
                "y_label": "signal to noise of weights, log10",
                "baselines": {
                    f"start apart, {line}": report.interval_of(row, name)
                    for row in apart
                    for line, name in zip(colours, NOISE, strict=True)
                },
                "styles": {line: style._replace(label=line) for line, style in colours.items()},
            },
        ),
    ]
    places = {**{every: every for every in config.every}, config.steps: 10 * max(config.every, default=1)}
    for axis, (lines, words) in zip(axes, panels, strict=True):
        points = [
            {"line": line, "place": places[row["every"]]} | {f"y{end}": row[f"{name}{end}"] for end in ("", "_low", "_high")}
            for line, (rows, name) in lines.items()
            for row in rows
            if row["network"] == SHARED
        ]
        x_label = "updates from one projection to the next"
        report.curves(axis, points, "place", "y", "line", x_label=x_label, log_x=True, **words)
        axis.set_xticks(list(places.values()), [*(f"{every:,}" for every in config.every), "never"])
    axes[1].set_xlim(axes[0].get_xlim())
    axes[0].set_title(f"LeNet on {config.size:,} training images")
    axes[1].set_title("how equal kernels are before it")
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    values = ["validation_accuracy", *SHOWN]
    bounds = {name: report.SHARE for name in values if name not in NOISE}
    summary = report.summarise(rows, [*CHOICE, "power"], values, bounds=bounds)
    report.save_report(
        "dynamic_sharing" if config.data in (Config.data, SMOKE.data) else f"dynamic_sharing_{config.data}",
        rows,
        config,
        figure=draw(summary, config),
        summary=report.best(summary, CHOICE, "validation_accuracy"),
        formats=dict.fromkeys(("validation_accuracy", "accuracy", "projected_accuracy"), ".1%"),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
