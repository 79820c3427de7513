"""Test that several runs of one network equal single runs, whether or not they share one program."""

import dataclasses

import jax
import numpy as np
import pytest
from counting import counted
from flax import linen, nnx

from convlab import models
from convlab.data import Data, Split
from convlab.train import Checkpoints, Config, as_trainable, fit, fit_many, fit_seeds, jit_build

SHAPE, CLASSES = (6, 5, 2), 3
CONFIG = Config(steps=9, batch_size=16, optimizer="momentum", learning_rate=0.01, evaluations=3, progress=False)
CONFIGS = [dataclasses.replace(CONFIG, seed=seed, learning_rate=rate) for seed, rate in ((0, 0.01), (3, 0.01), (3, 0.1))]


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    splits = [Split(random.normal(size=(n, *SHAPE)).astype(np.float32), random.integers(0, CLASSES, n)) for n in (67, 31, 29)]
    return Data("made", splits[0], splits[1], tuple("abc"), splits[2])


def build(rngs):
    return models.Pyramid(SHAPE, CLASSES, (4, 5), rngs=rngs)


def assert_close(got, expected, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("vmapped, steps_per_call", [(False, 1), (True, 1), (True, 3)])
def test_runs_equal_those_of_fit(data, vmapped, steps_per_call):
    configs = [dataclasses.replace(config, steps_per_call=steps_per_call) for config in CONFIGS]
    runs = fit_many(build, data, configs, vmapped=vmapped)
    for run, config in zip(runs, CONFIGS, strict=True):
        alone = fit(build(nnx.Rngs(config.seed)), data, config)
        assert_close((run.parameters, run.model_state), (alone.parameters, alone.model_state), 2e-3 if vmapped else 0)
        for row, expected in zip(run.history, alone.history, strict=True):
            assert row.keys() == expected.keys()
            assert_close([row["loss"], row["test_loss"]], [expected["loss"], expected["test_loss"]], 1e-3 if vmapped else 0)
        assert run.config == dataclasses.replace(config, steps_per_call=steps_per_call)


class LinenClassifier(linen.Module):
    """Linear classifier in Linen."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(CLASSES)(x.reshape(len(x), -1))


@pytest.mark.parametrize("vmapped", [False, True])
def test_linen_network_is_initialised_from_the_seed_of_its_run(data, vmapped):
    config = dataclasses.replace(CONFIG, steps=2, evaluations=1)
    runs = fit_seeds(lambda rngs: LinenClassifier(), data, config, seeds=np.arange(2), vmapped=vmapped)
    for seed, run in enumerate(runs):
        assert_close(run.parameters, fit(LinenClassifier(), data, dataclasses.replace(config, seed=seed)).parameters, 1e-5)


def test_results_of_all_runs_are_stacked(data):
    runs = fit_many(build, data, CONFIGS)
    assert len(runs) == 3
    assert len(runs[1:]) == 2
    for stacked, single in zip(jax.tree.leaves(runs.parameters), jax.tree.leaves(runs[2].parameters), strict=True):
        np.testing.assert_array_equal(stacked[2], single)
    np.testing.assert_array_equal(runs.scores("loss")[1], [row["loss"] for row in runs[1].history])
    assert runs.scores("test_accuracy").shape == (3, 3)


def test_vmapped_runs_compile_once_for_all_seeds_and_learning_rates(data):
    fit_many(build, data, CONFIGS, vmapped=True)
    others = [dataclasses.replace(config, seed=config.seed + 7, schedule="constant") for config in CONFIGS]
    with counted("backend_compile") as compilations:
        fit_many(build, data, others, vmapped=True)
    assert not compilations


def test_each_run_is_saved_in_a_subfolder_and_resumes(data, tmp_path):
    first = fit_many(build, data, CONFIGS[:2], checkpoints=Checkpoints(tmp_path, every_steps=4))
    again = fit_many(build, data, CONFIGS[:2], checkpoints=str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert_close([run.parameters for run in again], [run.parameters for run in first], 0)


@pytest.mark.parametrize(
    "changes, message", [({"batch_size": 8}, "they differ in batch_size"), ({"patience": 2}, "they have a patience")]
)
def test_vmapping_unsuitable_runs_raises_an_error(data, changes, message):
    first = dataclasses.replace(CONFIG, **changes) if "patience" in changes else CONFIG
    with pytest.raises(ValueError, match=f"the runs cannot be vmapped: {message}; pass vmapped=False"):
        fit_many(build, data, [first, dataclasses.replace(CONFIG, **changes)], vmapped=True)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda data: fit_seeds(build, data, CONFIG, seeds=()), ValueError, "seeds is empty; needs at least one seed"),
        (lambda data: fit_seeds(build, data, CONFIG, seeds=3), TypeError, "seeds must be a sequence of integers, got 3"),
        (lambda data: fit_seeds(lambda rngs: None, data, CONFIG), TypeError, "the result of build must be a Flax NNX module"),
        (lambda data: fit_many(build, data, []), ValueError, "configs is empty; needs at least one configuration"),
        (lambda data: fit_many(build, data, [None]), TypeError, "configs must be a sequence of Config, got None"),
        (lambda data: fit_many(build, data, [CONFIG], vmapped="no"), TypeError, "vmapped must be True or False, got 'no'"),
    ],
)
def test_wrong_arguments_of_several_runs_raise_errors(data, call, error, message):
    with pytest.raises(error, match=message):
        call(data)


def test_vmapped_network_with_wrong_outputs_raises_an_error(data):
    with pytest.raises(ValueError, match=r"an array of shape \(n, 4\) for n images, but data 'made' has 3 classes"):
        fit_many(lambda rngs: models.MLP(SHAPE, 4, (), rngs=rngs), data, [CONFIG], vmapped=True)


def test_non_finite_loss_raises_an_error_with_its_run(data):
    diverging = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(
        FloatingPointError, match=r"the loss of run 1 \(seed 0, learning_rate 1e\+30\) is \S+ at step 2; before this step"
    ):
        fit_many(build, data, [dataclasses.replace(diverging, learning_rate=0.01), diverging], vmapped=True)


def test_progress_bar_of_vmapped_runs_is_shown_only_on_request(data, capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    for progress in (False, True):
        fit_seeds(build, data, dataclasses.replace(CONFIG, progress=progress), vmapped=True)
        assert ("training" in capsys.readouterr().err) == progress


@pytest.mark.parametrize("vmapped", [False, True])
def test_one_data_set_per_run_gives_the_runs_of_fit(data, vmapped):
    datasets = [data.map(lambda x, k=k: (x + k).astype(np.float32)).subset(40, k) for k in range(3)]
    runs = fit_many(jit_build(build, SHAPE), datasets, CONFIGS, vmapped=vmapped)
    for run, dataset, config in zip(runs, datasets, CONFIGS, strict=True):
        alone = fit(build(nnx.Rngs(config.seed)), dataset, config)
        assert_close((run.parameters, run.model_state), (alone.parameters, alone.model_state), 2e-3 if vmapped else 1e-4)
        assert_close([run.mean, run.history[-1]["test_loss"]], [alone.mean, alone.history[-1]["test_loss"]], 1e-3)


def test_wrong_number_or_sizes_of_data_sets_raise_an_error(data):
    with pytest.raises(ValueError, match="data has 2 data sets for 3 configurations"):
        fit_many(build, [data, data], CONFIGS)
    with pytest.raises(ValueError, match="splits of different sizes"):
        fit_many(build, [data, data, data.subset(40)], CONFIGS, vmapped=True)


def test_jit_build_gives_the_arrays_of_build():
    compiled_build = jit_build(build, SHAPE)
    for seed in (0, 5):
        got, expected = compiled_build(nnx.Rngs(seed)), as_trainable(build(nnx.Rngs(seed)), SHAPE)
        assert_close((got.parameters, got.model_state), (expected.parameters, expected.model_state), 1e-6)
        assert (got.apply, got.rows) == (expected.apply, expected.rows)
