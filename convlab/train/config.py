"""How to train: numbers and names, and the Optax parts that the names stand for."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from convlab.geometry import as_integer


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
      weight_decay: Decoupled, on arrays of two and more axes; only for "adamw".
      seed: Of the order of the images and of dropout (not of the model).
      evaluations: How often the test images are scored, evenly spread, the last time at the end.
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
    seed: int = 0
    evaluations: int = 10
    progress: bool = True

    def __post_init__(self):
        for name, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; needs one of {', '.join(table)}")
        for name, least in (("batch_size", 1), ("evaluations", 1), ("seed", 0)):
            as_integer(name, getattr(self, name), least)
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay {self.weight_decay} is for optimizer 'adamw', got {self.optimizer!r}")
        if self.steps is not None:
            as_integer("steps", self.steps)
        for name in ("learning_rate",) if self.steps else ("epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")

    def steps_on(self, images: int) -> int:
        """Number of steps on so many training images."""
        return self.steps or max(1, math.ceil(self.epochs * images / self.batch_size))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {  # all at rate 1: the step scales the updates
    "adam": lambda decay: optax.adam(1.0),
    "adamw": lambda decay: optax.adamw(1.0, weight_decay=decay, mask=_is_matrix),
    "sgd": lambda decay: optax.sgd(1.0),
    "momentum": lambda decay: optax.sgd(1.0, momentum=0.9),
}


def _is_matrix(parameters: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, parameters)


@functools.cache
def optimizer_of(name: str, decay: float) -> optax.GradientTransformation:
    """Build an optimizer once, so that equal ones are one object and share compilations."""
    return OPTIMIZERS[name](decay)
