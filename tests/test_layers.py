"""Layers of every rung: one function in NNX and in Linen, drop-ins for Flax, and the variance they start with."""

import dataclasses
import functools
import inspect
import pickle
import pydoc

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from networks import filled, images
from strategies import gaussian

import convlab as cl
import convlab.linen
from convlab import layers
from convlab.norm import BatchNorm
from convlab.rungs import RUNGS

BIASES = [True, False, "channel", "position"]
USUAL_BIAS = {
    "Dense": "position",
    "LocallyConnected": "position",
    "Tiled": "channel",
    "LowRank": "channel",
    "Conv": "channel",
}
GEOMETRY = [  # space, kernel_size, strides, padding, kernel_dilation
    ((7, 5), (3, 2), (2, 1), "SAME", (1, 2)),
    ((11,), (3,), 2, "CAUSAL", 1),
    ((3, 5, 2), (2, 3, 1), (1, 2, 1), "CIRCULAR", 1),
]
EVERY = [  # layer, own arguments, channels in, channels out
    ("Dense", {}, 2, 3),
    ("LocallyConnected", {}, 2, 3),
    ("LocallyConnected", {"feature_group_count": 2}, 6, 10),
    ("Tiled", {"period": 2}, 2, 3),
    ("LowRank", {"rank": 5}, 2, 3),
    ("Conv", {}, 2, 3),
    ("Conv", {"feature_group_count": 2}, 6, 10),
]
OWN = {layer.__name__: {} for layer in layers.LAYERS.values()} | {"Tiled": {"period": 2}, "LowRank": {"rank": 5}}
SEVERAL = [layer.__name__ for layer in layers.LAYERS.values() if layer.tying.has_noise]
each_rung = pytest.mark.parametrize("name", OWN)
CLOSE = 1e-6  # in single precision


def a_layer(name, seed=0, **own):
    """A layer of two channels in and three out on images of 7 x 5 pixels."""
    options = {"space": (7, 5), **OWN[name], **own}
    return filled(lambda: getattr(layers, name)(2, 3, (3, 2), rngs=nnx.Rngs(0), **options), seed, deviation=1)


@nnx.jit
def outputs(x, *layers):
    return [layer(x) for layer in layers]


def state_of(layer):
    return nnx.to_pure_dict(nnx.state(layer, nnx.Param))


def by_function(name, x, arrays, window, groups):
    match name:
        case "Dense":
            return cl.dense(x, arrays["kernel"])
        case "Symmetric":  # of 3 x 2 taps: the middle row, and the others
            return cl.conv(x, arrays["kernel"][np.array([[1, 1], [0, 0], [1, 1]])], window, groups)
        case "LocallyConnected":
            return cl.locally_connected(x, arrays["kernel"], window, groups)
        case "Tiled":
            return cl.tiled(x, arrays["kernel"], window)
        case "LowRank":
            return cl.low_rank(x, arrays["basis"], arrays["weights"], window)
        case "Conv":
            return cl.conv(x, arrays["kernel"], window, groups)


def by_loops(name, x, arrays, reads, groups):
    arrays = {key: np.asarray(array) for key, array in arrays.items()}
    match name:
        case "Dense":
            return oracle.dense(x, arrays["kernel"])
        case "LocallyConnected":
            return oracle.locally_connected(x, arrays["kernel"], reads, groups)
        case "Tiled":
            return oracle.tiled(x, arrays["kernel"], reads)
        case "LowRank":
            return oracle.low_rank(x, arrays["basis"], arrays["weights"], reads)
        case "Conv":
            return oracle.conv(x, arrays["kernel"], reads, groups)


def as_axes(value, rank):
    return (value,) * rank if isinstance(value, int) else value


