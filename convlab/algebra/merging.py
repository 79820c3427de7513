"""A batch norm in evaluation, folded into the layer before it: one layer once training is over."""

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
    r"""Fold a batch norm in evaluation into the layer before it.

    $$V'_{abcd} = \alpha_d V_{abcd}, \qquad u'_d = \alpha_d (u_d - \mu_d) + \beta_d,
      \qquad \alpha_d = \gamma_d / \sqrt{\sigma_d^2 + \epsilon}$$

    Args:
      v: Weights of any rung, output channels last (of "low_rank" the basis).
      bias: Of the layer, per channel or per position and channel; None for zeros.
      mean: Running mean of each channel.
      variance: Running variance.
      scale: What the normalised channel is multiplied with; None for ones.
      shift: What is then added; None for zeros.
      epsilon: Added to the variance.

    Returns:
      v: The weights.
      bias: The bias.

    Raises:
      ValueError: The statistics or the bias are not of d channels, or a variance that is known is with `epsilon` not above 0.
      TypeError: `v` is not floating.

    Example:
      >>> one = jnp.ones(1)
      >>> v, bias = merge_batch_norm(jnp.ones((3, 3, 2, 1)), None, 2 * one, 4 * one, epsilon=0.0)
      >>> float(v[0, 0, 0, 0]), bias
      (0.5, Array([-1.], dtype=float32))

    Reference: Ioffe and Szegedy 2015, Batch normalization, algorithm 2.
    """
    v = check.floating("v", v)
    for name, each in {"mean": mean, "variance": variance, "scale": scale, "shift": shift}.items():
        if each is not None:
            check.agree(f"{name} has shape {{}}", jnp.shape(each), "v returns {} channels", v.shape[-1:])
    if bias is not None:
        check.agree("bias has {} channels", jnp.shape(bias)[-1:], "v returns {}", v.shape[-1:])
    square = jnp.asarray(variance) + epsilon
    if check.is_known(square) and not bool(jnp.all(square > 0)):
        raise ValueError(f"variance and epsilon are together down to {square.min()}; need to be above 0, to divide by the root")
    alpha = (1 if scale is None else jnp.asarray(scale)) / jnp.sqrt(square)
    merged = alpha * ((0 if bias is None else jnp.asarray(bias)) - mean) + (0 if shift is None else shift)
    return v * alpha, merged
