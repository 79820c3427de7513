"""Checkpoints that let an interrupted run resume exactly where it stopped.

A checkpoint is a folder named after its step. It holds the arrays, written by Orbax, and `run.json` with the configuration, the
history, and the path, shape and dtype of every array. Checksums cover all files, and a run resumes only from a checkpoint that
passes them. A background thread writes the folder under a temporary name and renames it at the end.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convlab.data import DamagedError, disk
from convlab.extras import require
from convlab.geometry import as_integer
from convlab.report import provenance
from convlab.train.identity import VERSION, differences
from convlab.train.mesh import is_first
from convlab.train.step import State, Tree, leaves_by_path, map_key_data

BEST_PREFIX = ".best"  # prefix of the paths of the best parameters
BEST_METRIC = "validation_accuracy"  # the metric that selects the best checkpoint; never a score on the test images


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Options for saving a run: the folder, the interval and the number of checkpoints to keep.

    A run resumes only if it is the same run. Its model, data, configuration and augmentation are compared with the saved
    ones. So is the use of a custom optimizer, but not the numbers inside a custom optimizer or a function.

    Args:
      folder: The folder of this run alone. If it holds checkpoints, the run resumes from the last intact one.
      every_steps: The number of steps between saves. The run is also saved at its end and when a signal stops it.
      max_to_keep: The number of latest checkpoints to keep. If the data have a validation split, the checkpoint with the best
        validation accuracy is kept as well.
      on_write_error: The reaction when a checkpoint cannot be written, as on a full disk: "warn" warns and continues training,
        "raise" raises the error. Earlier checkpoints stay in either case.

    Raises:
      ValueError: A value is out of range or unknown.
    """

    folder: str | os.PathLike[str]
    every_steps: int = 1000
    max_to_keep: int = 2
    on_write_error: str = "warn"

    def __post_init__(self):
        as_integer("every_steps", self.every_steps, 1)
        as_integer("max_to_keep", self.max_to_keep, 1)
        if self.on_write_error not in ("warn", "raise"):
            raise ValueError(f"on_write_error must be 'warn' or 'raise', got {self.on_write_error!r}")


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
        self.root = pathlib.Path(checkpoints.folder).expanduser().absolute()
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writing: concurrent.futures.Future | None = None

    def __enter__(self) -> "CheckpointManager":
        filelock = require("filelock")
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock = filelock.FileLock(self.root / ".lock")
        if not is_first():
            return self
        try:
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(
                f"checkpoints folder {self.root} is in use by another process; each run needs a folder of its own"
            ) from None
        for path in (*self.root.glob("*.incomplete"), *self.root.glob("*.removed")):  # left by a process that was killed
            shutil.rmtree(path, ignore_errors=True)
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

    def save(self, run: Snapshot) -> None:
        """Copy a run's arrays and write them in the background, once the previous write has ended.

        Raises:
          OSError: The previous checkpoint could not be written, and `on_write_error` is "raise".
        """
        self.wait_until_finished()
        if is_first():
            arrays = {path: np.array(_key_data(leaf)) for path, leaf in run.arrays.items()}
            self.writing = self.thread.submit(self._write, int(run.state.step), arrays, run.history, run.losses, run.seconds)

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

    def _write(self, step: int, arrays: dict, history: list, losses: list, seconds: float) -> None:
        leaves = [[path, list(array.shape), str(array.dtype)] for path, array in arrays.items()]
        record = {**self.identity, "leaves": leaves, "history": history, "losses": losses, "seconds": seconds}
        folder = self.root / str(step)
        disk.remove_folder(folder)  # written before the run resumed from an earlier step
        with disk.atomic_folder(folder) as part:
            try:
                _orbax().save(part / "arrays", dict(zip(_leaf_names(arrays), arrays.values(), strict=True)))
            except (ValueError, RuntimeError) as error:  # Orbax raises these when the disk is full
                raise OSError(str(error)) from error
            (part / "run.json").write_text(json.dumps({**record, "provenance": provenance()}))
        try:
            self._prune()
        except OSError as error:
            warnings.warn(f"old checkpoints in {self.root} could not be removed: {error}", stacklevel=2)

    def _prune(self) -> None:
        best = self._best()
        for old in sorted(_steps(self.root))[: -self.checkpoints.max_to_keep]:
            if old != best:
                disk.remove_folder(self.root / str(old))

    def _best(self) -> int | None:
        scores = {}
        for step in _steps(self.root):
            try:
                row = json.loads((self.root / str(step) / "run.json").read_text())["history"][-1]
                if row["step"] == step:
                    scores[step] = row[BEST_METRIC]
            except (OSError, ValueError, TypeError, LookupError):  # not scored at this step, or damaged since
                continue
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def _read(self, folder: pathlib.Path, fresh: Snapshot) -> Snapshot:
        record = json.loads((folder / "run.json").read_text())
        if (version := record.get("version", 1)) != VERSION:
            raise ValueError(
                f"checkpoint {folder} has format version {version}, but this release resumes from version {VERSION} only:"
                " finish the run with the release that started it, or pass another folder to start a new run"
            )
        saved = {path: (shape, dtype) for path, shape, dtype in record["leaves"]}
        if any(path.startswith(BEST_PREFIX) for path in saved):
            fresh = fresh._replace(best=(fresh.state.evaluation_parameters, fresh.state.model_state))
        expected = {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in jax.tree.map(_key_data, fresh.arrays).items()}
        mismatches = differences(record, self.identity) + [
            f"{path}: the checkpoint has {_describe(saved.get(path))}, the model has {_describe(expected.get(path))}"
            for path in dict.fromkeys([*saved, *expected])
            if saved.get(path) != expected.get(path)
        ]
        if mismatches:
            raise ValueError(
                f"checkpoint {folder} belongs to another run; pass another folder, or the arguments of the saved run."
                " These differ:\n  " + "\n  ".join(mismatches)
            )
        arrays = _orbax().restore(folder / "arrays")
        restored = dict(zip(saved, (arrays[name] for name in _leaf_names(saved)), strict=True))
        leaves = [map_key_data(lambda _, path=path: jnp.asarray(restored[path]), leaf) for path, leaf in fresh.arrays.items()]
        state, best = jax.tree.unflatten(jax.tree.structure((fresh.state, fresh.best)), leaves)
        return Snapshot(state, record["history"], record["losses"], record["seconds"], best)


def _steps(root: pathlib.Path) -> list[int]:
    return [int(path.name) for path in root.iterdir() if re.fullmatch("[0-9]+", path.name)]


def _damaged_name(path: pathlib.Path) -> pathlib.Path:
    """Return an unused name for a damaged checkpoint."""
    names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.damaged{number}" for number in itertools.count(2)))
    return next(other for other in map(path.with_name, names) if not other.exists())


def _leaf_names(arrays: Any) -> list[str]:
    return [f"leaf_{number:05d}" for number in range(len(arrays))]


def _key_data(leaf: jax.Array) -> jax.Array:
    """Return the key data of a random key, and any other array unchanged."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _describe(leaf: tuple[list[int], str] | None) -> str:
    return "nothing" if leaf is None else f"{tuple(leaf[0])} {leaf[1]}"


def _orbax() -> Any:
    """Make an Orbax checkpointer for this process alone, without barriers between processes."""
    import orbax.checkpoint as ocp

    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"convlab{process}"
    )
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)
