"""Networks from one specification at any rung: `connectivity=` says how their spatial layers are wired."""

from convlab.models.stage import MLP as MLP
from convlab.models.stage import MOMENTUM as MOMENTUM
from convlab.models.stage import Activation as Activation
from convlab.models.stage import Head as Head
from convlab.models.stage import LeNet as LeNet
from convlab.models.stage import Net as Net
from convlab.models.stage import Pool as Pool
from convlab.models.stage import Pyramid as Pyramid
from convlab.models.stage import Stage as Stage
from convlab.models.stage import Wiring as Wiring
