"""Test lifts and projections on windows of every kind against explicit loops and least squares."""

import functools

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import gaussian, windows

import convlab
from convlab.layers import LAYERS
from convlab.rungs import RUNGS

pytestmark = pytest.mark.usefixtures("float64")
ZERO = ["SAME", "SAME_LOWER", "VALID", "FULL", "CAUSAL"]
GROUPS = st.sampled_from([(1, 2, 3), (2, 1, 4), (3, 1, 3)])  # groups, channels of one group in, channels out
FIXED = [  # (window, space) with zero padding, wrapping, repeated pixels, strides and dilation
    (cl.Window((3, 2)), (5, 4)),
    (cl.Window((3, 3), strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2)), (7, 5)),
    (cl.Window((2, 3), padding="CIRCULAR"), (3, 5)),
    (cl.Window((4, 3), padding="CIRCULAR"), (3, 2)),
    (cl.Window((3, 5), strides=(1, 2), padding="REFLECT"), (4, 3)),
    (cl.Window((3, 4), padding="EDGE"), (5, 3)),
    (cl.Window((3, 3), padding="FULL"), (2, 3)),
    (cl.Window((3, 4), (2, 1), padding=("SAME", "CIRCULAR")), (5, 3)),
]
every_fixed_window = pytest.mark.parametrize("window, space", FIXED, ids=lambda value: str(getattr(value, "padding", "")))


def dense_shape(window, space, c, d):
    return (*window.output_shape(space), *space, c, d)


@compiled
def onto_local(w, window, space, groups=1):
    return cl.lift_local_to_dense(cl.project_dense_to_local(w, window, space, groups), window, space, groups)


@compiled
def onto_tiled(w, window, space, period, groups=1):
    v = cl.project_local_to_tiled(cl.project_dense_to_local(w, window, space, groups), window, space, period)
    return cl.lift_local_to_dense(cl.lift_tiled_to_local(v, window, space, period), window, space, groups)


@compiled
def onto_conv(w, window, space, groups=1):
    return cl.lift_conv_to_dense(cl.project_dense_to_conv(w, window, space, groups), window, space, groups)


# --- lifts are exact --------------------------------------------------------------------------------------------------


@given(windows(cells=200), GROUPS)
def test_lifted_kernels_match_the_dense_matrices_of_the_definition(drawn, sizes):
    window, space, reads = drawn
    groups, c, d = sizes
    v, shared = gaussian((*oracle.out_shape(reads), *window.size, c, d), (*window.size, c, d))
    expected = oracle.dense_matrix(lambda position: v[position], reads, space, c * groups, d, groups)
    close(cl.lift_local_to_dense(v, window, space, groups), expected)
    expected = oracle.dense_matrix(lambda _: shared, reads, space, c * groups, d, groups)
    close(cl.lift_conv_to_dense(shared, window, space, groups), expected)


@every_fixed_window
def test_the_jacobian_of_an_op_is_its_lifted_kernel(window, space):
    out, ndim = window.output_shape(space), len(space)
    v, local, tile = gaussian((*window.size, 2, 3), (*out, *window.size, 2, 3), (2, 1, *window.size, 2, 3))
    lifted = {
        "conv": (functools.partial(cl.conv, v=v, window=window), cl.lift_conv_to_dense(v, window, space)),
        "local": (
            functools.partial(cl.locally_connected, v=local, window=window),
            cl.lift_local_to_dense(local, window, space),
        ),
        "tiled": (
            functools.partial(cl.tiled, v=tile, window=window),
            cl.lift_local_to_dense(cl.lift_tiled_to_local(tile, window, space), window, space),
        ),
    }
    for op, w in lifted.values():
        jacobian = jax.jit(jax.jacobian(op))(np.zeros((*space, 2)))
        close(np.moveaxis(jacobian, ndim, -1), w)


