"""Read and write kernels of other libraries, which have the same numbers in another axis order.

Each pair of functions is a bijection on the weights that the other layer uses. Axes are named by the alphabet: positions i
j, pixels k l, taps a b, channels c d.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check
from convlab.convert import lift_local_to_dense, project_dense_to_local
from convlab.geometry import Space, Window, as_space

__all__ = [
    "from_keras_local_1",
    "from_keras_local_2",
    "from_linen_local",
    "from_torch",
    "to_keras_local_1",
    "to_keras_local_2",
    "to_linen_local",
    "to_torch",
]


def from_torch(kernel: Float[Array, "d c a b"]) -> Float[Array, "a b c d"]:
    """Read the `weight` of `torch.nn.Conv1d`, `Conv2d` or `Conv3d` (OIHW), grouped or not.

    $$V_{abcd} = K_{dcab}$$

    Raises:
      ValueError: The kernel has no spatial axis.

    Example:
      >>> from_torch(jnp.ones((7, 2, 3, 5))).shape
      (3, 5, 2, 7)
    """
    kernel, _ = check.kernel("kernel", kernel, spatial=1, others="d c")
    return jnp.moveaxis(kernel, (1, 0), (-2, -1))


def to_torch(v: Float[Array, "a b c d"]) -> Float[Array, "d c a b"]:
    """Write a kernel as the `weight` of a PyTorch convolution (OIHW).

    $$K_{dcab} = V_{abcd}$$

    Raises:
      ValueError: `v` has no spatial axis.

    Example:
      >>> to_torch(jnp.ones((3, 5, 2, 7))).shape
      (7, 2, 3, 5)
    """
    v, _ = check.kernel("v", v, spatial=1, others="c d")
    return jnp.moveaxis(v, (-1, -2), (0, 1))


def from_linen_local(kernel: Float[Array, "i j cab d"], window: Window) -> Float[Array, "i j a b c d"]:
    r"""Read the kernel of `flax.linen.ConvLocal`, which fuses channel and taps, channel first.

    $$V_{ijabcd} = K_{ij,\,(cA + a)B + b,\,d}$$

    for a kernel of A x B taps.

    Raises:
      ValueError: The fused axis does not hold whole windows.

    Example:
      >>> from_linen_local(jnp.ones((4, 5, 2 * 3 * 3, 7)), Window(3)).shape
      (4, 5, 3, 3, 2, 7)
    """
    kernel, ndim = check.kernel("kernel", kernel, spatial=1, others="cab d")
    size = window.taps(ndim)
    kernel = kernel.reshape(*kernel.shape[:ndim], _channels(kernel, size), *size, kernel.shape[-1])
    return jnp.moveaxis(kernel, ndim, -2)


def to_linen_local(v: Float[Array, "i j a b c d"]) -> Float[Array, "i j cab d"]:
    r"""Write a locally connected kernel in the layout of `flax.linen.ConvLocal`.

    $$K_{ij,\,(cA + a)B + b,\,d} = V_{ijabcd}$$

    for a kernel of A x B taps.

    Raises:
      ValueError: `v` is not a locally connected kernel.

    Example:
      >>> to_linen_local(jnp.ones((4, 5, 3, 3, 2, 7))).shape
      (4, 5, 18, 7)
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    return jnp.moveaxis(v, -2, ndim).reshape(*v.shape[:ndim], -1, v.shape[-1])


def from_keras_local_1(kernel: Float[Array, "ij abc d"], window: Window, space: Space) -> Float[Array, "i j a b c d"]:
    r"""Read the kernel of Keras' `LocallyConnected1D/2D(implementation=1)`.

    $$V_{ijabcd} = K_{iJ + j,\,(aB + b)C + c,\,d}$$

    for J positions along the second axis, a kernel of A x B taps, and C channels.

    Keras fuses the positions in one axis, and taps and channel in another.

    Args:
      kernel: The kernel of a Keras layer with channels last.
      window: The layer's window. Its padding is "VALID" in Keras.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: The fused axes do not hold the positions or whole windows.

    Example:
      >>> from_keras_local_1(jnp.ones((2 * 3, 3 * 3 * 2, 7)), Window(3, padding="VALID"), (4, 5)).shape
      (2, 3, 3, 3, 2, 7)
    """
    kernel = check.inexact("kernel", kernel)
    check.equal_shapes("kernel has {} axes", (kernel.ndim,), "positions, entries and d are {}", (3,))
    out, size = window.output_shape(space), window.taps(len(as_space(space)))
    check.equal_shapes("kernel holds {} positions", kernel.shape[:1], f"{window} on {space} pixels has {{}}", (math.prod(out),))
    return kernel.reshape(*out, *size, _channels(kernel, size), kernel.shape[-1])


def to_keras_local_1(v: Float[Array, "i j a b c d"]) -> Float[Array, "ij abc d"]:
    r"""Write a locally connected kernel for Keras' `LocallyConnected1D/2D(implementation=1)`.

    $$K_{iJ + j,\,(aB + b)C + c,\,d} = V_{ijabcd}$$

    for J positions along the second axis, a kernel of A x B taps, and C channels.

    Raises:
      ValueError: `v` is not a locally connected kernel.

    Example:
      >>> to_keras_local_1(jnp.ones((2, 3, 3, 3, 2, 7))).shape
      (6, 18, 7)
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    return v.reshape(math.prod(v.shape[:ndim]), -1, v.shape[-1])


def from_keras_local_2(kernel: Float[Array, "k l c i j d"], window: Window, space: Space) -> Float[Array, "i j a b c d"]:
    r"""Read the kernel of Keras' `LocallyConnected1D/2D(implementation=2)`, a masked dense weight.

    $$V_{ijabcd} = K_{klcijd}, \qquad \text{tap } (a, b) \text{ of position } (i, j) \text{ reads pixel } (k, l)$$

    Args:
      kernel: The dense weight of a Keras layer with channels last. Weights that its mask hides are dropped.
      window: The layer's window.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: The kernel has other pixels or positions.

    Example:
      >>> from_keras_local_2(jnp.ones((4, 5, 2, 2, 3, 7)), Window(3, padding="VALID"), (4, 5)).shape
      (2, 3, 3, 3, 2, 7)
    """
    kernel, ndim = check.kernel("kernel", kernel, spatial=2, others="c d")
    w = kernel.transpose(*range(ndim + 1, 2 * ndim + 1), *range(ndim + 1), 2 * ndim + 1)
    return project_dense_to_local(w, window, space)


def to_keras_local_2(v: Float[Array, "i j a b c d"], window: Window, space: Space) -> Float[Array, "k l c i j d"]:
    r"""Write a locally connected kernel for Keras' `LocallyConnected1D/2D(implementation=2)`.

    $$K_{klcijd} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{ijabcd}$$

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position.

    Example:
      >>> to_keras_local_2(jnp.ones((2, 3, 3, 3, 2, 7)), Window(3, padding="VALID"), (4, 5)).shape
      (4, 5, 2, 2, 3, 7)
    """
    w = lift_local_to_dense(v, window, space)
    ndim = len(as_space(space))
    return w.transpose(*range(ndim, 2 * ndim + 1), *range(ndim), 2 * ndim + 1)


def _channels(kernel: Array, size: tuple[int, ...]) -> int:
    """Return the number of channels that the fused axis of a kernel holds besides the taps."""
    fused, taps = kernel.shape[-2], math.prod(size)
    if fused % taps:
        raise ValueError(f"kernel fuses {fused} entries, but whole windows of {size} taps need a multiple of {taps}")
    return fused // taps
