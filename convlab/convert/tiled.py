"""Conversion between tiled and locally connected kernels."""

from jaxtyping import Array, Float

from convlab import check
from convlab.convert.period import nearest, repeat, zero_dead_taps
from convlab.geometry import Size, Space, Window, as_axes, as_space


def lift_tiled_to_local(
    v: Float[Array, "p q a b c d"], window: Window, space: Space, period: Size | None = None
) -> Float[Array, "i j a b c d"]:
    r"""Lift a tiled kernel to a locally connected kernel, with dead taps set to zero.

    $$V'_{ijabcd} = V_{i \bmod p,\, j \bmod q,\, abcd} \quad \text{where } (a, b) \text{ is live at } (i, j), \text{ else } 0$$

    Args:
      v: One kernel per place in the tile.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      period: The period along each axis. If None, that of `v`.

    Raises:
      ValueError: `v` does not hold kernels of this window and period.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> from jax import numpy as jnp
      >>> lift_tiled_to_local(jnp.ones((2, 2, 3, 3, 1, 7)), Window(3), (4, 5), 2).shape
      (4, 5, 3, 3, 1, 7)
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    if period is not None:
        check.equal_shapes("v holds tiles of {} kernels", v.shape[:rank], "period is {}", as_axes("period", period, rank))
    check.taps("v", v.shape[rank : 2 * rank], window)
    return zero_dead_taps(repeat(v, window.output_shape(space)), window, space)


def project_local_to_tiled(
    v: Float[Array, "i j a b c d"], window: Window, space: Space, period: Size
) -> Float[Array, "p q a b c d"]:
    r"""Find the nearest tiled kernel: means over the live positions of each place in the tile.

    $$V_{tsabcd} = \frac{1}{n_{ts}(a, b)} \sum_{ij \,:\, i \bmod p = t,\; j \bmod q = s,\; (a, b) \text{ live}} V'_{ijabcd}$$

    Here $n_{ts}(a, b)$ is the number of terms. If several taps of a window read the same pixel, as under "REFLECT", the
    kernel is that of the formula in `help(convlab.convert)`.

    Args:
      v: One kernel per output position.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      period: Positions along each side of the tile: an int, or one per axis.

    Returns:
      One kernel per place in the tile; taps that are live nowhere are zero.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or a period exceeds the positions.
      TypeError: `v` is neither floating nor complex, or `period` is not an integer.

    Example:
      >>> from jax import numpy as jnp
      >>> project_local_to_tiled(jnp.ones((4, 5, 3, 3, 1, 7)), Window(3), (4, 5), 2).shape
      (2, 2, 3, 3, 1, 7)
    """
    v = local_kernel(v, window, space)
    period = as_axes("period", period, len(as_space(space)))
    check.period(period, window, space)
    return nearest(v, window, space, period)


def local_kernel(v: Array, window: Window, space: Space) -> Array:
    """Check a locally connected kernel and return it as an array.

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.
      TypeError: `v` is neither floating nor complex.
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:rank], window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    return v
