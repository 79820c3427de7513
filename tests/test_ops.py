"""Test rungs and pools against explicit loops, other libraries and all transformations of JAX."""

import functools

import chex
import compiled as cl
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from strategies import case as windowcase
from strategies import gaussian, windows

import convlab
from convlab.ops.pool import LANES, polyphase_pool

pytestmark = pytest.mark.usefixtures("float64")
SPACE, SIZE, C, D = (7, 5), (3, 2), 4, 6
WINDOW = cl.Window(SIZE, strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2))
OUT = WINDOW.output_shape(SPACE)
BLOCKS = cl.Window((2, 2), 2, "VALID")  # disjoint windows


def _by(implementation, op):
    return functools.partial(op, window=WINDOW, implementation=implementation)


def _mixed(x, v, **options):
    return convlab.low_rank(x, v, WEIGHTS.astype(v.dtype), WINDOW, **options)


LINEAR = {  # name -> (op of image and kernel, uncompiled; shape of the kernel)
    "dense": (convlab.dense, (*OUT, *SPACE, C, D)),
    "locally_connected": (functools.partial(convlab.locally_connected, window=WINDOW), (*OUT, *SIZE, C, D)),
    "locally_connected_groups": (functools.partial(convlab.locally_connected, window=WINDOW, groups=2), (*OUT, *SIZE, 2, D)),
    "tiled": (functools.partial(convlab.tiled, window=WINDOW), (2, 3, *SIZE, C, D)),
    **{
        f"low_rank_{implementation}": (functools.partial(_mixed, implementation=implementation), (3, *SIZE, C, D))
        for implementation in ("kernels", "outputs")
    },
    "conv": (functools.partial(convlab.conv, window=WINDOW), (*SIZE, C, D)),
    "conv_groups": (functools.partial(convlab.conv, window=WINDOW, groups=2), (*SIZE, 2, D)),
    "locally_connected_windows": (_by("windows", convlab.locally_connected), (*OUT, *SIZE, C, D)),
    "locally_connected_blocks": (_by("blocks", convlab.locally_connected), (*OUT, *SIZE, C, D)),
    "conv_lax": (_by("lax", convlab.conv), (*SIZE, C, D)),
    "conv_canonical": (_by("canonical", convlab.conv), (*SIZE, C, D)),
    "conv_windows": (_by("windows", convlab.conv), (*SIZE, C, D)),
    "conv_toeplitz": (lambda x, v, **o: convlab.conv(x, v, cl.Window.full(SPACE), **o), (13, 9, C, D)),
}
POOLS = {"max_pool": convlab.max_pool, "mean_pool": convlab.mean_pool, "blur_pool": convlab.blur_pool}
(WEIGHTS,) = gaussian((*OUT, 3), seed=5)


def case(name, dtype=np.float64, batch=(3,)):
    op, shape = LINEAR[name]
    x, v = gaussian((*batch, *SPACE, C), shape)
    return op, x.astype(dtype), v.astype(dtype)


# --- against loops -----------------------------------------------------------------------------------------------------


@given(windows(cells=300), st.sampled_from([(1, 2, 3), (2, 2, 6), (1, 3, 2), (3, 1, 3)]))
@example(windowcase((5, 5), (3, 2), (1, 1), "SAME", (1, 1)), (2, 2, 6))  # a square window, whose axes could be swapped
@settings(max_examples=8)
def test_every_windowed_rung_matches_explicit_loops(drawn, sizes):
    window, space, reads = drawn
    groups, c, d = sizes
    out, size = oracle.out_shape(reads), window.size
    period = tuple(min(2 + r, n) for r, n in enumerate(out))
    x, local, shared, tile, basis, weights = gaussian(
        (*space, c * groups),
        (*out, *size, c, d),
        (*size, c, d),
        (*period, *size, c * groups, d),
        (2, *size, c * groups, d),
        (*out, 2),
    )
    close(cl.locally_connected(x, local, window, groups), oracle.locally_connected(x, local, reads, groups))
    close(cl.conv(x, shared, window, groups), oracle.conv(x, shared, reads, groups))
    close(cl.tiled(x, tile, window), oracle.tiled(x, tile, reads))
    for implementation in ("kernels", "outputs", "canonical"):
        close(cl.low_rank(x, basis, weights, window, implementation=implementation), oracle.low_rank(x, basis, weights, reads))


@pytest.mark.parametrize("out, space", [((3,), (5,)), ((2, 3), (5, 4)), ((2, 1, 3), (2, 3, 2))])
def test_dense_matches_explicit_loops(out, space):
    x, w = gaussian((*space, 2), (*out, *space, 2, 3))
    close(cl.dense(x, w), oracle.dense(x, w))


