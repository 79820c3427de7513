"""What is prepared on this machine, and where."""

import json
import os
import pathlib
from typing import NamedTuple

from convlab.data.loading import directory_of


class Prepared(NamedTuple):
    """One prepared data set.

    Attributes:
      name: As `load` knows it, where it does; of a folder, "folder:" and its state.
      version: Of the preparation.
      path: Its directory.
      file_format: Of its records; `load` reads "array_record" only.
      examples: Of every split.
      megabytes: Of all files, decoded images included.
      decoded: Image sizes that are kept decoded ("" as they are).
    """

    name: str
    version: str
    path: pathlib.Path
    file_format: str
    examples: dict[str, int]
    megabytes: float
    decoded: tuple[str, ...]


def prepared(data_dir: str | os.PathLike[str] | None = None) -> list[Prepared]:
    """List the data sets that are prepared in a directory; reads no record and needs no TFDS.

    Args:
      data_dir: As of `load`.

    Example:
      >>> prepared("/nowhere")
      []
    """
    root = directory_of(data_dir)
    found = sorted(path for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/dataset_info.json"))
    return [_read(root, path) for path in found if not path.parent.name.endswith((".old", ".incomplete"))]


def _read(root: pathlib.Path, info: pathlib.Path) -> Prepared:
    folder = info.parent
    try:
        told = json.loads(info.read_text())
    except ValueError:
        told = {}
    name, *state = folder.relative_to(root).parts[:-1]
    name = "/".join([name.removeprefix("convlab_"), *state]).replace("folder/", "folder:")
    examples = {split.get("name", "?"): sum(map(int, split.get("shardLengths", ()))) for split in told.get("splits", ())}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    decoded = tuple(sorted(path.name.removeprefix("decoded").removeprefix("_") for path in folder.glob("decoded*")))
    return Prepared(name, folder.name, folder, told.get("fileFormat", "unknown"), examples, round(size, 1), decoded)
