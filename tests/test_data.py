"""Test data sets, their errors, loading and deterministic transforms."""

import collections
import dataclasses
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convlab.data
from convlab.data import (
    Data,
    Split,
    StoredImages,
    catalogue,
    centre_on_canvas,
    digits,
    load,
    loading,
    permute_pixels,
    records,
    standardise,
    transforms,
)
from convlab.data.disk import MANIFEST, DamagedError
from convlab.data.sets import STANDARDISATIONS
from convlab.data.splits import hold_out
from convlab.extras import require

tfds = pytest.importorskip("tensorflow_datasets")

SHAPES = [(5, 7, 2), (5, 7, 3, 2), (5, 3, 7, 2, 3)]  # one, two and three spatial axes, unequal primes
SECONDS_OFFLINE = 5.0
TRAIN_LABELS = [6, 6, 6, 6, 6, 9, 7, 6, 9, 9, 5, 6]  # labels of version 1.0.0; a change requires a new builder version
TEST_LABELS = [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stands_alone(error: BaseException) -> bool:
    """Return True if no other traceback is shown above that of an error."""
    return error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


def data_of(labels: np.ndarray, classes: int, shape: tuple[int, ...] = (3, 5, 2)) -> Data:
    labels = np.asarray(labels)
    split = Split(gaussian(len(labels), *shape), labels)
    return Data("made", split, split, tuple(f"class {k}" for k in range(classes)))


# --- Split and Data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_data_holds_images_with_one_to_three_spatial_axes(shape, dtype):
    split = Split(np.ones(shape, dtype), np.arange(5))
    data = Data("made", split, split, tuple("abcde"))
    assert len(split) == 5
    assert data.image_shape == shape[1:]
    assert split.images.dtype == dtype
    assert split.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        ([[1]], np.arange(5), TypeError, "images must be a NumPy array, got list"),
        (jnp.ones((5, 3, 2)), np.arange(5), TypeError, "images must be a NumPy array"),
        (np.ones((5, 3, 2)), np.arange(5), TypeError, "float64; needs uint8"),
        (np.ones((5, 3), np.uint8), np.arange(5), ValueError, r"\(5, 3\); needs \(n, \*space, c\)"),
        (np.ones((5, 2, 2, 2, 2, 2), np.uint8), np.arange(5), ValueError, "1 to 3 spatial axes"),
        (np.ones((0, 3, 2), np.uint8), np.arange(0), ValueError, "at least one example"),
        (np.ones((5, 3, 0), np.uint8), np.arange(5), ValueError, "at least one example, pixel and channel"),
        (np.ones((5, 3, 2), np.uint8), [0] * 5, TypeError, "labels must be a NumPy array"),
        (np.ones((5, 3, 2), np.uint8), np.ones(5, bool), TypeError, "bool; needs integers"),
        (np.ones((5, 3, 2), np.uint8), np.ones((4, 3)), ValueError, r"\(4, 3\); needs \(5, \.\.\.\)"),
        (np.ones((5, 3, 2), np.uint8), np.full(5, np.nan), ValueError, r"labels\[0\] is NaN, infinite or beyond float32"),
        (np.ones((5, 3, 2), np.uint8), np.arange(4), ValueError, r"\(4,\); needs \(5,\)"),
        (np.ones((5, 3, 2), np.uint8), np.arange(5)[:, None], ValueError, r"\(5, 1\); needs \(5,\)"),
        (np.ones((5, 3, 2), np.uint8), np.arange(5) - 1, ValueError, "from -1 to 3; needs class numbers from 0"),
        (np.ones((5, 3, 2), np.uint8), np.full(5, 2**40), ValueError, "fit int32"),
    ],
)
def test_split_raises_an_error_for_invalid_images_or_labels(images, labels, error, message):
    with pytest.raises(error, match=message):
        Split(images, labels)


@pytest.mark.parametrize(
    ("test", "classes", "error", "message"),
    [
        (Split(gaussian(5, 3, 4, 2), np.arange(5)), tuple("abcde"), ValueError, "needs one shape"),
        (Split(np.ones((5, 3, 2), np.uint8), np.arange(5)), tuple("abcde"), TypeError, "needs one dtype"),
        (Split(gaussian(5, 3, 2), np.arange(5)), tuple("abcd"), ValueError, "train has label 4 .* needs labels 0 to 3"),
        (Split(gaussian(5, 3, 2), np.full(5, 7)), tuple("abcde"), ValueError, "test has label 7"),
        (Split(gaussian(5, 3, 2), np.arange(5)), tuple("abcda"), ValueError, "no name twice"),
        (Split(gaussian(5, 3, 2), np.arange(5)), (), ValueError, "at least one name"),
        (Split(gaussian(5, 3, 2), np.arange(5)), "abcde", TypeError, "classes must be a tuple"),
        (gaussian(5, 3, 2), tuple("abcde"), TypeError, "test must be a Split, got ndarray"),
    ],
)
def test_data_raises_an_error_for_inconsistent_splits(test, classes, error, message):
    with pytest.raises(error, match=message):
        Data("made", Split(gaussian(5, 3, 2), np.arange(5)), test, classes)


