"""What do the layers of a topographic network cost, compared with those of Keras that its authors use?

The All-TNN of Lu et al. has six locally connected layers with 107 million weights. Each one runs forward and backward in
convlab, in JAX's own op, and in the three implementations of Keras 2 if TensorFlow and tf_keras are installed. The authors use
the first implementation, Keras' default, which cuts out every window in the graph. The second one masks a dense matrix, and the
third is a sparse matrix. Both are left out where they are too large. The baseline is a convolution of the same arithmetic,
which has one kernel instead of one for each position.

Answer: on CPU the six layers take 2.6 times as long in Keras' first implementation as in convlab, with 3.5 times the memory.
At the first layer Keras is faster. A convolution of the same arithmetic takes about as long as our layers.

    python -m experiments.topographic_layers                                           (6 minutes on 2 cores, with Keras)

Reference: Lu et al. 2025, End-to-end topographic networks as models of cortical map formation and human visual behaviour.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from convlab import report
from experiments.parts.sheet_layers import ALL_TNN, OURS, Layer, contenders, installed, largest_arrays_mib, names
from experiments.shared.command import Rows, main
from experiments.shared.elsewhere import Elsewhere
from experiments.shared.progress import track
from experiments.shared.settings import named_by_backend
from experiments.shared.stopwatch import interleave

STYLES = {
    name: report.Style(name, colour, marker)
    for name, colour, marker in zip(
        names(keras=True), ("#0072B2", "#D55E00", "#767676", "#009E73", "#CC79A7", "#E69F00"), "oPX^Ds", strict=True
    )
}
PAUSE = 0.02  # seconds before each call, since threads of TensorFlow spin before they fall asleep


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      layers: The number of layers, from the first on.
      images: The number of images. The authors train with 512 on accelerators.
      shrink: The number by which channels are divided.
      seconds: The time spent on each contender, in seconds.
      least: The number of calls of each contender, if they are fast enough.
      keras: Whether Keras' layers are timed if TensorFlow and tf_keras are installed.
      memory: The size of a contender's largest arrays above which it is left out, estimated in MiB.
      root: The folder of the results.
    """

    layers: int = len(ALL_TNN)
    images: int = 32
    shrink: int = 1
    seconds: float = 0.5
    least: int = 3
    keras: bool = True
    memory: float = 6000
    root: str = "runs"

    @property
    def name(self) -> str:
        """The name of the report."""
        return named_by_backend("topographic_layers")


SMOKE = Config(layers=1, images=2, shrink=64, seconds=0.0, least=1, keras=False)


def layers_of(config: Config) -> list[Layer]:
    """Return the layers, with fewer channels if asked for."""
    made = []
    for layer in ALL_TNN[: config.layers]:
        channels, features = (max(size // config.shrink, 1) for size in (layer.channels, layer.features))
        made.append(layer._replace(channels=channels, features=features, images=config.images))
    return made


def run(config: Config) -> Rows:
    """Return one row per layer and contender.

    The row of a contender that is left out has only its largest arrays.
    """
    every = names(config.keras and installed())
    rows: Rows = []
    for layer in track(layers_of(config), "layers"):
        fitting = [name for name in every if largest_arrays_mib(layer, name) <= config.memory]
        timed = measure(layer, fitting, config)
        for name in every:
            row = {"layer": layer.name, "weights": layer.weights, "contender": name}
            row["largest_arrays_mib"] = largest_arrays_mib(layer, name)
            rows.append(row | timed.get(name, {}))
    return rows


def measure(layer: Layer, fitting: Sequence[str], config: Config) -> dict[str, dict[str, Any]]:
    """Time contenders that take turns in processes of their own, and measure the memory of these.

    The memory is the largest resident memory minus that before the layer was made, when a small layer had already run.
    """
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(Elsewhere()) for name in fitting}
        made, before = [], {}
        for name, process in processes.items():
            [small] = process.contenders(contenders, layer.small(), name)
            small.call()
            before[name] = process.memory("VmRSS")
            made += process.contenders(contenders, layer, name)
            made[-1].call()
            process.forget_peak()
        timed = interleave(made, config.seconds, config.least, PAUSE)
        peaks = {name: process.memory("VmHWM") for name, process in processes.items()}
    known = {name: peak - before[name] for name, peak in peaks.items() if peak is not None}
    return {row["contender"]: row | {"peak_mib": known.get(row["contender"])} for row in timed}


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per contender, with its times and memory added up over the layers that it ran.

    The ratios compare it with ours at these layers.
    """
    lines = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == name and row.get("ms")]
        ran = {row["layer"] for row in mine}
        ours = [row for row in rows if row["contender"] == OURS and row["layer"] in ran]
        line: dict[str, Any] = {"contender": name, "layers": len(mine)}
        for value, ratio in {"ms": "time_of_ours", "peak_mib": "memory_of_ours"}.items():
            line[value], unit = total(mine, value), total(ours, value)
            line[ratio] = line[value] / unit if line[value] is not None and unit else None
        lines.append(line | {"compile_s": total(mine, "compile_s")})
    return lines


def total(rows: Rows, value: str) -> float | None:
    """Add up a column. If a value is missing, or there are no rows, return None."""
    known = [row[value] for row in rows if row.get(value) is not None]
    return sum(known) if known and len(known) == len(rows) else None


def draw(rows: Rows, config: Config) -> Any:
    """Draw the time and the memory of every layer.

    Bars are quartiles. Open marks are the largest arrays of layers that were left out.
    """
    figure, (left, right) = report.new_figure(2, size=(16.0, 7.0))
    shown = list(dict.fromkeys(row["layer"] for row in rows))
    for name, style in STYLES.items():
        mine = [row | {"at": shown.index(row["layer"])} for row in rows if row["contender"] == name]
        timed, measured = ([row for row in mine if row.get(value)] for value in ("ms", "peak_mib"))
        if not timed:
            continue
        words: dict[str, Any] = {"color": style.colour, "markersize": 9}
        below, above = ([abs(row["ms"] - row[end]) for row in timed] for end in ("ms_low", "ms_high"))
        x, y = [row["at"] for row in timed], [row["ms"] for row in timed]
        left.errorbar(x, y, [below, above], fmt=style.marker, label=style.label, **words)
        right.plot([row["at"] for row in measured], [row["peak_mib"] for row in measured], style.marker, **words)
        out = [row for row in mine if not row.get("ms")]
        sizes = [row["largest_arrays_mib"] for row in out]
        right.plot([row["at"] for row in out], sizes, style.marker, fillstyle="none", **words)
    for axis, label in ((left, "time, forward and backward, ms"), (right, "peak memory, MiB")):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.set_xticks(range(len(shown)), [name.replace(", ", "\n") for name in shown])
        axis.set_xlabel("layer of the network")
        axis.set_ylabel(label)
        axis.grid(axis="y", alpha=0.3)
    right.set_title("open marks: not run, size of the largest arrays")
    left.set_ylim(top=2 * left.get_ylim()[1])  # room for the legend
    left.legend(loc="upper left", ncols=2)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
