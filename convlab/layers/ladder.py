"""The layers of the other rungs than the convolution, and their transposes."""

from flax import nnx

from convlab import rungs
from convlab.layers.layer import Layer
from convlab.rungs import ByPixel, Mixed, Periodic, Untied


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
      >>> import jax.numpy as jnp
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


class Symmetric(Layer):
    r"""One kernel for all positions that is invariant under flips and quarter turns.

    $$H_{ijd} = \sum_{abc} U_{o(a,b),\,cd} X_{i+a,\,j+b,\,c} + u_d$$

    where o(a, b) numbers the orbit of tap (a, b). Axes whose windows have the same size, stride, dilation and padding are
    tied to each other, so a 3x5 kernel is invariant under flips only. The layer commutes with the symmetries if its output
    positions lie symmetrically on the image. At stride 1 they do for 3x3 kernels under "SAME" and for 4x4 kernels under
    "VALID". They do not for 4x4 kernels under "SAME".

    The arguments are those of `Conv`. `tied_noise` must be None, because all positions share one kernel.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = Symmetric(2, 7, (3, 3), rngs=nnx.Rngs(0))
      >>> x = nnx.initializers.normal()(nnx.Rngs(1).params(), (5, 8, 8, 2))
      >>> layer.kernel.shape, bool(jnp.allclose(layer(jnp.rot90(x, axes=(1, 2))), jnp.rot90(layer(x), axes=(1, 2)), atol=1e-6))
      ((3, 2, 7), True)
    """

    tying = rungs.Symmetric
    kernel: nnx.Param


class DenseTranspose(Layer):
    r"""Transpose of a fully connected layer: every input position adds its weights to every pixel.

    $$X_{klc} = \sum_{ijd} W_{ijklcd} H_{ijd} + u_{klc}$$

    The arguments are those of `LocallyConnectedTranspose`.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = DenseTranspose(7, 2, (3, 3), strides=2, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 4, 3, 7))).shape
      ((4, 3, 8, 6, 2, 7), (5, 8, 6, 2))
    """

    tying, transposed = ByPixel, True
    kernel: nnx.Param


class LocallyConnectedTranspose(Layer):
    r"""Transpose of a locally connected layer: every input position adds its own kernel.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} V_{ijabcd} H_{ijd} + u_{klc}$$

    It enlarges images by its strides. The kernel has the shape of that of the layer `LocallyConnected(out_features,
    in_features, ...)` of the same window, whose transpose it is. The other arguments are those of `LocallyConnected`.

    Args:
      in_features: The number of input channels d.
      out_features: The number of output channels c.
      padding: The padding of the layer that is transposed, as in `Window`.
      space: The number of pixels of the result along each spatial axis.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = LocallyConnectedTranspose(7, 2, (3, 3), strides=2, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 4, 3, 7))).shape
      ((4, 3, 3, 3, 2, 7), (5, 8, 6, 2))
    """

    tying, transposed = Untied, True
    kernel: nnx.Param


class TiledTranspose(Layer):
    r"""Transpose of a tiled layer: the kernels that input positions add repeat every `period` positions.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} V_{i \bmod p,\, j \bmod q,\, abcd} H_{ijd} + u_c$$

    The arguments are those of `Tiled` and `LocallyConnectedTranspose`. If `space` is None, the result has the size of
    `Window.input_shape`.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = TiledTranspose(7, 2, (3, 3), strides=2, period=2, rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 4, 3, 7))).shape
      ((2, 2, 3, 3, 2, 7), (5, 8, 6, 2))
    """

    tying, transposed = Periodic, True
    kernel: nnx.Param


class LowRankTranspose(Layer):
    r"""Transpose of a low-rank layer: every input position adds a mixture of the same few kernels.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} \, \sum_r w_{ijr} U_{rabcd} H_{ijd} + u_c$$

    The arguments are those of `LowRank` and `LocallyConnectedTranspose`.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = LowRankTranspose(7, 2, (3, 3), strides=2, rank=4, space=(8, 6), rngs=nnx.Rngs(0))
      >>> layer.basis.shape, layer.weights.shape, layer(jnp.ones((5, 4, 3, 7))).shape
      ((4, 3, 3, 2, 7), (4, 3, 4), (5, 8, 6, 2))
    """

    tying, transposed = Mixed, True
    basis: nnx.Param
    weights: nnx.Param


class SymmetricTranspose(Layer):
    r"""Transpose of a convolution whose kernel is invariant under flips and quarter turns.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} U_{o(a,b),\,cd} H_{ijd} + u_c$$

    The arguments are those of `Symmetric` and `LocallyConnectedTranspose`. If `space` is None, the result has the size of
    `Window.input_shape`.

    Example:
      >>> import jax.numpy as jnp
      >>> SymmetricTranspose(7, 2, (3, 3), strides=2, rngs=nnx.Rngs(0))(jnp.ones((5, 4, 3, 7))).shape
      (5, 8, 6, 2)
    """

    tying, transposed = rungs.Symmetric, True
    kernel: nnx.Param
