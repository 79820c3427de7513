r"""Conversion of kernels: `lift` to a freer rung, which is exact, and `project` to a stricter one.

Every kernel stands for a dense matrix, which a linear map E builds from it. `lift` applies E, or the part of E that leads to
the freer rung. Distances are Frobenius norms of dense matrices. So all projections are orthogonal in one space, are nested and
commute. If W is the dense matrix of the argument, `project` returns

$$V = (E^\top E)^+ E^\top W$$

$E^\top E$ counts how often two taps read the same pixel. Under zero padding it is diagonal and holds n(a, b), the number of
positions at which tap (a, b) is live, so that projecting is a mean over live taps. A tap that reads padding is dead.
Under "REFLECT", "EDGE" and windows that wrap around the image, several taps of one position can read the same pixel. Their
weights then add on lifting, and the pseudo-inverse gives the least-norm solution. It is a Kronecker product over the axes, so
only matrices of the taps of one axis are inverted.
"""

from convlab.convert.conv import lift_conv_to_dense as lift_conv_to_dense
from convlab.convert.conv import lift_conv_to_local as lift_conv_to_local
from convlab.convert.conv import project_dense_to_conv as project_dense_to_conv
from convlab.convert.conv import project_local_to_conv as project_local_to_conv
from convlab.convert.dense import lift_local_to_dense as lift_local_to_dense
from convlab.convert.dense import project_dense_to_local as project_dense_to_local
from convlab.convert.low_rank import lift_low_rank_to_local as lift_low_rank_to_local
from convlab.convert.low_rank import project_local_to_low_rank as project_local_to_low_rank
from convlab.convert.period import counts as counts
from convlab.convert.period import gather as gather
from convlab.convert.period import nearest as nearest
from convlab.convert.period import repeat as repeat
from convlab.convert.period import squared_norm as squared_norm
from convlab.convert.period import zero_dead_taps as zero_dead_taps
from convlab.convert.shares import decompose as decompose
from convlab.convert.tiled import lift_tiled_to_local as lift_tiled_to_local
from convlab.convert.tiled import project_local_to_tiled as project_local_to_tiled
