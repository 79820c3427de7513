"""What units respond to: the preferred orientation, spatial frequency and class of every unit."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from convlab import check
from convlab.display import short_repr
from convlab.geometry import as_integer

Apply = Callable[[Float[Array, "n k l c"]], Float[Array, "n *units"]]


class OrientationTuning(NamedTuple):
    """What gratings the units of a layer respond to.

    Attributes:
      orientation: The preferred orientation of every unit in radians, from 0 (horizontal bars) anticlockwise to below pi. It is
        nan if the unit responds to no grating.
      selectivity: The selectivity, from 0 (equal responses to all orientations) to 1 (a response to a single one).
      frequency: The preferred spatial frequency, in cycles per pixel. It is nan if the unit responds to no grating.
    """

    orientation: Float[Array, "*units"]
    selectivity: Float[Array, "*units"]
    frequency: Float[Array, "*units"]

    __repr__ = short_repr


def orientation_tuning(
    apply: Apply,
    image_shape: Sequence[int],
    *,
    orientations: int = 16,
    frequencies: Sequence[float] = (1 / 16, 1 / 8, 3 / 16, 1 / 4),
    phases: int = 8,
) -> OrientationTuning:
    r"""Measure the preferred orientation, its selectivity and the preferred frequency of every unit.

    A grating of orientation $\theta$, frequency f and phase $\phi$ is

    $$X_{klc} = \cos(2 \pi f (k \cos\theta + l \sin\theta) + \phi).$$

    The response R of a unit to $(\theta, f)$ is the root mean square over phases of its output minus its output for a gray
    image. So a bias has no effect, and for a linear unit R is the size of the kernel's Fourier transform at that grating. The
    frequency f with the largest mean response is preferred. At this frequency,

    $$\sum_\theta R(\theta)\, e^{2 i \theta} \Big/ \sum_\theta R(\theta) = s\, e^{2 i \theta^*}$$

    has the selectivity s (1 minus the circular variance) and the preferred orientation $\theta^*$. Angles are doubled because
    a grating that is turned by 180 degrees is the same.

    The measure is one of a function, and not of kernels, because what a deep unit prefers is not in its kernel. A layer of a
    network is such a function by `feature_maps`.

    Args:
      apply: A function from images to the outputs of units, with one leading axis of images.
      image_shape: The shape (k, l, c) of one image. All channels show the same grating.
      orientations: The number of orientations, at least 3.
      frequencies: The spatial frequencies in cycles per pixel, above 0 and at most 1/2.
      phases: The number of phases, at least 3.

    Returns:
      One number for every unit, in the shape of one image's output, such as (i, j, d). `arrange_on_sheet` makes maps of it.

    Raises:
      ValueError: The images do not have two spatial axes, a number is out of range, or `apply` returns another batch.
      TypeError: An argument or the result of `apply` has the wrong type.

    Example:
      >>> from convlab.ops.conv import conv
      >>> edge = jnp.tile(jnp.array([-1.0, 0.0, 1.0]), (3, 1))  # vertical
      >>> line = jnp.fliplr(jnp.eye(3)) - 1 / 3  # rises to the right
      >>> v = jnp.stack([edge, line], -1)[:, :, None]
      >>> tuning = orientation_tuning(lambda x: conv(x, v), (12, 12, 1))
      >>> jnp.degrees(tuning.orientation[5, 5]).round()
      Array([90., 45.], dtype=float32)

    Reference: Ringach, Shapley and Hawken 2002, Orientation selectivity in macaque V1.
    """
    check.function("apply", apply, "a function of images")
    shape = check.image_shape(image_shape)
    if len(shape) != 3:
        raise ValueError(f"image_shape is {shape}; needs two spatial axes and channels: (k, l, c)")
    orientations, phases = as_integer("orientations", orientations, 3), as_integer("phases", phases, 3)
    cycles = [check.number("frequencies", f) for f in check.sequence("frequencies", frequencies, "numbers")]
    if not cycles or not all(0 < f <= 0.5 for f in cycles):
        raise ValueError(f"frequencies must be above 0 and at most 1/2 cycles per pixel, got {cycles}")
    check.shape_fits("the gratings of orientations, frequencies and phases", len(cycles), orientations, phases, *shape)
    angles = np.pi * np.arange(orientations) / orientations
    images = jnp.asarray(_gratings(shape, angles, cycles, phases), jnp.result_type(float))
    h = check.floating("the result of apply", apply(images))
    if h.ndim < 1 or len(h) != len(images):
        raise ValueError(f"apply returns shape {h.shape} for {len(images)} images; needs one leading axis of images")
    contrast = (h[1:] - h[0]).reshape(len(cycles), orientations, phases, *h.shape[1:])
    return _tuning(jnp.sqrt(jnp.mean(contrast**2, 2)), angles, np.array(cycles))


def _gratings(shape: Sequence[int], angles: np.ndarray, cycles: Sequence[float], phases: int) -> np.ndarray:
    """Return a gray image and gratings of all frequencies, orientations and phases: (n, k, l, c)."""
    k, l = np.indices(shape[:2])  # noqa: E741
    starts = 2 * np.pi * np.arange(phases) / phases
    waves = [
        np.cos(2 * np.pi * f * (k * math.cos(angle) + l * math.sin(angle)) + start)
        for f, angle, start in itertools.product(cycles, angles, starts)
    ]
    return np.broadcast_to(np.stack([np.zeros(shape[:2]), *waves])[..., None], (len(waves) + 1, *shape))


@jax.jit
def _tuning(responses: Array, angles: np.ndarray, cycles: np.ndarray) -> OrientationTuning:
    """Return the tuning from the responses to all frequencies and orientations."""
    best = jnp.argmax(responses.mean(1), 0)
    at_best = jnp.take_along_axis(responses, best[None, None], 0)[0]
    total = at_best.sum(0)
    vector = jnp.tensordot(jnp.exp(2j * angles), at_best, 1) / jnp.where(total > 0, total, 1)
    angle = (jnp.angle(vector) / 2 % jnp.pi).astype(responses.dtype)
    orientation = jnp.where(total > 0, jnp.where(angle < jnp.pi, angle, 0), jnp.nan)  # just below 0 rounds to pi
    frequency = jnp.where(total > 0, jnp.asarray(cycles)[best], jnp.nan).astype(responses.dtype)
    return OrientationTuning(orientation, jnp.abs(vector).astype(responses.dtype), frequency)


class ClassPreference(NamedTuple):
    """What class of images the units of a layer prefer.

    Attributes:
      preferred: The preferred class of every unit. It is -1 if the responses of the unit are constant.
      selectivity: The sensitivity index d' of the preferred class against all other images.
    """

    preferred: Int[Array, "*units"]
    selectivity: Float[Array, "*units"]

    __repr__ = short_repr


def class_preference(responses: Float[Array, "n *units"], labels: Int[Array, "n"]) -> ClassPreference:
    r"""Find the class of images that every unit responds to most.

    $$d'_y = \frac{\mu_y - \mu_{\neg y}}{\sqrt{(\sigma_y^2 + \sigma_{\neg y}^2) / 2}}$$

    with the mean and the variance of a unit's responses to images of class y, and to all other images. The class with the
    largest d' is preferred.

    Args:
      responses: The outputs of the units for n images.
      labels: The classes of the images.

    Raises:
      ValueError: There is another number of labels, a label is negative, or the images are of fewer than two classes.
      TypeError: `responses` are not floating, or `labels` are not integers.

    Example:
      >>> responses = jnp.array([[5.0, 0.0], [4.0, 1.0], [1.0, 2.0], [0.0, 4.0]])  # two units
      >>> class_preference(responses, jnp.array([0, 0, 1, 1])).preferred
      Array([0, 1], dtype=int32)

    Reference: Lu et al. 2025, End-to-end topographic networks as models of cortical map formation.
    """
    h, y = check.floating("responses", responses), check.array("labels", labels)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"labels has dtype {y.dtype} but needs integers")
    if h.ndim < 1 or y.shape != h.shape[:1]:
        raise ValueError(f"labels has shape {y.shape} and responses {h.shape}; needs one label for each leading entry")
    classes, index = np.unique(np.asarray(y), return_inverse=True)
    if len(classes) < 2 or classes[0] < 0:
        raise ValueError(f"labels holds the classes {classes[:9].tolist()}; needs two or more, none of them negative")
    return _preference(h, jnp.asarray(index), jnp.asarray(classes, jnp.int32))


@jax.jit
def _preference(h: Array, index: Array, classes: Array) -> ClassPreference:
    """Return the preference, with moments around the mean of each unit so that they are exact to rounding."""
    h = h - h.mean(0)
    members = jax.nn.one_hot(index, len(classes), dtype=h.dtype)

    def moments(share: Array) -> tuple[Array, Array]:
        weights = share / share.sum(0)
        mean = jnp.tensordot(weights, h, (0, 0))
        return mean, jnp.maximum(jnp.tensordot(weights, h * h, (0, 0)) - mean**2, 0)

    (mean, variance), (other_mean, other_variance) = moments(members), moments(1 - members)
    spread = jnp.sqrt((variance + other_variance) / 2)
    index_of_class = (mean - other_mean) / spread
    preferred = jnp.where(jnp.any(h != 0, 0), classes[jnp.argmax(index_of_class, 0)], -1)
    return ClassPreference(preferred, jnp.where(preferred >= 0, jnp.max(index_of_class, 0), 0))
