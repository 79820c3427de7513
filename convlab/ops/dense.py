"""The dense layer, the freest rung: one weight for every pair of output position and pixel."""

import math

import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.kernels import sharding


def dense(
    x: Float[Array, "*n k l c"],
    w: Float[Array, "i j k l c d"],
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "*n i j d"]:
    r"""Apply a dense layer to images, with one weight per output position and pixel.

    $$H_{ijd} = \sum_{klc} W_{ijklcd} \, X_{klc}$$

    This is a layer of a multilayer perceptron, before locality and weight sharing are assumed.

    Args:
      x: The images, with any number of leading batch axes.
      w: The weights, one per output position, pixel, input channel and output channel.
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.

    Raises:
      ValueError: The pixels or channels of `w` are not those of `x`.
      TypeError: `x` or `w` is neither floating nor complex.

    Example:
      >>> dense(jnp.ones((4, 5, 2)), jnp.ones((3, 2, 4, 5, 2, 7))).shape
      (3, 2, 7)

    Reference: Zhang et al., Dive into Deep Learning, equation 7.1.1.
    """
    w, ndim = check.kernel("w", w, spatial=2, others="c d")
    x, space = check.images(x, ndim, f"w of shape {w.shape} has {ndim} spatial axes")
    check.equal_shapes("w holds weights for {} pixels", w.shape[ndim : 2 * ndim], f"x of shape {x.shape} has {{}}", space)
    check.channels(x, "w", w)
    check.options(precision, preferred_element_type)
    x, w = check.promote(x, w)
    axes = (tuple(range(1, 2 + ndim)), tuple(range(ndim, 2 * ndim + 1)))

    def product(x: Array, w: Array) -> Array:
        return jnp.tensordot(x, w, axes, precision=precision, preferred_element_type=preferred_element_type)

    batch = x.shape[: x.ndim - 1 - ndim]
    h = sharding.dense(product, x.reshape(math.prod(batch), *space, x.shape[-1]), w)
    return h.reshape(*batch, *h.shape[1:])
