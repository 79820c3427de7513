"""Shares of a dense weight: convolution, local, and the remainder."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab.convert.conv import lift_conv_to_dense, project_local_to_conv
from convlab.convert.dense import lift_local_to_dense, project_dense_to_local
from convlab.geometry import Space, Window


def decompose(w: Float[Array, "i j k l c d"], window: Window, space: Space, groups: int = 1) -> dict[str, Float[Array, ""]]:
    r"""Split the squared norm of a dense weight into shares of nested rungs.

    $$\text{shared} = \frac{\|Q W\|^2}{\|W\|^2}, \qquad \text{local} = \frac{\|P W - Q W\|^2}{\|W\|^2}, \qquad
      \text{rest} = \frac{\|W - P W\|^2}{\|W\|^2}$$

    P W is the nearest locally connected weight, and Q W the nearest convolution.

    Args:
      w: One weight per output position, pixel, input channel and output channel.
      window: The window that counts as local.
      space: The number of input pixels along each spatial axis.
      groups: The number of groups of channels. Weights between groups belong to the rest.

    Returns:
      "shared": share of the nearest convolution; "local": inside the windows but not shared; "rest": outside.
      They sum to 1 (nan for a zero weight). A Gaussian weight has shares equal to the ratios of the dimensions.

    Raises:
      ValueError: `w` has other output positions or pixels.
      TypeError: `w` is neither floating nor complex.

    Example:
      >>> shares = decompose(lift_conv_to_dense(jnp.ones((3, 3, 2, 7)), Window(3), (4, 5)), Window(3), (4, 5))
      >>> round(float(shares["shared"]), 5)
      1.0
    """
    v = project_dense_to_local(w, window, space, groups)
    local = lift_local_to_dense(v, window, space, groups)
    shared = lift_conv_to_dense(project_local_to_conv(v, window, space), window, space, groups)
    parts = {"shared": shared, "local": local - shared, "rest": w - local}
    squares = {name: jnp.real(jnp.vdot(part, part)) for name, part in parts.items()}
    return {name: square / sum(squares.values()) for name, square in squares.items()}
