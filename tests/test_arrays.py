"""Test data sets that are made of a user's arrays."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import convlab as cl
from convlab.data import Data, Split, StoredImages, batches, splits
from convlab.data.splits import TEST_FRACTION, hold_out

X = np.random.default_rng(0).integers(0, 256, (30, 5, 3, 2), dtype=np.uint8)
Y = np.arange(30) % 3


def with_pixel(value):
    """Return float images of which one, in the last part of a check in parts, has a pixel of this value."""
    images = X.astype(float)
    images[11, 2, 1, 0] = value
    return images


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, np.ndarray.tolist], ids=["numpy", "jax", "lists"])
def test_arrays_of_every_kind_make_the_same_data_set(convert):
    data = Data.from_arrays(convert(X), convert(Y), test=(convert(X[:4]), convert(Y[:4])))
    np.testing.assert_array_equal(data.train.images, X)
    np.testing.assert_array_equal(data.train.labels, Y)
    np.testing.assert_array_equal(data.test.images, X[:4])
    assert (data.name, data.classes, data.image_shape, data.validation) == ("arrays", ("0", "1", "2"), (5, 3, 2), None)


@pytest.mark.parametrize(
    "dtype, stored",
    [
        (np.uint8, np.uint8),
        (bool, np.uint8),
        (np.int64, np.float32),
        (np.uint16, np.float32),
        (np.float16, np.float32),
        (np.float64, np.float32),
        (jnp.bfloat16, np.float32),
    ],
)
def test_bytes_and_booleans_are_stored_as_bytes_and_other_numbers_as_floats(dtype, stored):
    data = Data.from_arrays((X > 127).astype(dtype), Y)
    assert data.train.images.dtype == data.test.images.dtype == stored
    assert set(np.unique(data.train.images)) == {0, 1}


def test_test_examples_are_held_out_like_those_of_a_loaded_data_set():
    data = Data.from_arrays(X, Y, seed=3)
    train, test = hold_out(Split(X, Y), TEST_FRACTION, seed=3)
    np.testing.assert_array_equal(data.train.images, train.images)
    np.testing.assert_array_equal(data.test.images, test.images)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert cl.Data is Data


@pytest.mark.parametrize("convert", [list, np.array, lambda names: np.array(names, object)], ids=["list", "array", "objects"])
def test_names_of_classes_are_sorted(convert):
    names = [("dog", "cat", "bird")[k] for k in Y]
    data = Data.from_arrays(X, convert(names), test=(X[:2], convert(names[:2])), validation=(X[:3], convert(names[:3])))
    assert data.classes == ("bird", "cat", "dog")
    np.testing.assert_array_equal(data.train.labels, 2 - Y)
    assert data.validation.labels.tolist() == [2, 1, 0]
    ordered = Data.from_arrays(X, convert(names), classes=["dog", "cat", "bird", "fish"])
    assert ordered.classes == ("dog", "cat", "bird", "fish")
    assert np.bincount(ordered.train.labels).tolist() == [8, 8, 8]


def test_class_numbers_count_those_of_all_parts():
    assert Data.from_arrays(X, Y, test=(X[:2], [0, 4])).classes == ("0", "1", "2", "3", "4")
    assert Data.from_arrays(X, Y > 0).classes == ("0", "1")


def test_floats_are_targets_of_any_shape_and_have_no_classes():
    targets = np.random.default_rng(1).normal(size=(30, 4, 2))
    data = Data.from_arrays(X, targets)
    assert data.classes == ()
    assert data.train.labels.dtype == np.float32
    assert (len(data.train), len(data.test)) == (24, 6)
    target_of = {image.tobytes(): target for image, target in zip(X, targets.astype(np.float32), strict=True)}
    changed = data.subset(20, seed=1).hold_out(0.25).map(lambda images: images)
    assert (len(changed.train), len(changed.validation)) == (15, 5)
    for split in (changed.train, changed.validation, changed.test):
        np.testing.assert_array_equal([target_of[image.tobytes()] for image in split.images], split.labels)
    smaller = {image.tobytes() for image in data.subset(7, seed=1).train.images}
    assert smaller < {image.tobytes() for image in data.subset(20, seed=1).train.images}
    with pytest.raises(ValueError, match="arrays has targets and no classes; relabel merges classes"):
        data.relabel({"a": 0})


@pytest.mark.parametrize(
    "x, y, options, error, message",
    [
        (X[..., 0, 0], Y, {}, ValueError, r"x of train has shape \(30, 5\); .* signals: x\[\.\.\., None\]"),
        (np.ones((30, 8, 8)), Y, {}, ValueError, r"shape \(30, 8, 8\); needs .* add an axis of channels .*\[..., None\]"),
        (X[:0], [], {}, ValueError, "needs at least one example"),
        (None, Y, {}, TypeError, "x of train must be an array of images, got None"),
        (X + 1j, Y, {}, TypeError, "x of train has dtype complex128; needs real numbers"),
        ([[1], [1, 2]], Y, {}, ValueError, "x of train holds images of different shapes"),
        (X.astype(np.int64) + 2**24, Y, {}, ValueError, "x of train holds integers .* float32 holds exactly"),
        (X, Y[1:], {}, ValueError, "y of train has 29 labels for 30 images; needs one label per image"),
        (X, None, {}, TypeError, "y of train must be an array of labels, got None"),
        (X, ["a", None] * 15, {}, TypeError, "y of train must be integers, strings or floats"),
        (X, Y - 1, {}, ValueError, r"y of train runs from -1 to 1; .* classes, y = np.unique\(y, return_inverse=True\)"),
        (X, Y[:, None], {}, ValueError, r"y of train has shape \(30, 1\); needs \(30,\), .* use y.ravel\(\)"),
        (X, [["a"]] * 30, {}, ValueError, r"y of train has shape \(30, 1\); needs \(30,\), .* use y.ravel\(\)"),
        (X, np.eye(3, dtype=int)[Y], {}, ValueError, r"y of train has shape \(30, 3\); .* use y.argmax\(-1\)"),
        (X, np.ones((30, 2), int), {}, ValueError, r"\(30, 2\); needs \(30,\), .* cast targets of other shapes to float32"),
        (X[:1], Y[:1], {}, ValueError, r"test is None, but no class has two of the 1 images, .* needs test=\(x, y\)"),
        (X[:3], Y[:3], {}, ValueError, r"test is None, but no class has two of the 3 images, .* needs test=\(x, y\)"),
        (X[:1], Y[:1] * 1.0, {}, ValueError, r"test is None, .* needs test=\(x, y\)"),
        (with_pixel(np.nan), Y, {}, ValueError, r"^x\[11\] of train contains NaN; needs finite pixels"),
        (with_pixel(np.inf), Y, {}, ValueError, r"^x\[11\] of train contains infinity; needs finite pixels"),
        (with_pixel(1e300), Y, {}, ValueError, r"^x\[11\] of train contains infinity"),
        (X * 1.0, Y, {"test": (with_pixel(np.nan), Y)}, ValueError, r"^x\[11\] of test contains NaN"),
        (X * 1.0, Y, {"validation": (with_pixel(-np.inf), Y)}, ValueError, r"^x\[11\] of validation contains infinity"),
        (X, np.full(30, np.inf), {}, ValueError, r"labels\[0\] is NaN, infinite or beyond float32"),
        (X, Y, {"test": X}, TypeError, r"test must be a pair \(x, y\) of images and labels"),
        (X, Y, {"test": (X, Y * 1.0)}, TypeError, "y holds integers in train and floats in test; needs one kind of label"),
        (X, Y, {"test": (X[:, 1:], Y)}, ValueError, "needs one shape, since one model reads both"),
        (X, Y * 1.0, {"test": (X, np.ones((30, 2)))}, ValueError, "needs one shape, since one model predicts both"),
        (X, Y, {"classes": ["a"]}, ValueError, "label 2 but classes names only 1"),
        (X, Y, {"classes": "abc"}, TypeError, "classes must be a sequence of names, got 'abc'"),
        (X, ["a"] * 30, {"classes": ["b"]}, ValueError, "y of train holds 'a', which is none of classes 'b'"),
        (X, Y * 1.0, {"classes": ["b"]}, ValueError, r"y holds floats, .* if they number classes, y.astype\(int\)"),
        (X, Y, {"name": 3}, TypeError, "name must be the name of the data set, a string, got 3"),
        (X, Y, {"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
        (X, Y, {"standardisation": "z"}, ValueError, "standardisation 'z' is unknown"),
    ],
)
def test_arrays_that_do_not_fit_raise_errors(x, y, options, error, message):
    with warnings.catch_warnings(action="error"), pytest.raises(error, match=message):
        Data.from_arrays(x, y, **options)


@pytest.mark.parametrize("part", [1, 7, 10**9])
def test_the_first_image_that_is_not_finite_is_named_whatever_is_checked_at_a_time(monkeypatch, part):
    images = np.zeros((10, 2, 1), np.float32)
    images[4, 1], images[7, 0] = np.inf, np.nan
    monkeypatch.setattr(splits, "CHUNK", part)
    with pytest.raises(ValueError, match=r"^images\[4\] contains infinity"):
        Split(images, np.arange(10))
    stored = StoredImages(lambda indices: images[indices], np.arange(10)[::-1], (2, 1), images.dtype)
    assert stored[7:].shape == (3, 2, 1)  # the last three from behind
    with pytest.raises(ValueError, match=r"^images\[7\] of those on disk contains NaN"):
        stored[:4]


def test_targets_and_classes_exclude_each_other():
    classes, targets = Split(X, Y), Split(X, Y * 1.0)
    with pytest.raises(ValueError, match=r"train has targets of dtype float32 but classes has 3 names; needs .* classes=\(\)"):
        Data("made", targets, targets, tuple("abc"))
    with pytest.raises(ValueError, match="classes must hold at least one name, as the labels of train number the classes"):
        Data("made", classes, classes, ())


@pytest.mark.parametrize(
    "fraction, error",
    [(2.0, ValueError), (1.0, ValueError), (0.0, ValueError), (-1.0, ValueError), (float("nan"), ValueError)]
    + [("0.1", TypeError), (None, TypeError), (True, TypeError)],
)
def test_hold_out_needs_a_fraction_between_0_and_1(fraction, error):
    with pytest.raises(error, match=f"fraction must be .*got {fraction!r}"):
        Data.from_arrays(X, Y).hold_out(fraction)


def test_numbers_of_numpy_are_accepted_by_batches():
    options = {"threads": np.int64(3), "prefetch": np.int64(2), "start": np.int64(1), "stop": np.int64(3)}
    assert len(list(batches(Split(X, Y), np.int64(8), **options))) == 2
