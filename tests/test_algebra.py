"""Test composition, factorisation and transposition of kernels against sequences of convolutions."""

import functools
import itertools

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from assertions import close
from compiled import compiled
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import NAMES, gaussian, windows

from convlab import algebra

pytestmark = pytest.mark.usefixtures("float64")
SPACE = (11, 13)
factorise, merge_batch_norm = map(compiled, (algebra.factorise, algebra.merge_batch_norm))
transfer_function = compiled(algebra.transfer_function)


def with_window(function):
    """Compile a function that returns arrays followed by a window."""

    @functools.wraps(function)
    def call(*arguments, **options):
        windows = []

        def arrays_of(*arguments, **options):
            *arrays, window = function(*arguments, **options)
            windows.append(window)
            return arrays

        return *compiled(arrays_of)(*arguments, **options), *windows

    return call


compose, adjoint = map(with_window, (algebra.compose, algebra.adjoint))


def conv(x, v, window):
    """Compute a convolution from its equation, as a sum over taps of pixels times weights."""
    ndim = np.ndim(v) - 2
    x, v = np.asarray(x), np.asarray(v)
    space = x.shape[-1 - ndim : -1]
    pixels = x.reshape(*x.shape[: x.ndim - 1 - ndim], -1, x.shape[-1])
    pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1, :])], -2)  # the last pixel is zero and stands for padding
    return np.tensordot(pixels[..., window.reads(space), :], v, ndim + 1)


def kernels(one, two, channels=(2, 3, 2)):
    c, e, d = channels
    return gaussian((*one, c, e), (*two, e, d))


# --- composition -----------------------------------------------------------------------------------------------------

W = cl.Window
EXACT = {
    "valid": (W((3, 2), padding="VALID"), W((2, 3), padding="VALID"), SPACE),
    "valid, all else": (W((3, 2), (2, 1), "VALID", (1, 3)), W((2, 2), (1, 2), "VALID", (2, 1)), (19, 17)),
    "circular": (W((3, 5), padding="CIRCULAR"), W((5, 3), padding="CIRCULAR"), SPACE),
    "circular, even": (W((2, 4), padding="CIRCULAR"), W((2, 3), padding="CIRCULAR"), SPACE),
    "circular, dilated": (W((2, 3), 1, "CIRCULAR", (3, 2)), W((2, 2), (2, 3), "CIRCULAR", (3, 2)), SPACE),
    "circular, strided": (W((3, 2), (2, 3), "CIRCULAR"), W((2, 3), (1, 2), "CIRCULAR"), (10, 12)),
    "full": (W((3, 2), (2, 1), "FULL"), W((2, 3), (1, 2), "FULL"), SPACE),
    "full, then same": (W((3, 2), padding="FULL"), W((3, 3)), SPACE),
    "causal": (W((3,), 2, "CAUSAL"), W((2,), 1, "CAUSAL", 3), (17,)),
    "same, then valid": (W(3, (2, 3)), W((2, 3), padding="VALID"), SPACE),
    "mirrored, then one tap": (W((3, 2), 1, "REFLECT"), W(1, (2, 1)), SPACE),
    "one tap, then the border": (W(1), W((3, 2), (1, 2), "EDGE"), SPACE),
    "one tap, then around": (W(1, padding="FULL"), W((3, 2), (1, 2), "CIRCULAR"), SPACE),
    "three axes": (W((2, 1, 2), padding="VALID"), W((1, 2, 2), padding="VALID"), (4, 3, 5)),
    "cylinder": (W((3, 2), padding=("VALID", "CIRCULAR")), W((2, 4), padding=("VALID", "CIRCULAR")), SPACE),
    "cylinder, all else": (W((3, 2), (1, 2), ("FULL", "CIRCULAR"), (2, 1)), W((2, 3), 2, ("SAME", "CIRCULAR")), (11, 12)),
    "an axis each": (W((3, 1), padding=("REFLECT", "VALID")), W((1, 3), padding=("VALID", "CIRCULAR")), SPACE),
    "an axis each, in turn": (W((1, 3), padding="EDGE"), W((3, 1), (2, 1), ("FULL", "CIRCULAR")), SPACE),
}


