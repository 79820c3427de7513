"""Test that stopped and killed runs resume exactly from their latest intact checkpoint."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from convlab.data import DamagedError, Data, Split, StoredImages, disk
from convlab.train import Checkpoints, Config, Trainable, array_files, as_trainable, checkpoint, fit, identity
from convlab.train.signals import StopSignal
from convlab.train.step import initial_state

STEPS = 20


class Net(nnx.Module):
    """Network whose state has batch statistics, random keys and several parameters."""

    def __init__(self, width=8, *, rngs):
        self.first = nnx.Linear(30, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(len(x), -1)
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def make_data(number=67, seed=0):
    random = np.random.default_rng(seed)
    train, test = (Split(random.normal(size=(n, 5, 3, 2)).astype(np.float32), random.integers(0, 4, n)) for n in (number, 30))
    return Data("made", train, test, tuple("abcd"), test.take(np.arange(20)))


def config(**options):
    return Config(**{"steps": STEPS, "batch_size": 8, "evaluations": 4, "progress": False, **options})


def run(folder=None, width=8, data=None, every_steps=5, max_to_keep=2, on_write_error="warn", **options):
    checkpoints = None if folder is None else Checkpoints(folder, every_steps, None, max_to_keep, on_write_error)
    return fit(Net(width, rngs=nnx.Rngs(0)), data or make_data(), config(**options), checkpoints=checkpoints)


def saved_steps(folder):
    return sorted(int(path.name) for path in pathlib.Path(folder).iterdir() if path.name.isdigit())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same_run(got, expected):
    chex.assert_trees_all_equal(got.parameters, expected.parameters)
    for a, b in zip(numpy_leaves(got.model_state), numpy_leaves(expected.model_state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_seconds(got.history) == without_seconds(expected.history)


def numpy_leaves(tree):
    return [np.asarray(array_files.key_data(leaf)) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def uninterrupted():
    """Train a run that nothing stops."""
    return run()


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Stop a run after step 13 and return its folder, with checkpoints of steps 5, 10 and 13."""
    stop_after(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", max_to_keep=3)
    monkeypatch.undo()
    assert saved_steps(tmp_path / "run") == [5, 10, 13]
    return tmp_path / "run"


def stop_after(monkeypatch, step, number=signal.SIGINT):
    """Send this process a signal while the step is taken."""
    from convlab.train import training

    train_step = training.train_step

    def train_step_with_signal(state, *arguments, **options):
        if int(state.step) + 1 == step:
            signal.raise_signal(number)  # in this thread, so that Python raises here and not somewhere in JAX
        return train_step(state, *arguments, **options)

    monkeypatch.setattr(training, "train_step", train_step_with_signal)


# --- resuming -------------------------------------------------------------------------------------------------------


def test_saving_does_not_change_the_result(tmp_path, uninterrupted):
    assert_same_run(run(tmp_path), uninterrupted)
    assert saved_steps(tmp_path)[-2:] == [15, 20]


@pytest.mark.parametrize("step", [1, 4, 10, 13, 19])
def test_resumed_run_equals_uninterrupted_run(tmp_path, monkeypatch, uninterrupted, step):
    stop_after(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    assert max(saved_steps(tmp_path)) == step
    assert_same_run(run(tmp_path), uninterrupted)


def test_finished_run_is_restored_without_a_step(tmp_path, uninterrupted, monkeypatch):
    from convlab.train import training

    run(tmp_path)
    monkeypatch.setattr(training, "train_step", None)
    assert_same_run(run(tmp_path), uninterrupted)


@pytest.mark.parametrize("every_steps", [5, 3])
def test_latest_and_best_checkpoints_are_kept(tmp_path, every_steps):
    fitted = run(tmp_path, every_steps=every_steps, max_to_keep=1, evaluations=4)
    steps = *range(0, 20, every_steps), 20
    scores = {row["step"]: row["validation_accuracy"] for row in fitted.history if row["step"] in steps}
    best = max(scores, key=lambda step: (scores[step], step))
    assert saved_steps(tmp_path) == sorted({best, 20})


def test_checkpoint_records_configuration_and_provenance(tmp_path):
    run(tmp_path)
    record = json.loads((tmp_path / "20" / "run.json").read_text())
    assert record["config"]["learning_rate"] == config().learning_rate
    assert {"jax", "git_commit", "device"} <= record["provenance"].keys()
    assert record["data"] == ["made", 67, 5, 3, 2]
    assert disk.has_checksums(tmp_path / "20")


# --- signals and kills ----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import test_checkpoint as t
fitted = t.run({folder!r}, every_steps=3, steps={steps})
print("finished", t.digest(fitted.parameters), t.without_seconds(fitted.history))
"""


def digest(tree):
    """Compute a checksum of all arrays."""
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in numpy_leaves(tree))).hexdigest()


def start(folder, steps):
    program = PROGRAM.format(tests=str(pathlib.Path(__file__).parent), folder=str(folder), steps=steps)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=90):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signal_saves_the_run_and_sets_the_exit_code(tmp_path, number, code):
    process = start(tmp_path, 10**6)
    wait_for(lambda: tmp_path.exists() and saved_steps(tmp_path), process)
    process.send_signal(number)
    assert process.wait(60) == code, process.communicate()[1]
    process.communicate()
    latest = max(saved_steps(tmp_path))
    disk.verify_folder(tmp_path / str(latest))


def test_interrupt_says_what_was_saved_and_how_to_go_on(tmp_path, monkeypatch):
    stop_after(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt) as saved:
        run(tmp_path)
    last = f"the last checkpoint is {tmp_path / '13'}"
    assert str(saved.value) == f"training stopped after step 13 of 20; {last}; to go on, run the same call of fit again"
    interrupt = mock.Mock(side_effect=KeyboardInterrupt)  # as Python's own handler raises it in a run without checkpoints
    monkeypatch.setattr(signal, "raise_signal", interrupt)
    with pytest.raises(KeyboardInterrupt) as lost:
        run()
    advice = "nothing was saved; to resume another time, pass checkpoints=folder to fit"
    assert str(lost.value) == f"training stopped after step 12 of 20; {advice}"


def test_a_line_says_whether_a_run_starts_resumes_or_is_finished(tmp_path, monkeypatch, capsys):
    def lines(progress=True):
        run(tmp_path, progress=progress)
        return [line for line in capsys.readouterr().err.splitlines() if "run" in line]

    stop_after(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        lines()
    monkeypatch.undo()
    assert f"a new run of 20 steps starts; {tmp_path} holds no checkpoint yet" in capsys.readouterr().err
    assert lines() == [f"the run in {tmp_path} resumes after step 13 of 20"]
    assert lines() == [f"the run in {tmp_path} is finished: its result is that of step 20"]
    assert lines(progress=False) == []


@pytest.mark.parametrize("number, exit_type", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_signal_after_the_last_step_exits_and_handlers_are_restored(number, exit_type):
    before = signal.getsignal(number)
    with pytest.raises(exit_type), StopSignal() as stop:
        os.kill(os.getpid(), number)
        while stop.signal_number is None:
            time.sleep(0.001)
    assert signal.getsignal(number) is before


def kill_and_resume(folder, times, steps, seed):
    """Kill a run at random times, let it finish, and return its output."""
    rng = random.Random(seed)
    for _ in range(times):
        process = start(folder, steps)
        before = max(saved_steps(folder), default=0) if folder.exists() else 0
        wait_for(lambda b=before: folder.exists() and max(saved_steps(folder), default=0) > b, process)
        time.sleep(rng.random() * 0.2)
        process.kill()
        assert "Warning" not in process.communicate()[1]  # no checkpoint was damaged or failed to be written
        assert max(saved_steps(folder)) > before
    process = start(folder, steps)
    out, error = process.communicate(timeout=3000)
    assert (process.returncode, "Warning" in error) == (0, False), error
    assert len(saved_steps(folder)) == 2
    assert {*names(folder)} == {".convlab", *map(str, saved_steps(folder))}
    assert names(folder / ".convlab") == ["lock"]
    return out


@pytest.mark.slow
def test_killed_run_resumes_from_its_latest_checkpoint(tmp_path):
    out = kill_and_resume(tmp_path / "killed", 2, 300, 0)
    process = start(tmp_path / "uninterrupted", 300)
    assert process.communicate(timeout=300)[0] == out


def test_partly_removed_and_incomplete_checkpoints_are_deleted(stopped, uninterrupted):
    (stopped / "5" / "run.json").unlink()
    shutil.copytree(stopped / "13", stopped / ".convlab" / "14.incomplete")
    (stopped / "10").rename(stopped / ".convlab" / "10.removed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_run(run(stopped), uninterrupted)
    assert names(stopped) == [".convlab", "15", "20"]
    assert names(stopped / ".convlab") == ["lock"]


@pytest.mark.full
def test_run_killed_a_hundred_times_equals_uninterrupted_run(tmp_path):
    out = kill_and_resume(tmp_path / "killed", 100, 8_000, 1)
    process = start(tmp_path / "uninterrupted", 8_000)
    assert process.communicate(timeout=3000)[0] == out


def test_two_runs_in_one_folder_raise_an_error(tmp_path):
    process = start(tmp_path, 10**6)
    wait_for(lambda: tmp_path.exists() and saved_steps(tmp_path), process)
    with pytest.raises(ValueError, match="in use by another process; each run needs a folder of its own"):
        run(tmp_path)
    process.kill()
    process.communicate()


# --- damage ---------------------------------------------------------------------------------------------------------


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", [flip_bit, truncate, pathlib.Path.unlink])
@pytest.mark.parametrize("part", ["arrays", "run.json", disk.MANIFEST])
def test_damaged_checkpoint_is_set_aside_and_the_previous_one_is_used(stopped, uninterrupted, damage, part):
    damage(largest_file(stopped / "13" / part) if part == "arrays" else stopped / "13" / part)
    with pytest.warns(UserWarning, match="a checkpoint is damaged, so the run resumes from step 10: .*13"):
        assert_same_run(run(stopped), uninterrupted)
    assert (stopped / "13.damaged").exists()


@pytest.mark.parametrize("text", ["{}", "[]", "null", "7"])
def test_checksums_without_files_count_as_damage(tmp_path, text):
    (tmp_path / "run.json").write_text("{}")
    disk.write_checksums(tmp_path, tmp_path.iterdir())
    disk.verify_folder(tmp_path)
    (tmp_path / disk.MANIFEST).write_text(text)
    with pytest.raises(DamagedError, match=f"{disk.MANIFEST} lists no file"):
        disk.verify_folder(tmp_path)


def test_second_damaged_checkpoint_of_a_step_gets_a_new_name(stopped, uninterrupted):
    (stopped / "13.damaged" / "arrays").mkdir(parents=True)
    truncate(stopped / "13" / "run.json")
    with pytest.warns(UserWarning, match="a checkpoint is damaged"):
        assert_same_run(run(stopped), uninterrupted)
    assert (stopped / "13.damaged2" / "run.json").exists()


def test_one_flipped_bit_in_any_file_is_detected(stopped):
    for path in [path for path in (stopped / "13").rglob("*") if path.is_file() and path.name != disk.MANIFEST]:
        before = path.read_bytes()
        if before:
            flip_bit(path)
            with pytest.raises(DamagedError, match=path.name):
                disk.verify_folder(stopped / "13")
            path.write_bytes(before)
    disk.verify_folder(stopped / "13")


def test_damaged_checkpoints_are_not_overwritten(stopped):
    for step in (5, 10, 13):
        flip_bit(largest_file(stopped / str(step) / "arrays"))
    with (
        warnings.catch_warnings(),
        pytest.raises(DamagedError, match="holds 3 checkpoints, but all are damaged .*does not overwrite them"),
    ):
        warnings.simplefilter("ignore")
        run(stopped)
    assert saved_steps(stopped) == [5, 10, 13]


def flips(path):
    """Flip every bit of a file in turn, and restore the file."""
    before = path.read_bytes()
    for at, bit in itertools.product(range(len(before)), range(8)):
        data = bytearray(before)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        yield data
    path.write_bytes(before)


def test_every_flipped_bit_of_the_checksums_is_detected_or_changes_nothing(tmp_path):
    (tmp_path / "a").write_text("contents")
    disk.write_checksums(tmp_path, tmp_path.iterdir())
    manifest = json.loads((tmp_path / disk.MANIFEST).read_text())
    detected = 0
    for text in flips(tmp_path / disk.MANIFEST):
        try:
            disk.verify_folder(tmp_path, lambda name: False)
        except DamagedError:
            detected += 1
        else:
            assert json.loads(text) == manifest
    assert detected > 8 * len(json.dumps(manifest))


@pytest.mark.parametrize(
    "entries, is_valid",
    [
        ({"a": {"bytes": 8, "crc32": [0xB4FA1177]}}, True),
        ({"a": {"bytes": 8, "crc33": [0xB4FA1177]}}, False),
        ({"a": {"bytes": 8, "crc32": []}}, False),
        ({"a": {"bytes": "8", "crc32": [0xB4FA1177]}}, False),
        ({"a": 7}, False),
        ({"b": {"bytes": 8, "crc32": [0xB4FA1177]}}, False),
    ],
)
def test_checksums_of_an_earlier_release_are_read_if_they_are_well_formed(tmp_path, entries, is_valid):
    (tmp_path / "a").write_text("contents")
    (tmp_path / disk.MANIFEST).write_text(json.dumps(entries))
    with contextlib.nullcontext() if is_valid else pytest.raises(DamagedError):
        disk.verify_folder(tmp_path)


# --- files of others ------------------------------------------------------------------------------------------------

OTHERS = ("3", "5.incomplete", "13.removed", "notes.incomplete", "14.damaged")


@pytest.fixture
def shared(stopped):
    """Put files of the user and leftovers of a killed process into the folder of a stopped run."""
    for name in OTHERS:
        (stopped / name).mkdir()
        (stopped / name / "run.json").write_text("of the user")
    (stopped / "4").write_text("of the user")
    (stopped / ".convlab" / "14.incomplete").mkdir()
    return stopped


def test_files_of_others_are_never_changed(shared, uninterrupted):
    assert_same_run(run(shared, max_to_keep=1), uninterrupted)
    assert {"4", *OTHERS} < {*names(shared)}
    assert all((shared / name / "run.json").read_text() == "of the user" for name in OTHERS)


def test_refused_run_changes_nothing(shared):
    before = sorted(shared.rglob("*"))
    with pytest.raises(ValueError, match="belongs to another run"):
        run(shared, learning_rate=0.5)
    assert sorted(shared.rglob("*")) == before


def test_folder_of_others_with_the_name_of_a_checkpoint_is_not_overwritten(tmp_path, uninterrupted):
    (tmp_path / "5").mkdir()
    with pytest.warns(UserWarning, match="5 exists and is not a checkpoint"):
        assert_same_run(run(tmp_path), uninterrupted)
    assert list((tmp_path / "5").iterdir()) == []


# --- saving by time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every_seconds, expected", [(1e-9, range(1, STEPS + 1)), (math.inf, [STEPS])])
def test_run_is_saved_by_time_and_at_its_end(tmp_path, monkeypatch, uninterrupted, every_seconds, expected):
    save = checkpoint.CheckpointManager.save

    def save_and_wait(self, *arguments):
        save(self, *arguments)
        self.wait_until_finished()

    monkeypatch.setattr(checkpoint.CheckpointManager, "save", save_and_wait)
    checkpoints = Checkpoints(tmp_path, every_seconds=every_seconds, max_to_keep=STEPS)
    assert_same_run(fit(Net(rngs=nnx.Rngs(0)), make_data(), config(), checkpoints=checkpoints), uninterrupted)
    assert saved_steps(tmp_path) == [*expected]


def test_interval_is_a_minute_or_a_hundred_saves(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    default, given = (checkpoint.CheckpointManager(Checkpoints(tmp_path, every_seconds=every), {}) for every in (None, 5))
    for manager, duration, interval in ((default, 0.1, 60), (default, 0.7, 70), (default, 30, 3000), (given, 30, 5)):
        manager.duration = duration
        for clock[0], is_due in ((interval * 0.999, False), (interval * 1.001, True)):
            assert manager.is_due is is_due
    clock[0], given.writing = 1e6, concurrent.futures.Future()
    assert not given.is_due  # the last write has not ended
    given.writing.set_result(None)
    assert given.is_due


# --- more steps -----------------------------------------------------------------------------------------------------


def test_finished_run_continues_to_more_steps_and_resumes_exactly(tmp_path, monkeypatch, uninterrupted):
    run(tmp_path)
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    continued = run(tmp_path, steps=2 * STEPS)
    assert without_seconds(continued.history)[:4] == without_seconds(uninterrupted.history)
    assert [row["step"] for row in continued.history] == [5, 10, 15, 20, 30, 40]
    stop_after(monkeypatch, 33)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path.with_name("copy"), steps=2 * STEPS)
    monkeypatch.undo()
    assert_same_run(run(tmp_path.with_name("copy"), steps=2 * STEPS), continued)


@pytest.mark.slow
def test_continued_run_with_a_constant_rate_equals_one_run(tmp_path):
    run(tmp_path, schedule="constant")
    continued, whole = run(tmp_path, schedule="constant", steps=40), run(schedule="constant", steps=40)
    chex.assert_trees_all_equal(continued.parameters, whole.parameters)


@pytest.mark.parametrize("steps", [10, 40])
def test_unfinished_run_with_another_total_raises_an_error_that_says_how_to_finish_it(stopped, steps):
    how = r"the saved run stopped at step 13 of 20: finish it first, with Config\(steps=20, ...\), then call fit again"
    with pytest.raises(ValueError, match=rf"the checkpoint has 20, this run has {steps} in total; {how} with more steps"):
        run(stopped, steps=steps)


def test_finished_run_with_fewer_steps_raises_an_error(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="this run has 10 in total; the saved run is finished at step 20, and continues"):
        run(tmp_path, steps=10)
    run(tmp_path, steps=None, epochs=20 * 8 / 67)  # the same number of steps


# --- checkpoints of other runs --------------------------------------------------------------------------------------


def test_different_model_raises_an_error_with_paths_and_shapes(stopped):
    with pytest.raises(
        ValueError, match="belongs to another run; pass another folder, or the arguments of the saved run"
    ) as error:
        run(stopped, width=9)
    text = str(error.value)
    for line in (
        ".parameters['first']['kernel']: the checkpoint has (30, 8) float32, the model has (30, 9) float32",
        ".parameters['last']['kernel']: the checkpoint has (8, 4) float32, the model has (9, 4) float32",
    ):
        assert line in text
    assert "['last']['bias']" not in text


def test_different_optimizer_raises_an_error_with_missing_arrays(stopped):
    with pytest.raises(ValueError, match=r"optimizer.*: the checkpoint has .*, the model has nothing"):
        fit(Net(rngs=nnx.Rngs(0)), make_data(), config(), optimizer=optax.sgd(0.1), checkpoints=Checkpoints(stopped))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate": 0.5}, "learning_rate: the checkpoint has 0.001, this run has 0.5"),
        ({"seed": 1}, "seed: the checkpoint has 0, this run has 1"),
        ({"data": make_data(66)}, r"data: the checkpoint has \['made', 67, 5, 3, 2\], this run has \['made', 66"),
    ],
)
def test_different_configuration_or_data_raises_an_error(stopped, options, message):
    with pytest.raises(ValueError, match=rf"belongs to another run[\s\S]*{message}"):
        run(stopped, **options)


class Linear(nnx.Module):
    """Network whose arrays are the same for all arguments."""

    def __init__(self, activation=nnx.relu, rate=0.5):
        rngs = nnx.Rngs(0)
        self.linear, self.dropout = nnx.Linear(30, 4, rngs=rngs), nnx.Dropout(rate, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return self.activation(self.linear(self.dropout(x.reshape(len(x), -1))))


class Dense(linen.Module):
    """Linen module whose arrays are the same for all arguments."""

    activation: Callable = linen.relu

    @linen.compact
    def __call__(self, x):
        return self.activation(linen.Dense(4)(x.reshape(len(x), -1)))


def multiply(parameters, model_state, x, key, train, /):
    return x.reshape(len(x), -1) @ parameters, model_state


def multiply_negative(parameters, model_state, x, key, train, /):
    return -x.reshape(len(x), -1) @ parameters, model_state


def no_augmentation(images, key):
    return images


def relabelled(data, name):
    split = getattr(data, name)
    return dataclasses.replace(data, **{name: Split(split.images, (split.labels + 1) % 4)})


ONE_STEP = {"steps": 1, "evaluations": 1}


def record_of(model=Linear, data=None, custom=False, augment=None):
    return identity.identity(as_trainable(model(), (5, 3, 2)), data or make_data(), config(), custom, augment)


@pytest.mark.parametrize(
    "first, second, names",
    [
        ({}, {"model": lambda: Linear(nnx.gelu)}, ["model"]),
        ({}, {"model": lambda: Linear(rate=0.1)}, ["model"]),
        ({"model": Dense}, {"model": lambda: Dense(linen.gelu)}, ["model"]),
        ({"model": lambda: Trainable(multiply, {}, {})}, {"model": lambda: Trainable(multiply_negative, {}, {})}, ["model"]),
        ({}, {"data": relabelled(make_data(), "train")}, ["labels train"]),
        ({}, {"data": relabelled(make_data(), "test")}, ["labels test"]),
        ({}, {"data": make_data().map(lambda x: x + 1)}, ["images train", "images validation", "images test"]),
        ({}, {"data": dataclasses.replace(make_data(), validation=None)}, ["labels validation"]),
        ({}, {"data": make_data().with_standardisation("scale")}, ["standardisation"]),
        ({}, {"augment": no_augmentation}, ["augment"]),
        ({}, {"custom": True}, ["optimizer"]),
    ],
)
def test_differences_without_a_change_of_shapes_are_named(first, second, names):
    lines = identity.differences(json.loads(json.dumps(record_of(**first))), record_of(**first | second))
    assert [re.split(r":| \(Flax", line)[0] for line in lines] == names
    assert identity.differences(record_of(**first), record_of(**first)) == []


def test_different_model_with_equal_arrays_raises_an_error(tmp_path):
    saved = {"checkpoints": Checkpoints(tmp_path)}
    fit(Linear(), make_data(), config(**ONE_STEP), **saved)
    differ = r"These differ:\n  model \(Flax .*\): the checkpoint has 'Linear \w+', this run has 'Linear \w+'$"
    with pytest.raises(ValueError, match=differ):
        fit(Linear(nnx.gelu), make_data(), config(**ONE_STEP), **saved)


def test_images_may_move_to_disk():
    images = make_data().train.images
    stored = StoredImages(lambda positions: images[positions], np.arange(len(images)), images.shape[1:], images.dtype)
    on_disk = dataclasses.replace(make_data(), train=Split(stored, make_data().train.labels))
    assert identity.differences(record_of(data=on_disk), record_of()) == []


@pytest.mark.parametrize("saved, version", [({}, 1), ({"version": identity.VERSION + 1}, identity.VERSION + 1)])
def test_different_format_version_raises_an_error(tmp_path, saved, version):
    run(tmp_path, **ONE_STEP)
    folder = tmp_path / "1"
    record = json.loads((folder / "run.json").read_text())
    assert record.pop("version") == identity.VERSION
    (folder / "run.json").write_text(json.dumps(record | saved))
    disk.write_checksums(folder, folder.rglob("*"))
    needed = f"resumes from version {identity.VERSION} only: finish the run with the release .* or pass another folder"
    with pytest.raises(ValueError, match=rf"1 has format version {version}, but this release {needed}"):
        run(tmp_path, **ONE_STEP)
    assert saved_steps(tmp_path) == [1]


def test_description_is_equal_in_every_process():
    def values():
        return Linear(jax.nn.relu), Dense(lambda x: x), functools.partial(values, {"b", "a"}), jnp.float32, np.ones(3), object()

    assert " at 0x" not in identity.describe(values())
    assert identity.describe(values()) == identity.describe(values())
    for name in ("relu", "<lambda>", "{'a', 'b'}", "float32", "kernel"):
        assert name in identity.describe(values())


INVALID = [
    ({"every_steps": 0}, ValueError),
    ({"every_steps": 1.5}, TypeError),
    ({"every_steps": "5"}, TypeError),
    ({"every_seconds": 0}, ValueError),
    ({"every_seconds": math.nan}, ValueError),
    ({"every_seconds": "60"}, TypeError),
    ({"max_to_keep": 0}, ValueError),
    ({"max_to_keep": None}, TypeError),
    ({"on_write_error": "panic"}, ValueError),
    ({"on_write_error": None}, ValueError),
    ({"folder": ""}, ValueError),
    ({"folder": None}, TypeError),
    ({"folder": b"bytes"}, TypeError),
]


@pytest.mark.parametrize("options, kind", INVALID)
def test_invalid_checkpoints_raise_an_error(options, kind):
    with pytest.raises(kind, match=f"^{next(iter(options))} "):
        Checkpoints(**{"folder": "folder"} | options)


def test_numpy_numbers_are_accepted():
    Checkpoints(pathlib.Path("folder"), np.int64(3), np.float32(2), np.int32(1))


@pytest.mark.parametrize("name", ["checkpoints", "log"])
def test_empty_folder_is_refused_before_training(name):
    with pytest.raises(ValueError, match=f"^{name} must be the path of a folder, got an empty text"):
        fit(Net(rngs=nnx.Rngs(0)), make_data(), config(), **{name: ""})


# --- non-finite losses and full disks -------------------------------------------------------------------------------


class Exponential(nnx.Module):
    """Network whose output overflows for large weights."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(30, 4, rngs=rngs)

    def __call__(self, x):
        return jnp.exp(self.linear(x.reshape(len(x), -1)))


def test_non_finite_loss_raises_an_error_with_step_arrays_and_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError) as error:
        fit(
            Exponential(rngs=nnx.Rngs(0)),
            make_data(),
            config(learning_rate=1e3, schedule="constant", steps=500),
            checkpoints=Checkpoints(tmp_path, every_steps=1, max_to_keep=500),
        )
    text = str(error.value)
    step = int(re.search(r"the loss is \S+ at step (\d+);", text)[1])
    assert re.search(r"all parameters were finite, and the largest magnitude was \S+ in \['linear'\]\['kernel'\]", text)
    assert f"the last checkpoint is {tmp_path / str(max(saved_steps(tmp_path)))}" in text
    assert max(saved_steps(tmp_path)) == step - 1


@pytest.mark.parametrize("step", [7, 13])
def test_resumed_run_with_patience_and_ema_equals_uninterrupted_run(tmp_path, monkeypatch, step):
    options = {"patience": 2, "ema_decay": 0.9, "evaluations": 10, "learning_rate": 0.03}
    expected = run(**options)
    stop_after(monkeypatch, step)
    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path, **options)
    monkeypatch.undo()
    assert_same_run(run(tmp_path, **options), expected)
    assert_same_run(run(tmp_path, **options), expected)


