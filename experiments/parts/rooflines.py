"""Times of layers as ratios to a unit, their distance from the roofline, and means over shapes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.shared.command import Rows
from experiments.shared.stopwatch import floor

STEPS = ("forward", "both")
CONV_LOCAL = ("local, ConvLocal", "sweep: lax local")  # Linen's layer, and JAX's op that it calls


class Shape(NamedTuple):
    """The shape of a layer: batch, side of the image, channels in and out, side of the kernel."""

    n: int
    side: int
    c: int
    d: int
    k: int

    @property
    def flops(self) -> int:
        """The operations of the forward pass, dead taps included. The backward pass has twice as many."""
        return 2 * self.n * self.side**2 * self.k**2 * self.c * self.d

    def bytes(self, weights: int, itemsize: int, both: bool) -> int:
        """Return the bytes of images, weights and outputs, and with the backward pass also of cotangents."""
        arrays = self.n * self.side**2 * (self.c + self.d) + weights
        return itemsize * arrays * (3 if both else 1)


def ratios(rows: Rows, shape: str, dtype: str) -> Rows:
    """Divide every time by that of the row's unit.

    The unit's time is that of the same step, or that of forward and backward in a plain step for loops and `vmap`.
    """
    times = {(row["name"], row["step"]): row["ms"] for row in rows}
    units = [times[row["unit"], row["step"] if row["step"] in STEPS else "both"] for row in rows]
    return [{"dtype": dtype, "shape": shape, **row, "ratio": row["ms"] / unit} for row, unit in zip(rows, units, strict=True)]


def placed(row: dict, shape: Shape, roof: dict[str, float], dtype: str) -> dict:
    """Add the arithmetic rate and the distance from the roofline to a row."""
    both = row["step"] != "forward"
    flops = shape.flops * (3 if both else 1) * row["convolutions"]
    least, bound = floor(roof, flops, shape.bytes(row["weights"], jnp.dtype(dtype).itemsize, both))
    return row | {"gflops": flops / 1e6 / row["ms"], "bound": bound, "floor_ms": least, "of_floor": row["ms"] / least}


def means(rows: Rows) -> Rows:
    """Return one row per contender: geometric means over shapes, and the worst shape.

    The means are those of the ratios, and of the temporary memory relative to ConvLocal.
    """
    lines: dict[tuple[str, str], dict] = {}
    linen = [row for row in rows if row["name"] in CONV_LOCAL and row["step"] == "both"]
    memory = {(row["dtype"], row["shape"]): row["temp_mib"] for row in linen if row["temp_mib"]}
    for dtype, name in dict.fromkeys((row["dtype"], row["name"]) for row in rows if "shape" in row):
        line = lines.setdefault((dtype, name), {"dtype": dtype, "contender": name})
        mine = [row for row in rows if row["name"] == name and row["dtype"] == dtype]
        for step in (*STEPS, "scan", "vmap"):
            line[step] = geometric_mean([row["ratio"] for row in mine if row["step"] == step])
        both = [row for row in mine if row["step"] == "both"]
        line["worst_both"] = max(row["ratio"] for row in both)
        line["times_floor"] = geometric_mean([row["of_floor"] for row in both if "of_floor" in row])
        sizes = [(row["temp_mib"], memory.get((dtype, row["shape"]))) for row in both]
        known = [(mib, reference) for mib, reference in sizes if mib is not None and reference]
        line["memory_of_ConvLocal"] = geometric_mean([max(mib, 1e-3) / reference for mib, reference in known])
        line["compile_s"] = geometric_mean([row["compile_s"] for row in both if row["compile_s"]])
        line["shapes"] = len(both)
    return list(lines.values())


def geometric_mean(values: Sequence[float]) -> float | None:
    """Return the geometric mean, or None if there are no values."""
    return math.exp(float(np.mean(np.log(values)))) if values else None