def both(first, second, one, two, space):
    """Apply two convolutions in sequence, and the composed one."""
    (x,) = gaussian((2, *space, first.shape[-2]), seed=1)
    v, window = compose(first, second, one, two, space=space)
    return conv(conv(x, first, one), second, two), conv(x, v, window), window


@pytest.mark.parametrize("one, two, space", EXACT.values(), ids=EXACT)
def test_two_convolutions_in_sequence_equal_the_composed_one(one, two, space):
    ndim = len(space)
    first, second = kernels(one.taps(ndim), two.taps(ndim))
    expected, got, _ = both(first, second, one, two, space)
    close(got, expected)
    assert algebra.is_composable(one, two, space).all()


SAME = {
    "same": (W(3), W(3), (12, 12)),
    "same, oblong": (W((3, 4), 1, "SAME_LOWER", (2, 1)), W((2, 5), (2, 1)), SPACE),
    "strided": (W((3, 2), (2, 3)), W((5, 3), (1, 2)), (14, 17)),
    "pairs": (W((3, 3), padding=((2, 0), (1, 1))), W((2, 3), padding=((0, 1), (2, 2))), SPACE),
    "circular with a seam": (W((3, 3), (2, 1), "CIRCULAR"), W((3, 3), padding="CIRCULAR"), SPACE),
    "fewer pixels": (W((3, 2), padding=((-1, 2), "SAME")), W((2, 3), padding=((1, 1), (1, -2))), SPACE),
    "globe": (W((3, 2), padding=("SAME", "CIRCULAR")), W((2, 3), (1, 2), (1, "CIRCULAR")), SPACE),
    "globe with a seam": (W((3, 3), (1, 2), ("SAME", "CIRCULAR")), W((3, 3), padding=((1, 0), "CIRCULAR")), SPACE),
}


@pytest.mark.parametrize("one, two, space", SAME.values(), ids=SAME)
def test_composes_is_false_exactly_where_two_convolutions_differ_from_their_composition(one, two, space):
    first, second = kernels(one.taps(2), two.taps(2))
    expected, got, _ = both(first, second, one, two, space)
    gap = np.abs(got - expected).max((0, -1))
    same = algebra.is_composable(one, two, space)
    assert gap[same].max() < 1e-12
    assert not same.all()
    assert gap[~same].min() > 1e-4


def test_two_3x3_convolutions_differ_from_their_composition_on_44_of_144_pixels():
    assert (~algebra.is_composable(W(3), W(3), (12, 12))).sum() == 44


def test_composed_window_has_a_named_padding_where_one_exists():
    first, second = kernels((3, 3), (3, 3))
    for padding in ("VALID", "FULL", "CIRCULAR", "SAME", "SAME_LOWER"):
        window = compose(first, second, W(3, padding=padding), W(3, padding=padding))[1]
        assert window == W((5, 5), padding="SAME" if padding == "SAME_LOWER" else padding)
    even = kernels((2, 2), (2, 2))
    assert compose(*even, W(2), W(2))[1].padding == ((0, 2), (0, 2))
    assert compose(*even, W(2), W(2, padding="SAME_LOWER"))[1].padding == "SAME"
    strided = compose(first, second, W(3, 2, "VALID", 2), W(3, 3, "VALID"))[1]
    assert strided == W((5, 5), 6, "VALID", 2)
    globe = W(3, padding=("SAME", "CIRCULAR"))
    assert compose(first, second, globe, globe)[1] == W((5, 5), padding=("SAME", "CIRCULAR"))
    assert compose(first, second, globe, W(3, padding=("VALID", "CIRCULAR")))[1].padding == ((1, 1), "CIRCULAR")
    rows, columns = kernels((3, 1), (1, 3))
    assert compose(rows, columns, *[W(k, padding="CIRCULAR") for k in ((3, 1), (1, 3))])[1] == W((3, 3), padding="CIRCULAR")


