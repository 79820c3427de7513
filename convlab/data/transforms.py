"""Pure functions on batches of images that change what a model may rely on: the order of pixels, their place, their scale.

All may be compiled. Equations and shapes are written for two spatial axes; one and three go through the same functions.
What is drawn by a key is the same for all images here, and each image's own in `convlab.data.augment`.
"""

import math
import operator
from collections.abc import Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Shaped, UInt32

from convlab.data.splits import MAXIMUM_RANK

Images = Array | np.ndarray
RandomKey = Key[Array, ""] | UInt32[Array, "2"]


def permute_pixels(images: Shaped[Images, "*n k l c"], key: RandomKey, *, rank: int | None = None) -> Shaped[Array, "*n k l c"]:
    r"""Move every pixel to another place, the same one in all images: neighbours are lost, all else is kept.

    $$Y_{nklc} = X_{n\,\pi(k,l)\,c}$$

    Args:
      images: Images; `rank` is needed for one, or for several batch axes.
      key: Draws the permutation; the same key and space always give the same.
      rank: Number of spatial axes, by default all but the first and the last.

    Raises:
      ValueError: `rank` is not 1 to 3 or `images` has too few axes for it.

    Example:
      >>> permute_pixels(jnp.ones((5, 8, 7, 1)), jax.random.key(0)).shape
      (5, 8, 7, 1)
    """
    images = jnp.asarray(images)
    space = space_of(images, images.ndim - 2 if rank is None else rank)
    batch, channels = images.shape[: -1 - len(space)], images.shape[-1]
    order = jax.random.permutation(key, math.prod(space))
    pixels = images.reshape(*batch, math.prod(space), channels)
    return jnp.take(pixels, order, axis=-2).reshape(images.shape)


def embed(images: Shaped[Images, "*n k l c"], space: Sequence[int]) -> Shaped[Array, "*n i j c"]:
    """Put images at the centre of a larger canvas of zeros; where they cannot be central, one pixel nearer the origin.

    Args:
      images: Images, or one.
      space: Size of the canvas along each spatial axis; Python integers.

    Raises:
      ValueError: Not 1 to 3 sizes, a canvas smaller than the images, or `images` has too few axes.
      TypeError: A size is not a Python integer.

    Example:
      >>> embed(jnp.ones((5, 8, 7, 1)), (11, 13)).shape
      (5, 11, 13, 1)
    """
    images = jnp.asarray(images)
    canvas = integers("space", space)
    sizes = space_of(images, len(canvas))
    if any(large < small for large, small in zip(canvas, sizes, strict=True)):
        raise ValueError(f"space {canvas} is smaller than the images' {sizes}; a canvas needs to hold all their pixels")
    spare = [large - small for large, small in zip(canvas, sizes, strict=True)]
    return pad(images, [(extra // 2, extra - extra // 2) for extra in spare])


def standardise(
    images: Shaped[Images, "*n k l c"], mean: Float[Images, " c"], std: Float[Images, " c"]
) -> Float[Array, "*n k l c"]:
    r"""Bring every channel to mean 0 and standard deviation 1, as float32.

    $$Y_{nklc} = (X_{nklc} - \mu_c) / \sigma_c$$

    Args:
      images: Images, or one, in the units of `mean` and `std`.
      mean: Mean of every channel, of the training images (`Data.mean`).
      std: Standard deviation of every channel, above 0 (`Data.std`).

    Raises:
      ValueError: `mean` or `std` does not hold one number per channel, or a known `std` is not above 0.

    Example:
      >>> standardise(jnp.full((5, 8, 7, 1), 3, jnp.uint8), jnp.ones(1), jnp.full(1, 4.0))[0, 0, 0]
      Array([0.5], dtype=float32)
    """
    images = jnp.asarray(images)
    for name, value in (("mean", mean), ("std", std)):
        if np.shape(value) != images.shape[-1:]:
            raise ValueError(
                f"{name} has shape {np.shape(value)} but images {images.shape}; needs {images.shape[-1:]}, one per channel"
            )
    if not isinstance(std, jax.core.Tracer) and not np.all(np.asarray(std) > 0):
        raise ValueError(f"std must be above 0 in every channel, as it divides; got {np.asarray(std)}")
    return (images.astype(jnp.float32) - _float32(mean)) / _float32(std)


def space_of(images: Array, rank: int) -> tuple[int, ...]:
    if not 1 <= rank <= MAXIMUM_RANK:
        raise ValueError(f"needs 1 to {MAXIMUM_RANK} spatial axes, got {rank} for images of shape {images.shape}")
    if images.ndim < rank + 1:
        raise ValueError(f"images have shape {images.shape}; needs {rank} spatial axes and channels")
    return images.shape[-1 - rank : -1]


def integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{name} must be a sequence of Python integers, one per spatial axis; got {values!r}") from None


def pad(images: Array, spatial: Sequence[tuple[int, int]]) -> Array:
    """Add zeros below and above each spatial axis, or take pixels away where a number is negative."""
    untouched = [(0, 0, 0)] * (images.ndim - 1 - len(spatial))
    zero = jnp.zeros((), images.dtype)
    return jax.lax.pad(images, zero, [*untouched, *((low, high, 0) for low, high in spatial), (0, 0, 0)])


def _float32(value: ArrayLike) -> Array:
    return jnp.asarray(value, jnp.float32)
