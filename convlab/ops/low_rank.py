"""Between local and shared: every position mixes the same few kernels in its own proportions."""

import math

import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window
from convlab.kernels.form import Form
from convlab.kernels.table import CONV
from convlab.kernels.trilinear import windowed


def low_rank(
    x: Float[Array, "*n k l c"],
    basis: Float[Array, "r a b c d"],
    weights: Float[Array, "i j r"],
    window: Window,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply at every position its own mixture of r shared kernels; r = 1 with constant weights is a convolution.

    $$H_{ijd} = \sum_r w_{ijr} \sum_{abc} U_{rabcd} \, X_{i+a,\,j+b,\,c}$$

    The sum over r may run first (a mixed kernel per position, each then used once per image) or last (r convolutions, then
    their mixture). The first has r times less arithmetic and wins unless the kernels outgrow the images.

    Args:
      x: Images, any number of leading batch axes.
      basis: The shared kernels U.
      weights: The proportions w of each position.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: "kernels" (sum first), "outputs" (sum last), the name of an implementation of `conv` (sum last, with
        convolutions computed so), or "auto": the one measured faster for so many images. They agree to rounding.

    Raises:
      ValueError: `basis` or `weights` does not fit the window, the positions, each other, or the channels of `x`; or an
        unknown implementation.
      TypeError: An array is not floating.

    Example:
      >>> low_rank(jnp.ones((4, 5, 2)), jnp.ones((6, 3, 3, 2, 7)), jnp.ones((4, 5, 6)), Window(3)).shape
      (4, 5, 7)

    Reference: Elsayed et al. 2020, Revisiting spatial invariance with low-rank local connectivity.
    """
    basis, rank = check.kernel("basis", basis, spatial=1, others="r c d")
    x, space = check.images(x, rank, f"basis of shape {basis.shape} reads {rank} of them")
    axes = check.lay(window, space)
    check.taps("basis", basis.shape[1 : 1 + rank], window)
    check.channels(x, "basis", basis)
    weights = check.floating("weights", weights)
    check.positions("weights", weights.shape[:-1], window, space)
    check.agree("weights mixes {} kernels", weights.shape[-1:], "basis holds {}", basis.shape[:1])
    x, basis, weights = check.promote(x, basis, weights)

    known = ("auto", "kernels", "outputs", *CONV)
    if implementation not in known:
        raise ValueError(f"implementation {implementation!r} is unknown; needs one of {', '.join(map(repr, known))}")
    if implementation == "auto":
        images = math.prod(x.shape[: x.ndim - 1 - rank])
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
