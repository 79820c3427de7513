"""Selection of the arrays of a tree: all kernels by shape and name, or some arrays by path."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from convlab import check
from convlab.geometry import LARGEST

Tree = Any
Path = tuple[str | int, ...]
Mask = Tree | Callable[[Tree], Tree]  # tree of bools or a function that makes one, as in `optax.masked`
Number = float | Array | optax.Schedule


def kernel_mask(parameters: Tree) -> Tree:
    """Mark the kernels: arrays of two or more axes that are not named "bias" or "scale".

    It is the default mask of `convlab.optim`. It marks the same layers before and after `convlab.relax`. A mask such as
    `ndim > 1` does not, because a bias per position has several axes.

    Example:
      >>> kernel_mask({"kernel": jnp.ones((3, 3, 2, 7)), "bias": jnp.ones((4, 5, 7)), "norm": jnp.ones(7)})
      {'bias': False, 'kernel': True, 'norm': False}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: len(jnp.shape(leaf)) > 1 and not {"bias", "scale"} & set(name_of(path)[-1:]), parameters
    )


def at_paths(changes: Mapping[Path, Callable[[Array], Array]]) -> Callable[[Tree], Tree]:
    """Return a function of trees that changes the arrays at given paths and no others.

    The trees are parameters or their gradients, as nested dicts or as the state of an NNX module.

    Args:
      changes: The function to apply to the array at each path, such as ("layer", "kernel").

    Raises:
      ValueError: A tree has no array at one of the paths.

    Example:
      >>> at_paths({("layer", "kernel"): jnp.negative})({"layer": {"kernel": jnp.ones(()), "bias": jnp.ones(())}})
      {'layer': {'bias': Array(1., dtype=float32), 'kernel': Array(-1., dtype=float32)}}
    """

    for path, function in check.instance("changes", changes, Mapping, "a mapping from paths to functions").items():
        check.function(f"changes[{path}]", function)

    def change(tree: Tree) -> Tree:
        arrays_at(tree, changes)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: changes[name_of(path)](leaf) if name_of(path) in changes else leaf, tree
        )

    return change


def arrays_at(tree: Tree, paths: Iterable[Path]) -> dict[Path, Array]:
    """Return the arrays at the given paths, except those that `optax.masked` hides.

    Raises:
      ValueError: The tree has no array at one of the paths.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_hidden)
    named = {name_of(path): leaf for path, leaf in leaves}
    absent = ["/".join(map(str, path)) for path in paths if path not in named]
    if absent:
        available = ", ".join("/".join(map(str, path)) for path in named) or "nothing"
        raise ValueError(f"the tree has no array {', '.join(absent)}; it has {available}")
    return {path: named[path] for path in paths if not _is_hidden(named[path])}


def name_of(path: tuple[Any, ...]) -> Path:
    """Convert a JAX key path to names and numbers. The value of an NNX variable has the variable's name."""
    if len(path) > 1 and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return tuple(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)) for key in path)


def resolve_mask(parameters: Tree, mask: Mask | None, name: str = "mask") -> Tree:
    """Return a mask as a tree of bools like the parameters. If it is None, use `kernel_mask`.

    Raises:
      ValueError: The mask has another structure.
      TypeError: A leaf is no bool.
    """
    tree = kernel_mask(parameters) if mask is None else mask(parameters) if callable(mask) else mask
    try:
        selected = jax.tree.map(lambda selected, subtree: jax.tree.map(lambda _: selected, subtree), tree, parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a tree of bools like the parameters, or a function that makes one: {error}") from None
    for leaf in jax.tree.leaves(selected):
        check.flag(name, leaf)
    return selected


def check_same_structure(parameters: Tree, mask: Tree, name: str = "mask") -> None:
    """Check that a mask, or what the error names, has the structure and the shapes of the parameters.

    Raises:
      ValueError: The structure or a shape differs.
    """
    mask_shapes, shapes = (
        {jax.tree_util.keystr(path) or "the array": jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (mask, parameters)
    )
    differing = [path for path in {**shapes, **mask_shapes} if mask_shapes.get(path) != shapes.get(path)]
    if differing:
        details = "; ".join(f"{path}: {mask_shapes.get(path)}, needs {shapes.get(path)}" for path in differing[:3])
        raise ValueError(f"{name} must have the structure and shapes of the parameters ({details})")


def at_least_zero(**numbers: Number) -> None:
    """Check that numbers are finite and at least zero. Of schedules and tracers, only the type is checked.

    Raises:
      ValueError: A number is negative, not finite, or None.
    """
    for name, number in numbers.items():
        if number is None or isinstance(number, str):
            raise ValueError(f"{name} must be a number of at least 0, or a schedule; got {number!r}")
        check.number(name, number(jnp.zeros((), jnp.int32)) if callable(number) else number)
        if isinstance(number, int) and number > LARGEST:
            raise ValueError(f"{name} must be a float if it exceeds {LARGEST}, got {number}")
        if not callable(number) and check.is_concrete(number) and not 0 <= float(number) < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, or a schedule; got {number}")


class CountState(NamedTuple):
    """The state of a transformation that counts its updates."""

    count: Array

    def next(self) -> "CountState":
        """Return the state after one more update."""
        return CountState(jnp.asarray(optax.safe_increment(self.count)))


def numbers_at(count: Array, *numbers: Number) -> list[Any]:
    """Return the values of numbers and schedules after `count` updates."""
    return [number(count) if callable(number) else number for number in numbers]


def require_parameters(parameters: Tree | None, name: str) -> Tree:
    """Return the parameters of an update, and check that they are given.

    Raises:
      ValueError: The parameters are None.
    """
    if parameters is None:
        raise ValueError(f"{name} needs the parameters: update(updates, state, parameters)")
    return parameters


def cast_like(parameters: Tree, updates: Tree) -> Tree:
    """Cast updates to the parameters' dtypes, so that a parameter and its negative add up to zero."""
    return jax.tree.map(lambda update, parameter: update.astype(parameter.dtype), updates, parameters)


def _is_hidden(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)
