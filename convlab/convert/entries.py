"""The entries of the dense matrix of kernels, without forming the matrix."""

import math
from typing import NamedTuple

import numpy as np

from convlab import check
from convlab.display import short_repr
from convlab.geometry import Space, Window, as_space


class Entries(NamedTuple):
    """Entries of a matrix.

    Attributes:
      values: The entries.
      rows: Their rows.
      columns: Their columns. A row and column can occur several times; such entries are added.
      shape: The shape of the matrix.
    """

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]

    __repr__ = short_repr

    def transpose(self) -> "Entries":
        """Return the entries of the transposed matrix."""
        return Entries(self.values, self.columns, self.rows, (self.shape[1], self.shape[0]))


def matrix_entries(v: np.ndarray, window: Window | None, space: Space, groups: int = 1) -> Entries:
    r"""List the entries of the dense matrix of kernels, one per live tap and pair of channels.

    $$A_{(ijd),(klc)} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{i \bmod p,\, j \bmod q,\, abcd}$$

    Args:
      v: The kernels over one period, (p, q, a, b, c, d). With groups, c counts the channels of one group.
      window: The pixels that each position reads. If None, `v` is a dense weight (i, j, k, l, c, d).
      space: The number of input pixels along each spatial axis.
      groups: The number of groups of channels. Weights between groups have no entry.

    Raises:
      MemoryError: The entries would not fit into the free memory.

    Example:
      >>> entries = matrix_entries(np.array([[[[1.0]], [[2.0]]]]), Window(2, padding="VALID"), (3,))
      >>> entries.values, entries.rows, entries.columns, entries.shape
      (array([1., 2., 1., 2.]), array([0, 0, 1, 1]), array([0, 1, 1, 2]), (2, 3))
    """
    space = as_space(space)
    (*_, c, d), ndim, pixels = v.shape, len(space), math.prod(space)
    period = v.shape[:ndim]
    positions = period if window is None else window.output_shape(space)
    check_entries_fit(positions, window, space, (c, d), v.dtype.itemsize)
    outputs = math.prod(positions)
    if window is None:
        reads = np.broadcast_to(np.arange(pixels), (outputs, pixels))
    else:
        reads = window.reads(space).reshape(outputs, -1)
    position, tap = np.nonzero(reads >= 0)
    phase = np.indices(positions).reshape(ndim, -1) % np.reshape(period, (ndim, 1))
    kernel = np.asarray(np.ravel_multi_index(tuple(phase), period))
    values = v.reshape(math.prod(period), -1, c, d)[kernel[position], tap]
    rows = position[:, None, None] * d + np.arange(d)
    group = np.arange(d) // (d // groups)
    columns = reads[position, tap][:, None, None] * (c * groups) + np.arange(c)[:, None] + group * c
    rows, columns = (np.broadcast_to(numbers, values.shape).ravel() for numbers in (rows, columns))
    return Entries(values.ravel(), rows, columns, (outputs * d, pixels * c * groups))


def check_entries_fit(positions: Space, window: Window | None, space: Space, channels: tuple[int, ...], itemsize: int) -> None:
    """Check that the entries of a matrix, with their rows and columns, fit into the free memory.

    Raises:
      MemoryError: They do not.
    """
    if window is None:
        taps = math.prod(positions) * math.prod(space)
    else:
        taps = math.prod(int((axis.reads >= 0).sum()) for axis in window.axes(space))
    check.shape_fits("the entries of the matrix of window on space", taps, *channels, itemsize=2 * itemsize + 32)
