"""Loading of data sets by name: local ones, folders of images and the TFDS catalogue."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from convlab import check
from convlab.choices import one_of, shown
from convlab.data import digits, idx, records, store
from convlab.data.sets import Data, check_standardisation
from convlab.data.splits import TEST_FRACTION, Split, hold_out
from convlab.extras import require
from convlab.geometry import as_integer
from convlab.progress import track

LOCAL = {"digits": "Digits", "mnist1d": "Mnist1D"}  # data set of an installed package -> name of its builder
IN_MEMORY = {"digits": digits}  # data set of an installed package that is read at once -> module of its arrays
FOLDER = "folder:"


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

    - "digits": 1,437 + 360 images of 8x8 pixels. They come with scikit-learn, the only package that `storage="memory"` needs.
      They are then not prepared, and `data_dir` is not used.
    - "mnist1d": 4,000 + 1,000 signals of 40 samples, made without a network.
    - "folder:PATH": the images PATH/<class>/*.jpg or *.png. Or PATH/train/<class>/*.jpg or *.png, with optional folders test/
      and validation/ of the same form. PATH can also be a zip or tar archive of such a folder; see below.
    - Any TFDS data set of labelled images, such as "cifar10". Preparing it needs a network and TensorFlow. Reading it again
      needs neither.

    All but the digits in memory need the packages of the extra "experiments". If a data set has only training images, such as
    PATH/<class>/, a fifth of each class is held out for testing, chosen by `seed`.

    **Folders.** If an image lies at train/<class>/, test/<class>/ or validation/<class>/, those folders are splits. A class
    named "train" or "test" is therefore one whose images lie directly in a folder of that name, beside other classes. Images
    have 8 bits per channel and at most 64 MiB and `PIL.Image.MAX_IMAGE_PIXELS` pixels. Each must occur once in an archive. Gray
    images stay gray if all are, else all become RGB. Transparency, CMYK colours, and all frames of an animation but the first
    are dropped, with a warning. The EXIF orientation is ignored.

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
      seed: The seed that chooses the test examples if a data set has only training images.
      progress: Whether to show the progress of download, preparation and decoding, as bars in a terminal.

    Returns:
      The data set.

    Raises:
      ValueError: The name or an option is unknown, the data set does not hold labelled images of one shape, or its records have
        another file format than array_record. A damaged file raises the subclass `DamagedError`, which names the file.
      TypeError: An argument is of the wrong type.
      ConnectionError: A TFDS data set is not prepared and its server does not answer within 5 seconds.
      ImportError: A package is missing. The message names the extra that installs it.
      OSError: The directory is not writable or the disk is full. No incomplete files are left.

    Example:
      >>> load("digits").image_shape
      (8, 8, 1)
    """
    if not check.instance("name", name, str, "a string such as 'digits'"):
        raise ValueError("name is empty; needs a data set such as 'digits' or 'folder:PATH'")
    one_of("storage", storage, store.STORAGES)
    check_standardisation(standardisation)
    flags = {"skip_corrupt": skip_corrupt, "overwrite": overwrite, "progress": progress}
    flags = {option: bool(check.flag(option, value)) for option, value in flags.items()}
    seed, shape = as_integer("seed", seed, least=0), _height_and_width(image_size)
    directory, files = directory_of(data_dir), _path("manual_dir", manual_dir)
    if name in IN_MEMORY and storage == "memory":
        splits, classes = _in_memory(name, shape), IN_MEMORY[name].CLASSES
    else:
        builder = _prepared(name, directory, files, **flags)
        splits = store.read(builder, records.readable_splits(builder, name), storage, shape, flags["progress"])
        classes = tuple(builder.info.features["label"].names)
    if len(splits) == 1:
        train, test = hold_out(splits["train"], TEST_FRACTION, seed)
    else:
        train, test = splits.pop("train"), splits.pop("test", None) or splits.pop("validation")
    return Data(name, train, test, classes, splits.get("validation"), standardisation)


