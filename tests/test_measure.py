"""Costs: against loops over taps, against the compiler's own count, and against the numbers that the texts print."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from hypothesis import given, settings
from strategies import windows

import convlab as cl
from convlab.layers import CONNECTIVITY, connect


def entries(layer):
    return sum(array.size for array in jax.tree.leaves(nnx.state(layer, nnx.Param)))


@given(windows(cells=300))
@settings(max_examples=4)
def test_multiply_adds_are_the_taps_that_read_a_pixel_and_live_weights_those_that_ever_do(drawn):
    window, space, reads = drawn
    taps = list(oracle.each_tap(reads))
    places = [(window.size, window.strides), {"padding": window.padding, "kernel_dilation": window.dilation}]
    shape, options = (*space, 3), {"space": space, "rngs": nnx.Rngs(0), "use_bias": False}
    conv = cl.count(cl.Conv(3, 2, *places[0], **places[1], **options), shape).total
    local = cl.count(cl.LocallyConnected(3, 2, *places[0], **places[1], **options), shape).total
    low = cl.count(cl.LowRank(3, 2, *places[0], **places[1], rank=4, **options), shape).total
    dense = cl.count(cl.Dense(3, 2, *places[0], **places[1], **options), shape).total
    positions, pixels = np.prod(oracle.out_shape(reads)), np.prod(space)
    assert conv.multiply_adds == local.multiply_adds == 6 * len(taps)
    assert low.multiply_adds == 4 * 6 * len(taps) + 4 * 2 * positions
    assert dense.multiply_adds == dense.weights == dense.live == 6 * positions * pixels
    assert local.live == 6 * len({(position, tap) for position, tap, _ in taps})
    assert conv.live == 6 * len({tap for _, tap, _ in taps})
    assert low.live == 4 * conv.live + 4 * positions
    assert conv.weights == 6 * np.prod(window.size)


def test_a_tile_counts_the_taps_that_some_position_of_its_place_reads():
    layer = cl.Tiled(1, 1, (3,), padding="SAME", period=4, use_bias=False, rngs=nnx.Rngs(0))
    total = cl.count(layer, (4, 1)).total  # each kernel stands at one position; both border taps are dead
    assert (total.weights, total.live, total.multiply_adds) == (12, 10, 10)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_weights_are_those_of_the_arrays_and_bytes_four_times_as_many(connectivity):
    layer = connect(connectivity, 2, 3, (3, 2), (2, 1), space=(7, 5), rngs=nnx.Rngs(0))
    total = cl.count(layer, (7, 5, 2)).total
    assert total.weights == entries(layer)
    assert total.bytes == 4 * total.weights
    assert total.output_shape == (4, 5, 3)


def test_lenet_costs_what_the_texts_print_but_for_products_with_padding():
    model = cl.models.LeNet((28, 28, 1), 10, rngs=nnx.Rngs(0))
    total = cl.count(model, (28, 28, 1)).total
    padding = 6 * (28 * 28 * 25 - 134**2)  # an axis of 28 pixels under 5 taps has 28 * 5 - 6 live ones
    assert total.weights == 61_706
    assert total.multiply_adds == 416_520 - padding


def test_a_convolution_of_the_texts_costs_27_billion_products_but_for_padding():
    window, n = cl.Window(5), 256
    live = int(window.live((n,)).sum()) ** 2 * 128 * 128
    layer = cl.Conv(128, 128, (5, 5), use_bias=False, rngs=nnx.Rngs(0))
    assert cl.count(layer, (n, n, 128)).total.multiply_adds == live
    assert n * n * 25 * 128 * 128 == 26_843_545_600 > live > 0.98 * 26_843_545_600


def test_the_compiler_counts_the_same_where_nothing_is_padded():
    model = cl.Conv(3, 8, (3, 3), padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    analysis = jax.jit(lambda x: model(x)).lower(jnp.ones((1, 9, 8, 3))).compile().cost_analysis()
    assert analysis["flops"] == pytest.approx(2 * cl.count(model, (9, 8, 3)).total.multiply_adds, rel=0.01)


def test_a_network_is_the_sum_of_its_layers_and_is_left_as_it_was():
    model = cl.models.Pyramid((12, 12, 1), 10, rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model)))
    layers, total = cl.count(model, (12, 12, 1))
    assert total.weights == entries(model) == sum(row.weights for row in layers)
    assert total.multiply_adds == sum(row.multiply_adds for row in layers)
    assert {row.kind for row in layers} == {"Conv", "BatchNorm", "Linear"}
    after = nnx.to_pure_dict(nnx.state(model))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), before, after)))
    assert not model.stages[0].norm.use_running_average


def test_a_layer_that_is_called_twice_costs_its_products_twice_and_its_weights_once():
    class Twice(nnx.Module):
        def __init__(self):
            self.layer = cl.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.layer(self.layer(x))

    once, twice = cl.count(Twice().layer, (5, 5, 2)).total, cl.count(Twice(), (5, 5, 2)).total
    assert (twice.multiply_adds, twice.weights) == (2 * once.multiply_adds, once.weights)


def test_images_that_the_model_does_not_take_are_refused():
    with pytest.raises(ValueError, match="x has 3 channels"):
        cl.count(cl.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0)), (5, 5, 3))
