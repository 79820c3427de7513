"""The command line that all experiments share: typed flags from a configuration, and --smoke for a run of seconds."""

import sys
from typing import Any, TypeVar

Config = TypeVar("Config")


def parse(config: Config, smoke: Config, description: str | None) -> Config:
    """Read the flags of this process over `config`, or over `smoke` where --smoke is among them.

    Raises:
      ImportError: tyro, which reads them, is not installed.
    """
    try:
        import tyro
    except ImportError:
        raise ImportError("the experiments' command lines need tyro: pip install 'convlab[experiments]'") from None

    flags = sys.argv[1:]
    default: Any = smoke if "--smoke" in flags else config
    note = f"{description or ''}\nWith --smoke: a run of seconds that shows that everything works."
    return tyro.cli(type(config), default=default, args=[flag for flag in flags if flag != "--smoke"], description=note)
