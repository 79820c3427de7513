"""Locality without sharing: every output position has a kernel of its own on a window of the image."""

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
    window: Window,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply its own kernel at every output position: the MLP after locality, before weight sharing.

    $$H_{ijd} = \sum_{abc} V_{ijabcd} \, X_{i+a,\,j+b,\,c}$$

    Args:
      x: Images, any number of leading batch axes.
      v: One kernel per output position; with groups, c counts the channels of one group.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      groups: Groups of channels that do not see each other; output channels are split alike.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: "blocks" (a few positions at a time; small memory), "windows" (all at once), or "auto": the one that was
        measured faster for this platform and batch. They agree to rounding.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, channels disagree, or an unknown
        implementation.
      TypeError: `x` or `v` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> locally_connected(jnp.ones((4, 5, 2)), jnp.ones((4, 5, 3, 3, 2, 7)), Window(3)).shape
      (4, 5, 7)

    Reference: Zhang et al., Dive into Deep Learning, section 7.1.2.
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    x, space = check.images(x, rank, f"v of shape {v.shape} reads {rank} of them")
    axes = check.lay(window, space)
    check.positions("v", v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    check.channels(x, "v", v, groups)
    x, v = check.promote(x, v)
    return windowed(x, v, Form("local", axes, implementation, precision), groups, preferred_element_type)
