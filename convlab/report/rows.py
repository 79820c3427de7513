"""What a run leaves behind: one flat row of names and scalars."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def plain(name: str, value: Any) -> Any:
    """Turn a NumPy or jax scalar into Python's; leave everything else as it is.

    Raises:
      ValueError: `value` is an array of several numbers.

    Example:
      >>> import numpy as np
      >>> plain("loss", np.float32(0.5))
      0.5
    """
    if not hasattr(value, "shape") or not hasattr(value, "item"):
        return value
    if value.shape != ():
        raise ValueError(f"{name} holds an array of shape {value.shape} but a row holds scalars; reduce or index it first")
    return value.item()


def columns(rows: Sequence[Row]) -> list[str]:
    """List the names in the rows in order of first appearance.

    Example:
      >>> columns([{"rung": "conv", "loss": 0.1}, {"rung": "dense", "rank": 3}])
      ['rung', 'loss', 'rank']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def check_columns(rows: Sequence[Row], needed: Iterable[str]) -> None:
    """Raise a ValueError if there are no rows, or if no row has one of the needed names."""
    there = columns(rows)
    unknown = [name for name in needed if name not in there]
    if not rows or unknown:
        raise ValueError(f"no row has {unknown or 'anything'}: the {len(rows)} rows have {there}")
