"""The report of an experiment: one folder with its table, figure, configuration and provenance."""

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
    """Write the files of a report into `root/experiment/`, and print its table and the folder.

    All files are written elsewhere first and then moved into place: an error on the way leaves the previous report as
    it was, and its picture does not stay beside a new report without one. Other files are left alone.

    Args:
      experiment: Names the folder and the printed table.
      rows: One flat row per run; all of them go to table.csv, unrounded.
      config: A dataclass or mapping.
      figure: Goes to figure.png.
      summary: The rows to print and to write to table.md; `rows` when absent.
      formats: Format specifications for columns of that table, e.g. {"accuracy": ".1%"}.
      seconds: How long the experiment took.
      root: The folder of all reports.

    Returns:
      The folder of this report.

    Raises:
      ValueError: There are no rows, a row holds an array, or `experiment` is not the name of one folder.
      TypeError: `config` is neither a dataclass nor a mapping.
      ImportError: matplotlib or rich is not installed; without rich, the files are there all the same.

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
    folder.mkdir(exist_ok=True)
    for name in FILES:
        if (draft / name).exists():
            (draft / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _fields(config: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    if isinstance(config, Mapping):
        return dict(config)
    raise TypeError(f"config is a {type(config).__name__} but a dataclass or a mapping is needed")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, default=_plain_json, ensure_ascii=False) + "\n"


def _plain_json(value: Any) -> Any:
    """What JSON has no word for: arrays as lists, paths as text, functions and types by name."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, pathlib.PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return _fields(value)
    return getattr(value, "__name__", None) or str(value)
