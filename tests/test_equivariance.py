"""Effects of shifts on ops, downsampling, predictions and networks, layer by layer."""

import functools
import itertools
import math
from fractions import Fraction

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from networks import SMALL, TINY, filled, images, scores_of
from strategies import gaussian

from convlab import measure
from convlab.measure import (
    compare_downsampling,
    equivariance_by_layer,
    equivariance_error,
    sample_shifts,
    shift_consistency,
    shift_images,
)
from convlab.ops import pool

aliased_energy, polyphase_pool = compiled(measure.aliased_energy), compiled(pool.polyphase_pool)
CIRCULAR = {"padding": "CIRCULAR"}


def conv(padding, size=(3, 5), strides=1, space=(7, 11)):
    """A convolution of Gaussian images with a Gaussian kernel, and the images."""
    x, v = gaussian((2, *space, 2), (*size, 2, 3))
    return lambda x: cl.conv(x, v, cl.Window(size, strides, padding)), jnp.array(x)


def test_circular_convolutions_commute_with_every_shift(float64):
    f, x = conv("CIRCULAR")
    for delta in ((1, 0), (3, -2), 5):
        close(equivariance_error(f, x, delta).map, np.zeros((7, 11)))


def test_zero_padding_breaks_equivariance_only_in_a_band_along_the_border(float64):
    f, x = conv("SAME")
    result = equivariance_error(f, x, (1, 2))
    band = np.ones((7, 11), bool)
    band[1 + 1 : -1, 2 + 2 : -2] = False  # half a window, and on the side where pixels come in the shift more
    np.testing.assert_array_equal(np.asarray(result.map) > 1e-12, band)
    assert float(result.error) > 0.1


def test_with_one_circular_axis_shifts_along_it_commute_and_others_fail_along_the_border_of_the_other(float64):
    f, x = conv(("SAME", "CIRCULAR"))
    close(equivariance_error(f, x, (0, 4)).map, np.zeros((7, 11)))
    rows = np.array([True, True, False, False, False, False, True])
    np.testing.assert_array_equal(np.asarray(equivariance_error(f, x, (1, 2)).map) > 1e-12, rows[:, None].repeat(11, 1))


def test_stride_commutes_only_with_shifts_by_its_multiples(float64):
    f, x = conv("CIRCULAR", strides=(2, 3), space=(8, 9))
    for delta in itertools.product(range(4), range(6)):
        error = float(equivariance_error(f, x, delta, (2, 3)).error)
        assert (error < 1e-12) == (delta[0] % 2 == 0 and delta[1] % 3 == 0)


def test_a_shift_needs_one_number_per_axis():
    with pytest.raises(ValueError, match=r"delta is \(1, 2, 3\); needs an integer, or one for each of 2 spatial axes"):
        shift_images(np.ones((1, 7, 5, 2)), (1, 2, 3))


def test_max_pooling_breaks_the_sampling_theorem():
    x, window = np.array([0.0, 0, 1, 1, 0, 0, 1, 1]).reshape(1, 8, 1), cl.Window((2,), 2, "VALID")
    pooled = [np.ravel(cl.max_pool(shift_images(x, delta), window)).tolist() for delta in (0, 1)]
    assert pooled == [[0, 1, 0, 1], [1, 1, 1, 1]]


def test_even_kernels_shift_by_half_a_pixel_per_layer_unless_padding_sides_alternate():
    def centre(paddings):
        h = np.eye(31)[None, :, 15:16]
        for padding in paddings:
            h = cl.conv(h, np.full((2, 1, 1), 0.5), cl.Window((2,), padding=padding))
        return np.asarray(h)[0, :, 0] @ np.arange(31)

    for layers in (1, 4, 6):
        assert centre(["SAME"] * layers) == 15 - layers / 2
        assert centre(["SAME_LOWER"] * layers) == 15 + layers / 2
    assert centre(["SAME", "SAME_LOWER"] * 3) == 15


