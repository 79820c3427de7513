"""Optimizers and penalties: steps against the equations, projected training against a convolution's, exact zeros."""

import math
import warnings

import chex
import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from assertions import close
from flax import nnx
from networks import filled
from strategies import gaussian

from convlab import optim
from convlab.layers import LAYERS

SHAPES = {"layer": {"kernel": (7, 5, 3), "bias": (7, 5)}, "norm": {"scale": (11,)}}
CLOSE = 1e-11  # after several steps


def tree(seed, dtype=jnp.float32):
    """A kernel, a bias of two axes and a scale."""
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return jax.tree.unflatten(structure, [jax.device_put(a.astype(dtype)) for a in gaussian(*leaves, seed=seed)])


def start(model):
    """Gaussian parameters."""
    leaves, structure = jax.tree.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    arrays = gaussian(*(leaf.shape for leaf in leaves), seed=3)
    return jax.tree.unflatten(structure, [a.astype(leaf.dtype) for a, leaf in zip(arrays, leaves, strict=True)])


def descend(optimizer, parameters, gradients):
    """Parameters after each of several gradients, in one compiled scan."""

    @jax.jit
    def run(parameters, gradients):
        def body(carry, gradient):
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            parameters = optax.apply_updates(carry[0], updates)
            return (parameters, state), parameters

        return jax.lax.scan(body, (parameters, optimizer.init(parameters)), gradients)[1]

    return jax.tree.map(np.asarray, run(parameters, jax.tree.map(lambda *each: np.stack(each), *gradients)))


def last(trees):
    return jax.tree.map(lambda each: each[-1], trees)


# --- thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_beta_lasso_takes_the_step_of_the_equation_and_leaves_out_biases_and_scales():
    rate, l1_penalty, beta = 0.1, 0.03, 11.0
    theta, gradient = tree(1, jnp.float64), tree(2, jnp.float64)
    got = descend(optim.beta_lasso(rate, l1_penalty, beta), theta, [gradient])
    expected = jax.tree.map(lambda t, g: np.asarray(t) - rate * np.asarray(g), theta, gradient)
    t, g = (np.asarray(each["layer"]["kernel"]) for each in (theta, gradient))
    stepped = t - rate * (g + l1_penalty * np.sign(t))
    expected["layer"]["kernel"] = np.where(np.abs(stepped) >= beta * l1_penalty, stepped, 0)
    assert 0 < (np.abs(stepped) < beta * l1_penalty).sum() < t.size
    close(last(got), expected)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_beta_lasso_and_soft_threshold_without_penalty_are_sgd_bit_for_bit(momentum):
    theta, gradients = tree(0), [tree(seed) for seed in range(1, 5)]
    rate = optax.cosine_decay_schedule(0.1, 7)
    expected = descend(optax.sgd(rate, momentum), theta, gradients)
    chex.assert_trees_all_equal(descend(optim.beta_lasso(rate, 0.0, 50, momentum=momentum), theta, gradients), expected)
    chex.assert_trees_all_equal(descend(optim.soft_threshold(rate, 0.0, momentum=momentum), theta, gradients), expected)
    scheduled, sgd = optim.beta_lasso(rate, lambda _: 0.0, 50, momentum=momentum), optax.sgd(rate, momentum)
    chex.assert_trees_all_equal(*(each.update(gradients[0], each.init(theta), theta)[0] for each in (scheduled, sgd)))


def test_no_weight_ever_ends_below_the_threshold_but_at_zero_and_some_come_back():
    l1_penalty, beta = 0.01, 20.0
    gradients = [tree(seed) for seed in range(1, 30)]
    kernels = np.abs(descend(optim.beta_lasso(0.2, l1_penalty, beta, momentum=0.5), tree(0), gradients)["layer"]["kernel"])
    assert not ((kernels > 0) & (kernels < np.float32(beta * l1_penalty))).any()
    assert ((kernels[:-1] == 0) & (kernels[1:] > 0)).any()
    assert (kernels == 0).any()


def test_the_threshold_is_that_of_the_parameters_as_they_are_stored():
    rate, threshold = 0.1, np.float32(0.0137)
    (g,) = gaussian((100_000, 1))
    g = np.float32(100 * g)
    theta = threshold + np.float32(rate) * g  # after the step, all are within rounding of the threshold
    got = np.abs(last(descend(optim.beta_lasso(rate, 1e-9, threshold / 1e-9), theta, [g])))
    assert not ((got > 0) & (got < threshold)).any()
    assert 0.1 < (got == 0).mean() < 0.9


def test_the_threshold_and_both_rates_follow_their_schedules():
    gradients, rate = [tree(seed) for seed in range(1, 5)], lambda count: 0.1 / (1 + count)
    got = descend(optim.beta_lasso(rate, lambda count: jnp.where(count < 2, 0.0, 0.01), 30), tree(0), gradients)
    plain = descend(optax.sgd(rate), tree(0), gradients)
    close(*(jax.tree.map(lambda each: each[:2], both) for both in (got, plain)), 1e-6)
    zeros = (np.asarray(got["layer"]["kernel"]) == 0).reshape(4, -1).sum(1)
    assert zeros[1] == 0 < zeros[2]


