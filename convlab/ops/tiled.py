"""Between local and shared: kernels that repeat every few positions."""

import itertools
import math

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Axis, Window
from convlab.kernels.trilinear import windowed
from convlab.unfold import extend


def tiled(
    x: Float[Array, "*n k l c"],
    v: Float[Array, "p q a b c d"],
    window: Window,
    *,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    implementation: str = "auto",
) -> Float[Array, "*n i j d"]:
    r"""Apply kernels that repeat with period (p, q): locally connected inside a tile, shared between tiles.

    $$H_{ijd} = \sum_{abc} V_{i \bmod p,\, j \bmod q,\, abcd} \, X_{i+a,\,j+b,\,c}$$

    Each of the p*q kernels convolves every p-th and q-th position, so the arithmetic is that of one convolution.

    Args:
      x: Images, any number of leading batch axes.
      v: One kernel per position in the tile; its first axes are the period.
      window: Where each position reads; with stride s, `i + a` stands for `s*i + a`.
      precision: Of the multiplications, as in `jax.lax`.
      preferred_element_type: Of the sums and the result, as in `jax.lax`.
      implementation: Of the convolutions, as in `conv`.

    Raises:
      ValueError: `v` does not hold kernels of this window, its period exceeds the positions, or channels disagree.
      TypeError: `x` or `v` is not floating.

    Example:
      >>> tiled(jnp.ones((4, 5, 2)), jnp.ones((2, 2, 3, 3, 2, 7)), Window(3)).shape
      (4, 5, 7)

    Reference: Le et al. 2010, Tiled convolutional neural networks.
    """
    v, rank = check.kernel("v", v, spatial=2, others="c d")
    x, space = check.images(x, rank, f"v of shape {v.shape} reads {rank} of them")
    axes = check.lay(window, space)
    period, positions = v.shape[:rank], window.output_shape(space)
    check.period(period, window, space)
    check.taps("v", v.shape[rank : 2 * rank], window)
    check.channels(x, "v", v)
    x, v = check.promote(x, v)

    batch = x.shape[: x.ndim - 1 - rank]
    x = extend(x.reshape(math.prod(batch), *space, x.shape[-1]), axes, 1)
    parts = []
    for tile in itertools.product(*map(range, period)):
        part, places = _every_pth(x, axes, period, tile)
        part = windowed(part, v[tile], places, 1, "conv", implementation, precision, preferred_element_type)
        short = [-(i // -p) - h for i, p, h in zip(positions, period, part.shape[1:-1], strict=True)]
        parts.append(jnp.pad(part, [(0, 0), *((0, s) for s in short), (0, 0)]))
    h = _interleave(jnp.stack(parts), period)
    h = h[:, *(slice(i) for i in positions)]
    return h.reshape(*batch, *h.shape[1:])


def _every_pth(x: Array, axes: tuple[Axis, ...], period: tuple[int, ...], tile: tuple[int, ...]):
    """Cut the extended images to what the positions of one tile place read, and say how to slide over it."""
    places = []
    for r, (axis, p, t) in enumerate(zip(axes, period, tile, strict=True)):
        outputs, first = -((axis.outputs - t) // -p), axis.stride * t
        place = axis._replace(outputs=outputs, stride=axis.stride * p, low=0, high=0, mode="zero")
        x = lax.slice_in_dim(x, first, first + place.reach, axis=1 + r)
        places.append(place._replace(pixels=place.reach))
    return x, tuple(places)


def _interleave(parts: Array, period: tuple[int, ...]) -> Array:
    """Weave (p*q, n, i/p, j/q, d) into (n, i, j, d)."""
    rank = len(period)
    parts = parts.reshape(*period, *parts.shape[1:])
    woven = [axis for r in range(rank) for axis in (rank + 1 + r, r)]
    h = parts.transpose(rank, *woven, 2 * rank + 1)
    return h.reshape(h.shape[0], *(p * h.shape[1 + 2 * r] for r, p in enumerate(period)), h.shape[-1])
