"""Transfer of an optimizer's state from a network to its conversion on another rung."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from convlab import check
from convlab.calls import modules_of
from convlab.rungs import Layout, transfer, transfer_bias
from convlab.surgery.networks import described_layer, paired

KeyPath = tuple[Any, ...]


def transfer_optimizer_state(
    optimizer: optax.GradientTransformation, state: optax.OptState, old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]
) -> optax.OptState:
    r"""Transfer an optimizer's state from a network to its relaxed or constrained version.

    $$m' = L\, m$$

    Here m is an array of the state, such as a momentum, and L the linear map that converts the layer's weights.

    Momentum, moments and moving averages are converted like the parameters. A momentum is a direction in parameter space,
    so the two networks take the same next step if they get the same momentum. Adam's second moment is converted in the same
    way, and so every weight keeps its step size. Weights that the stricter network did not have get no history. Adam's
    first steps there are up to (1 - b1) / sqrt(1 - b2) learning rates long, 3 by default. Counts are kept.

    Some arrays start with a new state. These are the arrays of low-rank layers, whose conversion is not linear, and arrays
    that only now come under a mask. A bias per position has several axes, so a mask such as `ndim > 1` now includes it,
    while `convlab.optim.kernel_mask` does not.

    To reset the state instead, use `optimizer.init` with the new network's parameters. Batch statistics are part of the
    network, which already contains them.

    Args:
      optimizer: An Optax transformation.
      state: Its state for the parameters of `old`: with plain dictionaries as in `Fitted.optimizer_state`, with states as
        `nnx.state` returns, or the `opt_state` of an `nnx.Optimizer` of all `nnx.Param`.
      old: The network before the conversion.
      new: The network after the conversion, with the same layers at the same paths.
      image_shape: The shape (*space, c) of one image.

    Returns:
      The state for `new`, of the same kind.

    Raises:
      ValueError: The networks have spatial layers at different paths, or `state` is not this optimizer's state for `old`.
        The state of a converted layer contains other values than numbers in the shape of the parameters, as for Adafactor,
        SM3, L-BFGS and `keep_pruned`.

    Example:
      >>> from convlab.layers import Conv
      >>> from convlab.surgery import relax
      >>> old = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
      >>> sgd = optax.sgd(0.1, momentum=0.9)
      >>> state = sgd.init(nnx.to_pure_dict(nnx.state(old, nnx.Param)))
      >>> new = relax(old, "dense", (5, 7, 1))
      >>> transfer_optimizer_state(sgd, state, old, new, (5, 7, 1))[0].trace["layers"][0]["kernel"].shape
      (5, 7, 5, 7, 1, 2)
    """
    check.instance("optimizer", optimizer, optax.GradientTransformation, "an Optax gradient transformation")
    for name, model in {"old": old, "new": new}.items():
        check.instance(name, model, nnx.Module, "a Flax NNX module")
    start = _kind_of(state, optimizer, old)
    before, after = paired(old, new, image_shape)
    modules = modules_of(old)
    shapes, new_shapes = (
        {tuple(key.key for key in path): jnp.shape(leaf) for path, leaf in _leaves(_parameters(model)).items()}
        for model in (old, new)
    )
    values = _leaves(state)

    def convert(path: KeyPath, fresh: Any) -> Any:
        parameter, value = _parameter_of(path, new_shapes), values.get(path)
        layer, name = parameter[:-1], parameter[-1:]
        changed = bool(parameter) and layer in before and before[layer] != after[layer]
        if parameter and value is None:
            return fresh
        if changed and name != ("bias",) and not (before[layer].tying.is_linear and after[layer].tying.is_linear):
            return fresh
        if changed and _is_direction(value, shapes.get(parameter)) and _is_direction(fresh, new_shapes[parameter]):
            value = jnp.asarray(value) if name == ("bias",) else described_layer(modules[layer]).turned(jnp.asarray(value))
            return _converted(name[0], value, before[layer], after[layer])
        shape = None if value is None else jnp.shape(value)
        if value is None or shape != jnp.shape(fresh):
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} has shape {shape} but needs {jnp.shape(fresh)} for the new network:"
                " only values in the shape of their parameter can be converted; reset the state with optimizer.init"
            )
        return jnp.copy(value)

    return jax.tree_util.tree_map_with_path(convert, start(optimizer, new))


def _parameters(model: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


# the kinds of states: for parameters in plain dictionaries, for an NNX state, and inside an `nnx.Optimizer`
KINDS: tuple[Callable[[optax.GradientTransformation, nnx.Module], optax.OptState], ...] = (
    lambda optimizer, model: optimizer.init(_parameters(model)),
    lambda optimizer, model: optimizer.init(nnx.state(model, nnx.Param)),
    lambda optimizer, model: nnx.Optimizer(model, optimizer, wrt=nnx.Param).opt_state,
)


def _kind_of(state: optax.OptState, optimizer: optax.GradientTransformation, model: nnx.Module) -> Callable:
    """Return the function that makes a state of the same kind as this one.

    Raises:
      ValueError: The state is not one of this optimizer for this model.
    """
    shapes = {path: jnp.shape(leaf) for path, leaf in _leaves(state).items()}
    kinds = KINDS[1:] if any(map(_in_variable, shapes)) else KINDS[:1]
    expected = [{path: jnp.shape(leaf) for path, leaf in _leaves(kind(optimizer, model)).items()} for kind in kinds]
    if shapes in expected:
        return kinds[expected.index(shapes)]
    first, *_ = expected
    differing = [path for path in {**first, **shapes} if shapes.get(path) != first.get(path)]
    details = "; ".join(f"{jax.tree_util.keystr(path)}: {shapes.get(path)}, needs {first.get(path)}" for path in differing[:3])
    raise ValueError(f"state must have the structure of optimizer.init for the old network's parameters ({details})")


def _leaves(tree: Any) -> dict[KeyPath, Any]:
    return dict(jax.tree_util.tree_leaves_with_path(tree))


def _in_variable(path: KeyPath) -> bool:
    """Return True if a leaf is the value of a Flax variable."""
    return bool(path) and getattr(path[-1], "name", None) == "value"


def _is_direction(leaf: Any, shape: tuple[int, ...] | None) -> bool:
    """Return True if a leaf holds one number for every entry of a parameter."""
    return jnp.shape(leaf) == shape and jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)


def _converted(name: str, value: Any, before: Layout, after: Layout) -> Any:
    return transfer_bias(value, after) if name == "bias" else transfer({name: value}, before, after)[name]


def _parameter_of(path: KeyPath, known: Mapping[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """Return the path of the parameter that a leaf of a state belongs to, or () if there is none."""
    keys = tuple(getattr(key, "key", None) for key in path)
    keys = keys[:-1] if _in_variable(path) else keys
    ends = (keys[first:] for first in range(len(keys)))
    return next((end for end in ends if end in known), ())
