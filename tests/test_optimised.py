"""The rungs as users compile them, with the optimisations of XLA that the other tests leave out for speed."""

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
    """Return the function of a cotangent and arguments that gives an op's value and its gradients."""

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
def test_rungs_are_the_same_functions_when_optimised(name):
    assert_optimising_changes_nothing(*case(name))


@pytest.mark.parametrize("name", POOLS)
def test_pools_are_the_same_functions_when_optimised(name):
    assert_optimising_changes_nothing(lambda x: POOLS[name](x, WINDOW), *gaussian((3, *SPACE, 2)))
