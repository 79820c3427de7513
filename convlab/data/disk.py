"""Folders that are whole or absent: one writer at a time, leftovers removed, every byte checked before it is believed."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from convlab.extras import require

MANIFEST = "checksums.json"  # of every other file of its folder: bytes, and the CRC-32 of each block
BLOCK = 2**24  # bytes
THREADS = min(8, os.cpu_count() or 1)


class DamagedError(ValueError):
    """A file does not hold what was written to it."""


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes from writing a folder: they wait here, also for one that is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with require("filelock").FileLock(folder.parent / f".{folder.name}.lock"):
        yield


@contextlib.contextmanager
def made_whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an empty folder to write to, which takes the place of `folder` at the end, or vanishes on an error.

    Only inside `alone(folder)`; what a killed process left goes first.
    """
    part = folder.with_name(f"{folder.name}.incomplete")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        yield part
        seal(part, part.rglob("*"))
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def remove(folder: pathlib.Path) -> None:
    """Delete a folder. It loses its name before its first file, so that no killed process leaves a part of it under that."""
    gone = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def seal(folder: pathlib.Path, paths: Iterable[pathlib.Path]) -> None:
    """Write down the checksums of the files among `paths`, which lie in the folder."""
    files = sorted(path for path in paths if path.is_file() and not path.name.startswith((MANIFEST, ".")))
    lines = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": _checksums(path)} for path in files}
    part = folder / f"{MANIFEST}.incomplete"
    part.write_text(json.dumps(lines, indent=1))
    part.rename(folder / MANIFEST)


def sealed(folder: pathlib.Path) -> bool:
    """Whether checksums were written down."""
    return (folder / MANIFEST).exists()


def check(folder: pathlib.Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Read all wanted files of a sealed folder.

    Raises:
      DamagedError: One is missing, longer, shorter or other than it was; the message names it.
    """
    for name, expected in _manifest(folder).items():
        if wanted(name):
            _read(folder / name, expected, lambda begin, block: None)


def check_file(folder: pathlib.Path, name: str) -> None:
    """Read one file of a sealed folder.

    Raises:
      DamagedError: It is missing, longer, shorter or other than it was.
    """
    _read(folder / name, _expected(folder, name), lambda begin, block: None)


def read_array(folder: pathlib.Path, name: str) -> np.ndarray:
    """Read a .npy file of a sealed folder into memory, checked on the way.

    Raises:
      DamagedError: It is missing, longer, shorter or other than it was.
    """
    expected = _expected(folder, name)
    whole = np.empty(expected["bytes"], np.uint8)

    def keep(begin: int, block: bytes) -> None:
        whole[begin : begin + len(block)] = np.frombuffer(block, np.uint8)

    _read(folder / name, expected, keep)
    with (folder / name).open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        begin = file.tell()
    return whole[begin:].view(dtype).reshape(shape)


def _read(path: pathlib.Path, expected: dict, keep: Callable[[int, bytes], None]) -> None:
    """Hand over a file block by block, several at a time, each checked against what the manifest expects."""
    size = path.stat().st_size if path.exists() else 0
    if size != expected["bytes"]:
        raise DamagedError(f"{path} holds {size:,} bytes but {expected['bytes']:,} were written")

    def visit(number: int) -> int:
        block = _block(file, number)
        if zlib.crc32(block) != expected["crc32"][number]:
            raise DamagedError(f"{path} is damaged near byte {number * BLOCK:,}: its checksum is not the one written down")
        keep(number * BLOCK, block)
        return number

    with path.open("rb") as opened, concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        file = opened.fileno()
        list(pool.map(visit, range(len(expected["crc32"]))))


def _expected(folder: pathlib.Path, name: str) -> dict:
    try:
        return _manifest(folder)[name]
    except KeyError:
        raise DamagedError(f"{name} is not among the files of {folder / MANIFEST}") from None


def _manifest(folder: pathlib.Path) -> dict[str, dict]:
    try:
        lines = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder / MANIFEST} cannot be read ({error})") from None
    if not isinstance(lines, dict) or not lines:
        raise DamagedError(f"{folder / MANIFEST} names no file")
    return lines


def _checksums(path: pathlib.Path) -> list[int]:
    with path.open("rb") as opened:
        numbers = range(-(-path.stat().st_size // BLOCK))
        return [zlib.crc32(_block(opened.fileno(), number)) for number in numbers]


def _block(file: int, number: int) -> bytes:
    parts, at, end = [], number * BLOCK, (number + 1) * BLOCK
    while at < end and (part := os.pread(file, end - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
