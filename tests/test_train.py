"""Training: a pure step, one loop for every kind of network, and the same result from the same seed."""

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
from convlab.data import Data, Split, Stored, load, standardise
from convlab.data.feeding import order
from convlab.data.sets import STANDARDISATIONS
from convlab.train import Config, Trainable, fit, fit_seeds
from convlab.train import fitted as fitted_room
from convlab.train import step as step_room

SINGLE = 1e-5  # rounding of single precision
DIGITS_BAR = 0.93  # of 360 test images; the linear classifier and the small convolution reach 0.95 to 0.98


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    return load("digits", data_dir=tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def made():
    """Three separable classes of 5x3 images with two channels, in uint8: nothing is loaded."""
    return make(67, 31)


def make(train_images, test_images, classes=3, seed=0):
    random = np.random.default_rng(seed)
    centres = random.integers(40, 216, (classes, 5, 3, 2))

    def split(count):
        labels = random.integers(0, classes, count)
        return Split(np.clip(centres[labels] + random.normal(0, 20, (count, 5, 3, 2)), 0, 255).astype(np.uint8), labels)

    return Data("made", split(train_images), split(test_images), tuple(map(str, range(classes))))


def quick(**own):
    return Config(**{"steps": 7, "batch_size": 16, "evaluations": 1, "progress": False, **own})


def linear(parameters, model_state, x, key, train, /):
    """A linear classifier as a plain function."""
    return x.reshape(len(x), -1) @ parameters["w"] + parameters["b"], model_state


def linear_until_bad(parameters, model_state, x, key, train, /):
    """The same, whose scores are spoilt at one step of training."""
    scores, _ = linear(parameters, {}, x, key, train)
    spoilt = scores * jnp.where(model_state["step"] == model_state["bad"], model_state["value"], 1.0)
    return spoilt, model_state | {"step": model_state["step"] + train}


def a_linear(seed=0, classes=3):
    random = np.random.default_rng(seed)
    w, b = random.normal(size=(30, classes)) * 0.1, random.normal(size=classes) * 0.1
    return Trainable(linear, {"w": jnp.array(w, jnp.float32), "b": jnp.array(b, jnp.float32)}, {})


class Noisy(nnx.Module):
    """A network with all that changes outside of the gradient: batch statistics and the keys of dropout."""

    def __init__(self, shape=(5, 3, 2), classes=3, rate=0.5, *, rngs):
        self.hidden = nnx.Linear(int(np.prod(shape)), 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.head(self.dropout(x))


class NoisyLinen(linen.Module):
    """The same in Linen; it asks for `train`."""

    classes: int = 3

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Dense(16)(x.reshape(len(x), -1))
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        return linen.Dense(self.classes)(linen.Dropout(0.5, deterministic=not train)(x))


def numbers(tree):
    return jax.tree.map(np.asarray, tree)


def scores_of(fitted, images):
    """What the trained module says of raw images, standardised by hand."""
    model = fitted.model()
    return jax.jit(lambda images: model(standardise(images, fitted.mean, fitted.std)))(images)


def same(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


# --- the order of the images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, seed", [(5, 0), (7, 3), (67, 1)])
def test_every_epoch_is_another_permutation(count, seed):
    epochs = [order(range(e * count, (e + 1) * count), count, seed).tolist() for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    assert len(set(map(tuple, epochs))) == 4


@pytest.mark.parametrize("size", [1, 3, 7, 16, 40])
def test_batches_are_cuts_of_one_endless_row_and_straddle_epochs(size):
    row = np.concatenate([order(range(e * 7, (e + 1) * 7), 7, 2) for e in range(12)])
    for t in (1, 0):  # in any sequence
        np.testing.assert_array_equal(order(range(t * size, (t + 1) * size), 7, 2), row[t * size : (t + 1) * size])


def test_order_is_a_function_of_places_count_and_seed():
    places = range(0, 67)
    first = order(places, 67, 0)
    other = order(places, 67, 1)
    np.testing.assert_array_equal(order(places, 67, 0), first)
    assert not np.array_equal(first, other)
    assert first.dtype == np.int32


@pytest.mark.parametrize("size", [3, 16])
def test_without_shuffling_batches_are_cuts_of_the_images_in_their_order(made, size):
    config = quick(batch_size=size, shuffle=False)
    expected = np.arange(9 * size) % len(made.train)
    batches = list(train.feed(made, config, 9))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), made.train.labels[expected])
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), made.train.images[expected])
    images = Stored(lambda numbers: made.train.images[numbers], np.arange(len(made.train)), made.image_shape, np.uint8)
    on_disk = dataclasses.replace(made, train=Split(images, made.train.labels))
    for data, start in ((made, 5), (on_disk, 0), (on_disk, 5)):
        assert same(list(train.feed(data, config, 9, start=start)), batches[start:])


