"""Between local and shared: kernels that repeat every few positions."""

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
    window: Window,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply kernels that repeat with period (p, q): locally connected inside a tile, shared between tiles.

    $$H_{ijd} = \sum_{abc} V_{i \bmod p,\, j \bmod q,\, abcd} \, X_{i+a,\,j+b,\,c}$$

    Each of the p*q kernels convolves every p-th and q-th position, so the arithmetic is that of one convolution.

    Args:
      x: Images, any number of leading batch axes.
      v: One kernel per position in the tile; its first axes are the period.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: Of the convolutions, as in `conv`.

    Raises:
      ValueError: `v` does not hold kernels of this window, its period exceeds the positions, or channels disagree.
      TypeError: `x` or `v` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> tiled(jnp.ones((4, 5, 2)), jnp.ones((2, 2, 3, 3, 2, 7)), Window(3)).shape
      (4, 5, 7)

    Reference: Le et al. 2010, Tiled convolutional neural networks.
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    x, space = check.images(x, rank, f"v of shape {v.shape} reads {rank} of them")
    axes = check.lay(window, space)
    check.period(v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    check.channels(x, "v", v)
    x, v = check.promote(x, v)
    return windowed(x, v, Form("tiled", axes, implementation, precision, v.shape[:rank]), dtype=preferred_element_type)
