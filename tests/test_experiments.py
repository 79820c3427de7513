"""Test that every experiment runs from its command line and writes a complete report."""

import importlib
import inspect
import json
import math
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convlab
from convlab.data import Data, Split
from convlab.report.table import Table, fit_width, print_table
from experiments.parts import slow_cases
from experiments.shared import command
from experiments.shared.compiling import UNOPTIMISED
from experiments.shared.progress import at_once
from experiments.shared.redrawing import read_report
from experiments.shared.settings import UsageError
from experiments.slow_convolutions import shrunk

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if 'if __name__ == "__main__"' in path.read_text())
QUICK = {"ladder"}  # the main experiment; the others are marked slow
FILES = {"table.md", "table.csv", "figure.png", "config.json", "provenance.json"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in NAMES])
def test_experiment_runs_and_writes_a_report(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv(
        UNOPTIMISED.upper(), os.environ.get(UNOPTIMISED.upper(), "0")
    )  # set here so that later tests are not affected
    monkeypatch.setattr(sys, "argv", [name, "--smoke", "--root", str(tmp_path / "runs")])
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    assert {path.name for path in (tmp_path / "runs" / name).iterdir()} == FILES


@pytest.mark.parametrize("name", NAMES)
def test_committed_run_is_complete_and_has_provenance(name):
    folder = ROOT / "experiments" / "results" / name
    assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) < 800_000
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {"jax", "flax", "seconds"} <= set(provenance)
    assert f"docs/experiments/{name}.md" in (ROOT / "experiments" / "README.md").read_text()


RESULTS = sorted(path.name for path in (ROOT / "experiments" / "results").iterdir())
BIRDS = "birds_and_planes"
VARIANTS = {"ladder_full": "ladder", "ladder_mnist1d": "ladder", f"{BIRDS}_deep": BIRDS, f"{BIRDS}_pair": BIRDS}


def read_table(path):
    """Read a Markdown table."""
    header, rule, *cells = (
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in path.read_text().splitlines()
    )
    return Table(header, cells, [cell.endswith(":") for cell in rule])


@pytest.mark.parametrize("name", RESULTS)
def test_committed_table_is_printed_in_80_columns_and_loses_no_cell(name, capsys):
    table = read_table(ROOT / "experiments" / "results" / name / "table.md")
    parts, shared = fit_width(table, 80)
    shown = {(column, line[at]) for part in parts for line in part.cells for at, column in enumerate(part.header)}
    cells = {(column, line[at]) for line in table.cells for at, column in enumerate(table.header)}
    assert {cell for cell in cells - shown - {*shared.items()} if cell[1]} == set()
    print_table(name, table, width=80)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for number in (line[at] for line in table.cells for at, numeric in enumerate(table.numeric) if numeric):
        assert number in printed  # numbers and intervals are never wrapped


@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_committed_table_and_figure_are_drawn_again_from_the_rows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    experiment = importlib.import_module(f"experiments.{VARIANTS.get(name, name)}")
    folder = tmp_path / name
    shutil.copytree(ROOT / "experiments" / "results" / name, folder)
    written = (folder / "table.md").read_text()
    if len(inspect.signature(experiment.draw).parameters) > 2:
        with pytest.raises(UsageError, match="redraw cannot draw .* needs arrays"):
            read_report(folder, experiment, experiment.Config())
        return
    rows, config, smoke = read_report(folder, experiment, experiment.Config())
    command.draw(experiment, rows, config, None, folder, smoke)
    assert (folder / "table.md").read_text() == written
    assert not smoke


@pytest.mark.parametrize("error", [0.0, 0.88])
def test_ladder_is_drawn_if_a_network_makes_no_error_and_its_axis_fits_the_errors(error, tmp_path):
    import experiments.ladder as ladder

    rows = [
        {"network": name, "rung": name, "control": "", "places": places, "size": size, "seed": seed, "error": value}
        | {"accuracy": 1 - value, "weights": 9, "rate": 0.1, "train_loss": 0.1}
        for places in (81, 1)
        for name, value in (("dense", error if places == 1 else 0.9), ("convolution", 0.9))
        for size in ladder.SMOKE.sizes
        for seed in range(2)
    ]
    command.draw(ladder, rows, ladder.SMOKE, None, tmp_path, smoke=False)
    assert (tmp_path / "figure.png").exists()
    figure = ladder.draw(rows, ladder.SMOKE)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("below the axis" in labels) is (error == 0)
    for axis in figure.axes:
        assert axis.get_ylim()[0] > 0.2  # no empty axis down to 1 %
        assert len(axis.get_yticks()) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_experiment_shows_progress(name):
    parts = re.findall(r"from (experiments\.parts\.\w+) import", text := (ROOT / "experiments" / f"{name}.py").read_text())
    sources = [text, *((ROOT / f"{part.replace('.', '/')}.py").read_text() for part in parts)]
    assert any(re.search(r"\b(track|at_once)\(", source) for source in sources)


