"""A log tells every row of a history once, whatever happens to the run or to the disk."""

import csv
import json
import math
import pathlib
import struct
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import convlab as cl
from convlab.train import log as room

ROWS = [
    {"step": 10 * n, "epoch": n / 2, "seconds": 1.5 * n, "loss": 1 / n, "test_loss": 2 / n, "test_accuracy": 1 - 1 / n}
    for n in range(1, 5)
]


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def table(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def scalars(folder):
    """What the files for TensorBoard hold: (tag, step, value, time) of every scalar."""
    from tensorboardX.proto.event_pb2 import Event

    told = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            [size] = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            told += [(value.tag, event.step, value.simple_value, event.wall_time) for value in event.summary.value]
            at += size + 16
    return told


def written(folder, rows, history=(), tensorboard=False):
    with cl.Log(folder, tensorboard).writer() as writer:
        writer.start(list(history))
        for row in rows:
            writer.add(row)


def test_every_row_is_on_disk_as_soon_as_it_is_known(tmp_path):
    with cl.Log(tmp_path / "runs" / "x", tensorboard=False).writer() as writer:
        writer.start([])
        for count, row in enumerate(ROWS, 1):
            writer.add(row)
            assert lines(tmp_path / "runs" / "x") == table(tmp_path / "runs" / "x") == ROWS[:count]
        writer.start(ROWS[:1])
        assert lines(tmp_path / "runs" / "x") == ROWS[:1]


def test_a_run_that_goes_on_leaves_no_row_twice_and_none_out(tmp_path):
    pytest.importorskip("tensorboardX")
    written(tmp_path, ROWS[:3], tensorboard=True)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4')  # killed in the middle of a line
    written(tmp_path, ROWS[2:], ROWS[:2], tensorboard=True)  # from a checkpoint between the second row and the third
    assert lines(tmp_path) == table(tmp_path) == ROWS
    losses = [(step, value) for tag, step, value, _ in scalars(tmp_path) if tag == "loss/training"]
    np.testing.assert_allclose(losses, [(row["step"], row["loss"]) for row in ROWS])


def test_a_column_may_come_later(tmp_path):
    rows = [*ROWS[:2], ROWS[2] | {"validation_loss": 0.5}]
    written(tmp_path, rows)
    assert lines(tmp_path) == table(tmp_path) == rows


def test_numbers_of_arrays_are_numbers_and_arrays_are_refused(tmp_path):
    written(tmp_path, [{"step": np.int64(3), "loss": jnp.float32(0.5), "test_loss": math.nan}])
    [row] = lines(tmp_path)
    assert (row["step"], row["loss"]) == (3, 0.5)
    assert math.isnan(row["test_loss"])
    with pytest.raises(ValueError, match=r"loss holds an array of shape \(2,\)"):
        written(tmp_path, [{"step": 1, "loss": jnp.ones(2)}])


def test_tensorboard_is_told_of_every_quantity_at_its_step_and_time(tmp_path):
    pytest.importorskip("tensorboardX")
    with cl.Log(tmp_path, tensorboard=True).writer() as writer:
        writer.start(ROWS[:2])
        writer.add(ROWS[2])
        told = scalars(tmp_path)  # before the end
    tags = ["epoch", "seconds", "loss/training", "loss/test", "accuracy/test"]
    assert [(tag, step) for tag, step, _, _ in told] == [(tag, row["step"]) for row in ROWS[:3] for tag in tags]
    np.testing.assert_allclose(
        [value for _, _, value, _ in told], [row[name] for row in ROWS[:3] for name in row if name != "step"]
    )
    times = [time for tag, _, _, time in told if tag == "epoch"]
    np.testing.assert_allclose(np.diff(times), 1.5, atol=1e-3)


def test_files_of_tensorboard_that_others_wrote_stay(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.host").write_bytes(b"")
    written(tmp_path, ROWS, tensorboard=True)
    written(tmp_path, ROWS, tensorboard=True)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_without_tensorboardx_the_rest_is_written_unless_it_was_asked_for(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    written(tmp_path, ROWS, tensorboard=None)
    assert lines(tmp_path) == ROWS
    assert not (tmp_path / "tensorboard").exists()
    with pytest.raises(ImportError, match=r"'convlab-jax\[tensorboard\]'"):
        cl.Log(tmp_path, tensorboard=True).writer()


def test_tensorboard_is_written_where_it_is_installed_and_not_forbidden(tmp_path):
    pytest.importorskip("tensorboardX")
    for wanted, there in ((None, True), (False, False)):
        written(tmp_path / str(wanted), ROWS, tensorboard=wanted)
        assert (tmp_path / str(wanted) / "tensorboard").exists() is there


def test_the_picture_is_drawn_at_the_end_also_of_a_run_that_fails(tmp_path):
    with pytest.raises(FloatingPointError), cl.Log(tmp_path, tensorboard=False).writer() as writer:
        writer.start(ROWS[:2])
        assert not (tmp_path / "curves.png").exists()
        raise FloatingPointError
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_another_run_goes_and_none_is_drawn_without_rows_or_matplotlib(tmp_path, monkeypatch):
    (tmp_path / "curves.png").write_bytes(b"of another run")
    written(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.jsonl"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written(tmp_path, ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.jsonl"]


def test_a_folder_that_cannot_be_made_warns_once_and_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="the log in .* could not be written; training continues") as warned:
        written(tmp_path / "file" / "log", ROWS, tensorboard=None)
    assert len(warned) == 1


def test_of_several_processes_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "is_first", lambda: False)
    written(tmp_path, ROWS, ROWS, tensorboard=None)
    assert not list(tmp_path.iterdir())


FULL = {"history.jsonl": (pathlib.Path, "open"), "history.csv": (room, "_write"), "tensorboard": (room.Scalars, "_write")}


def written_on_a_full_disk(folder, monkeypatch, broken, full, left=()):
    """Write rows, of which the disk does not take those that are `full`."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with cl.Log(folder).writer() as writer:
        writer.start(ROWS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(*FULL[broken], refuse)
            for row in full:
                writer.add(row)
        for row in left:
            writer.add(row)


@pytest.mark.parametrize("broken", FULL)
@pytest.mark.parametrize("last", [3, 4])
def test_rows_that_a_full_disk_did_not_take_are_written_when_it_takes_them_again(tmp_path, monkeypatch, broken, last):
    pytest.importorskip("tensorboardX")
    with pytest.warns(UserWarning, match="No space left on device") as warned:
        written_on_a_full_disk(tmp_path, monkeypatch, broken, ROWS[1:last], ROWS[last:])  # none left: at the end
    assert len(warned) == 1
    assert lines(tmp_path) == table(tmp_path) == ROWS
    assert [step for tag, step, _, _ in scalars(tmp_path) if tag == "loss/test"] == [row["step"] for row in ROWS]
    assert (tmp_path / "curves.png").exists()
