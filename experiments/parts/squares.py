"""Networks of squared units on a circle, on every rung, and the products that they weight."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import tasks
from convlab.layers import connect

TAPS = 3  # the taps of a local window
LOCAL, SHARED = ("conv", "locally_connected"), ("conv", "global_conv")


class Squares(nnx.Module):
    """Units on a rung, squared and summed over positions.

    The read-out weights of half of the units start at 1, a vote for "positive", and those of the other half at -1.
    """

    def __init__(self, length: int, rung: str, units: int, rngs: nnx.Rngs):
        kind, taps = ("conv", length) if rung == "global_conv" else (rung, TAPS)  # a circle of n pixels has n offsets
        self.layer = connect(kind, 1, units, taps, padding="CIRCULAR", space=(length,), use_bias=False, rngs=rngs)
        self.weight = nnx.Param(jnp.where(jnp.arange(units) % 2, -1.0, 1.0))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        score = (self.layer(x) ** 2).sum(1) @ self.weight[...] / math.sqrt(x.shape[1]) + self.bias[...]
        return jnp.stack([-score, score], -1)


def products(x: np.ndarray, rung: str) -> np.ndarray:
    """Return the products of two pixels that have a coefficient on a rung.

    They are the products of pixels that one window sees, summed over positions if the kernel is shared.
    """
    signals = x[..., 0]
    n = signals.shape[1]
    by_offset = [signals * np.roll(signals, -offset, 1) for offset in range(TAPS if rung in LOCAL else n // 2 + 1)]
    if rung not in LOCAL:
        by_offset[-1] = by_offset[-1][:, : n // 2]  # at half the circle every pair occurs twice
    return np.stack([p.sum(1) for p in by_offset], 1) if rung in SHARED else np.concatenate(by_offset, 1)


def sayable(task: tasks.Task, rung: str, examples: int) -> tuple[int, float]:
    """Return the number of free coefficients of a rung, and their accuracy when fitted by least squares.

    They are fitted to `examples` random examples, and the accuracy is that on as many new ones.
    """
    x, y = map(np.asarray, jax.jit(task.sample, static_argnums=1)(jax.random.key(0), 2 * examples))
    seen = np.concatenate([products(x, rung), np.ones((2 * examples, 1), np.float32)], 1)
    weights, *_ = np.linalg.lstsq(seen[:examples], 2.0 * y[:examples] - 1, rcond=None)
    return seen.shape[1] - 1, float(np.mean((seen[examples:] @ weights > 0) == y[examples:]))
