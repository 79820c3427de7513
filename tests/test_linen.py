"""Flax Linen's convolutions and ours: the same fields, arrays, first weights, outputs and training, and clear errors."""

import dataclasses
import functools
import inspect
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from strategies import gaussian

import convlab.linen
from convlab.linen import layout_of
from convlab.surgery import transfer_variables

NAMES = ["Conv", "ConvLocal", "ConvTranspose"]
each_name = pytest.mark.parametrize("name", NAMES)
CLOSE = 1e-5  # in single precision
LINEN = {"parent", "name"}  # the fields of every Linen module


def names_alone(value):
    """Return the part of a test's name for strings alone, since other values are not the same in every process."""
    return value if isinstance(value, str) else None


def twins(name, *arguments, **fields):
    """Flax's module and ours."""
    return [getattr(module, name)(*arguments, **fields) for module in (nn, convlab.linen)]


def outputs(modules, x):
    """Apply two modules to images with the same Gaussian variables, whose shapes and dtypes must agree."""
    shapes, ours = (jax.eval_shape(module.init, jax.random.key(0), x) for module in modules)
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, shapes)
    variables = jax.tree.map(lambda leaf: gaussian(leaf.shape, seed=leaf.ndim)[0].astype(leaf.dtype), shapes)
    h = jax.jit(lambda variables, x: [module.apply(variables, x) for module in modules])(variables, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(*h)
    return h


def assert_close(got, expected):
    """Assert equality up to the rounding of the dtype, relative to the largest number."""
    scale = np.abs(np.asarray(expected, np.complex128)).max()
    close(*(np.asarray(array, np.complex128) / scale for array in (got, expected)), 2e-2 if got.dtype.itemsize == 2 else CLOSE)


# --- the fields ------------------------------------------------------------------------------------------------------


@each_name
def test_fields_are_those_of_flax_in_order_with_their_defaults(name):
    theirs, ours = (
        {field.name: field for field in dataclasses.fields(getattr(module, name)) if field.name not in LINEN}
        for module in (nn, convlab.linen)
    )
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {field: ours[field].default for field in theirs} == {field: theirs[field].default for field in theirs}
    assert all(ours[field].kw_only for field in ours.keys() - theirs.keys())
    signatures = [inspect.signature(getattr(module, name).__call__) for module in (nn, convlab.linen)]
    assert list(signatures[0].parameters) == list(signatures[1].parameters) == ["self", "inputs"]


def test_fields_by_position_mean_what_they_mean_in_flax():
    mask = gaussian((3, 2, 2, 8))[0]
    arguments = (8, (3, 2), 2, ((1, 2), (0, 1)), (1, 2), (2, 1), 2, False, mask, jnp.float32, jnp.float16, "highest")
    chex.assert_trees_all_equal(*outputs(twins("Conv", *arguments), gaussian((2, 7, 5, 4))[0].astype(np.float32)))


# --- the same function -----------------------------------------------------------------------------------------------

EVERY = [  # fields of all three classes, on images of 7 x 5 pixels with 4 channels
    {},
    {"strides": (2, 1), "padding": "VALID"},
    {"strides": (1, 3), "padding": "CIRCULAR"},
    {"padding": "CIRCULAR", "kernel_dilation": (1, 2)},
    {"padding": ((0, 3), (2, 1)), "strides": (2, 3)},
    {"padding": (1, -1), "kernel_dilation": (2, 1)},
    {"padding": 1, "use_bias": False},
    {"strides": None, "kernel_dilation": None},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"param_dtype": jnp.complex64},
    {"precision": jax.lax.Precision.HIGHEST, "kernel_init": nn.initializers.he_uniform()},
    {"promote_dtype": lambda *arrays, dtype=None: [None if array is None else jnp.float16(array) for array in arrays]},
    {"kernel_init": nn.with_partitioning(nn.initializers.normal(), (None, None, "in", "out"))},
]
OWN = {
    "Conv": [
        {"padding": "REFLECT", "strides": 2},
        {"padding": "same_lower", "strides": 2},
        {"input_dilation": (2, 3), "padding": ((1, 2), (3, 0)), "strides": 2},
        {"input_dilation": (1, 2), "padding": (-1, 2), "kernel_dilation": 2},
        {"feature_group_count": 4},
        {"conv_general_dilated": lambda *arguments, **fields: -jax.lax.conv_general_dilated(*arguments, **fields)},
    ],
    "ConvLocal": [
        {"padding": "REFLECT", "strides": 2},
        {"input_dilation": (2, 3), "padding": ((1, 2), (3, 0)), "strides": 2},
        {"input_dilation": (1, 2), "padding": (-1, 2), "kernel_dilation": 2},
    ],
    "ConvTranspose": [
        {"transpose_kernel": True},
        {"transpose_kernel": True, "padding": "CIRCULAR"},
        {"strides": (2, 1), "padding": "CIRCULAR", "kernel_dilation": (2, 3)},
        {"transpose_kernel": True, "strides": (1, 3), "padding": "CIRCULAR"},
        {"transpose_kernel": True, "padding": ((5, 0), (1, 4)), "strides": (3, 2), "kernel_dilation": (1, 2)},
        {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    ],
}


@pytest.mark.parametrize("name, fields", [(name, fields) for name in NAMES for fields in [*EVERY, *OWN[name]]], ids=names_alone)
def test_arrays_and_outputs_are_those_of_flax(name, fields):
    got, expected = outputs(twins(name, 8, (3, 2), **fields), gaussian((2, 7, 5, 8))[0].astype(np.float32))
    assert_close(got, expected)
    if name == "Conv" and "feature_group_count" not in fields:  # 8 channels: both call XLA's convolution
        chex.assert_trees_all_equal(got, expected)


@each_name
def test_first_weights_are_those_of_flax(name):
    modules = twins(name, 8, (3, 2), bias_init=nn.initializers.normal(1.0), param_dtype=jnp.float16)
    starts = [jax.jit(module.init)(jax.random.key(5), np.ones((2, 7, 5, 4), np.float32)) for module in modules]
    chex.assert_trees_all_equal(*starts)


@each_name
@pytest.mark.parametrize("space, size", [((11,), 4), ((4, 3, 5), (2, 1, 3))], ids=str)
def test_one_and_three_spatial_axes(name, space, size):
    assert_close(*outputs(twins(name, 8, size), gaussian((2, *space, 4))[0].astype(np.float32)))


def test_four_spatial_axes():
    space, size = (3, 2, 4, 3), (2, 1, 2, 3)
    x = gaussian((2, *space, 4))[0].astype(np.float32)
    for name in ("Conv", "ConvLocal"):
        assert_close(*outputs(twins(name, 8, size), x))
    fields = {"strides": (1, 2, 1, 2), "use_bias": False}
    h = gaussian((2, 3, 1, 4, 2, 8))[0].astype(np.float32)
    kernel = gaussian((*size, 4, 8))[0].astype(np.float32)
    up, down = convlab.linen.ConvTranspose(4, size, **fields, transpose_kernel=True), nn.Conv(8, size, **fields)
    variables = {"params": {"kernel": kernel}}
    space = (3, 2, 4, 4)  # Flax has no transposed convolution with four axes
    expected = jax.jit(jax.linear_transpose(lambda x: down.apply(variables, x), np.ones((2, *space, 4), np.float32)))(h)[0]
    assert_close(jax.jit(up.apply)(variables, h), expected)


@each_name
@pytest.mark.parametrize("batch, dtype", [((), np.float32), ((2, 3), np.uint8), ((2, 1, 3), np.complex64)])
def test_any_batch_axes_and_dtypes_of_images(name, batch, dtype):
    assert_close(*outputs(twins(name, 8, (3, 2)), (7 * gaussian((*batch, 7, 5, 4))[0] ** 2).astype(dtype)))


@each_name
def test_a_batch_may_be_empty(name):
    module = getattr(convlab.linen, name)(8, (3, 2), **({"input_dilation": 2, "padding": 1} if name == "Conv" else {}))
    assert jax.eval_shape(module.init_with_output, jax.random.key(0), np.ones((2, 0, 7, 5, 4)))[0].shape[:2] == (2, 0)


@each_name
def test_a_mask_multiplies_the_kernel_and_its_gradient(name):
    x = gaussian((2, 7, 5, 4))[0].astype(np.float32)
    kernel = jax.eval_shape(twins(name, 8, (3, 2))[0].init, jax.random.key(0), x)["params"]["kernel"]
    mask = np.random.default_rng(1).integers(0, 3, kernel.shape)
    modules = twins(name, 8, (3, 2), mask=mask)
    variables = jax.jit(modules[0].init)(jax.random.key(0), x)

    def loss(variables, module):
        return (module.apply(variables, x) ** 2).sum()

    expected, got = jax.jit(lambda variables: [jax.grad(loss)(variables, module)["params"] for module in modules])(variables)
    for array in expected:
        assert_close(got[array], expected[array])
    assert not np.asarray(got["kernel"])[mask == 0].any()
    with pytest.raises(ValueError, match=r"mask has shape \(3, 2\) but the kernel has shape"):
        twins(name, 8, (3, 2), mask=mask[0, 0, :3, :2])[1].init(jax.random.key(0), x)


@pytest.mark.parametrize("padding", ["SAME", "valid", "CIRCULAR", "CAUSAL", 2, [(1, 2)]], ids=str)
def test_another_convolution_function_gets_the_arguments_that_flax_gives_it(padding):
    calls = []

    def function(*arguments, **fields):
        calls.append((arguments, fields))
        return jax.lax.conv_general_dilated(*arguments, **fields)

    fields = {"padding": padding, "strides": 2, "kernel_dilation": 2, "feature_group_count": 2, "precision": "highest"}
    for module in twins("Conv", 8, 3, conv_general_dilated_cls=lambda: function, **fields):
        jax.eval_shape(module.init, jax.random.key(0), np.ones((2, 3, 11, 4)))
    (theirs, their_fields), (ours, our_fields) = calls
    chex.assert_trees_all_equal_shapes_and_dtypes(ours[:2], theirs[:2])
    assert [str(value).upper() for value in ours[2:]] == [str(value).upper() for value in theirs[2:]]
    assert our_fields == their_fields


# --- what is ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"padding": "EDGE"}, {"padding": ("SAME", "CIRCULAR")}, {"use_bias": "position"}], ids=str)
def test_further_paddings_and_biases_are_those_of_the_rungs(fields):
    x = gaussian((2, 7, 5, 4))[0].astype(np.float32)
    conv, local = convlab.linen.Conv(8, (3, 2), **fields), convlab.linen.LocallyConnected(8, (3, 2), **fields)
    variables = jax.jit(conv.init)(jax.random.key(0), x)
    kernel = jnp.broadcast_to(variables["params"]["kernel"], (7, 5, 3, 2, 4, 8))
    bias = jnp.broadcast_to(variables["params"]["bias"], (7, 5, 8))
    expected = jax.jit(local.apply)({"params": {"kernel": kernel, "bias": bias}}, x)
    close(jax.jit(conv.apply)(variables, x), expected, CLOSE)
    fused = jnp.moveaxis(kernel, -2, 2).reshape(7, 5, 24, 8)
    fused_local = convlab.linen.ConvLocal(8, (3, 2), **fields)
    close(jax.jit(fused_local.apply)({"params": {"kernel": fused, "bias": bias}}, x), expected, CLOSE)


@pytest.mark.parametrize("name", ["Conv", "ConvLocal"])
def test_preferred_element_type_is_the_dtype_of_the_result(name):
    fields = {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32, "use_bias": False}
    modules = [getattr(convlab.linen, name)(8, (3, 2), **fields, **own) for own in CALLS[name]]
    for module in modules:
        assert jax.eval_shape(module.init_with_output, jax.random.key(0), np.ones((7, 5, 4)))[0].dtype == jnp.float32


CALLS = {"Conv": [{}, {"input_dilation": 2, "padding": 1}], "ConvLocal": [{}]}

# --- errors ----------------------------------------------------------------------------------------------------------

WRONG = [  # class, kernel size, fields, shape of the images, error, message
    ("Conv", (3, 2), {"feature_group_count": 4}, (7, 5, 6), ValueError, "groups must divide the 6 input channels, got 4"),
    ("Conv", (3, 2), {"use_bias": "pixel"}, (7, 5, 6), ValueError, "use_bias must be"),
    ("Conv", (3, 2), {"padding": "SOME"}, (7, 5, 6), ValueError, "padding 'SOME' is unknown"),
    ("Conv", (3, 2), {"input_dilation": 2}, (7, 5, 6), ValueError, r"input_dilation \(2, 2\) needs padding in numbers, got"),
    ("Conv", (3, 2), {"input_dilation": 0}, (7, 5, 6), ValueError, "input_dilation must be at least 1, got 0"),
    ("Conv", (3, 2), {}, (5, 6), ValueError, r"inputs has shape \(5, 6\); needs 2 spatial axes and channels"),
    ("Conv", (3, 2.0), {}, (7, 5, 6), TypeError, "size must be an integer"),
    ("Conv", 3, {"strides": (2, 2)}, (7, 5, 6), ValueError, "mixes numbers of spatial axes"),
    ("ConvLocal", (8, 2), {"padding": "VALID"}, (7, 5, 6), ValueError, "fits nowhere"),
    ("ConvTranspose", (3, 2), {"padding": -5}, (7, 5, 6), ValueError, "on no image"),
    ("ConvTranspose", (3, 2), {"use_bias": "pixel"}, (7, 5, 6), ValueError, "use_bias must be"),
    ("ConvTranspose", (3, 2), {}, (6,), ValueError, "needs 2 spatial axes"),
]


@pytest.mark.parametrize("name, size, fields, shape, error, message", WRONG, ids=names_alone)
def test_errors_name_the_argument(name, size, fields, shape, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(getattr(convlab.linen, name)(10, size, **fields).init, jax.random.key(0), jnp.ones(shape))


@each_name
def test_features_must_be_a_positive_integer(name):
    with pytest.raises(ValueError, match="^features must be at least 1, got 0"):
        getattr(convlab.linen, name)(0, (3, 2)).init(jax.random.key(0), jnp.ones((7, 5, 6)))
    with pytest.raises(TypeError, match="tied_noise"):
        getattr(convlab.linen, name)(3, (3, 2), tied_noise=0.5)


def test_a_kernel_that_does_not_fit_into_memory_is_an_error_before_it_is_made():
    with pytest.raises(MemoryError, match="for the kernel"):
        convlab.linen.ConvLocal(10**6, (3, 3)).init(jax.random.key(0), np.ones((500, 500, 10)))


# --- layouts ---------------------------------------------------------------------------------------------------------


class Twice(convlab.linen.Conv):
    @nn.compact
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


@pytest.mark.parametrize(
    "module",
    [
        Twice(3, (3, 2)),
        nn.Dense(3),
        *twins("ConvLocal", 3, (3, 2)),
        *twins("ConvTranspose", 3, (3, 2)),
        *twins("Conv", 3, (3, 2), mask=np.ones((3, 2, 4, 3))),
        *twins("Conv", 3, (3, 2), input_dilation=2, padding=1),
        *twins("Conv", 3, (3, 2), conv_general_dilated=jax.lax.conv_general_dilated),
        *twins("Conv", 3, (3, 2), conv_general_dilated_cls=lambda: jax.lax.conv_general_dilated),
    ],
    ids=names_alone,
)
def test_a_module_that_no_layout_describes_has_none(module):
    assert layout_of(module, (2, 7, 5, 4)) is None


def test_conv_has_one_layout_in_flax_and_here():
    theirs, ours = twins("Conv", 6, (3, 2), strides=2, padding="CIRCULAR", kernel_dilation=None, feature_group_count=2)
    layout = layout_of(ours, (2, 7, 5, 4))
    assert layout == layout_of(theirs, (2, 7, 5, 4))
    assert (layout.kernel_shape, layout.space, layout.groups) == ((3, 2, 2, 6), (7, 5), 2)


class Keyword(nn.Module):
    layer: Any

    @nn.compact
    def __call__(self, x):
        return self.layer(3, (3, 2), name="layer")(**{"inputs" if self.layer is convlab.linen.Conv else "x": x})


def test_variables_are_transferred_if_the_images_are_a_keyword_argument():
    old, new = Keyword(convlab.linen.Conv), Keyword(convlab.linen.LocallyConnected)
    x = gaussian((2, 7, 5, 4))[0].astype(np.float32)
    variables = jax.jit(old.init)(jax.random.key(0), x)
    written = jax.jit(lambda variables: transfer_variables(old, new, variables, (7, 5, 4)))(variables)
    close(jax.jit(new.apply)(written, x), jax.jit(old.apply)(variables, x), CLOSE)


# --- networks of the documentation -----------------------------------------------------------------------------------


class CNN(nn.Module):
    """The network of Flax's example on MNIST."""

    library: Any

    @nn.compact
    def __call__(self, x):
        for features in (32, 64):
            x = self.library.Conv(features=features, kernel_size=(3, 3))(x)
            x = nn.avg_pool(nn.relu(x), window_shape=(2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(features=256)(x.reshape((x.shape[0], -1))))
        return nn.Dense(features=10)(x)


class ActorCritic(nn.Module):
    """The network of Flax's example on Atari games, with fewer channels."""

    library: Any

    @nn.compact
    def __call__(self, x):
        for number, (features, size, stride) in enumerate([(8, 8, 4), (16, 4, 2), (16, 3, 1)], 1):
            conv = self.library.Conv(features, kernel_size=(size, size), strides=(stride, stride), name=f"conv{number}")
            x = nn.relu(conv(x))
        return nn.Dense(10)(x.reshape((len(x), -1)))


class Autoencoder(nn.Module):
    """Strided convolutions, then transposed ones."""

    library: Any

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(self.library.Conv(features=16, kernel_size=(3, 3), strides=2)(x))
        x = nn.gelu(self.library.ConvTranspose(features=8, kernel_size=(3, 3), strides=(2, 2))(x))
        return self.library.ConvTranspose(features=10, kernel_size=(4, 4), padding="CIRCULAR")(x).mean((1, 2))


@pytest.mark.parametrize("network", [CNN, ActorCritic, Autoencoder])
def test_a_network_learns_the_same_with_the_class_swapped(network):
    x, y = gaussian((8, 12, 8, 1))[0].astype(np.float32), np.arange(8) % 10

    @functools.partial(jax.jit, static_argnums=0)
    def losses(model):
        optimizer = optax.sgd(0.1, momentum=0.9)
        variables = model.init(jax.random.key(0), x)

        def loss(variables):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(variables, x), y).mean()

        def step(carry, _):
            variables, state = carry
            value, gradient = jax.value_and_grad(loss)(variables)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, updates), state), value

        return jax.lax.scan(step, (variables, optimizer.init(variables)), length=5)[1]

    theirs, ours = losses(network(nn)), losses(network(convlab.linen))
    assert theirs[-1] < theirs[0]
    close(ours, theirs, CLOSE)


@pytest.mark.parametrize("name", ["Dense", "LocallyConnected", "Tiled", "LowRank", "Symmetric"])
def test_modules_of_the_rungs_promote_integers_as_flax_does(name):
    module = getattr(convlab.linen, name)(3, (3, 2))
    x = jnp.arange(40, dtype=jnp.uint8).reshape(1, 5, 4, 2)
    variables = jax.tree.map(lambda a: gaussian(a.shape)[0].astype(a.dtype), jax.eval_shape(module.init, jax.random.key(0), x))
    h = module.apply(variables, x)
    assert h.dtype == jnp.float32
    assert_close(h, module.apply(variables, x.astype(jnp.float32)))
