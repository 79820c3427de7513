"""Many small networks at once: each on its own number of examples, with one compilation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convlab import tasks
from convlab.models import MLP
from convlab.train import learner

TASK = tasks.random_patch(2, 3, 0.4, jax.random.key(0))


def sample(key, n):
    """A law that costs less to compile: the sign of one number."""
    x = jax.random.normal(key, (n, 6, 1))
    return x, (x[:, 2, 0] > 0).astype(int)


def build(rngs):
    return MLP((6, 1), 2, (), rngs=rngs)


def test_more_examples_are_learnt_better_and_all_sizes_and_seeds_share_one_compilation():
    traced = chex.assert_max_traces(TASK.sample, n=2)  # of the training and of the test examples
    learn = learner(build, traced, 400, steps=300, batch_size=20, optimizer=optax.adam(0.03))
    few, many = (learn(np.full(6, n), np.arange(6)) for n in (4, 400))
    assert few.shape == (6,)
    assert few.mean() + 0.05 < many.mean()
    assert len(set(many)) > 1
    np.testing.assert_array_equal(learn(np.full(6, 4), np.arange(6)), few)
    mixed = learn(np.array([4, 400, 4, 400, 4, 400]), np.arange(6))
    np.testing.assert_allclose(mixed, np.where(np.arange(6) % 2, many, few), atol=0.002)


def test_only_the_first_examples_are_looked_at():
    def spoilt(key, n):
        x, y = sample(key, n)
        return (x, y) if n == 50 else (x.at[10:].set(np.nan), y)  # of 51 all after the tenth would spoil the weights

    learn = learner(build, spoilt, 51, test=50, steps=30)
    assert learn(np.array([10]), np.array([0]))[0] > 0.5
    assert np.isnan(learn(np.array([51]), np.array([0]))[0])


def test_training_stops_when_the_loss_is_small():
    slow, quick = (learner(build, sample, 5, test=20, steps=10**9, tolerance=t) for t in (0.3, 0.9))
    assert all(np.isfinite(learn(np.array([5]), np.array([0]))[0]) for learn in (slow, quick))


def test_numbers_of_the_law_are_passed_on_and_anything_can_be_the_score():
    def either(key, n, turned):
        x, y = sample(key, n)
        return x, (y != turned).astype(int)

    def score(scores, labels):
        return jnp.stack([jnp.mean(scores.argmax(-1) == labels), jnp.mean(labels)])

    learn = learner(build, chex.assert_max_traces(either, n=2), 100, steps=100, optimizer=optax.adam(0.03), score=score)
    right, ones = learn(np.full(4, 100), np.array([0, 0, 1, 1]), np.array([False, True, False, True])).T
    assert (right > 0.9).all()
    np.testing.assert_allclose(ones[::2] + ones[1::2], 1, atol=1e-6)


def test_a_network_that_diverged_or_has_no_score_for_a_label_has_none():
    def score(scores, labels):
        return jnp.ones(2)

    diverged = learner(build, sample, 5, test=20, steps=9, optimizer=optax.sgd(np.inf), score=score)
    assert np.isnan(diverged(np.array([5]), np.array([0]))).all()
    short = learner(lambda rngs: MLP((6, 1), 1, (), rngs=rngs), sample, 5, test=20, steps=2)
    assert np.isnan(short(np.array([5]), np.array([0]))).all()


def test_what_cannot_be_learnt_so_is_refused():
    with pytest.raises(ValueError, match="arrays that are not parameters"):
        learner(lambda rngs: nnx.BatchNorm(1, rngs=rngs), sample, 5)
    with pytest.raises(ValueError, match="sizes must lie between 1 and 5, got 3 to 6"):
        learner(build, sample, 5)(np.array([3, 6]), np.array([0, 1]))
    for sizes, seeds, match in (
        ([3], [2**31], "seeds must lie between"),
        ([3.5], [0], "float64"),
        ([3, 3], [0], "one entry per run"),
        ([], [], "one"),
    ):
        with pytest.raises(ValueError, match=match):
            learner(build, sample, 5)(np.array(sizes), np.array(seeds))
    with pytest.raises(ValueError, match="tolerance must be below 1, .* got 1.1"):
        learner(build, sample, 5, tolerance=1.1)
    with pytest.raises(ValueError, match="steps"):
        learner(build, sample, 5, steps=0)