@pytest.mark.parametrize("size", [1, (2, 3)])
def test_polyphase_pooling_of_a_shifted_image_is_a_shift_of_the_pooled_image(size, float64):
    (x,), window = gaussian((2, 8, 9, 3)), cl.Window(size, (2, 3), "CIRCULAR")
    h = np.asarray(polyphase_pool(x, window))
    assert h.shape == (2, 4, 3, 3)
    for delta in sample_shifts((8, 9), 20):
        for still, moved in zip(h, np.asarray(polyphase_pool(shift_images(x, delta), window)), strict=True):
            assert any(np.array_equal(moved, np.roll(still, by, (0, 1))) for by in np.ndindex(4, 3))


def test_polyphase_pooling_keeps_the_component_with_most_energy_for_all_channels_together(float64):
    (x,) = gaussian((3, 6, 4, 2))
    h = np.asarray(polyphase_pool(x, cl.Window(1, 2, "CIRCULAR")))
    for image, got in zip(x, h, strict=True):
        parts = [image[p::2, q::2] for p in range(2) for q in range(2)]
        close(got, max(parts, key=lambda part: (part**2).sum()))
    flat = x.reshape(3, 1, 6, 4, 2)
    close(polyphase_pool(flat, cl.Window((1, 1), 2, "CIRCULAR")), h[:, None])


def test_polyphase_pooling_of_smooth_components_keeps_one_of_the_blurred_samples(float64):
    (x,) = gaussian((1, 6, 4, 2))
    blurred = np.asarray(cl.blur_pool(x, cl.Window((3, 2), 1, "CIRCULAR")))
    h = polyphase_pool(x, cl.Window((3, 2), 2, "CIRCULAR"))
    assert any(np.array_equal(h, blurred[:, p::2, q::2]) for p in range(2) for q in range(2))


def test_polyphase_pooling_with_one_circular_axis_commutes_with_shifts_along_it(float64):
    (x,), window = gaussian((2, 6, 9, 3)), cl.Window((3, 2), (2, 3), ("EDGE", "CIRCULAR"))
    h = np.asarray(polyphase_pool(x, window))
    for delta in range(1, 9):
        for still, moved in zip(h, np.asarray(polyphase_pool(shift_images(x, (0, delta)), window)), strict=True):
            assert any(np.array_equal(moved, np.roll(still, by, 1)) for by in range(3))


def test_polyphase_components_must_be_of_one_size():
    with pytest.raises(ValueError, match=r"has \[7, 6\] positions at stride 1, but strides \[2, 2\] must divide them"):
        polyphase_pool(np.ones((7, 6, 2)), cl.Window((1, 1), 2, "CIRCULAR"))


def test_only_polyphase_downsampling_commutes_and_blur_aliases_least():
    rows = {row["method"]: row for row in compare_downsampling(gaussian((3, 8, 12, 2))[0])}
    assert {name for name, row in rows.items() if row["error"] < 1e-6} == {"polyphase", "blur, polyphase"}
    assert rows["mean"]["aliased_energy"] == pytest.approx(rows["blur"]["aliased_energy"])  # of two taps they are one
    assert rows["blur"]["aliased_energy"] < rows["strided"]["aliased_energy"]
    assert rows["strided"]["aliased_energy"] == pytest.approx(rows["polyphase"]["aliased_energy"])
    assert rows["polyphase"]["mean_change"] < 1e-5 < rows["strided"]["mean_change"]


def test_aliased_energy_is_the_energy_above_the_frequency_limit_of_the_samples(float64):
    k, l = np.arange(12)[:, None], np.arange(8)  # noqa: E741

    def wave(u, v):
        return np.cos(2 * np.pi * (u * k / 12 + v * l / 8))[None, ..., None]

    assert float(aliased_energy(wave(3, 2), 2)) < 1e-12  # at the limit of both axes
    for above, stride in ((wave(4, 0), 2), (wave(0, 3), 2), (wave(3, 2), (3, 1))):
        close(aliased_energy(above, stride), 1.0)
    close(aliased_energy(wave(1, 1) + 2 * wave(5, 1), 2), 0.8)
    close(aliased_energy(gaussian((2, 12, 8, 3))[0], 1), 0.0)
    wave_1d = np.cos(20 / 36 * np.pi * np.arange(36)).reshape(1, 36, 1)
    close([aliased_energy(wave_1d, 1), aliased_energy(wave_1d, 2)], [0.0, 1.0])


