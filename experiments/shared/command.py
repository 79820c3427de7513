"""The command line that all experiments share: typed flags from a configuration, --smoke for seconds, --full for hours.

An experiment is a module with a docstring, a frozen dataclass `Config`, the configuration `SMOKE` of a run of seconds,
`run(config)` and `draw(rows, config)`. It may have `table(rows, config)` and `FORMATS`. `main` does all else.

What XLA compiles is kept for the next run in ~/.cache/convlab/xla; CONVLAB_CACHE=0 compiles all anew (`keep_compilations`).
With --smoke XLA leaves most optimisations out, as such a run is mostly compiling: its times tell nothing. A short run that
compiles much has XLA compile faster (`compile_faster`).
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
    """What `run` returns where rows are not all that there is to say.

    Attributes:
      rows: Flat rows, which go to table.csv.
      arrays: What `draw` takes after the configuration: pictures or weights that are no rows. If None, it takes nothing more.
      reused: Whether rows of an earlier run were taken, so that the time of this run is not the time that all rows took.
    """

    rows: Rows
    arrays: Any = None
    reused: bool = False


def main(name: str, config: Config, smoke: Config, *, keep: bool = True, short: bool = False, **others: Config) -> None:
    """Run the experiment of a module, by its `__name__`, as the flags of this process ask; all else is as in `parse`."""
    experiment = sys.modules[name]
    report_on(experiment, parse(config, smoke, experiment.__doc__, keep=keep, short=short, **others))


def report_on(experiment: Any, config: Any) -> pathlib.Path:
    """Run an experiment with a configuration, and write its table and figure to the folder that is returned.

    `experiment.run(config)` returns flat rows, or a `Result`. `experiment.draw(rows, config)` returns a figure or None, and
    takes the arrays of a `Result` as a third argument; without matplotlib the report has no figure.
    `experiment.table(rows, config)` returns the lines that are printed and written to table.md. Without it these are the rows.
    `FORMATS` holds format specifications for the columns of that table, by names or by patterns such as `error_at_*`.

    The report is named after the experiment's file, or `config.name` where there is such a name.
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
    """Read the flags of this process over `config`, or over the whole configuration that one of the flags names.

    Args:
      config: The configuration that runs by default.
      smoke: The configuration of a run of seconds, --smoke.
      description: The description of the experiment, for --help.
      keep: Whether what is compiled is kept for the next run; not where compiling is measured.
      short: Whether a run of `config` compiles for a large part of its time, as --smoke does.
      **others: Other configurations by the names of their flags, such as `full`, a run of hours or for a GPU.

    Raises:
      ValueError: There are two flags that name a whole configuration.
      ImportError: There are flags other than these, and tyro, which reads them, is not installed.
    """
    keep_freed_memory()
    keep_compilations(keep)
    flags = sys.argv[1:]
    sizes = {"--smoke": smoke} | {f"--{name}": other for name, other in others.items()}
    asked = [size for size in sizes if size in flags]
    if len(asked) > 1:
        raise ValueError(f"the flags hold {' and '.join(asked)}; needs one of them at most, as each is a whole configuration")
    default: Any = sizes[asked[0]] if asked else config
    if "--smoke" in asked and UNOPTIMISED.upper() not in os.environ:
        jax.config.update(UNOPTIMISED, True)
    if "--smoke" in asked or (short and not asked):
        compile_faster()
    left = [flag for flag in flags if flag not in sizes]
    try:
        import tyro
    except ImportError:
        if not left:
            return default
        raise ImportError(f"the experiments' command lines need tyro; {how_to_install('experiments')}") from None

    name = getattr(sys.modules["__main__"].__spec__, "name", None)
    note = f"{description or ''}\nWith --smoke: a run of seconds that shows that everything works; its times tell nothing."
    note += "".join(f"\nWith --{name}: the whole configuration of that name, and other flags over it." for name in others)
    return tyro.cli(type(config), prog=name and f"python -m {name}", default=default, args=left, description=note)
