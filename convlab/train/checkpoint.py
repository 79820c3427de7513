"""Checkpoints that let an interrupted run resume exactly where it stopped.

A checkpoint is a folder named after its step. It holds the arrays, written by Orbax, and `run.json` with the configuration, the
history, and the path, shape and dtype of every array. Checksums cover all files, and a run resumes only from a checkpoint that
passes them. A background thread writes the folder inside the private folder `.convlab`, flushes it to the disk, and renames
it at the end.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convlab import check
from convlab.choices import one_of
from convlab.data import DamagedError, disk
from convlab.display import fields_html
from convlab.extras import require
from convlab.geometry import as_integer
from convlab.report import provenance
from convlab.train.array_files import key_data, read_arrays, write_arrays
from convlab.train.identity import VERSION, differences
from convlab.train.mesh import is_first
from convlab.train.step import State, Tree, leaves_by_path, map_key_data

BEST_PREFIX = ".best"  # prefix of the paths of the best parameters
PARTS = "arrays", "run.json", disk.MANIFEST  # the contents of a checkpoint
SECONDS = 60.0  # the least time between saves, if the interval is not given
SHARE = 0.01  # the largest share of a run's time for saving, if the interval is not given
ON_WRITE_ERROR = "warn", "raise"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Options for saving a run: the folder, the intervals and the number of checkpoints to keep.

    The run is saved by time, by steps or both, at its end, and when SIGTERM or Ctrl-C stops it. By default it is saved every 60
    seconds. If a save takes over 0.6 seconds, the run is saved every 100 times as long as the last save took. Saving then
    costs less than 1 % of the run, although a thread writes while the run continues.

    Training after the last complete save is lost and repeated on resuming:

    - SIGTERM and Ctrl-C lose nothing. The run is saved after the current step, and then the process ends.
    - A kill (SIGKILL, or the system is out of memory) loses the steps since the last complete save. By default these are at
      most the steps of 60 seconds, or of 100 times the duration of a save if that is longer, and of one save.
    - A power failure loses no more than a kill, if the disk keeps what it has confirmed. A checkpoint replaces earlier ones
      only after it was flushed to the disk.
    - A full disk loses the checkpoint that could not be written. Earlier ones stay.

    A run resumes only if it is the same run. Its model, data, configuration and augmentation are compared with the saved
    ones. So is the use of a custom optimizer, but not the numbers inside a custom optimizer or a function.

    A finished run continues if it is called again with more `epochs` or `steps`. From its last step on it follows the schedule
    and the evaluation steps of the new total, and its history grows. Its result differs from that of a run that had the new
    total from the start, unless the learning rate is constant. A run that its `patience` has ended stays ended. An
    unfinished run resumes only with its own total, and no run continues with fewer steps.

    Processes that train together save at the same steps, which the first process chooses by its clock.

    Args:
      folder: The folder of this run alone. If it holds checkpoints, the run resumes from the last intact one. Other files and
        folders in it are never changed. The folder `.convlab` inside holds a lock and incomplete checkpoints.
      every_steps: The number of steps between saves. If None, the run is saved by time alone.
      every_seconds: The number of seconds between saves. If None, 60, or 100 times the duration of the last save if that is
        longer. If `math.inf`, the run is saved by steps alone.
      max_to_keep: The number of latest checkpoints to keep. If the data have a validation split, the checkpoint with the best
        validation accuracy is kept as well.
      on_write_error: The reaction when a checkpoint cannot be written, as on a full disk: "warn" warns and continues training,
        "raise" raises the error. Earlier checkpoints stay in either case.

    Raises:
      ValueError: A value is out of range or unknown, or `folder` is an empty text.
      TypeError: A value has the wrong type.
    """

    folder: str | os.PathLike[str]
    every_steps: int | None = None
    every_seconds: float | None = None
    max_to_keep: int = 2
    on_write_error: str = "warn"

    _repr_html_ = fields_html

    def __post_init__(self):
        disk.as_folder("folder", self.folder)
        if self.every_steps is not None:
            as_integer("every_steps", self.every_steps, 1)
        if self.every_seconds is not None and not check.number("every_seconds", self.every_seconds) > 0:
            raise ValueError(f"every_seconds must be above 0, got {self.every_seconds}")
        as_integer("max_to_keep", self.max_to_keep, 1)
        one_of("on_write_error", self.on_write_error, ON_WRITE_ERROR)


def validation_score(row: Mapping[str, float]) -> float:
    """Return the score of a row that selects the best parameters, never one on the test images: higher is better.

    It is the validation accuracy, or the negative validation loss if there are no classes.
    """
    return row["validation_accuracy"] if "validation_accuracy" in row else -row["validation_loss"]


