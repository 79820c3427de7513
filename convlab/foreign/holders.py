"""The modules of an NNX network that hold arrays, and layers filled with given arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from convlab.calls import Path, modules_of


class Holder(NamedTuple):
    """Hold a module and its variables by name.

    Attributes:
      module: The module.
      variables: The variables of the module without those of the modules in it. Names of nested variables contain slashes.
    """

    module: nnx.Module
    variables: dict[str, nnx.Variable]


def holders(model: nnx.Module) -> dict[Path, Holder]:
    """Return the modules that hold variables by path. The states of random streams are left out.

    Raises:
      TypeError: The model is not a Flax NNX module.

    Example:
      >>> held = holders(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0))))
      >>> {path: list(holder.variables) for path, holder in held.items()}
      {('layers', 0): ['bias', 'kernel']}
    """
    modules, held = modules_of(model), {}
    state = nnx.state(model, nnx.All(nnx.Variable, nnx.Not(nnx.RngState)), ...)[0]
    for path, variable in nnx.to_flat_state(state):
        path = tuple(path)
        length = max(size for size in range(len(path)) if path[:size] in modules)
        holder = held.setdefault(path[:length], Holder(modules[path[:length]], {}))
        holder.variables["/".join(map(str, path[length:]))] = variable
    return held


def fill(layer: nnx.Module, arrays: Mapping[str, ArrayLike]) -> None:
    """Replace the variables of a layer by arrays of the same shapes."""
    for name, array in arrays.items():
        variable = getattr(layer, name)
        setattr(layer, name, variable.replace(jnp.asarray(array)))


def filled(build: Callable[[], Any], arrays: Mapping[str, ArrayLike], where: str) -> Any:
    """Build a layer that holds given arrays, without drawing new ones.

    Raises:
      ValueError: The layer has arrays of other shapes.
    """
    layer = nnx.eval_shape(build)
    for name, array in arrays.items():
        got, needed = jnp.shape(array), getattr(layer, name).shape
        if got != needed:
            raise ValueError(f"{where}: {name} has shape {got} but the layer needs {needed}")
    fill(layer, arrays)
    return layer
