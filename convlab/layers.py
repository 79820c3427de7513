"""Flax NNX layers, one class per rung, which hold the arrays of the rung."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import rungs
from convlab.choices import one_of
from convlab.geometry import Padding, Size, Space, Window
from convlab.rungs import RUNGS, ByPixel, Layout, Mixed, Periodic, Shared, Start, Tying, Untied, make_window, with_rung
from convlab.signatures import ConstructorSignature

DEFAULT_KERNEL_INIT = nnx.initializers.lecun_normal()
DEFAULT_BIAS_INIT = nnx.initializers.zeros_init()


class Layer(nnx.Module):
    """Base class of the layers of all rungs. Use one of its subclasses.

    Attributes:
      layout: The tying, the window, the channels and everything else that determines the shapes (static).
      bias: The bias per channel or per position and channel, or None.
    """

    __signature__ = ConstructorSignature(parameters=lambda layer: getattr(layer, "tying", None))
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
        window = make_window(kernel_size, strides, padding, kernel_dilation, space)
        tying = self.tying.from_parameters(parameters)
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
        """Make the layer that a layout describes, with given variables or newly drawn ones.

        Args:
          layout: The description of the layer.
          variables: The layer's variables by name. If None, the layer draws new ones from `rngs`, one of the options.
          **options: The other arguments of the layer, as in `Conv`.
        """

        def build(**arguments: Any) -> Layer:
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
                **arguments,
            )

        if variables is None:
            return build()
        layer = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
        for name, variable in variables.items():
            setattr(layer, name, variable)
        return layer

    def __call__(self, x: Float[Array, "*n k l c"]) -> Float[Array, "*n i j d"]:
        """Apply the layer to images with any number of leading batch axes.

        Raises:
          ValueError: The images have other channels, spatial axes or, if the layer knows its pixels, another size.
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
    r"""Fully connected layer on images: a separate weight for every pair of output position and pixel.

    $$H_{ijd} = \sum_{klc} W_{ijklcd} X_{klc} + u_{ijd}$$

    Every output reads every pixel; the window only determines the number of outputs. The other arguments are those of `Conv`.

    Args:
      space: The number of input pixels along each spatial axis.
      tied_noise: The noise between positions. If None, weights are independent. Otherwise they start as a convolution plus
        noise of this relative size.

    Example:
      >>> layer = Dense(2, 7, (3, 3), strides=2, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer.bias.shape
      ((4, 3, 8, 6, 2, 7), (4, 3, 7))
    """

    tying = ByPixel
    kernel: nnx.Param


class LocallyConnected(Layer):
    r"""Locally connected layer: a separate kernel at every output position.

    $$H_{ijd} = \sum_{abc} V_{ijabcd} X_{i+a,\,j+b,\,c} + u_{ijd}$$

    The fan-in of every kernel is that of one window. A tap that reads padding at its position is dead: its weight has no
    effect, starts at zero and stays there (see `Window.live`). The other arguments are those of `Conv`.

    Args:
      space: The number of input pixels along each spatial axis.
      tied_noise: The noise between positions. If None, kernels are independent. Otherwise they start as one common kernel
        plus noise of this relative size.

    Example:
      >>> layer = LocallyConnected(2, 7, (3, 3), space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 8, 6, 2))).shape
      ((8, 6, 3, 3, 2, 7), (5, 8, 6, 7))
    """

    tying = Untied
    kernel: nnx.Param


class Tiled(Layer):
    r"""Tiled layer: kernels repeat every `period` positions.

    $$H_{ijd} = \sum_{abc} V_{i \bmod p,\, j \bmod q,\, abcd} X_{i+a,\,j+b,\,c} + u_d$$

    The other arguments are those of `Conv`.

    Args:
      period: The number of positions along each side of a tile, an int or one per axis.
      tied_noise: The noise between positions. If None, kernels are independent. Otherwise they start as one common kernel
        plus noise of this relative size.

    Example:
      >>> Tiled(2, 7, (3, 3), period=2, rngs=nnx.Rngs(0)).kernel.shape
      (2, 2, 3, 3, 2, 7)
    """

    tying = Periodic
    kernel: nnx.Param


