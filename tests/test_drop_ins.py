"""The convolutions of Flax NNX against ours: arguments, first weights, outputs, gradients and errors."""

import inspect
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from flax import nnx
from jax import lax
from strategies import gaussian

import convlab as cl
from convlab import measure
from convlab.calls import layout_of

PAIRS = {cl.Conv: nnx.Conv, cl.ConvTranspose: nnx.ConvTranspose}
SPACE = (7, 5)
CONVOLUTIONS = [
    {"padding": padding, "strides": strides, "kernel_dilation": dilation, "feature_group_count": groups}
    for (padding, strides), (dilation, groups) in itertools.product(
        [
            ("SAME", 1),
            ("VALID", (2, 1)),
            ("CIRCULAR", 2),
            ("REFLECT", 1),
            (1, (1, 2)),
            (((1, 2), (0, 1)), 1),
            (((-1, 0), 1), 2),
        ],
        [(1, 1), ((1, 2), 2)],
    )
]
DILATED = [
    {"padding": padding, "input_dilation": (2, 3), "strides": strides, "feature_group_count": 2}
    for padding, strides in [(2, (1, 2)), (((1, 2), (0, 1)), 1)]  # Flax has no names of paddings here
]
TRANSPOSED = [
    {"padding": padding, "strides": strides, "kernel_dilation": dilation, "transpose_kernel": transpose}
    for (padding, strides), dilation, transpose in itertools.product(
        [
            ("SAME", 2),
            ("SAME", (5, 1)),
            ("VALID", (2, 1)),
            ("VALID", (1, 4)),
            ("CIRCULAR", (1, 2)),
            (2, 1),
            (((3, 5), (4, 2)), 2),
        ],
        [None, (1, 2)],
        [False, True],
    )
]
CASES = [(cl.Conv, case) for case in (*CONVOLUTIONS, *DILATED)] + [(cl.ConvTranspose, case) for case in TRANSPOSED]


def pair(kind, channels=(4, 6), size=(3, 2), **options):
    return [layer(*channels, size, rngs=nnx.Rngs(3), **options) for layer in (kind, PAIRS[kind])]


@pytest.mark.parametrize("kind", PAIRS)
def test_arguments_are_those_of_the_installed_flax_in_its_order(kind):
    for method in ("__init__", "__call__"):
        ours, theirs = (inspect.signature(getattr(layer, method)).parameters for layer in (kind, PAIRS[kind]))
        assert [name for name in ours if name in theirs] == list(theirs)
        for name, parameter in theirs.items():
            assert ours[name].kind == parameter.kind
            if name not in ("kernel_init", "bias_init"):  # functions made anew by every call of their factory
                assert ours[name].default == parameter.default, name


@pytest.mark.parametrize("kind", PAIRS)
def test_attributes_of_flax_exist(kind):
    ours, theirs = pair(kind)
    assert {*vars(theirs)} <= {*vars(ours)}


def few_quick(cases, step):
    """Mark all cases as slow but every `step`-th."""
    return [case if index % step == 0 else pytest.param(*case, marks=pytest.mark.slow) for index, case in enumerate(cases)]


@pytest.mark.parametrize("kind, options", few_quick(CASES, 5), ids=lambda value: getattr(value, "__name__", None))
def test_first_weights_and_outputs_are_those_of_flax(kind, options):
    ours, theirs = pair(kind, **options)
    np.testing.assert_array_equal(ours.kernel[...], theirs.kernel[...])
    np.testing.assert_array_equal(ours.bias[...], theirs.bias[...])
    [x] = gaussian((2, *SPACE, 4))
    close(ours(x), theirs(x), 1e-5)


@pytest.mark.parametrize("kind", PAIRS)
def test_outputs_have_the_bits_of_flax_where_both_call_the_convolution_of_xla(kind):
    ours, theirs = pair(kind, (16, 16), (3, 3))
    x = jnp.asarray(gaussian((2, *SPACE, 16))[0], jnp.float32)
    np.testing.assert_array_equal(jax.jit(ours)(x), jax.jit(theirs)(x))