# --- one function, three forms ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name, own, c, d", EVERY)
@pytest.mark.parametrize("geometry, use_bias", [*((0, each) for each in BIASES), (1, True), (2, True)], ids=str)
def test_function_and_nnx_and_linen_agree(name, own, c, d, geometry, use_bias):
    space, kernel_size, strides, padding, dilation = GEOMETRY[geometry]
    fields = {"strides": strides, "padding": padding, "kernel_dilation": dilation, "use_bias": use_bias}
    fields |= {"param_dtype": jnp.float64, **own}
    layer = filled(lambda: getattr(layers, name)(c, d, kernel_size, space=space, rngs=nnx.Rngs(0), **fields), deviation=1)
    module = getattr(convlab.linen, name)(d, kernel_size, **fields)
    x, arrays = gaussian((2, 1, *space, c))[0], state_of(layer)
    start = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(arrays, start)

    window, groups = cl.Window(kernel_size, strides, padding, dilation), own.get("feature_group_count", 1)
    out = window.output_shape(space)
    sharing = USUAL_BIAS[name] if use_bias is True else use_bias
    assert arrays.get("bias", np.zeros(0)).shape == {"channel": (d,), "position": (*out, d), False: (0,)}[sharing]

    @jax.jit
    def three_forms(layer, arrays, x):
        expected = by_function(name, x, arrays, window, groups) + arrays.get("bias", 0)
        return expected, nnx.merge(*layer)(x), module.apply({"params": arrays}, x)

    expected, *got = three_forms(nnx.split(layer), arrays, x)
    close(got, [expected, expected])

    rank = len(space)
    reads = oracle.tables(space, kernel_size, as_axes(strides, rank), as_axes(dilation, rank), padding)
    close(got[0][1, 0], by_loops(name, x[1, 0], arrays, reads, groups) + np.asarray(arrays.get("bias", 0)))


@each_rung
def test_dtype_casts_image_arrays_and_bias_in_both_forms(name):
    fields = {"dtype": jnp.bfloat16, "use_bias": "channel"}
    layer = a_layer(name, **fields)
    module = getattr(convlab.linen, name)(3, (3, 2), **fields, **OWN[name])
    x = images(2, 7, 5, 2)
    chex.assert_type(list(state_of(layer).values()), jnp.float32)
    h = layer(x)
    chex.assert_type(h, jnp.bfloat16)
    half = {key: array.astype(jnp.bfloat16) for key, array in state_of(layer).items()}
    window = cl.Window((3, 2))
    chex.assert_trees_all_equal(h, by_function(name, x.astype(jnp.bfloat16), half, window, 1) + half["bias"])
    chex.assert_trees_all_equal(h, module.apply({"params": state_of(layer)}, x))


@each_rung
def test_integer_images_are_accepted(name):
    layer = a_layer(name)
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 2)).astype(np.uint8)
    [h], [expected] = outputs(x, layer), outputs(x.astype(np.float32), layer)
    close(h, expected, CLOSE)
    chex.assert_type(h, jnp.float32)


@each_rung
def test_precision_and_element_type_reach_the_op(name):
    fields = {
        "precision": jax.lax.Precision.HIGHEST,
        "preferred_element_type": jnp.float32,
        "dtype": jnp.bfloat16,
    }
    layer = a_layer(name, **fields)
    module = getattr(convlab.linen, name)(3, (3, 2), **fields, **OWN[name])
    x = np.ones((7, 5, 2), np.float32)
    for call in (layer, lambda x: module.apply({"params": state_of(layer)}, x)):
        assert jax.eval_shape(call, x).dtype == jnp.float32
        assert "HIGHEST" in str(jax.make_jaxpr(call)(x))


# --- Conv is Flax's --------------------------------------------------------------------------------------------------

STRIDES_AND_PADDINGS = [
    (space, strides, padding)
    for space in [(11,), (7, 5), (5, 3, 4)]
    for strides in (1, 2)
    for padding in ["SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL", 2, [(1, 2)] * len(space), [1] * len(space)]
    if padding != "CAUSAL" or len(space) == 1
]
OPTIONS = [
    {"kernel_dilation": 2},
    {"kernel_dilation": (1, 2), "padding": "CIRCULAR"},
    {"kernel_dilation": (2, 1), "strides": (1, 2), "padding": "REFLECT"},
    {"strides": None, "kernel_dilation": None},
    {"feature_group_count": 2},
    {"feature_group_count": 4, "strides": 2, "padding": "VALID"},
    {"use_bias": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    {"kernel_init": nnx.initializers.he_uniform(), "bias_init": nnx.initializers.normal(1.0)},
    {"padding": ((0, 3), (2, 1)), "strides": (2, 1)},
]


def twins(c, d, size, seed=0, **options):
    """Flax's layer and ours from one seed, with the bias shifted off zero in both."""
    theirs, ours = (layer(c, d, size, rngs=nnx.Rngs(seed), **options) for layer in (nnx.Conv, cl.Conv))
    chex.assert_trees_all_equal(state_of(ours), state_of(theirs))
    for layer in (theirs, ours):
        if layer.bias is not None:
            shifted = np.asarray(layer.bias[...], float) + np.linspace(-1, 2, d)
            layer.bias[...] = jax.device_put(shifted.astype(layer.bias.dtype))
    return theirs, ours


@pytest.mark.parametrize("space, strides, padding", STRIDES_AND_PADDINGS, ids=str)
def test_conv_equals_nnx_conv_for_strides_and_paddings(space, strides, padding):
    theirs, ours = twins(2, 3, (3, 2, 3)[: len(space)], strides=strides, padding=padding)
    close(*outputs(images(2, *space, 2), ours, theirs), CLOSE)


@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
def test_conv_equals_nnx_and_linen_conv_for_every_option(options):
    theirs, ours = twins(4, 8, (3, 2), **options)
    x = images(2, 7, 5, 4)
    h, same = outputs(x, theirs, ours)
    chex.assert_trees_all_equal_dtypes(same, h)
    tolerance = CLOSE if h.dtype == jnp.float32 and "dtype" not in options else 1e-2
    close(same, h, tolerance)

    fields = {key: value for key, value in options.items() if key != "preferred_element_type"}
    linens = [module(8, (3, 2), **fields) for module in (flax.linen.Conv, convlab.linen.Conv)]
    start, our_start = (jax.jit(module.init)(jax.random.key(0), x) for module in linens)
    chex.assert_trees_all_equal(our_start, start)
    h, same = jax.jit(lambda start: [module.apply(start, x) for module in linens])(start)
    close(same, h, tolerance)
    chex.assert_trees_all_equal_dtypes(same, h)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (2, 1, 3)])
