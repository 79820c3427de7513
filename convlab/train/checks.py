"""Checks of a run's arguments before training, so that errors come early and in plain words."""

import os
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab.data import Data
from convlab.train.config import Config
from convlab.train.step import Trainable, cast, leaves_by_path

Kind = TypeVar("Kind")
# Jitted functions that are only traced. JAX caches their traces, so another run of the same network does not trace again.
_step = jax.jit(
    lambda p, model_state, x, apply, dtype: (apply(cast(p, dtype), model_state, x, jax.random.key(0), True), model_state),
    static_argnums=(3, 4),
)
_update = jax.jit(
    lambda p, optimizer: optax.with_extra_args_support(optimizer).update(p, optimizer.init(p), p, value=jnp.zeros(()), grad=p),
    static_argnums=1,
)


def from_folder(name: str, value: Kind | str | os.PathLike[str] | None, kind: type[Kind]) -> Kind | None:
    """Turn a folder into an object such as `Checkpoints`, and return such an object unchanged.

    Raises:
      TypeError: `value` is neither a folder, nor of this kind, nor None.
    """
    if isinstance(value, str | os.PathLike):
        return kind(value)  # pyright: ignore[reportCallIssue]
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{name} must be a folder or {kind.__name__}(folder), got {type(value).__name__}")


def check_types(data: Data, config: Config, optimizer: optax.GradientTransformation | None) -> None:
    """Raise TypeError if an argument has the wrong type."""
    for name, value, kind in (("data", data, Data), ("config", config, Config)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    if optimizer is not None and not hasattr(optimizer, "update"):
        raise TypeError(
            f"optimizer must be an Optax gradient transformation, got {type(optimizer).__name__};"
            " to choose one by name, use Config(optimizer=...)"
        )


def check_model(model: Trainable, data: Data, config: Config) -> None:
    """Raise ValueError unless the data can be trained on and the model fits them."""
    if config.patience is not None and data.validation is None:
        raise ValueError(f"patience {config.patience} needs a validation split, but {data.name} has none: see Data.hold_out")
    if not np.isfinite([data.mean, data.std]).all():
        raise ValueError(
            f"the training images of {data.name} are not finite or too large: per channel, their mean is {data.mean}"
            f" and their standard deviation is {data.std}"
        )
    x = jax.ShapeDtypeStruct((2, *data.image_shape), config.dtype)
    (logits, after), model_state = _step.eval_shape(model.parameters, model.model_state, x, model.apply, config.dtype)
    if logits.shape != (2, len(data.classes)):
        raise ValueError(
            f"model returns an array of shape {logits.shape} for 2 images, but {data.name} has {len(data.classes)} classes:"
            f" needs {(2, len(data.classes))}"
        )
    before, after = leaves_by_path(model_state), leaves_by_path(after)
    for path in {**before, **after}:
        old, new = before.get(path), after.get(path)
        if old is None or new is None or (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"model changes {path} of the model state from {_describe(old)} to {_describe(new)} in one step;"
                " needs the same shape and dtype in every step"
            )


def _describe(leaf: jax.ShapeDtypeStruct | None) -> str:
    return "nothing" if leaf is None else f"{leaf.shape} {leaf.dtype}"


def check_optimizer(optimizer: optax.GradientTransformation, parameters: Any) -> None:
    """Raise ValueError if the optimizer needs arguments that a step does not pass.

    For example, a line search needs `value_fn`.
    """
    try:
        _update.eval_shape(parameters, optimizer)
    except TypeError as error:
        raise ValueError(
            f"optimizer needs more arguments than a step passes (gradient, parameters, value and grad): {error}"
        ) from error
