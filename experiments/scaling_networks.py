"""How do time and memory of relax, count and fit grow with the size of the network and the number of images?

`relax` turns convolutions into locally connected layers, and `count` counts the weights and multiply-adds of the result. The
width of the network or its number of layers varies. `fit` reads random images into memory or leaves them on disk, and trains
LeNet on them for one epoch. Every call and size has a process of its own, whose memory is measured. The slope is that of a line
through the logarithms. At slope 1 the time doubles when the size doubles. The baselines of memory are the bytes of the relaxed
weights, and those of the images.

    python -m experiments.scaling_networks                                             (4 minutes on 2 cores)
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from typing import Any

from convlab import report
from experiments.parts.growing import COUNT, DISK, IMAGES, LAYERS, MEMORY, RELAX, WEIGHTS, Case, make, write_images
from experiments.parts.growth import measure, slope
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once, track
from experiments.shared.settings import named_by_backend

COLOURS = {RELAX: "#0072B2", COUNT: "#D55E00", MEMORY: "#009E73", DISK: "#CC79A7"}
GREY = "#767676"
AXES = {WEIGHTS: "weights, locally connected", LAYERS: "layers", IMAGES: "training images"}
VALUES = {"ms": "time, ms", "peak_mib": "memory added, MiB"}
MILLION = 1_000_000
BYTES = ("result_mib", "images_mib", "disk_mib")  # known without a measurement
LEAST_MIB = 1.0  # less memory cannot be told from that of the interpreter


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      side: The side of the images of `relax` and `count`.
      widths: The numbers of channels of the first of three layers, where the weights vary.
      blocks: The numbers of blocks of one layer each, where the layers vary.
      images: The numbers of training images.
      repetitions: The number of calls after the first one.
      epochs_timed: The number of epochs after the first one.
      parallel: Whether several sizes run at once, which is quick but falsifies the times.
      root: The folder of the results.
    """

    side: int = 32
    widths: tuple[int, ...] = (4, 16, 64)
    blocks: tuple[int, ...] = (4, 16, 64)
    images: tuple[int, ...] = (2000, 12_000, 64_000)
    repetitions: int = 3
    epochs_timed: int = 1
    parallel: bool = False
    root: str = "runs"

    @property
    def name(self) -> str:
        """The name of the report."""
        return named_by_backend("scaling_networks")


SMOKE = Config(side=12, widths=(2,), blocks=(1,), images=(256,), repetitions=1, epochs_timed=1, parallel=True)


def run(config: Config) -> Rows:
    """Return one row per size and call."""

    def of_size(cases: list[Case]) -> Rows:
        return measure(make, cases, config.epochs_timed if cases[0].varied == IMAGES else config.repetitions)

    with tempfile.TemporaryDirectory() as folder:
        for count in config.images:
            write_images(folder, count)
        every = list(sizes(config, folder))
        parts = at_once(of_size, every, "sizes") if config.parallel else map(of_size, track(every, "sizes"))
        return [row for part in parts for row in part]


def sizes(config: Config, folder: str) -> Iterator[list[Case]]:
    """Yield the cases of each size, which take turns."""
    for varied, amounts, calls in (
        (WEIGHTS, config.widths, (RELAX, COUNT)),
        (LAYERS, config.blocks, (RELAX, COUNT)),
        (IMAGES, config.images, (MEMORY, DISK)),
    ):
        yield from ([Case(what, varied, amount, config.side, folder) for what in calls] for amount in amounts)


def lines_of(rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    """Yield what varies, what is called, and the rows of every line."""
    for varied, what in dict.fromkeys((row["varied"], row["what"]) for row in rows):
        yield varied, what, [row for row in rows if (row["varied"], row["what"]) == (varied, what)]


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per call and quantity, with the slopes and the largest size.

    A slope of memory is left out if a call adds less than 1 MiB at the largest size, or if memory cannot be read.
    """
    lines = []
    for varied, what, mine in lines_of(rows):
        last, line = mine[-1], {"what": what, "varied": varied, "time_slope": slope(mine, "ms"), "memory_slope": None}
        if all(row["peak_mib"] is not None for row in mine) and last["peak_mib"] >= LEAST_MIB:
            line["memory_slope"] = slope(mine, "peak_mib", LEAST_MIB)
        columns = ("ms", "first_ms", "peak_mib", "mapped_mib", *BYTES)
        lines.append(line | {"largest": last["size"]} | {name: last.get(name) for name in columns})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw time and memory against weights, layers and images.

    Grey lines have slope 1. They are the time that grows in proportion from the first size, and the bytes of the weights that
    `relax` returns or of the images.
    """
    figure, axes = report.new_figure(6, rows=2, size=(15.0, 8.0))
    panels = {(value, varied): axis for (value, varied), axis in zip([(v, q) for v in VALUES for q in AXES], axes, strict=True)}
    for varied, what, mine in lines_of(rows):
        x, first = [row["size"] for row in mine], mine[0]
        for value in VALUES:
            known = [(row["size"], max(row[value], 1 / 256)) for row in mine if row[value] is not None]
            if known:  # memory can be read on Linux only
                panels[value, varied].plot(*zip(*known, strict=True), "o-", color=COLOURS[what], label=what)
        panels["ms", varied].plot(x, [first["ms"] * size / x[0] for size in x], ":", color=GREY)
        least = [mib for row in mine if (mib := row.get("result_mib") or row.get("images_mib"))]
        if least:
            panels["peak_mib", varied].plot(x, least, ":", color=GREY)
    for (value, varied), axis in panels.items():
        axis.set_xscale("log")
        axis.set_yscale("log")
        at = sorted({row["size"] for row in rows if row["varied"] == varied})
        axis.set_xticks(at, [f"{size:,}" if size < MILLION / 10 else f"{size / MILLION:.2g} M" for size in at], minor=False)
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.set_xlabel(AXES[varied])
        axis.set_ylabel(VALUES[value])
        axis.grid(axis="y", alpha=0.3)
    for axis in axes[:3]:
        axis.legend()
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
