"""Kernels of other libraries: the same numbers make the same function there and here."""

import functools

import compiled as cl
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from strategies import gaussian

import convlab.linen
from convlab import foreign
from convlab import linen as drop_ins
from convlab.norm import BatchNorm

SPACE, SIZE, C, D = (7, 5), (3, 2), 2, 11
LOCAL = [  # space, taps, strides: unequal along the axes, so that no two can be swapped
    ((7, 5), (3, 2), (2, 1)),
    ((11,), (3,), (2,)),
    ((5, 3, 4), (2, 3, 1), (1, 1, 2)),
]
each_local = pytest.mark.parametrize("space, size, strides", LOCAL, ids=["2d", "1d", "3d"])


@pytest.fixture(autouse=True)
def double_precision(float64):
    """Laws hold to 1e-12."""


def local_kernel(window, space, d=D, seed=0):
    """A Gaussian kernel with dead taps at zero, as lifting leaves it."""
    (v,) = gaussian((*window.output_shape(space), *window.size, C, d), seed=seed)
    return np.where(window.live(space)[..., None, None], v, 0)


# --- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "space, size, strides, pads", [((11,), (3,), 2, 1), ((7, 5), (3, 2), (2, 1), (2, 1)), ((5, 3, 7), (2, 3, 1), 1, 0)]
)
def test_torch_kernels_make_the_same_convolution(space, size, strides, pads, groups):
    torch = pytest.importorskip("torch")
    x, weight = gaussian((2, *space, C * groups), (3 * groups, C, *size))
    conv = getattr(torch.nn.functional, f"conv{len(space)}d")
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    expected = conv(channels_first, torch.from_numpy(weight), stride=strides, padding=pads, groups=groups)
    window = cl.Window(size, strides, (pads,) * len(space) if isinstance(pads, int) else pads)
    v = compiled(foreign.from_torch)(weight)
    close(cl.conv(x, v, window, groups), np.moveaxis(expected.numpy(), 1, -1))
    np.testing.assert_array_equal(compiled(foreign.to_torch)(v), weight)


@pytest.mark.parametrize("size", [(3,), (3, 2), (2, 3, 5)], ids=str)
def test_torch_kernels_hold_out_channels_then_in_channels_then_taps(size):
    (v,) = gaussian((*size, C, D))
    weight = np.asarray(foreign.to_torch(v))
    assert weight.shape == (D, C, *size)
    for tap in np.ndindex(*size):
        np.testing.assert_array_equal(weight[(slice(None), slice(None), *tap)], v[tap].T)
    np.testing.assert_array_equal(foreign.from_torch(weight), v)


# --- Flax's ConvLocal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["VALID", "SAME", [(2, 1), (0, 1)]], ids=str)
def test_linen_conv_local_computes_the_same_from_the_written_kernel(padding):
    window = cl.Window(SIZE, (2, 1), padding)
    v = local_kernel(window, SPACE)
    (x,) = gaussian((3, *SPACE, C), seed=1)
    module = flax.linen.ConvLocal(D, SIZE, strides=(2, 1), padding=padding, use_bias=False)
    kernel = compiled(foreign.to_linen_local)(v)
    assert kernel.shape == jax.eval_shape(module.init, jax.random.key(0), x)["params"]["kernel"].shape
    close(jax.jit(module.apply)({"params": {"kernel": kernel}}, x), cl.locally_connected(x, v, window))


@each_local
def test_locally_connected_equals_lax_with_its_kernel(space, size, strides):
    rank, window = len(space), cl.Window(size, strides, "VALID")
    kernel, x = gaussian((*window.output_shape(space), C * int(np.prod(size)), D), (3, *space, C), seed=2)
    letters = "DHW"[-rank:]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    options = {"window_strides": strides, "padding": "VALID", "filter_shape": size, "dimension_numbers": numbers}
    expected = jax.jit(functools.partial(jax.lax.conv_general_dilated_local, **options))(x, kernel)
    v = compiled(foreign.from_linen_local)(kernel, window)
    close(cl.locally_connected(x, v, window), expected)
    np.testing.assert_array_equal(compiled(foreign.to_linen_local)(v), kernel)


@each_local
def test_linen_local_kernels_survive_a_round_trip(space, size, strides):
    window = cl.Window(size, strides)
    v = local_kernel(window, space)
    back = compiled(foreign.from_linen_local)(compiled(foreign.to_linen_local)(v), window)
    np.testing.assert_array_equal(back, v)


# --- Keras: locally connected layers ---------------------------------------------------------------------------------


