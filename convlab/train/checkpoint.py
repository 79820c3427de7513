"""Checkpoints: all that a run is, on disk, so that it goes on exactly where it stopped, and from nothing that is not whole.

A checkpoint is a folder named for its step: the arrays, written by Orbax; `run.json`, with the configuration, the history and
what every array is; and checksums of all of it. It is written by a thread under another name and renamed at the end.
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
from convlab.train.step import State, Tree, by_path, of_numbers

BEST = ".best"  # before the paths of the best parameters
METRIC = "validation_accuracy"  # what the best checkpoint has most of; never a figure of the test images


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where and when a run is saved.

    A run goes on only as what it was: model, data, configuration, augmentation and whether an optimizer of one's own is passed
    are compared with what was saved. The numbers inside an optimizer of one's own, or inside a function, cannot be compared.

    Args:
      folder: Of this run alone; a run that finds checkpoints there goes on from the last whole one.
      every: Steps between saves; the end of the run and a signal that stops it are saved too.
      keep: Latest checkpoints to keep; that of the best validation accuracy is kept besides, where there is such a split.
      full: When a checkpoint cannot be written: "go on" training, with a warning, or "stop". Those before stay as they are.

    Raises:
      ValueError: A value out of range or unknown.
    """

    folder: str | os.PathLike[str]
    every: int = 1000
    keep: int = 2
    full: str = "go on"

    def __post_init__(self):
        as_integer("every", self.every, 1)
        as_integer("keep", self.keep, 1)
        if self.full not in ("go on", "stop"):
            raise ValueError(f"full {self.full!r} is unknown; needs 'go on' or 'stop'")


class Run(NamedTuple):
    """What a checkpoint holds: the state, and what the loop knows beside it."""

    state: State
    history: list[dict[str, float]]
    losses: list[float]
    seconds: float
    best: Tree = None  # parameters and model state of the best score, if the run has a patience

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """All arrays by their paths."""
        return by_path(self.state) | {BEST + path: leaf for path, leaf in by_path(self.best).items()}


