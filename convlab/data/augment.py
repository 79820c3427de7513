"""Random augmentation of batches of images, with an independent draw for each image.

All functions are pure and can be compiled with a traced key. Equations are written for two spatial axes. The same functions
take one and three.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from convlab import check
from convlab.choices import one_of, shown
from convlab.data.transforms import Images, RandomKey, index, integers, spatial_shape, zero_pad
from convlab.geometry import as_integer


def random_shift(
    images: Shaped[Images, "*n k l c"], key: RandomKey, *, max_shift: int | Sequence[int], ndim: int | None = None
) -> Shaped[Array, "*n k l c"]:
    r"""Shift each image by a random number of whole pixels along each axis.

    The shifts are uniform from `-max_shift` to `max_shift` and independent between images. Pixels shifted in from
    outside are zero.

    $$Y_{nklc} = X_{n,\,k-\Delta k_n,\,l-\Delta l_n,\,c}$$

    Args:
      images: The images. A single image, or several batch axes, need `ndim`.
      key: The random key. The same key and images always give the same result.
      max_shift: The largest shift in pixels, from 0 to the image size: one Python integer, or one per spatial axis.
      ndim: The number of spatial axes. If None, all axes but the first and the last are spatial.

    Raises:
      ValueError: `max_shift` is negative or larger than the images, it does not hold one number per axis, or `ndim` does
        not fit the images.
      TypeError: `max_shift` does not hold Python integers.

    Example:
      >>> random_shift(jnp.ones((5, 8, 7, 1)), jax.random.key(0), max_shift=(2, 1)).shape
      (5, 8, 7, 1)
    """
    images = check.array("images", images)
    check.key("key", key)
    sizes = spatial_shape(images, ndim)
    shifts = _per_axis("max_shift", max_shift, sizes)
    if any(shift > size for shift, size in zip(shifts, sizes, strict=True)):
        raise ValueError(
            f"max_shift is {shifts} but the images are {sizes}; needs at most their size, since no pixel is left at that"
        )
    return _random_windows(zero_pad(images, [(shift, shift) for shift in shifts]), key, sizes)


def random_crop(
    images: Shaped[Images, "*n k l c"],
    key: RandomKey,
    *,
    pad: int | Sequence[int],
    space: Sequence[int] | None = None,
    mode: Literal["zero", "reflect"] = "zero",
    ndim: int | None = None,
) -> Shaped[Array, "*n i j c"]:
    r"""Pad each image and crop it at a random position.

    All positions are equally likely, and those of different images are independent.

    $$Y_{nijc} = X_{n,\,i+s_n-p,\,j+t_n-q,\,c}$$

    Here $p, q$ are `pad`. $s_n, t_n$ are drawn uniformly from 0 to the difference between the padded size and the crop size.

    Args:
      images: The images. A single image, or several batch axes, need `ndim`.
      key: The random key. The same key and images always give the same result.
      pad: The number of pixels to add on both sides: one Python integer, or one per spatial axis.
      space: The crop size along each spatial axis, in Python integers. If None, the size of the images.
      mode: The kind of padding: "zero", or "reflect", which mirrors the image about its outermost pixels without repeating
        them.
      ndim: The number of spatial axes. If None, all axes but the first and the last.

    Raises:
      ValueError: `pad` is negative. Or `pad` is not smaller than the images under "reflect". Or `space` has an empty axis or is
        larger than the padded images. Or `pad` or `space` does not hold one number per axis. Or `mode` is unknown, or `ndim`
        does not fit the images.
      TypeError: `pad` or `space` does not hold Python integers.

    Example:
      >>> random_crop(jnp.ones((5, 8, 7, 1)), jax.random.key(0), pad=1, space=(5, 3)).shape
      (5, 5, 3, 1)
    """
    images = check.array("images", images)
    check.key("key", key)
    one_of("mode", mode, ("zero", "reflect"))
    sizes = spatial_shape(images, ndim)
    pads, window = _per_axis("pad", pad, sizes), sizes if space is None else _per_axis("space", space, sizes)
    padded = tuple(size + 2 * extra for size, extra in zip(sizes, pads, strict=True))
    if not all(1 <= small <= large for small, large in zip(window, padded, strict=True)):
        raise ValueError(f"space is {window} but the padded images are {padded}; needs 1 pixel to that size along each axis")
    borders = [(extra, extra) for extra in pads]
    if mode == "zero":
        return _random_windows(zero_pad(images, borders), key, window)
    if any(extra >= size for extra, size in zip(pads, sizes, strict=True)):
        raise ValueError(f"pad is {pads} but the images are {sizes}; needs less than their size, since reflection mirrors once")
    untouched = [(0, 0)] * (images.ndim - 1 - len(sizes))
    return _random_windows(jnp.pad(images, [*untouched, *borders, (0, 0)], mode="reflect"), key, window)


def random_flip(
    images: Shaped[Images, "*n k l c"], key: RandomKey, *, axis: int = -1, probability: float = 0.5, ndim: int | None = None
) -> Shaped[Array, "*n k l c"]:
    r"""Mirror each image along one axis with a given probability.

    By default images are mirrored from left to right. The draws of different images are independent.

    $$Y_{nklc} = X_{n,\,k,\,L-1-l,\,c} \;\text{ or }\; X_{nklc}$$

    Here $L$ is the number of pixels along the mirrored axis. The equation is written for the last spatial axis.

    Args:
      images: The images. A single image, or several batch axes, need `ndim`.
      key: The random key. The same key and images always give the same result.
      axis: The index of the axis among the spatial axes, a Python integer. A negative index counts from the last axis.
      probability: The probability that an image is mirrored, a Python number from 0 to 1.
      ndim: The number of spatial axes. If None, all axes but the first and the last.

    Raises:
      ValueError: There is no such spatial axis, `probability` is outside 0 to 1, or `ndim` does not fit the images.
      TypeError: `axis` is not a Python integer or `probability` not a Python number.

    Example:
      >>> random_flip(jnp.arange(3).reshape(1, 3, 1), jax.random.key(0), probability=1)[0, :, 0]
      Array([2, 1, 0], dtype=int32)
    """
    images = check.array("images", images)
    check.key("key", key)
    sizes = spatial_shape(images, ndim)
    number = _integer("axis", axis)
    if not -len(sizes) <= number < len(sizes):
        raise ValueError(
            f"axis is {number} but images of {sizes} have {len(sizes)} spatial axes; needs {-len(sizes)} to {len(sizes) - 1}"
        )
    chance = _number("probability", probability)
    if not 0 <= chance <= 1:
        raise ValueError(f"probability is {chance}; needs 0 to 1")
    batch = images.shape[: -1 - len(sizes)]
    flipped = jax.random.bernoulli(key, jnp.float32(chance), batch).reshape(*batch, *[1] * (len(sizes) + 1))
    return jnp.where(flipped, jnp.flip(images, len(batch) + number % len(sizes)), images)


def chain(*transforms: Callable[[Any, Any], Array]) -> Callable[[Images, RandomKey], Array]:
    """Compose random transforms into one function of images and a key.

    The key is split, so that every transform gets its own. The returned function is hashable and equal to every other chain of
    equal transforms. As a static argument of `jax.jit` it therefore compiles once, even if the chain is built repeatedly.
    Within a chain, two `functools.partial` objects are equal if their function and options are equal. A lambda is equal to
    itself alone, so define it once, outside of the code that builds the chain.

    Args:
      transforms: The transforms in order of application, each a function `f(images, key)`. Fix further options by
        `functools.partial`. A chain without transforms returns the images unchanged.

    Raises:
      TypeError: A transform is not callable, or the transform or one of its options is not hashable. For a list, pass a tuple.

    Example:
      >>> augment = chain(functools.partial(random_shift, max_shift=2), random_flip)
      >>> augment(jnp.ones((5, 8, 7, 1)), jax.random.key(0)).shape
      (5, 8, 7, 1)
      >>> augment == chain(functools.partial(random_shift, max_shift=2), random_flip)
      True
    """
    for f in transforms:
        if not callable(f):
            raise TypeError(f"a transform is {f!r}; needs a function of (images, key)")
    parts = tuple(_Fixed.of(f) if isinstance(f, functools.partial) else f for f in transforms)
    for f in parts:
        try:
            hash(f)
        except TypeError as error:
            raise TypeError(
                f"{f!r} cannot be hashed ({error}); needs hashable options, since chains are compared by them"
            ) from None
    return _Chain(parts)


@dataclasses.dataclass(frozen=True)
class _Chain:
    transforms: tuple[Callable[[Any, Any], Array], ...]

    def __call__(self, images: Images, key: RandomKey) -> Array:
        images = check.array("images", images)
        check.key("key", key)
        for f, subkey in zip(self.transforms, jax.random.split(key, len(self.transforms)), strict=True):
            images = f(images, subkey)
        return images


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A `functools.partial` that is compared by value, where `functools.partial` is compared by identity."""

    function: Callable[..., Array]
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, partial: functools.partial) -> "_Fixed":
        return cls(partial.func, partial.args, tuple(sorted(partial.keywords.items())))

    def __call__(self, images: Images, key: RandomKey) -> Array:
        return self.function(*self.arguments, images, key, **dict(self.options))