@given(windows(cells=500))
@settings(max_examples=5)
def test_every_lift_leaves_the_function_unchanged(drawn):
    window, space, reads = drawn
    out = oracle.out_shape(reads)
    period = tuple(min(2 + r, n) for r, n in enumerate(out))
    x, v, tile, basis, weights = gaussian(
        (*space, 2), (*window.size, 2, 3), (*period, *window.size, 2, 3), (2, *window.size, 2, 3), (*out, 2)
    )
    local = cl.lift_conv_to_local(v, window, space)
    close(cl.locally_connected(x, local, window), cl.conv(x, v, window))
    close(cl.dense(x, cl.lift_local_to_dense(local, window, space)), cl.conv(x, v, window))
    close(cl.locally_connected(x, cl.lift_tiled_to_local(tile, window, space, period), window), cl.tiled(x, tile, window))
    mixed = cl.lift_low_rank_to_local(basis, weights)
    close(cl.locally_connected(x, mixed, window), cl.low_rank(x, basis, weights, window))
    silent = cl.lift_low_rank_to_local(basis, weights, window, space)
    np.testing.assert_array_equal(silent, np.where(oracle.live(reads)[..., None, None], mixed, 0))


@given(windows(cells=500))
def test_lifting_sets_dead_taps_to_zero_and_leaves_live_ones(drawn):
    window, space, reads = drawn
    (v,) = gaussian((*window.size, 2, 3))
    live = oracle.live(reads)[..., None, None]
    np.testing.assert_array_equal(cl.lift_conv_to_local(v, window, space), np.where(live, v, 0))


def test_reindexing_with_the_full_window_is_a_bijection_on_live_taps():
    space, window = (4, 3), cl.Window.full((4, 3))
    (w,) = gaussian((*space, *space, 2, 3))
    v = cl.project_dense_to_local(w, window, space)
    np.testing.assert_array_equal(cl.lift_local_to_dense(v, window, space), w)
    for i, j, k, l in np.ndindex(*space, *space):  # V[i,j,a,b] = W[i,j,i+a,j+b], a from -3, b from -2
        np.testing.assert_array_equal(v[i, j, k - i + 3, l - j + 2], w[i, j, k, l])


# --- projections are orthogonal --------------------------------------------------------------------------------------------


@given(windows(names=ZERO, cells=150))
@settings(max_examples=5)
def test_gram_matrix_of_the_embedding_counts_live_taps(drawn):
    window, space, reads = drawn
    embed = jax.jit(jax.jacobian(lambda v: cl.lift_conv_to_dense(v, window, space)))(np.zeros((*window.size, 1, 1)))
    embed = np.asarray(embed).reshape(-1, np.prod(window.size))
    close(embed.T @ embed, np.diag(oracle.live(reads).sum(tuple(range(len(space)))).ravel().astype(float)))


@given(windows(ndims=(1, 2), cells=120), GROUPS)
@settings(max_examples=4)
def test_projections_are_least_squares_solutions_of_minimum_norm(drawn, sizes):
    window, space, reads = drawn
    groups, c, d = sizes
    (w,) = gaussian((*oracle.out_shape(reads), *space, c * groups, d))
    for project, lift, shape in (
        (cl.project_dense_to_conv, cl.lift_conv_to_dense, (*window.size, c, d)),
        (cl.project_dense_to_local, cl.lift_local_to_dense, (*oracle.out_shape(reads), *window.size, c, d)),
    ):
        embed = jax.jit(jax.jacobian(lambda v, lift=lift: lift(v, window, space, groups)))(np.zeros(shape))
        embed = np.asarray(embed).reshape(w.size, -1)
        nearest = np.linalg.pinv(embed.T @ embed, hermitian=True) @ (embed.T @ w.ravel())
        close(np.ravel(project(w, window, space, groups)), nearest)


@every_fixed_window
@pytest.mark.parametrize("groups", [1, 2])
def test_projections_are_idempotent_self_adjoint_and_split_the_squared_norm(window, space, groups):
    u, w = gaussian(*[dense_shape(window, space, 2, 4)] * 2)
    for onto in (onto_local, onto_conv):
        p = functools.partial(onto, window=window, space=space, groups=groups)
        close(p(p(w)), p(w))
        near = np.asarray(p(w))
        close(np.vdot(p(u), w), np.vdot(u, near))
        close(np.sum(near**2) + np.sum((w - near) ** 2), np.sum(w**2))


@every_fixed_window
def test_nested_projections_commute(window, space):
    (w,) = gaussian(dense_shape(window, space, 2, 3))
    period = tuple(min(2, n) for n in window.output_shape(space))
    conv = functools.partial(onto_conv, window=window, space=space)
    tiled = functools.partial(onto_tiled, window=window, space=space, period=period)
    local = functools.partial(onto_local, window=window, space=space)
    for lower, upper in ((conv, tiled), (conv, local), (tiled, local)):
        close(lower(upper(w)), lower(w))
        close(upper(lower(w)), lower(w))


