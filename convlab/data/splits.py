"""Labelled examples, in memory or on disk, and which of them belong together."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jax.typing import ArrayLike

MAXIMUM_RANK = 3


class Stored:
    """Images that stay on disk, read where they are indexed: `images[3:5]` and `images[array]` are NumPy arrays.

    Args:
      read: From places on disk to images.
      places: Of the images, in their order.
      shape: (*space, c) of one image.
      dtype: Of the images.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], places: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self._read, self._places = read, places
        self.shape, self.dtype = (len(places), *shape), np.dtype(dtype)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | slice | np.ndarray | tuple) -> np.ndarray:
        if isinstance(index, tuple):
            images = self[index[0]]
            return images[index[1:] if np.ndim(images) < self.ndim else (slice(None), *index[1:])]
        places = self._places[index]
        if np.ndim(places) == 0:
            return self[np.array([index])][0]
        images = self._read(places) if len(places) else np.empty((0, *self.shape[1:]), self.dtype)
        if (images.shape, images.dtype) != ((len(places), *self.shape[1:]), self.dtype):
            needed = f"{(len(places), *self.shape[1:])} {self.dtype}"
            raise ValueError(f"reading {len(places)} stored images gave {images.shape} {images.dtype}; needs {needed}")
        return images

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, places: np.ndarray) -> "Stored":
        """Keep the images at these places, on disk."""
        return Stored(self._read, self._places[places], self.shape[1:], self.dtype)

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "Stored":
        """Apply `f` to whatever is read."""
        one = np.asarray(f(self[:2]))
        if len(one) != len(self[:2]):
            raise ValueError(f"f returned {len(one)} images for {len(self[:2])}; needs as many, as each keeps its label")
        return Stored(lambda places: np.asarray(f(self._read(places))), self._places, one.shape[1:], one.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, example by example.

    Args:
      images: uint8 or float32, (n, *space, c) with one to three spatial axes; in memory, or `Stored` on disk.
      labels: Class numbers from 0, (n,); any integer dtype, kept as int32.

    Raises:
      ValueError: No example, an empty axis, another number of axes, one label too many or too few, a negative label.
      TypeError: Not NumPy arrays, or of other dtypes.

    Example:
      >>> len(Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5)))
      5
    """

    images: np.ndarray | Stored
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_labels(self.labels, len(self.images))
        object.__setattr__(self, "labels", self.labels.astype(np.int32))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, places: np.ndarray) -> "Split":
        """Keep the examples at these places, in their order; images on disk stay there."""
        images = self.images.take(places) if isinstance(self.images, Stored) else self.images[places]
        return Split(images, self.labels[places])

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "Split":
        """Apply `f` to the images: now to those in memory, to those on disk whenever they are read."""
        images = self.images.map(f) if isinstance(self.images, Stored) else np.asarray(f(self.images))
        return Split(images, self.labels)


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split in two, taking the same fraction of every class for the second.

    Args:
      split: Examples to divide.
      fraction: Share of the second part, between 0 and 1, rounded in each class; one example at least in both parts of a
        class that has two.
      seed: Which examples go where.

    Raises:
      ValueError: There are too few examples to give one to both parts.

    Example:
      >>> split = Split(np.zeros((10, 8, 7, 1), np.uint8), np.repeat([0, 1], 5))
      >>> [len(part) for part in hold_out(split, 0.2, seed=0)]
      [8, 2]
    """
    rank = _rank_in_class(split.labels, np.random.default_rng(seed).permutation(len(split)))
    counts = np.bincount(split.labels)
    share = np.rint(fraction * counts)
    held = rank < np.where(counts > 1, np.clip(share, 1, np.maximum(counts - 1, 1)), share)[split.labels]
    if held.all() or not held.any():
        raise ValueError(f"a fraction of {fraction} leaves one part of {len(split)} examples empty; needs one in both")
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def round_robin(labels: np.ndarray, seed: int) -> np.ndarray:
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


def _check_images(images: object) -> None:
    if not isinstance(images, (np.ndarray, Stored)):
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
