"""Checks of claims about pooling: equivalent operations, tolerance of shifts, aliasing, and detection."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import convlab as cl
from convlab import algebra, measure
from experiments.checks import Finding, apart, equal, normal, one

HALVING = cl.Window((2, 2), 2)
POOLS = {"max": cl.max_pool, "mean": cl.mean_pool, "blur": cl.blur_pool}
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jax.nn.tanh}


def mean_pooling_is_a_convolution(pool: str = "mean") -> Finding:
    """Compare pooling with a convolution of each channel with equal weights."""
    x = normal(8, 6, 3)
    h, conv = POOLS[pool](x, HALVING), cl.conv(x, jnp.full((2, 2, 1, 3), 1 / 4), HALVING, groups=3)
    return one(equal(h, conv), apart(h, conv))


def pooling_is_no_convolution(pool: str = "max") -> Finding:
    """Check whether pooling fails to be additive, as every convolution is: the largest difference."""
    x, y = normal(8, 6, 1), normal(8, 6, 1, seed=1)
    together, alone = POOLS[pool](x + y, HALVING), POOLS[pool](x, HALVING) + POOLS[pool](y, HALVING)
    number = apart(together, alone)
    return one(number > 1e-4, number)


def maxima_from_relus(activation: str = "relu") -> Finding:
    """Compare max(a, b) = relu(a - b) + b along rows, then columns, with 2 x 2 max pooling."""
    x = normal(8, 6, 2)
    positive = ACTIVATIONS[activation]
    rows = positive(x[::2] - x[1::2]) + x[1::2]
    h = positive(rows[:, ::2] - rows[:, 1::2]) + rows[:, 1::2]
    pooled = cl.max_pool(x, HALVING)
    return one(equal(h, pooled), apart(h, pooled))


def minimum_by(pool: str = "max") -> Finding:
    """Compare the minimum with a negated pooling of the negative image, by their largest difference.

    For max pooling this is the identity min(x) = -max(-x).
    """
    x = normal(8, 6, 2)
    least = x.reshape(4, 2, 3, 2, 2).min((1, 3))
    h = -POOLS[pool](-x, HALVING)
    return one(equal(h, least), apart(h, least))


def pooling_forgives_one_pixel(side: int = 16) -> Finding:
    """Move an edge by one pixel and check whether the same pooled response still sees it.

    Windows are two pixels wide. The number is the share of moves for pooling of stride 2.
    """
    edge = jnp.eye(side)[:, :, None]  # the response of the kernel to an edge at every place

    def still(stride: int) -> float:
        h = cl.max_pool(edge, cl.Window((2,), stride, padding="VALID"))[..., 0]
        return float((h[:-1] * h[1:]).any(1).mean())

    return Finding({f"the stride is {stride}": still(stride) == 1 for stride in (1, 2)}, still(2))


def pooling_aliases(pool: str = "max") -> Finding:
    """Measure the share of energy above the Nyquist frequency of every second sample, after pooling.

    The signal [0, 0, 1, 1, ...] has no such energy before pooling.
    """
    x = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), 4)[None, :, None]
    pooled, raw = (float(measure.aliased_energy(h, 2)) for h in (POOLS[pool](x, cl.Window((2,), 1, "CIRCULAR")), x))
    return one(pooled > 0.01 and raw < 1e-6, pooled)


SHAPES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {  # functions of the pixel's offset (i, j) from the centre
    "+": lambda i, j: (i == 0) | (j == 0),
    "x": lambda i, j: jnp.abs(i) == jnp.abs(j),
    "|": lambda i, j: (j == 0) & (i == i),
}


def crosses_light_up(shapes: str = "+x", side: int = 16, arm: int = 6) -> Finding:
    """Apply two small crosses as kernels, max pooling, and the crosses again to pictures of large crosses.

    The number counts the pictures whose largest response is unique, at the centre and in the channel of its kind. Every shape
    stands at an even and at an odd position along each axis, because pooling cuts it differently there.
    """
    v = jnp.concatenate([algebra.upright_cross(), algebra.diagonal_cross()], -1)
    holds = {}
    for kind, shape in enumerate(shapes):
        for row in (side // 2 - 1, side // 2):
            for column in (side // 2 - 1, side // 2):
                i, j = jnp.arange(side)[:, None] - row, jnp.arange(side)[None] - column
                picture = SHAPES[shape](i, j) & (jnp.maximum(jnp.abs(i), jnp.abs(j)) <= arm)
                pooled = cl.max_pool(cl.conv(picture[..., None].astype(float), v, cl.Window((3, 3))), HALVING)
                h = cl.conv(pooled, v, cl.Window((3, 3)), groups=2)
                holds[f"{shape} at {row}, {column}"] = jnp.argwhere(h == h.max()).tolist() == [[row // 2, column // 2, kind]]
    return Finding(holds, sum(holds.values()))