# --- the step is the textbook's --------------------------------------------------------------------------------------


def by_hand(data, start, rates, size, seed):
    """Softmax regression by gradient descent in NumPy, float64: parameters after all steps and the loss before each."""
    w, b = (np.asarray(start[name], np.float64) for name in "wb")
    x = (data.train.images - data.train.images.mean((0, 1, 2))) / data.train.images.std((0, 1, 2))
    losses = []
    for t, rate in enumerate(rates):
        chosen = order(range(t * size, (t + 1) * size), len(data.train), seed)
        batch, labels = x[chosen].reshape(size, -1), data.train.labels[chosen]
        scores = batch @ w + b
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(size), labels]).mean())
        g = (p - np.eye(3)[labels]) / size
        w, b = w - rate * batch.T @ g, b - rate * g.sum(0)
    return {"w": w, "b": b}, losses


def test_fit_is_gradient_descent_on_the_mean_loss_of_the_batches_in_order(made):
    config = quick(optimizer="sgd", schedule="constant", learning_rate=0.3, seed=5, steps=9, evaluations=3)
    model = a_linear()
    fitted = fit(model, made, config)
    expected, losses = by_hand(made, model.parameters, [0.3] * 9, 16, seed=5)
    close(fitted.parameters, expected, 1e-4)
    assert [row["step"] for row in fitted.history] == [3, 6, 9]
    close(np.array([row["loss"] for row in fitted.history]), np.reshape(losses, (3, 3)).mean(1), 1e-4)


@pytest.mark.parametrize("name", STANDARDISATIONS)
def test_fit_standardises_as_the_data_say_in_training_and_in_scoring(made, name):
    """The same as to standardise by hand first, and to train on what is then raw."""
    data = made.with_standardisation(name)
    by_hand = data.map(lambda images: standardise(images, data.mean, data.std)).with_standardisation("none")
    config = quick(learning_rate=1e-3, optimizer="sgd", schedule="constant")
    fitted, expected = fit(a_linear(), data, config), fit(a_linear(), by_hand, config)
    close(fitted.parameters, expected.parameters, SINGLE)
    close(fitted.logits(made.test.images), expected.logits(by_hand.test.images), SINGLE)
    assert fitted.history[-1]["test_loss"] == pytest.approx(expected.history[-1]["test_loss"], rel=SINGLE)


def test_cosine_schedule_falls_from_the_rate_to_nothing_over_all_steps(made):
    config = quick(optimizer="sgd", schedule="cosine", learning_rate=0.5, steps=8)
    rates = [0.25 * (1 + np.cos(np.pi * t / 8)) for t in range(8)]
    model = a_linear()
    close(fit(model, made, config).parameters, by_hand(made, model.parameters, rates, 16, seed=0)[0], 1e-4)


def test_momentum_differs_from_gradient_descent_from_the_second_step_on(made):
    def parameters(optimizer, steps):
        return fit(a_linear(), made, quick(optimizer=optimizer, schedule="constant", steps=steps)).parameters

    assert same(parameters("sgd", 1), parameters("momentum", 1))
    assert not same(parameters("sgd", 2), parameters("momentum", 2))


