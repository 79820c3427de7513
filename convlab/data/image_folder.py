"""Reading of a folder of images by class, or of an archive of such a folder.

Every image is decoded and checked before any record is written.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from convlab.data.disk import THREADS
from convlab.extras import require

SUFFIXES = (".jpg", ".jpeg", ".png")
UNSUPPORTED = (".bmp", ".gif", ".tif", ".tiff", ".webp")
SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
GRAY = ("1", "L", "LA")  # modes of Pillow; all other modes of 8 bits are colour
WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of more than 8 bits per pixel
SHOWN = 5  # the largest number of names in a message
AT_ONCE = 256  # the number of files in memory


class Picture(NamedTuple):
    """One image file.

    Attributes:
      split: The split that the image belongs to.
      label: The name of its class.
      path: The path inside the folder or archive. It is empty for an entry that stands for the folder of a class.
      mode: The mode of the pixels in Pillow's terms.
      size: The height and width in pixels.
      checksum: The CRC-32 of the file.
    """

    split: str
    label: str
    path: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    checksum: int = 0


class Album(NamedTuple):
    """All images of a folder or archive.

    Attributes:
      source: The path of the folder or archive.
      pictures: The images.
      classes: The names of the classes, sorted.
    """

    source: pathlib.Path
    pictures: list[Picture]
    classes: tuple[str, ...]

    @property
    def mode(self) -> str:
        """The common mode: "L" if all images are gray, else "RGB"."""
        return "L" if all(picture.mode in GRAY for picture in self.pictures) else "RGB"

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """The height, width and number of channels. Height and width are None if the images differ in size."""
        sizes = {picture.size for picture in self.pictures}
        height, width = sizes.pop() if len(sizes) == 1 else (None, None)
        return height, width, len(self.mode)

    def encoded(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield the bytes and the class of every image of a split.

        Files are unchanged, except that images of another mode are converted and encoded as PNG.

        Raises:
          ValueError: A file has changed since it was scanned.
        """
        image = require("PIL.Image")
        with _opened(self.source) as (_, read):
            for picture in self.pictures:
                if picture.split == split:
                    data = read(picture.path)
                    if zlib.crc32(data) != picture.checksum:
                        raise ValueError(f"{picture.path} in {self.source} changed while it was being prepared; load again")
                    if picture.mode != self.mode:
                        buffer = io.BytesIO()
                        image.open(io.BytesIO(data)).convert(self.mode).save(buffer, "PNG")
                        data = buffer.getvalue()
                    yield data, picture.label


def fingerprint(source: pathlib.Path) -> str:
    """Return a name that identifies the current contents of a folder or archive.

    It is a hash of the path, size and modification time of every image in the folder, or of the archive.
    """
    files = [source] if source.is_file() else [source / name for name in _walk(source) if name.lower().endswith(SUFFIXES)]
    lines = []
    for path in files:
        status = path.stat() if path.exists() else None  # None for a broken link
        lines.append(f"{path.relative_to(source.parent)} {status and (status.st_size, status.st_mtime_ns)}")
    digest = hashlib.sha256("\n".join([os.fspath(source.resolve()), *lines]).encode()).hexdigest()
    return f"{re.sub('[^a-z0-9]+', '_', source.stem.lower()).strip('_') or 'images'}-{digest[:12]}"


def scan(source: pathlib.Path, skip_corrupt: bool, track: Callable = lambda things, description: things) -> Album:
    """Find and decode every image of a folder or archive.

    Args:
      source: The path of a folder with train/<class>/*.jpg or *.png, and optionally test/ and validation/ of the same form. Or
        the path of a zip or tar archive of such a folder.
      skip_corrupt: Whether to leave out images that cannot be decoded, with a warning, instead of raising an error.
      track: A function that wraps an iterable, with a description, to show progress.

    Raises:
      ValueError: There is no image or no train/<class>/. Or a class is empty or missing from train. Or an image cannot be
        decoded or has more than 8 bits per pixel.
    """
    with _opened(source) as (names, read):
        candidates = [picture for name in names if (picture := _from_path(name))]
        _warn_of_strays(source, names)
        if not any(picture.path and picture.split == "train" for picture in candidates):
            raise ValueError(f"{source} holds no images as train/<class>/*.jpg or *.png; {_instead(names)}")
        _check_classes(source, candidates)
        files = [picture for picture in candidates if picture.path]
        done = []
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:  # reads one file at a time, decodes in parallel
            for first in track(range(0, len(files), AT_ONCE), f"checking {source.name}"):
                part = files[first : first + AT_ONCE]
                done += pool.map(_decode, part, [_try(read, picture.path) for picture in part])
    corrupt = [reason for picture, reason in done if reason]
    if corrupt and not skip_corrupt:
        raise ValueError(
            f"{source} holds {len(corrupt)} of {len(done)} images that cannot be decoded: {_some(corrupt)};"
            " repair or remove them, or pass skip_corrupt=True"
        )
    if corrupt:
        warnings.warn(f"left out {len(corrupt)} of {len(done)} images of {source}: {_some(corrupt)}", stacklevel=2)
    pictures = [picture for picture, reason in done if not reason]
    _check_classes(source, [*({p._replace(path="") for p in candidates}), *pictures])
    wide = [f"{picture.path} ({picture.mode})" for picture in pictures if picture.mode in WIDE]
    if wide:
        raise ValueError(f"{source} holds {len(wide)} images of more than 8 bits per pixel: {_some(wide)}; needs 8 bits")
    return Album(source, pictures, tuple(sorted({picture.label for picture in pictures if picture.split == "train"})))


