"""Images with and without structure beyond their covariance: a Gaussian process bent by a sigmoid, and its Gaussian clone."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from convlab.geometry import Space, as_space
from convlab.tasks.task import Task, one_by_one


def bent_process(space: Space, lengths: Sequence[float], gain: float, *, clone: bool = False) -> Task:
    r"""Tell processes apart by their correlation length: a nonlinear Gaussian process (NLGP) on a torus, or its clone.

    $$x_i = \mathrm{erf}(g z_i) / Z, \qquad \langle z_i z_j \rangle = e^{-|i - j| / \xi_y},
      \qquad Z^2 = \tfrac{2}{\pi} \arcsin \tfrac{2 g^2}{1 + 2 g^2}$$

    where class y has the length xi_y and |i - j| is the shorter way around the torus. The clone is Gaussian with the same mean,
    0, and the same covariance,

    $$\langle x_i x_j \rangle = \tfrac{2}{\pi Z^2} \arcsin \frac{2 g^2 \langle z_i z_j \rangle}{1 + 2 g^2}$$

    so that whatever a network learns from the one and not from the other comes from higher orders. The larger the gain, the
    sharper the edges of x.

    Symmetries: translations around the torus, reflections, and the sign of x.

    Predicted: trained by gradient descent, the weights of dense units become local on the process and stay spread on the clone.

    Args:
      space: Pixels along each axis; one or two.
      lengths: xi of each class, in pixels.
      gain: g.
      clone: Draw the Gaussian clone.

    Raises:
      ValueError: A length or the gain is not positive, fewer than two classes, or more than two axes.

    Example:
      >>> x, y = bent_process((16,), (1.0, 4.0), 3.0).sample(jax.random.key(0), 5)
      >>> x.shape, bool((abs(x) < 1.2).all())
      ((5, 16, 1), True)

    Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks, data model.
    """
    space, lengths = as_space(space), tuple(lengths)
    if len(space) > 2 or len(lengths) < 2 or not all(length > 0 for length in (*lengths, gain)):
        raise ValueError(f"space is {space}, lengths {lengths}, gain {gain}; needs one or two axes, and two positive lengths")
    roots = jnp.asarray(np.stack([_root(covariance(space, length, gain if clone else None)) for length in lengths]))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, rest = jax.random.split(key)
        y = jax.random.randint(which, (), 0, len(lengths))
        x = jnp.fft.ifftn(roots[y] * jnp.fft.fftn(jax.random.normal(rest, space))).real
        x = x if clone else jax.scipy.special.erf(gain * x) / _scale(gain)
        return x[..., None], y

    name = "Gaussian clone" if clone else "bent process"
    return Task(name, (*space, 1), tuple(f"length {length:g}" for length in lengths), one_by_one(draw))


def covariance(space: Space, length: float, gain: float | None = None) -> Float[np.ndarray, "*space"]:
    """Return the covariance of the pixels with the first one: of z, or, with a gain, of x.

    On a plane some exponentials of distances around a torus are no covariance; what is drawn has that of the nearest one, in
    which negative spectra are zero, scaled to a variance of 1.

    Args:
      space: Pixels along each axis.
      length: xi, in pixels.
      gain: g.

    Example:
      >>> covariance((5,), 2.0).round(3)
      array([1.   , 0.607, 0.368, 0.368, 0.607])
    """
    ways = np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in as_space(space)), indexing="ij")
    exponential = np.exp(-np.sqrt(sum(way.astype(float) ** 2 for way in ways)) / length)
    possible = np.real(np.fft.ifftn(np.maximum(np.real(np.fft.fftn(exponential)), 0)))
    possible = possible / possible.flat[0]
    if gain is None:
        return possible
    return 2 / math.pi * np.arcsin(2 * gain**2 * possible / (1 + 2 * gain**2)) / _scale(gain) ** 2


def _scale(gain: float) -> float:
    return math.sqrt(2 / math.pi * math.asin(2 * gain**2 / (1 + 2 * gain**2)))


def _root(covariance: np.ndarray) -> np.ndarray:
    """What to multiply the spectrum of white noise with."""
    return np.sqrt(np.maximum(np.real(np.fft.fftn(covariance)), 0)).astype(np.float32)
