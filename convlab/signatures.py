"""Signatures of classes whose metaclass hides them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


class ConstructorSignature:
    """Show the constructor of a Flax NNX class to `help` and `inspect.signature`.

    The metaclass of `nnx.Module` shows `(*args, **kwargs)` for every class. This descriptor is the class attribute
    `__signature__`, and subclasses inherit it. Instances have no such attribute, so that their signature is that of
    `__call__`.

    Args:
      **expanded: The collected keyword arguments to show one by one, by name. Each is given as a function from the class to
        a dataclass whose fields have the names, types and defaults of the arguments.

    Example:
      >>> class Scale:
      ...     __signature__ = ConstructorSignature()
      ...     def __init__(self, factor: float = 2): ...
      >>> inspect.signature(Scale)
      <Signature (factor: float = 2)>
    """

    def __init__(self, **expanded: Callable[[Any], Any]):
        self.expanded = expanded

    def __get__(self, instance: Any, owner: Any) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__ is an attribute of the class, not of its instances")
        if owner.__init__ is object.__init__:
            return inspect.Signature()
        _, *parameters = inspect.signature(owner.__init__).parameters.values()
        last = parameters[-1].name if parameters else ""
        fields = self.expanded[last](owner) if last in self.expanded else None
        return inspect.Signature(parameters if fields is None else [*parameters[:-1], *_keywords(fields)])


def _keywords(fields: Any) -> list[inspect.Parameter]:
    """Return the fields of a dataclass, or of an instance with other defaults, as keyword-only parameters."""
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=getattr(fields, field.name), annotation=field.type
        )
        for field in dataclasses.fields(fields)
    ]
