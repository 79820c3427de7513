"""Birds fly and pigs do not: when does it pay to know where a thing is, and who can know?

One of two patterns stands in noise, birds mostly in the upper half and pigs in the lower: rho turns that from never mind (0) to
always (1), by `tasks.flying`. One network at several rungs, two layers of 5x5 and 3x3 windows, ReLU, the largest of every
channel over all positions, and a linear read-out, so that only the layers differ: convolutions round a torus, convolutions
padded with zeros, kernels of their own at each position, dense ones; and a linear classifier of the pixels.

Predicted: round a torus nothing depends on rho, as a shift of the image leaves all scores; kernels of their own have to learn
each pattern at every place, but can learn the half too, and overtake from some rho on, the sooner the more examples; zero
padding can find out where the border is, and so have both. In a second task both patterns are the same, and the half is the
class: an image and itself half a torus further have opposite labels and, round a torus, equal scores, so that exactly half of
such pairs' labels are right. The noise is such that the best rule without place is right 85 % of the time: hard enough for the
half to matter, which gives (1 + rho) / 2. Baselines: chance, the half alone, and the best rules with place and without.

Answer: local kernels overtake a circular convolution at a rho of about 0.8 with 1,000 examples and 0.7 with 4,000, a difference
that five seeds do not show (p = 0.06). Padded with zeros a convolution finds out the half and is behind neither anywhere.
Round a torus exactly half of above and below is right.

    python -m experiments.flying_pigs                       (4 1/2 minutes of processor time)

Reference: of the question, Zhang et al., Dive into Deep Learning, section 7.1, exercises: what if pigs could fly?
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.scipy.special import logsumexp

import convlab as cl
from convlab import report, tasks
from convlab.layers import connect
from convlab.models import MLP
from convlab.train import learner
from experiments.command import parse
from experiments.settings import at_once

PATTERN = 3  # pixels of a pattern along each axis
KEY = jax.random.key(1)  # of the two patterns: they have equal norms, so that energy tells nothing (the mean tells 57 %)
CIRCULAR, ZERO, LOCAL, DENSE, LINEAR = "circular", "zero padded", "locally connected", "dense", "linear"
LAYERS = {
    CIRCULAR: ("conv", "CIRCULAR"),
    ZERO: ("conv", "SAME"),
    LOCAL: ("locally_connected", "SAME"),
    DENSE: ("dense", "SAME"),
}
NETWORKS = (*LAYERS, LINEAR)
WITH, WITHOUT = "best with place", "best without place"
WHICH, WHERE = "bird or pig", "above or below"
STYLES = {
    CIRCULAR: report.RUNG_STYLE["conv"]._replace(label="convolution, circular"),
    ZERO: report.RUNG_STYLE["tiled"]._replace(label="convolution, zero padding"),
    LOCAL: report.RUNG_STYLE["locally_connected"],
    DENSE: report.RUNG_STYLE["dense"],
    LINEAR: report.RUNG_STYLE["null"]._replace(label="linear"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      networks: Names in `NETWORKS`.
      side: Pixels of an image along each axis, an even number.
      noise: Standard deviation of every pixel; patterns have 1.
      rho: Of how much the half tells.
      sizes: Training sets.
      many: Examples that the best rules are scored on.
      width: Channels.
      steps: Of training, at most.
      learning_rate: Of Adam.
      seeds: Runs with other examples and initial weights.
      root: Folder that the results go to.
    """

    networks: tuple[str, ...] = NETWORKS
    side: int = 8
    noise: float = 0.8
    rho: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    sizes: tuple[int, ...] = (1000, 4000)
    many: int = 20_000
    width: int = 8
    steps: int = 800
    learning_rate: float = 3e-3
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(networks=(LINEAR,), rho=(0.0, 1.0), sizes=(20,), many=50, steps=10, seeds=2)
FULL = Config(rho=tuple(step / 10 for step in range(11)), sizes=(1000, 4000, 16_000, 64_000), width=32, steps=8000, seeds=32)


class Pooled(nnx.Module):
    """Two layers at the rung, the largest of every channel over all positions, and a linear read-out."""

    def __init__(self, network: str, side: int, width: int, rngs: nnx.Rngs):
        rung, padding = LAYERS[network]
        self.first = connect(rung, 1, width, 5, padding=padding, space=(side, side), rngs=rngs)
        self.second = connect(rung, width, width, 3, padding=padding, space=(side, side), rngs=rngs)
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))).max((1, 2)))


