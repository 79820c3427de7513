"""The conventions of Flax's convolutions, for the layers that take their places."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window, as_axes
from convlab.kernels.convolution import dimension_numbers
from convlab.unfold import extend


def transposed_window(window: Window) -> Window:
    """Return the window of the convolution that a transposed convolution of Flax transposes.

    A padding given as numbers counts the zeros around the dilated input. The padding of the convolution is then dilation *
    (size - 1) minus these numbers. A padding given by name keeps its name.

    Args:
      window: The size, strides, dilation and padding of the transposed convolution.
    """
    paddings = []
    for extent, padding in zip(_extents(window), window.paddings, strict=True):
        paddings.append(padding if isinstance(padding, str) else (extent - 1 - padding[0], extent - 1 - padding[1]))
    return dataclasses.replace(window, padding=tuple(paddings))


def alignment(window: Window, transpose_kernel: bool) -> tuple[int, ...]:
    """Return the number of pixels by which Flax rolls a circular transposed convolution along each axis.

    Flax centres some windows otherwise than a convolution with "CIRCULAR" padding. Without such padding, the number is 0.

    Args:
      window: The window of the convolution.
      transpose_kernel: Whether the kernel is stored as that of the convolution.
    """
    strides, shifts = as_axes("strides", window.strides, len(window.paddings)), []
    for extent, stride, padding in zip(_extents(window), strides, window.paddings, strict=True):
        removed = (max(extent - stride, 0) + transpose_kernel) // 2
        shifts.append((extent - 1) // 2 - removed if padding == "CIRCULAR" else 0)
    return tuple(shifts)


def align(h: Float[Array, "*n k l c"], shifts: Sequence[int]) -> Float[Array, "*n k l c"]:
    """Roll the result of a transposed convolution by the numbers of `alignment`."""
    axes = [axis for axis, shift in enumerate(shifts) if shift]
    return jnp.roll(h, [shifts[axis] for axis in axes], [axis - 1 - len(shifts) for axis in axes]) if axes else h


def convolve(
    function: Callable[..., Array],
    x: Float[Array, "*n k l c"],
    kernel: Float[Array, "a b c d"],
    window: Window,
    input_dilation: Sequence[int],
    groups: int,
    precision: Any,
    **options: Any,
) -> Float[Array, "*n i j d"]:
    """Call a convolution function with the arguments that Flax gives to it.

    The batch axes are merged into one, and pixels that padding repeats are added beforehand.

    Args:
      function: The function, called as `jax.lax.conv_general_dilated`.
      x: The images.
      kernel: The kernel.
      window: The pixels that each position reads.
      input_dilation: The distance between neighbouring pixels along each axis, with zeros between them.
      groups: The number of groups of channels.
      precision: The precision of the multiplications.
      **options: Further arguments of the function, which are left out if they are None.

    Raises:
      ValueError: Padding repeats pixels of a dilated image, or the images have too few axes.
    """
    ndim = len(window.paddings)
    x, space = check.images(x, ndim, f"{window} has {ndim} spatial axes")
    batch = x.shape[: x.ndim - 1 - ndim]
    x = x.reshape(-1, *x.shape[x.ndim - 1 - ndim :])
    axes = window.axes(dilated(space, input_dilation))
    padding: Any = window.padding
    if not any(isinstance(entry, str) for entry in window.paddings):
        padding = [*window.paddings]
    elif max(input_dilation) > 1:
        if any(axis.mode != "zero" for axis in axes):
            raise ValueError(f"padding {padding!r} repeats pixels, which input_dilation {tuple(input_dilation)} moves apart")
        padding = [(axis.low, axis.high) for axis in axes]
    elif padding not in ("SAME", "SAME_LOWER", "VALID"):
        x, padding = extend(x, axes, 1), "VALID"
    h = function(
        x,
        kernel,
        window.strides,
        padding,
        lhs_dilation=tuple(input_dilation),
        rhs_dilation=window.dilation,
        dimension_numbers=dimension_numbers(ndim),
        feature_group_count=groups,
        precision=precision,
        **{name: value for name, value in options.items() if value is not None},
    )
    return h.reshape(*batch, *h.shape[1:])


def dilated(space: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Return the number of pixels along each axis of an image with zeros between its pixels.

    Example:
      >>> dilated((5, 4), (2, 3))
      (9, 10)
    """
    return tuple(step * (n - 1) + 1 for step, n in zip(dilation, space, strict=True))


@functools.partial(jax.jit, inline=True)  # one program for eager calls
def reversed_kernel(kernel: Float[Array, "a b d c"]) -> Float[Array, "a b c d"]:
    """Reverse the spatial axes of a kernel and exchange its channels."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -1, -2)


def _extents(window: Window) -> list[int]:
    """Return the number of pixels from the first tap to the last along each axis."""
    ndim = len(window.paddings)
    sizes, dilations = (as_axes(name, getattr(window, name), ndim) for name in ("size", "dilation"))
    return [dilation * (size - 1) + 1 for size, dilation in zip(sizes, dilations, strict=True)]
