"""Rows as tables: formatted text for Markdown and the terminal, and unrounded CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from convlab.report.rows import Row, columns, to_python_scalar


class Table(NamedTuple):
    """A table of formatted text.

    Attributes:
      header: The column headers.
      cells: The text of the cells, row by row.
      numeric: The flags of the columns with numbers, which are aligned to the right.
    """

    header: list[str]
    cells: list[list[str]]
    numeric: list[bool]


def to_table(rows: Sequence[Row], formats: Mapping[str, str] | None = None) -> Table:
    """Format rows as a table with rounded numbers.

    Numbers have thousands separators and four significant digits. Intervals are written as `93.1 [92.0, 94.2]`.

    Args:
      rows: The rows of the table. A cell is blank if the value is missing or None.
      formats: The format specifications by column, e.g. {"accuracy": ".1%"}. A percent sign moves into the header.

    Raises:
      ValueError: There are no rows, or `formats` names a column that no row has.

    Example:
      >>> to_table([{"accuracy": 0.931, "accuracy_low": 0.92, "accuracy_high": 0.942}], {"accuracy": ".1%"})
      Table(header=['accuracy (%)'], cells=[['93.1 [92.0, 94.2]']], numeric=[True])
    """
    names, formats = columns(rows), formats or {}
    if not names:
        raise ValueError("rows is empty: a table needs at least one row")
    if unknown := [name for name in formats if name not in names]:
        raise ValueError(f"formats names {unknown} but the columns are {names}")
    ends = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= {*names}}
    shown = [name for name in names if not any(name in pair for pair in ends.values())]
    values = {name: [to_python_scalar(name, row.get(name)) for row in rows] for name in names}
    texts = []
    for name in shown:
        low, high = (values.get(end, [None] * len(rows)) for end in ends.get(name, ("", "")))
        texts.append([_cell(*cell, formats.get(name, "")) for cell in zip(values[name], low, high, strict=True)])
    header = [name.replace("_", " ") + " (%)" * formats.get(name, "").endswith("%") for name in shown]
    numeric = [all(value is None or _is_number(value) for value in values[name]) for name in shown]
    return Table(header, [list(line) for line in zip(*texts, strict=True)], numeric)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(mean: Any, low: Any, high: Any, specification: str) -> str:
    """Format a value and the ends of its interval, if any, with the same number of decimals."""
    if not all(_is_number(end) and math.isfinite(end) for end in (mean, low, high)):
        return _text(mean, specification)
    size = max(map(abs, (mean, low, high)))
    if not specification and 1e-4 <= size < 1e12:
        specification = f",.{max(0, 3 - math.floor(math.log10(size)))}f"
    mean, low, high = (_text(value, specification) for value in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def _text(value: Any, specification: str) -> str:
    """Format one value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)
    if specification:
        return format(value, specification).removesuffix("%")
    return f"{value:,.0f}" if isinstance(value, int) or 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def to_markdown(table: Table) -> str:
    r"""Write a table in GitHub Markdown, with cells padded to equal width.

    Example:
      >>> print(to_markdown(Table(["rung", "runs"], [["a|b", "3"]], [False, True])), end="")
      | rung | runs |
      |:-----|-----:|
      | a\|b |    3 |
    """
    lines = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in (table.header, *table.cells)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * (width + 1) + ":" if right else ":" + "-" * (width + 1)
        for width, right in zip(widths, table.numeric, strict=True)
    ]
    padded = [
        [f" {cell:{'>' if right else '<'}{width}} " for cell, width, right in zip(line, widths, table.numeric, strict=True)]
        for line in lines
    ]
    return "".join(f"|{'|'.join(line)}|\n" for line in (padded[0], rule, *padded[1:]))


def to_csv(rows: Sequence[Row]) -> str:
    r"""Write all rows and columns as CSV, unrounded.

    A cell is blank if the value is missing or None.

    Example:
      >>> to_csv([{"rung": "conv", "loss": 0.1}, {"rung": "dense"}])
      'rung,loss\nconv,0.1\ndense,\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: to_python_scalar(name, value) for name, value in row.items()} for row in rows])
    return text.getvalue()


def print_table(title: str, table: Table, *, total: bool = False) -> None:
    """Print a table to standard output.

    If this is not a terminal, lines are as long as the table needs.

    Args:
      title: The title above the table.
      table: The table, as from `to_table`.
      total: Whether to draw a rule above the last line.
    """
    import rich.console
    import rich.table
    import rich.text

    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 1000
    drawn = rich.table.Table(title=rich.text.Text(title))
    for name, right in zip(table.header, table.numeric, strict=True):
        drawn.add_column(rich.text.Text(name), justify="right" if right else "left")
    for following, line in enumerate(table.cells, 2):
        drawn.add_row(*map(rich.text.Text, line), end_section=total and following == len(table.cells))
    console.print(drawn)