def test_conv_takes_as_many_batch_axes_as_nnx_conv(batch):
    theirs, ours = twins(2, 3, (3, 2))
    got, expected = outputs(images(*batch, 7, 5, 2), ours, theirs)
    close(got, expected, CLOSE)
    chex.assert_shape(got, (*batch, 7, 5, 3))


def test_conv_accepts_integers_as_nnx_conv_does():
    theirs, ours = twins(2, 3, (3, 2))
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 2)).astype(np.uint8)
    got, expected = outputs(x, ours, theirs)
    close(got, expected, CLOSE)
    chex.assert_trees_all_equal_dtypes(got, expected)


def test_an_int_kernel_size_is_one_axis_as_in_nnx_or_all_axes_of_space():
    theirs, ours = twins(2, 3, 3)
    close(*outputs(images(2, 7, 2), ours, theirs), CLOSE)
    square = nnx.eval_shape(lambda: cl.Conv(2, 3, 3, space=(7, 5), rngs=nnx.Rngs(0)))
    assert square.kernel.shape == (3, 3, 2, 3)


@pytest.mark.parametrize("use_bias", [True, False])
def test_layers_after_conv_get_the_keys_they_would_get_after_nnx_conv(use_bias):
    theirs, ours = nnx.Rngs(5), nnx.Rngs(5)
    nnx.Conv(2, 3, (3, 2), use_bias=use_bias, rngs=theirs)
    cl.Conv(2, 3, (3, 2), use_bias=use_bias, rngs=ours)
    assert jax.random.key_data(theirs.params()).tolist() == jax.random.key_data(ours.params()).tolist()


# --- how layers start ------------------------------------------------------------------------------------------------

STARTS = [  # connectivity, tied_noise, channels out by (pixels, channels in): many where few numbers are drawn
    ("conv", None, {(7, 1): 2000, (28, 64): 64}),
    ("global_conv", None, {(7, 64): 8, (28, 1): 16}),
    ("locally_connected", None, {(7, 1): 256, (7, 64): 8, (28, 1): 64, (28, 64): 2}),
    ("tiled", None, {(7, 64): 16, (28, 1): 1000}),
    ("low_rank", None, {(7, 64): 32, (28, 1): 1000}),
    ("dense", None, {(7, 1): 64, (7, 64): 4, (28, 1): 4, (28, 64): 1}),
    *((name, noise, {(7, 1): 1500}) for name in ("tiled", "low_rank", "dense") for noise in (0.0, 0.5)),
    *(("locally_connected", noise, {(28, 1): 600}) for noise in (0.0, 0.5)),
]