def test_data_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        data_of([0, 1], 2).name = "other"


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_and_std_are_those_of_the_training_pixels_per_channel(shape):
    images = 3 + 2 * gaussian(*shape)
    axes = tuple(range(images.ndim - 1))
    train = Split(images, np.arange(5))
    data = Data("made", train, Split(images + 100, np.arange(5)), tuple("abcde"))
    np.testing.assert_allclose(data.mean, images.mean(axes, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(data.std, images.std(axes, dtype=np.float64), rtol=1e-6)
    assert data.mean.shape == data.std.shape == shape[-1:]


def test_moments_of_bytes_do_not_overflow_and_span_chunks():
    images = np.random.default_rng(0).integers(200, 256, (2003, 3, 5, 2), dtype=np.uint8)
    split = Split(images, np.zeros(2003, int))
    data = Data("made", split, split, ("a",))
    np.testing.assert_allclose(data.mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, images.std((0, 1, 2)), rtol=1e-6)


def test_std_of_a_constant_channel_is_one():
    images = gaussian(5, 3, 7, 2)
    images[..., 1] = 0.1
    split = Split(images, np.arange(5))
    assert Data("made", split, split, tuple("abcde")).std[1] == 1


@pytest.mark.parametrize("kind", [np.uint8, np.float32, StoredImages])
def test_scale_divides_by_the_root_mean_square_and_none_changes_nothing(kind):
    images = np.clip(80 + 50 * gaussian(7, 3, 5, 2), 0, 255).astype(np.uint8 if kind is StoredImages else kind)
    images[:, 0] = 0  # the background
    held = (
        StoredImages(lambda indices: images[indices], np.arange(7), images.shape[1:], images.dtype)
        if kind is StoredImages
        else images
    )
    split = Split(held, np.arange(7))
    data, wide = Data("made", split, split, tuple("abcdefg")), images.astype(float)
    square = np.sqrt((wide**2).mean((0, 1, 2)))
    expected = {"moments": (wide.mean((0, 1, 2)), wide.std((0, 1, 2))), "scale": (0, square), "none": (0, 1)}
    for name, moments in expected.items():
        chosen = data.with_standardisation(name)
        for mine, its in zip((chosen.mean, chosen.std), moments, strict=True):
            assert (mine.shape, mine.dtype) == ((2,), np.float32)
            np.testing.assert_allclose(mine, np.broadcast_to(its, 2), rtol=1e-6)
        done = np.asarray(standardise(images, chosen.mean, chosen.std))
        assert (done[:, 0] == 0).all() == (name != "moments")
        assert np.array_equal(done, images) == (name == "none")


def test_scale_divides_a_channel_of_zeros_by_one_and_another_constant_by_its_magnitude():
    images = gaussian(5, 3, 7, 3)
    images[..., 1:] = 0, -0.1
    split = Split(images, np.arange(5))
    np.testing.assert_array_equal(Data("made", split, split, tuple("abcde"), None, "scale").std[1:], np.float32([1, 0.1]))


@pytest.mark.parametrize("name", STANDARDISATIONS)
def test_every_data_method_keeps_the_standardisation(name):
    data = data_of(np.arange(30) % 3, 3).with_standardisation(name)
    changed = data.subset(20).hold_out(0.2).relabel({"few": 0, "many": [1, 2]}).map(lambda images: 3 + 2 * images[:, 1:])
    assert changed.standardisation == name
    expected = {"moments": changed.train.images.mean((0, 1, 2)), "scale": np.zeros(2), "none": np.zeros(2)}
    np.testing.assert_allclose(changed.mean, expected[name], rtol=1e-5)


def test_unknown_standardisation_raises_an_error_before_loading(tmp_path):
    for call in (data_of([0, 1], 2).with_standardisation, lambda name: load("digits", data_dir=tmp_path, standardisation=name)):
        with pytest.raises(ValueError, match="standardisation 'mean' is unknown; needs one of moments, scale, none"):
            call("mean")
    assert not any(tmp_path.iterdir())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.data(), st.integers(0, 3))
def test_subset_is_class_balanced_and_nested(labels, draw, seed):
    data = data_of(labels, 5, (3, 2))
    available = np.bincount(labels, minlength=5)
    before: set[bytes] = set()
    for size in sorted(draw.draw(st.sets(st.integers(1, len(labels)), min_size=1, max_size=4))):
        kept = data.subset(size, seed).train
        counts = np.bincount(kept.labels, minlength=5)
        assert len(kept) == counts.sum() == size
        assert (counts[counts < available] >= counts.max() - 1).all()  # only an exhausted class has fewer examples
        images = {image.tobytes() for image in kept.images}
        assert before <= images
        before = images


def test_subset_keeps_every_image_with_its_label():
    data = data_of(np.arange(60) % 3, 3)
    label_of = {image.tobytes(): label for image, label in zip(data.train.images, data.train.labels, strict=True)}
    kept = data.subset(17).train
    assert [label_of[image.tobytes()] for image in kept.images] == kept.labels.tolist()


def test_subset_depends_only_on_the_seed():
    data = data_of(np.arange(60) % 3, 3)
    chosen = [data.subset(12, seed).train.images for seed in (0, 0, 1)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_full_subset_is_the_training_split_and_subsets_keep_the_test_split():
    data = data_of(np.arange(30) % 3, 3)
    np.testing.assert_array_equal(data.subset(30, 5).train.images, data.train.images)
    assert data.subset(4).test is data.test


@pytest.mark.parametrize("size", [0, -1, 31])
def test_subset_raises_an_error_for_sizes_out_of_range(size):
    with pytest.raises(ValueError, match=f"size must be 1 to 30, the training examples of made; got {size}"):
        data_of(np.arange(30) % 3, 3).subset(size)


def test_subset_raises_an_error_for_a_fraction():
    with pytest.raises(TypeError, match="size must be an integer.*got 0.5"):
        data_of(np.arange(30) % 3, 3).subset(0.5)


def test_map_changes_the_images_of_both_splits_and_nothing_else():
    data = data_of(np.arange(6) % 3, 3)
    data = dataclasses.replace(data, test=Split(data.test.images[:4] + 1, data.test.labels[:4]))
    mapped = data.map(lambda images: jnp.asarray(images)[:, 1:])
    assert mapped.image_shape == (2, 5, 2)
    assert mapped.classes == data.classes
    np.testing.assert_array_equal(mapped.test.images, data.test.images[:, 1:])
    np.testing.assert_array_equal(mapped.train.images, data.train.images[:, 1:])
    np.testing.assert_array_equal(mapped.train.labels, data.train.labels)


def test_map_raises_an_error_if_the_number_of_images_changes():
    with pytest.raises(ValueError, match=r"needs \(5,\)"):
        data_of(np.arange(6) % 3, 3).map(lambda images: images[1:])


def test_hold_out_takes_the_same_share_of_every_class():
    labels = np.repeat([0, 1, 2], [50, 20, 10])
    split = Split(gaussian(80, 3, 2), labels)
    train, test = hold_out(split, 0.2, seed=0)
    assert np.bincount(test.labels).tolist() == [10, 4, 2]
    both = np.concatenate([train.images, test.images])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in split.images}


def test_hold_out_raises_an_error_if_a_part_is_empty():
    with pytest.raises(ValueError, match="leaves one part of 2 examples empty"):
        hold_out(Split(gaussian(2, 3, 2), np.arange(2)), 0.2, seed=0)


# --- transforms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_permutation_moves_the_pixels_of_all_images_equally_and_loses_none(shape):
    numbers = np.broadcast_to(np.arange(np.prod(shape[1:-1])).reshape(shape[1:-1])[..., None], shape)
    moved = np.asarray(permute_pixels(numbers, jax.random.key(1)))
    assert (moved == moved[:1, ..., :1]).all()
    assert sorted(moved[0, ..., 0].ravel()) == list(range(np.prod(shape[1:-1])))
    assert not np.array_equal(moved, numbers)
    images = gaussian(*shape)
    pixels = images.reshape(len(images), -1, shape[-1])[:, moved[0, ..., 0].ravel()]
    np.testing.assert_array_equal(permute_pixels(images, jax.random.key(1)), pixels.reshape(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_permutation_is_the_same_in_every_call_and_in_every_batch(shape):
    images, key = gaussian(*shape), jax.random.key(1)
    permuted = permute_pixels(images, key)
    chex.assert_trees_all_equal(permuted[2:3], permute_pixels(images[2:3], key), jax.jit(permute_pixels)(images, key)[2:3])
    ndim = images.ndim - 2
    chex.assert_trees_all_equal(permuted[3], permute_pixels(images[3], key, ndim=ndim))
    chex.assert_trees_all_equal(permuted[None], permute_pixels(images[None], key, ndim=ndim))
    assert not np.array_equal(permuted, permute_pixels(images, jax.random.key(2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_spatial_transforms_keep_the_dtype(dtype):
    images = np.ones((5, 3, 7, 2), dtype)
    for moved in (permute_pixels(images, jax.random.key(0)), centre_on_canvas(images, (7, 11))):
        assert moved.dtype == dtype


@pytest.mark.parametrize("ndim", [0, 4])
def test_permutation_raises_an_error_for_unsupported_numbers_of_axes(ndim):
    with pytest.raises(ValueError, match=f"needs 1 to 3 spatial axes, got {ndim}"):
        permute_pixels(gaussian(2, 2, 2, 2, 2, 2), jax.random.key(0), ndim=ndim)


def test_permutation_raises_an_error_for_too_few_axes():
    with pytest.raises(ValueError, match="needs 3 spatial axes and channels"):
        permute_pixels(gaussian(5, 3, 2), jax.random.key(0), ndim=3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: centre_on_canvas(x, (9.5, 9)), TypeError, "Python integers"),
        (lambda x: centre_on_canvas(x, ()), ValueError, "space is .*needs 1 to 3 spatial axes, got 0"),
        (lambda x: centre_on_canvas(x, (9, True)), TypeError, "space must be a sequence of Python integers"),
        (lambda x: centre_on_canvas(x[0, 0], (9, 9)), ValueError, r"\(7, 2\); needs 2 spatial axes"),
        (lambda x: centre_on_canvas(x, (3, 6)), ValueError, r"space \(3, 6\) is smaller than the images' \(3, 7\)"),
        (lambda x: centre_on_canvas(x, 9), TypeError, "space must be a sequence"),
        (lambda x: standardise(x, np.zeros(3), np.ones(3)), ValueError, r"mean has shape \(3,\).*needs \(2,\)"),
        (lambda x: standardise(x, np.zeros(2), np.ones(())), ValueError, "std has shape"),
        (lambda x: standardise(x, np.zeros(2), np.array([1.0, 0])), ValueError, "std must be above 0"),
        (lambda x: standardise(x, np.zeros(2), np.array([1.0, np.nan])), ValueError, "std must be above 0"),
    ],
)
def test_transforms_raise_errors_for_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(gaussian(5, 3, 7, 2))


@pytest.mark.parametrize(("shape", "space"), list(zip(SHAPES, [(11,), (8, 3), (3, 10, 5)], strict=True)))
def test_embed_centres_the_images_among_zeros(shape, space):
    images = gaussian(*shape)
    canvas = np.array(centre_on_canvas(images, space))
    assert canvas.shape == (5, *space, shape[-1])
    low = [(large - small) // 2 for large, small in zip(space, shape[1:-1], strict=True)]
    inside = (slice(None), *(slice(k, k + small) for k, small in zip(low, shape[1:-1], strict=True)))
    np.testing.assert_array_equal(canvas[inside], images)
    canvas[inside] = 0
    assert not canvas.any()
    for axis, (large, small) in enumerate(zip(space, shape[1:-1], strict=True)):
        assert 0 <= (large - small - low[axis]) - low[axis] <= 1  # centred, or one pixel nearer the origin


@pytest.mark.parametrize("shape", SHAPES)
def test_standardised_training_images_have_mean_zero_and_std_one(shape):
    images = 30 + 7 * gaussian(*shape)
    split = Split(images, np.arange(5))
    data = Data("made", split, split, tuple("abcde"))
    axes = tuple(range(images.ndim - 1))
    done = jax.jit(standardise)(images, data.mean, data.std)
    np.testing.assert_allclose(done.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(done.std(axes), 1, rtol=1e-5)
    assert data.map(lambda x: standardise(x, data.mean, data.std)).train.images.dtype == np.float32


def test_standardise_does_not_overflow_for_bytes():
    images = np.full((5, 3, 2), 1, np.uint8)
    chex.assert_trees_all_close(
        standardise(images, np.array([2.0, 4]), np.array([1.0, 2])), np.float32([-1.0, -1.5]) * np.ones_like(images)
    )


# --- locally generated data sets ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepare both local data sets without a network, outside the default directory."""
    directory, home = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("TFDS_DATA_DIR", str(home / "default"))
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
        random.seed(1)
        np.random.seed(1)
        for name in ("digits", "mnist1d"):
            load(name, data_dir=directory, storage="disk")
        drawn = random.random(), np.random.random()
    assert list(home.iterdir()) == []
    random.seed(1)
    np.random.seed(1)
    return directory, drawn, (random.random(), np.random.random())


def test_digits_match_those_of_scikit_learn(prepared):
    from sklearn.datasets import load_digits

    data = load("digits", data_dir=prepared[0])
    assert data.name == "digits"
    assert data.classes == tuple("0123456789")
    assert data.train.images.shape == (1437, 8, 8, 1)
    assert data.test.images.shape == (360, 8, 8, 1)
    assert data.train.images.dtype == np.uint8
    assert np.bincount(data.test.labels).tolist() == [36] * 10
    pixels, labels = load_digits(return_X_y=True)
    shipped = collections.Counter((x.astype(np.uint8).tobytes(), y) for x, y in zip(pixels, labels, strict=True))
    stored = [(x.tobytes(), y) for s in (data.train, data.test) for x, y in zip(s.images, s.labels, strict=True)]
    assert collections.Counter(stored) == shipped


def test_digits_are_split_in_the_order_of_version_1(prepared):
    data = load("digits", data_dir=prepared[0])
    assert data.train.labels[:12].tolist() == TRAIN_LABELS
    assert data.test.labels[:12].tolist() == TEST_LABELS


def test_mnist1d_matches_the_arrays_of_its_package(prepared):
    data = load("mnist1d", data_dir=prepared[0])
    assert data.train.images.shape == (4000, 40, 1)
    assert data.test.images.shape == (1000, 40, 1)
    assert data.train.images.dtype == np.float32
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == [500] * 10
    everything = np.concatenate([data.train.images, data.test.images])
    assert abs(everything.mean()) < 1e-6
    assert abs(everything.std() - 1) < 1e-6
    from mnist1d.data import make_dataset

    state = np.random.get_state()
    made = make_dataset()
    np.random.set_state(state)
    np.testing.assert_array_equal(data.test.images[..., 0], made["x_test"].astype(np.float32))
    np.testing.assert_array_equal(data.test.labels, made["y_test"])


def test_preparing_leaves_the_global_random_state_unchanged(prepared):
    assert prepared[1] == prepared[2]


def test_local_data_sets_do_not_depend_on_the_seed(prepared):
    one, other = (load("digits", data_dir=prepared[0], seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.train.images, other.train.images)


def test_load_sets_the_standardisation_and_leaves_images_unchanged(prepared):
    usual, raw = (load("digits", data_dir=prepared[0], **options) for options in ({}, {"standardisation": "none"}))
    assert (usual.standardisation, raw.standardisation) == ("moments", "none")
    assert (raw.mean, raw.std) == (0, 1)
    np.testing.assert_array_equal(usual.train.images, raw.train.images)


def test_local_data_sets_are_stored_as_array_records_in_data_dir(prepared):
    names = {path.name for path in (prepared[0] / "convlab_digits" / "1.0.0").iterdir()}
    assert {"convlab_digits-train.array_record-00000-of-00001", "dataset_info.json"} <= names


def test_prepared_digits_load_within_half_a_second(prepared):
    load("digits", data_dir=prepared[0])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load("digits", data_dir=prepared[0])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # 0.05 s on an idle machine


def test_data_dir_is_read_from_the_environment_at_call_time(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared[0]))
    monkeypatch.setattr(records, "FILE_FORMAT", "riegeli")  # a new preparation would fail
    with pytest.raises(ValueError, match=f"digits in {prepared[0]}.* is prepared as array_record"):
        load("digits", storage="disk")


def test_preparing_is_silent_by_default(tmp_path, capfd):
    load("digits", data_dir=tmp_path, storage="disk")
    out, err = capfd.readouterr()
    assert out == ""
    assert "splits" not in err
    assert "examples" not in err


def test_progress_is_shown_on_request_and_in_a_terminal_as_bars(tmp_path, capfd, monkeypatch):
    load("digits", data_dir=tmp_path / "0", storage="disk", progress=True)
    assert capfd.readouterr() == ("", "")  # a pipe gets lines, and none from a short preparation
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    load("digits", data_dir=tmp_path / "1", storage="disk", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    for said in ("Generating", "decoding train", "decoding test"):
        assert said in err


@pytest.mark.slow
def test_two_concurrent_loads_prepare_one_data_set(tmp_path):
    command = [
        sys.executable,
        "-c",
        f"from convlab.data import load; print(len(load(data_dir={str(tmp_path)!r}, storage='disk').test))",
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=50)[0].strip() for process in running] == ["360", "360"]


def test_importing_convlab_data_loads_no_heavy_library():
    heavy = ["tensorflow_datasets", "tensorflow", "sklearn", "mnist1d", "matplotlib", "requests", "PIL"]
    code = f"import sys, convlab.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("name", "missing"),
    [("digits", "tensorflow_datasets"), ("digits", "array_record.python.array_record_module"), ("mnist1d", "mnist1d.data")],
)
def test_missing_package_raises_an_error_that_names_its_extra(tmp_path, monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing.split('.')[0]}.* is needed.*'convlab-jax\[experiments\]'") as error:
        load(name, data_dir=tmp_path, storage="disk")
    assert stands_alone(error.value)
    assert not list(tmp_path.glob("convlab_*/1.0.0"))


def test_digits_in_memory_need_no_other_package_and_match_their_records(prepared, tmp_path, monkeypatch):
    expected = load("digits", data_dir=prepared[0], storage="records")
    for module in ("tensorflow_datasets", "array_record", "filelock", "absl.logging", "PIL.Image", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    data = load("digits", data_dir=tmp_path / "data")
    assert (data.name, data.classes) == (expected.name, expected.classes)
    for split in ("train", "test"):
        mine, its = getattr(data, split), getattr(expected, split)
        assert (mine.images.dtype, mine.labels.dtype) == (its.images.dtype, its.labels.dtype)
        np.testing.assert_array_equal(mine.images, its.images[:])
        np.testing.assert_array_equal(mine.labels, its.labels)
    assert not (tmp_path / "data").exists()


def test_digits_are_read_by_scikit_learn_if_their_file_has_moved(monkeypatch):
    expected = load("digits")
    monkeypatch.setattr(digits, "FILE", "nowhere.csv.gz")
    np.testing.assert_array_equal(load("digits").train.images, expected.train.images)
    np.testing.assert_array_equal(load("digits").test.labels, expected.test.labels)


def test_digits_without_scikit_learn_raise_an_error_that_names_it(monkeypatch):
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"^scikit-learn is needed here.*'convlab-jax\[experiments\]'") as error:
        load("digits")
    assert stands_alone(error.value)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"name": None}, TypeError, "name must be a string"),
        ({"name": "folder:a\0b"}, ValueError, "names no folder"),
        ({"data_dir": 3}, TypeError, "data_dir must be the path of a directory, got 3"),
        ({"data_dir": ""}, ValueError, "data_dir must be the path of a directory"),
        ({"manual_dir": "a\0b"}, ValueError, "manual_dir must be the path of a directory"),
        ({"data_dir": "\udcff"}, ValueError, "data_dir must be the path of a directory in printable characters"),
        ({"image_size": [[1], [1, 2]]}, ValueError, "image_size must be a number of pixels above 0"),
        ({"image_size": 10**7}, MemoryError, "an image of image_size"),
        ({"skip_corrupt": "no"}, TypeError, "skip_corrupt must be True or False"),
        ({"overwrite": 1}, TypeError, "overwrite must be True or False"),
        ({"progress": None}, TypeError, "progress must be True or False"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"storage": 3}, ValueError, "storage 3 is unknown"),
    ],
)
def test_invalid_arguments_of_load_raise_errors(options, error, message):
    with pytest.raises(error, match=message):
        load(**options)


