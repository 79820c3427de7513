"""Import of optional packages, with errors that name the extra that installs them."""

import importlib
import types


def require(module: str, extra: str = "experiments", package: str | None = None) -> types.ModuleType:
    """Import an optional module.

    Args:
      module: The dotted name of the module.
      extra: The name of the extra that installs it.
      package: The name of the package that holds the module. If None, the module is named instead.

    Raises:
      ImportError: The module, or a package that it needs, is missing. The message names the extra.

    Example:
      >>> require("math").__name__
      'math'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{package or module} is needed here but missing ({error}); {how_to_install(extra)}"
        is_absent = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        raise ImportError(message, name=module) from (None if is_absent else error)


def how_to_install(extra: str) -> str:
    """Return the part of an error message that says how to install an extra.

    The distribution is named convlab-jax because the name convlab belongs to another project on PyPI.

    Example:
      >>> how_to_install("tf")
      "install it with pip install -e '.[tf]' in a checkout of convlab, or with pip install 'convlab-jax[tf]' from PyPI"
    """
    return (
        f"install it with pip install -e '.[{extra}]' in a checkout of convlab,"
        f" or with pip install 'convlab-jax[{extra}]' from PyPI"
    )
