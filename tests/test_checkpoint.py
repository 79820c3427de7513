"""Runs that stop, are stopped, or are killed: they go on exactly, from the last whole checkpoint, or say why they cannot."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from convlab.data import DamagedError, Data, Split, Stored, disk
from convlab.train import Checkpoints, Config, Trainable, checkpoint, fit, identity, trainable
from convlab.train.signals import Stop

STEPS = 20


class Net(nnx.Module):
    """All that a state may hold: batch statistics, dropout with its keys, several arrays."""

    def __init__(self, width=8, *, rngs):
        self.first = nnx.Linear(30, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, 4, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(len(x), -1)
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def made(number=67, seed=0):
    random = np.random.default_rng(seed)
    train, test = (Split(random.normal(size=(n, 5, 3, 2)).astype(np.float32), random.integers(0, 4, n)) for n in (number, 30))
    return Data("made", train, test, tuple("abcd"), test.take(np.arange(20)))


def config(**options):
    return Config(**{"steps": STEPS, "batch_size": 8, "evaluations": 4, "progress": False, **options})


def run(folder=None, width=8, data=None, every=5, keep=2, full="go on", **options):
    saved = None if folder is None else Checkpoints(folder, every, keep, full)
    return fit(Net(width, rngs=nnx.Rngs(0)), data or made(), config(**options), checkpoints=saved)


def steps_in(folder):
    return sorted(int(path.name) for path in pathlib.Path(folder).iterdir() if path.name.isdigit())


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def assert_same_run(got, expected):
    chex.assert_trees_all_equal(got.parameters, expected.parameters)
    for mine, its in zip(*map(plain, (got.model_state, expected.model_state)), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert without_time(got.history) == without_time(expected.history)


def plain(tree):
    return [np.asarray(checkpoint._key_data(leaf)) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def whole():
    """The run that nothing stopped."""
    return run()


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A folder with the checkpoints of steps 5, 10 and (asked to stop) 13."""
    stop_after(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", keep=3)
    monkeypatch.undo()
    assert steps_in(tmp_path / "run") == [5, 10, 13]
    return tmp_path / "run"


def stop_after(monkeypatch, step, number=signal.SIGINT):
    """Send this process a signal while the step is taken."""
    from convlab.train import training

    take = training.train_step

    def taken(state, *arguments, **options):
        if int(state.step) + 1 == step:
            os.kill(os.getpid(), number)
        return take(state, *arguments, **options)

    monkeypatch.setattr(training, "train_step", taken)


# --- going on -------------------------------------------------------------------------------------------------------


def test_saving_changes_nothing(tmp_path, whole):
    assert_same_run(run(tmp_path), whole)
    assert steps_in(tmp_path)[-2:] == [15, 20]


@pytest.mark.parametrize("step", [1, 4, 10, 13, 19])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch, whole, step):
    stop_after(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    assert max(steps_in(tmp_path)) == step
    assert_same_run(run(tmp_path), whole)


def test_a_finished_run_is_returned_without_a_step(tmp_path, whole, monkeypatch):
    from convlab.train import training

    run(tmp_path)
    monkeypatch.setattr(training, "train_step", None)
    assert_same_run(run(tmp_path), whole)


@pytest.mark.parametrize("every", [5, 3])
def test_latest_checkpoints_and_the_best_by_validation_are_kept(tmp_path, every):
    fitted = run(tmp_path, every=every, keep=1, evaluations=4)
    scores = {row["step"]: row["validation_accuracy"] for row in fitted.history if row["step"] in (*range(0, 20, every), 20)}
    best = max(scores, key=lambda step: (scores[step], step))
    assert steps_in(tmp_path) == sorted({best, 20})


def test_configuration_and_origin_stand_beside_the_arrays(tmp_path):
    run(tmp_path)
    told = json.loads((tmp_path / "20" / "run.json").read_text())
    assert told["config"]["learning_rate"] == config().learning_rate
    assert {"jax", "git_commit", "device"} <= told["provenance"].keys()
    assert told["data"] == ["made", 67, 5, 3, 2]
    assert disk.sealed(tmp_path / "20")


# --- signals and kills ----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import test_checkpoint as t
fitted = t.run({folder!r}, every=3, steps={steps})
print("finished", t.digest(fitted.parameters), t.without_time(fitted.history))
"""


def digest(tree):
    """Equal for the same bits."""
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in plain(tree))).hexdigest()


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
def test_a_signal_saves_and_leaves_with_its_code(tmp_path, number, code):
    process = start(tmp_path, 10**6)
    wait_for(lambda: tmp_path.exists() and steps_in(tmp_path), process)
    process.send_signal(number)
    assert process.wait(60) == code, process.communicate()[1]
    process.communicate()
    last = max(steps_in(tmp_path))
    disk.check(tmp_path / str(last))


@pytest.mark.parametrize("number, leaves", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_of_the_last_moment_is_obeyed_and_handlers_are_given_back(number, leaves):
    before = signal.getsignal(number)
    with pytest.raises(leaves), Stop() as stop:
        os.kill(os.getpid(), number)
        while stop.number is None:
            time.sleep(0.001)
    assert signal.getsignal(number) is before


def kill_and_go_on(folder, times, steps, seed):
    """Kill a run at random moments, then let it finish; return what it printed."""
    rng = random.Random(seed)
    for _ in range(times):
        process = start(folder, steps)
        before = max(steps_in(folder), default=0) if folder.exists() else 0
        wait_for(lambda b=before: folder.exists() and max(steps_in(folder), default=0) > b, process)
        time.sleep(rng.random() * 0.2)
        process.kill()
        assert "Warning" not in process.communicate()[1]  # so it went on from the newest checkpoint, and could write others
        assert max(steps_in(folder)) > before
    process = start(folder, steps)
    out, error = process.communicate(timeout=3000)
    assert (process.returncode, "Warning" in error) == (0, False), error
    assert len(steps_in(folder)) == 2
    assert {path.name for path in folder.iterdir()} == {".lock", *map(str, steps_in(folder))}
    return out


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(tmp_path):
    out = kill_and_go_on(tmp_path / "killed", 2, 300, 0)
    process = start(tmp_path / "whole", 300)
    assert process.communicate(timeout=300)[0] == out


def test_what_a_kill_left_of_an_old_checkpoint_is_no_checkpoint_and_goes(stopped, whole):
    (stopped / "5" / "run.json").unlink()
    (stopped / "10").rename(stopped / "10.removed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_run(run(stopped), whole)
    assert sorted(path.name for path in stopped.iterdir()) == [".lock", "15", "20"]


@pytest.mark.full
def test_a_hundred_kills_lose_nothing(tmp_path):
    out = kill_and_go_on(tmp_path / "killed", 100, 8_000, 1)
    process = start(tmp_path / "whole", 8_000)
    assert process.communicate(timeout=3000)[0] == out


def test_two_runs_do_not_share_a_folder(tmp_path):
    process = start(tmp_path, 10**6)
    wait_for(lambda: tmp_path.exists() and steps_in(tmp_path), process)
    with pytest.raises(ValueError, match="in use by another process; each run needs a folder of its own"):
        run(tmp_path)
    process.kill()
    process.communicate()


# --- damage ---------------------------------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", [flip, truncate, pathlib.Path.unlink])
@pytest.mark.parametrize("which", ["arrays", "run.json", disk.MANIFEST])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(stopped, whole, damage, which):
    damage(largest(stopped / "13" / which) if which == "arrays" else stopped / "13" / which)
    with pytest.warns(UserWarning, match="a checkpoint is damaged, so the run resumes from step 10: .*13"):
        assert_same_run(run(stopped), whole)
    assert (stopped / "13.damaged").exists()


@pytest.mark.parametrize("text", ["{}", "[]", "null", "7"])
def test_a_list_of_checksums_that_names_no_file_is_damaged(tmp_path, text):
    (tmp_path / "run.json").write_text("{}")
    disk.seal(tmp_path, tmp_path.iterdir())
    disk.check(tmp_path)
    (tmp_path / disk.MANIFEST).write_text(text)
    with pytest.raises(DamagedError, match=f"{disk.MANIFEST} lists no file"):
        disk.check(tmp_path)


def test_a_second_damaged_checkpoint_of_a_step_is_set_aside_beside_the_first(stopped, whole):
    (stopped / "13.damaged" / "arrays").mkdir(parents=True)
    truncate(stopped / "13" / "run.json")
    with pytest.warns(UserWarning, match="a checkpoint is damaged"):
        assert_same_run(run(stopped), whole)
    assert (stopped / "13.damaged2" / "run.json").exists()


def test_one_flipped_byte_anywhere_in_a_checkpoint_is_seen(stopped):
    for path in [path for path in (stopped / "13").rglob("*") if path.is_file() and path.name != disk.MANIFEST]:
        before = path.read_bytes()
        if before:
            flip(path)
            with pytest.raises(DamagedError, match=path.name):
                disk.check(stopped / "13")
            path.write_bytes(before)
    disk.check(stopped / "13")


def test_a_run_does_not_start_afresh_over_damaged_checkpoints(stopped):
    for step in (5, 10, 13):
        flip(largest(stopped / str(step) / "arrays"))
    with (
        warnings.catch_warnings(),
        pytest.raises(DamagedError, match="holds 3 checkpoints, but all are damaged .*does not overwrite them"),
    ):
        warnings.simplefilter("ignore")
        run(stopped)
    assert steps_in(stopped) == [5, 10, 13]


def test_a_half_written_checkpoint_is_none(stopped, whole):
    shutil.copytree(stopped / "13", stopped / "14.incomplete")
    assert_same_run(run(stopped), whole)


# --- other runs -----------------------------------------------------------------------------------------------------


def test_another_model_is_refused_path_by_path_with_both_shapes(stopped):
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


def test_another_optimizer_names_what_it_lacks(stopped):
    with pytest.raises(ValueError, match=r"optimizer.*: the checkpoint has .*, the model has nothing"):
        fit(Net(rngs=nnx.Rngs(0)), made(), config(), optimizer=optax.sgd(0.1), checkpoints=Checkpoints(stopped))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate": 0.5}, "learning_rate: the checkpoint has 0.001, this run has 0.5"),
        ({"seed": 1}, "seed: the checkpoint has 0, this run has 1"),
        ({"data": made(66)}, r"data: the checkpoint has \['made', 67, 5, 3, 2\], this run has \['made', 66"),
    ],
)
def test_another_configuration_or_data_set_is_refused(stopped, options, message):
    with pytest.raises(ValueError, match=rf"belongs to another run[\s\S]*{message}"):
        run(stopped, **options)


class Linear(nnx.Module):
    """Of the same arrays whatever it does with them."""

    def __init__(self, activation=nnx.relu, rate=0.5):
        rngs = nnx.Rngs(0)
        self.linear, self.dropout = nnx.Linear(30, 4, rngs=rngs), nnx.Dropout(rate, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return self.activation(self.linear(self.dropout(x.reshape(len(x), -1))))


class Dense(linen.Module):
    """The same in Linen."""

    activation: Callable = linen.relu

    @linen.compact
    def __call__(self, x):
        return self.activation(linen.Dense(4)(x.reshape(len(x), -1)))


def one_way(parameters, model_state, x, key, train, /):
    return x.reshape(len(x), -1) @ parameters, model_state


def another_way(parameters, model_state, x, key, train, /):
    return -x.reshape(len(x), -1) @ parameters, model_state


def as_they_are(images, key):
    return images


def relabelled(data, name):
    split = getattr(data, name)
    return dataclasses.replace(data, **{name: Split(split.images, (split.labels + 1) % 4)})


PLAIN = {"steps": 1, "evaluations": 1}


def facts(model=Linear, data=None, custom=False, augment=None):
    return identity.identity(trainable(model(), (5, 3, 2)), data or made(), config(), custom, augment)


@pytest.mark.parametrize(
    "first, second, names",
    [
        ({}, {"model": lambda: Linear(nnx.gelu)}, ["model"]),
        ({}, {"model": lambda: Linear(rate=0.1)}, ["model"]),
        ({"model": Dense}, {"model": lambda: Dense(linen.gelu)}, ["model"]),
        ({"model": lambda: Trainable(one_way, {}, {})}, {"model": lambda: Trainable(another_way, {}, {})}, ["model"]),
        ({}, {"data": relabelled(made(), "train")}, ["labels train"]),
        ({}, {"data": relabelled(made(), "test")}, ["labels test"]),
        ({}, {"data": made().map(lambda x: x + 1)}, ["images train", "images validation", "images test"]),
        ({}, {"data": dataclasses.replace(made(), validation=None)}, ["labels validation"]),
        ({}, {"data": made().with_standardisation("scale")}, ["standardisation"]),
        ({}, {"augment": as_they_are}, ["augment"]),
        ({}, {"custom": True}, ["optimizer"]),
    ],
)
def test_what_differs_without_a_change_of_shapes_is_told_by_its_name(first, second, names):
    told = identity.differences(json.loads(json.dumps(facts(**first))), facts(**first | second))
    assert [re.split(r":| \(Flax", line)[0] for line in told] == names
    assert identity.differences(facts(**first), facts(**first)) == []


def test_another_model_of_the_same_arrays_is_refused(tmp_path):
    saved = {"checkpoints": Checkpoints(tmp_path)}
    fit(Linear(), made(), config(**PLAIN), **saved)
    differ = r"These differ:\n  model \(Flax .*\): the checkpoint has 'Linear \w+', this run has 'Linear \w+'$"
    with pytest.raises(ValueError, match=differ):
        fit(Linear(nnx.gelu), made(), config(**PLAIN), **saved)


def test_where_the_images_lie_may_change():
    images = made().train.images
    stored = Stored(lambda places: images[places], np.arange(len(images)), images.shape[1:], images.dtype)
    on_disk = dataclasses.replace(made(), train=Split(stored, made().train.labels))
    assert identity.differences(facts(data=on_disk), facts()) == []


@pytest.mark.parametrize("saved, version", [({}, 1), ({"version": identity.VERSION + 1}, identity.VERSION + 1)])
def test_a_checkpoint_of_another_version_is_refused_with_what_is_needed_and_what_to_do(tmp_path, saved, version):
    run(tmp_path, **PLAIN)
    folder = tmp_path / "1"
    told = json.loads((folder / "run.json").read_text())
    assert told.pop("version") == identity.VERSION
    (folder / "run.json").write_text(json.dumps(told | saved))
    disk.seal(folder, folder.rglob("*"))
    needed = f"resumes from version {identity.VERSION} only: finish the run with the release .* or pass another folder"
    with pytest.raises(ValueError, match=rf"1 has format version {version}, but this release {needed}"):
        run(tmp_path, **PLAIN)
    assert steps_in(tmp_path) == [1]


def test_a_description_has_nothing_of_its_process():
    def held():
        return Linear(jax.nn.relu), Dense(lambda x: x), functools.partial(held, {"b", "a"}), jnp.float32, np.ones(3), object()

    assert " at 0x" not in identity.describe(held())
    assert identity.describe(held()) == identity.describe(held())
    for name in ("relu", "<lambda>", "{'a', 'b'}", "float32", "kernel"):
        assert name in identity.describe(held())


@pytest.mark.parametrize("options", [{"every": 0}, {"keep": 0}, {"full": "panic"}, {"every": 1.5}])
def test_checkpoints_that_cannot_be_are_refused(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        Checkpoints("folder", **options)


# --- losses and disks -----------------------------------------------------------------------------------------------


class Breaks(nnx.Module):
    """A network whose output is not finite once its input is large."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(30, 4, rngs=rngs)

    def __call__(self, x):
        return jnp.exp(self.linear(x.reshape(len(x), -1)))


def test_a_loss_that_is_not_finite_ends_the_run_with_step_arrays_and_last_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError) as error:
        fit(
            Breaks(rngs=nnx.Rngs(0)),
            made(),
            config(learning_rate=1e3, schedule="constant", steps=500),
            checkpoints=Checkpoints(tmp_path, every=1, keep=500),
        )
    text = str(error.value)
    step = int(re.search(r"the loss is \S+ at step (\d+);", text)[1])
    assert re.search(r"all parameters were finite, and the largest magnitude was \S+ in \['linear'\]\['kernel'\]", text)
    assert f"the last checkpoint is {tmp_path / str(max(steps_in(tmp_path)))}" in text
    assert max(steps_in(tmp_path)) == step - 1


