"""Test the training step and `fit`, for every kind of network."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from counting import counted
from flax import linen, nnx

from convlab import models, train
from convlab.data import Data, Split, StoredImages, load, standardise
from convlab.data.batching import shuffled_indices
from convlab.data.sets import STANDARDISATIONS
from convlab.train import Config, Trainable, fit, fit_seeds
from convlab.train import fitted as fitted_module
from convlab.train import step as step_module

SINGLE = 1e-5  # rounding of single precision
MIN_DIGITS_ACCURACY = 0.93  # on 360 test images; the networks below reach 0.95 to 0.98


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    return load("digits", data_dir=tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def data():
    """Make 98 images of three separable classes, of shape (5, 3, 2) and dtype uint8."""
    return make_data(67, 31)


def make_data(train_images, test_images, classes=3, seed=0):
    random = np.random.default_rng(seed)
    centres = random.integers(40, 216, (classes, 5, 3, 2))

    def split(count):
        labels = random.integers(0, classes, count)
        return Split(np.clip(centres[labels] + random.normal(0, 20, (count, 5, 3, 2)), 0, 255).astype(np.uint8), labels)

    return Data("made", split(train_images), split(test_images), tuple(map(str, range(classes))))


def short_config(**options):
    return Config(**{"steps": 7, "batch_size": 16, "evaluations": 1, "progress": False, **options})


def linear(parameters, model_state, x, key, train, /):
    """Compute the logits of a linear classifier."""
    return x.reshape(len(x), -1) @ parameters["w"] + parameters["b"], model_state


def linear_with_fault(parameters, model_state, x, key, train, /):
    """Compute the logits of a linear classifier, multiplied by a value at one step of training."""
    logits, _ = linear(parameters, {}, x, key, train)
    factor = jnp.where(model_state["step"] == model_state["fault_step"], model_state["value"], 1.0)
    return logits * factor, model_state | {"step": model_state["step"] + train}


def linear_model(seed=0, classes=3):
    random = np.random.default_rng(seed)
    w, b = random.normal(size=(30, classes)) * 0.1, random.normal(size=classes) * 0.1
    return Trainable(linear, {"w": jnp.array(w, jnp.float32), "b": jnp.array(b, jnp.float32)}, {})


class BatchNormDropout(nnx.Module):
    """Network with batch norm and dropout, whose model state changes in training."""

    def __init__(self, shape=(5, 3, 2), classes=3, rate=0.5, *, rngs):
        self.hidden = nnx.Linear(int(np.prod(shape)), 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.head(self.dropout(x))


class BatchNormDropoutLinen(linen.Module):
    """The same network in Linen, with a `train` argument."""

    classes: int = 3

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Dense(16)(x.reshape(len(x), -1))
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        return linen.Dense(self.classes)(linen.Dropout(0.5, deterministic=not train)(x))


BUILDS = {"nnx": lambda: BatchNormDropout(rngs=nnx.Rngs(0)), "linen": BatchNormDropoutLinen, "function": linear_model}


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def module_logits(fitted, images):
    """Compute the logits of the trained module, with images standardised here."""
    model = fitted.model()
    return jax.jit(lambda images: model(standardise(images, fitted.mean, fitted.std)))(images)


def trees_equal(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


# --- the order of the images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, seed", [(5, 0), (7, 3), (67, 1)])
def test_every_epoch_is_a_different_permutation(count, seed):
    epochs = [shuffled_indices(range(e * count, (e + 1) * count), count, seed).tolist() for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    assert len(set(map(tuple, epochs))) == 4


@pytest.mark.parametrize("size", [1, 3, 7, 16, 40])
def test_batches_are_consecutive_slices_of_concatenated_epochs(size):
    sequence = np.concatenate([shuffled_indices(range(e * 7, (e + 1) * 7), 7, 2) for e in range(12)])
    for t in (1, 0):  # batches can be computed in any order
        batch = shuffled_indices(range(t * size, (t + 1) * size), 7, 2)
        np.testing.assert_array_equal(batch, sequence[t * size : (t + 1) * size])


def test_order_depends_only_on_positions_count_and_seed():
    positions = range(67)
    first = shuffled_indices(positions, 67, 0)
    other = shuffled_indices(positions, 67, 1)
    np.testing.assert_array_equal(shuffled_indices(positions, 67, 0), first)
    assert not np.array_equal(first, other)
    assert first.dtype == np.int32


@pytest.mark.parametrize("size", [3, 16])
def test_unshuffled_batches_keep_the_stored_order(data, size):
    config = short_config(batch_size=size, shuffle=False)
    expected = np.arange(9 * size) % len(data.train)
    batches = list(train.training_batches(data, config, 9))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), data.train.labels[expected])
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), data.train.images[expected])
    images = StoredImages(lambda numbers: data.train.images[numbers], np.arange(len(data.train)), data.image_shape, np.uint8)
    on_disk = dataclasses.replace(data, train=Split(images, data.train.labels))
    for source, start in ((data, 5), (on_disk, 0), (on_disk, 5)):
        assert trees_equal(list(train.training_batches(source, config, 9, start=start)), batches[start:])


# --- comparison with textbook equations ------------------------------------------------------------------------------


def numpy_gradient_descent(data, start, rates, size, seed):
    """Train softmax regression in NumPy.

    Returns the parameters after the last step and the loss before each step.
    """
    w, b = (np.asarray(start[name], np.float64) for name in "wb")
    x = (data.train.images - data.train.images.mean((0, 1, 2))) / data.train.images.std((0, 1, 2))
    losses = []
    for t, rate in enumerate(rates):
        chosen = shuffled_indices(range(t * size, (t + 1) * size), len(data.train), seed)
        batch, labels = x[chosen].reshape(size, -1), data.train.labels[chosen]
        scores = batch @ w + b
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(size), labels]).mean())
        g = (p - np.eye(3)[labels]) / size
        w, b = w - rate * batch.T @ g, b - rate * g.sum(0)
    return {"w": w, "b": b}, losses


def test_fit_with_sgd_equals_gradient_descent_in_numpy(data):
    config = short_config(optimizer="sgd", schedule="constant", learning_rate=0.3, seed=5, steps=9, evaluations=3)
    model = linear_model()
    fitted = fit(model, data, config)
    expected, losses = numpy_gradient_descent(data, model.parameters, [0.3] * 9, 16, seed=5)
    close(fitted.parameters, expected, 1e-4)
    assert [row["step"] for row in fitted.history] == [3, 6, 9]
    close(np.array([row["loss"] for row in fitted.history]), np.reshape(losses, (3, 3)).mean(1), 1e-4)


@pytest.mark.parametrize("name", STANDARDISATIONS)
def test_fit_standardises_images_in_training_and_evaluation(data, name):
    """The result equals that of a run on images that were standardised before."""
    data = data.with_standardisation(name)
    standardised = data.map(lambda images: standardise(images, data.mean, data.std)).with_standardisation("none")
    config = short_config(learning_rate=1e-3, optimizer="sgd", schedule="constant")
    fitted, expected = fit(linear_model(), data, config), fit(linear_model(), standardised, config)
    close(fitted.parameters, expected.parameters, SINGLE)
    close(fitted.logits(data.test.images), expected.logits(standardised.test.images), SINGLE)
    assert fitted.history[-1]["test_loss"] == pytest.approx(expected.history[-1]["test_loss"], rel=SINGLE)


def test_cosine_schedule_decays_the_learning_rate_to_zero(data):
    config = short_config(optimizer="sgd", schedule="cosine", learning_rate=0.5, steps=8)
    rates = [0.25 * (1 + np.cos(np.pi * t / 8)) for t in range(8)]
    model = linear_model()
    close(fit(model, data, config).parameters, numpy_gradient_descent(data, model.parameters, rates, 16, seed=0)[0], 1e-4)


def test_momentum_differs_from_sgd_from_the_second_step(data):
    def parameters(optimizer, steps):
        return fit(linear_model(), data, short_config(optimizer=optimizer, schedule="constant", steps=steps)).parameters

    assert trees_equal(parameters("sgd", 1), parameters("momentum", 1))
    assert not trees_equal(parameters("sgd", 2), parameters("momentum", 2))


def test_weight_decay_applies_to_matrices_only(data):
    model, rate, decay = linear_model(), 0.01, 0.5
    options = {"optimizer": "adamw", "learning_rate": rate, "schedule": "constant", "steps": 1}
    runs = [fit(model, data, short_config(weight_decay=weight_decay, **options)) for weight_decay in (0.0, decay)]
    plain, decayed = (to_numpy(run.parameters) for run in runs)
    close(plain["w"] - decayed["w"], rate * decay * np.asarray(model.parameters["w"]), 1e-6)
    np.testing.assert_array_equal(plain["b"], decayed["b"])


@pytest.mark.parametrize("name, optimizer", [("adam", optax.adam(1e-2)), ("momentum", optax.sgd(1e-2, momentum=0.9))])
def test_custom_optimizer_replaces_that_of_the_config(data, name, optimizer):
    named = fit(linear_model(), data, short_config(optimizer=name, schedule="constant", learning_rate=1e-2))
    custom = fit(linear_model(), data, short_config(optimizer="sgd", learning_rate=7.0), optimizer=optimizer)
    close(custom.parameters, named.parameters, 1e-6)


def test_optimizer_receives_loss_and_gradient(data):
    received = []

    def update(updates, state, parameters, *, value, grad, **others):
        received.append((value.shape, jax.tree.map(jnp.shape, grad), sorted(others)))
        return jax.tree.map(jnp.negative, updates), state + value

    optimizer = optax.GradientTransformationExtraArgs(lambda parameters: jnp.zeros(()), update)
    fitted = fit(linear_model(), data, short_config(steps=3), optimizer=optimizer)
    assert received[-1] == ((), {"w": (30, 3), "b": (3,)}, [])
    assert float(fitted.optimizer_state) == pytest.approx(3 * fitted.history[0]["loss"], rel=1e-5)


def test_line_search_optimizer_raises_an_error(data):
    with pytest.raises(ValueError, match=r"optimizer needs more arguments than a step passes \(.*\): .*value_fn"):
        fit(linear_model(), data, short_config(), optimizer=optax.lbfgs())


# --- accuracy and reproducibility ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda rngs: models.MLP((8, 8, 1), 10, (), rngs=rngs),
        lambda rngs: models.MLP((8, 8, 1), 10, (8,), kernel_size=3, connectivity="conv", rngs=rngs),
        lambda rngs: models.MLP((8, 8, 1), 10, (8,), kernel_size=3, connectivity="locally_connected", rngs=rngs),
    ],
    ids=["linear", "conv", "local"],
)
def test_small_networks_learn_the_digits(digits, build):
    fitted = fit(build(nnx.Rngs(0)), digits, Config(steps=150, learning_rate=1e-2, evaluations=2, progress=False))
    first, last = fitted.history
    assert last["test_accuracy"] > MIN_DIGITS_ACCURACY
    assert last["loss"] < first["loss"]
    scores = fitted.evaluate(digits.test.images, digits.test.labels)
    assert scores == {"loss": last["test_loss"], "accuracy": last["test_accuracy"]}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_equal_seeds_give_identical_results(data, build):
    first, again, other = (fit(build(), data, short_config(seed=seed)) for seed in (3, 3, 4))
    assert trees_equal(first.parameters, again.parameters)
    assert first.history[0]["loss"] == again.history[0]["loss"]
    assert not trees_equal(first.parameters, other.parameters)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_every_kind_of_network_learns_separable_classes(data, build):
    fitted = fit(build(), data, short_config(steps=60, learning_rate=3e-2))
    assert fitted.history[-1]["test_accuracy"] > 0.95


def test_linen_module_with_a_list_field_trains(data):
    module = linen.Sequential([lambda x: x.reshape(len(x), -1), linen.Dense(16), linen.relu, linen.Dense(3)])
    assert fit(module, data, short_config(steps=60, learning_rate=3e-2)).history[-1]["test_accuracy"] > 0.95


def test_tree_mode_and_graph_mode_give_identical_results(data):
    in_graph_mode = fit(BatchNormDropout(rngs=nnx.Rngs(0)), data, short_config())
    with nnx.set_graph_mode(False):
        in_tree_mode = fit(BatchNormDropout(rngs=nnx.Rngs(0)), data, short_config())
        close(module_logits(in_tree_mode, data.test.images), in_tree_mode.logits(data.test.images), SINGLE)
    assert trees_equal(in_graph_mode.parameters, in_tree_mode.parameters)


def test_fit_seeds_equals_fit_per_seed_and_compiles_once(data):
    def build(rngs):
        return models.MLP((5, 3, 2), 3, (7,), rngs=rngs)

    before = step_module.train_step._cache_size()
    fitted = fit_seeds(build, data, short_config(), seeds=(4, 2))
    assert step_module.train_step._cache_size() == before + 1
    for seed, run in zip((4, 2), fitted, strict=True):
        assert trees_equal(run.parameters, fit(build(nnx.Rngs(seed)), data, short_config(seed=seed)).parameters)
        assert run.config.seed == seed


# --- batch statistics and dropout ------------------------------------------------------------------------------------


def test_evaluation_uses_the_batch_statistics_of_training(data):
    fitted = fit(BatchNormDropout(rngs=nnx.Rngs(0)), data, short_config())
    norm, parameters = to_numpy((fitted.model_state["norm"], fitted.parameters))
    assert np.all(np.abs(norm["mean"]) > 0)
    assert np.all(norm["var"] != 1)
    x = np.asarray(standardise(data.test.images, data.mean, data.std)).reshape(31, -1)
    h = x @ parameters["hidden"]["kernel"] + parameters["hidden"]["bias"]
    h = (h - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * parameters["norm"]["scale"] + parameters["norm"]["bias"]
    expected = np.maximum(h, 0) @ parameters["head"]["kernel"] + parameters["head"]["bias"]
    close(fitted.logits(data.test.images), expected, 1e-4)


@pytest.mark.parametrize("build", [lambda: BatchNormDropout(rngs=nnx.Rngs(0)), BatchNormDropoutLinen], ids=["nnx", "linen"])
def test_dropout_is_random_in_training_and_disabled_in_evaluation(data, build):
    fitted = fit(build(), data, short_config())
    x, apply = standardise(data.test.images, data.mean, data.std), jax.jit(fitted.apply, static_argnums=4)

    def scores(model_state, key, train):
        return apply(fitted.parameters, model_state, x, jax.random.key(key), train)

    close(scores(fitted.model_state, 0, False)[0], fitted.logits(data.test.images), SINGLE)
    assert trees_equal(scores(fitted.model_state, 0, False)[0], scores(fitted.model_state, 1, False)[0])
    first, model_state = scores(fitted.model_state, 0, True)
    assert not np.allclose(first, scores(model_state, 1, True)[0], atol=1e-3)


def test_random_keys_differ_between_steps_and_seeds(data):
    def apply(parameters, model_state, x, key, train, /):
        seen = model_state["seen"].at[model_state["step"]].set(jax.random.key_data(key))
        return linear(parameters, {}, x, key, train)[0], {"step": model_state["step"] + 1, "seen": seen}

    model_state = {"step": jnp.asarray(0), "seen": jnp.zeros((7, 2), jnp.uint32)}
    model = Trainable(apply, linear_model().parameters, model_state)
    rows = [tuple(row) for seed in (0, 1) for row in fit(model, data, short_config(seed=seed)).model_state["seen"].tolist()]
    assert len(set(rows)) == 14


def test_linen_batch_statistics_change_in_training_only(data):
    fitted = fit(BatchNormDropoutLinen(), data, short_config())
    start = train.as_trainable(BatchNormDropoutLinen(), (5, 3, 2)).model_state
    assert not any(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (start, fitted.model_state)), strict=True))
    x, apply = np.ones((4, 5, 3, 2), np.float32), jax.jit(fitted.apply, static_argnums=4)
    chex.assert_trees_all_equal(
        apply(fitted.parameters, fitted.model_state, x, jax.random.key(0), False)[1], fitted.model_state
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_fit_does_not_modify_the_model(data, mode):
    model = BatchNormDropout(rngs=nnx.Rngs(0))
    getattr(model, mode)()
    definition, state = nnx.split(model)
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
    fit(model, data, short_config())
    after, state = nnx.split(model)
    assert after == definition
    chex.assert_trees_all_equal(nnx.to_pure_dict(state), before)


def test_arrays_of_the_model_are_not_donated(data):
    model = linear_model()
    first = fit(model, data, short_config())
    assert trees_equal(fit(model, data, short_config()).parameters, first.parameters)


class Sowing(nnx.Module):
    """NNX module that sows an intermediate value."""

    def __init__(self):
        self.linear = nnx.Linear(30, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        self.sow(nnx.Intermediate, "seen", x)
        return self.linear(x.reshape(len(x), -1))


class SowingLinen(linen.Module):
    """Linen module that sows an intermediate value."""

    @linen.compact
    def __call__(self, x):
        self.sow("intermediates", "seen", x)
        return linen.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
@pytest.mark.parametrize("build, graph", [(Sowing, True), (Sowing, False), (SowingLinen, True)])
def test_sown_intermediates_are_discarded(data, build, graph):
    with nnx.set_graph_mode(graph):
        model = build()
        if isinstance(model, nnx.Module):
            model(jnp.ones((2, 5, 3, 2)))
        fitted = fit(model, data, short_config(steps_per_call=3))
    assert jax.tree.leaves(fitted.model_state) == []


@pytest.mark.parametrize(
    "model_state, after, change",
    [
        ({}, lambda model_state: {"n": jnp.ones(())}, r"\['n'\] of the model state from nothing to \(\) float32"),
        (
            {"n": jnp.ones(2)},
            lambda model_state: {"n": model_state["n"][:1]},
            r"\['n'\] .* from \(2,\) float32 to \(1,\) float32",
        ),
        ({"n": jnp.ones(2)}, lambda model_state: {"n": model_state["n"] > 0}, r"\['n'\] .* from \(2,\) float32 to \(2,\) bool"),
    ],
)
def test_model_state_that_changes_shape_or_dtype_raises_an_error(data, model_state, after, change):
    def apply(parameters, model_state, x, key, train, /):
        return linear(parameters, model_state, x, key, train)[0], after(model_state)

    with pytest.raises(ValueError, match=f"model changes {change} in one step; needs the same shape and dtype"):
        fit(Trainable(apply, linear_model().parameters, model_state), data, short_config())


# --- compilations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [{"steps": 7}, {"steps": None, "epochs": 2}], ids=["steps", "epochs"])
def test_seeds_and_subsets_share_one_compilation(data, length):
    config = short_config(learning_rate=0.0123, **length)  # a value that no other test compiles for
    fit(BatchNormDropout(rngs=nnx.Rngs(0)), data, config)
    before = step_module.train_step._cache_size(), step_module.compute_logits._cache_size()
    for size, seed in ((67, 1), (40, 2), (21, 0)):
        fit(BatchNormDropout(rngs=nnx.Rngs(seed)), data.subset(size), dataclasses.replace(config, seed=seed))
    assert (step_module.train_step._cache_size(), step_module.compute_logits._cache_size()) == before


@pytest.mark.parametrize("build", [lambda seed: BatchNormDropout(rngs=nnx.Rngs(seed)), linear_model], ids=["nnx", "function"])
def test_second_run_of_a_network_traces_nothing(data, build):
    config = short_config(optimizer="adamw", weight_decay=0.0123)  # a value that no other test compiles for
    with counted("jaxpr_trace") as first:
        fit(build(0), data, config)
    with counted("jaxpr_trace") as second:
        fit(build(1), data.subset(40), dataclasses.replace(config, seed=1))
    assert first
    assert not second


def test_number_of_evaluated_images_causes_no_compilation(data):
    fitted = fit(linear_model(), data, short_config())
    fitted.logits(data.test.images[:2])
    before = step_module.compute_logits._cache_size()
    for count in (1, 30, 31):
        fitted.logits(data.test.images[:count])
    assert step_module.compute_logits._cache_size() == before


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 6, 7, 8, 29])
def test_evaluate_equals_the_plain_computation_for_any_number_of_images(data, monkeypatch, count):
    monkeypatch.setattr(fitted_module, "EVALUATION_BATCH", 7)
    fitted = fit(linear_model(), data, short_config())
    images, labels = data.test.images[:count], data.test.labels[:count]
    x = ((images - data.mean) / data.std).reshape(count, -1).astype(np.float64)
    logits = x @ np.asarray(fitted.parameters["w"]) + np.asarray(fitted.parameters["b"])
    close(fitted.logits(images), logits, 1e-4)
    chosen = logits[np.arange(count), labels]
    loss = (np.log(np.exp(logits).sum(1)) - chosen).mean()
    scores = fitted.evaluate(images, labels)
    assert scores["loss"] == pytest.approx(loss, rel=1e-4)
    assert scores["accuracy"] == pytest.approx((chosen == logits.max(1)).mean())


def test_trained_module_gives_the_logits_of_fitted(data):
    fitted = fit(BatchNormDropout(rngs=nnx.Rngs(0)), data, short_config())
    model = fitted.model()
    close(module_logits(fitted, data.test.images), fitted.logits(data.test.images), SINGLE)
    assert (model.norm.use_running_average, model.dropout.deterministic) == (True, True)


@pytest.mark.parametrize("build", [BatchNormDropoutLinen, linear_model], ids=["linen", "function"])
def test_model_of_a_run_without_nnx_module_raises_an_error(data, build):
    with pytest.raises(TypeError, match="needs a run of an NNX module"):
        fit(build(), data, short_config()).model()


@pytest.mark.parametrize("evaluations, steps", [(1, [10]), (3, [4, 7, 10]), (10, list(range(1, 11))), (99, list(range(1, 11)))])
def test_evaluations_are_evenly_spaced_and_include_the_last_step(data, evaluations, steps):
    fitted = fit(linear_model(), data, short_config(steps=10, evaluations=evaluations))
    assert [row["step"] for row in fitted.history] == steps
    np.testing.assert_allclose([row["epoch"] for row in fitted.history], np.array(steps) * 16 / 67)
    seconds = [row["seconds"] for row in fitted.history]
    assert seconds == sorted(seconds)
    assert 0 < fitted.step_seconds * 9 < seconds[-1] <= fitted.seconds


def test_total_steps_cover_the_epochs():
    assert Config(epochs=3, batch_size=16).total_steps(64) == 12
    assert Config(epochs=3, batch_size=16).total_steps(65) == 13
    assert Config(epochs=0.5, batch_size=16).total_steps(8) == 1
    assert Config(epochs=3, steps=5).total_steps(64) == 5


def test_progress_is_shown_only_on_request(data, capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    fit(linear_model(), data, short_config(progress=False))
    assert capsys.readouterr().err == ""
    fit(linear_model(), data, short_config(progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    for shown in ("training", "7/7", "loss", "test accuracy", "time left"):
        assert shown in err


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluations", [1, 2, 9])
@pytest.mark.parametrize("fault_step", [1, 4, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_loss_raises_an_error_with_its_step(data, fault_step, evaluations, value):
    start = {"step": 1, "fault_step": fault_step, "value": value}
    model = Trainable(linear_with_fault, linear_model().parameters, jax.tree.map(jnp.asarray, start))
    with pytest.raises(FloatingPointError, match=rf"the loss is \S+ at step {fault_step};"):
        fit(model, data, short_config(steps=9, evaluations=evaluations))


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda: models.MLP((5, 3, 2), 4, (), rngs=nnx.Rngs(0)), r"\(n, 4\)"),
        (lambda: BatchNormDropoutLinen(2), r"\(n, 2\)"),
        (lambda: Trainable(lambda p, r, x, k, t: (x, r), {}, {}), r"\(n, 5, 3, 2\)"),
    ],
    ids=["nnx", "linen", "function"],
)
def test_wrong_number_of_outputs_raises_an_error(data, build, shape):
    labels = "with labels from 0 to 2"
    with pytest.raises(ValueError, match=rf"{shape} for n images, but data 'made' has 3 classes, {labels}: needs \(n, 3\)$"):
        fit(build(), data, short_config())


@pytest.mark.parametrize(
    "train, test, message",
    [
        ([1, 2] * 5, [1, 2], r"3 classes, with labels from 1 to 2: needs \(n, 3\); no training image has class 0: .*np.unique"),
        ([0, 255] * 5, [0], r"256 classes, with labels from 0 to 255: .* has classes 1, 2, 3, 4, 5 and 249 more: .*np.unique"),
        ([0, 1] * 5, [1, 3], r"4 classes, with labels from 0 to 3: .* no training image has classes 2, 3: "),
        ([0] * 10, [0], "data 'arrays' has 1 class, with labels from 0 to 0; needs images of at least two classes"),
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_described(train, test, message):
    x, model = np.random.default_rng(0).normal(size=(10, 3, 1)), models.MLP((3, 1), 2, (), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        fit(model, (x, train), short_config(), test=(x[: len(test)], test))


def test_hints_name_the_shape_that_targets_or_images_need():
    x, y = np.random.default_rng(0).normal(size=(10, 4, 3, 1)), np.arange(10) % 2
    model = models.MLP((4, 3, 1), 1, (), rngs=nnx.Rngs(0))
    for loss in (optax.squared_error, lambda logits, targets: (logits - targets) ** 2):  # one fails, one pairs all images
        with pytest.raises(ValueError, match=r"in a trial with 2 images.*use y\[:, None\]"):
            fit(model, (x, y * 1.0), short_config(), loss=loss)
    with pytest.raises(ValueError, match=r"^loss pairs each image with every other one for .*use y\[:, None\]"):
        fit(model, (x, y * 1.0), short_config(), loss=lambda logits, targets: jnp.mean((logits - targets) ** 2))
    fit(model, (x, y * 1.0), short_config(steps=1), loss=lambda logits, targets: jnp.mean((logits[:, 0] - targets) ** 2))
    with pytest.raises(ValueError, match=r"2 classes, .* as integers are classes .* pass floats, such as y\[:, None\].astype"):
        fit(model, (x, y), short_config(), loss=optax.squared_error)
    with pytest.raises(ValueError, match=r"use y.ravel\(\), or y.astype\(float\) for numbers to predict"):
        fit(model, (x, y[:, None]), short_config(), loss=optax.squared_error)
    with pytest.raises(ValueError, match=r"or images with their channels last: x.transpose\(0, 2, 3, 1\)"):
        fit(model, (x.transpose(0, 3, 1, 2).repeat(3, 3).repeat(3, 1), y), short_config())
    with pytest.raises(ValueError, match=r"loss is None, .* use y.argmax\(-1\) for the class of one-hot rows"):
        fit(model, (x, np.eye(2)[y]), short_config())
    with pytest.raises(ValueError, match=r"model fails on images of shape \(n, 4, 3, 1\): .* image_shape=\(4, 3, 1\)"):
        fit(models.MLP((5, 3, 1), 2, (), rngs=nnx.Rngs(0)), (x, y), short_config())


def test_model_of_wrong_type_raises_an_error(data):
    with pytest.raises(TypeError, match="must be a Flax NNX module, a Linen module or a Trainable, got function"):
        fit(linear, data, short_config())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": "adagrad"}, "optimizer 'adagrad' is unknown; needs one of adam, adamw, sgd, momentum"),
        ({"schedule": "linear"}, "schedule 'linear' is unknown; needs one of constant, cosine"),
        ({"optimizer": "adamm"}, "needs one of adam, adamw, sgd, momentum; did you mean 'adam.?'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be below 2\\*\\*32, as JAX's random keys use 32 bits of it, got 4294967296"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"weight_decay": float("nan"), "optimizer": "sgd"}, "weight_decay must be at least 0 and finite, got nan"),
        ({"weight_decay": 0.1}, "weight_decay must be 0 for optimizer 'adam', got 0.1; use 'adamw'"),
        ({"accumulation_steps": 3}, "batch_size must be divisible by accumulation_steps=3, got 128"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        ({"ema_decay": -0.1}, "ema_decay must be at least 0 and below 1, got -0.1"),
        ({"dtype": "float8"}, "dtype 'float8' is unknown; needs one of float32, bfloat16"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"steps_per_call": 0}, "steps_per_call must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"epochs": float("nan")}, "epochs must be above 0 and finite, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
    ],
    ids=str,
)
def test_invalid_config_raises_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


def test_evaluating_empty_images_or_invalid_labels_raises_an_error(data):
    fitted = fit(linear_model(), data, short_config())
    with pytest.raises(ValueError, match="images is empty"):
        fitted.logits(data.test.images[:0])
    with pytest.raises(ValueError, match="labels has 30 entries for 31 images"):
        fitted.evaluate(data.test.images, data.test.labels[1:])
    for labels in (data.test.labels + 1, data.test.labels - 1):
        with pytest.raises(ValueError, match=f"labels range from {labels.min()} to {labels.max()}; needs 0 to 2"):
            fitted.evaluate(data.test.images, labels)


def test_numpy_scalars_in_a_config_become_python_numbers():
    config = Config(seed=np.int64(3), learning_rate=np.float32(0.5), steps=np.uint8(7), progress=np.bool_(False))
    assert config == Config(seed=3, learning_rate=0.5, steps=7, progress=False)
    assert {type(value) for value in dataclasses.asdict(config).values()} <= {int, float, str, bool, type(None)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": {"steps": 3}}, "config must be a Config, got dict"),
        ({"data": "digits"}, r"data must be a Data or a pair \(x, y\) of arrays, got str"),
        ({"optimizer": "sgd"}, r"optimizer must be an Optax gradient transformation, got str; .* use Config\(optimizer=...\)"),
        ({"checkpoints": 3}, r"checkpoints must be a folder or Checkpoints\(folder\), got int"),
        ({"log": True}, r"log must be a folder or Log\(folder\), got bool"),
    ],
)
def test_argument_of_wrong_type_raises_an_error(data, options, message):
    with pytest.raises(TypeError, match=message):
        fit(linear_model(), **{"data": data, "config": short_config()} | options)


def test_checkpoints_and_log_accept_a_folder(data, tmp_path):
    fit(linear_model(), data, short_config(), checkpoints=str(tmp_path / "saved"), log=tmp_path / "log")
    assert (tmp_path / "saved" / "7").is_dir()
    assert (tmp_path / "log" / "history.csv").exists()


def test_stored_images_that_are_not_finite_raise_an_error_in_training_and_evaluation(data):
    def stored(split, value):
        images = split.images.astype(np.float32)
        images[3, 2, 1, 0] = value
        read = StoredImages(lambda indices: images[indices], np.arange(len(images)), images.shape[1:], images.dtype)
        return Split(read, split.labels)

    for values, kind in (((np.nan, 0), "NaN"), ((0, np.inf), "infinity")):
        train, test = (stored(split, value) for split, value in zip((data.train, data.test), values, strict=True))
        with pytest.raises(ValueError, match=rf"images\[3\] of those on disk contains {kind}"):
            fit(linear_model(), dataclasses.replace(data, train=train, test=test), short_config())


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_does_not_import_tensorflow(tmp_path):
    """A stand-in for the package raises an error when it is imported."""
    pytest.importorskip("tensorflow_datasets")
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise RuntimeError('tensorflow was imported')\n")
    program = f"""
        import sys
        from flax import nnx
        from convlab import models
        from convlab.data import load
        from convlab.train import Config, fit

        data = load("digits", data_dir={str(tmp_path / "data")!r})
        fit(models.MLP(data.image_shape, 10, (), rngs=nnx.Rngs(0)), data, Config(steps=2, progress=False))
        assert "tensorflow" not in sys.modules
        print("trained")
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout.strip().endswith("trained"), process.stderr[-2000:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the GNU C library")
def test_keep_freed_memory_changes_the_settings():
    code = "from convlab.train import keep_freed_memory; assert keep_freed_memory()"
    subprocess.run([sys.executable, "-c", code], check=True)
