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
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.birds_and_pigs import CIRCULAR, LINEAR, LOCAL, NETWORKS, STYLES, WITH, WITHOUT, Images, best, learns
from experiments.shared.command import Rows, main
from experiments.shared.settings import at_once

WHICH, WHERE = "bird or pig", "above or below"
BOUNDS = {"accuracy": report.SHARE, "equal": report.SHARE}
ACCURACY, CHANCE = "accuracy, 95 % interval", {"chance": 0.5}
FORMATS = {"accuracy": ".1%", "equal": ".1%", "rho": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config(Images):
    """What is run.

    Args:
      networks: Names in `NETWORKS`.
      rho: Of how much the half tells.
      sizes: Training sets.
      seeds: Runs with other examples and initial weights.
      root: Folder that the results go to.
    """

    networks: tuple[str, ...] = NETWORKS
    rho: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    sizes: tuple[int, ...] = (1000, 4000)
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(networks=(LINEAR,), rho=(0.0, 1.0), sizes=(20,), many=50, steps=10, seeds=2)
FULL = Config(rho=tuple(step / 10 for step in range(11)), sizes=(1000, 4000, 16_000, 64_000), width=32, steps=8000, seeds=32)


def trained(config: Config, network: str) -> Rows:
    """How often a network is right: a row per question, size, rho and seed."""
    learn = learns(network, config, max(config.sizes))
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


def run(config: Config) -> Rows:
    """One row per question, network, size, rho and seed, and what the best rules reach."""
    rows = []
    for rho in config.rho:
        told = {"question": WHICH, "rho": rho, "seed": 0}
        rows += [told | {"network": rule, "accuracy": float(right)} for rule, right in best(jnp.float32(rho), config).items()]
    return rows + [row for each in at_once(functools.partial(trained, config), config.networks) for row in each]


def crossing(rows: Rows, size: int) -> report.Interval | None:
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


def means(rows: Rows) -> Rows:
    """Means over seeds."""
    return report.summarise(rows, ["question", "network", "examples", "rho"], list(BOUNDS), bounds=BOUNDS)


def table(rows: Rows, config: Config) -> Rows:
    """Where local kernels overtake, for each size, and the means over seeds."""
    lines = []
    for size in config.sizes:
        if at := crossing(rows, size):
            ends = {"rho": at.mean, "rho_low": at.low, "rho_high": at.high}
            lines.append({"question": WHICH, "network": "local overtakes circular", "examples": size} | ends)
    return lines + means(rows)


def draw(rows: Rows, config: Config) -> Any:
    """Accuracy against rho, a panel for each size, and a last one for above or below."""
    figure, axes = report.new_figure(len(config.sizes) + 1, size=(6.0 * (len(config.sizes) + 1), 6.5))
    for axis, size in zip(axes, config.sizes, strict=False):
        draw_size(axis, rows, config, size)
    last = [line for line in means(rows) if (line["question"], line["examples"]) == (WHERE, max(config.sizes))]
    report.comparison(
        axes[-1],
        [line | {"network": STYLES[line["network"]].label} for line in last],
        "network",
        "accuracy",
        label=f"mean of {config.seeds} seeds",
        title=f"{WHERE}? {max(config.sizes):,} examples",
        x_label=ACCURACY,
        x_format=".0%",
        baselines=CHANCE,
    )
    axes[-1].set(xlim=(0.48, 1.0), ylim=(len(last) - 0.5, -0.5))
    for number, line in enumerate(last):
        axes[-1].text(0.99, number + 0.3, f"same answer to both of a pair: {line['equal']:.0%}", size=13, ha="right")
    return figure


def draw_size(axis: Any, rows: Rows, config: Config, size: int) -> None:
    """Accuracy against rho after so many examples, the best rules, and where local kernels overtake."""
    axis.plot(config.rho, [(1 + rho) / 2 for rho in config.rho], ":", color="#767676", label="told the half, and no more")
    for name, line in ((WITH, "-"), (WITHOUT, "--")):
        heights = [row["accuracy"] for row in rows if row["network"] == name]
        axis.plot(config.rho, heights, line, color="black", linewidth=1.2, label=name)
    lines = [line for line in means(rows) if (line["question"], line["examples"]) == (WHICH, size)]
    words: dict[str, Any] = {"x_label": "rho: how much the half tells", "y_label": ACCURACY, "y_format": ".0%"}
    title = f"{WHICH}? {size:,} examples"
    report.curves(axis, lines, "rho", "accuracy", "network", title=title, styles=STYLES, baselines=CHANCE, **words)
    axis.set_ylim(0.48, 1.0)
    if at := crossing(rows, size):
        colour = STYLES[LOCAL].colour
        axis.axvspan(at.low, at.high, color=colour, alpha=0.2, linewidth=0)
        axis.axvline(at.mean, color=colour, linewidth=1.2)
        axis.text(at.low, 0.52, f"local overtakes\ncircular at {at.mean:.2f} ", color=colour, size=13, ha="right")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
