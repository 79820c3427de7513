"""Indices of weights against loops, known values, and Gaussian means."""

import itertools
import types

import compiled as cl
import jax
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import filled
from strategies import case, gaussian

from convlab import measure
from convlab.layers import CONNECTIVITY, LAYERS, connect
from convlab.measure.weights.layers import NAMES
from convlab.rungs import RUNGS

pytestmark = pytest.mark.usefixtures("float64")
ZERO = case((7, 5), (3, 2), (1, 2), ((1, 2), (0, 1)), (1, 1))  # zero padding: dead taps at the borders
REPEATED = case((4, 5), (3, 3), (1, 1), "REFLECT", (1, 1))  # taps that read one pixel
GLOBE = case((5, 4), (3, 3), (2, 1), ("SAME", "CIRCULAR"), (1, 2))
LINE = case((11,), (3,), (1,), "CAUSAL", (2,))
CUBE = case((2, 4, 3), (2, 3, 1), (1, 1, 1), "CIRCULAR", (1, 1, 1))
each_case = pytest.mark.parametrize("window, space, reads", [ZERO, REPEATED, GLOBE], ids=["zero", "reflect", "globe"])


COMPILED = (
    *("local_share", "tiled_share", "best_patch_share", "inverse_participation_ratio"),
    *("signal_to_noise", "neighbour_distance", "mean_input_distance", "shuffle_inputs"),
)
of = types.SimpleNamespace(**{name: compiled(getattr(measure, name)) for name in COMPILED})


def local_kernel(reads, size, c=2, d=3, seed=0):
    return gaussian((*oracle.out_shape(reads), *size, c, d), seed=seed)[0]


def as_dense(v, reads, space):
    return oracle.dense_matrix(lambda position: v[position], reads, space, *v.shape[-2:])


# --- shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window, space, reads", [LINE, ZERO, GLOBE, CUBE], ids=["line", "zero", "globe", "cube"])
def test_shares_are_between_0_and_1_and_agree_with_decompose(window, space, reads):
    @jax.jit
    def shares(w):
        v = cl.project_dense_to_local(w, window, space)
        local, tied = of.local_share(w, window, space), of.tiled_share(v, window, space)
        return cl.decompose(w, window, space), local, tied

    parts, local, tied = shares(gaussian((*oracle.out_shape(reads), *space, 3, 2))[0])
    parts, local, tied = jax.tree.map(float, (parts, local, tied))
    close(local, parts["shared"] + parts["local"])
    close(tied * local, parts["shared"])
    assert 0 <= tied <= 1
    assert 0 <= local <= 1


@each_case
@pytest.mark.parametrize("period", [(1, 1), (2, 1), (3, 2)])
def test_the_share_of_a_tile_is_that_of_a_least_squares_fit_of_dense_matrices(window, space, reads, period):
    v = local_kernel(reads, window.size)
    kernels = list(itertools.product(*map(range, period)))
    basis = []
    for kernel, tap in itertools.product(kernels, np.ndindex(*window.size)):
        e = np.zeros((*v.shape[:4], 1, 1))
        e[(*(slice(start, None, step) for start, step in zip(kernel, period, strict=True)), *tap)] = 1
        basis.append(as_dense(e, reads, space).ravel())
    basis = np.stack(basis, 1)
    w = as_dense(v, reads, space).reshape(len(basis), -1)
    projection = basis @ np.linalg.lstsq(basis, w, rcond=None)[0]
    close(of.tiled_share(v, window, space, period), np.sum(projection**2) / np.sum(w**2), 1e-11)


def test_shares_of_gaussian_weights_are_the_ratios_of_dimensions():
    (window, space, reads), samples = ZERO, 400
    live, out = oracle.live(reads), oracle.out_shape(reads)
    draws = np.random.default_rng(0).normal(size=(samples, *out, *space, 1, 1))
    got = jax.jit(jax.vmap(lambda w: measure.local_share(w, window, space)))(draws)
    close(np.mean(got), live.sum() / (np.prod(out) * np.prod(space)), 0.01)
    kernels = np.random.default_rng(1).normal(size=(samples, *live.shape, 1, 1))
    for period in (1, 2):
        got = jax.jit(jax.vmap(lambda v, period=period: measure.tiled_share(v, window, space, period)))(kernels)
        tile = sum(live[s::period, t::period].any((0, 1)).sum() for s, t in np.ndindex(period, period))
        close(np.mean(got), tile / live.sum(), 0.01)


