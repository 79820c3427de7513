"""Checks that decide claims: each function tests one claim in several cases and measures a number.

A function's arguments describe the situation of the claim. With other arguments the same function tests another situation, such
as one in which the claim is known to be false. Weights and images are Gaussian and drawn from one seed for every check. Results
are compared up to rounding.
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
    """The cases in which a claim holds, and the number that it depends on."""

    holds: dict[str, bool]
    number: float

    @property
    def verdict(self) -> str:
        """The verdict: "true", "false", or "true if ..." with the cases in which the claim holds."""
        where = [case for case, holds in self.holds.items() if holds]
        return "true" if len(where) == len(self.holds) else f"true if {' or '.join(where)}" if where else "false"


def one(holds: bool, number: float) -> Finding:
    """Return the finding of a claim with a single case."""
    return Finding({"": bool(holds)}, number)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Draw Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def matrix(v: jax.Array, window: cl.Window, space: Sequence[int]) -> np.ndarray:
    """Return the dense matrix of a convolution, outputs by pixels."""
    w = cl.lift_conv_to_dense(v, window, tuple(space))
    ndim = len(space)
    w = jnp.moveaxis(w, -1, ndim)
    return np.asarray(w, float).reshape(math.prod(w.shape[: ndim + 1]), -1)


def equal(a: jax.Array, b: jax.Array) -> bool:
    """Return True if two results are equal up to rounding."""
    return a.shape == b.shape and bool(jnp.abs(a - b).max() < 1e-4 * (1 + jnp.abs(b).max()))


def apart(a: jax.Array, b: jax.Array) -> float:
    """Return the largest absolute difference of two results."""
    return float(jnp.abs(a - b).max())


def weights(build: Callable[[nnx.Rngs], nnx.Module]) -> int:
    """Count a network's parameters without allocating them."""
    model = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
