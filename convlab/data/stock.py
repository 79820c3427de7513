"""The data sets that TensorFlow Datasets knows: read where prepared, else prepared with a network and TensorFlow."""

import contextlib
import difflib
import importlib.util
import pathlib
import threading
from typing import Any

from convlab.data import idx, records
from convlab.extras import how_to_install, require

SECONDS_TO_ANSWER = 3.5
NO_WAY_THROUGH = {407, 502, 503, 504}  # what a proxy answers in place of the server


def prepared(
    name: str, directory: pathlib.Path, offline_names: tuple[str, ...], manual_dir: pathlib.Path | None = None, **options: Any
) -> records.Builder:
    """Open a stock TFDS data set, preparing it first where that is possible.

    Args:
      name: As TFDS knows it, e.g. "cifar10" or "emnist/letters".
      directory: Where TFDS keeps prepared sets.
      offline_names: Data sets to suggest where there is no network.
      manual_dir: Where files lie that TFDS asks its user to fetch.
      options: Of `records.prepared`.

    Raises:
      ValueError: The name is unknown, or what is prepared is damaged.
      ConnectionError: It is not prepared and its server does not answer.
      ImportError: It is not prepared and TensorFlow is absent.
    """
    require("tensorflow_datasets")
    builder = None if options.get("again") else _on_disk(name, directory)
    return builder or _prepare(name, directory, offline_names, manual_dir, **options)


def _on_disk(name: str, directory: pathlib.Path) -> records.Builder | None:
    """Return the builder of a set prepared in `directory`, of whichever version lies there."""
    from tensorflow_datasets.core import read_only_builder, registered

    with records.quiet():
        try:
            return read_only_builder.builder_from_files(name, data_dir=directory)
        except (registered.DatasetNotFoundError, ValueError):
            return None


def _prepare(
    name: str, directory: pathlib.Path, offline_names: tuple[str, ...], manual_dir: pathlib.Path | None, **options: Any
) -> records.Builder:
    def make() -> records.Builder:
        return _from_code(name, directory, offline_names)

    with records.quiet():
        builder = make()
    records.check_fields(builder, name)
    reason = _unreachable(builder)
    if reason:
        raise ConnectionError(_no_network(name, directory, reason, offline_names))
    _tensorflow_without_accelerator()
    if manual_dir is not None:
        options["download_config"] = require("tensorflow_datasets").download.DownloadConfig(manual_dir=manual_dir)
    return records.prepared(pathlib.Path(builder.data_path), make, name, **options)


def _from_code(name: str, directory: pathlib.Path, offline_names: tuple[str, ...]) -> records.Builder:
    tfds = require("tensorflow_datasets")
    from tensorflow_datasets.core import naming, registered

    try:
        parsed, _ = naming.parse_builder_name_kwargs(name)
        if parsed.namespace:
            raise ValueError(f"the community sets of {parsed.namespace!r} are not supported")
        return tfds.builder(name, data_dir=directory)
    except registered.DatasetNotFoundError:
        raise ValueError(f"data set {name!r} is unknown; {_nearest(name, offline_names)}") from None
    except (ValueError, AssertionError) as error:  # malformed, or a configuration or version that does not exist
        reason = str(error).splitlines()[0]
        raise ValueError(f"data set {name!r} cannot be opened ({reason}); {_nearest(name, offline_names)}") from error
    except ImportError as error:
        raise _tensorflow_missing(name) if _lacks_tensorflow() else error from error


def _nearest(name: str, offline_names: tuple[str, ...]) -> str:
    known = [*offline_names, *require("tensorflow_datasets").list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name.lower(), known)
    return f"the nearest names are {', '.join(near)}" if near else "tfds.list_builders() lists all"


def _unreachable(builder: records.Builder) -> str | None:
    """Say why the builder's first address does not answer, None where it does or there is none to ask."""
    addresses = [url for url in builder.url_infos or () if url.startswith(("http://", "https://"))]
    return no_answer(addresses[0]) if addresses else None


def no_answer(url: str, seconds: float = SECONDS_TO_ANSWER) -> str | None:
    """Ask a server for the head of one address, through the proxies the environment names.

    Args:
      url: Its address.
      seconds: To wait at most, name look-up included.

    Returns:
      Why there is no answer, or None where there is one.
    """
    requests = require("requests")
    answers: list[str | None] = []

    def ask() -> None:
        try:
            status = requests.head(url, timeout=seconds).status_code
        except (OSError, ValueError) as error:  # no route, a refusal, a malformed address or proxy
            answers.append(f"{url} did not answer ({type(error).__name__})")
        else:
            answers.append(f"{url} answered with status {status}" if status in NO_WAY_THROUGH else None)

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up cannot be interrupted, only left behind
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"{url} did not answer within {seconds} seconds"


def _no_network(name: str, directory: pathlib.Path, reason: str, offline_names: tuple[str, ...]) -> str:
    files = "; or pass the folder of its IDX files as manual_dir" if name in idx.BUILDERS else ""
    tensorflow = f"; preparing also needs TensorFlow: {how_to_install('tf')}" if _lacks_tensorflow() else ""
    return (
        f"{name} is not prepared in {directory} and cannot be downloaded: {reason}. Ways out: load it once with a network"
        f"{tensorflow}; copy a directory prepared as {records.FILE_FORMAT} to {directory}; pass the data_dir that holds one;"
        f" or use {' or '.join(map(repr, offline_names))}, made without a network{files}"
    )


def _lacks_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is None


def _tensorflow_missing(name: str) -> ImportError:
    return ImportError(f"{name} is prepared with TensorFlow, which is missing; {how_to_install('tf')}")


def _tensorflow_without_accelerator() -> None:
    tensorflow: Any = require("tensorflow", "tf")
    with contextlib.suppress(RuntimeError):  # the caller has started TensorFlow already, with devices of their choice
        tensorflow.config.set_visible_devices([], "GPU")
