"""The effective receptive field: how strongly each pixel affects an output."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab import check
from convlab.display import short_repr
from convlab.measure.receptive_field.pixels import Position, as_index, check_channels
from convlab.measure.trace import on_images, split_model


class EffectiveReceptiveField(NamedTuple):
    """The effective receptive field of an output.

    Attributes:
      map: The mean absolute or squared gradient with respect to each pixel, scaled to a sum of 1.
      variance: The variance of the pixel coordinates under these weights, along each axis. It is the square of the field's
        effective radius.
    """

    map: Float[Array, "k l"]
    variance: Float[Array, "r"]

    __repr__ = short_repr


def effective_receptive_field(
    model: Any, images: Float[Array, "n k l c"], position: Position = None, *, squared: bool = False
) -> EffectiveReceptiveField:
    r"""Measure how strongly each pixel affects one output, averaged over images and channels.

    $$R_{kl} \propto \sum_{ncd} \Big| \frac{\partial H_{nijd}}{\partial X_{nklc}} \Big|$$

    Through n layers of k random taps, the squared gradient has the variance n (k^2 - 1) / 12 along each axis. The effective
    radius therefore grows with the square root of the depth, but the receptive field grows with the depth.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: The network's input.
      position: The position of the output, an int if there is one axis. If None, the central position.
      squared: Whether to weight pixels by squared gradients instead of absolute ones.

    Raises:
      ValueError: The position does not exist, the output has no axis of channels, or no pixel affects the output there.
      TypeError: The images are not floating, or the output is complex.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.ops.conv import conv
      >>> x, v = jnp.zeros((1, 31, 1)), jnp.ones((3, 1, 1))
      >>> deep = lambda x: conv(conv(conv(x, v, Window(3)), v, Window(3)), v, Window(3))
      >>> float(effective_receptive_field(deep, x).variance[0])
      2.0

    Reference: Luo et al. 2016, Understanding the effective receptive field in deep convolutional neural networks, section 2.
    """
    images = check.image_batch("images", images)
    check.flag("squared", squared)
    state, run = split_model(model)
    output = on_images(images, jax.eval_shape, run, state, images)
    check.instance("the output of model", output, jax.ShapeDtypeStruct, "one array")
    check.real("the output of model", output)
    shape = check_channels(output.shape)
    index = as_index(shape[1:-1], position, "the network's output")

    def channel(d: Array) -> Array:
        gradient = jax.grad(lambda x: jnp.sum(run(state, x)[:, *index, d]))(images)
        return jnp.sum(jnp.square(gradient) if squared else jnp.abs(gradient), (0, -1))

    weights = jnp.sum(jax.jit(lambda: lax.map(channel, jnp.arange(shape[-1])))(), 0)
    if not float(jnp.sum(weights)) > 0:
        raise ValueError(
            f"the gradient of the output at {index} is zero or not a number; needs a positive sum to normalise the map"
        )
    weights = weights / jnp.sum(weights)
    return EffectiveReceptiveField(weights, jnp.stack([_variance(weights, axis) for axis in range(weights.ndim)]))


def _variance(weights: Array, axis: int) -> Array:
    marginal, coordinates = (
        jnp.sum(weights, [other for other in range(weights.ndim) if other != axis]),
        jnp.arange(weights.shape[axis]),
    )
    mean = jnp.sum(marginal * coordinates)
    return jnp.sum(marginal * jnp.square(coordinates - mean))