# --- units -------------------------------------------------------------------------------------------------------------


def test_participation_follows_its_definition():
    [w] = gaussian((2, 3, 5, 7, 2, 3))
    got = np.asarray(of.inverse_participation_ratio(w, (2, 3)))
    for i, j, c, d in np.ndindex(2, 3, 2, 3):
        unit = w[i, j, :, :, c, d].ravel()
        close(got[i, j, c, d], sum(x**4 for x in unit) / sum(x**2 for x in unit) ** 2)


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6, allow_subnormal=False)))
def test_participation_is_1_for_one_pixel_and_1_over_n_for_constant_weights_and_between_for_others(w):
    one, same = np.eye(5)[:3] * 0.3, np.full((3, 5), -0.3)
    got = np.asarray(of.inverse_participation_ratio(np.stack([one, same, w]), 2))
    close(got[:2], np.array([[1] * 3, [1 / 5] * 3]))
    empty = ~w.any(1)
    assert np.isnan(got[2][empty]).all()
    assert np.all((got[2][~empty] >= 1 / 5 - 1e-12) & (got[2][~empty] <= 1 + 1e-12))


def test_participation_does_not_overflow():
    close(of.inverse_participation_ratio(np.array([1e30, -1e30], np.float32), 0), 0.5, 1e-6)


def test_gaussian_units_have_the_documented_participation():
    n, samples = 35, 20_000
    w = np.random.default_rng(0).normal(size=(samples, 5, 7))
    close(np.mean(of.inverse_participation_ratio(w, (1, 2))), 3 / (n + 2), 1e-3)


# --- positions ---------------------------------------------------------------------------------------------------------


@each_case
def test_signal_to_noise_follows_its_definition_over_live_taps(window, space, reads):
    v, live = local_kernel(reads, window.size), oracle.live(reads)
    ratios = []
    for entry in np.ndindex(*v.shape[2:]):
        live_weights = [v[(*position, *entry)] for position in np.ndindex(*v.shape[:2]) if live[(*position, *entry[:2])]]
        if len(live_weights) > 1:
            mean = sum(live_weights) / len(live_weights)
            ratios.append(mean**2 * len(live_weights) / sum((x - mean) ** 2 for x in live_weights))
    close(of.signal_to_noise(v, window, space), sum(ratios) / len(ratios))


def test_signal_to_noise_is_infinite_for_a_shared_kernel_and_falls_with_the_square_of_the_noise():
    window, space, reads = case((29, 31), (3, 3), (1, 1), "SAME", (1, 1))
    shared, noise = np.sign(gaussian((3, 3, 2, 3))[0]), local_kernel(reads, (3, 3), seed=1)
    assert of.signal_to_noise(cl.lift_conv_to_local(shared, window, space), window, space) > 1e25
    for size in (0.1, 1.0):
        close(float(of.signal_to_noise(shared + size * noise, window, space)) * size**2, 1.0, 0.02)


def test_signal_to_noise_of_noise_has_the_documented_mean():
    window, space, reads = case((5, 4), (3, 1), (1, 1), "SAME", (1, 1))
    draws = np.random.default_rng(0).normal(size=(20_000, 5, 4, 3, 1, 1, 1))
    got = jax.jit(jax.vmap(lambda v: measure.signal_to_noise(v, window, space)))(draws)
    close(np.mean(got), np.mean([1 / (n - 3) for n in (16, 20, 16)]), 0.002)


def test_a_tap_that_is_live_at_one_position_does_not_count():
    window, space = cl.Window((3,), padding="SAME"), (2,)
    v = np.array([[9.0, 1.0, 5.0], [6.0, 3.0, 9.0]])[..., None, None]  # left and right tap are live once
    close(of.signal_to_noise(v, window, space), 4)


