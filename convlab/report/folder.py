"""The report of an experiment: a folder with its table, figure, configuration and provenance."""

import dataclasses
import itertools
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convlab import check
from convlab.report.arguments import check_arguments
from convlab.report.drawing import save_figure
from convlab.report.provenance import provenance
from convlab.report.rows import Row
from convlab.report.table import Table, print_table, to_csv, to_markdown, to_table

if TYPE_CHECKING:
    import matplotlib.figure

FILES = ("table.md", "table.csv", "config.json", "provenance.json", "figure.png")
COLUMNS = 80
"""The width of printed tables without a terminal, in characters."""


def save_report(
    experiment: str,
    rows: Sequence[Row],
    config: Any,
    *,
    figure: "matplotlib.figure.Figure | None" = None,
    summary: Sequence[Row] | None = None,
    formats: Mapping[str, str] | None = None,
    seconds: float | None = None,
    root: str | os.PathLike[str] = "runs",
) -> pathlib.Path:
    """Write the files of a report into `root/experiment/`, and print its table.

    All files are written to a temporary folder first and then moved. If an error occurs, the previous report is unchanged. A
    report without a figure deletes the previous figure. Other files in the folder are unchanged.

    Args:
      experiment: The name of the folder, which is also the title of the printed table.
      rows: The results, one flat row per run. All rows are written to table.csv, unrounded.
      config: The configuration, a dataclass or a mapping.
      figure: The figure to write to figure.png.
      summary: The rows to print and to write to table.md. If None, `rows`.
      formats: The format specifications for columns of table.md, e.g. {"accuracy": ".1%"}.
      seconds: The duration of the experiment in seconds.
      root: The folder of all reports.

    Returns:
      The folder of this report.

    Raises:
      ValueError: There are no rows, a row holds an array, `experiment` is not the name of one folder, or the folder cannot be
        written.
      TypeError: `config` is neither a dataclass nor a mapping.
      ImportError: matplotlib or rich is not installed. Without rich the files are written nevertheless.

    Example:
      >>> import contextlib, io
      >>> with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
      ...     folder = save_report("ladder", [{"rung": "conv", "accuracy": 0.93}], {"steps": 100}, root=root)
      ...     names = sorted(path.name for path in folder.iterdir())
      >>> names
      ['config.json', 'provenance.json', 'table.csv', 'table.md']
    """
    check_arguments(figure=figure, formats=formats, **({} if summary is None else {"summary": summary}))
    texts = _texts(experiment, rows, config, seconds)
    table = to_table(rows if summary is None else summary, formats)
    folder = report_folder(experiment, root)
    _write(folder, texts | {"table.md": to_markdown(table)}, figure)
    _print(experiment, table, folder)
    return folder


def save_rows(
    experiment: str,
    rows: Sequence[Row],
    config: Any,
    *,
    seconds: float | None = None,
    root: str | os.PathLike[str] = "runs",
    keep_previous: bool = False,
) -> pathlib.Path:
    """Write the rows, configuration and provenance of a report, before its table and figure are drawn.

    `draw_report` adds them.

    Args:
      experiment: The name of the folder.
      rows: The results, one flat row per run.
      config: The configuration, a dataclass or a mapping.
      seconds: The duration of the experiment in seconds.
      root: The folder of all reports.
      keep_previous: Whether to rename the folder of a previous report, e.g. to ladder.1. A report of the same configuration and
        commit, without changed files, is replaced.

    Returns:
      The folder of this report.

    Raises:
      ValueError: As for `save_report`.
      TypeError: As for `save_report`.
    """
    check_arguments(keep_previous=keep_previous)
    texts = _texts(experiment, rows, config, seconds)
    folder = report_folder(experiment, root)
    if keep_previous and (folder / "table.csv").exists() and not _is_repeated(folder, texts):
        kept = next(path for n in itertools.count(1) if not (path := folder.with_name(f"{folder.name}.{n}")).exists())
        folder.rename(kept)
        print(f"the previous report is kept in {kept}{os.sep}")
    _write(folder, texts, None)
    return folder


