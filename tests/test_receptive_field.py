"""Receptive fields pixel by pixel against formulas and loops, and the effective field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from networks import SMALL, filled, images
from strategies import gaussian

import convlab as cl
from convlab.measure import effective_receptive_field, feature_maps, input_dependencies, receptive_field
from convlab.ops.pool import polyphase_pool


def net(*layers):
    return nnx.Sequential(*layers)


def layer(kind, *arguments, **options):
    return filled(lambda: kind(*arguments, **options, rngs=nnx.Rngs(0)))


conv = functools.partial(layer, cl.Conv)


POOL = functools.partial(cl.max_pool, window=cl.Window(2, 2, "VALID"))
NETS = {  # networks for images of (31, 29, 2)
    "strides and dilation": lambda: net(conv(2, 3, (3, 5), (2, 1)), nnx.relu, conv(3, 2, (2, 3), kernel_dilation=(1, 2))),
    "pools": lambda: net(conv(2, 3, (3, 3)), POOL, nnx.relu, POOL, conv(3, 2, (3, 2))),
    "flax": lambda: net(
        layer(nnx.Conv, 2, 3, (3, 5)),
        layer(nnx.BatchNorm, 3),
        nnx.gelu,
        lambda x: nnx.max_pool(x, (3, 2), (2, 2)),
        lambda x: nnx.avg_pool(x, (2, 2)),
    ),
    "blocks": lambda: net(conv(2, 16, (3, 3)), POOL, lambda x: x + jnp.pad(x[:, 2:], ((0, 0), (1, 1), (0, 0), (0, 0)))),
}


@pytest.mark.parametrize("name", ["strides and dilation", "pools", "flax"])
def test_the_field_of_the_central_output_is_a_box_of_the_counted_size(name):
    model = NETS[name]()
    mask = receptive_field(model, (31, 29, 2))
    rows, columns = mask.any(1), mask.any(0)
    assert (rows.sum(), columns.sum()) == cl.count(model, (31, 29, 2)).total.receptive_field
    np.testing.assert_array_equal(mask, np.outer(rows, columns))
    for line in (rows, columns):
        assert line[np.flatnonzero(line)[0] : np.flatnonzero(line)[-1] + 1].all()


def test_a_maximum_and_a_residual_connection_depend_on_all_their_operands():
    model = NETS["blocks"]()
    assert cl.count(model, (31, 29, 2)).total.receptive_field == (6, 4)
    mask = receptive_field(model, (31, 29, 2), position=(7, 7))
    assert np.argwhere(mask).min(0).tolist() == [13, 13]
    assert np.argwhere(mask).max(0).tolist() == [18, 16]


@pytest.mark.parametrize("name", ["Net"])
def test_gradients_are_zero_outside_the_receptive_field(name):
    build, shape = SMALL[name]
    model = filled(lambda: build(rngs=nnx.Rngs(0)))
    layer = "stages/1/layer"
    masks = input_dependencies(model, shape, layer, (0, 1))
    assert list(masks)[:2] == ["image", "stages/0/layer"]
    assert masks[layer].sum() == 1
    assert masks[layer][0, 1]
    assert not masks["head/layers/0"].any()
    extent = next(cost.receptive_field for cost in cl.count(model, shape).layers if cost.name == layer)
    assert 0 < masks["image"].any(1).sum() <= extent[0]
    gradient = jax.jit(jax.grad(lambda x: feature_maps(model, x, layer)[layer][:, 0, 1].sum()))
    reached = np.abs(gradient(images(5, *shape))).max((0, -1)) > 0
    assert reached.any()
    assert not (reached & ~masks["image"]).any()


def test_dependencies_follow_the_windows_of_each_layer():
    windows = [cl.Window((3, 2), 2), cl.Window((2, 3), (1, 2), "VALID")]
    model = net(conv(2, 3, (3, 2), 2), nnx.relu, conv(3, 2, (2, 3), (1, 2), padding="VALID"))
    masks = input_dependencies(model, (9, 13, 2), position=(2, 1))
    between = np.zeros(windows[0].output_shape((9, 13)), bool)
    between.flat[windows[1].reads(between.shape)[2, 1].ravel()] = True
    pixels = np.zeros((9, 13), bool)
    reads = windows[0].reads((9, 13))[between]
    pixels.flat[reads[reads >= 0]] = True
    np.testing.assert_array_equal(masks["layers/0"], between)
    np.testing.assert_array_equal(masks["image"], pixels)


@pytest.mark.parametrize("padding", [("SAME", "CIRCULAR"), ("REFLECT", (0, 2)), ("EDGE", "VALID")])
def test_a_layer_and_a_pool_depend_on_the_pixels_that_their_windows_read_with_a_padding_per_axis(padding):
    window, size, strides, dilation, space = cl.Window((3, 2), (1, 2), padding, (2, 1)), (3, 2), (1, 2), (2, 1), (7, 5)
    reads = oracle.tables(space, size, strides, dilation, padding)
    layer = conv(2, 3, size, strides, padding=padding, kernel_dilation=dilation)
    for position in ((0, 0), tuple(len(table) - 1 for table in reads)):
        expected = np.zeros(space, bool)
        for at, _, pixel in oracle.each_tap(reads):
            expected[pixel] |= at == position
        for model in (layer, functools.partial(cl.max_pool, window=window)):
            np.testing.assert_array_equal(receptive_field(model, (*space, 2), position=position), expected)


@pytest.mark.filterwarnings("error::DeprecationWarning")  # JAX deprecates casts of complex to real numbers
def test_a_complex_layer_depends_on_its_pixels_and_has_no_effective_field():
    layer = conv(2, 3, (3, 2), param_dtype=jnp.complex64)
    layer.kernel[...] = 1j * jnp.arange(36.0).reshape(3, 2, 2, 3)  # one of the first tap's weights is zero
    for model in (layer, lambda x: nnx.relu(jnp.real(layer(x) ** 2))):
        mask = receptive_field(model, (7, 5, 2), position=(3, 2))
        np.testing.assert_array_equal(np.argwhere(mask), [[k, l] for k in (2, 3, 4) for l in (2, 3)])  # noqa: E741
    with pytest.raises(TypeError, match="has dtype complex64 but needs a real one"):
        effective_receptive_field(layer, np.ones((1, 7, 5, 2), np.float32))


def test_zero_weights_remove_dependencies_and_signs_do_not_matter():
    layer = conv(1, 1, (3, 3), use_bias=False)
    layer.kernel[...] = jnp.array(np.array([[1.0, 0, -1], [0, -1, 0], [0, 0, 1]])[..., None, None])
    twice = net(layer, lambda h: h - layer(h) * 0 + h * jnp.float32(0))
    assert receptive_field(layer, (5, 5, 1)).sum() == 4
    np.testing.assert_array_equal(receptive_field(twice, (5, 5, 1)), receptive_field(layer, (5, 5, 1)))


def test_pixels_behind_a_constant_mask_are_no_dependencies():
    mask = np.arange(35).reshape(7, 5, 1) % 2 == 0
    for position, pixels in (((2, 2), 1), ((2, 3), 0)):
        assert receptive_field(lambda x: jnp.where(mask, x, 0), (7, 5, 2), position=position).sum() == pixels


def test_two_calls_of_a_layer_have_separate_masks():
    layer = conv(2, 2, (3, 3))
    masks = input_dependencies(lambda x: layer(layer(x)), (7, 5, 2))
    assert [int(mask.sum()) for mask in masks.values()] == [25, 9, 1]


def test_unknown_layers_and_positions_and_dynamic_indices_are_errors():
    model = net(conv(2, 3, (3, 3)))
    with pytest.raises(ValueError, match="layer 'layers/7' is not called; needs one of image, layers/0, output"):
        input_dependencies(model, (7, 5, 2), "layers/7")
    with pytest.raises(ValueError, match=r"position is \(7, 0\) but the output has \(7, 5\) positions"):
        receptive_field(model, (7, 5, 2), position=(7, 0))
    with pytest.raises(ValueError, match="operation gather reads indices that depend on the image"):
        receptive_field(lambda x: polyphase_pool(x, cl.Window(1, 2, "CIRCULAR")), (6, 4, 2))


def test_two_3x3_layers_equal_one_5x5_layer_except_for_44_of_144_outputs_at_the_border(float64):
    x, first, second = gaussian((12, 12, 2), (3, 3, 2, 3), (3, 3, 3, 2))
    window = cl.Window(3)

    def twice(x):
        return cl.conv(cl.conv(x, first, window), second, window)

    points = np.zeros((2, 9, 9, 2))
    points[:, 4, 4] = np.eye(2)
    response = np.asarray(jax.jit(twice)(points))  # for each input channel, the kernel rotated by 180 degrees
    fused = np.moveaxis(response[:, 2:7, 2:7][:, ::-1, ::-1], 0, -2)
    differ = np.abs(jax.jit(lambda x: cl.conv(x, fused, cl.Window(5)) - twice(x))(x)).max(-1) > 1e-10
    assert differ.sum() == 44
    assert not differ[1:-1, 1:-1].any()


def deep(kernels, window):
    return lambda x: jax.lax.scan(lambda x, v: (cl.conv(x, v, window), None), x, kernels)[0]


@pytest.mark.parametrize("layers, size", [(2, (3, 5)), (7, (2, 3))])
def test_the_variance_of_the_effective_field_is_the_sum_over_layers(layers, size, float64):
    space = tuple(layers * k + 4 for k in size)
    field = effective_receptive_field(deep(np.ones((layers, *size, 1, 1)), cl.Window(size)), np.zeros((1, *space, 1)))
    np.testing.assert_allclose(field.variance, [layers * (k**2 - 1) / 12 for k in size], rtol=1e-12)
    np.testing.assert_allclose(np.sum(field.map), 1)


def test_the_effective_radius_of_random_layers_grows_with_the_square_root_of_depth(float64):
    x, (kernels,) = np.zeros((1, 41, 16)), gaussian((16, 3, 16, 16))
    fields = [effective_receptive_field(deep(kernels[:n], cl.Window((3,))), x, squared=True) for n in (4, 16)]
    variances = [np.asarray(field.variance)[0] for field in fields]
    np.testing.assert_allclose(variances, [4 * 8 / 12, 16 * 8 / 12], rtol=0.2)
    np.testing.assert_allclose(np.sqrt(variances[1] / variances[0]), 2, rtol=0.15)


NONLINEAR = {  # the number of rows that each of five rows depends on
    "sort": (lambda x: jnp.sort(x, 1), [5, 5, 5, 5, 5]),
    "order": (lambda x: x[:, ::-1] * jnp.argsort(x, 1), [5, 5, 5, 5, 5]),
    "running maximum": (lambda x: jax.lax.cummax(x, 1), [1, 2, 3, 4, 5]),
    "running product, from behind": (lambda x: jax.lax.cumprod(x, 1, reverse=True), [5, 4, 3, 2, 1]),
    "running sum": (lambda x: jnp.cumsum(x, 1), [1, 2, 3, 4, 5]),
    "frequencies": (lambda x: jnp.fft.fft(x, axis=1).real, [5, 5, 5, 5, 5]),
    "frequencies, and back": (lambda x: jnp.fft.irfft(1j * jnp.fft.rfft(x, axis=1), 5, axis=1), [5, 5, 5, 5, 5]),
    "the largest, by number": (lambda x: x + (jnp.argmax(x, 1, keepdims=True) == 2), [5, 5, 5, 5, 5]),
    "larger than the next": (lambda x: jnp.float32(x > jnp.roll(x, 1, 1)), [2, 2, 2, 2, 2]),
    "chosen by the next": (lambda x: jnp.where(jnp.roll(x, 1, 1) > 0, x, 0), [2, 2, 2, 2, 2]),
    "all positive": (lambda x: jnp.float32((x > 0).all(1, keepdims=True)) + 0 * x, [5, 5, 5, 5, 5]),
    "padded signs": (lambda x: jnp.float32(jnp.pad(x > 0, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]), [0, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_operations_depend_on_all_that_they_read(name):
    function, reads = NONLINEAR[name]
    for row, number in enumerate(reads):
        mask = receptive_field(function, (5, 3, 2), position=(row, 1))
        assert mask.sum() == mask[:, 1].sum() == number


@pytest.mark.parametrize("name", ["scan", "while"])
def test_a_loop_is_an_error(name):
    loops = {
        "scan": lambda x: jax.lax.fori_loop(0, 2, lambda _, h: jnp.roll(h, 1, 1) + h, x),
        "while": lambda x: jax.lax.while_loop(lambda h: h.sum() < 0, lambda h: jnp.roll(h, 1, 1) + h, x),
    }
    with pytest.raises(ValueError, match=f"operation {name} has no rule"):
        receptive_field(loops[name], (5, 3, 2))


def test_a_constant_network_has_no_effective_field():
    with pytest.raises(ValueError, match=r"gradient of the output at \(2, 1\) is zero"):
        effective_receptive_field(lambda x: nnx.relu(-jnp.abs(x) - 1), np.ones((1, 5, 3, 2)))


def test_an_output_without_channels_is_an_error():
    with pytest.raises(ValueError, match=r"returns shape \(1,\); needs \(n, \*positions, channels\)"):
        receptive_field(lambda x: x.sum((1, 2)), (5, 1))
    with pytest.raises(ValueError, match=r"returns shape \(3,\); needs"):
        effective_receptive_field(lambda x: x.sum((1, 2)), np.ones((3, 5, 1)))


def test_a_position_on_one_axis_is_an_integer():
    model = conv(1, 2, (3,))
    np.testing.assert_array_equal(np.flatnonzero(receptive_field(model, (7, 1), position=5)), [4, 5, 6])
    assert np.flatnonzero(effective_receptive_field(model, np.ones((1, 7, 1)), 0).map).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"position is \(3,\) but the output has \(5, 7\) positions"):
        input_dependencies(conv(1, 1, (3, 3)), (5, 7, 1), position=3)


def masked(layer, mask):
    layer.mask = nnx.data(jnp.asarray(mask))
    return layer


WITHOUT_ROWS = np.ones((3, 2, 2, 3))
WITHOUT_ROWS[[0, 2], 1] = 0
LAYERS = {
    "mask": (lambda: nnx.Conv(2, 3, (3, 2), rngs=nnx.Rngs(0)), WITHOUT_ROWS),
    "dilated": (lambda: nnx.Conv(2, 3, (3, 2), padding=((2, 1), (0, 0)), input_dilation=(2, 3), rngs=nnx.Rngs(0)), None),
    "transposed": (lambda: nnx.ConvTranspose(2, 3, (3, 2), strides=(2, 3), rngs=nnx.Rngs(0)), WITHOUT_ROWS),
    "wrapped": (lambda: cl.ConvTranspose(2, 3, (4, 2), (3, 1), padding="CIRCULAR", rngs=nnx.Rngs(0)), None),
    "local": (lambda: cl.LocallyConnectedTranspose(2, 3, (3, 2), 2, space=(9, 7), rngs=nnx.Rngs(0)), None),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "transposed")) for name in LAYERS])
def test_masked_dilated_and_transposed_layers_depend_on_the_pixels_of_their_dense_matrix(name):
    build, mask = LAYERS[name]
    layer = masked(filled(build, mean=1.0, deviation=0.1), mask) if mask is not None else filled(build, mean=1.0, deviation=0.1)
    units = np.eye(40, dtype=np.float32).reshape(40, 5, 4, 2)
    h = np.asarray(jax.jit(lambda x: layer(x) - layer(0 * x))(units))
    for position in ((0, 0), tuple(n // 2 for n in h.shape[1:3]), (h.shape[1] - 2, h.shape[2] - 1)):
        expected = (np.abs(h[:, *position]).sum(-1) > 1e-4).reshape(5, 4, 2).any(-1)
        np.testing.assert_array_equal(receptive_field(layer, (5, 4, 2), position=position), expected)
