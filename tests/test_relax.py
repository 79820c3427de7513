"""Whole networks between the rungs: the same function on a freer one, the nearest on a stricter one, and what is carried."""

import functools
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from compiled import compiled
from flax import linen, nnx
from networks import SMALL, TINY, filled
from strategies import gaussian

import convlab as cl
import convlab.linen
from convlab.calls import recorded
from convlab.layers import Layer
from convlab.surgery import Change, constrain, diff, relax, transfer_optimizer_state, transfer_variables

pytestmark = pytest.mark.usefixtures("float64")
LADDER = ("conv", "tiled", "low_rank", "locally_connected", "dense")
LIFTS = {"locally_connected": compiled(cl.lift_conv_to_local), "dense": compiled(cl.lift_conv_to_dense)}
SHAPE = (7, 5, 2)
CLOSE = 1e-10  # what whole networks compute

STATIC = {"static_argnums": (1, 2), "static_argnames": ("only", "period", "rank")}
relax_compiled, constrain_compiled = (
    nnx.jit(relax, **STATIC),
    nnx.jit(constrain, **STATIC),
)  # one program each; eagerly one an operation and shape
carry_compiled = nnx.jit(transfer_optimizer_state, static_argnums=(0, 4))


@nnx.jit
def outputs(model, x):
    return nnx.clone(model)(x)


class Nested(nnx.Module):
    """Layers of Flax and of convlab, strided, grouped and shared, in lists and in a branch, with norm and dropout."""

    def __init__(self, rngs):
        self.first = nnx.Conv(2, 4, (3, 2), strides=(2, 1), padding="VALID", rngs=rngs)
        branch = [cl.Conv(4, 6, (3, 3), feature_group_count=2, use_bias=False, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)]
        self.branches = nnx.List([nnx.List(branch), nnx.Dropout(0.4, rngs=rngs)])
        self.local = cl.LocallyConnected(6, 6, (2, 2), padding="EDGE", space=(3, 4), rngs=rngs)
        self.again = self.local
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        conv, norm = self.branches[0]
        x = nnx.tanh(norm(conv(x)))
        x = x + self.again(self.branches[1](self.local(x)))
        return self.last(cl.max_pool(x, cl.Window((2, 2), 1, "VALID")).mean((-2, -3)))


def double(model):
    """The network with its numbers in double precision."""
    definition, state = nnx.split(model)
    cast = lambda a: jax.device_put(np.asarray(a, float)) if jnp.issubdtype(a.dtype, jnp.floating) else a  # noqa: E731
    return nnx.merge(definition, jax.tree.map(cast, state))


def network(name, **options):
    if name == "Nested":
        return double(filled(lambda: Nested(nnx.Rngs(0)))), SHAPE
    build, shape = (SMALL | TINY)[name]
    return double(filled(lambda: build(rngs=nnx.Rngs(0), **options))), shape


def one(kind, d=3, seed=0, deviation=0.2, **options):
    """A network of one layer on two channels."""
    return filled(lambda: nnx.Sequential(kind(2, d, (3, 2), rngs=nnx.Rngs(0), **options)), seed, deviation=deviation)


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@functools.partial(nnx.jit, static_argnums=2)
def results(model, x, modes=("eval", "train")):
    """Scores, and what training moves, of a copy in each mode."""
    found = {}
    for mode in modes:
        copy = nnx.clone(model)
        getattr(copy, mode)()
        found[mode] = copy(x), nnx.to_pure_dict(nnx.state(copy, nnx.BatchStat))
    return found


# --- the function does not change ------------------------------------------------------------------------------------


LONG = ("DNet", "AllCNN", "AllCNN-normed", "ResNet", "NetDeep")  # in seconds; what they have, shorter ones have too
KINDS = (*(name for name in (*SMALL, *TINY) if name not in LONG), "Nested")


@pytest.mark.parametrize(
    "name, to",
    [
        *((name, "dense") for name in KINDS),
        ("Nested", "locally_connected"),
        *(pytest.param(name, "dense", marks=pytest.mark.slow) for name in LONG),
        *(pytest.param(name, "locally_connected", marks=pytest.mark.slow) for name in (*SMALL, *TINY)),
    ],
)
def test_a_relaxed_network_is_the_same_function_in_evaluation_and_training_and_constrains_back(name, to):
    model, shape = network(name) if name == "Nested" else network(name, connectivity="conv")
    [x] = gaussian((6, *shape))
    free = relax_compiled(model, to, shape)
    assert free is not model
    close(results(free, x), results(model, x), CLOSE)
    if name != "Nested":
        back = constrain_compiled(free, "conv", shape)
        assert nnx.graphdef(back) == nnx.graphdef(model)
        zeros = jax.tree.map(lambda a: np.asarray(a) == 0, parameters(back))  # taps that see no pixel from anywhere
        close(parameters(back), jax.tree.map(lambda a, zero: np.where(zero, 0, a), parameters(model), zeros))
        total = cl.count(model, shape).total
        assert sum(int(zero.sum()) for zero in jax.tree.leaves(zeros)) == total.weights - total.live_weights


@nnx.jit
def there_and_back(model, x):
    """For every rung: the arrays of the relaxed layer, what the network computes, and the arrays that are held back."""
    found = {}
    for to in LADDER[1:]:
        free = relax(model, to, SHAPE, period=3)
        back = constrain(free, "conv", SHAPE)
        found[to] = parameters(free.layers[0]), free(x), parameters(back.layers[0])
    return found


