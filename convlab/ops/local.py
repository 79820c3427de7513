"""The locally connected layer: locality without weight sharing."""

from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window
from convlab.kernels.form import Form
from convlab.kernels.trilinear import windowed


def locally_connected(
    x: Float[Array, "*n k l c"],
    v: Float[Array, "i j a b c d"],
    window: Window | None = None,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply a separate kernel at every output position: a dense layer after locality only.

    $$H_{ijd} = \sum_{abc} V_{ijabcd} \, X_{i+a,\,j+b,\,c}$$

    Args:
      x: The images, with any number of leading batch axes.
      v: The kernels, one per output position. With groups, c counts the input channels of one group.
      window: The pixels that each position reads. `i + a` stands for the pixel that tap a of output i reads: s*i + dilation*a -
        low, see `Window`. If None, the window has the size of the kernel, stride 1 and padding "SAME".
      groups: The number of groups of channels. Each group of output channels reads its own group of input channels.
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      implementation: The name of an algorithm: "blocks" (a few positions at a time, with little memory), "windows" (all
        positions at once), or "auto" (the one that was measured faster for this platform and batch size). All agree up to
        rounding.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, the channels disagree, or `implementation`
        is unknown.
      TypeError: `x` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> locally_connected(jnp.ones((4, 5, 2)), jnp.ones((4, 5, 3, 3, 2, 7)), Window(3)).shape
      (4, 5, 7)

    Reference: Zhang et al., Dive into Deep Learning, section 7.1.2.
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    x, space = check.images(x, ndim, f"v of shape {v.shape} has {ndim} spatial axes")
    window = check.window_of("v", v.shape[ndim : 2 * ndim], window)
    axes = window.axes(space)
    check.positions("v", v.shape[:ndim], window, space)
    check.channels(x, "v", v, groups)
    check.options(precision, preferred_element_type)
    check.output_fits(x, axes, v.shape[-1])
    x, v = check.promote(x, v)
    return windowed(x, v, Form("local", axes, implementation, precision), groups, preferred_element_type)