@pytest.mark.usefixtures("float64")
def test_soft_threshold_is_the_proximal_step_and_converges_to_the_lasso():
    x, y = gaussian((31, 7), (31, 3))
    l1_penalty, rate = 3.0, 0.01
    theta = np.zeros((7, 3))
    optimizer = optim.soft_threshold(rate, l1_penalty)

    def body(carry, _):
        theta, state = carry
        updates, state = optimizer.update(jnp.asarray(x).T @ (x @ theta - y), state, theta)
        return (optax.apply_updates(theta, updates), state), None

    theta = np.asarray(jax.jit(lambda theta: jax.lax.scan(body, (theta, optimizer.init(theta)), None, 2000)[0][0])(theta))
    slope = x.T @ (x @ theta - y)
    assert 0 < (theta == 0).sum() < theta.size
    close(slope[theta != 0], -l1_penalty * np.sign(theta[theta != 0]), CLOSE)  # the optimality conditions of the lasso
    assert (np.abs(slope[theta == 0]) <= l1_penalty).all()


def test_a_mask_may_be_a_tree_and_learning_rates_may_be_injected():
    mask = {"layer": {"kernel": False, "bias": True}, "norm": False}
    theta, zero = tree(0), jax.tree.map(np.zeros_like, tree(0))
    inject = optax.inject_hyperparams(optim.beta_lasso, static_args=("mask", "momentum"))
    got = last(descend(inject(learning_rate=0.1, l1_penalty=0.01, beta=40.0, mask=mask), theta, [zero]))
    chex.assert_trees_all_equal(got["norm"], theta["norm"])
    chex.assert_trees_all_equal(got["layer"]["kernel"], theta["layer"]["kernel"])
    assert (got["layer"]["bias"] == 0).any()


@pytest.mark.parametrize(
    "make, numbers",
    [
        (optim.beta_lasso, {"learning_rate": 0.1, "l1_penalty": 0.01, "beta": 40.0}),
        (optim.soft_threshold, {"learning_rate": 0.1, "l1_penalty": 3.0}),
    ],
)
def test_all_numbers_may_be_injected_and_kernels_still_get_exact_zeros(make, numbers):
    theta, gradients = tree(0), [tree(1), tree(2)]
    got = last(descend(optax.inject_hyperparams(make)(**numbers), theta, gradients))
    close(got, last(descend(make(**numbers), theta, gradients)), 1e-6)
    assert (got["layer"]["kernel"] == 0).any()
    assert not (got["layer"]["bias"] == 0).any()


def test_arrays_of_low_precision_keep_their_dtype_and_exact_zeros():
    theta = tree(0, jnp.bfloat16)
    got = descend(optim.beta_lasso(0.1, 0.03, 11.0), theta, [tree(1)])
    chex.assert_trees_all_equal_dtypes(last(got), theta)
    kernel = np.abs(np.asarray(got["layer"]["kernel"], np.float32))
    assert (kernel == 0).any()
    assert not ((kernel > 0) & (kernel < 0.33)).any()


