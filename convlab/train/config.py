"""How to train: numbers and names, and the Optax parts that the names stand for."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab.geometry import as_integer
from convlab.optim import kernel_mask
from convlab.train.step import Recipe

SEEDS = 2**32  # that give keys of their own


@dataclasses.dataclass(frozen=True)
class Config:
    """How to train.

    Args:
      epochs: Passes over the training images.
      steps: Number of batches; overrides `epochs`.
      batch_size: Images a step; the last batch of an epoch goes on into the next one.
      optimizer: A name in `OPTIMIZERS`.
      learning_rate: Its peak.
      schedule: A name in `SCHEDULES`.
      weight_decay: Of kernels, not of biases and scales: decoupled for "adamw", added to the gradient for "sgd" and "momentum".
      label_smoothing: Share of the target that is spread evenly over all classes.
      accumulate: Pieces that a batch is taken in, one after the other, for less memory; their gradients are averaged.
      average: Decay of an exponential moving average of the parameters, which is then what is scored and returned; 0: none. It
        starts faster: after t steps the decay is (1 + t) / (10 + t), if that is less. It has the dtype of the parameters:
        one of half precision rounds away what a decay near 1 adds.
      dtype: Of images, activations and gradients in training: "float32", or "bfloat16" for half the memory and, on
        accelerators, more speed. Parameters, their updates, statistics and scores stay in float32.
      patience: Stop after so many scores without a better validation accuracy, and return the best parameters; None: never.
      seed: Of the order of the images, of `augment`, and of the keys that a Linen module or a `Trainable` gets for dropout,
        below 2**32. An NNX module brings its own keys, for its dropout too: those of the `rngs` it was made with.
      shuffle: Whether every epoch has the images in another order; if False, all have them in their stored order.
      evaluations: How often the test images are scored, evenly spread, the last time at the end.
      chunk: Steps in one call, as a scan; None: one on CPU, eight elsewhere. On CPU eight took a perceptron of 0.3 ms a step to
        0.05 ms and convlab's convolutions nowhere; XLA's own convolution, as in `nnx.Conv`, gets slower by 17 times.
      mesh: Devices to train on together: an axis "n" splits the batch, an axis "i" the output rows of layers and the kernels
        that differ by row. Nothing else of a run changes.
      progress: Show a progress bar.

    Raises:
      ValueError: A value out of range or unknown.
    """

    epochs: float = 10
    steps: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    accumulate: int = 1
    average: float = 0.0
    dtype: str = "float32"
    patience: int | None = None
    seed: int = 0
    shuffle: bool = True
    evaluations: int = 10
    chunk: int | None = None
    mesh: jax.sharding.Mesh | None = None
    progress: bool = True

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # as of np.arange: JSON has only Python's numbers
                object.__setattr__(self, field.name, value.item())
        for name, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("dtype", DTYPES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; needs one of {', '.join(table)}")
        for name, least in (("batch_size", 1), ("evaluations", 1), ("accumulate", 1), ("seed", 0)):
            as_integer(name, getattr(self, name), least)
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be taken in {self.accumulate} equal pieces (accumulate)")
        if self.seed >= SEEDS:
            raise ValueError(f"seed must be below 2**32, as JAX's random keys have 32 bits of it, got {self.seed}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError(f"weight_decay {self.weight_decay} is not for optimizer 'adam'; 'adamw' has it")
        for name in ("steps", "patience", "chunk"):
            if getattr(self, name) is not None:
                as_integer(name, getattr(self, name), 1)
        for name in ("label_smoothing", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate",) if self.steps else ("epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")

    def steps_on(self, images: int) -> int:
        """Number of steps on so many training images."""
        return self.steps or max(1, math.ceil(self.epochs * images / self.batch_size))

    def scored(self, steps: int) -> set[int]:
        """Steps after which the test images are scored."""
        return {math.ceil(steps * (k + 1) / self.evaluations) for k in range(self.evaluations)}

    @property
    def recipe(self) -> Recipe:
        """What of it is compiled into a step."""
        return Recipe(self.label_smoothing, self.accumulate, self.average, self.dtype)

    def rates(self, steps: int) -> np.ndarray:
        """Learning rate of each step."""
        return np.asarray(SCHEDULES[self.schedule](self.learning_rate, steps)(jnp.arange(steps)) * np.ones(steps, np.float32))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {  # all at rate 1: the step scales the updates
    "adam": lambda decay: optax.adam(1.0),
    "adamw": lambda decay: optax.adamw(1.0, weight_decay=decay, mask=kernel_mask),
    "sgd": lambda decay: _decayed(decay, optax.sgd(1.0)),
    "momentum": lambda decay: _decayed(decay, optax.sgd(1.0, momentum=0.9)),
}
DTYPES = ("float32", "bfloat16")


def _decayed(decay: float, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay, kernel_mask), optimizer) if decay else optimizer


@functools.cache
def optimizer_of(name: str, decay: float) -> optax.GradientTransformation:
    """Build an optimizer once, so that equal ones are one object and share compilations."""
    return OPTIMIZERS[name](decay)
