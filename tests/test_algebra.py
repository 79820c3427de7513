"""Kernels multiplied, divided and added: against the convolutions they stand for, run one after the other or side by side."""

import functools
import itertools

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from assertions import close
from compiled import compiled
from strategies import gaussian

from convlab import algebra

pytestmark = pytest.mark.usefixtures("float64")
SPACE = (11, 13)
factorise, separate, tucker = map(compiled, (algebra.factorise, algebra.separate, algebra.tucker))
norm_bound, scale_norm = map(compiled, (algebra.norm_bound, algebra.scale_norm))
merge_batch_norm, merge_pointwise = map(compiled, (algebra.merge_batch_norm, algebra.merge_pointwise))


def with_window(function):
    """Compile a function that returns arrays and, last, a window."""

    @functools.wraps(function)
    def call(*arguments, **options):
        windows = []

        def arrays_of(*arguments, **options):
            *arrays, window = function(*arguments, **options)
            windows.append(window)
            return arrays

        return *compiled(arrays_of)(*arguments, **options), *windows

    return call


compose, adjoint, clip_norm = map(with_window, (algebra.compose, algebra.adjoint, algebra.clip_norm))
merge_branches = with_window(algebra.merge_branches)


def conv(x, v, window):
    """Compute the equation: what each tap reads, times its weight."""
    rank = np.ndim(v) - 2
    x, v = np.asarray(x), np.asarray(v)
    space = x.shape[-1 - rank : -1]
    pixels = x.reshape(*x.shape[: x.ndim - 1 - rank], -1, x.shape[-1])
    pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1, :])], -2)  # the last is what padding reads
    return np.tensordot(pixels[..., window.reads(space), :], v, rank + 1)


def kernels(one, two, channels=(2, 3, 2)):
    c, e, d = channels
    return gaussian((*one, c, e), (*two, e, d))


# --- one after the other ---------------------------------------------------------------------------------------------

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
}


def both(first, second, one, two, space):
    """Run two convolutions in a row, and the composed one."""
    (x,) = gaussian((2, *space, first.shape[-2]), seed=1)
    v, window = compose(first, second, one, two, space=space)
    return conv(conv(x, first, one), second, two), conv(x, v, window), window


@pytest.mark.parametrize("one, two, space", EXACT.values(), ids=EXACT)
def test_two_convolutions_in_a_row_are_one(one, two, space):
    rank = len(space)
    first, second = kernels(one.taps(rank), two.taps(rank))
    expected, got, _ = both(first, second, one, two, space)
    close(got, expected)
    assert algebra.composes(one, two, space).all()


SAME = {
    "same": (W(3), W(3), (12, 12)),
    "same, oblong": (W((3, 4), 1, "SAME_LOWER", (2, 1)), W((2, 5), (2, 1)), SPACE),
    "strided": (W((3, 2), (2, 3)), W((5, 3), (1, 2)), (14, 17)),
    "pairs": (W((3, 3), padding=((2, 0), (1, 1))), W((2, 3), padding=((0, 1), (2, 2))), SPACE),
    "circular with a seam": (W((3, 3), (2, 1), "CIRCULAR"), W((3, 3), padding="CIRCULAR"), SPACE),
}


@pytest.mark.parametrize("one, two, space", SAME.values(), ids=SAME)
def test_a_second_padding_differs_exactly_where_it_hides_what_the_first_would_have_seen(one, two, space):
    first, second = kernels(one.taps(2), two.taps(2))
    expected, got, _ = both(first, second, one, two, space)
    gap = np.abs(got - expected).max((0, -1))
    same = algebra.composes(one, two, space)
    assert gap[same].max() < 1e-12
    assert not same.all()
    assert gap[~same].min() > 1e-4


def test_of_two_3x3_on_12x12_pixels_44_of_144_differ():
    assert (~algebra.composes(W(3), W(3), (12, 12))).sum() == 44


def test_the_window_of_two_has_the_name_of_both_where_there_is_one():
    first, second = kernels((3, 3), (3, 3))
    for padding in ("VALID", "FULL", "CIRCULAR", "SAME", "SAME_LOWER"):
        window = compose(first, second, W(3, padding=padding), W(3, padding=padding))[1]
        assert window == W((5, 5), padding="SAME" if padding == "SAME_LOWER" else padding)
    even = kernels((2, 2), (2, 2))
    assert compose(*even, W(2), W(2))[1].padding == ((0, 2), (0, 2))
    assert compose(*even, W(2), W(2, padding="SAME_LOWER"))[1].padding == "SAME"
    strided = compose(first, second, W(3, 2, "VALID", 2), W(3, 3, "VALID"))[1]
    assert strided == W((5, 5), 6, "VALID", 2)


