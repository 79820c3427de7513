"""Locality of a dense weight if its units have no known positions, and a null model for it.

The units of a dense layer are exchangeable: unit (i, j) need not read the pixels around (i, j). These measures therefore find
each unit's patch wherever it is, instead of comparing with the window of a convolution.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.geometry import Size, Window, as_axes, as_integer
from convlab.measure.weights.shares import squares
from convlab.ops.pool import mean_pool


def best_patch_share(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"], size: Size) -> Float[Array, ""]:
    r"""Compute the share of the squared norm in the patch of each unit that holds the most of it.

    $$\sum_{ijd} \max_{kl} \sum_{abc} W_{ij,\,k+a,\,l+b,\,cd}^2 \,\Big/\, \sum_{ijklcd} W_{ijklcd}^2$$

    The best patch exceeds the average for random weights too, and more so the fewer inputs a unit has. Compare with the share
    after `shuffle_inputs`.

    Args:
      w: A dense weight, or the mask of its unpruned entries.
      size: The size of the patch in pixels, an int for all spatial axes or one for each.

    Returns:
      The share; nan for a weight of zeros.

    Raises:
      ValueError: `w` is not a dense weight, or the patch is larger than the image.

    Example:
      >>> w = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 5, 1, 1)  # one unit that reads pixels 0, 3 and 4
      >>> round(float(best_patch_share(w, 2)), 4)
      0.6667
    """
    w, ndim = _dense(w)
    energy = jnp.sum(squares(w), -2)
    size = as_axes("size", size, ndim)
    sums = math.prod(size) * mean_pool(energy, Window(size, padding="VALID"))
    best = jnp.max(sums, range(ndim, 2 * ndim))
    return jnp.sum(best) / jnp.sum(energy)


def mean_input_distance(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"]) -> Float[Array, ""]:
    r"""Compute the mean distance between inputs of the same unit after pruning.

    $$\sum_r |r| \, S(r) \,/\, \sum_r S(r), \qquad S(r) = \sum_{ijd} \#\{\text{pairs of inputs of } (i, j, d) \text{ at } r\}$$

    Inputs are nonzero weights. Two channels of one pixel are a pair at distance 0. Every pair counts once, so that units with
    many inputs have more weight.

    Args:
      w: A dense weight, or the mask of its unpruned entries.

    Returns:
      The mean Euclidean distance in pixels; nan if no unit has two inputs. If inputs are left at random, the expected value is
      `mean_input_distance(jnp.ones_like(w))`, whatever share of them is left.

    Raises:
      ValueError: `w` is not a dense weight.

    Example:
      >>> w = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 5, 1, 1)  # one unit that reads pixels 0, 3 and 4
      >>> round(float(mean_input_distance(w)), 4), round(float(mean_input_distance(jnp.ones_like(w))), 4)
      (2.6667, 2.0)

    Reference: Pellegrini and Biroli 2022, Neural network pruning denoises the features and makes local connectivity emerge
    in visual tasks. S is the histogram in their figures.
    """
    w, ndim = _dense(check.array("w", w) != 0)
    space = w.shape[ndim : 2 * ndim]
    counts = jnp.moveaxis(w.sum(-2), -1, ndim).reshape(-1, math.prod(space))
    pixels = jnp.stack(jnp.meshgrid(*map(jnp.arange, space), indexing="ij"), -1).reshape(-1, ndim)
    distance = jnp.linalg.norm((pixels[:, None] - pixels).astype(jnp.float32), axis=-1)
    total = jnp.sum(jnp.matmul(counts, distance, precision=jax.lax.Precision.HIGHEST) * counts)
    inputs = counts.sum(1)
    return total / jnp.sum(inputs * (inputs - 1))


def shuffle_inputs(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"], key: jax.Array, rounds: int = 20) -> Array:
    """Shuffle which units read each pixel, as a null model for locality.

    In every round, units are paired at random. Inputs that only one unit of a pair has are redistributed at random between the
    two, with their weights; each unit keeps its number of inputs. At pixels that both units read, they keep or swap their
    weights. So the number of inputs of each unit and the weights of each pixel are preserved, but not which pixels a unit
    reads together. A network that reads only the middle of its images is no more local than this null model.

    Args:
      w: A dense weight, or the mask of its unpruned entries.
      key: The random key for the pairs and the redistribution.
      rounds: The number of rounds. After about ten, the result is independent of the original assignment.

    Returns:
      The shuffled weight, in the shape of `w`.

    Raises:
      ValueError: `w` is not a dense weight.

    Example:
      >>> w = jnp.array([[1.0, 0.0, 3.0], [0.0, 5.0, 0.0]])[..., None, None]  # two units of three pixels
      >>> [int((shuffle_inputs(w, jax.random.key(0)) != 0)[unit].sum()) for unit in range(2)]
      [2, 1]

    Reference: Strona et al. 2014, A fast and unbiased procedure to randomize ecological binary matrices (the trades).
    """
    _, ndim = _dense(w)
    check.key("key", key)
    check.shape_fits("a key for each of the rounds", as_integer("rounds", rounds, least=0))
    units = jnp.moveaxis(jnp.asarray(w), -1, ndim)
    flat = units.reshape(math.prod(units.shape[: ndim + 1]), -1)
    flat, _ = jax.lax.scan(_trade, flat, jax.random.split(key, rounds))
    return jnp.moveaxis(flat.reshape(units.shape), ndim, -1)


def _trade(flat: Array, key: jax.Array) -> tuple[Array, None]:
    """Pair the units, which are the rows of weights, and exchange inputs within each pair."""
    pair_key, draw_key = jax.random.split(key)
    half = len(flat) // 2
    first, second = jax.random.permutation(pair_key, len(flat))[: 2 * half].reshape(2, half)
    x, y = flat[first], flat[second]
    draw = jax.random.uniform(draw_key, x.shape)
    exclusive = (x != 0) != (y != 0)  # exactly one of the two units has this input
    order = jnp.argsort(jnp.argsort(jnp.where(exclusive, draw, 2.0)))
    to_first = jnp.where(exclusive, order < jnp.sum(exclusive & (x != 0), 1, keepdims=True), draw < 0.5)
    exchanged = jnp.where(x != 0, x, y)
    new_x = jnp.where(exclusive, jnp.where(to_first, exchanged, 0), jnp.where(to_first, x, y))
    new_y = jnp.where(exclusive, jnp.where(to_first, 0, exchanged), jnp.where(to_first, y, x))
    return flat.at[first].set(new_x.astype(flat.dtype)).at[second].set(new_y.astype(flat.dtype)), None


def _dense(w: Array) -> tuple[Array, int]:
    """Return the weight in a floating or complex dtype, and its number of spatial axes."""
    weight = check.array("w", w)
    return check.kernel("w", weight.astype(jnp.float32) if weight.dtype == bool else weight, spatial=2, others="c d")
