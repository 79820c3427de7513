"""What decides the claims: each function tries one claim in cases, says in which it holds, and gives the number it turns on.

A function's arguments are the situation that the claim is about; with others the same function decides another situation,
such as one in which the claim is known not to hold. Weights and images are Gaussian, drawn anew for every check from one
seed. Results are compared to rounding.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl


class Finding(NamedTuple):
    """In which cases a claim holds, and the number it turns on."""

    holds: dict[str, bool]
    number: float

    @property
    def verdict(self) -> str:
        """Whether it holds in all cases, in none, or in those named."""
        where = [case for case, holds in self.holds.items() if holds]
        return "true" if len(where) == len(self.holds) else f"true if {' or '.join(where)}" if where else "false"


def one(holds: bool, number: float) -> Finding:
    """A claim with a single case."""
    return Finding({"": bool(holds)}, number)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def matrix(v: jax.Array, window: cl.Window, space: Sequence[int]) -> np.ndarray:
    """The dense matrix of a convolution, outputs by pixels."""
    w = cl.lift_conv_to_dense(v, window, tuple(space))
    rank = len(space)
    w = jnp.moveaxis(w, -1, rank)
    return np.asarray(w, float).reshape(math.prod(w.shape[: rank + 1]), -1)


def equal(a: jax.Array, b: jax.Array) -> bool:
    """Whether two results are the same but for rounding."""
    return a.shape == b.shape and bool(jnp.abs(a - b).max() < 1e-4 * (1 + jnp.abs(b).max()))


def apart(a: jax.Array, b: jax.Array) -> float:
    """The largest difference of two results."""
    return float(jnp.abs(a - b).max())


def weights(build: Callable[[nnx.Rngs], nnx.Module]) -> int:
    """Count a network's parameters without making them."""
    model = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
