"""Results as lists of rows that print as tables, in a terminal and in a notebook."""

import io
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from convlab.display import table_html
from convlab.report.table import Table, print_table

R = TypeVar("R")


class ResultTable(list[R]):
    """A list of rows whose text is a table.

    Args:
      title: The title of the table.
      rows: The rows.
      format_rows: The function from the rows to the table.
      total: Whether the last line is a total, below a rule.

    Example:
      >>> from convlab.report.table import to_table
      >>> ResultTable("weights by layer", [{"layer": "head", "weights": 20}], to_table)
       weights by layer
      ┏━━━━━━━┳━━━━━━━━━┓
      ┃ layer ┃ weights ┃
      ┡━━━━━━━╇━━━━━━━━━┩
      │ head  │      20 │
      └───────┴─────────┘
    """

    def __init__(self, title: str, rows: Iterable[R], format_rows: Callable[[list[R]], Table], *, total: bool = False):
        super().__init__(rows)
        self.title = title
        self._format_rows = format_rows
        self._total = total

    def table(self) -> Table | None:
        """Return the formatted table, or None if there are no rows."""
        return self._format_rows([*self]) if self else None

    def __repr__(self) -> str:
        table = self.table()
        return f"{self.title}: no rows" if table is None else table_text(self.title, table, total=self._total)

    def _repr_html_(self) -> str | None:
        """Return the table in HTML. Notebooks call it."""
        table = self.table()
        return None if table is None else table_html(*table, title=self.title)


def table_text(title: str, table: Table, *, total: bool = False) -> str:
    """Return the text that `print_table` prints, without the last line break."""
    import rich.console

    width = rich.console.Console().width if sys.stdout.isatty() else None
    with io.StringIO() as file:
        print_table(title, table, total=total, width=width, file=file)
        return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))
