"""Scenes of figures on a dark ground, and a network that detects a target figure."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.data import Data, Split, standardise
from convlab.models import Connections, Stage

STRIDE = 2  # the stride of a response map


class Scenes:
    """Random scenes that are made of the figures of a data set.

    Args:
      split: The figures and their classes.
      wanted: The class of the target figure.
      side: The number of pixels of a scene along each axis, at least three times that of a figure.
    """

    def __init__(self, split: Split, wanted: int, side: int):
        self.figures, self.wanted, self.side = np.asarray(split.images)[..., 0], np.asarray(split.labels) == wanted, side
        self.n = self.figures.shape[1]
        if side < 3 * self.n:
            raise ValueError(f"side is {side}, but figures of {self.n} pixels need scenes of at least {3 * self.n}")

    def draw(self, rng: np.random.Generator, others: int, wanted: bool, right: bool) -> tuple[np.ndarray, np.ndarray]:
        """Draw one scene, and return it with the first pixel of the target figure.

        If the target is absent, this is the first pixel of the figure at its position.

        Args:
          rng: The random generator.
          others: The number of other figures.
          wanted: Whether the target figure is present. If False, another figure takes its position.
          right: Whether this position is on the right of the scene.
        """
        scene, room = np.zeros((self.side,) * 2, np.uint8), self.side - self.n
        left = int(rng.integers(0, self.n // 2 + 1))
        target = np.array([rng.integers(0, room + 1), room - left if right else left])
        for number in range(others + 1):
            corner = target
            while number and np.abs(corner - target).max() < self.n:  # no figure overlaps the first one
                corner = rng.integers(0, room + 1, 2)
            kind = self.wanted if number == 0 and wanted else ~self.wanted
            figure = self.figures[rng.choice(np.flatnonzero(kind))]
            window = scene[corner[0] : corner[0] + self.n, corner[1] : corner[1] + self.n]
            np.maximum(window, figure, out=window)
        return scene[..., None], target

    def sample(
        self, seed: int, number: int, others: Sequence[int], wanted: Sequence[bool], right: bool
    ) -> tuple[Split, np.ndarray]:
        """Draw scenes that cycle through numbers of others and `wanted`, with their corners."""
        rng = np.random.default_rng(seed)
        kinds = list(itertools.islice(itertools.cycle(itertools.product(wanted, others)), number))
        scenes, corners = zip(*(self.draw(rng, count, present, right) for present, count in kinds), strict=True)
        return Split(np.stack(scenes), np.array([present for present, _ in kinds], np.int32)), np.stack(corners)


class Searcher(nnx.Module):
    """Two layers and a map of one channel, whose largest entry is the score of "present" against zero."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], connectivity: str, seed: int):
        rngs, connections = nnx.Rngs(seed), Connections(connectivity)
        first = Stage(shape, widths[0], 5, STRIDE, padding=2, connections=connections, rngs=rngs)
        second = Stage(first.output_shape, widths[1], 5, connections=connections, rngs=rngs)
        last = Stage(second.output_shape, 1, 1, connections=connections, activation=nnx.identity, rngs=rngs)
        self.stages = nnx.List([first, second, last])

    def map(self, x: jax.Array) -> jax.Array:
        """Return the response map: the similarity of every position to the target figure."""
        for stage in self.stages:
            x = stage(x)
        return x[..., 0]

    def __call__(self, x: jax.Array) -> jax.Array:
        score = self.map(x).max((1, 2))
        return jnp.stack([jnp.zeros_like(score), score], -1)


def mapping(model: Any, scenes: Data) -> Callable[[np.ndarray], jax.Array]:
    """Return the response map as a function of raw scenes."""
    return jax.jit(lambda x: model.map(standardise(x, scenes.mean, scenes.std)))


def hits(maps: np.ndarray, corners: np.ndarray, n: int, stride: int) -> float:
    """Return how often the peak of a map lies on the figure of n x n pixels that starts at its corner."""
    flat = maps.reshape(len(maps), -1).argmax(1)
    peak = stride * np.stack(np.divmod(flat, maps.shape[2]), 1)
    return float(((peak >= corners) & (peak < corners + n)).all(1).mean())
