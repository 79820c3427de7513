"""Test ops on eight simulated devices, in a process of their own, and on one device."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

import convlab as cl
from convlab.kernels import sharding

FAST_SUBSET = "cut or (ring and 16) or (infinite and SAME) or (gathers and 16) or ambient or mirror"  # representative cases


@pytest.mark.parametrize("which, least", [(FAST_SUBSET, 8), pytest.param("", 60, marks=pytest.mark.slow)], ids=["few", "all"])
def test_ops_on_eight_devices_match_one_device_and_gather_no_kernel(which, least):
    here = pathlib.Path(__file__).parent
    options = ["-q", "-x", "-k", which, "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(here / "eight_devices.py")]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=here.parent, env=environment)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= least


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_is_split_without_several_devices(size):
    mesh = jax.make_mesh((1,) * size, ("i",) * size, axis_types=(AxisType.Auto,) * size, devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        assert (sharding.axis_size("i"), sharding.parts("n", 8)) == (1, 1)
        jaxpr = jax.make_jaxpr(lambda x, v: cl.conv(x, v, cl.Window(3)))(jnp.ones((8, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))
    assert "shard_map" not in str(jaxpr)
