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

from convlab import algebra as algebra
from convlab import foreign as foreign
from convlab import measure as measure
from convlab import models as models
from convlab import optim as optim
from convlab import tasks as tasks
from convlab import testing as testing
from convlab import train as train
from convlab.check import allow_large_arrays as allow_large_arrays
from convlab.convert import decompose as decompose
from convlab.convert import lift_conv_to_dense as lift_conv_to_dense
from convlab.convert import lift_conv_to_local as lift_conv_to_local
from convlab.convert import lift_local_to_dense as lift_local_to_dense
from convlab.convert import lift_low_rank_to_local as lift_low_rank_to_local
from convlab.convert import lift_tiled_to_local as lift_tiled_to_local
from convlab.convert import project_dense_to_conv as project_dense_to_conv
from convlab.convert import project_dense_to_local as project_dense_to_local
from convlab.convert import project_local_to_conv as project_local_to_conv
from convlab.convert import project_local_to_low_rank as project_local_to_low_rank
from convlab.convert import project_local_to_tiled as project_local_to_tiled
from convlab.data import load as load
from convlab.geometry import Window as Window
from convlab.layers import Conv as Conv
from convlab.layers import Dense as Dense
from convlab.layers import LocallyConnected as LocallyConnected
from convlab.layers import LowRank as LowRank
from convlab.layers import Symmetric as Symmetric
from convlab.layers import Tiled as Tiled
from convlab.measure import count as count
from convlab.measure import summary as summary
from convlab.ops.conv import conv as conv
from convlab.ops.dense import dense as dense
from convlab.ops.local import locally_connected as locally_connected
from convlab.ops.low_rank import low_rank as low_rank
from convlab.ops.pool import blur_pool as blur_pool
from convlab.ops.pool import max_pool as max_pool
from convlab.ops.pool import mean_pool as mean_pool
from convlab.ops.tiled import tiled as tiled
from convlab.relax import constrain as constrain
from convlab.relax import diff as diff
from convlab.relax import relax as relax
from convlab.relax import transfer_optimizer_state as transfer_optimizer_state
from convlab.report import save_report as save_report
from convlab.train import Checkpoints as Checkpoints
from convlab.train import Config as Config
from convlab.train import Fitted as Fitted
from convlab.train import Log as Log
from convlab.train import fit as fit
from convlab.train import fit_many as fit_many
from convlab.train import fit_seeds as fit_seeds
from convlab.unfold import unfold as unfold

__version__ = "0.2.0"