def test_a_warning_names_arrays_that_start_below_the_threshold():
    with pytest.warns(UserWarning, match=r"beta_lasso: \d+% of \['layer'\]\['kernel'\] start below beta \* l1_penalty = 1 "):
        optim.beta_lasso(0.1, l1_penalty=0.1, beta=10).init(tree(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optim.beta_lasso(0.1, l1_penalty=0.01, beta=10).init(tree(0))


def test_invalid_numbers_are_refused():
    for wrong in ({"l1_penalty": -1.0}, {"beta": -1.0}, {"learning_rate": math.nan}, {"l1_penalty": math.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 0 and finite"):
            optim.beta_lasso(**{"learning_rate": 0.1, "l1_penalty": 0.1, "beta": 1.0, **wrong})
    with pytest.raises(ValueError, match="l1_penalty must be at least 0"):
        optim.soft_threshold(0.1, -1)
    with pytest.raises(ValueError, match="l1_penalty must be a number of at least 0, or a schedule; got None"):
        optim.beta_lasso(0.1, None, 1.0)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        optim.add_penalty(jnp.sum, -1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        optim.project_every(jnp.round, 0)
    theta = np.ones((2, 2), np.float32)
    for optimizer in (
        *(optim.soft_threshold(0.1, l1_penalty) for l1_penalty in (1, 0)),
        optim.beta_lasso(0.1, 0, 1),
        optim.project_every(jnp.round, 1),
        optim.add_penalty(jnp.sum, 1),
    ):
        with pytest.raises(ValueError, match="needs the parameters"):
            optimizer.update(theta, optimizer.init(theta))


def regress(optimizer, seeds, n=2000, space=(8, 7), noise=0.5, steps=40):
    """Dense weights learned on images whose outputs a 3x3 convolution with taps of 0.2 to 1 made; and its dense weights."""
    window, pixels = cl.Window((3, 3)), math.prod(space)

    def one(seed):
        keys = jax.random.split(jax.random.key(seed), 5)
        v = jax.random.rademacher(keys[0], (3, 3, 1, 1)) * jax.random.uniform(keys[1], (3, 3, 1, 1), minval=0.2)
        x = jax.random.normal(keys[2], (n, *space, 1))
        y = cl.conv(x, v, window) + noise * jax.random.normal(keys[3], (n, *space, 1))
        w = jax.random.normal(keys[4], (*space, *space, 1, 1)) / pixels**0.5

        def loss(w):
            return 0.5 * jnp.mean(jnp.sum((cl.dense(x, w) - y) ** 2, (1, 2, 3)))

        def body(carry, _):
            updates, state = optimizer.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        w = jax.lax.scan(body, (w, optimizer.init(w)), None, steps)[0][0]
        return w, cl.lift_conv_to_dense(v, window, space), cl.decompose(w, window, space)

    learned, teacher, shares = jax.jit(lambda seeds: jax.lax.map(one, seeds))(jnp.asarray(seeds))
    return np.asarray(learned) != 0, np.asarray(teacher) != 0, np.asarray(shares["shared"]) + np.asarray(shares["local"])


def test_beta_lasso_finds_the_windows_of_a_convolution_in_a_dense_regression():
    learned, support, local = regress(optim.beta_lasso(0.5, l1_penalty=2e-3, beta=25), [0, 1, 2])
    for found, there in zip(learned, support, strict=True):
        assert (found != there).sum() <= 0.05 * there.sum() < 0.01 * there.size
    assert local.min() > 0.98


# --- projections -----------------------------------------------------------------------------------------------------

RATE, IMAGES = 0.03, 5
WINDOWS = [  # padding, strides and momentum, of both layers
    ("SAME", (1, 1), 0.9),
    ("VALID", (2, 1), None),
    ("CIRCULAR", (1, 2), 0.9),
]
each_window = pytest.mark.parametrize("padding, strides, momentum", WINDOWS)


def network(rungs, padding, strides):
    """Two layers with biases on 7x5 pixels, each on its rung; shapes without arrays."""

    def make():
        where = {"padding": padding, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        first = LAYERS[rungs[0]](2, 3, (3, 2), strides, space=(7, 5), **where)
        second = LAYERS[rungs[1]](3, 2, (2, 3), space=first.layout.window.output_shape((7, 5)), **where)
        return nnx.Sequential(first, nnx.tanh, second)

    return nnx.eval_shape(make)


CONV, FREE = ("conv", "conv"), ("dense", "locally_connected")


def lifted(model, parameters):
    """The parameters of a convolution as those of the same function in a model of another rung."""
    new = {"layers": {}}
    for number, layer in ((0, model.layers[0]), (2, model.layers[2])):
        layout, (kernel, bias) = layer.layout, (parameters["layers"][number][name] for name in ("kernel", "bias"))
        lift = cl.lift_conv_to_dense if layout.rung == "dense" else cl.lift_conv_to_local
        new["layers"][number] = {
            "kernel": lift(kernel, layout.window, layout.space),
            "bias": np.broadcast_to(bias, layout.bias_shape),
        }
    return new


def counts(model):
    """Positions at which each tap is live, and positions in all, like the parameters of a convolution."""
    live = {}
    for number in (0, 2):
        window, space = model.layers[number].layout.window, model.layers[number].layout.space
        reads = oracle.tables(space, window.size, window.strides, window.dilation, window.padding)
        taps = oracle.live(reads).sum((0, 1))[..., None, None]
        live[number] = {"kernel": taps, "bias": np.asarray(math.prod(window.output_shape(space)))}
    return {"layers": live}


def train(model, parameters, optimizer, steps=4):
    graph, _, rest = nnx.split(model, nnx.Param, ...)
    x, y = gaussian((IMAGES, 7, 5, 2), (IMAGES, *model.layers[2].layout.positions, 2))

    def loss(parameters):
        return jnp.sum((nnx.merge(graph, parameters, rest)(x) - y) ** 2) / IMAGES

    @jax.jit
    def run(parameters):
        def step(carry, _):
            updates, state = optimizer.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (parameters, optimizer.init(parameters)), None, steps)[0][0]

    return jax.tree.map(np.asarray, run(parameters))


def norm(first, second):
    """Frobenius distance of two trees."""
    return sum(np.sum((a - np.asarray(b)) ** 2) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)) ** 0.5


def divided(by):
    return optax.stateless(lambda updates, _: jax.tree.map(lambda update, n: update / n, updates, by))


@each_window
@pytest.mark.usefixtures("float64")
def test_descent_with_projection_is_training_the_convolution_with_a_rate_per_tap(padding, strides, momentum):
    conv, model = (network(rungs, padding, strides) for rungs in (CONV, FREE))
    first, live, sgd, project = start(conv), counts(conv), optax.sgd(RATE, momentum), optim.sharing_projection(model)
    trained = train(conv, first, optax.chain(sgd, divided(live)))
    if padding != "SAME":  # every tap is live everywhere: one rate a layer, divided by the number of positions
        assert all((layer["kernel"] == layer["bias"]).all() for layer in live["layers"].values())
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), trained, first))) > 0.01
    expected = lifted(model, trained)
    close(train(model, lifted(model, first), optax.chain(sgd, optim.project_every(project, 1))), expected, CLOSE)
    if padding == "SAME":
        close(train(model, lifted(model, first), optax.chain(optim.tie_gradients(project), sgd)), expected, CLOSE)


