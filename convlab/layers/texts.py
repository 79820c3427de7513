"""Texts of modules in one line, in place of Flax's list of all attributes."""

from collections.abc import Callable, Iterator, Sequence

import jax
from flax import nnx
from flax.nnx import reprlib

Text = Iterator[reprlib.Object | reprlib.Attr]


def in_one_line(module: nnx.Module, describe: Callable[[], Sequence[str]]) -> Text:
    """Yield what Flax prints for a module, alone or inside another one: its class and parts of text.

    Args:
      module: The module.
      describe: A function that returns the parts. Empty ones are left out, and all if the module is not complete yet.

    Example:
      >>> class Scale(nnx.Module):
      ...     def __nnx_repr__(self):
      ...         return in_one_line(self, lambda: ["by 2"])
      >>> nnx.Sequential(Scale())
      Sequential(
        layers=List([
          Scale(by 2)
        ])
      )
    """
    yield reprlib.Object(type(module), kv_sep="", same_line=True)
    try:
        parts = describe()
    except AttributeError:  # an error while the module was being made
        parts = []
    for part in filter(None, parts):
        yield reprlib.Attr("", part, use_raw_value=True, use_raw_key=True)


def count_text(module: nnx.Module) -> str:
    """Return the number of parameters of a module as text.

    Example:
      >>> count_text(nnx.Linear(30, 50, rngs=nnx.Rngs(0)))
      '1,550 parameters'
    """
    return f"{sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))):,} parameters"