def keras_connected(space, size, strides, padding):
    """Return for each position of Keras' locally connected layer the pixels of its window that the image has."""
    same = padding == "same"
    out = tuple(-(-n // s) if same else (n - a) // s + 1 for n, a, s in zip(space, size, strides, strict=True))
    starts = [
        tuple(s * i - (a // 2 if same else 0) for s, i, a in zip(strides, p, size, strict=True)) for p in np.ndindex(*out)
    ]
    pixels = [[tuple(k + a for k, a in zip(start, tap, strict=True)) for tap in np.ndindex(*size)] for start in starts]
    inside = [[p for p in row if all(0 <= k < n for k, n in zip(p, space, strict=True))] for row in pixels]
    return out, dict(zip(np.ndindex(*out), inside, strict=True))


def keras_matrix(kernel, implementation, last, space, size, strides, padding, c, d):
    """Return the matrix (outputs, inputs) that Keras multiplies flat images by, from the definition of each implementation."""
    out, connected = keras_connected(space, size, strides, padding)
    order = (
        [(q, f) for q in np.ndindex(*out) for f in range(d)] if last else [(q, f) for f in range(d) for q in np.ndindex(*out)]
    )
    pixels = [*np.ndindex(*space)]
    inputs = [(p, e) for p in pixels for e in range(c)] if last else [(p, e) for e in range(c) for p in pixels]
    column, matrix = {key: number for number, key in enumerate(inputs)}, np.zeros((len(order), len(inputs)))
    values = iter(kernel.ravel() if implementation == 3 else [])
    for row, (q, f) in enumerate(order):
        patch = [(p, e) for p in connected[q] for e in range(c)] if last else [(p, e) for e in range(c) for p in connected[q]]
        if implementation == 1:  # row q of the kernel meets the flattened patch of position q
            weights = kernel[[*np.ndindex(*out)].index(q), :, f]
        elif implementation == 2:  # a dense kernel, masked
            weights = [kernel[(*p, e, *q, f) if last else (e, *p, f, *q)] for p, e in patch]
        else:  # a sparse matrix, whose values are ordered by output and then by input
            patch = sorted(patch, key=column.__getitem__)
            weights = [next(values) for _ in patch]
        for key, weight in zip(patch, weights, strict=True):
            matrix[row, column[key]] = weight
    assert next(values, None) is None
    return matrix


def keras_local(x, kernel, bias, implementation, last, size, strides, padding):
    """Apply Keras' layer to images in its own data format. Channels first reshape the bias (*out, d) to (d, *out)."""
    space, c = (x.shape[1:-1], x.shape[-1]) if last else (x.shape[2:], x.shape[1])
    *out, d = bias.shape
    matrix = keras_matrix(kernel, implementation, last, space, size, strides, padding, c, d)
    shape = (*out, d) if last else (d, *out)
    return (x.reshape(len(x), -1) @ matrix.T).reshape(len(x), *shape) + bias.reshape(shape)


def keras_kernel_shape(implementation, last, space, size, strides, padding, c, d):
    out, connected = keras_connected(space, size, strides, padding)
    return {
        1: (int(np.prod(out)), int(np.prod(size)) * c, d),
        2: (*space, c, *out, d) if last else (c, *space, d, *out),
        3: (sum(map(len, connected.values())) * c * d,),
    }[implementation]


FORMATS = {"channels_last": True, "channels_first": False}
KERAS = [  # space, taps, strides, padding; an even size and a stride above 1 tell Keras' "same" from a convolution's
    ((7, 5), (3, 2), (2, 1), "valid"),
    ((7, 5), (2, 3), (3, 2), "same"),
    ((11,), (2,), (1,), "same"),
]
FORMS = [(i, case) for case in KERAS for i in (1, 2, 3) if (i, case[-1]) != (1, "same")]
each_form = pytest.mark.parametrize("implementation, case", FORMS, ids=str)
each_format = pytest.mark.parametrize("data_format", FORMATS)


def keras_case(implementation, case, data_format, seed=0):
    """Draw images in Keras' format, and the weights of a layer."""
    space, size, strides, padding = case
    last, (out, _) = FORMATS[data_format], keras_connected(*case)
    shape = keras_kernel_shape(implementation, last, *case, C, 3)
    return gaussian((3, *space, C) if last else (3, C, *space), shape, (*out, 3), seed=seed)


def described(kind, **config):
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


def channels_last(x, last=False):
    return x if last else np.moveaxis(x, 1, -1)


@nnx.jit
def run(model, x):
    return model(x)


@each_format
@each_form
def test_a_keras_layer_computes_the_same_in_each_implementation_and_data_format(implementation, case, data_format):
    space, size, strides, padding = case
    x, kernel, bias = keras_case(implementation, case, data_format)
    options = {"kernel_size": size, "strides": strides, "padding": padding, "data_format": data_format}
    layer = described(f"LocallyConnected{len(space)}D", filters=3, implementation=implementation, **options)
    got = foreign.from_keras_layer(layer, [kernel, bias], image_shape=(*space, C))
    assert isinstance(got, convlab.LocallyConnected)
    last = FORMATS[data_format]
    expected = keras_local(x, kernel, bias, implementation, last, size, strides, padding)
    close(run(got, channels_last(x, last)), channels_last(expected, last))


@each_format
@each_form
def test_keras_kernels_survive_a_round_trip(implementation, case, data_format):
    space, *window = case
    window = foreign.keras_local_window(*window, space)
    _, kernel, _ = keras_case(implementation, case, data_format)
    form = {"implementation": implementation, "data_format": data_format}
    v = compiled(foreign.from_keras_local)(kernel, window, space, out_features=3, **form)
    assert not np.asarray(v)[~window.live(space)].any()
    back = np.asarray(compiled(foreign.to_keras_local)(v, window, space, **form))
    if implementation == 2:  # Keras masks the other entries
        kernel = np.where(back != 0, kernel, 0)
    np.testing.assert_array_equal(back, kernel)


def whole(shape, step, modulus):
    """Whole numbers without symmetry, as given to Keras and to PyTorch for the outputs below."""
    return ((np.arange(np.prod(shape, dtype=int)) * step) % modulus - modulus // 2).reshape(shape).astype(float)


# What Keras 2.15 computes with TensorFlow 2.15 for an image whole(shape, 5, 13), a kernel whole(shape, 7, 11) and a bias
# 100 * whole(shape, 3, 7): 3 x 2 pixels of 2 channels, 3 filters of 2 x 1 taps with strides (2, 1); or 5 pixels of 2
# channels, 2 filters of 2 taps with stride 2. Outputs in row-major order of the data format.
KERAS_OUTPUTS = [
    (2, "same", "channels_last", [-272, -10, 307, -128, 216, -184, 44, -298, 5, 260, -64, 202]),
    (2, "same", "channels_first", [-278, -10, 323, -155, 196, -198, 43, -284, 14, 292, -72, 177]),
    (3, "same", "channels_last", [-272, 7, 297, -84, 172, -184, 65, -279, 22, 333, -137, 203]),
    (3, "same", "channels_first", [-274, 17, 281, -51, 192, -202, 72, -324, 2, 290, -49, 180]),
    (1, "valid", "channels_last", [-253, -19, 281, -99, 197, -196]),
    (1, "valid", "channels_first", [-273, -6, 297, -98, 233, -212]),
    (1, "valid", "channels_first", [-270, -31, 265, -79]),
    (3, "same", "channels_last", [-272, 7, 320, -159, 165, -182]),
]
KERAS_SIZES = [((3, 2), (2, 1), (2, 1), 3)] * 6 + [((5,), (2,), (2,), 2)] * 2


@pytest.mark.parametrize("size, output", [*zip(KERAS_SIZES, KERAS_OUTPUTS, strict=True)], ids=str)
def test_keras_outputs_of_record(size, output):
    (space, taps, strides, d), (implementation, padding, data_format, expected) = size, output
    last = FORMATS[data_format]
    case = (space, taps, strides, padding)
    out, _ = keras_connected(*case)
    x = whole((1, *space, C) if last else (1, C, *space), 5, 13)
    kernel = whole(keras_kernel_shape(implementation, last, *case, C, d), 7, 11)
    bias = 100 * whole((*out, d), 3, 7)
    np.testing.assert_array_equal(keras_local(x, kernel, bias, implementation, last, *case[1:]).ravel(), expected)
    options = {"kernel_size": taps, "strides": strides, "padding": padding, "data_format": data_format}
    layer = described(f"LocallyConnected{len(space)}D", filters=d, implementation=implementation, **options)
    h = run(foreign.from_keras_layer(layer, [kernel, bias], image_shape=(*space, C)), channels_last(x, last))
    np.testing.assert_array_equal(np.ravel(h if last else np.moveaxis(h, -1, 1)), expected)


# --- Keras: other layers and networks --------------------------------------------------------------------------------


def keras_conv(x, v, strides=1, padding="VALID", dilation=1, groups=1):
    """A convolution of Keras from loops: its "same" is that of the oracle."""
    ndim = x.ndim - 2
    strides, dilation = ((n,) * ndim if isinstance(n, int) else n for n in (strides, dilation))
    reads = oracle.tables(x.shape[1:-1], v.shape[:ndim], strides, dilation, padding.upper())
    return np.stack([oracle.conv(image, v, reads, groups) for image in x])


@pytest.mark.parametrize("space, padding", [((11,), "causal"), ((7, 5), "same"), ((3, 5, 4), "valid")], ids=str)
def test_keras_convolutions_compute_the_same(space, padding):
    size, groups = (2, 3, 2)[: len(space)], 2
    x, kernel, bias = gaussian((2, *space, 4), (*size, 2, 6), (6,))
    options = {"kernel_size": size, "padding": padding, "dilation_rate": 1, "strides": 2}
    layer = described(f"Conv{len(space)}D", filters=6, groups=groups, activation="tanh", **options)
    got = foreign.from_keras_layer(layer, [kernel, bias])
    close(run(got, x), np.tanh(keras_conv(x, kernel, (2,) * len(space), padding, groups=groups) + bias))


def test_keras_depthwise_kernels_keep_the_channels_of_each_input_together():
    x, depthwise, pointwise, bias = gaussian((2, 7, 5, 2), (3, 2, 2, 3), (1, 1, 6, 5), (5,))
    h = np.concatenate([keras_conv(x[..., c : c + 1], depthwise[:, :, c : c + 1], 1, "same") for c in range(2)], axis=-1)
    options = {"kernel_size": (3, 2), "padding": "same", "depth_multiplier": 3}
    layer = described("DepthwiseConv2D", use_bias=False, **options)
    close(run(foreign.from_keras_layer(layer, [depthwise]), x), h)
    layer = described("SeparableConv2D", filters=5, **options)
    got = foreign.from_keras_layer(layer, [depthwise, pointwise, bias])
    close(run(got, x), keras_conv(h, pointwise) + bias)


class KerasLayer:
    """What is read of a Keras layer."""

    def __init__(self, config, weights, input_shape=None):
        self.config, self.weights = config, weights
        if input_shape is not None:
            self.input_shape = input_shape

    def get_config(self):
        return self.config

    def get_weights(self):
        return self.weights


LocallyConnected2D = type("LocallyConnected2D", (KerasLayer,), {})


def keras_network(data_format, flatten_format, seed=0):
    """Return the layers and weights of a network, and its function of images in Keras' format from loops."""
    last = FORMATS[data_format]
    first, second = ((7, 5), (3, 2), (2, 1), "valid"), ((3, 4), (2, 2), (1, 2), "same")
    shapes = [keras_kernel_shape(1, last, *first, C, 3), (3, 4, 3), (3,), (3,), (3,), (3,)]
    shapes += [keras_kernel_shape(3, last, *second, 3, 2), (3, 2, 2), (12, 5), (5,)]
    weights = gaussian(*shapes, seed=seed)
    weights[5] = abs(weights[5])
    layers = [
        described("InputLayer", batch_input_shape=[None, 7, 5, C] if last else [None, C, 7, 5]),
        described(
            "LocallyConnected2D", filters=3, kernel_size=[3, 2], strides=[2, 1], data_format=data_format, activation="relu"
        ),
        described("BatchNormalization", axis=[3 if last else 1], epsilon=0.1),
        described("Dropout", rate=0.5),
        described(
            "LocallyConnected2D",
            filters=2,
            kernel_size=2,
            strides=[1, 2],
            padding="same",
            data_format=data_format,
            implementation=3,
        ),
        described("Flatten", data_format=flatten_format),
        described("Dense", units=5, activation="softmax"),
    ]
    layers[4]["config"]["name"] = "second"

    def function(x):
        h = np.maximum(keras_local(x, *weights[:2], 1, last, *first[1:]), 0)
        gamma, beta, mean, variance = (w if last else w[:, None, None] for w in weights[2:6])
        h = gamma * (h - mean) / np.sqrt(variance + 0.1) + beta
        h = keras_local(h, *weights[6:8], 3, last, *second[1:])
        h = np.moveaxis(h, 1, -1) if not FORMATS[flatten_format] else h
        h = np.exp(h.reshape(len(x), -1) @ weights[8] + weights[9])
        return h / h.sum(-1, keepdims=True)

    return layers, weights, function


@pytest.mark.parametrize(
    "data_format, flatten_format", [("channels_last",) * 2, ("channels_first",) * 2, ("channels_first", "channels_last")]
)
def test_a_keras_sequential_computes_the_same(data_format, flatten_format):
    layers, weights, function = keras_network(data_format, flatten_format)
    last = FORMATS[data_format]
    (x,) = gaussian((3, 7, 5, C) if last else (3, C, 7, 5), seed=1)
    model = foreign.from_keras_sequential({"class_name": "Sequential", "config": {"layers": layers}}, weights)
    model.eval()
    close(run(model, channels_last(x, last)), function(x))
    by_name = {
        "locallyconnected2d": weights[:2],
        "batchnormalization": weights[2:6],
        "second": weights[6:8],
        "dense": weights[8:],
    }
    again = foreign.from_keras_sequential(layers, by_name)
    for one, other in zip(*(jax.tree.leaves(nnx.state(m, (nnx.Param, nnx.BatchStat))) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_keras_layers_of_version_1_and_objects_are_read_alike():
    _, kernel, bias = keras_case(1, KERAS[0], "channels_first")
    config = {"filters": 3, "kernel_size": (3, 2), "strides": (2, 1), "data_format": "channels_first", "padding": "valid"}
    old = {
        "nb_filter": 3,
        "nb_row": 3,
        "nb_col": 2,
        "subsample": (2, 1),
        "dim_ordering": "th",
        "border_mode": "valid",
        "bias": True,
    }
    expected = foreign.from_keras_layer(LocallyConnected2D(config, [kernel, bias], (None, C, 7, 5)))
    got = foreign.from_keras_layer(LocallyConnected2D(old, [kernel, bias]), image_shape=(7, 5, C))
    assert got.layout == expected.layout
    np.testing.assert_array_equal(got.kernel[...], expected.kernel[...])
    np.testing.assert_array_equal(got.bias[...], expected.bias[...])


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_keras_pools_leave_padding_out(padding):
    (x,) = gaussian((2, 7, 5, 3))
    size, strides = (3, 2), (2, 3)
    reads = oracle.tables((7, 5), size, strides, (1, 1), padding.upper())
    options = {"pool_size": size, "strides": strides, "padding": padding}
    for kind, reduce in (("AveragePooling2D", lambda taps: taps.mean(0)), ("MaxPooling2D", lambda taps: taps.max(0))):
        got = foreign.from_keras_layer(described(kind, **options), [])
        close(run(got, x), np.stack([oracle.pool(image, reads, reduce) for image in x]))


def test_error_about_a_keras_layer_names_its_keys_and_what_is_missing_and_no_more():
    config = {"filters": 4, "kernel_size": (3, 3), "kernel_initializer": {"class_name": "Zeros", "config": [1] * 500}}
    for layer, message in (
        (config, "layer must be a Keras layer .* got a mapping of filters, kernel_size, kernel_initializer$"),
        ({"class_name": "Dense", "confg": config}, "got a mapping of class_name, confg$"),
        (dict.fromkeys("abcdefgh", config), "got a mapping of a, b, c, d, e, f, ...$"),
    ):
        with pytest.raises(TypeError, match=message):
            foreign.from_keras_layer(layer, [])
    with pytest.raises(ValueError, match="config of LocallyConnected2D lacks 'kernel_size'"):
        foreign.from_keras_layer(
            {"class_name": "LocallyConnected2D", "config": {"filters": 4}}, [np.ones(3)] * 2, image_shape=(7, 7, 2)
        )


# --- variables of Linen ----------------------------------------------------------------------------------------------

MASK = np.random.default_rng(1).integers(0, 2, (7, 6, 12, 2))
LINEN = [
    (flax.linen.ConvLocal(D, (3, 2), strides=(2, 1), padding=[(2, 1), (0, 1)]), convlab.LocallyConnected),
    (
        flax.linen.ConvLocal(2, (3, 2), padding="CIRCULAR", kernel_dilation=(1, 2), use_bias=False, mask=MASK),
        convlab.LocallyConnected,
    ),
    (flax.linen.Conv(6, (3, 2), strides=2, padding=[(1, 2), 1], feature_group_count=2, input_dilation=(2, 1)), nnx.Conv),
    (flax.linen.ConvTranspose(3, (3, 2), strides=(2, 3), transpose_kernel=True), nnx.ConvTranspose),
    (flax.linen.Dense(3), nnx.Linear),
    (flax.linen.BatchNorm(use_running_average=True, epsilon=0.1, use_bias=False), nnx.BatchNorm),
    (convlab.linen.Tiled(3, (3, 2), period=(2, 3)), convlab.Tiled),
]


def drawn(module, shape, **options):
    """Gaussian variables of a Linen module, variances positive."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)), **options))
    random = np.random.default_rng(0)
    return jax.tree.map_with_path(
        lambda path, leaf: abs(random.normal(size=leaf.shape)) if path[-1].key == "var" else random.normal(size=leaf.shape),
        shapes,
    )


@pytest.mark.parametrize("module, kind", LINEN, ids=lambda value: getattr(value, "__name__", ""))
def test_linen_layers_compute_the_same_here_and_come_back(module, kind):
    (x,) = gaussian((2, 7, 6, C))
    variables = drawn(module, (7, 6, C))
    layer = foreign.from_linen_variables(variables, module, (7, 6, C))
    assert type(layer) is kind
    layer.eval()
    close(run(layer, x), jax.jit(module.apply)(variables, x))
    jax.tree.map(np.testing.assert_array_equal, foreign.to_linen_variables(layer, module, (7, 6, C)), variables)


class LinenNet(flax.linen.Module):
    """Modules whose names sort in another order than they are called."""

    @flax.linen.compact
    def __call__(self, x, train):
        x = flax.linen.ConvLocal(3, (2, 2), padding="VALID", name="z")(x)
        x = flax.linen.BatchNorm(use_running_average=not train, name="y")(x)
        x = flax.linen.relu(x).reshape(len(x), -1)
        x = flax.linen.Dense(30, name="b")(x)
        return flax.linen.Dense(30, name="a")(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.a = convlab.LocallyConnected(C, 3, (2, 2), padding="VALID", space=(3, 6), param_dtype=float, rngs=rngs)
        self.norm = BatchNorm(3, param_dtype=float, rngs=rngs)
        self.d = nnx.Linear(30, 30, param_dtype=float, rngs=rngs)
        self.c = nnx.Linear(30, 30, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.a(x))).reshape(len(x), -1)
        return self.c(self.d(x))


def test_a_linen_network_is_paired_with_an_nnx_network_in_the_order_of_calls():
    (x,) = gaussian((2, 3, 6, C))
    module, model = LinenNet(), NNXNet(nnx.Rngs(0))
    variables = drawn(module, (3, 6, C), train=False)
    before = jax.tree.leaves(nnx.state(model))
    got = foreign.from_linen_variables(variables, module, (3, 6, C), model=model)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.leaves(nnx.state(model)))
    got.eval()
    close(run(got, x), jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x))
    jax.tree.map(np.testing.assert_array_equal, foreign.to_linen_variables(got, module, (3, 6, C)), variables)


def test_a_linen_sequential_becomes_an_nnx_sequential():
    (x,) = gaussian((2, 3, 6, C))
    inner = flax.linen.Sequential([flax.linen.BatchNorm(use_running_average=True), flax.linen.relu])
    module = flax.linen.Sequential([flax.linen.ConvLocal(3, (2, 2)), inner, flax.linen.Dense(4), flax.linen.tanh])
    variables = drawn(module, (3, 6, C))
    got = foreign.from_linen_variables(variables, module, (3, 6, C))
    assert isinstance(got, nnx.Sequential)
    got.eval()
    close(run(got, x), jax.jit(module.apply)(variables, x))


# --- state_dict of PyTorch -------------------------------------------------------------------------------------------

DOUBLE = {"param_dtype": jnp.float64}


def torch_cnn(state, x):
    """A PyTorch network from loops, channels first: grouped convolution, batch norm in evaluation, ReLU, Flatten, Linear."""
    out = tuple(n + 2 * p - a + 1 for n, p, a in zip(x.shape[2:], (1, 0), (3, 2), strict=True))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    h = np.zeros((len(x), 6, *out))
    for d in range(6):
        for i, j in np.ndindex(*out):
            group = slice(2 * (d // 3), 2 * (d // 3) + 2)
            patch = padded[:, group, i : i + 3, j : j + 2]
            h[:, d, i, j] = (patch * state["0.weight"][d]).sum((1, 2, 3)) + state["0.bias"][d]
    gamma, beta, mean, var = (state[f"1.{name}"][:, None, None] for name in ("weight", "bias", "running_mean", "running_var"))
    h = np.maximum(gamma * (h - mean) / np.sqrt(var + 1e-5) + beta, 0)
    return h.reshape(len(x), -1) @ state["4.weight"].T + state["4.bias"]


TORCH_SHAPES = {
    "0.weight": (6, 2, 3, 2),
    "0.bias": (6,),
    "1.weight": (6,),
    "1.bias": (6,),
    "1.running_mean": (6,),
    "1.running_var": (6,),
    "4.weight": (3, 54),
    "4.bias": (3,),
}


def torch_network(conv=convlab.Conv):
    """The same network here, whose statistics keep double precision."""
    rngs = nnx.Rngs(0)
    options = {"padding": ((1, 1), (0, 0)), "feature_group_count": 2}
    first, norm = conv(4, 6, (3, 2), **options, **DOUBLE, rngs=rngs), nnx.BatchNorm(6, **DOUBLE, rngs=rngs)
    norm.mean, norm.var = nnx.BatchStat(jnp.zeros(6)), nnx.BatchStat(jnp.ones(6))
    return nnx.Sequential(first, norm, nnx.relu, lambda x: x.reshape(len(x), -1), nnx.Linear(54, 3, **DOUBLE, rngs=rngs))


FLAT = {"flattened": {"layers.4": (3, 3, 6)}, "names": {"layers": ""}}


@pytest.mark.parametrize("conv", [convlab.Conv, nnx.Conv])
def test_a_torch_state_dict_makes_the_same_network(conv):
    state = {key: whole(shape, 7, 11) / 4 for key, shape in TORCH_SHAPES.items()}
    state["1.running_var"] = abs(state["1.running_var"]) + 0.5
    x = whole((1, 4, 3, 4), 5, 13)
    of_record = [[-4.122764488894948, 4.502505260609084, 13.941326439833116]]  # PyTorch 2.13 on these numbers
    close(torch_cnn(state, x), np.array(of_record))
    model = foreign.from_torch_state_dict(torch_network(conv), state, **FLAT)
    model.eval()
    close(run(model, channels_last(x)), np.array(of_record))
    written = foreign.to_torch_state_dict(model, **FLAT)
    assert written.pop("1.num_batches_tracked") == 0
    assert written.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(written[key], array)


def test_a_written_state_dict_computes_what_the_network_computes():
    model = torch_network()
    nnx.update(model, jax.tree.map(lambda array: jnp.abs(array + gaussian(array.shape)[0]), nnx.state(model)))
    model.eval()
    (x,) = gaussian((2, 4, 3, 4), seed=9)
    close(torch_cnn(foreign.to_torch_state_dict(model, **FLAT), x), run(model, channels_last(x)))


@pytest.mark.parametrize("kind", [nnx.ConvTranspose, convlab.ConvTranspose])
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_torch_transposed_kernels_scatter_every_pixel(transpose_kernel, kind):
    rngs = nnx.Rngs(0)
    layer = kind(2, 3, (3, 2), (2, 3), padding="VALID", transpose_kernel=transpose_kernel, **DOUBLE, rngs=rngs)
    (x,) = gaussian((2, 4, 5, 2))
    state = foreign.to_torch_state_dict(layer)
    h = np.zeros((2, 3, 9, 15)) + state["bias"][:, None, None]
    for k, l, a, b in np.ndindex(4, 5, 3, 2):
        h[:, :, 2 * k + a, 3 * l + b] += x[:, k, l] @ state["weight"][:, :, a, b]
    got = np.asarray(run(layer, x))
    close(got[:, :9, :14], channels_last(h)[:, :9, :14])
    back = foreign.from_torch_state_dict(layer, state)
    np.testing.assert_array_equal(back.kernel[...], layer.kernel[...])


def test_embeddings_layer_norms_and_tensors_are_read():
    class Tensor:  # what is used of a PyTorch tensor
        def __init__(self, array, dtype="torch.float64"):
            self.array, self.dtype = array, dtype

        def detach(self):
            return self

        def cpu(self):
            return self

        def float(self):
            return Tensor(self.array.astype(np.float32))

        def __array__(self, dtype=None, copy=None):
            if self.dtype == "torch.bfloat16":
                raise TypeError("NumPy has no bfloat16")
            return self.array

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(11, 3, **DOUBLE, rngs=rngs)
            self.norm = nnx.LayerNorm(3, **DOUBLE, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

    embedding, scale, bias = gaussian((11, 3), (3,), (3,))
    scale = np.float32(scale)
    state = {"embed.weight": Tensor(embedding), "norm.weight": Tensor(scale, "torch.bfloat16"), "norm.bias": Tensor(bias)}
    got = foreign.from_torch_state_dict(Net(nnx.Rngs(0)), state)
    for array, variable in ((embedding, got.embed.embedding), (scale, got.norm.scale), (bias, got.norm.bias)):
        np.testing.assert_array_equal(variable[...], array)
    assert foreign.to_torch_state_dict(got).keys() == state.keys()


# --- what is refused -------------------------------------------------------------------------------------------------

WINDOW = cl.Window((3, 3), padding="VALID")  # on (4, 5): positions (2, 3)
MISFITS = [
    (
        lambda: foreign.from_torch(np.ones((7, 2))),
        ValueError,
        r"kernel has shape \(7, 2\); needs one axis per spatial axis",
    ),
    (lambda: foreign.from_torch(np.ones((7, 2, 3), int)), TypeError, "kernel has dtype int64 but needs a floating one"),
    (lambda: foreign.to_torch(np.ones((2, 7))), ValueError, r"v has shape \(2, 7\)"),
    (
        lambda: foreign.from_linen_local(np.ones((2, 3, 19, 7)), WINDOW),
        ValueError,
        r"kernel fuses 19 entries, but whole windows of \(3, 3\) taps need a multiple of 9",
    ),
    (lambda: foreign.from_linen_local(np.ones((2, 18, 7)), WINDOW), ValueError, "has 2 spatial axes but 1 are needed"),
    (
        lambda: foreign.to_linen_local(np.ones((2, 3, 3, 2, 7))),
        ValueError,
        r"v has shape .* and one axis per spatial axis",
    ),
    (
        lambda: foreign.from_keras_local(np.ones((2, 3, 18, 7)), WINDOW, (4, 5)),
        ValueError,
        r"kernel has \(4,\) axes but implementation 1 has \(3,\)",
    ),
    (
        lambda: foreign.from_keras_local(np.ones((5, 18, 7)), WINDOW, (4, 5)),
        ValueError,
        r"kernel has shape \(5, 18, 7\) but implementation 1 on \(4, 5\) pixels needs \(6, 18, 7\)",
    ),
    (lambda: foreign.from_keras_local(np.ones((6, 20, 7)), WINDOW, (4, 5)), ValueError, "kernel fuses 20 entries"),
    (lambda: foreign.from_keras_local(np.ones((6, 18, 7), int), WINDOW, (4, 5)), TypeError, "needs a floating one"),
    (
        lambda: foreign.from_keras_local(np.ones((5, 4, 2, 2, 3, 7)), WINDOW, (4, 5), implementation=2),
        ValueError,
        r"kernel has shape \(5, 4, 2, 2, 3, 7\) but implementation 2 on \(4, 5\) pixels needs \(4, 5, 2, 2, 3, 7\)",
    ),
    (
        lambda: foreign.from_keras_local(np.ones(54), WINDOW, (4, 5), implementation=3),
        ValueError,
        "out_features is missing: a kernel of implementation 3",
    ),
    (
        lambda: foreign.from_keras_local(np.ones(55), WINDOW, (4, 5), implementation=3, out_features=1),
        ValueError,
        "kernel fuses 55 entries, but .* needs a multiple of 54",
    ),
    (
        lambda: foreign.from_keras_local(np.ones(54), WINDOW, (4, 5), implementation=4),
        ValueError,
        "implementation must be 1, 2 or 3",
    ),
    (lambda: foreign.from_keras_local(np.ones(54), 3, (4, 5)), ValueError, r"kernel has \(1,\) axes"),
    (lambda: foreign.from_keras_local(np.ones((6, 18, 7)), 3, (4, 5)), TypeError, "window must be a convlab.Window"),
    (
        lambda: foreign.from_keras_local(np.ones(54), WINDOW, (4, 5), data_format="NCHW"),
        ValueError,
        "data_format 'NCHW' is unknown; needs one of channels_last, channels_first",
    ),
    (lambda: foreign.to_keras_local(np.ones((6, 18, 7)), WINDOW, (4, 5)), ValueError, r"v has shape \(6, 18, 7\)"),
    (
        lambda: foreign.to_keras_local(np.ones((3, 2, 3, 3, 2, 7)), WINDOW, (4, 5)),
        ValueError,
        r"v holds kernels for \(3, 2\) positions",
    ),
    (lambda: foreign.keras_local_window(3, 1, "causal", (4,)), ValueError, "padding 'causal' is unknown"),
    (lambda: foreign.from_keras_layer(np.ones(3)), TypeError, "layer must be a Keras layer or Sequential"),
    (lambda: foreign.from_keras_layer(described("LSTM", units=3), []), ValueError, r"no counterpart: lstm \(LSTM\)"),
    (
        lambda: foreign.from_keras_layer(described("Dense", units=3), [np.ones((2, 3))]),
        ValueError,
        r"weights of dense hold 1 arrays, but Dense needs 2 \(kernel, bias\)",
    ),
    (
        lambda: foreign.from_keras_layer(described("Dense", units=3), [np.ones((2, 3)), np.ones(4)]),
        ValueError,
        r"dense: bias has shape \(4,\) but the layer needs \(3,\)",
    ),
    (
        lambda: foreign.from_keras_layer(
            described("LocallyConnected1D", filters=1, kernel_size=2), [np.ones((3, 4, 1)), np.ones((3, 1))]
        ),
        ValueError,
        "image_shape is missing: locallyconnected1d does not show the size of its images",
    ),
    (
        lambda: foreign.from_keras_sequential(
            [described("LSTM"), described("Activation", activation="hard_sigmoid"), described("Flatten")], []
        ),
        ValueError,
        r"no counterpart: lstm \(LSTM\); activation \(activation 'hard_sigmoid'\)$",
    ),
    (
        lambda: foreign.from_keras_sequential(
            [described("MaxPooling2D", pool_size=2, data_format="channels_first"), described("BatchNormalization", axis=-1)], []
        ),
        ValueError,
        r"batchnormalization \(BatchNormalization along axis -1, which does not hold the channels\)",
    ),
    (
        lambda: foreign.from_keras_sequential(
            [
                described("MaxPooling2D", pool_size=2, data_format="channels_first"),
                described("ZeroPadding2D", data_format="channels_last"),
            ],
            [],
        ),
        ValueError,
        "layers mix data formats",
    ),
    (
        lambda: foreign.from_keras_sequential([described("Dense")], {"other": [np.ones(3)]}),
        ValueError,
        r"weights hold arrays for \['other'\], but the layers are \['dense'\]",
    ),
    (
        lambda: foreign.from_keras_sequential([described("Dense")], [np.ones((2, 3)), np.ones(3), np.ones(3)]),
        ValueError,
        "weights hold 3 arrays, 1 more than the layers need",
    ),
    (
        lambda: foreign.from_keras_sequential([described("Dense")], [np.ones((2, 3)), np.ones(3)], image_shape=(5,)),
        ValueError,
        r"dense does not fit images of shape \(5,\)",
    ),
    (lambda: foreign.from_linen_variables({}, nnx.relu, (4, 5, 1)), TypeError, "module must be a Flax Linen module"),
    (
        lambda: foreign.from_linen_variables({"params": {"kernel": np.ones(3), "gain": 1}}, flax.linen.Dense(3), (4,)),
        ValueError,
        "variables lack params/bias; variables hold, beyond those of the module, params/gain",
    ),
    (
        lambda: foreign.from_linen_variables(
            {},
            flax.linen.Sequential([flax.linen.LayerNorm(), flax.linen.ConvLocal(1, (2,), input_dilation=2, padding=[(1, 1)])]),
            (4, 1),
        ),
        ValueError,
        r"no counterpart: layers_0 \(LayerNorm\), layers_1 \(ConvLocal with input_dilation=2",
    ),
    (
        lambda: foreign.to_linen_variables(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), flax.linen.Dense(3, use_bias=False), (4,)),
        ValueError,
        r"the model has the arrays \['kernel'\], but its NNX layer Linear has \['bias', 'kernel'\]",
    ),
    (
        lambda: foreign.to_linen_variables(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), flax.linen.Dense(2), (4,)),
        ValueError,
        r"the NNX array kernel has shape \(4, 3\) but params/kernel needs \(4, 2\)|bias",
    ),
    (lambda: foreign.to_torch_state_dict(np.ones(3)), TypeError, "model must be a Flax NNX module"),
    (
        lambda: foreign.to_torch_state_dict(
            nnx.Sequential(
                convlab.LocallyConnected(1, 1, 2, space=(3,), rngs=nnx.Rngs(0)),
                nnx.Linear(1, 1, rngs=nnx.Rngs(0)),
                nnx.Conv(1, 1, (1,), mask=jnp.ones((1, 1, 1)), rngs=nnx.Rngs(0)),
                convlab.Conv(1, 1, 1, space=(3,), use_bias="position", rngs=nnx.Rngs(0)),
                nnx.BatchNorm(1, use_bias=False, rngs=nnx.Rngs(0)),
            )
        ),
        ValueError,
        r"no counterpart in PyTorch: layers.0 \(LocallyConnected\), layers.2 \(Conv with a mask\), layers.3 \(Conv with a"
        r" bias per position\), layers.4 \(BatchNorm with one of scale and bias alone\)",
    ),
    (
        lambda: foreign.from_torch_state_dict(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), {"weight": np.ones((2, 3)), "gain": 1}),
        ValueError,
        r"weight has shape \(2, 3\) but .* needs \(3, 2\); gain has no layer here|bias is missing",
    ),
    (
        lambda: foreign.to_torch_state_dict(torch_network(), flattened={"layers.4": (3, 2, 5)}),
        ValueError,
        r"flattened gives layers.4 images of shape \(3, 2, 5\), 30 numbers, but it reads 54",
    ),
    (
        lambda: foreign.to_torch_state_dict(torch_network(), flattened={"4": (3,)}),
        ValueError,
        "flattened names '4', but the layers are",
    ),
    (
        lambda: foreign.to_torch_state_dict(torch_network(), names={"layers.0": "a", "layers.1": "a"}),
        ValueError,
        "names maps both layers.0 and layers.1 to 'a'",
    ),
]


@pytest.mark.parametrize("call, error, message", MISFITS, ids=lambda value: value if isinstance(value, str) else "")
def test_refuses_kernels_that_do_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "build",
    [
        lambda: drop_ins.Conv(3, (3, 2), padding="EDGE", strides=2),
        lambda: drop_ins.Conv(3, (3, 2), mask=np.arange(72.0).reshape(3, 2, 4, 3) % 2),
        lambda: drop_ins.ConvTranspose(3, (3, 2), strides=(2, 1)),
        lambda: drop_ins.ConvLocal(3, (3, 2), strides=(1, 2)),
    ],
    ids=["padding", "mask", "transposed", "local"],
)
def test_drop_ins_of_linen_are_read_and_written(build):
    module, x = build(), np.random.default_rng(0).normal(size=(2, 7, 5, 4)).astype("float32")
    variables = module.init(jax.random.key(0), x)
    layer = foreign.from_linen_variables(variables, module, (7, 5, 4))
    np.testing.assert_allclose(layer(x), module.apply(variables, x), atol=1e-5)
    back = foreign.to_linen_variables(layer, module, (7, 5, 4))
    jax.tree.map(np.testing.assert_array_equal, back["params"], variables["params"])
