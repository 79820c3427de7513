"""From a name to data: sets made on this machine, folders of images, and every labelled image set TFDS knows."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convlab.data import idx
from convlab.data.sets import Data, check_standardisation
from convlab.data.splits import hold_out
from convlab.extras import require

OWN = {"digits": "Digits", "mnist1d": "Mnist1D"}  # names of data sets and of their builders
FOLDER = "folder:"
HELD_OUT = 0.2  # share kept for testing where a data set has only a training split


def load(
    name: str = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    size: int | Sequence[int] | None = None,
    keep: str = "memory",
    standardisation: str = "moments",
    skip_corrupt: bool = False,
    again: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Data:
    """Load a data set, preparing it on disk the first time.

    Preparing writes array records into `data_dir`, with checksums; decoded images are kept beside them, so that the next time
    takes a moment. Whatever is read is checked first: a file that is not what was written is named, never trained on.

    Args:
      name: "digits" (1,437 + 360 images of 8x8), "mnist1d" (4,000 + 1,000 signals of 40 samples), both made without a
        network; "folder:PATH", images in PATH/train/<class>/*.jpg or *.png (test/ and validation/ alike if they are there), or
        a zip or tar of them, pixels as stored (not turned by EXIF); or any TFDS set of labelled images, e.g. "cifar10", which
        is prepared with a network and TensorFlow and from then on read without either.
      data_dir: Where prepared sets lie; by default the TFDS_DATA_DIR of the environment, else ~/tensorflow_datasets.
      manual_dir: Where files lie that you fetched: for "mnist" and "fashion_mnist" the four IDX files (.gz or not), which
        are prepared with neither network nor TensorFlow; for other sets what TFDS asks for.
      size: Height and width, or one number for both, to bring images to: the largest middle part of that form, scaled.
        Needed where images differ in size.
      keep: "memory": the images are arrays. "disk": they stay decoded on disk, for sets larger than memory. "records": they
        stay compressed on disk and are decoded whenever they are read.
      standardisation: How `fit` brings pixels to a common scale: "moments" (mean 0 and standard deviation 1 per channel; zero
        padding is then the mean grey), "scale" (divided by the root mean square, so that a stored 0 stays 0, the value of zero
        padding) or "none" (raw pixels). The images of the data set are as stored in any case; see `Data`.
      skip_corrupt: Leave images of a folder out that cannot be decoded, with a warning, instead of refusing the folder.
      again: Prepare it again; what was prepared before goes when the new one is whole.
      seed: Chooses the test examples of a set that comes with neither a test nor a validation split; no effect on others.
      progress: Show bars for download, preparation and decoding.

    Raises:
      ValueError: The name or an option is unknown, the set holds no labelled images of one shape, it is prepared in another
        file format than array_record, or a file is damaged (a `DamagedError`, which names it).
      ConnectionError: A TFDS set is not prepared and its server does not answer (told within 5 seconds).
      ImportError: A package is missing; the message names the extra that brings it.
      OSError: The directory cannot be written, or the disk is full; nothing half-made is left.

    Example:
      >>> load("digits").image_shape  # doctest: +SKIP
      (8, 8, 1)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'digits', got {name!r}")
    from convlab.data import records, store

    if keep not in store.KEEP:
        raise ValueError(f"keep {keep!r} is unknown; needs one of {', '.join(map(repr, store.KEEP))}")
    check_standardisation(standardisation)
    shape = _size(size)
    require("tensorflow_datasets")
    directory, files = directory_of(data_dir), None if manual_dir is None else pathlib.Path(manual_dir).expanduser()

    options = {"again": again, "progress": progress}
    if name in OWN:
        builder = _made_here(name, OWN[name], directory, {}, **options)
    elif name.startswith(FOLDER):
        builder = _folder(name, directory, skip_corrupt, **options)
    elif name in idx.BUILDERS and (files or _place(idx.BUILDERS[name], directory).exists()):
        if again and files is None:
            raise ValueError(f"preparing {name} again needs manual_dir, the folder of its IDX files")
        builder = _made_here(name, idx.BUILDERS[name], directory, {"source": files}, **options)
    else:
        from convlab.data import stock

        builder = stock.prepared(name, directory, (*OWN, FOLDER + "PATH"), files, **options)
    names = records.check(builder, name)
    records.check_description(builder)
    splits = store.read(builder, names, keep, shape, progress)
    if len(splits) == 1:
        train, test = hold_out(splits["train"], HELD_OUT, seed)
    else:
        train, test = splits.pop("train"), splits.pop("test", None) or splits.pop("validation")
    classes = tuple(builder.info.features["label"].names)
    return Data(name, train, test, classes, splits.get("validation"), standardisation)


def _made_here(name: str, builder: str, directory: pathlib.Path, given: Mapping[str, Any], **options: Any) -> Any:
    from convlab.data import builders, records

    make = functools.partial(getattr(builders, builder), data_dir=directory, **given)
    return records.prepared(_place(builder, directory), make, name, **options)


def _folder(name: str, directory: pathlib.Path, skip_corrupt: bool, **options: Any) -> Any:
    from convlab.data import builders, folder, records

    if name == FOLDER:
        raise ValueError("'folder:' names no folder; needs folder:PATH")
    source = pathlib.Path(name.removeprefix(FOLDER)).expanduser()
    state = folder.fingerprint(source) + "-skipped" * skip_corrupt

    def scan() -> folder.Album:
        return folder.scan(source, skip_corrupt, lambda things, text: records.track(things, text, options["progress"]))

    def make() -> Any:
        return builders.Folder(state=state, scan=scan, data_dir=directory)

    place = directory / builders.Folder.name / state / str(builders.Folder.VERSION)
    return records.prepared(place, make, name, **options)


def _place(builder: str, directory: pathlib.Path) -> pathlib.Path:
    """Return the directory that TFDS prepares one of our builders in."""
    from convlab.data import builders

    made = getattr(builders, builder)
    return directory / made.name / str(made.VERSION)


def _size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return height and width."""
    if size is None:
        return None
    both: Any = (size, size) if np.ndim(size) == 0 else tuple(size)  # pyright: ignore[reportArgumentType]
    if len(both) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in both):
        raise ValueError(f"size must be a number of pixels above 0, or height and width; got {size!r}")
    return int(both[0]), int(both[1])


def directory_of(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the directory of prepared sets; read from the environment now, not when TFDS was imported."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or pathlib.Path("~", "tensorflow_datasets")
    return pathlib.Path(chosen).expanduser()
