"""What training leaves: the network as a pure function, its arrays, and its scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Float

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
      rest: Arrays that are not trained, such as batch statistics.
      history: One row per evaluation: step, epoch, seconds, loss (mean since the last row), test_loss, test_accuracy, and
        validation_loss, validation_accuracy where there is such a split.
      config: How it was trained.
      seconds: Wall time of all, compilation included.
      step_seconds: Wall time of a step, compilation and evaluation excluded.
      mean: Of the training pixels, per channel.
      std: Of the training pixels, per channel.
    """

    apply: Apply
    parameters: Tree
    rest: Tree
    history: list[dict[str, float]]
    config: Config
    seconds: float
    step_seconds: float
    mean: np.ndarray
    std: np.ndarray

    def logits(self, images: ArrayLike) -> Float[np.ndarray, "n classes"]:
        """Score raw images, in the units of the data that were fitted.

        Raises:
          ValueError: No image.
        """
        return score(self.apply, self.parameters, self.rest, np.asarray(images), self.mean, self.std)

    def evaluate(self, images: ArrayLike, labels: ArrayLike) -> dict[str, float]:
        """Return the mean "loss" and the "accuracy" on raw images.

        Raises:
          ValueError: No image, or another number of labels.
        """
        labels = np.asarray(labels)
        if len(labels) != len(np.asarray(images)):
            raise ValueError(f"got {len(np.asarray(images))} images but {len(labels)} labels; needs one label per image")
        return measure(self.logits(images), labels)

    def model(self) -> nnx.Module:
        """Return the trained NNX module, in evaluation mode; it expects standardised images.

        Raises:
          TypeError: The model was not an NNX module.
        """
        if not isinstance(self.apply, NnxApply):
            raise TypeError("only an NNX module can be put together again; use logits(images) or apply")
        return nnx.merge(self.apply.evaluate, self.parameters, self.rest)


def score(
    apply: Apply, parameters: Tree, rest: Tree, images: np.ndarray | Stored, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    """Score images in batches of one size, so that their number compiles nothing."""
    if len(images) == 0:
        raise ValueError(f"images is empty: its shape is {images.shape}")
    parts = []
    for first in range(0, len(images), EVALUATION_BATCH):
        part = images[first : first + EVALUATION_BATCH]
        padded = np.concatenate([part, np.zeros((EVALUATION_BATCH - len(part), *part.shape[1:]), part.dtype)])
        parts.append(logits_of(parameters, rest, padded, mean, std, apply=apply)[: len(part)])
    return np.concatenate(jax.device_get(parts))


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "loss": float(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean()),
        "accuracy": float((logits.argmax(-1) == labels).mean()),
    }
