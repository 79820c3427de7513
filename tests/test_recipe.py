"""What a configuration adds to a step: smoothing, pieces, averages, half precision, decay, patience, several steps a call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from networks import filled

from convlab import models, train
from convlab.data import Data, Split
from convlab.optim import kernel_mask
from convlab.train import Checkpoints, Config, Recipe, Trainable, cross_entropy, fit, fit_many, initial, train_step

SHAPE, CLASSES = (5, 3, 2), 3
SINGLE = 1e-5  # rounding of single precision


@pytest.fixture(scope="module")
def data():
    """Images with a faint pattern of their class; as many in the validation split."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(CLASSES, *SHAPE))

    def split(n):
        labels = random.integers(0, CLASSES, n)
        return Split((patterns[labels] * 0.4 + random.normal(size=(n, *SHAPE))).astype(np.float32), labels.astype(np.int32))

    return Data("made", split(67), split(31), tuple("abc"), split(40))


def network():
    return filled(lambda: models.MLP(SHAPE, CLASSES, (7,), rngs=nnx.Rngs(0)))


def trained(data, **options):
    settings = {"steps": 12, "batch_size": 16, "optimizer": "momentum", "learning_rate": 0.05, "evaluations": 3}
    return fit(network(), data, Config(**settings | {"progress": False} | options))


def test_smoothed_labels_share_a_part_of_the_target_among_all_classes():
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(7, 5)), random.integers(0, 5, 7)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = 0.9 * np.eye(5)[labels] + 0.1 / 5
    np.testing.assert_allclose(compiled(cross_entropy)(logits, labels, 0.1), -(targets * log_p).sum(1), rtol=1e-5)


def test_smoothing_changes_the_loss_of_training_and_not_that_of_the_scores(data):
    plain, smooth = trained(data, steps=1), trained(data, steps=1, label_smoothing=0.3)
    assert smooth.history[0]["loss"] != plain.history[0]["loss"]
    assert smooth.evaluate(data.test.images, data.test.labels)["loss"] == smooth.history[0]["test_loss"]


@pytest.mark.parametrize("pieces", [2, 8])
def test_a_batch_in_pieces_is_the_batch(data, pieces):
    whole, cut = trained(data), trained(data, accumulate=pieces)
    close(cut.parameters, whole.parameters, SINGLE)
    close([row["loss"] for row in cut.history], [row["loss"] for row in whole.history], SINGLE)


def test_every_piece_has_a_key_of_its_own():
    def apply(parameters, model_state, x, key, train, /):
        keys = model_state["keys"].at[model_state["count"]].set(jax.random.key_data(key))
        return x.reshape(len(x), -1) @ parameters, {"keys": keys, "count": model_state["count"] + 1}

    model_state = {"keys": jnp.zeros((4, 2), jnp.uint32), "count": jnp.zeros((), int)}
    model, optimizer, recipe = Trainable(apply, jnp.zeros((30, 3)), model_state), optax.sgd(0.1), Recipe(accumulate=4)
    batch = jnp.ones((8, *SHAPE)), jnp.zeros(8, int)
    state, _ = train_step(
        initial(model, optimizer, 0, recipe), *batch, np.zeros(2), np.ones(2), apply=apply, optimizer=optimizer, recipe=recipe
    )
    assert len({tuple(key) for key in state.model_state["keys"].tolist()}) == 4


def test_the_average_of_the_parameters_follows_them_and_is_what_is_scored(data):
    decay, model, optimizer = 0.5, train.trainable(network(), SHAPE), optax.sgd(0.3)
    recipe = Recipe(average=decay)
    state, average = initial(model, optimizer, 0, recipe), jax.tree.map(np.array, model.parameters)
    batch = data.train.images[:16], data.train.labels[:16]
    for t in range(12):
        state, _ = train_step(state, *batch, data.mean, data.std, apply=model.apply, optimizer=optimizer, recipe=recipe)
        weight = min(decay, (1 + t) / (10 + t))
        average = jax.tree.map(lambda a, p, w=weight: w * a + (1 - w) * np.array(p), average, state.parameters)
    close(state.scored, average, SINGLE)
    fitted = trained(data, average=0.9)
    assert not np.allclose(jax.tree.leaves(fitted.parameters)[1], jax.tree.leaves(trained(data).parameters)[1], atol=1e-4)
    assert fitted.evaluate(data.test.images, data.test.labels)["loss"] == pytest.approx(fitted.history[-1]["test_loss"])


