"""Networks at every rung: their weights counted, their forward pass, and the same function on a freer rung."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from flax import nnx
from networks import SMALL, filled, images, scores_of

import convlab as cl
from convlab import models, rungs
from convlab.calls import recorded
from convlab.layers import CONNECTIVITY
from convlab.layers.layer import Layer
from convlab.models.stage import MONOTONE
from convlab.norm import BatchNorm
from convlab.rungs import RUNGS

KINDS = ("MLP", "LeNet", "Pyramid", "Net", "NetDeep")
SINGLE = 1e-5  # what scores in single precision agree to


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param))))


def built(build):
    """Build a network without its numbers: shapes only, so that nothing is drawn."""
    return nnx.eval_shape(build)


def scores(model, x):
    return scores_of(*nnx.split(model), x)[0]


@nnx.jit
def applied(module, x):
    return module(x)


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, weights",
    [
        (lambda: models.LeNet((28, 28, 1), 10, rngs=nnx.Rngs(0)), 61_706),
        (lambda: models.Net(rngs=nnx.Rngs(0)), 18_090),
        (lambda: models.Net(connectivity="locally_connected", rngs=nnx.Rngs(0)), 772_194),
        (lambda: models.Net(width=32, rngs=nnx.Rngs(0)), 38_386),
        (lambda: models.Net(width=32, dropout=0.4, rngs=nnx.Rngs(0)), 38_386),
        (lambda: models.Net(width=32, batch_norm=True, rngs=nnx.Rngs(0)), 38_386 + 2 * (32 + 16)),
        (lambda: models.Net(width=32, depth=3, rngs=nnx.Rngs(0)), 896 + 4_624 + 2_320 + 8_224 + 66),
        (lambda: models.Net(width=32, depth=3, residual=True, rngs=nnx.Rngs(0)), 16_130),
        (lambda: models.Net(depth=3, rngs=nnx.Rngs(0)), 448 + 1_160 + 584 + 4_128 + 66),
        (lambda: models.NetDeep(blocks=100, tied=True, rngs=nnx.Rngs(0)), 75_810),
        (lambda: models.NetDeep(blocks=100, rngs=nnx.Rngs(0)), 994_530),
        (lambda: models.NetDeep(blocks=10, rngs=nnx.Rngs(0)), 896 + 10 * (9_216 + 64) + 65_568 + 66),
        (lambda: models.MLP((32, 32, 3), 2, (512,), rngs=nnx.Rngs(0)), 1_574_402),
        (lambda: models.MLP((32, 32, 3), 2, (1024, 512, 128), rngs=nnx.Rngs(0)), 3_737_474),
        (lambda: models.MLP((8, 8, 1), 10, (), rngs=nnx.Rngs(0)), 650),
    ],
    ids=[
        *("LeNet", "Net", "Net-local", "Net-wide", "dropout", "norm", "depth", "residual", "narrow-depth"),
        *("tied-100", "untied-100", "untied-10", "MLP-1", "MLP-3", "linear"),
    ],
)
def test_numbers_of_weights_are_those_of_the_literature(build, weights):
    assert count(built(build)) == weights


@pytest.mark.parametrize(
    "connectivity, kernel, bias",
    [
        ("dense", (7, 5, 7, 5, 2, 4), (7, 5, 4)),
        ("locally_connected", (7, 5, 3, 3, 2, 4), (7, 5, 4)),
        ("tiled", (3, 3, 3, 3, 2, 4), (4,)),
        ("conv", (3, 3, 2, 4), (4,)),
        ("global_conv", (13, 9, 2, 4), (4,)),
    ],
)
@pytest.mark.parametrize("network", ["MLP", "Pyramid", "Net"])
def test_connectivity_determines_the_shapes_of_the_kernels(network, connectivity, kernel, bias):
    layer = built(lambda: SMALL[network][0](connectivity=connectivity, period=3, rngs=nnx.Rngs(0))).stages[0].layer
    assert (layer.kernel.shape, layer.bias.shape) == (kernel, bias)


@pytest.mark.parametrize("network", SMALL)
def test_rank_and_noise_reach_every_spatial_layer(network, monkeypatch):
    asked = []

    def build():
        return SMALL[network][0](connectivity="low_rank", rank=5, tied_noise=0.25, rngs=nnx.Rngs(0))

    def start(layout, key, how):
        asked.append(how.tied_noise)
        return usual(layout, key, how)

    usual = rungs.Layout.start
    monkeypatch.setattr(rungs.Layout, "start", start)
    stages = built(build).stages
    shapes = [stage.layer.weights.shape for stage in stages]
    assert [rank for *_, rank in shapes] == [min(5, math.prod(positions)) for *positions, _ in shapes]
    assert asked == [0.25] * len(stages)


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
@pytest.mark.parametrize("network", SMALL)
def test_every_network_scores_images_at_every_connectivity(network, connectivity):
    build, shape = SMALL[network]
    model = filled(lambda: build(connectivity=connectivity, rngs=nnx.Rngs(0)))
    model.eval()
    told = scores(model, images(2, *shape))
    chex.assert_shape(told, (2, 3))
    chex.assert_tree_all_finite(told)
    assert np.ptp(told, axis=0).min() > 0  # each image has its own scores


@pytest.mark.parametrize("shape", [(17, 2), (13, 12, 14, 1)], ids=["1d", "3d"])
@pytest.mark.parametrize("network", KINDS)
def test_networks_take_signals_and_volumes(network, shape):
    options = {"kernel_size": 3, "features": (2,)} if network == "MLP" else {}

    def scores():
        model = getattr(models, network)(shape, 3, connectivity="locally_connected", rngs=nnx.Rngs(0), **options)
        return model(jnp.ones((2, *shape)))

    assert jax.eval_shape(scores).shape == (2, 3)


def as_matrix(layer):
    if layer.layout.rung == "low_rank":
        kernel = np.tensordot(np.ravel(layer.weights[...]), np.asarray(layer.basis[...]), 1)
    else:
        kernel = layer.kernel[...]
    return np.asarray(kernel).reshape(-1, kernel.shape[-1])


AS_FREE_AS_CONV = [name for name, rung in CONNECTIVITY.items() if RUNGS["conv"].within(RUNGS[rung])]


@pytest.mark.parametrize("connectivity", AS_FREE_AS_CONV)
def test_without_a_kernel_size_every_rung_from_a_convolution_on_is_the_same_perceptron(connectivity):
    options = {"connectivity": connectivity, "activation": nnx.tanh}
    model = filled(lambda: models.MLP((7, 5, 2), 3, (11, 13), rngs=nnx.Rngs(0), **options))
    first, second = (stage.layer for stage in model.stages)
    assert (as_matrix(first).shape, as_matrix(second).shape) == ((70, 11), (11, 13))
    x = images(4, 7, 5, 2)
    h = np.tanh(np.asarray(x).reshape(4, 70) @ as_matrix(first) + np.ravel(first.bias[...]))
    h = np.tanh(h @ as_matrix(second) + np.ravel(second.bias[...]))
    head = model.head.layers[0]
    close(scores(model, x), h @ np.asarray(head.kernel[...]) + np.asarray(head.bias[...]), SINGLE)


def test_without_hidden_layers_it_is_a_linear_classifier():
    model = models.MLP((7, 5, 2), 3, (), rngs=nnx.Rngs(0))
    (head,) = model.head.layers
    head.bias[...] = images(3, seed=1)
    x = images(4, 7, 5, 2)
    close(model(x), np.asarray(x).reshape(4, 70) @ np.asarray(head.kernel[...]) + np.asarray(head.bias[...]), SINGLE)
    zero, one, two = (np.asarray(model(times * np.asarray(x))) for times in (0, 1, 2))
    close(two - one, one - zero, SINGLE)


def test_a_head_on_means_ignores_positions_and_one_on_pixels_does_not():
    x = images(4, 7, 5, 2)
    moved = np.asarray(x)[:, ::-1]
    for mean, same in ((True, True), (False, False)):
        head = filled(lambda mean=mean: models.Head((7, 5, 2), (11, 3), mean=mean, rngs=nnx.Rngs(0)))
        assert np.allclose(applied(head, x), applied(head, moved), atol=1e-5) == same


def test_stages_normalise_then_activate_then_pool():
    options = {"connections": models.Connections(), "activation": nnx.tanh, "batch_norm": True, "pool": cl.mean_pool}
    stage = filled(lambda: models.Stage((7, 5, 2), 3, 3, rngs=nnx.Rngs(0), **options))
    x = images(4, 7, 5, 2)

    @jax.jit
    def by_hand(x):
        h = stage.layer(x)
        h = (h - h.mean((0, 1, 2))) / jnp.sqrt(h.var((0, 1, 2)) + stage.norm.epsilon)
        h = jnp.tanh(h * stage.norm.scale[...] + stage.norm.bias[...])
        return cl.mean_pool(h, cl.Window((2, 2), 2, "VALID"))

    got = applied(stage, x)
    close(got, by_hand(x), 1e-4)
    assert stage.output_shape == got.shape[1:] == (3, 2, 3)


POOLED = [  # options of a stage whose maximum commutes, and whether it trains
    ({"activation": nnx.relu, "batch_norm": True}, True),
    ({"activation": nnx.relu, "batch_norm": True, "use_bias": False, "pool_window": cl.Window((3, 2), 2)}, True),
    ({"activation": nnx.sigmoid, "batch_norm": True}, False),
    ({"activation": nnx.tanh, "dropout": 0.3, "pool_window": cl.Window((3, 2), 2)}, True),
    ({"activation": nnx.leaky_relu, "connections": models.Connections("low_rank")}, True),
]


def values_and_slopes(stage, x):
    """Compute the output, the new model state and the gradients of a stage."""
    definition, state = nnx.split(stage)

    @functools.partial(jax.jit, static_argnums=0)  # a new function, so that nothing is traced before
    @functools.partial(jax.grad, argnums=(1, 2), has_aux=True, allow_int=True)
    def slopes(definition, state, x):
        stage = nnx.merge(definition, state)
        h = stage(x)
        return jnp.sin(h).sum(), (h, nnx.to_pure_dict(nnx.state(stage, nnx.Not(nnx.RngState))))

    gradients, values = slopes(definition, state, x)
    return values, [leaf for leaf in jax.tree.leaves(gradients) if leaf.dtype == x.dtype]


@pytest.mark.parametrize("options, training", POOLED)
def test_pooling_before_bias_norm_and_activation_changes_nothing(options, training):
    options = {"connections": models.Connections(), "pool": cl.max_pool} | options
    stage = filled(lambda: models.Stage((7, 5, 2), 11, 3, rngs=nnx.Rngs(0), **options), deviation=1.0)
    stage.train() if training else stage.eval()
    x = images(4, 7, 5, 2)
    assert stage._can_pool_first()
    first = values_and_slopes(stage, x)
    for kind in (Layer, BatchNorm)[: 1 + (stage.norm is not None)]:
        with recorded(kind):  # as the formula is written
            assert not stage._can_pool_first()
            written = values_and_slopes(stage, x)
    chex.assert_trees_all_close(first, written, rtol=2e-4, atol=2e-4)
    chex.assert_trees_all_equal_dtypes(first, written)


@pytest.mark.parametrize(
    "change",
    [
        {"activation": nnx.gelu},
        {"activation": lambda x: -x},
        {"pool": cl.mean_pool},
        {"pool": None},
        {"pool_window": cl.Window(2, 1)},
        {"residual": True},
        {"use_bias": "position"},
        {"connections": models.Connections("dense")},
    ],
    ids=["gelu", "decreasing", "mean pool", "no pool", "stride 1", "residual", "bias by position", "dense"],
)
def test_other_stages_pool_last(change):
    options = {"connections": models.Connections(), "pool": cl.max_pool} | change
    stage = nnx.eval_shape(lambda: models.Stage((7, 5, 11), 11, 3, rngs=nnx.Rngs(0), **options))
    assert not stage._can_pool_first()


def test_stages_with_layers_of_other_classes_call_them():
    stage = filled(lambda: models.Stage((7, 5, 2), 11, 3, connections=models.Connections(), pool=cl.max_pool, rngs=nnx.Rngs(0)))
    x = images(4, 7, 5, 2)

    class Doubled(cl.Conv):
        def __call__(self, inputs):
            return 2 * super().__call__(inputs)

    before = stage(x)
    stage.layer.__class__ = Doubled
    close(nnx.relu(stage(x)), 2 * before, 1e-5)
    stage.layer = nnx.Conv(2, 11, (3, 3), rngs=nnx.Rngs(0))
    close(stage(x), cl.max_pool(nnx.relu(stage.layer(x)), 2), 1e-5)


@pytest.mark.parametrize("activation", MONOTONE)
def test_activations_that_commute_with_the_maximum_never_decrease(activation):
    x = np.sort(np.concatenate([np.random.default_rng(0).normal(0, 5, 5_000), [-np.inf, -1e30, 0.0, 1e30, np.inf]]))
    h = np.asarray(activation(jnp.asarray(x, jnp.float32)), float)
    assert np.isfinite(h[1:-1]).all()
    assert (np.diff(h[~np.isnan(h)]) >= -1e-6).all()


@pytest.mark.parametrize("activation, pool", [(nnx.sigmoid, cl.mean_pool), (nnx.relu, cl.blur_pool)])
def test_lenet_is_two_pooled_stages_and_three_matrices(activation, pool):
    model = filled(lambda: models.LeNet((13, 12, 2), 3, activation=activation, pool=pool, rngs=nnx.Rngs(0)))

    @jax.jit
    def by_hand(h):
        for stage, padding in zip(model.stages, ("SAME", "VALID"), strict=True):
            h = activation(cl.conv(h, stage.layer.kernel[...], cl.Window(5, padding=padding)) + stage.layer.bias[...])
            h = pool(h, cl.Window((2, 2), 2, "VALID"))
        h = h.reshape(4, -1)
        for layer in model.head.layers:
            h = h @ layer.kernel[...] + layer.bias[...]
            h = h if h.shape[-1] == 3 else activation(h)
        return h

    x = images(4, 13, 12, 2)
    close(scores(model, x), by_hand(x), SINGLE)


def test_pyramid_normalises_pools_between_stages_and_reads_out_means():
    model = filled(lambda: models.Pyramid((7, 5, 2), 3, (4, 3), rngs=nnx.Rngs(0)))
    model.eval()
    (last,) = model.head.layers

    @jax.jit
    def by_hand(h):
        for number, stage in enumerate(model.stages):
            norm = stage.norm
            h = cl.conv(h, stage.layer.kernel[...], cl.Window(3)) + stage.layer.bias[...] - norm.mean[...]
            h = nnx.relu(h / jnp.sqrt(norm.var[...] + norm.epsilon) * norm.scale[...] + norm.bias[...])
            h = h if number else cl.max_pool(h, cl.Window((2, 2), 2, "VALID"))
        return h.mean((1, 2)) @ last.kernel[...] + last.bias[...]

    x = images(4, 7, 5, 2)
    close(scores(model, x), by_hand(x), SINGLE)


def test_net_is_two_tanh_stages_with_max_pooling_and_two_matrices():
    model = filled(lambda: models.Net((7, 5, 2), 3, rngs=nnx.Rngs(0)))
    first, second = model.head.layers

    @jax.jit
    def by_hand(h):
        for stage in model.stages:
            h = jnp.tanh(cl.conv(h, stage.layer.kernel[...], cl.Window(3)) + stage.layer.bias[...])
            h = cl.max_pool(h, cl.Window((2, 2), 2, "VALID"))
        h = jnp.tanh(h.reshape(4, -1) @ first.kernel[...] + first.bias[...])
        return h @ second.kernel[...] + second.bias[...]

    x = images(4, 7, 5, 2)
    close(scores(model, x), by_hand(x), SINGLE)


def test_a_residual_net_has_residual_connections_before_pooling_from_the_third_layer_on():
    build, shape = SMALL["NetRes"]
    model = filled(lambda: build(rngs=nnx.Rngs(0)))

    @jax.jit
    def by_hand(h):
        for number, stage in enumerate(model.stages):
            z = nnx.relu(cl.conv(h, stage.layer.kernel[...], cl.Window(3)) + stage.layer.bias[...])
            h = cl.max_pool(z + h if number == 2 else z, cl.Window((2, 2), 2, "VALID"))
        return model.head(h)

    x = images(4, *shape)
    close(scores(model, x), by_hand(x), SINGLE)


def blocks_by_hand(model, x, blocks):
    """Compute a deep net's scores by the statistics of this batch, and the running ones after."""
    h = nnx.relu(cl.conv(x, model.stages[0].layer.kernel[...], cl.Window(3)) + model.stages[0].layer.bias[...])
    h = cl.max_pool(h, cl.Window((2, 2), 2, "VALID"))
    moved = {block: block.norm.mean[...] for block in blocks}
    for block in blocks:
        norm, z = block.norm, cl.conv(h, block.layer.kernel[...], cl.Window(3))
        mean, kept = z.mean((0, 1, 2)), norm.momentum
        moved[block] = kept * moved[block] + (1 - kept) * mean
        z = (z - mean) / jnp.sqrt(z.var((0, 1, 2)) + norm.epsilon) * norm.scale[...] + norm.bias[...]
        h = nnx.relu(z) + h
    return model.head(cl.max_pool(h, cl.Window((2, 2), 2, "VALID"))), list(moved.values())


