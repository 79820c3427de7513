"""Test loading images by class from folders, archives and IDX files, and its errors."""

import gzip
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import PIL.Image
import pytest

from convlab.data import idx, list_prepared, load
from experiments.shared.settings import Source, UsageError

pytest.importorskip("tensorflow_datasets")
CLASSES = ("cat", "dog")


def picture(seed, size=(5, 7), mode="RGB"):
    """Make a Pillow image of noise with a size of (height, width)."""
    channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, *channels), np.uint8))


def album(root, splits=(("train", 6), ("test", 2)), **options):
    """Write a folder of images by class and return the pixels by split and class."""
    pixels = {}
    for split, number in splits:
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            images = [picture(len(pixels) * 100 + k, **options) for k in range(number)]
            for k, image in enumerate(images):
                image.save(root / split / label / f"{k}.png")
            pixels[split, label] = np.stack([np.asarray(image) for image in images])
    return pixels


def assert_holds(data, pixels, split="train"):
    part = getattr(data, split)
    for number, label in enumerate(CLASSES):
        got = part.images[:][part.labels == number]
        np.testing.assert_array_equal(got.reshape(pixels[split, label].shape), pixels[split, label])


# --- folders --------------------------------------------------------------------------------------------------------


def test_folder_is_read_with_exact_pixels_and_class_names(tmp_path):
    pixels = album(tmp_path / "pets", (("train", 6), ("test", 2), ("validation", 3)))
    for _ in range(2):
        data = load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data")
        assert data.classes == CLASSES
        assert data.train.images.shape == (12, 5, 7, 3)
        assert data.validation is not None
        for split in ("train", "test", "validation"):
            assert_holds(data, pixels, split)
    (row,) = list_prepared(tmp_path / "data")
    assert row.name.startswith("folder:pets-")
    assert row.examples == {"train": 12, "test": 4, "validation": 6}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "inside"])
def test_archive_is_read_like_its_folder(tmp_path, kind):
    pixels = album(tmp_path / "pets")
    archive = tmp_path / f"pets.{kind}"
    root, inside = (tmp_path, "pets") if kind == "inside" else (tmp_path / "pets", ".")
    if kind in ("zip", "inside"):
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted((root / inside).rglob("*")):
                file.write(path, path.relative_to(root))
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as file:
            file.add(root, ".")
    data = load(f"folder:{archive}", data_dir=tmp_path / "data")
    assert_holds(data, pixels)
    assert_holds(data, pixels, "test")


@pytest.mark.parametrize("mode, suffix", [("w", "tar"), ("w:gz", "tgz")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_archive_raises_an_error(tmp_path, mode, suffix, share):
    album(tmp_path / "pets", (("train", 30), ("test", 2)))
    archive = tmp_path / f"pets.{suffix}"
    with tarfile.open(archive, mode) as file:
        file.add(tmp_path / "pets", ".")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content)) // 512 * 512])
    with pytest.raises(ValueError, match="pets.* (truncated|damaged)"):
        load(f"folder:{archive}", data_dir=tmp_path / "data")


def test_damaged_archive_member_is_treated_as_a_corrupt_image(tmp_path):
    pixels = album(tmp_path / "pets")
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "pets").rglob("*.png")):
            file.write(path, path.relative_to(tmp_path / "pets"))
        file.writestr("train/cat/extra.png", b"0123456789" * 30)
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"0123456789", b"0123456780", 1))
    with pytest.raises(ValueError, match="1 of 17 images .*train/cat/extra.png .*CRC"):
        load(f"folder:{archive}", data_dir=tmp_path / "data")
    with pytest.warns(UserWarning, match="left out 1 of 17"):
        assert_holds(load(f"folder:{archive}", data_dir=tmp_path / "data", skip_corrupt=True), pixels)


def test_links_are_followed_and_broken_ones_raise_an_error(tmp_path):
    pixels = album(tmp_path / "there")
    (tmp_path / "here" / "train").mkdir(parents=True)
    (tmp_path / "here" / "test").symlink_to(tmp_path / "there" / "test")
    for label in CLASSES:
        (tmp_path / "here" / "train" / label).symlink_to(tmp_path / "there" / "train" / label)
    (tmp_path / "there" / "train" / "round").symlink_to(tmp_path / "there" / "train")
    data = load(f"folder:{tmp_path / 'here'}", data_dir=tmp_path / "data")
    assert_holds(data, pixels)
    assert_holds(data, pixels, "test")
    (tmp_path / "there" / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="train/cat/gone.png .*No such file"):
        load(f"folder:{tmp_path / 'here'}", data_dir=tmp_path / "data")