def squared_deviation(layer, space):
    """Variance of the output of each position, mean over channels, for images of independent pixels of variance 1.

    The sum of the squared weights of the position: no image is drawn, so only the weights are random.
    """
    window, arrays = layer.layout.window, {name: np.asarray(array) for name, array in state_of(layer).items()}
    out, live = window.output_shape(space), window.live(space)
    if layer.layout.rung == "dense":
        return np.square(arrays["kernel"]).sum((2, 3, 4)).mean(-1)
    if layer.layout.rung == "low_rank":
        gram = np.einsum("rabcd,sabcd->rsab", *[arrays["basis"]] * 2, optimize=True) / layer.layout.out_features
        return np.einsum("ijr,ijs,rsab,ijab->ij", *[arrays["weights"]] * 2, gram, live, optimize=True)
    square = np.square(arrays["kernel"]).sum(-2).mean(-1)
    if layer.layout.rung == "tiled":
        square = square[np.ix_(*(np.arange(n) % 2 for n in out))]
    return (square * live).sum((-1, -2))


@pytest.mark.parametrize(
    "connectivity, tied_noise, pixels, c, d",
    [(name, noise, *case, d) for name, noise, cases in STARTS for case, d in cases.items()],
)
def test_starts_with_the_deviation_of_a_convolution_at_the_border_too(connectivity, tied_noise, pixels, c, d):
    """1 inside, the root of the share of live taps at the border; shared connectivity sees all from everywhere: 1."""
    space = (pixels, pixels)
    options = {"space": space, "tied_noise": tied_noise, "use_bias": False}
    rngs = nnx.Rngs(jax.random.key(3, impl="rbg"))  # draws many numbers fast
    layer = nnx.jit(lambda rngs: layers.connect(connectivity, c, d, 3, rngs=rngs, **options))(rngs)
    square = squared_deviation(layer, space)
    share = np.ones(space) if connectivity == "global_conv" else cl.Window((3, 3)).live(space).mean((2, 3))
    for seen in np.unique(share):
        deviation = np.sqrt(square[share == seen].mean())
        assert deviation == pytest.approx(np.sqrt(seen), rel=0.05), f"positions that see {seen:.2f} of their window"


@each_rung
def test_outputs_on_images_deviate_as_those_of_a_convolution_in_both_forms(name):
    fields = {"strides": 2, "padding": "VALID", **OWN[name]}
    layer = nnx.jit(lambda: getattr(layers, name)(31, 37, (5, 3), space=(11, 7), rngs=nnx.Rngs(3), **fields))()
    module = getattr(convlab.linen, name)(37, (5, 3), **fields)
    x = images(16, 11, 7, 31)
    for h in (*outputs(x, layer), jax.jit(module.init_with_output)(jax.random.key(0), x)[0]):
        assert np.std(h) == pytest.approx(1, rel=0.05)


def kernel_of_all(name, layer, window, space):
    match name:
        case "Dense":
            return cl.project_dense_to_conv(layer.kernel[...], window, space)
        case "LocallyConnected":
            return cl.project_local_to_conv(layer.kernel[...], window, space)
        case "Tiled":
            return layer.kernel[0, 0]
        case "LowRank":
            return jnp.tensordot(layer.weights[0, 0], layer.basis[...], 1)


@pytest.mark.parametrize("name", SEVERAL)
def test_without_noise_between_positions_starts_as_a_convolution(name):
    space, window = (7, 5), cl.Window((3, 2), (2, 1))

    @jax.jit
    def both(x):
        layer = getattr(layers, name)(2, 3, (3, 2), (2, 1), space=space, tied_noise=0, rngs=nnx.Rngs(0), **OWN[name])
        return layer(x), cl.conv(x, kernel_of_all(name, layer, window, space), window)

    close(*both(images(2, *space, 2)), 1e-5)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("space", "tied_noise", "rank", "period"))
def start_of(name, sizes, **options):
    """The arrays that a layer starts with."""
    return state_of(getattr(layers, name)(*sizes, rngs=nnx.Rngs(0), **options))


