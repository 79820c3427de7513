"""A network of one hidden layer of sigmoid units, dense, trained by plain gradient descent on new examples."""

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
    """How the network is trained.

    Args:
      units: The number of hidden units.
      scale: The standard deviation of what units make of an image at first, and of other first weights.
      learning_rate: The rate of the hidden layer. The read-out, whose gradient sums over the units, has it divided by their
        number.
      steps: The steps of gradient descent.
      batch_size: The new examples at each.
      looks: The times at which the network is measured, evenly spaced.
    """

    units: int = 40
    scale: float = 0.01
    learning_rate: float = 0.5
    steps: int = 40_000
    batch_size: int = 64
    looks: int = 20

    def start(self, seed: jax.Array, pixels: int) -> Parameters:
        """Draw the first weights: hidden weights (unit, pixel) and biases, and those of the read-out."""
        drawn = self.scale * jax.random.normal(jax.random.key(seed), (self.units, pixels + 2))
        w, b, v = jnp.split(drawn, (pixels, pixels + 1), 1)
        return {"w": w / math.sqrt(pixels), "b": b[:, 0], "v": v[:, 0], "c": jnp.zeros(())}


def network(parameters: Parameters, x: jax.Array) -> jax.Array:
    """Return the label that the units and their weighted sum make of images (n, pixels)."""
    return jax.nn.sigmoid(x @ parameters["w"].T + parameters["b"]) @ parameters["v"] + parameters["c"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def train(
    task: tasks.Task, config: Descent, measured: Callable[[Parameters], jax.Array], seed: jax.Array, parameters: Parameters
) -> tuple[Parameters, jax.Array, jax.Array]:
    """Train; return the network, and at every look what is measured and the error since the last on examples still unknown."""
    outer, inner = config.learning_rate / config.units, config.learning_rate
    rates = {"w": inner, "b": inner, "v": outer, "c": outer}

    def loss(parameters: Parameters, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        made = network(parameters, x)
        return jnp.mean((made - y) ** 2), jnp.mean((made > 0) != (y > 0))

    def step(parameters: Parameters, key: jax.Array) -> tuple[Parameters, jax.Array]:
        x, y = task.sample(key, config.batch_size)
        gradient, error = jax.grad(loss, has_aux=True)(parameters, x.reshape(len(x), -1), 2.0 * y - 1)
        return {name: parameters[name] - rates[name] * gradient[name] for name in rates}, error

    def look(parameters: Parameters, key: jax.Array) -> tuple[Parameters, tuple[jax.Array, jax.Array]]:
        parameters, errors = jax.lax.scan(step, parameters, jax.random.split(key, config.steps // config.looks))
        return parameters, (measured(parameters), errors.mean())

    key = jax.random.fold_in(jax.random.key(seed), 1)
    parameters, (found, error) = jax.lax.scan(look, parameters, jax.random.split(key, config.looks))
    return parameters, found, error
