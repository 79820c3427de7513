"""Test that incomplete or damaged files are never read as data."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import numpy as np
import pytest

from convlab.data import DamagedError, disk, list_prepared, load, loading, store
from convlab.data.builders import Digits

pytest.importorskip("tensorflow_datasets")
STORAGES = ("memory", "disk", "records")
SLOW = """
import time
from convlab.data import load, loading, records, store
from convlab.data.builders import Digits
loading.IN_MEMORY = {{}}
{slow}
print(len(load("digits", data_dir={folder!r}).train))
"""
SLOW_TO_WRITE = """
yields = Digits._generate_examples
def crawl(self, *arrays):
    for example in yields(self, *arrays):
        time.sleep(0.02)
        yield example
Digits._generate_examples = crawl
"""
SLOW_TO_DECODE = """
decodes = records.decode_all
def crawl(*arguments):
    for block in decodes(*arguments):
        time.sleep(1)
        yield block
records.decode_all = crawl
"""


def start(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train_records(folder):
    (path,) = folder.glob("convlab_digits/1.0.0/*train.array_record*")
    return path


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.fixture(scope="module", autouse=True)
def prepared_digits():
    """Prepare the digits for every storage, as other data sets are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "IN_MEMORY", {})
        yield


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """Prepare and decode the digits without any fault."""
    folder = tmp_path_factory.mktemp("whole")
    return load("digits", data_dir=folder), folder


@pytest.fixture
def digits(intact, tmp_path):
    """Copy the preparation so that a test can damage it, and return the data and the folder."""
    subprocess.run(["cp", "-r", f"{intact[1]}/.", str(tmp_path)], check=True)
    return intact[0], tmp_path


def assert_same(data, expected):
    np.testing.assert_array_equal(data.train.images[:], expected.train.images)
    np.testing.assert_array_equal(data.test.images[:], expected.test.images)
    np.testing.assert_array_equal(data.train.labels, expected.train.labels)


# --- killed and concurrent processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slow, trace",
    [
        pytest.param(SLOW_TO_WRITE, "incomplete.*", marks=pytest.mark.slow),
        (SLOW_TO_DECODE, "1.0.0/decoded.incomplete"),
    ],
)
def test_leftovers_of_a_killed_process_are_removed_and_the_next_one_succeeds(tmp_path, intact, slow, trace):
    process = start(SLOW.format(slow=slow, folder=str(tmp_path)))
    end = time.time() + 60
    while not list(tmp_path.glob(f"convlab_digits/{trace}/*")):
        assert time.time() < end
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert list(tmp_path.glob(f"convlab_digits/{trace}"))
    assert_same(load("digits", data_dir=tmp_path), intact[0])
    assert not list(tmp_path.glob(f"convlab_digits/{trace}"))


