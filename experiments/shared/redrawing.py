"""Reading of reports, so that their tables and figures can be drawn again without a run."""

import csv
import dataclasses
import inspect
import json
import os
import pathlib
from typing import Any

from experiments.shared.settings import Rows, UsageError

WORDS = {"True": True, "False": False}


class Line(dict[str, Any]):
    """A row in which missing columns are None, because a blank cell may stand for either."""

    def __missing__(self, name: str) -> None:
        """Return None."""


def read_rows(folder: str | os.PathLike[str]) -> Rows:
    """Read the rows of a report from table.csv.

    Blank cells are missing, or None if their whole column is blank.
    """
    with pathlib.Path(folder, "table.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    blank = {name: None for name in cells[0] if not any(row[name] for row in cells)}
    return [Line({name: _value(cell) for name, cell in row.items() if cell} | blank) for row in cells]


def _value(cell: str) -> Any:
    """Return the number, the truth value or the text of a cell."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return WORDS.get(cell, cell)


def read_config(folder: str | os.PathLike[str], default: Any) -> Any:
    """Read the configuration of a report from config.json. Fields that it lacks have their default."""
    fields = json.loads(pathlib.Path(folder, "config.json").read_text("utf-8"))
    known = {field.name for field in dataclasses.fields(default)}
    return dataclasses.replace(default, **{name: _tuples(value) for name, value in fields.items() if name in known})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_report(folder: str | os.PathLike[str], experiment: Any, default: Any) -> tuple[Rows, Any, bool]:
    """Read the rows and the configuration of a report, and whether it is of a smoke run.

    Args:
      folder: The folder of the report.
      experiment: The module of the experiment.
      default: A configuration of the experiment.

    Raises:
      UsageError: There is no report, or its figure needs arrays that are not in its rows.
    """
    if len(inspect.signature(experiment.draw).parameters) > 2:
        raise UsageError(f"redraw cannot draw {str(folder)!r}: its figure needs arrays that no report has; run it again")
    try:
        command = json.loads(pathlib.Path(folder, "provenance.json").read_text("utf-8"))["command"]
        return read_rows(folder), read_config(folder, default), "--smoke" in command.split()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"redraw must be the folder of a report, got {str(folder)!r}: {error}") from error