def of_one_dtype(dtype):
    def apply(parameters, model_state, x, key, train, /):
        return x.reshape(len(x), -1).astype(dtype) @ parameters, model_state

    return Trainable(apply, jnp.ones((30, 3), dtype), {})


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_average_has_the_dtype_of_the_parameters_also_when_a_run_goes_on(data, tmp_path, chunk):
    options = {"optimizer": "sgd", "learning_rate": 0.3, "evaluations": 1, "progress": False}
    config, model = Config(steps=6, batch_size=16, average=0.9, chunk=chunk, **options), of_one_dtype(jnp.bfloat16)
    first, again = (fit(model, data, config, checkpoints=tmp_path) for _ in range(2))
    assert first.parameters.dtype == again.parameters.dtype == jnp.bfloat16
    np.testing.assert_array_equal(first.parameters, again.parameters)
    assert np.any(np.asarray(first.parameters) != 1)


def test_a_batch_in_pieces_and_averages_keep_double_precision(data, float64):
    options = {"steps": 3, "batch_size": 16, "average": 0.9, "chunk": 3, "evaluations": 1, "progress": False}
    whole, cut = (fit(of_one_dtype(jnp.float64), data, Config(accumulate=n, **options)) for n in (1, 4))
    assert cut.parameters.dtype == jnp.float64
    close(cut.parameters, whole.parameters, 1e-12)


def test_half_precision_computes_in_it_and_keeps_parameters_and_statistics_in_single(data):
    seen = []

    class Watched(models.Pyramid):
        def __call__(self, x):
            seen.append((x.dtype, self.stages[0].layer.kernel[...].dtype))
            logits = super().__call__(x)
            seen.append((logits.dtype, self.stages[0].norm.mean[...].dtype))
            return logits

    model = filled(lambda: Watched(SHAPE, CLASSES, (4, 5), rngs=nnx.Rngs(0)))
    fitted = fit(model, data, Config(steps=3, batch_size=16, dtype="bfloat16", evaluations=1, progress=False))
    assert (jnp.bfloat16, jnp.bfloat16) in seen
    assert (jnp.bfloat16, jnp.float32) in seen
    assert {leaf.dtype for leaf in jax.tree.leaves((fitted.parameters, fitted.model_state))} == {np.dtype(np.float32)}
    close(
        [row["loss"] for row in trained(data, dtype="bfloat16").history], [row["loss"] for row in trained(data).history], 0.03
    )


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_decay_is_added_to_the_gradient_of_kernels_only(data, optimizer):
    def apply(parameters, model_state, x, key, train, /):
        return x.reshape(len(x), -1) @ parameters["w"] + parameters["bias"].sum(0) + parameters["b"], model_state

    start = {"w": jnp.ones((30, 3)), "bias": jnp.ones((2, 3)), "b": jnp.ones(3)}
    options = {"steps": 1, "batch_size": 16, "optimizer": optimizer, "learning_rate": 0.1, "schedule": "constant"}
    free, pulled = (
        fit(Trainable(apply, start, {}), data, Config(weight_decay=decay, progress=False, **options)).parameters
        for decay in (0.0, 0.5)
    )
    close(np.asarray(free["w"]) - pulled["w"], 0.1 * 0.5 * np.asarray(start["w"]), 1e-6)
    for name in ("bias", "b"):
        np.testing.assert_array_equal(free[name], pulled[name])


class Named(NamedTuple):
    scale: jax.Array
    kernel: jax.Array