@pytest.mark.parametrize("padding", ["SAME", "FULL", ("SAME", "VALID")])
def test_names_of_paddings_apply_to_a_dilated_input(padding):
    layer = cl.Conv(4, 6, (3, 2), 2, padding=padding, input_dilation=(2, 3), rngs=nnx.Rngs(0))
    (x,) = gaussian((2, *SPACE, 4))
    wide = np.zeros((2, 13, 13, 4), "float32")
    wide[:, ::2, ::3] = x
    close(layer(x), cl.conv(wide, layer.kernel[...], cl.Window((3, 2), 2, padding)) + layer.bias[...], 1e-5)
    layer = cl.Conv(4, 6, (3, 2), padding=("SAME", "CIRCULAR"), input_dilation=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"padding .* repeats pixels, which input_dilation \(2, 2\) moves apart"):
        layer(x)


@pytest.mark.parametrize("padding, strides", [("SAME", 1), ("VALID", (1, 2)), (((2, 1), (0, 3)), (2, 1))])
def test_a_bias_per_position_has_the_positions_of_the_dilated_image(padding, strides):
    layer = cl.Conv(
        2, 3, (4, 2), strides, padding=padding, input_dilation=(2, 3), use_bias="position", space=(3, 5), rngs=nnx.Rngs(0)
    )
    x, bias = gaussian((3, 5, 2), layer.bias.shape)
    layer.bias[...] = jnp.asarray(bias, jnp.float32)
    wide = np.zeros((5, 13, 2), "float32")
    wide[::2, ::3] = x
    close(layer(x), cl.conv(wide, layer.kernel[...], cl.Window((4, 2), strides, padding)) + bias, 1e-5)
    with pytest.raises(ValueError, match=r"inputs holds images of \(5, 3\) pixels but this layer was made for \(3, 5\)"):
        layer(x.swapaxes(0, 1))
    products = np.count_nonzero(jax.jacobian(layer)(jnp.asarray(x, jnp.float32)))
    total = cl.count(nnx.Sequential(layer), (3, 5, 2)).total
    assert (total.weights, total.multiply_adds) == (layer.kernel[...].size + bias.size, products)
    assert measure.receptive_field(nnx.Sequential(layer), (3, 5, 2)).shape == (3, 5)


@pytest.mark.parametrize("change, to", [(cl.relax, "dense"), (cl.constrain, "conv")])
def test_a_layer_with_input_dilation_is_left_alone_in_one_sentence(change, to):
    model = nnx.Sequential(cl.Conv(2, 3, (3, 2), input_dilation=2, rngs=nnx.Rngs(0)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        change(model, to=to, image_shape=(3, 5, 2))
    assert [str(one.message) for one in said] == [f"{change.__name__} leaves alone layers/0, which has input_dilation (2, 2)"]


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize(
    "options, dtype",
    [
        ({}, "int32"),
        ({"param_dtype": jnp.complex64}, "complex64"),
        ({}, "complex64"),
        ({"dtype": jnp.bfloat16}, "float32"),
        ({"param_dtype": jnp.bfloat16, "use_bias": False}, "float32"),
        ({"preferred_element_type": jnp.float32, "dtype": jnp.bfloat16}, "float32"),
    ],
)
def test_dtypes_and_batches_are_those_of_flax(kind, batch, options, dtype):
    ours, theirs = pair(kind, **options)
    x = jnp.asarray(10 * gaussian((*batch, *SPACE, 4))[0], dtype)
    got, needed = ours(x), theirs(x)
    assert (got.dtype, got.shape) == (needed.dtype, needed.shape)
    close(np.asarray(got, "complex64"), np.asarray(needed, "complex64"), 1e-4 if "dtype" not in options else 0.3)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_mask_removes_weights_as_in_flax(kind):
    mask = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 2, 4, 6)), jnp.float32)
    ours, theirs = pair(kind, mask=mask)
    [x] = gaussian((2, *SPACE, 4))
    close(ours(x), theirs(x), 1e-5)
    gradient = nnx.grad(lambda layer: jnp.sum(layer(x) ** 2))(ours)
    assert not (gradient.kernel[...] * (1 - mask)).any()
    for layer in pair(kind, mask=jnp.ones((3, 2, 4, 5))):
        with pytest.raises(ValueError, match="[Mm]ask"):
            layer(x)


def test_hooks_of_flax_are_called():
    calls = []

    def convolution(*arguments, **options):
        calls.append((arguments[2:], options))
        return -lax.conv_general_dilated(*arguments, **options)

    def promote(arrays, *, dtype):
        return [None if array is None else jnp.asarray(array, jnp.float16) for array in arrays]

    options = {"padding": "SAME", "strides": 2, "conv_general_dilated": convolution}
    ours, theirs = pair(cl.Conv, **options)
    [x] = gaussian((2, *SPACE, 4))
    close(ours(x), theirs(x), 1e-5)
    (ours_arguments, ours_options), (flax_arguments, flax_options) = calls
    assert ours_arguments == flax_arguments
    assert {**flax_options, **ours_options} == flax_options
    for kind in PAIRS:
        ours, theirs = pair(kind, promote_dtype=promote, kernel_metadata={"note": 1}, bias_metadata={"note": 2})
        assert ours(x).dtype == theirs(x).dtype == jnp.float16
        assert (ours.kernel.get_metadata()["note"], ours.bias.get_metadata()["note"]) == (1, 2)