@pytest.mark.parametrize("noise", [0.5, 2.0])
@pytest.mark.parametrize("name, far", [("LocallyConnected", (3, 4)), ("Tiled", (1, 0))])
def test_kernels_of_two_positions_correlate_by_one_over_one_plus_squared_noise(name, far, noise):
    kernel = np.asarray(start_of(name, (32, 32, (3, 3)), space=(7, 7), tied_noise=noise, **OWN[name])["kernel"])
    near = (1, 1)
    correlation = np.corrcoef(np.ravel(kernel[near]), np.ravel(kernel[far]))[0, 1]
    assert correlation == pytest.approx(1 / (1 + noise**2), abs=0.03)


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_shared_part_of_a_dense_weight_falls_with_noise_likewise(noise):
    space, window = (7, 5), cl.Window((3, 3))
    kernel = start_of("Dense", (16, 16, (3, 3)), space=space, tied_noise=noise)["kernel"]
    by_chance = 9 / 35**2  # dimensions of a convolution in those of a dense weight
    expected = (1 + noise**2 * by_chance) / (1 + noise**2)
    assert float(compiled(cl.decompose)(kernel, window, space)["shared"]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_mixing_weights_of_low_rank_kernels_are_unit_vectors_with_the_same_correlation(noise):
    weights = np.asarray(start_of("LowRank", (2, 3, (3, 3)), rank=2000, space=(3, 2), tied_noise=noise)["weights"])
    close(np.linalg.norm(weights, axis=-1), np.ones((3, 2)), 1e-5)
    assert float(weights[0, 0] @ weights[2, 1]) == pytest.approx(1 / (1 + noise**2), abs=0.08)


def test_independent_kernels_are_uncorrelated():
    kernel = np.asarray(start_of("LocallyConnected", (32, 32, (3, 3)), space=(7, 7))["kernel"])
    assert abs(np.corrcoef(np.ravel(kernel[1, 1]), np.ravel(kernel[3, 4]))[0, 1]) < 0.05


@pytest.mark.parametrize("noise", [None, 0.5])
@pytest.mark.parametrize("padding, strides", [("SAME", (1, 2)), ([(1, 2), (0, 1)], 1), ("FULL", 2)])
def test_dead_taps_start_at_zero_and_stay_there_while_live_ones_learn(padding, strides, noise):
    options = {"strides": strides, "padding": padding, "space": (5, 7), "tied_noise": noise}
    layer = nnx.jit(lambda: cl.LocallyConnected(2, 3, (3, 4), rngs=nnx.Rngs(0), **options))()
    dead = ~cl.Window((3, 4), strides, padding).live((5, 7))
    assert dead.any()
    definition, start, _ = nnx.split(layer, nnx.Param, ...)
    start = nnx.to_pure_dict(start)
    optimizer, x = optax.adamw(1e-2, weight_decay=0.1), images(4, 5, 7, 2)

    @jax.jit
    def trained(start):
        def step(carry, _):
            gradient = jax.grad(lambda p: jnp.tanh(nnx.merge(definition, p)(x) - 1).sum())(carry[0])
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (start, optimizer.init(start)), None, 3)[0][0]

    kernels = np.asarray(start["kernel"]), np.asarray(trained(start)["kernel"])
    for kernel in kernels:
        np.testing.assert_array_equal(kernel[dead], 0)
        assert np.all(kernel[~dead] != 0)
    assert np.all(kernels[0][~dead] != kernels[1][~dead])


@each_rung
def test_the_seed_determines_the_initial_arrays(name):
    def start(seed):
        made = getattr(layers, name)(2, 3, (3, 2), space=(7, 5), use_bias=False, rngs=nnx.Rngs(seed), **OWN[name])
        return jax.tree.map(np.asarray, state_of(made))

    chex.assert_trees_all_equal(start(0), start(0))
    assert all(np.all(a != b) for a, b in zip(start(0).values(), start(1).values(), strict=True) if a.ndim < 4)
    assert not np.array_equal(*(jax.tree.leaves(start(seed))[0] for seed in (0, 1)))


# --- connect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding, strides", [("SAME", 1), ("VALID", 2), ("CIRCULAR", (2, 1))])
@pytest.mark.parametrize("connectivity", layers.CONNECTIVITY)
def test_every_connectivity_has_the_outputs_of_the_convolution(connectivity, padding, strides):
    def outputs():
        layer = layers.connect(connectivity, 2, 3, (3, 2), strides, padding=padding, space=(7, 5), rngs=nnx.Rngs(0))
        return layer(jnp.ones((4, 7, 5, 2)))

    out = cl.Window((3, 2), strides, padding).output_shape((7, 5))
    assert jax.eval_shape(outputs).shape == (4, *out, 3)


