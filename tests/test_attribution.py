"""Attribution: rules for ReLUs against NumPy, maps against their equations, and errors."""

import tracemalloc

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from flax import nnx
from networks import filled, images
from strategies import gaussian

from convlab.measure import feature_maps, grad_cam, occlusion, saliency
from convlab.report import feature_map_grid, heatmap, new_figure

RULES = ["gradient", "guided", "deconvnet"]
WEIGHTS = gaussian((10, 7), (7, 5), (5, 3))


def mlp(relu):
    """A network of two hidden layers on images of 5 pixels and 2 channels."""

    def scores(x):
        a, b, c = map(jnp.array, WEIGHTS)
        return relu(relu(x.reshape(len(x), -1) @ a) @ b) @ c

    return scores


def by_hand(x, targets, rule):
    """The gradients of that network by its pixels under a rule, in NumPy."""
    a, b, c = WEIGHTS
    first = x.reshape(len(x), -1) @ a
    second = np.maximum(first, 0) @ b
    back = c.T[targets]
    for entering, weight in ((second, b), (first, a)):
        if rule != "deconvnet":
            back = back * (entering > 0)
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
def test_rules_give_the_gradients_of_their_equations_for_every_form_of_relu(rule, float64):
    (x,), targets = gaussian((6, 5, 2), seed=1), np.array([0, 2, 1, 1, 0, 2])
    for spelled in SPELLINGS.values():
        close(saliency(mlp(spelled), x, targets, rule), by_hand(x, targets, rule))


