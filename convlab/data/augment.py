"""Pure functions of batches of images and a key that augment: each image is changed by a draw of its own.

All may be compiled, with the key traced. Equations are written for two spatial axes; one and three go the same way.
"""

import dataclasses
import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from convlab.data.transforms import Images, RandomKey, integers, space_of
from convlab.data.transforms import pad as pad_


def random_shift(
    images: Shaped[Images, "*n k l c"], key: RandomKey, *, by: int | Sequence[int], rank: int | None = None
) -> Shaped[Array, "*n k l c"]:
    r"""Move each image by whole pixels of its own, drawn uniformly from `-by` to `by` along each axis; zeros enter.

    $$Y_{nklc} = X_{n,\,k-\Delta k_n,\,l-\Delta l_n,\,c}$$

    Args:
      images: Images; `rank` is needed for one, or for several batch axes.
      key: Draws the moves; the same key and images always give the same.
      by: Largest move in pixels, 0 to the size, for all spatial axes or for each; Python integers.
      rank: Number of spatial axes, by default all but the first and the last.

    Raises:
      ValueError: `by` is negative, larger than the images or not one number per axis, or `rank` does not fit.
      TypeError: `by` does not hold Python integers.

    Example:
      >>> random_shift(jnp.ones((5, 8, 7, 1)), jax.random.key(0), by=(2, 1)).shape
      (5, 8, 7, 1)
    """
    images = jnp.asarray(images)
    sizes = space_of(images, images.ndim - 2 if rank is None else rank)
    moves = _per_axis("by", by, sizes)
    if any(move > size for move, size in zip(moves, sizes, strict=True)):
        raise ValueError(f"by is {moves} but the images are {sizes}; needs at most their size, which leaves nothing of them")
    return _random_windows(pad_(images, [(move, move) for move in moves]), key, sizes)


def random_crop(
    images: Shaped[Images, "*n k l c"],
    key: RandomKey,
    *,
    pad: int | Sequence[int],
    space: Sequence[int] | None = None,
    mode: Literal["zero", "reflect"] = "zero",
    rank: int | None = None,
) -> Shaped[Array, "*n i j c"]:
    r"""Add a border to each image and cut out a window at a place of its own, all places being equally likely.

    $$Y_{nijc} = X_{n,\,i+s_n-p,\,j+t_n-q,\,c}$$

    Here $p, q$ are `pad` and $s_n, t_n$ are drawn from 0 to what the padded image has to spare.

    Args:
      images: Images; `rank` is needed for one, or for several batch axes.
      key: Draws the places; the same key and images always give the same.
      pad: Pixels to add on both sides, of all spatial axes or of each; Python integers.
      space: Size of the window along each spatial axis, Python integers; by default that of the images.
      mode: What is added: "zero", or "reflect", the image mirrored about its outermost pixels, which are not repeated.
      rank: Number of spatial axes, by default all but the first and the last.

    Raises:
      ValueError: `pad` is negative or, to reflect, not smaller than the images; `space` is empty or larger than the padded
        images; not one number per axis; another `mode`; or `rank` does not fit.
      TypeError: `pad` or `space` does not hold Python integers.

    Example:
      >>> random_crop(jnp.ones((5, 8, 7, 1)), jax.random.key(0), pad=1, space=(5, 3)).shape
      (5, 5, 3, 1)
    """
    images = jnp.asarray(images)
    sizes = space_of(images, images.ndim - 2 if rank is None else rank)
    pads, window = _per_axis("pad", pad, sizes), sizes if space is None else _per_axis("space", space, sizes)
    padded = tuple(size + 2 * extra for size, extra in zip(sizes, pads, strict=True))
    if not all(1 <= small <= large for small, large in zip(window, padded, strict=True)):
        raise ValueError(f"space is {window} but the padded images are {padded}; needs 1 pixel to as many along each axis")
    borders = [(extra, extra) for extra in pads]
    if mode == "zero":
        return _random_windows(pad_(images, borders), key, window)
    if mode != "reflect":
        raise ValueError(f'mode is {mode!r}; needs "zero" or "reflect"')
    if any(extra >= size for extra, size in zip(pads, sizes, strict=True)):
        raise ValueError(f"pad is {pads} but the images are {sizes}; needs less than their size, as they mirror only once")
    untouched = [(0, 0)] * (images.ndim - 1 - len(sizes))
    return _random_windows(jnp.pad(images, [*untouched, *borders, (0, 0)], mode="reflect"), key, window)


