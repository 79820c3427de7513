"""XLA's convolution, and gradients of it in the layout of XLA's fast path on CPU.

JAX's gradients of a convolution have another order of axes. XLA corrects the order in a plain jitted step. On CPU it does not
correct it inside a loop, where the gradients then run 20 to 100 times slower. A convolution under `vmap` becomes a grouped
convolution, which has no fast path on CPU and a still slower gradient. A loop over the groups replaces it.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.geometry import Axis
from convlab.kernels.form import Form, Product, closed, mirrored


def grouped(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Convolve with XLA's convolution, with the stack as groups of channels."""
    s = len(x)
    x, v = (jnp.moveaxis(array, 0, -2) for array in (x, v))
    x, v = (array.reshape(*array.shape[:-2], s * array.shape[-1]) for array in (x, v))
    h = _convolve(x, v, form, groups=s)
    return jnp.moveaxis(h.reshape(*h.shape[:-1], s, h.shape[-1] // s), -2, 0)


def _stack(product: Product, p: Array, q: Array, form: Form) -> Array:
    """Compute a product for one element of the stack at a time."""
    if len(p) == 1:
        return product(p[0], q[0], form)[None]
    return lax.map(lambda pair: product(pair[0], pair[1], form), (p, q))


def h(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Convolve images with kernels."""
    return _stack(_convolve, x, v, form)


def gradient_x(v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s n *pixels c"]:
    """Convolve the cotangent, dilated by the stride, with the flipped kernel."""
    return _stack(_x, v, g, form)


def gradient_v(x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel c d"]:
    """Convolve the image with the cotangent, with channels and batch exchanged."""
    return _stack(_v, x, g, form)


PRODUCTS = {"h": h, "x": gradient_x, "v": gradient_v}


def _convolve(x: Array, v: Array, form: Form, x_dilation: Sequence[int] | None = None, groups: int = 1) -> Array:
    """Convolve one element of the stack, with pixels `x_dilation` apart and zeros between them."""
    return lax.conv_general_dilated(
        x,
        v,
        window_strides=[axis.stride for axis in form.axes],
        padding=[(axis.low, axis.high) for axis in form.axes],
        lhs_dilation=x_dilation,
        rhs_dilation=[axis.dilation for axis in form.axes],
        dimension_numbers=dimension_numbers(form.ndim),
        feature_group_count=groups,
        precision=form.precision,
    )


def dimension_numbers(ndim: int) -> lax.ConvDimensionNumbers:
    """Return the order of axes of XLA's fast path: images (n, *pixels, c), kernels (*window, c, d)."""
    images, kernel = (0, ndim + 1, *range(1, ndim + 1)), (ndim + 1, ndim, *range(ndim))
    return lax.ConvDimensionNumbers(images, kernel, images)


def _x(v: Array, g: Array, form: Form) -> Array:
    flipped = jnp.swapaxes(jnp.flip(v, range(form.ndim)), -1, -2)
    return _convolve(g, flipped, form.with_axes(map(mirrored, form.axes)), x_dilation=[axis.stride for axis in form.axes])


def _v(x: Array, g: Array, form: Form) -> Array:
    v = _convolve(jnp.swapaxes(x, 0, -1), jnp.moveaxis(g, 0, -2), form.with_axes(map(_swapped, form.axes)))
    return jnp.moveaxis(v, 0, -2)


def _swapped(axis: Axis) -> Axis:
    """Return the axis with outputs and taps exchanged."""
    return closed(axis._replace(outputs=axis.size, size=axis.outputs, stride=axis.dilation, dilation=axis.stride))
