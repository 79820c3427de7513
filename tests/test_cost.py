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


class Plain(nnx.Module):
    """A network of Flax's own layers, named against the order of their letters, with an array of its own in a list."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.second = nnx.Conv(2, 3, (3, 2), strides=(2, 1), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(11)])
        self.again = self.blocks[0]
        self.offsets = nnx.data([nnx.Param(jnp.zeros(5))])

    def __call__(self, x):
        x = self.norm(self.second(x)).mean((1, 2))
        for block in self.blocks:
            x = block(inputs=x)
        return self.again(x)


def test_layers_of_flax_cost_what_ours_cost_and_every_array_is_counted_once():
    model = Plain()
    layers, total = cl.count(model, (7, 5, 2))
    assert total.weights == entries(model)
    ours = cl.count(cl.Conv(2, 3, (3, 2), strides=(2, 1), padding="VALID", rngs=nnx.Rngs(0)), (7, 5, 2)).total
    [conv] = [row for row in layers if row.kind == "Conv"]
    assert conv[2:7] == ours[2:7]
    assert total.multiply_adds == ours.multiply_adds + 12 * 9
    spread = nnx.Conv(2, 3, (3, 3), input_dilation=2, padding=1, rngs=nnx.Rngs(0))
    assert cl.count(spread, (7, 5, 2)).total[3:6] == (57, 57, 0)


def test_layers_come_in_the_order_in_which_the_network_names_them():
    names = [row.name for row in cl.count(Plain(), (7, 5, 2)).layers]
    blocks = [f"blocks/{number}" for number in range(1, 11)]
    shared = {"blocks/0", "again"} & {*names}
    assert len(shared) == 1
    assert [name for name in names if name not in shared] == ["", "second", "norm", *blocks]
    pyramid = cl.models.Pyramid((8, 8, 1), 10, (2, 2), rngs=nnx.Rngs(0))
    assert [row.name for row in cl.count(pyramid, (8, 8, 1)).layers] == [
        *("stages/0/layer", "stages/0/norm", "stages/1/layer", "stages/1/norm", "head/layers/0")
    ]


def summary(capsys, model, image_shape):
    """The cells of the lines of a printed summary, by the name in front."""
    cl.summary(model, image_shape)
    lines = capsys.readouterr().out.splitlines()
    cells = [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines if "│" in line or "┃" in line
    ]
    return lines[0].strip(), {first: rest for first, *rest in cells}


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda rngs: cl.models.MLP((7, 5, 1), 10, (4,), rngs=rngs), (7, 5, 1)),
        (lambda rngs: cl.models.LeNet((13, 12, 1), 10, connectivity="tiled", rngs=rngs), (13, 12, 1)),
        (lambda rngs: cl.models.Net((8, 8, 3), batch_norm=True, dropout=0.2, rngs=rngs), (8, 8, 3)),
        (lambda rngs: cl.models.NetDeep((8, 8, 3), blocks=2, rngs=rngs), (8, 8, 3)),
        (lambda rngs: cl.models.Pyramid((11, 1), 10, (2, 3), connectivity="locally_connected", rngs=rngs), (11, 1)),
        (lambda rngs: Plain(), (7, 5, 2)),
    ],
)
def test_a_summary_has_a_line_for_every_layer_and_one_for_all(capsys, build, shape):
    model = build(nnx.Rngs(0))
    layers, total = cl.count(model, shape)
    title, lines = summary(capsys, model, shape)
    assert title == f"{type(model).__name__} on {'x'.join(map(str, shape))}"
    assert [*lines] == ["layer", *(row.name for row in layers), "total"]
    for row in (*layers, total):
        numbers = [f"{number:,}" for number in (row.weights, row.live, row.multiply_adds, row.bytes)]
        assert lines[row.name][3:] == [*numbers[:2], numbers[2] * (row.multiply_adds > 0), numbers[3]]
        assert lines[row.name][2] == "x".join(map(str, row.output_shape))


def test_a_summary_says_how_a_layer_is_connected_and_what_it_reads(capsys):
    layer = cl.Tiled(2, 4, (3, 2), strides=(1, 2), kernel_dilation=2, period=(2, 1), padding=1, rngs=nnx.Rngs(0))
    _, lines = summary(capsys, nnx.Sequential(layer), (9, 8, 2))
    assert lines["layers/0"][:2] == ["Tiled, period 2x1", "3x2, stride 1x2, dilation 2x2, padding 1x1"]
    model = nnx.Sequential(
        cl.LowRank(2, 4, 3, rank=5, space=(6, 5), rngs=nnx.Rngs(0)),
        cl.Conv(4, 4, (3, 3), padding="CIRCULAR", feature_group_count=2, rngs=nnx.Rngs(0)),
        cl.Dense(4, 3, (3, 3), space=(6, 5), rngs=nnx.Rngs(0)),
        cl.Conv(3, 1, (3, 3), padding=((1, 0), (0, 2)), rngs=nnx.Rngs(0)),
    )
    _, lines = summary(capsys, model, (6, 5, 2))
    told = [lines[f"layers/{number}"][:3] for number in range(4)]
    assert told[0] == ["LowRank, rank 5", "3x3, SAME", "6x5x4"]
    assert told[1] == ["Conv, 2 groups", "3x3, CIRCULAR", "6x5x4"]
    assert told[2] == ["Dense", "", "6x5x3"]
    assert told[3] == ["Conv", "3x3, padding 1x0 below, 0x2 above", "5x5x1"]
