"""Decoded examples on disk, stored once next to their records and read in full or by index."""

import pathlib
import shutil
import warnings

import numpy as np

from convlab.data import disk, records
from convlab.data.records import Builder, Records
from convlab.data.splits import Split, StoredImages

STORAGES = ("memory", "disk", "records")


def read(builder: Builder, splits: list[str], storage: str, size: tuple[int, int] | None, progress: bool) -> dict[str, Split]:
    """Read splits of a prepared data set.

    Args:
      builder: The builder of the prepared data set.
      splits: The names of the splits.
      storage: The storage of the images. "memory" loads them as arrays. "disk" reads decoded images from disk when they are
        indexed. "records" decodes images from their records when they are indexed.
      size: The height and width to scale images to. If None, images keep their size.
      progress: Whether to show progress bars.

    Returns:
      The splits by name.

    Raises:
      ValueError: The images differ in shape.
      DamagedError: The records are damaged.
      OSError: `storage` is "disk" and the decoded images cannot be written.
    """
    if storage == "records":
        records.verify(builder)
        return {split: _split_of_records(Records(builder, split, size)) for split in splits}
    folder = pathlib.Path(builder.data_path) / ("decoded" if size is None else f"decoded_{size[0]}x{size[1]}")
    try:
        return _decoded(builder, folder, splits, storage, size, progress)
    except OSError as error:
        if storage == "disk":
            raise OSError(
                f"the decoded images of {builder.data_path} cannot be written ({error}); free some space, pass another"
                " data_dir, or storage='records', which decodes images when they are indexed"
            ) from None
        warnings.warn(f"decoded images cannot be stored for the next time: {error}", stacklevel=2)
        return {split: Split(*_decode(builder, split, size, progress)) for split in splits}


def _decoded(
    builder: Builder, folder: pathlib.Path, splits: list[str], storage: str, size: tuple[int, int] | None, progress: bool
) -> dict[str, Split]:
    """Read decoded splits, and decode them first if their files are missing or damaged."""
    open_split = {"memory": _split_in_memory, "disk": _split_on_disk}[storage]
    if folder.exists():
        try:
            return {split: open_split(folder, split) for split in splits}
        except disk.DamagedError as error:
            warnings.warn(f"decoding {builder.data_path} again: {error}", stacklevel=2)
            with disk.lock_folder(folder):
                shutil.rmtree(folder, ignore_errors=True)
    records.verify(builder)
    with disk.lock_folder(folder):
        if not folder.exists():
            with disk.atomic_folder(folder) as part:
                for split in splits:
                    _write(part, builder, split, size, progress)
    return {split: open_split(folder, split) for split in splits}


def _split_in_memory(folder: pathlib.Path, split: str) -> Split:
    """Load a decoded split into memory."""
    images, labels = (disk.read_array(folder, f"{split}.{name}.npy") for name in ("images", "labels"))
    return Split(images, labels)


def _split_on_disk(folder: pathlib.Path, split: str) -> Split:
    """Return a decoded split whose images are memory-mapped."""
    disk.verify_file(folder, f"{split}.images.npy")
    images = np.load(folder / f"{split}.images.npy", mmap_mode="r")
    stored = StoredImages(lambda indices: np.asarray(images[indices]), np.arange(len(images)), images.shape[1:], images.dtype)
    return Split(stored, disk.read_array(folder, f"{split}.labels.npy"))


def _split_of_records(source: Records) -> Split:
    """Return a split whose images are decoded when they are indexed."""
    if None in source.shape:
        raise source.shapes_error()
    stored = StoredImages(lambda indices: source(indices)[0], np.arange(source.shape[0]), source.shape[1:], source.dtype)
    return Split(stored, source.labels())


def _decode(builder: Builder, split: str, size: tuple[int, int] | None, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Decode a split into memory."""
    images, labels = zip(*records.decode_all(Records(builder, split, size), f"decoding {split}", progress), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _write(folder: pathlib.Path, builder: Builder, split: str, size: tuple[int, int] | None, progress: bool) -> None:
    """Decode a split into two .npy files, holding one block in memory at a time."""
    source, label_blocks = Records(builder, split, size), []
    with (folder / f"{split}.images.npy").open("wb") as file:
        for images, labels in records.decode_all(source, f"decoding {split}", progress):
            if not label_blocks:
                header = {"descr": images.dtype.str, "fortran_order": False, "shape": (source.shape[0], *images.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(images.tobytes())
            label_blocks.append(labels)
    np.save(folder / f"{split}.labels.npy", np.concatenate(label_blocks))