@pytest.mark.slow
def test_derivation_counts_weights_as_in_the_text():
    from experiments import derivation

    rows, pictures, _ = derivation.run(derivation.Config())
    assert [row["weights"] for row in rows] == [4096, 4096, 225, 484, 9, 18]
    assert all(row["change_of_convolution"] < 1e-5 for row in rows)
    assert [row["change_of_any"] > 0.1 for row in rows] == [False, False, True, True, True, True]
    assert {len(matrix[0]) for matrix in pictures.values()} == {64}


@pytest.mark.slow
def test_network_projected_at_every_update_trains_like_the_convolution():
    from experiments.dynamic_sharing import SMOKE
    from experiments.parts.periodic_sharing import CONV, SHARED, build, optimizer, with_power

    draw = np.random.default_rng(0)
    split = Split(draw.standard_normal((11, 13, 12, 1)).astype(np.float32), draw.integers(0, 3, 11).astype(np.int32))
    images = Data("noise", split, split, ("0", "1", "2"))
    convolution, local = (build(kind, (13, 12, 1), 3, 0) for kind in (CONV, SHARED))
    sgd = optax.sgd(SMOKE.learning_rate, momentum=SMOKE.momentum)
    config = convlab.Config(steps=4, batch_size=5, evaluations=1, progress=False)
    wanted = convlab.fit(convolution, images, config, optimizer=sgd).logits(split.images)
    rule = optimizer(sgd, local, 1)
    for power, same in ((1.0, True), (0.0, False)):
        start = with_power(rule, local, power)
        logits = convlab.fit(local, images, config, optimizer=rule, optimizer_state=start).logits(split.images)
        assert np.allclose(logits, wanted, atol=1e-4) == same


@pytest.mark.slow
def test_least_squares_risk_on_every_rung_matches_the_prediction():
    from experiments.parts import least_squares

    config = least_squares.Problem(space=(5, 3), channels=(1, 2), noise=0.2, sizes=(40,))
    w = least_squares.truth("tiled", config)
    risks = least_squares.learner("tiled", config)(np.full(400, 40), np.arange(400))
    for rung in least_squares.RUNGS:
        apart, predicted = (least_squares.predicted(w, rung, n, config) for n in (np.inf, 40))
        np.testing.assert_allclose(risks[rung].mean() - apart, predicted - apart, rtol=0.05, err_msg=rung)


@pytest.mark.slow
def test_circular_network_scores_an_image_and_its_shift_equally_and_is_right_on_half():
    from experiments.parts import birds_and_pigs
    from experiments.parts.birds_and_pigs import CIRCULAR, ZERO

    draw = jax.jit(birds_and_pigs.sample, static_argnums=(1, 4))
    x, y = draw(jax.random.key(0), 200, 1.0, True, birds_and_pigs.Images())
    assert np.all(np.asarray(y[::2] != y[1::2]))
    for network, equal_scores in ((CIRCULAR, True), (ZERO, False)):
        scores = np.asarray(jax.jit(birds_and_pigs.Pooled(network, 8, 5, nnx.Rngs(0)))(x))
        scores = scores - np.median(scores, 0)  # so that both classes are predicted
        right, equal = birds_and_pigs.right_and_equal(jnp.asarray(scores), y).tolist()
        assert np.allclose(scores[::2], scores[1::2], atol=1e-5) == equal_scores
        assert ((right, equal) == (0.5, 1)) == equal_scores


@pytest.mark.slow
@pytest.mark.parametrize("stack", [1, 3, 5])
def test_convolution_scores_both_classes_equally_if_words_are_as_far_apart_as_its_receptive_field(stack):
    from experiments.parts import readers

    network = readers.Reader(readers.STACKS[stack], (17, 8), 32, shared=True, rngs=nnx.Rngs(0))
    field = readers.field_in_words(network, (17, 8))
    assert field == stack
    for apart in (field - 1, field):
        if apart:
            words = convlab.tasks.word_order(17, apart, 8).sample(jax.random.key(0), 5)[0]
            scores, exchanged = network(words), network(words[..., np.array([0, 2, 1, *range(3, 8)])])
            assert np.allclose(scores, exchanged, atol=1e-6) == (apart == field)


@pytest.mark.slow
def test_higher_pitch_translates_a_rising_tone_only_along_log_frequency():
    from experiments.parts.spectrograms import LINEAR, LOG
    from experiments.parts.translations import TONES, Shifts, residuals

    left = {(row["tone"], row["axis"]): row["residual"] for row in residuals(Shifts(shifts=(8,), seeds=1))}
    stays, rises = TONES.values()
    assert max(left[stays, LOG], left[rises, LOG], left[stays, LINEAR]) < 0.04
    assert left[rises, LINEAR] > 0.2


