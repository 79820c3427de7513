"""Several runs of one network are the runs one by one, in one program or not."""

import dataclasses

import jax
import numpy as np
import pytest
from counting import counted
from flax import linen, nnx

from convlab import models
from convlab.data import Data, Split
from convlab.train import Checkpoints, Config, fit, fit_many, fit_seeds, many, trainable

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


def same(got, expected, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("vmapped, chunk", [(False, 1), (True, 1), (True, 3)])
def test_runs_are_those_of_fit(data, vmapped, chunk):
    runs = fit_many(build, data, [dataclasses.replace(config, chunk=chunk) for config in CONFIGS], vmapped=vmapped)
    for run, config in zip(runs, CONFIGS, strict=True):
        alone = fit(build(nnx.Rngs(config.seed)), data, config)
        same((run.parameters, run.model_state), (alone.parameters, alone.model_state), 2e-3 if vmapped else 0)
        for row, expected in zip(run.history, alone.history, strict=True):
            assert row.keys() == expected.keys()
            same([row["loss"], row["test_loss"]], [expected["loss"], expected["test_loss"]], 1e-3 if vmapped else 0)
        assert run.config == dataclasses.replace(config, chunk=chunk)


class InLinen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(CLASSES)(x.reshape(len(x), -1))


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_linen_network_starts_from_the_seed_of_its_run(data, vmapped):
    config = dataclasses.replace(CONFIG, steps=2, evaluations=1)
    runs = fit_seeds(lambda rngs: InLinen(), data, config, seeds=np.arange(2), vmapped=vmapped)
    for seed, run in enumerate(runs):
        same(run.parameters, fit(InLinen(), data, dataclasses.replace(config, seed=seed)).parameters, 1e-5)


def test_results_are_stacked(data):
    runs = fit_many(build, data, CONFIGS)
    assert len(runs) == 3
    assert len(runs[1:]) == 2
    for stacked, own in zip(jax.tree.leaves(runs.parameters), jax.tree.leaves(runs[2].parameters), strict=True):
        np.testing.assert_array_equal(stacked[2], own)
    np.testing.assert_array_equal(runs.scores("loss")[1], [row["loss"] for row in runs[1].history])
    assert runs.scores("test_accuracy").shape == (3, 3)


def test_one_program_is_compiled_once_for_all_seeds_and_rates(data):
    fit_many(build, data, CONFIGS, vmapped=True)
    others = [dataclasses.replace(config, seed=config.seed + 7, schedule="constant") for config in CONFIGS]
    with counted("backend_compile") as compilations:
        fit_many(build, data, others, vmapped=True)
    assert not compilations


def test_runs_are_saved_apart_and_go_on(data, tmp_path):
    first = fit_many(build, data, CONFIGS[:2], checkpoints=Checkpoints(tmp_path, every=4))
    again = fit_many(build, data, CONFIGS[:2], checkpoints=str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    same([run.parameters for run in again], [run.parameters for run in first], 0)


@pytest.mark.parametrize(
    "changes, message", [({"batch_size": 8}, "they differ in batch_size"), ({"patience": 2}, "they have a patience")]
)
def test_what_cannot_be_vmapped_is_refused(data, changes, message):
    first = dataclasses.replace(CONFIG, **changes) if "patience" in changes else CONFIG
    with pytest.raises(ValueError, match=f"the runs cannot be vmapped: {message}; pass vmapped=False"):
        fit_many(build, data, [first, dataclasses.replace(CONFIG, **changes)], vmapped=True)


def test_no_run_at_all_is_refused(data):
    with pytest.raises(ValueError, match="configs is empty; needs at least one configuration or seed"):
        fit_seeds(build, data, CONFIG, seeds=())


def test_runs_in_one_program_are_checked_as_one_alone_is(data):
    with pytest.raises(ValueError, match=r"an array of shape \(2, 4\) for 2 images, but made has 3 classes"):
        fit_many(lambda rngs: models.MLP(SHAPE, 4, (), rngs=rngs), data, [CONFIG], vmapped=True)


def test_a_loss_that_is_not_finite_names_its_run(data):
    wild = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(
        FloatingPointError, match=r"the loss of run 1 \(seed 0, learning_rate 1e\+30\) is \S+ at step 2; before this step"
    ):
        fit_many(build, data, [dataclasses.replace(wild, learning_rate=0.01), wild], vmapped=True)


def test_progress_of_runs_in_one_program_is_shown_when_asked(data, capsys):
    for progress in (False, True):
        fit_seeds(build, data, dataclasses.replace(CONFIG, progress=progress), vmapped=True)
        assert ("training" in capsys.readouterr().out) == progress


@pytest.mark.parametrize("vmapped", [False, True])
def test_each_run_may_have_a_data_set_of_its_own(data, vmapped):
    others = [data.map(lambda x, k=k: (x + k).astype(np.float32)).subset(40, k) for k in range(3)]
    build_ = many.compiled_build(build, SHAPE)
    for run, one, config in zip(fit_many(build_, others, CONFIGS, vmapped=vmapped), others, CONFIGS, strict=True):
        alone = fit(build(nnx.Rngs(config.seed)), one, config)
        same((run.parameters, run.model_state), (alone.parameters, alone.model_state), 2e-3 if vmapped else 1e-4)
        same([run.mean, run.history[-1]["test_loss"]], [alone.mean, alone.history[-1]["test_loss"]], 1e-3)


def test_data_sets_that_do_not_fit_the_runs_are_an_error(data):
    with pytest.raises(ValueError, match="data has 2 data sets for 3 configurations"):
        fit_many(build, [data, data], CONFIGS)
    with pytest.raises(ValueError, match="splits of different sizes"):
        fit_many(build, [data, data, data.subset(40)], CONFIGS, vmapped=True)


def test_a_network_built_by_a_compiled_program_starts_as_it_would_without():
    start = many.compiled_build(build, SHAPE)
    for seed in (0, 5):
        made, expected = start(nnx.Rngs(seed)), trainable(build(nnx.Rngs(seed)), SHAPE)
        same((made.parameters, made.model_state), (expected.parameters, expected.model_state), 1e-6)
        assert (made.apply, made.rows) == (expected.apply, expected.rows)