@st.composite
def two_windows(draw):
    """Draw two windows in sequence with any padding along each axis, and the pixels of the first."""
    one, space, reads = draw(windows(ndims=(1, 2), cells=400))
    out, ndim = oracle.out_shape(reads), len(space)
    size, strides, dilation = (draw(st.tuples(*[st.integers(1, most)] * ndim)) for most in (3, 2, 2))
    names = st.sampled_from(NAMES) | st.tuples(st.integers(-1, 1), st.integers(-1, 2))
    padding = [draw(st.just(name if isinstance(name, str) else "VALID") | names) for name in one.paddings]
    assume(all(len(table) > 0 for table in oracle.tables(out, size, strides, dilation, padding)))
    return one, W(size, strides, padding, dilation), space


@given(two_windows())
@settings(max_examples=12)
def test_two_windows_of_any_padding_compose_where_the_mask_holds_or_both_functions_raise_one_error(drawn):
    one, two, space = drawn
    first, second = kernels(one.size, two.size, (1, 2, 1))
    try:
        same = algebra.is_composable(one, two, space)
    except ValueError:
        for function, arguments in ((algebra.is_composable, ()), (algebra.compose, (first, second))):
            with pytest.raises(ValueError, match="is no convolution: outside the images they read"):
                function(*arguments, one, two, space=space)
        return
    expected, got, _ = both(first, second, one, two, space)
    gap = np.abs(got - expected).max((0, -1))
    assert gap[same].max(initial=0) < 1e-12
    assert gap[~same].min(initial=1) > 1e-6


def test_complex_kernels_compose():
    one, two = W((3, 2), padding=("FULL", "CIRCULAR")), W((2, 3), padding=("VALID", "CIRCULAR"))
    parts = [kernels(one.size, two.size), [2 * v[::-1] for v in kernels(one.size, two.size)]]
    first, second = (a + 1j * b for a, b in zip(*parts, strict=True))
    expected, got, _ = both(first, second, one, two, SPACE)
    close(got, expected)
    assert np.abs(expected.imag).max() > 1


@pytest.mark.parametrize(
    "one, two, match",
    [
        (W(3), W(3, padding="REFLECT"), "is no convolution: outside the images they read zero and reflect"),
        (W(3, padding="EDGE"), W(3, padding="EDGE"), "is no convolution"),
        (W(3, padding="CIRCULAR"), W(3), "wrap and zero"),
        (W(3, 2), W(3), "space is missing"),
        (W(2), W(3), r"kernels of \(3, 3\) taps"),
        (W(3, padding=("VALID", "CIRCULAR")), W(3, padding="VALID"), "they read wrap and zero along axis 1"),
        (W(3, padding=("SAME", "CIRCULAR")), W(3, padding=("REFLECT", "CIRCULAR")), "read zero and reflect along axis 0"),
        (W(3, (1, 2), ("VALID", "SAME")), W(3), r"space is missing; .* depends on the number of pixels"),
    ],
)
def test_compositions_that_are_not_convolutions_raise_errors(one, two, match):
    with pytest.raises(ValueError, match=match):
        algebra.compose(*kernels((3, 3), (3, 3)), one, two)


def test_composing_kernels_whose_channels_disagree_raises_an_error():
    first, _ = kernels((3, 3), (3, 3))
    with pytest.raises(ValueError, match=r"second reads \(2,\) channels but first returns \(3,\)"):
        algebra.compose(first, first, W(3), W(3))


ADJOINTS = [
    (W((3, 2)), SPACE),
    (W((3, 2), padding="VALID", dilation=(1, 2)), SPACE),
    (W((4, 3), padding="CIRCULAR"), SPACE),
    (W((2, 2), padding="CIRCULAR", dilation=3), SPACE),
    (W((3, 2), padding=((2, 0), (0, 1))), SPACE),
    (W((3,), padding="CAUSAL"), (7,)),
    (W((3, 2), padding=("SAME", "CIRCULAR")), SPACE),
    (W((2, 3), padding=("CIRCULAR", (0, 1)), dilation=(3, 1)), SPACE),
    (W((1, 3), padding=("REFLECT", "CIRCULAR")), SPACE),
    (W((2, 3), padding=((3, 2), "CIRCULAR")), SPACE),  # whose transpose removes pixels
    (W((2, 3), padding=((-1, -2), "SAME")), SPACE),
]


