"""What shifts do: to ops, to ways of downsampling, to predictions, and to whole networks, unit by unit."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import SMALL, TINY, filled, images
from strategies import gaussian

import convlab as cl
from convlab.measure import aliased_energy, audit, downsampling, equivariance_error, shift, shift_consistency, shifts
from convlab.ops.pool import polyphase_pool

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
CIRCULAR = {"padding": "CIRCULAR"}


def conv(padding, size=(3, 5), strides=1, space=(7, 11)):
    """A convolution of Gaussian images with a Gaussian kernel, and the images."""
    x, v = gaussian((2, *space, 2), (*size, 2, 3))
    return lambda x: cl.conv(x, jnp.asarray(v), cl.Window(size, strides, padding)), jnp.asarray(x)


def test_circular_convolutions_commute_with_every_shift(float64):
    f, x = conv("CIRCULAR")
    for delta in ((1, 0), (3, -2), 5):
        close(equivariance_error(f, x, delta).map, 0)


def test_zero_padding_fails_in_a_band_along_the_border_and_nowhere_else(float64):
    f, x = conv("SAME")
    wrong = equivariance_error(f, x, (1, 2)).map > 1e-12
    band = np.ones((7, 11), bool)
    band[1 + 1 : -1, 2 + 2 : -2] = False  # half a window, and on the side where pixels come in the shift more
    np.testing.assert_array_equal(wrong, band)
    assert equivariance_error(f, x, (1, 2)).error > 0.1


def test_stride_commutes_with_its_own_multiples_and_with_no_other_shift(float64):
    f, x = conv("CIRCULAR", strides=(2, 3), space=(8, 9))
    for delta in itertools.product(range(4), range(6)):
        error = equivariance_error(f, x, delta, (2, 3)).error
        assert (error < 1e-12) == (delta[0] % 2 == 0 and delta[1] % 3 == 0)


def test_a_shift_needs_one_number_an_axis():
    with pytest.raises(ValueError, match=r"delta is \(1, 2, 3\); needs an integer, or one for each of 2 spatial axes"):
        shift(jnp.ones((1, 7, 5, 2)), (1, 2, 3))


def test_max_pooling_breaks_the_sampling_theorem():
    x = jnp.array([0.0, 0, 1, 1, 0, 0, 1, 1]).reshape(1, 8, 1)
    pooled = [cl.max_pool(shift(x, delta), cl.Window((2,), 2, "VALID")).ravel().tolist() for delta in (0, 1)]
    assert pooled == [[0, 1, 0, 1], [1, 1, 1, 1]]


def test_even_kernels_drift_by_half_a_pixel_a_layer_unless_sides_alternate():
    def centre(paddings):
        h = jnp.zeros((1, 31, 1)).at[0, 15].set(1)
        for padding in paddings:
            h = cl.conv(h, jnp.full((2, 1, 1), 0.5), cl.Window((2,), padding=padding))
        return float(jnp.sum(h[0, :, 0] * jnp.arange(31)))

    for layers in (1, 4, 6):
        assert centre(["SAME"] * layers) == 15 - layers / 2
        assert centre(["SAME_LOWER"] * layers) == 15 + layers / 2
    assert centre(["SAME", "SAME_LOWER"] * 3) == 15


@pytest.mark.parametrize("size", [1, (2, 3)])
def test_polyphase_pooling_of_a_shifted_image_is_a_shift_of_the_pooled_image(size, float64):
    x, window = jnp.asarray(gaussian((2, 8, 9, 3))[0]), cl.Window(size, (2, 3), "CIRCULAR")
    pool = jax.jit(lambda x: polyphase_pool(x, window))
    h = pool(x)
    assert h.shape == (2, 4, 3, 3)
    for delta in shifts((8, 9), 20):
        for still, moved in zip(h, pool(shift(x, delta)), strict=True):
            rolled = [jnp.roll(still, by, (0, 1)) for by in np.ndindex(4, 3)]
            assert any(bool((moved == other).all()) for other in rolled)


def test_polyphase_pooling_keeps_the_component_with_most_energy_for_all_channels_together(float64):
    x = jnp.asarray(gaussian((3, 6, 4, 2))[0])
    h = polyphase_pool(x, cl.Window(1, 2, "CIRCULAR"))
    for image, got in zip(x, h, strict=True):
        parts = [image[p::2, q::2] for p in range(2) for q in range(2)]
        close(got, max(parts, key=lambda part: float((part**2).sum())))
    flat = x.reshape(3, 1, 6, 4, 2)
    close(polyphase_pool(flat, cl.Window((1, 1), 2, "CIRCULAR")), h[:, None])


def test_polyphase_pooling_of_smooth_components_keeps_one_of_the_blurred_samples(float64):
    x = jnp.asarray(gaussian((1, 6, 4, 2))[0])
    blurred = cl.blur_pool(x, cl.Window((3, 2), 1, "CIRCULAR"))
    h = polyphase_pool(x, cl.Window((3, 2), 2, "CIRCULAR"))
    assert any(bool((h == blurred[:, p::2, q::2]).all()) for p in range(2) for q in range(2))


def test_polyphase_components_must_be_of_one_size():
    with pytest.raises(ValueError, match=r"has \[7, 6\] positions at stride 1, but strides \[2, 2\] must divide them"):
        polyphase_pool(jnp.ones((7, 6, 2)), cl.Window((1, 1), 2, "CIRCULAR"))


def test_only_polyphase_downsampling_commutes_and_blur_aliases_least_of_the_windows():
    rows = {row["way"]: row for row in downsampling(jnp.asarray(gaussian((3, 8, 12, 2))[0], jnp.float32))}
    assert {name for name, row in rows.items() if row["error"] < 1e-6} == {"polyphase", "blur, polyphase"}
    assert rows["mean"]["aliased"] == pytest.approx(rows["blur"]["aliased"])  # of two taps they are one
    assert rows["blur"]["aliased"] < rows["strided"]["aliased"]
    assert rows["strided"]["aliased"] == pytest.approx(rows["polyphase"]["aliased"])
    assert rows["polyphase"]["drift"] < 1e-5 < rows["strided"]["drift"]


def test_aliased_energy_is_that_above_the_frequency_limit_of_the_samples(float64):
    k, l = np.arange(12)[:, None], np.arange(8)  # noqa: E741

    def wave(u, v):
        return jnp.asarray(np.cos(2 * np.pi * (u * k / 12 + v * l / 8)))[None, ..., None]

    assert aliased_energy(wave(3, 2), 2) < 1e-12  # at the limit of both axes
    close([aliased_energy(wave(4, 0), 2), aliased_energy(wave(0, 3), 2), aliased_energy(wave(3, 2), (3, 1))], 1)
    close(aliased_energy(wave(1, 1) + 2 * wave(5, 1), 2), 0.8)
    close(aliased_energy(jnp.asarray(gaussian((2, 12, 8, 3))[0]), 1), 0)
    close([aliased_energy(jnp.asarray(np.cos(20 / 36 * np.pi * np.arange(36))).reshape(1, 36, 1), s) for s in (1, 2)], [0, 1])


def circular_net(pool):
    """Circular layers, each followed by ReLU and pooling, then the mean over positions."""
    rngs = nnx.Rngs(0)
    layers = nnx.List([cl.Conv(2, 4, (3, 3), **CIRCULAR, rngs=rngs), cl.Conv(4, 4, (3, 2), **CIRCULAR, rngs=rngs)])
    head = nnx.Linear(4, 3, rngs=rngs)

    class Net(nnx.Module):
        def __init__(self):
            self.layers, self.head = layers, head

        def __call__(self, x):
            for layer in self.layers:
                x = pool(nnx.relu(layer(x)))
            return self.head(x.mean((1, 2)))

    model = Net()
    return jax.jit(lambda x: model(x))


def test_circular_layers_and_global_pooling_do_not_notice_a_shift_and_cannot_tell_left_from_right(float64):
    model = circular_net(lambda h: h)
    x = jnp.zeros((1, 7, 10, 2)).at[:, 2:4, 1:3].set(1)  # on the left
    close(model(x), model(shift(x, (0, 5))))
    assert shift_consistency(model, jnp.asarray(gaussian((5, 7, 10, 2))[0]), shifts((7, 10), 9)) == 1


def test_polyphase_nets_are_consistent_from_the_start_and_strided_ones_are_not():
    x, every = jnp.asarray(gaussian((40, 8, 12, 2))[0], jnp.float32), shifts((8, 12), 8)
    pools = {"polyphase": polyphase_pool, "max": cl.max_pool}
    nets = {name: circular_net(functools.partial(pool, window=cl.Window(2, 2, "CIRCULAR"))) for name, pool in pools.items()}
    consistent = {name: shift_consistency(net, x, every) for name, net in nets.items()}
    assert consistent["polyphase"] == 1
    assert consistent["max"] < 1
    h, g = nets["polyphase"](x), nets["polyphase"](shift(x, (3, 5)))
    np.testing.assert_allclose(h, g, rtol=1e-5, atol=1e-6)


def test_consistency_is_the_share_of_pairs_and_a_cut_moves_against_the_shift():
    x = jnp.arange(7.0).reshape(1, 7, 1)
    assert shift_consistency(lambda x: x[:, 0, 0] > 1.5, x, [0, 1, 2], margin=2) == 1 / 3  # first pixels 2 1 0
    assert shift_consistency(lambda x: x[:, :2, 0], jnp.array([[[2.0], [1], [0]]]), [0, 1, 2, 3]) == 3 / 4  # scores 21 02 10 21
    with pytest.raises(ValueError, match=r"a margin of 1 pixels in images of \(7,\) leaves no room for the shift \(2,\)"):
        shift_consistency(lambda x: x[:, 0, 0] > 0, x, [2], margin=1)
    with pytest.raises(ValueError, match="shifts is empty"):
        shift_consistency(lambda x: x[:, 0, 0] > 0, x, [])


def test_shifts_are_all_or_some_without_repetition():
    assert len(shifts((3, 4))) == 11
    some = shifts((3, 4), 7)
    assert len(set(some)) == 7
    assert set(some) < set(shifts((3, 4)))
    with pytest.raises(ValueError, match="number is 12 but images of"):
        shifts((3, 4), 12)


@pytest.mark.parametrize("name", ["ResNet-zeros"])
def test_the_parts_of_a_network_add_up_to_the_whole_change(name):
    build, shape = (SMALL | TINY)[name]
    model, x = filled(lambda: build(rngs=nnx.Rngs(0))), images(3, *shape)
    rows = audit(model, x, (1, 2))
    model.eval()
    h = model(x)
    whole = jnp.linalg.norm(model(shift(x, (1, 2))) - h) / jnp.linalg.norm(h)
    assert whole > 1e-3
    np.testing.assert_allclose(sum(row["part"] for row in rows), whole, rtol=1e-4)


def causes(model, shape, delta=1):
    x = images(2, *shape)
    return [(row["layer"], row["cause"]) for row in audit(model, x, delta)]


def test_the_audit_names_what_loses_the_shift():
    rngs = nnx.Rngs(0)

    def parts(padding, strides=1, last=lambda x: x.mean((1, 2)), norm=lambda x: x):
        return nnx.Sequential(cl.Conv(2, 3, (3, 3), strides, padding=padding, rngs=rngs), norm, nnx.relu, last)

    assert causes(parts("CIRCULAR"), (6, 8, 2)) == []
    assert causes(parts("SAME"), (6, 8, 2)) == [("layers/0", "padding")]
    assert causes(parts("CIRCULAR", 2), (6, 8, 2)) == [("layers/0", "stride")]
    assert causes(parts("CIRCULAR", last=lambda x: x.reshape(len(x), -1)), (6, 8, 2)) == [("reshape", "flatten")]
    pool = functools.partial(cl.max_pool, window=cl.Window(2, 2, "VALID"))
    assert causes(parts("CIRCULAR", norm=pool), (6, 8, 2)) == [("max_pool", "pooling")]
    even = cl.Conv(2, 3, (2, 2), padding="SAME_LOWER", rngs=rngs)
    assert causes(nnx.Sequential(even, lambda x: x.mean((1, 2))), (6, 8, 2)) == [("layers/0", "padding")]
    local = cl.LocallyConnected(2, 3, (3, 3), padding="CIRCULAR", space=(6, 8), rngs=rngs)
    assert causes(nnx.Sequential(local, lambda x: x.mean((1, 2))), (6, 8, 2)) == [("layers/0", "sharing")]


def test_the_error_of_a_unit_is_that_of_its_commutator_where_positions_are_left(float64):
    x = jnp.asarray(gaussian((2, 7, 11, 2))[0])
    layer = cl.Conv(2, 3, (3, 5), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    [row] = audit(layer, x, (1, 2))
    expected = equivariance_error(layer, x, (1, 2)).error
    assert (row["layer"], row["kind"], row["cause"]) == ("Conv", "Conv", "padding")
    close([row["part"], row["error"]], expected)


def test_padding_and_stride_of_one_layer_are_told_apart(float64):
    x = jnp.asarray(gaussian((2, 8, 12, 2))[0])
    layer = cl.Conv(2, 3, (3, 3), 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    assert [row["cause"] for row in audit(layer, x, 2)] == ["padding"]
    rows = audit(layer, x, (1, 0))
    assert [row["cause"] for row in rows] == ["padding", "stride"]
    close(sum(row["part"] for row in rows), equivariance_error(layer, x, (1, 0), 2).error)
    close([row["part"] for row in rows], [row["error"] ** 2 / sum(row["part"] for row in rows) for row in rows])


def test_a_score_is_no_label():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 7, 1)))
    with pytest.raises(ValueError, match=r"numbers of shape \(3,\); needs labels"):
        shift_consistency(lambda x: x.mean((1, 2, 3)), x, [1])
    assert shift_consistency(lambda x: x.mean((1, 2, 3)) > 0, x, [1]) == 1


def test_what_cannot_be_compared_is_refused():
    x = jax.random.normal(jax.random.key(0), (3, 8, 6, 2))
    with pytest.raises(ValueError, match="'max', 'mean', .* makes of an image zeros"):
        downsampling(x.at[1].set(0))
    with pytest.raises(ValueError, match=r"returns shape \(3,\); needs images"):
        equivariance_error(lambda x: x.mean((1, 2, 3)), x, 1)


def test_a_norm_over_all_positions_moves_with_the_image_and_loses_nothing():
    rngs = nnx.Rngs(0)

    def around(between, last=lambda x: x.mean((1, 2))):
        layers = [cl.Conv(4, 4, (3, 3), padding="CIRCULAR", rngs=rngs) for _ in range(2)]
        return nnx.Sequential(layers[0], between, nnx.relu, layers[1], last)

    assert causes(lambda x: x - x.mean((1, 2), keepdims=True), (6, 8, 4)) == []
    assert causes(around(nnx.GroupNorm(4, 2, rngs=rngs)), (6, 8, 4)) == []
    assert causes(around(nnx.InstanceNorm(4, rngs=rngs), lambda x: x), (6, 8, 4)) == []
    gate = nnx.Linear(4, 4, rngs=rngs)
    assert causes(around(lambda x: x * nnx.sigmoid(gate(x.mean((1, 2), keepdims=True)))), (6, 8, 4)) == []
    assert causes(lambda x: nnx.softmax(x, (1, 2)), (6, 8, 4)) == []
    by_column = nnx.LayerNorm(8, reduction_axes=(1, 2, 3), feature_axes=(2,), rngs=rngs)
    by_column.scale[...] = jax.random.normal(jax.random.key(0), (8,))
    assert causes(around(by_column), (6, 8, 4)) == [("layers/1", "norm")]


def test_what_comes_after_a_norm_is_still_charged():
    rngs = nnx.Rngs(0)
    first, last = (cl.Conv(4, 4, (3, 3), strides, rngs=rngs) for strides in (1, 2))
    model = nnx.Sequential(first, nnx.GroupNorm(4, 2, rngs=rngs), nnx.relu, last, lambda x: x.mean((1, 2)))
    assert causes(model, (6, 8, 4)) == [("layers/0", "padding"), ("layers/3", "padding"), ("layers/3", "stride")]


def test_polyphase_pooling_loses_nothing_and_what_comes_after_it_is_still_charged():
    pool = functools.partial(polyphase_pool, window=cl.Window(1, 2, "CIRCULAR"))
    assert causes(pool, (6, 8, 2), 2) == []
    model = nnx.Sequential(pool, cl.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)), lambda x: x.mean((1, 2)))
    assert causes(model, (6, 8, 2), 2) == [("layers/1", "padding")]


def test_an_output_of_zeros_or_of_no_numbers_is_not_audited():
    x = images(2, 6, 8, 2)
    for lost in (lambda x: 0 * x, lambda x: jnp.log(-jnp.abs(x))):
        with pytest.raises(ValueError, match="no change is relative to that"):
            audit(lost, x)


def test_a_score_that_is_not_a_number_names_no_class():
    x = jnp.ones((3, 5, 7, 1))
    with pytest.raises(ValueError, match="scores that are nan"):
        shift_consistency(lambda x: x.mean((1, 2)) * jnp.array([1.0, jnp.nan]), x, [1])


def test_the_error_of_an_output_of_zeros_is_not_finite():
    x = jnp.zeros((1, 5, 1)).at[0, 4].set(1)
    assert equivariance_error(lambda x: x * jnp.eye(5)[:, :1], x, 1).error == jnp.inf
    assert jnp.isnan(equivariance_error(jnp.zeros_like, x, 1).error)
