"""Two tasks of learning theory, their networks, and the predicted numbers of examples."""

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
# the predicted number of examples, up to a factor and logarithms; if theory gives bounds, the lower and the upper one
THEORY: dict[str, tuple[Callable[[float, float, float], float], ...]] = {
    "conv": (lambda k, d, sigma: sigma**2 * (k + d),),
    "locally_connected": (lambda k, d, sigma: sigma**2 * k * d, lambda k, d, sigma: sigma**2 * k * (k + d)),
    "dense": (lambda k, d, sigma: sigma**2 * k**2 * d,),
}
HALVES = {"conv": 0.0, "locally_connected": 1.0, "dense": 2.0}  # the predicted exponents
PACE = 0.3  # the factor of a threshold's steps


@dataclasses.dataclass(frozen=True)
class Tasks:
    """The sizes of the tasks.

    Args:
      rungs: The rungs of the networks.
      patches: The values of k in the first task, with 8 pixels per patch.
      dense_patches: The values of k for the dense network, which needs too many examples for larger ones.
      pixels: The values of d in the first task, with 16 patches.
      noise: The standard deviations of the noise, with 16 patches of 8 pixels. The first is used when another number varies. A
        linear rule, which adds the noise of all patches, reaches the target at none of these sizes, but a threshold on each
        patch does.
      half: The values of d in the second task.
      dense_half: The values of d for the dense network.
      target: The accuracy to reach in each task.
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
    """One unit for each patch on a rung, a learnt soft threshold, and their sum.

    The sum is the score of "plus".

    The threshold's steps are reduced to a third. With the kernel's step size it would rise above all units before the kernel
    has learnt anything, and units below the threshold do not learn. This happened to three of eight convolutions on 8 patches
    of 4 pixels, with all examples.
    """

    def __init__(self, patches: int, pixels: int, rung: str, rngs: nnx.Rngs):
        self.layer = _layer(rung, patches * pixels, 1, pixels, rngs)
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        h, b = self.layer(x), PACE * self.bias[...]
        score = (nnx.relu(h - b) - nnx.relu(-h - b)).sum((1, 2))
        return jnp.stack([-score, score], -1)


class Energies(nnx.Module):
    """Two units per pixel on a rung, squared, summed over each half and weighted: the score of "first"."""

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
    """A task of one size on one rung.

    Settings that vary different numbers but have the same task have the same name.
    """

    name: str
    varied: str
    size: float
    rung: str
    task: tasks.Task
    build: Callable[[nnx.Rngs], nnx.Module]
    target: float
    law: tuple[int, int, float] | None = None


def settings(config: Tasks) -> Iterator[Setting]:
    """Yield all settings that are measured."""
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
            task = tasks.energy_comparison(half)
            build = functools.partial(Energies, half, rung)
            yield Setting(f"half {half}", HALF, half, rung, task, build, config.target[1])


@functools.cache  # used by the table and by the figure
def laws(config: Tasks) -> dict[tuple[str, str], dict[float, tuple[int, int, float] | None]]:
    """Return the patches, pixels and noise of every size of the first task, by varied number and rung.

    They are None for the second task.
    """
    sizes: dict[tuple[str, str], dict[float, tuple[int, int, float] | None]] = {}
    for case in settings(config):
        sizes.setdefault((case.varied, case.rung), {})[case.size] = case.law
    return sizes


@functools.cache
def best_threshold(k: int, sigma: float) -> float:
    """Return an upper bound: the accuracy of the best soft threshold.

    The threshold is applied to each patch's projection on the true signal, and the results are summed.
    """
    rng = np.random.default_rng(0)
    h = sigma * rng.standard_normal((20_000, k))
    h[:, 0] += 1
    scores = ((np.maximum(h - b, 0) - np.maximum(-h - b, 0)).sum(1) for b in np.arange(0, 1, 0.05))
    return max(float(np.mean(score > 0) + np.mean(score == 0) / 2) for score in scores)


def predicted(varied: str, rung: str, config: Tasks) -> list[float]:
    """Return the predicted exponents at these sizes, fitted in the same way as the measured ones."""
    if varied == HALF:
        return [HALVES[rung]]
    sizes = {size: numbers for size, numbers in laws(config)[varied, rung].items() if numbers}
    if len(sizes) < 2:
        return []
    return sorted(tasks.fit_power_law({size: [law(*n)] for size, n in sizes.items()}).exponent.mean for law in THEORY[rung])
