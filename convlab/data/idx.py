"""Reading of images and labels from IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import pathlib
import struct
import zlib

import numpy as np

BUILDERS = {"mnist": "Mnist", "fashion_mnist": "FashionMnist"}  # data set -> name of its builder
PARTS = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 8


def read_folder(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the images and labels of both splits from a folder.

    The names of the four files are train-images-idx3-ubyte and so on, or the same with the suffix .gz.

    Raises:
      ValueError: A file is missing, truncated or damaged, or does not hold unsigned bytes. Or the numbers of images and labels
        differ.
    """
    splits = {}
    for split, part in PARTS.items():
        images, labels = (read(_find(folder, f"{part}-{name}")) for name in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder} holds {part} images of shape {images.shape} but labels of {labels.shape}; needs one label per image"
            )
        splits[split] = images[..., None], labels
    return splits


def read(path: pathlib.Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Raises:
      ValueError: The file is truncated or damaged, is not an IDX file, or holds numbers of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
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
    """Return the path of an IDX file by any of its usual names."""
    stems = (name, name.replace("-idx", ".idx"))
    for path in [folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz")]:
        if path.is_file():
            return path
    raise ValueError(f"{folder} holds no {name} or {name}.gz; needs the four IDX files of the data set")
