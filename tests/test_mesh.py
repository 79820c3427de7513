"""Test that runs on several devices, in one process or two, equal the run on one device."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from convlab.train import Config
from convlab.train.mesh import Placement, is_first

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


def test_two_processes_equal_one_and_resume_from_its_checkpoint(tmp_path):
    [alone] = results(start([["run", "locally_connected", "none", 10, str(tmp_path)]], 1))
    shutil.rmtree(tmp_path / "10")  # as if the run had been killed after step 5
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    calls = [["run", "locally_connected", "two", 10], ["run", "locally_connected", "two", 10, str(tmp_path)]]
    calls += [["different_seeds", "two"]]
    children = [start(calls, 1, address, 2, number) for number in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # both outputs must be read, else the processes wait for each other
        both = list(pool.map(results, children))
    assert both[0] == both[1]
    *runs, message = both[0]
    assert message == "config differs among the 2 processes that train together; needs the same in all"
    for run in runs:
        assert_close(run, alone)
    assert (tmp_path / "10" / "run.json").exists()


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


def test_single_process_is_the_first_and_has_the_maximum():
    assert is_first()
    placement = Placement(Config(mesh=jax.make_mesh((1,), ("n",))))
    assert [placement.max_over_processes(number) for number in (None, 15)] == [None, 15]
