"""Test the experiments' command line, their compilation cache and their reports."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import types

import jax
import pytest

import convlab as cl
from convlab import report
from experiments import derivation
from experiments.shared import command, compiling
from experiments.shared.progress import PlainProgress, at_once, progress_of, track
from experiments.shared.redrawing import read_report
from experiments.shared.settings import UsageError

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", compiling.UNOPTIMISED, *compiling.KEPT)
COUNTED = """
import sys, jax, numpy as np
from experiments import derivation
from experiments.shared import command
sys.argv = ["experiment"]
command.parse(derivation.Config(), derivation.SMOKE, None)
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
step = jax.jit(lambda x: jax.numpy.sin(x @ x.T).sum(0))
print(np.asarray(step(jax.random.normal(jax.random.key(0), (7, 5)))).tobytes().hex())
print(*(sum(event.endswith(name) for event in events) for name in ("cache_hits", "cache_misses")))
"""


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Enable the compilation cache in a temporary folder and restore JAX afterwards."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    for name in ("CONVLAB_CACHE", "JAX_COMPILATION_CACHE_DIR", compiling.UNOPTIMISED.upper(), *map(str.upper, compiling.KEPT)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", True)
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def compiled(**environment):
    """Run a small program in a new process and return its result, cache hits and cache misses."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "CONVLAB_"))}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNTED],
        env=inherited | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result, counts = run.stdout.splitlines()
    return result, *map(int, counts.split())


def test_smoke_and_full_select_configurations_that_other_flags_override(settings):
    default, smoke, full = derivation.Config(), derivation.SMOKE, derivation.Config(seed=7)
    changed = dataclasses.replace(full, root="elsewhere")
    settings.setenv("CONVLAB_CACHE", "0")
    settings.setattr(command, "keep_freed_memory", lambda: True)
    small = dataclasses.replace(smoke, root="runs/smoke")
    for flags, wanted in (("", default), ("--smoke", small), ("--full", full), ("--full --root elsewhere", changed)):
        settings.setattr(sys, "argv", ["experiment", *flags.split()])
        assert command.parse(default, smoke, None, full=full) == wanted
    with pytest.raises(SystemExit):  # the flag exists only if there is a full configuration
        command.parse(default, smoke, None)
    settings.setattr(sys, "argv", ["experiment", "--full", "--smoke"])
    with pytest.raises(ValueError, match="--smoke and --full cannot be combined"):
        command.parse(default, smoke, None, full=full)


def test_only_smoke_runs_are_unoptimised_unless_the_environment_overrides(settings):
    settings.setattr(command, "keep_freed_memory", lambda: True)
    for flags, environment, wanted in (([], None, False), (["--smoke"], None, True), (["--smoke"], "0", False)):
        jax.config.update(compiling.UNOPTIMISED, False)
        if environment:
            settings.setenv(compiling.UNOPTIMISED.upper(), environment)
        settings.setattr(sys, "argv", ["experiment", *flags])
        command.parse(derivation.Config(), derivation.SMOKE, None)
        assert jax.config.values[compiling.UNOPTIMISED] is wanted


@pytest.mark.slow
def test_second_run_compiles_nothing_and_results_are_bitwise_equal(tmp_path):
    first, _, misses = compiled(XDG_CACHE_HOME=str(tmp_path))
    second, hits, later_misses = compiled(XDG_CACHE_HOME=str(tmp_path))
    without, *neither = compiled(XDG_CACHE_HOME=str(tmp_path), CONVLAB_CACHE="0")
    assert first == second == without
    assert hits >= misses > 0
    assert later_misses == 0
    assert neither == [0, 0]


def test_compilation_cache_is_in_the_user_cache_unless_jax_has_another_setting(settings, tmp_path):
    if sys.platform.startswith("linux"):
        assert compiling.keep_compilations()
        assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / "convlab" / "xla"
        settings.delenv("XDG_CACHE_HOME")
        settings.setenv("HOME", str(tmp_path))
        assert compiling.keep_compilations()
        assert pathlib.Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / ".cache" / "convlab" / "xla"
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert compiling.keep_compilations()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    settings.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/folder")
    assert compiling.keep_compilations()
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/folder"


