"""Magnitude pruning with rewinding of the remaining weights.

`iterative_pruning` repeats one recipe. It trains the network and prunes a fraction of the remaining weights, such as the
smallest 20 %. It then rewinds the others to their initial values, and trains again with
`optax.chain(optimizer, keep_pruned(mask))`. A mask is a tree of bools like the parameters; True means kept.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab import check
from convlab.choices import one_of
from convlab.geometry import as_integer
from convlab.optim.leaves import Mask, Tree, cast_like, check_same_structure, require_parameters, resolve_mask


def prune(
    parameters: Tree, fraction: float, mask: Tree | None = None, *, scope: str = "layer", prunable: Mask | None = None
) -> Tree:
    r"""Return a mask that also prunes a fraction of the remaining weights, the smallest ones.

    $$m'_q = m_q \, [\, |\theta_q| \text{ is not among the } f N \text{ smallest of } N \text{ remaining weights} \,]$$

    Here f is `fraction`. The N weights are those of one array or, with "global", those of all arrays.

    The mask is True for the weights to keep. Weights are compared by their absolute values. The number of pruned weights is
    rounded to the nearest integer.

    Args:
      parameters: The parameters of a trained network.
      fraction: The fraction of the remaining weights to prune, 0 to 1.
      mask: The mask of the remaining weights, True where a weight remains. If None, all weights remain.
      scope: "layer" to prune this fraction of every array, "global" to prune the smallest weights of all arrays together.
      prunable: The arrays that may be pruned, as a tree of bools or a function of the parameters that returns one. If None,
        `kernel_mask`. The other arrays are kept.

    Raises:
      ValueError: `fraction` is outside 0 to 1, `scope` is unknown, or `mask` has another structure or other shapes. Or a
        parameter is NaN.

    Example:
      >>> prune({"kernel": jnp.array([[3.0, -1.0], [0.5, 2.0]])}, 0.5)["kernel"]
      Array([[ True, False],
             [False,  True]], dtype=bool)

    Reference: Han et al. 2015; Frankle and Carbin 2019.
    """
    _check_arguments(fraction, scope)
    leaves, structure = jax.tree.flatten(parameters)
    leaves = [check.array("parameters", leaf) for leaf in leaves]
    kept = [np.ones(np.shape(leaf), bool) for leaf in leaves]
    if any(np.isnan(np.asarray(leaf, complex if jnp.iscomplexobj(leaf) else float)).any() for leaf in leaves):
        raise ValueError("parameters hold NaN, which is neither small nor large")
    if mask is not None:
        check_same_structure(parameters, mask)
        kept = [np.array(leaf, bool) for leaf in jax.tree.leaves(mask)]
    selected = [
        number for number, is_pruned in enumerate(jax.tree.leaves(resolve_mask(parameters, prunable, "prunable"))) if is_pruned
    ]
    for group in [[number] for number in selected] if scope == "layer" else [selected]:
        for number, remaining in zip(
            group, _keep_largest([leaves[n] for n in group], [kept[n] for n in group], fraction), strict=True
        ):
            kept[number] = remaining
    return jax.tree.unflatten(structure, map(jnp.asarray, kept))


def rewind(initial_parameters: Tree, mask: Tree) -> Tree:
    r"""Return the initial values of the weights that are kept, and zero for those that are pruned.

    $$\theta \leftarrow m \, \theta_0$$

    Args:
      initial_parameters: The parameters before training.
      mask: The mask, as `prune` returns it: True for the weights to keep.

    Raises:
      ValueError: The mask has another structure or other shapes than the parameters.

    Example:
      >>> rewind(jnp.array([3.0, 4.0]), jnp.array([True, False]))
      Array([3., 0.], dtype=float32)
    """
    check_same_structure(initial_parameters, mask)
    named_leaves = [
        (name, leaf)
        for name, tree in (("mask", mask), ("initial_parameters", initial_parameters))
        for leaf in jax.tree.leaves(tree)
    ]
    for name, leaf in named_leaves:
        check.array(name, leaf)
    return jax.tree.map(lambda parameter, kept: jnp.where(kept, parameter, 0), initial_parameters, mask)


def keep_pruned(mask: Tree) -> optax.GradientTransformation:
    r"""Set the pruned weights to exactly zero at every update.

    $$\theta_{t+1} = m \, (\theta_t + u_t)$$

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
    fraction: float,
    rounds: int,
    *,
    scope: str = "layer",
    prunable: Mask | None = None,
) -> Iterator[tuple[Tree, Tree]]:
    """Repeat training, pruning and rewinding, and yield the parameters and mask of each round.

    The first round trains the whole network.

    Args:
      train: A function from parameters and mask to trained parameters. Its optimizer ends in `keep_pruned(mask)`.
      parameters: The initial parameters, to which remaining weights are rewound.
      fraction: The fraction of the remaining weights to prune in each round.
      rounds: The number of times to prune.
      scope: "layer" or "global", as in `prune`.
      prunable: The arrays that may be pruned, as in `prune`.

    Raises:
      ValueError: An argument is out of range, as in `prune`.

    Example:
      >>> start = {"kernel": jnp.arange(10.0).reshape(2, 5)}
      >>> [int(mask["kernel"].sum()) for _, mask in iterative_pruning(lambda p, mask: p, start, 0.2, rounds=3)]
      [10, 8, 6, 5]

    Reference: Frankle and Carbin 2019; for dense networks that become local, Pellegrini and Biroli 2021.
    """
    _check_arguments(fraction, scope)
    rounds = as_integer("rounds", rounds, least=0)
    check.function("train", train, "a function of parameters and mask")

    def run() -> Iterator[tuple[Tree, Tree]]:
        mask = prune(parameters, 0.0, prunable=prunable)
        trained = train(parameters, mask)
        yield trained, mask
        for _ in range(rounds):
            mask = prune(trained, fraction, mask, scope=scope, prunable=prunable)
            trained = train(rewind(parameters, mask), mask)
            yield trained, mask

    return run()


def _check_arguments(fraction: float, scope: str) -> None:
    if not 0 <= check.number("fraction", fraction) <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction}")
    one_of("scope", scope, ("layer", "global"))


def _keep_largest(arrays: list, kept: list[np.ndarray], fraction: float) -> list[np.ndarray]:
    """Return masks of several arrays without the smallest fraction of the entries that are kept so far."""
    remaining = np.concatenate([np.zeros(0, bool), *(mask.ravel() for mask in kept)])
    size = np.concatenate([np.zeros(0), *(np.abs(np.asarray(array)).ravel() for array in arrays)])
    entries = np.flatnonzero(remaining)
    smallest = np.argsort(size[entries], kind="stable")[: round(fraction * len(entries))]
    remaining[entries[smallest]] = False
    parts = np.split(remaining, np.cumsum([mask.size for mask in kept])[:-1]) if kept else []
    return [part.reshape(mask.shape) for part, mask in zip(parts, kept, strict=True)]
