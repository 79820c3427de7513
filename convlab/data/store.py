"""Decoded examples on disk, beside their records: made once, and read back in a moment or where they are indexed."""

import pathlib
import shutil
import warnings

import numpy as np

from convlab.data import disk, records
from convlab.data.records import Builder, Records
from convlab.data.splits import Split, Stored

KEEP = ("memory", "disk", "records")


def read(builder: Builder, splits: list[str], keep: str, size: tuple[int, int] | None, progress: bool) -> dict[str, Split]:
    """Read splits of a prepared builder.

    Args:
      builder: Prepared, its records those that were written.
      splits: Their names.
      keep: "memory": as arrays. "disk": decoded on disk, read where indexed. "records": decoded where indexed.
      size: Height and width to bring all images to.
      progress: Show bars.

    Raises:
      ValueError: The images differ in shape.
      DamagedError: The records are not those that were written.
      OSError: `keep` is "disk" and the decoded images cannot be written.
    """
    if keep == "records":
        records.verify(builder)
        return {split: _stay_records(Records(builder, split, size)) for split in splits}
    folder = pathlib.Path(builder.data_path) / ("decoded" if size is None else f"decoded_{size[0]}x{size[1]}")
    try:
        return _kept(builder, folder, splits, keep, size, progress)
    except OSError as error:
        if keep == "disk":
            raise OSError(
                f"the decoded images of {builder.data_path} cannot be written ({error}); free some space, pass another"
                " data_dir, or keep='records', which decodes images as they are needed"
            ) from error
        warnings.warn(f"decoded images are not kept for the next time: {error}", stacklevel=2)
        return {split: Split(*_decode(builder, split, size, progress)) for split in splits}


def _kept(
    builder: Builder, folder: pathlib.Path, splits: list[str], keep: str, size: tuple[int, int] | None, progress: bool
) -> dict[str, Split]:
    """Read what is decoded, and decode before that if it is not there, or not as it was written."""
    take = {"memory": _from_memory, "disk": _stay_decoded}[keep]
    if folder.exists():
        try:
            return {split: take(folder, split) for split in splits}
        except disk.DamagedError as error:
            warnings.warn(f"decoding {builder.data_path} again: {error}", stacklevel=2)
            with disk.alone(folder):
                shutil.rmtree(folder, ignore_errors=True)
    records.verify(builder)
    with disk.alone(folder):
        if not folder.exists():
            with disk.made_whole(folder) as part:
                for split in splits:
                    _write(part, builder, split, size, progress)
    return {split: take(folder, split) for split in splits}


def _from_memory(folder: pathlib.Path, split: str) -> Split:
    images, labels = (disk.read_array(folder, f"{split}.{what}.npy") for what in ("images", "labels"))
    return Split(images, labels)


def _stay_decoded(folder: pathlib.Path, split: str) -> Split:
    disk.check_file(folder, f"{split}.images.npy")
    images = np.load(folder / f"{split}.images.npy", mmap_mode="r")
    stored = Stored(lambda places: np.asarray(images[places]), np.arange(len(images)), images.shape[1:], images.dtype)
    return Split(stored, disk.read_array(folder, f"{split}.labels.npy"))


def _stay_records(source: Records) -> Split:
    if None in source.shape:
        raise ValueError(
            f"{source.builder.data_path} holds images of several shapes {source.shape[1:]}: keep='records' needs"
            " size=(height, width) to cut and scale them to one"
        )
    stored = Stored(lambda places: source(places)[0], np.arange(source.shape[0]), source.shape[1:], source.dtype)
    return Split(stored, source.labels())


def _decode(builder: Builder, split: str, size: tuple[int, int] | None, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*records.decoded(Records(builder, split, size), f"decoding {split}", progress), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _write(folder: pathlib.Path, builder: Builder, split: str, size: tuple[int, int] | None, progress: bool) -> None:
    """Decode a split into two .npy files, a block in memory at a time."""
    source, labels = Records(builder, split, size), []
    with (folder / f"{split}.images.npy").open("wb") as file:
        for images, names in records.decoded(source, f"decoding {split}", progress):
            if not labels:
                header = {"descr": images.dtype.str, "fortran_order": False, "shape": (source.shape[0], *images.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(images.tobytes())
            labels.append(names)
    np.save(folder / f"{split}.labels.npy", np.concatenate(labels))
