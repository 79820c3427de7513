"""TFDS builders of the data sets that need neither a network nor TensorFlow.

Importing this module imports TensorFlow Datasets, so `convlab.data.loading` imports it only where it is needed.
"""

import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from convlab.data import digits, idx, image_folder
from convlab.extras import require

Examples = Iterator[tuple[int, dict[str, Any]]]
Splits = dict[str, tuple[np.ndarray, np.ndarray]]


class _Info(tfds.core.DatasetInfo):
    """Description of a data set that is in no bucket of TFDS."""

    def initialize_from_bucket(self) -> None:
        """Do nothing. TFDS would ask the network and leave a temporary folder behind."""


def _info(builder: tfds.core.DatasetBuilder, image: Any, classes: Sequence[str]) -> tfds.core.DatasetInfo:
    """Describe a data set of labelled images whose examples are written in their original order."""
    features = {"image": image, "label": tfds.features.ClassLabel(names=list(classes))}
    return _Info(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )


class _InMemoryBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that makes all examples as arrays and writes them in order."""

    VERSION = tfds.core.Version("1.0.0")  # raise the version with any change to a stored number
    shape: tuple[int, ...]
    dtype: type
    classes: tuple[str, ...] = digits.CLASSES
    encoding = tfds.features.Encoding.NONE

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=self.shape, dtype=self.dtype, encoding=self.encoding)
        return _info(self, image, self.classes)

    def __init__(self, *, splits: Splits | None = None, **options: Any):
        self.splits = splits
        super().__init__(**options)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        assert self.splits is not None  # None only opens a prepared data set
        return {split: self._generate_examples(*arrays) for split, arrays in self.splits.items()}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Examples:
        for k, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield k, {"image": image.reshape(self.shape).astype(self.dtype), "label": int(label)}

    @classmethod
    def arrays(cls, source: pathlib.Path | None) -> Splits:
        """Return the images and labels of every split.

        Only a data set that is published as files is read from the folder `source`.
        """
        raise NotImplementedError


class Digits(_InMemoryBuilder, skip_registration=True):
    """1,797 handwritten digits of 8x8 pixels with values 0 to 16.

    There are 1,437 training images and 36 test images of each class.

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, as shipped with scikit-learn.
    """

    name = "convlab_digits"
    shape = (8, 8, 1)
    dtype = np.uint8

    @classmethod
    def arrays(cls, source: pathlib.Path | None) -> Splits:
        return digits.arrays()


class Mnist1D(_InMemoryBuilder, skip_registration=True):
    """Ten classes of digit-like signals of 40 samples, padded, shifted, sheared and noisy.

    There are 4,000 training and 1,000 test signals.

    Reference: Greydanus and Kobak (2024), Scaling Down Deep Learning with MNIST-1D; the package's defaults.
    """

    name = "convlab_mnist1d"
    shape = (40, 1)
    dtype = np.float32

    @classmethod
    def arrays(cls, source: pathlib.Path | None) -> Splits:
        arrays = require("mnist1d.data").make_dataset()  # seeds the global generators of Python and NumPy
        return {"train": (arrays["x"], arrays["y"]), "test": (arrays["x_test"], arrays["y_test"])}


class _Idx(_InMemoryBuilder, skip_registration=True):
    """A data set of 28x28 gray images that is published as IDX files."""

    shape = (28, 28, 1)
    dtype = np.uint8
    encoding = tfds.features.Encoding.BYTES  # much faster than storing the numbers one by one

    @classmethod
    def arrays(cls, source: pathlib.Path | None) -> Splits:
        assert source is not None
        splits = idx.read_folder(source)
        for split, (images, labels) in splits.items():
            if images.shape[1:] != cls.shape or labels.max(initial=0) >= len(cls.classes):
                got = f"{split} images of {images.shape[1:]} with labels up to {labels.max(initial=0)}"
                raise ValueError(f"{source} holds {got}; needs {cls.shape} and labels below {len(cls.classes)}")
        return splits


class Mnist(_Idx, skip_registration=True):
    """70,000 handwritten digits of 28x28 pixels: 60,000 training and 10,000 test images.

    Reference: LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition.
    """

    name = "convlab_mnist"


class FashionMnist(_Idx, skip_registration=True):
    """70,000 pieces of clothing of 28x28 pixels: 60,000 training and 10,000 test images.

    Reference: Xiao, Rasul and Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking.
    """

    name = "convlab_fashion_mnist"
    classes = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


class Folder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images of a folder or an archive, labelled by class.

    The bytes of the files are stored unchanged, except that gray images in a colour data set are converted to colour.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 held 16-bit colours that were cut to 8 bits
    name = "convlab_folder"

    def __init__(self, *, state: str, album: image_folder.Album, **options: Any):
        self.album = album
        super().__init__(config=tfds.core.BuilderConfig(name=state), **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, tfds.features.Image(shape=self.album.shape), self.album.classes)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        splits = {picture.split for picture in self.album.pictures}
        return {split: self._generate_examples(split) for split in ("train", "test", "validation") if split in splits}

    def _generate_examples(self, split: str) -> Examples:
        for k, (data, label) in enumerate(self.album.encoded(split)):
            yield k, {"image": io.BytesIO(data), "label": label}
