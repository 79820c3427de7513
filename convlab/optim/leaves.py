"""Which arrays of a tree are meant: all kernels, by their shape and name, or some, by their path."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from convlab import check

Tree = Any
Path = tuple[str | int, ...]
Mask = Tree | Callable[[Tree], Tree]  # of bools, as in `optax.masked`
Number = float | Array | optax.Schedule


def kernel_mask(parameters: Tree) -> Tree:
    """Mark the kernels: arrays of two and more axes whose own name is not "bias" or "scale". The default mask of this room.

    It marks the same layers before and after `convlab.relax`; a mask such as `ndim > 1` does not, as a bias by position has
    several axes.

    Example:
      >>> kernel_mask({"kernel": jnp.ones((3, 3, 2, 7)), "bias": jnp.ones((4, 5, 7)), "norm": jnp.ones(7)})
      {'bias': False, 'kernel': True, 'norm': False}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ndim(leaf) > 1 and not {"bias", "scale"} & set(name_of(path)[-1:]), parameters
    )


def at_paths(changes: Mapping[Path, Callable[[Array], Array]]) -> Callable[[Tree], Tree]:
    """Return the function of a tree that changes the arrays at these paths and leaves all others as they are.

    The trees are parameters or their gradients: nested dicts, or the state of an NNX module.

    Args:
      changes: For each path, such as ("layer", "kernel"), what to do with the array there.

    Raises:
      ValueError: A tree has nothing at one of the paths.

    Example:
      >>> at_paths({("layer", "kernel"): jnp.negative})({"layer": {"kernel": jnp.ones(()), "bias": jnp.ones(())}})
      {'layer': {'bias': Array(1., dtype=float32), 'kernel': Array(-1., dtype=float32)}}
    """

    def change(tree: Tree) -> Tree:
        found(tree, changes)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: changes[name_of(path)](leaf) if name_of(path) in changes else leaf, tree
        )

    return change


def found(tree: Tree, paths: Iterable[Path]) -> dict[Path, Array]:
    """Return the arrays at these paths, but for those that `optax.masked` hides.

    Raises:
      ValueError: There is nothing at one of the paths.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_hidden)
    named = {name_of(path): leaf for path, leaf in leaves}
    absent = ["/".join(map(str, path)) for path in paths if path not in named]
    if absent:
        there = ", ".join("/".join(map(str, path)) for path in named) or "nothing"
        raise ValueError(f"the tree has no array {', '.join(absent)}; it has {there}")
    return {path: named[path] for path in paths if not _is_hidden(named[path])}


def name_of(path: tuple[Any, ...]) -> Path:
    """Write a path of JAX as names and numbers; the value of an NNX variable goes by the variable's name."""
    if len(path) > 1 and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return tuple(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)) for key in path)


def masked(parameters: Tree, mask: Mask | None) -> Tree:
    """A mask as a tree of bools like the parameters; `kernel_mask` where it is absent."""
    told = kernel_mask(parameters) if mask is None else mask(parameters) if callable(mask) else mask
    return jax.tree.map(lambda is_meant, part: jax.tree.map(lambda _: is_meant, part), told, parameters)


def alike(parameters: Tree, mask: Tree) -> None:
    """Raise ValueError unless a mask has the structure and the shapes of the parameters."""
    ours, theirs = (
        {jax.tree_util.keystr(path) or "the array": jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (mask, parameters)
    )
    wrong = [path for path in {**theirs, **ours} if ours.get(path) != theirs.get(path)]
    if wrong:
        told = "; ".join(f"{path}: {ours.get(path)}, needs {theirs.get(path)}" for path in wrong[:3])
        raise ValueError(f"the mask has not the arrays of the parameters ({told})")


def at_least_zero(**numbers: Number) -> None:
    """Raise ValueError if a number is negative or not finite; schedules and traced numbers are taken as they are."""
    for name, number in numbers.items():
        if number is None or isinstance(number, str):
            raise ValueError(f"{name} must be a number of at least 0, or a schedule; got {number!r}")
        if not callable(number) and check.is_known(number) and not 0 <= float(number) < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, or a schedule; got {number}")


class Taken(NamedTuple):
    """State of a transformation that counts the updates it has taken."""

    count: Array

    def next(self) -> "Taken":
        """The state one update later."""
        return Taken(jnp.asarray(optax.safe_increment(self.count)))


def numbers_at(count: Array, *numbers: Number) -> list[Any]:
    """Return the values that numbers and schedules have after `count` updates."""
    return [number(count) if callable(number) else number for number in numbers]


def needed(parameters: Tree | None, by: str) -> Tree:
    """Raise ValueError unless the transformation was given the parameters."""
    if parameters is None:
        raise ValueError(f"{by} needs the parameters: update(updates, state, parameters)")
    return parameters


def like(parameters: Tree, updates: Tree) -> Tree:
    """Cast updates to the dtypes of the parameters, so that a parameter and its negative add up to zero."""
    return jax.tree.map(lambda update, parameter: update.astype(parameter.dtype), updates, parameters)


def _is_hidden(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)