class Circular(nnx.Module):
    """Circular layers, each followed by ReLU and pooling, then the mean over positions."""

    def __init__(self, pool):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([cl.Conv(2, 4, (3, 3), **CIRCULAR, rngs=rngs), cl.Conv(4, 4, (3, 2), **CIRCULAR, rngs=rngs)])
        self.head, self.pool = nnx.Linear(4, 3, rngs=rngs), pool

    def __call__(self, x):
        for layer in self.layers:
            x = self.pool(nnx.relu(layer(x)))
        return self.head(x.mean((1, 2)))


def circular_net(pool):
    model = filled(lambda: Circular(pool))
    return jax.jit(lambda x: model(x))


def test_circular_layers_and_global_pooling_are_shift_invariant(float64):
    model = circular_net(lambda h: h)
    x = np.zeros((5, 7, 10, 2))
    x[:, 2:4, 1:3] = 1  # on the left
    close(model(x), model(shift_images(x, (0, 5))))
    assert shift_consistency(model, gaussian(x.shape)[0], sample_shifts((7, 10), 9)) == 1


def test_untrained_polyphase_nets_are_consistent_and_strided_ones_are_not():
    x, shifts = images(40, 8, 12, 2), sample_shifts((8, 12), 8)
    pools = {"polyphase": polyphase_pool, "max": cl.max_pool}
    nets = {name: circular_net(functools.partial(pool, window=cl.Window(2, 2, "CIRCULAR"))) for name, pool in pools.items()}
    consistent = {name: shift_consistency(net, x, shifts) for name, net in nets.items()}
    assert consistent["polyphase"] == 1
    assert consistent["max"] < 1
    h, g = nets["polyphase"](x), nets["polyphase"](shift_images(x, (3, 5)))
    np.testing.assert_allclose(h, g, rtol=1e-5, atol=1e-6)


def test_consistency_is_the_share_of_unchanged_predictions():
    def first(x):
        return np.asarray(x)[:, 2:-2][:, 0, 0] > 1.5

    def scores(x):
        return np.asarray(x)[:, :2, 0]

    x = np.arange(7.0).reshape(1, 7, 1)
    assert shift_consistency(first, x, [0, 1, 2]) == 1 / 3  # first pixels 2 1 0
    assert shift_consistency(scores, np.array([[[2.0], [1], [0]]]), [0, 1, 2, 3]) == 3 / 4  # scores 21 02 10 21
    with pytest.raises(ValueError, match="shifts is empty"):
        shift_consistency(first, x, [])


def test_sampled_shifts_do_not_repeat():
    assert len(sample_shifts((3, 4))) == 11
    sample = sample_shifts((3, 4), 7)
    assert len(set(sample)) == 7
    assert set(sample) < set(sample_shifts((3, 4)))
    with pytest.raises(ValueError, match="number is 12 but images of"):
        sample_shifts((3, 4), 12)


@pytest.mark.parametrize("name", ["ResNet-zeros"])
def test_the_parts_of_a_network_add_up_to_its_relative_error(name):
    build, shape = (SMALL | TINY)[name]
    model, x = filled(lambda: build(rngs=nnx.Rngs(0))), images(3, *shape)
    rows = equivariance_by_layer(model, x, (1, 2))
    model.eval()
    definition, state = nnx.split(model)
    h, moved = (np.asarray(scores_of(definition, state, batch)[0]) for batch in (x, shift_images(x, (1, 2))))
    total = np.linalg.norm(moved - h) / np.linalg.norm(h)
    assert total > 1e-3
    np.testing.assert_allclose(sum(row["contribution"] for row in rows), total, rtol=1e-4)


def causes(model, delta=1):
    return [(row["layer"], row["cause"]) for row in equivariance_by_layer(model, images(2, 6, 8, 2), delta)]


def sequence(build):
    """A sequence of the layers and functions that `build` makes from keys."""
    return filled(lambda: nnx.Sequential(*build(nnx.Rngs(0))))