@given(windows(cells=600))
@example(windowcase((7, 8), (2, 3), (2, 3), "VALID", (1, 1)))
@example(windowcase((7, 8), (2, 3), (2, 3), ((1, 0), (1, 1)), (1, 1)))
@settings(max_examples=8)
def test_pools_match_explicit_loops(drawn):
    window, space, reads = drawn
    (x,) = gaussian((*space, LANES))
    if not oracle.live(reads).any(tuple(range(len(space), 2 * len(space)))).all():
        for pool in POOLS.values():
            with pytest.raises(ValueError, match="read padding only"):
                pool(x, window)
        return
    close(cl.max_pool(x, window), oracle.pool(x, reads, lambda pixels: pixels.max(0)))
    close(cl.mean_pool(x, window), oracle.pool(x, reads, lambda pixels: pixels.sum(0) / np.prod(window.size)))
    blur = functools.reduce(np.multiply.outer, [binomial(k) for k in window.size])
    kernel = blur[..., None, None] * np.ones((1, 2))
    close(cl.max_pool(x[..., :2], window), np.asarray(cl.max_pool(x, window))[..., :2])
    close(cl.blur_pool(x[..., :2], window), oracle.conv(x[..., :2], kernel, reads, groups=2))


def binomial(size):
    row = np.ones(1)
    for _ in range(size - 1):
        row = np.convolve(row, [0.5, 0.5])
    return row


@given(windows(cells=2000))
def test_unfold_returns_the_pixels_that_each_window_reads(drawn):
    window, space, reads = drawn
    (x,) = gaussian((2, *space, 3))
    expected = np.zeros((2, *oracle.out_shape(reads), *window.size, 3))
    for position, tap, pixel in oracle.each_tap(reads):
        expected[(slice(None), *position, *tap)] = x[(slice(None), *pixel)]
    np.testing.assert_array_equal(cl.unfold(x, window), expected)


