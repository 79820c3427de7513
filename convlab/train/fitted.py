"""The result of training: the network as a pure function, its arrays, and its scores."""

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

from convlab.data import StoredImages
from convlab.train.config import Config
from convlab.train.step import Apply, NnxApply, Tree, compute_logits, cross_entropy

EVALUATION_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained network with its arrays, history and timings, as `fit` returns it.

    Attributes:
      apply: The network as a pure function.
      parameters: The trained arrays, a plain pytree.
      model_state: The arrays that are not trained, such as batch statistics.
      history: One row per evaluation: step, epoch, seconds, loss (the mean since the last row), test_loss and test_accuracy.
        With a validation split, a row also has validation_loss and validation_accuracy. Parameter metrics follow.
      config: The configuration of the run.
      seconds: The wall time of the run, including compilation.
      step_seconds: The mean wall time of a step, excluding compilation and evaluation.
      mean: The numbers that are subtracted from each channel (`Data.mean`).
      std: The numbers that each channel is divided by (`Data.std`).
      optimizer_state: The optimizer's state after the last step.
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
        """Compute the logits of raw images.

        Args:
          images: The images, in the units of the training data.

        Raises:
          ValueError: `images` is empty.
        """
        images = images if isinstance(images, StoredImages) else np.asarray(images)
        call = functools.partial(
            compute_logits, self.parameters, self.model_state, mean=self.mean, std=self.std, apply=self.apply
        )
        return collect_logits(call, padded_batches(images, EVALUATION_BATCH))

    def evaluate(self, images: ArrayLike, labels: ArrayLike) -> dict[str, float]:
        """Compute the mean "loss" and the "accuracy" on raw images.

        Args:
          images: The images, in the units of the training data.
          labels: The class of each image.

        Raises:
          ValueError: `images` is empty, the number of labels differs from the number of images, or the network has no output
            for a label.
        """
        images, labels = images if isinstance(images, StoredImages) else np.asarray(images), np.asarray(labels)
        if len(labels) != len(images):
            raise ValueError(f"labels has {len(labels)} entries for {len(images)} images; needs one label per image")
        logits = self.logits(images)
        classes = logits.shape[-1]
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"labels range from {labels.min()} to {labels.max()}; needs 0 to {classes - 1}, one class per output"
            )
        return loss_and_accuracy(logits, labels)

    def model(self) -> nnx.Module:
        """Return the trained NNX module in evaluation mode.

        The module expects standardised images.

        Raises:
          TypeError: The model was not an NNX module.
        """
        if not isinstance(self.apply, NnxApply):
            raise TypeError("model() needs a run of an NNX module; for other models use logits(images) or apply")
        return nnx.merge(self.apply.evaluate, self.parameters, self.model_state)


def collect_logits(call: Callable[[Any], Array], batches: Iterable[tuple[Any, int]]) -> np.ndarray:
    """Concatenate the logits of padded batches, without those of the padding."""
    return np.concatenate([np.asarray(call(batch))[..., :number, :] for batch, number in batches], -2)


def padded_batches(images: np.ndarray | StoredImages, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Split images into batches of equal size, so that one compiled program scores them all.

    Zeros fill up the last batch. Each batch comes with the number of its images.

    Raises:
      ValueError: `images` is empty.
    """
    if len(images) == 0:
        raise ValueError(f"images is empty: got shape {images.shape}; needs at least one image")
    for first in range(0, len(images), size):
        part = np.asarray(images[first : first + size])
        yield np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)]), len(part)


@jax.jit
def _mean_loss(logits: Array, labels: Array) -> Array:
    return cross_entropy(logits, labels).mean()


def loss_and_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute the mean loss and the accuracy of logits."""
    return {
        "loss": float(_mean_loss(logits, labels)),
        "accuracy": float((logits.argmax(-1) == labels).mean()),
    }
