r"""Two convolutions in a row are one, as far as the border lets them: its kernel, its window, and where it is the same.

Output i of the second reads the middle at $s_2 i + t_2 a_2 - p_2$, and that reads the image at $s_1 (\cdot) + t_1 a_1 - p_1$:

$$s_1 s_2\, i + (s_1 t_2\, a_2 + t_1 a_1) - (s_1 p_2 + p_1)$$

so strides multiply, and the taps of the second stand $s_1 t_2$ pixels apart. What the second reads beyond the middle image is
padding, where one kernel would read on.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.algebra.offsets import Reach, reach, settle
from convlab.geometry import Space, Window

EXACT = jax.lax.Precision.HIGHEST


def compose(
    first: Float[Array, "a b c m"],
    second: Float[Array, "e f m d"],
    window_first: Window,
    window_second: Window,
    *,
    space: Space | None = None,
) -> tuple[Float[Array, "g h c d"], Window]:
    r"""Write two convolutions in a row as one.

    $$V_{abcd} = \sum_{a_1 + a_2 = a,\; b_1 + b_2 = b} \sum_m U_{a_1 b_1 c m}\, W_{a_2 b_2 m d}$$

    The function is the same everywhere without padding ("VALID"), around a torus ("CIRCULAR", if the first's stride divides the
    pixels), and where the first keeps every overlap ("FULL", "CAUSAL"); with other zeros, where `composes` says so.

    Args:
      first: Kernel of the convolution that sees the image.
      second: Kernel of the one that sees what the first returns.
      window_first: Where the first reads.
      window_second: Where the second reads.
      space: Pixels of the image; needed only for "SAME" with strides, which pads by them.

    Returns:
      v: The kernel: k1 + k2 - 1 taps an axis at strides and dilations of 1. Its taps stand at the common divisor of those of
        both, zeros where none falls. "CIRCULAR" windows of even sizes get zeros before, as their taps do not lie around 0.
      window: Where it reads.

    Raises:
      ValueError: Kernels, windows and channels disagree, or what a padding repeats ("REFLECT", "EDGE") is not of the image.
      TypeError: A kernel is not floating.

    Example:
      >>> v, window = compose(jnp.ones((3, 1, 1)), jnp.ones((3, 1, 1)), Window(3), Window(3))
      >>> v.squeeze(), window.size, window.padding
      (Array([1., 2., 3., 2., 1.], dtype=float32), (5,), 'SAME')
    """
    first, rank = check.kernel("first", first, spatial=1, others="c e")
    second, other = check.kernel("second", second, spatial=1, others="e d")
    check.agree("second has {} spatial axes", (other,), "first has {}", (rank,))
    check.agree("second reads {} channels", second.shape[-2:-1], "first returns {}", first.shape[-1:])
    first, second = check.promote(first, second)
    ours, mode = reach(first, rank, window_first, space)
    middle = None if space is None else window_first.output_shape(space)
    theirs, outside = reach(second, rank, window_second, middle)
    mode = _mode((ours, mode, window_first), (theirs, outside, window_second))
    axes = [_product(one, two) for one, two in zip(ours, theirs, strict=True)]
    v = jnp.zeros((*(axis.size for axis in axes), first.shape[-2], second.shape[-1]), first.dtype)
    for taps in np.ndindex(*second.shape[:rank]):
        where = tuple(map(_places, taps, ours, theirs, axes))
        v = v.at[where].add(jnp.matmul(first, second[taps], precision=EXACT))
    return settle(v, axes, mode)


def composes(window_first: Window, window_second: Window, space: Space) -> Bool[np.ndarray, "i j"]:
    """Tell at which output positions two convolutions in a row equal the one that `compose` returns, whatever the kernels.

    Not where the second reads padding at a place at which the first, had it been asked, would have seen a pixel.

    Args:
      window_first: Where the first reads.
      window_second: Where the second reads.
      space: Pixels of the image.

    Raises:
      ValueError: A window fits nowhere.

    Example:
      >>> int((~composes(Window(3), Window(3), (12, 12))).sum())  # of 144
      44
    """
    axes = window_first.axes(space)
    sees, ghosts = [], []
    for one, two in zip(axes, window_second.axes(window_first.output_shape(space)), strict=True):
        i, a = np.arange(two.outputs)[:, None], np.arange(two.size)
        m = two.stride * i + two.dilation * a - two.low
        k = one.stride * m[..., None] + one.dilation * np.arange(one.size) - one.low
        sees.append(((k >= 0) & (k < one.pixels)).any((1, 2)) | (one.mode != "zero"))
        beyond = (m < 0) | (m >= one.outputs)
        if two.mode == "wrap":
            turns = one.mode == "wrap" or one.reads.min() >= 0  # reads nothing outside
            ghosts.append(beyond.any(1) & (one.stride * one.outputs != one.pixels or not turns))
        else:
            ghosts.append((beyond & ((k >= 0) & (k < one.pixels)).any(2)).any(1))
    others = [[ghost if r == q else see for q, see in enumerate(sees)] for r, ghost in enumerate(ghosts)]
    return ~np.any([functools.reduce(np.logical_and.outer, each) for each in others], axis=0)


def flip(v: Float[Array, "a b c d"]) -> Float[Array, "a b c d"]:
    r"""Turn a kernel round along its spatial axes: correlation with the one is convolution with the other.

    $$V'_{abcd} = V_{-a,\,-b,\,cd}$$

    Args:
      v: A kernel.

    Raises:
      ValueError: `v` is not a kernel.
      TypeError: `v` is not floating.

    Example:
      >>> flip(jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)).squeeze()
      Array([3., 2., 1.], dtype=float32)

    Reference: Zhang et al., Dive into Deep Learning, section 7.2.4.
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    return jnp.flip(v, range(rank))


