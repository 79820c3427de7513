"""Locality and sharing: one kernel for every output position."""

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Window
from convlab.ops.dense import dense
from convlab.unfold import extend, flatten_batch

LAYOUT = {rank: (f"N{s}C", f"{s}IO", f"N{s}C") for rank, s in ((1, "W"), (2, "HW"), (3, "DHW"))}


def conv(
    x: Float[Array, "*n k l c"],
    v: Float[Array, "a b c d"],
    window: Window,
    groups: int = 1,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply one kernel at every output position: the MLP after locality and weight sharing.

    $$H_{ijd} = \sum_{abc} V_{abcd} \, X_{i+a,\,j+b,\,c}$$

    This is cross-correlation, as in every deep-learning library.

    Args:
      x: Images, any number of leading batch axes.
      v: The kernel; with groups, c counts the channels of one group.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      groups: Groups of channels that do not see each other; output channels are split alike.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: "lax" (XLA's convolution), "toeplitz" (the dense matrix of the kernel; only where every position sees
        every pixel, else "lax"), or "auto": "toeplitz" where it can be, as it then does less arithmetic.

    Raises:
      ValueError: `v` is not a kernel of this window, channels disagree, or an unknown implementation.
      TypeError: `x` or `v` is not floating.

    Example:
      >>> conv(jnp.ones((4, 5, 2)), jnp.ones((3, 3, 2, 7)), Window(3, strides=2)).shape
      (2, 3, 7)

    Reference: Zhang et al., Dive into Deep Learning, equation 7.1.3.
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    x, space = check.images(x, rank, f"v of shape {v.shape} reads {rank} of them")
    axes = check.lay(window, space)
    check.taps("v", v.shape[:rank], window)
    check.channels(x, "v", v, groups)
    x, v = check.promote(x, v)
    if implementation not in ("auto", "lax", "toeplitz"):
        raise ValueError(f"implementation {implementation!r} is unknown; needs 'auto', 'lax' or 'toeplitz'")
    if implementation != "lax" and groups == 1 and all(map(_sees_everything, axes)):
        return dense(x, _toeplitz(v, axes), precision=precision, preferred_element_type=preferred_element_type)
    x, batch = flatten_batch(x, rank)
    h = slide(x, v, axes, groups, precision, preferred_element_type)
    return h.reshape(*batch, *h.shape[1:])


def _sees_everything(axis: Axis) -> bool:
    """Whether every output reads every pixel, each once: the window covers the image wherever it stands."""
    reach = axis.stride * (axis.outputs - 1)
    return axis.mode == "zero" and axis.dilation == 1 and reach <= axis.low and axis.low + axis.pixels <= axis.size


def _toeplitz(v: Array, axes: tuple[Axis, ...]) -> Array:
    """Write a kernel that sees everything as a dense weight: row i holds the slice of the kernel that lies on the image."""
    rank = len(axes)
    for r, axis in enumerate(axes):
        first = [axis.low - axis.stride * i for i in range(axis.outputs)]
        v = jnp.stack([lax.slice_in_dim(v, f, f + axis.pixels, axis=2 * r) for f in first], 2 * r)
    return v.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)


def slide(
    x: Array,
    v: Array,
    axes: tuple[Axis, ...],
    groups: int = 1,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Run `jax.lax`'s convolution over images with one batch axis, laid out by `axes`."""
    pads = [(axis.low, axis.high) for axis in axes]
    if axes[0].mode != "zero":
        x, pads = extend(x, axes, 1), [(0, 0)] * len(axes)
    return lax.conv_general_dilated(
        x,
        v,
        [axis.stride for axis in axes],
        pads,
        rhs_dilation=[axis.dilation for axis in axes],
        dimension_numbers=LAYOUT[len(axes)],
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
