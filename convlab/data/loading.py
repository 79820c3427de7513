"""Loading of data sets by name: local ones, folders of images and the TFDS catalogue."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convlab.choices import one_of
from convlab.data import idx
from convlab.data.sets import Data, check_standardisation
from convlab.data.splits import hold_out
from convlab.extras import require

LOCAL = {"digits": "Digits", "mnist1d": "Mnist1D"}  # data set -> name of its builder; needs no network
FOLDER = "folder:"
TEST_FRACTION = 0.2  # the fraction of test examples if a data set has only a training split


def load(
    name: str = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    storage: str = "memory",
    standardisation: str = "moments",
    skip_corrupt: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Data:
    """Load a data set by name, and prepare it on disk the first time.

    Preparing a data set writes its records and their checksums into `data_dir`. Decoded images are stored next to the records,
    so loading again is fast. All files are verified before they are used.

    The data sets are:

    - "digits": 1,437 + 360 images of 8x8 pixels, made without a network.
    - "mnist1d": 4,000 + 1,000 signals of 40 samples, made without a network.
    - "folder:PATH": the images PATH/train/<class>/*.jpg or *.png. Folders test/ and validation/ of the same form are optional.
      PATH can also be a zip or tar archive of such a folder. Images are not rotated by their EXIF orientation.
    - Any TFDS data set of labelled images, such as "cifar10". Preparing it needs a network and TensorFlow. Reading it again
      needs neither.

    Args:
      name: The name of the data set.
      data_dir: The directory of prepared data sets. If None, the environment variable TFDS_DATA_DIR, else
        ~/tensorflow_datasets.
      manual_dir: The directory of files that you have downloaded yourself. For "mnist" and "fashion_mnist" these are the four
        IDX files, plain or .gz, and preparing then needs neither a network nor TensorFlow. For other data sets they are the
        files that TFDS asks for.
      image_size: The height and width to scale the images to, or one number for both. An image is cropped to the largest
        central part of that aspect ratio first. Required if the images differ in size.
      storage: The storage of the images. "memory" loads them as arrays. "disk" leaves decoded images on disk, for data sets
        larger than memory. "records" leaves compressed images on disk and decodes them whenever they are read.
      standardisation: The scaling of pixels in `fit`. "moments" gives mean 0 and standard deviation 1 per channel, so that zero
        padding is the mean grey. "scale" divides by the root mean square, so that a stored 0 stays 0, the value of zero
        padding. "none" leaves the pixels raw. The images of the data set itself stay raw; see `Data`.
      skip_corrupt: Whether to leave out images of a folder that cannot be decoded, with a warning, instead of raising an error.
      overwrite: Whether to prepare the data set again if it exists. The old files are deleted when the new ones are complete.
      seed: The seed that chooses the test examples if a data set has neither a test nor a validation split.
      progress: Whether to show progress bars for download, preparation and decoding.

    Returns:
      The data set.

    Raises:
      ValueError: The name or an option is unknown, the data set does not hold labelled images of one shape, or its records have
        another file format than array_record. A damaged file raises the subclass `DamagedError`, which names the file.
      ConnectionError: A TFDS data set is not prepared and its server does not answer within 5 seconds.
      ImportError: A package is missing. The message names the extra that installs it.
      OSError: The directory is not writable or the disk is full. No incomplete files are left.

    Example:
      >>> load("digits").image_shape  # doctest: +SKIP
      (8, 8, 1)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'digits', got {name!r}")
    from convlab.data import records, store

    one_of("storage", storage, store.STORAGES)
    check_standardisation(standardisation)
    shape = _height_and_width(image_size)
    require("tensorflow_datasets")
    directory, files = directory_of(data_dir), None if manual_dir is None else pathlib.Path(manual_dir).expanduser()

    options = {"overwrite": overwrite, "progress": progress}
    if name in LOCAL:
        builder = _local(name, LOCAL[name], directory, {}, **options)
    elif name.startswith(FOLDER):
        builder = _folder(name, directory, skip_corrupt, **options)
    elif name in idx.BUILDERS and (files or _prepared_path(idx.BUILDERS[name], directory).exists()):
        if overwrite and files is None:
            raise ValueError(f"manual_dir is None: overwrite=True needs the folder of the IDX files of {name}")
        builder = _local(name, idx.BUILDERS[name], directory, {"source": files}, **options)
    else:
        from convlab.data import catalogue

        builder = catalogue.open_or_prepare(name, directory, (*LOCAL, FOLDER + "PATH"), files, **options)
    names = records.readable_splits(builder, name)
    records.check_description(builder)
    splits = store.read(builder, names, storage, shape, progress)
    if len(splits) == 1:
        train, test = hold_out(splits["train"], TEST_FRACTION, seed)
    else:
        train, test = splits.pop("train"), splits.pop("test", None) or splits.pop("validation")
    classes = tuple(builder.info.features["label"].names)
    return Data(name, train, test, classes, splits.get("validation"), standardisation)


def _local(name: str, builder: str, directory: pathlib.Path, arguments: Mapping[str, Any], **options: Any) -> Any:
    """Return the builder of a data set that needs no network, prepared if necessary."""
    from convlab.data import builders, records

    make = functools.partial(getattr(builders, builder), data_dir=directory, **arguments)
    return records.open_or_prepare(_prepared_path(builder, directory), make, name, **options)


def _folder(name: str, directory: pathlib.Path, skip_corrupt: bool, **options: Any) -> Any:
    """Return the builder of a folder of images, prepared if necessary."""
    from convlab.data import builders, image_folder, records

    if name == FOLDER:
        raise ValueError("name is 'folder:', which names no folder; needs folder:PATH")
    source = pathlib.Path(name.removeprefix(FOLDER)).expanduser()
    state = image_folder.fingerprint(source) + "-skipped" * skip_corrupt

    def scan() -> image_folder.Album:
        return image_folder.scan(source, skip_corrupt, lambda items, text: records.track(items, text, options["progress"]))

    def make() -> Any:
        return builders.Folder(state=state, scan=scan, data_dir=directory)

    path = directory / builders.Folder.name / state / str(builders.Folder.VERSION)
    return records.open_or_prepare(path, make, name, **options)


def _prepared_path(builder: str, directory: pathlib.Path) -> pathlib.Path:
    """Return the path of the prepared data set of a builder in `convlab.data.builders`."""
    from convlab.data import builders

    kind = getattr(builders, builder)
    return directory / kind.name / str(kind.VERSION)


def _height_and_width(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return the height and width, or None."""
    if image_size is None:
        return None
    both: Any = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)  # pyright: ignore[reportArgumentType]
    if len(both) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in both):
        raise ValueError(f"image_size must be a number of pixels above 0, or height and width; got {image_size!r}")
    return int(both[0]), int(both[1])


def directory_of(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the directory of prepared data sets, reading the environment at the time of the call."""
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or pathlib.Path("~", "tensorflow_datasets")
    return pathlib.Path(directory).expanduser()