@pytest.mark.parametrize(
    "padding, strides",
    [
        ("SAME", 2),
        ("SAME_LOWER", 1),
        ("VALID", 1),
        ("FULL", 2),
        ("CIRCULAR", 2),
        ("REFLECT", 1),
        ("EDGE", 2),
        (((2, 0), (1, 3)), 1),
    ],
)
def test_every_padding_and_stride_is_relaxed_and_constrained_back_exactly(padding, strides):
    def build():
        layer = cl.Conv(2, 3, (3, 2), strides, padding=padding, rngs=nnx.Rngs(0))
        return nnx.Sequential(layer, nnx.relu, nnx.BatchNorm(3, rngs=nnx.Rngs(0)))

    model = double(filled(build))
    layer, [x] = model.layers[0], gaussian((4, *SHAPE))
    h = outputs(model, x)
    for to, (free, got, back) in there_and_back(model, x).items():
        close(got, h, CLOSE)
        if to in LIFTS:
            close(free["kernel"], LIFTS[to](layer.kernel[...], layer.layout.window, SHAPE[:2]))
        close(back, parameters(layer))


@pytest.mark.parametrize(
    "stricter, freer", [("tiled", "locally_connected"), ("tiled", "dense"), ("low_rank", "locally_connected")]
)
def test_intermediate_rungs_are_relaxed_and_constrained_back_to_the_same_function(stricter, freer):
    model, shape = network("Pyramid", connectivity=stricter)
    [x] = gaussian((3, *shape))
    free = relax_compiled(model, freer, shape)
    back = constrain_compiled(free, stricter, shape)
    for each in (free, back):
        close(results(each, x, ("train",)), results(model, x, ("train",)), CLOSE)
    assert [stage.layer.layout.rung for stage in back.stages] == [stricter] * 2


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_grouped_and_a_masked_convolution_of_flax_keep_their_function(mode):
    mask = jax.device_put(np.random.default_rng(0).integers(0, 2, (3, 2, 1, 4)).astype(float))
    model = double(one(nnx.Conv, 4, feature_group_count=2, mask=mask, kernel_dilation=2))
    model.layers[0].mask = mask
    [x] = gaussian((3, *SHAPE))
    local, dense = (relax_compiled(model, to, SHAPE) for to in ("locally_connected", "dense"))
    for each in (local, dense, constrain_compiled(dense, "conv", SHAPE)):
        close(results(each, x, (mode,)), results(model, x, (mode,)), CLOSE)


@pytest.mark.parametrize("kind, to", [(cl.Dense, "locally_connected"), (cl.LocallyConnected, "conv"), (cl.Tiled, "conv")])
def test_a_share_of_the_way_to_a_stricter_rung_moves_the_weights_and_keeps_the_rung(kind, to):
    model = double(one(kind, space=SHAPE[:-1], use_bias="position"))
    there = relax(constrain(model, to, SHAPE), model.layers[0].layout.rung, SHAPE, period=2)
    part = constrain(model, to, SHAPE, strength=0.3)
    assert nnx.graphdef(part) == nnx.graphdef(model)
    near, far = (parameters(each)["layers"][0]["kernel"] for each in (there, model))
    close(parameters(part)["layers"][0]["kernel"], far + 0.3 * (near - far))
    close(parameters(constrain(model, to, SHAPE, strength=0)), parameters(model))
    with pytest.raises(ValueError, match="strength must be from 0 to 1, got 1.5"):
        constrain(model, to, SHAPE, strength=1.5)
    with pytest.raises(ValueError, match="layers/0: strength below 1 needs linear rungs, got .* and low_rank of rank 2"):
        constrain(relax(model, "locally_connected", SHAPE) if kind is cl.Tiled else model, "low_rank", SHAPE, strength=0.5)


def test_layers_already_on_the_rung_are_unchanged_and_shared_modules_stay_shared():
    model, shape = network("Nested")
    free = relax_compiled(model, "locally_connected", shape)
    assert free.local is free.again
    assert nnx.graphdef(free.local) == nnx.graphdef(model.local)
    dense = relax_compiled(model, "dense", shape)
    assert dense.local is dense.again
    assert dense.local.layout.rung == "dense"
    with pytest.warns(UserWarning, match=r"\(conv, locally_connected\) are already as strict as 'locally_connected'"):
        strict = constrain(model, "locally_connected", shape)
    assert nnx.graphdef(strict) == nnx.graphdef(model)
    close(parameters(strict), parameters(model), 0)


def test_the_relaxed_network_has_arrays_of_its_own():
    model, shape = network("Pyramid")
    before = jax.tree.map(np.array, parameters(model))
    free = relax(model, "dense", shape, only="stages/0/layer")
    for value in jax.tree.leaves(nnx.state(free, nnx.Param), is_leaf=lambda v: isinstance(v, nnx.Variable)):
        value[...] = jax.device_put(np.asarray(value[...]) + 1)
    close(parameters(model), before, 0)


def test_only_selected_layers_change():
    model, shape = network("Pyramid")
    rungs = lambda model: [stage.layer.layout.rung for stage in model.stages]  # noqa: E731
    assert rungs(relax(model, "dense", shape, only="stages/1/*")) == ["conv", "dense"]
    assert rungs(relax(model, "dense", shape, only=["stages/0/layer"])) == ["dense", "conv"]
    assert rungs(relax(model, "dense", shape, only=lambda path: path.endswith("1/layer"))) == ["conv", "dense"]
    free = relax_compiled(model, "dense", shape)
    assert rungs(constrain_compiled(free, "tiled", shape, only="stages/1/*")) == ["dense", "tiled"]