@pytest.mark.parametrize("name", ["a\nb", "cat ", " "])
def test_class_names_that_cannot_be_stored_raise_an_error(tmp_path, name):
    album(tmp_path / "pets")
    (tmp_path / "pets/train/cat").rename(tmp_path / "pets/train" / name)
    (tmp_path / "pets/test/cat").rename(tmp_path / "pets/test" / name)
    with pytest.raises(ValueError, match="has classes named .*needs UTF-8 names without line breaks or spaces around them"):
        load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data")


def test_images_outside_the_expected_folders_are_left_out_with_a_warning(tmp_path):
    pixels = album(tmp_path / "pets")
    (tmp_path / "pets/train/cat/more").mkdir()
    picture(7).save(tmp_path / "pets/train/cat/more/deep.png")
    picture(8).save(tmp_path / "pets/train/dog/moving.gif")
    with pytest.warns(UserWarning, match="left out 2 images .*deep.png, train/dog/moving.gif"):
        assert_holds(load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data"), pixels)


def test_image_changed_during_preparation_raises_an_error(tmp_path, monkeypatch):
    from convlab.data import image_folder

    album(tmp_path / "pets")
    scan = image_folder.scan

    def scan_then_change(*arguments):
        result = scan(*arguments)
        picture(99).save(tmp_path / "pets/train/cat/0.png")
        return result

    monkeypatch.setattr(image_folder, "scan", scan_then_change)
    with pytest.raises(ValueError, match="train/cat/0.png .*changed while it was being prepared"):
        load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data")
    assert list_prepared(tmp_path / "data") == []


def test_changed_folder_is_prepared_again(tmp_path):
    album(tmp_path / "pets")
    assert len(load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data").train) == 12
    picture(99).save(tmp_path / "pets/train/cat/new.png")
    assert len(load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data").train) == 13


def test_data_dir_inside_the_folder_does_not_count_as_a_change(tmp_path):
    album(tmp_path / "pets")
    for _ in range(2):
        load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "pets" / "data")
    assert len(list_prepared(tmp_path / "pets" / "data")) == 1


def test_missing_folder_path_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match="names no folder; needs folder:PATH"):
        load("folder:", data_dir=tmp_path)


def test_folder_without_a_test_split_holds_out_a_fifth(tmp_path):
    album(tmp_path / "pets", (("train", 10),))
    data = load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data")
    assert np.bincount(data.test.labels).tolist() == [2, 2]


def test_gray_images_stay_gray_unless_one_has_colour(tmp_path):
    gray = album(tmp_path / "gray", mode="L")
    data = load(f"folder:{tmp_path / 'gray'}", data_dir=tmp_path / "data")
    assert data.image_shape == (5, 7, 1)
    assert_holds(data, gray)
    mixed = album(tmp_path / "mixed")
    picture(7, mode="L").save(tmp_path / "mixed/train/cat/gray.png")
    picture(8, mode="RGBA").save(tmp_path / "mixed/train/dog/clear.png")
    picture(9).convert("P").save(tmp_path / "mixed/train/dog/palette.png")
    with pytest.warns(UserWarning, match="dropped the transparency of 1 images .*train/dog/clear.png"):
        data = load(f"folder:{tmp_path / 'mixed'}", data_dir=tmp_path / "data")
    assert data.image_shape == (5, 7, 3)
    as_colour = np.asarray(picture(7, mode="L").convert("RGB"))
    assert (data.train.images == as_colour).all((1, 2, 3)).sum() == 1
    kept = {image.tobytes() for image in data.train.images}
    assert all(image.tobytes() in kept for image in mixed["train", "cat"])


def test_images_of_different_sizes_need_a_size_and_are_then_cropped_and_scaled(tmp_path):
    album(tmp_path / "pets", size=(6, 10))
    picture(7, size=(12, 12)).save(tmp_path / "pets/train/cat/square.png")
    name, data_dir = f"folder:{tmp_path / 'pets'}", tmp_path / "data"
    for storage in ("memory", "disk", "records"):
        with pytest.raises(
            ValueError, match=r"of different shapes.*pass image_size=\(height, width\) to crop and scale them, or resize"
        ):
            load(name, data_dir=data_dir, storage=storage)
        data = load(name, data_dir=data_dir, storage=storage, image_size=(6, 6))
        assert data.image_shape == (6, 6, 3)
        cats = data.train.images[:][data.train.labels == 0]
        middle = np.asarray(picture(0, size=(6, 10)))[:, 2:8]  # the height fits, so the middle is cropped without scaling
        assert (cats == middle).all((1, 2, 3)).any()
    assert load(name, data_dir=data_dir, image_size=3).image_shape == (3, 3, 3)


def test_command_line_names_its_flag_for_images_of_different_sizes(tmp_path, capfd):
    album(tmp_path / "pets", size=(6, 10))
    picture(7, size=(12, 12)).save(tmp_path / "pets/train/cat/square.png")
    source = Source(data=f"folder:{tmp_path / 'pets'}", data_dir=str(tmp_path / "data"))
    with pytest.raises(UsageError, match="pass --image-size HEIGHT WIDTH to crop and scale them, or resize") as error:
        source.load()
    assert "image_size" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_scaling_keeps_an_image_of_one_colour(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "pets" / split / "one").mkdir(parents=True)
        PIL.Image.new("RGB", (13, 11), (10, 20, 30)).save(tmp_path / "pets" / split / "one" / "flat.png")
    data = load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data", image_size=(5, 7))
    np.testing.assert_array_equal(data.train.images, np.broadcast_to(np.uint8([10, 20, 30]), (1, 5, 7, 3)))


def test_corrupt_images_raise_an_error_and_are_left_out_only_on_request(tmp_path):
    pixels = album(tmp_path / "pets")
    (tmp_path / "pets/train/cat/broken.png").write_bytes(b"no image")
    content = (tmp_path / "pets/train/dog/0.png").read_bytes()
    (tmp_path / "pets/train/dog/half.png").write_bytes(content[: len(content) // 2])
    name, data_dir = f"folder:{tmp_path / 'pets'}", tmp_path / "data"
    with pytest.raises(ValueError, match=r"2 of 18 images .*train/cat/broken.png .*train/dog/half.png .*skip_corrupt=True"):
        load(name, data_dir=data_dir)
    assert list_prepared(data_dir) == []
    with pytest.warns(UserWarning, match="left out 2 of 18 images.*broken.png"):
        data = load(name, data_dir=data_dir, skip_corrupt=True)
    assert_holds(data, pixels)
    with pytest.raises(ValueError, match="cannot be decoded"):  # a preparation without them is not reused
        load(name, data_dir=data_dir)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda root: (root / "train/bird").mkdir(), "holds no image in train/bird; every class needs one"),
        (lambda root: (root / "test/bird").mkdir(), "holds no image in test/bird"),
        (lambda root: (root / "test/cat").rename(root / "test/bird"), "has test/bird but no such class in train"),
        (
            lambda root: (root / "train").rename(root / "images"),
            r"no images as train/<class>/.*its images are images/cat/0.png",
        ),
        (lambda root: PIL.Image.new("I;16", (7, 5)).save(root / "train/cat/deep.png"), r"more than 8 bits .*deep.png \(I;16\)"),
        (lambda root: picture(1).save(root / "train/cat/film.png", "GIF"), r"film.png \(is GIF\)"),
    ],
)
def test_folders_without_valid_classes_of_images_raise_errors(tmp_path, change, message):
    album(tmp_path / "pets")
    change(tmp_path / "pets")
    with pytest.raises(ValueError, match=message):
        load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data")
    assert list_prepared(tmp_path / "data") == []


