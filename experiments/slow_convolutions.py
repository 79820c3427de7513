"""How fast are the convolutions that people reported as slow in JAX?

Every case of nine public threads runs in stock JAX as it was posted, in convlab, and in PyTorch if it is installed. All
contenders of a case take turns in one process. Arrays have the layout of the thread in stock JAX, and channels last in convlab.
Two threads do not show all their sizes in text; the column `as_posted` marks them.

Answer: on CPU convlab is 4 to 137 times as fast as stock JAX, and 209 times with Fourier transforms for the large kernel. It is
0.55 to 8.8 times as fast as PyTorch, but for the gradient of depthwise layers (0.28).

    python -m experiments.slow_convolutions                                            (4 minutes on 2 cores)

Reference: issues 5227, 12868, 13800, 23713, 23783, 26266 and 31662 of JAX, 4207 of Flax, 34273 of XLA.
"""

import dataclasses
from typing import Any

import jax

from convlab import report
from experiments.parts.slow_cases import CASES, Case, contenders
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import named_by_backend
from experiments.shared.stopwatch import interleave

COLOURS = {"stock JAX": "#767676", "convlab": "#0072B2", "PyTorch": "#009E73"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      seconds: The time spent on each contender, in seconds.
      least: The smallest number of calls of each contender.
      shrink: The number by which all sizes but those of the kernels are divided.
      torch: Whether PyTorch is timed if it is installed.
      root: The folder of the results.
    """

    seconds: float = 2.0
    least: int = 5
    shrink: int = 1
    torch: bool = True
    root: str = "runs"

    @property
    def name(self) -> str:
        """The name of the report."""
        return named_by_backend("slow_convolutions")


SMOKE = Config(seconds=0.0, least=1, shrink=16, torch=False)


def run(config: Config) -> Rows:
    """Return one row per case and contender."""
    rows: Rows = []
    for case in track([shrunk(case, config.shrink) for case in CASES], "cases"):
        with jax.enable_x64(case.dtype == "float64"):
            timed = interleave(list(contenders(case, config.torch)), config.seconds, config.least)
        stock = timed[0]["ms"]
        rows += [row | {"faster": stock / row["ms"]} for row in timed]
    return rows


def shrunk(case: Case, by: int) -> Case:
    """Divide the sizes of a case, but let windows fit."""
    if by == 1:
        return case
    groups = max(case.groups // by, 1)
    channels = tuple(groups if case.groups > 1 else max(size // by, 1) for size in case.channels)
    pixels, taps = (tuple(max(size // by, 1) for size in sizes) for sizes in (case.pixels, case.taps))
    stride = min(case.stride, 2)
    return case._replace(batch=1, groups=groups, channels=channels, pixels=pixels, taps=taps, stride=stride)


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per case, with the time of every contender and how many times faster than stock JAX it is."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault((row["thread"], row["case"]), {key: row[key] for key in ("thread", "case", "as_posted")})
        line[f"{row['contender']}, ms"] = row["ms"]
    for row in rows:
        if row["contender"] != "stock JAX":
            lines[row["thread"], row["case"]][f"{row['contender']}, times faster"] = row["faster"]
    return list(lines.values())


def draw(rows: Rows, config: Config) -> Any:
    """Draw how many times faster than stock JAX every case is."""
    figure, [axis] = report.new_figure(1, size=(13.0, 6.0))
    drawn = [row | {"where": f"{row['case']}  ({row['thread']})"} for row in rows]
    names = list(dict.fromkeys(row["where"] for row in drawn))
    for name, colour in COLOURS.items():
        mine = [row for row in drawn if row["contender"] == name]
        if not mine:
            continue
        axis.scatter(
            [row["faster"] for row in mine],
            [names.index(row["where"]) for row in mine],
            s=90,
            color=colour,
            label=name,
            zorder=3,
        )
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.axvline(1.0, color=COLOURS["stock JAX"], linestyle="--", linewidth=1)
    axis.set_xlabel("times faster than stock JAX, as posted (further right is faster)")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
