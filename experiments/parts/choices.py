"""The implementations that a rule takes at measured shapes, what it loses, and the thresholds that lose least."""

import functools
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from convlab.kernels import table, thresholds
from convlab.kernels.thresholds import CPU, Thresholds
from experiments.parts.drawn_layers import Layer
from experiments.shared.redrawing import read_rows
from experiments.shared.settings import Rows

NOISE = 0.002  # the gain in the mean logarithm of the loss up to which a threshold keeps its value
SPAN = 5  # thresholds are tried up to so many doublings and halvings away
CELL = ("machine", "platform", "wrt", *Layer._fields)  # the columns of a cell
COLUMNS = (*CELL, "implementation", "ms", "ms_low", "ms_high", "temp_mib")  # those that are measured


class Cell(NamedTuple):
    """Hold the times of all implementations of one derivative of a layer on one machine.

    Attributes:
      machine: The label of the machine.
      platform: The platform on which it computes, such as "cpu".
      wrt: The derivative: "h", "x" or "v".
      layer: The layer.
      times: The times by implementation.
    """

    machine: str
    platform: str
    wrt: str
    layer: Layer
    times: dict[str, float]

    def chosen(self, values: Thresholds = CPU) -> str:
        """Return the implementation that the rule takes with these thresholds."""
        return table.choose(self.layer.form, self.wrt, self.layer.size, self.platform, values)

    def loss(self, name: str) -> float:
        """Return the time of an implementation divided by that of the fastest.

        An implementation that was not timed counts as the slowest one.
        """
        return self.times.get(name, max(self.times.values())) / min(self.times.values())


def cells_of(rows: Rows) -> list[Cell]:
    """Collect the cells of measured rows, which have one implementation each."""
    cells: dict[tuple, Cell] = {}
    for row in rows:
        machine, platform, wrt, *sizes = key = tuple(row[name] for name in CELL)
        cell = cells.setdefault(key, Cell(machine, platform, wrt, Layer(*sizes), {}))
        cell.times[row["implementation"]] = row["ms"]
    return list(cells.values())


def mean_log_loss(cells: Sequence[Cell], values: Thresholds) -> float:
    """Return the mean logarithm of the loss over the cells of each CPU, averaged over machines."""
    losses: dict[str, list[float]] = {}
    for cell in (cell for cell in cells if cell.platform == "cpu"):
        losses.setdefault(cell.machine, []).append(math.log(cell.loss(cell.chosen(values))))
    return float(np.mean([np.mean(of_machine) for of_machine in losses.values()])) if losses else 0.0


def grid(value: float) -> list[float]:
    """Return a value and the powers of two around it, the nearest first. Integers stay positive integers."""
    middle, kind = round(math.log2(value)), type(value)
    powers = {kind(2.0**power) for power in range(middle - SPAN, middle + SPAN + 1)} - {0}
    return sorted({value, *powers}, key=lambda other: abs(math.log2(other / value)))


def search(cells: Sequence[Cell], start: Thresholds = CPU) -> Thresholds:
    """Find the thresholds that lose least, one at a time until none changes.

    A threshold changes only if the mean logarithm of the loss falls by more than `NOISE`. Of equal values, the one nearest to
    the start is taken.
    """
    best, changed = start, True
    while changed:
        changed = False
        for name, first in start._asdict().items():
            tried = {value: round(mean_log_loss(cells, best._replace(**{name: value})), 9) for value in grid(first)}
            value = min(tried, key=lambda value: tried[value])
            if tried[getattr(best, name)] - tried[value] > NOISE:
                best, changed = best._replace(**{name: value}), True
    return best


def judged(rows: Rows) -> tuple[Rows, Thresholds]:
    """Add to measured rows what the rule loses, with today's thresholds and with the best ones.

    The best thresholds follow as rows of their own: those over all machines, then those of each of several machines alone.

    Returns:
      The rows, and the best thresholds over all machines.
    """
    cells = cells_of(rows)
    together = search(cells)
    machines = [*dict.fromkeys(cell.machine for cell in cells)]
    alone = {name: search([cell for cell in cells if cell.machine == name]) for name in machines if len(machines) > 1}
    columns = {}
    for cell in cells:
        names = {"": cell.chosen(), "tuned_": cell.chosen(together)}
        if cell.machine in alone:
            names["alone_"] = cell.chosen(alone[cell.machine])
        columns[cell[:3] + cell.layer] = {
            f"{rule}{column}": value
            for rule, name in names.items()
            for column, value in (("chosen", name), ("loss", cell.loss(name)))
        }
    made = [row | columns[tuple(row[name] for name in CELL)] for row in rows]
    for machine, values in {"all": together, **alone}.items():
        made += [
            {"machine": machine, "threshold": name, "today": getattr(CPU, name), "best": value}
            for name, value in values._asdict().items()
        ]
    return made, together


def read_reports(folders: Sequence[str], machine: str | None = None) -> Rows:
    """Read the measured rows of earlier reports.

    Args:
      folders: The folders of the reports.
      machine: The label of a machine that no report may have. If None, any.

    Raises:
      ValueError: A folder has no table.csv, it lacks columns, or two reports are of one machine.
    """
    rows: Rows = []
    for folder in folders:
        try:
            read = read_rows(folder)
        except (OSError, IndexError) as error:
            raise ValueError(f"others must be folders of reports, but {folder!r} has no table.csv with rows") from error
        missing = [name for name in COLUMNS if not any(name in row for row in read)]
        if missing:
            raise ValueError(f"others must be reports of this experiment, but {folder!r} lacks the columns {missing}")
        measured = [
            {name: row[name] for name in COLUMNS} | {"machine": str(row["machine"])} for row in read if row["implementation"]
        ]
        repeated = {row["machine"] for row in measured} & {machine, *(row["machine"] for row in rows)}
        if repeated:
            raise ValueError(f"others must be reports of different machines, but {folder!r} repeats {min(repeated)!r}")
        rows += measured
    return rows


def write(values: Thresholds, path: str | os.PathLike[str] = str(thresholds.__file__)) -> None:
    """Write thresholds into their module, whose other text stays the same.

    Raises:
      ValueError: The module does not set a threshold on a line of its own.
    """
    text = pathlib.Path(path).read_text("utf-8")
    for name, value in values._asdict().items():
        text, count = re.subn(rf"^(    {name}=).*,$", functools.partial(_line, value=value), text, flags=re.M)
        if count != 1:
            raise ValueError(f"path must set {name} on one line, but {str(path)!r} has {count}")
    pathlib.Path(path).write_text(text, "utf-8", newline="\n")


def _line(found: re.Match[str], value: float) -> str:
    """Return the line that sets a threshold. Large powers of two are written as such."""
    is_large_power = isinstance(value, int) and value >= 2**10 and value & (value - 1) == 0
    return f"{found[1]}{f'2**{value.bit_length() - 1}' if is_large_power else repr(value)},"  # pyright: ignore