def _in_memory(name: str, shape: tuple[int, int] | None) -> dict[str, Split]:
    """Return the splits of a data set that is neither prepared nor read from `data_dir`."""
    splits = {split: Split(images, labels) for split, (images, labels) in IN_MEMORY[name].arrays().items()}
    if shape is not None:
        got = splits["train"].images.shape[1:]
        raise ValueError(f"image_size {shape} is for images that are stored as JPEG or PNG; {name} holds arrays of {got}")
    return splits


def _prepared(
    name: str, directory: pathlib.Path, files: pathlib.Path | None, *, skip_corrupt: bool, overwrite: bool, progress: bool
) -> records.Builder:
    """Return the builder of a data set on disk, prepared if necessary."""
    require("tensorflow_datasets")
    require("array_record.python.array_record_module", package="array_record")  # TFDS asks for it when it writes
    options = {"overwrite": overwrite, "progress": progress}
    if name in LOCAL:
        return _local(name, LOCAL[name], directory, None, **options)
    if name.startswith(FOLDER):
        return _folder(name, directory, skip_corrupt, **options)
    if name in idx.BUILDERS and (files or _prepared_path(idx.BUILDERS[name], directory).exists()):
        if overwrite and files is None:
            raise ValueError(f"manual_dir is None: overwrite=True needs the folder of the IDX files of {name}")
        return _local(name, idx.BUILDERS[name], directory, files, **options)
    from convlab.data import catalogue

    return catalogue.open_or_prepare(name, directory, (*LOCAL, FOLDER + "PATH"), files, **options)


def _local(name: str, builder: str, directory: pathlib.Path, source: pathlib.Path | None, **options: Any) -> Any:
    """Return the builder of a data set that needs no network, prepared if necessary."""
    from convlab.data import builders

    def make() -> Any:
        kind = getattr(builders, builder)
        return kind(splits=kind.arrays(source), data_dir=directory)

    return records.open_or_prepare(_prepared_path(builder, directory), make, name, **options)


def _folder(name: str, directory: pathlib.Path, skip_corrupt: bool, **options: Any) -> Any:
    """Return the builder of a folder of images, prepared if necessary."""
    from convlab.data import builders, image_folder

    if name == FOLDER or "\0" in name:
        raise ValueError(f"name is {name!r}, which names no folder; needs folder:PATH")
    source = pathlib.Path(name.removeprefix(FOLDER)).expanduser()
    state = image_folder.fingerprint(source) + "-skipped" * skip_corrupt

    def make() -> Any:
        show = track if options["progress"] else lambda items, text: items
        album = image_folder.scan(source, skip_corrupt, show)
        return builders.Folder(state=state, album=album, data_dir=directory)

    path = directory / builders.Folder.name / state / str(builders.Folder.VERSION)
    return records.open_or_prepare(path, make, name, **options)


def _prepared_path(builder: str, directory: pathlib.Path) -> pathlib.Path:
    """Return the path of the prepared data set of a builder in `convlab.data.builders`."""
    from convlab.data import builders

    kind = getattr(builders, builder)
    return directory / kind.name / str(kind.VERSION)


def _height_and_width(image_size: Any) -> tuple[int, int] | None:
    """Return the height and width, or None."""
    if image_size is None:
        return None
    is_pair = isinstance(image_size, list | tuple) or isinstance(image_size, np.ndarray) and image_size.ndim == 1
    both: Any = tuple(image_size) if is_pair else (image_size, image_size)
    if len(both) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in both):
        raise ValueError(f"image_size must be a number of pixels above 0, or height and width; got {shown(image_size)}")
    check.shape_fits("an image of image_size", *both, 3, itemsize=1)
    return int(both[0]), int(both[1])


def directory_of(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the directory of prepared data sets, reading the environment at the time of the call."""
    directory = _path("data_dir", data_dir) or pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return directory.expanduser()


def _path(name: str, value: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """Return a path, or None.

    Raises:
      TypeError: It is no path.
      ValueError: It is empty, or holds a character that cannot be printed or is not UTF-8.
    """
    if value is None:
        return None
    path = check.path(name, value, "the path of a directory")
    if not str(path).isprintable():  # TFDS takes no other characters
        raise ValueError(f"{name} must be the path of a directory in printable characters, got {value!r}")
    return path.expanduser()
