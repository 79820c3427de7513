"""The report of an experiment: a folder with its table, figure, configuration and provenance."""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convlab.report.drawing import save_figure
from convlab.report.provenance import provenance
from convlab.report.rows import Row
from convlab.report.table import print_table, to_csv, to_markdown, to_table

if TYPE_CHECKING:
    import matplotlib.figure

FILES = ("table.md", "table.csv", "config.json", "provenance.json", "figure.png")


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
      ValueError: There are no rows, a row holds an array, or `experiment` is not the name of one folder.
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
    if experiment in ("", ".", "..") or pathlib.PurePath(experiment).name != experiment:
        raise ValueError(f"experiment must name one folder inside root, got {experiment!r}")
    if not rows:
        raise ValueError(f"rows is empty: a report of {experiment} needs at least one row")
    table = to_table(rows if summary is None else summary, formats)
    texts = {"table.md": to_markdown(table), "table.csv": to_csv(rows), "config.json": _json(_fields(config))}
    folder = pathlib.Path(root, experiment)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = pathlib.Path(temporary)
        for name, text in (texts | {"provenance.json": _json(provenance(seconds))}).items():
            (draft / name).write_text(text, encoding="utf-8", newline="\n")
        if figure is not None:
            save_figure(figure, draft / "figure.png")
        _move(draft, folder)
    print_table(experiment, table)
    print(f"written to {folder}{os.sep}")
    return folder


def _move(draft: pathlib.Path, folder: pathlib.Path) -> None:
    """Move the files of a report into its folder, deleting files of the previous report that it lacks."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        if (draft / name).exists():
            (draft / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


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
