"""Shift equivariance and aliasing of downsampling methods."""

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
    r"""Compute the share of an image's energy that sampling would alias.

    That is the energy above the highest frequency that the samples can represent.

    $$\sum_{|u| > 1/2s \,\vee\, |v| > 1/2s} |\hat H_{uv}|^2 \,\Big/\, \sum_{uv} |\hat H_{uv}|^2$$

    Sampling every s-th pixel folds that share onto lower frequencies, where it cannot be distinguished from the signal.

    Args:
      h: The images before sampling.
      stride: The number of pixels between samples, an int for all spatial axes or one for each.

    Returns:
      The share; nan for images of zeros.

    Raises:
      ValueError: `stride` has another number of entries than there are spatial axes.
      TypeError: `h` is not floating.

    Example:
      >>> [round(float(aliased_energy(jnp.array([1.0, a, 1.0, a]).reshape(1, 4, 1), 2)), 6) for a in (1, 0, -1)]
      [0.0, 0.5, 1.0]
    """
    h = check.image_batch("h", h)
    ndim = h.ndim - 2
    energy = jnp.abs(jnp.fft.fftn(h, axes=range(1, 1 + ndim))) ** 2
    aliased = np.zeros(h.shape[1:-1], bool)
    for r, (n, s) in enumerate(zip(h.shape[1:-1], as_axes("stride", stride, ndim), strict=True)):
        high = np.abs(np.fft.fftfreq(n)) > 0.5 / s
        aliased |= high.reshape([-1 if axis == r else 1 for axis in range(ndim)])
    return jnp.sum(energy * aliased[..., None]) / jnp.sum(energy)


def _strided(x: Array, window: Window) -> Array:
    return max_pool(x, Window(1, window.strides, window.padding))


# The function for each downsampling method.
DOWNSAMPLING_METHODS: dict[str, Callable[[jax.Array, Window], jax.Array]] = {
    "max": max_pool,
    "mean": mean_pool,
    "strided": _strided,
    "blur": blur_pool,
    "polyphase": lambda x, window: polyphase_pool(x, Window(1, window.strides, window.padding)),
    "blur, polyphase": polyphase_pool,
}


def compare_downsampling(x: Float[Array, "n k l c"], size: Size = 2, stride: int = 2) -> list[dict[str, Any]]:
    r"""Compare downsampling methods by their error of shift equivariance.

    The methods are max, mean, strided, blur and polyphase downsampling, and blur followed by polyphase.

    $$\mathrm{error} = \frac{1}{N|\Delta|} \sum_{n\delta} \min_{\epsilon}
      \| g(T_\delta X_n) - T_\epsilon\, g(X_n) \| / \| g(X_n) \|$$

    Here g is the method, $T_\delta$ a circular shift and N the number of images. The mean is over the shifts $\Delta$ from 0 to
    stride - 1 along each axis, but zero. Such a shift need not be a multiple of the stride, so the minimum is over the
    output shifts just below and above. All windows are circular, so that borders have no effect.

    Args:
      x: The images; the stride must divide their sides.
      size: The number of taps of the max, mean and blur windows.
      stride: The number of pixels between samples, at least 2.

    Returns:
      One row for each method: its name in "method", the "error" above, "mean_change" and "aliased_energy". "mean_change" is
      the relative change of the mean over positions. "aliased_energy" is the function of that name, of the output of the same
      method with stride 1.

    Raises:
      ValueError: The stride does not divide the sides of the images, or is below 2. Or a method returns only zeros for an
        image, so that no relative change is defined.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
      >>> [row["method"] for row in compare_downsampling(x) if row["error"] < 1e-6]
      ['polyphase', 'blur, polyphase']

    Reference: Zhang 2019; Chaman and Dokmanic 2021, Truly shift-invariant convolutional neural networks.
    """
    x = check.image_batch("x", x)
    ndim, stride = x.ndim - 2, as_integer("stride", stride, least=2)
    if any(n % stride for n in x.shape[1:-1]):
        raise ValueError(f"stride {stride} must divide the sides {x.shape[1:-1]} of the images in x")
    windows = [Window(as_axes("size", size, ndim), steps, "CIRCULAR") for steps in (stride, 1)]
    measured = {name: _row(name, x, *windows) for name in DOWNSAMPLING_METHODS}
    rows = [{"method": name} | {key: float(value) for key, value in row.items()} for name, row in measured.items()]
    blank = [name for name, row in measured.items() if not all(map(np.isfinite, row.values()))]
    if blank:
        names = ", ".join(map(repr, blank))
        raise ValueError(
            f"x: {names} returns zeros or non-finite numbers for an image; needs others to define a relative change"
        )
    return rows


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _row(name: str, x: Array, window: Window, dense: Window) -> dict[str, Array]:
    method, strides = DOWNSAMPLING_METHODS[name], as_axes("strides", window.strides, x.ndim - 2)
    shifts = np.array(list(np.ndindex(*strides))[1:])
    h, spatial = method(x, window), tuple(range(1, x.ndim - 1))
    shifted = jax.lax.map(lambda shift: method(jnp.roll(x, shift, spatial), window), shifts)
    candidates = [jnp.roll(h, shift, spatial) for shift in itertools.product((0, 1), repeat=len(strides))]
    distances = jnp.stack([_norm(shifted - candidate, x.ndim - 1) for candidate in candidates])
    nearest = jnp.min(distances, 0) / _norm(h, x.ndim - 1)
    mean = jnp.mean(h, spatial)
    mean_change = _norm(jnp.mean(shifted, tuple(axis + 1 for axis in spatial)) - mean, 1) / _norm(mean, 1)
    aliased = aliased_energy(method(x, dense), strides)
    return {"error": jnp.mean(nearest), "mean_change": jnp.mean(mean_change), "aliased_energy": aliased}


def _norm(h: Array, axes: int) -> Array:
    """Return the norm over the last `axes` axes."""
    return jnp.sqrt(jnp.sum(h**2, tuple(range(h.ndim - axes, h.ndim))))
