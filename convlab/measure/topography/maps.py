"""Maps on the sheet of a layer: how smooth they are, their pinwheels, and the null of shuffled units.

A map is an array (rows, columns) with one number per unit, as `arrange_on_sheet` makes. Of orientations, numbers are radians
and nan stands for none; of classes, they are integers and -1 stands for none.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from convlab import check
from convlab.choices import one_of
from convlab.convert import neighbours
from convlab.geometry import as_integer

INTERVAL = (2.5, 97.5)  # the percentiles of shuffles between which 95 % lie
BATCH = 50  # the number of shuffled sheets that are held at once


def map_roughness(units: Num[Array, "rows columns"], kind: str = "orientation", *, circular: bool = False) -> Float[Array, ""]:
    r"""Compute the mean difference between neighbouring units on a sheet: 0 for a constant map.

    $$\frac{1}{|P|} \sum_{(u, u') \in P} \delta(m_u, m_{u'})$$

    P holds every unit with the next unit in its column, and with the next one in its row. The difference $\delta$ depends on
    what the map shows. Pairs with a unit that has no orientation or class are left out.

    | kind | difference | mean of a random map |
    |---|---|---|
    | "orientation" | the angle between orientations in radians, at most pi/2 | pi/4, or 45 degrees |
    | "class" | 1 if the classes differ, else 0 | 1 minus the sum of the squared shares of the classes |
    | "value" | the absolute difference, such as of spatial frequencies | that of two units drawn at random |

    Args:
      units: The map.
      kind: The quantity that the map shows, "orientation", "class" or "value".
      circular: Whether the first row and column follow the last ones, so that the sheet is a torus.

    Returns:
      The mean difference; nan if no pair is left.

    Raises:
      ValueError: The kind is unknown, or the map does not have two axes and two units.
      TypeError: The map is complex.

    Example:
      >>> waves = jnp.tile(jnp.arange(6) * jnp.pi / 6, (4, 1))  # turned by 30 degrees per column
      >>> float(jnp.degrees(map_roughness(waves, circular=True))).__round__(3)
      15.0
    """
    one_of("kind", kind, DIFFERENCES)
    units = _map("units", units)
    check.flag("circular", circular)
    pairs = [neighbours(units, axis, circular) for axis in (0, 1) if units.shape[axis] > 1]
    one, other = (jnp.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    known = ~(jnp.isnan(one) | jnp.isnan(other)) if kind != "class" else (one >= 0) & (other >= 0)
    return jnp.mean(DIFFERENCES[kind](one, other).astype(jnp.result_type(units, float)), where=known)


def pinwheels(orientations: Float[Array, "rows columns"], *, circular: bool = False) -> Int[Array, "loops others"]:
    r"""Find the pinwheels of a map, the points around which every orientation occurs once.

    $$n = \frac{1}{\pi} \oint d\theta \in \{-1, 0, 1\}$$

    The integral follows a loop of 2 x 2 units anticlockwise, and each step is the smaller of the two turns. The winding number
    of the orientation is n / 2. At n = 1 orientations turn anticlockwise around the point, at n = -1 clockwise. The sum over
    adjacent loops is the n of the loop around them, so on a torus all pinwheels cancel out. In a random map, a third of all
    loops are pinwheels.

    Args:
      orientations: The map, in radians.
      circular: Whether the first row and column follow the last ones, so that the sheet is a torus.

    Returns:
      The number n of every loop, named by its upper left unit: (rows, columns) of a torus, else one less along each axis. It
      is 0 if a unit has no orientation. Their number is `jnp.abs(pinwheels(map)).sum()`.

    Raises:
      ValueError: The map does not have two axes and two units along each.
      TypeError: The map is not floating.

    Example:
      >>> pinwheels(jnp.radians(jnp.array([[67.5, 22.5], [112.5, 157.5]])))
      Array([[1]], dtype=int32)

    Reference: Bonhoeffer and Grinvald 1991, Iso-orientation domains are arranged in pinwheel-like patterns.
    """
    check.floating("orientations", orientations)
    units = _map("orientations", orientations)
    check.flag("circular", circular)
    if min(units.shape) < 2:
        raise ValueError(f"orientations has shape {units.shape}; needs two rows and two columns for a loop")
    edges = units if not circular else jnp.pad(units, (0, 1), mode="wrap")
    down, right = (_turn(jnp.diff(edges, axis=axis)) for axis in (0, 1))
    around = down[:, :-1] + right[1:] - down[:, 1:] - right[:-1]
    return jnp.round(jnp.nan_to_num(around) / jnp.pi).astype(jnp.int32)


class ShuffledNull(NamedTuple):
    """The value of a statistic, and those of sheets whose units are shuffled.

    Attributes:
      value: The statistic of the sheet itself.
      mean: The mean over shuffles.
      low: The 2.5th percentile of shuffles.
      high: The 97.5th percentile of shuffles.
    """

    value: float
    mean: float
    low: float
    high: float


def shuffled_null(
    statistic: Callable[[Array], Any], units: Shaped[Array, "rows columns *others"], key: jax.Array, shuffles: int = 1000
) -> ShuffledNull:
    """Compare a statistic of a sheet with its values for shuffled units, the null model of topography.

    Shuffling moves the units to random places of the sheet. It keeps what every unit is, so whatever the statistic measures
    beyond the null is due to their places.

    Args:
      statistic: A jittable function from a sheet to a number, such as `map_roughness`.
      units: The map (rows, columns), or the kernels (rows, columns, a, b, c).
      key: The random key of the shuffles.
      shuffles: The number of shuffles.

    Raises:
      ValueError: `units` has fewer than two axes, or `shuffles` is below 1.
      TypeError: An argument has the wrong type, or the statistic is no number.

    Example:
      >>> columns = jnp.tile(jnp.arange(8) * jnp.pi / 8, (8, 1))  # an orientation for every column
      >>> null = shuffled_null(map_roughness, columns, jax.random.key(0))
      >>> f"{jnp.degrees(null.value):.0f} degrees, shuffled {jnp.degrees(null.low):.0f} to {jnp.degrees(null.high):.0f}"
      '11 degrees, shuffled 40 to 51'
    """
    check.function("statistic", statistic, "a function from a sheet to a number")
    units, shuffles = check.array("units", units), as_integer("shuffles", shuffles)
    check.key("key", key)
    if units.ndim < 2 or not units.size:
        raise ValueError(f"units has shape {units.shape}; needs the rows and columns of a sheet first")
    flat = units.reshape(-1, *units.shape[2:])

    def number(units: Array) -> Array:
        return check.number("the result of statistic", jnp.asarray(statistic(units)))

    def shuffled(key: jax.Array) -> Array:
        return number(flat[jax.random.permutation(key, len(flat))].reshape(units.shape))

    def many(keys: jax.Array) -> Array:
        return jax.lax.map(shuffled, keys, batch_size=min(BATCH, shuffles))

    value = float(jax.jit(number)(units))
    values = np.asarray(jax.jit(many)(jax.random.split(key, shuffles)), float)
    return ShuffledNull(value, float(values.mean()), *map(float, np.percentile(values, INTERVAL)))


def _turn(angles: Array) -> Array:
    """Return the smaller turn between orientations, from -pi/2 to pi/2."""
    return (angles + jnp.pi / 2) % jnp.pi - jnp.pi / 2


DIFFERENCES: Mapping[str, Callable[[Array, Array], Array]] = {
    "orientation": lambda one, other: jnp.abs(_turn(other - one)),
    "class": lambda one, other: one != other,
    "value": lambda one, other: jnp.abs(other - one),
}


def _map(name: str, value: Any) -> Array:
    units = check.real(name, check.array(name, value))
    if units.ndim != 2 or units.size < 2:
        raise ValueError(f"{name} has shape {units.shape}; needs a map of at least two units: (rows, columns)")
    return units
