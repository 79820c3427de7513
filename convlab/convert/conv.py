"""Conversion between a convolution and the freer rungs."""

from jaxtyping import Array, Float

from convlab import check
from convlab.convert.dense import lift_local_to_dense, project_dense_to_local
from convlab.convert.tiled import lift_tiled_to_local, project_local_to_tiled
from convlab.geometry import Space, Window, as_space


def lift_conv_to_local(v: Float[Array, "a b c d"], window: Window, space: Space) -> Float[Array, "i j a b c d"]:
    r"""Lift a convolution to a locally connected kernel: the same kernel everywhere, dead taps zero.

    $$V'_{ijabcd} = V_{abcd} \quad \text{where tap } (a, b) \text{ is live at } (i, j), \text{ else } 0$$

    Args:
      v: The kernel of a convolution (with groups, c counts the channels of one group).
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: `v` is not a kernel of this window, or the window fits nowhere on `space`.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> from jax import numpy as jnp
      >>> lift_conv_to_local(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 3, 3, 2, 7)
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    check.window(window).with_ndim(rank)
    check.taps("v", v.shape[:rank], window)
    return lift_tiled_to_local(v[(None,) * rank], window, space)


def project_local_to_conv(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, "a b c d"]:
    r"""Find the nearest convolution: the mean of each tap over the positions where it is live.

    $$V_{abcd} = \frac{1}{n(a, b)} \sum_{ij \,:\, (a, b) \text{ live}} V'_{ijabcd}$$

    Args:
      v: One kernel per output position.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Returns:
      The kernel, with zeros at taps that are live nowhere. n(a, b) is the number of positions where tap (a, b) is live,
      that is, reads a pixel. If several taps of a window read the same pixel, as under "REFLECT", the kernel is not this
      mean but that of the formula in `help(convlab.convert)`.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> from jax import numpy as jnp
      >>> project_local_to_conv(jnp.ones((4, 5, 3, 3, 2, 7)), Window(3), (4, 5)).shape
      (3, 3, 2, 7)
    """
    return project_local_to_tiled(v, window, space, 1)[(0,) * len(as_space(space))]


def lift_conv_to_dense(
    v: Float[Array, "a b c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "i j k l c d"]:
    r"""Write a convolution as a dense weight, which is the map E.

    $$W_{ijklcd} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{abcd}$$

    Arguments and errors are those of the two lifts that it composes.

    Example:
      >>> from jax import numpy as jnp
      >>> lift_conv_to_dense(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)).shape
      (4, 5, 4, 5, 2, 7)
    """
    return lift_local_to_dense(lift_conv_to_local(v, window, space), window, space, groups)


def project_dense_to_conv(
    w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1
) -> Float[Array, "a b c d"]:
    r"""Find the convolution nearest to a dense weight, $(E^\top E)^+ E^\top W$.

    It composes the projections to a local kernel and to a convolution, whose arguments and errors it has.

    Example:
      >>> from jax import numpy as jnp
      >>> project_dense_to_conv(jnp.ones((4, 5, 4, 5, 2, 7)), Window(3), (4, 5)).shape
      (3, 3, 2, 7)
    """
    return project_local_to_conv(project_dense_to_local(w, window, space, groups), window, space)
