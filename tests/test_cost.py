"""Costs against loops over taps, the compiler's counts and published numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from hypothesis import given, settings
from networks import filled
from strategies import windows

import convlab as cl
from convlab.layers import CONNECTIVITY, connect
from convlab.norm import BatchNorm


def shapes(kind, *sizes, **options):
    """The shapes of a network or layer."""
    return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def numbers(kind, *sizes, **options):
    """A network or layer with its weights."""
    return filled(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def entries(layer):
    return sum(array.size for array in jax.tree.leaves(nnx.state(layer, nnx.Param)))


@given(windows(cells=300))
@settings(max_examples=25)
def test_multiply_adds_count_taps_on_pixels_and_live_weights_count_taps_that_read_one(drawn):
    window, space, reads = drawn
    taps = list(oracle.each_tap(reads))
    arguments = [(window.size, window.strides), {"padding": window.padding, "kernel_dilation": window.dilation}]
    build = functools.partial(shapes, **arguments[1], space=space, use_bias=False)
    conv = cl.count(build(cl.Conv, 3, 2, *arguments[0]), (*space, 3)).total
    local = cl.count(build(cl.LocallyConnected, 3, 2, *arguments[0]), (*space, 3)).total
    low = cl.count(build(cl.LowRank, 3, 2, *arguments[0], rank=4), (*space, 3)).total
    dense = cl.count(build(cl.Dense, 3, 2, *arguments[0]), (*space, 3)).total
    positions, pixels = np.prod(oracle.out_shape(reads)), np.prod(space)
    assert conv.multiply_adds == local.multiply_adds == 6 * len(taps)
    assert low.multiply_adds == 4 * 6 * len(taps) + 4 * 2 * positions
    assert dense.multiply_adds == dense.weights == dense.live_weights == 6 * positions * pixels
    assert local.live_weights == 6 * len({(position, tap) for position, tap, _ in taps})
    assert conv.live_weights == 6 * len({tap for _, tap, _ in taps})
    assert low.live_weights == 4 * conv.live_weights + 4 * positions
    assert conv.weights == 6 * np.prod(window.size)


def test_a_weight_of_a_tile_is_live_if_any_of_its_positions_reads_a_pixel():
    layer = shapes(cl.Tiled, 1, 1, (3,), padding="SAME", period=4, use_bias=False)
    total = cl.count(layer, (4, 1)).total  # one position per kernel; both border taps are dead
    assert (total.weights, total.live_weights, total.multiply_adds) == (12, 10, 10)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_weights_are_the_sizes_of_the_arrays_and_bytes_four_times_as_many(connectivity):
    layer = shapes(connect, connectivity, 2, 3, (3, 2), (2, 1), space=(7, 5))
    total = cl.count(layer, (7, 5, 2)).total
    assert total.weights == entries(layer)
    assert total.bytes == 4 * total.weights
    assert total.output_shape == (4, 5, 3)


# --- against the compiler --------------------------------------------------------------------------------------------


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def flops(op, *arrays):
    """The number of operations by XLA's analysis of the compiled op."""
    return jax.jit(op).lower(*arrays).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("padding", ["VALID", "SAME", "FULL", "CIRCULAR", ((2, 0), (1, 2))], ids=str)
def test_the_compiler_counts_the_same_for_its_convolution_also_at_borders(padding):
    window, x, v = cl.Window((3, 2), (2, 1), padding), floats(1, 9, 8, 3), floats(3, 2, 3, 5)
    arguments = [(3, 2), (2, 1)]
    conv = cl.count(shapes(cl.Conv, 3, 5, *arguments, padding=padding, use_bias=False), (9, 8, 3)).total
    assert flops(functools.partial(cl.conv, window=window, implementation="lax"), x, v) == 2 * conv.multiply_adds
    low = cl.count(shapes(cl.LowRank, 3, 5, *arguments, padding=padding, rank=4, space=(9, 8), use_bias=False), (9, 8, 3)).total
    arrays = floats(4, *v.shape), floats(*window.output_shape((9, 8)), 4)
    assert flops(functools.partial(cl.low_rank, window=window, implementation="lax"), x, *arrays) == 2 * low.multiply_adds


