"""Published networks: their weights as printed, their forward pass by hand, and the same function on a freer rung."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from flax import nnx
from networks import TINY, filled, images, scores_of

import convlab as cl
from convlab import models
from convlab.layers import CONNECTIVITY, Layer


def shapes(build):
    """The network without its numbers."""
    return nnx.eval_shape(build)


# --- counts ----------------------------------------------------------------------------------------------------------


def resnet(depth, image_shape, classes, **own):
    return shapes(lambda: models.ResNet(image_shape, classes, **models.RESNETS[depth] | own, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "build, weights",
    [
        (lambda: resnet(18, (224, 224, 3), 1000), 11_689_512),
        (lambda: resnet(34, (224, 224, 3), 1000), 21_797_672),
        (lambda: resnet(20, (32, 32, 3), 10), 269_722),
        (lambda: resnet(20, (32, 32, 3), 10, projection=True), 272_474),
        (lambda: resnet(56, (32, 32, 3), 10), 853_018),
        (lambda: shapes(lambda: models.AllCNN((32, 32, 3), 10, rngs=nnx.Rngs(0))), 1_369_738),
        (
            lambda: shapes(lambda: models.AllCNN((32, 32, 3), 10, batch_norm=True, rngs=nnx.Rngs(0))),
            1_369_738 + 3 * 96 + 5 * 192,  # scale and bias of the norm for the bias of the layer
        ),
    ],
    ids=["18", "34", "20", "20-projected", "56", "AllCNN", "AllCNN-normed"],
)
def test_numbers_of_weights_are_those_published(build, weights):
    assert cl.measure.count_weights(build()) == weights


def test_a_residual_network_is_as_deep_as_its_name():
    assert {depth: 2 * sum(own["blocks"]) + 2 for depth, own in models.RESNETS.items()} == {n: n for n in models.RESNETS}
    model = resnet(20, (32, 32, 3), 10)
    spatial = [layer for _, layer in nnx.iter_modules(model) if isinstance(layer, Layer)]
    assert len(spatial) + len(model.head.layers) == 20


def test_resnet_18_costs_the_products_that_are_published_but_for_those_with_padding():
    layers, total = cl.count(resnet(18, (224, 224, 3), 1000), (224, 224, 3))
    spatial = [row for row in layers if row.layout is not None]
    padded = sum(np.prod(row.output_shape[:2]) * np.prod(row.layout.kernel_shape) for row in spatial) + 512 * 1000
    assert padded == 1_814_073_344
    assert 0.9 * padded < total.multiply_adds < padded


@pytest.mark.parametrize(
    "stem, weights, channels, space",
    [
        ("3x3", 1_728, [64], (32, 48)),
        ("7x7", 9_408, [64], (8, 12)),
        ("3x3x3", 28_512, [32, 32, 64], (8, 12)),
        ("5x5", 4_800, [64], (8, 12)),
        ("2x2", 768, [64], (8, 12)),
        ("patchify", 3_072, [64], (8, 12)),
    ],
)
def test_stems_hold_the_weights_of_their_table_and_leave_a_quarter_of_each_side(stem, weights, channels, space):
    stages = shapes(lambda: models.ResNet((32, 48, 3), 10, (1,), stem=stem, rngs=nnx.Rngs(0))).stages[:-1]
    assert sum(stage.layer.kernel.size for stage in stages) == weights
    assert [stage.output_shape[-1] for stage in stages] == channels
    assert stages[-1].output_shape[:-1] == space
    assert all(stage.layer.bias is None for stage in stages)


def test_every_stem_has_a_row():
    assert set(models.STEMS) == {"3x3", "7x7", "3x3x3", "5x5", "2x2", "patchify"}


S_NET = {
    "conv": lambda s, w, c: 6 * s**2 * w**2 + (243 + 24 * c) * w,
    "locally_connected": lambda s, w, c: 6 * s**2 * w**2 + (243 * s**2 // 4 + 24 * c) * w,
    "dense": lambda s, w, c: 6 * s**2 * w**2 + (3 * s**4 // 4 + 24 * c) * w,
}
D_NET = {
    "conv": lambda s, w, c: (2286 + 4 * s**2) * w**2 + (27 + 64 * c) * w,
    "locally_connected": lambda s, w, c: (45 + 4) * s**2 * w**2 + (27 * s**2 + 64 * c) * w,
    "dense": lambda s, w, c: (127 * s**4 // 128 + 4 * s**2) * w**2 + (3 * s**4 + 64 * c) * w,
}


def kernels(model):
    """Weights of all layers without their biases and batch norm."""
    held = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return sum(leaf.size for path, leaf in held if path[-1] == "kernel")


@pytest.mark.parametrize("connectivity", S_NET)
@pytest.mark.parametrize("s, width, classes", [(32, 5, 10), (16, 3, 7)])
def test_s_and_d_nets_hold_the_weights_of_their_formulas(connectivity, s, width, classes):
    for kind, formulas in ((models.SNet, S_NET), (models.DNet, D_NET)):
        model = shapes(lambda kind=kind: kind((s, s, 3), classes, width=width, connectivity=connectivity, rngs=nnx.Rngs(0)))
        assert kernels(model) == formulas[connectivity](s, width, classes)
        units = sum(leaf.size for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)) if path[-1] == "scale")
        assert cl.measure.count_weights(model) == kernels(model) + 2 * units + classes  # no bias where batch norm follows


def test_the_local_weights_of_a_d_net_are_those_of_its_eight_layers():
    s, w, c = 32, 5, 10
    widths, sides = (1, 2, 2, 4, 4, 8, 8, 16), (32, 16, 16, 8, 8, 4, 4, 2)
    model = shapes(lambda: models.DNet((s, s, 3), c, width=w, connectivity="locally_connected", rngs=nnx.Rngs(0)))
    assert [stage.output_shape for stage in model.stages] == [(n, n, d * w) for d, n in zip(widths, sides, strict=True)]
    first, *others = [stage.layer.kernel.size for stage in model.stages]
    assert first == 27 * s**2 * w
    assert others == [size * s**2 * w**2 // 2 for size in (9, 18, 9, 18, 9, 18, 9)]  # 4.5 with stride 2, 9 without: 45
    assert [layer.kernel.size for layer in model.head.layers] == [4 * s**2 * w**2, 64 * c * w]


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
@pytest.mark.parametrize("network", TINY)
def test_every_spatial_layer_is_on_the_requested_rung(network, connectivity):
    build, shape = TINY[network]
    model = shapes(lambda: build(connectivity=connectivity, rank=3, rngs=nnx.Rngs(0)))
    layers = [layer for _, layer in nnx.iter_modules(model) if isinstance(layer, Layer)]
    assert {layer.layout.rung for layer in layers} == {CONNECTIVITY[connectivity]}
    assert not any(isinstance(module, nnx.Conv) for _, module in nnx.iter_modules(model))
    ranks = {getattr(layer.layout.tying, "rank", 3) for layer in layers if math.prod(layer.layout.positions) >= 3}
    assert ranks == {3}
    assert cl.count(model, shape).total.output_shape == (3,)


@pytest.mark.parametrize("shape", [(17, 2), (9, 10, 11, 1)], ids=["1d", "3d"])
@pytest.mark.parametrize("network", ["SNet", "DNet", "AllCNN", "ResNet"])
def test_networks_take_signals_and_volumes(network, shape):
    model = shapes(lambda: getattr(models, network)(shape, 3, width=2, rngs=nnx.Rngs(0)))
    assert cl.count(model, shape).total.output_shape == (3,)


def normalised(norm, h):
    h = (h - h.mean((0, 1, 2))) / jnp.sqrt(h.var((0, 1, 2)) + norm.epsilon)
    return h * norm.scale[...] + norm.bias[...]


def staged(stage, x, size, strides=1):
    """A stage without its activation, by a padding of (k - 1) / 2 pixels a side."""
    return normalised(stage.norm, cl.conv(x, stage.layer.kernel[...], cl.Window((size, size), strides, (size - 1) // 2)))


@pytest.mark.parametrize("network", ["ResNet", "ResNet-zeros"])
def test_a_block_adds_its_input_before_its_last_activation(network):
    build, shape = TINY[network]
    model = filled(lambda: build(rngs=nnx.Rngs(0)))
    stem, *blocks = model.stages
    size, strides = (7, 2) if network == "ResNet" else (3, 1)
    (last,) = model.head.layers

    @jax.jit
    def by_hand(x):
        h = nnx.relu(staged(stem, x, size, strides))
        h = cl.max_pool(h, cl.Window((3, 3), 2, 1)) if network == "ResNet" else h
        for block in blocks:
            first, second = block.stages
            halved = block is blocks[-1]
            kept = h[:, ::2, ::2] if halved else h
            if halved and network == "ResNet":
                kept = staged(block.shortcut, h, 1, 2)
            elif halved:
                kept = jnp.concatenate([kept, jnp.zeros_like(kept)], -1)
            h = nnx.relu(kept + staged(second, nnx.relu(staged(first, h, 3, 1 + halved)), 3))
        return h.mean((1, 2)) @ last.kernel[...] + last.bias[...]

    x = images(4, *shape)
    close(scores_of(*nnx.split(model), x)[0], by_hand(x), 1e-4)


def test_all_cnn_is_the_mean_of_its_last_layer_over_positions():
    build, shape = TINY["AllCNN"]
    model = filled(lambda: build(rngs=nnx.Rngs(0)))
    steps = zip(model.stages, (*[1] * 6, 0, 0, 0), (1, 1, 2, 1, 1, 2, 1, 1, 1), strict=True)

    @jax.jit
    def by_hand(h):
        for stage, padding, strides in steps:
            kernel = stage.layer.kernel[...]
            h = cl.conv(h, kernel, cl.Window(kernel.shape[:2], strides, padding)) + stage.layer.bias[...]
            h = h if stage is model.stages[-1] else nnx.relu(h)
        return h.mean((1, 2))

    x = images(4, *shape)
    close(scores_of(*nnx.split(model), x)[0], by_hand(x), 1e-4)


def test_an_s_net_is_a_stage_a_normed_matrix_and_a_matrix():
    build, shape = TINY["SNet"]
    model = filled(lambda: build(rngs=nnx.Rngs(0)))
    hidden, last = model.head.layers
    assert hidden.bias is None

    @jax.jit
    def by_hand(x):
        h = nnx.relu(staged(model.stages[0], x, 9, 2)).reshape(4, 1, 1, -1)
        h = nnx.relu(normalised(model.head.norms[0], h @ hidden.kernel[...]))
        return (h @ last.kernel[...] + last.bias[...])[:, 0, 0]

    x = images(4, *shape)
    close(scores_of(*nnx.split(model), x)[0], by_hand(x), 1e-4)


@pytest.mark.parametrize("network", ["SNet", "AllCNN", "ResNet"])
def test_an_initializer_reaches_every_kernel_and_dense_layer(network):
    start = nnx.initializers.constant(0.25)
    model = nnx.jit(lambda: TINY[network][0](kernel_init=start, rngs=nnx.Rngs(0)))()
    held = nnx.to_flat_state(nnx.state(model, nnx.Param))
    assert all(np.all(np.asarray(leaf[...]) == 0.25) for path, leaf in held if path[-1] == "kernel")


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network, connectivity",
    [("SNet", "global_conv"), ("DNet", "dense"), ("AllCNN", "tiled"), ("ResNet", "dense")],
)
def test_networks_train_in_tree_mode_with_finite_gradients_and_one_compilation_for_all_seeds(network, connectivity):
    build, shape = TINY[network]
    x, target = images(4, *shape), images(4, 3, seed=1)

    chex.clear_trace_counter()

    @chex.assert_max_traces(1)
    def losses(definition, parameters, rest):
        def loss(parameters):
            return jnp.square(nnx.merge(definition, parameters, rest)(x) - target).mean()

        value, gradient = jax.value_and_grad(loss)(parameters)
        return value, gradient

    with nnx.set_graph_mode(False):
        compiled, definitions = jax.jit(losses, static_argnums=0), []
        for seed in (0, 1):
            model = filled(lambda seed=seed: build(connectivity=connectivity, rngs=nnx.Rngs(seed)), seed)
            definition, parameters, rest = nnx.split(model, nnx.Param, ...)
            value, gradient = compiled(definition, *map(nnx.to_pure_dict, (parameters, rest)))
            chex.assert_tree_all_finite((value, gradient))
            last = jax.tree.leaves(gradient["head"] if gradient.get("head") else gradient["stages"][8])
            assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in last)
            definitions.append(definition)
        assert definitions[0] == definitions[1]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: models.AllCNN((8, 32, 3), 10, rngs=nnx.Rngs(0)),
            r"image_shape is \(8, 32, 3\) but AllCNN needs at least 9 pixels",
        ),
        (lambda: models.AllCNN((32, 32, 3), 10, width=0, rngs=nnx.Rngs(0)), "width must be at least 1"),
        (lambda: models.SNet((32, 32, 3), 10, width=0, rngs=nnx.Rngs(0)), "width must be at least 1"),
        (lambda: models.DNet((32, 32, 3), 10, connectivity="convolution", rngs=nnx.Rngs(0)), "'convolution' is unknown"),
        (lambda: models.ResNet((32, 32, 3), 10, stem="9x9", rngs=nnx.Rngs(0)), "stem '9x9' is unknown; needs one of 3x3, 7x7"),
        (lambda: models.ResNet((32, 32, 3), 10, (2, 0), rngs=nnx.Rngs(0)), "blocks must be at least 1"),
        (lambda: models.ResNet((32, 32, 3), 10, width=0, rngs=nnx.Rngs(0)), "width must be at least 1"),
        (
            lambda: models.Block((7, 5, 4), 3, projection=False, connections=models.Connections(), rngs=nnx.Rngs(0)),
            "features is 3 but a block without projection needs at least its 4 input channels",
        ),
    ],
)
def test_refuses_invalid_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        shapes(lambda: (build(), None)[1])


def test_all_cnn_accepts_the_smallest_documented_images():
    assert shapes(lambda: models.AllCNN((9, 9, 1), 10, rngs=nnx.Rngs(0))).stages[-1].output_shape == (1, 1, 10)
