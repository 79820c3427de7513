"""How much each pixel that can reach an output moves it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from convlab import check
from convlab.measure.receptive_field.pixels import Position, as_place, with_channels
from convlab.measure.trace import split


class Effective(NamedTuple):
    """What of the image an output listens to, on average.

    Attributes:
      map: Mean absolute, or squared, gradient by each pixel, scaled to a sum of 1.
      variance: Of the pixels' places under that weight, along each axis: the square of the field's effective radius.
    """

    map: Float[Array, "k l"]
    variance: Float[Array, "r"]


def effective_receptive_field(
    model: Any, images: Float[Array, "n k l c"], position: Position = None, *, squared: bool = False
) -> Effective:
    r"""Measure how much each pixel moves one output, averaged over images and channels.

    $$R_{kl} \propto \sum_{ncd} \Big| \frac{\partial H_{nijd}}{\partial X_{nklc}} \Big|$$

    Through n layers of k random taps the squared gradient has the variance n (k^2 - 1) / 12 along each axis: the effective
    radius grows with the root of the depth, where the field itself grows with the depth.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: What it is given.
      position: Of the output, an int where it has one axis; absent, the central one.
      squared: Weigh pixels by squared gradients rather than absolute ones.

    Raises:
      ValueError: No such position, an output without an axis of channels, or no pixel moves the output there.
      TypeError: The images are not floating.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.ops.conv import conv
      >>> x, v = jnp.zeros((1, 31, 1)), jnp.ones((3, 1, 1))
      >>> deep = lambda x: conv(conv(conv(x, v, Window(3)), v, Window(3)), v, Window(3))
      >>> float(effective_receptive_field(deep, x).variance[0])
      2.0

    Reference: Luo et al. 2016, Understanding the effective receptive field in deep convolutional neural networks, section 2.
    """
    images = check.floating("images", images)
    state, run = split(model)
    shape = with_channels(jax.eval_shape(run, state, images).shape)
    place = as_place(shape[1:-1], position, "the network's output")

    def channel(d: Array) -> Array:
        gradient = jax.grad(lambda x: jnp.sum(run(state, x)[:, *place, d]))(images)
        return jnp.sum(jnp.square(gradient) if squared else jnp.abs(gradient), (0, -1))

    weight = jnp.sum(jax.jit(lambda: lax.map(channel, jnp.arange(shape[-1])))(), 0)
    if not float(jnp.sum(weight)) > 0:
        raise ValueError(f"the gradient of the output at {place} is zero or not a number: no field can be weighed by it")
    weight = weight / jnp.sum(weight)
    return Effective(weight, jnp.stack([_variance(weight, axis) for axis in range(weight.ndim)]))


def _variance(weight: Array, axis: int) -> Array:
    along, places = jnp.sum(weight, [other for other in range(weight.ndim) if other != axis]), jnp.arange(weight.shape[axis])
    mean = jnp.sum(along * places)
    return jnp.sum(along * jnp.square(places - mean))
