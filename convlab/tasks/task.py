"""What a task is: a law that examples are drawn from, as a jittable function of a key."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from convlab import check
from convlab.data import Data, Split
from convlab.geometry import as_integer

Examples = tuple[Float[Array, "n *space c"], Num[Array, "n *out"]]


class Task(NamedTuple):
    """A law of examples.

    Attributes:
      name: How it is called in tables and figures.
      image_shape: (*space, c) of one input.
      classes: Names of the labels; none where the target is real.
      sample: Draws n examples with a key: inputs and, for each, the number of its class or its target. A pure function of
        both, jittable with n static; every example has a key of its own, so that the first n of more are the same n.
    """

    name: str
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    sample: Callable[[PRNGKeyArray, int], Examples]

    def data(self, seed: int, train: int, test: int, validation: int = 0) -> Data:
        """Draw a data set that `fit` takes: independent splits of these sizes, equal for equal seeds.

        Raises:
          ValueError: The target is real, or a size is below 1.
          TypeError: A size is not an integer.

        Example:
          >>> from convlab.tasks import halves
          >>> halves(4).data(0, train=5, test=3).train.images.shape
          (5, 8, 1)
        """
        if not self.classes:
            raise ValueError(f"{self.name} has no classes: its target is real, and a classifier cannot be fitted to it")
        sizes = as_integer("train", train), as_integer("test", test), as_integer("validation", validation, least=0)
        keys = jax.random.split(jax.random.key(seed), 3)
        splits = [_split(self, key, n) if n else None for key, n in zip(keys, sizes, strict=True)]
        assert splits[0] is not None
        assert splits[1] is not None
        return Data(self.name, splits[0], splits[1], self.classes, validation=splits[2])


def _split(task: Task, key: PRNGKeyArray, n: int) -> Split:
    x, y = jax.jit(task.sample, static_argnums=1)(key, n)
    return Split(np.asarray(x, np.float32), np.asarray(y))


def one_by_one(draw: Callable[[PRNGKeyArray], tuple[Array, Array]]) -> Callable[[PRNGKeyArray, int], Examples]:
    """Make of the law of one example that of n, each with a key of its own."""

    def sample(key: PRNGKeyArray, n: int) -> Examples:
        numbers = jax.numpy.arange(as_integer("n", n, least=0))
        return jax.vmap(lambda number: draw(jax.random.fold_in(key, number)))(numbers)

    return sample


def deviation(value: float | jax.Array) -> float | jax.Array:
    """Return a standard deviation of noise; one that is traced is not checked.

    Raises:
      ValueError: It is negative, or no finite number.
    """
    if check.is_known(value) and not 0 <= value < math.inf:
        raise ValueError(f"noise is {value}; needs a standard deviation from 0 up")
    return value


def side(label: Int[Array, ""]) -> Array:
    """-1 for class 0, 1 for class 1."""
    return 2 * label - 1
