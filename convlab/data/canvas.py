"""Data sets on which sharing kernels helps: images at random positions on a larger canvas."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from convlab import check
from convlab.data.sets import Data
from convlab.data.splits import Split, StoredImages
from convlab.data.transforms import integers
from convlab.geometry import as_integer


def place_on_canvas(data: Data, space: Sequence[int], max_shift: int, *, size: int, copies: int = 1, seed: int = 0) -> Data:
    r"""Place every image of a data set at a random position on a larger canvas of zeros.

    $$Y_n = T_{c + u_n} X_{q(n)}, \qquad u_n \sim \mathcal{U}\{-t, \ldots, t\}^2$$

    Here $T_s$ translates an image by $s$ pixels, $c$ is the offset that centres an image and $t$ is `max_shift`. With two
    spatial axes there are $(2t + 1)^2$ positions. The order $q$ is a random permutation of the training images, followed by
    another one when all have been used. The training sets of one seed are nested: a smaller one is the beginning of every
    larger one. $q$ does not depend on `max_shift`.

    Args:
      data: The data set, with its images in memory.
      space: The size of the canvas along each spatial axis.
      max_shift: The largest distance from the centre along each axis, in pixels.
      size: The number of training images to return.
      copies: The number of positions at which each test and validation image appears.
      seed: The seed of the training images' order and positions. Test and validation positions are the same for all seeds.

    Returns:
      A data set with the same classes and images of shape (*space, c).

    Raises:
      ValueError: The canvas is too small for the images at that distance, `space` has the wrong number of axes, `max_shift` is
        negative, or `size` or `copies` is below 1.
      TypeError: A number is not an integer, or the images are on disk.

    Example:
      >>> split = Split(np.ones((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> placed = place_on_canvas(Data("blank", split, split, tuple("abcde")), (12, 11), 2, size=20, copies=3)
      >>> placed.train.images.shape, placed.test.images.shape
      ((20, 12, 11, 1), (15, 12, 11, 1))
    """
    check.instance("data", data, Data, "a Data set")
    seed = as_integer("seed", seed, least=0, most=2**32 - 1)
    space = integers("space", space)
    max_shift, size, copies = integers("max_shift, size and copies", (max_shift, size, copies))
    if max_shift < 0 or min(size, copies) < 1:
        raise ValueError(
            f"max_shift is {max_shift}, size is {size} and copies is {copies}; needs max_shift of at least 0,"
            " size and copies of at least 1"
        )
    if len(space) != len(data.image_shape) - 1:
        raise ValueError(f"space is {tuple(space)} for images of {data.image_shape}; needs one size for each spatial axis")
    room = [(large - small) // 2 for large, small in zip(space, data.image_shape[:-1], strict=True)]
    if min(room) < max_shift:
        raise ValueError(
            f"max_shift is {max_shift} but a canvas of space {tuple(space)} leaves {min(room)} pixels on each side"
            f" of images of {data.image_shape}"
        )
    if isinstance(data.train.images, StoredImages):
        raise TypeError("data has its images on disk; needs them in memory to place them on a canvas")
    itemsize = data.train.images.dtype.itemsize
    for name, count in {"size": size, "copies": copies * max(len(data.test), 1)}.items():
        check.shape_fits(f"{name} images of space", count, *space, data.image_shape[-1], itemsize=itemsize)
    order, positions, *others = (np.random.default_rng(key) for key in ((seed, 0), (seed, 1), 2, 3))
    cycles = -(-size // len(data.train))
    numbers = np.concatenate([order.permutation(len(data.train)) for _ in range(cycles)])[:size]
    splits = {"train": _place(data.train.take(numbers), space, max_shift, positions)}
    for rng, (name, split) in zip(others, (("test", data.test), ("validation", data.validation)), strict=True):
        if split is not None:
            splits[name] = _place(split.take(np.tile(np.arange(len(split)), copies)), space, max_shift, rng)
    return dataclasses.replace(data, **splits)


def _place(split: Split, space: Sequence[int], max_shift: int, rng: np.random.Generator) -> Split:
    """Place every image at a random distance from the centre.

    The position of an image does not depend on the number of images after it.
    """
    _, *sizes, channels = split.images.shape
    centre = [(large - small) // 2 for large, small in zip(space, sizes, strict=True)]
    starts = np.array(centre) + rng.integers(-max_shift, max_shift + 1, (len(split), len(sizes)))
    placed = np.zeros((len(split), *space, channels), split.images.dtype)
    for number, start in enumerate(starts):
        placed[(number, *map(slice, start, start + sizes))] = split.images[number]
    return Split(placed, split.labels)