@pytest.mark.parametrize("tied", [True, False])
def test_a_deep_net_applies_its_blocks_one_after_another_and_counts_every_call(tied):
    model = filled(lambda: models.NetDeep((7, 5, 2), 3, width=4, blocks=3, tied=tied, rngs=nnx.Rngs(0)))
    x = images(4, 7, 5, 2)
    blocks = list(model.stages[1:])
    assert len(blocks) == (1 if tied else 3)
    expected, means = jax.jit(lambda x: blocks_by_hand(model, x, blocks * 3 if tied else blocks))(x)
    told, statistics = scores_of(*nnx.split(model), x)
    close(told, expected, 1e-4)
    for number, mean in enumerate(means, 1):
        close(statistics["stages"][number]["norm"]["mean"], mean, 1e-4)
    one, three = (
        cl.count(built(lambda n=n: models.NetDeep((7, 5, 2), width=4, blocks=n, tied=tied, rngs=nnx.Rngs(0))), (7, 5, 2))
        for n in (1, 3)
    )
    assert three.total.multiply_adds - one.total.multiply_adds == 2 * 4 * 4 * int(cl.Window(3).live((3, 2)).sum())


def test_one_block_is_the_same_network_tied_and_untied():
    tied, untied = (nnx.split(models.NetDeep((7, 5, 2), 3, width=4, blocks=1, tied=t, rngs=nnx.Rngs(0))) for t in (True, False))
    assert tied[0] == untied[0]
    chex.assert_trees_all_equal(*(nnx.to_pure_dict(state) for _, state in (tied, untied)))