@pytest.mark.usefixtures("float64")
def test_under_adam_projection_is_not_training_the_convolution_and_tied_gradients_stay_tied():
    padding, strides, _ = WINDOWS[1]
    conv, model = (network(rungs, padding, strides) for rungs in (CONV, FREE))
    first, project = start(conv), jax.jit(optim.sharing_projection(model))
    begin = lifted(model, first)
    projected = train(model, begin, optax.chain(optax.adam(RATE), optim.project_every(project, 1)))
    close(project(projected), projected)
    moved = norm(projected, begin)
    for rate in (optax.adam(RATE), optax.chain(optax.adam(RATE), divided(counts(conv)))):
        assert norm(projected, lifted(model, train(conv, first, rate))) > 0.2 * moved
    tied = train(model, begin, optax.chain(optim.tie_gradients(project), optax.adam(RATE)))
    close(project(tied), tied)


def test_parameters_are_projected_after_every_third_update_and_at_no_other():
    layer = nnx.eval_shape(lambda: cl.LocallyConnected(2, 3, (3, 2), space=(5, 3), rngs=nnx.Rngs(0)))
    project, parameters = jax.jit(optim.sharing_projection(layer)), start(layer)
    leaves, structure = jax.tree.flatten(parameters)
    gradients = [jax.tree.unflatten(structure, gaussian(*(a.shape for a in leaves), seed=s)) for s in range(7)]
    gradients = jax.tree.map(np.float32, gradients)
    got = descend(optax.chain(optax.sgd(0.1), optim.project_every(project, 3)), parameters, gradients)
    for step, gradient in enumerate(gradients):
        parameters = jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.1) * g, parameters, gradient)
        if step in (2, 5):
            parameters = project(parameters)
        close(jax.tree.map(lambda each, step=step: each[step], got), parameters, 1e-6)


def test_the_projection_is_computed_only_where_it_is_due():
    seen = []

    def projection(parameters):
        jax.debug.callback(lambda: seen.append(1))
        return parameters

    descend(optim.project_every(projection, 3), np.zeros(2, np.float32), [np.ones(2, np.float32)] * 7)
    jax.effects_barrier()
    assert len(seen) == 2


def test_a_dense_layer_is_projected_to_locality_or_to_a_convolution_and_its_bias_follows():
    layer = nnx.eval_shape(lambda: cl.Dense(2, 3, (3, 2), (2, 1), space=(5, 4), rngs=nnx.Rngs(0)))
    tree = start(layer)
    local, conv = (jax.jit(optim.sharing_projection(layer, to))(tree) for to in ("locally_connected", "conv"))
    shares = cl.decompose(tree["kernel"], layer.layout.window, layer.layout.space)
    whole, inside, shared = (np.sum(np.asarray(each["kernel"]) ** 2) for each in (tree, local, conv))
    close(inside / whole, float(shares["shared"]) + float(shares["local"]), 1e-6)
    close(shared / whole, shares["shared"], 1e-6)
    close(local["bias"], tree["bias"], 1e-7)
    close(conv["bias"], np.broadcast_to(tree["bias"].mean((0, 1)), tree["bias"].shape), 1e-6)


def test_the_layers_of_a_network_are_tied_also_as_the_state_of_nnx():
    def build():
        layer = cl.LocallyConnected(1, 2, (3,), space=(7,), rngs=nnx.Rngs(0))
        return nnx.Sequential(layer, nnx.relu, nnx.Linear(2, 3, rngs=nnx.Rngs(0)))

    model = filled(build, deviation=1)
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.sgd(0.1), optim.project_every(optim.sharing_projection(model), 1)), wrt=nnx.Param
    )
    arrays = lambda: jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))["layers"]  # noqa: E731
    before = arrays()
    ones = jax.tree.map(np.ones_like, nnx.state(model, nnx.Param))
    nnx.jit(lambda optimizer, model: optimizer.update(model, ones))(optimizer, model)
    after = arrays()
    close(after[0]["kernel"][1], after[0]["kernel"][4], 1e-6)
    assert np.abs(before[0]["kernel"][1] - before[0]["kernel"][4]).max() > 0.1
    close(after[2], jax.tree.map(lambda p: p - 0.1, before[2]), 1e-7)


def test_models_without_projectable_layers_are_refused():
    conv = nnx.eval_shape(lambda: cl.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"no layer of the model can be projected to 'conv': .* \['conv'\]"):
        optim.sharing_projection(conv)
    with pytest.raises(ValueError, match=r"no layer of the model can be projected to 'low_rank': .* \['dense'\]"):
        optim.sharing_projection(dense_layer()[0], "low_rank")  # that projection is not linear
    with pytest.raises(ValueError, match="rung 'local' is unknown; needs one of dense, locally_connected"):
        optim.sharing_projection(conv, "local")
    with pytest.raises(ValueError, match="the tree has no array a/c; it has a/b"):
        optim.at_paths({("a", "c"): jnp.negative})({"a": {"b": np.ones(1)}})
    with pytest.raises(ValueError, match="weighting 'nearness' is unknown; needs one of distance, outside"):
        optim.locality_penalty(conv, weighting="nearness")
    with pytest.raises(ValueError, match="no spatial layers"):
        optim.locality_penalty(filled(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))))


