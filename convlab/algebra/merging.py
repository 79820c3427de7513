"""Folding of a batch norm into the layer before it, for evaluation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check

Bias = Float[Array, "*out d"] | None


def merge_batch_norm(
    v: Float[Array, "*kernel d"],
    bias: Bias,
    mean: Float[Array, "d"],
    variance: Float[Array, "d"],
    *,
    scale: Float[Array, "d"] | None = None,
    shift: Float[Array, "d"] | None = None,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "*kernel d"], Float[Array, "*out d"]]:
    r"""Fold a batch norm in evaluation mode into the layer before it.

    $$V'_{abcd} = \alpha_d V_{abcd}, \qquad u'_d = \alpha_d (u_d - \mu_d) + \beta_d,
      \qquad \alpha_d = \gamma_d / \sqrt{\sigma_d^2 + \epsilon}$$

    Args:
      v: The weights of a layer of any rung, with output channels last. For a low-rank layer, the basis.
      bias: The layer's bias u, per channel or per position and channel. If None, zeros.
      mean: The running mean of each channel.
      variance: The running variance of each channel.
      scale: The factor gamma of each normalised channel. If None, ones.
      shift: The term beta that is added to each channel. If None, zeros.
      epsilon: The number that is added to the variance.

    Returns:
      v: The weights of the merged layer.
      bias: The bias of the merged layer.

    Raises:
      ValueError: The statistics or the bias do not have d channels, or `variance + epsilon` is not positive. Tracers are not
        checked.
      TypeError: `v` is not floating.

    Example:
      >>> one = jnp.ones(1)
      >>> v, bias = merge_batch_norm(jnp.ones((3, 3, 2, 1)), None, 2 * one, 4 * one, epsilon=0.0)
      >>> float(v[0, 0, 0, 0]), bias
      (0.5, Array([-1.], dtype=float32))

    Reference: Ioffe and Szegedy 2015, Batch normalization, algorithm 2.
    """
    v = check.floating("v", v)
    epsilon = check.number("epsilon", epsilon)
    for name, value in {
        "mean": check.array("mean", mean),
        "variance": check.array("variance", variance),
        "scale": scale,
        "shift": shift,
    }.items():
        if value is not None:
            check.equal_shapes(f"{name} has shape {{}}", check.array(name, value).shape, "v returns {} channels", v.shape[-1:])
    if bias is not None:
        check.equal_shapes("bias has {} channels", check.array("bias", bias).shape[-1:], "v returns {}", v.shape[-1:])
    square = jnp.asarray(variance) + epsilon
    if check.is_concrete(square) and not bool(jnp.all(square > 0)):
        raise ValueError(
            f"variance + epsilon is as low as {square.min()}; needs positive numbers, whose root can be divided by"
        )
    alpha = (1 if scale is None else jnp.asarray(scale)) / jnp.sqrt(square)
    merged = alpha * ((0 if bias is None else jnp.asarray(bias)) - mean) + (0 if shift is None else shift)
    return v * alpha, merged
