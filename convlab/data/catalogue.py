"""The data sets of the TFDS catalogue.

A data set is prepared once, which needs a network and TensorFlow. Reading it again needs neither.
"""

import contextlib
import importlib.util
import pathlib
import threading
from typing import Any

from convlab.choices import did_you_mean
from convlab.data import idx, records
from convlab.extras import how_to_install, require

SECONDS_TO_ANSWER = 3.5
PROXY_ERRORS = {407, 502, 503, 504}  # status codes that a proxy returns in place of the server


def open_or_prepare(
    name: str, directory: pathlib.Path, offline_names: tuple[str, ...], manual_dir: pathlib.Path | None = None, **options: Any
) -> records.Builder:
    """Open a data set of the TFDS catalogue, and prepare it first if necessary.

    Args:
      name: The name of the data set in TFDS, e.g. "cifar10" or "emnist/letters".
      directory: The directory of prepared data sets.
      offline_names: The names of data sets to suggest if there is no network.
      manual_dir: The directory of files that TFDS asks its users to download.
      options: The options of `records.open_or_prepare`.

    Returns:
      The builder of the prepared data set.

    Raises:
      ValueError: The name is unknown, or the prepared data set is damaged.
      ConnectionError: The data set is not prepared and its server does not answer.
      ImportError: The data set is not prepared and TensorFlow is not installed.
    """
    require("tensorflow_datasets")
    builder = None if options.get("overwrite") else _on_disk(name, directory)
    return builder or _prepare(name, directory, offline_names, manual_dir, **options)


def _on_disk(name: str, directory: pathlib.Path) -> records.Builder | None:
    """Return the builder of a data set that is prepared in `directory`, in any version, or None.

    Raises:
      ValueError: The prepared data set is damaged.
    """
    from tensorflow_datasets.core import read_only_builder, registered
    from tensorflow_datasets.core.utils import error_utils

    find = error_utils.reraise_with_context(registered.DatasetNotFoundError)(read_only_builder._find_builder_dir)
    with records.quiet():
        try:
            folder = find(name, data_dir=directory)  # `builder_from_files` would open it before it is verified
        except (registered.DatasetNotFoundError, ValueError):
            return None
    return None if folder is None else records.open_prepared(pathlib.Path(folder), name)


def _prepare(
    name: str, directory: pathlib.Path, offline_names: tuple[str, ...], manual_dir: pathlib.Path | None, **options: Any
) -> records.Builder:
    """Prepare a data set, after checking its fields and its server."""

    def make() -> records.Builder:
        return _from_code(name, directory, offline_names)

    with records.quiet():
        builder = make()
    records.check_fields(builder, name)
    reason = _server_failure(builder)
    if reason:
        raise ConnectionError(_no_network(name, directory, reason, offline_names))
    _tensorflow_without_accelerator()
    if manual_dir is not None:
        options["download_config"] = require("tensorflow_datasets").download.DownloadConfig(manual_dir=manual_dir)
    return records.open_or_prepare(pathlib.Path(builder.data_path), make, name, **options)


def _from_code(name: str, directory: pathlib.Path, offline_names: tuple[str, ...]) -> records.Builder:
    """Return the builder that TFDS defines under a name, with errors that suggest other names."""
    tfds = require("tensorflow_datasets")
    from tensorflow_datasets.core import naming, registered

    try:
        parsed, options = naming.parse_builder_name_kwargs(name)
        if parsed.namespace:
            raise ValueError(f"the community sets of {parsed.namespace!r} are not supported")
        return tfds.builder_cls(parsed.name)(data_dir=directory, **options)
    except registered.DatasetNotFoundError:
        raise ValueError(f"data set {name!r} is unknown; {_suggestion(name, offline_names)}") from None
    except (ValueError, AssertionError, TypeError) as error:
        if pathlib.Path(name).exists():
            raise ValueError(f"data set {name!r} is a path; for a folder or archive of images pass 'folder:{name}'") from None
        # A malformed name, or an unknown configuration, version or option.
        reason = str(error).splitlines()[0]
        raise ValueError(f"data set {name!r} cannot be opened ({reason}); {_suggestion(name, offline_names)}") from None
    except ImportError as error:
        raise (_tensorflow_missing(name) if _lacks_tensorflow() else error) from None


def _suggestion(name: str, offline_names: tuple[str, ...]) -> str:
    """Return the part of an error message that lists names similar to an unknown one."""
    known = [*offline_names, *require("tensorflow_datasets").list_builders(with_community_datasets=False)]
    return f"tfds.list_builders() lists all names{did_you_mean(name, known, most=3)}"


def _server_failure(builder: records.Builder) -> str | None:
    """Return why the first download address of a builder does not answer, or None.

    None means that the address answers or that the builder has none.
    """
    addresses = [url for url in builder.url_infos or () if url.startswith(("http://", "https://"))]
    return connection_failure(addresses[0]) if addresses else None


def connection_failure(url: str, seconds: float = SECONDS_TO_ANSWER) -> str | None:
    """Test whether a server answers an HTTP HEAD request, using the proxies of the environment.

    Args:
      url: The address.
      seconds: The longest time to wait, including the name look-up.

    Returns:
      The reason why there is no answer, or None if there is one.
    """
    requests = require("requests")
    answers: list[str | None] = []

    def ask() -> None:
        try:
            status = requests.head(url, timeout=seconds).status_code
        except (OSError, ValueError) as error:  # no route, a refusal, a malformed address or proxy
            answers.append(f"{url} did not answer ({type(error).__name__})")
        else:
            answers.append(f"{url} answered with status {status}" if status in PROXY_ERRORS else None)

    thread = threading.Thread(
        target=ask, daemon=True
    )  # a name look-up cannot be interrupted, so it continues in a daemon thread
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"{url} did not answer within {seconds} seconds"


def _no_network(name: str, directory: pathlib.Path, reason: str, offline_names: tuple[str, ...]) -> str:
    """Return the error message for a data set that cannot be downloaded, with the ways to get it."""
    files = "; or pass the folder of its IDX files as manual_dir" if name in idx.BUILDERS else ""
    tensorflow = f"; preparing also needs TensorFlow: {how_to_install('tf')}" if _lacks_tensorflow() else ""
    return (
        f"{name} is not prepared in {directory} and cannot be downloaded: {reason}. Remedies: load it once with a network"
        f"{tensorflow}; copy a directory prepared as {records.FILE_FORMAT} to {directory}; pass the data_dir that holds one;"
        f" or use {' or '.join(map(repr, offline_names))}, which need no network{files}"
    )


def _lacks_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is None


def _tensorflow_missing(name: str) -> ImportError:
    return ImportError(f"{name} is prepared with TensorFlow, which is missing; {how_to_install('tf')}")


def _tensorflow_without_accelerator() -> None:
    """Hide the GPUs from TensorFlow to keep their memory free."""
    tensorflow: Any = require("tensorflow", "tf")
    with contextlib.suppress(RuntimeError):  # the caller has initialised TensorFlow with its own choice of devices
        tensorflow.config.set_visible_devices([], "GPU")
