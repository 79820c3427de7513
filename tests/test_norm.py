"""Batch norm: what Flax computes, in another form."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import filled
from strategies import gaussian

from convlab.norm import BatchNorm

SHAPE = (3, 5, 2, 7)
OPTIONS = [{}, {"use_scale": False}, {"use_bias": False}, {"use_fast_variance": False}, {"dtype": jnp.float16}, {"axis": 1}]


def both(**options):
    """Make Flax's layer and ours, with the same arrays."""
    features = SHAPE[options.get("axis", -1)]

    def layer(kind):
        made = filled(lambda: kind(features, momentum=0.9, rngs=nnx.Rngs(0), **options), deviation=1.0)
        smallest = 0.5 if "dtype" in options else 0.01  # small enough for epsilon to matter, large enough for half precision
        made.var[...] = jax.device_put(np.geomspace(smallest, 1, features, dtype=np.float32))
        return made

    return layer(nnx.BatchNorm), layer(BatchNorm)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("running", [False, True])
def test_equals_flax_batch_norm_with_statistics_and_gradients(options, running):
    x = np.asarray(3 + gaussian(SHAPE)[0], np.float32)

    def of(layer):
        graph, state = nnx.split(layer)

        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True, allow_int=True)
        def slopes(state, x):
            layer = nnx.merge(graph, state)
            h = layer(x, running)
            return jnp.sin(h.astype(float)).sum(), (h, nnx.state(layer))

        return jax.jit(slopes)(state, x)

    (theirs, (h, state)), (ours, (our_h, our_state)) = (of(layer) for layer in both(**options))
    assert our_h.dtype == h.dtype
    tolerance = {"rtol": 2e-2, "atol": 8e-2} if "dtype" in options else {"rtol": 2e-4, "atol": 2e-4}
    for got, expected in zip(jax.tree.leaves((our_h, our_state, ours)), jax.tree.leaves((h, state, theirs)), strict=True):
        np.testing.assert_allclose(np.asarray(got, float), np.asarray(expected, float), **tolerance)


def test_statistics_of_half_precision_are_kept_in_single_precision():
    layer = filled(lambda: BatchNorm(7, use_scale=False, use_bias=False, rngs=nnx.Rngs(0)))
    x = gaussian(SHAPE)[0].astype(jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    assert layer.mean[...].dtype == layer.var[...].dtype == jnp.float32


def test_masks_behave_as_in_flax():
    x, mask = np.asarray(gaussian(SHAPE)[0], np.float32), np.arange(3).reshape(3, 1, 1, 1) < 2
    theirs, ours = (nnx.jit(lambda layer: layer(x, mask=mask))(layer) for layer in both())
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("features", [7, 1])
@pytest.mark.parametrize("options", [{}, {"mask": np.ones((3, 1), bool)}])
def test_other_numbers_of_channels_are_refused(features, options):
    layer = filled(lambda: BatchNorm(features, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=rf"x of shape \(3, 5\) has 5 channels but needs {features}"):
        layer(np.ones((3, 5)), **options)
    with pytest.raises(ValueError, match="has 5 channels"):
        layer._affine_map(np.ones((3, 5)))


def test_images_in_double_precision_leave_statistics_as_they_are_stored(float64):
    layer = BatchNorm(7, rngs=nnx.Rngs(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h = layer(jnp.asarray(gaussian(SHAPE)[0]))
    assert (h.dtype, layer.mean[...].dtype, layer.var[...].dtype) == (jnp.float64, jnp.float32, jnp.float32)
    assert layer.mean[...].any()


@pytest.mark.parametrize("use_fast_variance", [True, False])
def test_the_variance_of_complex_images_is_that_of_flax(use_fast_variance):
    x = jnp.asarray(2 + gaussian(SHAPE)[0] + 1j * gaussian(SHAPE, seed=1)[0], jnp.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax drops the imaginary part of the running mean
        theirs, ours = both(use_fast_variance=use_fast_variance)
        start, expected = theirs.mean[...], theirs(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(ours(x), expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(ours.var[...], theirs.var[...], rtol=2e-4)
    np.testing.assert_allclose(ours.mean[...], 0.9 * start + 0.1 * x.mean((0, 1, 2)), rtol=2e-4)
