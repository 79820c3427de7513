"""Test that parameter metrics are part of history, log and checkpoints, for one run or several."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convlab import measure, models
from convlab.data import Data, Split
from convlab.train import Checkpoints, Config, Log, fit, fit_many, fit_seeds

SHAPE = (6, 5, 2)
CONFIG = Config(steps=9, batch_size=16, optimizer="momentum", learning_rate=0.01, evaluations=3, progress=False)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    splits = [Split(random.normal(size=(n, *SHAPE)).astype(np.float32), random.integers(0, 3, n)) for n in (67, 31, 29)]
    return Data("made", splits[0], splits[1], tuple("abc"), splits[2])


def build(rngs):
    return models.MLP(SHAPE, 3, (), rngs=rngs)


@jax.jit
def norm(parameters):
    return {"norm": sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(parameters))}


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_each_row_has_the_metrics_of_the_evaluated_parameters(data):
    averaged = dataclasses.replace(CONFIG, ema_decay=0.9)
    fitted = fit(build(nnx.Rngs(0)), data, averaged, parameter_metrics=norm)
    assert [type(row["norm"]) for row in fitted.history] == [float] * 3
    np.testing.assert_allclose(fitted.history[-1]["norm"], norm(fitted.parameters)["norm"], rtol=1e-6)
    assert len({row["norm"] for row in fitted.history}) == 3


def test_parameter_metrics_do_not_change_the_run(data):
    with_metrics, alone = (fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=metrics) for metrics in (norm, None))
    assert jax.tree.all(jax.tree.map(np.array_equal, with_metrics.parameters, alone.parameters))
    rows = [{name: value for name, value in row.items() if name != "norm"} for row in with_metrics.history]
    assert without_seconds(rows) == without_seconds(alone.history)


def test_parameter_metrics_compile_once_for_all_rows_and_runs(data):
    traces = []

    def metrics(parameters):
        traces.append(parameters)
        return norm(parameters)

    fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=metrics)
    first = len(traces)
    assert first <= 2  # one of them is the check that it returns scalars
    fit(build(nnx.Rngs(1)), data, dataclasses.replace(CONFIG, evaluations=9), parameter_metrics=metrics)
    assert len(traces) <= first + 1
    traces.clear()
    fit_seeds(build, data, CONFIG, vmapped=True, parameter_metrics=metrics)
    assert len(traces) <= 2


def test_a_resumed_run_has_parameter_metrics_in_every_row(data, tmp_path):
    uninterrupted = fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=norm)
    checkpoints = Checkpoints(tmp_path / "run", every_steps=4)
    fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=norm, checkpoints=checkpoints)
    (tmp_path / "run" / "9").rename(tmp_path / "9")  # as if it had been stopped after step 8
    again = fit(
        build(nnx.Rngs(0)),
        data,
        CONFIG,
        parameter_metrics=norm,
        checkpoints=checkpoints,
        log=Log(tmp_path / "log", tensorboard=False),
    )
    assert without_seconds(again.history) == without_seconds(uninterrupted.history)
    lines = [json.loads(line) for line in (tmp_path / "log" / "history.jsonl").read_text().splitlines()]
    assert [line["norm"] for line in lines] == [row["norm"] for row in uninterrupted.history]
    assert (tmp_path / "log" / "history.csv").read_text().splitlines()[0].endswith(",norm")


def test_a_run_may_resume_with_other_parameter_metrics(data, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", every_steps=4)
    fit(build(nnx.Rngs(0)), data, CONFIG, checkpoints=checkpoints)
    (tmp_path / "run" / "9").rename(tmp_path / "9")
    again = fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=norm, checkpoints=checkpoints)
    assert ["norm" in row for row in again.history] == [False, False, True]


@pytest.mark.parametrize("vmapped", [False, True])
def test_parameter_metrics_of_several_runs_equal_those_of_single_runs(data, vmapped):
    configs = [dataclasses.replace(CONFIG, seed=seed) for seed in (0, 3)]
    runs = fit_many(build, data, configs, vmapped=vmapped, parameter_metrics=norm)
    alone = [fit(build(nnx.Rngs(config.seed)), data, config, parameter_metrics=norm) for config in configs]
    expected = [[row["norm"] for row in fitted.history] for fitted in alone]
    np.testing.assert_allclose(runs.scores("norm"), expected, rtol=1e-5 if vmapped else 0)
    assert [*runs[0].history[0]] == [*alone[0].history[0]]


def test_parameter_metrics_on_a_mesh_see_all_parameters(data):
    mesh = jax.make_mesh((1, 1), ("n", "i"))
    placed = fit(build(nnx.Rngs(0)), data, dataclasses.replace(CONFIG, mesh=mesh), parameter_metrics=norm)
    alone = fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=norm)
    np.testing.assert_allclose([row["norm"] for row in placed.history], [row["norm"] for row in alone.history], rtol=1e-5)


def test_indices_of_a_network_as_parameter_metrics(data):
    options = {"kernel_size": 3, "connectivity": "locally_connected", "tied_noise": 0}
    model = models.MLP(SHAPE, 3, (2,), **options, rngs=nnx.Rngs(0))
    fitted = fit(model, data, CONFIG, parameter_metrics=measure.locality_metrics(model, "shared"))
    [name] = {name for row in fitted.history for name in row if name.endswith("/shared")}
    shared = [row[name] for row in fitted.history]
    assert 1 > shared[0] > shared[1] > shared[2] > 0.5  # training leads away from the convolution that it starts as
    assert shared[-1] == pytest.approx(measure.locality_indices(fitted.model(), "shared")[0]["value"], rel=1e-5)


@pytest.mark.parametrize(
    "metrics, message",
    [
        (
            lambda p: {"test_loss": 0.0},
            "parameter_metrics returns 'test_loss', which is the name of a score; choose another name",
        ),
        (lambda p: {"all": jnp.ones(3)}, r"parameter_metrics returns an array of shape \(3,\) as 'all'; needs scalars"),
        (lambda p: jnp.ones(()), "parameter_metrics returns a ShapeDtypeStruct; needs a dict of scalars by name"),
    ],
)
def test_invalid_parameter_metrics_raise_an_error_before_training(data, metrics, message):
    with pytest.raises(ValueError, match=message):
        fit(build(nnx.Rngs(0)), data, CONFIG, parameter_metrics=metrics)
    with pytest.raises(ValueError, match=message):
        fit_many(build, data, [CONFIG], vmapped=True, parameter_metrics=metrics)
