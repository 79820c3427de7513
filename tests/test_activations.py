"""Outputs of layers: feature maps, metrics during training, and ranks."""

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from flax import nnx
from networks import filled, images
from strategies import gaussian

from convlab.measure import activation_metrics, activation_rank, feature_maps
from convlab.train.training import check_parameter_metrics


def test_feature_maps_are_the_outputs_of_each_layer_call_in_evaluation_mode(float64):
    layer = filled(lambda: cl.Conv(2, 2, (3, 2), param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    (x,), call = gaussian((2, 5, 7, 2)), jax.jit(lambda x: layer(x))
    maps = feature_maps(nnx.Sequential(layer, nnx.relu, nnx.Dropout(0.5, rngs=nnx.Rngs(1)), layer), x)
    assert list(maps) == ["layers/0", "layers/0 (2)"]
    close(maps["layers/0"], call(x))
    close(maps["layers/0 (2)"], call(np.maximum(call(x), 0)))


def test_activation_metrics_use_the_statistics_of_their_images():
    x = images(9, 7, 5, 2)
    options = {"width": 4, "depth": 1, "batch_norm": True, "dropout": 0.5, "activation": nnx.relu}
    model = filled(lambda: cl.models.Net((7, 5, 2), 3, **options, rngs=nnx.Rngs(0)), deviation=1.0)
    metrics = activation_metrics(model, x, "stages/0/layer", "stages/0/norm")
    layer, norm = model.stages[0].layer, model.stages[0].norm
    norm.scale[...], norm.bias[...] = jnp.ones(4), jnp.zeros(4)
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    layer.kernel[...] = jnp.array(2 * np.asarray(layer.kernel[...]))
    layer.bias[...] = jnp.array(np.asarray(layer.bias[...]) - [0, 0, 0, 99], jnp.float32)
    compiled = jax.jit(metrics)
    before, after = compiled(parameters), compiled(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    check_parameter_metrics(metrics, parameters)
    h = np.asarray(jax.jit(lambda x: layer(x))(x))
    np.testing.assert_allclose(after["stages/0/layer/mean"], h.mean(), rtol=1e-4)
    np.testing.assert_allclose(after["stages/0/layer/std"], h.std(), rtol=1e-4)
    assert float(after["stages/0/layer/dead_channels"]) == (h.max((0, 1, 2)) <= 0).mean() == 0.25
    assert float(before["stages/0/layer/mean"]) != float(after["stages/0/layer/mean"])
    assert abs(float(after["stages/0/norm/mean"])) < 1e-5
    np.testing.assert_allclose(after["stages/0/norm/std"], 1, rtol=1e-3)


@pytest.mark.parametrize("d, rank", [(20, 20), (32, 27)])
def test_a_stem_of_27_inputs_has_rank_27_before_the_relu_and_more_after(d, rank, float64):
    x, v = gaussian((4, 11, 13, 3), (3, 3, 3, d))
    h = cl.conv(x, v, cl.Window(3, 2))
    assert activation_rank(h).rank == rank
    assert activation_rank(jax.nn.relu(h)).rank == d


def test_one_tap_on_one_channel_has_rank_1_until_bias_and_relu(float64):
    x, v, bias = gaussian((4, 7, 5, 1), (1, 1, 1, 6), (6,))
    h = cl.conv(x, v, cl.Window(1))
    assert activation_rank(h).rank == 1
    assert activation_rank(np.asarray(h) + bias).rank == 2
    assert activation_rank(jax.nn.relu(h)).rank == 2
    assert activation_rank(np.maximum(0, np.asarray(h) + bias)).rank > 3


def test_the_effective_rank_of_equal_singular_values_is_their_number(float64):
    turn = np.linalg.qr(gaussian((5, 5))[0])[0]
    assert activation_rank(turn * [1, 1, 1, 0, 0]) == (3, pytest.approx(3))
    rank, effective = activation_rank(turn * [1, 0.5, 1e-3, 0, 0])
    assert (rank, 1.5 < effective < 2) == (3, True)
    assert activation_rank(turn * [1, 0.5, 1e-3, 0, 0], tolerance=0.01).rank == 2
    assert activation_rank(np.zeros((3, 2))) == (0, 0)
    assert activation_rank(turn.reshape(5, 1, 5)).rank == 5
    with pytest.raises(ValueError, match="needs axes of examples"):
        activation_rank(np.ones(3))


def test_more_examples_do_not_lower_the_rank_of_activations(float64):
    (h,) = gaussian((30_000, 8))
    h = np.asarray(h * np.array([1, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01]), np.float32)
    assert activation_rank(h).rank == activation_rank(h[:300]).rank == 8
    flat = np.concatenate([h, h[:, :3] @ np.ones((3, 2), np.float32)], 1)
    assert activation_rank(flat).rank == 8


def test_transposed_and_general_linear_layers_have_maps():
    def build():
        rngs = nnx.Rngs(0)
        return nnx.Sequential(
            nnx.ConvTranspose(2, 4, (3, 2), strides=(2, 1), rngs=rngs),
            nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs),
            nnx.Einsum("nklc,cd->nkld", (4, 3), rngs=rngs),
        )

    model, x = filled(build), images(2, 3, 5, 2)
    maps = feature_maps(model, x)
    inside = [f"layers/1/{name}" for name in ("query", "key", "value", "out")]
    assert list(maps) == ["layers/0", *inside, "layers/2"]
    first = model.layers[0](x)
    np.testing.assert_allclose(maps["layers/0"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps["layers/1/query"], model.layers[1].query(first), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps["layers/2"], model(x), rtol=1e-5, atol=1e-6)
