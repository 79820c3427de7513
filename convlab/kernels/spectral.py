"""A convolution as a product of Fourier transforms.

The time does not depend on the size of the kernel, so large kernels gain. Two properties of the other implementations are lost,
which is why no rule chooses this one. The rounding error is relative to the largest output, not to each output. One infinite
pixel makes all outputs of its image NaN.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from convlab.geometry import Axis
from convlab.kernels.form import Form

MOST_AXES = 3  # the most axes of XLA's Fourier transform


def applies(form: Form) -> bool:
    """Return True if XLA can transform all axes of a form."""
    return form.ndim <= MOST_AXES


def conv(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    r"""Multiply the transform of the images by that of the kernel with its taps in reverse order.

    $$h_i = y_{s i - p + r}, \qquad \hat y_f = \hat x_f \, \hat v_f$$

    Here r is the distance from the first tap to the last. The transform is long enough for nothing to wrap around.
    """
    dtype = jnp.result_type(x, v)
    compute = jnp.promote_types(dtype, jnp.float32)
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    there, back = (jnp.fft.fftn, jnp.fft.ifftn) if is_complex else (jnp.fft.rfftn, jnp.fft.irfftn)
    lengths, space = [_length(axis) for axis in form.axes], range(2, 2 + form.ndim)
    x_hat = there(x.astype(compute), lengths, space)
    v_hat = there(_reversed(v, form).astype(compute), lengths, range(1, 1 + form.ndim))
    frequencies = math.prod(x_hat.shape[2:-1])
    y_hat = jnp.einsum(
        "snfc,sfcd->snfd",
        x_hat.reshape(*x.shape[:2], frequencies, x.shape[-1]),
        v_hat.reshape(len(v), frequencies, *v.shape[-2:]),
        precision=form.precision,
    )
    y = back(y_hat.reshape(*x_hat.shape[:-1], v.shape[-1]), lengths, space)
    for number, axis, length in zip(space, form.axes, lengths, strict=True):
        y = jnp.take(y, (axis.stride * np.arange(axis.outputs) + _shift(axis)) % length, number, mode="clip")
    return y.astype(dtype)


def _shift(axis: Axis) -> int:
    """Return the index in the full convolution from which output 0 is taken."""
    return axis.dilation * (axis.size - 1) - axis.low


def _length(axis: Axis) -> int:
    """Return a length at which transforms are fast and the full convolution fits, with all outputs."""
    import scipy.fft  # here, since few use it and all import this module

    last = axis.stride * (axis.outputs - 1) + _shift(axis)
    full = axis.pixels + axis.dilation * (axis.size - 1)
    length: Any = scipy.fft.next_fast_len(max(full, last + 1) + max(-_shift(axis), 0), real=True)
    return length


def _reversed(v: Array, form: Form) -> Array:
    """Reverse the taps of kernels, with zeros between them where they are dilated."""
    pads = [(0, 0, axis.dilation - 1) for axis in form.axes]
    return lax.pad(jnp.flip(v, range(1, 1 + form.ndim)), jnp.zeros((), v.dtype), [(0, 0, 0), *pads, (0, 0, 0), (0, 0, 0)])
