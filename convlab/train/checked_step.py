"""The training steps with checks of their arguments.

`fit` checks its arguments once and calls the steps of `convlab.train.step`, which have no checks.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from convlab import check
from convlab.train import step
from convlab.train.checks import check_functions
from convlab.train.step import State, StepOptions

Step = TypeVar("Step", bound=Callable[..., Any])
ARRAYS = ("images", "labels", "mean", "std", "learning_rate", "learning_rates")


def checked(function: Step) -> Step:
    """Add checks of the arguments to a compiled training step."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        arguments = signature.bind(*positional, **named).arguments
        arguments |= arguments.pop("options", {})
        _check(arguments)
        arguments |= {name: check.array(name, arguments[name]) for name in ARRAYS if name in arguments}
        try:
            return function(**arguments)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, jax.errors.JAXTypeError):  # not about shapes
                raise
            shapes = ", ".join(f"{name} {arguments[name].shape}" for name in ARRAYS if name in arguments)
            raise ValueError(f"apply, loss, augment or optimizer fails on arrays of the shapes {shapes}: {error}") from error

    return call  # pyright: ignore[reportReturnType]


def _check(arguments: dict[str, Any]) -> None:
    """Check the arguments of a step that are not arrays.

    Raises:
      TypeError: An argument has the wrong type.
    """
    check.instance("state", arguments["state"], State, "a State, such as initial_state returns")
    check.instance("step_options", arguments.get("step_options", StepOptions()), StepOptions, "a StepOptions")
    for name in ("apply", "optimizer"):
        if name not in arguments:
            raise TypeError(f"{name} is missing; needs the network and the optimizer of the step")
    check.optimizer("optimizer", arguments["optimizer"])
    check.function("apply", arguments["apply"])
    check_functions(**{name: arguments.get(name) for name in ("apply", "augment", "loss")})


train_step = checked(step.train_step)
train_steps = checked(step.train_steps)
