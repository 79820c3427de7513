"""Files of JSON lines that grow during a run.

A line that was truncated because the process was killed is skipped. Lines that are added later are kept.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from convlab import check
from convlab.choices import shown


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, skipping damaged lines.

    If the file does not exist, there are none.

    Args:
      path: The path of the file.

    Raises:
      TypeError: `path` is no path.
      ValueError: `path` is empty, or a folder.

    Example:
      >>> list(read_json_lines("nowhere.jsonl"))
      []
    """
    path = _file(path)
    return _objects(path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ())


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content


def append_json_lines(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Append objects to a file of JSON lines, creating it if necessary.

    If the last line is truncated, it is ended first.

    Args:
      path: The path of the file.
      rows: The objects, one for each line.

    Raises:
      TypeError: `path` is no path, or a row is no mapping that JSON can hold. Nothing is written then.
      ValueError: `path` is empty, or a folder.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     append_json_lines(f"{folder}/rows.jsonl", [{"seed": 0}, {"seed": 1}])
      ...     list(read_json_lines(f"{folder}/rows.jsonl"))
      [{'seed': 0}, {'seed': 1}]
    """
    path, lines = _file(path), [_line(row) for row in check.sequence("rows", rows, "mappings")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write("".join(lines).encode())


def _file(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the path of a file, which may not exist yet."""
    file = check.path("path", path)
    if file.is_dir():
        raise ValueError(f"path must be the path of a file, got the folder {str(file)!r}")
    return file


def _line(row: Any) -> str:
    try:
        return f"{json.dumps(dict(check.instance('rows', row, Mapping, 'mappings')))}\n"
    except (TypeError, ValueError) as error:
        raise TypeError(f"rows must be mappings that JSON can hold, got {shown(row)}: {error}") from None
