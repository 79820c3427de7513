"""Nonlinear Gaussian processes, and Gaussian processes of equal covariance."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from convlab.geometry import Space, as_space
from convlab.tasks.task import Task, sampler


def bent_process(space: Space, lengths: Sequence[float], gain: float, *, clone: bool = False, power: float = 1.0) -> Task:
    r"""Make a task of nonlinear Gaussian processes (NLGP) on a torus, classified by correlation length.

    $$x_i = \mathrm{erf}(g z_i) / Z, \qquad \langle z_i z_j \rangle = e^{-(|i - j| / \xi_y)^p},
      \qquad Z^2 = \tfrac{2}{\pi} \arcsin \tfrac{2 g^2}{1 + 2 g^2}$$

    where class y has the length xi_y and |i - j| is the shorter distance around the torus. With two axes or p above 1, this
    function is not a covariance for every length. The nearest covariance then replaces it, see `covariance`.

    The clone is a Gaussian process with the same mean, 0, and the same covariance,

    $$\langle x_i x_j \rangle = \tfrac{2}{\pi Z^2} \arcsin \frac{2 g^2 \langle z_i z_j \rangle}{1 + 2 g^2}$$

    So any difference between networks trained on the two comes from higher-order statistics. A larger gain gives x sharper
    edges.

    Symmetries: The distribution is invariant under translations around the torus, reflections and the sign of x.

    Prediction: If dense units are trained by gradient descent, their weights become localised on the process and stay extended
    on the clone. The kernels of locally connected and convolutional units are local on both by construction. The number of
    examples that each rung needs is not known.

    Args:
      space: The number of pixels along each of one or two axes.
      lengths: The correlation length xi of each class, in pixels.
      gain: The gain g.
      clone: Whether to draw from the Gaussian clone.
      power: The power p: 1 for rough processes, 2 for smooth ones.

    Raises:
      ValueError: A length, the gain or the power is not positive, there are fewer than two classes, or there are more than two
        axes.

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
    clone_gain = gain if clone else None
    roots = jnp.asarray(np.stack([_root(covariance(space, length, clone_gain, power=power)) for length in lengths]))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, noise_key = jax.random.split(key)
        y = jax.random.randint(class_key, (), 0, len(lengths))
        x = jnp.fft.ifftn(roots[y] * jnp.fft.fftn(jax.random.normal(noise_key, space))).real
        x = x if clone else jax.scipy.special.erf(gain * x) / _scale(gain)
        return x[..., None], y

    name = "Gaussian clone" if clone else "bent process"
    return Task(name, (*space, 1), tuple(f"length {length:g}" for length in lengths), sampler(draw))


def covariance(space: Space, length: float, gain: float | None = None, *, power: float = 1.0) -> Float[np.ndarray, "*space"]:
    """Return the covariance of the first pixel with all pixels, in the processes of `bent_process`.

    With two axes or a power above 1, some exponentials of distances around a torus are not covariances, since their spectrum
    has negative entries. These are then set to zero, and the result is scaled to a variance of 1.

    Args:
      space: The number of pixels along each axis.
      length: The correlation length xi, in pixels.
      gain: The gain g of the nonlinear process x. If None, the covariance is that of the Gaussian process z.
      power: The power p.

    Raises:
      ValueError: A number is not positive.

    Example:
      >>> covariance((5,), 2.0).round(3)
      array([1.   , 0.607, 0.368, 0.368, 0.607])
    """
    _positive([length], 1.0 if gain is None else gain, power)
    distances = np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in as_space(space)), indexing="ij")
    exponential = np.exp(-((np.sqrt(sum(distance.astype(float) ** 2 for distance in distances)) / length) ** power))
    nearest = np.real(np.fft.ifftn(np.maximum(np.real(np.fft.fftn(exponential)), 0)))
    nearest = nearest / nearest.flat[0]
    if gain is None:
        return nearest
    return 2 / math.pi * np.arcsin(2 * gain**2 * nearest / (1 + 2 * gain**2)) / _scale(gain) ** 2


def _positive(lengths: Sequence[float], gain: float, power: float) -> None:
    if not all(0 < number < math.inf for number in (*lengths, gain, power)):
        raise ValueError(f"lengths are {tuple(lengths)}, gain {gain}, power {power}; needs positive numbers")


def _scale(gain: float) -> float:
    return math.sqrt(2 / math.pi * math.asin(2 * gain**2 / (1 + 2 * gain**2)))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return the factors of the spectrum of white noise that give it this covariance."""
    return np.sqrt(np.maximum(np.real(np.fft.fftn(covariance)), 0)).astype(np.float32)
