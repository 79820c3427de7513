"""Images with and without structure beyond their covariance: a Gaussian process bent by a sigmoid, and its Gaussian clone."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from convlab.geometry import Space, as_space
from convlab.tasks.task import Task, one_by_one


def bent_process(space: Space, lengths: Sequence[float], gain: float, *, clone: bool = False, power: float = 1.0) -> Task:
    r"""Tell processes apart by their correlation length: a nonlinear Gaussian process (NLGP) on a torus, or its clone.

    $$x_i = \mathrm{erf}(g z_i) / Z, \qquad \langle z_i z_j \rangle = e^{-(|i - j| / \xi_y)^p},
      \qquad Z^2 = \tfrac{2}{\pi} \arcsin \tfrac{2 g^2}{1 + 2 g^2}$$

    where class y has the length xi_y and |i - j| is the shorter way around the torus. (Of two axes, or of p above 1, this is no
    covariance of every length; then it is the nearest, see `covariance`.) The clone is Gaussian with the same mean,
    0, and the same covariance,

    $$\langle x_i x_j \rangle = \tfrac{2}{\pi Z^2} \arcsin \frac{2 g^2 \langle z_i z_j \rangle}{1 + 2 g^2}$$

    so that whatever a network learns from the one and not from the other comes from higher orders. The larger the gain, the
    sharper the edges of x.

    Symmetries: translations around the torus, reflections, and the sign of x.

    Predicted: trained by gradient descent, the weights of dense units become local on the process and stay spread on the clone.
    Kernels of local and convolutional units are local on both by construction; how many examples each needs is not known.

    Args:
      space: Pixels along each axis; one or two.
      lengths: xi of each class, in pixels.
      gain: g.
      clone: Draw the Gaussian clone.
      power: p, 1 for processes that are rough, 2 for smooth ones.

    Raises:
      ValueError: A length, the gain or the power is not positive, fewer than two classes, or more than two axes.

    Example:
      >>> x, y = bent_process((16,), (1.0, 4.0), 3.0).sample(jax.random.key(0), 5)
      >>> x.shape, bool((abs(x) < 1.2).all())
      ((5, 16, 1), True)

    Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks, the section on
    models of data. Its published code has a power of 2, and its gain is ours times the root of 2.
    """
    space, lengths = as_space(space), tuple(lengths)
    if len(space) > 2 or len(lengths) < 2:
        raise ValueError(f"space is {space}, lengths {lengths}; needs one or two axes, and at least two lengths")
    _positive(lengths, gain, power)
    kept = gain if clone else None
    roots = jnp.asarray(np.stack([_root(covariance(space, length, kept, power=power)) for length in lengths]))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, rest = jax.random.split(key)
        y = jax.random.randint(which, (), 0, len(lengths))
        x = jnp.fft.ifftn(roots[y] * jnp.fft.fftn(jax.random.normal(rest, space))).real
        x = x if clone else jax.scipy.special.erf(gain * x) / _scale(gain)
        return x[..., None], y

    name = "Gaussian clone" if clone else "bent process"
    return Task(name, (*space, 1), tuple(f"length {length:g}" for length in lengths), one_by_one(draw))


def covariance(space: Space, length: float, gain: float | None = None, *, power: float = 1.0) -> Float[np.ndarray, "*space"]:
    """Return the covariance of the pixels with the first one: of z, or, with a gain, of x.

    On a plane, or with a power above 1, some exponentials of distances around a torus are no covariance; what is drawn has that
    of the nearest one, in which negative spectra are zero, scaled to a variance of 1.

    Args:
      space: Pixels along each axis.
      length: xi, in pixels.
      gain: g.
      power: p.

    Raises:
      ValueError: A number is not positive.

    Example:
      >>> covariance((5,), 2.0).round(3)
      array([1.   , 0.607, 0.368, 0.368, 0.607])
    """
    _positive([length], 1.0 if gain is None else gain, power)
    ways = np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in as_space(space)), indexing="ij")
    exponential = np.exp(-((np.sqrt(sum(way.astype(float) ** 2 for way in ways)) / length) ** power))
    possible = np.real(np.fft.ifftn(np.maximum(np.real(np.fft.fftn(exponential)), 0)))
    possible = possible / possible.flat[0]
    if gain is None:
        return possible
    return 2 / math.pi * np.arcsin(2 * gain**2 * possible / (1 + 2 * gain**2)) / _scale(gain) ** 2


def _positive(lengths: Sequence[float], gain: float, power: float) -> None:
    if not all(0 < number < math.inf for number in (*lengths, gain, power)):
        raise ValueError(f"lengths are {tuple(lengths)}, gain {gain}, power {power}; needs positive numbers")


def _scale(gain: float) -> float:
    return math.sqrt(2 / math.pi * math.asin(2 * gain**2 / (1 + 2 * gain**2)))


def _root(covariance: np.ndarray) -> np.ndarray:
    """What to multiply the spectrum of white noise with."""
    return np.sqrt(np.maximum(np.real(np.fft.fftn(covariance)), 0)).astype(np.float32)
