r"""Composition and transposition of convolutions.

Two convolutions in sequence are one convolution, except near a padded border. Let s be strides, t dilations and p the padding
before the first pixel. Output i of the second convolution reads the intermediate image at $s_2 i + t_2 a_2 - p_2$. Position
$m$ of the intermediate image reads the input at $s_1 m + t_1 a_1 - p_1$. Together, output i reads the input at

$$s_1 s_2\, i + (s_1 t_2\, a_2 + t_1 a_1) - (s_1 p_2 + p_1)$$

So strides multiply, and the taps of the second kernel are $s_1 t_2$ pixels apart. Outside the intermediate image, the second
convolution reads padding, but a single kernel would read pixels of the input.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.algebra.offsets import AxisTaps, axis_taps, kernel_and_window
from convlab.geometry import Axis, Space, Window

EXACT = jax.lax.Precision.HIGHEST


def compose(
    first: Float[Array, "a b c m"],
    second: Float[Array, "e f m d"],
    window_first: Window,
    window_second: Window,
    *,
    space: Space | None = None,
) -> tuple[Float[Array, "g h c d"], Window]:
    r"""Write two convolutions in sequence as one convolution.

    $$V_{abcd} = \sum_{a_1 + a_2 = a,\; b_1 + b_2 = b} \sum_m U_{a_1 b_1 c m}\, W_{a_2 b_2 m d}$$

    The function is the same at all outputs without padding ("VALID") and on a torus ("CIRCULAR", if the stride of the first
    convolution divides the number of pixels). The same holds if the first convolution keeps every overlap ("FULL", "CAUSAL").
    With other zero padding, it is the same at the outputs that `is_composable` returns. Each axis can have its kind of padding.

    Args:
      first: The kernel of the convolution that reads the image.
      second: The kernel of the convolution that reads the output of the first.
      window_first: The pixels that each position of the first convolution reads.
      window_second: The positions of the first that each position of the second convolution reads.
      space: The number of input pixels along each spatial axis. Only needed for "SAME" with strides, where the padding depends
        on it.

    Returns:
      v: The kernel of the composition. With strides and dilations of 1, it has k1 + k2 - 1 taps along each axis. In general its
        dilation is the greatest common divisor of the distances between taps of both, and taps that neither reaches are zero.
        A "CIRCULAR" window of even size may need further zero taps, so that it is centred on its pixel.
      window: The window of the composition.

    Raises:
      ValueError: Kernels, windows or channels disagree, or a padding repeats pixels that are not those of the image ("REFLECT",
        "EDGE").
      TypeError: A kernel is neither floating nor complex.

    Example:
      >>> v, window = compose(jnp.ones((3, 1, 1)), jnp.ones((3, 1, 1)), Window(3), Window(3))
      >>> v.squeeze(), window.size, window.padding
      (Array([1., 2., 3., 2., 1.], dtype=float32), (5,), 'SAME')
    """
    first, ndim = check.kernel("first", first, spatial=1, others="c e")
    second, other = check.kernel("second", second, spatial=1, others="e d")
    check.equal_shapes("second has {} spatial axes", (other,), "first has {}", (ndim,))
    check.equal_shapes("second reads {} channels", second.shape[-2:-1], "first returns {}", first.shape[-1:])
    first, second = check.promote(first, second)
    window_first, window_second = _windows(window_first, window_second)
    axes_first = axis_taps(first, ndim, window_first, space)
    middle = None if space is None else window_first.output_shape(space)
    axes_second = axis_taps(second, ndim, window_second, middle)
    modes = _modes(axes_first, axes_second, window_first, window_second)
    axes = [_product(*both) for both in zip(axes_first, axes_second, modes, strict=True)]
    sizes = [axis.size for axis in axes]
    check.shape_fits("the kernel of window_first and window_second", *sizes, first.shape[-2], second.shape[-1])
    v = jnp.zeros((*(axis.size for axis in axes), first.shape[-2], second.shape[-1]), first.dtype)
    for taps in np.ndindex(*second.shape[:ndim]):
        where = tuple(map(_slice, taps, axes_first, axes_second, axes))
        v = v.at[where].add(jnp.matmul(first, second[taps], precision=EXACT))
    return kernel_and_window(v, axes)


def is_composable(window_first: Window, window_second: Window, space: Space) -> Bool[np.ndarray, "i j"]:
    r"""Find the output positions at which two convolutions equal their composition for all kernels.

    $$\forall a, b: \; (m, n) \text{ exists, or reads no pixel}, \qquad m = s_2 i + t_2 a - p_2, \quad n = s_2 j + t_2 b - p_2$$

    Here (m, n) is the position of the intermediate image that tap (a, b) of the second convolution reads at output (i, j).
    On a torus, all outputs are equal if the stride of the first convolution divides the number of pixels.

    The composition is that of `compose`. It differs at an output where the second convolution reads padding, but the first
    convolution, computed at that position, would read a pixel of the image.

    Args:
      window_first: The pixels that each position of the first convolution reads.
      window_second: The positions of the first that each position of the second convolution reads.
      space: The number of input pixels along each spatial axis.

    Returns:
      A boolean array with one entry per output position.

    Raises:
      ValueError: A window fits nowhere, or a padding repeats pixels that are not those of the image ("REFLECT", "EDGE").

    Example:
      >>> int((~is_composable(Window(3), Window(3), (12, 12))).sum())  # of 144
      44
    """
    window_first, window_second = _windows(window_first, window_second)
    first, second = window_first.axes(space), window_second.axes(window_first.output_shape(space))
    _modes(first, second, window_first, window_second)
    sees_pixel, differs = [], []  # per axis, by output
    for one, two in zip(first, second, strict=True):
        check.shape_fits("the pixels of window_first in window_second", two.outputs, two.size, one.size)
        i, a = np.arange(two.outputs)[:, None], np.arange(two.size)
        m = two.stride * i + two.dilation * a - two.low
        k = one.stride * m[..., None] + one.dilation * np.arange(one.size) - one.low
        sees_pixel.append(((k >= 0) & (k < one.pixels)).any((1, 2)) | (one.mode != "zero"))
        beyond = (m < 0) | (m >= one.outputs)
        if two.mode == "wrap":
            is_periodic = one.mode == "wrap" or one.reads.min() >= 0  # or it reads no padding
            differs.append(beyond.any(1) & (one.stride * one.outputs != one.pixels or not is_periodic))
        else:
            differs.append((beyond & ((k >= 0) & (k < one.pixels)).any(2)).any(1))
    check.shape_fits("the mask of space", *(len(outputs) for outputs in differs), len(differs), itemsize=1)
    masks = [[differs[r] if r == q else sees for q, sees in enumerate(sees_pixel)] for r in range(len(differs))]
    return ~np.any([functools.reduce(np.logical_and.outer, mask) for mask in masks], axis=0)


def flip(v: Float[Array, "a b c d"]) -> Float[Array, "a b c d"]:
    r"""Reverse a kernel along its spatial axes.

    $$V'_{abcd} = V_{A-1-a,\,B-1-b,\,cd}$$

    for a kernel of A x B taps.

    Cross-correlation with a kernel is mathematical convolution with the flipped kernel.

    Args:
      v: The kernel of a convolution.

    Raises:
      ValueError: `v` is not a kernel.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> flip(jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)).squeeze()
      Array([3., 2., 1.], dtype=float32)

    Reference: Zhang et al., Dive into Deep Learning, section 7.2.4.
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    return jnp.flip(v, range(ndim))


