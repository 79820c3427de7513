"""What training leaves: the network as a pure function, its arrays, and its scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab.data import Stored
from convlab.train.config import Config
from convlab.train.step import Apply, NnxApply, Tree, cross_entropy, logits_of

EVALUATION_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
      apply: The network as a pure function.
      parameters: Trained arrays, a plain pytree.
      model_state: Arrays that are not trained, such as batch statistics.
      history: One row per evaluation: step, epoch, seconds, loss (mean since the last row), test_loss, test_accuracy, and
        validation_loss, validation_accuracy where there is such a split; and what was watched.
      config: How it was trained.
      seconds: Wall time of all, compilation included.
      step_seconds: Wall time of a step, compilation and evaluation excluded.
      mean: Of the training pixels, per channel.
      std: Of the training pixels, per channel.
      optimizer_state: What the optimizer remembered after the last step.
    """

    apply: Apply
    parameters: Tree
    model_state: Tree
    history: list[dict[str, float]]
    config: Config
    seconds: float
    step_seconds: float
    mean: np.ndarray
    std: np.ndarray
    optimizer_state: optax.OptState = ()

    def logits(self, images: ArrayLike) -> Float[np.ndarray, "n classes"]:
        """Score raw images, in the units of the data that were fitted.

        Raises:
          ValueError: No image.
        """
        images = images if isinstance(images, Stored) else np.asarray(images)
        call = functools.partial(logits_of, self.parameters, self.model_state, mean=self.mean, std=self.std, apply=self.apply)
        return score(call, padded(images, EVALUATION_BATCH))

    def evaluate(self, images: ArrayLike, labels: ArrayLike) -> dict[str, float]:
        """Return the mean "loss" and the "accuracy" on raw images.

        Raises:
          ValueError: No image, another number of labels, or a label that the network has no output for.
        """
        images, labels = images if isinstance(images, Stored) else np.asarray(images), np.asarray(labels)
        if len(labels) != len(images):
            raise ValueError(f"got {len(images)} images but {len(labels)} labels; needs one label per image")
        logits = self.logits(images)
        classes = logits.shape[-1]
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels run from {labels.min()} to {labels.max()}; needs 0 to {classes - 1}, one for each output")
        return measure(logits, labels)

    def model(self) -> nnx.Module:
        """Return the trained NNX module, in evaluation mode; it expects standardised images.

        Raises:
          TypeError: The model was not an NNX module.
        """
        if not isinstance(self.apply, NnxApply):
            raise TypeError("only an NNX module can be put together again; use logits(images) or apply")
        return nnx.merge(self.apply.evaluate, self.parameters, self.model_state)


def score(call: Callable[[Any], Array], batches: Iterable[tuple[Any, int]]) -> np.ndarray:
    """Score batches, each up to the number of its images; one size of batch compiles one program for any number of images."""
    return np.concatenate([np.asarray(call(batch))[..., :number, :] for batch, number in batches], -2)


def padded(images: np.ndarray | Stored, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut images into batches of one size, the last filled up with zeros; yields each with the number of its images."""
    if len(images) == 0:
        raise ValueError(f"images is empty: its shape is {images.shape}")
    for first in range(0, len(images), size):
        part = np.asarray(images[first : first + size])
        yield np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)]), len(part)


@jax.jit
def _mean_loss(logits: Array, labels: Array) -> Array:
    return cross_entropy(logits, labels).mean()


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the mean loss and the accuracy of logits."""
    return {
        "loss": float(_mean_loss(logits, labels)),
        "accuracy": float((logits.argmax(-1) == labels).mean()),
    }
