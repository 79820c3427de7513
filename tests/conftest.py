"""Configure all tests: optional double precision, fast compilation and bounded memory."""

import os
import shutil
import tempfile

import hypothesis
import jax
import pytest

from experiments.shared.compiling import compile_faster

UNOPTIMISED = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # set it to 0 to compile as users do
MAX_PROGRAMS = 800  # compiled programs that a process keeps, of 1 to 2 MB each

hypothesis.settings.register_profile("laws", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.load_profile("laws")


def pytest_configure():
    """Disable optimisations of compiled programs, here and in processes that tests start."""
    if os.environ.get(UNOPTIMISED) != "0":
        os.environ[UNOPTIMISED] = "1"
        jax.config.update(UNOPTIMISED.lower(), True)
        compile_faster()


@pytest.fixture(scope="session", autouse=True)
def _without_compilations_of_other_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVLAB_CACHE", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_in_one_folder(tmp_path_factory):
    """Collect the temporary files of this process and of those that tests start, also after a kill, and remove them."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def float64():
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield


compilations = []  # seconds per compilation since the caches were cleared


def _note(event, seconds, **_):
    if event.endswith("backend_compile_duration"):
        compilations.append(seconds)


jax.monitoring.register_event_duration_secs_listener(_note)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """Clear the caches of JAX after MAX_PROGRAMS compilations.

    A hook also runs between doctests, to which this folder's fixtures do not apply.
    """
    result = yield
    if len(compilations) > MAX_PROGRAMS:
        jax.clear_caches()
        compilations.clear()
    return result
