"""Test that runs on several devices, in one process or two, equal the run on one device."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from convlab.data import disk
from convlab.train import Config
from convlab.train import mesh as mesh_module
from convlab.train.mesh import Exchange, Placement, is_first

CHILD = pathlib.Path(__file__).with_name("several_devices.py")
RUNGS = ("conv", "locally_connected", "dense")


def start(calls, devices, *process):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(CHILD), json.dumps(calls), *map(str, process)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def results(child):
    out, errors = child.communicate(timeout=500)
    assert child.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


def assert_close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got["test"], expected["test"], rtol=10 * tolerance)


@pytest.mark.parametrize(
    "mesh, rungs, steps",
    [("both", RUNGS[1:2], 10), *(pytest.param(mesh, RUNGS, 50, marks=pytest.mark.slow) for mesh in ("both", "n"))],
)
def test_eight_devices_have_the_loss_curve_of_one_and_split_kernels_by_row(mesh, rungs, steps):
    calls = [["run", rung, name, steps] for rung in rungs for name in ("none", mesh)]
    calls += [["split_leaves", rung, mesh] for rung in rungs]
    outputs = dict(zip(map(tuple, calls), results(start(calls, 8)), strict=True))
    for rung in rungs:
        several, one = (outputs["run", rung, name, steps] for name in (mesh, "none"))
        assert_close(several, one)
        assert several["loss"] != one["loss"], "the mesh was not used"
        split = outputs["split_leaves", rung, mesh]
        kernels = [path for path in split if path.endswith("['kernel']")]
        assert len(kernels) == 4 * (rung != "conv")  # two layers, in the parameters and in the momentum
        assert all("layer" in path for path in split)


def start_two(calls):
    """Start two processes that train together, and return them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(calls, 1, address, 2, number) for number in (0, 1)]


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_from_its_checkpoint(tmp_path):
    [alone] = results(start([["run", "locally_connected", "none", 10, str(tmp_path)]], 1))
    shutil.rmtree(tmp_path / "10")  # as if the run had been killed after step 5
    calls = [["run", "locally_connected", "two", 10], ["run", "locally_connected", "two", 10, str(tmp_path)]]
    calls += [["different_seeds", "two"]]
    children = start_two(calls)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # both outputs must be read, else the processes wait for each other
        both = list(pool.map(results, children))
    assert both[0] == both[1]
    *runs, message = both[0]
    assert message == "config differs among the 2 processes that train together; needs the same in all"
    for run in runs:
        assert_close(run, alone)
    assert (tmp_path / "10" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("victim", [0, 1])
def test_end_of_one_process_ends_the_other_soon(tmp_path, number, victim):
    children = start_two([["run_until_killed", "two", str(tmp_path)]])
    end = time.monotonic() + 120
    while len([path for path in tmp_path.iterdir() if path.name.isdigit()]) < 2:
        assert [child.poll() for child in children] == [None, None]
        assert time.monotonic() < end
        time.sleep(0.1)
    children[victim].send_signal(number)
    begin, (_, errors) = time.monotonic(), children[1 - victim].communicate(timeout=60)
    children[victim].communicate(timeout=60)
    assert time.monotonic() - begin < 30  # the heartbeat is 10 seconds
    if number == signal.SIGTERM:  # both save and stop
        assert [child.returncode for child in children] == [143, 143], errors
    else:
        assert "another of the 2 processes that train together has ended" in errors or "another task died" in errors
        assert children[1 - victim].returncode != 0
    latest = max((path for path in tmp_path.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    disk.verify_folder(latest)


class TwoProcesses:
    """Placement of the first of two processes, whose second one always makes the same requests."""

    is_shared, calls = True, 0

    def gather_numbers(self, numbers):
        self.calls += 1
        return np.array([numbers, [1, 15, 10**6]])


def test_requests_are_exchanged_only_when_the_first_process_has_chosen(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(mesh_module.time, "monotonic", lambda: clock[0])
    placement = TwoProcesses()
    exchange = Exchange(placement)
    clock[0] = 0.5
    assert exchange(10, False, None, False) == (False, 15)  # the first process decides when to save, any one when to stop
    assert exchange.next_step == 30  # a second later, at 20 steps a second
    assert [exchange(step, True, 15, False) for step in (11, 29)] == [(False, None)] * 2
    clock[0] = 10.0
    assert exchange(29, True, None, True) == (True, 15)
    assert exchange(10**5, True, None, False) == (True, 15)
    assert placement.calls == 3


@pytest.mark.parametrize("text, is_lost", [("UNKNOWN: Gloo all-reduce failed", True), ("RESOURCE_EXHAUSTED", False)])
@pytest.mark.parametrize("is_shared", [True, False])
def test_error_of_a_lost_process_says_so(monkeypatch, text, is_lost, is_shared):
    monkeypatch.setattr(Placement, "is_shared", is_shared)
    expected = "has ended or cannot be reached; start all" if is_lost and is_shared else f"^{text}$"
    with pytest.raises(RuntimeError, match=expected), Placement(Config()).mesh_context():
        raise jax.errors.JaxRuntimeError(text)


@pytest.mark.parametrize(
    "axes, batch, message",
    [(("rows",), 8, r"mesh has axes \['rows'\]; needs only 'n' for the batch"), (("n",), 7, None)],
)
def test_unsuitable_mesh_raises_an_error(axes, batch, message):
    mesh = jax.make_mesh((1,), axes)
    if message is None:
        Placement(Config(batch_size=batch, mesh=mesh))
        return
    with pytest.raises(ValueError, match=message):
        Placement(Config(batch_size=batch, mesh=mesh))


def test_single_process_is_the_first_and_exchanges_nothing():
    assert is_first()
    placement = Placement(Config(mesh=jax.make_mesh((1,), ("n",))))
    exchange = Exchange(placement)
    assert [exchange(3, *requests, False) for requests in ((True, None), (False, 15))] == [(True, None), (False, 15)]
    assert placement.gather_numbers([1, 2]).tolist() == [[1, 2]]
