"""The images, best rules and networks of the experiment on birds above and pigs below."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.scipy.special import logsumexp

import convlab as cl
from convlab import report, tasks
from convlab.layers import connect
from convlab.models import MLP
from convlab.train import make_learner

PATTERN = 3  # pixels of a pattern along each axis
KEY = jax.random.key(1)  # gives two patterns of equal norm, so that energy is no cue (the mean alone is right 57 % of the time)
CIRCULAR, ZERO, LOCAL, DENSE = "circular", "zero padded", "locally connected", "dense"
LINEAR = "linear"
LAYERS = {
    CIRCULAR: ("conv", "CIRCULAR"),
    ZERO: ("conv", "SAME"),
    LOCAL: ("locally_connected", "SAME"),
    DENSE: ("dense", "SAME"),
}
NETWORKS = (*LAYERS, LINEAR)
STYLES = {
    CIRCULAR: report.RUNG_STYLE["conv"]._replace(label="convolution, circular"),
    ZERO: report.RUNG_STYLE["tiled"]._replace(label="convolution, zero padding"),
    LOCAL: report.RUNG_STYLE["locally_connected"],
    DENSE: report.RUNG_STYLE["dense"],
    LINEAR: report.RUNG_STYLE["linear"]._replace(label="linear"),
}
WITH, WITHOUT = "best with place", "best without place"


@dataclasses.dataclass(frozen=True)
class Images:
    """The images, and the networks that are trained on them.

    Args:
      side: The number of pixels of an image along each axis, an even number.
      noise: The standard deviation of the noise of every pixel. Patterns have 1.
      many: The number of examples on which the best rules are evaluated.
      width: The number of channels.
      steps: The largest number of training steps.
      learning_rate: The learning rate of Adam.
    """

    side: int = 8
    noise: float = 0.8
    many: int = 20_000
    width: int = 8
    steps: int = 800
    learning_rate: float = 3e-3


class Pooled(nnx.Module):
    """Two layers on a rung, the maximum of every channel over all positions, and a linear read-out."""

    def __init__(self, network: str, side: int, width: int, rngs: nnx.Rngs):
        rung, padding = LAYERS[network]
        self.first = connect(rung, 1, width, 5, padding=padding, space=(side, side), rngs=rngs)
        self.second = connect(rung, width, width, 3, padding=padding, space=(side, side), rngs=rngs)
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))).max((1, 2)))


def sample(key: jax.Array, n: int, rho: jax.Array, alike: jax.Array, config: Images) -> tuple[jax.Array, jax.Array]:
    """Draw images of birds and pigs, or, if `alike`, of birds above and below.

    In the second case each image is followed by the same image shifted by half a torus.
    """
    x, y = tasks.flying_pigs(config.side, PATTERN, rho, KEY, noise=config.noise, same_pattern=alike).sample(key, n)
    number = jnp.arange(n)
    odd = (number % 2 == 1)[:, None, None, None]
    twice, label = x[number // 2], y[number // 2]
    twice = jnp.where(odd, jnp.roll(twice, config.side // 2, 1), twice)
    return jnp.where(alike, twice, x), jnp.where(alike, jnp.where(number % 2 == 1, 1 - label, label), y)


def right_and_equal(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of correct labels, and the share of pairs whose two images have the same label."""
    guesses = scores.argmax(-1)
    return jnp.stack([jnp.mean(guesses == labels), jnp.mean(guesses[::2] == guesses[1::2])])


@functools.partial(jax.jit, static_argnames="config")
def best(rho: jax.Array, config: Images) -> dict[str, jax.Array]:
    r"""Return the accuracies of the best rules that know the patterns, with position and without.

    They compare likelihoods, with the position's probabilities p(ij | y), or with all positions on the torus equally likely:

    $$p(x | y) \propto \sum_{ij} p(ij | y)\, e^{(\langle x, P_y \rangle_{ij} - |P_y|^2 / 2) / \sigma^2}$$
    """
    x, y = sample(jax.random.key(0), config.many, rho, jnp.asarray(False), config)
    patterns = jax.random.normal(KEY, (2, PATTERN, PATTERN))
    match = cl.conv(x, jnp.moveaxis(patterns, 0, -1)[:, :, None], cl.Window(PATTERN, padding="CIRCULAR"))
    logs = (match - (patterns**2).sum((1, 2)) / 2) / config.noise**2
    middle, room, half = PATTERN // 2, config.side // 2 - PATTERN + 1, config.side // 2
    upper, lower = (
        logsumexp(logs[:, top + middle : top + middle + room, middle : config.side - middle], (1, 2)) for top in (0, half)
    )
    log_usual, log_rare = jnp.log((1 + rho) / 2), jnp.log((1 - rho) / 2)
    pig = jnp.logaddexp(lower[:, 0] + log_usual, upper[:, 0] + log_rare)
    bird = jnp.logaddexp(upper[:, 1] + log_usual, lower[:, 1] + log_rare)
    torus = logsumexp(logs, (1, 2))
    return {WITH: jnp.mean((bird > pig) == y), WITHOUT: jnp.mean((torus[:, 1] > torus[:, 0]) == y)}


def learns(network: str, config: Images, most: int) -> Callable[..., np.ndarray]:
    """Return a function that trains a network on up to `most` examples and evaluates it on new ones."""
    shape = (config.side, config.side, 1)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return MLP(shape, 2, (), rngs=rngs) if network == LINEAR else Pooled(network, config.side, config.width, rngs)

    draw, optimizer = functools.partial(sample, config=config), optax.adam(config.learning_rate)
    return make_learner(build, draw, most, max_steps=config.steps, optimizer=optimizer, score=right_and_equal)
