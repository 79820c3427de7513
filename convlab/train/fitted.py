"""The result of training: the network as a pure function, its arrays, and its scores."""

from __future__ import annotations  # so that `help` shows the names of types, not what they stand for

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import linen, nnx
from jaxtyping import Array, Float, Int

from convlab.choices import one_of, shown
from convlab.data import StoredImages
from convlab.data.arrays import Values, as_labels, as_pixels
from convlab.train import saved
from convlab.train.checks import as_scalars, check_functions
from convlab.train.config import Config
from convlab.train.raw_inputs import RawInputs, warn_of_scale
from convlab.train.step import Apply, Loss, Metrics, NnxApply, Trainable, Tree, compute_logits, mean_loss
from convlab.train.texts import fitted_text, runs_html

EVALUATION_BATCH = 500
INPUTS = ("standardised", "raw")


@dataclasses.dataclass(frozen=True, repr=False)
class Fitted:
    """A trained network with its arrays, history and timings, as `fit` returns it.

    `predict`, `predict_proba`, `logits` and `evaluate` take raw images, in the units of the training data, and standardise
    them. `save` writes the network to a folder, and `Fitted.load` reads it in any process.

    Attributes:
      apply: The network as a pure function.
      parameters: The trained arrays, a plain pytree.
      model_state: The arrays that are not trained, such as batch statistics.
      history: One row per evaluation: step, epoch, seconds, loss (the mean since the last row), test_loss and test_accuracy.
        With a validation split, a row also has validation_loss and validation_accuracy. Metrics of `fit` follow. Without
        classes there is no accuracy.
      config: The configuration of the run.
      seconds: The wall time of the run, including compilation.
      step_seconds: The mean wall time of a step, excluding compilation and evaluation.
      mean: The numbers that are subtracted from each channel (`Data.mean`).
      std: The numbers that each channel is divided by (`Data.std`).
      image_shape: The shape of one image, (*space, c).
      dtype: The dtype of the training images, uint8 or float32.
      classes: The names of the classes, or () if the network was trained on targets.
      optimizer_state: The optimizer's state after the last step. In a loaded network whose optimizer is unknown, a dict of
        its arrays by path.
      loss: The loss that was passed to `fit`, or None for the cross-entropy. In a loaded network, the name of a loss that
        was not passed to `load`.
      metrics: The metrics that were passed to `fit`, or None.
      pixel_range: The least and the largest training pixel (`Data.pixel_range`). If None, images of another scale are not
        noticed.
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
    image_shape: tuple[int, ...]
    dtype: np.dtype
    classes: tuple[str, ...]
    optimizer_state: optax.OptState = ()
    loss: Loss | str | None = None
    metrics: Metrics | None = None
    pixel_range: tuple[float, float] | None = None

    def __repr__(self) -> str:
        return fitted_text(self)

    def _repr_html_(self) -> str:
        """Return the curves and the last scores. Notebooks call it."""
        return runs_html(repr(self), [self.history])

    def predict(self, images: Values | StoredImages) -> Int[np.ndarray, "*n"]:
        """Predict the class numbers of raw images. The name of class k is `classes[k]`.

        Args:
          images: The images, as in `logits`.

        Raises:
          ValueError: `images` have the wrong shape or are not finite, or the network was trained on targets and has no classes.
          TypeError: `images` are not real numbers.
        """
        self._check_classes("predict")
        return np.asarray(self._logits(*self._as_batch(images)).argmax(-1))

    def predict_proba(self, images: Values | StoredImages) -> Float[np.ndarray, "*n classes"]:
        """Predict the probability of each class for raw images, which is the softmax of the logits.

        Args:
          images: The images, as in `logits`.

        Raises:
          ValueError: `images` have the wrong shape or are not finite, or the network was trained on targets and has no classes.
          TypeError: `images` are not real numbers.
        """
        self._check_classes("predict_proba")
        logits = self._logits(*self._as_batch(images))
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    def _check_classes(self, name: str) -> None:
        if not self.classes:
            raise ValueError(f"{name} needs classes, but the network was trained on targets; use logits(images)")

    def logits(self, images: Values | StoredImages) -> Float[np.ndarray, "*outputs"]:
        """Compute the logits of raw images, or the outputs of a network that was trained on targets.

        The result is the same to the last bit in another process on the same machine. One image and the same image among
        others can differ by rounding.

        Args:
          images: One image (*space, c), or several (n, *space, c), in the units of the training data: NumPy, JAX, nested
            lists or `StoredImages`. Pixels are not scaled to those of training, but there is a warning if they are far outside
            of their range, or all near 0.

        Returns:
          The outputs, with an axis for the images if `images` has one.

        Raises:
          ValueError: `images` is empty, contains NaN or infinity, or has another shape than in training.
          TypeError: `images` are not real numbers.
        """
        return self._logits(*self._as_batch(images))

    def _logits(self, batch: np.ndarray | StoredImages, is_single: bool) -> np.ndarray:
        """Compute the logits of images with a batch axis, which the result drops if the images had none."""
        call = functools.partial(
            compute_logits, self.parameters, self.model_state, mean=self.mean, std=self.std, apply=self.apply
        )
        logits = collect_logits(call, padded_batches(batch, 1 if is_single else EVALUATION_BATCH))
        return logits[0] if is_single else logits

    def _as_batch(self, images: Any) -> tuple[np.ndarray | StoredImages, bool]:
        """Return images with a batch axis, and whether there was none."""
        batch = images if isinstance(images, StoredImages) else as_pixels("images", images)
        is_single = batch.shape == self.image_shape
        if not is_single and batch.shape[1:] != self.image_shape:
            hint = ": pass images[..., None]" * ((*batch.shape, 1)[-len(self.image_shape) :] == self.image_shape)
            raise ValueError(
                f"images have shape {batch.shape}; needs one image {self.image_shape} or several"
                f" (n, {', '.join(map(str, self.image_shape))}), as in training{hint}"
            )
        if isinstance(batch, np.ndarray) and self.pixel_range is not None:
            warn_of_scale(batch, self.dtype, self.pixel_range)
        return (np.asarray(batch)[None] if is_single else batch), is_single

    def evaluate(self, images: Values | StoredImages, labels: Values) -> dict[str, float]:
        """Compute the mean "loss", the "accuracy" and the metrics of `fit` on raw images.

        A network that was trained on targets has no accuracy.

        Args:
          images: The images, as in `logits`.
          labels: The class number, the class name or the target of each image.

        Raises:
          ValueError: `images` is empty or not finite, there is not one label per image, or the network has no output for a
            label. Or the network was loaded and its loss was not passed to `load`.
          TypeError: `images` are not real numbers, or the labels are of another kind than in training.
        """
        batch, is_single = self._as_batch(images)
        labels = as_labels("labels", [labels] if is_single else labels, self.classes)
        if len(labels) != len(batch):
            raise ValueError(f"labels has {len(labels)} entries for {len(batch)} images; needs one label per image")
        if isinstance(self.loss, str):
            raise ValueError(f"loss is unknown: the network was trained with {self.loss}; pass loss={self.loss} to Fitted.load")
        count = len(self.classes)
        if count and (labels.dtype.kind == "f" or labels.ndim != 1):
            raise TypeError(f"labels must be one class number or name per image, got {shown(labels)}")
        if count and (labels.min() < 0 or labels.max() >= count):
            raise ValueError(
                f"labels range from {labels.min()} to {labels.max()}; needs 0 to {count - 1}, one class per output"
            )
        labels = labels.astype(np.int32 if count else np.float32)
        return scores(self._logits(batch, False), labels, self.loss, self.metrics)

    def model(self, inputs: str = "standardised") -> nnx.Module:
        """Return the trained NNX module in evaluation mode, for standardised images unless `inputs` is "raw".

        Both can be relaxed, constrained and summarised. The module for standardised images can be trained again by `fit`,
        which standardises. `fit` refuses the module for raw images, unless the data have the standardisation "none".

        Args:
          inputs: The images that the module takes. "standardised" takes those of
            `convlab.data.standardise(images, fitted.mean, fitted.std)`. "raw" takes images in the units of the training data,
            and standardises them first.

        Raises:
          TypeError: The model was not an NNX module.
          ValueError: `inputs` is unknown.
        """
        one_of("inputs", inputs, INPUTS)
        if not isinstance(self.apply, NnxApply):
            raise TypeError("model() needs a run of an NNX module; for other models use logits(images) or apply")
        network = nnx.merge(self.apply.evaluate, self.parameters, self.model_state)
        return RawInputs(network, self.mean, self.std) if inputs == "raw" else network

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the network to a new folder, from which `Fitted.load` reads it in any process.

        The folder keeps the parameters, the model state and the optimizer's state, the history, the configuration, the
        timings, the standardisation, the names of the classes, and the shape and dtype of the images. A network of
        `convlab.models` is kept as its class and arguments. Any other network, and one that was changed after it was built
        (relaxed, constrained or pruned), is not kept: pass it to `load`. Neither are `augment`, `optimizer`, `metrics`, the
        mesh, and losses other than those of Optax and `jax.nn`. No pickle is written. The files have checksums, and the
        folder is either complete or missing.

        Args:
          path: The folder. Folders above it are made if they do not exist.
          overwrite: Whether to replace a network that was saved there. Other folders are never replaced.

        Raises:
          ValueError: The folder exists and `overwrite` is False, or it holds something else than a saved network.
          OSError: The folder cannot be written. Nothing is left of it.
        """
        saved.write(self, path, overwrite)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nnx.Module | linen.Module | Trainable | None = None,
        *,
        optimizer: optax.GradientTransformation | None = None,
        loss: Loss | None = None,
        metrics: Metrics | None = None,
    ) -> Fitted:
        """Load a network from the folder of `save`. All checksums are verified first, and no code of the folder is run.

        Args:
          path: The folder.
          model: A network of the same structure, whose arrays are replaced: an NNX module, a Linen module or a `Trainable`. If
            None, the network of `convlab.models` that was saved.
          optimizer: The optimizer of the run, if one was passed to `fit`. If None, that of the configuration. If its state does
            not fit, `optimizer_state` is a dict of arrays by path.
          loss: The loss of the run, for `evaluate`. If None, the saved one, if it is of Optax or `jax.nn`.
          metrics: The metrics for `evaluate`. If None, there are none.

        Raises:
          ValueError: The folder holds no saved network or was written by a later release, `model` is needed, or arrays differ
            in path, shape or dtype from those of `model` or `optimizer`.
          DamagedError: A file has changed since it was written.
          TypeError: An argument has the wrong type.

        Example:
          >>> fitted.save("digits")  # doctest: +SKIP
          >>> convlab.Fitted.load("digits").predict(images)  # doctest: +SKIP
        """
        check_functions(metrics=metrics)
        return cls(**saved.read(path, model, optimizer, loss), metrics=metrics)


def collect_logits(call: Callable[[Any], Array], batches: Iterable[tuple[Any, int]], axis: int = 0) -> np.ndarray:
    """Concatenate the logits of padded batches along their batch axis, without those of the padding."""
    before = (slice(None),) * axis
    return np.concatenate([np.asarray(call(batch))[(*before, slice(number))] for batch, number in batches], axis)


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


_mean_loss = jax.jit(lambda logits, labels, loss: mean_loss(loss, logits, labels), static_argnums=2)


def scores(logits: np.ndarray, labels: np.ndarray, loss: Loss | None, metrics: Metrics | None) -> dict[str, float]:
    """Compute the mean loss, the accuracy if the labels are class numbers, and the metrics of logits."""
    row = {"loss": float(_mean_loss(logits, labels, loss))}
    if labels.dtype.kind != "f":
        row["accuracy"] = float((logits.argmax(-1) == labels).mean())
    return row if metrics is None else row | as_scalars(metrics(logits, labels))