@pytest.mark.slow
def test_benchmark_runs_with_only_the_core_dependencies(tmp_path):
    missing = "import sys; sys.modules.update(dict.fromkeys(['tyro', 'matplotlib', 'torch', 'tensorflow_datasets', 'scipy'])); "
    code = missing + "import runpy; runpy.run_module('experiments.speed', run_name='__main__', alter_sys=True)"
    run = subprocess.run(
        [sys.executable, "-c", code, "--smoke"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    assert (tmp_path / "runs" / "smoke" / "speed" / "table.md").exists()


def test_concurrent_parts_return_in_order_and_waiting_parts_do_not_start_after_an_error(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    begun = []

    def part(number):
        begun.append(number)
        time.sleep(0.02)
        return 6 // number

    assert at_once(part, (3, 2, 1)) == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        at_once(part, range(100))
    assert len(begun) < 100


def test_exponents_of_theoretical_needs_match_the_predictions():
    from experiments import sample_complexity as experiment
    from experiments.parts import theory_tasks as theory

    config = experiment.Config(rungs=("conv", "locally_connected"), noise=(0.2, 0.3), half=(2, 5))
    rows = [
        {"varied": case.varied, "size": case.size, "rung": case.rung, "seed": seed, "examples_needed": needed * (1 + seed)}
        for case in theory.settings(config)
        for needed in [theory.THEORY[case.rung][-1](*case.law) if case.law else case.size ** theory.HALVES[case.rung]]
        for seed in range(2)
    ]
    table = {(row["varied"], row["rung"]): row["exponent"] for row in experiment.table(rows, config)}
    for (varied, rung), exponent in table.items():
        if rung != experiment.MORE:
            assert any(abs(exponent - power) < 1e-9 for power in theory.predicted(varied, rung, config))
    assert table[theory.PATCHES, experiment.MORE] == pytest.approx(1)  # k (k + d) against k + d
    assert table[theory.PIXELS, experiment.MORE] == pytest.approx(0, abs=1e-9)
    assert table[theory.HALF, experiment.MORE] == pytest.approx(1)
    assert table[theory.NOISE, "conv"] == pytest.approx(2)


def test_best_threshold_is_the_sign_for_one_patch_and_beats_the_sum_for_many():
    from experiments.parts.theory_tasks import best_threshold

    normal = 0.5 * (1 + math.erf(2 / math.sqrt(2)))
    assert best_threshold(1, 0.5) == pytest.approx(normal, abs=0.005)
    assert best_threshold(16, 0.25) > 0.5 * (1 + math.erf(1 / math.sqrt(2))) + 0.1  # the sum of 16 patches has noise 1


def test_share_of_texts_in_a_list_of_examples_matches_a_simulation():
    from experiments import text

    config = text.Config(length=7, vocabulary=5)
    x, _ = convlab.tasks.word_order(config.length, 2, config.vocabulary).sample(jax.random.key(0), 2000)
    drawn = [example.tobytes() for example in np.asarray(x)]
    assert text.seen(config, 1) == pytest.approx(1 / len(set(drawn)))
    shares = [len(set(drawn[at : at + 20])) / len(set(drawn)) for at in range(0, 2000, 20)]
    assert text.seen(config, 20) == pytest.approx(np.mean(shares), abs=0.03)


@pytest.mark.parametrize("louder", [0, 1])
def test_peak_threshold_separates_loud_and_quiet_waves_whichever_class_is_louder(louder):
    from experiments.parts.listeners import by_peak
    from experiments.parts.spectrograms import LOG, Waves

    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 20)
    waves = np.sin(0.5 * np.arange(512)) * np.where(labels == louder, 2.0, 1.0)[:, None] + 0.1 * draw.standard_normal((20, 512))
    loud, reversed_ = (Split(waves[..., None].astype(np.float32), classes) for classes in (labels, 1 - labels))
    assert by_peak(loud, loud, Waves(), LOG) == 1
    assert by_peak(loud, reversed_, Waves(), LOG) == 0


@pytest.mark.parametrize("case", slow_cases.CASES, ids=lambda case: f"{case.thread}, {case.what}")
def test_reported_convolutions_have_the_same_result_in_stock_jax(case):
    case = shrunk(case, 16)._replace(dtype="float64")
    with jax.enable_x64(True):
        x, v = case.arrays()
        ours = jax.jit(slow_cases.ours(case))(x, v)
        stock = jax.jit(slow_cases.stock(case))(*slow_cases.as_posted(case, x, v))
    if case.channels_first:
        stock = np.moveaxis(stock, (0, 1), (-1, -2)) if case.step == "gradient" else np.moveaxis(stock, 1, -1)
    np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-12 * np.abs(stock).max())