def mean(x):
    return x.mean((1, 2))


def test_equivariance_by_layer_names_the_layer_and_the_cause():
    def parts(padding, strides=1, last=mean, norm=lambda x: x):
        return sequence(lambda rngs: [cl.Conv(2, 4, (3, 3), strides, padding=padding, rngs=rngs), norm, nnx.relu, last])

    assert causes(parts("CIRCULAR")) == []
    assert causes(parts("SAME")) == [("layers/0", "padding")]
    assert causes(parts("CIRCULAR", 2)) == [("layers/0", "stride")]
    assert causes(parts("CIRCULAR", last=lambda x: x.reshape(len(x), -1))) == [("reshape", "flatten")]
    pooling = functools.partial(pool.max_pool, window=cl.Window(2, 2, "VALID"))
    assert causes(parts("CIRCULAR", norm=pooling)) == [("max_pool", "pooling")]
    even = sequence(lambda rngs: [cl.Conv(2, 4, (2, 2), padding="SAME_LOWER", rngs=rngs), mean])
    assert causes(even) == [("layers/0", "padding")]
    local = sequence(lambda rngs: [cl.LocallyConnected(2, 4, (3, 3), padding="CIRCULAR", space=(6, 8), rngs=rngs), mean])
    assert causes(local) == [("layers/0", "sharing")]


def test_equivariance_by_layer_names_the_axes_of_the_shifts_that_fail_alone():
    def of(layer, delta=1, **options):
        model = sequence(lambda rngs: [layer(2, 4, (3, 3), **options, rngs=rngs), nnx.relu, mean])
        return [(row["cause"], row["axes"]) for row in equivariance_by_layer(model, images(2, 6, 8, 2), delta)]

    globe, cylinder = {"padding": ("SAME", "CIRCULAR")}, {"padding": ("CIRCULAR", (1, 0))}
    assert of(cl.Conv, (0, 3), **globe) == []
    assert of(cl.Conv, (2, 3), **globe) == [("padding", (0,))]
    assert of(cl.Conv, **cylinder) == [("padding", (1,))]
    assert of(cl.Conv, **globe, strides=(1, 2)) == [("padding", (0,)), ("stride", (1,))]
    assert of(cl.Conv, (0, 1), padding="SAME") == [("padding", (1,))]
    assert of(cl.Tiled, padding="CIRCULAR", period=(2, 1)) == [("sharing", (0,))]
    assert of(cl.LocallyConnected, **globe, space=(6, 8)) == [("padding", (0,)), ("sharing", (0, 1))]


def test_complex_layers_are_measured_like_others(float64):
    x, *parts = gaussian((2, 5, 7, 2), *[(3, 3, 2, 3)] * 2)
    layer = nnx.eval_shape(
        lambda: cl.Conv(
            2, 3, (3, 3), padding=("CIRCULAR", "SAME"), use_bias=False, param_dtype=jnp.complex128, rngs=nnx.Rngs(0)
        )
    )
    layer.kernel = nnx.Param(jnp.asarray(parts[0] + 1j * parts[1]))

    @jax.jit
    def model(x):
        return layer(x)

    [row] = equivariance_by_layer(layer, jnp.asarray(x), (1, 2))
    h, moved = (np.asarray(model(image)) for image in (x, np.roll(x, (1, 2), (1, 2))))
    difference = moved - np.roll(h, (1, 2), (1, 2))
    total = np.sqrt(np.sum(np.abs(difference) ** 2) / np.sum(np.abs(h) ** 2))
    assert row["axes"] == (1,)
    close([row["error"], row["contribution"]], [total, total])
    result = equivariance_error(model, x, (1, 2))
    close([result.error, result.map], [total, np.sqrt(np.mean(np.abs(difference) ** 2, (0, -1)))])
    with pytest.raises(TypeError, match="has dtype complex128 but needs a real one"):
        shift_consistency(lambda x: model(x)[:, 0, 0], x, [1])


