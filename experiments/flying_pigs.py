"""When does it help a network to know the position of an object, and which networks can know it?

"Birds fly and pigs do not": one of two patterns stands in noise, birds mostly in the upper half and pigs mostly in the
lower (`tasks.flying_pigs`). The strength rho goes from 0 (the halves are equally likely) to 1 (always the usual half). One
network is tried with several kinds of layers: convolutions with circular padding (on a torus), convolutions with zero
padding, locally connected layers and dense layers. It has two layers, with 5x5 and 3x3 windows, ReLUs, the maximum of every
channel over all positions, and a linear read-out, so that only the layers differ. A linear classifier of the pixels is
added.

Predictions: on a torus nothing depends on rho, because a shift of the image leaves all scores the same. Local kernels have to
learn each pattern at every position, but they can learn the half too. They overtake the circular convolution from some rho on,
which is smaller with more examples. Zero padding can reveal where the border is, and so combines both advantages.

In a second task both patterns are the same, and the half is the class. An image and the same image shifted by half a torus have
opposite labels, but equal scores on a torus. Exactly one of the two is therefore right. The noise is chosen so that the best
rule without position is right 85 % of the time. The half, which alone is right (1 + rho) / 2 of the time, then matters.
Baselines: chance, the half alone, and the best rules with and without position.

Answer: local kernels overtake a circular convolution at a rho of about 0.8 with 1,000 examples and 0.7 with 4,000. Five seeds
do not show that these differ (p = 0.06). A convolution with zero padding learns the half, and is never behind either of them.
In the second task a circular convolution is right on exactly half of the images.

    python -m experiments.flying_pigs                       (4 1/2 minutes of processor time)

Reference: Zhang et al., Dive into Deep Learning, section 7.1, exercises: what if pigs could fly? (the question)
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.birds_and_pigs import CIRCULAR, LINEAR, LOCAL, NETWORKS, STYLES, WITH, WITHOUT, Images, best, learns
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

WHICH, WHERE = "bird or pig", "above or below"
BOUNDS = {"accuracy": report.SHARE, "equal": report.SHARE}
ACCURACY = "accuracy, 95 % interval"
FORMATS = {"accuracy": ".1%", "equal": ".1%", "rho": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config(Images):
    """The settings of the experiment.

    Args:
      networks: The networks: names in `NETWORKS`.
      rho: The strengths of the relation between pattern and half.
      sizes: The sizes of the training sets.
      seeds: The number of runs, each with its own examples and initial weights.
      root: The folder of the results.
    """

    networks: tuple[str, ...] = NETWORKS
    rho: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    sizes: tuple[int, ...] = (1000, 4000)
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(networks=(LINEAR,), rho=(0.0, 1.0), sizes=(20,), many=50, steps=10, seeds=2)
FULL = Config(rho=tuple(step / 10 for step in range(11)), sizes=(1000, 4000, 16_000, 64_000), width=32, steps=8000, seeds=32)


def trained(config: Config, network: str) -> Rows:
    """Train a network on all tasks. Return one row of accuracy per question, size, rho and seed."""
    learn = learns(network, config, max(config.sizes))
    rho, seeds = (np.ravel(values) for values in np.meshgrid([*config.rho, 1.0], range(config.seeds), indexing="ij"))
    is_where = np.arange(len(rho)) >= len(config.rho) * config.seeds  # the last runs are of the second task
    rows = []
    for size in config.sizes:
        scores = learn(np.full(len(rho), size), seeds, rho.astype(np.float32), is_where)
        for one, seed, second, (right, equal) in zip(rho.tolist(), seeds.tolist(), is_where, scores.tolist(), strict=True):
            labels = {"question": WHERE, "equal": equal} if second else {"question": WHICH, "rho": one}
            rows.append(labels | {"network": network, "examples": size, "seed": seed, "accuracy": right})
    print(f"{network}: trained {len(rows)} times", flush=True)
    return rows


def run(config: Config) -> Rows:
    """Return one row per question, network, size, rho and seed, and the accuracies of the best rules."""
    rows = []
    for rho in config.rho:
        labels = {"question": WHICH, "rho": rho, "seed": 0}
        rows += [labels | {"network": rule, "accuracy": float(right)} for rule, right in best(jnp.float32(rho), config).items()]
    return rows + [row for part in at_once(functools.partial(trained, config), config.networks, "networks") for row in part]


def crossing(rows: Rows, size: int) -> report.Interval | None:
    """Interpolate, for every seed, the rho above which local kernels beat a circular convolution."""
    crossings = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        runs = [row for row in rows if row["seed"] == seed and row.get("examples") == size and row["question"] == WHICH]
        local, circular = (
            {row["rho"]: row["accuracy"] for row in runs if row["network"] == name} for name in (LOCAL, CIRCULAR)
        )
        rho = sorted(local.keys() & circular.keys())
        gaps = [local[value] - circular[value] for value in rho]
        last = max((index for index, gap in enumerate(gaps) if gap <= 0), default=-1)
        if not 0 <= last < len(rho) - 1:
            return None
        low, high = gaps[last : last + 2]
        crossings.append(rho[last] + (rho[last + 1] - rho[last]) * low / (low - high))
    return report.interval(crossings, bounds=report.SHARE)


def means(rows: Rows) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["question", "network", "examples", "rho"], list(BOUNDS), bounds=BOUNDS)


def table(rows: Rows, config: Config) -> Rows:
    """Return the averages over seeds, and for each size the rho at which local kernels overtake."""
    lines = []
    for size in config.sizes:
        if at := crossing(rows, size):
            ends = {"rho": at.mean, "rho_low": at.low, "rho_high": at.high}
            lines.append({"question": WHICH, "network": "local overtakes circular", "examples": size} | ends)
    return lines + means(rows)


def draw(rows: Rows, config: Config) -> Any:
    """Draw accuracy against rho, with a panel for each size, and a last panel for above or below."""
    figure, axes = report.new_figure(len(config.sizes) + 1, size=(6.0 * (len(config.sizes) + 1), 6.5))
    for axis, size in zip(axes, config.sizes, strict=False):
        draw_size(axis, rows, config, size)
    last = [line for line in means(rows) if (line["question"], line["examples"]) == (WHERE, max(config.sizes))]
    report.comparison(
        axes[-1],
        [line | {"network": STYLES[line["network"]].label} for line in last],
        "network",
        "accuracy",
        label="_mean",
        title=f"{WHERE}? {max(config.sizes):,} examples",
        x_label=f"accuracy, mean of {config.seeds} seeds, 95 % interval",
        x_format=".0%",
        baselines={"_chance": 0.5},
    )
    axes[-1].set(xlim=(0.48, 1.0), ylim=(len(last) - 0.5, -0.5))
    for number, line in enumerate(last):
        axes[-1].text(0.99, number + 0.3, f"equal for both of a pair: {line['equal']:.0%}", size=13, ha="right")
    return figure


def draw_size(axis: Any, rows: Rows, config: Config, size: int) -> None:
    """Draw accuracy against rho for one size, the best rules, and where local kernels overtake."""
    axis.plot(config.rho, [(1 + rho) / 2 for rho in config.rho], ":", color="#767676", label="the half alone")
    for name, line in ((WITH, "-"), (WITHOUT, "--")):
        heights = [row["accuracy"] for row in rows if row["network"] == name]
        axis.plot(config.rho, heights, line, color="black", linewidth=1.2, label=f"_{name}" if name == WITH else name)
        if name == WITH:
            axis.text(config.rho[0], heights[0] + 0.016, name, size=13)
    axis.text(1.0, 0.503, "chance", color="#767676", size=13, ha="right")
    lines = [line for line in means(rows) if (line["question"], line["examples"]) == (WHICH, size)]
    words: dict[str, Any] = {"x_label": "rho: how much the half tells", "y_label": ACCURACY, "y_format": ".0%"}
    title = f"{WHICH}? {size:,} examples"
    report.curves(axis, lines, "rho", "accuracy", "network", title=title, styles=STYLES, baselines={"_chance": 0.5}, **words)
    axis.set_ylim(0.48, 1.0)
    if at := crossing(rows, size):
        colour = STYLES[LOCAL].colour
        axis.axvspan(at.low, at.high, color=colour, alpha=0.2, linewidth=0)
        axis.axvline(at.mean, color=colour, linewidth=1.2)
        axis.text(at.low, 0.52, f"local overtakes\ncircular at {at.mean:.2f} ", color=colour, size=13, ha="right")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