def test_all_compilations_are_cached_unless_jax_is_configured_otherwise(settings, tmp_path):
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert compiling.keep_compilations()
    assert [getattr(jax.config, name) for name in compiling.KEPT] == [0.0, -1]
    for name in compiling.KEPT:
        jax.config.update(name, 5)
    settings.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "5")
    assert compiling.keep_compilations()
    assert [getattr(jax.config, name) for name in compiling.KEPT] == [5, -1]


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_unwritable_cache_folder_does_not_stop_an_experiment(settings, tmp_path, variable):
    (tmp_path / "file").touch()
    _, *counts = compiled(**{variable: str(tmp_path / "file" / "cache")})
    assert counts == [0, 0]
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    settings.setattr(os, "access", lambda *_: False)
    assert not compiling.keep_compilations()
    assert not jax.config.jax_enable_compilation_cache


def test_benchmarks_do_not_use_the_compilation_cache(settings, tmp_path):
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    settings.setattr(command, "keep_freed_memory", lambda: True)
    settings.setattr(sys, "argv", ["experiment"])
    command.parse(derivation.Config(), derivation.SMOKE, None, keep=False)
    assert not jax.config.jax_enable_compilation_cache
    for path in (ROOT / "experiments").glob("*.py"):
        text = path.read_text()
        if "stopwatch import" in text and "__main__" in text:
            assert "keep=False" in text, path


def test_tests_do_not_use_the_compilation_cache():
    assert os.environ["CONVLAB_CACHE"] == "0"
    assert not compiling.keep_compilations()


def test_compile_faster_sets_only_supported_xla_flags_that_are_not_set(settings):
    # A flag of every XLA version, and an unknown one.
    first, second = "--xla_cpu_multi_thread_eigen=true", "--xla_cpu_no_such_flag=true"
    settings.setattr(compiling, "FASTER", (first, second))
    settings.delenv("XLA_FLAGS", raising=False)
    compiling.compile_faster()
    assert os.environ["XLA_FLAGS"] == first
    settings.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    compiling.compile_faster()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


def test_only_short_runs_compile_faster(settings):
    calls = []
    settings.setenv("CONVLAB_CACHE", "0")
    settings.setattr(command, "compile_faster", lambda: calls.append(sys.argv))
    settings.setattr(command, "keep_freed_memory", lambda: True)
    default, smoke, full = derivation.Config(), derivation.SMOKE, derivation.Config(seed=7)
    for flags, short in ((["--smoke"], False), ([], True), ([], False), (["--full"], True)):
        settings.setattr(sys, "argv", ["experiment", *flags])
        command.parse(default, smoke, None, short=short, full=full)
    assert len(calls) == 2


def experiment(result, **others):
    """Make an experiment module that records the arguments of `draw`."""
    drawn = []
    return types.SimpleNamespace(
        __doc__="Is it so?",
        __file__="folder/question.py",
        run=lambda config: result,
        draw=lambda *arguments: drawn.append(arguments),
        drawn=drawn,
        **others,
    )


def test_report_holds_all_rows_and_the_table_and_is_named_after_the_file_or_configuration(tmp_path):
    rows = [{"seed": seed, "accuracy": 0.25 * seed} for seed in range(3)]
    plain, config = experiment(rows), derivation.Config(root=str(tmp_path))
    assert command.report_on(plain, config) == tmp_path / "question"
    assert plain.drawn == [(rows, config)]
    formats = {"accuracy": ".1%", "columns_that_are_not_there": ".2f"}
    named = dataclasses.make_dataclass("Named", ["root", "name"])(str(tmp_path), "another")
    shown = experiment(command.Result(rows, "pictures"), table=lambda rows, config: rows[1:2], FORMATS=formats)
    folder = command.report_on(shown, named)
    assert folder == tmp_path / "another"
    assert shown.drawn == [(rows, named, "pictures")]
    assert (folder / "table.csv").read_text().splitlines() == ["seed,accuracy", "0,0.0", "1,0.25", "2,0.5"]
    assert [line.split() for line in (folder / "table.md").read_text().splitlines()][2] == ["|", "1", "|", "25.0", "|"]


