"""Flax Linen modules, thin over the rungs; parameter names and shapes are those of `convlab.layers`.

Fields are named as in `flax.linen.Conv`; the pixels are read off the images.
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

from convlab import check
from convlab.geometry import Padding, Size
from convlab.rungs import RUNGS, ByPixel, Layout, Mixed, Periodic, Shared, Start, Tying, Untied, lay_window


class Layer(linen.Module):
    """What the modules of all rungs share. Use one of its subclasses; fields are documented in `convlab.layers.Conv`."""

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
        x, _ = check.images(x, layout.ndim, f"{layout.window} is laid on {layout.ndim} of them")
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
    """Return the layout of a spatial module, one of these or `linen.Conv`, on images of a shape (*n, *space, c)."""
    tying = module.tying if isinstance(module, Layer) else Shared
    window = lay_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    parameters = {field.name: getattr(module, field.name) for field in dataclasses.fields(tying)}
    space, features = shape[-1 - (window.rank or 1) : -1], (shape[-1], module.features)
    return Layout(tying.of(parameters), window, *features, space, module.feature_group_count, module.use_bias)


class Dense(Layer):
    """Own weight for every pair of output and pixel: `convlab.layers.Dense`."""

    tying = ByPixel


class LocallyConnected(Layer):
    """Own kernel at every output position: `convlab.layers.LocallyConnected`."""

    tying = Untied


class Tiled(Layer):
    """Kernels that repeat every `period` positions: `convlab.layers.Tiled`."""

    tying = Periodic
    period: Size = 2


class LowRank(Layer):
    """The same few kernels mixed at every position: `convlab.layers.LowRank`."""

    tying = Mixed
    rank: int = 2


class Conv(Layer):
    """One kernel for all positions: `convlab.layers.Conv`."""

    tying = Shared


MODULES = {module.tying: module for module in (Dense, LocallyConnected, Tiled, LowRank, Conv)}
for _tying in (kind for kind in RUNGS.values() if kind not in MODULES):  # a rung without a class of its own gets one here
    _fields = {field.name: field.default for field in dataclasses.fields(_tying)}
    _named = {"tying": _tying, "__doc__": _tying.__doc__, "__module__": __name__} | _fields
    globals()[_tying.__name__] = type(_tying.__name__, (Layer,), _named | {"__annotations__": dict.fromkeys(_fields, Any)})
