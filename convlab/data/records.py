"""Array records on disk: written by a TFDS builder, whole or not at all, and decoded without TensorFlow."""

import concurrent.futures
import contextlib
import io
import pathlib
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from convlab.data import disk
from convlab.extras import require

FILE_FORMAT = "array_record"
SPLITS = ("train", "test", "validation")
EXAMPLES = 1000  # read at once
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names of so many channels

Builder = Any  # tfds.core.DatasetBuilder, which is imported only where it is used


def prepared(
    folder: pathlib.Path,
    make: Callable[[], Builder],
    name: str,
    *,
    again: bool = False,
    progress: bool = False,
    **options: Any,
) -> Builder:
    """Open a preparation, written now if it is not there.

    Args:
      folder: Where it is or will be.
      make: The builder that writes it there.
      name: Of the data set, for messages.
      again: Write it anew; the old one goes only when the new one is whole.
      progress: Show the bars of TFDS.
      options: Of `download_and_prepare`.

    Raises:
      ValueError: What lies there is not a whole preparation.
      OSError: The directory cannot be written, the disk is full, or a download failed.
    """
    if again or not folder.exists():
        with quiet(progress), global_random_state_kept(), disk.alone(folder):
            old = folder.with_name(f"{folder.name}.old")
            if again and folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            if not folder.exists():  # else another process prepared it while this one waited
                _remove_leftovers(folder)
                try:
                    _write(folder, make, options)
                except BaseException:
                    if old.exists():
                        old.rename(folder)
                    raise
            shutil.rmtree(old, ignore_errors=True)
    return opened(folder, name)


def _write(folder: pathlib.Path, make: Callable[[], Builder], options: dict[str, Any]) -> None:
    """Let TFDS write to a folder of another name that it renames at the end."""
    try:
        make().download_and_prepare(file_format=FILE_FORMAT, **options)
        disk.seal(folder, folder.iterdir())
    except RuntimeError as error:  # what the writer of array records makes of a full disk
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"{folder} could not be written, nothing was kept: free some space or pass another data_dir ({_first_line(error)})"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def opened(folder: pathlib.Path, name: str) -> Builder:
    """Open a preparation by its directory.

    Raises:
      ValueError: It was not finished, or its description is damaged.
    """
    tfds = require("tensorflow_datasets")
    if not (folder / "dataset_info.json").exists():
        raise ValueError(f"{name} in {folder} is incomplete: it has no dataset_info.json; {_again(folder)}")
    with quiet():
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # TFDS raises many kinds
            raise disk.DamagedError(f"{name} in {folder} cannot be opened ({_first_line(error)}); {_again(folder)}") from error


def check(builder: Builder, name: str) -> list[str]:
    """Return the splits of a prepared builder that can be read, the training split first.

    Raises:
      ValueError: The records are not array records, lack a field, or their preparation was not finished.
    """
    if not builder.info.splits:
        raise ValueError(f"{name} in {builder.data_path} is incomplete: it describes no split; {_again(builder.data_path)}")
    check_fields(builder, name)
    formats = sorted(each.value for each in builder.info.available_file_formats())
    if FILE_FORMAT not in formats:
        raise ValueError(
            f"{name} in {builder.data_path} is prepared as {', '.join(formats)}; needs {FILE_FORMAT}, which is read without"
            " TensorFlow: pass another data_dir, or move that directory away and load again"
        )
    splits = [split for split in SPLITS if split in builder.info.splits]
    if splits[:1] != ["train"]:
        found = sorted(builder.info.splits)
        raise ValueError(f"{name} in {builder.data_path} has the splits {found}; needs 'train' to fit a model to")
    return splits


def check_fields(builder: Builder, name: str) -> None:
    """Raise ValueError unless the builder's examples are an image of 8 bits or float32 and the name of its class."""
    features = builder.info.features
    fields = list(features.keys()) if hasattr(features, "keys") else []
    if not {"image", "label"} <= set(fields) or not getattr(features["label"], "names", None):
        raise ValueError(f"{name} has the fields {fields}; needs 'image' and a 'label' with class names, to classify images")
    dtype = np.dtype(features["image"].np_dtype)
    encoded = hasattr(features["image"], "encoding_format")
    if dtype != np.uint8 and (dtype != np.float32 or encoded):
        raise ValueError(f"{name} has images of {dtype}; needs uint8 (pixels as stored), or float32 arrays")


def check_description(builder: Builder) -> None:
    """Compare all files but the records, which are small, with the checksums written down, if any.

    Raises:
      DamagedError: One is other than it was, so that classes or shapes may be.
    """
    folder = pathlib.Path(builder.data_path)
    if disk.sealed(folder):
        _check_files(folder, lambda name: FILE_FORMAT not in name)


def verify(builder: Builder) -> None:
    """Read every byte of the records and compare it with the checksums written down when they were made.

    A preparation that was copied here without checksums is read record by record, which have hashes of their own, and then
    gets them.

    Raises:
      DamagedError: A file is missing, longer, shorter or other than it was; the message names it.
    """
    folder = pathlib.Path(builder.data_path)
    if disk.sealed(folder):
        return _check_files(folder, lambda name: True)
    for split in builder.info.splits:
        source = _source(builder, split)
        for places in blocks(len(source)):
            _fetch(builder, source, places)
    with contextlib.suppress(OSError):  # a directory that may not be written is read as it is
        disk.seal(folder, folder.iterdir())  # not what is decoded below it, which has its own
    return None


