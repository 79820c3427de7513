"""What experiments share: where images come from, a plain way to train, looks of figures, parts run at once and kept."""

import contextlib
import dataclasses
import os
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data

Part = TypeVar("Part")
Result = TypeVar("Result")
Rows = list[dict[str, Any]]


def at_once(run: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Run several parts at once, for compiling, and computing in small steps, keep a single core busy.

    As many as there are cores, eight at most; on an accelerator two, so that one compiles while the other computes.
    """
    many = min(os.cpu_count() or 1, 8) if jax.default_backend() == "cpu" else 2
    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(run, parts))


@contextlib.contextmanager
def progress_of(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many parts are done and the time left; yield what is called with the number of parts just finished."""
    from rich import console, progress

    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()
    times = (
        progress.TimeElapsedColumn(),
        progress.TextColumn("time left"),
        progress.TimeRemainingColumn(elapsed_when_finished=False),
    )
    with progress.Progress(*columns, *times, console=console.Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task(description, total=total)
        yield lambda number: bar.advance(task, number)


def styles(rungs: Mapping[str, str]) -> dict[str, report.Style]:
    """Give lines of a figure, by their names, the looks that these rungs have in every figure."""
    return {name: report.RUNG_STYLE[rung]._replace(label=name) for name, rung in rungs.items()}


def chance(labels: Any) -> float:
    """Return the accuracy of guessing the largest class always."""
    return float(np.bincount(labels).max() / len(labels))


def above(rows: Rows, reference: Mapping[str, Any]) -> Rows:
    """Add to every row its `gain`: the accuracy above that of the run of the same seed that has the reference's values."""
    least = {row["seed"]: row["accuracy"] for row in rows if reference.items() <= row.items()}
    return [row | {"gain": row["accuracy"] - least[row["seed"]]} for row in rows]


def with_p(lines: Rows, rows: Rows, by: Sequence[str], reference: Mapping[str, Any]) -> Rows:
    """Add to lines how likely their differences from a reference are by chance, corrected for their number: `p`."""
    tests = report.paired(rows, by, reference, "accuracy")
    found = {tuple(test[name] for name in by): test["accuracy_p_holm"] for test in tests}
    return [line | {"p": found.get(tuple(line[name] for name in by))} for line in lines]


def code_of(*files: str) -> str:
    """Return the text of the library and of these files: rows that other code has made are made anew."""
    library = sorted(pathlib.Path(str(cl.__file__)).parent.rglob("*.py"))
    return "".join(path.read_text("utf-8") for path in (*library, *map(pathlib.Path, files)))


class Finished:
    """The rows of finished parts, one line of a file for each part, so that a run that was stopped goes on where it was.

    Args:
      path: The file; it is made when the first part is finished.
      code: The text of the code that makes the rows. Parts that other code has made are made anew.

    Attributes:
      reused: Whether any rows were there before, so that the time of this run is not the time that all rows took.
    """

    def __init__(self, path: str | os.PathLike[str], code: str):
        self.path, self.code, self.lock = pathlib.Path(path), zlib.crc32(code.encode()), threading.Lock()
        self.reused = False
        lines = [line for line in report.read_lines(self.path) if {"code", "part", "rows"} <= {*line}]
        self.found = {line["part"]: line["rows"] for line in lines if line["code"] == self.code}
        self.parts: dict[str, Rows] = dict(self.found)

    def rows(self, part: Any, make: Callable[[], Rows]) -> Rows:
        """Return the rows of a part, by its name or any value with a repr; make them if they are not there."""
        name = repr(part)
        self.reused = self.reused or name in self.found
        if name not in self.parts:
            self.parts[name] = make()
            with self.lock:
                report.add_lines(self.path, [{"code": self.code, "part": name, "rows": self.parts[name]}])
        return self.parts[name]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where images come from and results go.

    Args:
      data: Name of the data set.
      data_dir: Where it is prepared; absent, the usual place.
      manual_dir: Where files lie that were fetched by hand, such as the IDX files of fashion_mnist.
      root: Folder that the results go to.
    """

    data: str = "digits"
    data_dir: str | None = None
    manual_dir: str | None = None
    root: str = "runs"

    def load(self) -> Data:
        """Load the data set, with progress."""
        return cl.load(self.data, data_dir=self.data_dir, manual_dir=self.manual_dir, progress=True)


@dataclasses.dataclass(frozen=True)
class Recipe(Source):
    """How a network is trained.

    Args:
      epochs: Passes over the training images.
      batch_size: Images a step.
      learning_rate: Of the optimizer, falling along a cosine.
      seeds: Runs with other initial weights, images and orders.
    """

    epochs: int = 10
    batch_size: int = 50
    learning_rate: float = 0.1
    seeds: int = 5

    def recipe(self, seed: int, optimizer: str = "adam", evaluations: int = 1) -> cl.Config:
        """What `fit` is told, without progress."""
        return cl.Config(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            learning_rate=self.learning_rate,
            evaluations=evaluations,
            progress=False,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Training(Recipe):
    """How a network is trained by SGD with momentum 0.9 on some images of each class.

    Args:
      size: Training images, drawn anew for every seed.
    """

    size: int = 1000

    def fit(self, model: nnx.Module, data: Data, seed: int) -> cl.Fitted:
        """Train on the seed's images, score once at the end."""
        return cl.fit(model, data.subset(self.size, seed), self.recipe(seed, "momentum"))

    def accuracy(self, model: nnx.Module, data: Data, seed: int) -> float:
        """Train, and return the accuracy on the test images."""
        return self.fit(model, data, seed).history[-1]["test_accuracy"]
