"""Images placed at random on a larger canvas: the data on which sharing kernels between positions is worth something."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from convlab.data.sets import Data
from convlab.data.splits import Split, Stored
from convlab.data.transforms import integers


def place_on_canvas(data: Data, space: Sequence[int], by: int, *, size: int, copies: int = 1, seed: int = 0) -> Data:
    r"""Place every image of a data set at random on a larger canvas of zeros.

    $$Y_n = T_{c + u_n} X_{q(n)}, \qquad u_n \sim \mathcal{U}\{-t, \ldots, t\}^2$$

    Here $c$ is the centre of the canvas and $t$ is `by`, so that an image stands at one of $(2t + 1)^2$ places on two axes. The
    training images are taken in a random order without repetition, $q$, which begins anew when all have been used. For one seed
    the placed training sets are nested: a smaller one is the beginning of every larger one, and `by` does not change $q$.

    Args:
      data: The data set; its images must be in memory.
      space: The size of the canvas along each spatial axis.
      by: The largest distance from the centre in pixels, along every axis.
      size: The number of placed training images.
      copies: The number of places at which every test and every validation image is put.
      seed: The seed of order and places; test and validation places are the same for all seeds.

    Returns:
      A data set with the same labels and classes on images of (*space, c).

    Raises:
      ValueError: The canvas has no room for the images at that distance, or a number is too small.
      TypeError: A number is not an integer, or the images are on disk.

    Example:
      >>> split = Split(np.ones((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> placed = place_on_canvas(Data("blank", split, split, tuple("abcde")), (12, 11), 2, size=20, copies=3)
      >>> placed.train.images.shape, placed.test.images.shape
      ((20, 12, 11, 1), (15, 12, 11, 1))
    """
    space, (by, size, copies) = integers("space", space), integers("by, size and copies", (by, size, copies))
    if by < 0 or min(size, copies) < 1:
        raise ValueError(
            f"by is {by}, size {size} and copies {copies}; needs no negative distance, and at least one of the others"
        )
    if len(space) != len(data.image_shape) - 1:
        raise ValueError(f"space is {tuple(space)} for images of {data.image_shape}; needs one size for each spatial axis")
    room = [(large - small) // 2 for large, small in zip(space, data.image_shape[:-1], strict=True)]
    if min(room) < by:
        raise ValueError(
            f"by is {by} but a canvas of {tuple(space)} leaves {min(room)} pixels beside images of {data.image_shape}"
        )
    if isinstance(data.train.images, Stored):
        raise TypeError("the images are on disk; load them into memory to place them on a canvas")
    order, places, *others = (np.random.default_rng(key) for key in ((seed, 0), (seed, 1), 2, 3))
    cycles = -(-size // len(data.train))
    numbers = np.concatenate([order.permutation(len(data.train)) for _ in range(cycles)])[:size]
    splits = {"train": _place(data.train.take(numbers), space, by, places)}
    for rng, (name, split) in zip(others, (("test", data.test), ("validation", data.validation)), strict=True):
        if split is not None:
            splits[name] = _place(split.take(np.tile(np.arange(len(split)), copies)), space, by, rng)
    return dataclasses.replace(data, **splits)


def _place(split: Split, space: Sequence[int], by: int, rng: np.random.Generator) -> Split:
    """Move every image from the centre by a draw of its own, which does not depend on how many follow it."""
    _, *sizes, channels = split.images.shape
    centre = [(large - small) // 2 for large, small in zip(space, sizes, strict=True)]
    starts = np.array(centre) + rng.integers(-by, by + 1, (len(split), len(sizes)))
    placed = np.zeros((len(split), *space, channels), split.images.dtype)
    for number, start in enumerate(starts):
        placed[(number, *map(slice, start, start + sizes))] = split.images[number]
    return Split(placed, split.labels)
