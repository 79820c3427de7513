"""One kernel as two smaller ones in a row, and what that leaves out."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab import check
from convlab.algebra.composition import EXACT
from convlab.geometry import Size, as_axes, as_integer


class Factors(NamedTuple):
    """Two kernels in a row that stand for one.

    Attributes:
      first: Kernel of the convolution that sees the image.
      second: Kernel of the one that sees what the first returns.
      residual: Norm of what they leave out, as a share of the kernel's; 0 of a kernel of zeros.
    """

    first: Float[Array, "a b c m"]
    second: Float[Array, "a b m d"]
    residual: Float[Array, ""]


def middle_width(size: Size, first: Size, second: Size, channels: int | tuple[int, int]) -> float:
    r"""Tell how many channels two convolutions in a row need between them to stand for every kernel of k1 + k2 - 1 taps.

    They have $K_1 c m + K_2 m d$ weights, of which $m^2$ are lost: an invertible matrix between the two changes nothing. The
    kernel has $K c d$. The least m that leaves as many is

    $$m = \tfrac12 \Big(K_1 c + K_2 d - \sqrt{(K_1 c + K_2 d)^2 - 4 K c d}\Big)$$

    3x3 of 2x2 twice: $(4 - \sqrt 7)\, c$. 5x5 of 3x3 twice: $(9 - \sqrt{56})\, c$. Counting bounds from below what a generic
    kernel needs. In two dimensions `factorise` finds the next whole number enough for 3x3 and 5x5; in one dimension and with
    one channel it is not: $1 + x^2$ is no product of real factors.

    Args:
      size: Taps of the kernel along each axis; an int means two axes.
      first: Taps of the first of the two.
      second: Taps of the second.
      channels: Input and output channels, or one number for both.

    Raises:
      ValueError: The taps are not k1 + k2 - 1 along each axis.
      TypeError: Not integers.

    Example:
      >>> round(middle_width(3, 2, 2, 1), 3), round(middle_width(5, 3, 3, 1), 3), middle_width(3, (3, 1), (1, 3), 7)
      (1.354, 1.517, 21.0)
    """
    given = {"size": size, "first": first, "second": second}
    rank = next((len(each) for each in given.values() if not isinstance(each, int)), 2)
    whole, one, two = (as_axes(name, each, rank) for name, each in given.items())
    check.agree("size is {}", whole, "first and second make together {} taps", _together(one, two))
    c, d = as_axes("channels", channels, 2)
    many = math.prod(one) * c + math.prod(two) * d
    return (many - math.sqrt(many**2 - 4 * math.prod(whole) * c * d)) / 2


def factorise(
    v: Float[Array, "a b c d"],
    sizes: tuple[Size, Size],
    width: int,
    key: jax.Array,
    *,
    steps: int = 300,
    tolerance: float = 0.0,
) -> Factors:
    r"""Find two smaller kernels, one after the other, that stand for a given one as nearly as can be found.

    $$\min_{U, W} \sum_{abcd} \Big(V_{abcd} - \sum_{a_1 + a_2 = a, b_1 + b_2 = b,\, m} U_{a_1 b_1 c m} W_{a_2 b_2 m d}\Big)^2$$

    at strides and dilations of 1, by Gauss-Newton steps of least norm, damped as by Levenberg and Marquardt, from a random
    start. From `middle_width` on the residual of a generic kernel of 3x3 or 5x5 is 0 to rounding (see there); below, it is
    that of a local minimum, which another key may undercut.

    Args:
      v: The kernel. One step solves for as many unknowns as it or its factors have entries: for some thousand, not millions.
      sizes: Taps of the first and of the second along each axis.
      width: Channels between the two.
      key: Draws the start; equal keys give equal factors.
      steps: At most so many.
      tolerance: Residual at which to stop; 0 stops where no step helps.

    Raises:
      ValueError: The taps are not k1 + k2 - 1 along each axis, or `width` is below 1.
      TypeError: `v` is not float32 or float64.

    Example:
      >>> v = jnp.array([1.0, 3.0, 2.0]).reshape(3, 1, 1)  # (1 + x) (1 + 2 x)
      >>> bool(factorise(v, (2, 2), 1, jax.random.key(0)).residual < 1e-5)
      True
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    if v.dtype.itemsize < 4:
        raise TypeError(f"v has dtype {v.dtype}, which is too coarse to be factored; cast it, e.g. v.astype('float32')")
    one, two = (as_axes(f"sizes[{number}]", size, rank) for number, size in enumerate(sizes))
    check.agree("v has {} taps", v.shape[:rank], "sizes make together {}", _together(one, two))
    width = as_integer("width", width)
    shapes = (*one, v.shape[-2], width), (*two, width, v.shape[-1])
    norm = jnp.linalg.norm(v)
    scale = jnp.where(norm == 0, 1, norm)  # of zeros nothing can be left out
    unknowns = jnp.concatenate(
        [jax.random.normal(k, (math.prod(shape),), v.dtype) for k, shape in zip(jax.random.split(key), shapes, strict=True)]
    )
    unknowns = unknowns / (v.size * width) ** 0.25  # so that what they make together is of norm 1 or so, as v is then
    unknowns, residual = _descend(unknowns, v / scale, shapes, steps, tolerance)
    first, second = _parts(unknowns, *shapes)
    return Factors(first * scale**0.5, second * scale**0.5, residual)