def shapes_of(*sizes, **options):
    """A connected layer of shapes only."""
    return nnx.eval_shape(lambda: layers.connect(*sizes, **options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "connectivity, kernel",
    [
        ("dense", (4, 5, 7, 5, 2, 3)),
        ("locally_connected", (4, 5, 3, 2, 2, 3)),
        ("tiled", (3, 3, 3, 2, 2, 3)),
        ("conv", (3, 2, 2, 3)),
        ("global_conv", (7 + 2 * 3, 5 + 4, 2, 3)),
    ],
)
def test_connectivity_names_the_rung(connectivity, kernel):
    layer = shapes_of(connectivity, 2, 3, (3, 2), (2, 1), space=(7, 5), period=3)
    assert layer.kernel.shape == kernel


def test_low_rank_connectivity_takes_the_rank():
    layer = shapes_of("low_rank", 2, 3, (3, 2), (2, 1), space=(7, 5), rank=5)
    assert (layer.basis.shape, layer.weights.shape) == ((5, 3, 2, 2, 3), (4, 5, 5))


def test_connect_builds_the_same_layer_as_its_class():
    ours = layers.connect("conv", 2, 3, (3, 2), 2, padding="CIRCULAR", space=(7, 5), rngs=nnx.Rngs(0))
    theirs = nnx.Conv(2, 3, (3, 2), 2, padding="CIRCULAR", rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(state_of(ours), state_of(theirs))


@pytest.mark.parametrize("strides, padding", [(1, "SAME"), (2, "SAME"), ((2, 1), "VALID")])
def test_global_conv_reads_all_pixels_from_every_position_with_shared_weights(strides, padding):
    space = (7, 5)
    layer = filled(lambda: layers.connect("global_conv", 2, 3, 3, strides, padding=padding, space=space, rngs=nnx.Rngs(0)))
    w = np.moveaxis(np.asarray(jax.jit(jax.jacobian(layer))(np.zeros((*space, 2), np.float32))), 2, -1)
    assert np.all(w != 0)
    s, t = as_axes(strides, 2)
    np.testing.assert_array_equal(w[1:, :, s:], w[:-1, :, :-s])
    np.testing.assert_array_equal(w[:, 1:, :, t:], w[:, :-1, :, :-t])


def test_a_period_is_clipped_to_the_positions():
    layer = shapes_of("tiled", 2, 3, (3, 3), padding="VALID", space=(3, 7), period=4)
    assert layer.kernel.shape == (1, 4, 3, 3, 2, 3)


@pytest.mark.parametrize("connectivity", layers.CONNECTIVITY)
def test_connect_uses_noise_only_on_rungs_with_several_kernels(connectivity):
    @jax.jit
    def starts():
        noises = (0.0, 1.0)
        return [state_of(layers.connect(connectivity, 2, 3, 3, space=(7, 5), tied_noise=s, rngs=nnx.Rngs(0))) for s in noises]

    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, starts()), strict=True))
    assert same == (not RUNGS[layers.CONNECTIVITY[connectivity]].has_noise)


@pytest.mark.parametrize("use_bias, shape", [(False, None), (True, (7, 5, 3)), ("channel", (3,)), ("position", (7, 5, 3))])
def test_connect_passes_the_bias_on(use_bias, shape):
    bias = shapes_of("dense", 2, 3, 3, space=(7, 5), use_bias=use_bias).bias
    assert (bias if bias is None else bias.shape) == shape


# --- Flax ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [True, False])
@each_rung
def test_runs_and_trains_in_graph_mode_and_tree_mode(name, graph):
    with nnx.set_graph_mode(graph):
        made = [a_layer(name, seed) for seed in (0, 1)]
        (definition, state), (other, _) = map(nnx.split, made)
        assert definition == other
        assert hash(definition) == hash(other)
        x = images(2, 7, 5, 2)
        call = nnx.jit(lambda layer: layer(x))
        h = np.asarray(call(made[0]))
        close(made[0](x), h, 1e-5)  # an eager call may take another implementation
        chex.assert_trees_all_equal(call(nnx.merge(definition, state)), h)
        gradient = nnx.jit(nnx.grad(lambda layer: jnp.square(layer(x)).mean()))(made[0])
        moved = lambda p, g: jax.device_put(np.asarray(p) - 1e-3 * np.asarray(g))  # noqa: E731
        nnx.update(made[0], jax.tree.map(moved, nnx.state(made[0], nnx.Param), nnx.state(gradient)))
        assert np.square(call(made[0])).mean() < np.square(h).mean()
    assert nnx.set_graph_mode.current_value() is True


def test_layers_of_all_seeds_share_one_compilation():
    chex.clear_trace_counter()

    @chex.assert_max_traces(1)
    def run(definition, state, x):
        return nnx.merge(definition, state)(x)

    program = jax.jit(run, static_argnums=0)
    for seed in range(3):
        program(*nnx.split(cl.LocallyConnected(2, 3, (3, 2), space=(7, 5), rngs=nnx.Rngs(seed))), np.ones((7, 5, 2)))


# --- what is refused -------------------------------------------------------------------------------------------------