@every_fixed_window
def test_projection_inverts_lifting_as_a_function_and_under_zero_padding_as_arrays(window, space):
    out = window.output_shape(space)
    period = tuple(min(2, n) for n in out)
    v, local, tile = gaussian((*window.size, 2, 3), (*out, *window.size, 2, 3), (*period, *window.size, 2, 3))
    again = cl.project_dense_to_conv(cl.lift_conv_to_dense(v, window, space), window, space)
    close(cl.lift_conv_to_dense(again, window, space), cl.lift_conv_to_dense(v, window, space))
    w = cl.lift_local_to_dense(local, window, space)
    close(onto_local(w, window, space), w)
    if {*window.paddings}.isdisjoint(("CIRCULAR", "REFLECT", "EDGE")):
        live = window.live(space)
        close(again, np.where(live.any((0, 1))[..., None, None], v, 0))
        close(cl.project_local_to_conv(cl.lift_conv_to_local(v, window, space), window, space), again)
        close(cl.project_dense_to_local(w, window, space), np.where(live[..., None, None], local, 0))
        lifted = cl.lift_tiled_to_local(tile, window, space, period)
        back = cl.project_local_to_tiled(lifted, window, space, period)
        close(cl.lift_tiled_to_local(back, window, space), lifted)


@given(windows(names=ZERO, cells=1000))
def test_projection_under_zero_padding_is_the_mean_over_live_taps(drawn):
    window, space, reads = drawn
    (v,) = gaussian((*oracle.out_shape(reads), *window.size, 2, 3))
    total, count = np.zeros((*window.size, 2, 3)), np.zeros((*window.size, 1, 1))
    for position, tap, _ in oracle.each_tap(reads):
        total[tap] += v[(*position, *tap)]
        count[tap] += 1
    close(cl.project_local_to_conv(v, window, space), total / np.maximum(count, 1))


def test_dead_taps_do_not_enter_a_projection_whatever_they_hold():
    window, space = cl.Window(3), (4, 5)
    (v,) = gaussian((4, 5, 3, 3, 2, 3))
    live = window.live(space)[..., None, None]
    for value in (np.nan, np.inf):
        dirty = np.where(live, v, value)
        for project in (cl.project_local_to_conv, functools.partial(cl.project_local_to_tiled, period=2)):
            close(project(dirty, window=window, space=space), project(v, window=window, space=space))


def test_circular_tilings_compose_by_their_gcd_and_conv_is_the_average_over_shifts():
    window, space = cl.Window((3,), padding="CIRCULAR"), (12,)
    (w,) = gaussian((12, 12, 2, 3))
    close(onto_tiled(onto_tiled(w, window, space, 4), window, space, 6), onto_tiled(w, window, space, 2))
    everything = cl.Window((12,), padding="CIRCULAR")
    average = np.mean([np.roll(w, (t, t), (0, 1)) for t in range(12)], axis=0)
    close(onto_conv(w, everything, space), average)


@every_fixed_window
def test_shared_kernel_gradient_is_the_transposed_lift_of_the_dense_gradient(window, space):
    (v,) = gaussian((*window.size, 2, 3))
    (x,) = gaussian((3, *space, 2))
    local, w = cl.lift_conv_to_local(v, window, space), cl.lift_conv_to_dense(v, window, space)

    @jax.jit
    def gradients(v, local, w):
        shared = jax.grad(lambda v: jnp.sum(jnp.sin(cl.conv(x, v, window))))(v)
        freed = jax.grad(lambda v: jnp.sum(jnp.sin(cl.locally_connected(x, v, window))))(local)
        dense = jax.grad(lambda w: jnp.sum(jnp.sin(cl.dense(x, w))))(w)
        _, transpose = jax.vjp(lambda v: cl.lift_conv_to_dense(v, window, space), v)
        return shared, freed, transpose(dense)[0]

    shared, freed, embedded = gradients(v, local, w)
    close(shared, embedded)
    close(shared, np.sum(freed, (0, 1)))
    assert not np.asarray(freed)[~window.live(space)].any()


# --- low rank ------------------------------------------------------------------------------------------------------------