@pytest.mark.parametrize("window, space", ADJOINTS)
def test_adjoint_is_the_convolution_of_the_conjugate_transposed_matrix(window, space):
    v, imaginary = gaussian(*[(*window.taps(len(space)), 2, 3)] * 2)
    v = v + 1j * imaginary
    x, y, z = gaussian((*space, 2), *[(*window.output_shape(space), 3)] * 2, seed=1)
    y = y + 1j * z
    turned, back = adjoint(v, window)
    close(np.vdot(conv(x, v, window), y), np.vdot(x, conv(y, turned, back)))
    again, forth = adjoint(turned, back)
    close(conv(x, again, forth), conv(x, v, window))


@pytest.mark.parametrize(
    "window, match",
    [
        (W(3, 2), "stride 1"),
        (W(3, padding="EDGE"), "no convolution"),
        (W(3, padding=("CIRCULAR", "REFLECT")), "no convolution"),
    ],
)
def test_adjoint_that_is_not_a_convolution_raises_an_error(window, match):
    with pytest.raises(ValueError, match=match):
        algebra.adjoint(*gaussian((3, 3, 2, 3)), window)


def test_flipping_turns_correlation_into_convolution():
    f, g = gaussian((4,), (3,))
    got = conv(f[:, None], algebra.flip(g[:, None, None]), W(3, padding="FULL")).squeeze()
    close(got, np.convolve(f, g))
    f, g = gaussian((4, 5, 1, 1), (3, 2, 1, 1))
    valid = W((3, 2), padding="VALID")
    one, _ = compose(f, g, W((4, 5)), W((3, 2)))
    expected = conv(f[..., 0], algebra.flip(g), W((3, 2), padding="FULL"))
    close(one[..., 0], expected)
    correlated = conv(f[..., 0], g, valid), conv(algebra.flip(f)[..., 0], algebra.flip(g), valid)
    close(correlated[1][::-1, ::-1], correlated[0])


def test_convolutions_commute_for_one_channel_but_not_for_several():
    full = W((3, 2), padding="FULL"), W((2, 4), padding="FULL")
    for channels, commutes in ((1, True), (2, False)):
        f, g = kernels((3, 2), (2, 4), (channels,) * 3)
        (x,) = gaussian((5, 7, channels), seed=1)
        one = conv(conv(x, f, full[0]), g, full[1])
        two = conv(conv(x, g, full[1]), f, full[0])
        assert (np.abs(one - two).max() < 1e-12) == commutes
        assert commutes or np.abs(one - two).max() > 0.1


# --- factorisation ---------------------------------------------------------------------------------------------------


def test_middle_width_counts_degrees_of_freedom():
    assert algebra.middle_width(3, 2, 2, 7) == pytest.approx((4 - 7**0.5) * 7)
    assert algebra.middle_width(5, 3, 3, 7) == pytest.approx((9 - 56**0.5) * 7)
    assert algebra.middle_width((3, 3), (3, 1), (1, 3), 5) == pytest.approx(15)
    m = algebra.middle_width(4, 2, 3, (3, 5))
    assert 4 * 3 * m + 9 * 5 * m - m**2 == pytest.approx(16 * 15)
    with pytest.raises(ValueError, match=r"size is \(3, 3\) but .* \(4, 4\) taps"):
        algebra.middle_width(3, 2, 3, 5)


@pytest.mark.parametrize("size, part, channels, width", [(3, 2, 3, 5), pytest.param(5, 3, 2, 4, marks=pytest.mark.slow)])
def test_kernel_factorises_exactly_from_the_middle_width_on_but_not_below(size, part, channels, width):
    assert width - 1 < algebra.middle_width(size, part, part, channels) < width
    (v,) = gaussian((size, size, channels, channels))
    window = W(part, padding="VALID")
    enough = factorise(v, (part, part), width, jax.random.key(0))
    assert enough.residual < 1e-14
    close(compose(enough.first, enough.second, window, window)[0], v)
    few = [factorise(v, (part, part), width - 1, jax.random.key(seed)) for seed in range(5)]
    assert min(factors.residual for factors in few) > 1e-3
    u, _ = compose(few[0].first, few[0].second, window, window)
    close(np.linalg.norm(u - v) / np.linalg.norm(v), few[0].residual)


