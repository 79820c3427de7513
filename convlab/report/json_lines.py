"""Files of JSON lines that grow during a run.

A line that was truncated because the process was killed is skipped. Lines that are added later are kept.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, skipping damaged lines.

    If the file does not exist, there are none.

    Args:
      path: The path of the file.

    Example:
      >>> list(read_json_lines("nowhere.jsonl"))
      []
    """
    path = pathlib.Path(path)
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
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

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     append_json_lines(f"{folder}/rows.jsonl", [{"seed": 0}, {"seed": 1}])
      ...     list(read_json_lines(f"{folder}/rows.jsonl"))
      [{'seed': 0}, {'seed': 1}]
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write("".join(f"{json.dumps(dict(row))}\n" for row in rows).encode())
