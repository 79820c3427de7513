"""Conversion of a user's arrays to images and labels of a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from convlab import check
from convlab.choices import shown
from convlab.data.splits import MAXIMUM_NDIM, Split, StoredImages, check_class_numbers, check_finite

Values = ArrayLike | Sequence[Any]  # an array, or nested lists of numbers or names

EXACT = 2**24  # float32 holds all integers up to this magnitude
KINDS = {"i": "integers", "u": "integers", "U": "strings", "f": "floats"}  # kinds of labels, by NumPy's kind of dtype
MOST_CHANNELS = 4  # of images with one spatial axis; more look like grey images without an axis of channels


def splits(
    pairs: Mapping[str, tuple[Values, Values]], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Make splits of pairs of images and labels, and name their classes.

    Args:
      pairs: The images and labels of each split, "train" first.
      classes: The names of the classes. If None, the sorted names in the labels, or their numbers.

    Raises:
      ValueError: Shapes do not fit, or a label has no name.
      TypeError: An array holds neither real numbers nor, for labels, strings.
    """
    images, labels = {}, {}
    for part, pair in pairs.items():
        x, y = as_pair(part, pair)
        images[part], labels[part] = as_images(f"x of {part}", x), _as_labels(f"y of {part}", y)
        if len(labels[part]) != len(images[part]):
            raise ValueError(
                f"y of {part} has {len(labels[part])} labels for {len(images[part])} images; needs one label per image"
            )
        if labels[part].dtype.kind != "f" and len(labels[part]):
            check_class_numbers(f"y of {part}", labels[part], len(labels[part]))
    kinds = {part: KINDS[array.dtype.kind] for part, array in labels.items()}
    if len({*kinds.values()}) > 1:
        raise TypeError(f"y holds {' and '.join(f'{kind} in {part}' for part, kind in kinds.items())}; needs one kind of label")
    names = _class_names(labels, classes)
    return names, {part: Split(images[part], _numbered(f"y of {part}", labels[part], names)) for part in pairs}


def as_pair(name: str, pair: Any) -> tuple[Any, Any]:
    """Return the images and labels of a pair.

    Raises:
      TypeError: `pair` is no tuple or list of two.
    """
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (x, y) of images and labels, got {shown(pair)}")
    return pair[0], pair[1]


def as_images(name: str, images: Any) -> np.ndarray | StoredImages:
    """Return images (n, *space, c) as uint8 or float32. Bytes and booleans become uint8, other numbers float32.

    Raises:
      ValueError: The shape is no such shape, an integer is not exact in float32, or a number is not finite.
      TypeError: The array holds no real numbers.
    """
    if isinstance(images, StoredImages):
        return images
    array = as_pixels(name, images)
    if not 1 <= array.ndim - 2 <= MAXIMUM_NDIM or (array.ndim == 3 and array.shape[-1] > MOST_CHANNELS):
        reason = f"needs (n, *space, c) with 1 to {MAXIMUM_NDIM} spatial axes and the channels last"
        if array.ndim in (2, 3):
            reason += f"; add an axis of channels to grey images or signals: {name.split()[0]}[..., None]"
        if array.ndim == 3:
            reason += "; make a convlab.data.Split of signals with more than four channels"
        raise ValueError(f"{name} has shape {array.shape}; {reason}")
    return array


def as_pixels(name: str, images: Any) -> np.ndarray:
    """Return an array of any shape as uint8 or float32. Bytes and booleans become uint8, other numbers float32.

    Raises:
      ValueError: An integer is not exact in float32, a number is not finite, or rows of a list differ in length.
      TypeError: The array holds no real numbers.
    """
    array = _as_numpy(name, images, "images")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; needs real numbers, one per pixel and channel")
    if array.dtype.kind in "iu" and array.size and (array.min() < -EXACT or array.max() > EXACT):
        raise ValueError(
            f"{name} holds integers from {array.min()} to {array.max()}; needs at most 2**24 in magnitude, which float32 holds"
            " exactly; scale them"
        )
    with np.errstate(over="ignore"):  # the check names such a number
        floats = array.astype(np.float32)
    check_finite(name, floats)
    return floats


def as_labels(name: str, labels: Any, classes: tuple[str, ...]) -> np.ndarray:
    """Return labels as class numbers, or as targets in float32.

    Raises:
      ValueError: A string is not in `classes`.
      TypeError: The labels are neither integers, strings nor floats.
    """
    return _numbered(name, _as_labels(name, labels), classes)


def _as_labels(name: str, labels: Any) -> np.ndarray:
    """Return labels as an array of integers, strings or float32."""
    array = _as_numpy(name, labels, "labels")
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "biufU" or not array.ndim:
        raise TypeError(f"{name} must be integers, strings or floats, one label per image, got {shown(labels)}")
    if array.dtype.kind in "bu" and (array.size == 0 or int(array.max()) <= np.iinfo(np.int64).max):
        return array.astype(np.int64)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _as_numpy(name: str, value: Any, entries: str) -> np.ndarray:
    """Return an array, or nested sequences of one shape, as a NumPy array. The dtypes of JAX become float32."""
    if value is None or isinstance(value, (str, bytes, Mapping)):
        raise TypeError(f"{name} must be an array of {entries}, got {shown(value)}")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} holds {entries} of different shapes; needs one shape, to make one array of them") from None
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind != "f" else array


def _class_names(labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes: `classes`, else the sorted strings, else the numbers up to the largest one.

    Raises:
      ValueError: `classes` are given for targets.
      TypeError: `classes` is no sequence of strings.
    """
    kind = next(iter(labels.values())).dtype.kind
    if classes is not None:
        names = tuple(check.sequence("classes", classes, "names"))
        if kind == "f":
            raise ValueError(
                f"y holds floats, which are targets, but classes has {len(names)} names; if they number classes, y.astype(int)"
            )
        return names
    if kind == "U":
        return tuple(sorted({str(name) for part in labels.values() for name in part.flat}))
    if kind == "f":
        return ()
    return tuple(map(str, range(max(int(part.max(initial=0)) for part in labels.values()) + 1)))


def _numbered(name: str, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return names of classes as their numbers, and other labels unchanged.

    Raises:
      ValueError: A name is not in `classes`.
    """
    if labels.dtype.kind != "U":
        return labels
    numbers = {label: number for number, label in enumerate(classes)}
    if unknown := sorted({*map(str, labels.flat)} - {*numbers}):
        raise ValueError(f"{name} holds {unknown[0]!r}, which is none of classes {', '.join(map(repr, classes))}")
    return np.array([numbers[str(label)] for label in labels.flat]).reshape(labels.shape)
