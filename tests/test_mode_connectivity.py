"""Test paths between networks on loss functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlab.train import bezier_path, evaluate_along, fit_bezier, linear_path, loss_barrier


def tree(seed):
    first, second = jax.random.split(jax.random.key(seed))
    return {"layer": {"kernel": jax.random.normal(first, (2, 3)), "bias": jax.random.normal(second, (3,))}}


def ring(x, _=None):
    """Compute a loss whose minima are the unit circle."""
    return (jnp.linalg.norm(x) - 1) ** 2


def squared(x, batch=0.0):
    return (x**2).sum()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda a: evaluate_along(linear_path(a, a), squared, 10**9), ValueError, "points must be at most 1000000"),
        (lambda a: evaluate_along(3, squared), TypeError, "path must be a function from t to parameters"),
        (
            lambda a: evaluate_along(linear_path(a, a), lambda x: None),
            TypeError,
            "the result of loss must be a number, got None",
        ),
        (lambda a: linear_path(a, "b"), TypeError, "b must be an array of numbers, got 'b'"),
        (lambda a: loss_barrier([1, 2]), TypeError, "rows must be a mapping"),
        (lambda a: loss_barrier([{"loss": 1.0}] * 2), TypeError, "t of rows must be a number, got None"),
        (lambda a: fit_bezier(a, a, squared, "adam", [], key=jax.random.key(0)), TypeError, "optimizer must be an Optax"),
        (lambda a: fit_bezier(a, a, squared, optax.sgd(1), 3, key=jax.random.key(0)), TypeError, "batches must be an iterable"),
        (
            lambda a: fit_bezier(a, a, squared, optax.sgd(1), ["x"], key=jax.random.key(0)),
            TypeError,
            "batches must be an array",
        ),
    ],
)
def test_wrong_arguments_of_paths_raise_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(np.ones(2, np.float32))


def test_paths_connect_their_ends_and_a_curve_with_the_midpoint_is_straight():
    a, b = tree(0), tree(1)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, a, b)
    for path in (linear_path(a, b), bezier_path(a, tree(2), b)):
        assert jax.tree.all(jax.tree.map(np.array_equal, (path(0.0), path(1.0)), (a, b)))
    for t in (0.2, 0.7):
        straight, bent = linear_path(a, b)(t), bezier_path(a, middle, b)(t)
        assert jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, atol=1e-6), straight, bent))


def test_bezier_path_has_the_bernstein_weights():
    a, middle, b = tree(0), tree(1), tree(2)
    expected = jax.tree.map(lambda a, m, b: 0.49 * a + 0.42 * m + 0.09 * b, a, middle, b)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, atol=1e-6), bezier_path(a, middle, b)(0.3), expected))


def test_convex_loss_has_no_barrier():
    a, b = jnp.array([3.0, -1.0]), jnp.array([0.5, 2.0])
    assert loss_barrier(evaluate_along(linear_path(a, b), lambda x: x @ jnp.diag(jnp.array([1.0, 7.0])) @ x)) == 0


def test_barrier_is_the_height_above_linear_interpolation():
    rows = evaluate_along(linear_path(-1.0, 1.0), lambda x: 5 - x**2 + 0.5 * x, 21)
    assert loss_barrier(rows) == pytest.approx(1.0)
    assert [row["t"] for row in rows] == pytest.approx(np.linspace(0, 1, 21))


def test_fitted_curve_avoids_the_barrier_of_the_straight_path():
    a, b = jnp.array([-1.0, 0.0]), jnp.array([0.6, 0.8])
    middle = fit_bezier(a, b, ring, optax.adam(0.05), range(300), key=jax.random.key(0))
    straight, bent = (loss_barrier(evaluate_along(path, ring, 41)) for path in (linear_path(a, b), bezier_path(a, middle, b)))
    assert straight > 0.25
    assert bent < 0.01


def test_fit_bezier_uses_every_batch_and_is_determined_by_the_key():
    a, b, seen = jnp.array([-1.0, 0.1]), jnp.array([1.0, 0.1]), []

    def loss(x, batch):
        jax.debug.callback(lambda batch: seen.append(int(batch)), batch)
        return ring(x)

    middles = [fit_bezier(a, b, loss, optax.sgd(0.1), range(7), key=jax.random.key(key)) for key in (3, 3, 4)]
    jax.effects_barrier()
    assert sorted(seen[:7]) == [*range(7)]
    assert np.array_equal(middles[0], middles[1])
    assert not np.array_equal(middles[0], middles[2])


def test_fit_bezier_without_batches_returns_the_midpoint():
    a, b = tree(0), tree(1)
    middle = fit_bezier(a, b, lambda x, _: 0.0, optax.sgd(0.1), [], key=jax.random.key(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, middle, linear_path(a, b)(0.5)))


def test_refresh_is_called_at_every_point_and_loss_may_return_several_scores():
    def score(x, mean):
        return {"loss": (x - mean) ** 2, "accuracy": mean}

    assert evaluate_along(linear_path(0.0, 2.0), score, 3, refresh=lambda x: 3 * x) == [
        {"t": 0.0, "loss": 0.0, "accuracy": 0.0},
        {"t": 0.5, "loss": 4.0, "accuracy": 3.0},
        {"t": 1.0, "loss": 16.0, "accuracy": 6.0},
    ]


def test_parameters_of_different_shapes_raise_an_error():
    other = {"layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"a and b have different shapes \(\['layer'\]\['bias'\]: \(3,\) and \(1,\)\)"):
        linear_path(tree(0), other)
    with pytest.raises(ValueError, match=r"a and middle .* \(\['layer'\]\['bias'\]: \(3,\) and None\)"):
        bezier_path(tree(0), {"layer": {"kernel": jnp.ones((2, 3))}}, tree(1))


def test_fewer_than_two_points_raise_an_error():
    with pytest.raises(ValueError, match="points must be at least 2, .* got 1"):
        evaluate_along(linear_path(0.0, 1.0), lambda x: x, 1)


@pytest.mark.parametrize("indices", [(0,), (1,), (2,), (4,), (0, 4)])
def test_barrier_of_a_nan_loss_is_nan(indices):
    rows = [{"t": t, "loss": np.nan if index in indices else 1.0} for index, t in enumerate((0.0, 0.25, 0.5, 0.75, 1.0))]
    assert np.isnan(loss_barrier(rows))
    assert np.isnan(loss_barrier([rows[0], rows[-1]])) == bool({0, 4} & {*indices})


def test_barrier_without_both_ends_or_the_column_raises_an_error():
    rows = [{"t": 0.0, "loss": 1.0}, {"t": 1.0, "loss": 2.0}]
    assert loss_barrier(rows) == 0
    with pytest.raises(ValueError, match="rows must have at least 2 points, the ends of the path, got 1"):
        loss_barrier(rows[:1])
    with pytest.raises(ValueError, match=r"name must be a column of every row \(loss\), got 'accuracy'"):
        loss_barrier(rows, "accuracy")
