"""Initial arrays, which give every rung the output variance of a convolution.

The fan-in of a kernel is that of one window, never of all positions. A dense layer has the smaller variance that its
convolution would have at the border.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from convlab.display import short_repr


class Start(NamedTuple):
    """Describe how a layer starts.

    Attributes:
      kernel_init: The initializer of one kernel.
      dtype: The dtype of the arrays.
      tied_noise: The noise between positions. If None, positions are independent.
    """

    kernel_init: Initializer
    dtype: DTypeLike
    tied_noise: float | None = None

    __repr__ = short_repr


def draw_kernels(key: jax.Array, count: tuple[int, ...], shape: tuple[int, ...], spec: Start) -> jax.Array:
    """Draw an array of kernels, each as the initializer would draw that of a convolution."""

    def independent(key: jax.Array) -> jax.Array:
        draw = jax.vmap(lambda key: spec.kernel_init(key, shape, spec.dtype))
        return draw(jax.random.split(key, math.prod(count))).reshape(*count, *shape)

    return mix(key, spec.tied_noise, lambda key: spec.kernel_init(key, shape, spec.dtype), independent)


def mix(key: jax.Array, noise: float | None, common: Callable, independent: Callable) -> jax.Array:
    r"""Add noise to a common draw, at constant variance. If `noise` is None, draw independently.

    $$(u + s\, e) / \sqrt{1 + s^2} \quad \text{with noise } s$$
    """
    if noise is None:
        return independent(key)
    first, second = jax.random.split(key)
    return (common(first) + noise * independent(second)) / math.sqrt(1 + noise**2)