@pytest.mark.parametrize(
    "one, two, match",
    [
        (W(3), W(3, padding="REFLECT"), "is no convolution: outside the images they read zero and reflect"),
        (W(3, padding="EDGE"), W(3, padding="EDGE"), "is no convolution"),
        (W(3, padding="CIRCULAR"), W(3), "wrap and zero"),
        (W(3, 2), W(3), "space is missing"),
        (W(2), W(3), r"kernels of \(3, 3\) taps"),
    ],
)
def test_what_is_no_convolution_is_not_composed(one, two, match):
    with pytest.raises(ValueError, match=match):
        algebra.compose(*kernels((3, 3), (3, 3)), one, two)


def test_kernels_whose_channels_do_not_meet_are_not_composed():
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
]


@pytest.mark.parametrize("window, space", ADJOINTS)
def test_the_adjoint_is_the_convolution_of_the_transposed_matrix(window, space):
    (v,) = gaussian((*window.taps(len(space)), 2, 3))
    x, y = gaussian((*space, 2), (*window.output_shape(space), 3), seed=1)
    turned, back = adjoint(v, window)
    close(np.vdot(conv(x, v, window), y), np.vdot(x, conv(y, turned, back)))
    again, forth = adjoint(turned, back)
    close(conv(x, again, forth), conv(x, v, window))


@pytest.mark.parametrize(
    "window, match", [(W(3, 2), "stride 1"), (W(3, padding="EDGE"), "no convolution"), (W(3, padding=3), "cut")]
)
def test_a_transpose_that_is_no_convolution_is_refused(window, match):
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


def test_convolutions_of_one_channel_commute_and_those_of_several_do_not():
    full = W((3, 2), padding="FULL"), W((2, 4), padding="FULL")
    for channels, the_same in ((1, True), (2, False)):
        f, g = kernels((3, 2), (2, 4), (channels,) * 3)
        (x,) = gaussian((5, 7, channels), seed=1)
        one = conv(conv(x, f, full[0]), g, full[1])
        two = conv(conv(x, g, full[1]), f, full[0])
        assert (np.abs(one - two).max() < 1e-12) == the_same
        assert the_same or np.abs(one - two).max() > 0.1


# --- as several ------------------------------------------------------------------------------------------------------


def test_the_middle_width_is_what_the_texts_leave_out():
    assert algebra.middle_width(3, 2, 2, 7) == pytest.approx((4 - 7**0.5) * 7)
    assert algebra.middle_width(5, 3, 3, 7) == pytest.approx((9 - 56**0.5) * 7)
    assert algebra.middle_width((3, 3), (3, 1), (1, 3), 5) == pytest.approx(15)
    m = algebra.middle_width(4, 2, 3, (3, 5))
    assert 4 * 3 * m + 9 * 5 * m - m**2 == pytest.approx(16 * 15)
    with pytest.raises(ValueError, match=r"size is \(3, 3\) but .* \(4, 4\) taps"):
        algebra.middle_width(3, 2, 3, 5)


@pytest.mark.parametrize("size, part, channels, width", [(3, 2, 3, 5), (5, 3, 2, 4)])
def test_a_kernel_is_two_smaller_ones_from_the_middle_width_on_and_not_below(size, part, channels, width):
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