def test_blocks_start_at_half_scale_without_bias_and_at_the_variance_of_a_relu():
    model = nnx.jit(lambda: models.NetDeep((8, 8, 2), 3, width=32, blocks=2, rngs=nnx.Rngs(0)))()
    first, second = (np.asarray(block.layer.kernel[...]) for block in model.stages[1:])
    for block, kernel in zip(model.stages[1:], (first, second), strict=True):
        assert block.layer.bias is None
        chex.assert_trees_all_equal((block.norm.scale[...], block.norm.bias[...]), (np.full(32, 0.5), np.zeros(32)))
        assert np.isclose(kernel.std(), np.sqrt(2 / (9 * 32)), rtol=0.05)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("network", KINDS)
def test_an_initializer_reaches_every_kernel_and_dense_layer(network):
    build, _ = SMALL[network]
    start = nnx.initializers.constant(0.25)
    model = nnx.jit(lambda: build(connectivity="conv", kernel_init=start, rngs=nnx.Rngs(0)))()
    stages = model.stages[:1] if network == "NetDeep" else model.stages  # blocks have their own
    for layer in (*(stage.layer for stage in stages), *model.head.layers):
        assert np.all(np.asarray(layer.kernel[...]) == 0.25)


# --- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_removes_whole_channels_after_pooling_and_scales_the_others():
    options = {"connections": models.Connections(), "activation": jnp.exp, "pool": cl.max_pool}
    plain, dropped = (
        filled(lambda p=p: models.Stage((7, 5, 2), 13, 3, dropout=p, rngs=nnx.Rngs(0), **options)) for p in (0.0, 0.4)
    )
    nnx.update(dropped.layer, nnx.state(plain.layer))
    x = images(64, 7, 5, 2)
    h = np.asarray(applied(plain, x))
    ratio = np.asarray(applied(dropped, x)) / h
    assert h.shape == ratio.shape == (64, 3, 2, 13)
    close(ratio, np.where(ratio > 0, 1 / 0.6, 0), SINGLE)
    assert ((ratio > 0) == (ratio > 0)[:, :1, :1]).all()
    kept = ratio[:, 0, 0] > 0
    assert abs(kept.mean() - 0.6) < 0.06
    assert len(np.unique(kept, axis=0)) > 32  # every image has its own
    dropped.eval()
    close(applied(dropped, x), h, SINGLE)