def test_it_works_where_modules_are_plain_trees():
    with nnx.use_graph_mode(False) if hasattr(nnx, "use_graph_mode") else nnx.set_graph_mode(False):
        model = filled(lambda: nnx.Sequential(cl.Conv(2, 3, (3, 2), rngs=nnx.Rngs(0)), nnx.relu))
        free = relax(model, "dense", SHAPE)
        [x] = gaussian((3, *SHAPE))
        call = nnx.jit(lambda model, x: model(x))  # which keeps the mode in which it is made
        close(call(free, x), call(model, x), 1e-5)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_convolution_becomes_the_first_kernel_of_a_mixture_and_the_others_can_learn(seed):
    conv = double(filled(lambda: cl.Conv(2, 3, (7, 7), strides=2, rngs=nnx.Rngs(0)), seed))
    mixed = relax_compiled(conv, "low_rank", (13, 17, 2), rank=3)
    basis, weights = np.asarray(mixed.basis[...]), np.asarray(mixed.weights[...]).reshape(-1, 3)
    close(basis[0], conv.kernel[...], 0)
    close(weights.T @ weights / len(weights), np.eye(3))
    close(weights[:, 0], np.ones(len(weights)), 0)
    assert not basis[1:].any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_arrays_of_low_precision_are_converted_to_low_rank_and_back(dtype):
    kernel = lambda layer: np.asarray(layer.kernel[...], float)  # noqa: E731
    conv = filled(lambda: nnx.Conv(2, 3, (3, 2), padding="VALID", param_dtype=dtype, rngs=nnx.Rngs(0)))
    mixed = relax_compiled(conv, "low_rank", SHAPE)
    assert {mixed.basis.dtype, mixed.weights.dtype} == {jnp.dtype(dtype)}
    close(kernel(constrain_compiled(mixed, "conv", SHAPE)), kernel(conv), 1e-2)
    local = relax_compiled(conv, "locally_connected", SHAPE)
    again = relax_compiled(constrain_compiled(local, "low_rank", SHAPE), "locally_connected", SHAPE)
    close(kernel(again), kernel(local), 2e-2)


def test_a_period_may_differ_by_axis():
    conv = double(filled(lambda: nnx.Conv(2, 3, (3, 2), rngs=nnx.Rngs(0))))
    tiled = relax_compiled(conv, "tiled", SHAPE, period=(2, 3))
    assert tiled.kernel.shape[:2] == (2, 3)
    [x] = gaussian((3, *SHAPE))
    close(outputs(tiled, x), outputs(conv, x), CLOSE)


class Frozen(nnx.Variable):
    """An array that is not trained."""


class Own(nnx.Param):
    """A kind of one's own."""


@pytest.mark.parametrize("kind", [Frozen, Own])
def test_variable_types_are_kept(kind):
    model = filled(lambda: nnx.Sequential(*(nnx.Conv(*sizes, (3, 2), rngs=nnx.Rngs(0)) for sizes in ((2, 3), (3, 2)))))
    model.layers[0].kernel = kind(model.layers[0].kernel[...], note="mine")
    for to in LADDER[1:]:
        free = nnx.eval_shape(functools.partial(relax, to=to, image_shape=SHAPE), model)
        for name in ("basis", "weights") if to == "low_rank" else ("kernel",):
            variable = getattr(free.layers[0], name)
            assert (type(variable), variable.note) == (kind, "mine")
        assert {type(free.layers[0].bias), type(free.layers[1].bias)} == {nnx.Param}
        back = nnx.eval_shape(functools.partial(constrain, to="conv", image_shape=SHAPE), free)
        assert type(back.layers[0].kernel) is kind


class Writes(nnx.Module):
    """Writes into itself, in evaluation too; its layers are called inside transforms."""

    def __init__(self, rngs):
        self.conv, self.again = (cl.Conv(2, 2, (3, 2), rngs=rngs) for _ in range(2))
        self.rngs, self.calls = nnx.Rngs(noise=1), nnx.Variable(jnp.zeros(()))

    @nnx.remat
    def block(self, x):
        return self.again(x)

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        h = nnx.remat(lambda conv, x: conv(x))(self.conv, x) + jax.random.normal(self.rngs.noise(), x.shape)
        self.seen = nnx.Intermediate(h)
        return self.block(h)


def test_networks_that_write_to_themselves_are_traced_without_change():
    model = double(filled(lambda: Writes(nnx.Rngs(0))))
    model.calls[...] = jnp.asarray(0.0)
    [x] = gaussian((3, *SHAPE))
    for _ in range(2):  # not only where nothing is cached
        free = relax(model, "dense", SHAPE)
        assert [change.after for change in diff(model, free, SHAPE)] == ["dense"] * 2
        assert cl.count(model, SHAPE).total.multiply_adds == 2 * cl.count(model.conv, SHAPE).total.multiply_adds
    assert model.calls[...] == 0
    close(outputs(free, x), outputs(model, x), CLOSE)
    state = optax.adam(0.1).init(parameters(model))
    transfer_optimizer_state(optax.adam(0.1), state, model, free, SHAPE)


# --- held to a stricter rung -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["conv", "tiled", "locally_connected"])
@pytest.mark.parametrize("padding", ["SAME", "REFLECT", "CIRCULAR"])
def test_constraining_is_an_orthogonal_projection_of_the_dense_matrices(rung, padding):
    model = double(one(cl.Dense, padding=padding, space=SHAPE[:2]))
    strict = (constrain if padding == "SAME" else constrain_compiled)(model, rung, SHAPE)
    again = relax_compiled(strict, "dense", SHAPE)
    w, near = (np.asarray(each.layers[0].kernel[...]) for each in (model, again))
    close(np.sum(w**2), np.sum(near**2) + np.sum((w - near) ** 2))
    assert np.sum((w - near) ** 2) > 0.1 * np.sum(w**2)
    close(parameters(constrain_compiled(again, rung, SHAPE)), parameters(strict))
    bias = np.asarray(model.layers[0].bias[...])
    close(strict.layers[0].bias[...], bias.mean((0, 1)) if rung != "locally_connected" else bias)


