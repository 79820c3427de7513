"""What a run leaves behind: one flat row of names and scalars."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
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


@contextlib.contextmanager
def experiments_extra() -> Iterator[None]:
    """Import inside this what only experiments need, so that its absence says how to get it.

    Raises:
      ImportError: A package is absent; names it and the extra that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as absent:
        message = f"a report needs {absent.name}, which is not installed: pip install 'convlab[experiments]'"
        raise ImportError(message, name=absent.name) from absent