def _from_path(name: str) -> Picture | None:
    """Derive split and class from a path, or return None if it has no such form.

    The folder of a class becomes a picture with an empty path.
    """
    parts = pathlib.PurePosixPath(name).parts
    if _hidden(name):
        return None
    for at, part in enumerate(parts[:-1]):
        if part in SPLITS and len(parts) - at == 3 and name.lower().endswith(SUFFIXES):
            return Picture(SPLITS[part], parts[at + 1], name)
        if part in SPLITS and len(parts) - at == 2 and name.endswith("/"):
            return Picture(SPLITS[part], parts[at + 1], "")
    return None


def _hidden(name: str) -> bool:
    """Return True for hidden files and for the metadata in archives made by macOS."""
    return any(part.startswith((".", "__MACOSX")) and part != "." for part in pathlib.PurePosixPath(name).parts)


def _walk(source: pathlib.Path) -> list[str]:
    """List the relative paths of all files and folders below a folder, following links.

    The paths of folders end in a slash.
    """
    names, seen = [], set()
    for folder, folders, files in os.walk(source, followlinks=True):
        here = pathlib.Path(folder)
        if (real := here.resolve()) in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        names += [(here / name).relative_to(source).as_posix() + "/" for name in folders]
        names += [(here / name).relative_to(source).as_posix() for name in files]
    return sorted(names)


def _check_classes(source: pathlib.Path, pictures: list[Picture]) -> None:
    """Check the names of the classes, and that every class has images in every folder of it and in train.

    Raises:
      ValueError: A class has an unusable name, a folder without images, or no images in train.
    """
    labels = {picture.label for picture in pictures}
    odd = sorted(repr(label) for label in labels if label != label.strip() or not label.isprintable())
    if odd:
        raise ValueError(f"{source} has classes named {_some(odd)}; needs names without line breaks or spaces around them")
    filled = {(picture.split, picture.label) for picture in pictures if picture.path}
    empty = sorted({f"{picture.split}/{picture.label}" for picture in pictures} - {"/".join(pair) for pair in filled})
    if empty:
        raise ValueError(f"{source} holds no image in {_some(empty)}; every class needs one: fill or remove the folder")
    known = {label for split, label in filled if split == "train"}
    untrained = sorted("/".join(pair) for pair in filled if pair[1] not in known)
    if untrained:
        raise ValueError(f"{source} has {_some(untrained)} but no such class in train; a model cannot learn it without images")


def _warn_of_strays(source: pathlib.Path, names: list[str]) -> None:
    """Warn of images that are left out because of their path or format."""
    images = [name for name in names if name.lower().endswith((*SUFFIXES, *UNSUPPORTED))]
    strays = [name for name in images if not _from_path(name) and not _hidden(name)]
    if 0 < len(strays) < len(images):
        warnings.warn(
            f"left out {len(strays)} images of {source} that are not train/<class>/*.jpg or *.png: {_some(strays)}",
            stacklevel=3,
        )


def _try(read: Callable[[str], bytes], name: str) -> bytes | Exception:
    """Read a file, or return the exception that reading raised."""
    try:
        return read(name)
    except Exception as error:  # a broken link, a damaged or encrypted member, a deleted file
        return error


def _decode(picture: Picture, data: bytes | Exception) -> tuple[Picture, str]:
    """Decode an image.

    Returns:
      The picture with mode, size and checksum, and an empty text. Or the picture unchanged, and why it cannot be decoded.
    """
    image = require("PIL.Image")
    try:
        if isinstance(data, Exception):
            raise data
        with image.open(io.BytesIO(data)) as opened:
            opened.load()
            if opened.format not in ("JPEG", "MPO", "PNG"):
                return picture, f"{picture.path} (is {opened.format})"
            size = (opened.height, opened.width)
            return picture._replace(mode=opened.mode, size=size, checksum=zlib.crc32(data)), ""
    except image.UnidentifiedImageError:
        return picture, f"{picture.path} (is not an image)"
    except Exception as error:  # Pillow raises exceptions of many types
        return picture, f"{picture.path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


@contextlib.contextmanager
def _opened(source: pathlib.Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Open a folder or archive, yielding the paths in it and a function that reads a file by its path.

    The paths of folders end in a slash.
    """
    if source.is_dir():
        yield _walk(source), lambda name: (source / name).read_bytes()
    elif not source.exists():
        raise ValueError(f"{source} does not exist; needs a folder of images by class, or a zip or tar of one")
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            yield archive.namelist(), archive.read
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            try:
                members = {member.name + "/" * member.isdir(): member for member in archive.getmembers()}
                archive.fileobj.seek(archive.offset)  # pyright: ignore
                complete = archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # pyright: ignore
            except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
                raise ValueError(f"{source} is damaged or truncated ({error})") from error
            if not complete:
                raise ValueError(f"{source} is truncated: it does not end with a block of zeros, as a tar archive does")
            yield list(members), lambda name: archive.extractfile(members[name]).read()  # pyright: ignore
    else:
        raise ValueError(f"{source} is neither a folder nor a zip or tar archive, or it is damaged")


def _instead(names: list[str]) -> str:
    """Describe the images at paths of another form, for an error message."""
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    return f"its images are {_some(images)}" if images else "it holds no .jpg, .jpeg or .png file"


def _some(names: list[str]) -> str:
    """Join the first names for a message."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
