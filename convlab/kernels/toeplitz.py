"""A convolution whose positions all read every pixel, as a dense matrix.

This takes less arithmetic than windows, in which many taps read padding.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form


def applies(form: Form) -> bool:
    """Return True if every output reads every pixel exactly once."""
    return all(
        axis.dilation == 1 and axis.stride * (axis.outputs - 1) <= axis.low and axis.low + axis.pixels <= axis.size
        for axis in form.axes
    )


def conv(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Write the kernel as a dense weight and multiply.

    Row i of the weight holds the slice of the kernel that lies on the image at output i.
    """
    ndim = form.ndim
    for r, axis in enumerate(form.axes):
        first = [axis.low - axis.stride * i for i in range(axis.outputs)]
        v = jnp.stack([lax.slice_in_dim(v, f, f + axis.pixels, axis=1 + 2 * r) for f in first], 1 + 2 * r)
    v = v.transpose(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1, 2 * ndim + 2)
    batch, spatial = ([0], [0]), range(2, 2 + ndim)
    contract = ([*spatial, 2 + ndim], [*range(1 + ndim, 1 + 2 * ndim), 1 + 2 * ndim])
    return lax.dot_general(x, v, (contract, batch), precision=form.precision)
