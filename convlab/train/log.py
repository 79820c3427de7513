"""Log files of a run: JSON lines, a CSV table, TensorBoard scalars, and a plot at the end."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convlab import check
from convlab.data import disk
from convlab.display import fields_html, image_html
from convlab.extras import require
from convlab.report import new_figure, training_curves
from convlab.report.drawing import save_figure
from convlab.report.rows import columns as list_columns
from convlab.report.rows import to_python_scalar
from convlab.report.table import to_csv
from convlab.train.mesh import is_first

FLUSH_SECONDS = 1.0
EVENTS = "events.out.tfevents.*.convlab"  # the TensorBoard files that this module writes


@dataclasses.dataclass(frozen=True)
class Log:
    """Options for logging a run: the folder for its history and the use of TensorBoard.

    Pass them to `fit` as `log`. Each row of the history is written immediately. The folder holds history.jsonl (one appended
    line per row), history.csv (the same as a table) and tensorboard/ (for `tensorboard --logdir`), which is flushed at most
    once a second. Rows are appended to the table, which is rewritten only for a new column. When the run ends or is stopped,
    curves.png is added if matplotlib is installed.

    A run that resumes from a checkpoint rewrites the files from its history, so no row is repeated or missing. A new run
    replaces the log of an earlier run. A failed write, as on a full disk, does not stop the run. It warns once, and the missing
    rows are written as soon as possible. Among several processes that train together, only the first one writes.

    Args:
      folder: The folder of this run alone. It is created if it does not exist.
      tensorboard: Whether to write files for TensorBoard with tensorboardX. If None, only if tensorboardX is installed.

    Raises:
      TypeError: An argument has the wrong type.
      ValueError: `folder` is an empty text.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with Log(folder, tensorboard=False).writer() as writer:
      ...         writer.add({"step": 10, "seconds": 1.5, "loss": 0.7, "test_loss": 0.8, "test_accuracy": 0.6})
      ...     print(pathlib.Path(folder, "history.csv").read_text(), end="")
      step,seconds,loss,test_loss,test_accuracy
      10,1.5,0.7,0.8,0.6
    """

    folder: str | os.PathLike[str]
    tensorboard: bool | None = None

    def __post_init__(self):
        disk.as_folder("folder", self.folder)
        if self.tensorboard is not None:
            check.instance("tensorboard", self.tensorboard, (bool, np.bool_), "True, False or None")

    def _repr_html_(self) -> str:
        """Return the options, and the curves of the log if it has some. Notebooks call it."""
        curves = disk.as_folder("folder", self.folder) / "curves.png"
        return fields_html(self) + (image_html(curves.read_bytes(), "the curves of the log") if curves.is_file() else "")

    def writer(self) -> "LogWriter":
        """Make the writer for the log of one run.

        This call writes no file yet.

        Raises:
          ImportError: `tensorboard` is True and tensorboardX is not installed.
        """
        return LogWriter(self)


class LogWriter:
    """Context manager that writes the log of one run and plots its curves at the end.

    Raises:
      ImportError: `tensorboard` is True and tensorboardX is not installed.
    """

    def __init__(self, log: Log):
        self.folder = disk.as_folder("folder", log.folder)
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []  # those of history.csv
        self.tensorboard = _make_tensorboard_writer(self.folder / "tensorboard", log.tensorboard)
        self.complete = False  # whether the files hold all rows
        self.warned = False

    def __repr__(self) -> str:
        return f"LogWriter({str(self.folder)!r}, {len(self.rows)} rows)"

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.rows and not self.complete:
            self._write()
        with self._warn_once():
            if self.tensorboard is not None:
                self.tensorboard.close()
        with self._warn_once():
            self._draw()

    def start(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Rewrite the files from the history that a run has when it starts or resumes.

        Args:
          history: The rows so far.

        Raises:
          ValueError: A row holds an array.
        """
        self.rows, self.complete = [_plain(row) for row in history], False
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row to the files.

        Args:
          row: The values by column name. It may have new columns.

        Raises:
          ValueError: The row holds an array.
        """
        self.rows.append(_plain(row))
        self._write()

    def _write(self) -> None:
        """Append the last row, or rewrite the files if rows are missing."""
        if not is_first():
            return
        append, self.complete = self.complete, False
        with self._warn_once():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not append:
                (self.folder / "curves.png").unlink(missing_ok=True)
            write, rows = (_append, self.rows[-1:]) if append else (_write, self.rows)
            write(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            self._write_table(append)
            if self.tensorboard is not None:
                self.tensorboard.write(self.rows, append)
            self.complete = True

    def _write_table(self, append: bool) -> None:
        """Append the last row to the table, or rewrite the table if rows or columns are missing."""
        path, columns = self.folder / "history.csv", list_columns(self.rows[-1:])
        if append and {*columns} <= {*self.columns}:
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow([self.rows[-1].get(name) for name in self.columns])
            _append(path, line.getvalue())
        else:
            _write(path, to_csv(self.rows) if self.rows else "")
            self.columns = list_columns(self.rows)

    def _draw(self) -> None:
        if not self.rows or not is_first():
            return
        try:
            figure, axes = new_figure(2)
        except ImportError:
            return
        training_curves(axes, self.rows)
        with _replacing(self.folder / "curves.png") as part:
            save_figure(figure, part)

    @contextlib.contextmanager
    def _warn_once(self) -> Iterator[None]:
        """Turn errors into a single warning, since a failed log must not end a run."""
        try:
            yield
        except Exception as error:
            if not self.warned:
                warnings.warn(f"the log in {self.folder} could not be written; training continues: {error!r}", stacklevel=4)
            self.warned = True


class TensorBoardWriter:
    """Writer of TensorBoard event files without a thread.

    It flushes the files to the disk at most once a second, and when it is closed. The writer of tensorboardX passes rows to a
    thread. On a full disk this thread ends, and the run would wait for it.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.begin, self.flushed = folder, 0.0, 0.0
        self.file: Any = None
        self.open = require("tensorboardX.event_file_writer", "tensorboard").EventsWriter
        self.event = require("tensorboardX.proto.event_pb2", "tensorboard").Event
        self.scalar = require("tensorboardX.summary", "tensorboard").scalar

    def write(self, rows: Sequence[Mapping[str, Any]], append: bool) -> None:
        """Append the last row, or write all rows to a new file that replaces the earlier ones."""
        before = [] if append else [*self.folder.glob(EVENTS)]
        if not append:
            self.close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = self.open(str(self.folder / "events"), f".{time.time_ns()}.convlab")
            self.begin = time.time() - (rows[-1].get("seconds", 0.0) if rows else 0.0)
        for row in rows[-1:] if append else rows:
            self._write(row)
        if not append or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.file.flush()  # waits for the disk
            self.flushed = time.monotonic()
        for path in before:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the open file, if any."""
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        wall_time = self.begin + row["seconds"] if "seconds" in row else time.time()
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                summary = self.scalar(_tag(name), value)
                self.file.write_event(self.event(wall_time=wall_time, step=int(row.get("step", 0)), summary=summary))


def _make_tensorboard_writer(folder: pathlib.Path, tensorboard: bool | None) -> TensorBoardWriter | None:
    try:
        return TensorBoardWriter(folder) if tensorboard is None or tensorboard else None
    except ImportError:
        if tensorboard:
            raise
        return None


def _tag(name: str) -> str:
    """Return the TensorBoard tag of a column.

    The tag is the quantity, shown as a panel, followed by the split.
    """
    split, _, quantity = name.rpartition("_")
    if split in ("test", "validation"):
        return f"{quantity}/{split}"
    return f"{name}/training" if name in ("loss", "accuracy") else name


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_python_scalar(name, value) for name, value in row.items()}


def _append(path: pathlib.Path, text: str) -> None:
    """Append lines to a file in one call of the system, so that a kill leaves no part of a line."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _write(path: pathlib.Path, text: str) -> None:
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary path that replaces a file at the end, to never leave a partial file."""
    part = path.with_name(f".{path.name}.incomplete")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