MISUSES = [  # layer, arguments, error, message
    ("Conv", {"use_bias": "pixel"}, ValueError, "use_bias must be True, False, 'channel' or 'position', got 'pixel'"),
    ("Conv", {"use_bias": None}, ValueError, "use_bias must be .* got None"),
    ("Conv", {"use_bias": "position", "space": None}, ValueError, "space is missing: a conv layer"),
    ("Tiled", {"use_bias": "position", "space": None}, ValueError, "space is missing: a tiled layer"),
    ("Dense", {"space": None}, ValueError, "space is missing: a dense layer"),
    ("LocallyConnected", {"space": None}, ValueError, "space is missing: a locally_connected layer"),
    ("LowRank", {"space": None}, ValueError, "space is missing: a low_rank layer"),
    ("Dense", {"space": (7, 0)}, ValueError, "space must be at least 1, got 0"),
    ("Dense", {"space": 7}, TypeError, "space must be a sequence of integers"),
    ("Dense", {"space": (7, 5, 3)}, ValueError, "has 2 spatial axes but 3 are needed"),
    ("Tiled", {"period": None}, TypeError, "period must be an integer"),
    ("Tiled", {"period": (2, 2, 2)}, ValueError, "period has 3 entries .* but 2 spatial axes"),
    ("Tiled", {"period": 8}, ValueError, r"period \(8, 8\) exceeds the \(7, 5\) positions"),
    ("Tiled", {"period": 1.5}, TypeError, "period must be an integer"),
    ("LowRank", {"rank": None}, TypeError, "rank must be an integer"),
    ("LowRank", {"rank": 0}, ValueError, "rank must be at least 1, got 0"),
    ("LowRank", {"rank": 2.0}, TypeError, "rank must be an integer"),
    ("Dense", {"period": 2}, ValueError, "a dense layer takes no period, got 2"),
    ("Conv", {"period": 2}, TypeError, "unexpected keyword argument 'period'"),
    ("LocallyConnected", {"rank": 2}, ValueError, "a locally_connected layer takes no rank, got 2"),
    ("LowRank", {"period": 2}, ValueError, "a low_rank layer takes no period, got 2"),
    ("Symmetric", {"tied_noise": 0.0}, ValueError, "a symmetric layer takes no tied_noise"),
    ("Dense", {"tied_noise": -1.0}, ValueError, "tied_noise is a standard deviation .* at least 0 and finite; got -1.0"),
    *(
        (name, {"feature_group_count": 2}, ValueError, f"a {rung} layer takes no groups, got 2")
        for name, rung in (("Dense", "dense"), ("Tiled", "tiled"), ("LowRank", "low_rank"))
    ),
    ("Conv", {"feature_group_count": 4}, ValueError, "groups must divide the 6 input channels, got 4"),
    ("Conv", {"feature_group_count": 3}, ValueError, "groups must divide the 10 output channels, got 3"),
    ("Conv", {"feature_group_count": 0}, ValueError, "groups must be an integer of at least 1, got 0"),
    ("Conv", {"feature_group_count": 2.0}, ValueError, "groups must be an integer of at least 1, got 2.0"),
    ("Conv", {"kernel_size": (3, 2.0)}, TypeError, "size must be an integer"),
    ("Conv", {"kernel_size": (3, 0)}, ValueError, "size must be at least 1, got 0"),
    ("Conv", {"strides": 1.5}, TypeError, "strides must be an integer"),
    ("Conv", {"strides": (1, 2, 1)}, ValueError, "mixes numbers of spatial axes"),
    ("Conv", {"padding": "some"}, ValueError, "padding 'SOME' is unknown; needs one of SAME"),
    ("Conv", {"padding": "CAUSAL"}, ValueError, "padding 'CAUSAL' needs one spatial axis"),
    ("Dense", {"kernel_size": (9, 9), "padding": "VALID"}, ValueError, "fits nowhere"),
]


@pytest.mark.parametrize("name, wrong, error, message", MISUSES, ids=lambda value: str(value)[:40])
def test_refuses_invalid_arguments(name, wrong, error, message):
    arguments = {"kernel_size": (3, 2), "space": (7, 5), **OWN[name], **wrong}
    with pytest.raises(error, match=message):
        getattr(layers, name)(6, 10, rngs=nnx.Rngs(0), **arguments)


