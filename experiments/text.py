"""How far apart may related words stand, and does a network use words outside its receptive field?

"Dog bites man" or "man bites dog": the class is which of two nouns follows the verb, l words away, in a circle of words.
Exchanging the nouns changes no window of up to l words (`convlab.tasks.word_order`). Circular convolutions with global pooling
must therefore be at chance as soon as l reaches their receptive field, and can be right on all texts below it. The receptive
field is measured on the network. Local kernels know the position of a noun on the circle, and dense layers see all words, but
both have to learn every position separately. One null model is a bag of words, the same network with windows of one word. The
other is a list of the training texts that guesses on all other texts, since there are only a few hundred texts.

Answer: no. Convolutions with receptive fields of 3, 5, 9 and 15 words are right on every text if the nouns are nearer than
that, and at chance from that distance on. Kernels that are not shared are hardly better than a list of the training texts.

    python -m experiments.text                              (4 minutes on 2 cores)

Reference: Zhang et al., Dive into Deep Learning, section 7.1, exercises (convolutions for text: the question).
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax

from convlab import report, tasks
from convlab.train import make_learner
from experiments.parts.readers import CONVOLUTION, DENSE, LOCAL, STACKS, Network, networks
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

LIST = "a list of the texts seen, and guesses"
COLOURS = {
    1: "linear",
    3: "low_rank",
    5: "tiled",
    9: "conv",
    15: "global_conv",
}  # the rung whose colour a convolution has, by its receptive field in words
FORMATS = {"accuracy": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      stacks: The convolutions, by their receptive fields in words: 1, 3, 5, 9 or 15.
      local: The stack that is also trained as locally connected layers, beside a dense network. If 0, neither is trained.
      length: The number of words in a text.
      distances: The distances l from the verb to each noun, in words.
      vocabulary: The number of different words. Three of them are the verb and the nouns.
      size: The number of training texts when l varies.
      sizes: The numbers of training texts at distance `at`, for the stack `local`, its convolution and the dense network.
      at: The distance l when the number of training texts varies.
      width: The number of channels of every layer, and half the number of units of the dense network.
      steps: The largest number of training steps. Training stops at a mean loss of 0.01.
      learning_rate: The learning rate of Adam.
      dense_rate: The learning rate of the dense network, which does not fit with larger steps.
      seeds: The number of runs, each with its own texts and initial weights.
      root: The folder of the results.
    """

    stacks: tuple[int, ...] = tuple(STACKS)
    local: int = 5
    length: int = 48
    distances: tuple[int, ...] = (2, 3, 4, 5, 8, 9, 14, 15)
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


SMOKE = Config(
    stacks=(1,), local=0, length=9, distances=(1, 3), vocabulary=4, size=8, sizes=(), at=1, width=3, steps=10, seeds=2
)
FULL = Config(sizes=(50, 100, 200, 400, 800, 1600, 3200, 6400), vocabulary=64, width=128, steps=4000, seeds=32)


def run(config: Config) -> Rows:
    """Return one row per network, distance, number of training texts and seed."""
    made = networks((config.length, config.vocabulary), config.width, config.stacks, config.local)
    return [row for rows in at_once(functools.partial(trained, config), made, "networks") for row in rows]


def trained(config: Config, network: Network) -> Rows:
    """Train a network in all cases together, and return one row per case and seed."""

    def sample(key: jax.Array, n: int, distance: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tasks.word_order(config.length, distance, config.vocabulary).sample(key, n)

    cases = [(distance, config.size) for distance in config.distances]
    if network.kind == DENSE or network.receptive_field == config.local:
        cases += [(config.at, size) for size in config.sizes if (config.at, size) not in cases]
    distance, size, seed = np.array([(*case, seed) for case in cases for seed in range(config.seeds)]).T
    optimizer = optax.adam(config.dense_rate if network.kind == DENSE else config.learning_rate)
    options = {"test_examples": 1000, "max_steps": config.steps, "batch_size": 32, "optimizer": optimizer}
    learn = make_learner(network.build, sample, size.max(), **options)
    accuracies = learn(size, seed, distance)
    print(
        network.name,
        network.receptive_field,
        *(f"{mean:.1%}" for mean in accuracies.reshape(-1, config.seeds).mean(1)),
        flush=True,
    )
    columns = {"distance": distance, "size": size, "seed": seed, "accuracy": accuracies}
    return [
        {"network": network.name, "receptive_field": network.receptive_field} | dict(zip(columns, values, strict=True))
        for values in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds."""
    return report.summarise(
        rows, ["network", "receptive_field", "distance", "size"], "accuracy", bounds={"accuracy": report.SHARE}
    )


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy against the distance, with every receptive field, and against the number of texts."""
    figure, axes = report.new_figure(1 + bool(config.sizes), size=(13.0, 6.5))
    fields, lines = {row["network"]: row["receptive_field"] for row in rows}, table(rows, config)
    styles = {name: style(name, words) for name, words in fields.items()}
    shared = {name: words for name, words in fields.items() if name.startswith(CONVOLUTION)}
    y_label = "accuracy on texts drawn anew, 95 % interval"
    shown: dict[str, Any] = {"y_label": y_label, "y_format": ".0%", "baselines": {"chance": 0.5}}
    if config.sizes:
        names = {row["network"] for row in rows if row["size"] != config.size}
        sizes = np.geomspace(min(config.sizes), max(config.sizes))
        axes[1].plot(sizes, (1 + seen(config, sizes)) / 2, color="0.5", linestyle="--", zorder=0, label=LIST)
        at_distance = [line for line in lines if line["distance"] == config.at and line["network"] in names]
        by_size = {"x_label": "training texts", "title": f"related words {config.at} words apart", "log_x": True}
        report.curves(axes[1], at_distance, "size", "accuracy", "network", styles=styles, **by_size, **shown)
    at_size = [line for line in lines if line["size"] == config.size and not line["network"].startswith((LOCAL, DENSE))]
    by_distance = {"x_label": "words from the verb to each noun", "title": f"convolutions, {config.size} training texts"}
    labelled = styles | {name: styles[name]._replace(label=f"_{name}") for name in shared}
    report.curves(axes[0], at_size, "distance", "accuracy", "network", styles=labelled, band=True, **by_distance, **shown)
    for name, words in shared.items():
        axes[0].axvline(words, color=styles[name].colour, linestyle=":", zorder=0)
        axes[0].text(words + 0.1, 0.75, f"sees {words} words", color=styles[name].colour, size=14, rotation=90, va="center")
    for axis in axes:
        axis.set_ylim(0.4, 1.05)
    return figure


def seen(config: Config, n: np.ndarray) -> np.ndarray:
    """Return the expected share of all texts that are among n training texts.

    There is one text for each position of the verb, class and filler word, all equally likely.
    """
    return 1 - (1 - 1 / (2 * config.length * (config.vocabulary - 3))) ** n


def style(name: str, field: int) -> report.Style:
    """Return the style of a network's line."""
    rung = "locally_connected" if name.startswith(LOCAL) else "dense" if name == DENSE else COLOURS.get(field, "conv")
    return report.RUNG_STYLE[rung]._replace(label=name)


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
