"""A list of the data sets that are prepared on this machine."""

import json
import os
import pathlib
from typing import NamedTuple

from convlab.data.loading import directory_of


class PreparedData(NamedTuple):
    """One prepared data set.

    Attributes:
      name: The name to pass to `load`. For a folder of images, "folder:" and the fingerprint of its contents.
      version: The version of the prepared data.
      path: The directory of the files.
      file_format: The file format of the records. `load` reads "array_record" only.
      examples: The number of examples in each split.
      megabytes: The size of all files, including decoded images.
      decoded: The image sizes for which decoded images are stored, "" for the original size.
    """

    name: str
    version: str
    path: pathlib.Path
    file_format: str
    examples: dict[str, int]
    megabytes: float
    decoded: tuple[str, ...]


def list_prepared(data_dir: str | os.PathLike[str] | None = None) -> list[PreparedData]:
    """List the data sets that are prepared in a directory.

    No record is read, and TFDS need not be installed.

    Args:
      data_dir: The directory of prepared data sets. If None, the default of `load`.

    Returns:
      One entry per data set, sorted by path.

    Example:
      >>> list_prepared("/nowhere")
      []
    """
    root = directory_of(data_dir)
    descriptions = sorted(path for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/dataset_info.json"))
    return [_read(root, path) for path in descriptions if not path.parent.name.endswith((".old", ".incomplete"))]


def _read(root: pathlib.Path, info: pathlib.Path) -> PreparedData:
    """Describe the data set of one dataset_info.json."""
    folder = info.parent
    try:
        description = json.loads(info.read_text())
    except ValueError:
        description = {}
    name, *state = folder.relative_to(root).parts[:-1]
    name = "/".join([name.removeprefix("convlab_"), *state]).replace("folder/", "folder:")
    splits = description.get("splits", ())
    examples = {split.get("name", "?"): sum(map(int, split.get("shardLengths", ()))) for split in splits}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    decoded = tuple(sorted(path.name.removeprefix("decoded").removeprefix("_") for path in folder.glob("decoded*")))
    file_format = description.get("fileFormat", "unknown")
    return PreparedData(name, folder.name, folder, file_format, examples, round(size, 1), decoded)