@pytest.mark.parametrize(
    "sizes, error", [((0, 3), ValueError), ((2, 0), ValueError), ((2.0, 3), TypeError), ((2, "3"), TypeError)]
)
def test_refuses_channels_that_are_not_integers(sizes, error):
    with pytest.raises(error, match="(in|out)_features must be"):
        cl.Conv(*sizes, (3, 2), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"use_bias": "pixel"}, "use_bias must be"),
        ({"feature_group_count": 4}, "groups must divide the 6 input channels, got 4"),
    ],
)
def test_linen_modules_refuse_the_same_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        convlab.linen.Conv(10, (3, 2), **wrong).init(jax.random.key(0), jnp.ones((7, 5, 6)))


@each_rung
def test_refuses_images_of_another_space_than_it_was_made_for(name):
    layer = a_layer(name)
    with pytest.raises(ValueError, match=r"inputs holds images of \(5, 7\) pixels but this layer was made for \(7, 5\)"):
        layer(jnp.ones((4, 5, 7, 2)))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((7, 5, 1), "^inputs has 1 channel but this layer was made for 2 in_features$"),
        ((5, 2), "^inputs .* needs 2 spatial axes"),
    ],
)
@pytest.mark.parametrize(
    "kind", [cl.LocallyConnected, cl.DenseTranspose, functools.partial(cl.Conv, input_dilation=2, padding=1)]
)
def test_refuses_images_of_other_channels_or_axes(kind, shape, message):
    with pytest.raises(ValueError, match=message):
        kind(2, 3, (3, 2), space=(7, 5), rngs=nnx.Rngs(0))(jnp.ones(shape))


def test_signatures_show_the_constructor_of_a_class_and_the_call_of_an_instance():
    constructor = inspect.signature(layers.Layer.__init__).parameters
    for layer in {*layers.LAYERS.values()} - {cl.Conv}:
        names = list(inspect.signature(layer).parameters)
        fields = [field.name for field in dataclasses.fields(layer.tying)]
        assert names == [*list(constructor)[1:-1], *fields]
        assert {name: inspect.signature(layer).parameters[name].default for name in fields} == vars(layer.tying())
    assert "kernel_size: int" in pydoc.render_doc(cl.Conv).splitlines()[3]
    layer = a_layer("Conv")
    assert list(inspect.signature(layer).parameters) == ["inputs", "out_sharding"]
    assert not hasattr(layer, "__signature__")


class Scaled(cl.Conv):
    def __init__(self, scale, rngs):
        super().__init__(2, 3, (3, 2), rngs=rngs)


def test_a_subclass_with_its_own_constructor_shows_its_signature():
    assert list(inspect.signature(Scaled).parameters) == ["scale", "rngs"]
    assert list(inspect.signature(BatchNorm).parameters)[0] == "num_features"


@pytest.mark.parametrize("kind", [cl.Conv, cl.Tiled])
def test_layers_are_split_traced_and_pickled_as_those_of_flax(kind):
    layer = kind(2, 3, (3, 2), rngs=nnx.Rngs(0))
    x = images(2, 7, 5, 2)
    for same in (nnx.merge(*nnx.split(layer)), pickle.loads(pickle.dumps(layer))):
        close(same(x), layer(x), 0)
    shapes = nnx.eval_shape(lambda: kind(2, 3, (3, 2), rngs=nnx.Rngs(0)))
    assert shapes.kernel.shape == layer.kernel.shape


def test_refuses_an_unknown_connectivity():
    with pytest.raises(ValueError, match="connectivity 'convolution' is unknown; needs one of dense, locally_connected"):
        layers.connect("convolution", 2, 3, 3, space=(7, 5), rngs=nnx.Rngs(0))


def test_a_convolution_made_without_space_takes_images_of_any_size():
    layer = filled(lambda: cl.Conv(2, 3, (3, 2), rngs=nnx.Rngs(0)))
    for space in ((7, 5), (4, 11)):
        assert jax.eval_shape(layer, np.ones((*space, 2))).shape == (*space, 3)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_initializers_that_carry_a_sharding_keep_it_as_in_flax(name):
    boxed = nnx.with_partitioning(nnx.initializers.normal(), (None, None, "in", "out"))
    with jax.set_mesh(jax.make_mesh((1, 1), ("in", "out"), axis_types=(jax.sharding.AxisType.Auto,) * 2)):
        ours, theirs = (getattr(kind, name)(2, 3, (3, 2), kernel_init=boxed, rngs=nnx.Rngs(0)) for kind in (cl, nnx))
    assert ours.kernel.get_metadata() == theirs.kernel.get_metadata()
    np.testing.assert_array_equal(ours.kernel[...], theirs.kernel[...])
