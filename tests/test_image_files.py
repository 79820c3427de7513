"""Test what a folder of images may hold: its two layouts, its files, and what pixels of 8 bits cannot keep."""

import io
import os
import socket
import struct
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from convlab.data import file_tree, image_folder, load

pytest.importorskip("tensorflow_datasets")


def encoded(seed=0, mode="RGB", format="PNG", size=(5, 7), **options):
    """Return the bytes of an image of noise with a size of (height, width)."""
    channels = {"RGB": (3,), "L": (), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, *channels), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels, mode).save(file, format, **options)
    return file.getvalue()


def sixteen_bits(colour_type, channels):
    """Return the bytes of a PNG of 5x7 pixels with 16 bits per channel, which Pillow cannot write in colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = np.random.default_rng(0).integers(0, 2**16, (5, 7 * channels), np.uint16).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 7, 5, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


CATS, DOGS = ({f"{label}/{k}.png": encoded(k + start) for k in range(5)} for label, start in (("cat", 0), ("dog", 10)))
PETS = {**CATS, **DOGS}
SPLIT = {f"train/{name}": data for name, data in PETS.items()}


def write(root, files):
    """Write files, given by their paths in a folder, and return the folder."""
    for name, data in files.items():
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def pack(path, files):
    """Write files to a zip or tar archive, and return its path."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names that occur twice
            for name, data in files:
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, data in files:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def scanned(source):
    """Return the path and class of every image by split."""
    album = image_folder.scan(source, skip_corrupt=False)
    return {(picture.split, picture.label, picture.path) for picture in album.pictures}


def refused(source, message):
    with pytest.raises(ValueError, match=message) as error:
        image_folder.scan(source, skip_corrupt=False)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None or error.value.__suppress_context__


# --- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", ".zip", ".tgz"])
@pytest.mark.parametrize("inside", ["", "pets/"])
def test_folders_of_classes_are_a_training_split(tmp_path, kind, inside):
    files = {inside + name: data for name, data in PETS.items()}
    source = pack(tmp_path / f"all{kind}", files.items()) if kind else write(tmp_path / "all", files)
    assert scanned(source) == {("train", name.split("/")[-2], name) for name in files}


def test_folder_of_classes_holds_out_a_fifth_of_each_class_by_seed(tmp_path):
    name = f"folder:{write(tmp_path / 'pets', PETS)}"
    one, same, other = (load(name, data_dir=tmp_path / "data", seed=seed) for seed in (0, 0, 3))
    assert one.classes == ("cat", "dog")
    assert (len(one.train), np.bincount(one.test.labels).tolist()) == (8, [1, 1])
    np.testing.assert_array_equal(one.test.images, same.test.images)
    assert not np.array_equal(one.test.images, other.test.images)
    kept = {image.tobytes() for split in (one.train, one.test) for image in split.images}
    assert kept == {np.asarray(PIL.Image.open(io.BytesIO(data))).tobytes() for data in PETS.values()}


def test_images_in_no_folder_and_other_files_are_no_classes(tmp_path):
    more = {"cover.png": encoded(1), "notes/read.txt": b"no image", "cat/list.txt": b"", ".thumbs/a.png": encoded(2)}
    source = write(tmp_path / "pets", {**PETS, **more})
    with pytest.warns(UserWarning, match="left out 1 images of .*: cover.png$"):
        assert scanned(source) == {("train", name[:3], name) for name in PETS}
    (source / "cover.png").unlink()
    (source / "bird").mkdir()
    refused(source, "holds no image in bird; every class needs one")


@pytest.mark.parametrize(
    "more, message",
    [
        ({"cat/more/deep.png": encoded()}, "do not lie side by side: .*cat/more/deep.png.*needs <class>/"),
        ({"Test/cat/0.png": encoded()}, "do not lie side by side: "),
    ],
)
def test_images_at_different_depths_raise_an_error(tmp_path, more, message):
    refused(write(tmp_path / "pets", {**PETS, **more}), message)


def test_folders_of_splits_win_over_folders_of_classes(tmp_path):
    source = write(tmp_path / "pets", {**SPLIT, "bird/0.png": encoded()})
    with pytest.warns(UserWarning, match="left out 1 images of .*: bird/0.png"):
        assert scanned(source) == {("train", name.split("/")[1], name) for name in SPLIT}


