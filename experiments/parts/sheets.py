"""Networks whose channels lie on sheets, for topographic maps."""

import string
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import measure
from convlab.data import Data, standardise
from convlab.models import Connections, Head, Stack, Stage

FIRST, LAST = "stages/0/layer", "stages/2/layer"
LETTERS = string.ascii_letters  # each stands for a class or a range of 180 / 52 degrees in a written map, and "." for none
IMAGES = 2000  # the number of test images from which preferred classes are found


class Sheets(Stack):
    """Three layers with ReLUs, and a linear read-out of all their units.

    The first layer reads windows without padding. The second keeps the positions, and the third halves them.

    Args:
      image_shape: The shape (k, l, c) of one image.
      classes: The number of scores.
      width: The number of channels of the layers, which lie on a grid at every position.
      taps: The number of taps of the first layer along each axis. The others have three.
      strides: The strides of the first layer.
      connectivity: The connectivity of the layers, such as "locally_connected" or "conv".
      seed: The seed of the initial weights.
    """

    def __init__(
        self, image_shape: Sequence[int], classes: int, width: int, taps: int, strides: int, connectivity: str, seed: int
    ):
        rngs, stages, shape = nnx.Rngs(seed), [], tuple(image_shape)
        for size, stride, padding in ((taps, strides, "VALID"), (3, 1, "SAME"), (3, 2, "SAME")):
            stages.append(Stage(shape, width, size, stride, padding=padding, connections=Connections(connectivity), rngs=rngs))
            shape = stages[-1].output_shape
        self.stages = nnx.List(stages)
        self.head = Head(shape, (classes,), rngs=rngs)


def first_sheet(model: nnx.Module, image_shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Return the orientations and the selectivities of the first layer's units on their sheet."""

    def apply(images: jax.Array) -> jax.Array:
        return measure.feature_maps(model, images, FIRST)[FIRST]

    tuning = measure.orientation_tuning(apply, image_shape)
    orientation, selectivity = (measure.arrange_on_sheet(values) for values in (tuning.orientation, tuning.selectivity))
    return orientation, selectivity


def class_sheet(model: nnx.Module, data: Data) -> jax.Array:
    """Find the class of test images that each unit of the last layer prefers, before the ReLU."""
    drawn = np.random.default_rng(0).permutation(len(data.test.labels))[:IMAGES]  # images of a folder are sorted by class
    images = standardise(data.test.images[drawn], data.mean, data.std)
    responses = measure.feature_maps(model, images, LAST)[LAST]
    return measure.arrange_on_sheet(measure.class_preference(responses, jnp.asarray(data.test.labels[drawn])).preferred)


def smoothness(orientations: jax.Array, classes: jax.Array, key: jax.Array, shuffles: int) -> dict[str, float]:
    """Measure the smoothness of two maps, next to that of shuffled units.

    Returns:
      The roughness of orientations in degrees, the pinwheels per 100 units, and the share of neighbours that prefer different
      classes. Each is followed by its mean over shuffles.
    """

    def roughness(units: jax.Array) -> jax.Array:
        return jnp.degrees(measure.map_roughness(units, circular=True))

    def pinwheels(units: jax.Array) -> jax.Array:
        return 100 * jnp.mean(measure.pinwheels(units, circular=True) != 0)

    def differ(units: jax.Array) -> jax.Array:
        return measure.map_roughness(units, "class", circular=True)

    angle, count = (measure.shuffled_null(statistic, orientations, key, shuffles) for statistic in (roughness, pinwheels))
    share = measure.shuffled_null(differ, classes, key, shuffles)
    values = {"roughness": angle.value, "shuffled": angle.mean, "pinwheels": count.value, "shuffled_pinwheels": count.mean}
    return values | {"class_changes": share.value, "shuffled_class_changes": share.mean}


def write_map(units: jax.Array, kind: str) -> str:
    """Write a map as text, with a letter per unit and a slash between rows."""
    numbers = np.asarray(units) * len(LETTERS) / np.pi if kind == "orientation" else np.asarray(units)
    return "/".join("".join(LETTERS[int(n) % len(LETTERS)] if n >= 0 else "." for n in row) for row in numbers)


def read_map(text: str, kind: str) -> np.ndarray:
    """Read a map from the text of `write_map`.

    Orientations are in radians, in the middle of the range of each letter.
    """
    numbers = np.array([[LETTERS.find(letter) for letter in row] for row in text.split("/")])
    return np.where(numbers < 0, np.nan, (numbers + 0.5) * np.pi / len(LETTERS)) if kind == "orientation" else numbers
