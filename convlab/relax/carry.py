"""What an optimizer remembers of a network, carried to the network's image at another rung."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from convlab.relax.arrays import transfer, transfer_bias
from convlab.relax.networks import layouts

KeyPath = tuple[Any, ...]


def carry(
    optimizer: optax.GradientTransformation, state: optax.OptState, old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]
) -> optax.OptState:
    """Take an optimizer's state from a network to what `relax` or `constrain` made of it.

    Momentum, moments and moving averages are re-written as the parameters are: a momentum is a direction of the parameters, so
    that relaxed network and strict one take the same next step if they get the same momentum. Adam's second moment is copied
    likewise, and so is the size of every step that a weight was about to take; a weight that the strict network did not have
    has no history, and Adam's first steps there are up to (1 - b1) / sqrt(1 - b2) learning rates long, 3 by default. Counts
    are kept. Arrays that the old network did not have (of low rank, which is not linear) start as new.

    To reset instead, take `optimizer.init` of the new network's parameters. Batch statistics belong to the network, and are
    carried with it.

    Args:
      optimizer: An Optax transformation.
      state: Its state for the parameters of `old`, as plain dictionaries (as in `Fitted.optimizer`).
      old: The network before.
      new: The network after, with the same layers at the same paths.
      image_shape: (*space, c) of one image.

    Example:
      >>> from convlab.layers import Conv
      >>> from convlab.relax import relax
      >>> old = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
      >>> sgd = optax.sgd(0.1, momentum=0.9)
      >>> state = sgd.init(nnx.to_pure_dict(nnx.state(old, nnx.Param)))
      >>> carry(sgd, state, old, relax(old, "dense", (5, 7, 1)), (5, 7, 1))[0].trace["layers"][0]["kernel"].shape
      (5, 7, 5, 7, 1, 2)
    """
    before, after = layouts(old, image_shape), layouts(new, image_shape)
    parameters = nnx.to_pure_dict(nnx.state(new, nnx.Param))
    known = {tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)}
    remembered = dict(jax.tree_util.tree_leaves_with_path(state))

    def carried(path: KeyPath, fresh: Any) -> Any:
        if path not in remembered:
            return fresh
        kept, place = remembered[path], _place(path, known)
        layer = place[:-1]
        if not place or layer not in before or before[layer] == after[layer]:
            return jnp.copy(kept)
        if place[-1] == "bias":
            return transfer_bias(kept, after[layer])
        if "low_rank" in (before[layer].rung, after[layer].rung):
            return fresh
        return transfer({place[-1]: kept}, before[layer], after[layer])[place[-1]]

    return jax.tree_util.tree_map_with_path(carried, optimizer.init(parameters))


def _place(path: KeyPath, known: set[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The parameter that a leaf of a state belongs to: the end of its path that is a parameter's; or nothing."""
    keys = tuple(getattr(key, "key", None) for key in path)
    ends = (keys[first:] for first in range(len(keys)))
    return next((end for end in ends if end in known), ())
