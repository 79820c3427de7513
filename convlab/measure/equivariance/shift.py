r"""What a shift of the image does to what is computed from it: equivariance and consistency.

$T_\delta$ moves images around a circle, $(T_\delta X)_k = X_{k - \delta}$: every shift has an inverse, and nothing is lost.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab.geometry import Size, Space, as_axes, as_space

Delta = int | Sequence[int]  # pixels along all spatial axes, or each
Function = Callable[[jax.Array], jax.Array]


class Equivariance(NamedTuple):
    """How far a function is from commuting with a shift.

    Attributes:
      map: Root mean square of the difference over images and channels, at every output position.
      error: Norm of the difference over that of the output: of an output of zeros inf, or nan where the other is zeros too.
    """

    map: Float[Array, "i j"]
    error: Float[Array, ""]


def shift_images(x: Float[Array, "n k l c"], delta: Delta) -> Float[Array, "n k l c"]:
    r"""Move images around a circle: all axes but the first and last.

    $$H_{nklc} = X_{n,\,k-\delta,\,l-\epsilon,\,c}$$

    Args:
      x: Images.
      delta: Pixels along all spatial axes, or each; any sign.

    Raises:
      ValueError: Another number of entries than spatial axes.

    Example:
      >>> shift_images(jnp.arange(4.0).reshape(1, 4, 1), 1).squeeze()
      Array([3., 0., 1., 2.], dtype=float32)
    """
    x = jnp.asarray(x)
    return rolled(x, as_shift(delta, x.ndim - 2), tuple(range(1, x.ndim - 1)))


def rolled(x: Array, by: Sequence[int], axes: tuple[int, ...]) -> Array:
    """Move an array around a circle; compiled once for all shifts."""
    return _rolled(x, np.array(by, np.int32), axes) if any(by) else x


@functools.partial(jax.jit, static_argnums=2)
def _rolled(x: Array, by: Array, axes: tuple[int, ...]) -> Array:
    return jnp.roll(x, by, axes)


def as_shift(delta: Delta, rank: int) -> tuple[int, ...]:
    """Return a shift as one integer per spatial axis.

    Raises:
      ValueError: Another number of entries.
    """
    numbers = np.asarray(delta)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (rank,)):
        raise ValueError(f"delta is {delta!r}; needs an integer, or one for each of {rank} spatial axes")
    return tuple(int(number) for number in np.broadcast_to(numbers, (rank,)))


def equivariance_error(function: Function, x: Float[Array, "n k l c"], delta: Delta, stride: Size = 1) -> Equivariance:
    r"""Measure how far a function of images is from commuting with a shift.

    $$E = f(T_\delta X) - T_{\lfloor \delta / s \rfloor} f(X)$$

    Zero for circular convolutions; under zero padding zero but for a band along the border; with stride s zero for shifts by
    multiples of s alone.

    Args:
      function: Takes images (n, *space, c) to images, or to (n, d) where it should not notice the shift.
      x: Images.
      delta: Pixels, along all spatial axes or each.
      stride: Pixels of the image between neighbouring outputs.

    Raises:
      ValueError: `delta` or `stride` has another number of entries than there are spatial axes, or the function returns no axis
        after that of the images.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.ops.conv import conv
      >>> x, v = jnp.arange(5.0).reshape(1, 5, 1), jnp.ones((3, 1, 1))
      >>> equivariance_error(lambda x: conv(x, v, Window(3)), x, 1).map
      Array([3., 4., 0., 0., 4.], dtype=float32)
      >>> float(equivariance_error(lambda x: conv(x, v, Window(3, padding="CIRCULAR")), x, 1).error)
      0.0

    Reference: Zhang 2019, Making convolutional networks shift-invariant again, section 3.1.
    """
    x = jnp.asarray(x)
    deltas, strides = as_shift(delta, x.ndim - 2), as_axes("stride", stride, x.ndim - 2)
    h, moved = function(x), function(shift_images(x, deltas))
    if jnp.ndim(h) < 2:
        raise ValueError(f"the function returns shape {jnp.shape(h)}; needs images (n, *space, c) or vectors (n, d)")
    if h.ndim > 2:
        h = shift_images(h, [d // s for d, s in zip(deltas, strides, strict=True)])
    error = jnp.linalg.norm((moved - h).ravel()) / jnp.linalg.norm(h.ravel())
    return Equivariance(jnp.sqrt(jnp.mean((moved - h) ** 2, (0, -1))), error)


def sample_shifts(space: Space, number: int | None = None, *, seed: int = 0) -> list[tuple[int, ...]]:
    """List shifts around the circle: all of them but the one that moves nothing, or some at random.

    Args:
      space: Pixels along each axis: a shift is below that.
      number: How many, drawn without repetition; absent, all.
      seed: Of the draw.

    Raises:
      ValueError: There are fewer than `number`.

    Example:
      >>> sample_shifts((2, 3))
      [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    every = list(np.ndindex(*as_space(space)))[1:]
    if number is None:
        return every
    if not 1 <= number <= len(every):
        raise ValueError(f"number is {number} but images of {tuple(space)} pixels have {len(every)} shifts")
    drawn = np.random.default_rng(seed).choice(len(every), number, replace=False)
    return [every[place] for place in sorted(drawn)]


def shift_consistency(predict: Function, images: Float[Array, "n k l c"], shifts: Iterable[Delta]) -> float:
    r"""Tell which share of predictions stays as it was when images are shifted.

    $$\frac{1}{|\Delta| N} \sum_{\delta n} [\, g(T_\delta X_n) = g(X_n) \,]$$

    Images move around a circle. Nothing wraps in view where `predict` cuts out the middle, a margin as wide as the shifts.

    Args:
      predict: Takes images (n, *space, c) to labels (n,), or to one score per class (n, classes), of which the largest counts.
      images: What is shifted.
      shifts: Pixels along all spatial axes or each, as `shifts` lists them.

    Raises:
      ValueError: No shifts; one floating score an image, which is no label, or scores that are nan.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (5, 8, 7, 1))
      >>> shift_consistency(lambda x: x.mean((1, 2)) > 0, x, sample_shifts((8, 7)))
      1.0

    Reference: Zhang 2019, Making convolutional networks shift-invariant again, section 4.1.
    """
    images = jnp.asarray(images)
    still = _labels(predict(images))
    same = [jnp.mean(_labels(predict(shift_images(images, delta))) == still) for delta in shifts]
    if not same:
        raise ValueError("shifts is empty; needs at least one")
    return float(np.mean(np.array(same, float)))


def _labels(scores: Array) -> Array:
    scores = jnp.asarray(scores)
    if scores.ndim > 1 and scores.shape[-1] > 1:
        if bool(jnp.isnan(scores).any()):
            raise ValueError("predict returns scores that are nan, of which none is the largest")
        return jnp.argmax(scores, -1)
    if jnp.issubdtype(scores.dtype, jnp.floating):
        raise ValueError(
            f"predict returns numbers of shape {scores.shape}; needs labels, such as scores > 0, or a score per class"
        )
    return scores