@each_case
@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (2, -1)])
def test_neighbour_distance_follows_its_definition_over_taps_live_at_both_positions(window, space, reads, offset):
    v, live = local_kernel(reads, window.size), oracle.live(reads)
    above = below = 0.0
    for here in np.ndindex(*v.shape[:2]):
        there = tuple(np.add(here, offset))
        if not all(0 <= i < n for i, n in zip(there, v.shape, strict=False)):
            continue
        for tap in np.ndindex(*v.shape[2:4]):
            if live[(*here, *tap)] and live[(*there, *tap)]:
                above += np.sum((v[(*here, *tap)] - v[(*there, *tap)]) ** 2)
                below += np.sum(v[(*here, *tap)] ** 2 + v[(*there, *tap)] ** 2)
    close(of.neighbour_distance(v, window, space, offset), above / below)
    close(of.neighbour_distance(v, window, space, [-s for s in offset]), above / below)


def test_neighbour_distance_is_0_for_shared_and_1_for_independent_kernels():
    window, space, reads = case((13, 11), (3, 3), (1, 1), "SAME", (1, 1))
    shared = cl.lift_conv_to_local(gaussian((3, 3, 2, 3))[0], window, space)
    assert of.neighbour_distance(shared, window, space, (1, 1)) == 0
    close(of.neighbour_distance(local_kernel(reads, (3, 3)), window, space, (1, 0)), 1, 0.05)


def test_an_offset_beyond_the_positions_is_an_error():
    with pytest.raises(ValueError, match=r"offset \(0, 5\) exceeds the \(4, 5\) positions"):
        measure.neighbour_distance(np.ones((4, 5, 1, 1, 1, 1)), cl.Window(1), (4, 5), (0, 5))


# --- pruning -----------------------------------------------------------------------------------------------------------


def pruned(share, shape=(2, 1, 5, 7, 2, 3), seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=shape) * (random.uniform(size=shape) < share)


def test_mean_distance_is_the_mean_over_pairs_of_inputs():
    w, distances = pruned(0.3), []
    for i, d in np.ndindex(2, 3):
        inputs = [entry for entry in np.ndindex(5, 7, 2) if w[(i, 0, *entry, d)]]
        distances += [np.hypot(k - m, l - n) for (k, l, _), (m, n, _) in itertools.combinations(inputs, 2)]
    close(of.mean_input_distance(w), sum(distances) / len(distances), 1e-6)
    assert of.mean_input_distance(w) == of.mean_input_distance(w != 0) == of.mean_input_distance(-7 * w)


def test_the_mean_distance_of_random_inputs_does_not_depend_on_their_share():
    expected = of.mean_input_distance(np.ones((1, 1, 5, 7, 2, 1)))
    for share in (0.1, 0.6):
        close(of.mean_input_distance(pruned(share, (20, 20, 5, 7, 2, 3))), expected, 0.01)


def test_inputs_inside_windows_have_a_smaller_mean_input_distance():
    window, space = cl.Window(3), (9, 8)
    w = cl.lift_local_to_dense(np.ones((9, 8, 3, 3, 1, 1)), window, space)
    assert of.mean_input_distance(w) < 0.5 * float(of.mean_input_distance(np.ones_like(w)))


# --- all of them -------------------------------------------------------------------------------------------------------


def test_scaling_the_weight_changes_no_index():
    window, space, reads = ZERO
    v, w = local_kernel(reads, window.size), gaussian((4, 5, 4, 5, 2, 3))[0]
    indices = (
        lambda a: of.tiled_share(a * v, window, space, 2),
        lambda a: of.signal_to_noise(a * v, window, space),
        lambda a: of.neighbour_distance(a * v, window, space, (1, 0)),
        lambda a: of.local_share(a * w, cl.Window(3), (4, 5)),
        lambda a: of.inverse_participation_ratio(a * w, (2, 3)),
    )
    both = jax.jit(jax.vmap(lambda a: [index(a) for index in indices]))(np.array([-7.0, 1.0]))
    for got, expected in both:
        close(got, expected)


