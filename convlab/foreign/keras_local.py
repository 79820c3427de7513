"""The kernels of Keras' locally connected layers in all three implementations."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import one_of
from convlab.geometry import Size, Space, Window, as_axes, as_integer, as_space

__all__ = ["from_keras_local", "keras_local_window", "to_keras_local"]

DATA_FORMATS = ("channels_last", "channels_first")


def keras_local_window(size: Size, strides: Size, padding: str, space: Space) -> Window:
    r"""Return the window of a Keras `LocallyConnected` layer, whose "same" is not a convolution's.

    $$p = \lfloor A / 2 \rfloor$$

    pixels of zeros come before the image, for A taps and any stride, and ceil(n / s) outputs after one another. A
    convolution with "same" has at most (A - 1) // 2 of them before the image if A is even or the stride exceeds 1.

    Args:
      size: The number of taps along each axis.
      strides: The distance between neighbouring outputs in pixels.
      padding: "valid" or "same", in capitals or not.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: The padding is another one, or a number is below 1.
      TypeError: A number is not an integer.

    Example:
      >>> keras_local_window(2, 1, "same", (5, 7)).padding
      ((1, 0), (1, 0))
    """
    space = as_space(space)
    sizes, steps = (as_axes(name, value, len(space)) for name, value in (("size", size), ("strides", strides)))
    one_of("padding", str(padding).lower(), ("valid", "same"))
    if padding.lower() == "valid":
        return Window(sizes, steps, "VALID")
    reach = [(math.ceil(n / s) - 1) * s + a for n, a, s in zip(space, sizes, steps, strict=True)]
    return Window(sizes, steps, tuple((a // 2, max(0, r - n - a // 2)) for n, a, r in zip(space, sizes, reach, strict=True)))


def from_keras_local(
    kernel: Float[Array, "..."],
    window: Window,
    space: Space,
    *,
    implementation: int = 1,
    data_format: str = "channels_last",
    out_features: int | None = None,
) -> Float[Array, "i j a b c d"]:
    r"""Read the kernel of Keras' `LocallyConnected1D/2D` in any of its three implementations.

    $$V_{ijabcd} = \begin{cases} K_{iJ + j,\, e,\, d} & \text{implementation 1} \\
                                 K_{p,\, o} & \text{implementation 2} \\
                                 K_{\#\{(o', p') < (o, p)\}} & \text{implementation 3} \end{cases}$$

    Here e numbers (a, b, c) row by row, and o numbers the outputs (i, j, d). The input of the entry has the number p of
    (k, l, c), where tap (a, b) of position (i, j) reads pixel (k, l). With channels first, they number (c, a, b), (d, i, j)
    and (c, k, l). So implementation 1 stores one matrix per position. Implementation 2 stores a dense matrix, whose other
    entries Keras masks. Implementation 3 stores the connected entries alone, ordered by output and then by input.

    Args:
      kernel: The kernel of a Keras layer: (ij, abc, d), (k, l, c, i, j, d) or (weights,), or with channels first
        (ij, cab, d), (c, k, l, d, i, j) or (weights,).
      window: The layer's window, as `keras_local_window` makes it.
      space: The number of input pixels along each spatial axis.
      implementation: The implementation of the Keras layer, 1, 2 or 3.
      data_format: The order of axes in Keras, "channels_last" or "channels_first".
      out_features: The number of output channels. Required by implementation 3, whose kernel has one axis.

    Raises:
      ValueError: The kernel has other pixels, positions or taps, or an argument is missing or unknown.
      TypeError: The kernel is neither floating nor complex.

    Example:
      >>> window = keras_local_window(3, 1, "valid", (4, 5))
      >>> from_keras_local(jnp.ones((2 * 3, 3 * 3 * 2, 7)), window, (4, 5)).shape
      (2, 3, 3, 3, 2, 7)
    """
    kernel = check.inexact("kernel", kernel)
    features = _features(kernel, window, space, implementation, data_format, out_features)
    numbers, shape = _numbers(window, space, features, implementation, data_format)
    check.equal_shapes(
        "kernel has shape {}", kernel.shape, f"implementation {implementation} on {space} pixels needs {{}}", shape
    )
    return jnp.where(numbers < 0, 0, jnp.ravel(kernel)[numbers])


def to_keras_local(
    v: Float[Array, "i j a b c d"],
    window: Window,
    space: Space,
    *,
    implementation: int = 1,
    data_format: str = "channels_last",
) -> Float[Array, "..."]:
    """Write a kernel for a Keras `LocallyConnected` layer, the inverse of `from_keras_local`.

    Weights that read zero padding are left out: Keras has none.

    Args:
      v: The kernels.
      window: The layer's window, as `keras_local_window` makes it.
      space: The number of input pixels along each spatial axis.
      implementation: The implementation of the Keras layer, 1, 2 or 3.
      data_format: The order of axes in Keras, "channels_last" or "channels_first".

    Raises:
      ValueError: `v` does not hold one kernel of this window per output position, or an argument is unknown.

    Example:
      >>> window = keras_local_window(3, 1, "valid", (4, 5))
      >>> to_keras_local(jnp.ones((2, 3, 3, 3, 2, 7)), window, (4, 5), implementation=2).shape
      (4, 5, 2, 2, 3, 7)
    """
    _check_form(implementation, data_format)
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    check.positions("v", v.shape[:ndim], check.window(window), space)
    check.taps("v", v.shape[ndim : 2 * ndim], window)
    numbers, shape = _numbers(window, space, v.shape[-2:], implementation, data_format)
    live = numbers >= 0
    written = jnp.zeros(math.prod(shape), v.dtype).at[numbers[live]].set(v[live])
    return written.reshape(shape)


def _features(
    kernel: Array, window: Window, space: Space, implementation: int, data_format: str, out_features: int | None
) -> tuple[int, int]:
    """Return the numbers of input and output channels of a Keras kernel."""
    _check_form(implementation, data_format)
    ndim = len(as_space(space))
    axes = {1: 3, 2: 2 * ndim + 2, 3: 1}[implementation]
    check.equal_shapes("kernel has {} axes", (kernel.ndim,), f"implementation {implementation} has {{}}", (axes,))
    last = data_format == "channels_last"
    if implementation == 2:
        return (kernel.shape[ndim], kernel.shape[-1]) if last else (kernel.shape[0], kernel.shape[ndim + 1])
    if implementation == 1:
        fused, out, per = kernel.shape[1], kernel.shape[-1], math.prod(check.window(window).taps(ndim))
        needs = f"whole windows of {window.taps(ndim)} taps need"
    else:
        if out_features is None:
            raise ValueError("out_features is missing: a kernel of implementation 3 has one axis, which does not show it")
        out = as_integer("out_features", out_features)
        fused, per = kernel.shape[0], out * int(check.window(window).live(space).sum())
        needs = f"{window} on {space} pixels with {out} output channels needs"
    if fused % per:
        raise ValueError(f"kernel fuses {fused} entries, but {needs} a multiple of {per}")
    return fused // per, out


def _numbers(
    window: Window, space: Space, features: Sequence[int], implementation: int, data_format: str
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the index of each entry (i, j, a, b, c, d) in the flat kernel of Keras, and its shape.

    The index is -1 for dead entries. The shape is that of the kernel before it is flattened.
    """
    space, (c, d), last = as_space(space), features, data_format == "channels_last"
    reads = window.reads(space)
    out, size = reads.shape[: len(space)], reads.shape[len(space) :]

    def fused(cells: np.ndarray, shape: tuple[int, ...], channels: np.ndarray) -> np.ndarray:
        return cells * channels.size + channels if last else channels * math.prod(shape) + cells

    pixel, channel = reads[..., None, None], np.arange(c)[:, None]
    position = np.arange(math.prod(out)).reshape(*out, *(1,) * (len(size) + 2))
    entry = fused(np.arange(math.prod(size)).reshape(*size, 1, 1), size, channel)
    inputs, outputs = fused(pixel, space, channel), fused(position, out, np.arange(d))
    live = np.broadcast_to(pixel >= 0, (*reads.shape, c, d))
    if implementation == 1:
        shape = (math.prod(out), math.prod(size) * c, d)
        numbers = (position * shape[1] + entry) * d + np.arange(d)
    elif implementation == 2:
        shape = (*space, c, *out, d) if last else (c, *space, d, *out)
        numbers = inputs * (math.prod(out) * d) + outputs
    else:
        shape = (int(live.sum()),)
        numbers = np.zeros(live.shape, int)
        numbers[live] = (outputs * (math.prod(space) * c) + inputs)[live].argsort().argsort()
    return np.where(live, numbers, -1), shape


def _check_form(implementation: int, data_format: str) -> None:
    if as_integer("implementation", implementation) > 3:
        raise ValueError(f"implementation must be 1, 2 or 3, got {implementation!r}")
    one_of("data_format", data_format, DATA_FORMATS)
