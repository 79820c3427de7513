"""Many small networks trained at once, each on the first so many examples of its own draw: one compilation for all sizes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from convlab.geometry import as_integer
from convlab.train.step import cross_entropy

DECAY = 0.98  # of the running mean of the loss, by which training stops


def learner(
    build: Callable[[nnx.Rngs], nnx.Module],
    sample: Callable[..., tuple[Array, Array]],
    most: int,
    *,
    test: int = 2000,
    steps: int = 2000,
    batch_size: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    tolerance: float = 0.01,
    score: Callable[[Array, Array], Array] | None = None,
) -> Callable[..., Float[np.ndarray, "s *scores"]]:
    """Make a function that trains networks of several sizes of training sets and seeds at once, and returns their accuracies.

    Each run draws `most` examples and looks at the first n of them, in batches drawn with replacement, until the running mean
    of its loss falls below the tolerance. Sizes and seeds are numbers, not shapes: whatever they are, it is compiled once for
    every number of runs; so are numbers of the law, if `sample` takes them. A larger set of the same seed holds the smaller
    ones.

    Args:
      build: Makes a network of parameters alone, without batch norm or dropout; it returns one score per class.
      sample: Draws examples with labels, jittable: `Task.sample`. What else it takes, after the key and the number of examples,
        is one number for each run.
      most: Largest training set.
      test: Examples to score on.
      steps: At most so many.
      batch_size: Examples of a step.
      optimizer: None for Adam with a step of 0.003.
      tolerance: Running mean of the loss, which begins at 1, at which to stop.
      score: Of the scores of all test examples and their labels; None for the share of labels that are right.

    Returns:
      Takes sizes and seeds, as `convlab.tasks.examples_needed` gives them, and what else `sample` takes, to accuracies on new
      examples, or whatever else `score` returns; nan where the loss or a score of the network is nan, or a label has no score.

    Raises:
      ValueError: A count below 1, a tolerance that stops before the first step, the network has other variables than
        parameters, or, when called, sizes beyond `most`, seeds beyond 2^31, or not as many of each.

    Example:
      >>> from convlab.models import MLP
      >>> def sample(key, n):
      ...     x = jax.random.normal(key, (n, 3, 1))
      ...     return x, (x[:, 0, 0] > 0).astype(int)
      >>> learn = learner(lambda rngs: MLP((3, 1), 2, (), rngs=rngs), sample, 200, steps=300)
      >>> bool(learn(np.array([200]), np.array([0]))[0] > 0.9)
      True
    """
    most, test, steps, batch_size = (
        as_integer(name, n) for name, n in (("most", most), ("test", test), ("steps", steps), ("batch_size", batch_size))
    )
    descent = optax.adam(3e-3) if optimizer is None else optimizer
    if not tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; needs less than 1, where the running mean of the loss begins")
    model_state = jax.tree.leaves(nnx.state(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Not(nnx.Param)))
    if model_state:
        raise ValueError(
            f"the network has {len(model_state)} arrays that are not parameters; needs one without batch norm and dropout"
        )

    def one(n: Array, seed: Array, *others: Array) -> Array:
        drawn, scored, first, order = jax.random.split(jax.random.key(seed), 4)
        x, y = sample(drawn, most, *others)
        definition, parameters = nnx.split(build(nnx.Rngs(first)), nnx.Param)
        parameters = nnx.to_pure_dict(parameters)

        def loss(parameters: Any, places: Array) -> Array:
            return cross_entropy(nnx.merge(definition, parameters)(x[places]), y[places]).mean()

        def step(state: tuple) -> tuple:
            number, parameters, inner, mean = state
            places = jax.random.randint(jax.random.fold_in(order, number), (batch_size,), 0, n)
            value, gradient = jax.value_and_grad(loss)(parameters, places)
            updates, inner = descent.update(gradient, inner, parameters)
            return number + 1, optax.apply_updates(parameters, updates), inner, DECAY * mean + (1 - DECAY) * value

        def going(state: tuple) -> Array:
            number, _, _, mean = state
            return (number < steps) & (mean > tolerance)

        _, parameters, _, mean = jax.lax.while_loop(going, step, (0, parameters, descent.init(parameters), jnp.ones(())))
        x, y = sample(scored, test, *others)
        scores = nnx.merge(definition, parameters)(x)
        known = jnp.isfinite(mean) & ~jnp.isnan(scores).any() & (y.max() < scores.shape[-1])
        right = score(scores, y) if score else jnp.mean(scores.argmax(-1) == y)
        return jnp.where(known, right, jnp.nan)

    every = jax.jit(jax.vmap(one))

    def learn(sizes: Int[np.ndarray, "s"], seeds: Int[np.ndarray, "s"], *others: Shaped[np.ndarray, "s"]) -> np.ndarray:
        runs = _runs("sizes", sizes, 1, most), _runs("seeds", seeds, 0, 2**31 - 1), *map(jnp.asarray, others)
        if len({run.shape[:1] for run in runs}) > 1:
            raise ValueError(
                f"sizes, seeds and what else the law takes have shapes {[run.shape for run in runs]}; needs one per run"
            )
        return np.asarray(every(*runs), float)

    return learn


def _runs(name: str, numbers: Int[np.ndarray, "s"], least: int, most: int) -> Int[Array, "s"]:
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"{name} has shape {numbers.shape} and type {numbers.dtype}; needs one integer for each run")
    if numbers.min() < least or numbers.max() > most:
        raise ValueError(f"{name} are {numbers.min()} to {numbers.max()}; needs {least} to {most}")
    return jnp.asarray(numbers, jnp.int32)
