"""The handwritten digits that come with scikit-learn, as arrays.

They need no network, no preparation and no TFDS.
"""

import importlib.util
import pathlib

import numpy as np

from convlab.extras import require

CLASSES = tuple("0123456789")
TEST_IMAGES_PER_CLASS = 36
FILE = "datasets/data/digits.csv.gz"  # in the package sklearn


def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images (n, 8, 8, 1) and labels of every split."""
    table = _table()
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, -1].astype(int)
    order = np.random.RandomState(0).permutation(len(labels))  # RandomState guarantees an unchanging stream
    of_class = [order[labels[order] == label] for label in range(len(CLASSES))]
    is_test = np.isin(order, np.concatenate([members[:TEST_IMAGES_PER_CLASS] for members in of_class]))
    return {split: (images[part], labels[part]) for split, part in {"train": order[~is_test], "test": order[is_test]}.items()}


def _table() -> np.ndarray:
    """Read one row of 64 pixels and a label for each digit.

    The file is read without importing scikit-learn, which takes seconds. If a release has moved it, scikit-learn reads it.
    """
    found = importlib.util.find_spec("sklearn")
    file = pathlib.Path(found.origin).parent / FILE if found and found.origin else None
    if file and file.exists():
        return np.loadtxt(file, delimiter=",")
    pixels, labels = require("sklearn.datasets", package="scikit-learn").load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])