def test_unfold_takes_the_windows_that_pools_take():
    (x,) = gaussian((2, 7, 5, 3))
    np.testing.assert_array_equal(cl.unfold(x, cl.Window(3)), cl.unfold(x, cl.Window((3, 3))))
    np.testing.assert_array_equal(cl.unfold(x, (3, 2)), cl.unfold(x, cl.Window((3, 2), (3, 2), "VALID")))
    close(cl.unfold(x, 2).max((3, 4)), cl.max_pool(x, 2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["mean_pool", "blur_pool"])
def test_pools_add_half_precision_in_single(name, dtype):
    x = jax.numpy.asarray(gaussian((2, 9, 9, 3))[0], dtype)
    exact = POOLS[name](x.astype("float32"), cl.Window(5)).astype(dtype)
    np.testing.assert_array_equal(POOLS[name](x, cl.Window(5)), exact)


@pytest.mark.parametrize("space, padding", [((7, 5), "VALID"), ((6, 6), "SAME"), ((7, 5), "SAME"), ((4, 7), ((1, 0), (1, 1)))])
def test_mean_pool_over_disjoint_windows_matches_explicit_loops(space, padding):
    window = cl.Window((2, 3), strides=(2, 3), padding=padding)
    reads = oracle.tables(space, (2, 3), (2, 3), (1, 1), padding)
    (x,) = gaussian((3, *space, 2))
    expected = [oracle.pool(image, reads, lambda pixels: pixels.sum(0) / 6) for image in x]
    close(cl.mean_pool(x, window), np.stack(expected))


MIXED = cl.Window((3, 2), (1, 2), ("SAME", "CIRCULAR"), (2, 1))
MIXED_READS = oracle.tables(SPACE, (3, 2), (1, 2), (2, 1), ("SAME", "CIRCULAR"))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_every_op_on_complex_numbers_matches_explicit_loops(dtype):
    reads, out = MIXED_READS, oracle.out_shape(MIXED_READS)
    shapes = [(*SPACE, 2), (*out, 3, 2, 2, 3), (3, 2, 2, 3), (2, 3, 3, 2, 2, 3), (2, 3, 2, 2, 3), (*out, 2)]
    shapes += [(*out, *SPACE, 2, 3), (3, 2, 1, 4), (*out, 3, 2, 1, 4)]
    parts = zip(gaussian(*shapes), gaussian(*shapes, seed=1), strict=True)
    x, local, shared, tile, basis, weights, w, grouped, local_grouped = ((a + 1j * b).astype(dtype) for a, b in parts)

    @jax.jit
    def results(x):
        return {
            "conv": convlab.conv(x, shared, MIXED),
            **{
                f"conv, {name}": convlab.conv(x, shared, MIXED, implementation=name) for name in ("canonical", "lax", "windows")
            },
            "conv, groups": convlab.conv(x, grouped, MIXED, 2),
            "local": convlab.locally_connected(x, local, MIXED),
            "local, blocks": convlab.locally_connected(x, local, MIXED, implementation="blocks"),
            "local, groups": convlab.locally_connected(x, local_grouped, MIXED, 2),
            "tiled": convlab.tiled(x, tile, MIXED),
            "low rank": convlab.low_rank(x, basis, weights, MIXED),
            "low rank, outputs": convlab.low_rank(x, basis, weights, MIXED, implementation="outputs"),
            "dense": convlab.dense(x, w),
            "mean": convlab.mean_pool(x, MIXED),
            "blur": convlab.blur_pool(x, MIXED),
        }

    conv, low_rank = oracle.conv(x, shared, reads), oracle.low_rank(x, basis, weights, reads)
    blur = np.array([0.25, 0.5, 0.25])[:, None, None, None] * np.full((1, 2, 1, 2), 0.5)
    expected = {
        **dict.fromkeys(("conv", "conv, canonical", "conv, lax", "conv, windows"), conv),
        "conv, groups": oracle.conv(x, grouped, reads, 2),
        **dict.fromkeys(("local", "local, blocks"), oracle.locally_connected(x, local, reads)),
        "local, groups": oracle.locally_connected(x, local_grouped, reads, 2),
        "tiled": oracle.tiled(x, tile, reads),
        **dict.fromkeys(("low rank", "low rank, outputs"), low_rank),
        "dense": oracle.dense(x, w),
        "mean": oracle.conv(x, np.full((3, 2, 1, 2), 1 / 6), reads, 2),
        "blur": oracle.conv(x, blur, reads, 2),
    }
    got = results(x)
    assert {h.dtype for h in got.values()} == {np.dtype(dtype)}
    close(got, {name: h.astype(dtype) for name, h in expected.items()}, 60 * float(np.finfo(dtype).eps))


def test_the_maximum_of_complex_numbers_is_an_error():
    with pytest.raises(TypeError, match="x has dtype complex128 but needs a real one"):
        convlab.max_pool(np.ones((4, 6, 2), complex), 2)


def test_complex_polyphase_pooling_keeps_the_component_with_most_energy():
    (x,) = gaussian((6, 4, 2))
    x = x * np.exp(1j * np.arange(4)[:, None])
    parts = [x[p::2, q::2] for p in range(2) for q in range(2)]
    got = compiled(polyphase_pool)(x, cl.Window((1, 1), 2, "CIRCULAR"))
    close(got, max(parts, key=lambda part: np.sum(np.abs(part) ** 2)))


def test_without_a_window_ops_have_the_size_of_the_kernel_stride_one_and_same_padding():
    reads = oracle.tables(SPACE, SIZE, (1, 1), (1, 1), "SAME")
    x, local, shared, tile, basis, weights = gaussian(
        (*SPACE, 2), (*SPACE, *SIZE, 2, 3), (*SIZE, 2, 3), (2, 3, *SIZE, 2, 3), (2, *SIZE, 2, 3), (*SPACE, 2)
    )
    grouped = np.ascontiguousarray(shared[:, :, :1, :2])
    close(cl.conv(x, shared), oracle.conv(x, shared, reads))
    close(cl.conv(x, grouped, groups=2), oracle.conv(x, grouped, reads, 2))
    close(cl.locally_connected(x, local), oracle.locally_connected(x, local, reads))
    close(cl.tiled(x, tile), oracle.tiled(x, tile, reads))
    close(cl.low_rank(x, basis, weights), oracle.low_rank(x, basis, weights, reads))


@pytest.mark.parametrize("name", ["max_pool", "mean_pool"])
def test_a_pool_of_a_size_has_windows_of_it_that_do_not_overlap(name):
    pool, reduce = getattr(cl, name), {"max_pool": np.max, "mean_pool": np.mean}[name]
    (x,) = gaussian((3, 7, 8, 2))
    blocks = x[:, :6].reshape(3, 3, 2, 4, 2, 2)
    close(pool(x, 2), reduce(blocks, (2, 4)))
    np.testing.assert_array_equal(pool(x, 2), pool(x, cl.Window(2, 2, "VALID")))
    np.testing.assert_array_equal(pool(x, (3, 2)), pool(x, cl.Window((3, 2), (3, 2), "VALID")))
    for size, error, match in ((0, ValueError, "must be at least 1, got 0"), (1.5, TypeError, "integer")):
        with pytest.raises(error, match=match):
            getattr(convlab, name)(x, size)


def test_images_with_four_spatial_axes_go_through_every_op():
    space, size, strides, padding = (3, 2, 3, 2), (2, 2, 3, 1), (1, 2, 1, 1), ("SAME", "VALID", "CIRCULAR", (1, 0))
    window, reads = cl.Window(size, strides, padding), oracle.tables(space, size, strides, (1,) * 4, padding)
    out, period = oracle.out_shape(reads), (2, 1, 2, 1)
    shapes = [(*space, 2), (*out, *size, 2, 3), (*size, 2, 3), (*period, *size, 2, 3), (2, *size, 2, 3), (*out, 2)]
    x, local, shared, tile, basis, weights = gaussian(*shapes)
    (h,) = gaussian((*out, 3), seed=1)

    @jax.jit
    def results(x, h):
        return {
            "conv": convlab.conv(x, shared, window),
            "local": convlab.locally_connected(x, local, window),
            "tiled": convlab.tiled(x, tile, window),
            "low rank": convlab.low_rank(x, basis, weights, window),
            "dense": convlab.dense(x, convlab.lift_conv_to_dense(shared, window, space)),
            "transpose": jnp.vdot(x, convlab.conv_transpose(h, shared, window, space)),
            "unfold": jnp.tensordot(convlab.unfold(x, window), shared, 5),
            "mean": convlab.mean_pool(x, cl.Window(size, strides, "SAME")),
            "max": convlab.max_pool(x, (2, 2, 3, 1)),
        }

    conv, same = oracle.conv(x, shared, reads), oracle.tables(space, size, strides, (1,) * 4, "SAME")
    disjoint = oracle.tables(space, (2, 2, 3, 1), (2, 2, 3, 1), (1,) * 4, "VALID")
    expected = {
        **dict.fromkeys(("conv", "dense", "unfold"), conv),
        "local": oracle.locally_connected(x, local, reads),
        "tiled": oracle.tiled(x, tile, reads),
        "low rank": oracle.low_rank(x, basis, weights, reads),
        "transpose": np.vdot(conv, h),
        "mean": oracle.pool(x, same, lambda pixels: pixels.sum(0) / np.prod(size)),
        "max": oracle.pool(x, disjoint, lambda pixels: pixels.max(0)),
    }
    close(results(x, h), expected)


# --- algebra -----------------------------------------------------------------------------------------------------------


def test_blur_weights_sum_to_one_and_remove_the_highest_frequency():
    alternating = np.array([(-1.0) ** (k + l) for k in range(6) for l in range(8)]).reshape(6, 8, 1)
    for size in (2, 3, 5):
        window = cl.Window((size, size), padding="CIRCULAR")
        close(cl.blur_pool(np.ones((6, 8, 1)), window), np.ones((6, 8, 1)))
        close(cl.blur_pool(alternating, window), np.zeros((6, 8, 1)))


def test_one_pixel_convolution_applies_one_linear_map_to_every_pixel():
    x, v = gaussian((3, *SPACE, C), (1, 1, C, D))
    close(cl.conv(x, v, cl.Window(1)), x @ v[0, 0])


def test_correlation_commutes_up_to_a_flip():
    f, g = gaussian((7, 1), (3, 1, 1))
    one = cl.conv(f, g, cl.Window((3,), padding="FULL"))
    other = cl.conv(g[:, 0], f[:, :, None], cl.Window((7,), padding="FULL"))
    close(one, np.asarray(other)[::-1])


def test_full_convolutions_commute_for_one_channel_but_not_for_several():
    (x,) = gaussian((6, 5, 1))
    u, v = gaussian((3, 2, 1, 1), (2, 3, 1, 1))
    uv = cl.conv(cl.conv(x, u, full(u)), v, full(v))
    vu = cl.conv(cl.conv(x, v, full(v)), u, full(u))
    close(uv, vu)
    (x,) = gaussian((6, 5, 2))
    u, v = gaussian((3, 2, 2, 2), (2, 3, 2, 2))
    uv = cl.conv(cl.conv(x, u, full(u)), v, full(v))
    vu = cl.conv(cl.conv(x, v, full(v)), u, full(u))
    assert np.abs(np.asarray(uv) - vu).max() > 0.1


def full(v):
    return cl.Window(v.shape[:2], padding="FULL")


def test_maximum_of_two_numbers_is_a_sum_of_relus():
    a, b = gaussian((100,), (100,), seed=3)
    relu = jax.nn.relu
    close((relu(a + b) - relu(-a - b) + relu(a - b) + relu(b - a)) / 2, np.maximum(a, b))


def test_mean_pooling_is_a_depthwise_convolution_and_max_pooling_is_not_linear():
    x, y = gaussian((*SPACE, C), (*SPACE, C))
    kernel = np.ones((3, 2, 1, C)) / 6
    close(cl.mean_pool(x, WINDOW), cl.conv(x, kernel, WINDOW, groups=C))
    window = cl.Window(2, 2, "VALID").with_ndim(2)
    both, one, other = (np.asarray(cl.max_pool(image, window)) for image in (x + y, x, y))
    assert np.abs(both - one - other).max() > 0.1


@given(st.sampled_from(["VALID", "CIRCULAR"]), *[st.integers(1, 4)] * 4)
@settings(max_examples=8)
def test_two_convolutions_equal_one_with_the_composed_kernel(padding, p, q, r, s):
    x, u, v = gaussian((9, 8, 2), (p, q, 2, 3), (r, s, 3, 2))
    one = composed(u, v)
    two = cl.conv(cl.conv(x, u, cl.Window((p, q), padding=padding)), v, cl.Window((r, s), padding=padding))
    at_once = cl.conv(x, one, cl.Window(one.shape[:2], padding=padding))
    if padding == "CIRCULAR":  # windows of even size are off centre, and their offsets add up
        lean = [(k - 1) // 2 + (m - 1) // 2 - (k + m - 2) // 2 for k, m in ((p, r), (q, s))]
        at_once = np.roll(at_once, lean, (0, 1))
    close(at_once, two)


def composed(u, v):
    """Compose two kernels by loops: tap offsets add and channel matrices multiply."""
    (p, q), (r, s) = u.shape[:2], v.shape[:2]
    w = np.zeros((p + r - 1, q + s - 1, u.shape[2], v.shape[3]))
    for (a, b), (e, f) in ((one, other) for one in np.ndindex(p, q) for other in np.ndindex(r, s)):
        w[a + e, b + f] += u[a, b] @ v[e, f]
    return w


def test_two_zero_padded_convolutions_equal_the_composed_one_only_inside_the_border():
    x, u, v = gaussian((12, 12, 1), (3, 3, 1, 4), (3, 3, 4, 1))
    two = np.asarray(cl.conv(cl.conv(x, u, cl.Window(3)), v, cl.Window(3)))
    differs = np.abs(np.asarray(cl.conv(x, composed(u, v), cl.Window(5))) - two)[..., 0] > 1e-9
    assert differs.sum() == 44
    assert not differs[1:-1, 1:-1].any()


@given(st.integers(3, 7), st.integers(3, 7), st.integers(2, 3), st.integers(2, 3))
@settings(max_examples=8)
def test_singular_values_of_a_circular_convolution_are_those_of_its_frequency_responses(k, l, a, b):
    (v,) = gaussian((a, b, 2, 3))
    spectrum = np.linalg.svd(np.fft.fft2(v, (k, l), axes=(0, 1)), compute_uv=False)
    for padding, agrees in (("CIRCULAR", True), ("SAME", False)):
        w = np.asarray(cl.lift_conv_to_dense(v, cl.Window((a, b), padding=padding), (k, l)))
        matrix = w.transpose(0, 1, 5, 2, 3, 4).reshape(k * l * 3, k * l * 2)
        got, expected = np.sort(np.linalg.svd(matrix, compute_uv=False)), np.sort(spectrum.ravel())
        assert (np.abs(got - expected).max() < 1e-11) == agrees


@given(st.integers(0, 8), st.integers(0, 7), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=6)
def test_circular_convolution_commutes_with_every_shift_but_zero_padding_fails_at_the_border(s, t, a, b):
    x, v = gaussian((9, 8, 2), (a, b, 2, 2))
    moved = np.roll(x, (s, t), (0, 1))
    circular = functools.partial(cl.conv, v=v, window=cl.Window((a, b), padding="CIRCULAR"))
    close(circular(moved), np.roll(circular(x), (s, t), (0, 1)))
    zero = functools.partial(cl.conv, v=v, window=cl.Window((a, b)))
    error = np.abs(np.asarray(zero(moved)) - np.roll(zero(x), (s, t), (0, 1))).max(-1)
    same = np.outer(inside(9, a, s), inside(8, b, t))
    assert error[same].max(initial=0) < 1e-12
    if (s and a > 1) or (t and b > 1):
        assert error.max() > 1e-3


def inside(n, size, shift):
    """Mark outputs whose windows lie inside the image before and after the shift."""
    low, high = (size - 1) // 2, size // 2
    window = np.array([low <= i < n - high for i in range(n)])
    return window & np.roll(window, shift)


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_circular_convolution_commutes_only_with_shifts_by_its_stride(stride):
    x, v = gaussian((12, 6, 2), (3, 3, 2, 2))
    strided = functools.partial(cl.conv, v=v, window=cl.Window(3, stride, "CIRCULAR"))
    close(strided(np.roll(x, stride, 0)), np.roll(strided(x), 1, 0))
    for shift in range(1, stride):
        moved = np.asarray(strided(np.roll(x, shift, 0)))
        errors = [np.abs(moved - np.roll(strided(x), back, 0)).max() for back in (0, 1)]
        assert min(errors) > 0.1


@pytest.mark.parametrize("name", LINEAR)
def test_ops_are_linear_in_image_and_kernel(name):
    op, x, v = case(name)
    y, u = gaussian(x.shape, v.shape, seed=1)
    op = compiled(op)
    h = np.asarray(op(x, v))
    close(op(2 * x - y, v), 2 * h - op(y, v), 1e-11)
    close(op(x, 2 * v - u), 2 * h - op(x, u), 1e-11)


# --- against other libraries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", ((2, 1), (0, 3))])
@pytest.mark.parametrize("strides, dilation, groups", [((2, 1), (1, 2), 2), ((1, 3), (1, 1), 1)])
def test_conv_matches_lax(padding, strides, dilation, groups):
    x, v = gaussian((3, 11, 7, 4), (3, 2, 4 // groups, 6))
    window = cl.Window((3, 2), strides, padding, dilation)
    expected = lax.conv_general_dilated(
        x,
        v,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    close(cl.conv(x, v, window, groups), expected)


@pytest.mark.parametrize("strides, dilation, padding", [((1, 1), (1, 1), "SAME"), ((2, 1), (1, 2), ((1, 0), (2, 1)))])
def test_locally_connected_matches_lax(strides, dilation, padding):
    window, space = cl.Window((3, 2), strides, padding, dilation), (7, 5)
    out = window.output_shape(space)
    x, v = gaussian((3, *space, 2), (*out, 3, 2, 2, 4))
    fused = v.transpose(0, 1, 4, 2, 3, 5).reshape(*out, -1, 4)
    expected = lax.conv_general_dilated_local(
        x, fused, strides, padding, (3, 2), rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    close(cl.locally_connected(x, v, window), expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 2])
def test_conv_and_pools_match_torch(rank, padding):
    torch = pytest.importorskip("torch")
    space, size, strides, dilation = (7, 5, 6)[:rank], (3, 2, 2)[:rank], (2, 1, 2)[:rank], (1, 2, 1)[:rank]
    x, v = gaussian((2, *space, 4), (*size, 2, 6))
    tensor = torch.tensor(np.moveaxis(x, -1, 1))
    weight = torch.tensor(np.moveaxis(v, (-1, -2), (0, 1)))
    apply = getattr(torch.nn.functional, f"conv{rank}d")
    expected = apply(tensor, weight, stride=strides, padding=padding, dilation=dilation, groups=2)
    close(cl.conv(x, v, cl.Window(size, strides, padding, dilation), 2), np.moveaxis(expected.numpy(), 1, -1))
    pooled = getattr(torch.nn.functional, f"max_pool{rank}d")(tensor, size, strides, padding // 2, dilation)
    close(cl.max_pool(x, cl.Window(size, strides, padding // 2, dilation)), np.moveaxis(pooled.numpy(), 1, -1))


@pytest.mark.parametrize("strides, channels", [((2, 1), 3), ((3, 2), LANES)])
def test_max_pool_gives_the_gradient_of_ties_to_the_first_pixel_like_reduce_window(strides, channels):
    x = np.random.default_rng(0).integers(0, 3, (2, 10, 9, channels)).astype(float)
    window = cl.Window((3, 2), strides, "VALID")

    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, *strides, 1), "VALID")

    (g,) = gaussian(jax.eval_shape(reference, x).shape)
    ours, theirs = jax.jit(lambda x, g: [jax.vjp(f, x)[1](g)[0] for f in (lambda x: cl.max_pool(x, window), reference)])(x, g)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


# --- under the transformations of JAX ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
def test_ops_agree_under_jit_vmap_scan_and_several_batch_axes(name):
    op, x, v = case(name, batch=(2, 3))
    h = np.stack([[op(image, v) for image in row] for row in x])
    close(op(x, v), h)

    @jax.jit
    def transformed(x, v, both):
        scanned = lax.scan(lambda _, row: (None, op(row, v)), None, x)[1]
        return {"jit": op(x, v), "vmap": jax.vmap(op, (0, None))(x, v), "both": jax.vmap(op)(x, both), "scan": scanned}

    results = transformed(x, v, np.stack([v, v]))
    close(results, dict.fromkeys(results, h))


@pytest.mark.parametrize("name", LINEAR)
def test_ops_have_forward_and_reverse_derivatives_up_to_second_order(name):
    op, x, v = case(name, batch=())

    @jax.jit
    def loss(x, v):
        return jnp.sum(jnp.sin(op(x, v) / 10))

    jax.test_util.check_grads(loss, (x, v), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)

    @jax.jit
    def second(x, v, tangent, other):
        forward_over_reverse = jax.jvp(jax.grad(loss), (x, v), (tangent, jnp.zeros_like(v)))[1]
        reverse_over_forward = jax.grad(lambda x: jax.jvp(lambda x: loss(x, v), (x,), (tangent,))[1])(x)
        mixed = jax.grad(lambda x: jax.jvp(lambda v: loss(x, v), (v,), (other,))[1])(x)
        return forward_over_reverse, reverse_over_forward, mixed

    one, other, mixed = second(x, v, *gaussian(x.shape, v.shape, seed=2))
    close(one, other, 1e-10)
    chex.assert_tree_all_finite(mixed)


@pytest.mark.parametrize("name, window, channels", [*((name, WINDOW, 2) for name in POOLS), ("max_pool", BLOCKS, LANES)])
def test_pools_have_forward_and_reverse_derivatives_and_agree_under_jit_vmap_and_scan(name, window, channels):
    pool = functools.partial(POOLS[name], window=window)
    (x,) = gaussian((3, *SPACE, channels))
    jax.test_util.check_grads(jax.jit(lambda x: jnp.sin(pool(x))), (x,), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)
    h = np.stack([pool(image) for image in x])
    close(pool(x), h)

    @jax.jit
    def transformed(x):
        scanned = lax.scan(lambda _, image: (None, pool(image)), None, x)[1]
        return {"jit": pool(x), "vmap": jax.vmap(pool)(x), "scan": scanned}

    results = transformed(x)
    close(results, dict.fromkeys(results, h))


def test_max_pool_of_blocks_keeps_non_finite_pixels_inside_their_block():
    x = np.zeros((*SPACE, LANES))
    x[1, 1, 0], x[3, 3, 1] = np.nan, np.inf
    h = cl.max_pool(x, BLOCKS)
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(h)), [[0, 0, 0], [1, 1, 1]])
    gradient = jax.jit(jax.grad(lambda x: cl.max_pool(x, BLOCKS)[1:].sum()))(x)
    np.testing.assert_array_equal(np.argwhere(np.asarray(gradient)[..., 1]), [[2, 0], [3, 3], [4, 0], [4, 2]])


@pytest.mark.parametrize("name", [*LINEAR, *POOLS])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_ops_keep_their_dtype_and_round_accordingly(name, dtype):
    if name in POOLS:
        op, (x,) = functools.partial(POOLS[name], window=WINDOW), gaussian((*SPACE, C))
        exact, got = op(x), op(x.astype(dtype))
    else:
        op, x, v = case(name, batch=())
        exact, got = op(x, v), op(x.astype(dtype), v.astype(dtype))
    assert got.dtype == dtype
    scale = np.abs(exact).max()
    np.testing.assert_allclose(np.asarray(got, float), exact, atol=8 * float(jnp.finfo(dtype).eps) * scale, rtol=0)


@pytest.mark.parametrize("name", [*LINEAR, *POOLS])
def test_empty_batch_gives_an_empty_result_and_a_zero_gradient(name):
    if name in POOLS:
        assert POOLS[name](np.zeros((2, 0, *SPACE, C)), WINDOW).shape == (2, 0, *OUT, C)
        return
    op, _, v = case(name)
    full = jax.eval_shape(op, np.zeros((2, 3, *SPACE, C)), v)
    assert op(np.zeros((2, 0, *SPACE, C)), v).shape == (2, 0, *full.shape[2:])
    gradient = jax.jit(jax.grad(lambda v: op(np.zeros((0, *SPACE, C)), v).sum()))(v)
    np.testing.assert_array_equal(gradient, np.zeros(v.shape))


@pytest.mark.parametrize("name", LINEAR)
def test_result_has_the_preferred_element_type(name):
    op, x, v = case(name, jnp.bfloat16)
    assert op(x, v, preferred_element_type=jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("name", LINEAR)
def test_image_and_kernel_of_different_dtypes_are_promoted(name):
    op, x, v = case(name)
    assert op(x.astype(jnp.bfloat16), v.astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("name", [name for name in LINEAR if name not in ("dense", "conv_toeplitz")])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_non_finite_pixel_reaches_only_the_outputs_that_read_it(name, value):
    op, x, v = case(name, batch=())
    broken = x.copy()
    broken[2, 3] = value
    op = compiled(op)
    bad = np.asarray(op(broken, v))
    reads = oracle.tables(SPACE, SIZE, (2, 1), (1, 2), ((1, 2), (0, 1)))
    sees = np.zeros(OUT, bool)
    for position, _, pixel in oracle.each_tap(reads):
        sees[position] |= pixel == (2, 3)
    np.testing.assert_array_equal(~np.isfinite(bad).all(-1), sees)
    np.testing.assert_allclose(bad[~sees], np.asarray(op(x, v))[~sees], rtol=1e-12)


# --- invalid arguments -----------------------------------------------------------------------------------------------------

X = np.ones((2, 8, 6, 4), np.float32)


def ones(*shape):
    return np.ones(shape, np.float32)


W33 = cl.Window((3, 3))
BAD = [
    (lambda: cl.conv(X, ones(3, 3, 3, 5), W33), ValueError, r"x has 4 channels but v of shape \(3, 3, 3, 5\) reads 3"),
    (lambda: cl.conv(X, ones(3, 3, 2, 5), W33, 2), ValueError, "groups must divide the 5 output channels of v, got 2"),
    (lambda: cl.conv(X, ones(3, 3, 4, 5), W33, 0), ValueError, "groups must be an integer of at least 1, got 0"),
    (
        lambda: cl.conv(X, ones(3, 2, 4, 5), W33),
        ValueError,
        r"v holds kernels of \(3, 2\) taps but Window.* has \(3, 3\)",
    ),
    (lambda: cl.conv(X, ones(4, 5), W33), ValueError, r"v has shape \(4, 5\); needs one axis per spatial axis"),
    (lambda: cl.conv(X, ones(1, 1, 1, 1, 4, 5), W33), ValueError, "needs 4 spatial axes and channels"),
    (
        lambda: cl.conv(ones(6, 4), ones(3, 3, 4, 5), W33),
        ValueError,
        r"x has shape \(6, 4\); needs 2 spatial axes and channels",
    ),
    (lambda: cl.conv(X, ones(3, 3, 3, 4, 5), W33), ValueError, "has 2 spatial axes but 3 are needed"),
    (lambda: cl.conv(X.astype(int), ones(3, 3, 4, 5), W33), TypeError, "x has dtype int.* but needs a floating one"),
    (lambda: cl.conv(X, ones(3, 3, 4, 5).astype(int), W33), TypeError, "v has dtype int"),
    (lambda: cl.conv(X[:, :0], ones(3, 3, 4, 5), W33), ValueError, r"x is empty: its shape is \(2, 0, 6, 4\)"),
    (lambda: cl.conv(X, ones(3, 3, 4, 0), W33), ValueError, "v is empty"),
    (lambda: cl.conv(X, ones(9, 9, 4, 5), cl.Window(9, padding="VALID")), ValueError, "fits nowhere"),
    (lambda: cl.conv(X, ones(3, 3, 4, 5), 3), TypeError, r"window must be a convlab.Window such as Window\(3\), got 3"),
    (lambda: cl.conv(X, ones(3, 3, 4, 5), W33, implementation="fast"), ValueError, "implementation 'fast' is unknown"),
    (
        lambda: cl.locally_connected(X, ones(7, 6, 3, 3, 4, 5), W33),
        ValueError,
        r"v holds kernels for \(7, 6\) positions but Window\(size=\(3, 3\), .* on \(8, 6\) pixels has \(8, 6\)",
    ),
    (lambda: cl.locally_connected(X, ones(8, 6, 3, 2, 4, 5), W33), ValueError, r"kernels of \(3, 2\) taps"),
    (lambda: cl.locally_connected(X, ones(8, 6, 3, 3, 5), W33), ValueError, "one axis per spatial axis and one axis"),
    (lambda: cl.locally_connected(X, ones(8, 6, 3, 3, 3, 5), W33), ValueError, "x has 4 channels"),
    (lambda: cl.tiled(X, ones(2, 7, 3, 3, 4, 5), W33), ValueError, r"period \(2, 7\) exceeds the \(8, 6\) positions"),
    (lambda: cl.tiled(X, ones(2, 2, 3, 2, 4, 5), W33), ValueError, r"kernels of \(3, 2\) taps"),
    (
        lambda: cl.low_rank(X, ones(2, 3, 3, 4, 5), ones(8, 6, 2), W33, implementation="fast"),
        ValueError,
        "implementation 'fast' is unknown; needs one of auto, kernels, outputs, canonical",
    ),
    (
        lambda: cl.low_rank(X, ones(2, 3, 3, 4, 5), ones(8, 6, 3), W33),
        ValueError,
        r"weights mixes \(3,\) kernels but basis",
    ),
    (
        lambda: cl.low_rank(X, ones(2, 3, 3, 4, 5), ones(6, 8, 2), W33),
        ValueError,
        r"weights holds kernels for \(6, 8\)",
    ),
    (lambda: cl.dense(X, ones(3, 2, 6, 8, 4, 5)), ValueError, r"w holds weights for \(6, 8\) pixels but x of shape"),
    (lambda: cl.dense(X, ones(3, 2, 8, 6, 3, 5)), ValueError, "x has 4 channels but w"),
    (lambda: cl.dense(X, ones(2, 8, 6, 4, 5)), ValueError, "needs one axis per spatial axis and one axis"),
    (lambda: cl.max_pool(X.astype(np.uint8), W33), TypeError, "x has dtype uint8"),
    (lambda: cl.mean_pool(ones(4), W33), ValueError, "needs 2 spatial axes and channels"),
    (lambda: cl.max_pool(X, cl.Window((2, 2), padding=3)), ValueError, "read padding only"),
    (lambda: cl.unfold(X, cl.Window(3), 4), ValueError, "needs 4 spatial axes and channels"),
]


@pytest.mark.parametrize("call, error, match", BAD)
def test_invalid_arguments_raise_errors_with_the_value_and_the_requirement(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("name", ["locally_connected", "conv", "tiled"])
def test_annotations_hold_on_images_with_two_spatial_axes(name):
    from beartype import beartype
    from beartype.roar import BeartypeCallHintViolation
    from jaxtyping import jaxtyped

    op = jaxtyped(typechecker=beartype)(getattr(convlab, name))
    x, v = map(jnp.asarray, case(name)[1:])
    op(x, v, WINDOW)
    with pytest.raises((BeartypeCallHintViolation, TypeError)):
        op(x, v[..., 0], WINDOW)
