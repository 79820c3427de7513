"""Which implementation is fastest at which shape, and how much time does the rule lose?

Layers of random shapes are timed in every implementation, forward and for each of the two gradients. The loss of a choice is
its time divided by that of the fastest implementation. Then the thresholds of the rule are searched for the smallest mean loss.
The rows of other machines can be joined, and every machine counts equally. Where two disagree, the best thresholds are those
that lose least in the mean.

    python -m experiments.tuning                                                       (4 minutes on 2 cores)
    python -m experiments.tuning --others FOLDER --write
"""

import dataclasses
import os
import platform
import re
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from convlab import report
from experiments.parts import choices
from experiments.parts.drawn_layers import Layer, contenders, draw_layers
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import named_by_backend
from experiments.shared.stopwatch import interleave

FAMILIES = {"local": "locally connected", "conv": "convolution"}
DERIVATIVES = {"h": "forward", "x": "gradient by images", "v": "gradient by kernels"}
RULES = {"": ("the rule", "#0072B2"), "tuned_": ("the rule, best thresholds", "#56B4E9")}
ALWAYS = {"blocks": "#D55E00", "canonical": "#D55E00", "windows": "#767676", "lax": "#CC79A7"}
TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50, 100)
ENOUGH = 5  # calls of each implementation
FORMATS = {"fastest": ".0%", "*loss": ".3f", "worst": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      machine: The label of this machine, such as "2 cores, AVX-512". If None, its number of cores and its architecture, or the
        name of its accelerator.
      layers: The number of random layers of each family. There are a third as many depthwise convolutions. If 0, only the rows
        of `others` are used.
      seed: The seed of the random layers.
      seconds: The time spent on each implementation, in seconds.
      least: The smallest number of calls of each implementation.
      windows_mib: The most memory for all windows of a layer, in MiB. Implementations that need more are left out.
      others: The folders of reports of other machines, whose rows are joined.
      write: Whether the best thresholds are written into convlab/kernels/thresholds.py.
      root: The folder of the results.
    """

    machine: str | None = None
    layers: int = 40
    seed: int = 0
    seconds: float = 0.1
    least: int = 5
    windows_mib: float = 128.0
    others: tuple[str, ...] = ()
    write: bool = False
    root: str = "runs"

    @property
    def label(self) -> str:
        """The label of the machine."""
        if self.machine is not None:
            return self.machine
        on_cpu = jax.default_backend() == "cpu"
        return f"{os.cpu_count()} cores, {platform.machine()}" if on_cpu else jax.devices()[0].device_kind

    @property
    def name(self) -> str:
        """The name of the report, which ends with the machine if one is given."""
        label = re.sub(r"[^a-z0-9]+", "_", (self.machine or "").lower()).strip("_")
        return "_".join(filter(None, (named_by_backend("tuning"), label)))


SMOKE = Config(layers=1, seconds=0.0, least=1)


def run(config: Config) -> Rows:
    """Return one row per layer, derivative and implementation, and the best thresholds."""
    if config.write and config.layers and config.least < ENOUGH:
        raise ValueError(f"write needs times that are no accident: least must be at least {ENOUGH}, got {config.least}")
    rows = choices.read_reports(config.others, config.label if config.layers else None)
    for layer in track(list(layers(config)), "layers"):
        for wrt in DERIVATIVES:
            cell = {"machine": config.label, "platform": jax.default_backend(), "wrt": wrt, **layer._asdict()}
            made = contenders(layer, wrt, config.windows_mib)
            timed = interleave(made, config.seconds, config.least) if len(made) > 1 else []
            rows += [cell | {name: row[name] for name in choices.COLUMNS if name in row} for row in timed]
    if not rows:
        raise ValueError("layers must be above 0 without the reports of other machines")
    rows, best = choices.judged(rows)
    if config.write:
        choices.write(best)
    return rows


def layers(config: Config) -> Iterator[Layer]:
    """Yield the layers of all families."""
    for family in FAMILIES:
        yield from draw_layers(family, config.layers, config.seed)
    yield from draw_layers("conv", -(-config.layers // 3), config.seed, depthwise=True)


def measured(rows: Rows) -> dict[tuple[str, str, str], list[tuple[dict[str, Any], choices.Cell]]]:
    """Group the cells, each with its first row, by machine, family and derivative."""
    timed = [row for row in rows if row.get("implementation")]
    first = {tuple(row[name] for name in choices.CELL): row for row in reversed(timed)}
    groups: dict[tuple[str, str, str], list[tuple[dict[str, Any], choices.Cell]]] = {}
    for cell in choices.cells_of(timed):
        key = (cell.machine, cell.layer.family, cell.wrt)
        groups.setdefault(key, []).append((first[cell[:3] + cell.layer], cell))
    return groups


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per machine, family and derivative, and one per threshold."""
    lines = []
    for (machine, family, wrt), cells in measured(rows).items():
        losses = {
            f"{rule}loss": [row[f"{rule}loss"] for row, _ in cells]
            for rule in (*RULES, "alone_")
            if f"{rule}loss" in cells[0][0]
        }
        names = {name for _, cell in cells for name in cell.times} & {*ALWAYS}
        single = {name: statistics.geometric_mean([cell.loss(name) for _, cell in cells]) for name in sorted(names)}
        best = min(single, key=lambda name: single[name])
        lines.append(
            {"machine": machine, "family": FAMILIES[family], "derivative": DERIVATIVES[wrt], "shapes": len(cells)}
            | {"fastest": float(np.mean([loss == 1 for loss in losses["loss"]])), "worst": max(losses["loss"])}
            | {name: statistics.geometric_mean(values) for name, values in losses.items()}
            | {"single": best, "single_loss": single[best]}
        )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("threshold"):
            line = found.setdefault(row["threshold"], {"threshold": row["threshold"], "today": row["today"]})
            line["best" if row["machine"] == "all" else f"best, {row['machine']}"] = row["best"]
    return lines + list(found.values())


def draw(rows: Rows, config: Config) -> Any:
    """Draw the share of shapes at which a choice takes at most so many times the time of the fastest."""
    figure, axes = report.new_figure(6, rows=2, size=(16.0, 9.0))
    groups, most = measured(rows), 1.5
    for number, axis in enumerate(axes):
        family, wrt = list(FAMILIES)[number // 3], list(DERIVATIVES)[number % 3]
        cells = [pair for key, group in groups.items() if key[1:] == (family, wrt) for pair in group]
        names = {name for _, cell in cells for name in cell.times}
        lines = [(f"always {n}", ALWAYS[n], "-", [cell.loss(n) for _, cell in cells]) for n in ALWAYS if n in names]
        for (rule, (label, colour)), style in zip(RULES.items(), ("-", ":"), strict=True):
            lines.append((label, colour, style, [row[f"{rule}loss"] for row, _ in cells]))
        for label, colour, style, losses in lines:
            shares = np.arange(len(losses) + 1) / max(len(losses), 1)
            options: dict[str, Any] = {"color": colour, "linestyle": style, "label": label, "where": "post", "linewidth": 2.5}
            axis.step([1, *sorted(losses), 1e9], [*shares, 1], **options)
            most = max(most, *losses, 0)
        axis.set(title=f"{FAMILIES[family]}, {DERIVATIVES[wrt]}", xlabel="time relative to the fastest", xscale="log")
        axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.grid(axis="y", alpha=0.3)
        if number % 3 == 0:
            axis.set_ylabel("share of shapes")
            axis.legend(loc="lower right")
    for axis in axes:
        axis.set(xlim=(0.97, most * 1.05), ylim=(0, 1.02))
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
