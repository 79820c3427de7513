r"""Conversion of kernels: `lift` to a freer rung, which is exact, and `project` to a stricter one.

Every kernel stands for a dense matrix, which a linear map E builds from it. `lift` applies E, or the part of E that leads to
the freer rung. Distances are Frobenius norms of dense matrices. So all projections are orthogonal in one space, are nested and
commute. If W is the dense matrix of the argument, `project` returns

$$V = (E^\top E)^+ E^\top W$$

$E^\top E$ counts how often two taps read the same pixel. Under zero padding, a tap is live at a position where it reads a pixel
of the image, and dead where it reads padding. A tap of a shared kernel is dead if it is dead at every position. Then
$E^\top E$ is diagonal and holds n(a, b), the number of positions at which tap (a, b) is live. So projecting is a mean over the
live positions of each tap, and dead taps are set to zero.
Under "REFLECT", "EDGE" and windows that wrap around the image, several taps of one position can read the same pixel. Their
weights then add on lifting, and the pseudo-inverse gives the least-norm solution. It is a Kronecker product over the axes, so
only matrices of the taps of one axis are inverted.
"""

from convlab.convert.conv import lift_conv_to_dense, lift_conv_to_local, project_dense_to_conv, project_local_to_conv
from convlab.convert.dense import lift_local_to_dense, project_dense_to_local
from convlab.convert.entries import Entries, check_entries_fit, matrix_entries
from convlab.convert.low_rank import lift_low_rank_to_local, project_local_to_low_rank
from convlab.convert.period import counts, gather, nearest, repeat, squared_norm, zero_dead_taps
from convlab.convert.shares import decompose
from convlab.convert.sheet import arrange_on_sheet, grid_of, neighbours
from convlab.convert.tiled import lift_tiled_to_local, project_local_to_tiled

__all__ = [
    "Entries",
    "arrange_on_sheet",
    "check_entries_fit",
    "counts",
    "decompose",
    "gather",
    "grid_of",
    "lift_conv_to_dense",
    "lift_conv_to_local",
    "lift_local_to_dense",
    "lift_low_rank_to_local",
    "lift_tiled_to_local",
    "matrix_entries",
    "nearest",
    "neighbours",
    "project_dense_to_conv",
    "project_dense_to_local",
    "project_local_to_conv",
    "project_local_to_low_rank",
    "project_local_to_tiled",
    "repeat",
    "squared_norm",
    "zero_dead_taps",
]
