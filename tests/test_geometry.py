"""Where windows read: against loops written from the definitions, and against the paddings of the libraries."""

import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax
from strategies import windows

from convlab import Window


@given(windows())
def test_output_shape_live_coverage_and_reads_follow_the_definition(case):
    window, space, reads = case
    assert window.output_shape(space) == oracle.out_shape(reads)
    live = oracle.live(reads)
    np.testing.assert_array_equal(window.live(space), live)
    np.testing.assert_array_equal(window.coverage(space), oracle.coverage(reads, space))
    numbers = np.full(live.shape, -1)
    for position, tap, pixel in oracle.each_tap(reads):
        numbers[(*position, *tap)] = np.ravel_multi_index(pixel, space)
    np.testing.assert_array_equal(window.reads(space), numbers)


@given(
    st.sampled_from(["SAME", "SAME_LOWER", "VALID"]),
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_same_and_valid_pad_as_lax_does(padding, space, size, strides):
    assume(padding != "VALID" or all(k <= n for k, n in zip(size, space, strict=True)))
    axes = Window(size, strides, padding).axes(space)
    assert [(axis.low, axis.high) for axis in axes] == [tuple(p) for p in lax.padtype_to_pads(space, size, strides, padding)]


@pytest.mark.parametrize("padding, mode", [("CIRCULAR", "wrap"), ("REFLECT", "reflect"), ("EDGE", "edge")])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_padding_with_pixels_reads_what_numpy_pads(padding, mode, n):
    (axis,) = Window((6,), padding=padding, dilation=2).axes((n,))
    padded = np.pad(np.arange(n), (axis.low, axis.high), mode=mode)
    expected = [[padded[i + 2 * a] for a in range(6)] for i in range(n)]
    np.testing.assert_array_equal(axis.reads, expected)


@pytest.mark.parametrize("strides", [1, 2, 3])
def test_widened_keeps_the_outputs_and_reads_every_pixel_from_each(strides):
    window, space = Window((3, 2), strides, "SAME"), (7, 5)
    wide = window.widened(space)
    assert wide.output_shape(space) == window.output_shape(space)
    assert (wide.coverage(space) == np.prod(window.output_shape(space))).all()
    assert (wide.live(space).sum((2, 3)) == 35).all()


def test_full_has_every_offset_between_two_pixels_once():
    window = Window.full((4, 3))
    assert window.size == (7, 5)
    assert window.output_shape((4, 3)) == (4, 3)
    np.testing.assert_array_equal(np.sort(window.reads((4, 3)).reshape(12, -1), 1)[:, -12:], np.tile(np.arange(12), (12, 1)))


def test_three_by_three_same_covers_corners_four_edges_six_and_the_rest_nine_times():
    np.testing.assert_array_equal(Window(3).coverage((4, 4)), [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])


def test_live_counts_per_tap_are_those_of_the_text():
    counts = Window(3).live((7, 7)).sum((0, 1))
    np.testing.assert_array_equal(counts, [[36, 42, 36], [42, 49, 42], [36, 42, 36]])
    for padding in ("VALID", "CIRCULAR"):
        window = Window(3, padding=padding)
        assert (window.live((7, 7)).sum((0, 1)) == np.prod(window.output_shape((7, 7)))).all()


def test_a_strided_window_reads_every_pixel_only_if_it_is_as_long_as_its_stride():
    assert (Window(2, strides=2, padding="VALID").coverage((8, 8)) == 1).all()
    assert (Window(1, strides=2, padding="VALID").coverage((8, 8)) > 0).mean() == 0.25


def test_equal_windows_are_equal_and_hash_equal_however_they_are_written():
    one = Window((3, 3), strides=2, padding=1)
    other = Window([3, np.int64(3)], (2, 2), ((1, 1), (1, 1)), 1)
    assert one == other
    assert hash(one) == hash(other)
    assert Window(3, 2, 1).with_ndim(2) == one
    assert Window(3).ndim is None


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"size": (3, -1)}, ValueError, "size must be at least 1, got -1"),
        ({"size": 3, "strides": 0}, ValueError, "strides must be at least 1"),
        ({"size": 3, "dilation": 0}, ValueError, "dilation must be at least 1"),
        ({"size": 2.5}, TypeError, "size must be an integer"),
        ({"size": (3, 2.0)}, TypeError, "size must be an integer"),
        ({"size": True}, TypeError, "size must be an integer"),
        ({"size": "3"}, TypeError, "size must be an integer"),
        ({"size": 3, "padding": "some"}, ValueError, "padding 'SOME' is unknown; needs one of SAME"),
        ({"size": 3, "padding": 1.5}, TypeError, "padding must be an integer"),
        ({"size": 3, "padding": None}, TypeError, "padding must be an integer"),
        ({"size": (3, 3), "padding": ((1, 2, 3), 1)}, ValueError, r"\(low, high\) pair"),
        ({"size": (3, 3), "strides": (1, 2, 1)}, ValueError, "mixes numbers of spatial axes"),
        ({"size": (3, 3), "padding": "CAUSAL"}, ValueError, "one spatial axis"),
        ({"size": (3, 3), "padding": ("SAME", "some")}, ValueError, "padding 'SOME' is unknown; needs one of SAME"),
        ({"size": (3, 3), "padding": ("SAME", None)}, TypeError, "padding must be an integer"),
        ({"size": ()}, ValueError, "has 0 spatial axes"),
    ],
)
def test_an_invalid_window_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        Window(**arguments)


@pytest.mark.parametrize(
    "window, space, error, match",
    [
        (Window(5, padding="VALID"), (4, 8), ValueError, r"fits nowhere on \(4, 8\) pixels: along axis 0 it spans 5"),
        (Window(3, padding="VALID", dilation=4), (8, 9), ValueError, "it spans 9 pixels but only 8"),
        (Window((3, 3)), (8,), ValueError, "has 2 spatial axes but 1 are needed"),
        (Window(3), (8, 0), ValueError, "space must be at least 1, got 0"),
        (Window(3), 8, TypeError, "space must be a sequence"),
        (Window(3), (8.0, 8), TypeError, "space must be an integer"),
    ],
)
def test_an_invalid_space_is_refused(window, space, error, match):
    for ask in (window.output_shape, window.live, window.coverage, window.reads):
        with pytest.raises(error, match=match):
            ask(space)
