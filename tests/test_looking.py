"""What a network looks at: rules for ReLUs against loops, maps against equations, and what cannot be told is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import images
from strategies import gaussian

import convlab as cl
from convlab.data import Data, Split
from convlab.measure import feature_maps, grad_cam, occlusion, saliency, watch_activations
from convlab.train import Config, fit

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
RULES = ["gradient", "guided", "deconvnet"]
WEIGHTS = gaussian((10, 7), (7, 5), (5, 3))


def mlp(relu):
    """Images of 5 pixels and 2 channels through two hidden layers."""

    def scores(x):
        a, b, c = map(jnp.asarray, WEIGHTS)
        return relu(relu(x.reshape(len(x), -1) @ a) @ b) @ c

    return scores


def by_hand(x, targets, rule):
    """What comes back to the pixels of the network above, in NumPy."""
    a, b, c = WEIGHTS
    first = x.reshape(len(x), -1) @ a
    second = np.maximum(first, 0) @ b
    back = c.T[targets]
    for given, weight in ((second, b), (first, a)):
        if rule != "deconvnet":
            back = back * (given > 0)
        if rule != "gradient":
            back = back * (back > 0)
        back = back @ weight.T
    return back.reshape(x.shape)


SPELLINGS = {
    "nnx.relu": nnx.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "within a call": jax.jit(lambda h: jax.checkpoint(jax.nn.relu)(h)),
    "relu6": lambda x: 9 * jax.nn.relu6(x / 9),  # no number reaches 54
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_pass_back_what_the_equations_say_however_the_relu_is_spelled(rule, float64):
    (x,), targets = gaussian((6, 5, 2), seed=1), np.array([0, 2, 1, 1, 0, 2])
    for spelled in SPELLINGS.values():
        close(saliency(mlp(spelled), jnp.asarray(x), targets, rule), by_hand(x, targets, rule))


def test_the_gradient_of_a_network_is_its_gradient_and_the_rules_differ_from_it():
    first, second = cl.Conv(2, 4, (3, 2), rngs=nnx.Rngs(0)), cl.Conv(4, 4, (3, 3), rngs=nnx.Rngs(1))
    norm, pool = nnx.BatchNorm(4, rngs=nnx.Rngs(0)), cl.Window(2, 2, "VALID")
    nested = nnx.Sequential(second, norm, nnx.relu)
    model = nnx.Sequential(first, nnx.relu, lambda h: h + nested(h), lambda h: cl.max_pool(h, pool).mean((1, 2)))
    x = images(3, 7, 5, 2)
    got = {rule: saliency(model, x, 1, rule) for rule in RULES}
    norm.eval()
    np.testing.assert_allclose(got["gradient"], jax.jit(jax.grad(lambda x: model(x)[:, 1].sum()))(x), rtol=1e-5, atol=1e-6)
    assert len({float(jnp.abs(array).sum()) for array in got.values()}) == 3


def looped(x):
    return jax.lax.scan(lambda h, _: (nnx.relu(h), None), x, None, length=2)[0]


@jax.custom_vjp
def own(x):
    return nnx.relu(x) + 1


own.defvjp(lambda x: (own(x), x), lambda x, g: (g,))


@pytest.mark.parametrize(
    "activation, why",
    [
        (nnx.tanh, "there is none"),
        (nnx.softplus, "there is none"),
        (nnx.leaky_relu, "there is none"),
        (looped, "one stands inside a scan"),
        (own, "one stands inside a custom_vjp_call"),
    ],
)
def test_a_rule_without_a_relu_to_change_is_refused_but_the_gradient_is_given(activation, why):
    x = images(2, 5, 2)
    with pytest.raises(ValueError, match=f"rule 'guided' changes what ReLUs pass back, but {why}"):
        saliency(mlp(activation), x, 1, "guided")
    plain = jax.grad(lambda x: mlp(activation)(x)[:, 1].sum())(x)
    np.testing.assert_allclose(saliency(mlp(activation), x, 1), plain, rtol=1e-5, atol=1e-5)


def test_the_maximum_that_a_norm_takes_of_a_variance_is_no_relu():
    norm = nnx.LayerNorm(10, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="there is none"):
        saliency(lambda x: norm(x.reshape(len(x), -1)), images(2, 5, 2), 1, "guided")


def test_what_is_asked_for_must_be_there():
    x, net = images(2, 5, 2), mlp(nnx.relu)
    with pytest.raises(ValueError, match="rule 'smooth' is unknown; needs one of gradient, guided, deconvnet"):
        saliency(net, x, 1, "smooth")
    for target in (3, -1, 0.5, [0, 1, 2]):
        with pytest.raises(ValueError, match="needs a class from 0 to 2, or one for each image"):
            saliency(net, x, target)
    with pytest.raises(ValueError, match=r"the model returns shape \(2, 5, 2\); needs one score per class"):
        saliency(nnx.relu, x, 1)
    layer = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="layer 'layers/1' is not called; needs one of layers/0"):
        feature_maps(layer, x, "layers/1")
    with pytest.raises(ValueError, match="returns shape \\(2, 3\\), which has no positions to show"):
        grad_cam(nnx.Sequential(lambda x: x.mean(1), *layer.layers), x, "layers/1", 0)


def test_occlusion_is_the_score_that_is_lost_with_each_window(float64):
    (x,), window, targets = gaussian((3, 5, 7, 2)), cl.Window((2, 3), (1, 2)), [2, 0, 1]
    (weight,) = gaussian((70, 3), seed=1)

    def net(x):
        return jnp.tanh(x.reshape(len(x), -1) @ jnp.asarray(weight) / 8)

    got = occlusion(net, jnp.asarray(x), targets, window, value=0.5)
    reads = window.reads((5, 7))
    assert got.shape == (3, *reads.shape[:2])
    for n, i, j in np.ndindex(got.shape):
        hidden = x[n].copy()
        hidden.reshape(35, 2)[reads[i, j][reads[i, j] >= 0]] = 0.5
        close(got[n, i, j], (net(x[n : n + 1]) - net(hidden[None]))[0, targets[n]])


def parts(**options):
    rngs = nnx.Rngs(0)
    first = cl.Conv(2, 3, (3, 3), param_dtype=jnp.float64, rngs=rngs)
    second = cl.Conv(3, 4, (2, 3), 2, param_dtype=jnp.float64, rngs=rngs)
    head = nnx.Linear(4, 3, param_dtype=jnp.float64, rngs=rngs)
    return first, second, lambda h: head(nnx.tanh(second(nnx.relu(h))).mean((1, 2)))


def test_grad_cam_weighs_channels_by_their_mean_gradient(float64):
    first, second, rest = parts()
    x, targets = jnp.asarray(gaussian((2, 5, 7, 2))[0]), jnp.array([1, 2])
    got = grad_cam(nnx.Sequential(first, rest), x, "layers/0", targets)
    h = first(x)
    weight = jax.grad(lambda h: rest(h)[jnp.arange(2), targets].sum())(h).mean((1, 2))
    close(got, np.maximum(0, np.einsum("nijd,nd->nij", h, weight)))
    assert (got > 0).any()


def test_feature_maps_are_what_layers_return_in_evaluation_each_call_by_its_name(float64):
    layer = cl.Conv(2, 2, (3, 2), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = jnp.asarray(gaussian((2, 5, 7, 2))[0])
    maps = feature_maps(nnx.Sequential(layer, nnx.relu, nnx.Dropout(0.5, rngs=nnx.Rngs(1)), layer), x)
    assert list(maps) == ["layers/0", "layers/0 (2)"]
    close(maps["layers/0"], layer(x))
    close(maps["layers/0 (2)"], layer(nnx.relu(layer(x))))


def test_activations_are_watched_while_training():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(40, 7, 5, 2)).astype(np.float32), random.integers(0, 3, 40)
    model = cl.models.Net((7, 5, 2), 3, width=4, depth=1, batch_norm=True, dropout=0.5, activation=nnx.relu, rngs=nnx.Rngs(0))
    watch = watch_activations(model, x[:9], "stages/0/layer", "stages/0/norm")
    config = Config(steps=4, batch_size=16, evaluations=2, progress=False)
    fitted = fit(model, Data("made", Split(x, labels), Split(x, labels), tuple("abc")), config, watch=watch)
    for row in fitted.history:
        assert abs(row["stages/0/norm/mean"]) < 0.1  # of these images, whatever statistics run along
        assert 0 <= row["stages/0/layer/dead"] <= 1
    told = watch(fitted.parameters)
    layer = cl.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0))
    nnx.update(layer, fitted.parameters["stages"][0]["layer"])
    h = layer(x[:9])
    np.testing.assert_allclose(told["stages/0/layer/mean"], h.mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(told["stages/0/layer/deviation"], h.std(), rtol=1e-4)
    assert told["stages/0/layer/dead"] == (h.max((0, 1, 2)) <= 0).mean()


CROSSES = {"+": np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), "x": np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])}


@pytest.mark.parametrize("name", CROSSES)
def test_two_cross_kernels_and_max_pooling_highlight_a_large_cross_at_its_centre_alone(name):
    kernel = jnp.asarray(CROSSES[name], jnp.float32)[..., None, None]
    for parity in (0, 1):
        centre, arm = np.array([12 + parity, 14 + parity]), 5
        x = np.zeros((26, 30, 1), np.float32)
        for step in range(-arm, arm + 1):
            for away in [(step, 0), (0, step)] if name == "+" else [(step, step), (step, -step)]:
                x[tuple(centre + away)] = 1
        h = cl.max_pool(cl.conv(jnp.asarray(x), kernel, cl.Window((3, 3))), cl.Window((2, 2), 2, "VALID"))
        response = np.asarray(cl.conv(h, kernel, cl.Window((3, 3))))[..., 0]
        assert np.argwhere(response == response.max()).tolist() == [(centre // 2).tolist()]
