"""A dense network with one hidden layer of sigmoid units, trained by plain gradient descent."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convlab import tasks

Parameters = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Descent:
    """The training of the network.

    Args:
      units: The number of hidden units.
      scale: The initial standard deviation of the units' pre-activations, and of the other initial weights.
      learning_rate: The learning rate of the hidden layer. That of the read-out, whose gradient sums over the units, is divided
        by their number.
      steps: The number of steps of gradient descent.
      batch_size: The number of new examples per step.
      looks: The number of times that the network is measured, evenly spaced.
    """

    units: int = 40
    scale: float = 0.01
    learning_rate: float = 0.5
    steps: int = 40_000
    batch_size: int = 64
    looks: int = 20

    def start(self, seed: jax.Array, pixels: int) -> Parameters:
        """Draw the initial weights: hidden weights (unit, pixel) and biases, and those of the read-out."""
        drawn = self.scale * jax.random.normal(jax.random.key(seed), (self.units, pixels + 2))
        w, b, v = jnp.split(drawn, (pixels, pixels + 1), 1)
        return {"w": w / math.sqrt(pixels), "b": b[:, 0], "v": v[:, 0], "c": jnp.zeros(())}


def network(parameters: Parameters, x: jax.Array) -> jax.Array:
    """Return the output of the network for images (n, pixels). Its sign is the label."""
    return jax.nn.sigmoid(x @ parameters["w"].T + parameters["b"]) @ parameters["v"] + parameters["c"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def train(
    task: tasks.Task, config: Descent, measured: Callable[[Parameters], jax.Array], seed: jax.Array, parameters: Parameters
) -> tuple[Parameters, jax.Array, jax.Array]:
    """Train the network and measure it repeatedly.

    Returns:
      The trained parameters, the measurements, and the mean error between two measurements on examples not yet seen.
    """
    outer, inner = config.learning_rate / config.units, config.learning_rate
    rates = {"w": inner, "b": inner, "v": outer, "c": outer}

    def loss(parameters: Parameters, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = network(parameters, x)
        return jnp.mean((output - y) ** 2), jnp.mean((output > 0) != (y > 0))

    def step(parameters: Parameters, key: jax.Array) -> tuple[Parameters, jax.Array]:
        x, y = task.sample(key, config.batch_size)
        gradient, error = jax.grad(loss, has_aux=True)(parameters, x.reshape(len(x), -1), 2.0 * y - 1)
        return {name: parameters[name] - rates[name] * gradient[name] for name in rates}, error

    def look(parameters: Parameters, key: jax.Array) -> tuple[Parameters, tuple[jax.Array, jax.Array]]:
        parameters, errors = jax.lax.scan(step, parameters, jax.random.split(key, config.steps // config.looks))
        return parameters, (measured(parameters), errors.mean())

    key = jax.random.fold_in(jax.random.key(seed), 1)
    parameters, (measurements, error) = jax.lax.scan(look, parameters, jax.random.split(key, config.looks))
    return parameters, measurements, error