@pytest.mark.parametrize("on_write_error", ["warn", "raise"])
def test_full_disk_warns_or_raises_and_keeps_earlier_checkpoints(tmp_path, monkeypatch, uninterrupted, on_write_error):
    write = checkpoint.CheckpointManager._write

    def write_without_space(self, step, *arguments):
        if step == 15:
            with disk.atomic_folder(self.root / str(step)) as part:
                (part / "half").write_bytes(b"half")
                raise OSError(28, "No space left on device")
        write(self, step, *arguments)

    monkeypatch.setattr(checkpoint.CheckpointManager, "_write", write_without_space)
    if on_write_error == "raise":
        with pytest.raises(OSError, match="could not be written .*earlier checkpoints are intact.*No space left"):
            run(tmp_path, on_write_error=on_write_error)
        assert saved_steps(tmp_path) == [5, 10]
    else:
        with pytest.warns(UserWarning, match="training continues: .*No space left"):
            assert_same_run(run(tmp_path, on_write_error=on_write_error), uninterrupted)
        assert saved_steps(tmp_path)[-2:] == [10, 20]
    for step in saved_steps(tmp_path):
        disk.verify_folder(tmp_path / str(step))
    assert names(tmp_path / ".convlab") == ["lock"]


FILL = """
import pathlib, sys, warnings
sys.path.insert(0, {tests!r})
import test_checkpoint as t
root = pathlib.Path({folder!r})
warnings.simplefilter("ignore")
for room in {rooms}:  # bytes that are free when the second checkpoint is written
    t.save_on_full_disk(root, room)
"""


