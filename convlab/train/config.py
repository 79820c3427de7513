"""Training configuration, and the Optax optimizers and schedules that it selects by name."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab import check
from convlab.choices import one_of, shown
from convlab.display import fields_html, short_repr
from convlab.geometry import as_integer
from convlab.optim import kernel_mask
from convlab.train.step import SEEDS, StepOptions


@dataclasses.dataclass(frozen=True, repr=False)
class Config:
    """Configuration of a training run.

    Args:
      epochs: The number of passes over the training images.
      steps: The number of batches. If not None, it overrides `epochs`.
      batch_size: The number of images per step. The last batch of an epoch continues into the next epoch.
      optimizer: The optimizer's name in `OPTIMIZERS`.
      learning_rate: The peak learning rate.
      schedule: The schedule's name in `SCHEDULES`.
      weight_decay: The weight decay of kernels; biases and scales have none. It is decoupled for "adamw" and added to the
        gradient for "sgd" and "momentum".
      label_smoothing: The share of the target that is spread evenly over all classes.
      accumulation_steps: The number of micro-batches that a batch is split into, to save memory. They are computed one after
        the other, and their gradients are averaged.
      ema_decay: The decay of an exponential moving average of the parameters, which is then evaluated and returned. If 0,
        there is no average. After t steps the decay is (1 + t) / (10 + t) if that is less, so the average moves faster at
        first. It has the dtype of the parameters: in half precision, rounding removes what a decay near 1 adds.
      dtype: The dtype of images, activations and gradients in training. "bfloat16" instead of "float32" halves the memory
        and is faster on accelerators. Parameters, their updates, statistics and scores stay in float32.
      patience: The number of scores without a better validation accuracy after which the run stops and returns the best
        parameters. If None, it never stops early. Data without classes are scored by the validation loss instead.
      seed: The seed, below 2**32, of the order of the images, of `augment`, and of the dropout keys of a Linen module or a
        `Trainable`. An NNX module uses the keys of the `rngs` it was made with, also for dropout.
      shuffle: Whether each epoch has its own order of the images. If False, every epoch has their stored order.
      evaluations: The number of times that the network is evaluated, evenly spaced, the last time at the end.
      steps_per_call: The number of steps per compiled call, run as a scan. If None, 1 on CPU and 8 elsewhere. On CPU, 8
        reduced a step of a perceptron from 0.3 ms to 0.05 ms and did not change convlab's convolutions. XLA's own convolution,
        as in `nnx.Conv`, gets 17 times slower.
      mesh: The devices to train on together. A mesh axis "n" splits the batch. A mesh axis "i" splits the output rows of
        layers and the kernels that differ by row. The mesh changes nothing else about a run.
      progress: Whether to show a progress bar.

    Raises:
      ValueError: A value is out of range or unknown.
      TypeError: A value has the wrong type.
    """

    epochs: float = 10
    steps: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    accumulation_steps: int = 1
    ema_decay: float = 0.0
    dtype: str = "float32"
    patience: int | None = None
    seed: int = 0
    shuffle: bool = True
    evaluations: int = 10
    steps_per_call: int | None = None
    mesh: jax.sharding.Mesh | None = None
    progress: bool = True

    __repr__ = short_repr
    _repr_html_ = fields_html

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (np.generic, np.ndarray, jax.Array)) and value.ndim == 0:  # from np.arange; JSON takes neither
                object.__setattr__(self, field.name, value.item())
        for name, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("dtype", DTYPES)):
            one_of(name, getattr(self, name), table)
        for name in ("shuffle", "progress"):
            check.instance(name, getattr(self, name), bool, "True or False")
        if self.mesh is not None:
            check.instance("mesh", self.mesh, jax.sharding.Mesh, "a jax.sharding.Mesh or None")
        self._check_integers()
        self._check_numbers()

    def _check_integers(self) -> None:
        for name in ("batch_size", "evaluations", "accumulation_steps"):
            _as_integer(name, getattr(self, name))
        for name in ("steps", "patience", "steps_per_call"):
            if getattr(self, name) is not None:
                _as_integer(name, getattr(self, name))
        _as_integer("seed", self.seed, 0)
        if self.seed >= SEEDS:
            raise ValueError(f"seed must be below 2**32, as JAX's random keys use 32 bits of it, got {self.seed}")
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"batch_size must be divisible by accumulation_steps={self.accumulation_steps}, got {self.batch_size}"
            )

    def _check_numbers(self) -> None:
        for name in ("epochs", "learning_rate", "weight_decay", "label_smoothing", "ema_decay"):
            check.number(name, getattr(self, name))
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError(f"weight_decay must be 0 for optimizer 'adam', got {self.weight_decay}; use 'adamw'")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate",) if self.steps else ("epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")

    def total_steps(self, images: int) -> int:
        """Compute the number of steps for a number of training images."""
        return self.steps or max(1, math.ceil(self.epochs * images / self.batch_size))

    def evaluation_steps(self, steps: int) -> set[int]:
        """Return the steps after which the network is evaluated in a run of `steps` steps."""
        return {math.ceil(steps * (k + 1) / self.evaluations) for k in range(self.evaluations)}

    @property
    def step_options(self) -> StepOptions:
        """The options that are compiled into a step."""
        return StepOptions(self.label_smoothing, self.accumulation_steps, self.ema_decay, self.dtype)

    def learning_rates(self, steps: int) -> np.ndarray:
        """Compute the learning rate of each step."""
        return np.asarray(SCHEDULES[self.schedule](self.learning_rate, steps)(jnp.arange(steps)) * np.ones(steps, np.float32))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {  # at learning rate 1; the step scales the updates
    "adam": lambda decay: optax.adam(1.0),
    "adamw": lambda decay: optax.adamw(1.0, weight_decay=decay, mask=kernel_mask),
    "sgd": lambda decay: _decayed(decay, optax.sgd(1.0)),
    "momentum": lambda decay: _decayed(decay, optax.sgd(1.0, momentum=0.9)),
}
DTYPES = ("float32", "bfloat16")


def _as_integer(name: str, value: object, least: int = 1) -> None:
    """Check a field that is one integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    as_integer(name, value, least, most=max(abs(value), 1))


def _decayed(decay: float, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay, kernel_mask), optimizer) if decay else optimizer


@functools.cache
def make_optimizer(name: str, decay: float) -> optax.GradientTransformation:
    """Build each optimizer once, so that runs with equal optimizers share compilations."""
    return OPTIMIZERS[name](decay)
