"""The command line that all experiments share: typed flags from a configuration, and --smoke for a run of seconds."""

import sys
from typing import Any, TypeVar

from convlab.train import keep_freed_memory

Config = TypeVar("Config")


def parse(config: Config, smoke: Config, description: str | None) -> Config:
    """Read the flags of this process over `config`, or over `smoke` where --smoke is among them.

    Raises:
      ImportError: There are flags other than --smoke, and tyro, which reads them, is not installed.
    """
    keep_freed_memory()
    flags = sys.argv[1:]
    default: Any = smoke if "--smoke" in flags else config
    left = [flag for flag in flags if flag != "--smoke"]
    try:
        import tyro
    except ImportError:
        if not left:
            return default
        raise ImportError("the experiments' command lines need tyro: pip install 'convlab[experiments]'") from None

    name = getattr(sys.modules["__main__"].__spec__, "name", None)
    note = f"{description or ''}\nWith --smoke: a run of seconds that shows that everything works."
    return tyro.cli(type(config), prog=name and f"python -m {name}", default=default, args=left, description=note)
