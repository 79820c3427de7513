"""Layers on images with missing pixels, against loops over the valid pixels of every window."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import case, gaussian, windows

import convlab as cl

pytestmark = pytest.mark.usefixtures("float64")


@given(windows(cells=300), st.integers(0, 9))
@example(case((7, 5), (3, 2), (2, 1), ("CIRCULAR", (1, 2)), (1, 2)), 3)
@settings(max_examples=5)
def test_partial_layers_use_valid_pixels_alone_and_rescale_by_their_share(drawn, seed):
    window, space, reads = drawn
    valid = np.random.default_rng(seed).random(space) < 0.6
    [x] = gaussian((*space, 2), seed=seed)
    [v] = gaussian((*oracle.out_shape(reads), *window.size, 2, 3), seed=seed + 1)
    x[~valid] = np.nan
    h, seen = jax.jit(lambda x, v: cl.partial_convolution(lambda x: cl.locally_connected(x, v, window), x, valid, window))(x, v)
    expected, live, used = np.zeros(h.shape), np.zeros(h.shape[:-1]), np.zeros(h.shape[:-1])
    for position, tap, pixel in oracle.each_tap(reads):
        live[position] += 1
        if valid[pixel]:
            used[position] += 1
            expected[position] += x[pixel] @ v[(*position, *tap)]
    close(h, expected * (live / np.maximum(used, 1))[..., None], 1e-6)
    np.testing.assert_array_equal(seen, used > 0)


def test_missing_pixels_have_no_gradient_and_all_valid_pixels_change_nothing():
    window = cl.Window((3, 3), 2)
    x, v = gaussian((2, 7, 5, 2), (3, 3, 2, 3))
    layer, every = (lambda x: cl.conv(x, v, window)), np.ones((7, 5), bool)
    close(cl.partial_convolution(layer, x, every, window)[0], layer(x), 1e-12)
    valid = np.random.default_rng(0).random((2, 7, 5)) < 0.5
    gradient = jax.grad(lambda x: jnp.sum(cl.partial_convolution(layer, x, valid, window)[0] ** 2))(jnp.asarray(x))
    assert not gradient[~valid].any()
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize(
    "valid, error, match",
    [
        (np.ones((7, 5)), TypeError, "valid must be boolean, got dtype float64"),
        (
            np.ones((5, 7), bool),
            ValueError,
            r"valid has shape \(5, 7\); needs the pixels \(7, 5\) or also the batch, \(2, 7, 5\)",
        ),
    ],
)
def test_other_masks_are_refused(valid, error, match):
    window = cl.Window((3, 3))
    with pytest.raises(error, match=match):
        cl.partial_convolution(lambda x: x, np.ones((2, 7, 5, 1)), valid, window)
    with pytest.raises(ValueError, match=r"apply returns \(4, 5\) positions but .* has \(7, 5\)"):
        cl.partial_convolution(lambda x: x[:, :4], np.ones((2, 7, 5, 1)), np.ones((7, 5), bool), window)
