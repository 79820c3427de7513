"""Two tasks of theory, what it says of the examples that each rung needs, and the networks that it speaks of."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import tasks
from convlab.layers import connect

PATCHES, PIXELS, NOISE, HALF = "patches", "pixels", "noise", "half"
SIZES = {PATCHES: "k, patches of 8 pixels", PIXELS: "d, pixels of each of 16 patches", NOISE: "standard deviation of the noise"}
SIZES[HALF] = "d, pixels of each half"
# what theory says of the need, up to a factor and logarithms; where it gives bounds, the lower and the upper one
THEORY: dict[str, tuple[Callable[[float, float, float], float], ...]] = {
    "conv": (lambda k, d, sigma: sigma**2 * (k + d),),
    "locally_connected": (lambda k, d, sigma: sigma**2 * k * d, lambda k, d, sigma: sigma**2 * k * (k + d)),
    "dense": (lambda k, d, sigma: sigma**2 * k**2 * d,),
}
HALVES = {"conv": 0.0, "locally_connected": 1.0, "dense": 2.0}  # exponents that theory gives
PACE = 0.3  # of a threshold's steps


@dataclasses.dataclass(frozen=True)
class Tasks:
    """The sizes of the tasks.

    Args:
      rungs: Of the networks.
      patches: k of the first task, at 8 pixels.
      dense_patches: k for the dense network, which needs more examples than there are soon.
      pixels: d of the first task, at 16 patches.
      noise: Standard deviations, at 16 patches of 8 pixels; the first of them where another number varies. At none of these
        sizes does a linear rule, whose noise is that of all patches together, reach the target; a threshold on each patch does.
      half: d of the second task.
      dense_half: d for the dense network.
      target: Accuracy to reach, of each task.
    """

    rungs: tuple[str, ...] = ("conv", "locally_connected", "dense")
    patches: tuple[int, ...] = (16, 32, 64)
    dense_patches: tuple[int, ...] = (16, 20, 24)
    pixels: tuple[int, ...] = (4, 8, 16)
    noise: tuple[float, ...] = (0.18, 0.22, 0.26)
    half: tuple[int, ...] = (4, 8, 16, 32)
    dense_half: tuple[int, ...] = (4, 8, 16)
    target: tuple[float, float] = (0.94, 0.85)


class Thresholds(nnx.Module):
    """One unit for each patch at the rung, a soft threshold that is learnt, and their sum: the score of "plus".

    The threshold takes steps of a third: at the pace of the kernel it rises above all units before that has found anything,
    and what is below the threshold learns no more (of eight convolutions on 8 patches of 4 pixels, with all examples, three).
    """

    def __init__(self, patches: int, pixels: int, rung: str, rngs: nnx.Rngs):
        self.layer = _layer(rung, patches * pixels, 1, pixels, rngs)
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        h, b = self.layer(x), PACE * self.bias[...]
        score = (nnx.relu(h - b) - nnx.relu(-h - b)).sum((1, 2))
        return jnp.stack([-score, score], -1)


class Energies(nnx.Module):
    """Two units a pixel at the rung, squared, summed over each half, and weighed: the score of "first"."""

    def __init__(self, half: int, rung: str, rngs: nnx.Rngs):
        self.layer, self.half = _layer(rung, 2 * half, 2, 1, rngs), half
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (2, 2)) / math.sqrt(2))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        energy = (self.layer(x) ** 2).reshape(len(x), 2, self.half, 2).sum(2) / math.sqrt(self.half)
        score = (energy * self.weight[...]).sum((1, 2)) + self.bias[...]
        return jnp.stack([-score, score], -1)


def _layer(rung: str, length: int, units: int, taps: int, rngs: nnx.Rngs) -> nnx.Module:
    return connect(rung, 1, units, taps, taps, padding="VALID", space=(length,), use_bias=False, rngs=rngs)


class Setting(NamedTuple):
    """A task of one size, at one rung; of the same name where other numbers varied to the same task."""

    name: str
    varied: str
    size: float
    rung: str
    task: tasks.Task
    build: Callable[[nnx.Rngs], nnx.Module]
    target: float
    law: tuple[int, int, float] | None = None


def settings(config: Tasks) -> Iterator[Setting]:
    """All that is measured."""
    key = jax.random.key(0)
    for rung in config.rungs:
        dense, base = rung == "dense", config.noise[0]
        cases = [(PATCHES, k, (k, 8, base)) for k in (config.dense_patches if dense else config.patches)]
        cases += [] if dense else [(PIXELS, d, (16, d, base)) for d in config.pixels]
        cases += [] if dense else [(NOISE, sigma, (16, 8, sigma)) for sigma in config.noise]
        for varied, size, (k, d, sigma) in cases:
            task = tasks.random_patch(k, d, sigma, key)
            name, build = f"{k} patches {d} pixels {sigma:g}", functools.partial(Thresholds, k, d, rung)
            yield Setting(name, varied, size, rung, task, build, config.target[0], (k, d, sigma))
        for half in config.dense_half if dense else config.half:
            task = tasks.halves(half)
            build = functools.partial(Energies, half, rung)
            yield Setting(f"half {half}", HALF, half, rung, task, build, config.target[1])


@functools.cache  # the table and the figure ask for it
def laws(config: Tasks) -> dict[tuple[str, str], dict[float, tuple[int, int, float] | None]]:
    """Patches, pixels and noise of every size of the first task, by what was varied and rung; None of the second."""
    found: dict[tuple[str, str], dict[float, tuple[int, int, float] | None]] = {}
    for case in settings(config):
        found.setdefault((case.varied, case.rung), {})[case.size] = case.law
    return found


@functools.cache
def best_threshold(k: int, sigma: float) -> float:
    """Accuracy of the best rule that adds up what a threshold leaves of each patch, along the true signal: a ceiling."""
    rng = np.random.default_rng(0)
    h = sigma * rng.standard_normal((20_000, k))
    h[:, 0] += 1
    scores = ((np.maximum(h - b, 0) - np.maximum(-h - b, 0)).sum(1) for b in np.arange(0, 1, 0.05))
    return max(float(np.mean(score > 0) + np.mean(score == 0) / 2) for score in scores)


def predicted(varied: str, rung: str, config: Tasks) -> list[float]:
    """Exponents of what theory says at these sizes, fitted as those of what was measured are."""
    if varied == HALF:
        return [HALVES[rung]]
    sizes = {size: of for size, of in laws(config)[varied, rung].items() if of}
    if len(sizes) < 2:
        return []
    return sorted(tasks.slope({size: [law(*of)] for size, of in sizes.items()}).exponent.mean for law in THEORY[rung])
