"""Least squares on four rungs in closed form, its linear teachers, and its predicted risk."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import tasks
from experiments.shared.command import Rows

Learn = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
TEACHERS = ("dense", "locally_connected", "tiled", "low_rank", "conv")
RUNGS = ("dense", "locally_connected", "tiled", "conv")  # the rungs of the estimators


@dataclasses.dataclass(frozen=True)
class Problem:
    """The images, the targets, and the estimators' kernels.

    Args:
      space: The number of pixels along each axis.
      size: The number of taps of the window along each axis, with zero padding.
      channels: The numbers of channels of images and of targets.
      period: The period of the tiles.
      noise: The standard deviation of the noise. Targets have a standard deviation of about 1.
      sizes: The sizes of the training sets. A rung starts at the first size that exceeds its weights by 4.
    """

    space: tuple[int, int] = (6, 6)
    size: int = 3
    channels: tuple[int, int] = (2, 3)
    period: int = 2
    noise: float = 1.0
    sizes: tuple[int, ...] = (2, 4, 8, 16, 24, 40, 80, 128, 256, 512, 1024)


def period(rung: str, config: Problem) -> tuple[int, int]:
    """Return the period of the kernels along each axis, in positions."""
    return {"locally_connected": config.space, "tiled": (config.period,) * 2, "conv": (1, 1)}[rung]


def group_of(rung: str, config: Problem) -> np.ndarray:
    """Return the group of every position. Positions of a group share their weights."""
    (i, j), (high, wide) = np.indices(config.space), period(rung, config)
    return ((i % high) * wide + j % wide).reshape(-1)


def nearest(w: jax.Array, rung: str, config: Problem) -> jax.Array:
    """Return the matrix of a rung that is nearest to a dense one, (i, j, k, l, c, d)."""
    if rung == "dense":
        return w
    window = cl.Window((config.size,) * 2)
    local = cl.project_dense_to_local(w, window, config.space)
    return matrix(cl.project_local_to_tiled(local, window, config.space, period(rung, config)), config)


def matrix(v: jax.Array, config: Problem) -> jax.Array:
    """Return the dense matrix of a tiled kernel."""
    window = cl.Window((config.size,) * 2)
    return cl.lift_local_to_dense(cl.lift_tiled_to_local(v, window, config.space), window, config.space)


def teacher(rung: str, config: Problem, noise: float) -> tasks.Task:
    """Return the teacher of a rung with a given noise. Its weights are always the same."""
    key = jax.random.key(TEACHERS.index(rung))
    window = cl.Window((config.size,) * 2)
    return tasks.linear_teacher(rung, config.space, window, config.channels, noise, key, period=config.period)


def truth(rung: str, config: Problem) -> jax.Array:
    """Return the matrix of a teacher, by least squares on examples without noise."""
    x, y = teacher(rung, config, 0.0).sample(jax.random.key(0), 2 * math.prod(config.space) * config.channels[0])
    w, *_ = np.linalg.lstsq(np.reshape(x, (len(x), -1)), np.reshape(y, (len(x), -1)), rcond=None)
    w = w.reshape(*config.space, config.channels[0], *config.space, config.channels[1])
    return jnp.asarray(np.moveaxis(w, (3, 4), (0, 1)))


def learner(rung: str, config: Problem) -> Learn:
    """Return a function from sizes and seeds to the risks of all estimators.

    The risk of an estimator whose training set is too small is NaN or arbitrary.
    """
    task, w = teacher(rung, config, config.noise), truth(rung, config)
    (c, d), window = config.channels, cl.Window((config.size,) * 2)

    def solve(gram: jax.Array, products: jax.Array) -> jax.Array:
        dead = jnp.diagonal(gram, axis1=-2, axis2=-1) == 0  # taps that read padding at every position keep a weight of zero
        return jnp.linalg.solve(gram + dead[..., None] * jnp.eye(gram.shape[-1]), products)

    def one(run: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        n, seed = run
        x, y = task.sample(jax.random.key(seed), max(config.sizes))
        x, y = (jnp.where((jnp.arange(len(array)) < n)[:, None, None, None], array, 0) for array in (x, y))
        flat, p = x.reshape(len(x), -1), cl.unfold(x, window).reshape(len(x), y[0, :, :, 0].size, -1)
        dense = solve(flat.T @ flat, flat.T @ y.reshape(len(x), -1)).reshape(*config.space, c, *config.space, d)
        learnt = {"dense": jnp.moveaxis(dense, (3, 4), (0, 1))}
        grams, products = jnp.einsum("nit,niu->itu", p, p), jnp.einsum("nit,nid->itd", p, y.reshape(*p.shape[:2], d))
        for estimator in RUNGS[1:]:
            groups = group_of(estimator, config)
            pooled = (jax.ops.segment_sum(terms, groups, groups.max() + 1) for terms in (grams, products))
            learnt[estimator] = matrix(
                solve(*pooled).reshape(*period(estimator, config), config.size, config.size, c, d), config
            )
        return {name: jnp.sum((learnt_w - w) ** 2) / (w.shape[0] * w.shape[1] * d) for name, learnt_w in learnt.items()}

    risks = jax.jit(lambda sizes, seeds: jax.lax.map(one, (sizes, seeds)))
    return lambda sizes, seeds: jax.tree.map(np.asarray, risks(jnp.asarray(sizes), jnp.asarray(seeds)))


def predicted(w: jax.Array, rung: str, n: Any, config: Problem) -> Any:
    """Predict the risk of an estimator of a rung that learns the matrix w from n examples."""
    pixels = math.prod(w.shape[2:5])
    if rung == "dense":
        return config.noise**2 * pixels / (n - pixels - 1)
    apart = np.asarray(w - nearest(w, rung, config), float)
    reads = cl.Window((config.size,) * 2).reads(config.space)
    positions, c = reads.shape[0] * reads.shape[1], config.channels[0]
    apart, reads = apart.reshape(positions, -1, *config.channels), reads.reshape(positions, -1)
    noise = config.noise**2 + (apart**2).sum((1, 2))  # (position, d): the part outside the rung acts as noise
    groups, variance = group_of(rung, config), 0.0
    for group in range(groups.max() + 1):
        members, p, total = np.flatnonzero(groups == group), 0, 0.0
        for tap in reads.T:
            live = members[tap[members] >= 0]
            if len(live):
                across = apart[live][:, tap[live]]  # the residual weight of output j from the pixel that i reads
                extra = np.einsum("jicd,ijcd->d", across, across)
                p, total = p + c, total + (c * noise[live].sum(0) + extra).mean() / len(live)
        variance = variance + total / (n - (p + 1) / len(members))
    return (apart**2).sum((1, 2)).mean() + variance / positions


def needed(learn: Learn, w: jax.Array, rung: str, config: Problem, target: float, seeds: int) -> Rows:
    """Return the examples needed for a risk of `target`, one row per seed, with the predicted number."""
    least, most = enough(rung, config), max(config.sizes)

    def score(sizes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return -learn(sizes, seeds)[rung]

    complexity = tasks.examples_needed(score, -target, range(seeds), min_examples=least, max_examples=most)
    sizes = np.geomspace(least, most, 10_000)
    crossing = float(np.interp(-target, -predicted(w, rung, sizes, config), sizes, right=math.inf))
    labels = {"teacher": "conv", "rung": rung, "examples_needed_predicted": crossing}
    return [labels | {"seed": seed, "examples_needed": n} for seed, n in enumerate(complexity.examples)]


def enough(rung: str, config: Problem) -> int:
    """Return the size of the smallest training set whose risk has a finite variance.

    It is 4 more than the number of weights.
    """
    if rung == "dense":
        return math.prod(config.space) * config.channels[0] + 4
    return -(-(config.size**2 * config.channels[0] + 4) // int(np.bincount(group_of(rung, config)).min()))
