"""All windows at once, then matrix products: k x k copies of the image, but no loop."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab.unfold import windows


def local(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Any) -> Float[Array, "s n *out d"]:
    """Multiply every position's windows by its own kernel."""
    rank = len(form.axes)
    p = windows(jnp.moveaxis(x, 1, 1 + rank), form.axes, 1)  # positions first: one matrix of windows per position
    out = p.shape[: 1 + rank]
    p = p.reshape(math.prod(out), x.shape[1], -1)
    h = jnp.einsum("ina,iad->ind", p, v.reshape(len(p), p.shape[-1], -1), precision=form.precision)
    return jnp.moveaxis(h.reshape(*out, *h.shape[1:]), 1 + rank, 1)


def conv(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Any) -> Float[Array, "s n *out d"]:
    """Multiply all windows by the one kernel."""
    rank = len(form.axes)
    p = windows(x, form.axes, 2)
    out = p.shape[: 2 + rank]
    h = jnp.einsum(
        "sia,sad->sid", p.reshape(out[0], math.prod(out[1:]), -1), v.reshape(len(v), -1, v.shape[-1]), precision=form.precision
    )
    return h.reshape(*out, -1)
