"""Networks from one specification at any rung: `connectivity=` says how their spatial layers are wired.

A network is a `Stack`: stages (`Stage`: one spatial layer and what follows it), then a head of dense layers (`Head`).
"""

from convlab.models.allcnn import AllCNN
from convlab.models.lenet import LeNet
from convlab.models.mlp import MLP
from convlab.models.net import Net, NetDeep
from convlab.models.pyramid import Pyramid
from convlab.models.resnet import RESNETS, STEMS, Block, ResNet, Stem
from convlab.models.snet import DNet, SNet
from convlab.models.stage import Activation, Head, Pool, Stack, Stage, Wires, Wiring

__all__ = [
    "Activation",
    "AllCNN",
    "Block",
    "DNet",
    "Head",
    "LeNet",
    "MLP",
    "Net",
    "NetDeep",
    "Pool",
    "Pyramid",
    "ResNet",
    "RESNETS",
    "SNet",
    "Stack",
    "Stage",
    "Stem",
    "STEMS",
    "Wires",
    "Wiring",
]