def test_dropout_differs_by_step_and_seed_in_training_and_is_off_in_evaluation():
    @nnx.jit
    def build(key):
        return models.Net((7, 5, 2), 3, width=8, dropout=0.4, rngs=nnx.Rngs(params=0, dropout=key))

    def trained(seed):
        return cl.train.as_trainable(build(jax.random.key(seed)), (7, 5, 2))

    x, key = images(5, 7, 5, 2), jax.random.key(0)
    apply, parameters, rest, _ = trained(0)
    apply = jax.jit(apply, static_argnums=4)
    first, then = apply(parameters, rest, x, key, True)
    second, _ = apply(parameters, then, x, key, True)
    again, _ = apply(parameters, rest, x, key, True)
    elsewhere = trained(1)
    other, _ = jax.jit(elsewhere.apply, static_argnums=4)(parameters, elsewhere.model_state, x, key, True)
    close(first, again, SINGLE)
    for told in (second, other):
        assert not np.allclose(first, told, atol=1e-3)
    evaluated = [apply(parameters, each, x, key, False)[0] for each in (rest, then)]
    close(*evaluated, SINGLE)
    _, bare, *_ = cl.train.as_trainable(filled(lambda: models.Net((7, 5, 2), 3, width=8, rngs=nnx.Rngs(0))), (7, 5, 2))
    chex.assert_trees_all_equal_structs(parameters, bare)


