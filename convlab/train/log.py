"""What a run tells while it trains, in files: lines to follow, a table, scalars for TensorBoard, and a picture at the end."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convlab.extras import require
from convlab.report import new_figure, training_curves
from convlab.report.drawing import save_figure
from convlab.report.rows import plain
from convlab.report.table import to_csv
from convlab.train.mesh import is_first

EVENTS = "events.out.tfevents.*.convlab"  # files of TensorBoard that were written here


@dataclasses.dataclass(frozen=True)
class Log:
    """Where a run tells how it goes: every row of its history, as soon as it is known.

    The folder then holds history.jsonl (one line a row, appended), history.csv (the same as a table), tensorboard/ (for
    `tensorboard --logdir`) and, once the run has ended or was stopped, curves.png; the picture is left out, without a word,
    where matplotlib is not installed. A run that goes on from a checkpoint writes them anew from the history that it has, so
    that no row is there twice or missing; one that starts afresh takes the place of another's. What cannot be written, as on
    a full disk, does not stop the run: it warns once, and writes all that is missing as soon as it can. Of several processes
    that train together the first one writes.

    Args:
      folder: Of this run alone; made where it is absent.
      tensorboard: Write for TensorBoard, through tensorboardX; None: where that is installed.

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

    def writer(self) -> "Writer":
        """Make what writes the log of one run; it touches no file yet.

        Raises:
          ImportError: `tensorboard` is True and tensorboardX is not installed.
        """
        return Writer(self)


class Writer:
    """Writes the log of one run: a context, which draws its picture at the end.

    Raises:
      ImportError: TensorBoard is asked for and tensorboardX is not installed.
    """

    def __init__(self, log: Log):
        self.folder = pathlib.Path(log.folder).expanduser().absolute()
        self.rows: list[dict[str, Any]] = []
        self.scalars = _scalars(self.folder / "tensorboard", log.tensorboard)
        self.whole = False  # whether the files hold all rows
        self.warned = False

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.rows and not self.whole:
            self._write()
        with self._going_on():
            if self.scalars is not None:
                self.scalars.close()
        with self._going_on():
            self._draw()

    def start(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the files anew, from the history that a run has when it starts or goes on.

        Raises:
          ValueError: A row holds an array.
        """
        self.rows, self.whole = [_plain(row) for row in history], False
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one more row; it may have columns that no row had before.

        Raises:
          ValueError: The row holds an array.
        """
        self.rows.append(_plain(row))
        self._write()

    def _write(self) -> None:
        """Append the last row, or write all anew where some are missing."""
        if not is_first():
            return
        append, self.whole = self.whole, False
        with self._going_on():
            self.folder.mkdir(parents=True, exist_ok=True)
            if append:
                with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self.rows[-1]) + "\n")
            else:
                (self.folder / "curves.png").unlink(missing_ok=True)
                _write(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
            _write(self.folder / "history.csv", to_csv(self.rows) if self.rows else "")
            if self.scalars is not None:
                self.scalars.write(self.rows, append)
            self.whole = True

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
    def _going_on(self) -> Iterator[None]:
        """Make of every error a warning, once: a log is not worth a run."""
        try:
            yield
        except Exception as error:
            if not self.warned:
                warnings.warn(f"the log in {self.folder} could not be written, training goes on: {error!r}", stacklevel=4)
            self.warned = True


class Scalars:
    """Rows as TensorBoard reads them, on disk at once.

    The writer that tensorboardX offers hands them to a thread: on a full disk that ends, and the run would wait for it.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.begin = folder, 0.0
        self.file: Any = None
        self.open = require("tensorboardX.event_file_writer", "tensorboard").EventsWriter
        self.event = require("tensorboardX.proto.event_pb2", "tensorboard").Event
        self.scalar = require("tensorboardX.summary", "tensorboard").scalar

    def write(self, rows: Sequence[Mapping[str, Any]], append: bool) -> None:
        """Append the last row, or write all to a new file, in the place of those that were written before."""
        before = [] if append else [*self.folder.glob(EVENTS)]
        if not append:
            self.close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = self.open(str(self.folder / "events"), f".{time.time_ns()}.convlab")
            self.begin = time.time() - (rows[-1].get("seconds", 0.0) if rows else 0.0)
        for row in rows[-1:] if append else rows:
            self._write(row)
        self.file.flush()
        for path in before:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file that is open."""
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        when = self.begin + row["seconds"] if "seconds" in row else time.time()
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                summary = self.scalar(_tag(name), value)
                self.file.write_event(self.event(wall_time=when, step=int(row.get("step", 0)), summary=summary))


def _scalars(folder: pathlib.Path, wanted: bool | None) -> Scalars | None:
    try:
        return None if wanted is False else Scalars(folder)
    except ImportError:
        if wanted:
            raise
        return None


def _tag(name: str) -> str:
    """What TensorBoard calls a column: the quantity, which makes the panels, then the set of images."""
    split, _, quantity = name.rpartition("_")
    if split in ("test", "validation"):
        return f"{quantity}/{split}"
    return f"{name}/training" if name in ("loss", "accuracy") else name


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(name, value) for name, value in row.items()}


def _write(path: pathlib.Path, text: str) -> None:
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield where to write a file, so that it is always whole: the old one or the new one."""
    part = path.with_name(f".{path.name}.incomplete")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