def test_indices_of_complex_weights_are_those_of_squared_absolute_values():
    window, space, reads = GLOBE
    v, imaginary = (local_kernel(reads, window.size, seed=seed) for seed in (0, 1))
    v, live = v + 1j * imaginary, oracle.live(reads)[..., None, None]
    w = as_dense(v, reads, space) + gaussian((3, 4, 5, 4, 2, 3), seed=2)[0]
    flat = np.concatenate([w.real, w.imag], -1)  # a complex weight is two real ones
    close(of.local_share(w, window, space), of.local_share(flat, window, space))
    close(of.tiled_share(v, window, space, 2), of.tiled_share(np.concatenate([v.real, v.imag], -1), window, space, 2))
    close(of.best_patch_share(w, (2, 3)), of.best_patch_share(np.abs(w), (2, 3)))
    size = np.abs(w) ** 2
    close(of.inverse_participation_ratio(w, (2, 3)), (size**2).sum((2, 3)) / size.sum((2, 3)) ** 2)
    assert of.mean_input_distance(w) == of.mean_input_distance(w != 0)
    count = live.sum((0, 1))
    mean = np.where(live, v, 0).sum((0, 1)) / count
    spread = np.where(live, np.abs(v - mean) ** 2, 0).sum((0, 1)) / count
    close(of.signal_to_noise(v, window, space), np.mean(np.abs(mean) ** 2 / spread))
    both, one, two = live[1:] & live[:-1], v[1:], v[:-1]
    above, below = np.abs(one - two) ** 2, np.abs(one) ** 2 + np.abs(two) ** 2
    close(of.neighbour_distance(v, window, space, (1, 0)), (above * both).sum() / (below * both).sum())
    shuffled = np.asarray(of.shuffle_inputs(w, jax.random.key(0)))
    close(np.sort(np.abs(shuffled), (0)).sum((0, 1, 5)), np.abs(w).sum((0, 1, 5)))


# --- networks ----------------------------------------------------------------------------------------------------------


class Two(nnx.Module):
    """A layer, and another one inside a module."""

    def __init__(self, rung):
        options = {"space": (4, 5), "rngs": nnx.Rngs(0)}
        self.first = connect(rung, 2, 3, (3, 2), **options)
        self.others = nnx.List(
            [nnx.Sequential(connect(rung, 3, 2, 1, **options), nnx.relu), nnx.Linear(2, 2, rngs=nnx.Rngs(0))]
        )


# --- patches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 3), (1, 1), (5, 7)])
def test_patch_share_uses_the_best_patch_of_each_unit(size):
    w, total = gaussian((2, 3, 5, 7, 2, 3))[0], 0.0
    for i, j, d in np.ndindex(2, 3, 3):
        corners = np.ndindex(5 - size[0] + 1, 7 - size[1] + 1)
        total += max(np.sum(w[i, j, k : k + size[0], l : l + size[1], :, d] ** 2) for k, l in corners)  # noqa: E741
    close(of.best_patch_share(w, size), total / np.sum(w**2))


def test_patch_share_takes_masks_and_one_spatial_axis():
    mask = np.random.default_rng(0).random((3, 7, 2, 5)) < 0.3
    best = [max(mask[i, k : k + 3, :, d].sum() for k in range(5)) for i in range(3) for d in range(5)]
    close(of.best_patch_share(mask, 3), sum(best) / mask.sum(), 1e-6)


def test_the_patch_share_of_a_convolution_is_1_and_falls_on_shuffling():
    v = gaussian((3, 3, 2, 5))[0]
    w = cl.lift_conv_to_dense(v, cl.Window(3), (7, 11))
    close(of.best_patch_share(w, 3), 1.0)
    assert of.best_patch_share(of.shuffle_inputs(w, jax.random.key(0)), 3) < 0.5


def test_shuffling_keeps_the_inputs_per_unit_and_the_weights_per_pixel():
    random = np.random.default_rng(0)
    w = random.normal(size=(2, 3, 5, 7, 2, 3)) * (random.random((2, 3, 5, 7, 2, 3)) < random.random((2, 3, 1, 1, 1, 3)))
    shuffled = np.asarray(of.shuffle_inputs(w, jax.random.key(1)))
    np.testing.assert_array_equal((shuffled != 0).sum((2, 3, 4)), (w != 0).sum((2, 3, 4)))
    by_pixel, other = (np.sort(weight.transpose(2, 3, 4, 0, 1, 5).reshape(70, 18)) for weight in (w, shuffled))
    np.testing.assert_array_equal(by_pixel, other)
    unchanged = np.mean(shuffled[w != 0] == w[w != 0])
    assert unchanged < 0.2  # about one in nine by chance
    np.testing.assert_array_equal(of.shuffle_inputs(w != 0, jax.random.key(1)), shuffled != 0)


