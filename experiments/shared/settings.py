"""Settings and functions that experiments share: data, recipes, styles and finished parts."""

import contextlib
import dataclasses
import os
import pathlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data

Rows = list[dict[str, Any]]


class UsageError(ValueError):
    """A mistake on the command line, which is reported in one sentence and without a traceback."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn errors about arguments, data sets and missing packages into a `UsageError`."""
    try:
        yield
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UsageError(str(error)) from error


def named_by_backend(name: str) -> str:
    """Return the name of a benchmark's report: on CPU its own, else followed by the backend."""
    backend = jax.default_backend()
    return name if backend == "cpu" else f"{name}_{backend}"


def styles(rungs: Mapping[str, str]) -> dict[str, report.Style]:
    """Give the lines of a figure, by name, the styles that these rungs have in every figure."""
    return {name: report.RUNG_STYLE[rung]._replace(label=name) for name, rung in rungs.items()}


def chance(labels: Any) -> float:
    """Return the accuracy of always guessing the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def above(rows: Rows, reference: Mapping[str, Any]) -> Rows:
    """Add to every row its `gain`: its accuracy minus that of the reference run with the same seed."""
    baseline = {row["seed"]: row["accuracy"] for row in rows if reference.items() <= row.items()}
    return [row | {"gain": row["accuracy"] - baseline[row["seed"]]} for row in rows]


def with_p(lines: Rows, rows: Rows, by: Sequence[str], reference: Mapping[str, Any]) -> Rows:
    """Add to every line `p`, the corrected p-value of its difference from a reference."""
    tests = report.paired_differences(rows, by, reference, "accuracy")
    p_values = {tuple(test[name] for name in by): test["accuracy_p_holm"] for test in tests}
    return [line | {"p": p_values.get(tuple(line[name] for name in by))} for line in lines]


def gain_of(test: Mapping[str, Any], value: str = "accuracy", name: str = "gain", p: str = "p") -> dict[str, Any]:
    """Return the columns of a gain and its `p`: a difference of `paired_differences` with its corrected p-value."""
    return {f"{name}{end}": test[f"{value}_difference{end}"] for end in ("", "_low", "_high")} | {p: test[f"{value}_p_holm"]}


def code_of(*files: str) -> str:
    """Return the source text of the library and of these files, to detect rows that other code has made."""
    library = sorted(pathlib.Path(str(cl.__file__)).parent.rglob("*.py"))
    return "".join(path.read_text("utf-8") for path in (*library, *map(pathlib.Path, files)))


class Finished:
    """The rows of finished parts, kept in a file so that an interrupted run can continue.

    Each part is one line of the file.

    Args:
      path: The file. It is created when the first part is finished.
      code: The source text of the code that makes the rows. Parts that were made by other code are run again.

    Attributes:
      reused: Whether rows of an earlier run were reused. The time of this run is then not the time of all rows.
    """

    def __init__(self, path: str | os.PathLike[str], code: str):
        self.path, self.code, self.lock = pathlib.Path(path), zlib.crc32(code.encode()), threading.Lock()
        self.reused = False
        lines = [line for line in report.read_json_lines(self.path) if {"code", "part", "rows"} <= {*line}]
        self.earlier = {line["part"]: line["rows"] for line in lines if line["code"] == self.code}
        self.parts: dict[str, Rows] = dict(self.earlier)

    def rows(self, part: Any, make: Callable[[], Rows]) -> Rows:
        """Return the rows of a part, named by any value with a repr. If they are missing, make them."""
        name = repr(part)
        self.reused = self.reused or name in self.earlier
        if name not in self.parts:
            self.parts[name] = make()
            with self.lock:
                report.append_json_lines(self.path, [{"code": self.code, "part": name, "rows": self.parts[name]}])
        return self.parts[name]


@dataclasses.dataclass(frozen=True)
class Source:
    """The data set of an experiment, and the folder of its results.

    Args:
      data: The name of the data set, such as digits, mnist1d or one of TensorFlow Datasets; or folder:PATH, a folder or
        archive of images PATH/CLASS/* or PATH/SPLIT/CLASS/*.
      data_dir: The folder of prepared data sets. If None, the default folder.
      manual_dir: The folder of files that were downloaded by hand, such as the IDX files of fashion_mnist.
      image_size: The height and width to scale the images to, or one number for both. Needed if they differ in size.
      root: The folder of the results.
    """

    data: str = "digits"
    data_dir: str | None = None
    manual_dir: str | None = None
    image_size: int | tuple[int, int] | None = None
    root: str = "runs"

    @property
    def dataset(self) -> str:
        """The name of the data set in figures and file names: of a folder or archive, its last part."""
        return re.sub(r"[^\w.-]+", "_", pathlib.PurePath(self.data.removeprefix("folder:")).name.split(".")[0]) or "images"

    def load(self) -> Data:
        """Load the data set and show progress.

        Raises:
          UsageError: It cannot be loaded.
        """
        options: dict[str, Any] = {name: getattr(self, name) for name in ("data_dir", "manual_dir", "image_size")}
        try:
            with usage():
                return cl.load(self.data, **options, progress=True)
        except UsageError as error:  # it names arguments, and not flags
            flags = re.sub(rf"\b({'|'.join(options)})=", lambda name: f"--{name[1].replace('_', '-')} ", str(error))
            raise UsageError(flags.replace("(height, width)", "HEIGHT WIDTH")) from error


@dataclasses.dataclass(frozen=True)
class Recipe(Source):
    """The training recipe of a network.

    Args:
      epochs: The number of passes over the training images.
      batch_size: The number of images per step.
      learning_rate: The learning rate, which decays along a cosine.
      seeds: The number of runs, each with its own initial weights, images and batch order.
    """

    epochs: int = 10
    batch_size: int = 50
    learning_rate: float = 0.1
    seeds: int = 5

    def recipe(self, seed: int, optimizer: str = "adam", evaluations: int = 1) -> cl.Config:
        """Return the configuration of `fit`, without a progress bar."""
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
    """The training of a network by SGD with momentum 0.9 on a fixed number of images.

    Args:
      size: The number of training images, drawn again for every seed with the same number for each class.
    """

    size: int = 1000

    def fit(self, model: nnx.Module, data: Data, seed: int) -> cl.Fitted:
        """Train on the images of a seed, with one evaluation at the end."""
        return cl.fit(model, data.subset(self.size, seed), self.recipe(seed, "momentum"))

    def accuracy(self, model: nnx.Module, data: Data, seed: int) -> float:
        """Train, and return the accuracy on the test images."""
        return self.fit(model, data, seed).history[-1]["test_accuracy"]