def test_a_masked_projection_keeps_hidden_arrays():
    projection = optim.at_paths({("a",): jnp.zeros_like, ("b",): jnp.zeros_like})
    optimizer = optax.masked(optim.project_every(projection, 1), {"a": True, "b": False})
    ones = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    chex.assert_trees_all_equal(last(descend(optimizer, ones, [ones])), {"a": 0 * ones["a"], "b": 2 * ones["b"]})


# --- penalties -------------------------------------------------------------------------------------------------------


def dense_layer(padding="SAME"):
    where = {"padding": padding, "space": (5, 4), "param_dtype": jnp.float64}
    layer = nnx.eval_shape(lambda: cl.Dense(2, 3, (3, 2), (1, 2), **where, rngs=nnx.Rngs(0)))
    return layer, start(layer)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("to, padding", [("conv", "SAME"), ("locally_connected", "SAME"), ("conv", ("REFLECT", "CIRCULAR"))])
def test_the_distance_is_zero_where_the_constraint_holds_and_its_gradient_leads_there(to, padding):
    layer, tree = dense_layer(padding)
    project = jax.jit(optim.sharing_projection(layer, to))
    penalty = jax.jit(jax.value_and_grad(optim.projection_penalty(project)))
    (value, gradient), nearest = penalty(tree), project(tree)
    assert float(penalty(nearest)[0]) < 1e-20 < 1 < float(value)
    close(value, norm(tree, nearest) ** 2)
    close(jax.tree.map(lambda p, g: p - np.asarray(g) / 2, tree, gradient), nearest)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", ("SAME", "CIRCULAR"), ("CIRCULAR", "EDGE")])
def test_a_dense_weight_counts_by_its_distance_from_the_centre_of_its_window(padding):
    layer, tree = dense_layer(padding)
    window, space = layer.layout.window, layer.layout.space
    reads = oracle.tables(space, window.size, window.strides, window.dilation, padding)
    low = (1, 0)  # of windows 3 and 2 under both paddings: centres on a pixel, and between two
    near, outside, size = 0.0, 0.0, np.asarray(tree["kernel"])
    inside = {(position, pixel) for position, _, pixel in oracle.each_tap(reads)}
    for i, j, k, l in np.ndindex(size.shape[:4]):
        apart = [abs(k - (i + 1 - low[0])), abs(l - (2 * j + 0.5 - low[1]))]
        kinds = zip(apart, space, [padding] * 2 if isinstance(padding, str) else padding, strict=True)
        apart = [min(a, n - a) if kind == "CIRCULAR" else a for a, n, kind in kinds]
        near += math.hypot(*apart) * (size[i, j, k, l] ** 2).sum()
        outside += np.abs(size[i, j, k, l]).sum() * (((i, j), (k, l)) not in inside)

    @jax.jit
    def penalties(tree):
        local = optim.sharing_projection(layer, "locally_connected")(tree)
        return (
            optim.locality_penalty(layer)(tree),
            optim.locality_penalty(layer, "outside", jnp.abs)(tree),
            optim.locality_penalty(layer, "outside")(local),
        )

    *got, of_local = penalties(tree)
    close(got, [near, outside])
    assert float(of_local) == 0


@pytest.mark.usefixtures("float64")
def test_penalties_of_complex_weights_are_real():
    where = {"padding": ("SAME", "CIRCULAR"), "space": (5, 4), "param_dtype": jnp.complex128, "use_bias": False}
    layer = nnx.eval_shape(lambda: cl.LocallyConnected(2, 3, (3, 1), **where, rngs=nnx.Rngs(0)))
    v, imaginary = gaussian(*[(5, 4, 3, 1, 2, 3)] * 2)
    v = v + 1j * imaginary
    v[0, :, 0] = v[-1, :, -1] = 0  # dead taps
    tree = {"kernel": jnp.asarray(v)}
    means = v.sum((0, 1)) / np.array([16, 20, 16])[:, None, None, None]
    away = np.where(v == 0, 0, v - means)
    penalty = jax.jit(jax.value_and_grad(optim.projection_penalty(optim.sharing_projection(layer))))
    value, gradient = penalty(tree)
    close(value, np.sum(np.abs(away) ** 2))
    close(gradient["kernel"], 2 * away.conj())  # JAX returns the conjugate of the direction of ascent
    close(optim.locality_penalty(layer, penalty=jnp.abs)(tree), np.abs(v[:, :, [0, 2]]).sum())
    with pytest.raises(TypeError, match="penalty has dtype complex128 but needs a real one"):
        optim.locality_penalty(layer)(tree)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rung", ["conv", "tiled", "low_rank", "locally_connected"])