@pytest.mark.parametrize("connectivity", ["conv", "locally_connected"])
def test_batch_statistics_are_taken_per_channel_over_images_and_positions(connectivity):
    build, shape = SMALL["Pyramid"]
    model, x = filled(lambda: build(connectivity=connectivity, rngs=nnx.Rngs(0))), images(4, *shape)
    norm, kept, h = model.stages[0].norm, model.stages[0].norm.momentum, np.asarray(applied(model.stages[0].layer, x))
    moved = scores_of(*nnx.split(model), x)[1]["stages"][0]["norm"]
    chex.assert_shape([norm.mean, norm.var, norm.scale], (4,))
    close(moved["mean"], kept * np.asarray(norm.mean[...]) + (1 - kept) * h.mean((0, 1, 2)), SINGLE)
    close(moved["var"], kept * np.asarray(norm.var[...]) + (1 - kept) * h.var((0, 1, 2)), SINGLE)


# --- Flax ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", ["low_rank", "dense"])
@pytest.mark.parametrize("network", SMALL)
def test_networks_split_merge_and_train_in_tree_mode_with_one_compilation_for_all_seeds(network, connectivity):
    build, shape = SMALL[network]
    x = images(4, *shape)

    chex.clear_trace_counter()

    @chex.assert_max_traces(1)
    def losses(definition, parameters, rest):
        def loss(parameters):
            return jnp.square(nnx.merge(definition, parameters, rest)(x) - 1).mean()

        value, gradient = jax.value_and_grad(loss)(parameters)
        return value, loss(jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradient))

    with nnx.set_graph_mode(False):
        compiled, definitions = jax.jit(losses, static_argnums=0), []
        for seed in (0, 1):
            model = filled(lambda seed=seed: build(connectivity=connectivity, rngs=nnx.Rngs(seed)), seed)
            definition, parameters, rest = nnx.split(model, nnx.Param, ...)
            before, after = compiled(definition, *map(nnx.to_pure_dict, (parameters, rest)))
            assert after < before
            definitions.append(definition)
        assert definitions[0] == definitions[1]
        assert hash(definitions[0]) == hash(definitions[1])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", SMALL)
