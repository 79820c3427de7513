"""Linear teachers at every rung of the ladder: the target is the output of one layer, with noise."""

import math
from collections.abc import Callable

import jax
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import Size, Space, Window, as_axes, as_integer, as_space
from convlab.ops.conv import conv
from convlab.ops.dense import dense
from convlab.ops.local import locally_connected
from convlab.ops.low_rank import low_rank
from convlab.ops.tiled import tiled
from convlab.tasks.task import Task, deviation, one_by_one

RUNGS = ("dense", "locally_connected", "tiled", "low_rank", "conv")


def linear_teacher(
    rung: str,
    space: Space,
    window: Window,
    channels: tuple[int, int],
    noise: float,
    key: PRNGKeyArray,
    *,
    period: Size = 2,
    rank: int = 2,
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
      rung: "dense", "locally_connected", "tiled", "low_rank" or "conv".
      space: Pixels along each axis.
      window: Where each target reads; of "dense" it says at which positions targets are.
      channels: Of images and of targets.
      noise: sigma.
      key: Draws the layer.
      period: Of "tiled".
      rank: Of "low_rank".

    Raises:
      ValueError: An unknown rung, the window fits nowhere, a count below 1, a period beyond the positions, or a negative noise.

    Example:
      >>> x, y = linear_teacher("conv", (7,), Window(3), (2, 5), 0.1, jax.random.key(0)).sample(jax.random.key(1), 3)
      >>> x.shape, y.shape
      ((3, 7, 2), (3, 7, 5))

    Reference: of the risk, Breiman and Freedman 1983, How many variables should be entered in a regression equation?
    """
    if rung not in RUNGS:
        raise ValueError(f"rung {rung!r} is unknown; needs one of {', '.join(RUNGS)}")
    space, window = as_space(space), window.of_rank(len(as_space(space)))
    c, d = (as_integer("channels", count) for count in channels)
    tiles, r, sigma = as_axes("period", period, len(space)), as_integer("rank", rank), deviation(noise)
    if rung == "tiled":
        check.period(tiles, window, space)
    layer = _layer(rung, space, window, (c, d), key, tiles, r)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        first, second = jax.random.split(key)
        return jax.random.normal(first, (*space, c)), jax.random.normal(second, (*window.output_shape(space), d))

    def sample(key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
        x, rest = one_by_one(draw)(key, n)
        return x, layer(x) + sigma * rest

    return Task(f"linear teacher, {rung}", (*space, c), (), sample)


def _layer(
    rung: str,
    space: tuple[int, ...],
    window: Window,
    channels: tuple[int, int],
    key: PRNGKeyArray,
    tiles: tuple[int, ...],
    rank: int,
) -> Callable[[Array], Array]:
    """A layer with Gaussian weights, as a function of images."""
    taps, out = window.taps(len(space)), window.output_shape(space)

    def drawn(*shape: int, reads: int, key: PRNGKeyArray = key) -> Array:
        return jax.random.normal(key, (*shape, *channels)) / math.sqrt(reads * channels[0])

    many = math.prod(taps)
    if rung == "dense":
        w = drawn(*out, *space, reads=math.prod(space))
        return lambda x: dense(x, w)
    if rung == "low_rank":
        mixing, rest = jax.random.split(key)
        basis, mixture = drawn(rank, *taps, reads=many, key=rest), jax.random.normal(mixing, (*out, rank)) / math.sqrt(rank)
        return lambda x: low_rank(x, basis, mixture, window)
    if rung == "tiled":
        v = drawn(*tiles, *taps, reads=many)
        return lambda x: tiled(x, v, window)
    if rung == "locally_connected":
        v = drawn(*out, *taps, reads=many)
        return lambda x: locally_connected(x, v, window)
    v = drawn(*taps, reads=many)
    return lambda x: conv(x, v, window)