def adjoint(v: Float[Array, "a b c d"], window: Window) -> tuple[Float[Array, "a b d c"], Window]:
    r"""Return the convolution whose dense matrix is the conjugate transpose of that of a given one.

    $$\langle A x, y \rangle = \langle x, A^* y \rangle$$

    Its kernel is flipped and conjugated, with input and output channels exchanged.

    Args:
      v: The kernel of the convolution A.
      window: The pixels that each position reads. The stride must be 1. `convlab.conv_transpose` applies the transpose for
        every window.

    Returns:
      v: The kernel of the conjugate transpose.
      window: Its window. It pads by the window's extent minus 1, minus the padding of A. A negative number removes pixels.

    Raises:
      ValueError: The stride is not 1, or the padding repeats pixels ("REFLECT", "EDGE").
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> v, window = adjoint(jnp.ones((3, 2, 5)), Window(3, padding="VALID"))
      >>> v.shape, window.padding
      ((3, 5, 2), 'FULL')
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    check.taps("v", v.shape[:ndim], window)
    axes = axis_taps(v, ndim, window, None) if np.max(window.with_ndim(ndim).strides) == 1 else ()
    if not axes or any(axis.pads and axis.mode not in ("zero", "wrap") for axis in axes):
        raise ValueError(f"{window} has a transpose that is no convolution; needs stride 1 and zero or circular padding")
    turned = [axis._replace(low=axis.extent - 1 - axis.low, high=axis.extent - 1 - axis.high) for axis in axes]
    return kernel_and_window(jnp.conj(jnp.swapaxes(flip(v), -1, -2)), turned)


def _windows(first: Window, second: Window) -> tuple[Window, Window]:
    return check.window(first, "window_first"), check.window(second, "window_second")


def _modes(first: Sequence[AxisTaps | Axis], second: Sequence[AxisTaps | Axis], window: Window, other: Window) -> list[str]:
    """Return the padding mode of the composition along each axis.

    A window of one tap that reads no padding takes the mode of the other convolution. A first window that skips pixels does so
    only if the second pads with zeros.

    Raises:
      ValueError: What the two read outside their images is not what one convolution reads.
    """
    modes = []
    for axis, (one, two) in enumerate(zip(first, second, strict=True)):
        single = [taps.extent == 1 and taps.low == taps.high == 0 for taps in (one, two)]
        if single[1] or (one.mode == two.mode and one.mode in ("zero", "wrap")):
            modes.append(one.mode)
        elif single[0] and (one.stride == 1 or two.mode == "zero"):
            modes.append(two.mode)
        else:
            raise ValueError(
                f"{window} and then {other} is no convolution: outside the images they read {one.mode} and {two.mode} along"
                f" axis {axis}"
            )
    return modes


def _product(one: AxisTaps, two: AxisTaps, mode: str) -> AxisTaps:
    """Return the taps of two convolutions in sequence."""
    step = math.gcd(one.dilation * (one.size > 1), one.stride * two.dilation * (two.size > 1)) or 1
    size = (one.extent - 1 + one.stride * (two.extent - 1)) // step + 1
    low, high = one.stride * two.low + one.low, one.stride * two.high + one.high
    return AxisTaps(size, one.stride * two.stride, step, low, high, mode)


def _slice(tap: int, one: AxisTaps, two: AxisTaps, both: AxisTaps) -> slice:
    """Return the taps of the composition that one tap of the second kernel contributes to."""
    start = one.stride * two.dilation * tap // both.dilation
    step = one.dilation // both.dilation if one.size > 1 else 1
    return slice(start, start + step * (one.size - 1) + 1, step)