class Snapshot(NamedTuple):
    """The contents of a checkpoint: the state of a run and the records of its training loop."""

    state: State
    history: list[dict[str, float]]
    losses: list[float]
    seconds: float
    best: Tree = None  # parameters and model state with the best score, if the configuration sets `patience`

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays by their paths."""
        return leaves_by_path(self.state) | {BEST_PREFIX + path: leaf for path, leaf in leaves_by_path(self.best).items()}


class CheckpointManager:
    """Context manager that saves and restores one run, and locks its folder."""

    def __init__(self, checkpoints: Checkpoints, identity: dict[str, Any]):
        self.checkpoints, self.identity = checkpoints, identity
        self.root = disk.as_folder("folder", checkpoints.folder)
        self.private = self.root / ".convlab"
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writing: concurrent.futures.Future | None = None
        self.begin, self.duration = time.monotonic(), 0.0  # when the last save began, and how long it took

    def __enter__(self) -> "CheckpointManager":
        filelock = require("filelock")
        self.private.mkdir(parents=True, exist_ok=True)
        self.lock = filelock.FileLock(self.private / "lock")
        if is_first():
            try:
                self.lock.acquire(timeout=0)
            except filelock.Timeout:
                raise ValueError(
                    f"checkpoints folder {self.root} is in use by another process; each run needs a folder of its own"
                ) from None
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self.wait_until_finished()
        except OSError:
            if kind is None:
                raise
        finally:
            self.thread.shutdown()
            self.lock.release()

    def restore_latest(self, fresh: Snapshot) -> Snapshot | None:
        """Restore the latest intact checkpoint in the tree structure of a new run.

        Args:
          fresh: The snapshot of the run before its first step.

        Returns:
          The saved snapshot, or None if there is no checkpoint yet.

        Raises:
          DamagedError: There are checkpoints, but all are damaged.
          ValueError: The latest intact checkpoint belongs to another run. The model, data, configuration, optimizer or
            augmentation differs.
        """
        damaged = []
        for step in sorted(_steps(self.root), reverse=True):
            folder = self.root / str(step)
            try:
                disk.verify_folder(folder)
            except DamagedError as error:
                damaged.append((folder, str(error)))
                continue
            run = self._read(folder, fresh)
            for path, reason in damaged:
                warnings.warn(f"a checkpoint is damaged, so the run resumes from step {step}: {reason}", stacklevel=3)
                if is_first():
                    path.rename(_damaged_name(path))  # so that it does not count among the checkpoints to keep
            return run
        if damaged:
            raise DamagedError(
                f"checkpoints folder {self.root} holds {len(damaged)} checkpoints, but all are damaged ({damaged[0][1]});"
                " a new run does not overwrite them: move them away or pass another folder"
            )
        return None

    @property
    def is_due(self) -> bool:
        """Whether the time between saves has passed and the last write has ended."""
        interval = self.checkpoints.every_seconds
        if interval is None:
            interval = max(SECONDS, self.duration / SHARE)
        is_writing = self.writing is not None and not self.writing.done()
        return not is_writing and time.monotonic() - self.begin >= interval

    def save(self, run: Snapshot, finished: bool) -> None:
        """Copy a run's arrays and write them in the background, once the previous write has ended.

        Args:
          run: The contents of the checkpoint.
          finished: Whether the run takes no more steps.

        Raises:
          OSError: The previous checkpoint could not be written, and `on_write_error` is "raise".
        """
        self.begin = time.monotonic()
        self.wait_until_finished()
        if is_first():
            arrays = {path: np.array(key_data(leaf)) for path, leaf in run.arrays.items()}
            leaves = [[path, list(array.shape), str(array.dtype)] for path, array in arrays.items()]
            record = {**self.identity, "leaves": leaves, "history": run.history, "losses": run.losses, "seconds": run.seconds}
            self.writing = self.thread.submit(self._write, int(run.state.step), arrays, {**record, "finished": finished})

    def describe_latest(self) -> str:
        """Describe the latest checkpoint in a clause for error messages."""
        self.wait_until_finished()
        steps = _steps(self.root)
        if not steps:
            return f"no checkpoint was written to {self.root} yet"
        return f"the last checkpoint is {self.root / str(max(steps))}"

    def wait_until_finished(self) -> None:
        """Wait until the current write has ended.

        Raises:
          OSError: The checkpoint could not be written, and `on_write_error` is "raise".
        """
        writing, self.writing = self.writing, None
        try:
            if writing is not None:
                writing.result()
        except OSError as error:
            if self.checkpoints.on_write_error == "raise":
                raise OSError(
                    f"a checkpoint could not be written to {self.root}; earlier checkpoints are intact: {error}"
                ) from error
            warnings.warn(f"a checkpoint could not be written to {self.root}; training continues: {error}", stacklevel=3)

    def _write(self, step: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        folder = self.root / str(step)
        for path in self.private.iterdir():  # left by a process that was killed
            if path.name != "lock":
                shutil.rmtree(path, ignore_errors=True)
        if _is_checkpoint(folder):
            self._remove(step)  # written before the run resumed from an earlier step
        elif folder.exists():
            raise FileExistsError(f"{folder} exists and is not a checkpoint")
        with disk.atomic_folder(folder, self.private / f"{step}.incomplete") as part:
            write_arrays(part / "arrays", arrays)
            (part / "run.json").write_text(json.dumps({**record, "provenance": provenance()}))
        self.duration = time.monotonic() - self.begin
        try:
            self._prune()
        except OSError as error:
            warnings.warn(f"old checkpoints in {self.root} could not be removed: {error}", stacklevel=2)

    def _remove(self, step: int) -> None:
        disk.remove_folder(self.root / str(step), self.private / f"{step}.removed")

    def _prune(self) -> None:
        best = self._best()
        for old in sorted(_steps(self.root))[: -self.checkpoints.max_to_keep]:
            if old != best:
                self._remove(old)

    def _best(self) -> int | None:
        scores = {}
        for step in _steps(self.root):
            try:
                row = json.loads((self.root / str(step) / "run.json").read_text())["history"][-1]
                if row["step"] == step:
                    scores[step] = validation_score(row)
            except (OSError, ValueError, TypeError, LookupError):  # not scored at this step, or damaged since
                continue
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def _why_steps_differ(self, step: int, record: Mapping[str, Any]) -> str:
        """Say how a run can get the number of steps that was asked for."""
        if record["finished"]:
            return f" in total; the saved run is finished at step {step}, and continues only with at least as many"
        return (
            f" in total; the saved run stopped at step {step} of {record['steps']}: finish it first, with"
            f" Config(steps={record['steps']}, ...), then call fit again with more steps"
        )

    def _read(self, folder: pathlib.Path, fresh: Snapshot) -> Snapshot:
        record = json.loads((folder / "run.json").read_text())
        if (version := record.get("version", 1)) != VERSION:
            raise ValueError(
                f"checkpoint {folder} has format version {version}, but this release resumes from version {VERSION} only:"
                " finish the run with the release that started it, or pass another folder to start a new run"
            )
        if record["finished"] and int(folder.name) <= self.identity["steps"]:
            record["steps"] = self.identity["steps"]  # a finished run may continue
        saved = {path: (shape, dtype) for path, shape, dtype in record["leaves"]}
        if any(path.startswith(BEST_PREFIX) for path in saved):
            fresh = fresh._replace(best=(fresh.state.evaluation_parameters, fresh.state.model_state))
        expected = {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in jax.tree.map(key_data, fresh.arrays).items()}
        differ = self._why_steps_differ(int(folder.name), record)
        mismatches = [line + differ * line.startswith("steps: ") for line in differences(record, self.identity)] + [
            f"{path}: the checkpoint has {_describe(saved.get(path))}, the model has {_describe(expected.get(path))}"
            for path in dict.fromkeys([*saved, *expected])
            if saved.get(path) != expected.get(path)
        ]
        if mismatches:
            raise ValueError(
                f"checkpoint {folder} belongs to another run; pass another folder, or the arguments of the saved run."
                " These differ:\n  " + "\n  ".join(mismatches)
            )
        restored = read_arrays(folder / "arrays", saved)
        leaves = [map_key_data(lambda _, path=path: jnp.asarray(restored[path]), leaf) for path, leaf in fresh.arrays.items()]
        state, best = jax.tree.unflatten(jax.tree.structure((fresh.state, fresh.best)), leaves)
        return Snapshot(state, record["history"], record["losses"], record["seconds"], best)


def _steps(root: pathlib.Path) -> list[int]:
    return [int(path.name) for path in root.iterdir() if re.fullmatch("[0-9]+", path.name) and _is_checkpoint(path)]


def _is_checkpoint(folder: pathlib.Path) -> bool:
    """Return True if a folder has at least two parts of a checkpoint, so that one may be damaged."""
    return sum((folder / part).exists() for part in PARTS) >= 2


def _damaged_name(path: pathlib.Path) -> pathlib.Path:
    """Return an unused name for a damaged checkpoint."""
    names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.damaged{number}" for number in itertools.count(2)))
    return next(other for other in map(path.with_name, names) if not other.exists())


def _describe(leaf: tuple[list[int], str] | None) -> str:
    return "nothing" if leaf is None else f"{tuple(leaf[0])} {leaf[1]}"
