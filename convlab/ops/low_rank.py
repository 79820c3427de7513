"""The low-rank layer, between local and shared: every position mixes the same few kernels."""

import math

import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import one_of
from convlab.geometry import Window
from convlab.kernels.form import BATCH, Form
from convlab.kernels.table import CONV
from convlab.kernels.trilinear import windowed


def low_rank(
    x: Float[Array, "*n k l c"],
    basis: Float[Array, "r a b c d"],
    weights: Float[Array, "i j r"],
    window: Window | None = None,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply a mixture of r shared kernels at every output position.

    $$H_{ijd} = \sum_r w_{ijr} \sum_{abc} U_{rabcd} \, X_{i+a,\,j+b,\,c}$$

    With r = 1 and constant weights this is a convolution.

    The sum over r can run first or last. If it runs first, every position gets a mixed kernel, which is used once per image. If
    it runs last, the outputs of r convolutions are mixed. The first order has r times less arithmetic. It is faster unless the
    mixed kernels are larger than the images.

    Args:
      x: The images, with any number of leading batch axes.
      basis: The shared kernels U.
      weights: The mixing weights w of each position.
      window: The pixels that each position reads. `i + a` stands for the pixel that tap a of output i reads: s*i + dilation*a -
        low, see `Window`. If None, the window has the size of the kernel, stride 1 and padding "SAME".
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      implementation: The name of an algorithm: "kernels" (the sum over r first), "outputs" (the sum last), an implementation
        of `conv` (the sum last, over convolutions of that implementation), or "auto" (the one that was measured faster for
        this number of images). All agree up to rounding.

    Raises:
      ValueError: `basis` or `weights` does not fit the window, the positions, each other or the channels of `x`, or
        `implementation` is unknown.
      TypeError: An array is neither floating nor complex.

    Example:
      >>> low_rank(jnp.ones((4, 5, 2)), jnp.ones((6, 3, 3, 2, 7)), jnp.ones((4, 5, 6)), Window(3)).shape
      (4, 5, 7)

    Reference: Elsayed et al. 2020, Revisiting spatial invariance with low-rank local connectivity.
    """
    basis, ndim = check.kernel("basis", basis, spatial=1, others="r c d")
    x, space = check.images(x, ndim, f"basis of shape {basis.shape} has {ndim} spatial axes")
    window = check.window_of("basis", basis.shape[1 : 1 + ndim], window)
    axes = window.axes(space)
    check.channels(x, "basis", basis)
    weights = check.inexact("weights", weights)
    check.positions("weights", weights.shape[:-1], window, space)
    check.equal_shapes("weights mixes {} kernels", weights.shape[-1:], "basis holds {}", basis.shape[:1])
    check.options(precision, preferred_element_type)
    check.output_fits(x, axes, basis.shape[-1])
    x, basis, weights = check.promote(x, basis, weights)

    one_of("implementation", implementation, ("auto", "kernels", "outputs", *CONV))
    if implementation == "auto":
        images = math.prod(size if isinstance(size, int) else BATCH for size in x.shape[: x.ndim - 1 - ndim])
        implementation = "kernels" if math.prod(basis.shape[1:-1]) <= 2 * images * basis.shape[0] else "outputs"
    if implementation == "kernels":
        v = jnp.tensordot(weights, basis, 1, precision=precision, preferred_element_type=preferred_element_type)
        return windowed(x, v, Form("local", axes, precision=precision), dtype=preferred_element_type)
    kernel = jnp.moveaxis(basis, 0, -2)
    kernel = kernel.reshape(*kernel.shape[:-2], -1)
    form = Form("conv", axes, "auto" if implementation == "outputs" else implementation, precision)
    h = windowed(x, kernel, form, dtype=preferred_element_type)
    h = h.reshape(*h.shape[:-1], basis.shape[0], basis.shape[-1])
    return jnp.einsum("...rd,...r->...d", h, weights.astype(h.dtype), precision=precision)