@pytest.mark.parametrize("kind, ndim", [(cl.Conv, 1), (cl.Conv, 3), (cl.Conv, 4), (cl.ConvTranspose, 1), (cl.ConvTranspose, 3)])
def test_other_numbers_of_axes_are_those_of_flax(kind, ndim):
    ours, theirs = pair(kind, size=(3, 2, 2, 1)[:ndim], strides=2)
    [x] = gaussian((2, *(5, 4, 3, 2)[:ndim], 4))
    close(ours(x), theirs(x), 1e-5)


def test_an_int_size_is_one_axis_and_shorthands_of_padding_are_those_of_flax():
    ours, theirs = pair(cl.Conv, size=3, padding="CAUSAL", strides=None, kernel_dilation=None)
    [x] = gaussian((2, 7, 4))
    close(ours(x), theirs(x), 1e-5)
    ours, theirs = pair(cl.Conv, padding="same")
    [x] = gaussian((2, *SPACE, 4))
    close(ours(x), theirs(x), 1e-5)


def test_out_sharding_is_that_of_the_result():
    mesh = jax.make_mesh((1,), ("n",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        ours, theirs = pair(cl.Conv)
        x = jnp.asarray(gaussian((2, *SPACE, 4))[0], jnp.float32)
        sharding = jax.sharding.PartitionSpec("n")
        close(ours(x, out_sharding=sharding), theirs(x, out_sharding=sharding), 1e-5)
        assert jax.typeof(ours(x, out_sharding=sharding)).sharding == jax.typeof(theirs(x, out_sharding=sharding)).sharding


class MnistNetwork(nnx.Module):
    """The network of Flax's tutorial on MNIST, with a decoder's transposed convolution at its end."""

    def __init__(self, conv, transposed, *, rngs):
        self.conv1 = conv(1, 32, kernel_size=(3, 3), rngs=rngs)
        self.conv2 = conv(32, 64, kernel_size=(3, 3), rngs=rngs)
        self.avg_pool = lambda x: nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        self.linear1 = nnx.Linear(64 * 4 * 4, 16, rngs=rngs)
        self.linear2 = nnx.Linear(16, 10, rngs=rngs)
        self.decoder = transposed(64, 1, kernel_size=(3, 3), strides=(4, 4), rngs=rngs)

    def __call__(self, x):
        x = self.avg_pool(nnx.relu(self.conv1(x)))
        x = self.avg_pool(nnx.relu(self.conv2(x)))
        return self.linear2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1)))), self.decoder(x)


def test_a_network_of_flax_trains_alike_with_the_class_swapped():
    x = jnp.asarray(gaussian((8, 16, 16, 1))[0], jnp.float32)
    labels, losses = jnp.arange(8), []
    for conv, transposed in (PAIRS, PAIRS.values()):
        model = MnistNetwork(conv, transposed, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.adamw(0.005, 0.9), wrt=nnx.Param)

        def loss(model):
            logits, image = model(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + jnp.mean((image - x) ** 2)

        @nnx.jit
        def step(model, optimizer):
            value, gradient = nnx.value_and_grad(loss)(model)
            optimizer.update(model, gradient)
            return value

        losses.append([float(step(model, optimizer)) for _ in range(5)])
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("options", TRANSPOSED[::7])
def test_the_layout_of_a_transposed_convolution_is_that_of_the_layer_it_transposes(options):
    for layer in pair(cl.ConvTranspose, **options):
        layout = layout_of(layer, transposed=True)
        assert layout_of(layer) is None
        if layout is None:
            assert options["padding"] == "CIRCULAR"
            continue
        [h] = gaussian((2, *SPACE, 4))
        kernel = layer.kernel[...] if options["transpose_kernel"] else jnp.flip(layer.kernel[...], (0, 1)).swapaxes(-1, -2)
        x = cl.conv_transpose(h, kernel, layout.window, layout.window.input_shape(SPACE))
        close(x + layer.bias[...], layer(h), 1e-5)