def _integer(name: str, value: int) -> int:
    """Return a Python integer, or raise TypeError for a tracer or another type."""
    try:
        number = index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{name} must be a Python integer, fixed when the function is compiled; got {shown(value)}") from None
    return as_integer(name, number, least=None)


def _per_axis(name: str, value: int | Sequence[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast a number of pixels to all spatial axes and check it."""
    values = integers(name, value) if isinstance(value, Iterable) else (_integer(name, value),) * len(sizes)
    if len(values) != len(sizes) or any(number < 0 for number in values):
        raise ValueError(f"{name} is {values} for images of {sizes}; needs one number of pixels per spatial axis, none below 0")
    return values


def _number(name: str, value: float) -> float:
    """Return a Python float, or raise TypeError for a tracer or another type."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a Python number, fixed when the function is compiled; got {shown(value)}")
    return float(check.number(name, value))


def _random_windows(images: Array, key: RandomKey, space: tuple[int, ...]) -> Array:
    """Crop every image to this size at a random position."""
    ndim, channels = len(space), images.shape[-1]
    batch, sizes = images.shape[: -1 - ndim], images.shape[-1 - ndim : -1]
    counts = jnp.array([large - small + 1 for large, small in zip(sizes, space, strict=True)])
    start = jax.random.randint(key, (math.prod(batch), ndim), 0, counts, jnp.int32)

    def cut(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*start, jnp.int32(0)), (*space, channels))

    windows = jax.vmap(cut)(images.reshape(math.prod(batch), *sizes, channels), start)
    return windows.reshape(*batch, *space, channels)