def test_the_gradient_rule_gives_the_gradient_and_the_others_do_not():
    pool = cl.Window(2, 2, "VALID")

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.first, self.norm = cl.Conv(2, 4, (3, 2), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.nested = nnx.Sequential(cl.Conv(4, 4, (3, 3), rngs=rngs), nnx.relu)

        def __call__(self, x):
            h = nnx.relu(self.norm(self.first(x)))
            return cl.max_pool(h + self.nested(h), pool).mean((1, 2))

    model = filled(Net)
    x = images(3, 7, 5, 2)
    got = {rule: saliency(model, x, 1, rule) for rule in RULES}
    model.eval()
    np.testing.assert_allclose(got["gradient"], jax.jit(jax.grad(lambda x: model(x)[:, 1].sum()))(x), rtol=1e-5, atol=1e-6)
    assert len({float(np.abs(array).sum()) for array in got.values()}) == 3


def looped(x):
    return jax.lax.scan(lambda h, _: (nnx.relu(h), None), x, None, length=2)[0]


@jax.custom_vjp
def custom(x):
    return nnx.relu(x) + 1


custom.defvjp(lambda x: (custom(x), x), lambda x, g: (g,))


@pytest.mark.parametrize(
    "activation, why",
    [
        (nnx.tanh, "the network has none"),
        (nnx.softplus, "the network has none"),
        (nnx.leaky_relu, "the network has none"),
        (looped, "one is inside a scan"),
        (custom, "one is inside a custom_vjp_call"),
    ],
)
def test_a_rule_needs_a_relu_but_the_gradient_does_not(activation, why):
    x = images(2, 5, 2)
    with pytest.raises(ValueError, match=f"rule 'guided' changes the derivative of ReLUs, but {why}"):
        saliency(mlp(activation), x, 1, "guided")
    plain = jax.jit(jax.grad(lambda x: mlp(activation)(x)[:, 1].sum()))(x)
    np.testing.assert_allclose(saliency(mlp(activation), x, 1), plain, rtol=1e-5, atol=1e-5)


def test_the_maximum_in_a_norm_is_no_relu():
    norm = filled(lambda: nnx.LayerNorm(10, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="the network has none"):
        saliency(lambda x: norm(x.reshape(len(x), -1)), images(2, 5, 2), 1, "guided")


def test_unknown_rules_classes_and_layers_are_errors():
    x, net = images(2, 5, 2), mlp(nnx.relu)
    with pytest.raises(ValueError, match="rule 'smooth' is unknown; needs one of gradient, guided, deconvnet"):
        saliency(net, x, 1, "smooth")
    for target in (3, -1, 0.5, [0, 1, 2]):
        with pytest.raises(ValueError, match="needs a class from 0 to 2, or one for each image"):
            saliency(net, x, target)
    with pytest.raises(ValueError, match=r"the model returns shape \(2, 5, 2\); needs one score per class"):
        saliency(nnx.relu, x, 1)
    with pytest.raises((TypeError, ValueError), match="has dtype complex64 but needs a real one"):
        occlusion(lambda x: 1j * x.mean(1), x, 1, cl.Window(1))
    layer = filled(lambda: nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    with pytest.raises(ValueError, match="layer 'layers/1' is not called; needs one of layers/0"):
        feature_maps(layer, x, "layers/1")
    with pytest.raises(ValueError, match="returns shape \\(2, 3\\), which has no positions to map"):
        grad_cam(nnx.Sequential(lambda x: x.mean(1), *layer.layers), x, "layers/1", 0)


@pytest.mark.parametrize("padding", ["SAME", ("CIRCULAR", "SAME"), ((1, 0), "REFLECT")])
def test_occlusion_is_the_fall_of_the_score_for_each_window(padding, float64):
    (x,), window, targets = gaussian((3, 5, 7, 2)), cl.Window((2, 3), (1, 2), padding), [2, 0, 1]
    (weight,) = gaussian((70, 3), seed=1)

    def net(x):
        return jnp.tanh(x.reshape(len(x), -1) @ weight / 8)

    got = occlusion(net, x, targets, window, fill_value=0.5)
    reads = window.reads((5, 7))
    assert got.shape == (3, *reads.shape[:2])
    hidden = np.broadcast_to(x[:, None, None], (*got.shape, 5, 7, 2)).copy()
    for n, i, j in np.ndindex(got.shape):
        hidden[n, i, j].reshape(35, 2)[reads[i, j][reads[i, j] >= 0]] = 0.5
    left = np.asarray(jax.jit(net)(hidden.reshape(-1, 5, 7, 2))).reshape(*got.shape, 3)
    for n, target in enumerate(targets):
        close(got[n], np.asarray(jax.jit(net)(x))[n, target] - left[n, ..., target])


def test_grad_cam_weighs_channels_by_their_mean_gradient(float64):
    def build():
        double = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        layers = cl.Conv(2, 3, (3, 3), **double), nnx.relu, cl.Conv(3, 4, (2, 3), 2, **double), nnx.tanh
        return nnx.Sequential(*layers, lambda h: h.mean((1, 2)), nnx.Linear(4, 3, **double))

    (x,), targets, model = gaussian((2, 5, 7, 2)), np.array([1, 2]), filled(build)
    got = grad_cam(model, x, "layers/0", targets)
    first, *others = model.layers

    def score(h):
        for layer in others:
            h = layer(h)
        return h[np.arange(2), targets].sum()

    @jax.jit
    def maps_and_gradients(x):
        h = first(x)
        return h, jax.grad(score)(h)

    h, gradient = map(np.asarray, maps_and_gradients(x))
    close(got, np.maximum(0, np.einsum("nijd,nd->nij", h, gradient.mean((1, 2)))))
    assert (np.asarray(got) > 0).any()


CROSSES = {"+": np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), "x": np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])}


