"""Nonlinear Gaussian processes, and Gaussian processes of equal covariance."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from convlab import check
from convlab.geometry import Space, as_space
from convlab.tasks.task import Task, make_sampler


def nonlinear_process(
    space: Space,
    correlation_lengths: Sequence[float],
    gain: float,
    *,
    gaussian_clone: bool = False,
    power: float = 1.0,
) -> Task:
    r"""Make a task of nonlinear Gaussian processes (NLGP) that differ by correlation length.

    $$x_i = \mathrm{erf}(g z_i) / Z, \qquad \langle z_i z_j \rangle = e^{-(|i - j| / \xi_y)^p},
      \qquad Z^2 = \tfrac{2}{\pi} \arcsin \tfrac{2 g^2}{1 + 2 g^2}$$

    An image is a circle or a torus of pixels x. They are a nonlinear function of a Gaussian process z with the correlation
    length xi_y, where |i - j| is the shorter distance around the torus. A larger gain g gives x sharper edges. The label is the
    class y, that is, the number of its correlation length. With two axes or p above 1, the exponential is not a covariance for
    every length. The nearest covariance then replaces it, see `process_covariance`.

    The Gaussian clone is a Gaussian process with the same mean, 0, and the same covariance,

    $$\langle x_i x_j \rangle = \tfrac{2}{\pi Z^2} \arcsin \frac{2 g^2 \langle z_i z_j \rangle}{1 + 2 g^2}$$

    So any difference between networks trained on the two comes from higher-order statistics.

    Symmetries: Translations around the torus, reflections and the sign of x leave the label and the distribution unchanged.

    Prediction: If dense units are trained by gradient descent, their weights become localised on the process and stay extended
    on the clone. The kernels of locally connected and convolutional units are local on both by construction. The number of
    examples that each rung needs is not known.

    Args:
      space: The number of pixels along each of one or two axes.
      correlation_lengths: The correlation length xi of each class, in pixels.
      gain: The gain g.
      gaussian_clone: Whether to draw from the Gaussian clone.
      power: The power p: 1 for rough processes, 2 for smooth ones.

    Raises:
      ValueError: A length, the gain or the power is not positive, there are fewer than two classes, or there are more than two
        axes.

    Example:
      >>> x, y = nonlinear_process((16,), (1.0, 4.0), 3.0).sample(jax.random.key(0), 5)
      >>> x.shape, bool((abs(x) < 1.2).all())
      ((5, 16, 1), True)

    Reference: Ingrosso and Goldt 2022, Data-driven emergence of convolutional structure in neural networks, the section on
    models of data. Its published code has a power of 2, and its gain is ours times the root of 2.
    """
    space, lengths = as_space(space), tuple(check.sequence("correlation_lengths", correlation_lengths, "numbers"))
    check.flag("gaussian_clone", gaussian_clone)
    if len(space) > 2 or len(lengths) < 2:
        raise ValueError(f"space is {space}, correlation_lengths {lengths}; needs one or two axes, and at least two lengths")
    gain, power = _check_positive("correlation_lengths", lengths, gain, power)
    clone_gain = gain if gaussian_clone else None
    covariances = [process_covariance(space, length, clone_gain, power=power) for length in lengths]
    filters = jnp.asarray(np.stack([_transfer_function(covariance) for covariance in covariances]))

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, noise_key = jax.random.split(key)
        y = jax.random.randint(class_key, (), 0, len(lengths))
        x = jnp.fft.ifftn(filters[y] * jnp.fft.fftn(jax.random.normal(noise_key, space))).real
        x = x if gaussian_clone else jax.scipy.special.erf(gain * x) / _scale(gain)
        return x[..., None], y

    name = "Gaussian clone" if gaussian_clone else "nonlinear process"
    return Task(name, (*space, 1), tuple(f"length {length:g}" for length in lengths), make_sampler(draw))


def process_covariance(
    space: Space, correlation_length: float, gain: float | None = None, *, power: float = 1.0
) -> Float[np.ndarray, "*space"]:
    """Return the covariance of the first pixel with all pixels, for a `nonlinear_process`.

    With two axes or a power above 1, some exponentials of distances around a torus are not covariances, since their spectrum
    has negative entries. These are then set to zero, and the result is scaled to a variance of 1.

    Args:
      space: The number of pixels along each axis.
      correlation_length: The correlation length xi, in pixels.
      gain: The gain g of the nonlinear process x. If None, the covariance is that of the Gaussian process z.
      power: The power p.

    Raises:
      ValueError: A number is not positive.

    Example:
      >>> process_covariance((5,), 2.0).round(3)
      array([1.   , 0.607, 0.368, 0.368, 0.607])
    """
    _, power = _check_positive("correlation_length", [correlation_length], 1.0 if gain is None else gain, power)
    check.shape_fits("the covariance on space", *as_space(space), itemsize=16)
    distances = np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in as_space(space)), indexing="ij")
    exponential = np.exp(-((np.sqrt(sum(distance.astype(float) ** 2 for distance in distances)) / correlation_length) ** power))
    nearest = np.real(np.fft.ifftn(np.maximum(np.real(np.fft.fftn(exponential)), 0)))
    nearest = nearest / nearest.flat[0]
    if gain is None:
        return nearest
    return 2 / math.pi * np.arcsin(2 * gain**2 * nearest / (1 + 2 * gain**2)) / _scale(gain) ** 2


def _check_positive(name: str, lengths: Sequence[float], gain: float, power: float) -> tuple[float, float]:
    """Return the gain and the power as floats, and check that all numbers are positive and finite."""
    for length in lengths:
        check.number(name, length)
    gain, power = float(check.number("gain", gain)), float(check.number("power", power))
    if not all(0 < number < math.inf for number in (*lengths, gain, power)):
        raise ValueError(f"{name} {tuple(lengths)}, gain {gain}, power {power}; needs positive numbers")
    return gain, power


def _scale(gain: float) -> float:
    return math.sqrt(2 / math.pi * math.asin(2 * gain**2 / (1 + 2 * gain**2)))


def _transfer_function(covariance: np.ndarray) -> np.ndarray:
    """Return the transfer function of a filter that gives white noise this covariance."""
    return np.sqrt(np.maximum(np.real(np.fft.fftn(covariance)), 0)).astype(np.float32)
