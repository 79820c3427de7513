"""Atomic writing of folders, with checksums that are verified before the files are used.

A folder is either complete or missing. It is written under another name, flushed to the disk and then renamed, so even a power
failure leaves no half-written folder. A file lock admits one writer at a time, and the next writer removes what a killed
process left behind.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from convlab import check
from convlab.extras import require

MANIFEST = "checksums.json"  # the size of every other file of the folder, the CRC-32 of each of its blocks, and its own CRC-32
BLOCK = 2**24  # bytes
THREADS = min(8, os.cpu_count() or 1)


class DamagedError(ValueError):
    """The contents of a file differ from what was written to it."""


def as_folder(name: str, value: Any) -> pathlib.Path:
    """Return the absolute path of a folder.

    "~" stands for the home directory.

    Raises:
      TypeError: `value` is not a path.
      ValueError: `value` is an empty text, which would be the current directory, or the path of a file.
    """
    return check.folder(name, value).expanduser().absolute()


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path) -> Iterator[None]:
    """Hold the file lock of a folder, so that one process at a time writes to it.

    Other processes wait. The lock of a process that is killed is released.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with require("filelock").FileLock(folder.parent / f".{folder.name}.lock"):
        yield


@contextlib.contextmanager
def atomic_folder(folder: pathlib.Path, part: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """Yield an empty folder that is renamed to `folder` at the end, or deleted on an error.

    Checksums are added before renaming. An incomplete folder that a killed process left is removed first. Only one process at a
    time may write the folder, as inside `lock_folder(folder)`.

    Args:
      folder: The complete folder.
      part: The path of the folder until it is complete, on the same file system. If None, that of `folder` with the suffix
        ".incomplete".
    """
    part = part or folder.with_name(f"{folder.name}.incomplete")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        yield part
        write_checksums(part, part.rglob("*"))
        for path in (*part.rglob("*"), part):
            _flush(path)
        part.rename(folder)
        _flush(folder.parent)
    except BaseException:
        remove_surely(part)
        raise


def remove_folder(folder: pathlib.Path, gone: pathlib.Path) -> None:
    """Delete a folder, renaming it to the unused path `gone` first.

    If the process is killed, no incomplete folder remains under the original name.
    """
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def remove_surely(folder: pathlib.Path, pause: float = 0.2, times: int = 50) -> None:
    """Delete a folder after a failed write, whose threads may still create files in it.

    The folder is deleted again until it has stayed away for a pause of some seconds, at most a number of times.
    """
    for _ in range(times):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(pause)
        if not folder.exists():
            return


def _flush(path: pathlib.Path) -> None:
    """Write the contents of a file or the entries of a folder from memory to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_checksums(folder: pathlib.Path, paths: Iterable[pathlib.Path]) -> None:
    """Write the manifest of a folder, with the sizes and checksums of the files in `paths`."""
    files = sorted(path for path in paths if path.is_file() and not path.name.startswith((MANIFEST, ".")))
    lines = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": _checksums(path)} for path in files}
    part = folder / f"{MANIFEST}.incomplete"
    part.write_text(json.dumps({"files": lines, "crc32": _checksum(lines)}, indent=1))
    part.rename(folder / MANIFEST)


def has_checksums(folder: pathlib.Path) -> bool:
    """Return True if the folder has a manifest of checksums."""
    return (folder / MANIFEST).exists()


def verify_folder(folder: pathlib.Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Compare the files of a folder with its manifest.

    Args:
      folder: The folder.
      wanted: A predicate of the files' names that selects the files to check.

    Raises:
      DamagedError: A file is missing, or its size or contents have changed. The message names the file.
    """
    for name, expected in _manifest(folder).items():
        if wanted(name):
            _read(folder / name, expected, lambda begin, block: None)


def verify_file(folder: pathlib.Path, name: str) -> None:
    """Compare one file of a folder with its manifest.

    Raises:
      DamagedError: The file is missing, or its size or contents have changed.
    """
    _read(folder / name, _expected(folder, name), lambda begin, block: None)


def read_array(folder: pathlib.Path, name: str) -> np.ndarray:
    """Read a .npy file of a folder with a manifest into memory, verifying its checksums.

    Raises:
      DamagedError: The file is missing, or its size or contents have changed.
    """
    expected = _expected(folder, name)
    contents = np.empty(expected["bytes"], np.uint8)

    def keep(begin: int, block: bytes) -> None:
        contents[begin : begin + len(block)] = np.frombuffer(block, np.uint8)

    _read(folder / name, expected, keep)
    with (folder / name).open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        begin = file.tell()
    return contents[begin:].view(dtype).reshape(shape)


def _read(path: pathlib.Path, expected: dict, keep: Callable[[int, bytes], None]) -> None:
    """Read a file by blocks in several threads, verify each block and pass its offset and bytes to `keep`."""
    size = path.stat().st_size if path.exists() else 0
    if size != expected["bytes"]:
        raise DamagedError(f"{path} holds {size:,} bytes but {expected['bytes']:,} were written")

    def visit(number: int) -> int:
        block = _block(file, number)
        if zlib.crc32(block) != expected["crc32"][number]:
            raise DamagedError(
                f"{path} is damaged near byte {number * BLOCK:,}: its checksum differs from the one in the manifest"
            )
        keep(number * BLOCK, block)
        return number

    with path.open("rb") as opened, concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        file = opened.fileno()
        list(pool.map(visit, range(len(expected["crc32"]))))


def _expected(folder: pathlib.Path, name: str) -> dict:
    """Return the manifest's entry for a file."""
    try:
        return _manifest(folder)[name]
    except KeyError:
        raise DamagedError(f"{name} is missing from the manifest {folder / MANIFEST}") from None


def _manifest(folder: pathlib.Path) -> dict[str, dict]:
    """Read the manifest of a folder and verify its own checksum.

    A manifest that an earlier release wrote has no checksum, as in a data set prepared long ago. Only its entries are checked.

    Returns:
      For each file its size, "bytes", and the checksums of its blocks, "crc32".
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        lines = manifest.get("files", manifest)
        is_intact = lines is manifest or manifest["crc32"] == _checksum(lines)
        is_intact = is_intact and all(map(_is_entry, lines.values()))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder / MANIFEST} cannot be read ({error})") from None
    except (TypeError, LookupError, AttributeError):
        raise DamagedError(f"{folder / MANIFEST} lists no file") from None
    if not is_intact:
        raise DamagedError(f"{folder / MANIFEST} is damaged: its contents differ from what was written")
    if not lines:
        raise DamagedError(f"{folder / MANIFEST} lists no file")
    return lines


def _is_entry(entry: Any) -> bool:
    """Return True if a value can be the entry of a file in a manifest."""
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "crc32"}:
        return False
    size, checksums = entry["bytes"], entry["crc32"]
    are_numbers = isinstance(checksums, list) and all(isinstance(number, int) for number in (size, *checksums))
    return are_numbers and len(checksums) == -(-size // BLOCK)


def _checksum(lines: dict[str, dict]) -> int:
    """Return the CRC-32 of the entries of a manifest."""
    return zlib.crc32(json.dumps(lines).encode())


def _checksums(path: pathlib.Path) -> list[int]:
    """Return the CRC-32 of each block of a file."""
    with path.open("rb") as opened:
        numbers = range(-(-path.stat().st_size // BLOCK))
        return [zlib.crc32(_block(opened.fileno(), number)) for number in numbers]


def _block(file: int, number: int) -> bytes:
    """Read one block of an open file."""
    parts, at, end = [], number * BLOCK, (number + 1) * BLOCK
    while at < end and (part := os.pread(file, end - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
