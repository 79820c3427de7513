"""Test that a log holds every row of a history once, even if the run is stopped or the disk is full."""

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
from convlab.train import log as log_module

ROWS = [
    {"step": 10 * n, "epoch": n / 2, "seconds": 1.5 * n, "loss": 1 / n, "test_loss": 2 / n, "test_accuracy": 1 - 1 / n}
    for n in range(1, 5)
]


def jsonl_rows(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def csv_rows(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def scalars(folder):
    """Read tag, step, value and time of every scalar from the TensorBoard files."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            [size] = struct.unpack_from("<Q", data, offset)
            event = Event.FromString(data[offset + 12 : offset + 12 + size])
            events += [(value.tag, event.step, value.simple_value, event.wall_time) for value in event.summary.value]
            offset += size + 16
    return events


def write(folder, rows, history=(), tensorboard=False):
    with cl.Log(folder, tensorboard).writer() as writer:
        writer.start(list(history))
        for row in rows:
            writer.add(row)


def test_every_row_is_written_immediately(tmp_path):
    with cl.Log(tmp_path / "runs" / "x", tensorboard=False).writer() as writer:
        writer.start([])
        for count, row in enumerate(ROWS, 1):
            writer.add(row)
            assert jsonl_rows(tmp_path / "runs" / "x") == csv_rows(tmp_path / "runs" / "x") == ROWS[:count]
        writer.start(ROWS[:1])
        assert jsonl_rows(tmp_path / "runs" / "x") == ROWS[:1]


def test_log_of_a_resumed_run_has_every_row_once(tmp_path):
    pytest.importorskip("tensorboardX")
    write(tmp_path, ROWS[:3], tensorboard=True)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4')  # killed in the middle of a line
    write(tmp_path, ROWS[2:], ROWS[:2], tensorboard=True)  # resumed from a checkpoint after the second row
    assert jsonl_rows(tmp_path) == csv_rows(tmp_path) == ROWS
    losses = [(step, value) for tag, step, value, _ in scalars(tmp_path) if tag == "loss/training"]
    np.testing.assert_allclose(losses, [(row["step"], row["loss"]) for row in ROWS])


def test_later_rows_may_have_new_columns(tmp_path):
    rows = [*ROWS[:2], ROWS[2] | {"validation_loss": 0.5}]
    write(tmp_path, rows)
    assert jsonl_rows(tmp_path) == csv_rows(tmp_path) == rows


def test_rows_are_appended_and_only_new_columns_rewrite_the_table(tmp_path, monkeypatch):
    rewritten, write_text = [], log_module._write
    monkeypatch.setattr(log_module, "_write", lambda path, text: (rewritten.append(path.name), write_text(path, text)))
    with cl.Log(tmp_path, tensorboard=False).writer() as writer:
        writer.start([])
        writer.add(ROWS[0])
        rewritten.clear()
        reordered = dict(reversed(ROWS[1].items()))
        rows = [ROWS[0], reordered, {"step": 30}, ROWS[3] | {"test_loss": None}]
        for row in rows[1:]:
            writer.add(row)
        assert rewritten == []
        without_none = [{name: value for name, value in row.items() if value is not None} for row in rows]
        assert csv_rows(tmp_path) == without_none
        assert (tmp_path / "history.csv").read_text() == log_module.to_csv(rows)
        writer.add({"step": 50, "validation_loss": 0.5})
        assert rewritten == ["history.csv"]
        assert csv_rows(tmp_path) == [*without_none, {"step": 50, "validation_loss": 0.5}]


@pytest.mark.parametrize(
    "options, kind",
    [
        ({"folder": ""}, ValueError),
        ({"folder": 3}, TypeError),
        ({"tensorboard": "yes"}, TypeError),
        ({"tensorboard": 1}, TypeError),
    ],
)
def test_invalid_log_raises_an_error(options, kind):
    with pytest.raises(kind, match=f"^{next(iter(options))} must be "):
        cl.Log(**{"folder": "folder"} | options)
    cl.Log("folder", np.bool_(False))


def test_array_scalars_become_numbers_and_arrays_raise_an_error(tmp_path):
    write(tmp_path, [{"step": np.int64(3), "loss": jnp.float32(0.5), "test_loss": math.nan}])
    [row] = jsonl_rows(tmp_path)
    assert (row["step"], row["loss"]) == (3, 0.5)
    assert math.isnan(row["test_loss"])
    with pytest.raises(ValueError, match=r"loss holds an array of shape \(2,\)"):
        write(tmp_path, [{"step": 1, "loss": jnp.ones(2)}])


def test_tensorboard_files_hold_every_value_with_step_and_time(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(log_module, "FLUSH_SECONDS", 0.0)
    with cl.Log(tmp_path, tensorboard=True).writer() as writer:
        writer.start(ROWS[:2])
        writer.add(ROWS[2])
        events = scalars(tmp_path)  # before the writer is closed
    tags = ["epoch", "seconds", "loss/training", "loss/test", "accuracy/test"]
    assert [(tag, step) for tag, step, _, _ in events] == [(tag, row["step"]) for row in ROWS[:3] for tag in tags]
    np.testing.assert_allclose(
        [value for _, _, value, _ in events], [row[name] for row in ROWS[:3] for name in row if name != "step"]
    )
    times = [time for tag, _, _, time in events if tag == "epoch"]
    np.testing.assert_allclose(np.diff(times), 1.5, atol=1e-3)


def test_tensorboard_files_of_other_programs_are_kept(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.host").write_bytes(b"")
    write(tmp_path, ROWS, tensorboard=True)
    write(tmp_path, ROWS, tensorboard=True)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_missing_tensorboardx_raises_an_error_only_if_requested(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    write(tmp_path, ROWS, tensorboard=None)
    assert jsonl_rows(tmp_path) == ROWS
    assert not (tmp_path / "tensorboard").exists()
    with pytest.raises(ImportError, match=r"'convlab-jax\[tensorboard\]'"):
        cl.Log(tmp_path, tensorboard=True).writer()


def test_tensorboard_option_decides_whether_files_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    for option, exists in ((None, True), (False, False)):
        write(tmp_path / str(option), ROWS, tensorboard=option)
        assert (tmp_path / str(option) / "tensorboard").exists() is exists


def test_curves_are_plotted_at_the_end_even_if_the_run_fails(tmp_path):
    with pytest.raises(FloatingPointError), cl.Log(tmp_path, tensorboard=False).writer() as writer:
        writer.start(ROWS[:2])
        assert not (tmp_path / "curves.png").exists()
        raise FloatingPointError
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_old_curves_are_removed_and_new_ones_need_rows_and_matplotlib(tmp_path, monkeypatch):
    (tmp_path / "curves.png").write_bytes(b"of another run")
    write(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.jsonl"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path, ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.jsonl"]


def test_folder_that_cannot_be_created_warns_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="the log in .* could not be written; training continues") as caught:
        write(tmp_path / "file" / "log", ROWS, tensorboard=None)
    assert len(caught) == 1


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "is_first", lambda: False)
    write(tmp_path, ROWS, ROWS, tensorboard=None)
    assert not list(tmp_path.iterdir())


WRITES = {
    "history.jsonl": (pathlib.Path, "open"),
    "history.csv": (log_module.LogWriter, "_write_table"),
    "tensorboard": (log_module.TensorBoardWriter, "_write"),
}


def write_to_full_disk(folder, monkeypatch, target, failing_rows, later_rows=()):
    """Write rows to the log, where writing `failing_rows` to one file raises an error."""

    def raise_error(*_, **__):
        raise OSError(28, "No space left on device")

    with cl.Log(folder).writer() as writer:
        writer.start(ROWS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(*WRITES[target], raise_error)
            for row in failing_rows:
                writer.add(row)
        for row in later_rows:
            writer.add(row)


@pytest.mark.parametrize("target", WRITES)
@pytest.mark.parametrize("stop", [3, 4])  # with 4, the rows are written when the writer is closed
def test_rows_missing_after_a_full_disk_are_written_later(tmp_path, monkeypatch, target, stop):
    pytest.importorskip("tensorboardX")
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        write_to_full_disk(tmp_path, monkeypatch, target, ROWS[1:stop], ROWS[stop:])
    assert len(caught) == 1
    assert jsonl_rows(tmp_path) == csv_rows(tmp_path) == ROWS
    assert [step for tag, step, _, _ in scalars(tmp_path) if tag == "loss/test"] == [row["step"] for row in ROWS]
    assert (tmp_path / "curves.png").exists()
