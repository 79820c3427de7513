"""Functions from a network to its layers, and from the name of a connectivity to a layer."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from convlab.choices import one_of
from convlab.geometry import Padding, Size, Space
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
from convlab.layers.layer import DEFAULT_KERNEL_INIT, LAYERS, Layer, complete, register
from convlab.rungs import Layout, Untied, make_window, with_rung

register(Dense, LocallyConnected, Tiled, LowRank, Conv, Symmetric, DenseTranspose, LocallyConnectedTranspose)
register(TiledTranspose, LowRankTranspose, ConvTranspose, SymmetricTranspose)
complete()


def spatial_layers(model: nnx.Module) -> dict[tuple[Any, ...], Layer]:
    """Return the spatial layers of a network by path: its convlab layers that a layout describes.

    Example:
      >>> list(spatial_layers(nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)))
      [('layers', 0)]
    """
    return {tuple(path): module for path, module in nnx.iter_modules(model) if isinstance(module, Layer) and module.layout}


def connect(
    connectivity: str,
    in_features: int,
    out_features: int,
    kernel_size: Size,
    strides: Size | None = 1,
    *,
    padding: Padding = "SAME",
    space: Space,
    tied_noise: float | None = None,
    kernel_init: Initializer = DEFAULT_KERNEL_INIT,
    use_bias: bool | str = True,
    rngs: nnx.Rngs,
    **parameters: Any,
) -> Layer:
    """Build the layer of a given connectivity that has the outputs of a given convolution.

    The models build their spatial layers with it.

    Args:
      connectivity: The rung, one of "dense", "locally_connected", "tiled", "low_rank", "symmetric" and "conv", or
        "global_conv". A global convolution has one kernel of all offsets that can reach a pixel. So it shares weights but is
        not local.
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The number of taps of the convolution along each axis.
      strides: The distance between neighbouring outputs in pixels.
      padding: The padding, as in `Window`.
      space: The number of input pixels along each spatial axis.
      tied_noise: The noise between positions, on rungs with several kernels.
      kernel_init: The initializer of one kernel.
      use_bias: The sharing of the bias, as in `Conv`.
      rngs: The random streams, of which `params` is used.
      **parameters: The parameters of all rungs; the layer uses those of its own. `period` of "tiled" is clipped to the
        positions. `rank` of "low_rank" is clipped to the positions and to the entries of a kernel.

    Raises:
      ValueError: The connectivity is unknown, or an argument is out of range.

    Example:
      >>> connect("tiled", 1, 4, 3, space=(8, 8), rngs=nnx.Rngs(0)).kernel.shape
      (2, 2, 3, 3, 1, 4)
    """
    one_of("connectivity", connectivity, CONNECTIVITY)
    window = make_window(kernel_size, strides, padding, 1, space)
    if connectivity == "global_conv":
        window = window.widened(space)
        kernel_init = _rescaled(kernel_init, math.prod(space) / math.prod(window.taps(len(space))))
    local = Layout(Untied(), window, in_features, out_features, space, use_bias=use_bias)
    layout = with_rung(local, CONNECTIVITY[connectivity], **parameters)
    noise: dict[str, Any] = {"tied_noise": tied_noise} if layout.tying.has_noise else {}
    return Layer.from_layout(layout, kernel_init=kernel_init, rngs=rngs, **noise)


CONNECTIVITY = {rung: rung for rung in LAYERS} | {"global_conv": "conv"}


def _rescaled(kernel_init: Initializer, share: float) -> Initializer:
    """Scale an initializer to the share of taps that each position reads, to keep the output variance."""

    def scaled(key, shape, dtype=None, out_sharding=None):
        kernel = kernel_init(key, shape, dtype)
        return kernel * jnp.asarray(share, kernel.dtype) ** -0.5

    return scaled