def test_class_whose_images_are_all_corrupt_counts_as_empty(tmp_path):
    album(tmp_path / "pets")
    for path in (tmp_path / "pets/train/dog").iterdir():
        path.write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="holds no image in train/dog"):
            load(f"folder:{tmp_path / 'pets'}", data_dir=tmp_path / "data", skip_corrupt=True)


@pytest.mark.parametrize("content, message", [(None, "does not exist"), (b"PK but no zip", "neither a folder nor a zip")])
def test_path_that_is_not_a_folder_raises_an_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "pets.zip").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(f"folder:{tmp_path / 'pets.zip'}", data_dir=tmp_path / "data")


@pytest.mark.parametrize("size", [0, (3,), (3, -1), (3.0, 4), "33", True])
def test_invalid_sizes_raise_errors(tmp_path, size):
    with pytest.raises(ValueError, match="size must be a number of pixels above 0, or height and width"):
        load("digits", data_dir=tmp_path, image_size=size)


def test_scaling_a_data_set_of_arrays_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"size \(4, 4\) is for images that are stored as JPEG or PNG"):
        load("digits", data_dir=tmp_path, image_size=4)


def test_unknown_keep_option_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match="storage 'cloud' is unknown; needs one of memory, disk, records"):
        load("digits", data_dir=tmp_path, storage="cloud")