def test_rank_one_projection_of_a_shared_kernel_is_the_kernel_with_unit_weights():
    (v,) = gaussian((3, 2, 2, 3))
    basis, weights = cl.project_local_to_low_rank(np.broadcast_to(v, (4, 5, *v.shape)), 1)
    close(basis[0], v)
    close(weights, np.ones((4, 5, 1)))


@pytest.mark.parametrize("out, entries", [((3, 5), (2, 2, 1, 2)), ((2, 3), (3, 2, 2, 3))])
def test_error_of_the_best_rank_is_the_sum_of_omitted_squared_singular_values(out, entries):
    (v,) = gaussian((*out, *entries))
    sigma = np.linalg.svd(v.reshape(np.prod(out), -1), compute_uv=False)
    for rank in range(1, len(sigma) + 1):
        basis, weights = cl.project_local_to_low_rank(v, rank)
        error = np.sum((np.asarray(cl.lift_low_rank_to_local(basis, weights)) - v) ** 2)
        close(error, np.sum(sigma[rank:] ** 2))
        close(np.mean(np.asarray(weights) ** 2, (0, 1)), np.ones(rank))
    close(cl.lift_low_rank_to_local(basis, weights), v)


@pytest.mark.parametrize("out, entries", [((7, 9), (7, 7, 2, 3)), ((5, 6), (2, 3, 1, 2))])
def test_copies_of_few_kernels_are_recovered_at_low_rank(out, entries):
    positions = np.arange(np.prod(out)).reshape(*out)
    for seed in range(3):
        (v,) = gaussian((4, *entries), seed=seed)
        for copies in (v[0 * positions], v[positions % 4], 1e-25 * v[0 * positions], 0 * v[0 * positions]):
            basis, weights = cl.project_local_to_low_rank(copies, 5)
            size = np.abs(copies).max()
            assert np.abs(np.asarray(cl.lift_low_rank_to_local(basis, weights)) - copies).max() <= 1e-12 * size
            gram = np.tensordot(weights, weights, ((0, 1), (0, 1))) / positions.size
            close(gram, np.eye(5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_kernels_are_decomposed_and_keep_their_dtype(dtype):
    v = gaussian((3, 5, 2, 2, 1, 2))[0].astype(jnp.dtype(dtype))
    got, expected = (cl.project_local_to_low_rank(array, 2) for array in (v, v.astype("float32")))
    assert {array.dtype.name for array in got} == {dtype}
    close([np.asarray(array, "float32") for array in got], list(expected), 0.02)


# --- shares --------------------------------------------------------------------------------------------------------------


@every_fixed_window
def test_shares_sum_to_one_and_distinguish_a_convolution_from_a_local_layer(window, space):
    (w,) = gaussian(dense_shape(window, space, 2, 3))
    shares = cl.decompose(w, window, space)
    close(sum(map(float, shares.values())), 1.0)
    assert set(shares) == {"shared", "local", "rest"}
    close(cl.decompose(onto_conv(w, window, space), window, space)["shared"], 1.0)
    close(cl.decompose(onto_local(w, window, space), window, space)["rest"], 0.0)
    if window.coverage(space).min() < np.prod(window.output_shape(space)):  # some pixel lies outside some window
        close(cl.decompose(w - np.asarray(onto_local(w, window, space)), window, space)["rest"], 1.0)


@pytest.mark.parametrize("window", [cl.Window(3), cl.Window((3, 2), padding="CIRCULAR"), cl.Window(3, padding="REFLECT")])
def test_shares_of_gaussian_weights_are_ratios_of_dimensions(window):
    space, draws = (5, 4), 400
    w = jnp.asarray(gaussian((draws, *dense_shape(window, space, 1, 2)))[0])
    shares = jax.jit(jax.vmap(lambda w: cl.decompose(w, window, space)))(w)
    reads = window.reads(space).reshape(20, -1)
    pairs = [set(row[row >= 0]) for row in reads]
    local = sum(map(len, pairs)) / 400
    zeros = np.zeros((*window.with_ndim(2).size, 1, 1))
    embed = jax.jit(jax.jacobian(lambda v: cl.lift_conv_to_dense(v, window, space)))(zeros)
    shared = np.linalg.matrix_rank(np.asarray(embed).reshape(400, -1)) / 400
    expected = {"shared": shared, "local": local - shared, "rest": 1 - local}
    for name, value in expected.items():
        deviation = np.std(shares[name]) / np.sqrt(draws)
        assert abs(np.mean(shares[name]) - value) < 4 * deviation + 1e-12, name


# --- complex numbers -----------------------------------------------------------------------------------------------------

COMPLEX = [
    (cl.Window((3, 2), (2, 1), ("SAME", "CIRCULAR")), (5, 4), np.complex64),
    (cl.Window((3, 3), padding=("REFLECT", (0, 1))), (3, 4), np.complex128),
]
every_complex_window = pytest.mark.parametrize("window, space, dtype", COMPLEX, ids=["globe", "mirrored"])


def complex_gaussian(*shapes, dtype=np.complex128, seed=0):
    parts = zip(gaussian(*shapes, seed=seed), gaussian(*shapes, seed=seed + 1), strict=True)
    return [(real + 1j * imaginary).astype(dtype) for real, imaginary in parts]


def least_squares(lift, shape, target):
    """Return the least-norm solution of lift(v) = target, by the Jacobian of a complex linear lift."""
    embed = jax.jit(jax.jacobian(lift, holomorphic=True))(np.zeros(shape, np.complex128))
    embed = np.asarray(embed).reshape(target.size, -1)
    return np.linalg.lstsq(embed, target.ravel(), rcond=None)[0].reshape(shape)


@every_complex_window
def test_complex_projections_are_pseudo_inverses_of_the_lifts(window, space, dtype):
    out, tolerance = window.output_shape(space), 60 * float(jnp.finfo(dtype).eps)
    period = (2, 1)
    w, v = complex_gaussian(dense_shape(window, space, 2, 2), (*out, *window.size, 1, 2), dtype=dtype)
    shapes = {"conv": window.size, "local": (*out, *window.size), "tiled": (*period, *window.size)}

    def lift_local(v):
        return convlab.lift_local_to_dense(v, window, space)

    @jax.jit
    def projections(w, v):
        return (
            convlab.project_dense_to_conv(w, window, space, 2),
            convlab.project_dense_to_local(w, window, space, 2),
            convlab.project_local_to_tiled(v, window, space, period),
            convlab.project_local_to_conv(v, window, space),
            lift_local(v),
        )

    conv, local, tiled, mean, dense = projections(w, v)
    assert {array.dtype for array in (conv, local, tiled, mean)} == {np.dtype(dtype)}
    expected = (
        least_squares(lambda v: convlab.lift_conv_to_dense(v, window, space, 2), (*shapes["conv"], 1, 2), w),
        least_squares(lambda v: convlab.lift_local_to_dense(v, window, space, 2), (*shapes["local"], 1, 2), w),
        least_squares(
            lambda v: lift_local(convlab.lift_tiled_to_local(v, window, space)), (*shapes["tiled"], 1, 2), np.asarray(dense)
        ),
        least_squares(lambda v: convlab.lift_conv_to_dense(v, window, space), (*shapes["conv"], 1, 2), np.asarray(dense)),
    )
    close((conv, local, tiled, mean), tuple(array.astype(dtype) for array in expected), tolerance)


@every_complex_window
def test_complex_shares_are_squared_norms_of_nested_projections_and_sum_to_one(window, space, dtype):
    (w,) = complex_gaussian(dense_shape(window, space, 2, 3), dtype=dtype)
    shares = cl.decompose(w, window, space)
    assert {share.dtype for share in shares.values()} == {np.empty(0, dtype).real.dtype}
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    close(sum(map(float, shares.values())), 1.0, tolerance)
    local, shared = (np.asarray(onto(w, window, space)) for onto in (onto_local, onto_conv))
    parts = {"shared": shared, "local": local - shared, "rest": w - local}
    total = np.sum(np.abs(w) ** 2)
    for name, part in parts.items():
        close(float(shares[name]), float(np.sum(np.abs(part) ** 2) / total), tolerance)
    close(np.sum(np.abs(local) ** 2) + np.sum(np.abs(w - local) ** 2), total, tolerance)
    u = complex_gaussian(w.shape, dtype=dtype, seed=2)[0]
    close(np.vdot(onto_conv(u, window, space), w), np.vdot(u, shared), tolerance * 50)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_low_rank_kernels_are_those_of_the_truncated_decomposition(dtype):
    (v,) = complex_gaussian((3, 4, 2, 2, 1, 2), dtype=dtype)
    left, sigma, right = np.linalg.svd(v.reshape(12, 8).astype(np.complex128), full_matrices=False)
    tolerance = 60 * float(jnp.finfo(dtype).eps)
    for rank in (1, 3):
        basis, weights = cl.project_local_to_low_rank(v, rank)
        assert basis.dtype == weights.dtype == dtype
        expected = (left[:, :rank] * sigma[:rank]) @ right[:rank]
        close(np.reshape(cl.lift_low_rank_to_local(basis, weights), (12, 8)), expected.astype(dtype), tolerance)
        flat = np.reshape(weights, (12, rank))
        close(flat.conj().T @ flat / 12, np.eye(rank, dtype=dtype), tolerance)
    (shared,) = complex_gaussian((2, 2, 1, 2), dtype=dtype)
    basis, weights = cl.project_local_to_low_rank(np.broadcast_to(shared, (3, 4, *shared.shape)), 1)
    close((basis[0], weights), (shared, np.ones((3, 4, 1), dtype)), tolerance)


@pytest.mark.parametrize("name", RUNGS)
def test_complex_layers_start_compute_and_have_the_norm_of_their_dense_matrix(name):
    window, space, _ = COMPLEX[0]
    own = {"tiled": {"period": 2}, "low_rank": {"rank": 2}}.get(name, {})
    options = {"space": space, "param_dtype": jnp.complex64, "rngs": nnx.Rngs(0), **own}
    layer = LAYERS[name](2, 3, window, **options)
    arrays = {key: getattr(layer, key)[...] for key in layer.tying.arrays}
    assert {array.dtype for array in [*arrays.values(), layer.bias[...]]} == {np.dtype(np.complex64)}
    assert min(np.std(np.imag(array)) for array in arrays.values()) > 0.05
    (x,) = complex_gaussian((2, *space, 2), dtype=np.complex64)

    @jax.jit
    def results(x, arrays):
        matrix = jax.jacobian(lambda x: layer.layout.tying.apply(x, arrays, layer.layout), holomorphic=True)(x[0])
        return layer(x), matrix, layer.layout.tying.squared_norm(arrays, layer.layout)

    h, matrix, norm = results(x, arrays)
    assert norm.dtype == np.float32
    close(h, np.tensordot(x, matrix, ((1, 2, 3), (3, 4, 5))), 1e-5)
    close(norm, np.sum(np.abs(matrix) ** 2), 1e-5)


def test_a_complex_network_relaxes_without_change_and_back():
    window, space, _ = COMPLEX[0]
    layer = cl.Conv(2, 3, window, param_dtype=jnp.complex64, rngs=nnx.Rngs(0))
    model = nnx.Sequential(layer)
    (x,) = complex_gaussian((2, *space, 2), dtype=np.complex64)
    expected = np.asarray(model(x))
    for rung in ("low_rank", "dense"):
        freer = convlab.relax(model, to=rung, image_shape=(*space, 2))
        assert freer.layers[0].layout.rung == rung
        close(freer(x), expected, 1e-5)
        back = convlab.constrain(freer, to="conv", image_shape=(*space, 2))
        assert back.layers[0].kernel.dtype == np.complex64
        close(back.layers[0].kernel[...], layer.kernel[...], 1e-5)


# --- invalid arguments -------------------------------------------------------------------------------------------------------

SPACE, W3 = (4, 5), cl.Window(3)


def ones(*shape):
    return np.ones(shape)


BAD = [
    (lambda: cl.lift_conv_to_local(ones(3, 2, 2, 3), W3, SPACE), ValueError, r"v holds kernels of \(3, 2\) taps"),
    (lambda: cl.lift_conv_to_local(ones(3, 3, 2, 3).astype(int), W3, SPACE), TypeError, "v has dtype int"),
    (
        lambda: cl.lift_conv_to_dense(ones(3, 3, 2, 3), W3, SPACE, 2),
        ValueError,
        "groups must divide the 3 output channels, got 2",
    ),
    (lambda: cl.lift_conv_to_local(ones(5, 5, 2, 3), cl.Window(5, padding="VALID"), SPACE), ValueError, "fits nowhere"),
    (
        lambda: cl.lift_local_to_dense(ones(5, 4, 3, 3, 2, 3), W3, SPACE),
        ValueError,
        r"for \(5, 4\) positions .* has \(4, 5\)",
    ),
    (lambda: cl.project_local_to_conv(ones(4, 5, 3, 2, 2, 3), W3, SPACE), ValueError, r"kernels of \(3, 2\) taps"),
    (
        lambda: cl.project_dense_to_local(ones(4, 5, 5, 4, 2, 3), W3, SPACE),
        ValueError,
        r"for \(5, 4\) pixels but space is",
    ),
    (lambda: cl.project_dense_to_local(ones(5, 4, 4, 5, 2, 3), W3, SPACE), ValueError, r"for \(5, 4\) positions"),
    (
        lambda: cl.project_dense_to_conv(ones(4, 5, 4, 5, 3, 4), W3, SPACE, 2),
        ValueError,
        "groups must divide the 3 input channels, got 2",
    ),
    (lambda: cl.project_local_to_tiled(ones(4, 5, 3, 3, 2, 3), W3, SPACE, 5), ValueError, r"period \(5, 5\) exceeds"),
    (lambda: cl.project_local_to_tiled(ones(4, 5, 3, 3, 2, 3), W3, SPACE, 0), ValueError, "period must be at least 1"),
    (lambda: cl.project_local_to_tiled(ones(4, 5, 3, 3, 2, 3), W3, SPACE, 1.5), TypeError, "period must be an integer"),
    (
        lambda: cl.project_local_to_tiled(ones(4, 5, 3, 3, 2, 3), W3, SPACE, (2, 2, 2)),
        ValueError,
        "period has 3 entries",
    ),
    (
        lambda: cl.lift_tiled_to_local(ones(2, 2, 3, 3, 2, 3), W3, SPACE, 3),
        ValueError,
        r"tiles of \(2, 2\) .* \(3, 3\)",
    ),
    (lambda: cl.project_local_to_low_rank(ones(4, 5, 3, 3, 2, 3), 21), ValueError, "rank 21 exceeds 20"),
    (lambda: cl.project_local_to_low_rank(ones(4, 5, 3, 3, 2, 3), 0), ValueError, "rank must be at least 1"),
    (lambda: cl.lift_low_rank_to_local(ones(2, 3, 3, 2, 3), ones(4, 5, 3)), ValueError, r"weights mixes \(3,\)"),
    (lambda: cl.lift_low_rank_to_local(ones(2, 3, 3, 2, 3), ones(4, 2)), ValueError, r"weights has \(2,\) axes"),
    (lambda: cl.lift_low_rank_to_local(ones(2, 3, 3, 2, 3), ones(4, 5, 2), W3), ValueError, "give both or none"),
    (lambda: cl.decompose(ones(4, 5, 4, 4, 2, 3), W3, SPACE), ValueError, r"for \(4, 4\) pixels"),
]


@pytest.mark.parametrize("call, error, match", BAD)
def test_invalid_arguments_raise_errors_with_the_value_and_the_requirement(call, error, match):
    with pytest.raises(error, match=match):
        call()


@every_fixed_window
def test_conversions_run_under_jit_and_keep_the_dtype(window, space):
    (w,) = (jnp.asarray(a, jnp.float32) for a in gaussian(dense_shape(window, space, 2, 3)))
    got = cl.project_dense_to_conv(w, window, space)
    assert got.dtype == jnp.float32
    close(got, convlab.project_dense_to_conv(w, window, space), 1e-5)


def test_eager_conversions_of_numpy_arrays_match_compiled_ones():
    window, space = FIXED[0]
    out = window.output_shape(space)
    shared, local, tile = gaussian((*window.size, 2, 3), (*out, *window.size, 2, 3), (2, 2, *window.size, 2, 3))
    (w,) = gaussian(dense_shape(window, space, 2, 3))
    calls = {
        "lift_conv_to_local": (shared, window, space),
        "lift_conv_to_dense": (shared, window, space),
        "lift_local_to_dense": (local, window, space),
        "lift_tiled_to_local": (tile, window, space),
        "project_dense_to_local": (w, window, space),
        "project_local_to_conv": (local, window, space),
        "project_local_to_tiled": (local, window, space, 2),
        "project_local_to_low_rank": (local, 2),
        "decompose": (w, window, space),
    }
    for name, arguments in calls.items():
        close(getattr(convlab, name)(*arguments), getattr(cl, name)(*arguments))