def test_images_directly_in_a_folder_named_like_a_split_make_it_a_class_beside_others(tmp_path):
    vehicles = {"train/0.png": encoded(0), "car/0.png": encoded(1)}
    with pytest.warns(UserWarning, match="took train in .* as classes, since images lie directly in them"):
        assert scanned(write(tmp_path / "vehicles", vehicles)) == {("train", name.split("/")[0], name) for name in vehicles}
    nested = {f"train/{name}": data for name, data in vehicles.items()}
    assert scanned(write(tmp_path / "nested", nested)) == {("train", name.split("/")[1], name) for name in nested}
    flat = write(tmp_path / "flat", {"train/0.png": encoded(0), "test/0.png": encoded(1)})
    refused(flat, "holds images directly in test, train, which name splits and no classes; needs <class>/")


@pytest.mark.parametrize(
    "files, message",
    [
        ({"0.png": encoded()}, r"holds no images as <class>/.*, or train/<class>/.*; its images are 0.png"),
        ({"cat/0.txt": b""}, "holds no images as .*; it holds no .jpg, .jpeg or .png file"),
        ({"test/cat/0.png": encoded()}, "holds no images as train/<class>/.*; its images are test/cat/0.png"),
    ],
)
def test_folder_without_classes_raises_an_error(tmp_path, files, message):
    refused(write(tmp_path / "pets", files), message)


# --- files ----------------------------------------------------------------------------------------------------------


def test_pipe_or_socket_named_as_an_image_raises_an_error_and_does_not_hang(tmp_path):
    source = write(tmp_path / "pets", PETS)
    os.mkfifo(source / "cat" / "pipe.png")
    (source / "dog" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "cat" / "socket.png"))
        refused(
            source, "3 of 13 images .*cat/pipe.png \\(is no regular file\\), cat/socket.png .*dog/zero.png \\(is no regular"
        )
    os.mkfifo(tmp_path / "all.zip")
    refused(tmp_path / "all.zip", "is neither a folder nor a zip or tar archive")


def test_pipe_in_a_tar_archive_raises_an_error(tmp_path):
    pack(tmp_path / "pets.tar", PETS.items())
    with tarfile.open(tmp_path / "pets.tar", "a") as archive:
        pipe = tarfile.TarInfo("cat/pipe.png")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    refused(tmp_path / "pets.tar", r"1 of 11 images .*cat/pipe.png \(is no regular file\)")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_image_that_an_archive_holds_twice_raises_an_error(tmp_path, kind):
    twice = [*PETS.items(), ("cat/0.png", encoded(7)), ("./dog/1.png", encoded(8))]
    refused(pack(tmp_path / f"pets{kind}", twice), "holds 2 images twice: cat/0.png, dog/1.png; pack the archive again")