# --- catalogue sets -----------------------------------------------------------------------------------------------------


class GreySquares(tfds.core.GeneratorBasedBuilder):
    """A data set in the style of TFDS, with PNG images and a checksum file with its URL."""

    VERSION = tfds.core.Version("2.0.0")
    url_infos = types.MappingProxyType({"https://squares.invalid/all.zip": None})
    splits = ("train", "test")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(5, 7, 1)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(k) for k, split in enumerate(self.splits)}

    def _generate_examples(self, seed):
        for k in range(20 - 10 * seed):
            image = io.BytesIO()  # encoded here, as TFDS encodes arrays with TensorFlow
            PIL.Image.new("L", (7, 5), 100 * (k % 2) + k).save(image, "PNG")
            yield k, {"image": io.BytesIO(image.getvalue()), "label": k % 2}


class Unsplit(GreySquares):
    splits = ("train",)


class OfAllKinds(GreySquares):
    """Images of different sizes, some of them gray."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, seed):
        for k in range(8):
            image = io.BytesIO()
            mode, colour = (("L", 100), ("RGB", (100, 100, 100)))[k % 2]
            PIL.Image.new(mode, (7 + k, 5), colour).save(image, "JPEG" if k % 3 else "PNG")
            yield k, {"image": io.BytesIO(image.getvalue()), "label": k % 2}


class Deep(GreySquares):
    """Images with sixteen bits per pixel."""

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(5, 7, 1), dtype=np.uint16),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, seed):
        yield 0, {"image": np.zeros((5, 7, 1), np.uint16), "label": 0}


class Sentences(GreySquares):
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _generate_examples(self, seed):
        yield 0, {"text": "no image"}


def prepare(builder, directory):
    with records.quiet():
        builder(data_dir=directory).download_and_prepare(file_format="array_record")
    return directory


def assert_grey_squares(data):
    assert data.train.images.shape == (20, 5, 7, 1)
    assert data.test.images.shape == (10, 5, 7, 1)
    assert data.train.images.dtype == np.uint8
    assert data.classes == ("dark", "light")
    assert (data.train.images[:, 0, 0, 0] % 2 == data.train.labels).all()


@pytest.fixture
def offline(monkeypatch):
    """Disable the network and hide TensorFlow."""

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(catalogue, "_lacks_tensorflow", lambda: True)


def test_prepared_set_of_the_catalogue_is_read_without_network_or_tensorflow(tmp_path, offline):
    data = load("grey_squares", data_dir=prepare(GreySquares, tmp_path))
    assert_grey_squares(data)
    assert data.name == "grey_squares"
    assert "tensorflow" not in sys.modules


def test_prepared_set_of_another_version_or_without_code_is_read(tmp_path, offline):
    prepare(GreySquares, tmp_path)
    (tmp_path / "grey_squares" / "2.0.0").rename(tmp_path / "grey_squares" / "1.7.0")
    info = tmp_path / "grey_squares" / "1.7.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("2.0.0", "1.7.0"))
    assert_grey_squares(load("grey_squares", data_dir=tmp_path))


def test_set_without_a_test_split_holds_out_a_fifth_by_seed(tmp_path, offline):
    prepare(Unsplit, tmp_path)
    one, same, other = (load("unsplit", data_dir=tmp_path, seed=seed) for seed in (0, 0, 1))
    assert (len(one.train), np.bincount(one.test.labels).tolist()) == (16, [2, 2])
    np.testing.assert_array_equal(one.test.images, same.test.images)
    assert not np.array_equal(one.test.images, other.test.images)


def test_data_set_without_images_raises_an_error(tmp_path, offline):
    with pytest.raises(ValueError, match=r"fields \['text'\]; needs 'image'"):
        load("sentences", data_dir=prepare(Sentences, tmp_path))


def test_stock_images_of_different_sizes_and_modes_are_converted_to_one_size_and_colour(tmp_path, offline):
    prepare(OfAllKinds, tmp_path)
    for storage in ("memory", "disk", "records"):
        with pytest.raises(ValueError, match=r"of (different|several) shapes.*image_size=\(height, width\)"):
            load("of_all_kinds", data_dir=tmp_path, storage=storage)
        data = load("of_all_kinds", data_dir=tmp_path, storage=storage, image_size=(5, 6))
        assert data.image_shape == (5, 6, 3)
        assert abs(data.train.images[:].astype(int) - 100).max() <= 2  # JPEG is lossy


def test_sixteen_bit_images_raise_an_error(tmp_path, offline):
    with pytest.raises(ValueError, match="deep has images of uint16; needs uint8"):
        load("deep", data_dir=prepare(Deep, tmp_path))


@pytest.mark.parametrize("name", ["grey_squares", "digits"])
def test_preparation_in_another_format_is_not_reused(tmp_path, offline, name):
    load("digits", data_dir=tmp_path, storage="disk")
    prepare(GreySquares, tmp_path)
    for path in tmp_path.glob("*/*/dataset_info.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
        path.with_name(MANIFEST).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f"{name} in {tmp_path}.* prepared as tfrecord; needs array_record.*data_dir"):
        load(name, data_dir=tmp_path, storage="disk")


@pytest.mark.parametrize("has_checksums, message", [(True, "features.json"), (False, "asks to import intruder.Feature")])
@pytest.mark.parametrize("name", ["grey_squares", "digits"])
def test_description_is_verified_before_modules_that_it_names_are_imported(
    tmp_path, offline, monkeypatch, name, has_checksums, message
):
    if name == "digits":
        load(name, data_dir=tmp_path, storage="disk")
    else:
        load(name, data_dir=prepare(GreySquares, tmp_path), storage="records")
    (path,) = tmp_path.glob("*/*/features.json")
    path.write_text(
        path.read_text().replace("tensorflow_datasets.core.features.class_label_feature.ClassLabel", "intruder.Feature")
    )
    if not has_checksums:
        path.with_name(MANIFEST).unlink()
    (tmp_path / "intruder.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DamagedError, match=f"{message}.*overwrite=True"):
        load(name, data_dir=tmp_path, storage="disk")
    assert "intruder" not in sys.modules


def test_unfinished_preparation_raises_an_error(tmp_path):
    (tmp_path / "convlab_digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(ValueError, match="digits in .*1.0.0 is incomplete"):
        load("digits", data_dir=tmp_path, storage="disk")


def test_loading_a_stock_set_offline_fails_quickly_and_suggests_alternatives(tmp_path, offline):
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match="cifar10") as error:
        load("cifar10", data_dir=tmp_path)
    assert time.perf_counter() - start < SECONDS_OFFLINE
    for part in (str(tmp_path), "'.[tf]'", "'convlab-jax[tf]'", "once with a network", "data_dir", "'digits' or 'mnist1d'"):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_hanging_name_lookup_is_abandoned(tmp_path, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(60) and [])
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match="did not answer within"):
        load("cifar10", data_dir=tmp_path)
    assert time.perf_counter() - start < SECONDS_OFFLINE
    released.set()


def test_network_check_uses_the_proxy(monkeypatch):
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked, status = [], ["200 OK", "503 Service Unavailable"]

        def answer():
            for line in status:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(4096).split()[:2])
                    connection.sendall(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert catalogue.connection_failure("http://squares.invalid/all.zip") is None
        assert "503" in (catalogue.connection_failure("http://squares.invalid/all.zip") or "")
    assert asked == [[b"HEAD", b"http://squares.invalid/all.zip"]] * 2


def test_missing_tensorflow_raises_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "connection_failure", lambda url: None)

    def absent(module, *extra):
        return require("absent_for_certain" if module == "tensorflow" else module, *extra)

    monkeypatch.setattr(catalogue, "require", absent)
    with pytest.raises(ImportError, match=r"'convlab-jax\[tf\]'"):
        load("grey_squares", data_dir=tmp_path)


def test_set_of_the_catalogue_is_prepared_without_the_gpu(tmp_path, monkeypatch):
    asked, hidden = [], []
    config = types.SimpleNamespace(set_visible_devices=lambda *arguments: hidden.append(arguments))
    absent = {"tensorflow": types.SimpleNamespace(config=config)}
    monkeypatch.setattr(catalogue, "require", lambda module, *extra: absent.get(module) or require(module, *extra))
    monkeypatch.setattr(catalogue, "connection_failure", asked.append)
    assert_grey_squares(load("grey_squares", data_dir=tmp_path))
    assert asked == ["https://squares.invalid/all.zip"]
    assert hidden == [([], "GPU")]
    monkeypatch.setattr(catalogue, "connection_failure", lambda url: pytest.fail("asked again although prepared"))
    assert_grey_squares(load("grey_squares", data_dir=tmp_path))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cifar1O", "cifar10"),
        ("cifar-10", "cifar10"),
        ("fashion_mnits", "fashion_mnist"),
        ("digit", "digits"),
        ("mnist1", "mnist"),
    ],
)
def test_unknown_name_raises_an_error_with_the_nearest_names(tmp_path, offline, name, nearest):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=rf"data set '{name}' .*did you mean .*'{nearest}'.*\?$"):
        load(name, data_dir=tmp_path)
    assert time.perf_counter() - start < SECONDS_OFFLINE


@pytest.mark.parametrize("name", ["", "../digits", "mnist:9.9.9", "emnist/nosuch", "huggingface:mnist", "mnist/x=1", "qzxqzx"])
def test_names_that_cannot_be_opened_raise_value_errors(tmp_path, offline, name):
    with pytest.raises(ValueError, match="data set") as error:
        load(name, data_dir=tmp_path)
    assert stands_alone(error.value)


def test_public_names_exist():
    assert set(convlab.data.__all__) >= {"Data", "Split", "load"}
    assert loading.LOCAL.keys() == {"digits", "mnist1d"}
    for name in convlab.data.__all__:
        assert getattr(convlab.data, name) is not None
    for name in ("centre_on_canvas", "permute_pixels", "standardise"):
        assert getattr(convlab.data, name) is getattr(transforms, name)