@pytest.mark.parametrize("step", [7, 13])
def test_a_run_with_patience_average_and_chunks_goes_on_with_its_best_parameters(tmp_path, monkeypatch, step):
    options = {"patience": 2, "average": 0.9, "evaluations": 10, "learning_rate": 0.03}
    expected = run(**options)
    stop_after(monkeypatch, step)
    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path, **options)
    monkeypatch.undo()
    assert_same_run(run(tmp_path, **options), expected)
    assert_same_run(run(tmp_path, **options), expected)


@pytest.mark.parametrize("full", ["go on", "stop"])
def test_a_full_disk_ends_the_run_only_when_asked_and_leaves_what_was_saved(tmp_path, monkeypatch, whole, full):
    writes = checkpoint.Saver._write

    def no_room(self, step, *arguments):
        if step == 15:
            with disk.made_whole(self.root / str(step)) as part:
                (part / "half").write_bytes(b"half")
                raise OSError(28, "No space left on device")
        writes(self, step, *arguments)

    monkeypatch.setattr(checkpoint.Saver, "_write", no_room)
    if full == "stop":
        with pytest.raises(OSError, match="could not be written .*earlier checkpoints are intact.*No space left"):
            run(tmp_path, full=full)
        assert steps_in(tmp_path) == [5, 10]
    else:
        with pytest.warns(UserWarning, match="training continues: .*No space left"):
            assert_same_run(run(tmp_path, full=full), whole)
        assert steps_in(tmp_path)[-2:] == [10, 20]
    for step in steps_in(tmp_path):
        disk.check(tmp_path / str(step))
    assert not list(tmp_path.glob("*.incomplete"))


def test_old_checkpoints_that_cannot_be_removed_are_no_failure_to_write(tmp_path, monkeypatch, whole):
    def fails(self):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(checkpoint.Saver, "_best", fails)
    with pytest.warns(UserWarning, match="old checkpoints in .* could not be removed: .*Permission denied"):
        assert_same_run(run(tmp_path, full="stop"), whole)
    assert steps_in(tmp_path) == [5, 10, 15, 20]