def draw_report(
    folder: str | os.PathLike[str],
    summary: Sequence[Row],
    *,
    figure: "matplotlib.figure.Figure | None" = None,
    formats: Mapping[str, str] | None = None,
    title: str | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Write the table and figure of a report whose rows are saved, and print the table.

    Args:
      folder: The folder, as from `save_rows`.
      summary: The rows to print and to write to table.md.
      figure: The figure to write to figure.png.
      formats: The format specifications for columns, e.g. {"accuracy": ".1%"}.
      title: The title of the printed table. If None, the name of the folder.
      columns: The columns to print. If None, all.

    Raises:
      ValueError: There are no rows, a row holds an array, or no row has one of `columns`.
      TypeError: An argument has the wrong type.
      ImportError: matplotlib or rich is not installed.
    """
    check_arguments(folder=folder, summary=summary, figure=figure, formats=formats, columns=columns)
    folder, formats = pathlib.Path(folder), formats or {}
    title = folder.name if title is None else check.text("title", title)
    if columns is not None and not any(name in row for name in columns for row in summary):
        raise ValueError(f"columns must hold columns of summary, got {list(columns)}")
    table = to_table(summary, formats)
    _write(folder, {"table.md": to_markdown(table)}, figure, replaced=("table.md", "figure.png"))
    if columns is not None:
        ends = {f"{name}_{end}" for name in columns for end in ("low", "high")}
        shown = [{name: row[name] for name in row if name in (*columns, *ends)} for row in summary]
        table = to_table(shown, {name: formats[name] for name in formats if name in columns})
    _print(title, table, folder)


def report_folder(experiment: str, root: str | os.PathLike[str] = "runs") -> pathlib.Path:
    """Return the folder of a report, and check that it can be written.

    The folder of all reports is created. Call this before a long run, so that the run does not end in an error.

    Args:
      experiment: The name of the folder.
      root: The folder of all reports.

    Raises:
      ValueError: `experiment` is not the name of one folder, or `root` cannot be written.
    """
    check_arguments(root=root)
    is_name = pathlib.PurePath(check.text("experiment", experiment)).name == experiment and "\0" not in experiment
    if not is_name or experiment in ("", ".."):
        raise ValueError(f"experiment must name one folder inside root, got {experiment!r}")
    folder = pathlib.Path(root, experiment)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder if folder.exists() else folder.parent, prefix=f".{folder.name}-"):
            return folder
    except OSError as error:
        raise ValueError(f"root must be a folder that can be written, got {str(root)!r}: {error}") from None


def _texts(experiment: str, rows: Sequence[Row], config: Any, seconds: float | None) -> dict[str, str]:
    """Return the texts of the files that need no table."""
    if not check.sequence("rows", rows, "rows"):
        raise ValueError(f"rows is empty: a report of {experiment} needs at least one row")
    check_arguments(rows=rows)
    return {
        "table.csv": to_csv(rows),
        "config.json": _json(_fields(config)),
        "provenance.json": _json(provenance(seconds)),
    }


def _is_repeated(folder: pathlib.Path, texts: Mapping[str, str]) -> bool:
    """Return True if a report has the same configuration and commit, and no files were changed."""
    try:
        config = (folder / "config.json").read_text("utf-8")
        before, now = json.loads((folder / "provenance.json").read_text("utf-8")), json.loads(texts["provenance.json"])
    except (OSError, ValueError):
        return False
    commits = [(record.get("git_commit"), record.get("git_dirty")) for record in (before, now)]
    return config == texts["config.json"] and commits[0] == commits[1] and commits[0][0] and commits[0][1] is False


def _write(
    folder: pathlib.Path,
    texts: Mapping[str, str],
    figure: "matplotlib.figure.Figure | None",
    replaced: Sequence[str] = FILES,
) -> None:
    """Write files into a folder, all or none, and delete those of `replaced` that are not written."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = pathlib.Path(temporary)
        for name, text in texts.items():
            (draft / name).write_text(text, encoding="utf-8", newline="\n")
        if figure is not None:
            save_figure(figure, draft / "figure.png")
        folder.mkdir(exist_ok=True)
        for name in replaced:
            if (draft / name).exists():
                (draft / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def _print(title: str, table: Table, folder: pathlib.Path) -> None:
    """Print a table as wide as the terminal, or with 80 characters, and the folder."""
    print_table(title, table, width=None if sys.stdout.isatty() else COLUMNS)
    print(f"written to {folder}{os.sep}")


def _fields(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or the items of a mapping."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    if isinstance(config, Mapping):
        return dict(config)
    raise TypeError(f"config is a {type(config).__name__}; needs a dataclass or a mapping")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, default=_plain_json, ensure_ascii=False) + "\n"


def _plain_json(value: Any) -> Any:
    """Convert a value for JSON: arrays to lists, paths to text, functions and types to their names."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, pathlib.PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return _fields(value)
    return getattr(value, "__name__", None) or str(value)
