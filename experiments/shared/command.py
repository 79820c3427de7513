"""The command line of all experiments: typed flags, --smoke for seconds, --full for hours.

An experiment is a module with a docstring, a frozen dataclass `Config`, a configuration `SMOKE` that runs in seconds, and the
functions `run(config)` and `draw(rows, config)`. It may also define `table(rows, config)` and `FORMATS`. `main` does the rest.

Programs that XLA compiles are kept for the next run in ~/.cache/convlab/xla (see `keep_compilations`). CONVLAB_CACHE=0 turns
this off. With --smoke XLA skips most optimisations, because such a run spends its time compiling; its times mean nothing. A
short run that compiles much makes XLA compile faster (see `compile_faster`).
"""

import fnmatch
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple, TypeVar

import jax

from convlab import report
from convlab.extras import how_to_install
from convlab.train import keep_freed_memory
from experiments.shared.compiling import UNOPTIMISED, compile_faster, keep_compilations
from experiments.shared.settings import Rows

Config = TypeVar("Config")


class Result(NamedTuple):
    """The result of a `run` that returns more than rows.

    Attributes:
      rows: The flat rows, which go to table.csv.
      arrays: Arrays that are no rows, such as pictures or weights. `draw` takes them as its third argument. If None, it takes
        two arguments.
      reused: Whether rows of an earlier run were reused. The time of this run is then not the time of all rows.
    """

    rows: Rows
    arrays: Any = None
    reused: bool = False


def main(name: str, config: Config, smoke: Config, *, keep: bool = True, short: bool = False, **others: Config) -> None:
    """Run the experiment of a module, configured by the command-line flags.

    Args:
      name: The module's `__name__`.
      config: The configuration that runs by default.
      smoke: The configuration of --smoke.
      keep: Whether compiled programs are kept for the next run; see `parse`.
      short: Whether compiling takes a large part of a run of `config`; see `parse`.
      **others: Other configurations by the names of their flags; see `parse`.
    """
    experiment = sys.modules[name]
    report_on(experiment, parse(config, smoke, experiment.__doc__, keep=keep, short=short, **others))


def report_on(experiment: Any, config: Any) -> pathlib.Path:
    """Run an experiment with a configuration, write its table and figure, and return their folder.

    `experiment.run(config)` returns flat rows, or a `Result`. `experiment.draw(rows, config)` returns a figure or None. It
    takes the arrays of a `Result` as a third argument. Without matplotlib the report has no figure.
    `experiment.table(rows, config)` returns the lines that are printed and written to table.md. Without it these are the rows.
    `FORMATS` holds format specifications for the columns of that table, by name or by a pattern such as `error_at_*`.

    The report is named `config.name`, or after the experiment's file if the configuration has no name.
    """
    begin = time.perf_counter()
    result = experiment.run(config)
    seconds = time.perf_counter() - begin
    rows, arrays, reused = result if isinstance(result, Result) else Result(result)
    lines = experiment.table(rows, config) if hasattr(experiment, "table") else rows
    try:
        figure = experiment.draw(rows, config) if arrays is None else experiment.draw(rows, config, arrays)
    except ImportError as error:
        print(error)
        figure = None
    formats = getattr(experiment, "FORMATS", {})
    columns = {column for line in lines for column in line}
    return report.save_report(
        getattr(config, "name", pathlib.Path(experiment.__file__).stem),
        rows,
        config,
        figure=figure,
        summary=lines,
        formats={column: formats[name] for name in formats for column in fnmatch.filter(columns, name)},
        seconds=None if reused else seconds,
        root=config.root,
    )


def parse(
    config: Config, smoke: Config, description: str | None, *, keep: bool = True, short: bool = False, **others: Config
) -> Config:
    """Read the command-line flags into a configuration.

    Flags such as --smoke select a whole configuration. The other flags change single fields of it.

    Args:
      config: The configuration that runs by default.
      smoke: The configuration of --smoke, which runs in seconds.
      description: The description of the experiment, shown by --help.
      keep: Whether compiled programs are kept for the next run. False for experiments that measure compile time.
      short: Whether compiling takes a large part of a run of `config`, as it does with --smoke.
      **others: Other configurations by the names of their flags, such as `full`, a run of hours or for a GPU.

    Raises:
      ValueError: Two flags select a whole configuration.
      ImportError: Single fields are set, which needs tyro, and tyro is not installed.
    """
    keep_freed_memory()
    keep_compilations(keep)
    flags = sys.argv[1:]
    configurations = {"--smoke": smoke} | {f"--{name}": other for name, other in others.items()}
    chosen = [flag for flag in configurations if flag in flags]
    if len(chosen) > 1:
        raise ValueError(
            f"flags {' and '.join(chosen)} cannot be combined: each selects a whole configuration, so give only one"
        )
    default: Any = configurations[chosen[0]] if chosen else config
    if "--smoke" in chosen and UNOPTIMISED.upper() not in os.environ:
        jax.config.update(UNOPTIMISED, True)
    if "--smoke" in chosen or (short and not chosen):
        compile_faster()
    field_flags = [flag for flag in flags if flag not in configurations]
    try:
        import tyro
    except ImportError:
        if not field_flags:
            return default
        raise ImportError(f"the experiments' command lines need tyro; {how_to_install('experiments')}") from None

    name = getattr(sys.modules["__main__"].__spec__, "name", None)
    note = f"{description or ''}\n--smoke: a run of a few seconds that checks that everything works. Its times mean nothing."
    note += "".join(f"\n--{name}: start from the configuration of that name. Other flags change its fields." for name in others)
    return tyro.cli(type(config), prog=name and f"python -m {name}", default=default, args=field_flags, description=note)
