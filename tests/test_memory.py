"""What a network needs of memory: against the arrays that are there, and against what the compiler reserves."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import convlab as cl
from convlab.measure import memory


def shapes(kind, *sizes, **options):
    """A network or layer of shapes only."""
    return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def test_a_step_is_given_parameters_the_rest_and_the_state_and_returns_gradients():
    model, optimizer = shapes(cl.models.Pyramid, (7, 5, 2), 3, (4, 3)), optax.adam(1e-3)
    model.eval()
    definition, parameters, rest = nnx.split(model, nnx.Param, ...)
    stated = memory(model, (7, 5, 2), optimizer=optimizer, batch_size=11)

    def gradients(parameters, rest, state, x):
        def loss(parameters):
            return nnx.merge(definition, parameters, rest)(x).sum()

        return jax.grad(loss)(parameters)

    arguments = parameters, rest, jax.eval_shape(optimizer.init, parameters), jax.ShapeDtypeStruct((11, 7, 5, 2), jnp.float32)
    analysis = jax.jit(gradients, keep_unused=True).lower(*arguments).compile().memory_analysis()
    assert analysis.argument_size_in_bytes == stated.parameters + stated.rest + stated.optimizer + 4 * 11 * 7 * 5 * 2
    assert analysis.output_size_in_bytes - stated.gradients in range(8 * len(jax.tree.leaves(parameters)) + 1)  # and a table


@pytest.mark.parametrize(
    "optimizer, copies, scalars",
    [(optax.sgd(0.1), 0, 0), (optax.sgd(0.1, momentum=0.9), 1, 0), (optax.adam(0.1), 2, 1)],
    ids=["sgd", "momentum", "adam"],
)
def test_optimizers_keep_so_many_copies(optimizer, copies, scalars):
    model = shapes(cl.models.MLP, (7, 5, 2), 3, (11,))
    stated = memory(model, (7, 5, 2), optimizer=optimizer, batch_size=13)
    weights = 70 * 11 + 11 + 11 * 3 + 3
    assert stated == (4 * weights, 0, 4 * weights, copies * 4 * weights + scalars * 4, 13 * 4 * (11 + 3))
    assert stated.total == sum(stated)


def test_without_an_optimizer_there_is_nothing_but_arrays_and_activations():
    model = shapes(cl.Conv, 2, 3, (3, 2), param_dtype=jnp.bfloat16)
    assert memory(model, (7, 5, 2)) == (2 * 39, 0, 0, 0, 4 * 105)


def test_a_dense_layer_on_a_megapixel_is_stated_without_being_there():
    model = shapes(cl.Dense, 1, 1, 3, space=(1000, 1000))
    stated = memory(model, (1000, 1000, 1), optimizer=optax.adam(1e-3), batch_size=2)
    assert stated.total == 4 * 4 * (10**12 + 10**6) + 4 + 2 * 4 * 10**6


def test_a_batch_has_an_image():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        memory(shapes(cl.Conv, 2, 3, (3, 2)), (7, 5, 2), batch_size=0)
