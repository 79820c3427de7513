"""Windows that are gathered first and then multiplied in large matrix products.

The layers gather all windows at once, which copies the image k x k times. The gradient of a shared kernel, which sums over all
images, gathers the windows of a few images at a time, with taps before images. Gathering then copies rows of pixels, and both
operands of the product are in the cache.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab.kernels.form import Form, by_position, known_sizes, proxy
from convlab.unfold import extend, taps, windows

BYTES = 2**22  # the size of the windows that are gathered at a time
FEW = 16  # the most images for which windows with images last were measured faster in gradients of local layers


def local(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Multiply every position's windows by its kernel."""
    h = jnp.einsum("ina,iad->ind", _gathered(x, form), by_position(v, form), precision=form.precision)
    return jnp.moveaxis(h.reshape(len(x), *form.outputs, *h.shape[1:]), 1 + form.ndim, 1)


def local_gradient_x(
    v: Float[Array, "s *kernel c d"], g: Float[Array, "s n *out d"], form: Form
) -> Float[Array, "s n *pixels c"]:
    """Multiply every position's cotangents by its kernel, and add the products at each pixel."""
    unknown, few = proxy(form, "x", v, g), _few("x", v, g)
    kernels, g = by_position(v, form), by_position(jnp.moveaxis(g, 1, 1 + form.ndim), form)
    if few:
        p = jnp.einsum("iad,ind->ian", kernels, g, precision=form.precision)
    else:
        p = jnp.einsum("ind,iad->ina", g, kernels, precision=form.precision)
    return jax.linear_transpose(lambda x: _gathered(x, form, few), unknown)(p)[0]


def local_gradient_v(
    x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form
) -> Float[Array, "s *kernel c d"]:
    """Multiply every position's windows by its cotangents."""
    few = _few("v", x, g)
    p, g_by_position = _gathered(x, form, few), by_position(jnp.moveaxis(g, 1, 1 + form.ndim), form)
    v = jnp.einsum("ian,ind->iad" if few else "ina,ind->iad", p, g_by_position, precision=form.precision)
    return v.reshape(form.shape("v", x, g))


LOCAL = {"h": local, "x": local_gradient_x, "v": local_gradient_v}


def _few(wrt: str, p: Array, q: Array) -> bool:
    """Return True if there are so few images that gradients should not transpose the kernels."""
    return known_sizes(wrt, p, q)["n"] <= FEW


def _gathered(x: Float[Array, "s n *pixels c"], form: Form, images_last: bool = False) -> Array:
    """Gather windows by position: (i, n, a), or (i, a, n) with images last.

    The letter a stands for taps and channels.
    """
    p = windows(jnp.moveaxis(x, 1, -1 if images_last else 1 + form.ndim), form.axes, 1, after=2 if images_last else 1)
    size = math.prod(form.taps) * x.shape[-1]
    return p.reshape(-1, *((size, x.shape[1]) if images_last else (x.shape[1], size)))


def conv(x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form) -> Float[Array, "s n *out d"]:
    """Multiply all windows by the shared kernel."""
    p = windows(x, form.axes, 2)
    out = p.shape[: 2 + form.ndim]
    h = jnp.einsum(
        "sia,sad->sid", p.reshape(out[0], math.prod(out[1:]), -1), v.reshape(len(v), -1, v.shape[-1]), precision=form.precision
    )
    return h.reshape(*out, -1)


def gradient_v(x: Float[Array, "s n *pixels c"], g: Float[Array, "s n *out d"], form: Form) -> Float[Array, "s *kernel c d"]:
    """Multiply the windows of a few images at a time by their cotangents."""
    size, outputs = math.prod(form.taps), math.prod(form.outputs)
    s, n, c, d = *x.shape[:2], x.shape[-1], g.shape[-1]
    few = 1
    if isinstance(n, int):  # a symbolic batch has no known divisors
        image_bytes = s * size * outputs * c * x.dtype.itemsize
        few = max(m for m in range(1, n + 1) if n % m == 0 and (m == 1 or m * image_bytes <= BYTES))
    x, g = jnp.moveaxis(extend(x, form.axes, 2), -1, 1), g.reshape(s, n, outputs, d)

    def add(m: Array | int, v: Array) -> Array:
        p = lax.dynamic_slice_in_dim(x, m * few, few, 2)
        for r, axis in enumerate(form.axes):
            p = jnp.stack(list(taps(p, axis, 3 + 2 * r)), 1 + r)
        p = lax.optimization_barrier(p.reshape(s, size * c, few * outputs))
        part = lax.dynamic_slice_in_dim(g, m * few, few, 1).reshape(s, few * outputs, d)
        return v + jnp.einsum("sam,smd->sad", p, part, precision=form.precision, preferred_element_type=v.dtype)

    total = jnp.zeros_like(g, shape=(s, size * c, d), dtype=jnp.promote_types(g.dtype, jnp.float32))  # many small terms
    return lax.fori_loop(0, n // few, add, total).astype(g.dtype).reshape(s, *form.taps, c, d)
