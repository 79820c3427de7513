"""How far apart may words stand that belong together, and does a network read further than it sees?

"Dog bites man" or "man bites dog": which of two nouns follows the verb, l words away, around a circle of words. Exchanging the
nouns leaves the bag of all windows of up to l words as it is (`convlab.tasks.distance`), so that circular convolutions with
global pooling must be at chance from where l reaches their receptive field, and can be right everywhere below: the field is
measured on the network. Kernels of their own at every place know where on the circle a noun stands, and dense layers see all,
but both have to learn every place by itself. Nulls: a bag of words, the same network with windows of one word; and, against the
number of texts, what knows the texts that it has seen and guesses at the others, as there are but a few hundred texts.

Answer: no. Convolutions with fields of 3, 5, 9 and 15 words are right in every text up to 2, 4, 8 and 14 words, and at chance
from 3, 5, 9 and 15 on. Kernels that are not shared do hardly better than a list of the texts that they saw.

    python -m experiments.text                              (4 minutes on 2 cores)

Reference: of the question, Zhang et al., Dive into Deep Learning, section 7.1, exercises (convolutions for text).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import measure, report, tasks
from convlab.models import MLP
from convlab.train import learner
from experiments.command import parse
from experiments.settings import at_once

BAG, LOCAL, DENSE = "bag of words", "locally connected", "dense"
LIST = "a list of the texts seen, and guesses"
# taps and dilation of each layer, by the words that they see together
STACKS = {1: ((1, 1),), 3: ((3, 1),), 5: ((3, 1), (3, 1)), 9: ((3, 1), (3, 3)), 15: ((3, 1), (3, 2), (3, 4))}
COLOURS = {1: "null", 3: "low_rank", 5: "tiled", 9: "conv", 15: "shared", LOCAL: "locally_connected", DENSE: "dense"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      stacks: Convolutions, by the words that they see: 1, 3, 5, 9 or 15.
      local: The stack that is also trained with kernels of their own at every place; 0: none, and no dense network.
      length: Words of a text.
      apart: l, words from the verb to each noun.
      vocabulary: Words there are, three of them marked.
      size: Training texts where l varies.
      sizes: Training texts of the stack `local`, as a convolution too, and of the dense network, `at` words apart.
      at: Words apart where the number of training texts varies.
      width: Channels of every layer, and twice as many units of the dense network.
      steps: Of training, at most; it stops at a mean loss of 0.01.
      learning_rate: Of Adam.
      dense_rate: That of the dense network, which larger steps keep from fitting.
      seeds: Runs with other texts and initial weights.
      root: Folder that the results go to.
    """

    stacks: tuple[int, ...] = tuple(STACKS)
    local: int = 5
    length: int = 48
    apart: tuple[int, ...] = (2, 3, 4, 5, 8, 9, 14, 15)
    vocabulary: int = 8
    size: int = 200
    sizes: tuple[int, ...] = (50, 100, 200, 400, 800, 1600)
    at: int = 4
    width: int = 32
    steps: int = 1000
    learning_rate: float = 1e-2
    dense_rate: float = 1e-3
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(stacks=(1,), local=0, length=9, apart=(1, 3), vocabulary=4, size=8, sizes=(), at=1, width=3, steps=10, seeds=2)
FULL = Config(sizes=(50, 100, 200, 400, 800, 1600, 3200, 6400), vocabulary=64, width=128, steps=4000, seeds=32)


