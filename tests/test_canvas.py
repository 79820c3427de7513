"""Test that images are placed completely on a canvas and that training sets are nested."""

import itertools

import numpy as np
import pytest

from convlab.data import Data, Split, StoredImages, place_on_canvas

SPACE, REACH = (11, 13), 2


def make_data(n=7, space=(5, 6), validation=True):
    draw = np.random.default_rng(0)
    splits = [Split(draw.integers(1, 255, (n + k, *space, 2)).astype(np.uint8), draw.integers(0, 3, n + k)) for k in range(3)]
    return Data("made", splits[0], splits[1], tuple("abc"), splits[2] if validation else None)


def find_offsets(image, small):
    """Return all offsets from the centre that turn the small image into the placed one."""
    (k, l), corner = small.shape[:2], [(large - size) // 2 for large, size in zip(SPACE, small.shape[:2], strict=True)]
    moves = []
    for move in itertools.product(range(-REACH, REACH + 1), repeat=2):
        i, j = (start + by for start, by in zip(corner, move, strict=True))
        alone = np.zeros_like(image)
        alone[i : i + k, j : j + l] = small
        moves += [move] * np.array_equal(alone, image)
    return moves


def test_every_image_lies_completely_on_the_canvas_at_one_offset():
    data = make_data()
    placed = place_on_canvas(data, SPACE, REACH, size=7, copies=2, seed=3)
    for small, large in ((data.test, placed.test), (data.validation, placed.validation)):
        for number, image in enumerate(large.images):
            assert len(find_offsets(image, small.images[number % len(small)])) == 1
        np.testing.assert_array_equal(large.labels, np.tile(small.labels, 2))
    sources = [[k for k, small in enumerate(data.train.images) if find_offsets(image, small)] for image in placed.train.images]
    assert sorted(k for [k] in sources) == list(range(7))
    np.testing.assert_array_equal(placed.train.labels, [data.train.labels[k] for [k] in sources])


def test_all_offsets_are_about_equally_frequent():
    one = Split(np.full((1, 1, 1, 1), 9, np.uint8), np.array([0]))
    placed = place_on_canvas(Data("dot", one, one, ("dot",)), SPACE, REACH, size=2500)
    counts = placed.train.images[..., 0].sum(0, dtype=int) // 9
    assert np.count_nonzero(counts) == 25
    assert np.all(np.abs(counts[counts > 0] - 100) < 50)


def test_training_sets_of_a_seed_are_nested_and_distance_changes_only_positions():
    data = make_data()
    small, large = (place_on_canvas(data, SPACE, REACH, size=n, seed=5).train for n in (9, 31))
    np.testing.assert_array_equal(large.images[:9], small.images)
    np.testing.assert_array_equal(large.labels[:9], small.labels)
    centred = place_on_canvas(data, SPACE, 0, size=31, seed=5).train
    np.testing.assert_array_equal(centred.labels, large.labels)
    np.testing.assert_array_equal(centred.images.sum((1, 2)), large.images.sum((1, 2)))
    other = place_on_canvas(data, SPACE, REACH, size=31, seed=6)
    assert not np.array_equal(other.train.images, large.images)
    np.testing.assert_array_equal(other.test.images, place_on_canvas(data, SPACE, REACH, size=9, seed=5).test.images)


def test_signals_are_placed_along_their_single_axis():
    data = make_data(space=(5,), validation=False)
    placed = place_on_canvas(data, (11,), 3, size=20)
    assert placed.train.images.shape == (20, 11, 2)
    assert placed.validation is None


def test_invalid_placements_raise_errors():
    data = make_data()
    with pytest.raises(ValueError, match="max_shift is 4 but a canvas of .* leaves 3 pixels"):
        place_on_canvas(data, SPACE, 4, size=7)
    with pytest.raises(ValueError, match="size"):
        place_on_canvas(data, SPACE, 1, size=0)
    with pytest.raises(ValueError, match="one size for each"):
        place_on_canvas(data, (11,), 1, size=7)
    stored = StoredImages(lambda indices: data.train.images[indices], np.arange(7), (5, 6, 2), np.dtype(np.uint8))
    on_disk = Data("stored", Split(stored, data.train.labels), data.test, data.classes)
    with pytest.raises(TypeError, match="on disk"):
        place_on_canvas(on_disk, SPACE, 1, size=7)