def adjoint(v: Float[Array, "a b c d"], window: Window) -> tuple[Float[Array, "a b d c"], Window]:
    r"""Return the convolution whose dense matrix is the transpose: flipped, its channels exchanged.

    $$\langle A x, y \rangle = \langle x, A^\top y \rangle$$

    Args:
      v: A kernel.
      window: Where each position reads, at stride 1; pads by less than its extent.

    Returns:
      v: The kernel of the transpose.
      window: Where it reads: what the first left out at a border, it adds.

    Raises:
      ValueError: A stride, a padding that repeats pixels ("REFLECT", "EDGE") or is wider than the window.
      TypeError: `v` is not floating.

    Example:
      >>> v, window = adjoint(jnp.ones((3, 2, 5)), Window(3, padding="VALID"))
      >>> v.shape, window.padding
      ((3, 5, 2), 'FULL')
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    if np.max(window.of_rank(rank).strides) > 1 or window.padding in ("REFLECT", "EDGE"):
        raise ValueError(f"the transpose of {window} is no convolution; needs stride 1, and zeros or a torus outside")
    axes, mode = reach(v, rank, window, None)
    turned = [axis._replace(low=axis.extent - 1 - axis.low, high=axis.extent - 1 - axis.high) for axis in axes]
    if any(axis.low < 0 or axis.high < 0 for axis in turned):
        raise ValueError(f"{window} adds more pixels than it has; its transpose would have to cut some off")
    return settle(jnp.swapaxes(flip(v), -1, -2), turned, mode)


def _mode(first: tuple, second: tuple) -> str:
    """What lies outside the image for both together; a window of one tap that reads nothing outside leaves it to the other."""
    (ours, mode, window), (theirs, outside, other) = first, second
    if mode == outside and mode in ("zero", "wrap"):
        return mode
    if outside == "zero" and all(axis.extent == 1 and axis.low == axis.high == 0 for axis in theirs):
        return mode
    if mode == "zero" and all(axis[:3] == (1, 1, axis.step) and axis.low == axis.high == 0 for axis in ours):
        return outside
    raise ValueError(f"{window} and then {other} is no convolution: outside the images they read {mode} and {outside}")


def _product(one: Reach, two: Reach) -> Reach:
    """The reach of two convolutions in a row."""
    step = math.gcd(one.step * (one.size > 1), one.stride * two.step * (two.size > 1)) or 1
    size = (one.extent - 1 + one.stride * (two.extent - 1)) // step + 1
    low, high = one.stride * two.low + one.low, one.stride * two.high + one.high
    return Reach(size, one.stride * two.stride, step, low, high)


def _places(tap: int, one: Reach, two: Reach, both: Reach) -> slice:
    """Where the taps of the first fall, seen through one tap of the second."""
    start = one.stride * two.step * tap // both.step
    step = one.step // both.step if one.size > 1 else 1
    return slice(start, start + step * (one.size - 1) + 1, step)
