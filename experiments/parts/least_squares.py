"""Least squares at four rungs, in closed form, on what a linear teacher at any rung makes of images, and its predicted risk."""

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
RUNGS = ("dense", "locally_connected", "tiled", "conv")  # of the estimators


@dataclasses.dataclass(frozen=True)
class Problem:
    """The images, the targets, and the estimators' kernels.

    Args:
      space: Pixels along each axis.
      size: Taps of the window along each axis; zeros around the image.
      channels: Of images and of targets.
      period: Of the tiles.
      noise: Standard deviation, of targets of about 1.
      sizes: Training sets; a rung begins at the first that is larger than its weights by 4.
    """

    space: tuple[int, int] = (6, 6)
    size: int = 3
    channels: tuple[int, int] = (2, 3)
    period: int = 2
    noise: float = 1.0
    sizes: tuple[int, ...] = (2, 4, 8, 16, 24, 40, 80, 128, 256, 512, 1024)


def period(rung: str, config: Problem) -> tuple[int, int]:
    """Positions along each side of a tile, after which kernels come again: all of them where each has its own."""
    return {"locally_connected": config.space, "tiled": (config.period,) * 2, "conv": (1, 1)}[rung]


def place(rung: str, config: Problem) -> np.ndarray:
    """The group of every position, which share their weights."""
    (i, j), (high, wide) = np.indices(config.space), period(rung, config)
    return ((i % high) * wide + j % wide).reshape(-1)


def nearest(w: jax.Array, rung: str, config: Problem) -> jax.Array:
    """The matrix of a rung nearest to a dense one, (i, j, k, l, c, d)."""
    if rung == "dense":
        return w
    window = cl.Window((config.size,) * 2)
    local = cl.project_dense_to_local(w, window, config.space)
    return matrix(cl.project_local_to_tiled(local, window, config.space, period(rung, config)), config)


def matrix(v: jax.Array, config: Problem) -> jax.Array:
    """The dense matrix of a tiled kernel."""
    window = cl.Window((config.size,) * 2)
    return cl.lift_local_to_dense(cl.lift_tiled_to_local(v, window, config.space), window, config.space)


def teacher(rung: str, config: Problem, noise: float) -> tasks.Task:
    """One and the same of each rung, with more or less noise."""
    key = jax.random.key(TEACHERS.index(rung))
    window = cl.Window((config.size,) * 2)
    return tasks.linear_teacher(rung, config.space, window, config.channels, noise, key, period=config.period)


def truth(rung: str, config: Problem) -> jax.Array:
    """The matrix of a teacher: without noise, least squares finds it but for rounding."""
    x, y = teacher(rung, config, 0.0).sample(jax.random.key(0), 2 * math.prod(config.space) * config.channels[0])
    w, *_ = np.linalg.lstsq(np.reshape(x, (len(x), -1)), np.reshape(y, (len(x), -1)), rcond=None)
    w = w.reshape(*config.space, config.channels[0], *config.space, config.channels[1])
    return jnp.asarray(np.moveaxis(w, (3, 4), (0, 1)))


def learner(rung: str, config: Problem) -> Learn:
    """What takes sizes and seeds to the risks of all estimators; of sets too small for one it is not a number, or any."""
    task, w = teacher(rung, config, config.noise), truth(rung, config)
    (c, d), window = config.channels, cl.Window((config.size,) * 2)

    def solve(gram: jax.Array, products: jax.Array) -> jax.Array:
        dead = jnp.diagonal(gram, axis1=-2, axis2=-1) == 0  # taps on padding alone, which keep a weight of zero
        return jnp.linalg.solve(gram + dead[..., None] * jnp.eye(gram.shape[-1]), products)

    def one(run: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        n, seed = run
        x, y = task.sample(jax.random.key(seed), max(config.sizes))
        x, y = (jnp.where((jnp.arange(len(array)) < n)[:, None, None, None], array, 0) for array in (x, y))
        flat, p = x.reshape(len(x), -1), cl.unfold(x, window).reshape(len(x), y[0, :, :, 0].size, -1)
        found = solve(flat.T @ flat, flat.T @ y.reshape(len(x), -1)).reshape(*config.space, c, *config.space, d)
        learnt = {"dense": jnp.moveaxis(found, (3, 4), (0, 1))}
        grams, products = jnp.einsum("nit,niu->itu", p, p), jnp.einsum("nit,nid->itd", p, y.reshape(*p.shape[:2], d))
        for freer in RUNGS[1:]:
            groups = place(freer, config)
            pooled = (jax.ops.segment_sum(each, groups, groups.max() + 1) for each in (grams, products))
            learnt[freer] = matrix(solve(*pooled).reshape(*period(freer, config), config.size, config.size, c, d), config)
        return {name: jnp.sum((each - w) ** 2) / (w.shape[0] * w.shape[1] * d) for name, each in learnt.items()}

    every = jax.jit(lambda sizes, seeds: jax.lax.map(one, (sizes, seeds)))
    return lambda sizes, seeds: jax.tree.map(np.asarray, every(jnp.asarray(sizes), jnp.asarray(seeds)))


def predicted(w: jax.Array, rung: str, n: Any, config: Problem) -> Any:
    """The risk of an estimator of a rung that learns the matrix w from n examples."""
    pixels = math.prod(w.shape[2:5])
    if rung == "dense":
        return config.noise**2 * pixels / (n - pixels - 1)
    apart = np.asarray(w - nearest(w, rung, config), float)
    reads = cl.Window((config.size,) * 2).reads(config.space)
    positions, c = reads.shape[0] * reads.shape[1], config.channels[0]
    apart, reads = apart.reshape(positions, -1, *config.channels), reads.reshape(positions, -1)
    noise = config.noise**2 + (apart**2).sum((1, 2))  # (position, d): what the rung cannot explain is noise to it
    groups, variance = place(rung, config), 0.0
    for group in range(groups.max() + 1):
        members, p, total = np.flatnonzero(groups == group), 0, 0.0
        for tap in reads.T:
            live = members[tap[members] >= 0]
            if len(live):
                across = apart[live][:, tap[live]]  # what output j misses of the pixel that i reads
                extra = np.einsum("jicd,ijcd->d", across, across)
                p, total = p + c, total + (c * noise[live].sum(0) + extra).mean() / len(live)
        variance = variance + total / (n - (p + 1) / len(members))
    return (apart**2).sum((1, 2)).mean() + variance / positions


def needed(learn: Learn, w: jax.Array, rung: str, config: Problem, target: float, seeds: int) -> Rows:
    """Examples to a risk of `target`, one row per seed, and where the predicted risk crosses it."""
    least, most = enough(rung, config), max(config.sizes)

    def score(sizes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return -learn(sizes, seeds)[rung]

    found = tasks.examples_needed(score, -target, range(seeds), least=least, most=most)
    sizes = np.geomspace(least, most, 10_000)
    crossing = float(np.interp(-target, -predicted(w, rung, sizes, config), sizes, right=math.inf))
    told = {"teacher": "conv", "rung": rung, "needed_predicted": crossing}
    return [told | {"seed": seed, "needed": n} for seed, n in enumerate(found.examples)]


def enough(rung: str, config: Problem) -> int:
    """The smallest training set whose risk has a variance: larger than the weights by 4."""
    if rung == "dense":
        return math.prod(config.space) * config.channels[0] + 4
    return -(-(config.size**2 * config.channels[0] + 4) // int(np.bincount(place(rung, config)).min()))
