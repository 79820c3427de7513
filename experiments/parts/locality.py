"""How local the inputs of dense units are, with the null model of shuffled inputs."""

import functools

import jax
import jax.numpy as jnp

import convlab as cl
from convlab import measure


@functools.partial(jax.jit, static_argnames=("window", "sides"))
def shares(w: jax.Array, window: cl.Window, sides: tuple[int, ...]) -> dict[str, jax.Array]:
    """Measure how local a dense weight is.

    Returns:
      The share of squared weights in the window, and in the best patches of all sides. The share of nonzero weights in the
      best patches of the first side, and the mean distance between them.
    """
    patches = {f"patch_{side}": measure.best_patch_share(w, side) for side in sides}
    inputs = {"inputs": measure.best_patch_share(w != 0, sides[0]), "distance": measure.mean_input_distance(w)}
    return {"window": measure.local_share(w, window, w.shape[2:4]), **inputs, **patches}


def of_weights(w: jax.Array, window: cl.Window, patch: int, seed: int) -> dict[str, float]:
    """Measure how local a dense weight is, and how local it is with shuffled inputs.

    `patch` is a side in pixels.
    """
    row, sides = {}, tuple(range(1, w.shape[2] + 1, 4))
    for null, weight in (("", w), ("_shuffled", measure.shuffle_inputs(w, jax.random.key(seed)))):
        values = shares(weight, window, (patch, *sides))
        row |= {name + null: float(value) for name, value in values.items()}
        row["patch" + null] = row[f"patch_{patch}{null}"]
    return row


def of_mask(kept: jax.Array, key: jax.Array, patch: int) -> dict[str, float]:
    """Measure how local the kept inputs of hidden units are, relative to random and to shuffled inputs."""
    return {name: float(value) for name, value in distances(kept, key, patch).items()}


@functools.partial(jax.jit, static_argnames="patch")
def distances(kept: jax.Array, key: jax.Array, patch: int) -> dict[str, jax.Array]:
    """Measure the distance between a unit's kept inputs, and the share of them in the best patch."""
    shuffled = measure.shuffle_inputs(kept, key)
    distance = measure.mean_input_distance(kept)
    return {
        "pixels": distance,
        "distance": distance / measure.mean_input_distance(jnp.ones_like(kept)),
        "distance_shuffled": distance / measure.mean_input_distance(shuffled),
        "patch": measure.best_patch_share(kept, patch),
        "patch_shuffled": measure.best_patch_share(shuffled, patch),
    }
