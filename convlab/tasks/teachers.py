"""Linear teachers at every rung of the ladder: the target is the output of one layer, with noise."""

import math
from typing import Any

import jax
from jaxtyping import Array, PRNGKeyArray

from convlab.geometry import Space, Window, as_integer, as_space
from convlab.rungs import Layout, tying
from convlab.tasks.task import Task, deviation, one_by_one


def linear_teacher(
    rung: str,
    space: Space,
    window: Window,
    channels: tuple[int, int],
    noise: float,
    key: PRNGKeyArray,
    **parameters: Any,
) -> Task:
    r"""Targets that a layer of one rung makes of Gaussian images.

    $$Y = A X + \sigma \epsilon, \qquad X, \epsilon \sim N(0, 1)$$

    where A is a layer of the rung. Its weights are Gaussian and drawn once, so that a target has a variance of 1 on average
    over layers, but for taps on padding; of one layer with few weights the variances of targets are far apart.

    Symmetries: those of A: a convolution commutes with shifts around a torus, a tiled layer with shifts by its period.

    Predicted need for examples: least squares on a rung that holds the teacher has the risk $\sigma^2 w / (n - w - 1)$ a
    target, with w weights of its own for each (dense: all pixels; locally connected: a window); a convolution, whose weights
    all positions share, about as much less as there are positions. A rung that does not hold the teacher keeps an error.

    Args:
      rung: A name in `convlab.rungs.RUNGS`.
      space: Pixels along each axis.
      window: Where each target reads; of "dense" it says at which positions targets are.
      channels: Of images and of targets.
      noise: sigma.
      key: Draws the layer.
      **parameters: The parameters of all rungs, of which this one takes its own: `period` and `rank`, 2 by default.

    Raises:
      ValueError: An unknown rung, the window fits nowhere, a count below 1, a period beyond the positions, or a negative noise.

    Example:
      >>> x, y = linear_teacher("conv", (7,), Window(3), (2, 5), 0.1, jax.random.key(0)).sample(jax.random.key(1), 3)
      >>> x.shape, y.shape
      ((3, 7, 2), (3, 7, 5))

    Reference: of the risk, Breiman and Freedman 1983, How many variables should be entered in a regression equation?
    """
    space, window = as_space(space), window.of_rank(len(as_space(space)))
    c, d = (as_integer("channels", count) for count in channels)
    sigma = deviation(noise)
    layout = Layout(tying(rung, **parameters), window, c, d, space, use_bias=False)
    arrays = _arrays(layout, key)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        first, second = jax.random.split(key)
        return jax.random.normal(first, (*space, c)), jax.random.normal(second, (*window.output_shape(space), d))

    def sample(key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
        x, rest = one_by_one(draw)(key, n)
        return x, layout.forward(x, arrays, None) + sigma * rest

    return Task(f"linear teacher, {rung}", (*space, c), (), sample)


def _arrays(layout: Layout, key: PRNGKeyArray) -> dict[str, Array]:
    """Draw Gaussian arrays, every one with the variance that keeps that of what it sums."""
    shapes, terms = layout.tying.shapes(layout), layout.tying.fan_in(layout)
    keys = [key] if len(shapes) == 1 else jax.random.split(key, len(shapes))
    drawn = zip(reversed(shapes), keys, strict=True)  # the proportions of a mixture first
    return {name: jax.random.normal(key, shapes[name]) / math.sqrt(terms[name]) for name, key in drawn}