def double(strides, size=(3, 3)):
    """A layer in double precision, and as a compiled function."""
    layer = filled(lambda: cl.Conv(2, 3, size, strides, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    return layer, jax.jit(lambda x: layer(x))


def test_the_error_of_a_single_layer_is_its_equivariance_error(float64):
    (x,), (layer, function) = gaussian((2, 7, 11, 2)), double(1, (3, 5))
    [row] = equivariance_by_layer(layer, x, (1, 2))
    expected = float(equivariance_error(function, x, (1, 2)).error)
    assert (row["layer"], row["kind"], row["cause"]) == ("Conv", "Conv", "padding")
    close([row["contribution"], row["error"]], [expected, expected])


def test_padding_and_stride_of_one_layer_are_separate_causes(float64):
    (x,), (layer, function) = gaussian((2, 8, 12, 2)), double(2)
    assert [row["cause"] for row in equivariance_by_layer(layer, x, 2)] == ["padding"]
    rows = equivariance_by_layer(layer, x, (1, 0))
    assert [row["cause"] for row in rows] == ["padding", "stride"]
    total = sum(row["contribution"] for row in rows)
    close(total, float(equivariance_error(function, x, (1, 0), 2).error))
    close([row["contribution"] for row in rows], [row["error"] ** 2 / total for row in rows])


def test_a_floating_score_is_no_label():
    def score(x):
        return np.asarray(x).mean((1, 2, 3))

    (x,) = gaussian((3, 5, 7, 1))
    with pytest.raises(ValueError, match=r"numbers of shape \(3,\); needs labels"):
        shift_consistency(score, x, [1])
    assert shift_consistency(lambda x: score(x) > 0, x, [1]) == 1


def test_outputs_without_a_relative_change_are_errors():
    (x,) = gaussian((3, 8, 12, 2))
    x[1] = 0
    with pytest.raises(ValueError, match="'max', 'mean', .* returns zeros"):
        compare_downsampling(x)
    with pytest.raises(ValueError, match=r"returns shape \(3,\); needs images"):
        equivariance_error(lambda x: np.asarray(x).mean((1, 2, 3)), x, 1)


def test_a_norm_over_all_positions_is_equivariant():
    def around(norm, last=mean):
        def layers(rngs):
            first, second = (cl.Conv(c, 4, (3, 3), padding="CIRCULAR", rngs=rngs) for c in (2, 4))
            return first, norm(rngs), nnx.relu, second, last

        return sequence(layers)

    gate = filled(lambda: nnx.Linear(4, 4, rngs=nnx.Rngs(0)))

    def gated(x):
        return x * nnx.sigmoid(gate(x.mean((1, 2), keepdims=True)))

    def by_column(rngs):
        return nnx.LayerNorm(8, reduction_axes=(1, 2, 3), feature_axes=(2,), rngs=rngs)

    assert causes(lambda x: x - x.mean((1, 2), keepdims=True)) == []
    assert causes(around(lambda rngs: nnx.GroupNorm(4, 2, rngs=rngs))) == []
    assert causes(around(lambda rngs: nnx.InstanceNorm(4, rngs=rngs), lambda x: x)) == []
    assert causes(around(lambda rngs: gated)) == []
    assert causes(lambda x: nnx.softmax(x, (1, 2))) == []
    assert causes(around(by_column)) == [("layers/1", "norm")]


def test_layers_after_a_norm_are_still_measured():
    def layers(rngs):
        first, last = (cl.Conv(c, 4, (3, 3), strides, rngs=rngs) for c, strides in ((2, 1), (4, 2)))
        return first, nnx.GroupNorm(4, 2, rngs=rngs), nnx.relu, last, mean

    assert causes(sequence(layers)) == [("layers/0", "padding"), ("layers/3", "padding"), ("layers/3", "stride")]


def test_polyphase_pooling_is_equivariant_and_layers_after_it_are_still_measured():
    pooling = functools.partial(pool.polyphase_pool, window=cl.Window(1, 2, "CIRCULAR"))
    assert causes(pooling, 2) == []
    model = sequence(lambda rngs: [pooling, cl.Conv(2, 4, (3, 3), rngs=rngs), mean])
    assert causes(model, 2) == [("layers/1", "padding")]


def test_an_output_of_zeros_or_nan_has_no_relative_error():
    x = images(2, 6, 8, 2)
    for lost in (lambda x: 0 * x, lambda x: jnp.log(-jnp.abs(x))):
        with pytest.raises(ValueError, match="needs a positive and finite norm"):
            equivariance_by_layer(lost, x)


def test_scores_that_are_nan_are_an_error():
    x = np.ones((3, 5, 7, 1))
    with pytest.raises(ValueError, match="scores that are nan"):
        shift_consistency(lambda x: np.asarray(x).mean((1, 2)) * [1.0, np.nan], x, [1])


def test_the_error_of_an_output_of_zeros_is_not_finite():
    x = np.eye(5)[None, :, 4:]
    assert equivariance_error(jax.jit(lambda x: x * np.eye(5)[:, :1]), x, 1).error == np.inf
    assert np.isnan(equivariance_error(lambda x: np.zeros_like(x), x, 1).error)


# --- masks, input dilation, and transposed layers ----------------------------------------------------------------------

HOLES = np.ones((3, 2, 2, 3))
HOLES[0, :, 1], HOLES[2, 1] = 0, 0
SPARSE = {"padding": ((2, 2), (1, 0)), "input_dilation": (2, 1)}
FLIPPED = {"strides": (2, 3), "padding": "CIRCULAR", "transpose_kernel": True}
LAYERS = {  # name -> (layer, the shift of the output for each pixel that the input shifts, causes of errors)
    "flax": (nnx.Conv, {"mask": HOLES, "padding": "CIRCULAR"}, (1, 1), set()),
    "masked": (cl.Conv, {"mask": HOLES, "padding": "SAME"}, (1, 1), {"padding"}),
    "dilated": (nnx.Conv, SPARSE, (2, 1), {"padding"}),
    "dilated and strided": (cl.Conv, SPARSE | {"strides": (1, 2)}, (2, Fraction(1, 2)), {"padding", "stride"}),
    "dilated with a bias per position": (
        cl.Conv,
        {"padding": ((2, 2), (1, 0)), "input_dilation": (2, 1), "use_bias": "position", "space": (5, 4)},
        (2, 1),
        {"padding", "sharing"},
    ),
    "transposed": (nnx.ConvTranspose, {"strides": (2, 1), "mask": HOLES}, (2, 1), {"padding"}),
    "transposed inside": (nnx.ConvTranspose, {"strides": (1, 2), "padding": "VALID"}, (1, 2), {"padding"}),
    "transposed circular": (cl.ConvTranspose, FLIPPED, (2, 3), set()),
    "misaligned": (nnx.ConvTranspose, {"strides": (2, 2), "padding": "CIRCULAR"}, (2, 2), set()),
    "reflected": (cl.ConvTranspose, {"kernel_size": cl.Window((3, 2), padding=("REFLECT", "CIRCULAR"))}, (1, 1), {"padding"}),
    "transposed local": (
        cl.LocallyConnectedTranspose,
        {"strides": (1, 2), "padding": "CIRCULAR", "space": (5, 8)},
        (1, 2),
        {"sharing"},
    ),
}


def layer_of(name):
    kind, options, *_ = LAYERS[name]
    options = {"kernel_size": (3, 2)} | options
    mask = options.pop("mask", None)
    layer = filled(lambda: kind(2, 3, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    layer.mask = nnx.data(None if mask is None else jax.device_put(mask))
    return layer


QUICK = {"flax", "dilated and strided", "transposed", "misaligned"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in LAYERS])
def test_errors_of_masked_dilated_and_transposed_layers_are_those_of_their_dense_matrices(name, float64):
    layer, (_, _, ratio, allowed) = layer_of(name), LAYERS[name]
    [x] = gaussian((2, 5, 4, 2))
    bias = np.asarray(layer(np.zeros((1, 5, 4, 2))))
    dense = np.asarray(jax.jit(lambda units: layer(units))(np.eye(40).reshape(40, 5, 4, 2))) - bias
    seen = set()
    for delta in ((1, 0), (0, 1), (2, 2)):
        shift = [math.floor(pixels * factor) for pixels, factor in zip(delta, ratio, strict=True)]
        h, moved = (np.tensordot(image.reshape(2, 40), dense, 1) + bias for image in (x, np.roll(x, delta, (1, 2))))
        difference = moved - np.roll(h, shift, (1, 2))
        rows = equivariance_by_layer(layer, jnp.asarray(x), delta)
        relative = np.linalg.norm(difference) / np.linalg.norm(h)
        close(np.sqrt(sum(row["error"] ** 2 for row in rows)), relative if relative > 1e-12 else 0.0, 1e-9)
        close(sum(row["contribution"] for row in rows), relative if relative > 1e-12 else 0.0, 1e-9)
        seen |= {row["cause"] for row in rows}
        assert {row["layer"] for row in rows} <= {type(layer).__name__}
    assert seen == allowed


class Hourglass(nnx.Module):
    """A strided convolution, a transposed one, and a connection around both."""

    def __init__(self, rngs):
        self.down = nnx.Conv(2, 3, (3, 2), (2, 1), padding="CIRCULAR", rngs=rngs)
        self.up = nnx.ConvTranspose(3, 2, (2, 3), (2, 1), padding="CIRCULAR", transpose_kernel=True, rngs=rngs)

    def __call__(self, x):
        return x + self.up(nnx.relu(self.down(x)))


def test_a_decoder_commutes_with_shifts_by_its_strides_and_others_fail_at_the_strided_layers():
    model = filled(lambda: Hourglass(nnx.Rngs(0)))
    x = images(2, 6, 5, 2)
    assert equivariance_by_layer(model, x, (2, 3)) == []
    rows = equivariance_by_layer(model, x, (1, 3))
    assert [(row["layer"], row["cause"], row["axes"]) for row in rows] == [("down", "stride", (0,)), ("up", "stride", (0,))]
    h, moved = (np.asarray(model(image)) for image in (x, jnp.roll(x, (1, 3), (1, 2))))
    total = np.linalg.norm(moved - np.roll(h, (1, 3), (1, 2))) / np.linalg.norm(h)
    np.testing.assert_allclose(sum(row["contribution"] for row in rows), total, rtol=1e-4)


def test_layers_with_another_call_or_convolution_are_measured_with_an_unknown_cause():
    class Ramp(nnx.Conv):
        def __call__(self, inputs):
            return super().__call__(inputs) * jnp.arange(inputs.shape[1])[:, None, None]

    def convolve(x, *operands, **options):
        return jax.lax.conv_general_dilated(x * jnp.arange(x.shape[2])[:, None], *operands, **options)

    options = {"padding": ("SAME", "CIRCULAR"), "conv_general_dilated": convolve}
    model = sequence(lambda rngs: [cl.Conv(2, 3, (3, 3), **options, rngs=rngs), Ramp(3, 2, (1, 1), rngs=rngs)])
    assert causes(model, (1, 2)) == [("layers/0", "padding"), ("layers/0", "unknown"), ("mul", "mul")]


def test_functions_and_layers_of_flax_are_named():
    def of(*parts):
        rows = equivariance_by_layer(nnx.Sequential(*parts), images(2, 6, 8, 4), (1, 2))
        return [(row["layer"], row["kind"], row["cause"]) for row in rows]

    rngs = nnx.Rngs(0)
    assert of(functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))) == [
        ("reduce_window_max", "pooling", "pooling")
    ]
    assert of(functools.partial(nnx.avg_pool, window_shape=(3, 3), padding="SAME"))[0][1:] == ("pooling", "padding")
    norms = nnx.LayerNorm(4, rngs=rngs), nnx.GroupNorm(4, 2, rngs=rngs)
    assert of(*norms, nnx.LinearGeneral(4, 3, rngs=rngs), nnx.Einsum("nklc,cd->nkld", (3, 2), rngs=rngs)) == []
    over_rows = nnx.LayerNorm(8, reduction_axes=(2, 3), feature_axes=2, use_bias=False, rngs=rngs)
    over_rows.scale[...] = jnp.arange(8.0)
    assert of(over_rows) == [("layers/0", "LayerNorm", "norm")]
