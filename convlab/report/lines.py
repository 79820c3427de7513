"""Files of JSON lines that grow while something runs: what was cut off by a kill is left out, and nothing after it is lost."""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def read_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, leaving out damaged lines; none if there is no such file.

    Args:
      path: The file.

    Example:
      >>> list(read_lines("nowhere.jsonl"))
      []
    """
    path = pathlib.Path(path)
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def add_lines(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Add objects to a file of JSON lines, which is made if it is missing; a line that was cut off is ended first.

    Args:
      path: The file.
      rows: The objects, one for each line.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     add_lines(f"{folder}/rows.jsonl", [{"seed": 0}, {"seed": 1}])
      ...     list(read_lines(f"{folder}/rows.jsonl"))
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