def sample(key: jax.Array, n: int, rho: jax.Array, alike: jax.Array, config: Config) -> tuple[jax.Array, jax.Array]:
    """Birds and pigs; or, where patterns are alike, birds above and below: each is followed by itself half a torus further."""
    x, y = tasks.flying(config.side, PATTERN, rho, KEY, noise=config.noise, alike=alike).sample(key, n)
    number = jnp.arange(n)
    odd = (number % 2 == 1)[:, None, None, None]
    twice, label = x[number // 2], y[number // 2]
    twice = jnp.where(odd, jnp.roll(twice, config.side // 2, 1), twice)
    return jnp.where(alike, twice, x), jnp.where(alike, jnp.where(number % 2 == 1, 1 - label, label), y)


def right_and_equal(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of right labels, and share of pairs whose two images got the same."""
    guesses = scores.argmax(-1)
    return jnp.stack([jnp.mean(guesses == labels), jnp.mean(guesses[::2] == guesses[1::2])])


@functools.partial(jax.jit, static_argnames="config")
def best(rho: jax.Array, config: Config) -> dict[str, jax.Array]:
    r"""How often the best rules are right that know the patterns: by the likelihood of every place, or of all on the torus.

    $$p(x | y) \propto \sum_{ij} p(ij | y)\, e^{(\langle x, P_y \rangle_{ij} - |P_y|^2 / 2) / \sigma^2}$$
    """
    x, y = sample(jax.random.key(0), config.many, rho, jnp.asarray(False), config)
    patterns = jax.random.normal(KEY, (2, PATTERN, PATTERN))
    match = cl.conv(x, jnp.moveaxis(patterns, 0, -1)[:, :, None], cl.Window(PATTERN, padding="CIRCULAR"))
    logs = (match - (patterns**2).sum((1, 2)) / 2) / config.noise**2
    middle, room, half = PATTERN // 2, config.side // 2 - PATTERN + 1, config.side // 2
    upper, lower = (
        logsumexp(logs[:, top + middle : top + middle + room, middle : config.side - middle], (1, 2)) for top in (0, half)
    )
    usual, rare = jnp.log((1 + rho) / 2), jnp.log((1 - rho) / 2)
    pig = jnp.logaddexp(lower[:, 0] + usual, upper[:, 0] + rare)
    bird = jnp.logaddexp(upper[:, 1] + usual, lower[:, 1] + rare)
    torus = logsumexp(logs, (1, 2))
    return {WITH: jnp.mean((bird > pig) == y), WITHOUT: jnp.mean((torus[:, 1] > torus[:, 0]) == y)}


def trained(config: Config, network: str) -> list[dict[str, Any]]:
    """How often a network is right: a row per question, size, rho and seed."""
    shape = (config.side, config.side, 1)
    build = {name: functools.partial(Pooled, name, config.side, config.width) for name in LAYERS} | {
        LINEAR: lambda rngs: MLP(shape, 2, (), rngs=rngs)
    }
    learn = learner(
        build[network],
        functools.partial(sample, config=config),
        max(config.sizes),
        steps=config.steps,
        optimizer=optax.adam(config.learning_rate),
        score=right_and_equal,
    )
    rho, seeds = (np.ravel(each) for each in np.meshgrid([*config.rho, 1.0], range(config.seeds), indexing="ij"))
    alike = np.arange(len(rho)) >= len(config.rho) * config.seeds  # the last are the second task
    rows = []
    for size in config.sizes:
        scores = learn(np.full(len(rho), size), seeds, rho.astype(np.float32), alike)
        for one, seed, second, (right, equal) in zip(rho.tolist(), seeds.tolist(), alike, scores.tolist(), strict=True):
            told = {"question": WHERE, "equal": equal} if second else {"question": WHICH, "rho": one}
            rows.append(told | {"network": network, "examples": size, "seed": seed, "accuracy": right})
    print(f"{network}: trained {len(rows)} times", flush=True)
    return rows


def run(config: Config) -> list[dict[str, Any]]:
    """One row per question, network, size, rho and seed, and what the best rules reach."""
    rows = []
    for rho in config.rho:
        told = {"question": WHICH, "rho": rho, "seed": 0}
        rows += [told | {"network": rule, "accuracy": float(right)} for rule, right in best(jnp.float32(rho), config).items()]
    return rows + [row for each in at_once(functools.partial(trained, config), config.networks) for row in each]


def crossing(rows: list[dict[str, Any]], size: int) -> report.Interval | None:
    """The rho from which on kernels of their own are better than a circular convolution, seed by seed."""
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        mine = [row for row in rows if row["seed"] == seed and row.get("examples") == size and row["question"] == WHICH]
        own, shared = ({row["rho"]: row["accuracy"] for row in mine if row["network"] == name} for name in (LOCAL, CIRCULAR))
        rho = sorted(own.keys() & shared.keys())
        ahead = [own[each] - shared[each] for each in rho]
        behind = max((place for place, gap in enumerate(ahead) if gap <= 0), default=-1)
        if not 0 <= behind < len(rho) - 1:
            return None
        low, high = ahead[behind : behind + 2]
        found.append(rho[behind] + (rho[behind + 1] - rho[behind]) * low / (low - high))
    return report.interval(found, bounds=report.SHARE)


def draw(rows: list[dict[str, Any]], config: Config) -> Any:
    """Accuracy against rho, a panel for each size, and a last one for above or below."""
    figure, axes = report.new_figure(len(config.sizes) + 1, size=(6.0 * (len(config.sizes) + 1), 6.5))
    rules = {name: [row["accuracy"] for row in rows if row["network"] == name] for name in (WITH, WITHOUT)}
    for axis, size in zip(axes, config.sizes, strict=False):
        axis.plot(config.rho, [(1 + rho) / 2 for rho in config.rho], ":", color="#767676", label="told the half, and no more")
        for (name, heights), line in zip(rules.items(), ("-", "--"), strict=True):
            axis.plot(config.rho, heights, line, color="black", linewidth=1.2, label=name)
        report.curves(
            axis,
            report.summarise(
                [row for row in rows if (row["question"], row.get("examples")) == (WHICH, size)],
                ["network", "rho"],
                "accuracy",
                bounds={"accuracy": report.SHARE},
            ),
            "rho",
            "accuracy",
            "network",
            x_label="rho: how much the half tells",
            y_label="accuracy, 95 % interval",
            y_format=".0%",
            title=f"{WHICH}? {size:,} examples",
            styles=STYLES,
            baselines={"chance": 0.5},
        )
        axis.set_ylim(0.48, 1.0)
        if at := crossing(rows, size):
            axis.axvspan(at.low, at.high, color=STYLES[LOCAL].colour, alpha=0.2, linewidth=0)
            axis.axvline(at.mean, color=STYLES[LOCAL].colour, linewidth=1.2)
            told = f"local overtakes\ncircular at {at.mean:.2f} "
            axis.text(at.low, 0.52, told, color=STYLES[LOCAL].colour, size=13, ha="right")
    last = [row for row in summarise(rows) if (row["question"], row["examples"]) == (WHERE, max(config.sizes))]
    report.comparison(
        axes[-1],
        [row | {"network": STYLES[row["network"]].label} for row in last],
        "network",
        "accuracy",
        label=f"mean of {config.seeds} seeds",
        x_label="accuracy, 95 % interval",
        x_format=".0%",
        title=f"{WHERE}? {max(config.sizes):,} examples",
        baselines={"chance": 0.5},
    )
    axes[-1].set(xlim=(0.48, 1.0), ylim=(len(last) - 0.5, -0.5))
    for line, row in enumerate(last):
        axes[-1].text(0.99, line + 0.3, f"same answer to both of a pair: {row['equal']:.0%}", size=13, ha="right")
    return figure


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds."""
    by = ["question", "network", "examples", "rho"]
    return report.summarise(rows, by, ["accuracy", "equal"], bounds={"accuracy": report.SHARE, "equal": report.SHARE})


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    crossings = [(size, crossing(rows, size)) for size in config.sizes]
    told = {"question": WHICH, "network": "local overtakes circular"}
    ends = ("rho", "rho_low", "rho_high")
    report.save_report(
        "flying_pigs",
        rows,
        config,
        figure=draw(rows, config),
        summary=[told | {"examples": size} | dict(zip(ends, at, strict=True)) for size, at in crossings if at]
        + summarise(rows),
        formats={"accuracy": ".1%", "equal": ".1%", "rho": ".2f"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, full=FULL))
