"""What a model is fitted to: images with labels, in a training and a test split."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence

import numpy as np
from jax.typing import ArrayLike

MAXIMUM_RANK = 3
CHUNK = 1000  # images widened to float64 at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, example by example.

    Args:
      images: uint8 or float32, (n, *space, c) with one to three spatial axes.
      labels: Class numbers from 0, (n,); any integer dtype, kept as int32.

    Raises:
      ValueError: No example, an empty axis, another number of axes, one label too many or too few, a negative label.
      TypeError: Not NumPy arrays, or of other dtypes.

    Example:
      >>> len(Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5)))
      5
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_labels(self.labels, len(self.images))
        object.__setattr__(self, "labels", self.labels.astype(np.int32))

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A named data set: a training split, a test split, and what the labels mean.

    Args:
      name: How it is called in tables and figures.
      train: What a model is fitted to.
      test: What it is measured on; images of the same shape and dtype.
      classes: A name for every label; their number is the number of outputs a classifier needs.

    Raises:
      ValueError: The splits hold images of different shapes, or a label without a name.
      TypeError: The splits hold images of different dtypes, or an argument is of the wrong type.

    Example:
      >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> Data("blank", split, split, tuple("abcde")).image_shape
      (8, 7, 1)
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        for which in ("train", "test"):
            _check_split(which, getattr(self, which), self.classes)
        train, test = self.train.images, self.test.images
        if train.shape[1:] != test.shape[1:]:
            raise ValueError(
                f"train holds images of {train.shape[1:]} but test of {test.shape[1:]}; needs one shape, as one model sees both"
            )
        if train.dtype != test.dtype:
            raise TypeError(f"train holds {train.dtype} but test {test.dtype} images; needs one dtype, in the same units")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, (*space, c)."""
        return self.train.images.shape[1:]

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """Mean of the training pixels per channel, in their own units: float32, (c,)."""
        return self._moments[0]

    @functools.cached_property
    def std(self) -> np.ndarray:
        """Standard deviation of the training pixels per channel, 1 where they are all equal: float32, (c,)."""
        return self._moments[1]

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        images, shape = self.train.images, self.image_shape
        rows = images.reshape(len(images), -1)  # summed over images first: long contiguous axes are many times faster
        mean = rows.mean(0, dtype=np.float64).reshape(-1, shape[-1]).mean(0)
        centre = np.broadcast_to(mean, shape).reshape(-1)
        squares = np.zeros_like(centre)
        for k in range(0, len(rows), CHUNK):
            squares += ((rows[k : k + CHUNK] - centre) ** 2).sum(0)
        std = np.sqrt((squares / len(rows)).reshape(-1, shape[-1]).mean(0))
        constant = [np.ptp(pixels) == 0 for pixels in np.moveaxis(images, -1, 0)]
        return mean.astype(np.float32), np.where(constant, 1, std).astype(np.float32)

    def subset(self, size: int, seed: int = 0) -> "Data":
        """Keep `size` training examples, as many of each class as possible; the test split stays whole.

        For one seed the subsets are nested: a smaller one lies inside every larger one. Examples keep their order.

        Args:
          size: Training examples to keep, 1 to all.
          seed: Which ones.

        Raises:
          ValueError: `size` is out of range.
          TypeError: `size` is not an integer.

        Example:
          >>> split = Split(np.zeros((6, 8, 7, 1), np.uint8), np.array([0, 0, 0, 0, 1, 1]))
          >>> Data("blank", split, split, ("zero", "one")).subset(4).train.labels
          array([0, 0, 1, 1], dtype=int32)
        """
        size, available = _integer("size", size), len(self.train)
        if not 1 <= size <= available:
            raise ValueError(f"size must be 1 to {available}, the training examples of {self.name}; got {size}")
        keep = np.sort(_round_robin(self.train.labels, seed)[:size])
        return dataclasses.replace(self, train=Split(self.train.images[keep], self.train.labels[keep]))

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "Data":
        """Apply `f` to the images of both splits; labels stay.

        Args:
          f: From images (n, *space, c) to as many images, uint8 or float32, as a NumPy or JAX array.

        Raises:
          ValueError: `f` returns images that do not fit the labels or each other.
          TypeError: `f` returns another dtype.

        Example:
          >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
          >>> Data("blank", split, split, tuple("abcde")).map(lambda x: x[:, ::2]).image_shape
          (4, 7, 1)
        """
        train, test = (Split(np.asarray(f(split.images)), split.labels) for split in (self.train, self.test))
        return dataclasses.replace(self, train=train, test=test)


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split in two, taking the same fraction of every class for the second.

    Args:
      split: Examples to divide.
      fraction: Share of the second part, between 0 and 1, rounded in each class.
      seed: Which examples go where.

    Raises:
      ValueError: There are too few examples to give one to both parts.

    Example:
      >>> split = Split(np.zeros((10, 8, 7, 1), np.uint8), np.repeat([0, 1], 5))
      >>> [len(part) for part in hold_out(split, 0.2, seed=0)]
      [8, 2]
    """
    rank = _rank_in_class(split.labels, np.random.default_rng(seed).permutation(len(split)))
    held = rank < np.rint(fraction * np.bincount(split.labels))[split.labels]
    if held.all() or not held.any():
        raise ValueError(f"a fraction of {fraction} leaves one part of {len(split)} examples empty; needs one in both")
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


def _round_robin(labels: np.ndarray, seed: int) -> np.ndarray:
    """Put all examples in an order that takes one of every class still left, in random order, before the next round."""
    rng = np.random.default_rng(seed)
    rank = _rank_in_class(labels, rng.permutation(len(labels)))
    return np.lexsort((rng.random(len(labels)), rank))


def _rank_in_class(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Count for each example how many of its class come before it in `order`."""
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return rank


def _integer(name: str, value: object) -> int:
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _check_images(images: object) -> None:
    if not isinstance(images, np.ndarray):
        raise TypeError(f"images must be a NumPy array, got {type(images).__name__}; convert them with np.asarray")
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images have dtype {images.dtype}; needs uint8 (pixels as stored) or float32")
    if not 1 <= images.ndim - 2 <= MAXIMUM_RANK:
        raise ValueError(f"images have shape {images.shape}; needs (n, *space, c) with 1 to {MAXIMUM_RANK} spatial axes")
    if images.size == 0:
        raise ValueError(f"images have shape {images.shape}; needs at least one example, pixel and channel")


def _check_labels(labels: object, examples: int) -> None:
    if not isinstance(labels, np.ndarray):
        raise TypeError(f"labels must be a NumPy array, got {type(labels).__name__}; convert them with np.asarray")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels have dtype {labels.dtype}; needs integers, as they number the classes")
    if labels.shape != (examples,):
        raise ValueError(f"labels have shape {labels.shape}; needs ({examples},), one for each of {examples} images")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; needs class numbers from 0 that fit int32")


def _check_classes(classes: Sequence[str]) -> None:
    if not isinstance(classes, tuple) or not all(isinstance(each, str) for each in classes):
        raise TypeError(f"classes must be a tuple of names, got {classes!r}")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes needs at least one name and no name twice, got {classes!r}")


def _check_split(which: str, split: object, classes: tuple[str, ...]) -> None:
    if not isinstance(split, Split):
        raise TypeError(f"{which} must be a Split, got {type(split).__name__}")
    if split.labels.max() >= len(classes):
        raise ValueError(
            f"{which} has label {split.labels.max()} but classes names only {len(classes)};"
            f" needs labels 0 to {len(classes) - 1}"
        )
