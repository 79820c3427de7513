"""The definition of a task: a distribution of examples, as a jittable function of a key."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from convlab import check
from convlab.data import Data, Split
from convlab.display import short_repr
from convlab.geometry import as_integer

Examples = tuple[Float[Array, "n *space c"], Num[Array, "n *out"]]


class Task(NamedTuple):
    """A distribution of examples: images with labels or real-valued targets.

    Attributes:
      name: The name in tables and figures.
      image_shape: The shape (*space, c) of one image.
      classes: The names of the labels. It is empty if targets are real-valued.
      sample: A pure function of a key and a number n that draws n images with their labels (class numbers from 0) or targets.
        It can be jitted with n static. Every example has a separate key, so the first n examples do not depend on how many are
        drawn.
    """

    name: str
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    sample: Callable[[PRNGKeyArray, int], Examples]

    __repr__ = short_repr

    def data(self, seed: int, train: int, test: int, validation: int = 0) -> Data:
        """Draw a data set of independent splits, for `fit`. Equal seeds give equal data.

        Args:
          seed: The seed of the key.
          train: The number of training examples, at least 1.
          test: The number of test examples, at least 1.
          validation: The number of validation examples. If 0, there is no validation split.

        Raises:
          ValueError: Targets are real-valued, or a size is below its minimum.
          TypeError: A size is not an integer.

        Example:
          >>> from convlab.tasks import energy_comparison
          >>> energy_comparison(4).data(0, train=5, test=3).train.images.shape
          (5, 8, 1)
        """
        if not self.classes:
            raise ValueError(f"{self.name} has no classes: its target is real-valued, and a classifier cannot be fitted to it")
        seed = as_integer("seed", seed, least=0, most=2**32 - 1)
        sizes = as_integer("train", train), as_integer("test", test), as_integer("validation", validation, least=0)
        for name, n in zip(("train", "test", "validation"), sizes, strict=True):
            check.shape_fits(f"{name} images", n, *self.image_shape)
        keys = jax.random.split(jax.random.key(seed), 3)
        splits = [_split(self, key, n) if n else None for key, n in zip(keys, sizes, strict=True)]
        assert splits[0] is not None
        assert splits[1] is not None
        return Data(self.name, splits[0], splits[1], self.classes, validation=splits[2])


def _split(task: Task, key: PRNGKeyArray, n: int) -> Split:
    x, y = jax.jit(task.sample, static_argnums=1)(key, n)
    return Split(np.asarray(x, np.float32), np.asarray(y))


def make_sampler(draw: Callable[[PRNGKeyArray], tuple[Array, Array]]) -> Callable[[PRNGKeyArray, int], Examples]:
    """Make the `sample` of a task from a function that draws one example."""

    def sample(key: PRNGKeyArray, n: int) -> Examples:
        n = as_integer("n", n, least=0)
        image, _ = jax.eval_shape(draw, check.key("key", key))
        check.shape_fits("n images", n, *image.shape)
        indices = jax.numpy.arange(n)
        return jax.vmap(lambda index: draw(jax.random.fold_in(key, index)))(indices)

    return sample


def check_noise(value: float | jax.Array) -> float | jax.Array:
    """Check a standard deviation of noise and return it. Tracers are not checked.

    Raises:
      ValueError: The value is negative, infinite or nan.
    """
    value = check.number("noise", value)
    if check.is_concrete(value) and not 0 <= value < math.inf:
        raise ValueError(f"noise is {value}; needs a finite standard deviation of at least 0")
    return value


def label_sign(label: Int[Array, ""]) -> Array:
    """Return the sign of a label: -1 for class 0 and 1 for class 1."""
    return 2 * label - 1