def test_a_tap_counts_by_its_distance_from_the_centre_at_every_position(rung):
    own = {"tiled": {"period": 2}, "low_rank": {"rank": 2}}.get(rung, {})
    own |= {"kernel_dilation": (2, 1), "space": (7, 5), "param_dtype": jnp.float64}
    layer = nnx.eval_shape(lambda: LAYERS[rung](2, 3, (3, 2), **own, rngs=nnx.Rngs(0)))
    tree = start(layer)
    kernel = np.tensordot(tree["weights"], tree["basis"], 1) if rung == "low_rank" else np.asarray(tree["kernel"])
    away = np.array([[math.hypot(2, 0.5)] * 2, [0.5] * 2, [math.hypot(2, 0.5)] * 2])
    got, outside = jax.jit(
        lambda tree: (
            optim.locality_penalty(layer, penalty=jnp.abs)(tree),
            optim.locality_penalty(layer, weighting="outside")(tree),
        )
    )(tree)
    close(got, (away[..., None, None] * np.abs(kernel)).sum())
    assert float(outside) == 0


@pytest.mark.usefixtures("float64")
def test_the_gradient_that_is_added_is_the_slope_of_the_penalty_times_the_scheduled_weight():
    layer, tree = dense_layer()
    penalty, zero = jax.jit(optim.locality_penalty(layer)), jax.tree.map(np.zeros_like, tree)
    optimizer = optim.add_penalty(penalty, lambda count: 0.5 * count)
    updates = descend(optimizer, tree, [zero, zero])  # at weight 0, then 0.5
    moved = jax.tree.map(lambda each: each[1] - each[0], updates)
    chex.assert_trees_all_equal(jax.tree.map(lambda each: each[0], updates), tree)
    (direction,), small = gaussian(tree["kernel"].shape, seed=1), 1e-5
    sides = [float(penalty({**tree, "kernel": tree["kernel"] + sign * small * direction})) for sign in (1, -1)]
    close(np.sum(moved["kernel"] * direction), 0.5 * (sides[0] - sides[1]) / (2 * small), 1e-7)
    close(moved["bias"], zero["bias"])


def test_a_strong_penalty_ties_a_local_layer_that_is_trained():
    layer = nnx.eval_shape(lambda: cl.LocallyConnected(1, 1, (3,), padding="VALID", space=(7,), rngs=nnx.Rngs(0)))
    penalty, tree = optim.projection_penalty(optim.sharing_projection(layer)), start(layer)
    zero = jax.tree.map(np.zeros_like, tree)
    got = last(descend(optax.chain(optim.add_penalty(penalty, 1.0), optax.sgd(0.1)), tree, [zero] * 50))
    close(got, jax.jit(optim.sharing_projection(layer))(tree), 1e-4)


# --- pruning ---------------------------------------------------------------------------------------------------------


def network_tree(seed=0):
    first, second, bias = gaussian((7, 5), (3, 11), (5, 3), seed=seed)
    made = {"first": {"kernel": first}, "second": {"kernel": 10 * second, "bias": bias}}
    return jax.tree.map(lambda a: jax.device_put(np.float32(a)), made)


def test_the_smallest_share_of_what_is_left_is_pruned_to_the_weight():
    tree = network_tree()
    mask, left = None, {"first": 35, "second": 33}
    for _ in range(3):
        before, mask = mask, optim.prune(tree, 0.3, mask)
        for name in left:
            left[name] -= round(0.3 * left[name])
            kept, size = np.asarray(mask[name]["kernel"]), np.abs(np.asarray(tree[name]["kernel"]))
            assert kept.sum() == left[name]
            assert size[kept].min() >= size[~kept].max()
            assert before is None or not (kept & ~np.asarray(before[name]["kernel"])).any()
    assert np.asarray(mask["second"]["bias"]).all()
    numbers = optim.prune(tree, 0.3, jax.tree.map(lambda kept: np.asarray(kept, np.float32), before))
    chex.assert_trees_all_equal(numbers, mask)
    chex.assert_trees_all_equal_dtypes(numbers, mask)
    assert not np.asarray(optim.prune(tree, 1.0)["first"]["kernel"]).any()
    assert np.asarray(optim.prune(tree, 0.0)["first"]["kernel"]).all()


def test_global_pruning_removes_the_smallest_weights_of_all_arrays():
    tree = network_tree()
    mask = optim.prune(tree, 0.5, scope="global")
    sizes, kept = (
        np.concatenate([np.asarray(each[name]["kernel"]).ravel() for name in ("first", "second")]) for each in (tree, mask)
    )
    assert kept.sum() == 34
    assert np.abs(sizes[kept]).min() > np.abs(sizes[~kept]).max()
    assert kept[:35].sum() < kept[35:].sum()


