r"""The transposes of the windowed layers, which map outputs back to pixels.

Each is the transpose A^T of the layer's dense matrix A, with the same kernel, window and groups. Upsampling layers and the
decoders of autoencoders use it. It is the layer's gradient with respect to the image, and costs as much:

$$\sum_{ijd} (A x)_{ijd} \, h_{ijd} = \sum_{klc} x_{klc} \, (A^\top h)_{klc}$$

For complex kernels this is the transpose without conjugation. The conjugated kernels give the adjoint.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Space, Window, as_space
from convlab.kernels.sharding import vary_alike
from convlab.ops.conv import conv
from convlab.ops.local import locally_connected
from convlab.ops.low_rank import low_rank
from convlab.ops.tiled import tiled


def conv_transpose(
    h: Float[Array, "*n i j d"],
    v: Float[Array, "a b c d"],
    window: Window | None = None,
    space: Space | None = None,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    implementation: str = "auto",
) -> Float[Array, "*n k l c"]:
    r"""Apply the transpose of a convolution, which adds a copy of the kernel at every position.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} V_{abcd} \, H_{ijd}$$

    Args:
      h: The outputs of the convolution, with any number of leading batch axes.
      v: The kernel of the convolution.
      window: The window of the convolution. `i + a` stands for the pixel that tap a of output i reads. If None, the window has
        the size of the kernel, stride 1 and padding "SAME".
      space: The number of pixels of the result along each spatial axis. With strides, images of several sizes have outputs of
        the same size. If None, the number is that of `Window.input_shape`.
      groups: The number of groups of channels.
      precision: The precision of the multiplications, as in `jax.lax`.
      implementation: The name of an algorithm, as in `conv`.

    Raises:
      ValueError: `h` does not have the positions or channels that the convolution has on `space`. Or an argument is out of
        range, as in `conv`.
      TypeError: `h` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_transpose(jnp.ones((2, 3, 7)), jnp.ones((3, 3, 2, 7)), Window(3, strides=2), (4, 5)).shape
      (4, 5, 2)

    Reference: Dumoulin and Visin 2016, A guide to convolution arithmetic for deep learning, chapter 4.
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    window = check.window_of("v", v.shape[:ndim], window)
    check.group_count(groups, v.shape[-1], "output channels of v")
    options = {"groups": groups, "precision": precision, "implementation": implementation}
    return transpose(conv, h, (v,), window, space, (v.shape[-2] * groups, v.shape[-1]), **options)


def locally_connected_transpose(
    h: Float[Array, "*n i j d"],
    v: Float[Array, "i j a b c d"],
    window: Window | None = None,
    space: Space | None = None,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    implementation: str = "auto",
) -> Float[Array, "*n k l c"]:
    r"""Apply the transpose of a locally connected layer, which adds the kernel of every position.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} V_{ijabcd} \, H_{ijd}$$

    `i + a` stands for the pixel that tap a of output i reads.

    Args:
      h: The outputs of the layer, with any number of leading batch axes.
      v: The kernels of the layer, one per position of `h`.
      window: The window of the layer. If None, the window has the size of the kernels, stride 1 and padding "SAME".
      space: The number of pixels of the result along each spatial axis. If None, the number is that of `Window.input_shape`.
      groups: The number of groups of channels.
      precision: The precision of the multiplications, as in `jax.lax`.
      implementation: The name of an algorithm, as in `locally_connected`.

    Raises:
      ValueError: `h` does not have the positions or channels that the layer has on `space`. Or an argument is out of range, as
        in `locally_connected`.
      TypeError: `h` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> locally_connected_transpose(jnp.ones((2, 3, 7)), jnp.ones((2, 3, 3, 3, 2, 7)), Window(3, strides=2), (4, 5)).shape
      (4, 5, 2)
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    window = check.window_of("v", v.shape[ndim : 2 * ndim], window)
    check.group_count(groups, v.shape[-1], "output channels of v")
    options = {"groups": groups, "precision": precision, "implementation": implementation}
    return transpose(locally_connected, h, (v,), window, space, (v.shape[-2] * groups, v.shape[-1]), **options)


def tiled_transpose(
    h: Float[Array, "*n i j d"],
    v: Float[Array, "p q a b c d"],
    window: Window | None = None,
    space: Space | None = None,
    *,
    precision: PrecisionLike = None,
    implementation: str = "auto",
) -> Float[Array, "*n k l c"]:
    r"""Apply the transpose of a tiled layer, whose kernels repeat with period (p, q).

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} V_{i \bmod p,\, j \bmod q,\, abcd} \, H_{ijd}$$

    `i + a` stands for the pixel that tap a of output i reads.

    Args:
      h: The outputs of the layer, with any number of leading batch axes.
      v: The kernels of the layer, one per position of a tile.
      window: The window of the layer. If None, the window has the size of the kernels, stride 1 and padding "SAME".
      space: The number of pixels of the result along each spatial axis. If None, the number is that of `Window.input_shape`.
      precision: The precision of the multiplications, as in `jax.lax`.
      implementation: The name of an algorithm, as in `conv`.

    Raises:
      ValueError: `h` does not have the positions or channels that the layer has on `space`. Or an argument is out of range, as
        in `tiled`.
      TypeError: `h` or `v` is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> tiled_transpose(jnp.ones((2, 3, 7)), jnp.ones((2, 1, 3, 3, 2, 7)), Window(3, strides=2), (4, 5)).shape
      (4, 5, 2)
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    window = check.window_of("v", v.shape[ndim : 2 * ndim], window)
    return transpose(tiled, h, (v,), window, space, v.shape[-2:], precision=precision, implementation=implementation)


