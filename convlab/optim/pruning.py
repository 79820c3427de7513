"""Magnitude pruning with rewinding of the remaining weights.

`iterative_pruning` repeats one recipe. It trains the network and prunes a share of the remaining weights, such as the smallest
20 %. It then rewinds the others to their initial values, and trains again with `optax.chain(optimizer, keep_pruned(mask))`.
A mask is a tree of bools like the parameters; True means kept.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab.geometry import as_integer
from convlab.optim.leaves import Mask, Tree, cast_like, check_same_structure, require_parameters, resolve_mask


def prune(parameters: Tree, share: float, mask: Tree | None = None, *, by: str = "layer", which: Mask | None = None) -> Tree:
    """Return a mask that also prunes a share of the remaining weights, the smallest ones.

    The mask is True for the weights to keep. Weights are compared by their absolute values. The number of pruned weights is
    rounded to the nearest integer.

    Args:
      parameters: The parameters of a trained network.
      share: The share of the remaining weights to prune, 0 to 1.
      mask: The mask of the remaining weights, True where a weight remains. If None, all weights remain.
      by: "layer" to prune this share of every array, "global" to prune the smallest weights of all arrays together.
      which: The arrays to prune, as a tree of bools or a function of the parameters that returns one. If None,
        `kernel_mask`. The other arrays are kept.

    Raises:
      ValueError: `share` is outside 0 to 1, `by` is unknown, or `mask` has another structure or other shapes.

    Example:
      >>> prune({"kernel": jnp.array([[3.0, -1.0], [0.5, 2.0]])}, 0.5)["kernel"]
      Array([[ True, False],
             [False,  True]], dtype=bool)

    Reference: Han et al. 2015; Frankle and Carbin 2019.
    """
    _check_arguments(share, by)
    leaves, structure = jax.tree.flatten(parameters)
    kept = [np.ones(np.shape(leaf), bool) for leaf in leaves]
    if mask is not None:
        check_same_structure(parameters, mask)
        kept = [np.array(leaf, bool) for leaf in jax.tree.leaves(mask)]
    selected = [number for number, is_pruned in enumerate(jax.tree.leaves(resolve_mask(parameters, which))) if is_pruned]
    for group in [[number] for number in selected] if by == "layer" else [selected]:
        for number, remaining in zip(
            group, _keep_largest([leaves[n] for n in group], [kept[n] for n in group], share), strict=True
        ):
            kept[number] = remaining
    return jax.tree.unflatten(structure, map(jnp.asarray, kept))


def rewind(initial_parameters: Tree, mask: Tree) -> Tree:
    """Return the initial values of the weights that are kept, and zero for those that are pruned.

    Raises:
      ValueError: The mask has another structure or other shapes than the parameters.

    Example:
      >>> rewind(jnp.array([3.0, 4.0]), jnp.array([True, False]))
      Array([3., 0.], dtype=float32)
    """
    check_same_structure(initial_parameters, mask)
    return jax.tree.map(lambda parameter, kept: jnp.where(kept, parameter, 0), initial_parameters, mask)


def keep_pruned(mask: Tree) -> optax.GradientTransformation:
    """Set the pruned weights to exactly zero at every update.

    As the last transformation of a chain it also overrides momentum and weight decay.

    Args:
      mask: The mask, as `prune` returns it. It is part of the state and therefore not compiled into the step.

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
        check_same_structure(params, mask)
        return jax.tree.map(jnp.asarray, mask)

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        parameters = require_parameters(params, "keep_pruned")
        updates = cast_like(parameters, updates)
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
    """Repeat training, pruning and rewinding, and yield the parameters and mask of each round.

    The first round trains the whole network.

    Args:
      train: A function from parameters and mask to trained parameters. Its optimizer ends in `keep_pruned(mask)`.
      parameters: The initial parameters, to which remaining weights are rewound.
      share: The share of the remaining weights to prune in each round.
      rounds: The number of times to prune.
      by: The comparison of weights, as in `prune`.
      which: The arrays to prune, as in `prune`.

    Raises:
      ValueError: An argument is out of range, as in `prune`.

    Example:
      >>> start = {"kernel": jnp.arange(10.0).reshape(2, 5)}
      >>> [int(mask["kernel"].sum()) for _, mask in iterative_pruning(lambda p, mask: p, start, 0.2, rounds=3)]
      [10, 8, 6, 5]

    Reference: Frankle and Carbin 2019; for dense networks that become local, Pellegrini and Biroli 2021.
    """
    _check_arguments(share, by)
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


def _check_arguments(share: float, by: str) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    if by not in ("layer", "global"):
        raise ValueError(f"by must be 'layer' or 'global', got {by!r}")


def _keep_largest(arrays: list, kept: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Return masks of several arrays without the smallest share of the entries that are kept so far."""
    remaining = np.concatenate([np.zeros(0, bool), *(mask.ravel() for mask in kept)])
    size = np.concatenate([np.zeros(0), *(np.abs(np.asarray(array)).ravel() for array in arrays)])
    entries = np.flatnonzero(remaining)
    smallest = np.argsort(size[entries], kind="stable")[: round(share * len(entries))]
    remaining[entries[smallest]] = False
    parts = np.split(remaining, np.cumsum([mask.size for mask in kept])[:-1]) if kept else []
    return [part.reshape(mask.shape) for part, mask in zip(parts, kept, strict=True)]
