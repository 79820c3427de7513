"""Flax NNX layers, thin over the rungs: they hold arrays, cast them, call the op and add the bias."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab.geometry import Padding, Size, Space, Window
from convlab.rungs import RUNGS, ByPixel, Layout, Mixed, Periodic, Shared, Start, Tying, Untied, at, lay_window

DEFAULT_KERNEL_INIT = nnx.initializers.lecun_normal()
DEFAULT_BIAS_INIT = nnx.initializers.zeros_init()


class Layer(nnx.Module):
    """What the layers of all rungs share. Use one of its subclasses.

    Attributes:
      layout: Tying, window, channels and all else that fixes the shapes (static).
      bias: One number per channel, or per position and channel, or None.
    """

    tying: type[Tying]
    bias: nnx.Param | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Size | Window,
        strides: Size | None = 1,
        *,
        padding: Padding = "SAME",
        kernel_dilation: Size | None = 1,
        feature_group_count: int = 1,
        use_bias: bool | str = True,
        space: Space | None = None,
        tied_noise: float | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        preferred_element_type: DTypeLike | None = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        bias_init: Initializer = DEFAULT_BIAS_INIT,
        rngs: nnx.Rngs,
        **parameters: Any,
    ):
        window = lay_window(kernel_size, strides, padding, kernel_dilation, space)
        tying = self.tying.of(parameters)
        self.layout = Layout(tying, window, in_features, out_features, space, feature_group_count, use_bias)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.preferred_element_type = preferred_element_type
        for name, array in self.layout.start(rngs.params(), Start(kernel_init, param_dtype, tied_noise)).items():
            setattr(self, name, nnx.Param(array))
        biased = self.layout.bias_sharing is not None
        self.bias = nnx.Param(bias_init(rngs.params(), self.layout.bias_shape, param_dtype)) if biased else None

    @staticmethod
    def from_layout(layout: Layout, variables: Mapping[str, nnx.Variable] | None = None, **options: Any) -> "Layer":
        """Make the layer that a layout describes: with these variables, without drawing any, or as `options` say."""

        def made(**more: Any) -> Layer:
            tying = layout.tying
            return LAYERS[tying.name](
                layout.in_features,
                layout.out_features,
                layout.window,
                feature_group_count=layout.groups,
                use_bias=layout.use_bias,
                space=layout.space,
                **vars(tying),
                **options,
                **more,
            )

        if variables is None:
            return made()
        layer = nnx.eval_shape(lambda: made(rngs=nnx.Rngs(0)))
        for name, variable in variables.items():
            setattr(layer, name, variable)
        return layer

    def __call__(self, x: Float[Array, "*n k l c"]) -> Float[Array, "*n i j d"]:
        """Apply the layer to images with any number of leading batch axes.

        Raises:
          ValueError: The images have other channels, spatial axes or (where the layer has positions) pixels.
        """
        return self.layout.forward(
            x,
            {name: getattr(self, name)[...] for name in self.tying.arrays},
            None if self.bias is None else self.bias[...],
            dtype=self.dtype,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )


class Dense(Layer):
    r"""Own weight for every pair of output and pixel; the window only says which outputs there are.

    $$H_{ijd} = \sum_{klc} W_{ijklcd} X_{klc} + u_{ijd}$$

    Arguments of `Conv`, and:

    Args:
      space: Pixels along each spatial axis of the input.
      tied_noise: None starts with independent weights; s with a convolution plus noise of s times its size.

    Example:
      >>> layer = Dense(2, 7, (3, 3), strides=2, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer.bias.shape
      ((4, 3, 8, 6, 2, 7), (4, 3, 7))
    """

    tying = ByPixel
    kernel: nnx.Param


class LocallyConnected(Layer):
    r"""Own kernel at every output position.

    $$H_{ijd} = \sum_{abc} V_{ijabcd} X_{i+a,\,j+b,\,c} + u_{ijd}$$

    Every kernel starts with the fan-in of one window; taps that read only padding start, and stay, at zero.
    Arguments of `Conv`, and:

    Args:
      space: Pixels along each spatial axis of the input.
      tied_noise: None starts with independent kernels; s with one kernel for all positions plus noise of s times its size.

    Example:
      >>> layer = LocallyConnected(2, 7, (3, 3), space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 8, 6, 2))).shape
      ((8, 6, 3, 3, 2, 7), (5, 8, 6, 7))
    """

    tying = Untied
    kernel: nnx.Param


class Tiled(Layer):
    r"""Kernels that repeat every `period` positions.

    $$H_{ijd} = \sum_{abc} V_{i \bmod p,\, j \bmod q,\, abcd} X_{i+a,\,j+b,\,c} + u_d$$

    Arguments of `Conv`, and:

    Args:
      period: Positions along each side of the tile: an int, or one per axis.
      tied_noise: None starts with independent kernels; s with one kernel plus noise of s times its size.

    Example:
      >>> Tiled(2, 7, (3, 3), period=2, rngs=nnx.Rngs(0)).kernel.shape
      (2, 2, 3, 3, 2, 7)
    """

    tying = Periodic
    kernel: nnx.Param


class LowRank(Layer):
    r"""The same few kernels mixed at every position in its own proportions.

    $$H_{ijd} = \sum_r w_{ijr} \sum_{abc} U_{rabcd} X_{i+a,\,j+b,\,c} + u_d$$

    The proportions of each position start as a random unit vector, so that its kernel has a convolution's variance.
    Arguments of `Conv`, and:

    Args:
      space: Pixels along each spatial axis of the input.
      rank: Number of kernels.
      tied_noise: None starts with independent proportions; s with the same everywhere plus noise of s times their size.

    Example:
      >>> layer = LowRank(2, 7, (3, 3), rank=4, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.basis.shape, layer.weights.shape
      ((4, 3, 3, 2, 7), (8, 6, 4))
    """

    tying = Mixed
    basis: nnx.Param
    weights: nnx.Param


class Conv(Layer):
    r"""One kernel for all positions: a drop-in for `flax.nnx.Conv` (same names, arrays and outputs).

    $$H_{ijd} = \sum_{abc} V_{abcd} X_{i+a,\,j+b,\,c} + u_d$$

    Args:
      in_features: Input channels.
      out_features: Output channels.
      kernel_size: Taps along each axis. An int is one spatial axis, as in Flax, or one size along all axes of `space`. Or a
        whole `Window`, which has strides, padding and dilation.
      strides: Pixels between neighbouring outputs.
      padding: As in `Window`.
      kernel_dilation: Pixels between neighbouring taps.
      feature_group_count: Groups of channels that do not see each other.
      use_bias: False, "channel" (one number per output channel), "position" (one per position and channel, needs
        `space`), or True: "position" for dense and locally connected layers, "channel" for the others.
      space: Pixels along each spatial axis of the input, where an array differs by position.
      dtype: Of the computation; absent, the common one of input and arrays.
      param_dtype: Of the arrays.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      kernel_init: Initializer of one kernel.
      bias_init: Initializer of the bias.
      rngs: Keys; the stream `params` is used.

    Raises:
      ValueError: A value is missing, unknown, out of range or not for this rung.
      TypeError: A size that is not an integer.

    Example:
      >>> layer = Conv(2, 7, (3, 3), strides=2, padding="CIRCULAR", rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 8, 6, 2))).shape
      ((3, 3, 2, 7), (5, 4, 3, 7))
    """

    tying = Shared
    kernel: nnx.Param


WRITTEN = {layer.tying: layer for layer in (Dense, LocallyConnected, Tiled, LowRank, Conv)}
LAYERS: dict[str, type[Layer]] = {}
for _tying in RUNGS.values():  # a rung without a class of its own above gets one here, under its tying's name
    _named = {"tying": _tying, "__doc__": _tying.__doc__, "__module__": __name__}
    LAYERS[_tying.name] = WRITTEN.get(_tying) or type(_tying.__name__, (Layer,), _named)
    globals()[LAYERS[_tying.name].__name__] = LAYERS[_tying.name]


def spatial(model: nnx.Module) -> dict[tuple[Any, ...], Layer]:
    """Return the layers of a network that stand on a rung, by path.

    Example:
      >>> list(spatial(nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)))
      [('layers', 0)]
    """
    return {tuple(path): module for path, module in nnx.iter_modules(model) if isinstance(module, Layer)}


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
    """Build the layer with the outputs of one convolution at the rung named: what `connectivity=` of a model means.

    Args:
      connectivity: A rung ("dense", "locally_connected", "tiled", "low_rank", "conv"), or "global_conv": one kernel of every
        offset that can reach a pixel, the corner of the square that is shared but not local.
      in_features: Input channels.
      out_features: Output channels.
      kernel_size: Taps of the convolution along each axis.
      strides: Pixels between neighbouring outputs.
      padding: As in `Window`.
      space: Pixels along each spatial axis of the input.
      tied_noise: Of the rungs with several kernels.
      kernel_init: Initializer of one kernel.
      use_bias: As in `Conv`.
      rngs: Keys; the stream `params` is used.
      **parameters: The parameters of all rungs, of which this one takes its own: `period` of "tiled", at most the positions
        there are, and `rank` of "low_rank", at most the positions and the entries of a kernel.

    Raises:
      ValueError: An unknown connectivity, or an argument out of range.

    Example:
      >>> connect("tiled", 1, 4, 3, space=(8, 8), rngs=nnx.Rngs(0)).kernel.shape
      (2, 2, 3, 3, 1, 4)
    """
    if connectivity not in CONNECTIVITY:
        raise ValueError(f"connectivity {connectivity!r} is unknown; needs one of {', '.join(CONNECTIVITY)}")
    window = lay_window(kernel_size, strides, padding, 1, space)
    if connectivity == "global_conv":
        window = window.widened(space)
        kernel_init = _seeing(kernel_init, math.prod(space) / math.prod(window.taps(len(space))))
    local = Layout(Untied(), window, in_features, out_features, space, use_bias=use_bias)
    layout = at(local, CONNECTIVITY[connectivity], **parameters)
    noise: dict[str, Any] = {"tied_noise": tied_noise} if layout.tying.has_noise else {}
    return Layer.from_layout(layout, kernel_init=kernel_init, rngs=rngs, **noise)


CONNECTIVITY = {rung: rung for rung in LAYERS} | {"global_conv": "conv"}


def _seeing(kernel_init: Initializer, share: float) -> Initializer:
    """Initialise kernels of which every position sees only a `share` of the taps, as if the others were not there."""

    def scaled(key, shape, dtype=None, out_sharding=None):
        kernel = kernel_init(key, shape, dtype)
        return kernel * jnp.asarray(share, kernel.dtype) ** -0.5

    return scaled
