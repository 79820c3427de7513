"""Errors that list the known names and suggest the one nearest to an unknown value."""

import difflib
from collections.abc import Iterable
from typing import Any


def one_of(name: str, value: Any, choices: Iterable[str], extra: str = "") -> None:
    """Raise ValueError unless `value` is one of the known names.

    Args:
      name: The name of the argument, for the error.
      value: The argument.
      choices: The known names.
      extra: The text about other accepted values that ends the list in the error.

    Raises:
      ValueError: `value` is not one of `choices`.

    Example:
      >>> one_of("padding", "same", ("SAME", "VALID"))
      Traceback (most recent call last):
      ValueError: padding 'same' is unknown; needs one of SAME, VALID; did you mean 'SAME'?
    """
    known = [*choices]
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"{name} {shown(value)} is unknown; needs one of {', '.join(known)}{extra}{did_you_mean(value, known)}"
        )


def shown(value: Any) -> str:
    """Return the text of a value for an error: arrays by shape and dtype, long texts shortened.

    Example:
      >>> import numpy as np
      >>> shown("a"), shown(np.ones((2, 3)))
      ("'a'", 'an array of shape (2, 3) and dtype float64')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(value: Any, choices: Iterable[str], most: int = 1) -> str:
    """Return the end of an error that names the choices nearest to `value`, or "" if none is near.

    Example:
      >>> did_you_mean("local", ["dense", "locally_connected"]), did_you_mean("qzx", ["dense"])
      ("; did you mean 'locally_connected'?", '')
    """
    if not isinstance(value, str) or not value:
        return ""
    by_key, key = {_key(choice): choice for choice in choices}, _key(value)
    nearest = difflib.get_close_matches(key, by_key, n=most) or [known for known in by_key if _abbreviates(key, known)][:most]
    return f"; did you mean {' or '.join(repr(by_key[known]) for known in nearest)}?" if nearest else ""


def _abbreviates(key: str, known: str) -> bool:
    """Return True if one name is the start of the other, such as "conv" of "convolution"."""
    return min(len(key), len(known)) >= 3 and (key.startswith(known) or known.startswith(key))


def _key(name: str) -> str:
    """Return a name without the differences that readers overlook: case, spaces and hyphens."""
    return name.lower().replace("-", "_").replace(" ", "_")
