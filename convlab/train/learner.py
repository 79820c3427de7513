"""Many small networks trained in one program, each on a training set of its own size.

Each network sees the first n examples of its own random draw. All sizes share one compilation, as n is not a shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from convlab import check
from convlab.geometry import as_integer
from convlab.train.step import cross_entropy

DECAY = 0.98  # the decay of the running mean of the loss, which decides when training stops


def make_learner(
    build: Callable[[nnx.Rngs], nnx.Module],
    sample: Callable[..., tuple[Array, Array]],
    max_examples: int,
    *,
    test_examples: int = 2000,
    max_steps: int = 2000,
    batch_size: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    tolerance: float = 0.01,
    score: Callable[[Array, Array], Array] | None = None,
) -> Callable[..., Float[np.ndarray, "s *scores"]]:
    """Make a function from training-set sizes and seeds to accuracies of trained networks.

    Run k has size sizes[k] and seed seeds[k], two integer arrays of equal length. It draws `max_examples` examples and trains
    on the first sizes[k] of them, in batches drawn with replacement. It stops once the running mean of its loss falls below
    the tolerance. Sizes, seeds and further parameters of `sample` are numbers, not shapes, so the function compiles once per
    number of runs. With the same seed, a larger training set contains the smaller ones.

    Args:
      build: A function that makes the network from its keys. The network has parameters only (no batch norm, no dropout) and
        returns one logit per class.
      sample: A jittable function that draws examples with labels, such as `Task.sample`. It takes a key and the number of
        examples. The learner passes further arrays, one entry per run, on to it: `learn(sizes, seeds, distances)`.
      max_examples: The size of the largest training set.
      test_examples: The number of examples to score on.
      max_steps: The maximal number of steps.
      batch_size: The number of examples per step.
      optimizer: An Optax gradient transformation. If None, Adam with a learning rate of 0.003.
      tolerance: The running mean of the loss at which training stops. It starts at 1.
      score: A function of the logits and labels of all test examples. If None, the share of labels that are predicted
        correctly.

    Returns:
      A function of sizes and seeds, as `convlab.tasks.examples_needed` passes them, and of the further parameters of `sample`.
      It returns accuracies on new examples, or the values of `score`, one entry per run. They are nan where the loss or a
      logit is nan, or where a label has no logit.

    Raises:
      ValueError: A count is below 1, the tolerance stops training before the first step, or the network has variables other
        than parameters. The returned function raises it if a size exceeds `max_examples`, a seed is 2^31 or more, or the
        arguments differ in length.
      TypeError: An argument has the wrong type, or `build` returns no network.

    Example:
      >>> from convlab.models import MLP
      >>> def sample(key, n):
      ...     x = jax.random.normal(key, (n, 3, 1))
      ...     return x, (x[:, 0, 0] > 0).astype(int)
      >>> learn = make_learner(lambda rngs: MLP((3, 1), 2, (), rngs=rngs), sample, 200, max_steps=300)
      >>> bool(learn(np.array([200]), np.array([0]))[0] > 0.9)
      True
    """
    max_examples, test_examples = as_integer("max_examples", max_examples), as_integer("test_examples", test_examples)
    max_steps, batch_size = as_integer("max_steps", max_steps), as_integer("batch_size", batch_size)
    transformation = optax.adam(3e-3) if optimizer is None else check.optimizer("optimizer", optimizer)
    check.function("build", build, "a function that makes a network from its keys")
    check.function("sample", sample, "a function that draws examples with labels")
    if score is not None:
        check.function("score", score, "a function of logits and labels")
    if not check.number("tolerance", tolerance) < 1:
        raise ValueError(f"tolerance must be below 1, where the running mean of the loss starts, got {tolerance}")
    network = check.instance("the result of build", nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Module, "a Flax NNX module")
    model_state = jax.tree.leaves(nnx.state(network, nnx.Not(nnx.Param)))
    if model_state:
        raise ValueError(
            f"build returns a network with {len(model_state)} arrays that are not parameters;"
            " needs one without batch norm and dropout"
        )

    def train_one(n: Array, seed: Array, *sample_arguments: Array) -> Array:
        train_key, test_key, init_key, batch_key = jax.random.split(jax.random.key(seed), 4)
        x, y = sample(train_key, max_examples, *sample_arguments)
        definition, parameters = nnx.split(build(nnx.Rngs(init_key)), nnx.Param)
        parameters = nnx.to_pure_dict(parameters)

        def loss(parameters: Any, indices: Array) -> Array:
            return cross_entropy(nnx.merge(definition, parameters)(x[indices]), y[indices]).mean()

        def step(state: tuple) -> tuple:
            number, parameters, optimizer_state, mean = state
            indices = jax.random.randint(jax.random.fold_in(batch_key, number), (batch_size,), 0, n)
            value, gradient = jax.value_and_grad(loss)(parameters, indices)
            updates, optimizer_state = transformation.update(gradient, optimizer_state, parameters)
            return number + 1, optax.apply_updates(parameters, updates), optimizer_state, DECAY * mean + (1 - DECAY) * value

        def unfinished(state: tuple) -> Array:
            number, _, _, mean = state
            return (number < max_steps) & (mean > tolerance)

        start = 0, parameters, transformation.init(parameters), jnp.ones(())
        _, parameters, _, mean = jax.lax.while_loop(unfinished, step, start)
        x, y = sample(test_key, test_examples, *sample_arguments)
        logits = nnx.merge(definition, parameters)(x)
        valid = jnp.isfinite(mean) & ~jnp.isnan(logits).any() & (y.max() < logits.shape[-1])
        result = score(logits, y) if score else jnp.mean(logits.argmax(-1) == y)
        return jnp.where(valid, result, jnp.nan)

    train_all = jax.jit(jax.vmap(train_one))

    def learn(
        sizes: Int[np.ndarray, "s"], seeds: Int[np.ndarray, "s"], *sample_arguments: Shaped[np.ndarray, "s"]
    ) -> np.ndarray:
        counts = _check_integers("sizes", sizes, 1, max_examples), _check_integers("seeds", seeds, 0, 2**31 - 1)
        arguments = *counts, *map(jnp.asarray, sample_arguments)
        if len({argument.shape[:1] for argument in arguments}) > 1:
            raise ValueError(
                "sizes, seeds and the further parameters of sample must have one entry per run,"
                f" got shapes {[argument.shape for argument in arguments]}"
            )
        return np.asarray(train_all(*arguments), float)

    return learn


def _check_integers(name: str, numbers: Int[np.ndarray, "s"], low: int, high: int) -> Int[Array, "s"]:
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"{name} must hold one integer per run, got shape {numbers.shape} and dtype {numbers.dtype}")
    if numbers.min() < low or numbers.max() > high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {numbers.min()} to {numbers.max()}")
    return jnp.asarray(numbers, jnp.int32)