def save_on_full_disk(root, room):
    """Save twice, the second time with little room, and check that the failed save leaves nothing."""
    folder, ballast = root / str(room), root / "ballast"
    state = initial_state(as_trainable(Net(1000, rngs=nnx.Rngs(0)), (5, 3, 2)), optax.adam(1.0), 0, config().step_options)
    with checkpoint.CheckpointManager(Checkpoints(folder), {"version": identity.VERSION, "steps": 2}) as manager:
        for step in (1, 2):
            manager.save(checkpoint.Snapshot(state._replace(step=jnp.asarray(step)), [], [], 0.0), False)
            manager.wait_until_finished()
            free = os.statvfs(root)
            ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room)))
        assert names(folder) == [".convlab", "1"], names(folder)
        time.sleep(0.1)  # for late threads
        assert names(folder / ".convlab") == ["lock"]
        disk.verify_folder(folder / "1")
    ballast.unlink()
    shutil.rmtree(folder)


@pytest.mark.slow
def test_failed_saves_on_a_full_file_system_leave_nothing(tmp_path):
    program = FILL.format(tests=str(pathlib.Path(__file__).parent), folder=str(tmp_path), rooms=[*range(0, 100_000, 2_500)])
    command = f"mount -t tmpfs -o size=4m none {tmp_path} && exec {sys.executable} -c {shlex.quote(program)}"
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    done = subprocess.run(["unshare", "-rm", "bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_failure_to_remove_old_checkpoints_only_warns(tmp_path, monkeypatch, uninterrupted):
    def raise_error(self):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(checkpoint.CheckpointManager, "_best", raise_error)
    with pytest.warns(UserWarning, match="old checkpoints in .* could not be removed: .*Permission denied"):
        assert_same_run(run(tmp_path, on_write_error="raise"), uninterrupted)
    assert saved_steps(tmp_path) == [5, 10, 15, 20]
