r"""What a shift of the image does to what is computed from it: equivariance, consistency, aliasing, and ways to downsample.

$T_\delta$ moves images around a circle, $(T_\delta X)_k = X_{k - \delta}$: every shift has an inverse, and nothing is lost.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Size, Space, Window, as_axes, as_integer, as_space
from convlab.ops.pool import blur_pool, max_pool, mean_pool, polyphase_pool

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


def shift(x: Float[Array, "n k l c"], delta: Delta) -> Float[Array, "n k l c"]:
    r"""Move images around a circle: all axes but the first and last.

    $$H_{nklc} = X_{n,\,k-\delta,\,l-\epsilon,\,c}$$

    Args:
      x: Images.
      delta: Pixels along all spatial axes, or each; any sign.

    Raises:
      ValueError: Another number of entries than spatial axes.

    Example:
      >>> shift(jnp.arange(4.0).reshape(1, 4, 1), 1).squeeze()
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
    h, moved = function(x), function(shift(x, deltas))
    if jnp.ndim(h) < 2:
        raise ValueError(f"the function returns shape {jnp.shape(h)}; needs images (n, *space, c) or vectors (n, d)")
    if h.ndim > 2:
        h = shift(h, [d // s for d, s in zip(deltas, strides, strict=True)])
    difference = moved - h
    return Equivariance(jnp.sqrt(jnp.mean(difference**2, (0, -1))), _ratio(difference, h))


def shifts(space: Space, number: int | None = None, *, seed: int = 0) -> list[tuple[int, ...]]:
    """List shifts around the circle: all of them but the one that moves nothing, or some at random.

    Args:
      space: Pixels along each axis: a shift is below that.
      number: How many, drawn without repetition; absent, all.
      seed: Of the draw.

    Raises:
      ValueError: There are fewer than `number`.

    Example:
      >>> shifts((2, 3))
      [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    every = list(np.ndindex(*as_space(space)))[1:]
    if number is None:
        return every
    if not 1 <= number <= len(every):
        raise ValueError(f"number is {number} but images of {tuple(space)} pixels have {len(every)} shifts")
    drawn = np.random.default_rng(seed).choice(len(every), number, replace=False)
    return [every[place] for place in sorted(drawn)]


def shift_consistency(
    predict: Function, images: Float[Array, "n k l c"], shifts: Iterable[Delta], *, margin: int | None = None
) -> float:
    r"""Tell which share of predictions stays as it was when images are shifted.

    $$\frac{1}{|\Delta| N} \sum_{\delta n} [\, g(T_\delta X_n) = g(X_n) \,]$$

    Args:
      predict: Takes images (n, *space, c) to labels (n,), or to one score per class (n, classes), of which the largest counts.
      images: What is shifted.
      shifts: Pixels along all spatial axes or each, as `shifts` lists them.
      margin: Absent, images move around a circle. Else what is seen is cut out, `margin` pixels inside every border, and it is
        the cut that moves, against `delta`: nothing wraps, new pixels come in. `predict` is given these smaller images.

    Raises:
      ValueError: No shifts, or one that moves the cut over the border; one floating score an image, which is no label, or
        scores that are nan.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (5, 8, 7, 1))
      >>> shift_consistency(lambda x: x.mean((1, 2)) > 0, x, shifts((8, 7)))
      1.0

    Reference: Zhang 2019, Making convolutional networks shift-invariant again, section 4.1.
    """
    images = jnp.asarray(images)
    still = _labels(predict(_moved(images, 0, margin)))
    same = [jnp.mean(_labels(predict(_moved(images, delta, margin))) == still) for delta in shifts]
    if not same:
        raise ValueError("shifts is empty; needs at least one")
    return float(np.mean(np.array(same, float)))


def _moved(images: Array, delta: Delta, margin: int | None) -> Array:
    if margin is None:
        return shift(images, delta)
    by = as_shift(delta, images.ndim - 2)
    if max(map(abs, by)) > as_integer("margin", margin, least=0) or 2 * margin >= min(images.shape[1:-1]):
        raise ValueError(f"a margin of {margin} pixels in images of {images.shape[1:-1]} leaves no room for the shift {by}")
    return images[:, *(slice(margin - d, n - margin - d) for d, n in zip(by, images.shape[1:-1], strict=True))]


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


def aliased_energy(h: Float[Array, "n k l c"], stride: Size) -> Float[Array, ""]:
    r"""Tell which share of the energy of images lies above the highest frequency that their samples can tell apart.

    $$\sum_{|u| > 1/2s \,\vee\, |v| > 1/2s} |\hat H_{uv}|^2 \,\Big/\, \sum_{uv} |\hat H_{uv}|^2$$

    Sampling every s-th pixel folds that share onto lower frequencies, from which nothing tells it apart.

    Args:
      h: What is to be sampled, all of it.
      stride: Pixels between samples, along all spatial axes or each.

    Returns:
      The share; nan for images of zeros.

    Raises:
      ValueError: `stride` has another number of entries than there are spatial axes.
      TypeError: `h` is not floating.

    Example:
      >>> [round(float(aliased_energy(jnp.array([1.0, a, 1.0, a]).reshape(1, 4, 1), 2)), 6) for a in (1, 0, -1)]
      [0.0, 0.5, 1.0]
    """
    h = check.floating("h", h)
    rank = h.ndim - 2
    energy = jnp.abs(jnp.fft.fftn(h, axes=range(1, 1 + rank))) ** 2
    above = np.zeros(h.shape[1:-1], bool)
    for r, (n, s) in enumerate(zip(h.shape[1:-1], as_axes("stride", stride, rank), strict=True)):
        high = np.abs(np.fft.fftfreq(n)) > 0.5 / s
        above |= high.reshape([-1 if axis == r else 1 for axis in range(rank)])
    return jnp.sum(energy * above[..., None]) / jnp.sum(energy)


def _strided(x: Array, window: Window) -> Array:
    return max_pool(x, Window(1, window.strides, window.padding))


# way to downsample -> what computes it
WAYS: dict[str, Callable[[jax.Array, Window], jax.Array]] = {
    "max": max_pool,
    "mean": mean_pool,
    "strided": _strided,
    "blur": blur_pool,
    "polyphase": lambda x, window: polyphase_pool(x, Window(1, window.strides, window.padding)),
    "blur, polyphase": polyphase_pool,
}


def downsampling(x: Float[Array, "n k l c"], size: Size = 2, stride: int = 2) -> list[dict[str, Any]]:
    r"""Compare max, mean, strided, blur and polyphase downsampling on images, by what a shift does to each.

    $$\mathrm{error} = \frac{1}{N|\Delta|} \sum_{n\delta} \min_{\epsilon}
      \| g(T_\delta X_n) - T_\epsilon\, g(X_n) \| / \| g(X_n) \|$$

    over all shifts below the stride and, as these need not be multiples of it, the output shifts just below and above. All
    windows are circular, so that no border takes part.

    Args:
      x: Images; the stride divides their sides.
      size: Taps of the windows, of max, mean and blur.
      stride: Pixels between samples, at least 2.

    Returns:
      A row a way: "way"; "error"; "drift", the change of the mean over positions, relative likewise; and "aliased", the
      `aliased_energy` of what is sampled.

    Raises:
      ValueError: The stride does not divide the sides of the images, or is below 2; or a way makes zeros of an image, against
        which no change can be measured.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
      >>> [row["way"] for row in downsampling(x) if row["error"] < 1e-6]
      ['polyphase', 'blur, polyphase']

    Reference: Zhang 2019; Chaman and Dokmanic 2021, Truly shift-invariant convolutional neural networks.
    """
    x = check.floating("x", x)
    rank = x.ndim - 2
    as_integer("stride", stride, least=2)
    windows = [Window(as_axes("size", size, rank), steps, "CIRCULAR") for steps in (stride, 1)]
    rows = [{"way": name} | {key: float(value) for key, value in _row(name, x, *windows).items()} for name in WAYS]
    blank = [row["way"] for row in rows if not all(np.isfinite(row[key]) for key in ("error", "drift", "aliased"))]
    if blank:
        ways = ", ".join(map(repr, blank))
        raise ValueError(f"{ways} makes of an image zeros, or what is not finite: no change is relative to that")
    return rows


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _row(name: str, x: Array, window: Window, dense: Window) -> dict[str, Array]:
    way, strides = WAYS[name], as_axes("strides", window.strides, x.ndim - 2)
    below = np.array(list(np.ndindex(*strides))[1:])
    h, spatial = way(x, window), tuple(range(1, x.ndim - 1))
    moved = jax.lax.map(lambda by: way(jnp.roll(x, by, spatial), window), below)
    near = [jnp.roll(h, by, spatial) for by in itertools.product((0, 1), repeat=len(strides))]
    nearest = jnp.min(jnp.stack([_length(moved - g, x.ndim - 1) for g in near]), 0) / _length(h, x.ndim - 1)
    mean = jnp.mean(h, spatial)
    drift = _length(jnp.mean(moved, tuple(axis + 1 for axis in spatial)) - mean, 1) / _length(mean, 1)
    aliased = aliased_energy(way(x, dense), strides)
    return {"error": jnp.mean(nearest), "drift": jnp.mean(drift), "aliased": aliased}


def _length(h: Array, many: int) -> Array:
    """The norm over the last axes."""
    return jnp.sqrt(jnp.sum(h**2, tuple(range(h.ndim - many, h.ndim))))


def _ratio(difference: Array, h: Array) -> Array:
    return jnp.linalg.norm(difference.ravel()) / jnp.linalg.norm(h.ravel())
