"""Ways to downsample, by what a shift of the image does to each, and what sampling folds onto lower frequencies."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Size, Window, as_axes, as_integer
from convlab.ops.pool import blur_pool, max_pool, mean_pool, polyphase_pool


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