def test_weight_decay_pulls_on_matrices_only(made):
    model, rate, decay = a_linear(), 0.01, 0.5
    options = {"optimizer": "adamw", "learning_rate": rate, "schedule": "constant", "steps": 1}
    free, pulled = (numbers(fit(model, made, quick(weight_decay=each, **options)).parameters) for each in (0.0, decay))
    close(free["w"] - pulled["w"], rate * decay * np.asarray(model.parameters["w"]), 1e-6)
    np.testing.assert_array_equal(free["b"], pulled["b"])


@pytest.mark.parametrize("name, least", [("adam", optax.adam(1e-2)), ("momentum", optax.sgd(1e-2, momentum=0.9))])
def test_a_custom_optimizer_takes_the_place_of_the_named_one(made, name, least):
    named = fit(a_linear(), made, quick(optimizer=name, schedule="constant", learning_rate=1e-2))
    own = fit(a_linear(), made, quick(optimizer="sgd", learning_rate=7.0), optimizer=least)
    close(own.parameters, named.parameters, 1e-6)


def test_an_optimizer_is_told_the_loss_and_the_gradient(made):
    told = []

    def update(updates, state, parameters, *, value, grad, **more):
        told.append((value.shape, jax.tree.map(jnp.shape, grad), sorted(more)))
        return jax.tree.map(jnp.negative, updates), state + value

    own = optax.GradientTransformationExtraArgs(lambda parameters: jnp.zeros(()), update)
    fitted = fit(a_linear(), made, quick(steps=3), optimizer=own)
    assert told[-1] == ((), {"w": (30, 3), "b": (3,)}, [])
    assert float(fitted.optimizer_state) == pytest.approx(3 * fitted.history[0]["loss"], rel=1e-5)


def test_an_optimizer_that_searches_along_a_line_is_refused(made):
    with pytest.raises(ValueError, match=r"optimizer needs more arguments than a step passes \(.*\): .*value_fn"):
        fit(a_linear(), made, quick(), optimizer=optax.lbfgs())


# --- what is learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda rngs: models.MLP((8, 8, 1), 10, (), rngs=rngs),
        lambda rngs: models.MLP((8, 8, 1), 10, (8,), kernel_size=3, connectivity="conv", rngs=rngs),
        lambda rngs: models.MLP((8, 8, 1), 10, (8,), kernel_size=3, connectivity="locally_connected", rngs=rngs),
    ],
    ids=["linear", "conv", "local"],
)
def test_learns_the_digits(digits, build):
    fitted = fit(build(nnx.Rngs(0)), digits, Config(steps=150, learning_rate=1e-2, evaluations=2, progress=False))
    first, last = fitted.history
    assert last["test_accuracy"] > DIGITS_BAR
    assert last["loss"] < first["loss"]
    scores = fitted.evaluate(digits.test.images, digits.test.labels)
    assert scores == {"loss": last["test_loss"], "accuracy": last["test_accuracy"]}


