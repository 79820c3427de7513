"""Factorisation of a kernel into two smaller kernels in sequence."""

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
from convlab.display import short_repr
from convlab.geometry import Size, as_axes, as_integer, as_size


class Factors(NamedTuple):
    """Two kernels in sequence that approximate one kernel.

    Attributes:
      first: The kernel of the convolution that reads the image.
      second: The kernel of the convolution that reads the output of the first.
      residual: The norm of the approximation error, relative to the norm of the kernel. It is 0 for a kernel of zeros.
    """

    first: Float[Array, "a b c m"]
    second: Float[Array, "a b m d"]
    residual: Float[Array, ""]

    __repr__ = short_repr


def middle_width(size: Size, first: Size, second: Size, channels: int | tuple[int, int]) -> float:
    r"""Return the least number of intermediate channels for a factorisation, by counting parameters.

    Two convolutions in sequence, with $K_1$ and $K_2$ taps and m channels between them, have $K_1 c m + K_2 m d$ weights. They
    have $m^2$ fewer degrees of freedom, since an invertible matrix and its inverse between the two change nothing. A kernel of
    K taps has $K c d$ weights. The least m with as many degrees of freedom is

    $$m = \tfrac12 \Big(K_1 c + K_2 d - \sqrt{(K_1 c + K_2 d)^2 - 4 K c d}\Big)$$

    For c = d, a 3x3 kernel as two 2x2 kernels needs $(4 - \sqrt 7)\, c$ channels. A 5x5 kernel as two 3x3 kernels needs
    $(9 - \sqrt{56})\, c$ channels. The count is a lower bound for a generic kernel. In two dimensions, `factorise` finds that
    the next integer is enough for 3x3 and 5x5. In one dimension and with one channel it is not enough: $1 + x^2$ is no product
    of real factors.

    Args:
      size: The number of taps of the kernel along each axis. An int means two axes.
      first: The number of taps of the first factor along each axis.
      second: The number of taps of the second factor along each axis.
      channels: The numbers of input and output channels, or one number for both.

    Raises:
      ValueError: `size` is not `first + second - 1` along each axis.
      TypeError: An argument is not an integer.

    Example:
      >>> round(middle_width(3, 2, 2, 1), 3), round(middle_width(5, 3, 3, 1), 3), middle_width(3, (3, 1), (1, 3), 7)
      (1.354, 1.517, 21.0)
    """
    sizes = {"size": size, "first": first, "second": second}
    checked = {name: as_size(name, taps) for name, taps in sizes.items()}
    ndim = next((len(taps) for taps in checked.values() if not isinstance(taps, int)), 2)
    product, one, two = (as_axes(name, taps, ndim) for name, taps in sizes.items())
    check.equal_shapes("size is {}", product, "first and second make together {} taps", _product_taps(one, two))
    c, d = as_axes("channels", channels, 2)
    weights_per_channel = math.prod(one) * c + math.prod(two) * d
    return (weights_per_channel - math.sqrt(weights_per_channel**2 - 4 * math.prod(product) * c * d)) / 2


