"""Test that the package's type annotations hold while its examples run."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]


def test_every_annotation_holds_while_the_examples_run():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "annotations", "-p", "no:cacheprovider", "convlab"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stdout[-5000:]


def test_annotations_for_two_axes_also_apply_to_one_and_three_and_reject_invalid_arguments():
    code = """
import annotations
annotations.pytest_configure()
import jax.numpy as jnp
import convlab as cl
from jaxtyping import TypeCheckError
for ndim in (1, 2, 3):
    window = cl.Window((3,) * ndim)
    cl.conv(jnp.ones((2, *(5,) * ndim, 4)), jnp.ones((*(3,) * ndim, 4, 6)), window)
    try:
        cl.conv(jnp.ones((2, *(5,) * ndim, 4)), jnp.ones((*(3,) * ndim, 3, 6)), window)  # without hook: another error
    except TypeCheckError:
        print("refused")
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.split() == ["refused"] * 3, run.stderr[-3000:]
