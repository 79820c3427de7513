"""How do time and memory of a locally connected layer grow with pixels, channels and images?

A 3x3 layer runs forward and backward, and one of its sizes varies at a time. It is compared with JAX's own op for locally
connected layers and with XLA's convolution at the same sizes. The slope is that of a line through the logarithms. At slope 1
the time doubles when the size doubles. The arithmetic has slope 1 in pixels and images, and 2 in channels. The kernels have
slope 1 in pixels, 2 in channels and 0 in images.

    python -m experiments.scaling                                                      (2 minutes on 2 cores)
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from convlab import report
from experiments.parts import sweep
from experiments.parts.growth import slope
from experiments.parts.implementations import stepped
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import named_by_backend
from experiments.shared.stopwatch import Contender, compiled, interleave

CONV = "convolution"
NAMES = {sweep.OURS: "locally connected, convlab", sweep.UNIT: "locally connected, JAX", CONV: CONV}
COLOURS = {"locally connected, convlab": "#0072B2", "locally connected, JAX": "#D55E00", CONV: "#767676"}
AXES = {"pixels": "pixels", "channels": "channels in and out", "images": "images"}
VALUES = {"ms": "time, ms", "temp_mib": "temporary memory, MiB"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      side: The side of the image where it does not vary.
      channels: The number of channels in and out where it does not vary.
      images: The number of images where it does not vary.
      sides: The sides of the images.
      widths: The numbers of channels.
      batches: The numbers of images.
      seconds: The time spent on each contender, in seconds.
      least: The smallest number of calls of each contender.
      root: The folder of the results.
    """

    side: int = 16
    channels: int = 16
    images: int = 32
    sides: tuple[int, ...] = (8, 12, 16, 24, 32, 48)
    widths: tuple[int, ...] = (4, 8, 16, 32, 64)
    batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    seconds: float = 0.5
    least: int = 7
    root: str = "runs"

    @property
    def name(self) -> str:
        """The name of the report."""
        return named_by_backend("scaling")


SMOKE = Config(sides=(4, 5), widths=(2, 3), batches=(2, 3), side=4, channels=2, images=2, seconds=0.0, least=1)


def run(config: Config) -> Rows:
    """Return one row per size and contender."""
    rows: Rows = []
    for quantity, size, layer in track(list(sizes(config)), "sizes"):
        made = [*sweep.contenders(layer), convolution(layer)]
        timed = interleave(made, config.seconds, config.least)
        rows += [{"varied": quantity, "size": size, **row, "name": NAMES[row["name"]]} for row in timed]
    return rows


def sizes(config: Config) -> Iterator[tuple[str, int, sweep.Layer]]:
    """Yield what varies, its size, and the layer."""
    fixed = sweep.Layer(config.images, config.side, 3, 1, config.channels, config.channels)
    yield from (("pixels", side**2, fixed._replace(side=side)) for side in config.sides)
    yield from (("channels", width, fixed._replace(c=width, d=width)) for width in config.widths)
    yield from (("images", batch, fixed._replace(n=batch)) for batch in config.batches)


def convolution(layer: sweep.Layer) -> Contender:
    """Return XLA's convolution, forward and backward."""
    x, v, g = layer.arrays()

    def conv(x: jax.Array, v: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, v, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return compiled({"name": CONV, "step": "both"}, stepped(conv, "both"), (x, v[0, 0], g))


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per quantity and contender, with the slopes and the largest size."""
    lines = []
    for quantity, name in dict.fromkeys((row["varied"], row["name"]) for row in rows):
        mine = [row for row in rows if (row["varied"], row["name"]) == (quantity, name)]
        line = {"varied": quantity, "contender": name, "time_slope": slope(mine, "ms"), "memory_slope": slope(mine, "temp_mib")}
        lines.append(line | {"largest": mine[-1]["size"], "ms": mine[-1]["ms"], "temp_mib": mine[-1]["temp_mib"]})
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw time and memory against pixels, channels and images."""
    figure, axes = report.new_figure(6, rows=2, size=(15.0, 8.0))
    panels = iter(axes)
    for value, y_label in VALUES.items():
        for quantity, x_label in AXES.items():
            axis = next(panels)
            for name, colour in COLOURS.items():
                mine = [row for row in rows if (row["varied"], row["name"]) == (quantity, name)]
                axis.plot([row["size"] for row in mine], [row[value] for row in mine], "o-", color=colour, label=name)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter("{x:,.0f}")
            axis.yaxis.set_major_formatter("{x:,g}")
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label)
            axis.grid(axis="y", alpha=0.3)
    axes[0].legend()
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
