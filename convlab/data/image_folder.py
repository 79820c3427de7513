"""Reading of a folder of images by class, or of an archive of such a folder.

Every image is decoded and checked before any record is written.
"""

import collections
import concurrent.futures
import hashlib
import io
import os
import pathlib
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from convlab.data.disk import THREADS
from convlab.data.file_tree import Read, opened, walk
from convlab.data.image_file import GRAY, LOSSES, SUFFIXES, Picture, decode, is_hidden, some
from convlab.extras import require

UNSUPPORTED = (".bmp", ".gif", ".tif", ".tiff", ".webp")
SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
IN_TRAIN = "train/<class>/*.jpg or *.png"
LAYOUTS = f"<class>/*.jpg or *.png, or {IN_TRAIN}"


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
        with opened(self.source) as (_, read):
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
    files = [source] if source.is_file() else [source / name for name in walk(source) if name.lower().endswith(SUFFIXES)]
    lines = []
    for path in files:
        status = path.stat() if path.exists() else None  # None for a broken link
        lines.append(f"{path.relative_to(source.parent)} {status and (status.st_size, status.st_mtime_ns)}")
    digest = hashlib.sha256(os.fsencode("\n".join([os.fspath(source.resolve()), *lines]))).hexdigest()
    return f"{re.sub('[^a-z0-9]+', '_', source.stem.lower()).strip('_') or 'images'}-{digest[:12]}"


def scan(source: pathlib.Path, skip_corrupt: bool, track: Callable = lambda things, description: things) -> Album:
    """Find and decode every image of a folder or archive.

    If an image lies at train/<class>/, test/<class>/ or validation/<class>/, the folders are splits, and images elsewhere are
    left out with a warning. Else the folder of an image is its class, and the folders of all classes lie side by side.

    Args:
      source: The path of the folder, or of a zip or tar archive of it.
      skip_corrupt: Whether to leave out images that cannot be decoded, with a warning, instead of raising an error.
      track: A function that wraps an iterable, with a description, to show progress.

    Raises:
      ValueError: No image lies in such a folder, or a class is empty or missing from train. Or an image occurs twice in an
        archive, cannot be decoded, is too large, or has more than 8 bits per channel.
    """
    with opened(source) as (names, read):
        candidates = _by_split(names) or _by_class(source, names)
        files = [picture for picture in candidates if picture.path]
        if not any(picture.split == "train" for picture in files):
            raise ValueError(f"{source} holds no images as {IN_TRAIN if files else LAYOUTS}; {_instead(names)}")
        _warn_of_strays(source, names, candidates)
        _check_repeats(source, files)
        _check_classes(source, candidates)
        done = list(_decoded(track(files, f"checking {source.name}"), read))
    corrupt = [reason for picture, reason in done if reason]
    if corrupt and not skip_corrupt:
        raise ValueError(
            f"{source} holds {len(corrupt)} of {len(done)} images that cannot be decoded: {some(corrupt)};"
            " repair or remove them, or pass skip_corrupt=True"
        )
    if corrupt:
        warnings.warn(f"left out {len(corrupt)} of {len(done)} images of {source}: {some(corrupt)}", stacklevel=2)
    pictures = [picture for picture, reason in done if not reason]
    _check_classes(source, [*({p._replace(path="") for p in candidates}), *pictures])
    _check_depth(source, pictures)
    _warn_of_losses(source, pictures)
    return Album(source, pictures, tuple(sorted({picture.label for picture in pictures if picture.split == "train"})))


def _decoded(files: Sequence[Picture], read: Read) -> Iterator[tuple[Picture, str]]:
    """Read one file at a time and decode in parallel, with a few files in memory."""
    running: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for picture in files:
            running.append(pool.submit(decode, picture, _try(read, picture.path)))
            if len(running) > 2 * THREADS:
                yield running.popleft().result()
        yield from (future.result() for future in running)


def _by_split(names: list[str]) -> list[Picture]:
    """Return the images at train/<class>/ and so on, in any folder, and the folders of their classes.

    If there are only folders, nothing is returned.
    """
    pictures = []
    for name in names:
        parts = pathlib.PurePosixPath(name).parts
        for at, part in enumerate(parts[:-1]):
            is_folder = name.endswith("/")
            is_image = name.lower().endswith(SUFFIXES)
            if part in SPLITS and (is_folder or is_image) and len(parts) - at == 3 - is_folder and not is_hidden(name):
                path, label = "" if is_folder else name, parts[at + 1]
                pictures.append(Picture(SPLITS[part], label, path, f"{SPLITS[part]}/{label}"))
                break
    return pictures if any(picture.path for picture in pictures) else []


