"""Images placed at random on a larger canvas: the data on which sharing kernels between positions is worth something."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from convlab.data.augment import random_shift
from convlab.data.sets import Data, Split, Stored
from convlab.data.transforms import embed
from convlab.geometry import as_integer

TRAIN = 2  # folded into the key of the training places, so that they differ from those of test and validation


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
    by, size, copies = as_integer("by", by, 0), as_integer("size", size, 1), as_integer("copies", copies, 1)
    room = [(large - small) // 2 for large, small in zip(space, data.image_shape[:-1], strict=True)]
    if min(room) < by:
        raise ValueError(
            f"by is {by} but a canvas of {tuple(space)} leaves {min(room)} pixels beside images of {data.image_shape}"
        )
    if isinstance(data.train.images, Stored):
        raise TypeError("the images are on disk; load them into memory to place them on a canvas")
    rng = np.random.default_rng(seed)
    cycles = -(-size // len(data.train))
    order = np.concatenate([rng.permutation(len(data.train)) for _ in range(cycles)])[:size]
    splits = {"train": _place(data.train.take(order), space, by, jax.random.fold_in(jax.random.key(seed), TRAIN))}
    for key, (name, split) in enumerate({"test": data.test, "validation": data.validation}.items()):
        if split is not None:
            repeated = split.take(np.tile(np.arange(len(split)), copies))
            splits[name] = _place(repeated, space, by, jax.random.key(key))
    return dataclasses.replace(data, **splits)


def _place(split: Split, space: Sequence[int], by: int, key: jax.Array) -> Split:
    """Move every image from the centre by a draw of its own, which does not depend on how many follow it."""
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(np.arange(len(split)))
    images = embed(split.images, space)
    return Split(np.asarray(jax.vmap(lambda image, key: random_shift(image[None], key, by=by)[0])(images, keys)), split.labels)
