"""Magnitude pruning with rewinding: which weights of a trained network are kept, and training again with these alone.

The recipe, as `iterative_pruning` runs it: train; prune the smallest 20 % of the weights that are left; rewind the others to
their first values; train again with `optax.chain(optimizer, keep_pruned(mask))`; and so on. A mask is a tree like the
parameters, of bools: True is kept.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab.geometry import as_integer
from convlab.optim.leaves import Mask, Tree, alike, like, masked, needed


def prune(parameters: Tree, share: float, mask: Tree | None = None, *, by: str = "layer", which: Mask | None = None) -> Tree:
    """Return a mask without the smallest weights: a share of those that were left, rounded to the nearest number.

    Args:
      parameters: Of a trained network.
      share: How many of the weights that were left are pruned, 0 to 1.
      mask: What was left before; all, when absent.
      by: "layer" prunes this share of every array, "global" the smallest of all arrays together.
      which: The arrays to prune: a tree of bools or a function that makes one of the parameters; when absent, `kernel_mask`.
        The others are kept.

    Raises:
      ValueError: `share` is outside 0 to 1, `by` is unknown, or `mask` has another structure or other shapes.

    Example:
      >>> prune({"kernel": jnp.array([[3.0, -1.0], [0.5, 2.0]])}, 0.5)["kernel"]
      Array([[ True, False],
             [False,  True]], dtype=bool)

    Reference: Han et al. 2015; Frankle and Carbin 2019.
    """
    _check(share, by)
    leaves, tree = jax.tree.flatten(parameters)
    kept = [np.ones(np.shape(leaf), bool) for leaf in leaves]
    if mask is not None:
        alike(parameters, mask)
        kept = [np.array(leaf, bool) for leaf in jax.tree.leaves(mask)]
    chosen = [number for number, is_pruned in enumerate(jax.tree.leaves(masked(parameters, which))) if is_pruned]
    for group in [[number] for number in chosen] if by == "layer" else [chosen]:
        for number, left in zip(group, _largest([leaves[n] for n in group], [kept[n] for n in group], share), strict=True):
            kept[number] = left
    return jax.tree.unflatten(tree, map(jnp.asarray, kept))


def rewind(initial_parameters: Tree, mask: Tree) -> Tree:
    """Return the first values of the weights that are kept, and zero for those that are pruned.

    Raises:
      ValueError: The mask has another structure or other shapes than the parameters.

    Example:
      >>> rewind(jnp.array([3.0, 4.0]), jnp.array([True, False]))
      Array([3., 0.], dtype=float32)
    """
    alike(initial_parameters, mask)
    return jax.tree.map(lambda parameter, kept: jnp.where(kept, parameter, 0), initial_parameters, mask)


def keep_pruned(mask: Tree) -> optax.GradientTransformation:
    """Set the pruned weights to exactly zero at every update, whatever momentum or weight decay say. Stands last in a chain.

    Args:
      mask: What `prune` returns; it is part of the state, and so not compiled into the step.

    Raises:
      ValueError: The mask has another structure or other shapes than the parameters, or an update comes without them.

    Example:
      >>> optimizer = optax.chain(optax.adamw(0.1), keep_pruned(jnp.array([True, False])))
      >>> parameters = jnp.array([3.0, 4.0])
      >>> updates, _ = optimizer.update(jnp.ones(2), optimizer.init(parameters), parameters)
      >>> optax.apply_updates(parameters, updates)[1]
      Array(0., dtype=float32)
    """

    def init(params: Tree) -> Tree:
        alike(params, mask)
        return jax.tree.map(jnp.asarray, mask)

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        parameters = needed(params, "keep_pruned")
        updates = like(parameters, updates)
        return jax.tree.map(lambda kept, u, p: jnp.where(kept, u, -p), state, updates, parameters), state

    return optax.GradientTransformation(init, update)


def iterative_pruning(
    train: Callable[[Tree, Tree], Tree],
    parameters: Tree,
    share: float,
    rounds: int,
    *,
    by: str = "layer",
    which: Mask | None = None,
) -> Iterator[tuple[Tree, Tree]]:
    """Train, prune, rewind and train again; yield the trained parameters and the mask, first of the whole network.

    Args:
      train: From parameters and mask to trained parameters, by an optimizer that ends in `keep_pruned(mask)`.
      parameters: The first ones, to which those that are kept are rewound.
      share: Pruned each time, of the weights that are left.
      rounds: How often to prune.
      by: As in `prune`.
      which: As in `prune`.

    Raises:
      ValueError: As of `prune`.

    Example:
      >>> start = {"kernel": jnp.arange(10.0).reshape(2, 5)}
      >>> [int(mask["kernel"].sum()) for _, mask in iterative_pruning(lambda p, mask: p, start, 0.2, rounds=3)]
      [10, 8, 6, 5]

    Reference: Frankle and Carbin 2019; of dense networks that become local, Pellegrini and Biroli 2021.
    """
    _check(share, by)
    rounds = as_integer("rounds", rounds, least=0)

    def run() -> Iterator[tuple[Tree, Tree]]:
        mask = prune(parameters, 0.0, which=which)
        trained = train(parameters, mask)
        yield trained, mask
        for _ in range(rounds):
            mask = prune(trained, share, mask, by=by, which=which)
            trained = train(rewind(parameters, mask), mask)
            yield trained, mask

    return run()


def _check(share: float, by: str) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    if by not in ("layer", "global"):
        raise ValueError(f"by must be 'layer' or 'global', got {by!r}")


def _largest(arrays: list, kept: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Of several arrays, the entries that are left when a share of those kept is pruned, the smallest first."""
    left = np.concatenate([np.zeros(0, bool), *(each.ravel() for each in kept)])
    size = np.concatenate([np.zeros(0), *(np.abs(np.asarray(array)).ravel() for array in arrays)])
    places = np.flatnonzero(left)
    smallest = np.argsort(size[places], kind="stable")[: round(share * len(places))]
    left[places[smallest]] = False
    cuts = np.split(left, np.cumsum([each.size for each in kept])[:-1]) if kept else []
    return [cut.reshape(each.shape) for cut, each in zip(cuts, kept, strict=True)]