def _together(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    """Return the taps of two kernels in a row along each axis."""
    return tuple(a + b - 1 for a, b in zip(one, two, strict=True))


def _parts(unknowns: Array, one: tuple[int, ...], two: tuple[int, ...]) -> tuple[Array, Array]:
    cut = math.prod(one)
    return unknowns[:cut].reshape(one), unknowns[cut:].reshape(two)


def _meeting(one: tuple[int, ...], two: tuple[int, ...]) -> np.ndarray:
    """Which tap of the whole two taps make together: 0 or 1, (taps of the first, of the second, of the whole)."""
    each = [np.arange(a)[:, None] + np.arange(b) for a, b in zip(one, two, strict=True)]
    where = [(sums[..., None] == np.arange(sums.max() + 1)).astype(float) for sums in each]
    return functools.reduce(np.kron, where)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _descend(unknowns: Array, v: Array, shapes: tuple, steps: int, tolerance: ArrayLike) -> tuple[Array, Array]:
    """Take Gauss-Newton steps, damped ten times less after one that helped, ten times more after one that did not."""
    meeting = jnp.asarray(_meeting(shapes[0][:-2], shapes[1][:-2]), v.dtype)

    def rest(unknowns: Array) -> Array:
        first, second = (part.reshape(-1, *part.shape[-2:]) for part in _parts(unknowns, *shapes))
        seconds = jnp.einsum("pqt,qmd->ptmd", meeting, second, precision=EXACT)
        return (jnp.einsum("pcm,ptmd->tcd", first, seconds, precision=EXACT) - v.reshape(-1, *v.shape[-2:])).ravel()

    def step(state: tuple) -> tuple:
        number, unknowns, residual, damping = state
        r, j = rest(unknowns), jax.jacfwd(rest)(unknowns)
        if j.shape[0] <= j.shape[1]:
            change = j.T @ jnp.linalg.solve(j @ j.T + damping * jnp.eye(j.shape[0], dtype=v.dtype), r)
        else:
            change = jnp.linalg.solve(j.T @ j + damping * jnp.eye(j.shape[1], dtype=v.dtype), j.T @ r)
        new = unknowns - change
        left = jnp.linalg.norm(rest(new))
        better = left < residual
        new, left = jnp.where(better, new, unknowns), jnp.where(better, left, residual)
        return number + 1, new, left, jnp.clip(jnp.where(better, damping / 10, damping * 10), 1e-15, 1e15)

    def going(state: tuple) -> Array:
        number, _, residual, damping = state
        return (number < steps) & (residual > tolerance) & (damping < 1e6)

    start = (0, unknowns, jnp.linalg.norm(rest(unknowns)), jnp.ones((), v.dtype))
    _, unknowns, residual, _ = jax.lax.while_loop(going, step, start)
    return unknowns, residual
