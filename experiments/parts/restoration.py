"""Restoration of blurred pictures: by conjugate gradients, and by trained networks of every rung."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from convlab.algebra import VaryingBlur
from convlab.layers import connect
from experiments.parts.photographs import TRAIN, Lens, crops, photograph, picture, tiles

Restore = Callable[[Array], Any]


@dataclasses.dataclass(frozen=True)
class Training(Lens):
    """The settings of the networks and of their training.

    Args:
      width: The number of channels between the two layers of a network.
      sizes: The numbers of taps of their kernels along each axis.
      rates: The learning rates, of which the best on the validation photograph is used.
      steps: The number of training steps.
      batch_size: The number of crops per step.
    """

    width: int = 4
    sizes: tuple[int, int] = (9, 5)
    rates: tuple[float, ...] = (1e-3, 3e-3)
    steps: int = 400
    batch_size: int = 8


class Pictures(NamedTuple):
    """Blurred pictures of a photograph.

    Attributes:
      blurred: The pictures, with blur and noise.
      true: The part of the scenes that they show.
    """

    blurred: Float[Array, "n i j 1"]
    true: Float[np.ndarray, "n i j 1"]


def inside(config: Lens, scenes: Any) -> Any:
    """Return the part of scenes that pictures show."""
    border = (config.taps - 1) // 2
    return scenes[:, border : border + config.field, border : border + config.field]


def pictures(config: Lens, name: str, count: int, seed: int) -> Pictures:
    """Return pictures of squares of a photograph, blurred by the kernel of every pixel, with noise."""
    scenes = tiles(name, config.scene, count)
    blurred = picture(config.kernels(), jnp.asarray(scenes), config.noise, jax.random.key(seed), config.window)
    return Pictures(blurred, inside(config, scenes))


def best(build: Callable[[float], Restore], settings: Sequence[float], validation: Pictures) -> tuple[float, Restore]:
    """Return the setting that restores validation pictures best, and the function that it builds."""
    functions = {setting: build(setting) for setting in settings}
    scores = {setting: psnr(f(validation.blurred), validation.true).mean() for setting, f in functions.items()}
    setting = max(scores, key=lambda setting: scores[setting])
    return setting, functions[setting]


def psnr(restored: Any, true: Any) -> Float[np.ndarray, " n"]:
    """Return the peak signal-to-noise ratio of pictures (n, i, j, 1) in decibels, with pixels clipped to 0 to 1."""
    errors = np.clip(restored, 0, 1) - np.asarray(true)
    return -10 * np.log10((errors**2).mean((1, 2, 3)))


def roughness(x: Float[Array, "n k l 1"]) -> Float[Array, ""]:
    """Return half the sum of squared differences between neighbouring pixels."""
    return ((jnp.diff(x, axis=1) ** 2).sum() + (jnp.diff(x, axis=2) ** 2).sum()) / 2


@functools.partial(jax.jit, static_argnums=3)
def conjugate_gradients(blur: VaryingBlur, y: Array, weight: float, iterations: int) -> Float[Array, "n k l 1"]:
    r"""Restore pictures y by regularised least squares.

    $$\min_x \lVert A x - y \rVert^2 + \lambda \lVert \nabla x \rVert^2$$
    """
    adjoint = blur.adjoint

    def normal(x: Array) -> Array:
        return adjoint(blur.layer(x)) + weight * jax.grad(roughness)(x)

    right = adjoint(y)
    margins = [(size - inner) // 2 for size, inner in zip(right.shape[1:3], y.shape[1:3], strict=True)]
    start = jnp.pad(y, ((0, 0), *((margin, margin) for margin in margins), (0, 0)), "edge")
    return jax.scipy.sparse.linalg.cg(normal, right, start, tol=0.0, maxiter=iterations)[0]


class Restorer(nnx.Module):
    """A network of two layers that adds a correction to the picture."""

    def __init__(self, rung: str, config: Training, rank: int, seed: int):
        rngs, (first, second) = nnx.Rngs(seed), config.sizes
        options: dict[str, Any] = {"space": (config.field,) * 2, "tied_noise": 0.0 if rung != "conv" else None}
        self.first = connect(rung, 1, config.width, first, **options, rank=rank, rngs=rngs)
        self.second = connect(rung, config.width, 1, second, **options, rank=rank, rngs=rngs)
        last = getattr(self.second, self.second.layout.tying.arrays[-1])
        last[...] = jnp.zeros_like(last[...])  # the correction starts as zero

    def __call__(self, y: Float[Array, "n i j 1"]) -> Float[Array, "n i j 1"]:
        return y + self.second(nnx.relu(self.first(y)))


def train(model: Restorer, config: Training, rate: float, seed: int) -> Restore:
    """Train a network on crops of the training photograph, and return it as a function of pictures."""
    graph, parameters, other = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, config.steps))
    image, kernels = jnp.asarray(photograph(TRAIN)), config.kernels()

    @jax.jit
    def step(parameters: Any, state: Any, key: Any, kernels: Array, image: Array) -> tuple[Any, Any]:
        cut, noise = jax.random.split(key)
        x = crops(image, config.scene, config.batch_size, cut)
        y = picture(kernels, x, config.noise, noise, config.window)

        def loss(parameters: Any) -> Array:
            return ((nnx.merge(graph, parameters, other)(y) - inside(config, x)) ** 2).mean()

        updates, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
        return optax.apply_updates(parameters, updates), state

    state = optimizer.init(parameters)
    for key in jax.random.split(jax.random.key(seed), config.steps):
        parameters, state = step(parameters, state, key, kernels, image)
    return jax.jit(nnx.merge(graph, parameters, other))