# --- what the optimizer remembers ------------------------------------------------------------------------------------


OPTIMIZERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1), optax.ema(0.9)),
    "masked": optax.masked(optax.sgd(0.1, momentum=0.9), lambda tree: jax.tree.map(lambda a: a.ndim > 1, tree)),
}


def trained(name):
    """A network after three steps of an optimizer on Gaussian images, its state, and the shape of an image."""
    model, *others = _trained(name)
    return nnx.clone(model), *others


@functools.cache
def _trained(name):
    model, shape = network("Pyramid")
    apply, arrays, rest, _ = cl.train.as_trainable(model, shape)
    optimizer, [x, target] = OPTIMIZERS[name], gaussian((6, *shape), (6, 3))

    def loss(arrays, rest):
        return jnp.mean((apply(arrays, rest, x, jax.random.key(0), True)[0] - target) ** 2)

    @jax.jit
    def run(arrays, rest):
        def step(carry, _):
            updates, state = optimizer.update(jax.grad(loss)(carry[0], rest), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (arrays, optimizer.init(arrays)), None, 3)[0]

    arrays, state = run(arrays, rest)
    return nnx.merge(apply.train, arrays, rest), state, shape


def without_gradient(optimizer, model, state):
    """The step that an optimizer takes from what it remembers alone, and the network after it."""
    step, _ = optimizer.update(jax.tree.map(jnp.zeros_like, parameters(model)), state, parameters(model))
    moved = nnx.clone(model)
    nnx.update(moved, nnx.State(optax.apply_updates(parameters(model), step)))
    return step, moved


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("to", ["locally_connected", "dense"])
def test_a_carried_state_takes_the_step_that_the_strict_network_would_take(name, to):
    optimizer, (model, state, shape) = OPTIMIZERS[name], trained(name)

    @nnx.jit
    def carried_and_moved(model, state):
        free = relax(model, to, shape)
        carried = transfer_optimizer_state(optimizer, state, model, free, shape)
        chex.assert_trees_all_equal_shapes_and_dtypes(carried, optimizer.init(parameters(free)))
        (step, moved), (_, free_moved) = (without_gradient(optimizer, *each) for each in ((model, state), (free, carried)))
        back = transfer_optimizer_state(optimizer, carried, free, constrain(free, "conv", shape), shape)
        return step, parameters(relax(moved, to, shape)), parameters(free_moved), back

    step, expected, got, back = carried_and_moved(model, state)
    close(got, expected, CLOSE)
    assert max(np.abs(a).max() for a in jax.tree.leaves(step)) > 1e-4
    close(back, state, CLOSE)


@functools.partial(jax.jit, static_argnums=0)
def state_after_a_step(optimizer, arrays):
    """What an optimizer remembers of one step, along the arrays themselves."""
    return optimizer.update(arrays, optimizer.init(arrays), arrays)[1]


def test_a_network_that_is_one_layer_keeps_its_counts_and_mixtures_of_more_kernels_start_as_new():
    optimizer = optax.adam(0.1)
    layer = filled(lambda: cl.LowRank(2, 3, (3, 2), rank=2, space=SHAPE[:2], rngs=nnx.Rngs(0)))
    state = state_after_a_step(optimizer, parameters(layer))
    for free in (relax_compiled(layer, "low_rank", SHAPE, rank=3), relax_compiled(layer, "dense", SHAPE)):
        carried = carry_compiled(optimizer, state, layer, free, SHAPE)
        chex.assert_trees_all_equal_shapes_and_dtypes(carried, jax.eval_shape(optimizer.init, parameters(free)))
        assert int(carried[0].count) == 1
        assert {name for name, kept in carried[0].mu.items() if np.any(kept)} <= {"bias"}


def test_weights_without_history_start_with_a_new_state():
    model, state, shape = trained("adam")
    mixed = relax_compiled(model, "low_rank", shape, only="stages/0/layer")
    carried = carry_compiled(OPTIMIZERS["adam"], state, model, mixed, shape)
    first = carried[0].mu["stages"][0]["layer"]
    assert [bool(np.any(first[name])) for name in ("basis", "weights", "bias")] == [False, False, True]
    close(carried[0].mu["stages"][1], state[0].mu["stages"][1], 0)
    assert int(carried[0].count) == int(state[0].count) == 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_states_of_flax_are_transferred_like_plain_ones(wrapped):
    optimizer, model = optax.adam(0.1), double(one(cl.Conv))
    free = relax_compiled(model, "dense", SHAPE)
    plain = state_after_a_step(optimizer, parameters(model))
    if wrapped:
        state = nnx.Optimizer(model, optimizer, wrt=nnx.Param).opt_state
        state = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(plain))
    else:
        state = jax.tree.unflatten(jax.tree.structure(optimizer.init(nnx.state(model, nnx.Param))), jax.tree.leaves(plain))
    carried = transfer_optimizer_state(optimizer, state, model, free, SHAPE)
    close(jax.tree.leaves(carried), jax.tree.leaves(transfer_optimizer_state(optimizer, plain, model, free, SHAPE)), 0)
    assert np.abs(jax.tree.leaves(carried)[2]).max() > 0
    if wrapped:
        training = nnx.Optimizer(free, optimizer, wrt=nnx.Param)
        training.opt_state = carried
        training.update(free, jax.tree.map(jnp.zeros_like, nnx.state(free, nnx.Param)))
        assert int(training.opt_state[0].count[...]) == 2
    else:
        jax.jit(optimizer.update)(nnx.state(free, nnx.Param), carried, nnx.state(free, nnx.Param))