def _by_class(source: pathlib.Path, names: list[str]) -> list[Picture]:
    """Return the images at <class>/ and the empty folders beside them as a training split.

    The folders of all classes lie in one folder. Images outside of them are left out.

    Raises:
      ValueError: The folders do not lie side by side, or all are named as splits are.
    """
    images = [(name, pathlib.PurePosixPath(name)) for name in names if name.lower().endswith(SUFFIXES) and not is_hidden(name)]
    images = [(name, path) for name, path in images if len(path.parts) > 1]
    bases = {path.parent.parent: name for name, path in images}
    if len(bases) > 1:
        raise ValueError(
            f"{source} holds images in folders that do not lie side by side: {some(sorted(bases.values()))}; needs {LAYOUTS}"
        )
    labels = {path.parent.name for _, path in images}
    like_splits = sorted(labels & SPLITS.keys())
    if like_splits and labels <= SPLITS.keys():
        raise ValueError(
            f"{source} holds images directly in {some(like_splits)}, which name splits and no classes; needs {LAYOUTS}"
        )
    if like_splits:
        warnings.warn(f"took {some(like_splits)} in {source} as classes, since images lie directly in them", stacklevel=3)
    filled = {parent for name in names for parent in pathlib.PurePosixPath(name).parents}
    folders = [pathlib.PurePosixPath(name) for name in names if name.endswith("/") and not is_hidden(name)]
    empty = [path.name for path in folders if path.parent in bases and path not in filled]
    return [
        *(Picture("train", path.parent.name, name, path.parent.name) for name, path in images),
        *(Picture("train", label, "", label) for label in empty),
    ]


def _check_repeats(source: pathlib.Path, pictures: list[Picture]) -> None:
    """Check that no image occurs twice.

    Raises:
      ValueError: An archive holds two files of one path.
    """
    counts = collections.Counter(str(pathlib.PurePosixPath(picture.path)) for picture in pictures)
    repeated = [path for path, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(f"{source} holds {len(repeated)} images twice: {some(repeated)}; pack the archive again without them")


def _check_classes(source: pathlib.Path, pictures: list[Picture]) -> None:
    """Check the names of the classes, and that every class has images in every folder of it and in train.

    Raises:
      ValueError: A class has an unusable name, a folder without images, or no images in train.
    """
    labels = {picture.label for picture in pictures}
    odd = sorted(repr(label) for label in labels if label != label.strip() or not label.isprintable())
    if odd:
        raise ValueError(f"{source} has classes named {some(odd)}; needs UTF-8 names without line breaks or spaces around them")
    filled = {picture.folder for picture in pictures if picture.path}
    empty = sorted({picture.folder for picture in pictures} - filled)
    if empty:
        raise ValueError(f"{source} holds no image in {some(empty)}; every class needs one: fill or remove the folder")
    known = {picture.label for picture in pictures if picture.path and picture.split == "train"}
    untrained = sorted({picture.folder for picture in pictures if picture.path and picture.label not in known})
    if untrained:
        raise ValueError(f"{source} has {some(untrained)} but no such class in train; a model cannot learn it without images")


def _check_depth(source: pathlib.Path, pictures: list[Picture]) -> None:
    """Check that no image has more than 8 bits per channel.

    Raises:
      ValueError: An image has. Pillow reads gray images of 16 bits, but cuts coloured ones to 8 without a word.
    """
    wide = [f"{picture.path} ({picture.mode})" for picture in pictures if picture.is_wide]
    if wide:
        raise ValueError(
            f"{source} holds {len(wide)} images of more than 8 bits per channel: {some(wide)}; needs 8 bits, since Pillow reads"
            " no 16-bit colours: convert the files, or pass arrays of float32 to convlab.Data"
        )


def _warn_of_strays(source: pathlib.Path, names: list[str], candidates: list[Picture]) -> None:
    """Warn of images that are left out because of their path or format."""
    images = [name for name in names if name.lower().endswith((*SUFFIXES, *UNSUPPORTED))]
    taken = {picture.path for picture in candidates}
    strays = [name for name in images if name not in taken and not is_hidden(name)]
    if 0 < len(strays) < len(images):
        warnings.warn(f"left out {len(strays)} images of {source} that are not {LAYOUTS}: {some(strays)}", stacklevel=3)


def _warn_of_losses(source: pathlib.Path, pictures: list[Picture]) -> None:
    """Warn of what gray and RGB images of 8 bits cannot keep of the files, once for each kind of loss."""
    for loss, instead in LOSSES.items():
        paths = [picture.path for picture in pictures if loss in picture.lost]
        if paths:
            warnings.warn(f"dropped the {loss} of {len(paths)} images of {source}: {some(paths)}; {instead}", stacklevel=3)


def _try(read: Read, name: str) -> bytes | Exception:
    """Read a file, or return the exception that reading raised."""
    try:
        return read(name)
    except Exception as error:  # a broken link, a damaged or encrypted member, a deleted file
        return error


def _instead(names: list[str]) -> str:
    """Describe the images at paths of another form, for an error message."""
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    return f"its images are {some(images)}" if images else "it holds no .jpg, .jpeg or .png file"
