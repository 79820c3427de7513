"""Settings of all tests: laws are checked in float64."""

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("laws", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.load_profile("laws")


@pytest.fixture
def float64():
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield
