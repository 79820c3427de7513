"""Array records on disk, written by a TFDS builder and decoded without TensorFlow."""

import concurrent.futures
import contextlib
import io
import json
import pathlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from convlab.data import disk
from convlab.extras import require
from convlab.progress import track

FILE_FORMAT = "array_record"
SPLITS = ("train", "test", "validation")
BLOCK = 1000  # the number of examples that are read at once
CLASS_KEYS = ("pythonClassName", "python_class_name", "type", "proto_cls")  # of features.json, now and in early TFDS
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels -> mode of Pillow

Builder = Any  # tfds.core.DatasetBuilder, imported only where it is used


def open_or_prepare(
    folder: pathlib.Path,
    make: Callable[[], Builder],
    name: str,
    *,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Builder:
    """Open a prepared data set, and prepare it first if it is missing.

    Args:
      folder: The directory of the prepared data set.
      make: A function that returns the builder which writes to that directory.
      name: The name of the data set in error messages.
      overwrite: Whether to prepare the data set again if it exists. The old files are deleted when the new ones are complete.
      progress: Whether to show the progress bars of TFDS in a terminal.
      options: The options of `download_and_prepare`.

    Returns:
      The builder of the prepared data set.

    Raises:
      ValueError: The directory does not hold a complete data set.
      OSError: The directory is not writable, the disk is full, or a download failed.
    """
    if overwrite or not folder.exists():
        with quiet(progress), preserve_global_random_state(), disk.lock_folder(folder):
            old = folder.with_name(f"{folder.name}.old")
            if overwrite and folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            if not folder.exists():  # else another process has prepared it in the meantime
                _remove_leftovers(folder)
                try:
                    _write(folder, make, options)
                except BaseException:
                    if old.exists():
                        old.rename(folder)
                    raise
            shutil.rmtree(old, ignore_errors=True)
    return open_prepared(folder, name)


def _write(folder: pathlib.Path, make: Callable[[], Builder], options: dict[str, Any]) -> None:
    """Prepare a data set with TFDS, and remove the folder on an error.

    TFDS writes to a temporary folder and renames it at the end.
    """
    try:
        make().download_and_prepare(file_format=FILE_FORMAT, **options)
        disk.write_checksums(folder, folder.iterdir())
    except RuntimeError as error:  # the array_record writer raises RuntimeError if the disk is full
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"{folder} could not be written, nothing was kept: free some space or pass another data_dir ({_first_line(error)})"
        ) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def open_prepared(folder: pathlib.Path, name: str) -> Builder:
    """Open a prepared data set by its directory.

    TFDS imports modules that the description names, so the checksums of the description are verified first.

    Raises:
      ValueError: The preparation was not finished, or the data set's description is damaged.
    """
    tfds = require("tensorflow_datasets")
    if not (folder / "dataset_info.json").exists():
        raise ValueError(f"{name} in {folder} is incomplete: it has no dataset_info.json; {_again(folder)}")
    _check_description(folder, name)
    with quiet():
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # TFDS raises exceptions of many types
            raise disk.DamagedError(f"{name} in {folder} cannot be opened ({_first_line(error)}); {_again(folder)}") from None


def readable_splits(builder: Builder, name: str) -> list[str]:
    """Return the names of the readable splits of a prepared data set, the training split first.

    Raises:
      ValueError: The records have another format or lack a field, the preparation was not finished, or there is no training
        split.
    """
    if not builder.info.splits:
        raise ValueError(
            f"{name} in {builder.data_path} is incomplete: its description lists no split; {_again(builder.data_path)}"
        )
    check_fields(builder, name)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if FILE_FORMAT not in formats:
        raise ValueError(
            f"{name} in {builder.data_path} is prepared as {', '.join(formats)}; needs {FILE_FORMAT}, which is read without"
            " TensorFlow: pass another data_dir, or move that directory away and load again"
        )
    splits = [split for split in SPLITS if split in builder.info.splits]
    if splits[:1] != ["train"]:
        names = sorted(builder.info.splits)
        raise ValueError(f"{name} in {builder.data_path} has the splits {names}; needs 'train' to fit a model to")
    return splits