def factorise(
    v: Float[Array, "a b c d"],
    sizes: tuple[Size, Size],
    width: int,
    key: jax.Array,
    *,
    steps: int = 300,
    tolerance: float = 0.0,
) -> Factors:
    r"""Approximate a kernel by two smaller kernels in sequence, in the least-squares sense.

    $$\min_{U, W} \sum_{abcd} \Big(V_{abcd} - \sum_{a_1 + a_2 = a, b_1 + b_2 = b,\, m} U_{a_1 b_1 c m} W_{a_2 b_2 m d}\Big)^2$$

    Strides and dilations are 1. The solver takes Gauss-Newton steps of least norm with Levenberg-Marquardt damping, from a
    random start. If `width` is at least `middle_width`, the residual of a generic 3x3 or 5x5 kernel is 0 up to rounding. For a
    smaller `width`, it is that of a local minimum, and another key may find a lower one.

    Args:
      v: The kernel. One step solves a linear system with as many unknowns as the kernel or its factors have entries, so it
        should have some thousand entries, not millions.
      sizes: The numbers of taps of the first and of the second kernel along each axis.
      width: The number of channels between the two.
      key: The key of the random start. Equal keys give equal factors.
      steps: The maximum number of steps.
      tolerance: The residual at which to stop. If 0, the solver stops when no step reduces the residual.

    Raises:
      ValueError: `v` does not have k1 + k2 - 1 taps along each axis for factors of k1 and k2 taps, or `width` is below 1.
      TypeError: `v` is not float32 or float64.

    Example:
      >>> v = jnp.array([1.0, 3.0, 2.0]).reshape(3, 1, 1)  # (1 + x) (1 + 2 x)
      >>> bool(factorise(v, (2, 2), 1, jax.random.key(0)).residual < 1e-5)
      True
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    check.real("v", v)
    if v.dtype.itemsize < 4:
        raise TypeError(f"v has dtype {v.dtype}, which is too coarse to be factored; cast it, e.g. v.astype('float32')")
    pair = check.sequence("sizes", sizes, "two sizes")
    if len(pair) != 2:
        raise ValueError(f"sizes must be those of two kernels, got {len(pair)}")
    one, two = (as_axes(f"sizes[{number}]", size, ndim) for number, size in enumerate(pair))
    check.key("key", key)
    tolerance = check.number("tolerance", tolerance)
    check.equal_shapes("v has {} taps", v.shape[:ndim], "sizes make together {}", _product_taps(one, two))
    width, steps = as_integer("width", width), as_integer("steps", steps, least=0)
    parameters = width * (math.prod(one) * v.shape[-2] + math.prod(two) * v.shape[-1])
    check.shape_fits("the linear system of width", parameters, min(parameters, v.size), itemsize=v.dtype.itemsize)
    shapes = (*one, v.shape[-2], width), (*two, width, v.shape[-1])
    norm = jnp.linalg.norm(v)
    scale = jnp.where(norm == 0, 1, norm)  # a kernel of zeros has the residual 0
    unknowns = jnp.concatenate(
        [jax.random.normal(k, (math.prod(shape),), v.dtype) for k, shape in zip(jax.random.split(key), shapes, strict=True)]
    )
    unknowns = unknowns / (v.size * width) ** 0.25  # the composition then has a norm of about 1, like v / scale
    unknowns, residual = _minimise(unknowns, v / scale, shapes, steps, tolerance)
    first, second = _split(unknowns, *shapes)
    return Factors(first * scale**0.5, second * scale**0.5, residual)


def _product_taps(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    """Return the taps of the composition of two kernels along each axis."""
    return tuple(a + b - 1 for a, b in zip(one, two, strict=True))


def _split(unknowns: Array, one: tuple[int, ...], two: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the two kernels that a vector of unknowns holds."""
    size = math.prod(one)
    return unknowns[:size].reshape(one), unknowns[size:].reshape(two)


def _tap_sums(one: tuple[int, ...], two: tuple[int, ...]) -> np.ndarray:
    """Return 1 where a tap of the first and one of the second add up to a tap of the composition, else 0.

    The shape is (taps of the first, taps of the second, taps of the composition), with flattened spatial axes.
    """
    sums = [np.arange(a)[:, None] + np.arange(b) for a, b in zip(one, two, strict=True)]
    indicators = [(taps[..., None] == np.arange(taps.max() + 1)).astype(float) for taps in sums]
    return functools.reduce(np.kron, indicators)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _minimise(unknowns: Array, v: Array, shapes: tuple, steps: int, tolerance: ArrayLike) -> tuple[Array, Array]:
    """Take Gauss-Newton steps with adaptive damping.

    The damping is divided by ten after a step that reduces the residual, and multiplied by ten after one that does not.
    """
    tap_sums = jnp.asarray(_tap_sums(shapes[0][:-2], shapes[1][:-2]), v.dtype)

    def error(unknowns: Array) -> Array:
        first, second = (part.reshape(-1, *part.shape[-2:]) for part in _split(unknowns, *shapes))
        seconds = jnp.einsum("pqt,qmd->ptmd", tap_sums, second, precision=EXACT)
        return (jnp.einsum("pcm,ptmd->tcd", first, seconds, precision=EXACT) - v.reshape(-1, *v.shape[-2:])).ravel()

    def step(state: tuple) -> tuple:
        number, unknowns, residual, damping = state
        r, j = error(unknowns), jax.jacfwd(error)(unknowns)
        if j.shape[0] <= j.shape[1]:
            change = j.T @ jnp.linalg.solve(j @ j.T + damping * jnp.eye(j.shape[0], dtype=v.dtype), r)
        else:
            change = jnp.linalg.solve(j.T @ j + damping * jnp.eye(j.shape[1], dtype=v.dtype), j.T @ r)
        new = unknowns - change
        new_residual = jnp.linalg.norm(error(new))
        better = new_residual < residual
        new, new_residual = jnp.where(better, new, unknowns), jnp.where(better, new_residual, residual)
        return number + 1, new, new_residual, jnp.clip(jnp.where(better, damping / 10, damping * 10), 1e-15, 1e15)

    def continues(state: tuple) -> Array:
        number, _, residual, damping = state
        return (number < steps) & (residual > tolerance) & (damping < 1e6)

    start = (0, unknowns, jnp.linalg.norm(error(unknowns)), jnp.ones((), v.dtype))
    _, unknowns, residual, _ = jax.lax.while_loop(continues, step, start)
    return unknowns, residual
