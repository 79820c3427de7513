"""convlab walks the ladder from a dense layer to a convolution and back, exactly, and measures what each rung costs."""

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
from convlab.geometry import Window as Window
from convlab.layers import Conv as Conv
from convlab.layers import Dense as Dense
from convlab.layers import LocallyConnected as LocallyConnected
from convlab.layers import LowRank as LowRank
from convlab.layers import Tiled as Tiled
from convlab.ops.conv import conv as conv
from convlab.ops.dense import dense as dense
from convlab.ops.local import locally_connected as locally_connected
from convlab.ops.low_rank import low_rank as low_rank
from convlab.ops.pool import blur_pool as blur_pool
from convlab.ops.pool import max_pool as max_pool
from convlab.ops.pool import mean_pool as mean_pool
from convlab.ops.tiled import tiled as tiled
from convlab.unfold import unfold as unfold
