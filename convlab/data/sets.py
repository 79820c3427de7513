"""What a model is fitted to: a training, a test and perhaps a validation split, with the names of the classes."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from convlab.data.splits import Split, Stored, hold_out, round_robin

CHUNK = 1000  # images widened to float64 at a time
SAMPLE = 10_000  # images on disk whose moments stand for all
STANDARDISATIONS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    # mean and standard deviation of a channel -> what is subtracted, and what divides; what is not finite stays so
    "moments": lambda mean, std: (mean, std),
    "scale": lambda mean, std: (mean - mean, np.hypot(mean, std)),
    "none": lambda mean, std: (mean - mean, std - std + 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A named data set: a training split, a test split, perhaps one to validate on, and what the labels mean.

    Args:
      name: How it is called in tables and figures.
      train: What a model is fitted to.
      test: What it is measured on; images of the same shape and dtype.
      classes: A name for every label; their number is the number of outputs a classifier needs.
      validation: What choices are made by (when to stop, which rate); alike. None where all that is not tested is trained on.
      standardisation: How `fit` brings pixels to a common scale, per channel of the training images. "moments" gives mean 0 and
        standard deviation 1. "scale" divides by the root mean square and subtracts nothing. "none" leaves the pixels raw, as
        float32. Zero padding surrounds the image with the value 0 after this step. Under "moments" that is the mean grey of
        the training images. Under "scale" and "none" it is the stored value 0, in many sets the background.

    Raises:
      ValueError: The splits hold images of different shapes, a label has no name, or the standardisation is unknown.
      TypeError: The splits hold images of different dtypes, or an argument is of the wrong type.

    Example:
      >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> Data("blank", split, split, tuple("abcde")).image_shape
      (8, 7, 1)
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    validation: Split | None = None
    standardisation: str = "moments"

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        check_standardisation(self.standardisation)
        train = self.train
        for which, split in self._splits.items():
            _check_split(which, split, self.classes)
            mine, its = train.images, split.images
            if mine.shape[1:] != its.shape[1:]:
                raise ValueError(
                    f"train holds images of {mine.shape[1:]} but {which} of {its.shape[1:]};"
                    " needs one shape, as one model sees both"
                )
            if mine.dtype != its.dtype:
                raise TypeError(f"train holds {mine.dtype} but {which} {its.dtype} images; needs one dtype, in the same units")

    @property
    def _splits(self) -> dict[str, Split]:
        splits = {"train": self.train, "test": self.test}
        return splits if self.validation is None else {**splits, "validation": self.validation}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, (*space, c)."""
        return self.train.images.shape[1:]

    @property
    def mean(self) -> np.ndarray:
        """What `fit` subtracts per channel: float32, (c,). Under "moments" it is the mean of the training pixels.

        Of images on disk 10,000 stand for all.
        """
        return self._standard[0]

    @property
    def std(self) -> np.ndarray:
        """What `fit` divides by per channel: float32, (c,). Under "moments" it is the standard deviation of the same pixels.

        It is 1 where it would be 0: in a constant channel under "moments", in a channel of zeros under "scale".
        """
        return self._standard[1]

    @functools.cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = STANDARDISATIONS[self.standardisation](*self._moments)
        return mean, np.where(std == 0, np.float32(1), std)

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        images, shape = self.train.images, self.image_shape
        if isinstance(images, Stored):  # the same sample every time
            chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
            images = images[np.sort(chosen)]
        rows = images.reshape(len(images), -1)  # summed over images first: long contiguous axes are many times faster
        mean = rows.mean(0, dtype=np.float64).reshape(-1, shape[-1]).mean(0)
        centre = np.broadcast_to(mean, shape).reshape(-1)
        squares = np.zeros_like(centre)
        for k in range(0, len(rows), CHUNK):
            squares += ((rows[k : k + CHUNK] - centre) ** 2).sum(0)
        std = np.sqrt((squares / len(rows)).reshape(-1, shape[-1]).mean(0))
        constant = [np.ptp(pixels) == 0 for pixels in np.moveaxis(images, -1, 0)]
        return mean.astype(np.float32), np.where(constant, 0, std).astype(np.float32)

    def with_standardisation(self, name: str) -> "Data":
        """Choose how `fit` brings pixels to a common scale; the images stay as they are.

        Args:
          name: "moments", "scale" or "none", as in `Data`.

        Raises:
          ValueError: The name is unknown.

        Example:
          >>> split = Split(np.full((5, 8, 7, 1), 4, np.uint8), np.arange(5))
          >>> data = Data("grey", split, split, tuple("abcde"))
          >>> [(chosen.mean.item(), chosen.std.item()) for chosen in map(data.with_standardisation, STANDARDISATIONS)]
          [(4.0, 1.0), (0.0, 4.0), (0.0, 1.0)]
        """
        return dataclasses.replace(self, standardisation=name)

    def subset(self, size: int, seed: int = 0) -> "Data":
        """Keep `size` training examples, as many of each class as possible; the other splits stay whole.

        For one seed the subsets are nested: a smaller one lies inside every larger one. Examples keep their order.

        Args:
          size: Training examples to keep, 1 to all.
          seed: Which ones.

        Raises:
          ValueError: `size` is out of range.
          TypeError: `size` is not an integer.

        Example:
          >>> split = Split(np.zeros((6, 8, 7, 1), np.uint8), np.array([0, 0, 0, 0, 1, 1]))
          >>> Data("blank", split, split, ("zero", "one")).subset(4).train.labels
          array([0, 0, 1, 1], dtype=int32)
        """
        size, available = _integer("size", size), len(self.train)
        if not 1 <= size <= available:
            raise ValueError(f"size must be 1 to {available}, the training examples of {self.name}; got {size}")
        keep = np.sort(round_robin(self.train.labels, seed)[:size])
        return dataclasses.replace(self, train=self.train.take(keep))

    def hold_out(self, fraction: float = 0.1, seed: int = 0) -> "Data":
        """Move a fraction of the training examples, the same of every class, to a validation split.

        Args:
          fraction: Of each class, above 0 and below 1.
          seed: Which ones.

        Raises:
          ValueError: There is a validation split already, or `fraction` leaves one part empty.

        Example:
          >>> split = Split(np.zeros((10, 8, 7, 1), np.uint8), np.repeat([0, 1], 5))
          >>> len(Data("blank", split, split, ("zero", "one")).hold_out(0.2).validation)
          2
        """
        if self.validation is not None:
            raise ValueError(f"{self.name} has a validation split of {len(self.validation)} examples already")
        train, validation = hold_out(self.train, fraction, seed)
        return dataclasses.replace(self, train=train, validation=validation)

    def relabel(self, groups: Mapping[str, Sequence[int | str] | int | str]) -> "Data":
        """Keep some classes only, and call them something else: each group of old classes becomes one new class.

        Args:
          groups: For every new class, in order, the old one or ones, by name or number. Examples of others are left out.

        Raises:
          ValueError: An old class is unknown or in two groups, or a new one has no training or no test example.

        Example:
          >>> split = Split(np.zeros((6, 8, 7, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2]))
          >>> data = Data("blank", split, split, ("plane", "car", "bird"))
          >>> data.relabel({"planes": 0, "birds": "bird"}).train.labels
          array([0, 1, 0, 1], dtype=int32)
        """
        new = np.full(len(self.classes), -1)
        for number, (name, old) in enumerate(groups.items()):
            for each in [old] if isinstance(old, (int, np.integer, str)) else old:
                label = self._label(each)
                if new[label] >= 0:
                    raise ValueError(f"class {self.classes[label]!r} is in two groups; {name!r} is the second")
                new[label] = number
        splits = {}
        for which, split in self._splits.items():
            keep = np.flatnonzero(new[split.labels] >= 0)
            lacking = [name for number, name in enumerate(groups) if number not in new[split.labels[keep]]]
            if lacking or not groups:
                raise ValueError(f"{which} of {self.name} has no example of {lacking or 'any group'}; every class needs one")
            chosen = split.take(keep)
            splits[which] = Split(chosen.images, new[chosen.labels])
        return dataclasses.replace(self, classes=tuple(groups), **splits)

    def _label(self, old: int | str) -> int:
        if isinstance(old, str) and old in self.classes:
            return self.classes.index(old)
        if not isinstance(old, str) and 0 <= _integer("a class", old) < len(self.classes):
            return operator.index(old)
        raise ValueError(f"{self.name} has no class {old!r}; its classes are {', '.join(map(repr, self.classes))}")

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> "Data":
        """Apply `f` to the images of all splits; labels stay. Images on disk are changed whenever they are read.

        Args:
          f: From images (n, *space, c) to as many images, uint8 or float32, as a NumPy or JAX array; each image for itself.

        Raises:
          ValueError: `f` returns images that do not fit the labels or each other.
          TypeError: `f` returns another dtype.

        Example:
          >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
          >>> Data("blank", split, split, tuple("abcde")).map(lambda x: x[:, ::2]).image_shape
          (4, 7, 1)
        """
        return dataclasses.replace(self, **{which: split.map(f) for which, split in self._splits.items()})


def check_standardisation(name: str) -> None:
    """Raise ValueError unless there is a standardisation of this name."""
    if name not in STANDARDISATIONS:
        known = ", ".join(map(repr, STANDARDISATIONS))
        raise ValueError(f"standardisation {name!r} is unknown; needs one of {known}, as it says what pixels are divided by")


def _integer(name: str, value: object) -> int:
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _check_classes(classes: Sequence[str]) -> None:
    if not isinstance(classes, tuple) or not all(isinstance(each, str) for each in classes):
        raise TypeError(f"classes must be a tuple of names, got {classes!r}")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes needs at least one name and no name twice, got {classes!r}")


def _check_split(which: str, split: object, classes: tuple[str, ...]) -> None:
    if not isinstance(split, Split):
        raise TypeError(f"{which} must be a Split, got {type(split).__name__}")
    if split.labels.max() >= len(classes):
        raise ValueError(
            f"{which} has label {split.labels.max()} but classes names only {len(classes)};"
            f" needs labels 0 to {len(classes) - 1}"
        )