def test_states_of_other_optimizers_and_networks_are_refused():
    adam, model = optax.adam(0.1), one(cl.Conv)
    free = relax(model, "dense", SHAPE)
    sgd, other = optax.sgd(0.1, momentum=0.9).init(parameters(model)), adam.init(parameters(free))
    for state in (sgd, other, adam.init(nnx.state(free, nnx.Param)), {}):
        with pytest.raises(
            ValueError, match="state must have the structure of optimizer.init for the old network's parameters"
        ):
            transfer_optimizer_state(adam, state, model, free, SHAPE)


@pytest.mark.parametrize(
    "optimizer, match",
    [
        (optax.sm3(0.1), r"\['bias'\]\[0\] has shape \(3,\) but needs \(7,\) for the new network"),
        (optax.adafactor(0.1, min_dim_size_to_factor=2), r"\['layers'\]\[0\]\['bias'\] has shape \(1,\) but needs"),
        (optax.scale_by_lbfgs(5), r"memory\['layers'\]\[0\]\['bias'\] has shape \(5, 3\) but needs \(5, 7, 5, 3\)"),
    ],
    ids=["sm3", "adafactor", "lbfgs"],
)
def test_state_of_another_shape_than_its_parameter_is_refused(optimizer, match):
    model = one(cl.Conv)
    state = jax.jit(optimizer.init)(parameters(model))
    close(carry_compiled(optimizer, state, model, model, SHAPE), state, 0)
    with pytest.raises(ValueError, match=match):
        transfer_optimizer_state(optimizer, state, model, relax_compiled(model, "dense", SHAPE), SHAPE)


# --- what changed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["SAME", "EDGE"])
def test_diff_reports_rungs_weights_distance_and_shares(padding):
    model = double(one(cl.Conv, padding=padding))
    free = relax_compiled(model, "dense", SHAPE)
    [change] = changes = diff(model, free, SHAPE)
    assert change[:5] == ("layers/0", "conv", "dense", 39, 35 * 35 * 6 + 35 * 3)
    close(change[5:], (0, 1, 0, 0), CLOSE)
    assert "layers/0" in repr(changes)
    layer, before = free.layers[0], np.asarray(free.layers[0].kernel[...])
    [noise] = gaussian(before.shape)
    layer.kernel[...] = jax.device_put(before + noise)
    [change] = diff(model, free, SHAPE)
    expected = compiled(cl.decompose)(layer.kernel[...], layer.layout.window, SHAPE[:2])
    close(change[6:], tuple(expected[name] for name in ("shared", "local", "rest")), CLOSE)
    close(change.relative_distance, np.linalg.norm(noise) / np.linalg.norm(before), CLOSE)
    [near] = diff(free, constrain_compiled(free, "locally_connected", SHAPE), SHAPE)
    close(near.relative_distance**2, change.rest, CLOSE)