def test_the_compiler_counts_products_with_padding_too_where_windows_are_copied():
    x, v = floats(1, 9, 8, 3), floats(9, 8, 3, 2, 3, 5)
    for padding, gap in (("CIRCULAR", 0), ("SAME", 9 * 8 * 3 * 2 - (9 * 3 - 2) * (8 * 2 - 1))):
        window = cl.Window((3, 2), padding=padding)
        layer = shapes(cl.LocallyConnected, 3, 5, (3, 2), padding=padding, space=(9, 8), use_bias=False)
        counted = cl.count(layer, (9, 8, 3)).total.multiply_adds
        for implementation in ("windows", "blocks"):
            op = functools.partial(cl.locally_connected, window=window, implementation=implementation)
            assert flops(op, x, v) == 2 * (counted + gap * 3 * 5)
        conv = functools.partial(cl.conv, window=window, implementation="windows")
        assert flops(conv, x, floats(*v.shape[2:])) == 2 * (counted + gap * 3 * 5)


def test_the_compiler_counts_the_same_for_dense_layers():
    x, w = floats(4, 9, 8, 3), floats(5, 7, 9, 8, 3, 5)
    layer = shapes(cl.Dense, 3, 5, (3, 2), (2, 1), space=(9, 8), padding=((1, 1), (0, 0)), use_bias=False)
    assert flops(cl.dense, x, w) == 4 * 2 * cl.count(layer, (9, 8, 3)).total.multiply_adds
    linear = shapes(nnx.Linear, 7, 5, use_bias=False)
    assert flops(jnp.dot, floats(8, 7), floats(7, 5)) == 8 * 2 * cl.count(linear, (7,)).total.multiply_adds


# --- against published numbers ---------------------------------------------------------------------------------------

MEGAPIXEL, CIFAR, MNIST, IMAGENET = (1000, 1000, 1), (32, 32, 3), (28, 28, 1), (224, 224, 3)
D2L, BOOK, FORUM = "Dive into Deep Learning", "Deep Learning with PyTorch", "the forum on it"


def of(kind, *sizes, **options):
    """A function that builds the shapes of a network or layer."""
    return functools.partial(shapes, kind, *sizes, **options)


def units(space, number):
    """A dense layer with a number of units on an image."""
    return of(cl.Dense, 1, number, space, padding="VALID", space=space, use_bias=False)


def stem(*channels):
    """Convolutions of 3x3 without bias, the first with stride 2."""
    pairs = list(zip(channels, channels[1:], strict=False))
    return nnx.Sequential(*(shapes(cl.Conv, *pair, (3, 3), 1 if n else 2, use_bias=False) for n, pair in enumerate(pairs)))


