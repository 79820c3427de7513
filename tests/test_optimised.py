"""Test rungs and pools with the optimisations of XLA that other tests disable for speed."""

import jax
import pytest
from assertions import close
from strategies import gaussian
from test_ops import LINEAR, POOLS, SPACE, WINDOW, case

from experiments.shared import compiling

pytestmark = pytest.mark.usefixtures("float64")
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    **({"xla_cpu_use_fusion_emitters": True} if compiling.is_flag("--xla_cpu_use_fusion_emitters") else {}),
}


def derivatives(op):
    """Return a function from a cotangent and arguments to an op's value and gradients."""

    def value_and_gradients(g, *arguments):
        h, transpose = jax.vjp(op, *arguments)
        return h, *transpose(g)

    return value_and_gradients


def assert_optimising_changes_nothing(op, *arguments):
    (g,) = gaussian(jax.eval_shape(op, *arguments).shape, seed=9)
    with_gradients = derivatives(op)
    got = jax.jit(with_gradients, compiler_options=AS_USERS)(g, *arguments)
    close(got, jax.jit(with_gradients)(g, *arguments))


@pytest.mark.parametrize("name", LINEAR)
def test_optimised_rungs_match_unoptimised_ones(name):
    assert_optimising_changes_nothing(*case(name))


@pytest.mark.parametrize("name", POOLS)
def test_optimised_pools_match_unoptimised_ones(name):
    assert_optimising_changes_nothing(lambda x: POOLS[name](x, WINDOW), *gaussian((3, *SPACE, 2)))