@pytest.mark.parametrize("reused", [False, True])
def test_run_time_is_recorded_unless_rows_were_reused(tmp_path, reused):
    folder = command.report_on(experiment(command.Result([{"seed": 0}], reused=reused)), derivation.Config(root=str(tmp_path)))
    assert (json.loads((folder / "provenance.json").read_text()).get("seconds") is None) == reused


def test_report_without_matplotlib_has_no_figure_and_prints_the_reason(tmp_path, capsys):
    def draw(rows, config):
        raise ImportError("matplotlib is needed")

    module = experiment([{"seed": 0}])
    module.draw = draw
    folder = command.report_on(module, derivation.Config(root=str(tmp_path)))
    assert "matplotlib is needed" in capsys.readouterr().out
    assert not (folder / "figure.png").exists()


ROWS = [{"rung": rung, "seed": seed, "accuracy": 0.25 * seed} for rung in ("conv", "dense") for seed in range(3)]


def test_rows_are_kept_and_the_error_names_them_if_drawing_fails(tmp_path):
    module, config = experiment(ROWS), derivation.Config(root=str(tmp_path))
    for failing in ("draw", "table"):
        broken = experiment(ROWS, **({"table": lambda rows, config: 1 / 0} if failing == "table" else {}))
        if failing == "draw":
            broken.draw = lambda rows, config: 1 / 0
        with pytest.raises(ZeroDivisionError) as caught:
            command.report_on(broken, config)
        [note] = caught.value.__notes__
        folder = tmp_path / "question"
        assert str(folder / "table.csv") in note
        assert f"--redraw {folder}" in note
        assert len((folder / "table.csv").read_text().splitlines()) == 1 + len(ROWS)
        assert not (folder / "table.md").exists()
    rows, recorded, _ = read_report(folder, module, derivation.Config())
    assert (rows, recorded) == (ROWS, config)


@pytest.mark.parametrize("name, root", [("a/b", "runs"), ("..", "runs"), ("question", "file")])
def test_names_and_folders_are_checked_before_the_run(tmp_path, name, root):
    (tmp_path / "file").touch()
    named = dataclasses.make_dataclass("Named", ["root", "name"])(str(tmp_path / root), name)
    module = experiment(ROWS)
    module.run = lambda config: pytest.fail("it ran")
    with pytest.raises(UsageError, match="(experiment|root) must"):
        command.report_on(module, named)


def test_counts_that_are_not_positive_are_refused_before_the_run(tmp_path):
    counted = dataclasses.make_dataclass("Counted", ["root", "seeds", "steps"])
    module = experiment(ROWS)
    for seeds, steps in ((0, (5,)), (3, (5, 0))):
        with pytest.raises(UsageError, match="(seeds|steps) must be above 0"):
            command.report_on(module, counted(str(tmp_path), seeds, steps))
    command.report_on(module, counted(str(tmp_path), 3, None))


def test_only_errors_about_fields_of_the_configuration_are_mistakes_of_the_user(tmp_path):
    config = derivation.Config(root=str(tmp_path))
    for message, kind in (("size must be 1 to 9, got 99", UsageError), ("shapes differ", ValueError)):
        module = experiment(ROWS)
        module.run = lambda config, message=message: (_ for _ in ()).throw(ValueError(message))
        with pytest.raises(ValueError, match=message) as caught:
            command.report_on(module, config)
        assert type(caught.value) is kind