class LowRank(Layer):
    r"""Low-rank layer: every position mixes the same few kernels with its own weights.

    $$H_{ijd} = \sum_r w_{ijr} \sum_{abc} U_{rabcd} X_{i+a,\,j+b,\,c} + u_d$$

    The mixing weights of each position start as a random unit vector, so that its kernel has a convolution's variance. The
    other arguments are those of `Conv`.

    Args:
      space: The number of input pixels along each spatial axis.
      rank: The number of kernels.
      tied_noise: The noise between positions. If None, mixing weights are independent. Otherwise they start equal at all
        positions plus noise of this relative size.

    Example:
      >>> layer = LowRank(2, 7, (3, 3), rank=4, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.basis.shape, layer.weights.shape
      ((4, 3, 3, 2, 7), (8, 6, 4))
    """

    tying = Mixed
    basis: nnx.Param
    weights: nnx.Param


class Conv(Layer):
    r"""Convolution, a drop-in for `flax.nnx.Conv`: one kernel for all positions.

    $$H_{ijd} = \sum_{abc} V_{abcd} X_{i+a,\,j+b,\,c} + u_d$$

    Names, arrays and outputs are those of Flax.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The number of taps along each axis. An int means one spatial axis, as in Flax, or one size for all axes
        of `space`. A `Window` also sets strides, padding and dilation.
      strides: The distance between neighbouring outputs in pixels.
      padding: The padding, as in `Window`.
      kernel_dilation: The distance between neighbouring taps in pixels.
      feature_group_count: The number of groups of channels without connections between them.
      use_bias: False, "channel" (one number per output channel), "position" (one per position and channel, needs `space`),
        or True: "position" for dense and locally connected layers, "channel" for the others.
      space: The number of input pixels along each spatial axis. Required if an array differs by position.
      dtype: The dtype of the computation. If None, the common dtype of the input and the arrays.
      param_dtype: The dtype of the arrays.
      precision: The precision of the multiplications, as in `jax.lax`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      kernel_init: The initializer of one kernel.
      bias_init: The initializer of the bias.
      rngs: The random streams, of which `params` is used.

    Raises:
      ValueError: A value is missing, unknown, out of range or not supported by this rung.
      TypeError: A size is not an integer.

    Example:
      >>> layer = Conv(2, 7, (3, 3), strides=2, padding="CIRCULAR", rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 8, 6, 2))).shape
      ((3, 3, 2, 7), (5, 4, 3, 7))
    """

    tying = Shared
    kernel: nnx.Param


class Symmetric(Layer):
    r"""One kernel for all positions that is invariant under flips and quarter turns.

    $$H_{ijd} = \sum_{abc} U_{o(a,b),\,cd} X_{i+a,\,j+b,\,c} + u_d$$

    where o(a, b) numbers the orbit of tap (a, b). Axes whose windows have the same size, stride, dilation and padding are
    tied to each other, so a 3x5 kernel is invariant under flips only. The layer commutes with the symmetries if its output positions lie
    symmetrically on the image. At stride 1 they do for 3x3 kernels under "SAME" and for 4x4 kernels under "VALID". They do not
    for 4x4 kernels under "SAME".

    The arguments are those of `Conv`.

    Example:
      >>> layer = Symmetric(2, 7, (3, 3), rngs=nnx.Rngs(0))
      >>> x = nnx.initializers.normal()(nnx.Rngs(1).params(), (5, 8, 8, 2))
      >>> layer.kernel.shape, bool(jnp.allclose(layer(jnp.rot90(x, axes=(1, 2))), jnp.rot90(layer(x), axes=(1, 2)), atol=1e-6))
      ((3, 2, 7), True)
    """

    tying = rungs.Symmetric
    kernel: nnx.Param


WRITTEN = {layer.tying: layer for layer in (Dense, LocallyConnected, Tiled, LowRank, Conv, Symmetric)}
LAYERS: dict[str, type[Layer]] = {}
for _tying in RUNGS.values():  # a rung without a class above gets one under its tying's name
    _members = {"tying": _tying, "__doc__": _tying.__doc__, "__module__": __name__}
    LAYERS[_tying.name] = WRITTEN.get(_tying) or type(_tying.__name__, (Layer,), _members)
    globals()[LAYERS[_tying.name].__name__] = LAYERS[_tying.name]


def spatial_layers(model: nnx.Module) -> dict[tuple[Any, ...], Layer]:
    """Return the spatial layers of a network, that is, its convlab layers, by path.

    Example:
      >>> list(spatial_layers(nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)))
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
