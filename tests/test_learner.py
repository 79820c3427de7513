"""Test learners that train many small networks at once on training sets of different sizes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convlab import tasks
from convlab.models import MLP
from convlab.train import make_learner

TASK = tasks.random_patch(2, 3, 0.4, jax.random.key(0))


def sample(key, n):
    """Draw examples labelled by the sign of one pixel."""
    x = jax.random.normal(key, (n, 6, 1))
    return x, (x[:, 2, 0] > 0).astype(int)


def build(rngs):
    return MLP((6, 1), 2, (), rngs=rngs)


def test_accuracy_grows_with_examples_and_all_sizes_share_one_compilation():
    traced = chex.assert_max_traces(TASK.sample, n=2)  # for training and test examples
    learn = make_learner(build, traced, 400, max_steps=300, batch_size=20, optimizer=optax.adam(0.03))
    small, large = (learn(np.full(6, n), np.arange(6)) for n in (4, 400))
    assert small.shape == (6,)
    assert small.mean() + 0.05 < large.mean()
    assert len(set(large)) > 1
    np.testing.assert_array_equal(learn(np.full(6, 4), np.arange(6)), small)
    mixed = learn(np.array([4, 400, 4, 400, 4, 400]), np.arange(6))
    np.testing.assert_allclose(mixed, np.where(np.arange(6) % 2, large, small), atol=0.002)


def test_training_uses_only_the_first_examples():
    def sample_with_nan(key, n):
        x, y = sample(key, n)
        return (x, y) if n == 50 else (x.at[10:].set(np.nan), y)  # nan after the tenth training example

    learn = make_learner(build, sample_with_nan, 51, test_examples=50, max_steps=30)
    assert learn(np.array([10]), np.array([0]))[0] > 0.5
    assert np.isnan(learn(np.array([51]), np.array([0]))[0])


def test_training_stops_at_the_tolerance():
    for tolerance in (0.3, 0.9):
        learn = make_learner(build, sample, 5, test_examples=20, max_steps=10**9, tolerance=tolerance)
        assert np.isfinite(learn(np.array([5]), np.array([0]))[0])


def test_sample_receives_further_parameters_and_score_may_be_custom():
    def sample_with_flip(key, n, flipped):
        x, y = sample(key, n)
        return x, (y != flipped).astype(int)

    def score(logits, labels):
        return jnp.stack([jnp.mean(logits.argmax(-1) == labels), jnp.mean(labels)])

    learn = make_learner(
        build, chex.assert_max_traces(sample_with_flip, n=2), 100, max_steps=100, optimizer=optax.adam(0.03), score=score
    )
    accuracy, share_of_ones = learn(np.full(4, 100), np.array([0, 0, 1, 1]), np.array([False, True, False, True])).T
    assert (accuracy > 0.9).all()
    np.testing.assert_allclose(share_of_ones[::2] + share_of_ones[1::2], 1, atol=1e-6)


def test_score_is_nan_for_diverged_networks_and_missing_logits():
    def score(logits, labels):
        return jnp.ones(2)

    diverged = make_learner(build, sample, 5, test_examples=20, max_steps=9, optimizer=optax.sgd(np.inf), score=score)
    assert np.isnan(diverged(np.array([5]), np.array([0]))).all()
    one_logit = make_learner(lambda rngs: MLP((6, 1), 1, (), rngs=rngs), sample, 5, test_examples=20, max_steps=2)
    assert np.isnan(one_logit(np.array([5]), np.array([0]))).all()


def test_invalid_arguments_raise_errors():
    with pytest.raises(ValueError, match="arrays that are not parameters"):
        make_learner(lambda rngs: nnx.BatchNorm(1, rngs=rngs), sample, 5)
    with pytest.raises(ValueError, match="sizes must lie between 1 and 5, got 3 to 6"):
        make_learner(build, sample, 5)(np.array([3, 6]), np.array([0, 1]))
    for sizes, seeds, match in (
        ([3], [2**31], "seeds must lie between"),
        ([3.5], [0], "float64"),
        ([3, 3], [0], "one entry per run"),
        ([], [], "one"),
    ):
        with pytest.raises(ValueError, match=match):
            make_learner(build, sample, 5)(np.array(sizes), np.array(seeds))
    with pytest.raises(ValueError, match="tolerance must be below 1, .* got 1.1"):
        make_learner(build, sample, 5, tolerance=1.1)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        make_learner(build, sample, 5, max_steps=0)
