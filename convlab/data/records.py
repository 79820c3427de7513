"""Array records on disk: written by a TFDS builder, read into memory without TensorFlow."""

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convlab.data.extras import require
from convlab.data.sets import Data, Split, hold_out

FILE_FORMAT = "array_record"
HELD_OUT = 0.2  # share kept for testing where a data set has only a training split

Builder = Any  # tfds.core.DatasetBuilder, which is imported only where it is used


def prepared(make: Callable[[], Builder]) -> Builder:
    """Return the builder that `make` returns, its records on disk: written now if they are not there.

    Args:
      make: Opens the builder on its directory.

    Raises:
      OSError: The directory cannot be written, or a download failed.
    """
    with quiet(), global_random_state_kept():
        builder = make()
        if builder.data_path.exists():
            return builder
        try:
            builder.download_and_prepare(file_format=FILE_FORMAT)
        except OSError:
            if not builder.data_path.exists():  # else another process prepared the same set meanwhile
                raise
        return make()


def read(builder: Builder, name: str, seed: int) -> Data:
    """Read all records of a prepared builder into memory.

    Args:
      builder: Prepared, with fields `image` and `label`.
      name: Of the data returned.
      seed: Chooses the test examples where the set has neither a test nor a validation split.

    Raises:
      ValueError: The records are not array records, lack a field, are incomplete, or their images differ in shape.
    """
    _check_complete(builder, name)
    check_fields(builder, name)
    _check_format(builder, name)
    splits = [split for split in ("train", "test", "validation") if split in builder.info.splits]
    if splits[:1] != ["train"]:
        found = sorted(builder.info.splits)
        raise ValueError(f"{name} in {builder.data_path} has the splits {found}; needs 'train' to fit a model to")
    with quiet():
        parts = [_read_split(builder, split) for split in splits[:2]]
    train, test = parts if len(parts) == 2 else hold_out(parts[0], HELD_OUT, seed)
    return Data(name, train, test, tuple(builder.info.features["label"].names))


def check_fields(builder: Builder, name: str) -> None:
    """Raise ValueError unless the builder's examples are an image and the name of its class."""
    features = builder.info.features
    fields = list(features.keys()) if hasattr(features, "keys") else []
    if not {"image", "label"} <= set(fields) or not getattr(features["label"], "names", None):
        raise ValueError(f"{name} has the fields {fields}; needs 'image' and a 'label' with class names, to classify images")


def _check_complete(builder: Builder, name: str) -> None:
    if not builder.info.splits:
        raise ValueError(
            f"{name} in {builder.data_path} is incomplete: it describes no split; needs a finished preparation: move that"
            " directory away and load again"
        )


def _check_format(builder: Builder, name: str) -> None:
    formats = sorted(each.value for each in builder.info.available_file_formats())
    if FILE_FORMAT not in formats:
        raise ValueError(
            f"{name} in {builder.data_path} is prepared as {', '.join(formats)}; needs {FILE_FORMAT}, which is read without"
            " TensorFlow: pass another data_dir, or move that directory away and load again"
        )


def _read_split(builder: Builder, split: str) -> Split:
    source = builder.as_data_source(split, file_format=FILE_FORMAT)
    examples = source.__getitems__(range(len(source)))
    shapes = {np.shape(example["image"]) for example in examples}
    if len(shapes) > 1:
        raise ValueError(
            f"{split} in {builder.data_path} holds images of {len(shapes)} shapes,"
            f" such as {sorted(shapes)[:2]}; needs one shape"
        )
    images = np.stack([example["image"] for example in examples])
    return Split(images, np.array([example["label"] for example in examples]))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TFDS from printing, drawing progress bars and warning."""
    log = require("absl.logging")
    bars = require("tensorflow_datasets.core.utils.tqdm_utils")
    verbosity, active = log.get_verbosity(), bars._active
    log.set_verbosity(log.ERROR)
    bars.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.set_verbosity(verbosity)
        bars.display_progress_bar(active)


@contextlib.contextmanager
def global_random_state_kept() -> Iterator[None]:
    """Give Python's and NumPy's global generators back as they were: TFDS draws from one, MNIST-1D seeds both."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
