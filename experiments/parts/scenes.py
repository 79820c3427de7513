"""Scenes of figures scattered over a dark ground, and a network that says whether one of them is the wanted one, and where."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.data import Data, Split, standardise
from convlab.models import Stage, Wiring

STRIDE = 2  # of a response map


class Scenes:
    """Draws scenes from the figures of a data set.

    Args:
      split: The figures and their classes.
      wanted: The class that is looked for.
      side: The pixels of a scene along each axis, at least three times those of a figure.
    """

    def __init__(self, split: Split, wanted: int, side: int):
        self.figures, self.wanted, self.side = np.asarray(split.images)[..., 0], np.asarray(split.labels) == wanted, side
        self.n = self.figures.shape[1]
        if side < 3 * self.n:
            raise ValueError(f"side is {side} but figures have {self.n} pixels: needs at least {3 * self.n}")

    def draw(self, rng: np.random.Generator, others: int, wanted: bool, right: bool) -> tuple[np.ndarray, np.ndarray]:
        """One scene, and the first pixel of the figure that stands in the place of the wanted one."""
        scene, room = np.zeros((self.side,) * 2, np.uint8), self.side - self.n
        left = int(rng.integers(0, self.n // 2 + 1))
        place = np.array([rng.integers(0, room + 1), room - left if right else left])
        for number in range(others + 1):
            at = place
            while number and np.abs(at - place).max() < self.n:  # never over the one in its place
                at = rng.integers(0, room + 1, 2)
            kind = self.wanted if number == 0 and wanted else ~self.wanted
            figure = self.figures[rng.choice(np.flatnonzero(kind))]
            window = scene[at[0] : at[0] + self.n, at[1] : at[1] + self.n]
            np.maximum(window, figure, out=window)
        return scene[..., None], place

    def many(
        self, seed: int, number: int, others: Sequence[int], wanted: Sequence[bool], right: bool
    ) -> tuple[Split, np.ndarray]:
        """Scenes with each of some numbers of others in turn, and each of `wanted`; and the places."""
        rng = np.random.default_rng(seed)
        kinds = list(itertools.islice(itertools.cycle(itertools.product(wanted, others)), number))
        scenes, places = zip(*(self.draw(rng, many, there, right) for there, many in kinds), strict=True)
        return Split(np.stack(scenes), np.array([there for there, _ in kinds], np.int32)), np.stack(places)


class Searcher(nnx.Module):
    """Two layers and a map of one channel; its largest entry is the score of "it is there", against zero."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], connectivity: str, seed: int):
        rngs, wiring = nnx.Rngs(seed), Wiring(connectivity)
        first = Stage(shape, widths[0], 5, STRIDE, padding=2, wiring=wiring, rngs=rngs)
        second = Stage(first.output_shape, widths[1], 5, wiring=wiring, rngs=rngs)
        last = Stage(second.output_shape, 1, 1, wiring=wiring, activation=nnx.identity, rngs=rngs)
        self.stages = nnx.List([first, second, last])

    def map(self, x: jax.Array) -> jax.Array:
        """How much every position looks like the wanted figure."""
        for stage in self.stages:
            x = stage(x)
        return x[..., 0]

    def __call__(self, x: jax.Array) -> jax.Array:
        score = self.map(x).max((1, 2))
        return jnp.stack([jnp.zeros_like(score), score], -1)


def mapping(model: Any, scenes: Data) -> Callable[[np.ndarray], jax.Array]:
    """The response map as a function of raw scenes."""
    return jax.jit(lambda x: model.map(standardise(x, scenes.mean, scenes.std)))


def hits(maps: np.ndarray, places: np.ndarray, n: int, stride: int) -> float:
    """How often the peak of a map lies on the figure of n x n pixels that begins at its place."""
    flat = maps.reshape(len(maps), -1).argmax(1)
    peak = stride * np.stack(np.divmod(flat, maps.shape[2]), 1)
    return float(((peak >= places) & (peak < places + n)).all(1).mean())
