"""How layers start: at every rung with the output variance of the convolution with their window.

The fan-in of a kernel is that of one window, never of all positions, and a dense weight sees the border as its convolution
would.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike


class Start(NamedTuple):
    """How a layer starts: initializer of one kernel, dtype, and noise between positions (None: independent)."""

    kernel_init: Initializer
    dtype: DTypeLike
    tied_noise: float | None = None


def draw_kernels(key: jax.Array, many: tuple[int, ...], shape: tuple[int, ...], how: Start) -> jax.Array:
    """Draw `many` kernels, each as the initializer would draw a convolution's."""

    def independent(key: jax.Array) -> jax.Array:
        draw = jax.vmap(lambda key: how.kernel_init(key, shape, how.dtype))
        return draw(jax.random.split(key, math.prod(many))).reshape(*many, *shape)

    return mix(key, how.tied_noise, lambda key: how.kernel_init(key, shape, how.dtype), independent)


def mix(key: jax.Array, noise: float | None, common: Callable, independent: Callable) -> jax.Array:
    """Mix what positions have in common with what differs between them, at constant variance."""
    if noise is None:
        return independent(key)
    first, second = jax.random.split(key)
    return (common(first) + noise * independent(second)) / math.sqrt(1 + noise**2)