def check_fields(builder: Builder, name: str) -> None:
    """Check that the examples of a builder are labelled images of a supported dtype.

    Raises:
      ValueError: There is no "image" or no "label" with class names, or the images are neither 8-bit nor float32 arrays.
    """
    features = builder.info.features
    fields = list(features.keys()) if hasattr(features, "keys") else []
    if not {"image", "label"} <= set(fields) or not getattr(features["label"], "names", None):
        raise ValueError(f"{name} has the fields {fields}; needs 'image' and a 'label' with class names, to classify images")
    dtype = np.dtype(features["image"].np_dtype)
    encoded = hasattr(features["image"], "encoding_format")
    if dtype != np.uint8 and (dtype != np.float32 or encoded):
        raise ValueError(f"{name} has images of {dtype}; needs uint8 (pixels as stored), or float32 arrays")


def _check_description(folder: pathlib.Path, name: str) -> None:
    """Check the description of a data set, that is, all files but the records.

    Raises:
      DamagedError: A file has changed, so the classes or shapes may be wrong. Or there are no checksums, and the description
        names a module outside of TFDS.
    """
    if disk.has_checksums(folder):
        return _check_files(folder, lambda name: FILE_FORMAT not in name)
    foreign = [module for module in _feature_classes(folder) if not module.startswith("tensorflow_datasets.")]
    if foreign:
        raise disk.DamagedError(f"{name} in {folder} asks to import {foreign[0]}, which is not part of TFDS; {_again(folder)}")
    return None


def _feature_classes(folder: pathlib.Path) -> list[str]:
    """Return the names of the classes that TFDS would import to read a data set."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> None:
        found.extend(value for key, value in pairs if key in CLASS_KEYS and isinstance(value, str))

    with contextlib.suppress(OSError, ValueError):  # TFDS cannot read it either
        json.loads((folder / "features.json").read_text(), object_pairs_hook=collect)
    return found


def verify(builder: Builder) -> None:
    """Verify the checksums of all files of a prepared data set.

    If there are no checksums, as in a data set that was prepared elsewhere, all records are read instead. Each record contains
    a hash of its own. The checksums are then written.

    Raises:
      DamagedError: A file is missing, or its size or contents have changed. The message names the file.
    """
    folder = pathlib.Path(builder.data_path)
    if disk.has_checksums(folder):
        return _check_files(folder, lambda name: True)
    for split in builder.info.splits:
        source = _source(builder, split)
        for indices in index_blocks(len(source)):
            _fetch(builder, source, indices)
    with contextlib.suppress(OSError):  # a read-only directory stays without checksums
        disk.write_checksums(folder, folder.iterdir())  # the folder of decoded images has its own checksums
    return None


def _check_files(folder: pathlib.Path, wanted: Callable[[str], bool]) -> None:
    """Verify files of a data set and add to an error how to prepare the data set again."""
    try:
        disk.verify_folder(folder, wanted)
    except disk.DamagedError as error:
        raise disk.DamagedError(f"{error}; {_again(folder)}") from None


class Records:
    """Read the examples of one split by index, and decode their images.

    Args:
      builder: The builder of a prepared data set.
      split: The name of the split.
      size: The height and width to scale images to. If None, images keep their size.

    Raises:
      ValueError: `size` is given for images that are stored as arrays.
    """

    def __init__(self, builder: Builder, split: str, size: tuple[int, int] | None):
        tfds, self.builder, self.size = require("tensorflow_datasets"), builder, size
        feature = builder.info.features["image"]
        self.encoded = isinstance(feature, tfds.features.Image)
        if self.encoded:
            require("PIL.Image")
        *space, channels = feature.shape
        self.channels = channels or 3
        self.source = _source(builder, split, {"image": tfds.decode.SkipDecoding()} if self.encoded else None)
        if size is not None and not self.encoded:
            raise ValueError(
                f"image_size {size} is for images that are stored as JPEG or PNG; {split} holds arrays of {feature.shape}"
            )
        self.shape = (len(self.source), *(size or space), self.channels if self.encoded else channels)
        self.dtype = np.dtype(feature.np_dtype)

    def __call__(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and labels of the examples at the given indices.

        Raises:
          ValueError: The images differ in shape.
          DamagedError: A record is damaged.
        """
        examples = _fetch(self.builder, self.source, indices)
        images = [example["image"] for example in examples]
        if self.encoded:
            images = [self._decode(data, index) for data, index in zip(images, indices, strict=True)]
        shapes = sorted({np.shape(image) for image in images})
        if len(shapes) > 1 or None not in self.shape and shapes != [self.shape[1:]]:
            raise self.shapes_error(shapes)
        return np.stack(images), np.array([example["label"] for example in examples], np.int32)

    def shapes_error(self, shapes: Sequence[tuple[int, ...]] = ()) -> ValueError:
        """Return the error for images of several shapes."""
        examples = f", such as {' and '.join(map(str, shapes[:2]))}" if shapes else ""
        return ValueError(
            f"{self.builder.data_path} holds images of different shapes{examples}; needs one shape: pass"
            " image_size=(height, width) to crop and scale them, or resize the files"
        )

    def labels(self) -> np.ndarray:
        """Read the labels of all examples without decoding images."""
        parts = [_fetch(self.builder, self.source, indices) for indices in index_blocks(len(self.source))]
        return np.array([example["label"] for part in parts for example in part], np.int32)

    def _decode(self, data: bytes, index: int) -> np.ndarray:
        """Decode one JPEG or PNG image to an array of the data set's channels and the requested size."""
        mode = MODES[self.channels]
        try:
            with require("PIL.Image").open(io.BytesIO(data)) as opened:
                picture = opened if opened.mode == mode else opened.convert(mode)
                picture.load()
        except (OSError, SyntaxError) as error:
            raise disk.DamagedError(
                f"image {index} of {self.source.split!r} in {self.builder.data_path} cannot be decoded ({_first_line(error)})"
            ) from None
        if self.size is not None:
            picture = crop_and_scale(picture, self.size)
        return np.asarray(picture, self.dtype).reshape(picture.height, picture.width, self.channels)


