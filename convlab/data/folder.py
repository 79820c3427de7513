"""A folder of images by class, or an archive of one: what is in it, checked image by image before anything is written."""

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
OTHERS = (".bmp", ".gif", ".tif", ".tiff", ".webp")  # images that are not read
SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
GRAY = ("1", "L", "LA")  # modes; all others of 8 bits are colour
WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # more than 8 bits a pixel
SHOWN = 5  # names in a message
AT_ONCE = 256  # files in memory


class Picture(NamedTuple):
    """One image file: where it belongs, and what its pixels are like."""

    split: str
    label: str
    path: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # height, width
    checksum: int = 0


class Album(NamedTuple):
    """All images of a folder or archive."""

    source: pathlib.Path
    pictures: list[Picture]
    classes: tuple[str, ...]

    @property
    def mode(self) -> str:
        """Gray ("L") where all are gray, else colour ("RGB")."""
        return "L" if all(picture.mode in GRAY for picture in self.pictures) else "RGB"

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels; None where sizes differ."""
        sizes = {picture.size for picture in self.pictures}
        height, width = sizes.pop() if len(sizes) == 1 else (None, None)
        return height, width, len(self.mode)

    def encoded(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield the bytes and the class of every image of a split: as they are, or as PNG where the colours must change."""
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
    """Name the state of a folder or archive: path, size and time of change of every image in it, or of the archive."""
    files = [source] if source.is_file() else [source / name for name in _walk(source) if name.lower().endswith(SUFFIXES)]
    lines = []
    for path in files:
        told = path.stat() if path.exists() else None  # a link that leads nowhere
        lines.append(f"{path.relative_to(source.parent)} {told and (told.st_size, told.st_mtime_ns)}")
    digest = hashlib.sha256("\n".join([os.fspath(source.resolve()), *lines]).encode()).hexdigest()
    return f"{re.sub('[^a-z0-9]+', '_', source.stem.lower()).strip('_') or 'images'}-{digest[:12]}"


def scan(source: pathlib.Path, skip_corrupt: bool, track: Callable = lambda things, description: things) -> Album:
    """Find and decode every image of a folder or archive.

    Args:
      source: A folder with train/<class>/*.jpg or *.png and perhaps test/ and validation/ alike; or a zip or tar of one.
      skip_corrupt: Leave out images that cannot be decoded, with a warning, instead of refusing all.
      track: Shows progress.

    Raises:
      ValueError: No image, no train/<class>/, an empty class, a class that is not in train, an image that cannot be
        decoded, or has more than 8 bits a pixel.
    """
    with _opened(source) as (names, read):
        found = [picture for name in names if (picture := _placed(name))]
        _warn_of_strays(source, names)
        if not any(picture.path and picture.split == "train" for picture in found):
            raise ValueError(f"{source} holds no images as train/<class>/*.jpg or *.png; {_instead(names)}")
        _check_classes(source, found)
        files = [picture for picture in found if picture.path]
        done = []
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:  # reads one by one, decodes several at a time
            for first in track(range(0, len(files), AT_ONCE), f"checking {source.name}"):
                part = files[first : first + AT_ONCE]
                done += pool.map(_look, part, [_try(read, picture.path) for picture in part])
    corrupt = [reason for picture, reason in done if reason]
    if corrupt and not skip_corrupt:
        raise ValueError(
            f"{source} holds {len(corrupt)} of {len(done)} images that cannot be decoded: {_some(corrupt)};"
            " mend or remove them, or pass skip_corrupt=True"
        )
    if corrupt:
        warnings.warn(f"left out {len(corrupt)} of {len(done)} images of {source}: {_some(corrupt)}", stacklevel=2)
    pictures = [picture for picture, reason in done if not reason]
    _check_classes(source, [*({p._replace(path="") for p in found}), *pictures])
    wide = [f"{picture.path} ({picture.mode})" for picture in pictures if picture.mode in WIDE]
    if wide:
        raise ValueError(f"{source} holds {len(wide)} images of more than 8 bits a pixel: {_some(wide)}; needs 8 bits")
    return Album(source, pictures, tuple(sorted({picture.label for picture in pictures if picture.split == "train"})))


