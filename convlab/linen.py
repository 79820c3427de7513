"""Flax Linen modules, thin over the rungs; parameter names and shapes are those of `convlab.layers`.

Fields are named as in `flax.linen.Conv`; the pixels are read off the images.
"""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check, rungs
from convlab.geometry import Padding, Size


class Layer(linen.Module):
    """What the modules of all rungs share. Use one of its subclasses; fields are documented in `convlab.layers.Conv`."""

    features: int
    kernel_size: Size
    strides: Size | None = 1
    padding: Padding = "SAME"
    kernel_dilation: Size | None = 1
    feature_group_count: int = 1
    use_bias: bool | str = True
    period: Size | None = None
    rank: int | None = None
    tied_noise: float | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    kernel_init: Initializer = linen.initializers.lecun_normal()
    bias_init: Initializer = linen.initializers.zeros_init()

    rung: ClassVar[str]

    @linen.compact
    def __call__(self, x: Float[Array, "*n k l c"]) -> Float[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        window = rungs.lay_window(self.kernel_size, self.strides, self.padding, self.kernel_dilation, None)
        assert window.rank is not None
        x, space = check.images(jnp.asarray(x), window.rank, f"{window} is laid on {window.rank} of them")
        layout = rungs.Layout(
            self.rung,
            window,
            x.shape[-1],
            self.features,
            space,
            self.feature_group_count,
            self.period,
            self.rank,
            self.use_bias,
        )
        start = rungs.Start(self.kernel_init, self.param_dtype, self.tied_noise)
        arrays = {}
        for name in rungs.RUNGS[self.rung].arrays:
            arrays[name] = self.param(name, lambda key, name=name: rungs.start(key, layout, start)[name])
        bias = None
        if layout.bias_sharing is not None:
            bias = self.param("bias", self.bias_init, layout.bias_shape, self.param_dtype)
        return rungs.forward(
            x,
            arrays,
            bias,
            layout,
            dtype=self.dtype,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )


class Dense(Layer):
    """Own weight for every pair of output and pixel: `convlab.layers.Dense`."""

    rung = "dense"


class LocallyConnected(Layer):
    """Own kernel at every output position: `convlab.layers.LocallyConnected`."""

    rung = "locally_connected"


class Tiled(Layer):
    """Kernels that repeat every `period` positions: `convlab.layers.Tiled`."""

    rung = "tiled"


class LowRank(Layer):
    """The same few kernels mixed at every position: `convlab.layers.LowRank`."""

    rung = "low_rank"


class Conv(Layer):
    """One kernel for all positions: `convlab.layers.Conv`."""

    rung = "conv"
