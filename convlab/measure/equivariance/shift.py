r"""Equivariance of a function under shifts of images, and consistency of predictions.

$T_\delta$ moves images around a circle, $(T_\delta X)_k = X_{k - \delta}$. So every shift has an inverse, and no pixel is lost.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import shown
from convlab.display import short_repr
from convlab.geometry import Size, Space, as_axes, as_integer, as_space

Delta = int | Sequence[int]  # in pixels, an int for all spatial axes or one for each
Function = Callable[[jax.Array], jax.Array]


class Equivariance(NamedTuple):
    """The deviation of a function from commuting with a shift.

    Attributes:
      map: The root mean square of the difference over images and channels, at every output position.
      error: The norm of the difference over that of the output. For an output of zeros it is inf, or nan if the output of the
        shifted images is zero too.
    """

    map: Float[Array, "i j"]
    error: Float[Array, ""]

    __repr__ = short_repr


def shift_images(x: Float[Array, "n k l c"], delta: Delta) -> Float[Array, "n k l c"]:
    r"""Shift images around a circle, along all axes but the first and last.

    $$H_{nklc} = X_{n,\,k-\delta,\,l-\epsilon,\,c}$$

    Args:
      x: The images.
      delta: The shift in pixels, an int for all spatial axes or one for each; may be negative.

    Raises:
      ValueError: `delta` has another number of entries than there are spatial axes.

    Example:
      >>> shift_images(jnp.arange(4.0).reshape(1, 4, 1), 1).squeeze()
      Array([3., 0., 1., 2.], dtype=float32)
    """
    x = _batch("x", x)
    return rolled(x, as_shift(delta, x.ndim - 2), tuple(range(1, x.ndim - 1)))


def rolled(x: Array, by: Sequence[int], axes: tuple[int, ...]) -> Array:
    """Roll an array along axes, compiled once for all shifts."""
    return _rolled(x, np.array(by, np.int32), axes) if any(by) else x


@functools.partial(jax.jit, static_argnums=2)
def _rolled(x: Array, by: Array, axes: tuple[int, ...]) -> Array:
    return jnp.roll(x, by, axes)


def _batch(name: str, value: ArrayLike) -> Array:
    """Return images (n, *space, c) of any dtype as an array."""
    x = check.array(name, value)
    if x.ndim < 3:
        raise ValueError(f"{name} has shape {x.shape}; needs images (n, *space, c) with at least one spatial axis")
    return x


def as_shift(delta: Delta, ndim: int, name: str = "delta") -> tuple[int, ...]:
    """Return a shift as one integer per spatial axis.

    Raises:
      ValueError: `delta` holds no integers, or has another number of entries.
    """
    try:
        numbers = np.asarray(delta)
    except (TypeError, ValueError):  # no regular array
        numbers = np.empty(0)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (ndim,)):
        raise ValueError(f"{name} is {shown(delta)}; needs an integer, or one for each of {ndim} spatial axes")
    return tuple(as_integer(name, number, least=None) for number in np.broadcast_to(numbers, (ndim,)))


def equivariance_error(function: Function, x: Float[Array, "n k l c"], delta: Delta, stride: Size = 1) -> Equivariance:
    r"""Measure how far a function of images is from commuting with a shift.

    $$E = f(T_\delta X) - T_{\lfloor \delta / s \rfloor} f(X)$$

    The difference is zero for circular convolutions. Under zero padding it is zero except in a band along the border. With
    padding ("SAME", "CIRCULAR"), it is zero for shifts along the second axis. With stride s it is zero only for shifts by
    multiples of s.

    Args:
      function: A function from images (n, *space, c) to images, or to (n, d), which should then be invariant under the shift.
      x: The images.
      delta: The shift in pixels, an int for all spatial axes or one for each.
      stride: The number of input pixels between neighbouring outputs.

    Raises:
      ValueError: `delta` or `stride` has another number of entries than there are spatial axes, or the function's output has no
        axis after that of the images.

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
    x = _batch("x", x)
    check.function("function", function, "a function of images")
    deltas, strides = as_shift(delta, x.ndim - 2), as_axes("stride", stride, x.ndim - 2)
    h, moved = function(x), function(shift_images(x, deltas))
    h, moved = (check.inexact("the result of function", result) for result in (h, moved))
    if jnp.ndim(h) < 2:
        raise ValueError(f"function returns shape {jnp.shape(h)}; needs images (n, *space, c) or vectors (n, d)")
    if h.ndim > 2:
        h = shift_images(h, [d // s for d, s in zip(deltas, strides, strict=True)])
    error = jnp.linalg.norm((moved - h).ravel()) / jnp.linalg.norm(h.ravel())
    return Equivariance(jnp.sqrt(jnp.mean(jnp.abs(moved - h) ** 2, (0, -1))), error)


def sample_shifts(space: Space, number: int | None = None, *, seed: int = 0) -> list[tuple[int, ...]]:
    """List shifts around the circle: all but the zero shift, or a random sample of them.

    Args:
      space: The number of pixels along each axis; shifts are below it.
      number: The number of shifts, drawn without replacement. If None, all are returned.
      seed: The seed of the random sample.

    Raises:
      ValueError: There are fewer than `number` shifts.

    Example:
      >>> sample_shifts((2, 3))
      [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    check.shape_fits("all shifts of space", *as_space(space), itemsize=100)
    shifts = list(np.ndindex(*as_space(space)))[1:]
    if number is None:
        return shifts
    number, seed = as_integer("number", number, least=None), as_integer("seed", seed, least=0, most=2**32 - 1)
    if not 1 <= number <= len(shifts):
        raise ValueError(f"number is {number} but images of {tuple(space)} pixels have {len(shifts)} shifts")
    drawn = np.random.default_rng(seed).choice(len(shifts), number, replace=False)
    return [shifts[index] for index in sorted(drawn)]


def shift_consistency(predict: Function, images: Float[Array, "n k l c"], shifts: Iterable[Delta]) -> float:
    r"""Compute the share of predictions that do not change when images are shifted.

    $$\frac{1}{|\Delta| N} \sum_{\delta n} [\, g(T_\delta X_n) = g(X_n) \,]$$

    Images move around a circle. To keep wrapped pixels out of view, let `predict` crop a margin as wide as the shifts.

    Args:
      predict: A function from images (n, *space, c) to labels (n,), or to one score per class (n, classes). The label is then
        the class with the largest score.
      images: The images to shift.
      shifts: The shifts in pixels, each an int for all spatial axes or one for each, as `sample_shifts` lists them.

    Raises:
      ValueError: `shifts` is empty, `predict` returns one floating score per image, which is no label, or scores are nan.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (5, 8, 7, 1))
      >>> shift_consistency(lambda x: x.mean((1, 2)) > 0, x, sample_shifts((8, 7)))
      1.0

    Reference: Zhang 2019, Making convolutional networks shift-invariant again, section 4.1.
    """
    images, shifts = _batch("images", images), check.sequence("shifts", shifts, "shifts")
    labels = _labels(check.function("predict", predict, "a function of images")(images))
    shifts = [as_shift(delta, images.ndim - 2, "shifts") for delta in shifts]
    same = [jnp.mean(_labels(predict(shift_images(images, delta))) == labels) for delta in shifts]
    if not same:
        raise ValueError("shifts is empty; needs at least one shift")
    return float(np.mean(np.array(same, float)))


def _labels(scores: Array) -> Array:
    scores = check.real("the result of predict", check.array("the result of predict", scores))
    if scores.ndim > 1 and scores.shape[-1] > 1:
        if bool(jnp.isnan(scores).any()):
            raise ValueError("predict returns scores that are nan; needs numbers, so that one is the largest")
        return jnp.argmax(scores, -1)
    if jnp.issubdtype(scores.dtype, jnp.floating):
        raise ValueError(
            f"predict returns numbers of shape {scores.shape}; needs labels, such as scores > 0, or one score per class"
        )
    return scores
