"""The files of a folder, or of a zip or tar archive of one, by their paths.

Nothing is extracted to disk, and no file is read beyond a limit.
"""

import contextlib
import lzma
import os
import pathlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

MAXIMUM_BYTES = 2**26  # of one file
Read = Callable[[str], bytes]


@contextlib.contextmanager
def opened(source: pathlib.Path) -> Iterator[tuple[list[str], Read]]:
    """Open a folder or archive, yielding the paths in it and a function that reads a file by its path.

    The paths of folders end in a slash. A path that an archive holds twice is yielded twice. The function raises ValueError if
    a path is no regular file or if the file is larger than `MAXIMUM_BYTES`.

    Args:
      source: The path of a folder, or of a zip or tar archive.

    Raises:
      ValueError: There is no such folder or archive, or the archive is damaged.
    """
    if source.is_dir():
        yield walk(source), lambda name: _read_file(source / name)
    elif not source.exists():
        raise ValueError(f"{source} does not exist; needs a folder of images by class, or a zip or tar of one")
    elif source.is_file() and zipfile.is_zipfile(source):
        with _open_zip(source) as archive:
            yield archive.namelist(), lambda name: _bounded(archive.open(name))
    elif source.is_file() and tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            members = _members(source, archive)
            yield (
                [member.name + "/" * member.isdir() for member in members],
                lambda name: _bounded(archive.extractfile(name)),
            )
    else:
        raise ValueError(f"{source} is neither a folder nor a zip or tar archive, or it is damaged")


def walk(source: pathlib.Path) -> list[str]:
    """List the relative paths of all files and folders below a folder, following links.

    The paths of folders end in a slash.

    Raises:
      PermissionError: A folder may not be read.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    names, seen = [], set()
    for folder, folders, files in os.walk(source, onerror=refuse, followlinks=True):
        here = pathlib.Path(folder)
        if (real := here.resolve()) in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        names += [(here / name).relative_to(source).as_posix() + "/" for name in folders]
        names += [(here / name).relative_to(source).as_posix() for name in files]
    return sorted(names)


def _read_file(path: pathlib.Path) -> bytes:
    """Read a regular file. Opening a pipe would wait for a writer."""
    return _bounded(path.open("rb") if stat.S_ISREG(path.stat().st_mode) else None)


def _bounded(file: IO[bytes] | None) -> bytes:
    """Read an open file up to the limit and close it. None stands for what is no regular file."""
    if file is None:
        raise ValueError("is no regular file")
    with file:
        data = file.read(MAXIMUM_BYTES + 1)
    if len(data) > MAXIMUM_BYTES:
        raise ValueError(f"is larger than {MAXIMUM_BYTES // 2**20} MiB, the limit for one image file")
    return data


def _open_zip(source: pathlib.Path) -> zipfile.ZipFile:
    """Open a zip archive whose names are UTF-8, with or without its flag, else in code page 437."""
    try:
        return zipfile.ZipFile(source, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(source)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{source} is damaged or truncated ({error})") from None


def _members(source: pathlib.Path, archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of a tar archive and check that it is complete."""
    try:
        members = archive.getmembers()
        archive.fileobj.seek(archive.offset)  # pyright: ignore
        complete = archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # pyright: ignore
    except (EOFError, OSError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{source} is damaged or truncated ({error})") from None
    if not complete:
        raise ValueError(f"{source} is truncated: it does not end with a block of zeros, as a tar archive does")
    return members
