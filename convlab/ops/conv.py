"""Locality and sharing: one kernel for every output position."""

from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window
from convlab.kernels.form import Form
from convlab.kernels.trilinear import windowed


def conv(
    x: Float[Array, "*n k l c"],
    v: Float[Array, "a b c d"],
    window: Window,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply one kernel at every output position: the MLP after locality and weight sharing.

    $$H_{ijd} = \sum_{abc} V_{abcd} \, X_{i+a,\,j+b,\,c}$$

    This is cross-correlation, as in every deep-learning library.

    Args:
      x: Images, any number of leading batch axes.
      v: The kernel; with groups, c counts the channels of one group.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      groups: Groups of channels that do not see each other; output channels are split alike.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: "lax" (XLA's convolution), "canonical" (the same, with gradients that are fast on CPU also in loops, under
        `vmap` and in groups), "windows" (all windows, then one matrix product), "toeplitz" (the dense matrix of the kernel;
        where not every position sees every pixel, as "auto"), or "auto": the one measured fastest. They agree to rounding.

    Raises:
      ValueError: `v` is not a kernel of this window, channels disagree, or an unknown implementation.
      TypeError: `x` or `v` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.ones((4, 5, 2)), jnp.ones((3, 3, 2, 7)), Window(3, strides=2)).shape
      (2, 3, 7)

    Reference: Zhang et al., Dive into Deep Learning, equation 7.1.3.
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    x, space = check.images(x, rank, f"v of shape {v.shape} reads {rank} of them")
    axes = check.lay(window, space)
    check.taps("v", v.shape[:rank], window)
    check.channels(x, "v", v, groups)
    x, v = check.promote(x, v)
    return windowed(x, v, Form("conv", axes, implementation, precision), groups, preferred_element_type)