def test_preparation_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Digits(data_dir=tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_leftovers_of_an_unfinished_preparation_are_removed(tmp_path, intact):
    left = tmp_path / "convlab_digits" / "incomplete.ABC123_1.0.0"
    left.mkdir(parents=True)
    (left / "part").write_text("of a record")
    assert_same(load("digits", data_dir=tmp_path), intact[0])
    assert not left.exists()


@pytest.mark.parametrize("part, owner, name", [("", Digits, "download_and_prepare"), ("decoded", store, "_write")])
def test_concurrent_preparation_is_waited_for_and_used(digits, monkeypatch, part, owner, name):
    folder, begun, loaded = digits[1] / "convlab_digits" / "1.0.0" / part, threading.Event(), []
    monkeypatch.setattr(owner, name, lambda *_, **__: begun.set())
    thread = threading.Thread(target=lambda: loaded.append(load("digits", data_dir=digits[1])))
    with disk.lock_folder(folder):
        folder.rename(digits[1] / "made")
        thread.start()
        assert not begun.wait(1)
        (digits[1] / "made").rename(folder)
    thread.join(60)
    assert not begun.is_set()
    assert_same(loaded[0], digits[0])


def test_preparation_without_checksums_is_read_and_then_receives_them(digits):
    expected, folder = digits
    (folder / "convlab_digits/1.0.0" / disk.MANIFEST).unlink()
    assert_same(load("digits", data_dir=folder, storage="records"), expected)
    assert disk.has_checksums(folder / "convlab_digits/1.0.0")
    # The decoded images are not part of the preparation, so they are decoded again.
    subprocess.run(["rm", "-r", str(folder / "convlab_digits/1.0.0/decoded")], check=True)
    assert_same(load("digits", data_dir=folder, storage="records"), expected)
    assert_same(load("digits", data_dir=folder), expected)


@pytest.mark.slow
def test_concurrent_processes_all_succeed_and_only_one_prepares(tmp_path):
    running = [start(SLOW.format(slow=SLOW_TO_WRITE + "\nprint('asked')", folder=str(tmp_path))) for _ in range(3)]
    assert [process.communicate(timeout=120)[0].split() for process in running] == [["asked", "1437"]] * 3
    names = sorted(path.name for path in (tmp_path / "convlab_digits").iterdir() if not path.name.startswith("."))
    assert names == ["1.0.0"]


# --- full disks -----------------------------------------------------------------------------------------------------


def limited(folder, bytes_of_a_file, storage="memory"):
    """Load in a process with a limited file size and return its output and errors."""
    code = f"""
import resource
from convlab.data import load, loading
loading.IN_MEMORY = {{}}
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_of_a_file}, {bytes_of_a_file}))
print("loaded", len(load("digits", data_dir={str(folder)!r}, storage={storage!r}).train))
"""
    return start(code).communicate(timeout=60)


@pytest.mark.parametrize("room", [20_000, pytest.param(150_000, marks=pytest.mark.slow)])
def test_preparation_on_a_full_disk_raises_an_error_and_leaves_nothing(tmp_path, room):
    out, error = limited(tmp_path, room)
    assert "OSError" in error.splitlines()[-1]
    assert "could not be written, nothing was kept: free some space or pass another data_dir" in error
    assert list_prepared(tmp_path) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(load("digits", data_dir=tmp_path).train) == 1437


@pytest.mark.slow
def test_full_disk_while_decoding_warns_in_memory_mode_and_raises_an_error_in_disk_mode(digits):
    _, folder = digits
    decoded = folder / "convlab_digits/1.0.0/decoded"
    subprocess.run(["rm", "-r", str(decoded)], check=True)
    out, error = limited(folder, 50_000)
    assert out == "loaded 1437\n"
    assert "decoded images cannot be stored" in error
    out, error = limited(folder, 50_000, storage="disk")
    assert "OSError" in error.splitlines()[-1]
    assert "storage='records'" in error
    assert not list(decoded.parent.glob("decoded*"))


@pytest.mark.slow
def test_full_file_system_raises_the_same_error(tmp_path):
    code = 'from convlab.data import load; load(storage="disk")'
    command = f"mount -t tmpfs -o size=200k none {tmp_path} && exec {sys.executable} -c '{code}'"
    inside = ["unshare", "-rm", "bash", "-c", command]
    if subprocess.run([*inside[:2], "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    run = subprocess.run(inside, capture_output=True, text=True, env=os.environ | {"TFDS_DATA_DIR": str(tmp_path)})
    assert run.returncode == 1
    assert "No space left on device" in run.stderr
    assert "nothing was kept" in run.stderr


# --- damaged files --------------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage, says", [(lambda p: flip(p, 200_000), "damaged near byte"), (truncate, "holds .* bytes but")])
@pytest.mark.parametrize("storage", STORAGES)
def test_damaged_records_raise_an_error_before_they_are_read(digits, damage, says, storage):
    _, folder = digits
    subprocess.run(["rm", "-r", str(folder / "convlab_digits/1.0.0/decoded")], check=True)
    damage(train_records(folder))
    with pytest.raises(DamagedError, match=f"train.array_record.*{says}.*overwrite=True"):
        load("digits", data_dir=folder, storage=storage)


@pytest.mark.parametrize("damage", [lambda p: flip(p, 200_000), truncate])
def test_damaged_records_without_a_manifest_are_detected_by_their_own_checksums(digits, damage):
    _, folder = digits
    subprocess.run(["rm", "-r", str(folder / "convlab_digits/1.0.0/decoded")], check=True)
    (folder / "convlab_digits/1.0.0" / disk.MANIFEST).unlink()
    damage(train_records(folder))
    with pytest.raises(DamagedError, match="the records of 'train' in .* are damaged.*overwrite=True"):
        load("digits", data_dir=folder)


def test_damaged_records_are_prepared_again_on_request(digits):
    expected, folder = digits
    flip(train_records(folder), 200_000)
    assert_same(load("digits", data_dir=folder, overwrite=True, storage="records"), expected)
    assert_same(load("digits", data_dir=folder), expected)


def test_damaged_description_raises_an_error_and_is_prepared_again_on_request(digits):
    expected, folder = digits
    info = folder / "convlab_digits/1.0.0/dataset_info.json"
    info.write_text(info.read_text()[:50])
    with pytest.raises(DamagedError, match="dataset_info.json holds 50 bytes but .*overwrite=True"):
        load("digits", data_dir=folder)
    info.with_name(disk.MANIFEST).unlink()
    with pytest.raises(DamagedError, match="digits in .* cannot be opened.*overwrite=True"):
        load("digits", data_dir=folder)
    assert_same(load("digits", data_dir=folder, overwrite=True), expected)


def test_changed_class_names_are_detected_even_if_images_are_decoded(digits):
    expected, folder = digits
    path = folder / "convlab_digits/1.0.0/label.labels.txt"
    path.write_text("\n".join(reversed(path.read_text().split())))
    with pytest.raises(DamagedError, match="label.labels.txt .*overwrite=True"):
        load("digits", data_dir=folder)
    assert load("digits", data_dir=folder, overwrite=True).classes == expected.classes


def test_failed_new_preparation_loses_nothing(digits, monkeypatch):
    from convlab.data import builders

    expected, folder = digits
    monkeypatch.setattr(builders.Digits, "arrays", lambda source: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load("digits", data_dir=folder, overwrite=True)
    assert_same(load("digits", data_dir=folder), expected)
    assert sorted(p.name for p in (folder / "convlab_digits").iterdir() if not p.name.startswith(".")) == ["1.0.0"]


@pytest.mark.parametrize("name", ["train.images.npy", "test.labels.npy", disk.MANIFEST])
@pytest.mark.parametrize("damage", [lambda p: flip(p, -7), lambda p: p.write_bytes(p.read_bytes()[:-3]), pathlib.Path.unlink])
@pytest.mark.parametrize("storage", STORAGES[:2])
def test_damaged_decoded_images_are_decoded_again(digits, name, damage, storage):
    expected, folder = digits
    damage(folder / "convlab_digits/1.0.0/decoded" / name)
    with pytest.warns(UserWarning, match="decoding .* again: .*decoded"):
        assert_same(load("digits", data_dir=folder, storage=storage), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load("digits", data_dir=folder, storage=storage), expected)


def test_checksums_cover_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "BLOCK", 100)
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(37, dtype=np.int16))
    disk.write_checksums(tmp_path, [path])
    np.testing.assert_array_equal(disk.read_array(tmp_path, path.name), np.arange(37))
    for at in range(path.stat().st_size):
        flip(path, at)
        with pytest.raises(DamagedError, match="numbers.npy is damaged"):
            disk.verify_folder(tmp_path)
        with pytest.raises(DamagedError):
            disk.read_array(tmp_path, path.name)
        flip(path, at)
    disk.verify_folder(tmp_path)


# --- listing --------------------------------------------------------------------------------------------------------


def test_list_prepared_lists_data_sets_with_path_and_size(intact):
    (row,) = list_prepared(intact[1])
    assert (row.name, row.version, row.file_format) == ("digits", "1.0.0", "array_record")
    assert row.path == intact[1] / "convlab_digits" / "1.0.0"
    assert row.examples == {"train": 1437, "test": 360}
    assert row.decoded == ("",)
    assert row.megabytes == pytest.approx(sum(p.stat().st_size for p in row.path.rglob("*") if p.is_file()) / 1e6, abs=0.1)
