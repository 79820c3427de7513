"""The units of a layer on a sheet: the channels of every position lie on a small grid.

A unit is one channel at one position. The sheet is what topographic models of cortex compare with cortical maps.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from convlab import check
from convlab.choices import shown
from convlab.geometry import as_integer

Grid = tuple[int, int]  # the rows and columns of the channels at one position


def arrange_on_sheet(values: Shaped[Array, "i j *others d"], grid: Grid | None = None) -> Shaped[Array, "rows columns *others"]:
    r"""Arrange numbers or kernels of all units of a layer on its sheet.

    $$S_{iP + p,\; jQ + q} = V_{ij,\; pQ + q} \quad \text{for a grid of } P \text{ rows and } Q \text{ columns}$$

    The D = P Q channels of every position lie on a grid, so that I x J positions make a sheet of IP x JQ units. A convolution
    has one kernel for all positions, and its sheet is that of one position: `arrange_on_sheet(v[None, None])`.

    Args:
      values: The number (i, j, d) or the array (i, j, ..., d) of every unit, such as the kernels of a locally connected layer.
      grid: The rows and columns of the channels at one position. If None, the rows and columns that are nearest to each
        other, with no more rows than columns.

    Raises:
      ValueError: `values` has fewer than three axes, or the grid does not hold d channels.
      TypeError: `values` are no numbers, or `grid` is not two integers.

    Example:
      >>> arrange_on_sheet(jnp.arange(8).reshape(1, 2, 4))  # two positions of four channels
      Array([[0, 1, 4, 5],
             [2, 3, 6, 7]], dtype=int32)

    Reference: Lu et al. 2025, End-to-end topographic networks as models of cortical map formation.
    """
    v = check.array("values", values)
    if v.ndim < 3 or not v.size:
        raise ValueError(f"values has shape {v.shape}; needs positions, what every unit has, and channels: (i, j, ..., d)")
    i, j, *others, d = v.shape
    rows, columns = grid_of(d, grid)
    parts = jnp.moveaxis(v, -1, 2).reshape(i, j, rows, columns, *others)
    return jnp.swapaxes(parts, 1, 2).reshape(i * rows, j * columns, *others)


def grid_of(channels: int, grid: Grid | None = None, name: str = "grid") -> Grid:
    """Return the rows and columns of a number of channels. If None, the ones nearest to each other.

    Args:
      channels: The number of channels.
      grid: The rows and columns.
      name: The name of the argument in errors.

    Raises:
      ValueError: The grid does not hold this number of channels.
      TypeError: The grid is not two integers.

    Example:
      >>> grid_of(16), grid_of(6), grid_of(6, (3, 2))
      ((4, 4), (2, 3), (3, 2))
    """
    if grid is None:
        rows = max(rows for rows in range(1, math.isqrt(channels) + 1) if channels % rows == 0)
        return rows, channels // rows
    sides = [as_integer(name, side) for side in check.sequence(name, grid, "two integers")]
    if len(sides) != 2 or math.prod(sides) != channels:
        raise ValueError(f"{name} must be the rows and columns of {channels} channels, got {shown(grid)}")
    rows, columns = sides
    return rows, columns


def neighbours(sheet: Shaped[Array, "rows columns *others"], axis: int, circular: bool) -> tuple[Array, Array]:
    """Return what every unit of a sheet has, and what the next unit along an axis has.

    Args:
      sheet: The units.
      axis: The axis of the sheet, 0 or 1.
      circular: Whether the first unit follows the last one.

    Example:
      >>> [pair.tolist() for pair in neighbours(jnp.array([[1, 2, 3]]), 1, circular=False)]
      [[[1, 2]], [[2, 3]]]
    """
    following = jnp.roll(sheet, -1, axis)
    inner: Sequence[slice] = [slice(None)] * axis + [slice(None if circular else -1)]
    return sheet[tuple(inner)], following[tuple(inner)]
