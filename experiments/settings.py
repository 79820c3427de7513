"""What many experiments have in common: where images come from, one plain way to train on a few of them, parts run at once."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
from flax import nnx

import convlab as cl
from convlab.data import Data

Part = TypeVar("Part")
Result = TypeVar("Result")


def at_once(run: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Run several parts at once, for compiling, and computing in small steps, keep a single core busy.

    As many as there are cores, eight at most; on an accelerator two, so that one compiles while the other computes.
    """
    many = min(os.cpu_count() or 1, 8) if jax.default_backend() == "cpu" else 2
    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(run, parts))


@dataclasses.dataclass(frozen=True)
class Source:
    """Where images come from and results go.

    Args:
      data: Name of the data set.
      data_dir: Where it is prepared; absent, the usual place.
      manual_dir: Where files lie that were fetched by hand, such as the IDX files of fashion_mnist.
      root: Folder that the results go to.
    """

    data: str = "digits"
    data_dir: str | None = None
    manual_dir: str | None = None
    root: str = "runs"

    def load(self) -> Data:
        """Load the data set, with progress."""
        return cl.load(self.data, data_dir=self.data_dir, manual_dir=self.manual_dir, progress=True)


@dataclasses.dataclass(frozen=True)
class Recipe(Source):
    """How a network is trained.

    Args:
      epochs: Passes over the training images.
      batch_size: Images a step.
      learning_rate: Of the optimizer, falling along a cosine.
      seeds: Runs with other initial weights, images and orders.
    """

    epochs: int = 10
    batch_size: int = 50
    learning_rate: float = 0.1
    seeds: int = 5

    def recipe(self, seed: int, optimizer: str = "adam", evaluations: int = 1) -> cl.Config:
        """What `fit` is told, without progress."""
        return cl.Config(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            learning_rate=self.learning_rate,
            evaluations=evaluations,
            progress=False,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Training(Recipe):
    """How a network is trained by SGD with momentum 0.9 on some images of each class.

    Args:
      size: Training images, drawn anew for every seed.
    """

    size: int = 1000

    def fit(self, model: nnx.Module, data: Data, seed: int) -> cl.Fitted:
        """Train on the seed's images, score once at the end."""
        return cl.fit(model, data.subset(self.size, seed), self.recipe(seed, "momentum"))
