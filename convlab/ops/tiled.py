"""The tiled layer, between local and shared: kernels that repeat every few positions."""

from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window
from convlab.kernels.form import Form
from convlab.kernels.trilinear import windowed


def tiled(
    x: Float[Array, "*n k l c"],
    v: Float[Array, "p q a b c d"],
    window: Window | None = None,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply kernels that repeat with period (p, q): untied inside a tile, shared between tiles.

    $$H_{ijd} = \sum_{abc} V_{i \bmod p,\, j \bmod q,\, abcd} \, X_{i+a,\,j+b,\,c}$$

    Each of the p*q kernels is a convolution at every p-th and q-th position, so the arithmetic is that of one convolution.

    Args:
      x: The images, with any number of leading batch axes.
      v: The kernels, one per position of a tile. The first axes are the period.
      window: The pixels that each position reads. `i + a` stands for the pixel that tap a of output i reads: s*i + dilation*a -
        low, see `Window`. If None, the window has the size of the kernel, stride 1 and padding "SAME".
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      implementation: The implementation of the convolutions, as in `conv`.

    Raises:
      ValueError: `v` does not hold kernels of this window, its period exceeds the positions, the channels disagree, or
        `implementation` is unknown.
      TypeError: `x` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> tiled(jnp.ones((4, 5, 2)), jnp.ones((2, 2, 3, 3, 2, 7)), Window(3)).shape
      (4, 5, 7)

    Reference: Le et al. 2010, Tiled convolutional neural networks.
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    x, space = check.images(x, ndim, f"v of shape {v.shape} has {ndim} spatial axes")
    window = check.window_of("v", v.shape[ndim : 2 * ndim], window)
    axes = window.axes(space)
    check.period(v.shape[:ndim], window, space)
    check.channels(x, "v", v)
    check.options(precision, preferred_element_type)
    check.output_fits(x, axes, v.shape[-1])
    x, v = check.promote(x, v)
    return windowed(x, v, Form("tiled", axes, implementation, precision, v.shape[:ndim]), dtype=preferred_element_type)
