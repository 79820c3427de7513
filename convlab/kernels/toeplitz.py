"""A convolution whose every position sees every pixel, as the dense matrix that it then is: less arithmetic than windows."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form


def applies(form: Form) -> bool:
    """Whether every output reads every pixel, each once: the window covers the image wherever it stands."""
    return all(
        axis.dilation == 1 and axis.stride * (axis.outputs - 1) <= axis.low and axis.low + axis.pixels <= axis.size
        for axis in form.axes
    )


def conv(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Write the kernel as a dense weight, row i holding the slice of it that lies on the image, and multiply."""
    ndim = form.ndim
    for r, axis in enumerate(form.axes):
        first = [axis.low - axis.stride * i for i in range(axis.outputs)]
        v = jnp.stack([lax.slice_in_dim(v, f, f + axis.pixels, axis=1 + 2 * r) for f in first], 1 + 2 * r)
    v = v.transpose(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1, 2 * ndim + 2)
    batch, spatial = ([0], [0]), range(2, 2 + ndim)
    contract = ([*spatial, 2 + ndim], [*range(1 + ndim, 1 + 2 * ndim), 1 + 2 * ndim])
    return lax.dot_general(x, v, (contract, batch), precision=form.precision)