def low_rank_transpose(
    h: Float[Array, "*n i j d"],
    basis: Float[Array, "r a b c d"],
    weights: Float[Array, "i j r"],
    window: Window | None = None,
    space: Space | None = None,
    *,
    precision: PrecisionLike = None,
    implementation: str = "auto",
) -> Float[Array, "*n k l c"]:
    r"""Apply the transpose of a low-rank layer, whose positions mix the kernels of a basis.

    $$X_{klc} = \sum_{ijabd :\, i + a = k,\, j + b = l} \, \sum_r w_{ijr} U_{rabcd} \, H_{ijd}$$

    `i + a` stands for the pixel that tap a of output i reads.

    Args:
      h: The outputs of the layer, with any number of leading batch axes.
      basis: The kernels that positions mix.
      weights: The weights of the kernels at each position of `h`.
      window: The window of the layer. If None, the window has the size of the kernels, stride 1 and padding "SAME".
      space: The number of pixels of the result along each spatial axis. If None, the number is that of `Window.input_shape`.
      precision: The precision of the multiplications, as in `jax.lax`.
      implementation: The name of an algorithm, as in `low_rank`.

    Raises:
      ValueError: `h` does not have the positions or channels that the layer has on `space`. Or an argument is out of range, as
        in `low_rank`.
      TypeError: An array is neither floating nor complex.

    Example:
      >>> import jax.numpy as jnp
      >>> arrays = jnp.ones((4, 3, 3, 2, 7)), jnp.ones((2, 3, 4))
      >>> low_rank_transpose(jnp.ones((2, 3, 7)), *arrays, Window(3, strides=2), (4, 5)).shape
      (4, 5, 2)
    """
    basis, ndim = check.kernel("basis", basis, spatial=1, others="r c d")
    window = check.window_of("basis", basis.shape[1 : 1 + ndim], window)
    arrays, options = (basis, check.inexact("weights", weights)), {"precision": precision, "implementation": implementation}
    return transpose(low_rank, h, arrays, window, space, basis.shape[-2:], **options)


def transpose(
    apply: Callable[..., Array],
    h: ArrayLike,
    arrays: Sequence[Array],
    window: Window,
    space: Space | None,
    channels: Sequence[int],
    **options: Any,
) -> Array:
    """Apply the transpose of a layer to its outputs. An eager call runs one program.

    Args:
      apply: The function of images, arrays and the keyword `window` that applies the layer. It is linear in the images.
      h: The outputs of the layer, (*n, i, j, d).
      arrays: The arrays of the layer.
      window: The window of the layer.
      space: The number of pixels of the result along each spatial axis. If None, the number is that of `Window.input_shape`.
      channels: The numbers of channels (c, d) of the layer's images and outputs.
      **options: Further keyword arguments of `apply`.

    Raises:
      ValueError: `h` does not have the positions or channels that the layer has on `space`.
      TypeError: `h` is neither floating nor complex.
    """
    h, positions = check.images(h, len(window.paddings), f"{window} has {len(window.paddings)} spatial axes", "h")
    space = window.input_shape(positions) if space is None else as_space(space)
    (c, d), outputs = channels, window.output_shape(space)
    check.equal_shapes("h has {} positions", positions, f"{window} on {space} pixels has {{}}", outputs)
    check.equal_shapes("h has {} channels", h.shape[-1:], "the layer has {} output channels", (d,))
    check.options(options.get("precision"))
    check.instance("implementation", options.get("implementation", "auto"), str, "the name of an algorithm")
    h, *operands = vary_alike(*check.promote(h, *arrays))
    shape = (*h.shape[: h.ndim - 1 - len(outputs)], *space, c)
    check.shape_fits("pixels of space", *shape, itemsize=h.dtype.itemsize)
    return _transpose(apply, shape, (("window", window), *options.items()), h, *operands)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _transpose(apply: Callable[..., Array], shape: Sequence[Any], options: Any, h: Array, *operands: Array) -> Array:
    """Apply the transpose of `apply` on images of a shape."""
    x = jnp.zeros_like(h, shape=shape)
    return jax.linear_transpose(lambda x: apply(x, *operands, **dict(options)), x)(h)[0]
