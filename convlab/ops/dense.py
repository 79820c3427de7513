"""The freest rung: every output sees every pixel through a weight of its own."""

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
    r"""Apply an own weight to every pair of output and pixel: the MLP on an image, before any assumption.

    $$H_{ijd} = \sum_{klc} W_{ijklcd} \, X_{klc}$$

    Args:
      x: Images, any number of leading batch axes.
      w: One weight per output position, pixel, input channel and output channel.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.

    Raises:
      ValueError: `w` does not read images of this space and these channels.
      TypeError: `x` or `w` is not floating.

    Example:
      >>> dense(jnp.ones((4, 5, 2)), jnp.ones((3, 2, 4, 5, 2, 7))).shape
      (3, 2, 7)

    Reference: Zhang et al., Dive into Deep Learning, equation 7.1.1.
    """
    w, rank = check.kernel("w", w, spatial=2, others="c d")
    x, space = check.images(x, rank, f"w of shape {w.shape} reads {rank} of them")
    check.agree("w holds weights for {} pixels", w.shape[rank : 2 * rank], f"x of shape {x.shape} has {{}}", space)
    check.channels(x, "w", w)
    x, w = check.promote(x, w)
    axes = (tuple(range(1, 2 + rank)), tuple(range(rank, 2 * rank + 1)))

    def product(x: Array, w: Array) -> Array:
        return jnp.tensordot(x, w, axes, precision=precision, preferred_element_type=preferred_element_type)

    batch = x.shape[: x.ndim - 1 - rank]
    h = sharding.dense(product, x.reshape(math.prod(batch), *space, x.shape[-1]), w)
    return h.reshape(*batch, *h.shape[1:])
