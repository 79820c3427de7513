"""Students of every rank that fit a teacher of mixed kernels by least squares."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from convlab import measure, train
from convlab.layers import connect
from convlab.rungs import Layout
from experiments.shared.progress import track

TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The teachers and their students.

    Args:
      teacher_seeds: The number of runs, each with its own teacher, images and initial weights.
      teacher_ranks: The ranks of the students.
      rank: The rank of the teacher.
      common: The noise between the mixtures of the teacher's positions, relative to their common part.
      noise: The standard deviation of the noise on the teacher's outputs, whose standard deviation is about 1.
      space: The number of pixels of the Gaussian images along each axis.
      channels: The number of channels of these images, and of the teacher's outputs.
      size: The number of training images.
      teacher_steps: The number of full-batch steps of Adam.
      teacher_rate: The learning rate of Adam, which decays along a cosine.
    """

    teacher_seeds: int = 5
    teacher_ranks: tuple[int, ...] = (1, 2, 3, 4, 6, 9, 14, 20)
    rank: int = 2
    common: float = 1.0
    noise: float = 1.0
    space: tuple[int, ...] = (8, 8)
    channels: int = 2
    size: int = 40
    teacher_steps: int = 1000
    teacher_rate: float = 0.03


def free_rank(layout: Layout) -> int:
    """Return the rank of free kernels, the largest that a mixture can have."""
    return min(math.prod(layout.positions), math.prod(layout.kernel_shape))


@functools.partial(jax.jit, static_argnames=("apply", "steps", "rate"))
def least_squares(parameters: Any, x: jax.Array, y: jax.Array, *, apply: train.Apply, steps: int, rate: float) -> Any:
    """Fit a network to targets by full-batch Adam and return its parameters. (`fit` trains classifiers.)"""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def error(parameters):
        return jnp.mean((apply(parameters, {}, x, jax.random.key(0), True)[0] - y) ** 2)

    def step(carry, _):
        updates, state = optimizer.update(jax.grad(error)(carry[0]), carry[1])
        return (optax.apply_updates(carry[0], updates), state), None

    return lax.scan(step, (parameters, optimizer.init(parameters)), length=steps)[0][0]


def teach(config: Teaching) -> Iterator[dict[str, Any]]:
    """Train the students and yield one row of risk per student and seed.

    Each row also has the risk of predicting zero and the irreducible risk.
    """
    layer = functools.partial(
        connect, in_features=config.channels, out_features=config.channels, kernel_size=3, space=config.space, use_bias=False
    )
    students = [("conv", 1), *(("low_rank", rank) for rank in config.teacher_ranks), ("locally_connected", 0)]
    for (rung, rank), seed in track(itertools.product(students, range(config.teacher_seeds)), "students"):
        keys = jax.random.split(jax.random.key(seed), 4)
        teacher = layer("low_rank", rank=config.rank, tied_noise=config.common, rngs=nnx.Rngs(2 * seed))
        student = layer(rung, rank=rank or 1, rngs=nnx.Rngs(2 * seed + 1))
        shape = (*config.space, config.channels)
        x, x_test = jax.random.normal(keys[0], (config.size, *shape)), jax.random.normal(keys[1], (2000, *shape))
        y, y_test = (
            teacher(images) + config.noise * jax.random.normal(key, images.shape)
            for images, key in zip((x, x_test), keys[2:], strict=True)
        )
        apply, parameters, *_ = train.as_trainable(student, shape)
        parameters = least_squares(parameters, x, y, apply=apply, steps=config.teacher_steps, rate=config.teacher_rate)
        outputs = apply(parameters, {}, x_test, keys[0], False)[0]
        yield {
            "task": TEACHER,
            "network": rung,
            "rank": rank or free_rank(student.layout),
            "weights": measure.count_weights(student),
            "seed": seed,
            "risk": float(jnp.mean((outputs - y_test) ** 2)),
            "zero_risk": float(jnp.mean(y_test**2)),
            "noise_floor": float(jnp.mean((teacher(x_test) - y_test) ** 2)),
        }