class Saver:
    """Saves one run and finds what was saved: a context, in which no other process may train into the same folder."""

    def __init__(self, checkpoints: Checkpoints, identity: dict[str, Any]):
        self.checkpoints, self.identity = checkpoints, identity
        self.root = pathlib.Path(checkpoints.folder).expanduser().absolute()
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writing: concurrent.futures.Future | None = None

    def __enter__(self) -> "Saver":
        filelock = require("filelock")
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock = filelock.FileLock(self.root / ".lock")
        if not is_first():
            return self
        try:
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"another process trains into {self.root}; needs a folder of its own for each run") from None
        for path in (*self.root.glob("*.incomplete"), *self.root.glob("*.removed")):  # of a process that was killed
            shutil.rmtree(path, ignore_errors=True)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self.wait()
        except OSError:
            if kind is None:
                raise
        finally:
            self.thread.shutdown()
            self.lock.release()

    def last(self, fresh: Run) -> Run | None:
        """Return the last whole checkpoint, in the form of a fresh run; None where nothing was saved yet.

        Raises:
          DamagedError: There are checkpoints but none is whole.
          ValueError: The last whole one is of another run: model, data, configuration, optimizer or augmentation.
        """
        damaged = []
        for step in sorted(_steps(self.root), reverse=True):
            folder = self.root / str(step)
            try:
                disk.check(folder)
            except DamagedError as error:
                damaged.append((folder, str(error)))
                continue
            run = self._read(folder, fresh)
            for bad, reason in damaged:
                warnings.warn(f"a checkpoint is damaged, the one of step {step} is used: {reason}", stacklevel=3)
                if is_first():
                    bad.rename(_set_aside(bad))  # so that it is never counted among those to keep
            return run
        if damaged:
            raise DamagedError(
                f"none of the {len(damaged)} checkpoints in {self.root} is whole ({damaged[0][1]});"
                " a run does not start afresh over them: move them away, or pass another folder"
            )
        return None

    def save(self, run: Run) -> None:
        """Copy a run's arrays and write them in the background, after what is being written already.

        Raises:
          OSError: The one before could not be written, and the run is to stop then.
        """
        self.wait()
        if is_first():
            arrays = {path: np.array(_bare(leaf)) for path, leaf in run.arrays.items()}
            self.writing = self.thread.submit(self._write, int(run.state.step), arrays, run.history, run.losses, run.seconds)

    def told(self) -> str:
        """Say which checkpoint is the last."""
        self.wait()
        steps = _steps(self.root)
        if not steps:
            return f"no checkpoint was written to {self.root} yet"
        return f"the last checkpoint is {self.root / str(max(steps))}"

    def wait(self) -> None:
        """Wait until all is written."""
        writing, self.writing = self.writing, None
        try:
            if writing is not None:
                writing.result()
        except OSError as error:
            if self.checkpoints.full == "stop":
                raise OSError(f"a checkpoint could not be written to {self.root}, those before are whole: {error}") from error
            warnings.warn(f"a checkpoint could not be written to {self.root}, training goes on: {error}", stacklevel=3)

    def _write(self, step: int, arrays: dict, history: list, losses: list, seconds: float) -> None:
        leaves = [[path, list(array.shape), str(array.dtype)] for path, array in arrays.items()]
        told = {**self.identity, "leaves": leaves, "history": history, "losses": losses, "seconds": seconds}
        folder = self.root / str(step)
        disk.remove(folder)  # of a run that came this far before it went on from an earlier step
        with disk.made_whole(folder) as part:
            try:
                _orbax().save(part / "arrays", dict(zip(_names(arrays), arrays.values(), strict=True)))
            except (ValueError, RuntimeError) as error:  # what Orbax makes of a full disk
                raise OSError(str(error)) from error
            (part / "run.json").write_text(json.dumps({**told, "provenance": provenance()}))
        try:
            self._prune()
        except OSError as error:
            warnings.warn(f"old checkpoints in {self.root} could not be removed: {error}", stacklevel=2)

    def _prune(self) -> None:
        best = self._best()
        for old in sorted(_steps(self.root))[: -self.checkpoints.keep]:
            if old != best:
                disk.remove(self.root / str(old))

    def _best(self) -> int | None:
        scores = {}
        for step in _steps(self.root):
            try:
                row = json.loads((self.root / str(step) / "run.json").read_text())["history"][-1]
                if row["step"] == step:
                    scores[step] = row[METRIC]
            except (OSError, ValueError, TypeError, LookupError):  # not scored, or damaged since: not the best to go on from
                continue
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def _read(self, folder: pathlib.Path, fresh: Run) -> Run:
        told = json.loads((folder / "run.json").read_text())
        if (version := told.get("version", 1)) != VERSION:
            raise ValueError(
                f"{folder} is of version {version} of convlab's checkpoints, and this release goes on from version {VERSION}:"
                " finish the run with the release that began it, or pass another folder to begin anew"
            )
        saved = {path: (shape, dtype) for path, shape, dtype in told["leaves"]}
        if any(path.startswith(BEST) for path in saved):
            fresh = fresh._replace(best=(fresh.state.scored, fresh.state.model_state))
        expected = {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in jax.tree.map(_bare, fresh.arrays).items()}
        wrong = differences(told, self.identity) + [
            f"{path}: {_shown(saved.get(path))} was saved, the model has {_shown(expected.get(path))}"
            for path in dict.fromkeys([*saved, *expected])
            if saved.get(path) != expected.get(path)
        ]
        if wrong:
            raise ValueError(
                f"{folder} is of another run; pass another folder, or what was saved. These differ:\n  " + "\n  ".join(wrong)
            )
        arrays = _orbax().restore(folder / "arrays")
        found = dict(zip(saved, (arrays[name] for name in _names(saved)), strict=True))
        leaves = [of_numbers(lambda _, path=path: jnp.asarray(found[path]), leaf) for path, leaf in fresh.arrays.items()]
        state, best = jax.tree.unflatten(jax.tree.structure((fresh.state, fresh.best)), leaves)
        return Run(state, told["history"], told["losses"], told["seconds"], best)


def _steps(root: pathlib.Path) -> list[int]:
    return [int(path.name) for path in root.iterdir() if re.fullmatch("[0-9]+", path.name)]


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    """A free name for a damaged checkpoint."""
    names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.damaged{number}" for number in itertools.count(2)))
    return next(other for other in map(path.with_name, names) if not other.exists())


def _names(arrays: Any) -> list[str]:
    return [f"leaf_{number:05d}" for number in range(len(arrays))]


def _bare(leaf: jax.Array) -> jax.Array:
    """Take a random key as the numbers that it is."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _shown(leaf: tuple[list[int], str] | None) -> str:
    return "nothing" if leaf is None else f"{tuple(leaf[0])} {leaf[1]}"


def _orbax() -> Any:
    """What reads and writes arrays; among several processes each does so alone, without waiting for the others."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"convlab{me}")
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)
