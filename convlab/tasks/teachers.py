"""Linear teachers at every rung: the target is the output of one layer plus noise."""

import math
from typing import Any

import jax
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import Space, Window, as_integer, as_space
from convlab.rungs import Layout, make_tying
from convlab.tasks.task import Task, check_noise, make_sampler


def linear_teacher(
    rung: str,
    space: Space,
    window: Window,
    channels: tuple[int, int],
    noise: float,
    key: PRNGKeyArray,
    **parameters: Any,
) -> Task:
    r"""Make a regression task whose targets are the outputs of a random linear layer of one rung.

    $$Y = A X + \sigma \epsilon, \qquad X, \epsilon \sim N(0, 1)$$

    An image X is Gaussian noise. The target Y is the output of a layer A of the rung for this image, plus noise. The layer has
    Gaussian weights, drawn once, and no bias. On average over layers, a target has a variance of 1, except where taps read
    padding. In a single layer with few weights, the variances of targets differ widely.

    Symmetries: Those of A. If A is a convolution on a torus, a shift of the image shifts the target by the same pixels. If A is
    a tiled layer, this holds for shifts by its period.

    Predicted risk: Suppose that a rung contains the teacher and has w separate weights per target. These are all pixels for a
    dense layer, and one window for a locally connected layer. The risk of least squares with n examples is then
    $\sigma^2 w / (n - w - 1)$ per target. For a convolution, whose weights all positions share, it is smaller by a factor of
    about the number of positions. If a rung does not contain the teacher, an error remains for any n.

    Args:
      rung: A name in `convlab.rungs.RUNGS`.
      space: The number of input pixels along each spatial axis.
      window: The pixels that each target reads. For "dense", it only fixes the positions of the targets.
      channels: The numbers of channels of images and of targets.
      noise: The standard deviation sigma of the noise.
      key: The key of the layer's weights.
      **parameters: The parameters of all rungs, `period` and `rank`, 2 by default. The rung uses those that it has.

    Raises:
      ValueError: `rung` is unknown, the window fits nowhere, a count is below 1, the period exceeds the positions, or `noise`
        is negative or not finite.

    Example:
      >>> x, y = linear_teacher("conv", (7,), Window(3), (2, 5), 0.1, jax.random.key(0)).sample(jax.random.key(1), 3)
      >>> x.shape, y.shape
      ((3, 7, 2), (3, 7, 5))

    Reference: Breiman and Freedman 1983, How many variables should be entered in a regression equation?, for the risk.
    """
    space, window = as_space(space), check.window(window).with_ndim(len(as_space(space)))
    pair = check.sequence("channels", channels, "the numbers of channels of images and targets")
    if len(pair) != 2:
        raise ValueError(f"channels must be two numbers, of images and of targets; got {len(pair)}")
    c, d = (as_integer("channels", count) for count in pair)
    check.shape_fits("targets on space", *window.output_shape(space), d)
    sigma = check_noise(noise)
    layout = Layout(make_tying(rung, **parameters), window, c, d, space, use_bias=False)
    check.fits_in_memory({"the layer of rung": _shapes(layout)})
    arrays = _arrays(layout, check.key("key", key))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        image_key, noise_key = jax.random.split(key)
        return jax.random.normal(image_key, (*space, c)), jax.random.normal(noise_key, (*window.output_shape(space), d))

    def sample(key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
        x, epsilon = make_sampler(draw)(key, n)
        return x, layout.forward(x, arrays, None) + sigma * epsilon

    return Task(f"linear teacher, {rung}", (*space, c), (), sample)


def _shapes(layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, float) for name, shape in layout.tying.shapes(layout).items()}


def _arrays(layout: Layout, key: PRNGKeyArray) -> dict[str, Array]:
    """Draw Gaussian arrays with the variance 1 / fan-in."""
    shapes, fan_in = layout.tying.shapes(layout), layout.tying.fan_in(layout)
    keys = [key] if len(shapes) == 1 else jax.random.split(key, len(shapes))
    keys = zip(reversed(shapes), keys, strict=True)  # the weights of a mixture first
    return {name: jax.random.normal(key, shapes[name]) / math.sqrt(fan_in[name]) for name, key in keys}
