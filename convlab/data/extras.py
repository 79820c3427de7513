"""Packages that only some data sets need: imported where used, and named with their extra where absent."""

import importlib
import types


def require(module: str, extra: str = "experiments") -> types.ModuleType:
    """Import an optional module.

    Args:
      module: Its dotted name.
      extra: The extra of convlab that installs it.

    Raises:
      ImportError: It is absent, or a package it needs is.

    Example:
      >>> require("math").__name__
      'math'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here but missing ({error}); install it with pip install 'convlab[{extra}]'"
        ) from error