@pytest.mark.parametrize("build", [lambda: Noisy(rngs=nnx.Rngs(0)), NoisyLinen, a_linear], ids=["nnx", "linen", "function"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(made, build):
    first, again, other = (fit(build(), made, quick(seed=seed)) for seed in (3, 3, 4))
    assert same(first.parameters, again.parameters)
    assert first.history[0]["loss"] == again.history[0]["loss"]
    assert not same(first.parameters, other.parameters)


@pytest.mark.parametrize("build", [lambda: Noisy(rngs=nnx.Rngs(0)), NoisyLinen, a_linear], ids=["nnx", "linen", "function"])
def test_every_kind_of_network_learns_through_the_same_loop(made, build):
    fitted = fit(build(), made, quick(steps=60, learning_rate=3e-2))
    assert fitted.history[-1]["test_accuracy"] > 0.95


def test_linen_modules_that_hold_lists_train(made):
    module = linen.Sequential([lambda x: x.reshape(len(x), -1), linen.Dense(16), linen.relu, linen.Dense(3)])
    assert fit(module, made, quick(steps=60, learning_rate=3e-2)).history[-1]["test_accuracy"] > 0.95


def test_trains_in_tree_mode_to_the_same_bits(made):
    in_graph_mode = fit(Noisy(rngs=nnx.Rngs(0)), made, quick())
    with nnx.set_graph_mode(False):
        in_tree_mode = fit(Noisy(rngs=nnx.Rngs(0)), made, quick())
        close(scores_of(in_tree_mode, made.test.images), in_tree_mode.logits(made.test.images), SINGLE)
    assert same(in_graph_mode.parameters, in_tree_mode.parameters)


def test_fit_seeds_is_fit_from_each_seed_with_one_compilation(made):
    def build(rngs):
        return models.MLP((5, 3, 2), 3, (7,), rngs=rngs)

    before = step_room.train_step._cache_size()
    fitted = fit_seeds(build, made, quick(), seeds=(4, 2))
    assert step_room.train_step._cache_size() == before + 1
    for seed, each in zip((4, 2), fitted, strict=True):
        assert same(each.parameters, fit(build(nnx.Rngs(seed)), made, quick(seed=seed)).parameters)
        assert each.config.seed == seed


# --- batch statistics and dropout ------------------------------------------------------------------------------------


def test_batch_statistics_move_in_training_and_are_what_evaluation_reads(made):
    fitted = fit(Noisy(rngs=nnx.Rngs(0)), made, quick())
    norm, parameters = numbers((fitted.model_state["norm"], fitted.parameters))
    assert np.all(np.abs(norm["mean"]) > 0)
    assert np.all(norm["var"] != 1)
    x = np.asarray(standardise(made.test.images, made.mean, made.std)).reshape(31, -1)
    h = x @ parameters["hidden"]["kernel"] + parameters["hidden"]["bias"]
    h = (h - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * parameters["norm"]["scale"] + parameters["norm"]["bias"]
    expected = np.maximum(h, 0) @ parameters["head"]["kernel"] + parameters["head"]["bias"]
    close(fitted.logits(made.test.images), expected, 1e-4)


@pytest.mark.parametrize("build", [lambda: Noisy(rngs=nnx.Rngs(0)), NoisyLinen], ids=["nnx", "linen"])
def test_dropout_falls_anew_in_every_training_step_and_never_in_evaluation(made, build):
    fitted = fit(build(), made, quick())
    x, apply = standardise(made.test.images, made.mean, made.std), jax.jit(fitted.apply, static_argnums=4)

    def scores(model_state, key, train):
        return apply(fitted.parameters, model_state, x, jax.random.key(key), train)

    close(scores(fitted.model_state, 0, False)[0], fitted.logits(made.test.images), SINGLE)
    assert same(scores(fitted.model_state, 0, False)[0], scores(fitted.model_state, 1, False)[0])
    first, model_state = scores(fitted.model_state, 0, True)
    assert not np.allclose(first, scores(model_state, 1, True)[0], atol=1e-3)


def test_every_training_step_gets_its_own_key_and_every_seed_its_own_row_of_keys(made):
    def apply(parameters, model_state, x, key, train, /):
        seen = model_state["seen"].at[model_state["step"]].set(jax.random.key_data(key))
        return linear(parameters, {}, x, key, train)[0], {"step": model_state["step"] + 1, "seen": seen}

    model_state = {"step": jnp.asarray(0), "seen": jnp.zeros((7, 2), jnp.uint32)}
    model = Trainable(apply, a_linear().parameters, model_state)
    rows = [tuple(row) for seed in (0, 1) for row in fit(model, made, quick(seed=seed)).model_state["seen"].tolist()]
    assert len(set(rows)) == 14


def test_linen_batch_statistics_move_in_training_and_stay_in_evaluation(made):
    fitted = fit(NoisyLinen(), made, quick())
    start = train.trainable(NoisyLinen(), (5, 3, 2)).model_state
    assert not any(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (start, fitted.model_state)), strict=True))
    x, apply = np.ones((4, 5, 3, 2), np.float32), jax.jit(fitted.apply, static_argnums=4)
    chex.assert_trees_all_equal(
        apply(fitted.parameters, fitted.model_state, x, jax.random.key(0), False)[1], fitted.model_state
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_callers_model_is_left_as_it_was(made, mode):
    model = Noisy(rngs=nnx.Rngs(0))
    getattr(model, mode)()
    definition, state = nnx.split(model)
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
    fit(model, made, quick())
    after, state = nnx.split(model)
    assert after == definition
    chex.assert_trees_all_equal(nnx.to_pure_dict(state), before)


def test_the_callers_arrays_outlive_the_steps_that_reuse_their_memory(made):
    model = a_linear()
    first = fit(model, made, quick())
    assert same(fit(model, made, quick()).parameters, first.parameters)


class Sowing(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(30, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        self.sow(nnx.Intermediate, "seen", x)
        return self.linear(x.reshape(len(x), -1))


class SowingLinen(linen.Module):
    @linen.compact
    def __call__(self, x):
        self.sow("intermediates", "seen", x)
        return linen.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
@pytest.mark.parametrize("build, graph", [(Sowing, True), (Sowing, False), (SowingLinen, True)])
def test_what_a_model_sows_is_not_kept(made, build, graph):
    with nnx.set_graph_mode(graph):
        model = build()
        if isinstance(model, nnx.Module):
            model(jnp.ones((2, 5, 3, 2)))
        fitted = fit(model, made, quick(chunk=3))
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
def test_a_model_state_that_changes_shape_or_dtype_is_refused(made, model_state, after, change):
    def apply(parameters, model_state, x, key, train, /):
        return linear(parameters, model_state, x, key, train)[0], after(model_state)

    with pytest.raises(ValueError, match=f"model changes {change} in one step; needs the same shape and dtype"):
        fit(Trainable(apply, a_linear().parameters, model_state), made, quick())


# --- one compilation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [{"steps": 7}, {"steps": None, "epochs": 2}], ids=["steps", "epochs"])
def test_seeds_and_subsets_share_one_compilation(made, length):
    config = quick(learning_rate=0.0123, **length)  # of this test alone
    fit(Noisy(rngs=nnx.Rngs(0)), made, config)
    before = step_room.train_step._cache_size(), step_room.logits_of._cache_size()
    for size, seed in ((67, 1), (40, 2), (21, 0)):
        fit(Noisy(rngs=nnx.Rngs(seed)), made.subset(size), dataclasses.replace(config, seed=seed))
    assert (step_room.train_step._cache_size(), step_room.logits_of._cache_size()) == before


@pytest.mark.parametrize("build", [lambda seed: Noisy(rngs=nnx.Rngs(seed)), a_linear], ids=["nnx", "function"])
def test_a_second_run_of_a_network_traces_nothing(made, build):
    config = quick(optimizer="adamw", weight_decay=0.0123)  # of this test alone
    with counted("jaxpr_trace") as first:
        fit(build(0), made, config)
    with counted("jaxpr_trace") as second:
        fit(build(1), made.subset(40), dataclasses.replace(config, seed=1))
    assert first
    assert not second


def test_the_number_of_scored_images_compiles_nothing(made):
    fitted = fit(a_linear(), made, quick())
    before = step_room.logits_of._cache_size()
    for count in (1, 30, 31):
        fitted.logits(made.test.images[:count])
    assert step_room.logits_of._cache_size() == before


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 6, 7, 8, 29])
def test_scores_of_any_number_of_images_are_those_of_the_plain_computation(made, monkeypatch, count):
    monkeypatch.setattr(fitted_room, "EVALUATION_BATCH", 7)
    fitted = fit(a_linear(), made, quick())
    images, labels = made.test.images[:count], made.test.labels[:count]
    x = ((images - made.mean) / made.std).reshape(count, -1).astype(np.float64)
    logits = x @ np.asarray(fitted.parameters["w"]) + np.asarray(fitted.parameters["b"])
    close(fitted.logits(images), logits, 1e-4)
    chosen = logits[np.arange(count), labels]
    loss = (np.log(np.exp(logits).sum(1)) - chosen).mean()
    scores = fitted.evaluate(images, labels)
    assert scores["loss"] == pytest.approx(loss, rel=1e-4)
    assert scores["accuracy"] == pytest.approx((chosen == logits.max(1)).mean())


def test_the_trained_module_gives_the_logits_it_was_scored_with(made):
    fitted = fit(Noisy(rngs=nnx.Rngs(0)), made, quick())
    model = fitted.model()
    close(scores_of(fitted, made.test.images), fitted.logits(made.test.images), SINGLE)
    assert (model.norm.use_running_average, model.dropout.deterministic) == (True, True)


@pytest.mark.parametrize("build", [NoisyLinen, a_linear], ids=["linen", "function"])
def test_only_nnx_modules_are_put_together_again(made, build):
    with pytest.raises(TypeError, match="needs a run of an NNX module"):
        fit(build(), made, quick()).model()


@pytest.mark.parametrize("evaluations, steps", [(1, [10]), (3, [4, 7, 10]), (10, list(range(1, 11))), (99, list(range(1, 11)))])
def test_history_has_evenly_spread_evaluations_and_one_at_the_end(made, evaluations, steps):
    fitted = fit(a_linear(), made, quick(steps=10, evaluations=evaluations))
    assert [row["step"] for row in fitted.history] == steps
    np.testing.assert_allclose([row["epoch"] for row in fitted.history], np.array(steps) * 16 / 67)
    seconds = [row["seconds"] for row in fitted.history]
    assert seconds == sorted(seconds)
    assert 0 < fitted.step_seconds * 9 < seconds[-1] <= fitted.seconds


def test_epochs_count_in_passes_over_the_training_images():
    assert Config(epochs=3, batch_size=16).steps_on(64) == 12
    assert Config(epochs=3, batch_size=16).steps_on(65) == 13
    assert Config(epochs=0.5, batch_size=16).steps_on(8) == 1
    assert Config(epochs=3, steps=5).steps_on(64) == 5


def test_progress_is_shown_when_asked(made, capsys):
    fit(a_linear(), made, quick(progress=False))
    assert capsys.readouterr().out == ""
    fit(a_linear(), made, quick(progress=True))
    assert "training" in capsys.readouterr().out


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluations", [1, 2, 9])
@pytest.mark.parametrize("bad", [1, 4, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_names_its_step(made, bad, evaluations, value):
    start = {"step": 1, "bad": bad, "value": value}
    model = Trainable(linear_until_bad, a_linear().parameters, jax.tree.map(jnp.asarray, start))
    with pytest.raises(FloatingPointError, match=rf"the loss is \S+ at step {bad};"):
        fit(model, made, quick(steps=9, evaluations=evaluations))


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda: models.MLP((5, 3, 2), 4, (), rngs=nnx.Rngs(0)), r"\(2, 4\)"),
        (lambda: NoisyLinen(2), r"\(2, 2\)"),
        (lambda: Trainable(lambda p, r, x, k, t: (x, r), {}, {}), r"\(2, 5, 3, 2\)"),
    ],
    ids=["nnx", "linen", "function"],
)
def test_refuses_a_network_with_other_outputs_than_classes(made, build, shape):
    with pytest.raises(ValueError, match=rf"an array of shape {shape} for 2 images, but made has 3 classes: needs \(2, 3\)"):
        fit(build(), made, quick())


def test_refuses_what_is_no_network(made):
    with pytest.raises(TypeError, match="must be a Flax NNX module, a Linen module or a Trainable, got function"):
        fit(linear, made, quick())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"optimizer": "adagrad"}, "optimizer must be one of adam, adamw, sgd, momentum; got 'adagrad'"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine; got 'linear'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be below 2\\*\\*32, as JAX's random keys use 32 bits of it, got 4294967296"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"weight_decay": float("nan"), "optimizer": "sgd"}, "weight_decay must be at least 0 and finite, got nan"),
        ({"weight_decay": 0.1}, "weight_decay must be 0 for optimizer 'adam', got 0.1; use 'adamw'"),
        ({"accumulate": 3}, "batch_size must be divisible by accumulate=3, got 128"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        ({"average": -0.1}, "average must be at least 0 and below 1, got -0.1"),
        ({"dtype": "float8"}, "dtype must be one of float32, bfloat16; got 'float8'"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"epochs": float("nan")}, "epochs must be above 0 and finite, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
    ],
    ids=str,
)
def test_refuses_a_config_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_refuses_to_score_nothing_or_with_other_labels(made):
    fitted = fit(a_linear(), made, quick())
    with pytest.raises(ValueError, match="images is empty"):
        fitted.logits(made.test.images[:0])
    with pytest.raises(ValueError, match="labels has 30 entries for 31 images"):
        fitted.evaluate(made.test.images, made.test.labels[1:])
    for labels in (made.test.labels + 1, made.test.labels - 1):
        with pytest.raises(ValueError, match=f"labels range from {labels.min()} to {labels.max()}; needs 0 to 2"):
            fitted.evaluate(made.test.images, labels)