def test_shuffling_samples_all_assignments_equally_often():
    w = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0], [0.0, 5.0, 0.0]])[..., None, None]
    draws = jax.jit(jax.vmap(lambda key: measure.shuffle_inputs(w, key)))(jax.random.split(jax.random.key(0), 4000))
    tables, counts = np.unique(np.asarray(draws)[..., 0, 0], axis=0, return_counts=True)
    assert len(tables) == 8
    assert counts.min() > 0.8 * 4000 / 8


OF_POSITIONS = {"shared", "signal_to_noise", "neighbour_distance", "inverse_participation_ratio"}
EXPECTED = {"dense": {"shared", "local", "mean_input_distance", "inverse_participation_ratio"}}
EXPECTED |= dict.fromkeys(("locally_connected", "tiled", "low_rank"), OF_POSITIONS)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_a_network_has_the_indices_of_its_rungs(connectivity):
    model = nnx.eval_shape(lambda: Two(connectivity))
    values = jax.eval_shape(measure.locality_metrics(model), nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    expected = EXPECTED.get(connectivity, {"inverse_participation_ratio"})
    assert set(values) == {f"{layer}/{index}" for layer in ("first", "others/0/layers/0") for index in expected}
    assert all(value.shape == () for value in values.values())


def test_the_indices_of_a_network_are_computed_from_its_arrays():
    v, w = gaussian((4, 5, 3, 2, 2, 3), (4, 5, 4, 5, 2, 3))
    window, space, dense, local = cl.Window((3, 2)), (4, 5), holding("dense", w), holding("locally_connected", v)
    values = {row["index"]: row["value"] for row in measure.locality_indices(dense)}
    close(values["local"], of.local_share(w, window, space))
    close(values["shared"], cl.decompose(w, window, space)["shared"])
    close(values["mean_input_distance"], of.mean_input_distance(w))
    close(values["inverse_participation_ratio"], np.mean(of.inverse_participation_ratio(w, (2, 3))))
    rows = measure.locality_indices(local, "neighbour_distance", "shared", "signal_to_noise")
    distances = [float(of.neighbour_distance(v, window, space, offset)) for offset in ((1, 0), (0, 1))]
    shared, noise = (float(index(v, window, space)) for index in (of.tiled_share, of.signal_to_noise))
    assert [row["index"] for row in rows] == ["neighbour_distance", "shared", "signal_to_noise"]
    close([row["value"] for row in rows], [sum(distances) / 2, shared, noise])
    assert {(row["layer"], row["rung"]) for row in rows} == {("", "locally_connected")}


def test_tiled_and_low_rank_layers_have_the_indices_of_their_local_kernels():
    tile, basis, weights = gaussian((2, 1, 3, 2, 2, 3), (4, 3, 2, 2, 3), (4, 5, 4))
    window, space = cl.Window((3, 2)), (4, 5)
    lifted = {
        "tiled": ([tile], cl.lift_tiled_to_local(tile, window, space), {"period": (2, 1)}),
        "low_rank": ([basis, weights], cl.lift_low_rank_to_local(basis, weights, window, space), {"rank": 4}),
    }
    for rung, (given_arrays, v, options) in lifted.items():
        [row] = measure.locality_indices(holding(rung, *given_arrays, **options), "shared")
        close(row["value"], of.tiled_share(v, window, space))


def holding(rung, *arrays, **options):
    """Make a layer of a rung from given arrays."""
    layer = nnx.eval_shape(lambda: LAYERS[rung](2, 3, (3, 2), space=(4, 5), use_bias=False, **options, rngs=nnx.Rngs(0)))
    for name, array in zip(RUNGS[rung].arrays, arrays, strict=True):
        setattr(layer, name, nnx.Param(jax.device_put(array)))
    return layer


def test_units_without_weights_do_not_count():
    w = np.zeros((4, 5, 4, 5, 2, 3))
    w[..., 2, 3, 1, 2] = 5
    [row] = measure.locality_indices(holding("dense", w), "inverse_participation_ratio")
    assert row["value"] == 1


def test_a_layer_without_a_space_has_only_the_index_of_a_kernel():
    layer = nnx.eval_shape(lambda: cl.Tiled(2, 3, (3, 3), period=2, rngs=nnx.Rngs(0)))
    values = jax.eval_shape(measure.locality_metrics(layer), nnx.to_pure_dict(nnx.state(layer, nnx.Param)))
    assert set(values) == {"inverse_participation_ratio"}


def test_networks_in_tree_mode_have_indices_too():
    with nnx.set_graph_mode(False):
        in_tree_mode = measure.locality_indices(filled(lambda: Two("conv")))
    assert in_tree_mode == measure.locality_indices(filled(lambda: Two("conv")))


def test_an_unknown_index_is_an_error():
    with pytest.raises(ValueError, match=f"index 'sharpness' is unknown; needs one of {', '.join(NAMES)}"):
        measure.locality_indices(nnx.eval_shape(lambda: Two("conv")), "sharpness", "shared")


# --- layers of Flax, masks, and transposed layers ----------------------------------------------------------------------


def test_layers_of_flax_and_masks_have_indices_and_others_are_named():
    mask = np.ones((3, 2, 2, 3))
    mask[1], mask[:, 0, 1] = 0, 0

    class Several(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(2, 3, (3, 2), mask=mask, rngs=rngs)
            self.up = nnx.ConvTranspose(2, 3, (3, 2), strides=(2, 1), rngs=rngs)
            self.sparse = nnx.Conv(3, 3, (3, 2), input_dilation=(2, 1), rngs=rngs)
            self.local = cl.LocallyConnectedTranspose(3, 2, (3, 2), space=(4, 5), rngs=rngs)

    model = filled(Several)
    model.conv.mask = nnx.data(jax.device_put(mask))
    kept = np.ones((4, 5, 3, 2, 2, 3))
    kept[..., 0, 1, :, 2], kept[..., 1, 1, 0, :] = 0, 0  # one tap of a unit, and a tap of all units
    model.local.mask = nnx.data(jax.device_put(kept))
    rows = measure.locality_indices(model)
    values = {(row["layer"], row["index"]): row["value"] for row in rows}
    rungs = {row["layer"]: row["rung"] for row in rows}
    assert rungs == {"conv": "conv", "up": "conv", "sparse": "has input_dilation (2, 1)", "local": "locally_connected"}

    def participation(v):
        return np.nanmean(np.sum(v**4, (-4, -3)) / np.sum(v**2, (-4, -3)) ** 2)

    kernels = {"conv": model.conv.kernel * mask, "up": model.up.kernel[...], "local": model.local.kernel * kept}
    window, space = cl.Window((3, 2)), (4, 5)
    kernels["local"] = np.where(np.asarray(window.live(space))[..., None, None], kernels["local"], 0)
    for layer, v in kernels.items():
        close(values[layer, "inverse_participation_ratio"], participation(np.asarray(v, float)), 1e-6)
    close(values["local", "shared"], of.tiled_share(kernels["local"], window, space), 1e-6)
    assert np.isfinite(values["local", "signal_to_noise"])
    assert np.isnan(values["sparse", "none"])
    asked = measure.locality_indices(model, "local")
    assert [(row["layer"], row["index"]) for row in asked] == [
        ("conv", "local"),
        ("local", "local"),
        ("sparse", "none"),
        ("up", "local"),
    ]
    assert all(np.isnan(row["value"]) for row in asked)
    with pytest.warns(UserWarning, match=r"locality_metrics leaves alone sparse, which has input_dilation \(2, 1\)$"):
        metrics = measure.locality_metrics(model, "shared")
    assert list(metrics(nnx.to_pure_dict(nnx.state(model, nnx.Param)))) == ["local/shared"]


def test_a_mask_of_another_shape_is_an_error():
    model = nnx.Sequential(nnx.Conv(2, 3, (3, 2), mask=np.ones((3, 2)), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"layers/0: mask must have the shape of the weights, \(3, 2, 2, 3\), got \(3, 2\)"):
        measure.locality_indices(model)
