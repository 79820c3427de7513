"""Flax NNX layers, one class per rung and one for its transpose, which hold the arrays of the rung."""

from convlab.layers.connect import CONNECTIVITY, connect, spatial_layers
from convlab.layers.conv import Conv, ConvTranspose
from convlab.layers.ladder import (
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
from convlab.layers.layer import LAYERS, Layer

__all__ = [
    "CONNECTIVITY",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DenseTranspose",
    "LAYERS",
    "Layer",
    "LocallyConnected",
    "LocallyConnectedTranspose",
    "LowRank",
    "LowRankTranspose",
    "Symmetric",
    "SymmetricTranspose",
    "Tiled",
    "TiledTranspose",
    "connect",
    "spatial_layers",
]
