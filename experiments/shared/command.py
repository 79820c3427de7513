"""The command line of all experiments: typed flags, --smoke for seconds, --full for hours.

An experiment is a module with a docstring, a frozen dataclass `Config`, a configuration `SMOKE` that runs in seconds, and the
functions `run(config)` and `draw(rows, config)`. It may also define `table(rows, config)` and `FORMATS`. `main` does the rest.

Programs that XLA compiles are kept for the next run in ~/.cache/convlab/xla (see `keep_compilations`). CONVLAB_CACHE=0 turns
this off. With --smoke XLA skips most optimisations, because such a run spends its time compiling; its times mean nothing. A
short run that compiles much makes XLA compile faster (see `compile_faster`).
"""

import dataclasses
import fnmatch
import json
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
from experiments.shared.progress import duration
from experiments.shared.redrawing import read_report
from experiments.shared.settings import Rows, UsageError, usage

Config = TypeVar("Config")
SMOKE_ROOT = "runs/smoke"
SMOKE_MARK = "smoke run: a check that everything works, not a result"
MARK_COLOUR = "#D55E00"
COUNTS = ("seeds", "steps", "epochs", "batch_size", "size", "test_size", "width")


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
    try:
        if "--redraw" in sys.argv[1:]:
            if sys.argv[1] != "--redraw" or len(sys.argv) != 3:
                raise UsageError("--redraw takes the folder of one report and no other flags, as in --redraw runs/ladder")
            folder = pathlib.Path(sys.argv[2])
            rows, recorded, is_smoke = read_report(folder, experiment, config)
            draw(experiment, rows, recorded, None, folder, is_smoke)
            return
        with usage():
            description = f"{experiment.__doc__ or ''}{committed_run(experiment)}"
            chosen: Any = parse(config, smoke, description, keep=keep, short=short, **others)
        report_on(experiment, chosen, smoke="--smoke" in sys.argv[1:])
    except UsageError as error:
        print(f"{name_of_command()}: {error}", file=sys.stderr)
        sys.exit(2)


def report_on(experiment: Any, config: Any, *, smoke: bool = False) -> pathlib.Path:
    """Run an experiment with a configuration, write its table and figure, and return their folder.

    `experiment.run(config)` returns flat rows, or a `Result`. `experiment.draw(rows, config)` returns a figure or None. It
    takes the arrays of a `Result` as a third argument. Without matplotlib the report has no figure.
    `experiment.table(rows, config)` returns the lines that are printed and written to table.md. Without it these are the rows.
    `FORMATS` holds format specifications for the columns of that table, by name or by a pattern such as `error_at_*`.
    `PRINTED` holds the names or patterns of the columns that are printed. Without it all are.

    The report is named `config.name`, or after the experiment's file if the configuration has no name. The name and the folder
    are checked before the run. The rows are written before the table and figure are made. A previous report of another
    configuration or commit is kept under a numbered name, except in the folder of smoke runs.

    Args:
      experiment: The module.
      config: The configuration.
      smoke: Whether this is a smoke run, which the table and the figure then say.

    Raises:
      UsageError: The name or the folder of the report, or a value of the configuration is wrong.
    """
    name = getattr(config, "name", pathlib.Path(experiment.__file__).stem)
    with usage():
        report.report_folder(name, config.root)
        check_counts(config)
    begin = time.perf_counter()
    try:
        result = experiment.run(config)
    except (ValueError, TypeError) as error:
        if str(error).split(" ")[0] in fields_of(config):  # errors about arguments begin with the name
            raise UsageError(str(error)) from error
        raise
    seconds = time.perf_counter() - begin
    rows, arrays, reused = result if isinstance(result, Result) else Result(result)
    keep = {"seconds": None if reused else seconds, "keep_previous": config.root != SMOKE_ROOT}
    folder = report.save_rows(name, rows, config, root=config.root, **keep)
    try:
        draw(experiment, rows, config, arrays, folder, smoke)
    except Exception as error:
        again = f"; draw it again with {name_of_command()} --redraw {folder}" if arrays is None else ""
        error.add_note(f"The rows of the run are kept in {folder / 'table.csv'}. Only the table or the figure failed{again}.")
        raise
    return folder


def draw(experiment: Any, rows: Rows, config: Any, arrays: Any, folder: pathlib.Path, smoke: bool) -> None:
    """Write the table and the figure of a report. The table has the names of the figure's legend."""
    styles = report.RUNG_STYLE | getattr(experiment, "STYLES", {})
    names = {name: style.label for name, style in styles.items()}
    lines = experiment.table(rows, config) if hasattr(experiment, "table") else rows
    lines = [
        {column: names.get(value, value) if isinstance(value, str) else value for column, value in line.items()}
        for line in lines
    ]
    try:
        figure = experiment.draw(rows, config) if arrays is None else experiment.draw(rows, config, arrays)
    except ImportError as error:
        print(error)
        figure = None
    if smoke and figure is not None:
        figure.suptitle("\n".join(filter(None, (SMOKE_MARK, figure.get_suptitle()))), color=MARK_COLOUR, size=14)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    formats, printed = getattr(experiment, "FORMATS", {}), getattr(experiment, "PRINTED", ("*",))
    report.draw_report(
        folder,
        lines,
        figure=figure,
        formats={column: formats[name] for name in formats for column in fnmatch.filter(columns, name)},
        title=f"{folder.name}, {SMOKE_MARK}" if smoke else folder.name,
        columns=[column for column in columns if any(fnmatch.fnmatch(column, name) for name in printed)],
    )


def fields_of(config: Any) -> list[str]:
    """Return the names of the fields of a configuration, which are its flags."""
    return [field.name for field in dataclasses.fields(config)]


def check_counts(config: Any) -> None:
    """Check that numbers of seeds, steps, epochs and images are positive.

    Raises:
      ValueError: One is not.
    """
    for name in {*COUNTS} & {*fields_of(config)}:
        value = getattr(config, name)
        if any(not number > 0 for number in (value if isinstance(value, tuple) else (value,)) if number is not None):
            raise ValueError(f"{name} must be above 0, got {value}")


def committed_run(experiment: Any) -> str:
    """Return a sentence about the time of the run in experiments/results, for --help."""
    path = pathlib.Path(experiment.__file__).parent / "results" / pathlib.Path(experiment.__file__).stem / "provenance.json"
    try:
        record = json.loads(path.read_text("utf-8"))
        time_of = f"took {duration(record['seconds'])}" if record["seconds"] else "reused earlier runs, so its time is unknown"
        return f"\nThe run in experiments/results {time_of} on {record['cores']} cores: {record['command']}\n"
    except (OSError, ValueError, KeyError):
        return ""


def name_of_command() -> str:
    """Return the name of the experiment's command."""
    name = getattr(sys.modules["__main__"].__spec__, "name", None)
    return f"python -m {name}" if name else pathlib.PurePath(sys.argv[0]).name


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
    if getattr(smoke, "root", None) == getattr(config, "root", None):
        smoke = dataclasses.replace(smoke, root=SMOKE_ROOT)  # pyright: ignore[reportArgumentType]
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

    note = f"{description or ''}\n--smoke: a run of a few seconds that checks that everything works, into {SMOKE_ROOT}/."
    note += " Its numbers mean nothing.\n--redraw FOLDER: draw the table and figure of an earlier report again, without a run."
    note += "".join(f"\n--{name}: start from the configuration of that name. Other flags change its fields." for name in others)
    return tyro.cli(type(config), prog=name_of_command(), default=default, args=field_flags, description=note)
