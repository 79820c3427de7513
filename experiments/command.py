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
    name = getattr(sys.modules["__main__"].__spec__, "name", None)
    default: Any = smoke if "--smoke" in flags else config
    note = f"{description or ''}\nWith --smoke: a run of seconds that shows that everything works."
    left = [flag for flag in flags if flag != "--smoke"]
    return tyro.cli(type(config), prog=name and f"python -m {name}", default=default, args=left, description=note)
