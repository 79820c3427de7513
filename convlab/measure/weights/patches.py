r"""How local a dense weight has become where nobody says where its units look, and what to compare that with.

Units of a dense layer are exchangeable: nothing draws unit (i, j) to the pixels around (i, j), so that what it learns is seen
by the patch that holds most of a unit, wherever that is, and not by the window of a convolution.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.geometry import Size, Window, as_axes
from convlab.ops.pool import mean_pool


def patch_share(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"], size: Size) -> Float[Array, ""]:
    r"""Tell which share of the squared norm lies in one patch of every unit, the one that holds the most of it.

    $$\sum_{ijd} \max_{kl} \sum_{abc} W_{ij,\,k+a,\,l+b,\,cd}^2 \,\Big/\, \sum_{ijklcd} W_{ijklcd}^2$$

    The best patch is above average for random weights too, all the more the fewer inputs a unit has. Compare with the share
    after `shuffle_inputs`.

    Args:
      w: A dense weight, or which of its entries are left.
      size: Of the patch, in pixels, along all spatial axes or each.

    Returns:
      The share; nan for a weight of zeros.

    Raises:
      ValueError: `w` is not a dense weight, or the patch is larger than the image.

    Example:
      >>> w = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 5, 1, 1)  # one unit that reads pixels 0, 3 and 4
      >>> round(float(patch_share(w, 2)), 4)
      0.6667
    """
    w, rank = _dense(w)
    squares = jnp.sum(w * w, -2)
    size = as_axes("size", size, rank)
    held = math.prod(size) * mean_pool(squares, Window(size, padding="VALID"))
    best = jnp.max(held, range(rank, 2 * rank))
    return jnp.sum(best) / jnp.sum(squares)


def mean_distance(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"]) -> Float[Array, ""]:
    r"""Tell how far apart the inputs of a unit are that pruning has left: the mean over pairs of inputs of one unit.

    $$\sum_r |r| \, S(r) \,/\, \sum_r S(r), \qquad S(r) = \sum_{ijd} \#\{\text{pairs of inputs of } (i, j, d) \text{ at } r\}$$

    Inputs are weights that are not zero; two channels of one pixel are a pair at distance 0. Every pair counts once, so units
    with many inputs count for more.

    Args:
      w: A dense weight, or which of its entries are left.

    Returns:
      The mean Euclidean distance in pixels; nan where no unit has two inputs. The mean for inputs left at random is
      `mean_distance(jnp.ones_like(w))`, whatever share of them is left.

    Raises:
      ValueError: `w` is not a dense weight.

    Example:
      >>> w = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 5, 1, 1)  # one unit that reads pixels 0, 3 and 4
      >>> round(float(mean_distance(w)), 4), round(float(mean_distance(jnp.ones_like(w))), 4)
      (2.6667, 2.0)

    Reference: Pellegrini and Biroli 2022, Neural network pruning denoises the features and makes local connectivity emerge
    in visual tasks; S is the histogram that they draw.
    """
    w, rank = _dense(jnp.asarray(w) != 0)
    space = w.shape[rank : 2 * rank]
    counts = jnp.moveaxis(w.sum(-2), -1, rank).reshape(-1, math.prod(space))
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, space), indexing="ij"), -1).reshape(-1, rank)
    apart = jnp.linalg.norm((places[:, None] - places).astype(jnp.float32), axis=-1)
    distances = jnp.sum(jnp.matmul(counts, apart, precision=jax.lax.Precision.HIGHEST) * counts)
    inputs = counts.sum(1)
    return distances / jnp.sum(inputs * (inputs - 1))


def shuffle_inputs(w: Float[Array, "i j k l c d"] | Bool[Array, "i j k l c d"], key: jax.Array, rounds: int = 20) -> Array:
    """Deal the weights of every pixel to the units anew, at random: the null of whatever is local.

    In every round units trade in pairs: of the inputs that one of the two has, each gets as many as it had, with their weights,
    and at pixels that both read they keep or swap theirs. So how many inputs each unit has, and what weights each pixel has,
    stay as they are; which pixels one unit reads together does not. A network that reads the middle of its images, and no more,
    is as local as this.

    Args:
      w: A dense weight, or which of its entries are left.
      key: Draws who trades with whom, and what.
      rounds: How often every unit trades; from about ten on what it had is forgotten.

    Raises:
      ValueError: `w` is not a dense weight.

    Example:
      >>> w = jnp.array([[1.0, 0.0, 3.0], [0.0, 5.0, 0.0]])[..., None, None]  # two units of three pixels
      >>> [int((shuffle_inputs(w, jax.random.key(0)) != 0)[unit].sum()) for unit in range(2)]
      [2, 1]

    Reference: Strona et al. 2014, A fast and unbiased procedure to randomize ecological binary matrices (the trades).
    """
    _, rank = _dense(w)
    units = jnp.moveaxis(jnp.asarray(w), -1, rank)
    flat = units.reshape(math.prod(units.shape[: rank + 1]), -1)
    flat, _ = jax.lax.scan(_trade, flat, jax.random.split(key, rounds))
    return jnp.moveaxis(flat.reshape(units.shape), rank, -1)


def _trade(flat: Array, key: jax.Array) -> tuple[Array, None]:
    """Let every unit, a line of weights, trade with another one."""
    first, second = jax.random.split(key)
    half = len(flat) // 2
    ours, theirs = jax.random.permutation(first, len(flat))[: 2 * half].reshape(2, half)
    x, y = flat[ours], flat[theirs]
    draw = jax.random.uniform(second, x.shape)
    one = (x != 0) != (y != 0)  # of the two has an input here
    place = jnp.argsort(jnp.argsort(jnp.where(one, draw, 2.0)))
    gets = jnp.where(one, place < jnp.sum(one & (x != 0), 1, keepdims=True), draw < 0.5)
    either = jnp.where(x != 0, x, y)
    mine = jnp.where(one, jnp.where(gets, either, 0), jnp.where(gets, x, y))
    yours = jnp.where(one, jnp.where(gets, 0, either), jnp.where(gets, y, x))
    return flat.at[ours].set(mine.astype(flat.dtype)).at[theirs].set(yours.astype(flat.dtype)), None


def _dense(w: Array) -> tuple[Array, int]:
    """The weight in a floating dtype, and the number of its spatial axes."""
    whole = jnp.asarray(w)
    return check.kernel("w", whole.astype(jnp.float32) if whole.dtype == bool else whole, spatial=2, others="c d")