def _placed(name: str) -> Picture | None:
    """Read split and class off a path; a class's folder itself becomes a picture without path."""
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
    return any(part.startswith((".", "__MACOSX")) and part != "." for part in pathlib.PurePosixPath(name).parts)


def _walk(source: pathlib.Path) -> list[str]:
    """List what a folder holds, links followed: names below it, folders with a slash at the end."""
    names, seen = [], set()
    for folder, folders, files in os.walk(source, followlinks=True):
        here = pathlib.Path(folder)
        if (real := here.resolve()) in seen:  # a link back to where it came from
            folders.clear()
            continue
        seen.add(real)
        names += [(here / each).relative_to(source).as_posix() + "/" for each in folders]
        names += [(here / each).relative_to(source).as_posix() for each in files]
    return sorted(names)


def _check_classes(source: pathlib.Path, found: list[Picture]) -> None:
    """Raise ValueError for a class that has a folder but no image, or images outside train only, or an unusable name."""
    labels = {picture.label for picture in found}
    odd = sorted(repr(label) for label in labels if label != label.strip() or not label.isprintable())
    if odd:
        raise ValueError(f"{source} has classes named {_some(odd)}; needs names without line breaks or spaces around them")
    filled = {(picture.split, picture.label) for picture in found if picture.path}
    empty = sorted({f"{picture.split}/{picture.label}" for picture in found} - {"/".join(pair) for pair in filled})
    if empty:
        raise ValueError(f"{source} holds no image in {_some(empty)}; every class needs one: fill or remove the folder")
    known = {label for split, label in filled if split == "train"}
    strange = sorted("/".join(pair) for pair in filled if pair[1] not in known)
    if strange:
        raise ValueError(f"{source} has {_some(strange)} but no such class in train; a model cannot learn what it never sees")


def _warn_of_strays(source: pathlib.Path, names: list[str]) -> None:
    """Say which images are left out for where they stand, or what they are."""
    images = [name for name in names if name.lower().endswith((*SUFFIXES, *OTHERS))]
    strays = [name for name in images if not _placed(name) and not _hidden(name)]
    if 0 < len(strays) < len(images):
        warnings.warn(
            f"left out {len(strays)} images of {source} that are not train/<class>/*.jpg or *.png: {_some(strays)}",
            stacklevel=3,
        )


def _try(read: Callable[[str], bytes], name: str) -> bytes | Exception:
    try:
        return read(name)
    except Exception as error:  # a broken link, a damaged or encrypted member, a file that is gone
        return error


def _look(picture: Picture, data: bytes | Exception) -> tuple[Picture, str]:
    """Decode an image; return it with mode, size and checksum, and why it cannot be decoded."""
    image = require("PIL.Image")
    try:
        if isinstance(data, Exception):
            raise data
        with image.open(io.BytesIO(data)) as opened:
            opened.load()
            if opened.format not in ("JPEG", "MPO", "PNG"):
                return picture, f"{picture.path} (is {opened.format})"
            looked = picture._replace(mode=opened.mode, size=(opened.height, opened.width), checksum=zlib.crc32(data))
            return looked, ""
    except image.UnidentifiedImageError:
        return picture, f"{picture.path} (is no image)"
    except Exception as error:  # Pillow raises many kinds
        return picture, f"{picture.path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


@contextlib.contextmanager
def _opened(source: pathlib.Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Open a folder or archive: the names in it (folders end in a slash), and what reads one."""
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
                whole = archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # pyright: ignore
            except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
                raise ValueError(f"{source} is damaged or truncated ({error})") from error
            if not whole:
                raise ValueError(f"{source} is truncated: a tar ends with a block of zeros")
            yield list(members), lambda name: archive.extractfile(members[name]).read()  # pyright: ignore
    else:
        raise ValueError(f"{source} is neither a folder nor a zip or tar archive, or is damaged")


def _instead(names: list[str]) -> str:
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    return f"its images are {_some(images)}" if images else "it holds no .jpg, .jpeg or .png file at all"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