@pytest.mark.parametrize("kind", ["", ".zip", ".tgz"])
def test_files_above_the_limit_raise_an_error_and_are_not_read_whole(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(file_tree, "MAXIMUM_BYTES", 2**20)
    files = {**PETS, "cat/large.png": bytes(2**20 + 1)}
    source = pack(tmp_path / f"pets{kind}", files.items()) if kind else write(tmp_path / "pets", files)
    refused(source, r"1 of 11 images .*cat/large.png \(is larger than 1 MiB, the limit for one image file\)")


@pytest.mark.parametrize(
    "limit, message",  # Pillow warns above its limit and raises an error above twice of it
    [(34, "has 35 pixels, above Pillow's limit .* of 34"), (10, r"Image size \(35 pixels\) exceeds limit of 20")],
)
def test_images_of_too_many_pixels_raise_an_error(tmp_path, monkeypatch, limit, message):
    source = write(tmp_path / "pets", PETS)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        refused(source, f"10 of 10 images that cannot be decoded.*{message}")


def test_class_names_that_are_not_utf8_raise_an_error_and_other_names_are_accepted(tmp_path):
    good = write(tmp_path / "good", {**PETS, "kätzchen/0.png": encoded(), b"cat/\xff.png": encoded()})
    assert ("train", "kätzchen", "kätzchen/0.png") in scanned(good)
    bad = write(tmp_path / "bad", {**PETS, b"b\xffrd/0.png": encoded()})
    refused(bad, r"has classes named 'b\\udcffrd'; needs UTF-8 names")
    assert image_folder.fingerprint(bad) != image_folder.fingerprint(good)
    write(good, {b"cat/\xfe.png": b"no image"})
    with pytest.raises(ValueError, match=r"cat/\\udcfe.png \(is not an image\)") as error:
        image_folder.scan(good, skip_corrupt=False)
    assert str(error.value).encode()


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_zip_names_are_read_as_utf8_if_they_are_even_without_its_flag(tmp_path, encoding):
    path = pack(tmp_path / "pets.zip", {**PETS, "k__tzchen/0.png": encoded()}.items())
    name = "kätzchen".encode(encoding).ljust(9, b"n")
    path.write_bytes(path.read_bytes().replace(b"k__tzchen", name))
    assert {label for _, label, _ in scanned(path)} == {"cat", "dog", name.decode(encoding)}


def test_damaged_zip_raises_an_error(tmp_path):
    path = pack(tmp_path / "pets.zip", PETS.items())
    data = bytearray(path.read_bytes())
    data[-12:-8] = b"\xff" * 4  # the size of the list of files
    path.write_bytes(data)
    refused(path, "pets.zip is damaged or truncated")


# --- what 8 bits cannot keep ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour_type, channels, mode", [(0, 1, "I;16"), (2, 3, "RGB"), (4, 2, "(LA|RGBA)"), (6, 4, "RGBA")])
def test_images_of_sixteen_bits_raise_an_error(tmp_path, colour_type, channels, mode):
    source = write(tmp_path / "pets", {**PETS, "cat/deep.png": sixteen_bits(colour_type, channels)})
    refused(source, rf"holds 1 images of more than 8 bits per channel: cat/deep.png \((16-bit )?{mode}\); needs 8 bits")


def test_losses_are_warned_of_once_with_the_names_of_the_files(tmp_path):
    frames = [PIL.Image.open(io.BytesIO(encoded(seed))) for seed in (1, 2)]
    clear = PIL.Image.open(io.BytesIO(encoded(3))).convert("P")
    palette = io.BytesIO()
    clear.save(palette, "PNG", transparency=0)
    more = {
        "cat/alpha.png": encoded(0, "RGBA"),
        "dog/alpha.png": palette.getvalue(),
        "cat/film.png": encoded(1, save_all=True, append_images=frames[1:]),
        "cat/print.jpg": encoded(0, "CMYK", "JPEG"),
    }
    name = f"folder:{write(tmp_path / 'pets', {**PETS, **more})}"
    with pytest.warns(UserWarning, match="dropped the") as caught:
        data = load(name, data_dir=tmp_path / "data")
    said = sorted(str(warning.message) for warning in caught if "dropped" in str(warning.message))
    assert len(said) == 3
    assert "dropped the CMYK colours of 1 images" in said[0]
    assert "cat/print.jpg; they are converted to RGB" in said[0]
    assert "dropped the animation of 1 images" in said[1]
    assert "cat/film.png; its first frame is read" in said[1]
    assert "dropped the transparency of 2 images" in said[2]
    assert "cat/alpha.png, dog/alpha.png; " in said[2]
    assert data.image_shape == (5, 7, 3)
    kept = {image.tobytes() for split in (data.train, data.test) for image in split.images}
    for expected in (more["cat/alpha.png"], encoded(1), more["cat/print.jpg"]):
        assert np.asarray(PIL.Image.open(io.BytesIO(expected)).convert("RGB")).tobytes() in kept


def test_opaque_images_lose_nothing_and_are_read_without_a_warning(tmp_path):
    opaque, file = PIL.Image.open(io.BytesIO(encoded())).convert("RGBA"), io.BytesIO()
    opaque.save(file, "PNG")
    source = write(tmp_path / "pets", {**PETS, "cat/opaque.png": file.getvalue(), "dog/gray.png": encoded(0, "L")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(scanned(source)) == 12