def test_ties_are_pruned_to_the_exact_number_and_other_arrays_on_request():
    assert np.sum(np.asarray(optim.prune(jax.device_put(np.ones((7, 5), np.float32)), 0.2))) == 28
    mask = optim.prune(network_tree(), 0.2, prunable={"first": False, "second": True})
    assert [int(np.asarray(each).sum()) for each in jax.tree.leaves(mask)] == [35, 12, 26]  # biases sort before kernels


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(0.1, 0.9, nesterov=True), optax.adamw(0.1, weight_decay=0.3), optax.chain(optax.adamw(0.1), optax.ema(0.5))],
    ids=["nesterov", "adamw", "average"],
)
def test_pruned_weights_stay_at_zero_under_any_optimizer_and_the_others_are_not_touched(optimizer):
    tree, gradients = network_tree(), [network_tree(seed) for seed in range(1, 6)]
    mask = optim.prune(tree, 0.4)
    got = descend(optax.chain(optimizer, optim.keep_pruned(mask)), tree, gradients)  # not rewound: the first step prunes
    plain = descend(optimizer, tree, gradients)
    for name in tree:
        assert (np.asarray(got[name]["kernel"])[:, ~np.asarray(mask[name]["kernel"])] == 0).all()
    close(got, jax.tree.map(lambda a, kept: np.where(kept, a, 0), plain, mask), 1e-6)


def test_rewinding_restores_kept_weights_bit_for_bit():
    tree = network_tree()
    mask = optim.prune(network_tree(1), 0.4)
    got = optim.rewind(tree, mask)
    for before, after, kept in zip(*map(jax.tree.leaves, (tree, got, mask)), strict=True):
        assert np.asarray(after)[kept].tobytes() == np.asarray(before)[kept].tobytes()
        assert not np.asarray(after)[~kept].any()


def test_each_round_trains_the_remaining_weights_from_their_initial_values():
    first, calls = network_tree(), []

    def train(parameters, mask):
        calls.append(parameters)
        return last(descend(optax.chain(optax.adamw(0.1), optim.keep_pruned(mask)), parameters, [network_tree(len(calls))] * 2))

    rounds = list(optim.iterative_pruning(train, first, 0.2, rounds=2))
    assert [np.asarray(mask["first"]["kernel"]).sum() for _, mask in rounds] == [35, 28, 22]
    for (trained, mask), given in zip(rounds, calls, strict=True):
        chex.assert_trees_all_equal(given, optim.rewind(first, mask))
        np.testing.assert_array_equal(np.asarray(trained["first"]["kernel"]) != 0, mask["first"]["kernel"])
    chex.assert_trees_all_equal(rounds[1][1], optim.prune(rounds[0][0], 0.2))
    chex.assert_trees_all_equal(rounds[2][1], optim.prune(rounds[1][0], 0.2, rounds[1][1]))


def test_a_mask_of_another_network_is_refused():
    parameters, ones = network_tree(), jax.tree.map(lambda a: np.ones(a.shape, bool), network_tree())
    other = {**ones, "first": {"kernel": np.ones((7, 1), bool)}}
    for use in (lambda mask: optim.prune(parameters, 0.5, mask), lambda mask: optim.rewind(parameters, mask)):
        with pytest.raises(ValueError, match=r"\['first'\]\['kernel'\]: \(7, 1\), needs \(7, 5\)"):
            use(other)
        with pytest.raises(ValueError, match=r"\['first'\]\['kernel'\]: None, needs \(7, 5\)"):
            use({"second": ones["second"]})


def test_invalid_rounds_are_refused_before_any_training():
    def train(parameters, mask):
        raise AssertionError("trained")

    with pytest.raises(ValueError, match="fraction must be from 0 to 1, got 7"):
        optim.iterative_pruning(train, network_tree(), 7, 2)
    with pytest.raises(ValueError, match="scope 'network' is unknown"):
        optim.iterative_pruning(train, network_tree(), 0.5, 2, scope="network")
    with pytest.raises(ValueError, match="rounds must be at least 0"):
        optim.iterative_pruning(train, network_tree(), 0.5, -1)


def test_invalid_arguments_of_prune_are_refused():
    with pytest.raises(ValueError, match="fraction must be from 0 to 1, got 1.5"):
        optim.prune(network_tree(), 1.5)
    with pytest.raises(ValueError, match="scope 'network' is unknown; needs one of layer, global"):
        optim.prune(network_tree(), 0.5, scope="network")
    with pytest.raises(
        ValueError, match=r"mask must have the structure and shapes of the parameters \(the array: \(2, 3\), needs \(3, 2\)\)"
    ):
        optim.keep_pruned(np.ones((2, 3), bool)).init(np.ones((3, 2)))


# --- layers of Flax, masks, and transposed layers --------------------------------------------------------------------


def masked(layer, mask):
    layer.mask = nnx.data(jax.device_put(mask))
    return layer


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("from_rung", ["locally_connected", "dense"])
def test_the_weights_that_a_mask_keeps_are_tied_and_others_are_unchanged(transposed, from_rung):
    window, space = cl.Window((3, 2), (2, 1)), (5, 4)
    values = np.where(gaussian((3, 2, 2, 3), seed=3)[0] > 0, 1.0, 0.0) * np.array([0.5, 1, 2])[:, None, None, None]
    kind = {("locally_connected", False): cl.LocallyConnected, ("locally_connected", True): cl.LocallyConnectedTranspose}
    kind |= {("dense", False): cl.Dense, ("dense", True): cl.DenseTranspose}
    features = (3, 2) if transposed else (2, 3)
    options = {"space": space, "use_bias": False, "param_dtype": jnp.float64}
    layer = nnx.eval_shape(lambda: kind[from_rung, transposed](*features, window, **options, rngs=nnx.Rngs(0)))
    lift = {"locally_connected": cl.lift_conv_to_local, "dense": cl.lift_conv_to_dense}[from_rung]
    mask = np.asarray(lift(values, window, space))
    tree = start(masked(layer, mask))
    [w] = gaussian(mask.shape, seed=4)
    tied = np.asarray(jax.jit(optim.sharing_projection(layer))({"kernel": w})["kernel"])
    dense = [v if from_rung == "dense" else cl.lift_local_to_dense(v, window, space) for v in (mask * w, mask * tied)]
    close(dense[1], cl.lift_conv_to_dense(cl.project_dense_to_conv(dense[0], window, space), window, space))
    np.testing.assert_array_equal(tied[mask == 0], w[mask == 0])
    assert tree.keys() == {"kernel"}