def test_numbers_of_numpy_are_those_of_python():
    config = Config(seed=np.int64(3), learning_rate=np.float32(0.5), steps=np.uint8(7), progress=np.bool_(False))
    assert config == Config(seed=3, learning_rate=0.5, steps=7, progress=False)
    assert {type(value) for value in dataclasses.asdict(config).values()} <= {int, float, str, bool, type(None)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": {"steps": 3}}, "config must be a Config, got dict"),
        ({"data": "digits"}, "data must be a Data, got str"),
        ({"optimizer": "sgd"}, r"optimizer must be an Optax gradient transformation, got str; .* use Config\(optimizer=...\)"),
        ({"checkpoints": 3}, r"checkpoints must be a folder or Checkpoints\(folder\), got int"),
        ({"log": True}, r"log must be a folder or Log\(folder\), got bool"),
    ],
)
def test_one_argument_taken_for_another_is_refused(made, options, message):
    with pytest.raises(TypeError, match=message):
        fit(a_linear(), **{"data": made, "config": quick()} | options)


def test_a_folder_is_enough_for_checkpoints_and_log(made, tmp_path):
    fit(a_linear(), made, quick(), checkpoints=str(tmp_path / "saved"), log=tmp_path / "log")
    assert (tmp_path / "saved" / "7").is_dir()
    assert (tmp_path / "log" / "history.csv").exists()


@pytest.mark.parametrize("standardisation", STANDARDISATIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_images_that_are_not_finite(made, value, standardisation):
    images = made.train.images.astype(np.float32)
    images[3, 2, 1, 0] = value
    test = Split(made.test.images.astype(np.float32), made.test.labels)
    spoilt = dataclasses.replace(made, train=Split(images, made.train.labels), test=test)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="the training images of made are not finite"):
        fit(a_linear(), spoilt.with_standardisation(standardisation), quick())


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_does_not_import_tensorflow_even_where_it_is_installed(tmp_path):
    """A package of that name stands ready; loading, training and scoring must not touch it."""
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
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("trained"), done.stderr[-2000:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the GNU C library")
def test_the_c_library_is_asked_to_keep_freed_memory():
    code = "from convlab.train import keep_freed_memory; assert keep_freed_memory()"
    subprocess.run([sys.executable, "-c", code], check=True)
