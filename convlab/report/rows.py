"""The result of a run as a flat row: a mapping from column names to scalars."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convlab import check

Row = Mapping[str, Any]


def to_python_scalar(name: str, value: Any) -> Any:
    """Convert a NumPy or JAX scalar to a Python scalar, and return other values unchanged.

    Raises:
      ValueError: `value` is an array of several numbers.

    Example:
      >>> import numpy as np
      >>> to_python_scalar("loss", np.float32(0.5))
      0.5
    """
    if not hasattr(value, "shape") or not hasattr(value, "item"):
        return value
    if value.shape != ():
        raise ValueError(f"{name} holds an array of shape {value.shape} but a row holds scalars; reduce or index it first")
    return value.item()


def columns(rows: Sequence[Row]) -> list[str]:
    """List the column names of the rows in order of first appearance.

    Example:
      >>> columns([{"rung": "conv", "loss": 0.1}, {"rung": "dense", "rank": 3}])
      ['rung', 'loss', 'rank']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def check_columns(name: str, rows: Sequence[Row], needed: Iterable[str]) -> None:
    """Check that there are rows, and that every needed column is in one of them.

    Raises:
      ValueError: There are no rows, or a column is in none of them.
      TypeError: The rows are no mappings.
    """
    rows = [check.instance(name, row, Mapping, "mappings from columns to values") for row in check.sequence(name, rows, "rows")]
    present = columns(rows)
    missing = [name for name in needed if name not in present]
    if not rows or missing:
        raise ValueError(f"{name}: no row has {missing or 'a column'}; the {len(rows)} rows have {present}")