def test_composed_kernel_is_factorised_exactly_and_equal_keys_give_equal_factors():
    first, second = kernels((2, 3), (3, 1), (2, 2, 3))
    v, _ = compose(first, second, W((2, 3)), W((3, 1)))
    factorisations = [factorise(v, ((2, 3), (3, 1)), 2, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert min(factors.residual for factors in factorisations) < 1e-14
    np.testing.assert_array_equal(factorisations[0].first, factorisations[1].first)
    with pytest.raises(ValueError, match=r"v has \(4, 3\) taps but sizes make together \(3, 3\)"):
        algebra.factorise(v, (2, 2), 2, jax.random.key(0))


def test_zero_kernel_has_residual_zero():
    assert factorise(np.zeros((3, 3, 2, 2)), (2, 2), 1, jax.random.key(0)).residual < 1e-14


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_factorising_half_precision_kernels_raises_an_error(dtype):
    with pytest.raises(TypeError, match=f"v has dtype {jnp.dtype(dtype)}, which is too coarse"):
        algebra.factorise(np.ones((3, 3, 2, 2), dtype), (2, 2), 3, jax.random.key(0))


def test_functions_of_real_kernels_refuse_complex_ones():
    v, one = np.ones((3, 3, 2, 2), complex), np.ones(2)
    with pytest.raises(TypeError, match="v has dtype complex128 but needs a real one"):
        algebra.factorise(v, (2, 2), 3, jax.random.key(0))
    with pytest.raises(TypeError, match="v has dtype complex128 but needs a real one"):
        algebra.merge_batch_norm(v, None, one, one)


# --- a batch norm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_position", [False, True])
def test_batch_norm_in_evaluation_merges_into_the_preceding_layer(per_position):
    window, out = W((3, 2)), (SPACE if per_position else ())
    x, v, bias, mean, scale, shift = gaussian((2, *SPACE, 2), (3, 2, 2, 3), (*out, 3), (3,), (3,), (3,))
    variance = mean**2 + 0.5
    h = conv(x, v, window) + bias
    merged, merged_bias = merge_batch_norm(v, bias, mean, variance, scale=scale, shift=shift, epsilon=1e-3)
    close(conv(x, merged, window) + merged_bias, (h - mean) / np.sqrt(variance + 1e-3) * scale + shift)
    merged, merged_bias = algebra.merge_batch_norm(v, None, mean, variance)  # eager calls check variances
    close(conv(x, merged, window) + merged_bias, (conv(x, v, window) - mean) / np.sqrt(variance + 1e-5))
    with pytest.raises(ValueError, match=r"shift has shape \(2,\) but v returns \(3,\)"):
        algebra.merge_batch_norm(v, bias, mean, variance, shift=shift[:2])


def test_bias_with_the_wrong_number_of_channels_raises_an_error():
    v, one = np.ones((3, 2, 4)), np.ones(4)
    with pytest.raises(ValueError, match=r"bias has \(3,\) channels but v returns \(4,\)"):
        algebra.merge_batch_norm(v, np.ones(3), one, one)


def test_batch_norm_with_a_negative_variance_raises_an_error():
    v, one = np.ones((3, 2, 2)), np.ones(2)
    with pytest.raises(ValueError, match=r"variance \+ epsilon is as low as -1\.9"):
        algebra.merge_batch_norm(v, None, one, np.array([1.0, -2.0]), epsilon=0.1)
    jax.jit(algebra.merge_batch_norm, static_argnums=1)(v, None, one, one)


# --- transfer function -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "window, space",
    [
        (W((3, 2), padding="CIRCULAR"), (5, 6)),
        (W((2, 3), padding="CIRCULAR", dilation=2), (5, 6)),
        (W((5, 3), padding="CIRCULAR"), (3, 2)),  # several taps read one pixel
        (W((3,), padding="CIRCULAR"), (7,)),
    ],
)
def test_circular_convolution_multiplies_every_frequency_by_its_own_matrix(window, space):
    axes = tuple(range(len(space)))
    v, imaginary, x = gaussian(*[(*window.size, 2, 3)] * 2, (*space, 2))
    for kernel in (v, v + 1j * imaginary):
        symbol = np.asarray(transfer_function(kernel, window, space))
        negative = np.roll(np.flip(symbol, axes), 1, axes)  # at the frequencies of opposite sign
        close(negative, symbol.conj()) if kernel is v else None
        expected = np.einsum("...c,...cd->...d", np.fft.fftn(x, axes=axes), negative)
        close(np.fft.fftn(conv(x, kernel, window), axes=axes), expected)


def test_transfer_of_a_window_that_is_not_circular_raises_an_error():
    (v,) = gaussian((3, 3, 2, 2))
    for window, match in (
        (W(3), "needs padding 'CIRCULAR'"),
        (W(3, padding=("SAME", "CIRCULAR")), "needs padding 'CIRCULAR' along all axes"),
        (W(3, 2, "CIRCULAR"), "stride 1"),
        (W(2, padding="CIRCULAR"), r"kernels of \(3, 3\) taps"),
    ):
        with pytest.raises(ValueError, match=match):
            algebra.transfer_function(v, window, SPACE)


# --- named kernels ---------------------------------------------------------------------------------------------------


def test_derivative_kernels_are_exact_for_polynomials_of_degree_below_their_size():
    k, l = np.meshgrid(np.arange(9.0), np.arange(8.0), indexing="ij")
    for order, axis in itertools.product((1, 2, 3), (0, 1)):
        v = algebra.derivative(axis, order)
        window = W(v.shape[:2], padding="VALID")
        coordinate, other = (k, l) if axis == 0 else (l, k)
        for power in range(max(v.shape[:2])):
            image = coordinate**power * (1 + other)
            expected = np.prod(np.arange(power - order + 1, power + 1)) * coordinate ** max(power - order, 0) * (1 + other)
            half = v.shape[axis] // 2
            inner = [slice(half, -half) if q == axis else slice(None) for q in range(2)]
            close(conv(image[..., None], v, window)[..., 0], expected[tuple(inner)])


def test_each_cross_kernel_responds_most_to_its_own_shape():
    plus, times = algebra.upright_cross(5), algebra.diagonal_cross(5)
    assert plus.sum() == times.sum() == 9
    for one, other in ((plus, times), (times, plus)):
        assert jnp.vdot(one, one) == 9
        assert jnp.vdot(one, other) == 1


def test_sobel_kernel_responds_only_to_slopes_along_its_axis():
    k, l = np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij")
    for axis, (slope, other) in enumerate(((k, l), (l, k))):
        close(conv((2 * slope + 5 * other)[..., None], algebra.sobel(axis), W(3, padding="VALID")), np.full((3, 4, 1), 2.0))
    assert algebra.sobel(-1, 3).shape == (3, 3, 3, 1, 1)
    with pytest.raises(ValueError, match="axis is 2; needs one of 2"):
        algebra.sobel(2)


def test_a_depthwise_kernel_applies_the_kernel_to_every_channel():
    (x,) = gaussian((5, 7, 3))
    got = conv(x, algebra.depthwise_kernel(algebra.sobel(0), 3), W(3))
    close(got, np.concatenate([conv(x[..., c : c + 1], algebra.sobel(0), W(3)) for c in range(3)], -1))
    with pytest.raises(ValueError, match=r"v has \(3, 3\) channels but needs \(1, 1\)"):
        algebra.depthwise_kernel(np.ones((3, 3, 3, 3)), 2)


def test_cross_of_even_size_raises_an_error():
    for cross in (algebra.upright_cross, algebra.diagonal_cross):
        with pytest.raises(ValueError, match="size is 4; needs an odd number"):
            cross(4)
