"""What an optimizer remembers of a network, carried to the network's image at another rung."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from convlab.relax.networks import paired
from convlab.rungs import Layout, transfer, transfer_bias

KeyPath = tuple[Any, ...]


def transfer_optimizer_state(
    optimizer: optax.GradientTransformation, state: optax.OptState, old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]
) -> optax.OptState:
    """Take an optimizer's state from a network to what `relax` or `constrain` made of it.

    Momentum, moments and moving averages are re-written as the parameters are: a momentum is a direction of the parameters, so
    that relaxed network and strict one take the same next step if they get the same momentum. Adam's second moment is copied
    likewise, and so is the size of every step that a weight was about to take; a weight that the strict network did not have
    has no history, and Adam's first steps there are up to (1 - b1) / sqrt(1 - b2) learning rates long, 3 by default. Counts
    are kept. Arrays that the old network did not have (of low rank, which is not linear) start as new, and so do those that
    only now come under a mask: a bias by position has several axes, so that a mask of all that has, such as
    `ndim > 1`, then means biases, too; `convlab.optim.kernel_mask` does not.

    To reset instead, take `optimizer.init` of the new network's parameters. Batch statistics belong to the network, and are
    carried with it.

    Args:
      optimizer: An Optax transformation.
      state: Its state for the parameters of `old`: as plain dictionaries (as in `Fitted.optimizer_state`), as
        `nnx.state` has them, or as `opt_state` of an `nnx.Optimizer` of all `nnx.Param`.
      old: The network before.
      new: The network after, with the same layers at the same paths.
      image_shape: (*space, c) of one image.

    Returns:
      The state for `new`, of the same kind.

    Raises:
      ValueError: The networks have spatial layers at different paths; the state is not one of this optimizer for `old`, or
        remembers of a layer that changed something else than numbers in the shape of its parameters, as Adafactor, SM3 and
        L-BFGS do, and `keep_pruned`.

    Example:
      >>> from convlab.layers import Conv
      >>> from convlab.relax import relax
      >>> old = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
      >>> sgd = optax.sgd(0.1, momentum=0.9)
      >>> state = sgd.init(nnx.to_pure_dict(nnx.state(old, nnx.Param)))
      >>> new = relax(old, "dense", (5, 7, 1))
      >>> transfer_optimizer_state(sgd, state, old, new, (5, 7, 1))[0].trace["layers"][0]["kernel"].shape
      (5, 7, 5, 7, 1, 2)
    """
    start = _kind_of(state, optimizer, old)
    before, after = paired(old, new, image_shape)
    shapes, new_shapes = (
        {tuple(key.key for key in path): jnp.shape(leaf) for path, leaf in _leaves(_parameters(model)).items()}
        for model in (old, new)
    )
    remembered = _leaves(state)

    def carried(path: KeyPath, fresh: Any) -> Any:
        place, kept = _place(path, new_shapes), remembered.get(path)
        layer, name = place[:-1], place[-1:]
        changed = bool(place) and layer in before and before[layer] != after[layer]
        if place and kept is None:
            return fresh
        if changed and name != ("bias",) and not (before[layer].tying.is_linear and after[layer].tying.is_linear):
            return fresh
        if changed and _is_direction(kept, shapes.get(place)) and _is_direction(fresh, new_shapes[place]):
            return _rewritten(name[0], kept, before[layer], after[layer])
        shape = None if kept is None else jnp.shape(kept)
        if kept is None or shape != jnp.shape(fresh):
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} has shape {shape} and would have {jnp.shape(fresh)} for the new network: of"
                " layers that change, only numbers in the shape of their parameter are carried; reset it by optimizer.init"
            )
        return jnp.copy(kept)

    return jax.tree_util.tree_map_with_path(carried, start(optimizer, new))


def _parameters(model: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


# the kinds of states: of parameters in plain dictionaries, in those of Flax, and inside Flax's optimizer
KINDS: tuple[Callable[[optax.GradientTransformation, nnx.Module], optax.OptState], ...] = (
    lambda optimizer, model: optimizer.init(_parameters(model)),
    lambda optimizer, model: optimizer.init(nnx.state(model, nnx.Param)),
    lambda optimizer, model: nnx.Optimizer(model, optimizer, wrt=nnx.Param).opt_state,
)


def _kind_of(state: optax.OptState, optimizer: optax.GradientTransformation, model: nnx.Module) -> Callable:
    """Find how to make a state like this one.

    Raises:
      ValueError: It is not one of this optimizer for this model.
    """
    held = {path: jnp.shape(leaf) for path, leaf in _leaves(state).items()}
    kinds = KINDS[1:] if any(map(_in_variable, held)) else KINDS[:1]
    wanted = [{path: jnp.shape(leaf) for path, leaf in _leaves(kind(optimizer, model)).items()} for kind in kinds]
    if held in wanted:
        return kinds[wanted.index(held)]
    first, *_ = wanted
    wrong = [path for path in {**first, **held} if held.get(path) != first.get(path)]
    told = "; ".join(f"{jax.tree_util.keystr(path)}: {held.get(path)}, needs {first.get(path)}" for path in wrong[:3])
    raise ValueError(f"state is not what optimizer.init makes of the old network's parameters ({told})")


def _leaves(tree: Any) -> dict[KeyPath, Any]:
    return dict(jax.tree_util.tree_leaves_with_path(tree))


def _in_variable(path: KeyPath) -> bool:
    """Whether a leaf is the value of one of Flax's variables."""
    return bool(path) and getattr(path[-1], "name", None) == "value"


def _is_direction(leaf: Any, shape: tuple[int, ...] | None) -> bool:
    """Whether a leaf of a state holds a number for every one of a parameter."""
    return jnp.shape(leaf) == shape and jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)


def _rewritten(name: str, kept: Any, before: Layout, after: Layout) -> Any:
    return transfer_bias(kept, after) if name == "bias" else transfer({name: kept}, before, after)[name]


def _place(path: KeyPath, known: Mapping[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """The parameter that a leaf of a state belongs to: the end of its path that is a parameter's; or nothing."""
    keys = tuple(getattr(key, "key", None) for key in path)
    keys = keys[:-1] if _in_variable(path) else keys
    ends = (keys[first:] for first in range(len(keys)))
    return next((end for end in ends if end in known), ())