def test_what_two_kernels_made_is_found_again_and_equal_keys_give_equal_factors():
    first, second = kernels((2, 3), (3, 1), (2, 2, 3))
    v, _ = compose(first, second, W((2, 3)), W((3, 1)))
    found = [factorise(v, ((2, 3), (3, 1)), 2, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert min(factors.residual for factors in found) < 1e-14
    np.testing.assert_array_equal(found[0].first, found[1].first)
    with pytest.raises(ValueError, match=r"v has \(4, 3\) taps but sizes need \(3, 3\)"):
        algebra.factorise(v, (2, 2), 2, jax.random.key(0))


def test_separating_leaves_out_the_singular_values_beyond_its_rank():
    (v,) = gaussian((3, 5, 2, 4))
    sigma = np.linalg.svd(np.moveaxis(v, 2, 1).reshape(6, 20), compute_uv=False)
    for rank in (1, 4, 6):
        first, second, residual = separate(v, rank)
        assert first.shape == (3, 1, 2, rank)
        assert second.shape == (1, 5, rank, 4)
        u, _ = compose(first, second, W((3, 1)), W((1, 5)))
        close(np.linalg.norm(u - v), np.linalg.norm(sigma[rank:]))
        close(residual, np.linalg.norm(u - v) / np.linalg.norm(v))
    (v,) = gaussian((2, 3, 2, 1, 3))
    first, second, _ = separate(v, 2)
    close(compose(first, second, W((2, 1, 1)), W((1, 3, 2)))[0], v)


@pytest.mark.parametrize("rank, match", [(7, "rank 7 exceeds 6"), (0, "at least 1")])
def test_a_rank_that_is_not_there_is_refused(rank, match):
    with pytest.raises(ValueError, match=match):
        algebra.separate(*gaussian((3, 5, 2, 4)), rank)


def test_fewer_channels_leave_out_the_singular_values_of_their_side():
    (v,) = gaussian((3, 2, 4, 5))
    sides = np.moveaxis(v, 2, 0).reshape(4, -1), np.moveaxis(v, 3, 0).reshape(5, -1)
    inputs, outputs = (np.linalg.svd(side, compute_uv=False) for side in sides)
    norm = np.linalg.norm(v)
    for ranks, error in {(2, None): inputs[2:], (None, 3): outputs[3:], (None, None): inputs[4:]}.items():
        close(tucker(v, ranks).residual, np.linalg.norm(error) / norm)
    into, core, out, residual = tucker(v, (2, 3))
    u = np.einsum("cr,abrs,sd->abcd", into[0, 0], core, out[0, 0])
    close(np.linalg.norm(u - v) / norm, residual)
    window = W((3, 2))
    two, wide = compose(into, core, W(1), window)
    close(compose(two, out, wide, W(1))[0], u)
    assert max(np.linalg.norm(inputs[2:]), np.linalg.norm(outputs[3:])) / norm < residual
    assert residual**2 < (np.sum(inputs[2:] ** 2) + np.sum(outputs[3:] ** 2)) / norm**2


def test_a_kernel_of_few_channels_is_found_again():
    p, g, q = gaussian((4, 2), (3, 2, 2, 3), (3, 5))
    v = np.einsum("cr,abrs,sd->abcd", p, g, q)
    assert tucker(v, (2, 3)).residual < 1e-14
    with pytest.raises(ValueError, match="exceed the"):
        algebra.tucker(v, (5, None))


# --- added -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_position", [False, True])
def test_a_batch_norm_in_evaluation_is_part_of_the_layer_before_it(per_position):
    window, out = W((3, 2)), (SPACE if per_position else ())
    x, v, bias, mean, scale, shift = gaussian((2, *SPACE, 2), (3, 2, 2, 3), (*out, 3), (3,), (3,), (3,))
    variance = mean**2 + 0.5
    h = conv(x, v, window) + bias
    merged, told = merge_batch_norm(v, bias, mean, variance, scale=scale, shift=shift, epsilon=1e-3)
    close(conv(x, merged, window) + told, (h - mean) / np.sqrt(variance + 1e-3) * scale + shift)
    merged, told = algebra.merge_batch_norm(v, None, mean, variance)  # eagerly, where variances can be checked
    close(conv(x, merged, window) + told, (conv(x, v, window) - mean) / np.sqrt(variance + 1e-5))
    with pytest.raises(ValueError, match=r"shift has shape \(2,\) but v returns \(3,\)"):
        algebra.merge_batch_norm(v, bias, mean, variance, shift=shift[:2])


BRANCHES = {
    "same": ((W(3), W(1), W(1)), SPACE),
    "circular": ((W((3, 2), padding="CIRCULAR"), W((2, 5), padding="CIRCULAR"), W(1)), SPACE),
    "mirrored": ((W(3, padding="REFLECT"), W((1, 5), padding="REFLECT"), W(1)), SPACE),
    "dilated": ((W((3, 2), dilation=(2, 3)), W((2, 3), 1, "SAME_LOWER"), W(1)), SPACE),
    "strided": ((W(3, 2), W(1, 2), W((2, 5), 2)), (10, 13)),
    "pairs": ((W(3, 2, ((1, 1), (1, 1))), W(1, 2, "VALID"), W(5, 2, 2)), SPACE),
}


@pytest.mark.parametrize("windows, space", BRANCHES.values(), ids=BRANCHES)
def test_branches_that_are_added_are_one_layer_borders_included(windows, space):
    branches = [gaussian((*window.taps(2), 2, 3), (3,), seed=q) for q, window in enumerate(windows)]
    (x,) = gaussian((2, *space, 2), seed=9)
    pairs = zip(branches, windows, strict=True)
    expected = sum(conv(x, v, window) + bias for (v, bias), window in pairs) - branches[1][1]
    biases = [bias if q != 1 else None for q, (_, bias) in enumerate(branches)]
    v, bias, window = merge_branches([v for v, _ in branches], windows, biases, space=space)
    close(conv(x, v, window) + bias, expected)


def test_three_taps_one_and_a_shortcut_are_three_taps():
    three, one = gaussian((3, 3, 2, 2), (1, 1, 2, 2))
    v, bias, window = merge_branches([three, one, algebra.identity(2)], [W(3), W(1), W(1)])
    (x,) = gaussian((2, *SPACE, 2), seed=1)
    assert window == W((3, 3))
    close(conv(x, v, window) + bias, conv(x, three, W(3)) + conv(x, one, W(1)) + x)


@pytest.mark.parametrize(
    "windows, space, match",
    [
        ((W(3), W(3, padding="CIRCULAR")), None, r"read \['wrap', 'zero'\] outside"),
        ((W(3, padding="VALID"), W(3)), None, "do not have the same outputs"),
        ((W(3, 2, 1), W(3, 2, "VALID")), SPACE, "have other outputs"),
        ((W(3, 2), W(3, 2)), None, "space is missing"),
        ((W(3), W(3), W(3)), None, "2|no branches of one layer"),
    ],
)
def test_branches_that_do_not_lie_alike_are_refused(windows, space, match):
    with pytest.raises(ValueError, match=match):
        algebra.merge_branches(gaussian((3, 3, 2, 2), (3, 3, 2, 2)), windows, space=space)


@pytest.mark.parametrize("padding", ["VALID", "CIRCULAR", "REFLECT", "EDGE"])
def test_one_tap_with_a_bias_merges_into_many_that_read_no_zeros(padding):
    one, bias, v = gaussian((1, 1, 2, 3), (3,), (3, 2, 3, 2))
    window = W((3, 2), padding=padding)
    (x,) = gaussian((2, *SPACE, 2), seed=1)
    merged, told = merge_pointwise(one, bias, v)
    close(conv(x, merged, window) + told, conv(conv(x, one, W(1)) + bias, v, window))


def test_where_many_read_zeros_the_bias_differs_by_position_or_the_padding_must_be_the_bias():
    one, bias, v = gaussian((1, 1, 2, 3), (3,), (3, 2, 3, 2))
    window = W((3, 2))
    (x,) = gaussian((2, *SPACE, 2), seed=1)
    h = conv(x, one, W(1)) + bias
    merged, told = merge_pointwise(one, bias, v)
    gap = np.abs(conv(h, v, window) - conv(x, merged, window) - told).max((0, -1))
    dead = ~window.live(SPACE).all((2, 3))
    assert gap[~dead].max() < 1e-12
    assert gap[dead].min() > 1e-3
    padded = np.broadcast_to(bias, (2, 13, 14, 3)).copy()
    padded[:, 1:-1, :-1] = h
    close(conv(padded, v, W((3, 2), padding="VALID")), conv(x, merged, window) + told)
    same, by_position = merge_pointwise(one, bias, v, window=window, space=SPACE)
    assert by_position.shape == (*SPACE, 2)
    close(conv(x, same, window) + by_position, conv(h, v, window))


def test_the_larger_of_two_is_a_relu_and_two_sums_but_for_the_gradient_where_they_are_equal():
    a, b = gaussian((50,), (50,))
    close(algebra.maximum(a, b), np.maximum(a, b))
    ours, theirs = (jax.jit(jax.grad(each, (0, 1))) for each in (algebra.maximum, jnp.maximum))
    np.testing.assert_array_equal(*(jax.jit(jax.vmap(slopes))(a, b) for slopes in (ours, theirs)))
    assert ours(1.0, 1.0) == (0.0, 1.0)
    assert theirs(1.0, 1.0) == (0.5, 0.5)
    assert algebra.maximum(1e-20, -1.0) != 1e-20
    assert np.isnan(algebra.maximum(1.0, -jnp.inf))


# --- norms -----------------------------------------------------------------------------------------------------------


def values(v, window, space):
    """Return the singular values of the dense matrix."""
    w = np.asarray(cl.lift_conv_to_dense(v, window, space))
    rank = len(space)
    order = (*range(rank), 2 * rank + 1, *range(rank, 2 * rank + 1))
    return np.linalg.svd(w.transpose(order).reshape(np.prod(w.shape[:rank]) * w.shape[-1], -1), compute_uv=False)


@pytest.mark.parametrize("window", [W((3, 2), padding="CIRCULAR"), W((2, 3), padding="CIRCULAR", dilation=2)])
def test_clipping_a_circular_norm_is_clipping_the_singular_values_of_the_dense_matrix(window):
    space = (5, 6)
    (v,) = gaussian((*window.taps(2), 2, 3))
    sigma = values(v, window, space)
    most = float(np.median(sigma))
    clipped, wide = clip_norm(v, window, space, most)
    close(values(clipped, wide, space), np.minimum(sigma, most))
    (x,) = gaussian((*space, 2), seed=1)
    whole, wide = clip_norm(v, window, space, 2 * sigma[0])
    close(conv(x, whole, wide), conv(x, v, window))
    kept, same = clip_norm(v, window, space, most, full=False)
    assert same == window
    close(kept, cl.project_dense_to_conv(cl.lift_conv_to_dense(clipped, wide, space), window, space))
    assert most < values(kept, window, space)[0] < sigma[0]
    assert values(scale_norm(kept, window, space, most), window, space)[0] == pytest.approx(most)


@pytest.mark.parametrize("window", [W((3, 2), 1, "SAME", 2), W((3, 3), 2, "VALID"), W((3, 2), 2, "CIRCULAR")])
def test_no_image_is_stretched_by_more_than_the_bound(window):
    space = (6, 7)
    (v,) = gaussian((*window.taps(2), 2, 3))
    norm, bound = values(v, window, space)[0], float(norm_bound(v, window, space))
    assert 0.5 * bound < norm < bound
    scaled = scale_norm(v, window, space, bound / 3)
    close(scaled, v / 3)
    np.testing.assert_array_equal(scale_norm(v, window, space, 2 * bound), v)


def test_the_bound_leaves_room_for_the_padding():
    v, window = np.array([1.0, -1.0]).reshape(2, 1, 1), W((2,), padding="FULL")
    close(values(v, window, (1,)), np.array([2**0.5]))
    close(norm_bound(v, window, (1,)), 2.0)


def test_norms_that_are_not_known_are_refused():
    (v,) = gaussian((3, 3, 2, 2))
    for window, match in ((W(3), "needs padding 'CIRCULAR'"), (W(3, 2, "CIRCULAR"), "stride 1")):
        with pytest.raises(ValueError, match=match):
            algebra.transfer(v, window, SPACE)
    with pytest.raises(ValueError, match="shows pixels twice"):
        algebra.norm_bound(v, W(3, padding="EDGE"), SPACE)
    with pytest.raises(ValueError, match="read one pixel"):
        clip_norm(v, W(3, padding="CIRCULAR"), (2, 5), 1.0, full=False)


# --- by name ---------------------------------------------------------------------------------------------------------


def test_blurs_sum_to_one_and_remove_the_highest_frequency():
    waves = [(-1.0) ** np.arange(8)[:, None] * np.ones(6), np.ones((8, 1)) * (-1.0) ** np.arange(6)]
    for size in (2, 3, 5, (4, 3)):
        v = algebra.blur(size)
        close(v.sum(), 1)
        window = W(v.shape[:2], padding="CIRCULAR")
        for wave in (*waves, waves[0] * waves[1]):
            close(conv(wave[..., None], v, window), 0 * wave[..., None])


def test_derivatives_are_exact_for_polynomials_up_to_their_taps_less_one():
    k, l = np.meshgrid(np.arange(9.0), np.arange(8.0), indexing="ij")
    for order, axis in itertools.product((1, 2, 3), (0, 1)):
        v = algebra.derivative(axis, order)
        window = W(v.shape[:2], padding="VALID")
        along, other = (k, l) if axis == 0 else (l, k)
        for power in range(max(v.shape[:2])):
            image = along**power * (1 + other)
            expected = np.prod(np.arange(power - order + 1, power + 1)) * along ** max(power - order, 0) * (1 + other)
            half = v.shape[axis] // 2
            inner = [slice(half, -half) if q == axis else slice(None) for q in range(2)]
            close(conv(image[..., None], v, window)[..., 0], expected[tuple(inner)])


def test_an_edge_kernel_sees_a_slope_by_its_direction_and_laplace_sees_none():
    k, l = np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij")
    window = W(3, padding="VALID")
    for phi, theta in ((0.3, 1.1), (2.0, 2.0), (1.0, 1.0 + np.pi / 2)):
        ramp = (np.cos(phi) * l + np.sin(phi) * k)[..., None]
        close(conv(ramp, algebra.directional(theta), window), np.full((3, 4, 1), np.cos(phi - theta)))
        close(conv(ramp, algebra.laplace(), window), np.zeros((3, 4, 1)))
    close(conv((k**2 + 3 * l**2)[..., None], algebra.laplace(), window), np.full((3, 4, 1), 8.0))
    assert algebra.laplace(3)[1, 1, 1, 0, 0] == -6
    assert algebra.sobel(-1, 3).shape == (3, 3, 3, 1, 1)
    with pytest.raises(ValueError, match="axis 2 is none of 2"):
        algebra.sobel(2)


def test_shifts_move_images_and_identities_leave_them():
    (x,) = gaussian((5, 7, 3))
    v = algebra.on_channels(algebra.shift((2, -1)), 3)
    close(conv(x, v, W(v.shape[:2], padding="CIRCULAR")), np.roll(x, (2, -1), (0, 1)))
    for size in (1, (3, 5)):
        close(conv(x, algebra.identity(3, size), W(size)), x)
    with pytest.raises(ValueError, match="needs odd"):
        algebra.identity(3, 2)


def test_crosses_see_their_own_kind_best():
    plus, times = algebra.upright_cross(5), algebra.diagonal_cross(5)
    assert plus.sum() == times.sum() == 9
    for one, other in ((plus, times), (times, plus)):
        assert jnp.vdot(one, one) == 9
        assert jnp.vdot(one, other) == 1


def test_nothing_is_left_out_of_a_kernel_of_zeros():
    v = np.zeros((3, 3, 2, 2))
    assert float(separate(v, 1).residual) == 0
    assert float(algebra.tucker(v, (1, 1)).residual) == 0


def test_a_norm_is_not_held_below_a_negative_number():
    v, window = np.ones((3, 1, 1)), W(3, padding="CIRCULAR")
    for limit in (algebra.clip_norm, algebra.scale_norm):
        with pytest.raises(ValueError, match=r"most is -1.0; needs a number from 0 up"):
            limit(v, window, (5,), -1.0)


def test_a_bias_is_one_number_a_channel():
    v, one = np.ones((3, 2, 4)), np.ones(4)
    with pytest.raises(ValueError, match=r"bias has \(3,\) channels but v returns \(4,\)"):
        algebra.merge_batch_norm(v, np.ones(3), one, one)
    with pytest.raises(ValueError, match=r"biases\[1\] has shape \(1,\) but its kernel returns \(4,\) channels"):
        algebra.merge_branches([v, v], [W(3), W(3)], [None, np.ones(1)])
    with pytest.raises(ValueError, match="kernels is empty"):
        algebra.merge_branches([], [])


def test_a_kernel_of_zeros_is_held_below_a_norm_with_a_gradient():
    v, window = np.zeros((3, 1, 1)), W(3, padding="CIRCULAR")
    for most in (0.0, 1.0):
        gradient = jax.jit(jax.grad(lambda v, most=most: algebra.scale_norm(v, window, (5,), most).sum()))(v)
        np.testing.assert_array_equal(gradient, np.ones((3, 1, 1)))


def test_a_norm_is_not_folded_where_its_root_is_not_real():
    v, one = np.ones((3, 2, 2)), np.ones(2)
    with pytest.raises(ValueError, match=r"variance and epsilon are together down to -1\.9"):
        algebra.merge_batch_norm(v, None, one, np.array([1.0, -2.0]), epsilon=0.1)
    jax.jit(algebra.merge_batch_norm, static_argnums=1)(v, None, one, one)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_coarse_kernels_are_not_decomposed(dtype):
    v = np.ones((3, 3, 2, 2), dtype)
    makes = (
        lambda: algebra.factorise(v, (2, 2), 3, jax.random.key(0)),
        lambda: algebra.separate(v, 1),
        lambda: algebra.tucker(v, (1, 1)),
    )
    for make in makes:
        with pytest.raises(TypeError, match=f"v has dtype {jnp.dtype(dtype)}, which is too coarse"):
            make()