@pytest.mark.usefixtures("float64")
def test_a_symmetric_projection_of_a_transposed_convolution_is_that_of_its_transpose():
    options = {"space": (5, 4), "use_bias": False, "param_dtype": jnp.float64}
    [v] = gaussian((3, 2, 3, 2))  # (a, b, in, out), reversed
    layer = nnx.eval_shape(lambda: cl.ConvTranspose(3, 2, cl.Window((3, 2), (2, 1)), **options, rngs=nnx.Rngs(0)))
    forward = nnx.eval_shape(lambda: cl.Conv(2, 3, cl.Window((3, 2), (2, 1)), **options, rngs=nnx.Rngs(0)))
    got = optim.sharing_projection(layer, "symmetric")({"kernel": v})["kernel"]
    expected = optim.sharing_projection(forward, "symmetric")({"kernel": v[::-1, ::-1].swapaxes(2, 3)})["kernel"]
    close(got, expected[::-1, ::-1].swapaxes(2, 3))
    assert np.abs(np.asarray(got) - v).max() > 0.1


class Several(nnx.Module):
    """Layers that can be projected, and others."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 3, (3, 2), feature_group_count=1, kernel_dilation=(1, 2), rngs=rngs)
        self.up = nnx.ConvTranspose(3, 2, (3, 2), strides=(2, 1), rngs=rngs)
        self.sparse = nnx.Conv(2, 2, (3, 2), input_dilation=(2, 1), rngs=rngs)
        self.low_rank = cl.LowRank(2, 2, (3, 2), rank=2, space=(5, 4), rngs=rngs)
        self.local = cl.LocallyConnected(2, 2, (3, 2), space=(5, 4), rngs=rngs)


def test_layers_without_an_exact_projection_or_penalty_are_named():
    model = nnx.eval_shape(Several)
    sparse = r"sparse, which has input_dilation \(2, 1\)"
    low_rank = "low_rank, which is low_rank, whose projection to 'conv' is not linear"
    with pytest.warns(UserWarning, match=f"^sharing_projection leaves alone {sparse}, {low_rank}$"):
        optim.sharing_projection(model)
    with pytest.warns(UserWarning, match="conv, which has unknown pixels without image_shape="):
        optim.sharing_projection(model, "symmetric")
    with pytest.warns(UserWarning, match=f"^locality_penalty leaves alone {sparse}$"):
        optim.locality_penalty(model)
    uneven = np.ones((5, 4, 3, 2, 2, 2))
    uneven[2, 1, 1, 0] = 0
    with pytest.raises(
        ValueError, match=r"\['locally_connected'\]; left alone: the model, which has a mask that removes weights"
    ):
        optim.sharing_projection(masked(nnx.eval_shape(Several).local, uneven))
    with pytest.raises(
        ValueError, match=r"no spatial layers that a rung describes; left alone: the model, which has input_dil"
    ):
        optim.locality_penalty(model.sparse)


def test_the_shape_of_an_image_lets_stock_layers_be_projected():
    conv = filled(lambda: nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)))
    kernel = gaussian((3, 3, 2, 3))[0]
    projected = optim.sharing_projection(conv, "symmetric", image_shape=(6, 5, 2))({"kernel": kernel})["kernel"]
    close(projected, cl.optim.sharing_projection(conv, "symmetric", (6, 5, 2))({"kernel": kernel[::-1]})["kernel"], 1e-6)
    close(projected, projected[:, ::-1], 1e-6)
    with pytest.raises(ValueError, match="unknown pixels without image_shape="):
        optim.sharing_projection(conv, "symmetric")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["conv", "up"])
def test_the_penalty_of_layers_of_flax_counts_the_weights_that_a_mask_keeps(name):
    layer, [v] = getattr(nnx.eval_shape(Several), name), gaussian((3, 2, 2, 3) if name == "conv" else (3, 2, 3, 2))
    mask = np.where(gaussian(v.shape, seed=3)[0] > 0, 2.0, 0.0)
    steps = (1, 2) if name == "conv" else (1, 1)
    expected = sum(
        np.hypot(steps[0] * (a - 1), steps[1] * (b - 0.5)) * np.sum((mask * v)[a, b] ** 2) for a, b in np.ndindex(3, 2)
    )
    close(optim.locality_penalty(masked(layer, mask))({"kernel": v, "bias": np.ones(3)}), expected)
