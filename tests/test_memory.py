"""Memory of a network against its arrays and against the compiler's analysis."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import filled

import convlab as cl
from convlab.measure import memory


def shapes(kind, *sizes, **options):
    """The shapes of a network or layer."""
    return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def test_stated_memory_equals_the_compilers_arguments_and_outputs():
    model, optimizer = shapes(cl.models.Pyramid, (7, 5, 2), 3, (4, 3)), optax.adam(1e-3)
    model.eval()
    definition, parameters, model_state = nnx.split(model, nnx.Param, ...)
    stated = memory(model, (7, 5, 2), optimizer=optimizer, batch_size=11)

    def gradients(parameters, model_state, state, x):
        def loss(parameters):
            return nnx.merge(definition, parameters, model_state)(x).sum()

        return jax.grad(loss)(parameters)

    arguments = (
        parameters,
        model_state,
        jax.eval_shape(optimizer.init, parameters),
        jax.ShapeDtypeStruct((11, 7, 5, 2), jnp.float32),
    )
    analysis = jax.jit(gradients, keep_unused=True).lower(*arguments).compile().memory_analysis()
    assert analysis.argument_size_in_bytes == stated.parameters + stated.model_state + stated.optimizer + 4 * 11 * 7 * 5 * 2
    pointers = 8 * len(jax.tree.leaves(parameters))
    assert stated.gradients <= analysis.output_size_in_bytes <= stated.gradients + pointers


@pytest.mark.parametrize(
    "optimizer, copies, scalars",
    [(optax.sgd(0.1), 0, 0), (optax.sgd(0.1, momentum=0.9), 1, 0), (optax.adam(0.1), 2, 1)],
    ids=["sgd", "momentum", "adam"],
)
def test_optimizer_state_holds_a_known_number_of_copies(optimizer, copies, scalars):
    model = shapes(cl.models.MLP, (7, 5, 2), 3, (11,))
    stated = memory(model, (7, 5, 2), optimizer=optimizer, batch_size=13)
    weights = 70 * 11 + 11 + 11 * 3 + 3
    assert stated == (4 * weights, 0, 4 * weights, copies * 4 * weights + scalars * 4, 13 * 4 * (11 + 3))
    assert stated.total == sum(stated)


def test_without_an_optimizer_only_arrays_and_activations_need_memory():
    model = shapes(cl.Conv, 2, 3, (3, 2), param_dtype=jnp.bfloat16)
    assert memory(model, (7, 5, 2)) == (2 * 39, 0, 0, 0, 4 * 105)


def test_the_memory_of_a_dense_layer_on_a_megapixel_is_computed_from_shapes():
    model = shapes(cl.Dense, 1, 1, 3, space=(1000, 1000))
    stated = memory(model, (1000, 1000, 1), optimizer=optax.adam(1e-3), batch_size=2)
    assert stated.total == 4 * 4 * (10**12 + 10**6) + 4 + 2 * 4 * 10**6


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        memory(shapes(cl.Conv, 2, 3, (3, 2)), (7, 5, 2), batch_size=0)


@pytest.mark.parametrize("free, fits", [(7 * 5 * 7 * 5 * 2 * 3 * 4, True), (7 * 5 * 7 * 5 * 2 * 3 * 4 - 1, False)])
def test_a_layer_that_does_not_fit_is_an_error_before_it_is_initialised(monkeypatch, free, fits):
    def build():
        zeros = nnx.initializers.zeros_init()  # which are fast to make
        return cl.Dense(2, 3, (3, 2), space=(7, 5), kernel_init=zeros, rngs=nnx.Rngs(0))

    monkeypatch.setattr("convlab.memory._free", lambda: free)
    if fits:
        build()
    else:
        with pytest.raises(MemoryError, match=r"needs 29,400 bytes \(0.00 GB for the dense layer\) but 29,399 are free"):
            build()
        with cl.allow_large_arrays():
            assert build().kernel[...].nbytes == 29_400
        with pytest.raises(MemoryError):
            build()
    assert shapes(cl.Dense, 2, 3, (3, 2), space=(7, 5)).kernel.shape == (7, 5, 7, 5, 2, 3)  # shapes take none


def test_a_dense_layer_on_a_megapixel_image_is_an_error_in_nnx_and_linen():
    with pytest.raises(MemoryError, match=r"needs 16,000,000,000,000 bytes \(16,000.00 GB"):
        cl.Dense(1, 4, (3, 3), space=(1000, 1000), rngs=nnx.Rngs(0))
    layer = cl.linen.Dense(1, 4, (3, 3))
    with pytest.raises(MemoryError, match="for the dense layer"):
        layer.init(jax.random.key(0), np.ones((1, 1000, 1000, 1), np.float32))


def test_a_run_whose_optimizer_does_not_fit_is_an_error_before_it_starts(monkeypatch):
    model, data = filled(lambda: cl.models.MLP((8, 8, 1), 10, (5,), rngs=nnx.Rngs(0))), cl.load("digits")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    config = cl.Config(steps=1, batch_size=2, progress=False, evaluations=1, optimizer="adam")
    monkeypatch.setattr("convlab.memory._free", lambda: 4 * size)
    with pytest.raises(MemoryError, match="for the optimizer's state"):
        cl.fit(model, data, config)
    with cl.allow_large_arrays():
        cl.fit(model, data, config)