def test_refuses_an_unknown_connectivity(network):
    with pytest.raises(ValueError, match="connectivity 'convolution' is unknown; needs one of dense"):
        SMALL[network][0](connectivity="convolution", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("network", SMALL)
def test_refuses_unknown_connection_options(network):
    with pytest.raises(TypeError, match="conectivity"):
        SMALL[network][0](conectivity="conv", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: models.LeNet((11, 28, 1), 10, rngs=nnx.Rngs(0)),
            r"image_shape is \(11, 28, 1\) but LeNet needs at least 12 pixels",
        ),
        (lambda: models.Net((3, 8, 1), 10, rngs=nnx.Rngs(0)), "fits nowhere"),
        (lambda: models.Net((7, 7, 1), 10, depth=3, rngs=nnx.Rngs(0)), "fits nowhere"),
        (lambda: models.Net(depth=2, residual=True, rngs=nnx.Rngs(0)), "depth is 2 but residual=True needs at least 3"),
        (lambda: models.Net(depth=0, rngs=nnx.Rngs(0)), "depth must be at least 1"),
        (lambda: models.Net(width=1, rngs=nnx.Rngs(0)), "width must be at least 2"),
        (lambda: models.Net(dropout=1.0, rngs=nnx.Rngs(0)), "dropout must be at least 0 and below 1, got 1.0"),
        (lambda: models.NetDeep(blocks=0, rngs=nnx.Rngs(0)), "blocks must be at least 1"),
        (
            lambda: models.Stage((7, 5, 2), 3, 3, connections=models.Connections(), residual=True, rngs=nnx.Rngs(0)),
            r"residual needs equal shapes, but the input has \(7, 5, 2\) and the output \(7, 5, 3\)",
        ),
        (lambda: models.Pyramid((3, 8, 1), 10, rngs=nnx.Rngs(0)), "fits nowhere"),
        (lambda: models.MLP((7, 5, 2), 3, (4,), kernel_size=0, rngs=nnx.Rngs(0)), "size must be at least 1"),
        (
            lambda: models.MLP((7, 5, 2), 3, kernel_size=3, connectivity="tiled", period=0, rngs=nnx.Rngs(0)),
            "period must be",
        ),
    ],
)
def test_refuses_invalid_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        built(build)


def test_lenet_accepts_the_smallest_documented_images():
    assert built(lambda: models.LeNet((12, 12, 1), 10, rngs=nnx.Rngs(0))).head.layers[0].in_features == math.prod((1, 1, 16))
