"""Labelled examples, in memory or on disk, and their division into splits."""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from convlab import check
from convlab.choices import shown

MAXIMUM_NDIM = 3
TEST_FRACTION = 0.2  # the fraction of test examples if a data set has only training examples
CHUNK = 2**20  # the number of pixels that are checked at a time


def image_text(shape: Sequence[int], dtype: np.dtype) -> str:
    """Describe images by dtype and shape.

    Example:
      >>> image_text((28, 28, 1), np.dtype("uint8"))
      'uint8 images of 28x28x1'
    """
    return f"{dtype} images of {'x'.join(map(str, shape))}"


class StoredImages:
    """An array of images that stay on disk and are read when they are indexed.

    `images[3:5]` and `images[array]` return NumPy arrays.

    Args:
      read: A function from indices on disk to images.
      indices: The indices on disk of the images that the array holds, in order.
      shape: The shape of one image, (*space, c).
      dtype: The dtype of the images.

    Raises:
      TypeError: An argument has the wrong type.
      ValueError: `indices` has several axes, or an axis of `shape` is empty.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self._read, self._indices = check.function("read", read), _as_indices(indices)
        shape = check.image_shape(shape, "shape")
        check.dtype("dtype", dtype, optional=False)
        self.shape, self.dtype = (len(indices), *shape), np.dtype(dtype)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __repr__(self) -> str:
        return f"StoredImages({len(self):,} {image_text(self.shape[1:], self.dtype)} on disk)"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int | slice | np.ndarray | tuple) -> np.ndarray:
        if isinstance(index, tuple):
            images = self[index[0]]
            return images[index[1:] if np.ndim(images) < self.ndim else (slice(None), *index[1:])]
        indices = self._indices[index]
        if np.ndim(indices) == 0:
            return self[np.array([index])][0]
        images = np.asarray(self._read(indices)) if len(indices) else np.empty((0, *self.shape[1:]), self.dtype)
        if (images.shape, images.dtype) != ((len(indices), *self.shape[1:]), self.dtype):
            needed = f"{(len(indices), *self.shape[1:])} {self.dtype}"
            raise ValueError(f"read returns {images.shape} {images.dtype} for {len(indices)} stored images; needs {needed}")
        check_finite("images of those on disk", images, indices)
        return images

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, indices: np.ndarray) -> "StoredImages":
        """Return the images at the given indices, still on disk."""
        return StoredImages(self._read, self._indices[indices], self.shape[1:], self.dtype)

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "StoredImages":
        """Return the images on disk with `f` applied to them at every reading.

        Raises:
          ValueError: `f` returns another number of images.
        """
        sample = np.asarray(f(self[:2]))
        if len(sample) != len(self[:2]):
            raise ValueError(f"f returned {len(sample)} images for {len(self[:2])}; needs as many, since each keeps its label")
        return StoredImages(lambda indices: np.asarray(f(self._read(indices))), self._indices, sample.shape[1:], sample.dtype)


def _as_indices(value: Any) -> np.ndarray:
    """Return indices of images on disk as an array.

    Raises:
      ValueError: They are no integers of at least 0 along one axis.
    """
    try:
        indices = np.asarray(value)
    except ValueError:
        indices = np.empty((0, 0))
    if indices.ndim != 1 or (indices.size and (indices.dtype.kind not in "iu" or indices.min() < 0)):
        raise ValueError(f"indices must be integers of at least 0 along one axis, got {shown(value)}")
    return indices if indices.size else indices.astype(int)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels.

    Labels are class numbers or targets of any shape, such as the values of a regression or other images.

    Args:
      images: The images, uint8 or float32, (n, *space, c) with one to three spatial axes. In memory, or `StoredImages` on disk.
      labels: The class numbers from 0, (n,), of any integer dtype; converted to int32. Or the targets, (n, *anything), of any
        floating dtype; converted to float32.

    Raises:
      ValueError: There is no example, an axis is empty, or the number of axes is wrong. Or an image or a target is not finite,
        the numbers of images and labels differ, or a class number is negative or too large for int32.
      TypeError: An argument is not a NumPy array, or has another dtype.

    Example:
      >>> len(Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5)))
      5
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_labels(self.labels, len(self.images))
        object.__setattr__(self, "labels", self.labels.astype(np.float32 if self.has_targets else np.int32))

    def __repr__(self) -> str:
        where = " on disk" * isinstance(self.images, StoredImages)
        kind = "targets" if self.has_targets else f"labels of {len(np.unique(self.labels))} classes"
        return f"Split({len(self):,} {image_text(self.images.shape[1:], self.images.dtype)}{where}, {kind})"

    def _repr_html_(self) -> str:
        """Return a sheet of sample images of every label. Notebooks call it."""
        from convlab.data.sheet import sheet_html

        names = () if self.has_targets else tuple(map(str, range(int(self.labels.max()) + 1)))
        return sheet_html(repr(self), names, {"examples": self})

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_targets(self) -> bool:
        """Whether the labels are targets of a floating dtype instead of class numbers."""
        return np.issubdtype(self.labels.dtype, np.floating)

    @property
    def groups(self) -> np.ndarray:
        """The numbers of the groups that are divided evenly between parts of the split: the classes, or one for all targets."""
        return np.zeros(len(self), int) if self.has_targets else self.labels

    def take(self, indices: np.ndarray) -> "Split":
        """Return the examples at the given indices, in that order. Images on disk stay on disk."""
        images = self.images.take(indices) if isinstance(self.images, StoredImages) else self.images[indices]
        return Split(images, self.labels[indices])

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "Split":
        """Apply `f` to the images, immediately in memory, or whenever images on disk are read."""
        images = self.images.map(f) if isinstance(self.images, StoredImages) else np.asarray(f(self.images))
        return Split(images, self.labels)


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split in two parts with the same fraction of every class. Targets are divided at random.

    Args:
      split: The examples to divide.
      fraction: The fraction of the second part, above 0 and below 1. It is rounded in each class. A class of two or more
        examples has at least one in each part.
      seed: The seed of the division.

    Returns:
      The first and the second part. Examples keep their order.

    Raises:
      ValueError: `fraction` is not above 0 and below 1, or one of the parts would be empty.
      TypeError: `fraction` is not a number.

    Example:
      >>> split = Split(np.zeros((10, 8, 7, 1), np.uint8), np.repeat([0, 1], 5))
      >>> [len(part) for part in hold_out(split, 0.2, seed=0)]
      [8, 2]
    """
    fraction = check.number("fraction", fraction)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be above 0 and below 1, got {fraction}; it is the share of the examples to hold out")
    index = _index_in_class(split.groups, random_generator(seed).permutation(len(split)))
    counts = np.bincount(split.groups)
    share = np.rint(fraction * counts)
    held = index < np.where(counts > 1, np.clip(share, 1, np.maximum(counts - 1, 1)), share)[split.groups]
    if held.all() or not held.any():
        raise ValueError(
            f"fraction is {fraction}, which leaves one part of {len(split)} examples empty; needs one example in both"
        )
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def round_robin(labels: np.ndarray, seed: int) -> np.ndarray:
    """Order examples in rounds that take one example of every class.

    The order of the classes within a round is random. A class whose examples are used up is left out of later rounds.
    """
    rng = random_generator(seed)
    index = _index_in_class(labels, rng.permutation(len(labels)))
    return np.lexsort((rng.random(len(labels)), index))