def _check_files(folder: pathlib.Path, wanted: Callable[[str], bool]) -> None:
    try:
        disk.check(folder, wanted)
    except disk.DamagedError as error:
        raise disk.DamagedError(f"{error}; {_again(folder)}") from None


class Records:
    """The examples of one split, decoded where they are indexed: an array of images, and of labels."""

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
                f"size {size} is for images that are stored as JPEG or PNG; {split} holds arrays of {feature.shape}"
            )
        self.shape = (len(self.source), *(size or space), self.channels if self.encoded else channels)
        self.dtype = np.dtype(feature.np_dtype)

    def __call__(self, places: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode images and labels of the places.

        Raises:
          ValueError: The images differ in shape.
          DamagedError: A record is not what was written.
        """
        examples = _fetch(self.builder, self.source, places)
        images = [each["image"] for each in examples]
        if self.encoded:
            images = [self._decode(data, place) for data, place in zip(images, places, strict=True)]
        shapes = sorted({np.shape(image) for image in images})
        if len(shapes) > 1 or None not in self.shape and shapes != [self.shape[1:]]:
            raise self.differ(shapes)
        return np.stack(images), np.array([each["label"] for each in examples], np.int32)

    def differ(self, shapes: Sequence[tuple[int, ...]]) -> ValueError:
        """Say that images have several shapes."""
        return ValueError(
            f"{self.builder.data_path} holds images of different shapes, such as {list(shapes[:2])}; needs one shape:"
            " pass size=(height, width) to cut and scale them"
        )

    def labels(self) -> np.ndarray:
        """Read all labels, no image."""
        parts = [_fetch(self.builder, self.source, places) for places in blocks(len(self.source))]
        return np.array([each["label"] for part in parts for each in part], np.int32)

    def _decode(self, data: bytes, place: int) -> np.ndarray:
        mode = MODES[self.channels]
        try:
            with require("PIL.Image").open(io.BytesIO(data)) as opened:
                picture = opened if opened.mode == mode else opened.convert(mode)
                picture.load()
        except (OSError, SyntaxError) as error:
            raise disk.DamagedError(
                f"image {place} of {self.source.split!r} in {self.builder.data_path} cannot be decoded ({_first_line(error)})"
            ) from error
        if self.size is not None:
            picture = fitted(picture, self.size)
        return np.asarray(picture, self.dtype).reshape(picture.height, picture.width, self.channels)


def fitted(picture: Any, size: tuple[int, int]) -> Any:
    """Cut the middle of a Pillow image to the form of `size` (height, width), and scale it there, smoothly."""
    height, width = size
    scale = min(picture.height / height, picture.width / width)
    top, left = (picture.height - scale * height) / 2, (picture.width - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return picture.resize((width, height), require("PIL.Image").Resampling.BILINEAR, box=box)


def blocks(count: int) -> list[range]:
    """Divide so many examples into ranges that are read at once."""
    return [range(first, min(first + EXAMPLES, count)) for first in range(0, count, EXAMPLES)]


def decoded(records: Records, description: str, progress: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and labels of all examples in their order, a block at a time, decoded several at a time."""
    ranges, first = blocks(len(records.source)), None
    with concurrent.futures.ThreadPoolExecutor(disk.THREADS) as pool:
        for few in track(range(0, len(ranges), disk.THREADS), description, progress):
            for images, labels in pool.map(records, ranges[few : few + disk.THREADS]):
                first = images.shape[1:] if first is None else first
                if images.shape[1:] != first:
                    raise records.differ([first, images.shape[1:]])
                yield images, labels


def track(things: Sequence[Any], description: str, progress: bool) -> Iterable[Any]:
    """Go through `things`, with a bar on standard error where progress is to be shown."""
    if not progress:
        return things
    rich = require("rich.console")
    return require("rich.progress").track(things, description, console=rich.Console(stderr=True))


def _source(builder: Builder, split: str, decoders: Any = None) -> Any:
    with quiet():
        return builder.as_data_source(split, file_format=FILE_FORMAT, decoders=decoders)


def _fetch(builder: Builder, source: Any, places: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    try:
        return source.__getitems__([int(place) for place in places])
    except (RuntimeError, IndexError) as error:  # what the reader of array records makes of damage
        raise disk.DamagedError(
            f"the records of {source.split!r} in {builder.data_path} are damaged ({_first_line(error)});"
            f" {_again(builder.data_path)}"
        ) from error


def _remove_leftovers(folder: pathlib.Path) -> None:
    for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _again(folder: Any) -> str:
    return f"load it with again=True, or move {folder} away, to prepare it again"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Keep TFDS from printing and warning, and from drawing progress bars unless they are wanted."""
    log = require("absl.logging")
    bars = require("tensorflow_datasets.core.utils.tqdm_utils")
    verbosity, active = log.get_verbosity(), bars._active
    log.set_verbosity(log.ERROR)
    bars.display_progress_bar(progress)
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
