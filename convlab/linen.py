"""Flax Linen modules, one per rung, with the parameter names and shapes of `convlab.layers`.

The fields are named as in `flax.linen.Conv`. The number of pixels is taken from the images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check, rungs
from convlab.geometry import Padding, Size
from convlab.rungs import RUNGS, ByPixel, Layout, Mixed, Periodic, Shared, Start, Tying, Untied, make_window

__all__ = ["Conv", "Dense", "LocallyConnected", "LowRank", "Symmetric", "Tiled"]


class Layer(linen.Module):
    """Base class of the modules of all rungs. Use one of its subclasses.

    The fields are documented at `convlab.layers.Conv`.
    """

    features: int
    kernel_size: Size
    strides: Size | None = 1
    padding: Padding = "SAME"
    kernel_dilation: Size | None = 1
    feature_group_count: int = 1
    use_bias: bool | str = True
    tied_noise: float | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    kernel_init: Initializer = linen.initializers.lecun_normal()
    bias_init: Initializer = linen.initializers.zeros_init()

    tying: ClassVar[type[Tying]]

    @linen.compact
    def __call__(self, x: Float[Array, "*n k l c"]) -> Float[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        x = jnp.asarray(x)
        layout = layout_of(self, x.shape)
        x, _ = check.images(x, layout.ndim, f"{layout.window} has {layout.ndim}")
        start = Start(self.kernel_init, self.param_dtype, self.tied_noise)
        arrays = {}
        for name in self.tying.arrays:
            arrays[name] = self.param(name, lambda key, name=name: layout.start(key, start)[name])
        bias = None
        if layout.bias_sharing is not None:
            bias = self.param("bias", self.bias_init, layout.bias_shape, self.param_dtype)
        return layout.forward(
            x,
            arrays,
            bias,
            dtype=self.dtype,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )


def layout_of(module: Any, shape: Sequence[int]) -> Layout:
    """Return the layout of a convlab module or a `linen.Conv` on images of shape (*n, *space, c)."""
    tying = module.tying if isinstance(module, Layer) else Shared
    window = make_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    parameters = {field.name: getattr(module, field.name) for field in dataclasses.fields(tying)}
    space, features = shape[-1 - (window.ndim or 1) : -1], (shape[-1], module.features)
    return Layout(tying.from_parameters(parameters), window, *features, space, module.feature_group_count, module.use_bias)


class Dense(Layer):
    """Fully connected layer on images, as `convlab.layers.Dense`."""

    tying = ByPixel


class LocallyConnected(Layer):
    """Locally connected layer, as `convlab.layers.LocallyConnected`."""

    tying = Untied


class Tiled(Layer):
    """Tiled layer, whose kernels repeat every `period` positions, as `convlab.layers.Tiled`."""

    tying = Periodic
    period: Size = 2


class LowRank(Layer):
    """Low-rank layer, whose positions mix the same few kernels, as `convlab.layers.LowRank`."""

    tying = Mixed
    rank: int = 2


class Conv(Layer):
    """Convolution with one kernel for all positions, as `convlab.layers.Conv`."""

    tying = Shared


class Symmetric(Layer):
    """Convolution that is invariant under flips and quarter turns, as `convlab.layers.Symmetric`."""

    tying = rungs.Symmetric


MODULES = {module.tying: module for module in (Dense, LocallyConnected, Tiled, LowRank, Conv, Symmetric)}
for _tying in (kind for kind in RUNGS.values() if kind not in MODULES):  # a rung without a class above gets one
    _fields = {field.name: field.default for field in dataclasses.fields(_tying)}
    _members = {"tying": _tying, "__doc__": _tying.__doc__, "__module__": __name__} | _fields
    globals()[_tying.__name__] = type(_tying.__name__, (Layer,), _members | {"__annotations__": dict.fromkeys(_fields, Any)})
