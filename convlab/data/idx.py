"""Images and labels from IDX files, the format that MNIST and its likes are published in."""

import gzip
import pathlib
import struct
import zlib

import numpy as np

BUILDERS = {"mnist": "Mnist", "fashion_mnist": "FashionMnist"}  # names of data sets and of their builders
PARTS = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 8


def read_folder(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read images and labels of both splits: train-images-idx3-ubyte and so on, also compressed (.gz).

    Raises:
      ValueError: A file is missing, truncated, damaged, or holds anything but unsigned bytes; or images and labels differ in
        number.
    """
    splits = {}
    for split, part in PARTS.items():
        images, labels = (read(_find(folder, f"{part}-{what}")) for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder} holds {part} images of shape {images.shape} but labels of {labels.shape}; needs one each"
            )
        splits[split] = images[..., None], labels
    return splits


def read(path: pathlib.Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Raises:
      ValueError: It is truncated, damaged, or of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(f"{path} is not an IDX file: it begins with {data[:4]!r}")
    if data[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path} holds numbers of IDX type 0x{data[2]:02x}; needs unsigned bytes (0x08)")
    begin = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:begin]) if len(data) >= begin else (0,)
    if len(data) - begin != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} holds {len(data) - begin:,} bytes but its header says {shape}; it is truncated or damaged")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
    spellings = [folder / f"{each}{suffix}" for each in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for path in spellings:
        if path.exists():
            return path
    raise ValueError(f"{folder} holds no {name}, compressed (.gz) or not; needs the four IDX files of the set")
