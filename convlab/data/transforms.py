"""Transforms that act in the same way on all images of a batch.

All functions are pure and can be compiled. Equations and shapes are written for two spatial axes. The same functions take one
and three. See `convlab.data.augment` for transforms with an independent draw for each image.
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

from convlab import check
from convlab.choices import shown
from convlab.data.splits import MAXIMUM_NDIM
from convlab.geometry import as_integer

Images = Array | np.ndarray
RandomKey = Key[Array, ""] | UInt32[Array, "2"]


def permute_pixels(images: Shaped[Images, "*n k l c"], key: RandomKey, *, ndim: int | None = None) -> Shaped[Array, "*n k l c"]:
    r"""Permute the pixels of all images by one random permutation.

    The permutation destroys neighbourhoods and keeps all other information.

    $$Y_{nklc} = X_{n\,\pi(k,l)\,c}$$

    Args:
      images: The images. A single image, or several batch axes, need `ndim`.
      key: The random key. The same key and image size always give the same permutation.
      ndim: The number of spatial axes. If None, all axes but the first and the last.

    Raises:
      ValueError: `ndim` is not 1 to 3, or `images` has too few axes for it.

    Example:
      >>> permute_pixels(jnp.ones((5, 8, 7, 1)), jax.random.key(0)).shape
      (5, 8, 7, 1)
    """
    images = check.array("images", images)
    space = spatial_shape(images, ndim)
    batch, channels = images.shape[: -1 - len(space)], images.shape[-1]
    check.key("key", key)
    order = jax.random.permutation(key, math.prod(space))
    pixels = images.reshape(*batch, math.prod(space), channels)
    return jnp.take(pixels, order, axis=-2).reshape(images.shape)


def centre_on_canvas(images: Shaped[Images, "*n k l c"], space: Sequence[int]) -> Shaped[Array, "*n i j c"]:
    """Place images at the centre of a larger canvas of zeros.

    If the number of added pixels is odd, the extra pixel is added at the end of the axis.

    Args:
      images: The images, or a single image.
      space: The size of the canvas along each spatial axis, in Python integers.

    Raises:
      ValueError: `space` does not hold 1 to 3 sizes, the canvas is smaller than the images, or `images` has too few axes.
      TypeError: A size is not a Python integer.

    Example:
      >>> centre_on_canvas(jnp.ones((5, 8, 7, 1)), (11, 13)).shape
      (5, 11, 13, 1)
    """
    images = check.array("images", images)
    canvas = integers("space", space)
    if not 1 <= len(canvas) <= MAXIMUM_NDIM:
        raise ValueError(
            f"space is {canvas} for images {images.shape}: needs 1 to {MAXIMUM_NDIM} spatial axes, got {len(canvas)}"
        )
    sizes = spatial_shape(images, len(canvas))
    if any(large < small for large, small in zip(canvas, sizes, strict=True)):
        raise ValueError(f"space {canvas} is smaller than the images' {sizes}; needs a canvas that holds all their pixels")
    spare = [large - small for large, small in zip(canvas, sizes, strict=True)]
    return zero_pad(images, [(extra // 2, extra - extra // 2) for extra in spare])


def standardise(
    images: Shaped[Images, "*n k l c"], mean: Float[Images, " c"], std: Float[Images, " c"]
) -> Float[Array, "*n k l c"]:
    r"""Standardise the channels of images with a given mean and standard deviation, in float32.

    $$Y_{nklc} = (X_{nklc} - \mu_c) / \sigma_c$$

    Args:
      images: The images, or a single image, in the units of `mean` and `std`.
      mean: The mean of each channel of the training images (`Data.mean`).
      std: The standard deviation of each channel, above 0 (`Data.std`).

    Raises:
      ValueError: `mean` or `std` does not hold one number per channel, or `std` is not above 0. A tracer's values are not
        checked.

    Example:
      >>> standardise(jnp.full((5, 8, 7, 1), 3, jnp.uint8), jnp.ones(1), jnp.full(1, 4.0))[0, 0, 0]
      Array([0.5], dtype=float32)
    """
    images = check.array("images", images)
    for name, value in (("mean", mean), ("std", std)):
        shape = check.real(name, check.array(name, value)).shape
        if shape != images.shape[-1:]:
            raise ValueError(f"{name} has shape {shape} but images {images.shape}; needs {images.shape[-1:]}, one per channel")
    if not isinstance(std, jax.core.Tracer) and not np.all(np.asarray(std) > 0):
        raise ValueError(f"std must be above 0 in every channel, since images are divided by it; got {np.asarray(std)}")
    return (images.astype(jnp.float32) - _float32(mean)) / _float32(std)


def spatial_shape(images: Array, ndim: int | None) -> tuple[int, ...]:
    """Return the sizes of the last `ndim` axes before the channels. If None, all axes but the first and the last are spatial.

    Raises:
      ValueError: `ndim` is not 1 to 3, or the images have too few axes.
      TypeError: `ndim` is not an integer.
    """
    subject = "images" if ndim is None else "ndim of images"
    ndim = images.ndim - 2 if ndim is None else as_integer("ndim", ndim, least=None)
    if not 1 <= ndim <= MAXIMUM_NDIM:
        raise ValueError(f"{subject} of shape {images.shape}: needs 1 to {MAXIMUM_NDIM} spatial axes, got {ndim}")
    if images.ndim < ndim + 1:
        raise ValueError(f"images have shape {images.shape}; needs {ndim} spatial axes and channels")
    return images.shape[-1 - ndim : -1]


def index(value: object) -> int:
    """Return a Python integer, or raise TypeError for tracers, booleans and other types."""
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)  # pyright: ignore[reportArgumentType]


def integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return a tuple of Python integers, or raise TypeError for tracers, booleans, texts and other types."""
    try:
        numbers = tuple(index(value) for value in ([None] if isinstance(values, str | bytes) else values))
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{name} must be a sequence of Python integers, one per spatial axis; got {shown(values)}") from None
    return tuple(as_integer(name, number, least=None) for number in numbers)


def zero_pad(images: Array, spatial: Sequence[tuple[int, int]]) -> Array:
    """Pad with zeros before and after each spatial axis. A negative number removes pixels instead."""
    untouched = [(0, 0, 0)] * (images.ndim - 1 - len(spatial))
    batch, sizes = images.shape[: -1 - len(spatial)], images.shape[-1 - len(spatial) : -1]
    padded = [size + low + high for size, (low, high) in zip(sizes, spatial, strict=True)]
    check.shape_fits("padded images", *batch, *padded, images.shape[-1], itemsize=images.dtype.itemsize)
    zero = jnp.zeros((), images.dtype)
    return jax.lax.pad(images, zero, [*untouched, *((low, high, 0) for low, high in spatial), (0, 0, 0)])


def _float32(value: ArrayLike) -> Array:
    return jnp.asarray(value, jnp.float32)
