"""Rows as tables: formatted text for Markdown and the terminal, and unrounded CSV."""

import csv
import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

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


def print_table(
    title: str, table: Table, *, total: bool = False, width: int | None = None, file: io.TextIOBase | None = None
) -> None:
    """Print a table.

    A table that is wider than the output is printed as several tables, one below the other. See `fit_width`.

    Args:
      title: The title above the table.
      table: The table, as from `to_table`.
      total: Whether to draw a rule above the last line.
      width: The number of characters of a line. If None, that of the terminal, or 80 without a terminal.
      file: The file to print to. If None, the standard output.
    """
    import rich.console
    import rich.table
    import rich.text

    console = rich.console.Console(file=cast(Any, file), width=width, force_jupyter=None if file is None else False)
    if width is None and not console.is_terminal:
        console.width = PLAIN_WIDTH
    parts, same = fit_width(table, console.width)
    for number, part in enumerate(parts):
        drawn = rich.table.Table(title=None if number else rich.text.Text(title))
        longest = next(
            (n for n in range(console.width, TEXT_WIDTHS[-1], -1) if _width(part, n) <= console.width), TEXT_WIDTHS[-1]
        )
        for name, right, size in zip(part.header, part.numeric, _widths(part, longest), strict=True):
            justify = "right" if right else "left"
            drawn.add_column(rich.text.Text(name), justify=justify, min_width=size, max_width=size, overflow="fold")
        for following, line in enumerate(part.cells, 2):
            drawn.add_row(*map(rich.text.Text, line), end_section=total and following == len(part.cells))
        console.print(drawn)
    if same:
        console.print(rich.text.Text(f"in every line: {', '.join(f'{name} {value}' for name, value in same.items())}"))


def fit_width(table: Table, width: int) -> tuple[list[Table], dict[str, str]]:
    """Split a table into tables of at most `width` characters.

    The columns that tell the lines apart are repeated in every table. Lines without an entry in the other columns are left out
    of a table, and so are columns that are blank there. Lines with no other entry at all come last. Columns with the same entry
    in all lines are taken out. A table that fits is not changed.

    Args:
      table: The table.
      width: The number of characters of a line.

    Returns:
      The tables, and the entries that all lines share, by their column.

    Example:
      >>> table = Table(["rung", "error", "price"], [["conv", "5", "1.0"], ["dense", "41", "12.9"]], [False, True, True])
      >>> parts, _ = fit_width(table, 20)
      >>> [part.header for part in parts]
      [['rung', 'error'], ['rung', 'price']]
    """
    if _width(table, max((len(cell) for line in table.cells for cell in line), default=0)) <= width:
        return [table], {}
    keys, columns = _keys(table), list(zip(*table.cells, strict=True))
    others = [column for column in range(len(columns)) if column not in keys]
    shared = [column for column in others if len(table.cells) > 1 and len({*columns[column]}) == 1]
    others = [column for column in others if column not in shared and any(columns[column])]
    bare = [line for line in table.cells if not any(line[column] for column in others)]
    bare = _part(table._replace(cells=bare), [], [key for key in keys if any(line[key] for line in bare)])
    parts: list[Table] = []
    for longest in TEXT_WIDTHS:
        parts = [*_parts(table, keys, others, width, longest), *([bare] if bare.cells else [])]
        if max(_width(part, longest) for part in parts) <= width:
            break
    return parts, {table.header[column]: columns[column][0] for column in shared if columns[column][0]}


PLAIN_WIDTH = 80
"""The number of characters of a line if the output is no terminal."""
TEXT_WIDTHS = (26, 20, 16, 12)
"""The widths in characters to which texts are wrapped if a table does not fit, in order of preference."""


def _keys(table: Table) -> list[int]:
    """Return the columns that tell the lines apart: from the left, those that distinguish further lines."""
    keys: list[int] = []
    different = 1
    for column in range(len(table.header)):
        count = len({tuple(line[key] for key in (*keys, column)) for line in table.cells})
        if count > different:
            keys, different = [*keys, column], count
    return keys or [0]


def _parts(table: Table, keys: list[int], others: list[int], width: int, longest: int) -> list[Table]:
    """Fill tables with the columns from the left. Columns of different lines are in different tables."""
    blocks: list[list[int]] = []
    part = functools.partial(_part, table, keys)
    for column in others:
        block = [*blocks[-1], column] if blocks else []
        overlaps = any(line[column] and any(line[other] for other in block[:-1]) for line in table.cells)
        if overlaps and _width(part(block), longest) <= width:
            blocks[-1] = block
        else:
            blocks.append([column])
    return [part(block) for block in blocks]


def _part(table: Table, keys: list[int], others: list[int]) -> Table:
    """Return the keys and some other columns of a table.

    Lines without an entry in the other columns are left out, and so are keys that are blank then.
    """
    lines = [line for line in table.cells if any(line[column] for column in others)]
    shown = sorted([key for key in keys if any(line[key] for line in lines)] + others)
    cells = [[line[column] for column in shown] for line in lines]
    return Table([table.header[column] for column in shown], cells, [table.numeric[column] for column in shown])


def _widths(table: Table, longest: int) -> list[int]:
    """Return the widths of columns whose texts are wrapped to `longest` characters.

    Headers are wrapped at words, and no word is broken.
    """
    widths = []
    for name, column, numeric in zip(table.header, zip(*table.cells, strict=True), table.numeric, strict=True):
        word = max(len(word) for text in (name, *column) for word in text.split() or [""])
        cell = max(map(len, column))
        widths.append(max(word, cell if numeric else min(cell, longest)))
    return widths


def _width(table: Table, longest: int) -> int:
    """Return the number of characters of a drawn line, with a border and two blanks for every column."""
    return sum(size + 3 for size in _widths(table, longest)) + 1