def test_kernels_are_known_by_their_own_name_in_every_kind_of_tree():
    kernel = jnp.ones((2, 3))
    tree = {"scale": {"kernel": kernel, "bias": kernel}, "list": [kernel, jnp.ones(3)], "named": Named(kernel, kernel)}
    expected = {"scale": {"kernel": True, "bias": False}, "list": [True, False], "named": Named(False, True)}
    assert kernel_mask(tree) == expected
    assert kernel_mask(kernel)
    state = nnx.state(nnx.Dict(scale=nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert jax.tree.leaves(kernel_mask(state)) == [False, True]  # bias, kernel


def test_patience_ends_a_run_and_returns_the_best_parameters(data):
    fitted = trained(data, steps=400, evaluations=100, patience=3, learning_rate=0.3, schedule="constant")
    scores = [row["validation_accuracy"] for row in fitted.history]
    assert len(scores) < 100
    assert len(scores) - 1 - int(np.argmax(scores)) == 3
    assert fitted.evaluate(data.validation.images, data.validation.labels)["accuracy"] == max(scores)


def test_patience_without_a_validation_split_is_refused(data):
    bare = Data("made", data.train, data.test, data.classes)
    with pytest.raises(ValueError, match="patience 2 needs a validation split, but made has none"):
        trained(bare, patience=2)


@pytest.mark.parametrize("chunk", [3, 5])
def test_steps_in_one_call_are_the_steps(data, chunk):
    one, several = trained(data, chunk=1, average=0.9), trained(data, chunk=chunk, average=0.9)
    close(several.parameters, one.parameters, SINGLE)
    assert [row["step"] for row in several.history] == [row["step"] for row in one.history] == [4, 8, 12]
    close([row["loss"] for row in several.history], [row["loss"] for row in one.history], SINGLE)


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_gradient_that_is_not_finite_is_found_by_its_array_and_step(data, chunk):
    """The square root of nothing has a value but no gradient: the loss is finite until the step after."""

    def apply(parameters, model_state, x, key, train, /):
        spoilt = jnp.where(model_state["step"] == 5, jnp.sqrt(parameters["bad"] * 0).sum(), 0.0)
        return x.reshape(len(x), -1) @ parameters["w"] + spoilt, {"step": model_state["step"] + train}

    model = Trainable(apply, {"w": jnp.zeros((30, 3)), "bad": jnp.ones(2)}, {"step": jnp.zeros((), int)})
    config = Config(steps=20, batch_size=16, optimizer="sgd", evaluations=1, chunk=chunk, progress=False)
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step \d+; before this step, \['bad'\] is not finite already"
    ):
        fit(model, data, config)


def test_a_loss_that_is_not_finite_leaves_the_parameters_as_they_were_for_good(data):
    model, optimizer = train.trainable(network(), SHAPE), optax.adam(0.1)
    recipe = Recipe()
    before = initial(model, optimizer, 0, recipe)
    kept = jax.tree.map(np.array, before.parameters)
    options = {"apply": model.apply, "optimizer": optimizer, "recipe": recipe}
    state, loss = train_step(before, np.full((4, *SHAPE), np.inf, np.float32), np.zeros(4, int), data.mean, data.std, **options)
    assert not np.isfinite(loss)
    state, loss = train_step(state, data.train.images[:4], data.train.labels[:4], data.mean, data.std, **options)
    assert np.isfinite(loss)
    close(state.parameters, kept, 0)


class Spoilt(nnx.Module):
    """The loss is finite, its gradient is not: the root of nothing has a value but no slope."""

    def __init__(self, rngs):
        self.linear, self.bad = nnx.Linear(30, 3, rngs=rngs), nnx.Param(jnp.ones(2))
        self.step = nnx.BatchStat(jnp.zeros((), int))

    def __call__(self, x):
        self.step[...] += 1
        return self.linear(x.reshape(len(x), -1)) + jnp.sqrt(self.bad[...] * (self.step[...] != 4)).sum()


def test_parameters_that_are_not_finite_are_neither_returned_nor_saved(data, tmp_path):
    config = Config(steps=4, batch_size=16, optimizer="sgd", evaluations=1, progress=False)
    with pytest.raises(FloatingPointError, match=r"after step 4, \['bad'\] is not finite, although all losses are finite; try"):
        fit(Spoilt(nnx.Rngs(0)), data, config)
    with pytest.raises(FloatingPointError, match=rf"after step 4, .*; the last checkpoint is {tmp_path / '3'}; try"):
        fit(Spoilt(nnx.Rngs(0)), data, config, checkpoints=Checkpoints(tmp_path, every=1))
    with pytest.raises(FloatingPointError, match=r"the parameters of run 0 \(seed 0, .* are not finite after step 4"):
        fit_many(Spoilt, data, [config], vmapped=True)
