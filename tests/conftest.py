"""Settings of all tests: laws are checked in float64; what is compiled for one module is forgotten after it."""

import os

import hypothesis
import jax
import pytest

UNOPTIMISED = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # 0 for what users have

hypothesis.settings.register_profile("laws", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.load_profile("laws")


def pytest_configure(config):
    """Let XLA optimise the slow tests alone, which compute for long: the others spend their time on compiling, here and in
    the processes that they start."""
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", os.environ.setdefault(UNOPTIMISED, "1") != "0")


@pytest.fixture(scope="session", autouse=True)
def _without_compilations_of_other_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVLAB_CACHE", "0")
        yield


@pytest.fixture
def float64():
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_compilations():
    yield
    jax.clear_caches()