def test_mistake_on_the_command_line_is_one_sentence_and_status_2(settings, capsys):
    settings.setattr(command, "keep_freed_memory", lambda: True)
    settings.setenv("CONVLAB_CACHE", "0")
    for flags, words in (
        (["--smoke", "--full"], "--smoke and --full cannot be combined"),
        (["--redraw", "nowhere"], "redraw"),
        (["--data", "folder:/nowhere"], "/nowhere"),
        (["--image", "99999"], "image must be 0 to 359"),
        (["--sed", "3"], "--seed"),
    ):
        settings.setattr(sys, "argv", ["experiment", *flags])
        with pytest.raises(SystemExit) as caught:
            command.main("experiments.derivation", derivation.Config(), derivation.SMOKE, full=derivation.Config())
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error


def test_previous_report_of_other_settings_is_kept_under_a_number_except_of_smoke_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = experiment(ROWS, **{})
    for size in (2, 3, 4):
        command.report_on(module, derivation.Config(size=size))
    sizes = [json.loads((tmp_path / "runs" / name / "config.json").read_text())["size"] for name in KEPT]
    assert sizes == [4, 2, 3]
    assert "kept in runs/question.2/" in capsys.readouterr().out
    for size in (2, 3):
        command.report_on(module, derivation.Config(size=size, root=command.SMOKE_ROOT), smoke=True)
    assert [path.name for path in (tmp_path / "runs" / "smoke").iterdir()] == ["question"]


KEPT = ("question", "question.1", "question.2")


def test_table_and_figure_of_a_smoke_run_say_so(tmp_path, capsys):
    module, figure = experiment(ROWS), report.new_figure()[0]
    figure.suptitle("a title")
    module.draw = lambda rows, config: figure
    command.report_on(module, derivation.Config(root=str(tmp_path)), smoke=True)
    assert figure.get_suptitle() == f"{command.SMOKE_MARK}\na title"
    assert command.SMOKE_MARK in " ".join(capsys.readouterr().out.split())
    figure.suptitle("a title")
    command.report_on(module, derivation.Config(root=str(tmp_path)))
    assert figure.get_suptitle() == "a title"
    assert "smoke" not in capsys.readouterr().out


def test_table_has_the_names_of_the_figure_and_prints_the_chosen_columns(tmp_path, capsys):
    module = experiment(
        ROWS, STYLES={"dense": report.RUNG_STYLE["dense"]._replace(label="all to all")}, PRINTED=("rung", "acc*")
    )
    folder = command.report_on(module, derivation.Config(root=str(tmp_path)))
    cells = [line.split("|")[1].strip() for line in (folder / "table.md").read_text().splitlines()[2:]]
    assert cells == ["convolution"] * 3 + ["all to all"] * 3
    assert (folder / "table.csv").read_text().splitlines()[1].startswith("conv,")
    assert "seed" in (folder / "table.md").read_text()
    assert "seed" not in capsys.readouterr().out


def test_help_tells_the_shared_flags_and_the_time_of_the_committed_run(settings, capsys):
    settings.setattr(command, "keep_freed_memory", lambda: True)
    settings.setenv("CONVLAB_CACHE", "0")
    settings.setattr(sys, "argv", ["experiment", "--help"])
    with pytest.raises(SystemExit):
        command.main("experiments.derivation", derivation.Config(), derivation.SMOKE, full=derivation.Config())
    text = capsys.readouterr().out
    for words in ("--smoke:", "--full:", "--redraw FOLDER", "--image-size", "--root", "took 6 s on"):
        assert words in text


def test_plain_progress_tells_parts_and_time_left_at_most_once_a_pause(capsys):
    with PlainProgress("runs", 4, first=0.01, pause=0.1) as progress:
        assert progress.line(0.0) == "runs: 0 of 4 done after 0 s"
        progress.advance(1)
        time.sleep(0.35)  # nothing new: no second line
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "runs: 1 of 4 done after 0 s, about 0 s left"
    assert len(lines) == len({*lines})
    progress.advance(1)
    assert progress.line(30.0) == "runs: 2 of 4 done after 30 s, about 30 s left"