def random_generator(seed: int) -> np.random.Generator:
    """Return NumPy's random generator of a seed.

    Raises:
      ValueError: `seed` is negative.
      TypeError: `seed` is not an integer.
    """
    if (number := integer("seed", seed)) < 0:
        raise ValueError(f"seed must be at least 0, got {number}")
    return np.random.default_rng(number)


def integer(name: str, value: object) -> int:
    """Return `value` as an int.

    Raises:
      TypeError: It is not an integer.
    """
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None


def _index_in_class(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Count for each example how many examples of its class precede it in `order`."""
    index = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        index[members] = np.arange(len(members))
    return index


def _check_images(images: object) -> None:
    if not isinstance(images, (np.ndarray, StoredImages)):
        raise TypeError(f"images must be a NumPy array, got {type(images).__name__}; convert them with np.asarray")
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images have dtype {images.dtype}; needs uint8 (pixels as stored) or float32")
    if not 1 <= images.ndim - 2 <= MAXIMUM_NDIM:
        raise ValueError(f"images have shape {images.shape}; needs (n, *space, c) with 1 to {MAXIMUM_NDIM} spatial axes")
    if images.size == 0:
        raise ValueError(f"images have shape {images.shape}; needs at least one example, pixel and channel")
    if isinstance(images, np.ndarray):
        check_finite("images", images)


def check_finite(name: str, images: np.ndarray, numbers: Sequence[int] | np.ndarray | None = None) -> None:
    """Raise ValueError if an image holds NaN or infinity.

    Compiled programs do not always pass NaN on. On CPU, XLA may compute max(NaN, 0) = 0 if a sum over many pixels follows, and
    a bad image would get a confident answer.

    Args:
      name: The name of the images, such as "x of train", whose first word is a variable.
      images: The images, (n, ...).
      numbers: The numbers of the images, for the error. If None, from 0.
    """
    if images.dtype.kind != "f":
        return
    images = np.atleast_1d(images)
    step = max(CHUNK * len(images) // max(images.size, 1), 1)
    for first in range(0, len(images), step):
        finite = np.isfinite(images[first : first + step])
        if not finite.all():
            index = first + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
            kind = "NaN" if np.isnan(images[index]).any() else "infinity"
            variable, _, owner = name.partition(" ")
            number = index if numbers is None else int(numbers[index])
            raise ValueError(f"{variable}[{number}]{' ' * bool(owner)}{owner} contains {kind}; needs finite pixels")


def check_class_numbers(name: str, labels: np.ndarray, examples: int) -> None:
    """Raise ValueError unless labels are one class number, or one name, per image.

    The errors say how to make class numbers of columns, of one-hot rows and of numbers that do not start at 0.

    Args:
      name: The name of the labels, such as "y of train", whose first word is a variable.
      labels: The labels.
      examples: The number of images.
    """
    variable = name.split()[0]
    if labels.shape != (examples,):
        raise ValueError(
            f"{name} has shape {labels.shape}; needs ({examples},), one label per image{_hint_for_shape(variable, labels)}"
        )
    if labels.dtype.kind in "iu" and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
        raise ValueError(
            f"{name} runs from {labels.min()} to {labels.max()}; needs class numbers from 0 that fit int32; to number other"
            f" labels, use {renumbered(variable)}"
        )


def renumbered(variable: str) -> str:
    """Return the text of the code that numbers the values of a variable from 0."""
    return f"classes, {variable} = np.unique({variable}, return_inverse=True)"


def is_one_hot(labels: np.ndarray) -> bool:
    """Return True if labels are rows of zeros and a single one, with at least two columns."""
    return (
        labels.ndim == 2
        and labels.shape[1] > 1
        and labels.dtype.kind in "iuf"
        and bool(np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all())
    )


def _hint_for_shape(variable: str, labels: np.ndarray) -> str:
    if labels.ndim > 1 and labels.size == len(labels):
        return f": use {variable}.ravel(), or {variable}.astype(float) for numbers to predict instead of classes"
    if is_one_hot(labels):
        return f": use {variable}.argmax(-1) for the class of one-hot rows"
    return ", since integers number the classes; cast targets of other shapes to float32"


def _check_labels(labels: object, examples: int) -> None:
    if not isinstance(labels, np.ndarray):
        raise TypeError(f"labels must be a NumPy array, got {type(labels).__name__}; convert them with np.asarray")
    if np.issubdtype(labels.dtype, np.floating):
        return _check_targets(labels, examples)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels have dtype {labels.dtype}; needs integers, which number the classes, or targets as floats")
    return check_class_numbers("labels", labels, examples)


def _check_targets(targets: np.ndarray, examples: int) -> None:
    if targets.shape[:1] != (examples,) or targets.size == 0:
        raise ValueError(f"labels have shape {targets.shape}; needs ({examples}, ...), one target per image")
    finite = np.isfinite(targets.astype(np.float32)).reshape(examples, -1).all(1)
    if not finite.all():
        raise ValueError(f"labels[{finite.argmin()}] is NaN, infinite or beyond float32; needs finite targets")
