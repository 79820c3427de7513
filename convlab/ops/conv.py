"""The convolution: one kernel for all output positions, hence locality and weight sharing."""

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
    window: Window | None = None,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply one kernel at every output position: a dense layer after locality and weight sharing.

    $$H_{ijd} = \sum_{abc} V_{abcd} \, X_{i+a,\,j+b,\,c}$$

    This is cross-correlation, as in every deep-learning library.

    Args:
      x: The images, with any number of leading batch axes.
      v: The kernel. With groups, c counts the input channels of one group.
      window: The pixels that each position reads. `i + a` stands for the pixel that tap a of output i reads: s*i + dilation*a -
        low, see `Window`. If None, the window has the size of the kernel, stride 1 and padding "SAME".
      groups: The number of groups of channels. Each group of output channels reads its own group of input channels.
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      implementation: The name of an algorithm. All agree up to rounding.

        - "lax": XLA's convolution.
        - "canonical": XLA's convolution, with gradients that are fast on CPU also in loops, under `vmap` and with groups.
        - "windows": All windows are gathered, then multiplied in one matrix product.
        - "depthwise": The shifted image is multiplied by one weight per channel for every tap. If a group has several input
          channels, "auto" is used.
        - "fft": The Fourier transforms are multiplied. This is fast for large kernels. The rounding error is relative to the
          largest output, and one infinite pixel makes its whole image NaN. So "auto" does not use it.
        - "toeplitz": The kernel is written as a dense matrix. If some position does not read every pixel, "auto" is used.
        - "auto": The algorithm that was measured fastest.

    Raises:
      ValueError: `v` is not a kernel of this window, the channels disagree, or `implementation` is unknown.
      TypeError: `x` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.ones((4, 5, 2)), jnp.ones((3, 3, 2, 7)), Window(3, strides=2)).shape
      (2, 3, 7)

    Reference: Zhang et al., Dive into Deep Learning, equation 7.1.3.
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    x, space = check.images(x, ndim, f"v of shape {v.shape} has {ndim} spatial axes")
    window = check.window_of("v", v.shape[:ndim], window)
    axes = window.axes(space)
    check.channels(x, "v", v, groups)
    check.options(precision, preferred_element_type)
    check.output_fits(x, axes, v.shape[-1])
    x, v = check.promote(x, v)
    return windowed(x, v, Form("conv", axes, implementation, precision), groups, preferred_element_type)
