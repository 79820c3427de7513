"""From a name to data in memory: sets made on this machine, and every labelled image set TFDS knows."""

import os

from convlab.data.extras import require
from convlab.data.sets import Data

OWN = {"digits": "Digits", "mnist1d": "Mnist1D"}  # names of data sets and of their builders


def load(name: str = "digits", *, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> Data:
    """Load a data set into memory, preparing it on disk the first time.

    Args:
      name: "digits" (1,437 + 360 images of 8x8), "mnist1d" (4,000 + 1,000 signals of 40 samples), both made without a
        network; or any TFDS set of labelled images, e.g. "cifar10", which is prepared with a network and TensorFlow
        and from then on read without either.
      data_dir: Where prepared sets lie; by default the TFDS_DATA_DIR of the environment, else ~/tensorflow_datasets.
      seed: Chooses the test examples of a set that comes with neither a test nor a validation split; no effect on others.

    Raises:
      ValueError: The name is unknown, the set holds no labelled images of one shape, or it is prepared in another file
        format than array_record.
      ConnectionError: A TFDS set is not prepared and its server does not answer (told within 5 seconds).
      ImportError: A package is missing; the message names the extra that brings it.

    Example:
      >>> load("digits").image_shape  # doctest: +SKIP
      (8, 8, 1)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'digits', got {name!r}")
    require("tensorflow_datasets")
    directory = _directory(data_dir)
    if name in OWN:
        return _load_own(name, directory, seed)
    from convlab.data import stock

    return stock.load_stock(name, directory, seed, tuple(OWN))


def _load_own(name: str, directory: str, seed: int) -> Data:
    from convlab.data import builders, records

    builder = getattr(builders, OWN[name])
    return records.read(records.prepared(lambda: builder(data_dir=directory)), name, seed)


def _directory(data_dir: str | os.PathLike[str] | None) -> str:
    """Return the directory of prepared sets; read from the environment now, not when TFDS was imported."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return os.path.expanduser(os.fspath(chosen))