def crop_and_scale(picture: Any, size: tuple[int, int]) -> Any:
    """Crop the centre of a Pillow image to the aspect ratio of `size`, (height, width), and scale it."""
    height, width = size
    scale = min(picture.height / height, picture.width / width)
    top, left = (picture.height - scale * height) / 2, (picture.width - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return picture.resize((width, height), require("PIL.Image").Resampling.BILINEAR, box=box)


def index_blocks(count: int) -> list[range]:
    """Divide the indices of `count` examples into ranges that are read at once."""
    return [range(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]


def decode_all(records: Records, description: str, progress: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the images and labels of all examples block by block, in order, decoding blocks in parallel.

    Raises:
      ValueError: The images differ in shape.
      DamagedError: A record is damaged.
    """
    ranges, first = index_blocks(len(records.source)), None
    blocks = range(0, len(ranges), disk.THREADS)
    with concurrent.futures.ThreadPoolExecutor(disk.THREADS) as pool:
        for start in track(blocks, description) if progress else blocks:
            for images, labels in pool.map(records, ranges[start : start + disk.THREADS]):
                first = images.shape[1:] if first is None else first
                if images.shape[1:] != first:
                    raise records.shapes_error([first, images.shape[1:]])
                yield images, labels


def _source(builder: Builder, split: str, decoders: Any = None) -> Any:
    """Return the random-access data source of a split."""
    with quiet():
        return builder.as_data_source(split, file_format=FILE_FORMAT, decoders=decoders)


def _fetch(builder: Builder, source: Any, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Read the examples at the given indices of a data source."""
    try:
        return source.__getitems__([int(index) for index in indices])
    except (RuntimeError, IndexError) as error:  # the array_record reader raises these for damaged files
        raise disk.DamagedError(
            f"the records of {source.split!r} in {builder.data_path} are damaged ({_first_line(error)});"
            f" {_again(builder.data_path)}"
        ) from None


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Delete the temporary folders that killed processes left."""
    for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _again(folder: Any) -> str:
    """Return the part of an error message that says how to prepare a data set again."""
    return f"load it with overwrite=True, or move {folder} away, to prepare it again"


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters, or the name of its type."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Suppress the output and warnings of TFDS. If `progress`, its progress bars are shown in a terminal."""
    log = require("absl.logging")
    bars = require("tensorflow_datasets.core.utils.tqdm_utils")
    verbosity, active = log.get_verbosity(), bars._active
    log.set_verbosity(log.ERROR)
    bars.display_progress_bar(progress and sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.set_verbosity(verbosity)
        bars.display_progress_bar(active)


@contextlib.contextmanager
def preserve_global_random_state() -> Iterator[None]:
    """Restore the state of Python's and NumPy's global random generators at the end.

    TFDS draws from one of them, and MNIST-1D seeds both.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