class Reader(nnx.Module):
    """Layers around a circle, each with a ReLU, the mean over all places, and a linear read-out."""

    def __init__(self, stack: tuple[tuple[int, int], ...], config: Config, rung: str, rngs: nnx.Rngs):
        own: dict[str, Any]
        layer, own = (cl.Conv, {}) if rung == "conv" else (cl.LocallyConnected, {"space": (config.length,)})
        own |= {"padding": "CIRCULAR", "kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        channels = [config.vocabulary, *[config.width] * len(stack)]
        self.layers = nnx.List(
            layer(c, d, (taps,), kernel_dilation=dilation, **own)
            for c, d, (taps, dilation) in zip(channels[:-1], channels[1:], stack, strict=True)
        )
        self.head = nnx.Linear(config.width, 2, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        """What each place knows of the words around it."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.features(x).mean(-2))


class Network(NamedTuple):
    """One that is trained: what it is called, the words that a place sees, and whether the number of texts varies."""

    name: str
    sees: int
    build: Callable[[nnx.Rngs], nnx.Module]
    sweeps: bool


def networks(config: Config) -> Iterator[Network]:
    """All that are trained."""
    kinds = [("convolution, sees {} words" if stack > 1 else BAG, stack, "conv") for stack in config.stacks]
    kinds += [(f"{LOCAL}, sees {{}} words", config.local, "locally_connected")] if config.local else []
    for name, stack, rung in kinds:
        build = functools.partial(Reader, STACKS[stack], config, rung)
        sees = field(build(rngs=nnx.Rngs(0)), config)
        yield Network(name.format(sees), sees, build, stack == config.local)
    shape = (config.length, config.vocabulary)
    if config.local:
        yield Network(DENSE, config.length, lambda rngs: MLP(shape, 2, (2 * config.width,), rngs=rngs), True)


def field(model: Reader, config: Config) -> int:
    """Words from the first to the last that one place sees, followed through the network."""
    seen = measure.receptive_field(model.features, (config.length, config.vocabulary))
    return int(np.ptp(np.flatnonzero(seen))) + 1


def run(config: Config) -> list[dict[str, Any]]:
    """One row per network, distance, number of training texts and seed."""
    return [row for rows in at_once(functools.partial(trained, config), networks(config)) for row in rows]


def trained(config: Config, network: Network) -> list[dict[str, Any]]:
    """One row per distance, number of training texts and seed; all are trained together."""

    def sample(key: jax.Array, n: int, apart: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tasks.distance(config.length, apart, config.vocabulary).sample(key, n)

    cases = [(apart, config.size) for apart in config.apart]
    cases += [(config.at, size) for size in config.sizes if network.sweeps and (config.at, size) not in cases]
    apart, size, seed = np.array([(*case, seed) for case in cases for seed in range(config.seeds)]).T
    optimizer = optax.adam(config.dense_rate if network.name == DENSE else config.learning_rate)
    learn = learner(network.build, sample, size.max(), test=1000, steps=config.steps, batch_size=32, optimizer=optimizer)
    told = {"network": network.name, "sees": network.sees}
    accuracies = learn(size, seed, apart)
    print(*told.values(), *(f"{accuracy:.1%}" for accuracy in accuracies.reshape(-1, config.seeds).mean(1)), flush=True)
    return [
        told | dict(zip(("apart", "size", "seed"), numbers, strict=True)) | {"accuracy": accuracy}
        for *numbers, accuracy in zip(apart.tolist(), size.tolist(), seed.tolist(), accuracies.tolist(), strict=True)
    ]


def draw(rows: list[dict[str, Any]], config: Config) -> Any:
    """Accuracy against the distance, with the words that each network sees, and against the number of texts."""
    figure, axes = report.new_figure(1 + bool(config.sizes), size=(16.0, 7.0))
    sees = {row["network"]: row["sees"] for row in rows}
    styles = {name: _style(name, words) for name, words in sees.items()}
    summary = summarise(rows)
    y_label = "accuracy on texts drawn anew, 95 % interval"
    shown: dict[str, Any] = {"y_label": y_label, "y_format": ".0%", "styles": styles, "baselines": {"chance": 0.5}}
    report.curves(
        axes[0],
        [line for line in summary if line["size"] == config.size],
        "apart",
        "accuracy",
        "network",
        x_label="words from the verb to each noun",
        title=f"{config.size} training texts; vertical: words a place sees",
        band=True,
        **shown,
    )
    for name, words in sees.items():
        if name.startswith("convolution"):
            axes[0].axvline(words, color=styles[name].colour, linestyle=":", zorder=0)
    if config.sizes:
        names = {row["network"] for row in rows if row["size"] != config.size}
        sizes = np.geomspace(min(config.sizes), max(config.sizes))
        axes[1].plot(sizes, (1 + seen(config, sizes)) / 2, color="0.5", linestyle="--", zorder=0, label=LIST)
        report.curves(
            axes[1],
            [line for line in summary if line["apart"] == config.at and line["network"] in names],
            "size",
            "accuracy",
            "network",
            x_label="training texts",
            title=f"{config.at} words apart",
            log_x=True,
            **shown,
        )
    for axis in axes:
        axis.set_ylim(0.4, 1.05)
    return figure


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds."""
    return report.summarise(rows, ["network", "sees", "apart", "size"], "accuracy", bounds={"accuracy": report.SHARE})


def seen(config: Config, n: np.ndarray) -> np.ndarray:
    """Share of all texts, equally likely, that are among n: there is one for each verb's place, class and filler."""
    return 1 - (1 - 1 / (2 * config.length * (config.vocabulary - 3))) ** n


def _style(name: str, sees: int) -> report.Style:
    of = LOCAL if name.startswith(LOCAL) else DENSE if name == DENSE else sees
    return report.RUNG_STYLE[COLOURS.get(of, "conv")]._replace(label=name)


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    report.save_report(
        "text",
        rows,
        config,
        figure=draw(rows, config),
        summary=summarise(rows),
        formats={"accuracy": ".1%"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, full=FULL))