# --- IDX files ------------------------------------------------------------------------------------------------------


def idx_bytes(array, kind=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def idx_folder(root, squeeze=True, classes=10):
    """Write the four IDX files and return images and labels by split."""
    made = {}
    root.mkdir()
    for seed, (split, part, number) in enumerate((("train", "train", 30), ("test", "t10k", 20))):
        rng = np.random.default_rng(seed)
        images, labels = rng.integers(0, 256, (number, 28, 28), np.uint8), np.arange(number, dtype=np.uint8) % classes
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            (root / (name + ".gz" * squeeze)).write_bytes(gzip.compress(data) if squeeze else data)
        made[split] = images, labels
    return made


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize("name, first", [("fashion_mnist", "T-shirt/top"), ("mnist", "0")])
def test_idx_files_are_prepared_once_and_not_needed_afterwards(tmp_path, squeeze, name, first):
    made = idx_folder(tmp_path / "idx", squeeze)
    for manual_dir in (tmp_path / "idx", None):
        data = load(name, data_dir=tmp_path / "data", manual_dir=manual_dir)
        assert data.name == name
        assert data.classes[0] == first
        for split, (images, labels) in made.items():
            np.testing.assert_array_equal(getattr(data, split).images[..., 0], images)
            np.testing.assert_array_equal(getattr(data, split).labels, labels)
    with pytest.raises(
        ValueError, match="manual_dir is None: overwrite=True needs the folder of the IDX files of (fashion_)?mnist"
    ):
        load(name, data_dir=tmp_path / "data", overwrite=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize(
    "damage, message",
    [
        (cut, "train-images.* (damaged|truncated)"),
        (lambda path: path.unlink(), "holds no train-images-idx3-ubyte"),
        (lambda path: path.write_bytes(b"hello"), "train-images.*(is not an IDX file|is damaged)"),
        (
            lambda path: path.write_bytes(squeezed(path, idx_bytes(np.zeros((30, 28, 28), ">f4"), 0x0D))),
            "type 0x0d; needs unsigned",
        ),
        (lambda path: path.write_bytes(squeezed(path, idx_bytes(np.zeros((29, 28, 28), np.uint8)))), r"labels of \(30,\)"),
        (lambda path: path.write_bytes(squeezed(path, idx_bytes(np.zeros((30, 14, 28), np.uint8)))), r"needs \(28, 28, 1\)"),
    ],
)
def test_damaged_or_invalid_idx_files_raise_errors(tmp_path, squeeze, damage, message):
    idx_folder(tmp_path / "idx", squeeze)
    damage(tmp_path / "idx" / ("train-images-idx3-ubyte" + ".gz" * squeeze))
    with pytest.raises(ValueError, match=message):
        load("mnist", data_dir=tmp_path / "data", manual_dir=tmp_path / "idx")
    assert list_prepared(tmp_path / "data") == []


def squeezed(path, data):
    return gzip.compress(data) if path.suffix == ".gz" else data


def test_labels_above_the_number_of_classes_raise_an_error(tmp_path):
    idx_folder(tmp_path / "idx", classes=11)
    with pytest.raises(ValueError, match="labels up to 10; needs .* labels below 10"):
        load("mnist", data_dir=tmp_path / "data", manual_dir=tmp_path / "idx")


def test_idx_files_with_any_number_of_axes_are_read(tmp_path):
    for shape in ((7,), (3, 5), (2, 3, 5)):
        array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        (tmp_path / "file").write_bytes(idx_bytes(array))
        np.testing.assert_array_equal(idx.read(tmp_path / "file"), array)