def test_plain_progress_of_a_resumed_run_tells_the_time_of_its_own_steps_and_ends_with_the_news(capsys):
    with PlainProgress("training", 10, done=8, first=0.01) as progress:
        assert "left" not in progress.line(30.0)
        time.sleep(0.1)
        progress.advance(1, "loss 0.5")
        assert progress.line(30.0) == "training: 9 of 10 done after 30 s, about 30 s left, loss 0.5"
        progress.advance(1)
    first, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("training: 8 of 10 done after 0 s", "training: 10 of 10 done after 0 s, loss 0.5")


@pytest.mark.filterwarnings("error")
def test_a_notebook_gets_lines_and_no_warning_about_widgets(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert list(track("abc")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_bar_is_one_line_in_a_terminal_of_80_columns_and_cuts_only_the_news(monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    with progress_of("training", 1000) as advance:
        advance(1000, "loss 1.323, test accuracy 74.2%, 12,209 images/s")
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).split("\r")
    [last] = [frame.strip() for frame in frames if "1000/1000" in frame][-1:]
    assert re.fullmatch(r"training \S+ 1000/1000 loss 1.323, test accuracy .*… time left 0:00:00", last)
    assert len(last) == 80


def test_progress_is_counted_part_by_part_and_short_runs_print_nothing(monkeypatch, capsys):
    counted = []
    monkeypatch.setattr(PlainProgress, "advance", lambda self, number: counted.append(number))
    assert list(track("abc")) == ["a", "b", "c"]
    assert at_once(str.upper, "abc") == ["A", "B", "C"]
    assert counted == [1] * 6
    assert capsys.readouterr().err == ""


def test_redraw_takes_one_folder_and_no_other_flag(settings, capsys):
    for flags in (["--redraw"], ["--smoke", "--redraw", "runs"], ["--redraw", "runs", "--seeds", "1"]):
        settings.setattr(sys, "argv", ["experiment", *flags])
        with pytest.raises(SystemExit, match="2"):
            command.main("experiments.derivation", derivation.Config(), derivation.SMOKE)
        assert "--redraw takes the folder of one report and no other flags" in capsys.readouterr().err


def test_ladder_names_the_distances_that_its_sizes_leave_out(monkeypatch, capsys):
    from experiments.parts import sizes

    monkeypatch.setattr(sizes, "images", lambda config: types.SimpleNamespace(train=range(24), image_shape=(8, 8, 1)))
    sizes.check(sizes.Sizes(sizes=(50, 60), steps=(1, 1)))
    assert "exceed twice the 24 different images at distance 0, which is left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="sizes .* exceed twice the 24 different images at distance 0; pass smaller sizes"):
        sizes.check(sizes.Sizes(sizes=(50, 60), steps=(1, 1), distances=(0,)))


def test_path_without_its_prefix_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is a path; for a folder or archive of images pass 'folder:"):
        cl.load(str(tmp_path))


def test_gains_are_over_the_run_of_the_reference_with_the_same_seed():
    from experiments.parts.tuned import compared, with_gains

    accuracies = {"3x3": (0.5, 0.9, 0.7), "2x2": (0.4, 0.7, 0.4), "null": (0.1, 0.1, 0.1)}
    rows = [
        {"network": name, "against": None if name == "null" else "3x3", "seed": seed, "accuracy": a, "train_accuracy": 1.0}
        for name, runs in accuracies.items()
        for seed, a in enumerate(runs)
    ]
    gains = {(row["network"], row["seed"]): row.get("gain") for row in with_gains(rows)}
    assert [gains["2x2", seed] for seed in range(3)] == pytest.approx([-0.1, -0.2, -0.3])
    assert {gains["null", seed] for seed in range(3)} == {None}
    lines = {line["network"]: line for line in compared(with_gains(rows))}
    assert lines["2x2"]["gain"] == pytest.approx(-0.2)
    assert lines["2x2"]["p"] == pytest.approx(0.0742, abs=1e-4)  # t = -0.2 / (0.1 / sqrt 3) with two degrees of freedom
    assert lines["3x3"]["p"] is None
    assert lines["null"]["p"] is None