def padded(space, size):
    """The number of taps on padding of a SAME window of odd size and stride 1."""
    return math.prod(n * size for n in space) - math.prod(n * size - size**2 // 4 for n in space)


LENET, NET, DEEP, MLP = cl.models.LeNet, cl.models.Net, cl.models.NetDeep, cl.models.MLP
FULL = of(cl.Conv, 1, 1, cl.Window.full(MEGAPIXEL[:2]).size, use_bias=False)
LARGE = of(cl.Conv, 128, 128, (5, 5), use_bias=False)
STEM, STEM_C = of(cl.Conv, 3, 64, (7, 7), 2, use_bias=False), functools.partial(stem, 3, 32, 32, 64)
PUBLISHED = [  # description, source, attribute, network, image shape, published number, and its error
    ("a megapixel to 1000 units", D2L, "weights", units((1000, 1000), 1000), MEGAPIXEL, 10**9, 0),
    ("100,000 pixels to 1000 units", D2L, "weights", units((400, 250), 1000), (400, 250, 1), 10**8, 0),
    ("V of a megapixel, 'at most 1 million'", D2L, "weights", FULL, MEGAPIXEL, 10**6, 10**6 - 3_996_001),
    ("LeNet", D2L, "weights", of(LENET, MNIST, 10), MNIST, 61_706, 0),
    ("LeNet, with padding", D2L, "multiply_adds", of(LENET, MNIST, 10), MNIST, 416_520, 6 * padded((28, 28), 5)),
    ("128 to 128, with padding", D2L, "multiply_adds", LARGE, (256, 256, 128), 26_843_545_600, 128**2 * padded((256, 256), 5)),
    ("9 uses of each of 3x3 pixels", BOOK, "multiply_adds", of(cl.Conv, 1, 1, (3, 3)), (3, 3, 1), 81, 81 - 4 * 4 - 4 * 6 - 9),
    ("Net", BOOK, "weights", of(NET), CIFAR, 18_090, 0),
    ("Net, locally connected", BOOK, "weights", of(NET, connectivity="locally_connected"), CIFAR, 772_194, 0),
    ("NetWidth", BOOK, "weights", of(NET, width=32), CIFAR, 38_386, 0),
    ("NetDropout", BOOK, "weights", of(NET, width=32, dropout=0.4), CIFAR, 38_386, 0),
    ("NetBatchNorm", BOOK, "weights", of(NET, width=32, batch_norm=True), CIFAR, 38_482, 0),
    ("NetRes", BOOK, "weights", of(NET, width=32, depth=3, residual=True), CIFAR, 16_130, 0),
    ("100 blocks, which are one", BOOK, "weights", of(DEEP, blocks=100, tied=True), CIFAR, 994_530, 994_530 - 75_810),
    ("MLP of 512", BOOK, "weights", of(MLP, CIFAR, 2, (512,)), CIFAR, 1_574_402, 0),
    ("MLP of 1024, 512, 128", BOOK, "weights", of(MLP, CIFAR, 2, (1024, 512, 128)), CIFAR, 3_737_474, 0),
    ("stem of ResNet", FORUM, "weights", STEM, IMAGENET, 9_408, 0),
    ("stem of ResNet-C", FORUM, "weights", STEM_C, IMAGENET, 28_512, 0),
]


@pytest.mark.parametrize(
    "description, source, name, build, shape, published, error", PUBLISHED, ids=[row[0] for row in PUBLISHED]
)
def test_counts_equal_published_numbers_or_differ_by_known_amounts(description, source, name, build, shape, published, error):
    assert getattr(cl.count(build(), shape).total, name) == published - error


def test_the_stem_meant_to_save_arithmetic_costs_three_times_as_much():
    plain, deep = (cl.count(model, IMAGENET).total.multiply_adds for model in (STEM(), STEM_C()))
    assert 3.0 < deep / plain < 3.1


def test_weights_depend_only_on_kernel_and_filters_unless_positions_have_separate_kernels():
    spaces = ((16, 11), (32, 22))
    for rung, ratio in (("conv", 1), ("tiled", 1), ("locally_connected", 4), ("dense", 16)):
        small, large = (
            cl.count(shapes(connect, rung, 3, 5, (3, 3), space=space, use_bias=False), (*space, 3)).total for space in spaces
        )
        assert large.weights == ratio * small.weights


def net(image, rung, layers, widths):
    """The number of weights of spatial layers (channels, size, stride) and dense layers."""
    *space, c = image
    total = 0
    for d, size, stride in layers:
        layer = shapes(connect, rung, c, d, size, stride, space=space, use_bias=False)
        cost = cl.count(layer, (*space, c)).total
        (*space, c), total = cost.output_shape, total + cost.weights
    c *= math.prod(space)
    for d in widths:
        total, c = total + cl.count(shapes(nnx.Linear, c, d, use_bias=False), (c,)).total.weights, d
    return total


@pytest.mark.parametrize("s, a, c", [(32, 2, 10), (16, 3, 7)])
def test_the_shallow_and_the_deep_net_have_as_many_weights_as_their_formulas(s, a, c):
    shallow = [(a, 9, 2)], (24 * a, c)
    formulas = {"conv": 243 * a, "locally_connected": 243 * s**2 * a // 4, "dense": 3 * s**4 * a // 4}
    for rung, first in formulas.items():
        assert net((s, s, 3), rung, *shallow) == 6 * s**2 * a**2 + 24 * c * a + first
    deep = [(a * 2 ** ((n + 1) // 2), 3, 1 + n % 2) for n in range(8)], (64 * a, c)
    assert [d // a for d, _, _ in deep[0]] == [1, 2, 2, 4, 4, 8, 8, 16]
    local = (45 + 4) * s**2 * a**2 + (27 * s**2 + 64 * c) * a  # the paper has another number
    assert net((s, s, 3), "locally_connected", *deep) == local
    assert net((s, s, 3), "conv", *deep) == (9 * 254 + 4 * s**2) * a**2 + (27 + 64 * c) * a


# --- networks --------------------------------------------------------------------------------------------------------


def test_a_network_costs_the_sum_of_its_layers_and_is_not_changed():
    model = numbers(cl.models.Pyramid, (12, 11, 1), 10, (2, 3))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    layers, total = cl.count(model, (12, 11, 1))
    assert total.weights == entries(model) == sum(row.weights for row in layers)
    assert total.multiply_adds == sum(row.multiply_adds for row in layers)
    assert {row.kind for row in layers} == {"Conv", "BatchNorm", "Linear"}
    after = nnx.to_pure_dict(nnx.state(model))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    assert not model.stages[0].norm.use_running_average


def test_a_layer_called_twice_counts_its_multiply_adds_twice_and_its_weights_once():
    class Twice(nnx.Module):
        def __init__(self):
            self.layer = cl.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.layer(self.layer(x))

    model = filled(Twice)
    once, twice = cl.count(model.layer, (5, 5, 2)).total, cl.count(model, (5, 5, 2)).total
    assert (twice.multiply_adds, twice.weights) == (2 * once.multiply_adds, once.weights)


def test_images_that_do_not_fit_the_model_are_an_error():
    with pytest.raises(ValueError, match="inputs has 3 channels"):
        cl.count(shapes(cl.Conv, 2, 2, (3, 3)), (5, 5, 3))


class Several(nnx.Module):
    """A network that returns its output and an intermediate array."""

    def __init__(self):
        self.first, self.second = shapes(cl.Conv, 2, 3, (3, 2), (2, 1)), shapes(cl.Conv, 3, 4, (3, 3), (2, 1))

    def __call__(self, x):
        h = self.first(x)
        return {"b": h, "a": self.second(h)}


def test_the_first_of_several_outputs_is_measured():
    layers, total = cl.count(Several(), (7, 5, 2))
    assert total.multiply_adds == sum(layer.multiply_adds for layer in layers) > 0
    assert total[2] == layers[1].output_shape == (2, 5, 4)
    assert (total.receptive_field, total.effective_stride) == (layers[1].receptive_field, layers[1].effective_stride)


def test_a_model_of_shapes_has_the_same_costs_and_is_never_in_memory():
    options = {"width": 4, "batch_norm": True, "dropout": 0.2}
    model = shapes(cl.models.Net, (7, 5, 2), **options)
    assert cl.count(model, (7, 5, 2)) == cl.count(numbers(cl.models.Net, (7, 5, 2), **options), (7, 5, 2))
    total = cl.count(shapes(cl.Dense, 1, 1, 3, space=MEGAPIXEL[:2]), MEGAPIXEL).total
    assert (total.weights, total.multiply_adds, total.bytes) == (10**12 + 10**6, 10**12, 4 * (10**12 + 10**6))
    wide = cl.count(FULL(), MEGAPIXEL).total
    assert (wide.live_weights, wide.multiply_adds) == (1999**2, 10**12)  # as many multiply-adds as the dense layer


def test_counts_in_the_tree_mode_of_flax_too():
    model = shapes(cl.models.Pyramid, (7, 5, 2), 3, (4, 3))
    with nnx.set_graph_mode(False):
        in_tree_mode = cl.count(shapes(cl.models.Pyramid, (7, 5, 2), 3, (4, 3)), (7, 5, 2))
    assert in_tree_mode == cl.count(model, (7, 5, 2))


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, param_dtype, sizes",
    [
        (None, jnp.float32, (4, 4)),
        (jnp.bfloat16, jnp.float32, (4, 2)),
        (None, jnp.bfloat16, (2, 4)),
        (None, jnp.float64, (8, 8)),
    ],
    ids=str,
)
def test_bytes_are_those_of_each_dtype(dtype, param_dtype, sizes):
    with jax.enable_x64(True):
        layer = shapes(cl.Conv, 2, 3, (3, 2), (2, 1), dtype=dtype, param_dtype=param_dtype)
        total = cl.count(layer, (7, 5, 2)).total
    assert (total.weights, total.activations) == (39, 4 * 5 * 3)
    assert (total.bytes, total.input_bytes, total.output_bytes) == (sizes[0] * 39, 4 * 70, sizes[1] * 60)


def test_activations_and_bytes_are_summed_over_calls():
    model = nnx.eval_shape(Plain)
    layers, total = cl.count(model, (7, 5, 2))
    rows = {row.name: row for row in layers}
    assert rows["second"].activations == 3 * 4 * 3 == rows["norm"].activations
    assert sorted(row.activations for row in layers if row.kind == "Linear") == [3] * 10 + [6]  # one is called twice
    assert total.activations == 36 + 36 + 12 * 3
    assert (total.input_bytes, total.output_bytes) == (4 * (70 + 36 + 36), 4 * total.activations)


class Masked(nnx.Module):
    """A batch norm whose call is that of its base class."""

    def __init__(self):
        self.norm = BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(x, mask=jnp.ones(x.shape, bool))


def test_a_call_inside_a_call_is_counted_once():
    assert cl.count(nnx.eval_shape(Masked), (7, 5, 3)).total.activations == 7 * 5 * 3


def test_intensity_is_multiply_adds_per_byte_with_weights_read_once_per_batch():
    conv = cl.count(shapes(cl.Conv, 2, 3, (3, 2), padding="VALID", use_bias=False), (7, 5, 2)).total
    products, weights, images = 5 * 4 * 36, 4 * 36, 4 * (70 + 60)
    assert conv.multiply_adds == products
    for n in (1, 5):
        assert conv.intensity(n) == n * products / (weights + n * images)
    dense = cl.count(shapes(cl.Dense, 2, 3, (3, 2), space=(7, 5), use_bias=False), (7, 5, 2)).total
    assert dense.intensity() < 0.25 < 3 < dense.intensity(100)  # one product for each weight of four bytes
    layers, total = cl.count(shapes(cl.models.Pyramid, (7, 5, 2), 3, (4, 3)), (7, 5, 2))
    moved = sum(row.bytes + 5 * (row.input_bytes + row.output_bytes) for row in layers)
    assert total.intensity(5) == pytest.approx(5 * total.multiply_adds / moved)
    assert cl.count(nnx.Sequential(nnx.relu), (7, 5, 2)).total.intensity() == 0


class Plain(nnx.Module):
    """A network of Flax layers, with names not in alphabetical order and an array in a list."""

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


def test_flax_layers_have_the_same_costs_and_every_array_is_counted_once():
    model = filled(Plain)
    layers, total = cl.count(model, (7, 5, 2))
    assert total.weights == entries(model)
    ours = cl.count(shapes(cl.Conv, 2, 3, (3, 2), strides=(2, 1), padding="VALID"), (7, 5, 2)).total
    [conv] = [row for row in layers if row.kind == "Conv"]
    assert conv[2:-2] == ours[2:-2]
    assert total.multiply_adds == ours.multiply_adds + 12 * 9
    spread = shapes(nnx.Conv, 2, 3, (3, 3), input_dilation=2, padding=1)
    taps = (7 + 2 * 6) * (5 + 2 * 4)  # on a pixel one tap reads a pixel, between two pixels two taps
    assert cl.count(spread, (7, 5, 2)).total[3:6] == (57, 57, 6 * taps)


def test_layers_are_listed_in_the_order_of_definition():
    names = [row.name for row in cl.count(Plain(), (7, 5, 2)).layers]
    blocks = [f"blocks/{number}" for number in range(1, 11)]
    shared = {"blocks/0", "again"} & {*names}
    assert len(shared) == 1
    assert [name for name in names if name not in shared] == ["", "second", "norm", *blocks]
    pyramid = cl.models.Pyramid((8, 8, 1), 10, (2, 2), rngs=nnx.Rngs(0))
    assert [row.name for row in cl.count(pyramid, (8, 8, 1)).layers] == [
        *("stages/0/layer", "stages/0/norm", "stages/1/layer", "stages/1/norm", "head/layers/0")
    ]


def summary(model, image_shape, **options):
    """The cells of each row of a printed summary by the layer's name. A header can take several lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convlab.report.table.PLAIN_WIDTH", 400)  # one table, however wide
        title, *lines = str(cl.summary(model, image_shape, **options)).splitlines()
    head = [[cell.strip() for cell in line.strip("┃").split("┃")] for line in lines if line.startswith("┃")]
    body = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    header = [" ".join(filter(None, words)) for words in zip(*head, strict=True)]
    return title.strip(), {first: columns for first, *columns in (header, *body)}


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
def test_a_summary_has_a_row_for_every_layer_and_a_total(build, shape):
    model = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    layers, total = cl.count(model, shape)
    title, lines = summary(model, shape)
    assert title == f"{type(model).__name__} on {'x'.join(map(str, shape))}"
    assert [*lines] == ["layer", *(row.name for row in layers), "total"]
    for row in (*layers, total):
        numbers = [f"{number:,}" for number in (row.weights, row.live_weights, row.multiply_adds, row.bytes)]
        assert lines[row.name][4:8] == [*numbers[:2], numbers[2] * (row.multiply_adds > 0), numbers[3]]
        assert lines[row.name][2:4] == ["x".join(map(str, sizes)) for sizes in (row.output_shape, row.receptive_field)]
        assert float(lines[row.name][8] or 0) == pytest.approx(row.intensity(), rel=1e-3)


def test_a_summary_shows_the_chosen_columns():
    model = nnx.Sequential(shapes(cl.Conv, 2, 3, (3, 2), (2, 1)), lambda x: jnp.sort(x, 1), shapes(nnx.Linear, 3, 4))
    columns = ("layer", "effective_stride", "activations", "receptive_field", "intensity")
    _, lines = summary(model, (7, 5, 2), columns=columns)
    assert lines["layer"] == [column.replace("_", " ") for column in columns[1:]]
    assert lines["layers/0"][:3] == ["2x1", "60", "3x2"]
    assert lines["layers/2"][:3] == ["-x-", "80", "?x?"]
    assert lines["total"][1] == "140"
    with pytest.raises(ValueError, match="column 'flops' is unknown; needs one of layer, kind"):
        cl.summary(model, (7, 5, 2), ("layer", "flops"))


def test_a_summary_shows_the_tying_and_window_of_a_layer():
    layer = shapes(cl.Tiled, 2, 4, (3, 2), strides=(1, 2), kernel_dilation=2, period=(2, 1), padding=1)
    _, lines = summary(nnx.Sequential(layer), (9, 8, 2))
    assert lines["layers/0"][:2] == ["Tiled, period 2x1", "3x2, stride 1x2, dilation 2x2, padding 1x1"]
    model = nnx.Sequential(
        shapes(cl.LowRank, 2, 4, 3, rank=5, space=(6, 5)),
        shapes(cl.Conv, 4, 4, (3, 3), padding="CIRCULAR", feature_group_count=2),
        shapes(cl.Dense, 4, 3, (3, 3), space=(6, 5)),
        shapes(cl.Conv, 3, 1, (3, 3), padding=((1, 0), (0, 2))),
    )
    _, lines = summary(model, (6, 5, 2))
    cells_of = [lines[f"layers/{number}"][:3] for number in range(4)]
    assert cells_of[0] == ["LowRank, rank 5", "3x3, SAME", "6x5x4"]
    assert cells_of[1] == ["Conv, 2 groups", "3x3, CIRCULAR", "6x5x4"]
    assert cells_of[2] == ["Dense", "", "6x5x3"]
    assert cells_of[3] == ["Conv", "3x3, padding 1x0 below, 0x2 above", "5x5x1"]
