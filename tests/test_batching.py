"""Test that batches do not depend on storage, start position or the number of processes."""

import dataclasses
import itertools
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convlab as cl
from convlab.data import Data, Split, StoredImages, batches, load, store

pytest.importorskip("tensorflow_datasets")
STORAGES = ("memory", "disk", "records")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Load the digits with each of the three storage options."""
    folder = tmp_path_factory.mktemp("data")
    return {storage: load("digits", data_dir=folder, storage=storage) for storage in STORAGES}


def make_split(number=23, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (number, 5, 3, 2), np.uint8)
    return Split(images, np.arange(number) % 4)


def stored(split):
    """Return the same split with images that are read when indexed."""
    images = split.images
    return Split(StoredImages(lambda p: images[p], np.arange(len(images)), images.shape[1:], images.dtype), split.labels)


def assert_equal(got, expected):
    got, expected = list(got), list(expected)
    assert len(got) == len(expected)
    for (x, y), (a, b) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


# --- batches --------------------------------------------------------------------------------------------------------


def test_every_epoch_holds_every_example_once_with_its_label():
    split = make_split(23)
    label_of = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    images, labels = (np.concatenate(parts) for parts in zip(*batches(split, 23, stop=3), strict=True))
    assert [label_of[image.tobytes()] for image in images] == labels.tolist()
    for epoch in range(3):
        assert {image.tobytes() for image in images[23 * epoch : 23 * epoch + 23]} == label_of.keys()
    assert not np.array_equal(images[:23], images[23:46])


def test_batches_depend_only_on_seed_and_step():
    split = make_split()
    assert_equal(batches(split, 5, seed=3, stop=12), batches(split, 5, seed=3, stop=12, prefetch=1, threads=1))
    one, other = next(batches(split, 5, seed=3)), next(batches(split, 5, seed=4))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("start", [0, 1, 7, 11])
def test_resumed_run_continues_with_the_next_batch(start):
    split = make_split()
    assert_equal(batches(split, 5, start=start, stop=12), list(batches(split, 5, stop=12))[start:])


def test_batches_without_a_stop_do_not_end():
    assert len(list(itertools.islice(batches(make_split(), 5), 40))) == 40


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_processes_share_every_batch_without_overlap(parts):
    split = make_split()
    shards = [list(batches(split, 6, stop=9, shard=(part, parts))) for part in range(parts)]
    joined = [tuple(np.concatenate(arrays) for arrays in zip(*of_step, strict=True)) for of_step in zip(*shards, strict=True)]
    assert_equal(joined, batches(split, 6, stop=9))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 5), (0, 0), (0,), (0, 1.0), (False, True)])
def test_invalid_shards_raise_errors(shard):
    with pytest.raises(ValueError, match=r"shard .* of batches of 6: needs"):
        batches(make_split(), 6, shard=shard)


def test_no_more_batches_are_read_ahead_than_requested():
    reads, split = [], make_split()

    def read(indices):
        reads.append(len(indices))
        return split.images[indices]

    slow = Split(StoredImages(read, np.arange(23), (5, 3, 2), np.dtype(np.uint8)), split.labels)
    feed = batches(slow, 5, prefetch=3, threads=2)
    next(feed)
    settled = threading.Event()
    settled.wait(0.5)
    assert 1 < len(reads) <= 1 + 3 + 2


# --- images that stay on disk ---------------------------------------------------------------------------------------


def test_every_storage_option_holds_the_same_images(digits):
    for storage in STORAGES[1:]:
        assert isinstance(digits[storage].train.images, StoredImages)
        for split in ("train", "test"):
            one, other = getattr(digits["memory"], split), getattr(digits[storage], split)
            np.testing.assert_array_equal(one.images, other.images[:])
            np.testing.assert_array_equal(one.labels, other.labels)
            indices = np.array([5, 2, 2, len(one) - 1])
            np.testing.assert_array_equal(one.images[indices], other.images[indices])
            np.testing.assert_array_equal(one.images[3:9], other.images[3:9])
        np.testing.assert_array_equal(digits["memory"].mean, digits[storage].mean)
        np.testing.assert_array_equal(digits["memory"].std, digits[storage].std)
        assert_equal(batches(digits[storage].train, 32, stop=5), batches(digits["memory"].train, 32, stop=5))


def test_selections_and_maps_of_stored_images_stay_stored_and_match_those_in_memory():
    split = make_split(40)
    in_memory, on_disk = (Data("made", part, part, tuple("abcd")) for part in (split, stored(split)))
    for change in (
        lambda data: data.subset(17, 1),
        lambda data: data.relabel({"x": ["c", 0], "y": 1}),
        lambda data: data.hold_out(0.3),
        lambda data: data.map(lambda images: images[:, 1:]),
        lambda data: data.map(lambda images: jnp.asarray(images) / 2).subset(9).map(lambda images: images[..., :1] + 1),
    ):
        one, other = change(in_memory), change(on_disk)
        assert one.classes == other.classes
        for name in ("train", "test", "validation"):
            mine, its = getattr(one, name), getattr(other, name)
            if mine is not None:
                assert isinstance(its.images, StoredImages)
                assert (its.images.shape, its.images.dtype) == (mine.images.shape, mine.images.dtype)
                np.testing.assert_array_equal(mine.images, its.images[:])
                np.testing.assert_array_equal(mine.labels, its.labels)


@pytest.mark.parametrize("index", [3, -1, slice(2, 9, 3), slice(0, 0), np.array([4, 4, 1]), (slice(0, 2), 0), (5, ..., 1)])
def test_stored_images_are_indexed_like_arrays(index):
    split = make_split(20)
    np.testing.assert_array_equal(stored(split).images[index], split.images[index])
    assert len(list(stored(split).images)) == 20


def test_map_that_loses_stored_images_raises_an_error():
    data = Data("made", *[stored(make_split(40))] * 2, tuple("abcd"))
    with pytest.raises(ValueError, match="f returned 1 images for 2; needs as many"):
        data.map(lambda images: images[:1])
    with pytest.raises(ValueError, match="read returns .* for 5 stored images"):
        data.map(lambda images: images[:3]).train.images[:5]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": 4, "start": -1},
        {"batch_size": 4, "prefetch": 0},
        {"batch_size": 4, "threads": 0},
        {"batch_size": 4, "threads": True},
        {"batch_size": 4, "stop": 2.5},
        {"batch_size": 4, "start": 10**30},
        {"batch_size": 4, "seed": -1},
        {"batch_size": 4, "seed": [1]},
    ],
)
def test_invalid_batch_arguments_raise_errors(options):
    with pytest.raises(ValueError, match=f"{list(options)[-1]} must be an integer of at least"):
        batches(make_split(), **options)


def test_numbers_of_numpy_count_as_integers():
    split, two = make_split(), np.int64(2)
    options = {"seed": two, "start": two, "stop": np.uint8(5), "shard": (np.int32(1), two), "prefetch": two, "threads": two}
    plain = {"seed": 2, "start": 2, "stop": 5, "shard": (1, 2), "prefetch": 2, "threads": 2}
    assert_equal(batches(split, np.int64(6), **options), batches(split, 6, **plain))


def test_batches_that_exceed_the_memory_raise_an_error():
    for options in ({"batch_size": 2**40}, {"batch_size": 4, "prefetch": 2**40}, {"batch_size": 4, "threads": 2**40}):
        with pytest.raises(MemoryError, match="for prefetch and threads, which is a number of batches of batch_size"):
            batches(make_split(), **options)


def test_batches_require_a_split():
    with pytest.raises(TypeError, match="split must be a Split such as data.train, got Data"):
        batches(data_of(np.arange(30) % 3), 8)


def test_holding_out_leaves_an_example_of_every_class_in_both_parts():
    data = data_of(np.repeat([0, 1, 2], [20, 2, 3]))
    for fraction in (0.1, 0.8):
        divided = data.hold_out(fraction)
        for part in (divided.train, divided.validation):
            assert (np.bincount(part.labels, minlength=3) > 0).all()


def test_moments_of_many_stored_images_are_estimated_from_a_fixed_sample(monkeypatch):
    from convlab.data import sets

    monkeypatch.setattr(sets, "SAMPLE", 500)
    split = make_split(2000)
    in_memory, on_disk, again = (Data("made", part, part, tuple("abcd")) for part in (split, stored(split), stored(split)))
    np.testing.assert_allclose(in_memory.mean, on_disk.mean, rtol=0.05)
    np.testing.assert_allclose(in_memory.std, on_disk.std, rtol=0.05)
    assert (in_memory.mean != on_disk.mean).any()
    np.testing.assert_array_equal(on_disk.mean, again.mean)


def test_decoded_images_of_several_blocks_keep_their_order(tmp_path, monkeypatch):
    from convlab.data import records

    expected = load("digits", data_dir=tmp_path)
    monkeypatch.setattr(records, "BLOCK", 100)
    monkeypatch.setattr(store.disk, "BLOCK", 10_000)
    again = load("digits", data_dir=tmp_path, overwrite=True)
    np.testing.assert_array_equal(again.train.images, expected.train.images)
    np.testing.assert_array_equal(again.train.labels, expected.train.labels)


# --- training -------------------------------------------------------------------------------------------------------


def network():
    return cl.models.MLP((8, 8, 1), 10, (16,), rngs=nnx.Rngs(0))


def test_training_is_the_same_for_every_storage_option(digits):
    config = cl.Config(steps=30, batch_size=32, progress=False, evaluations=2)
    runs = {storage: cl.fit(network(), digits[storage], config) for storage in STORAGES}
    for storage in STORAGES[1:]:
        chex.assert_trees_all_equal(runs[storage].parameters, runs["memory"].parameters)
        assert [row["test_loss"] for row in runs[storage].history] == [row["test_loss"] for row in runs["memory"].history]


def test_validation_images_are_scored_along_with_the_test_images(digits):
    data = digits["memory"].hold_out(0.2)
    fitted = cl.fit(network(), data, cl.Config(steps=20, progress=False, evaluations=1))
    (row,) = fitted.history
    expected = fitted.evaluate(data.validation.images, data.validation.labels)
    assert row["validation_loss"] == expected["loss"]
    assert row["validation_accuracy"] == expected["accuracy"]
    assert row["validation_loss"] != row["test_loss"]


def test_augmentation_changes_only_training_images_and_differs_between_steps(digits):
    data, seen = digits["memory"], []

    def augment(images, key):
        jax.debug.callback(lambda bits: seen.append(int(bits)), jax.random.bits(key))
        return jnp.zeros_like(images)

    config = cl.Config(steps=5, progress=False, evaluations=1)
    blind = cl.fit(network(), data, config, augment=augment)
    jax.effects_barrier()
    assert len(set(seen)) == 5
    assert blind.history[0]["test_loss"] != cl.fit(network(), data, config).history[0]["test_loss"]
    everything_blank = dataclasses.replace(data, train=Split(np.zeros_like(data.train.images), data.train.labels))
    vars(everything_blank)["_moments"] = (data.mean, data.std, data.pixel_range)
    chex.assert_trees_all_close(blind.parameters, cl.fit(network(), everything_blank, config).parameters, rtol=1e-6)


# --- Data -----------------------------------------------------------------------------------------------------------


def data_of(labels, classes=("plane", "car", "bird")):
    split = Split(np.random.default_rng(0).integers(0, 256, (len(labels), 3, 5, 1), np.uint8), np.asarray(labels))
    return Data("made", split, split, classes)


def test_relabel_keeps_the_order_of_groups_and_the_images_of_each():
    data = data_of(np.arange(30) % 3)
    chosen = data.relabel({"birds": "bird", "planes": 0})
    assert chosen.classes == ("birds", "planes")
    for new, old in ((0, 2), (1, 0)):
        mine = chosen.train.images[chosen.train.labels == new]
        np.testing.assert_array_equal(mine, data.train.images[data.train.labels == old])
    merged = data.relabel({"flies": ["plane", 2], "drives": "car"})
    assert np.bincount(merged.test.labels).tolist() == [20, 10]


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"x": "ship"}, "made has no class 'ship'; its classes are 'plane', 'car', 'bird'"),
        ({"x": 3}, "no class 3"),
        ({"x": -1}, "no class -1"),
        ({"x": [0, 1], "y": "car"}, "class 'car' is in two groups; 'y' is the second"),
        ({"x": 0, "y": []}, r"train of made has no example of \['y'\]"),
        ({}, "every class needs one"),
    ],
)
def test_relabel_raises_an_error_for_invalid_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        data_of(np.arange(30) % 3).relabel(groups)


def test_validation_examples_are_taken_from_every_class_of_the_training_split():
    data = data_of(np.arange(60) % 3)
    divided = data.hold_out(0.1, seed=1)
    assert np.bincount(divided.validation.labels).tolist() == [2, 2, 2]
    everything = {image.tobytes() for part in (divided.train, divided.validation) for image in part.images}
    assert everything == {image.tobytes() for image in data.train.images}
    assert divided.test is data.test
    with pytest.raises(ValueError, match="made has a validation split of 6 examples already"):
        divided.hold_out()
    assert divided.map(lambda images: images[:, 1:]).validation.images.shape == (6, 2, 5, 1)


def test_validation_images_must_have_the_shape_of_training_images():
    data = data_of(np.arange(30) % 3)
    other = Split(np.zeros((3, 4, 5, 1), np.uint8), np.arange(3))
    with pytest.raises(ValueError, match="but validation of .*needs one shape"):
        dataclasses.replace(data, validation=other)
