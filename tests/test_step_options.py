"""Test the options of a step, such as label smoothing, accumulation and averages."""

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
from convlab.train import Checkpoints, Config, StepOptions, Trainable, cross_entropy, fit, fit_many, initial_state, train_step

SHAPE, CLASSES = (5, 3, 2), 3
SINGLE = 1e-5  # rounding of single precision


@pytest.fixture(scope="module")
def data():
    """Make images with a faint pattern of their class."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(CLASSES, *SHAPE))

    def split(n):
        labels = random.integers(0, CLASSES, n)
        return Split((patterns[labels] * 0.4 + random.normal(size=(n, *SHAPE))).astype(np.float32), labels.astype(np.int32))

    return Data("made", split(67), split(31), tuple("abc"), split(40))


def mlp():
    return filled(lambda: models.MLP(SHAPE, CLASSES, (7,), rngs=nnx.Rngs(0)))


def fit_mlp(data, **options):
    settings = {"steps": 12, "batch_size": 16, "optimizer": "momentum", "learning_rate": 0.05, "evaluations": 3}
    return fit(mlp(), data, Config(**settings | {"progress": False} | options))


def test_label_smoothing_spreads_part_of_the_target_over_all_classes():
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(7, 5)), random.integers(0, 5, 7)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = 0.9 * np.eye(5)[labels] + 0.1 / 5
    np.testing.assert_allclose(compiled(cross_entropy)(logits, labels, 0.1), -(targets * log_p).sum(1), rtol=1e-5)


def test_label_smoothing_changes_the_training_loss_only(data):
    plain, smooth = fit_mlp(data, steps=1), fit_mlp(data, steps=1, label_smoothing=0.3)
    assert smooth.history[0]["loss"] != plain.history[0]["loss"]
    assert smooth.evaluate(data.test.images, data.test.labels)["loss"] == smooth.history[0]["test_loss"]


@pytest.mark.parametrize("accumulation_steps", [2, 8])
def test_accumulated_gradients_equal_those_of_the_batch(data, accumulation_steps):
    expected, accumulated = fit_mlp(data), fit_mlp(data, accumulation_steps=accumulation_steps)
    close(accumulated.parameters, expected.parameters, SINGLE)
    close([row["loss"] for row in accumulated.history], [row["loss"] for row in expected.history], SINGLE)


def test_every_micro_batch_has_a_different_key():
    def apply(parameters, model_state, x, key, train, /):
        keys = model_state["keys"].at[model_state["count"]].set(jax.random.key_data(key))
        return x.reshape(len(x), -1) @ parameters, {"keys": keys, "count": model_state["count"] + 1}

    model_state = {"keys": jnp.zeros((4, 2), jnp.uint32), "count": jnp.zeros((), int)}
    model, optimizer = Trainable(apply, jnp.zeros((30, 3)), model_state), optax.sgd(0.1)
    options = StepOptions(accumulation_steps=4)
    state = initial_state(model, optimizer, 0, options)
    batch = jnp.ones((8, *SHAPE)), jnp.zeros(8, int)
    state, _ = train_step(state, *batch, np.zeros(2), np.ones(2), apply=apply, optimizer=optimizer, step_options=options)
    assert len({tuple(key) for key in state.model_state["keys"].tolist()}) == 4


def test_ema_parameters_follow_the_equation_and_are_evaluated(data):
    decay, model, optimizer = 0.5, train.as_trainable(mlp(), SHAPE), optax.sgd(0.3)
    options = StepOptions(ema_decay=decay)
    state, average = initial_state(model, optimizer, 0, options), jax.tree.map(np.array, model.parameters)
    static = {"apply": model.apply, "optimizer": optimizer, "step_options": options}
    batch = data.train.images[:16], data.train.labels[:16]
    for t in range(12):
        state, _ = train_step(state, *batch, data.mean, data.std, **static)
        weight = min(decay, (1 + t) / (10 + t))
        average = jax.tree.map(lambda a, p, w=weight: w * a + (1 - w) * np.array(p), average, state.parameters)
    close(state.evaluation_parameters, average, SINGLE)
    fitted = fit_mlp(data, ema_decay=0.9)
    assert not np.allclose(jax.tree.leaves(fitted.parameters)[1], jax.tree.leaves(fit_mlp(data).parameters)[1], atol=1e-4)
    assert fitted.evaluate(data.test.images, data.test.labels)["loss"] == pytest.approx(fitted.history[-1]["test_loss"])


def linear_model(dtype):
    def apply(parameters, model_state, x, key, train, /):
        return x.reshape(len(x), -1).astype(dtype) @ parameters, model_state

    return Trainable(apply, jnp.ones((30, 3), dtype), {})


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_ema_parameters_keep_their_dtype_in_resumed_runs(data, tmp_path, steps_per_call):
    options = {"optimizer": "sgd", "learning_rate": 0.3, "evaluations": 1, "progress": False}
    config = Config(steps=6, batch_size=16, ema_decay=0.9, steps_per_call=steps_per_call, **options)
    model = linear_model(jnp.bfloat16)
    first, again = (fit(model, data, config, checkpoints=tmp_path) for _ in range(2))
    assert first.parameters.dtype == again.parameters.dtype == jnp.bfloat16
    np.testing.assert_array_equal(first.parameters, again.parameters)
    assert np.any(np.asarray(first.parameters) != 1)


def test_accumulation_and_ema_keep_double_precision(data, float64):
    options = {"steps": 3, "batch_size": 16, "ema_decay": 0.9, "steps_per_call": 3, "evaluations": 1, "progress": False}
    expected, accumulated = (fit(linear_model(jnp.float64), data, Config(accumulation_steps=n, **options)) for n in (1, 4))
    assert accumulated.parameters.dtype == jnp.float64
    close(accumulated.parameters, expected.parameters, 1e-12)


def test_bfloat16_is_used_for_computation_but_not_for_parameters_and_statistics(data):
    dtypes = []

    class RecordingPyramid(models.Pyramid):
        def __call__(self, x):
            dtypes.append((x.dtype, self.stages[0].layer.kernel[...].dtype))
            logits = super().__call__(x)
            dtypes.append((logits.dtype, self.stages[0].norm.mean[...].dtype))
            return logits

    model = filled(lambda: RecordingPyramid(SHAPE, CLASSES, (4, 5), rngs=nnx.Rngs(0)))
    fitted = fit(model, data, Config(steps=3, batch_size=16, dtype="bfloat16", evaluations=1, progress=False))
    assert (jnp.bfloat16, jnp.bfloat16) in dtypes
    assert (jnp.bfloat16, jnp.float32) in dtypes
    assert {leaf.dtype for leaf in jax.tree.leaves((fitted.parameters, fitted.model_state))} == {np.dtype(np.float32)}
    losses = ([row["loss"] for row in fit_mlp(data, dtype=dtype).history] for dtype in ("bfloat16", "float32"))
    close(*losses, 0.03)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_weight_decay_is_added_to_the_gradient_of_kernels_only(data, optimizer):
    def apply(parameters, model_state, x, key, train, /):
        return x.reshape(len(x), -1) @ parameters["w"] + parameters["bias"].sum(0) + parameters["b"], model_state

    start = {"w": jnp.ones((30, 3)), "bias": jnp.ones((2, 3)), "b": jnp.ones(3)}
    options = {"steps": 1, "batch_size": 16, "optimizer": optimizer, "learning_rate": 0.1, "schedule": "constant"}
    plain, decayed = (
        fit(Trainable(apply, start, {}), data, Config(weight_decay=decay, progress=False, **options)).parameters
        for decay in (0.0, 0.5)
    )
    close(np.asarray(plain["w"]) - decayed["w"], 0.1 * 0.5 * np.asarray(start["w"]), 1e-6)
    for name in ("bias", "b"):
        np.testing.assert_array_equal(plain[name], decayed[name])


class ScaleAndKernel(NamedTuple):
    scale: jax.Array
    kernel: jax.Array


def test_kernel_mask_finds_kernels_in_every_kind_of_tree():
    kernel = jnp.ones((2, 3))
    tree = {"scale": {"kernel": kernel, "bias": kernel}, "list": [kernel, jnp.ones(3)], "named": ScaleAndKernel(kernel, kernel)}
    expected = {"scale": {"kernel": True, "bias": False}, "list": [True, False], "named": ScaleAndKernel(False, True)}
    assert kernel_mask(tree) == expected
    assert kernel_mask(kernel)
    state = nnx.state(nnx.Dict(scale=nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert jax.tree.leaves(kernel_mask(state)) == [False, True]  # bias, kernel


def test_patience_stops_the_run_and_returns_the_best_parameters(data):
    fitted = fit_mlp(data, steps=400, evaluations=100, patience=3, learning_rate=0.3, schedule="constant")
    scores = [row["validation_accuracy"] for row in fitted.history]
    assert len(scores) < 100
    assert len(scores) - 1 - int(np.argmax(scores)) == 3
    assert fitted.evaluate(data.validation.images, data.validation.labels)["accuracy"] == max(scores)


def test_patience_without_a_validation_split_raises_an_error(data):
    unvalidated = Data("made", data.train, data.test, data.classes)
    with pytest.raises(ValueError, match="patience 2 needs a validation split, but data 'made' has none"):
        fit_mlp(unvalidated, patience=2)


@pytest.mark.parametrize("steps_per_call", [3, 5])
def test_steps_per_call_do_not_change_the_run(data, steps_per_call):
    one, several = (fit_mlp(data, steps_per_call=count, ema_decay=0.9) for count in (1, steps_per_call))
    close(several.parameters, one.parameters, SINGLE)
    assert [row["step"] for row in several.history] == [row["step"] for row in one.history] == [4, 8, 12]
    close([row["loss"] for row in several.history], [row["loss"] for row in one.history], SINGLE)


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_non_finite_gradient_raises_an_error_with_array_and_step(data, steps_per_call):
    """The square root at 0 is finite but its gradient is not, so the loss is finite until the next step."""

    def apply(parameters, model_state, x, key, train, /):
        root = jnp.where(model_state["step"] == 5, jnp.sqrt(parameters["v"] * 0).sum(), 0.0)
        return x.reshape(len(x), -1) @ parameters["w"] + root, {"step": model_state["step"] + train}

    model = Trainable(apply, {"w": jnp.zeros((30, 3)), "v": jnp.ones(2)}, {"step": jnp.zeros((), int)})
    config = Config(steps=20, batch_size=16, optimizer="sgd", evaluations=1, steps_per_call=steps_per_call, progress=False)
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step \d+; before this step, \['v'\] is not finite already"
    ):
        fit(model, data, config)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"state": None}, TypeError, "state must be a State, such as initial_state returns, got None"),
        ({"images": "abc"}, TypeError, "images must be an array of numbers, got 'abc'"),
        ({"labels": np.zeros(3, int)}, ValueError, r"apply, loss, augment or optimizer fails on arrays of .* labels \(3,\)"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be an Optax gradient transformation, got str"),
        ({"apply": 3}, TypeError, "apply must be a function, got 3"),
        ({"augment": 3}, TypeError, "augment must be a function, got 3"),
        ({"step_options": {}}, TypeError, "step_options must be a StepOptions, got {}"),
    ],
)
def test_wrong_arguments_of_a_step_raise_errors_and_leave_the_state(data, changes, error, message):
    model, optimizer = train.as_trainable(mlp(), SHAPE), optax.sgd(0.1)
    state = initial_state(model, optimizer, 0, StepOptions())
    arguments = {"state": state, "images": data.train.images[:4], "labels": data.train.labels[:4]}
    arguments |= {"mean": data.mean, "std": data.std, "apply": model.apply, "optimizer": optimizer}
    with pytest.raises(error, match=f"^{message}"):
        train_step(**arguments | changes)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((np.ones((2, 3)), [0, 10**12]), TypeError, "labels must be an array of numbers"),
        ((np.ones((2, 3)), np.ones(2)), TypeError, "labels has dtype float32; needs integers"),
        ((np.ones((2, 3)), [0, 1, 2]), ValueError, r"labels has shape \(3,\) but logits without their last axis have \(2,\)"),
        ((np.ones((2, 3)), [0, 1], 1.5), ValueError, "smoothing must be between 0 and 1, got 1.5"),
    ],
)
def test_wrong_arguments_of_the_cross_entropy_raise_errors(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        cross_entropy(*arguments)


def test_diverged_state_keeps_its_parameters(data):
    model, optimizer = train.as_trainable(mlp(), SHAPE), optax.adam(0.1)
    state = initial_state(model, optimizer, 0, StepOptions())
    expected = jax.tree.map(np.array, state.parameters)
    options = {"apply": model.apply, "optimizer": optimizer}
    images = np.full((4, *SHAPE), np.inf, np.float32)
    state, loss = train_step(state, images, np.zeros(4, int), data.mean, data.std, **options)
    assert not np.isfinite(loss)
    state, loss = train_step(state, data.train.images[:4], data.train.labels[:4], data.mean, data.std, **options)
    assert np.isfinite(loss)
    assert state.diverged
    close(state.parameters, expected, 0)


class NonFiniteGradient(nnx.Module):
    """Network whose loss is finite at its fourth step, while the gradient is not."""

    def __init__(self, rngs):
        self.linear, self.v = nnx.Linear(30, 3, rngs=rngs), nnx.Param(jnp.ones(2))
        self.step = nnx.BatchStat(jnp.zeros((), int))

    def __call__(self, x):
        self.step[...] += 1
        return self.linear(x.reshape(len(x), -1)) + jnp.sqrt(self.v[...] * (self.step[...] != 4)).sum()


def test_non_finite_parameters_are_neither_returned_nor_saved(data, tmp_path):
    config = Config(steps=4, batch_size=16, optimizer="sgd", evaluations=1, progress=False)
    with pytest.raises(FloatingPointError, match=r"after step 4, \['v'\] is not finite, although all losses are finite; try"):
        fit(NonFiniteGradient(nnx.Rngs(0)), data, config)
    with pytest.raises(FloatingPointError, match=rf"after step 4, .*; the last checkpoint is {tmp_path / '3'}; try"):
        fit(NonFiniteGradient(nnx.Rngs(0)), data, config, checkpoints=Checkpoints(tmp_path, every_steps=1))
    with pytest.raises(FloatingPointError, match=r"the parameters of run 0 \(seed 0, .* are not finite after step 4"):
        fit_many(NonFiniteGradient, data, [config], vmapped=True)