@pytest.mark.parametrize("name", CROSSES)
def test_two_cross_kernels_and_max_pooling_highlight_a_large_cross_only_at_its_centre(name):
    kernel = CROSSES[name][..., None, None].astype(np.float32)
    for parity in (0, 1):
        centre, arm = np.array([12 + parity, 14 + parity]), 5
        x = np.zeros((26, 30, 1), np.float32)
        for step in range(-arm, arm + 1):
            for away in [(step, 0), (0, step)] if name == "+" else [(step, step), (step, -step)]:
                x[tuple(centre + away)] = 1
        h = cl.max_pool(cl.conv(x, kernel, cl.Window((3, 3))), cl.Window((2, 2), 2, "VALID"))
        response = np.asarray(cl.conv(h, kernel, cl.Window((3, 3))))[..., 0]
        assert np.argwhere(response == response.max()).tolist() == [(centre // 2).tolist()]


def test_a_heat_map_covers_the_whole_image_and_has_a_label():
    figure, [axis] = new_figure()
    values = np.array([[0.0, 2, 0], [-1, 0, 0]])
    heatmap(axis, np.full((6, 9, 3), 0.5), values, "a bird", label="fall of the score")
    below, above = axis.images
    assert below.get_extent() == above.get_extent() == [-0.5, 8.5, 5.5, -0.5]
    drawn = above.to_rgba(values)
    assert drawn[0, 1, 3] == pytest.approx(0.85, abs=0.01)
    assert drawn[0, 0, 3] == pytest.approx(0, abs=0.01)
    assert drawn[1, 0, 0] > drawn[1, 0, 2]  # orange
    assert drawn[0, 1, 2] > drawn[0, 1, 0]  # blue
    assert figure.axes[1].get_ylabel() == "fall of the score"
    with pytest.raises(ValueError, match=r"image has shape \(6,\) and values \(2, 3\)"):
        heatmap(axis, np.ones(6), values, label="")
    with pytest.raises(ValueError, match="NaN or inf"):
        heatmap(axis, np.ones((6, 9)), values * np.nan, label="")


def test_a_feature_sheet_shows_every_channel():
    figure, [axis] = new_figure()
    maps = gaussian((4, 3, 5))[0]
    feature_map_grid(axis, maps, columns=2)
    sheet = axis.images[0].get_array()
    np.testing.assert_allclose(sheet[1:5, 1:4], maps[..., 0] / np.abs(maps[..., 0]).max())
    np.testing.assert_allclose(sheet[6:10, 1:4], maps[..., 2] / np.abs(maps[..., 2]).max())


def as_it_is():
    """A layer that returns its images."""
    layer = filled(lambda: cl.Conv(1, 1, (1, 1), use_bias=False, rngs=nnx.Rngs(0)))
    layer.kernel[...] = jnp.ones((1, 1, 1, 1))
    return layer


def test_the_gradient_of_relu_at_zero_is_zero():
    net = nnx.Sequential(as_it_is(), nnx.relu, lambda h: h.sum((1, 2)))
    x = np.zeros((1, 3, 2, 1), np.float32)
    x[0, 1, 1, 0] = 2
    np.testing.assert_allclose(grad_cam(net, x, "layers/0", 0)[0], 2 / 6 * (x[0, ..., 0] > 0), atol=1e-6)


@pytest.mark.parametrize("look", ["saliency", "grad_cam"])
def test_the_gradient_rule_keeps_custom_derivatives(look):
    straight = jax.custom_jvp(lambda x: jnp.maximum(x, 0))
    straight.defjvp(lambda x, t: (jnp.maximum(x[0], 0), 3 * t[0]))
    net = nnx.Sequential(as_it_is(), straight, lambda h: h.sum((1, 2)))
    x = np.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    if look == "saliency":
        np.testing.assert_allclose(np.ravel(saliency(net, x, 0)), [3, 3])
    else:
        np.testing.assert_allclose(np.ravel(grad_cam(net, x, "layers/0", 0)), [3, 0])


def test_occlusion_does_not_hold_all_occluded_images_in_memory():
    x, weight = jnp.array(np.ones((2, 64, 64, 1))), jnp.array(np.ones((4096, 1)))
    tracemalloc.start()
    fall = occlusion(lambda x: x.reshape(len(x), -1) @ weight, x, 0, cl.Window(16, 8, "VALID"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(fall, np.full((2, 7, 7), 256))
    assert peak < 2e7  # positions x taps x pixels are 5e7
