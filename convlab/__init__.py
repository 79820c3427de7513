"""The ladder from dense layers to convolutions, with exact conversions and measurements.

| rung | op | layer |
|---|---|---|
| dense | `dense` | `Dense` |
| locally connected | `locally_connected` | `LocallyConnected` |
| tiled | `tiled` | `Tiled` |
| low rank | `low_rank` | `LowRank` |
| convolution | `conv` | `Conv` |
| symmetric | `conv` | `Symmetric` |

`lift_*` and `project_*` convert kernels, `relax` and `constrain` convert whole networks. `models` holds networks at any rung,
`fit` trains them, `count`, `summary` and `measure` measure them, `tasks` draws examples, and `testing` holds assertions.
"""

from convlab import algebra, foreign, measure, models, optim, tasks, testing, train
from convlab.check import allow_large_arrays
from convlab.convert import (
    decompose,
    lift_conv_to_dense,
    lift_conv_to_local,
    lift_local_to_dense,
    lift_low_rank_to_local,
    lift_tiled_to_local,
    project_dense_to_conv,
    project_dense_to_local,
    project_local_to_conv,
    project_local_to_low_rank,
    project_local_to_tiled,
)
from convlab.data import Data, load
from convlab.geometry import Window
from convlab.layers import (
    Conv,
    ConvTranspose,
    Dense,
    DenseTranspose,
    LocallyConnected,
    LocallyConnectedTranspose,
    LowRank,
    LowRankTranspose,
    Symmetric,
    SymmetricTranspose,
    Tiled,
    TiledTranspose,
)
from convlab.measure import count, summary
from convlab.ops.conv import conv
from convlab.ops.dense import dense
from convlab.ops.local import locally_connected
from convlab.ops.low_rank import low_rank
from convlab.ops.partial import partial_convolution
from convlab.ops.pool import blur_pool, max_pool, mean_pool
from convlab.ops.tiled import tiled
from convlab.ops.transposed import conv_transpose, locally_connected_transpose, low_rank_transpose, tiled_transpose
from convlab.report import save_report
from convlab.surgery import constrain, diff, relax, shares, transfer_optimizer_state
from convlab.train import Checkpoints, Config, Fitted, Log, fit, fit_many, fit_seeds
from convlab.unfold import unfold

__all__ = [
    "Checkpoints",
    "Config",
    "Conv",
    "ConvTranspose",
    "Data",
    "Dense",
    "DenseTranspose",
    "Fitted",
    "LocallyConnected",
    "LocallyConnectedTranspose",
    "Log",
    "LowRank",
    "LowRankTranspose",
    "Symmetric",
    "SymmetricTranspose",
    "Tiled",
    "TiledTranspose",
    "Window",
    "algebra",
    "allow_large_arrays",
    "blur_pool",
    "constrain",
    "conv",
    "conv_transpose",
    "count",
    "decompose",
    "dense",
    "diff",
    "fit",
    "fit_many",
    "fit_seeds",
    "foreign",
    "lift_conv_to_dense",
    "lift_conv_to_local",
    "lift_local_to_dense",
    "lift_low_rank_to_local",
    "lift_tiled_to_local",
    "load",
    "locally_connected",
    "locally_connected_transpose",
    "low_rank",
    "low_rank_transpose",
    "max_pool",
    "mean_pool",
    "measure",
    "models",
    "optim",
    "partial_convolution",
    "project_dense_to_conv",
    "project_dense_to_local",
    "project_local_to_conv",
    "project_local_to_low_rank",
    "project_local_to_tiled",
    "relax",
    "save_report",
    "shares",
    "summary",
    "tasks",
    "testing",
    "tiled",
    "tiled_transpose",
    "train",
    "transfer_optimizer_state",
    "unfold",
]

__version__ = "0.2.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