def test_layers_of_zeros_and_networks_without_spatial_layers_are_reported():
    model, nothing = one(cl.Conv), one(cl.Conv, deviation=0)
    for old, new, moved in ((model, nothing, 1), (nothing, model, np.nan), (nothing, nothing, 0)):
        [change] = diff(old, new, SHAPE)
        np.testing.assert_allclose(change.relative_distance, moved)
        np.testing.assert_allclose(change[6:], [np.nan] * 3 if new is nothing else [1, 0, 0], atol=1e-6)
    linear = filled(lambda: nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert diff(linear, linear, SHAPE) == []


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_shares_are_within_0_and_1_in_single_precision(seed):
    model = one(nnx.Conv, seed=seed, padding="REFLECT")
    [change] = diff(model, relax_compiled(model, "dense", SHAPE), SHAPE)
    assert all(0 <= share <= 1 for share in change[6:])


def test_networks_of_other_layers_cannot_be_compared():
    model, further = one(cl.Conv), filled(lambda: cl.Conv(3, 2, (1, 1), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="must have the same spatial layers, but only one of them has layers/1"):
        diff(model, nnx.Sequential(model.layers[0], further), SHAPE)
    with pytest.raises(ValueError, match="must have the same spatial layers, but only one of them has layers/0"):
        transfer_optimizer_state(optax.sgd(0.1), optax.sgd(0.1).init(parameters(model)), model, nnx.Sequential(nnx.relu), SHAPE)
    with pytest.raises(ValueError, match="layers/0 must have the same window and channels in both networks"):
        diff(model, filled(lambda: nnx.Sequential(cl.Conv(2, 3, (2, 3), rngs=nnx.Rngs(0)))), SHAPE)


# --- Linen -----------------------------------------------------------------------------------------------------------


class Recipe(linen.Module):
    """A Linen network at a rung: its layers numbered by class, but for one that has a name."""

    layer: type

    @linen.compact
    def __call__(self, x, train: bool = False):
        x = linen.relu(self.layer(3, (3, 2))(x))
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.relu(self.layer(4, (2, 2), strides=2, padding="CIRCULAR", use_bias=False, name="second")(x))
        return linen.Dense(3)(self.layer(4, (2, 2))(x).mean((-2, -3)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def transferred(old, new, variables):
    return transfer_variables(old, new, variables, SHAPE)


@functools.partial(jax.jit, static_argnums=0)
def applied(module, variables, x):
    """What a module computes in evaluation, and in training with what it writes."""
    return module.apply(variables, x), module.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(
    "first, twin",
    [
        (convlab.linen.Conv, convlab.linen.LocallyConnected),
        (linen.Conv, convlab.linen.Dense),
        (linen.ConvLocal, convlab.linen.LocallyConnected),
        pytest.param(convlab.linen.LocallyConnected, convlab.linen.ConvLocal, marks=pytest.mark.slow),
    ],
)
def test_variables_of_linen_are_converted_for_another_module(first, twin):
    old, new = Recipe(first), Recipe(twin)
    [x] = gaussian((5, *SHAPE))
    shapes, written_shapes = (jax.eval_shape(module.init, jax.random.key(0), x) for module in (old, new))
    variables = jax.tree.map(lambda a: gaussian(a.shape)[0] ** 2, shapes)
    written = transferred(old, new, variables)
    chex.assert_trees_all_equal_shapes(written, written_shapes)
    for got, expected in zip(applied(new, written, x), applied(old, variables, x), strict=True):
        close(jax.tree.leaves(got), jax.tree.leaves(expected), CLOSE)
    close(transferred(new, old, written), variables)


def transferred_twice(first, second, x):
    """Transfer random variables of one module to another, and return what both compute."""
    variables = jax.tree.map(lambda a: gaussian(a.shape)[0], jax.eval_shape(first.init, jax.random.key(0), x))
    return first.apply(variables, x), second.apply(transfer_variables(first, second, variables, x.shape[1:]), x)


@pytest.mark.parametrize("local", [linen.ConvLocal, convlab.linen.ConvLocal])
def test_fused_kernels_and_masks_of_linen_are_converted(local):
    [x], mask = gaussian((3, 5, 4, 2)), np.arange(36).reshape(3, 2, 2, 3) % 3 > 0
    for first, second in (
        (local(3, (3, 2)), convlab.linen.LocallyConnected(3, (3, 2))),
        (convlab.linen.Conv(3, (3, 2), mask=mask), local(3, (3, 2))),
        (linen.Conv(3, (3, 2), mask=mask), convlab.linen.Dense(3, (3, 2))),
        (linen.Conv(3, (3, 2), mask=mask), linen.Conv(3, (3, 2), mask=2.0 * mask)),
        (linen.Conv(3, (3, 2), mask=mask), linen.Conv(3, (3, 2))),
    ):
        close(*transferred_twice(first, second, x), CLOSE)


def test_layers_of_linen_that_no_layout_describes_are_named():
    [x] = gaussian((3, 5, 4, 2))
    dilated = functools.partial(linen.Conv, 3, (3, 2), padding=1, name="dilated")
    with pytest.warns(UserWarning, match="^transfer_variables copies the arrays of the model without conversion$"):
        transferred_twice(dilated(input_dilation=2), dilated(input_dilation=1), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(*transferred_twice(dilated(input_dilation=2), dilated(input_dilation=2), x), CLOSE)


def test_both_linen_modules_must_call_the_same_modules():
    variables, short = (
        jax.tree.map(lambda a: np.ones(a.shape), jax.eval_shape(module.init, jax.random.key(0), np.ones((1, *shape))))
        for module, shape in ((Recipe(linen.Conv), SHAPE), (linen.Dense(2), (4,)))
    )
    with pytest.raises(ValueError, match="old and new must call the same modules, but 5 and 1 of theirs hold arrays"):
        transfer_variables(Recipe(linen.Conv), linen.Dense(3), variables, SHAPE)
    with pytest.raises(ValueError, match="variables do not fit the new module: params/bias, params/kernel"):
        transfer_variables(linen.Dense(2), linen.Dense(3), short, (4,))


# --- training goes on ------------------------------------------------------------------------------------------------


def test_training_continues_with_the_same_loss_and_the_transferred_state(tmp_path):
    with jax.enable_x64(False):
        data = cl.load("digits")
        config = cl.Config(steps=60, batch_size=32, evaluations=1, progress=False)
        optimizer = optax.sgd(0.2, momentum=0.9)
        model = nnx.jit(lambda: cl.models.Pyramid(data.image_shape, 10, (4, 5), rngs=nnx.Rngs(0)))()
        strict = cl.fit(model, data, config, optimizer=optimizer)
        old = strict.model()
        free = relax(old, "locally_connected", data.image_shape)
        state = transfer_optimizer_state(optimizer, strict.optimizer_state, old, free, data.image_shape)
        short = cl.Config(steps=1, batch_size=32, evaluations=1, progress=False, seed=1)
        runs = [
            cl.fit(net, data, short, optimizer=optimizer, optimizer_state=kept)
            for net, kept in ((old, strict.optimizer_state), (free, state), (free, None))
        ]
        losses = [run.history[-1]["loss"] for run in runs]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
        assert losses[0] < 1.5
        after = [run.evaluate(data.test.images, data.test.labels)["loss"] for run in runs]
        assert abs(after[1] - after[0]) < 0.75 * abs(after[2] - after[0])
        with pytest.raises(ValueError, match="optimizer_state does not fit this optimizer and model"):
            cl.fit(old, data, short, optimizer=optimizer, optimizer_state=state)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, to, options, match",
    [
        (
            lambda: one(cl.Conv),
            "local",
            {},
            "rung 'local' is unknown; needs one of dense, locally_connected, tiled, low_rank, conv",
        ),
        (lambda: one(cl.Conv), "dense", {"only": "layers/7"}, "only='layers/7' matches no layer; the layers are layers/0"),
        (lambda: one(cl.Tiled, period=2), "low_rank", {}, "layers/0: tiled .* is not contained in low_rank"),
        (lambda: one(cl.Tiled, period=2), "tiled", {"period": 3}, r"period must be a multiple of 2 \(2, 4, 6\) along axis 0"),
        (lambda: one(cl.Conv, 4, feature_group_count=2), "tiled", {}, "layers/0: a tiled layer takes no groups"),
    ],
)
def test_errors_name_the_layer_that_cannot_be_relaxed(model, to, options, match):
    with pytest.raises(ValueError, match=match):
        relax(model(), to, SHAPE, **options)


def linear():
    return filled(lambda: nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))


@pytest.mark.parametrize(
    "change, build, to, options, match",
    [
        (relax, lambda: one(cl.Dense, space=SHAPE[:2]), "conv", {}, r"relax changes no layer of Sequential: .* \(dense\) are"),
        (relax, lambda: one(cl.Conv), "conv", {}, r"all selected layers \(conv\) are already as free as 'conv'"),
        (constrain, lambda: one(cl.Conv), "dense", {}, r"constrain changes .* \(conv\) are already as strict as 'dense'"),
        (constrain, lambda: one(cl.Conv), "conv", {"strength": 0.5}, "constrain changes no layer"),
        (relax, lambda: one(cl.Conv), "dense", {"only": lambda path: False}, "only= selects no layer"),
        (relax, linear, "dense", {}, "it has no spatial layers"),
    ],
)
def test_a_conversion_that_changes_no_layer_warns_the_caller_and_returns_a_copy(change, build, to, options, match):
    model = build()
    with pytest.warns(UserWarning, match=match) as warned:
        same = change(model, to, SHAPE, **options)
    assert warned[0].filename == __file__
    assert same is not model
    assert nnx.graphdef(same) == nnx.graphdef(model)
    close(parameters(same), parameters(model), 0)


def test_networks_with_some_layers_to_convert_do_not_warn():
    model, shape = network("Pyramid")
    half = relax(model, "dense", shape, only="stages/0/layer")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        relax(half, "dense", shape)
        constrain(half, "conv", shape)


@pytest.mark.parametrize("strength", ["1", None, (1,)])
def test_the_strength_must_be_a_number(strength):
    with pytest.raises(TypeError, match="strength must be a number, got"):
        constrain(one(cl.Tiled), "conv", SHAPE, strength=strength)


@pytest.mark.parametrize(
    "image_shape, error, match",
    [
        (28, TypeError, r"image_shape must be a sequence \(\*space, c\) of integers, such as \(28, 28, 1\), got 28"),
        ("2", TypeError, "image_shape must be a sequence"),
        ((7, 5.5, 2), TypeError, "image_shape must be an integer or a sequence of integers, got 5.5"),
        ((7, 0, 2), ValueError, "image_shape must be at least 1, got 0"),
        ((), ValueError, "image_shape must have an axis for the channels"),
        (
            (7, 5, 3),
            ValueError,
            r"image_shape \(7, 5, 3\) does not fit Sequential: layers/0: inputs has 3 channels but .* 2 in_features$",
        ),
        ((2, 5, 2), ValueError, r"does not fit Sequential: layers/0: Window\(.*\) fits nowhere on \(2, 5\) pixels"),
    ],
)
def test_errors_of_image_shapes_name_the_argument_and_the_layer(image_shape, error, match):
    model = one(cl.Conv, padding="VALID")
    for ask in (cl.count, lambda model, shape: relax(model, "dense", shape), lambda model, shape: diff(model, model, shape)):
        with pytest.raises(error, match=match):
            ask(model, image_shape)


class Doubled(cl.Conv):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Standardized(nnx.Conv):
    def __call__(self, x):
        return x[..., :1]


@pytest.mark.parametrize("kind", [Doubled, Standardized])
def test_a_subclass_that_overrides_the_call_is_refused(kind):
    channels = 1 if kind is Standardized else 2
    model = filled(lambda: nnx.Sequential(kind(2, 2, (3, 2), rngs=nnx.Rngs(0)), cl.Conv(channels, 3, 1, rngs=nnx.Rngs(0))))
    for change, to in ((relax, "dense"), (constrain, "conv")):
        with pytest.raises(ValueError, match=f"layers/0: {kind.__name__} overrides the call of its class"):
            change(model, to, SHAPE)
    free = relax_compiled(model, "dense", SHAPE, only="layers/1")
    [x] = gaussian((3, *SHAPE))
    close(outputs(free, x), outputs(model, x), 1e-5)
    left, changed = diff(model, free, SHAPE)
    assert (left.layer, left.after) == ("layers/0", "overrides the call of its class")
    assert (changed.layer, changed.after) == ("layers/1", "dense")
    state = optax.adam(0.1).init(parameters(model))
    transfer_optimizer_state(optax.adam(0.1), state, model, free, SHAPE)
    layer, _ = cl.count(model, SHAPE).layers
    assert (layer.weights, layer.multiply_adds) == (26, 684 if kind is Doubled else 0)


def test_a_custom_convolution_function_is_refused():
    model = one(nnx.Conv, conv_general_dilated=lambda *given, **named: -jax.lax.conv_general_dilated(*given, **named))
    with pytest.raises(ValueError, match="layers/0: Conv overrides the call of its class"):
        relax(model, "dense", SHAPE)


class Plain(cl.Conv):
    """A name of one's own, and the call of the class."""


def test_a_subclass_that_keeps_the_call_is_relaxed():
    assert relax(one(Plain), "dense", SHAPE).layers[0].layout.rung == "dense"


def tied(rngs):
    model = nnx.Sequential(
        nnx.Conv(2, 2, (3, 2), rngs=rngs), nnx.Conv(2, 2, (3, 2), rngs=rngs), cl.Conv(2, 3, (1, 1), rngs=rngs)
    )
    model.layers[1].kernel = model.layers[0].kernel
    return model


def test_layers_that_share_an_array_are_refused():
    model = filled(lambda: tied(nnx.Rngs(0)))
    for only in (None, "layers/1"):
        with pytest.raises(ValueError, match="layers/0/kernel and layers/1/kernel are one array"):
            relax(model, "dense", SHAPE, only=only)
    free = relax(model, "dense", SHAPE, only="layers/2")
    assert free.layers[0].kernel is free.layers[1].kernel


class Stacked(nnx.Module):
    """Three layers in one, called one after the other."""

    def __init__(self, kind):
        self.blocks = nnx.vmap(lambda key: kind(2, 2, (3, 2), rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 3))

    def __call__(self, x):
        return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.blocks)


@pytest.mark.parametrize("kind", [nnx.Conv, cl.Conv])
def test_stacked_layers_are_refused_by_name(kind):
    model = Stacked(kind)
    with pytest.raises(ValueError, match=r"blocks holds stacked layers, .*: its kernel has shape \(3, 3, 2, 2, 2\)"):
        relax(model, "dense", SHAPE)


class Told(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 2, (3, 2), rngs=rngs)

    def __call__(self, x, train):
        return self.conv(x), train


@pytest.mark.parametrize("ask", [cl.count, lambda model, shape: relax(model, "dense", shape)], ids=["count", "relax"])
def test_models_that_need_more_than_images_are_refused(ask):
    with pytest.raises(
        TypeError, match="Told must be callable with images alone .*'train'.*: give its other arguments a default"
    ):
        ask(filled(lambda: Told(nnx.Rngs(0))), SHAPE)
    with pytest.raises(TypeError, match="model must be a Flax NNX module, got Conv; .*transfer_variables is for Linen modules"):
        ask(linen.Conv(3, (3, 2)), SHAPE)
    with pytest.raises(ValueError, match=r"image_shape \(7, 5, 2\) does not fit Conv"):
        ask(filled(lambda: nnx.Conv(3, 2, (3, 2), rngs=nnx.Rngs(0))), SHAPE)


@pytest.mark.parametrize("norm", [nnx.WeightNorm, nnx.SpectralNorm])
def test_a_layer_whose_arrays_are_recomputed_is_refused(norm):
    conv, further = (filled(lambda d=d: nnx.Conv(2, d, (3, 2), rngs=nnx.Rngs(0))) for d in (2, 3))
    model = nnx.Sequential(norm(conv, rngs=nnx.Rngs(0)), further)
    with pytest.raises(ValueError, match=f"layers/0/layer_instance: {norm.__name__} recomputes its arrays in their old shape"):
        relax(model, "dense", SHAPE)
    assert relax(model, "dense", SHAPE, only="layers/1").layers[1].layout.rung == "dense"


@pytest.mark.parametrize("only", [3, cl.Conv, ("layers", 0)])
def test_layers_are_selected_by_patterns_or_a_predicate(only):
    with pytest.raises(TypeError, match="only must be patterns of paths, such as .*, or a predicate of the path, got"):
        relax(one(cl.Conv), "dense", SHAPE, only=only)


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.conv = cl.Conv(2, 2, (3, 2), rngs=rngs)
        self.unused = cl.Conv(2, 2, (3, 2), rngs=rngs)

    def __call__(self, x):
        return self.conv(self.conv(x)[:, 1:])


def test_errors_name_a_layer_without_exactly_one_image_size():
    model = filled(lambda: Twice(nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"conv reads images of \(6, 5\) and \(7, 5\) pixels but conversion needs one size"):
        relax(model, "dense", SHAPE)
    with pytest.raises(ValueError, match="unused is never called"):
        relax(model, "dense", SHAPE, only="unused")


def test_a_network_that_would_not_fit_is_refused_before_it_is_built(monkeypatch):
    model = one(cl.Conv)
    needed = (35 * 35 * 6 + 35 * 3) * 4
    monkeypatch.setattr("convlab.memory._free", lambda: 3 * needed)
    relax(model, "dense", SHAPE, optimizer=optax.sgd(0.1))
    with pytest.raises(
        MemoryError, match=f"needs {4 * needed + 4:,} bytes .* but {3 * needed:,} are free; convlab.allow_large_arrays"
    ):
        relax(model, "dense", SHAPE, optimizer=optax.adam(0.1))
    with cl.allow_large_arrays():
        relax(model, "dense", SHAPE, optimizer=optax.adam(0.1))
    way = 36 * (1 + 35) * 4  # the kernel once, and at all positions
    monkeypatch.setattr("convlab.memory._free", lambda: needed + way - 1)
    with pytest.raises(MemoryError, match=r"GB for parameters, .* GB for kernels during the conversion"):
        relax(model, "dense", SHAPE)
    monkeypatch.setattr("convlab.memory._free", lambda: None)
    relax(model, "dense", SHAPE, optimizer=optax.adam(0.1))


def test_free_memory_is_less_than_total_memory():
    from convlab.memory import _free

    free = _free()
    assert free is None or 0 < free < 2**50
    assert Change._fields[0] == "layer"


def test_recording_the_calls_of_a_class_leaves_its_inherited_call():
    layer = cl.LocallyConnected(1, 2, (3, 3), space=(5, 7), rngs=nnx.Rngs(0))
    with recorded(cl.LocallyConnected) as calls:
        layer(jnp.ones((5, 7, 1)))
    assert len(calls) == 1
    assert "__call__" not in vars(cl.LocallyConnected)
    with recorded(Layer) as calls:
        layer(jnp.ones((5, 7, 1)))
    assert len(calls) == 1
