"""What is looked at before a run starts, so that an error is told in words and at once."""

import os
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab.data import Data
from convlab.train.config import Config
from convlab.train.step import Trainable, by_path, cast

Kind = TypeVar("Kind")
# Compiled functions that are only traced: JAX keeps their traces, so that another run of the same network needs none.
_step = jax.jit(
    lambda p, model_state, x, apply, dtype: (apply(cast(p, dtype), model_state, x, jax.random.key(0), True), model_state),
    static_argnums=(3, 4),
)
_update = jax.jit(
    lambda p, optimizer: optax.with_extra_args_support(optimizer).update(p, optimizer.init(p), p, value=jnp.zeros(()), grad=p),
    static_argnums=1,
)


def in_folder(name: str, value: Kind | str | os.PathLike[str] | None, kind: type[Kind]) -> Kind | None:
    """Take a folder for what is kept there."""
    if isinstance(value, str | os.PathLike):
        return kind(value)  # pyright: ignore[reportCallIssue]
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{name} must be a folder or {kind.__name__}(folder), got {type(value).__name__}")


def check_kinds(data: Data, config: Config, optimizer: optax.GradientTransformation | None) -> None:
    """Raise TypeError if one is taken for another."""
    for name, value, kind in (("data", data, Data), ("config", config, Config)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    if optimizer is not None and not hasattr(optimizer, "update"):
        raise TypeError(
            f"optimizer must be an Optax transformation, got {type(optimizer).__name__}; a name goes into the configuration"
        )


def check(model: Trainable, data: Data, config: Config) -> None:
    """Raise ValueError unless the data can be trained on, and the model fits them."""
    if config.patience is not None and data.validation is None:
        raise ValueError(f"patience {config.patience} looks at a validation split, and {data.name} has none: see Data.hold_out")
    if not np.isfinite([data.mean, data.std]).all():
        raise ValueError(
            f"the training images of {data.name} are not finite, or too large: per channel their mean is {data.mean}"
            f" and their deviation {data.std}"
        )
    x = jax.ShapeDtypeStruct((2, *data.image_shape), config.dtype)
    (logits, after), model_state = _step.eval_shape(model.parameters, model.model_state, x, model.apply, config.dtype)
    if logits.shape != (2, len(data.classes)):
        raise ValueError(
            f"the model makes outputs of shape {logits.shape} from 2 images but {data.name} has {len(data.classes)} classes:"
            f" needs {(2, len(data.classes))}"
        )
    before, after = by_path(model_state), by_path(after)
    for path in {**before, **after}:
        was, is_now = before.get(path), after.get(path)
        if was is None or is_now is None or (was.shape, was.dtype) != (is_now.shape, is_now.dtype):
            raise ValueError(
                f"a step changes {path} of the model state from {_form(was)} to {_form(is_now)}; needs one form, as the"
                " next step starts from what the last one left"
            )


def _form(leaf: jax.ShapeDtypeStruct | None) -> str:
    return "nothing" if leaf is None else f"{leaf.shape} {leaf.dtype}"


def check_optimizer(optimizer: optax.GradientTransformation, parameters: Any) -> None:
    """Raise ValueError if it asks for what a step does not tell, as a line search for the loss elsewhere."""
    try:
        _update.eval_shape(parameters, optimizer)
    except TypeError as error:
        raise ValueError(f"optimizer asks for more than gradient, parameters, value and grad: {error}") from error
