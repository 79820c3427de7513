"""Networks of squared units on a circle of pixels, at every rung, and the products of two pixels that they weigh."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import tasks
from convlab.layers import connect

TAPS = 3  # of a local window
LOCAL, SHARED = ("conv", "locally_connected"), ("conv", "global_conv")


class Squares(nnx.Module):
    """Units at the rung, squared and summed over positions; half of them begin as votes for "agree", half against."""

    def __init__(self, length: int, rung: str, units: int, rngs: nnx.Rngs):
        of, taps = ("conv", length) if rung == "global_conv" else (rung, TAPS)  # round a circle n offsets are all there are
        self.layer = connect(of, 1, units, taps, padding="CIRCULAR", space=(length,), use_bias=False, rngs=rngs)
        self.weight = nnx.Param(jnp.where(jnp.arange(units) % 2, -1.0, 1.0))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        score = (self.layer(x) ** 2).sum(1) @ self.weight[...] / math.sqrt(x.shape[1]) + self.bias[...]
        return jnp.stack([-score, score], -1)


def products(x: np.ndarray, rung: str) -> np.ndarray:
    """What a rung has a coefficient for: products of pixels that its window sees together, summed where kernels are shared."""
    signals = x[..., 0]
    n = signals.shape[1]
    each = [signals * np.roll(signals, -offset, 1) for offset in range(TAPS if rung in LOCAL else n // 2 + 1)]
    if rung not in LOCAL:
        each[-1] = each[-1][:, : n // 2]  # half the circle on, pairs come twice
    return np.stack([p.sum(1) for p in each], 1) if rung in SHARED else np.concatenate(each, 1)


def sayable(task: tasks.Task, rung: str, many: int) -> tuple[int, float]:
    """Coefficients that a rung leaves free, and their accuracy on new examples when fitted to many by least squares."""
    x, y = map(np.asarray, jax.jit(task.sample, static_argnums=1)(jax.random.key(0), 2 * many))
    seen = np.concatenate([products(x, rung), np.ones((2 * many, 1), np.float32)], 1)
    weights, *_ = np.linalg.lstsq(seen[:many], 2.0 * y[:many] - 1, rcond=None)
    return seen.shape[1] - 1, float(np.mean((seen[many:] @ weights > 0) == y[many:]))