def random_flip(
    images: Shaped[Images, "*n k l c"], key: RandomKey, *, axis: int = -1, probability: float = 0.5, rank: int | None = None
) -> Shaped[Array, "*n k l c"]:
    r"""Mirror each image along one axis with a probability, whatever becomes of the others; by default left to right.

    $$Y_{nklc} = X_{n,\,k,\,L-1-l,\,c} \;\text{ or }\; X_{nklc}$$

    Here $L$ is the number of pixels along the axis, the last one as written.

    Args:
      images: Images; `rank` is needed for one, or for several batch axes.
      key: Draws which; the same key and images always give the same.
      axis: Which spatial axis, counted among these from 0, or back from -1, the last; a Python integer.
      probability: Of each image to be mirrored, 0 to 1; a Python number.
      rank: Number of spatial axes, by default all but the first and the last.

    Raises:
      ValueError: There is no such spatial axis, `probability` is not 0 to 1, or `rank` does not fit.
      TypeError: `axis` is not a Python integer or `probability` not a Python number.

    Example:
      >>> random_flip(jnp.arange(3).reshape(1, 3, 1), jax.random.key(0), probability=1)[0, :, 0]
      Array([2, 1, 0], dtype=int32)
    """
    images = jnp.asarray(images)
    sizes = space_of(images, images.ndim - 2 if rank is None else rank)
    along = _integer("axis", axis)
    if not -len(sizes) <= along < len(sizes):
        raise ValueError(f"axis is {along} but images of {sizes} have {len(sizes)} spatial axes; needs one of these")
    chance = _number("probability", probability)
    if not 0 <= chance <= 1:
        raise ValueError(f"probability is {chance}; needs 0 to 1")
    batch = images.shape[: -1 - len(sizes)]
    flipped = jax.random.bernoulli(key, jnp.float32(chance), batch).reshape(*batch, *[1] * (len(sizes) + 1))
    return jnp.where(flipped, jnp.flip(images, len(batch) + along % len(sizes)), images)


def chain(*transforms: Callable[[Any, Any], Array]) -> Callable[[Images, RandomKey], Array]:
    """Apply transforms one after the other, each with a key of its own, split from the one given.

    What is returned is hashable and equals every other chain of equal parts, so as a static argument of `jax.jit` it compiles
    once however often it is built. A `functools.partial` is equal to another of the same function and options here, though
    not elsewhere; a lambda is equal to itself only, so write it once, outside.

    Args:
      transforms: Each called as `f(images, key)`; options are fixed by `functools.partial`. None leave images as they are.

    Raises:
      TypeError: A transform cannot be called, or it or an option cannot be hashed (a list; write a tuple).

    Example:
      >>> augment = chain(functools.partial(random_shift, by=2), random_flip)
      >>> augment(jnp.ones((5, 8, 7, 1)), jax.random.key(0)).shape
      (5, 8, 7, 1)
      >>> augment == chain(functools.partial(random_shift, by=2), random_flip)
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
                f"{f!r} cannot be hashed ({error}); needs hashable options, as a chain is compared by them"
            ) from None
    return _Chain(parts)


@dataclasses.dataclass(frozen=True)
class _Chain:
    transforms: tuple[Callable[[Any, Any], Array], ...]

    def __call__(self, images: Images, key: RandomKey) -> Array:
        images = jnp.asarray(images)
        for f, each in zip(self.transforms, jax.random.split(key, len(self.transforms)), strict=True):
            images = f(images, each)
        return images


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A `functools.partial` that is compared by what it holds; the partial itself is compared by identity."""

    function: Callable[..., Array]
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, partial: functools.partial) -> "_Fixed":
        return cls(partial.func, partial.args, tuple(sorted(partial.keywords.items())))

    def __call__(self, images: Images, key: RandomKey) -> Array:
        return self.function(*self.arguments, images, key, **dict(self.options))


def _integer(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{name} must be a Python integer, fixed when the function is compiled; got {value!r}") from None


def _per_axis(name: str, value: int | Sequence[int], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Read numbers of pixels, one for all spatial axes or one for each."""
    values = integers(name, value) if isinstance(value, Iterable) else (_integer(name, value),) * len(sizes)
    if len(values) != len(sizes) or min(values) < 0:
        raise ValueError(f"{name} is {values} for images of {sizes}; needs one number of pixels per spatial axis, none below 0")
    return values


def _number(name: str, value: float) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a Python number, fixed when the function is compiled; got {value!r}")
    return float(value)


def _random_windows(images: Array, key: RandomKey, space: tuple[int, ...]) -> Array:
    """Cut a window of this size out of every image, at a place of its own."""
    rank, channels = len(space), images.shape[-1]
    batch, sizes = images.shape[: -1 - rank], images.shape[-1 - rank : -1]
    places = jnp.array([large - small + 1 for large, small in zip(sizes, space, strict=True)])
    start = jax.random.randint(key, (math.prod(batch), rank), 0, places, jnp.int32)

    def cut(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*start, jnp.int32(0)), (*space, channels))

    windows = jax.vmap(cut)(images.reshape(math.prod(batch), *sizes, channels), start)
    return windows.reshape(*batch, *space, channels)
