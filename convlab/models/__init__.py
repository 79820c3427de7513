"""Networks whose spatial layers are on the rung that `connectivity=` names.

A network is a `Stack` of stages and a head. A `Stage` is one spatial layer with its normalisation, activation and pooling.
The `Head` consists of dense layers.
"""

from convlab.models.allcnn import AllCNN
from convlab.models.lenet import LeNet
from convlab.models.mlp import MLP
from convlab.models.net import Net, NetDeep
from convlab.models.pyramid import Pyramid
from convlab.models.resnet import RESNETS, STEMS, Block, ResNet, Stem
from convlab.models.snet import DNet, SNet
from convlab.models.stage import Activation, ConnectionOptions, Connections, Head, Pool, Stack, Stage

__all__ = [
    "Activation",
    "AllCNN",
    "Block",
    "ConnectionOptions",
    "Connections",
    "DNet",
    "Head",
    "LeNet",
    "MLP",
    "Net",
    "NetDeep",
    "Pool",
    "Pyramid",
    "RESNETS",
    "ResNet",
    "SNet",
    "STEMS",
    "Stack",
    "Stage",
    "Stem",
]
