"""The data set that a model is trained and tested on: its splits and the names of the classes."""

from __future__ import annotations  # so that `help` shows the names of types, not what they stand for

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from convlab import check
from convlab.choices import one_of
from convlab.data import arrays
from convlab.data.arrays import Values
from convlab.data.sheet import sheet_html
from convlab.data.splits import TEST_FRACTION, Split, StoredImages, hold_out, image_text, round_robin
from convlab.geometry import as_integer

CHUNK = 1000  # the number of images converted to float64 at a time
SAMPLE = 10_000  # the number of images on disk from which the moments are estimated
STANDARDISATIONS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    # mean and standard deviation of a channel -> the number to subtract and the number to divide by
    "moments": lambda mean, std: (mean, std),
    "scale": lambda mean, std: (np.zeros_like(mean), np.hypot(mean, std)),
    "none": lambda mean, std: (np.zeros_like(mean), np.ones_like(std)),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set with training, test and optional validation splits and the names of its classes.

    Args:
      name: The name of the data set in tables and figures.
      train: The training split.
      test: The test split, with images of the same shape and dtype.
      classes: The names of the classes, one per label. A classifier needs as many outputs. It is () if the labels are targets
        of a floating dtype (see `Split`).
      validation: The validation split, used for choices such as the learning rate or when to stop. If None, there is none.
      standardisation: The scaling of pixels in `fit`, per channel of the training images. "moments" gives mean 0 and standard
        deviation 1. "scale" divides by the root mean square and subtracts nothing. "none" leaves the pixels raw, as float32.
        Zero padding surrounds the image with the value 0 after this step. Under "moments" that is the mean grey of the
        training images. Under "scale" and "none" it is the stored value 0, in many data sets the background.

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
        check.instance("name", self.name, str, "the name of the data set, a string")
        _check_classes(self.classes)
        check_standardisation(self.standardisation)
        train = self.train
        for part, split in self._splits.items():
            _check_split(part, split, self.classes)
            first, other = train.images, split.images
            if first.shape[1:] != other.shape[1:]:
                raise ValueError(
                    f"train holds images of {first.shape[1:]} but {part} of {other.shape[1:]};"
                    " needs one shape, since one model reads both"
                )
            if first.dtype != other.dtype:
                raise TypeError(
                    f"train holds {first.dtype} images but {part} {other.dtype}; needs one dtype, in the same units"
                )
            if split.labels.shape[1:] != train.labels.shape[1:]:
                raise ValueError(
                    f"train holds targets of shape {train.labels.shape[1:]} but {part} {split.labels.shape[1:]};"
                    " needs one shape, since one model predicts both"
                )

    @classmethod
    def from_arrays(
        cls,
        x: Values,
        y: Values,
        *,
        test: tuple[Values, Values] | None = None,
        validation: tuple[Values, Values] | None = None,
        classes: Sequence[str] | None = None,
        name: str = "arrays",
        standardisation: str = "moments",
        seed: int = 0,
    ) -> Data:
        """Make a data set of arrays: NumPy, JAX, or nested lists.

        Args:
          x: The images, (n, *space, c) with one to three spatial axes. Bytes and booleans are stored as uint8. All other
            numbers are stored as float32.
          y: The labels. Integers and booleans (n,) number the classes from 0. Strings (n,) name them. Floats (n, *anything)
            are targets, for a `loss` of `fit`.
          test: The pair of test images and labels. If None, 20 % of each class, chosen by `seed`.
          validation: The pair of validation images and labels. If None, there is no validation split.
          classes: The names of the classes. If None, the sorted strings in `y`, or the class numbers as strings.
          name: The name of the data set in tables and figures.
          standardisation: The scaling of pixels in `fit`; see `Data`.
          seed: The seed that chooses the test examples.

        Raises:
          ValueError: The axes are not (n, *space, c), as for grey images without an axis of channels. Or the numbers of images
            and labels differ, a label has no name, an integer does not fit, or an image or a target is not finite. Or `test` is
            None and there are too few images to hold some out.
          TypeError: An argument is of the wrong type, or an array holds no real numbers.

        Example:
          >>> x = np.zeros((10, 8, 7, 1), np.uint8)
          >>> data = Data.from_arrays(x, ["cat", "dog"] * 5)
          >>> data.classes, len(data.train), len(data.test)
          (('cat', 'dog'), 8, 2)
        """
        pairs = {"train": (x, y), "test": test, "validation": validation}
        names, splits = arrays.splits({part: pair for part, pair in pairs.items() if pair is not None}, classes)
        if test is None:
            if np.bincount(splits["train"].groups).max() < 2:
                raise ValueError(
                    f"test is None, but no class has two of the {len(splits['train'])} images, to hold one out for testing;"
                    " needs test=(x, y)"
                )
            splits["train"], splits["test"] = hold_out(splits["train"], TEST_FRACTION, seed)
        return cls(name, classes=names, standardisation=standardisation, **splits)

    def __repr__(self) -> str:
        sizes = " + ".join(f"{len(split):,} {part}" for part, split in self._splits.items())
        kind = f"{len(self.classes)} classes" if self.classes else "targets"
        return f"Data({self.name!r}, {sizes}, {kind}, {image_text(self.image_shape, self.train.images.dtype)})"

    def _repr_html_(self) -> str:
        """Return a sheet of sample images of every class. Notebooks call it."""
        return sheet_html(repr(self), self.classes, self._splits)

    @property
    def _splits(self) -> dict[str, Split]:
        """The splits by name."""
        splits = {"train": self.train, "test": self.test}
        return splits if self.validation is None else {**splits, "validation": self.validation}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image, (*space, c)."""
        return self.train.images.shape[1:]

    @property
    def mean(self) -> np.ndarray:
        """The numbers that `fit` subtracts from each channel: float32, (c,).

        Under "moments" they are the means of the training pixels. For images on disk they are estimated from 10,000 images.
        """
        return self._standard[0]

    @property
    def std(self) -> np.ndarray:
        """The numbers that `fit` divides each channel by: float32, (c,).

        Under "moments" they are the standard deviations of the pixels that give `mean`. A number that would be 0 is replaced by
        1. This happens for a constant channel under "moments" and for a channel of zeros under "scale".
        """
        return self._standard[1]

    @property
    def pixel_range(self) -> tuple[float, float]:
        """The least and the largest training pixel. For images on disk they are those of 10,000 images."""
        return self._moments[2]

    @functools.cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers to subtract and to divide by, per channel."""
        mean, std = STANDARDISATIONS[self.standardisation](*self._moments[:2])
        return mean, np.where(std == 0, np.float32(1), std)

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """The mean and standard deviation of the training pixels per channel, and their range over all channels.

        The standard deviation of a constant channel is exactly 0.
        """
        images, shape = self.train.images, self.image_shape
        if isinstance(images, StoredImages):  # the same sample in every call
            chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
            images = images[np.sort(chosen)]
        rows = images.reshape(len(images), -1)  # sum over images first: long contiguous axes are many times faster
        mean = rows.mean(0, dtype=np.float64).reshape(-1, shape[-1]).mean(0)
        centre = np.broadcast_to(mean, shape).reshape(-1)
        squares = np.zeros_like(centre)
        for k in range(0, len(rows), CHUNK):
            squares += ((rows[k : k + CHUNK] - centre) ** 2).sum(0)
        std = np.sqrt((squares / len(rows)).reshape(-1, shape[-1]).mean(0))
        lows, highs = np.array([(pixels.min(), pixels.max()) for pixels in np.moveaxis(images, -1, 0)]).T
        pixel_range = float(lows.min()), float(highs.max())
        return mean.astype(np.float32), np.where(lows == highs, 0, std).astype(np.float32), pixel_range

    def with_standardisation(self, name: str) -> Data:
        """Return the data set with another scaling of pixels in `fit`.

        The images are not changed.

        Args:
          name: The standardisation, "moments", "scale" or "none"; see `Data`.

        Raises:
          ValueError: The name is unknown.

        Example:
          >>> split = Split(np.full((5, 8, 7, 1), 4, np.uint8), np.arange(5))
          >>> data = Data("grey", split, split, tuple("abcde"))
          >>> [(chosen.mean.item(), chosen.std.item()) for chosen in map(data.with_standardisation, STANDARDISATIONS)]
          [(4.0, 1.0), (0.0, 4.0), (0.0, 1.0)]
        """
        return dataclasses.replace(self, standardisation=name)

    def subset(self, size: int, seed: int = 0) -> Data:
        """Return the data set with `size` training examples, with classes as balanced as possible.

        Examples with targets are chosen at random. The other splits are unchanged. For one seed the subsets are nested: a
        smaller one is part of every larger one. Examples keep their order.

        Args:
          size: The number of training examples to keep.
          seed: The seed that chooses the examples.

        Raises:
          ValueError: `size` is out of range.
          TypeError: `size` is not an integer.

        Example:
          >>> split = Split(np.zeros((6, 8, 7, 1), np.uint8), np.array([0, 0, 0, 0, 1, 1]))
          >>> Data("blank", split, split, ("zero", "one")).subset(4).train.labels
          array([0, 0, 1, 1], dtype=int32)
        """
        size, available = as_integer("size", size, None), len(self.train)
        if not 1 <= size <= available:
            raise ValueError(f"size must be 1 to {available}, the training examples of {self.name}; got {size}")
        keep = np.sort(round_robin(self.train.groups, seed)[:size])
        return dataclasses.replace(self, train=self.train.take(keep))

    def hold_out(self, fraction: float = 0.1, seed: int = 0) -> Data:
        """Move a fraction of the training examples of each class to a new validation split.

        Examples with targets are chosen at random.

        Args:
          fraction: The fraction of each class to move, above 0 and below 1.
          seed: The seed that chooses the examples.

        Raises:
          ValueError: There is a validation split already, `fraction` is out of range, or it leaves one part empty.
          TypeError: `fraction` is not a number.

        Example:
          >>> split = Split(np.zeros((10, 8, 7, 1), np.uint8), np.repeat([0, 1], 5))
          >>> len(Data("blank", split, split, ("zero", "one")).hold_out(0.2).validation)
          2
        """
        if self.validation is not None:
            raise ValueError(f"{self.name} has a validation split of {len(self.validation)} examples already")
        train, validation = hold_out(self.train, fraction, seed)
        return dataclasses.replace(self, train=train, validation=validation)

    def relabel(self, groups: Mapping[str, Sequence[int | str] | int | str]) -> Data:
        """Merge groups of classes into new classes, and drop the other classes.

        Args:
          groups: A mapping from each new class, in order, to one or several old classes, by name or number. Examples of other
            classes are dropped.

        Raises:
          ValueError: An old class is unknown or in two groups, a new class has no example in one of the splits, or the labels
            are targets.

        Example:
          >>> split = Split(np.zeros((6, 8, 7, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2]))
          >>> data = Data("blank", split, split, ("plane", "car", "bird"))
          >>> data.relabel({"planes": 0, "birds": "bird"}).train.labels
          array([0, 1, 0, 1], dtype=int32)
        """
        if not self.classes:
            raise ValueError(f"{self.name} has targets and no classes; relabel merges classes")
        new = np.full(len(self.classes), -1)
        for number, (name, old) in enumerate(groups.items()):
            for member in [old] if isinstance(old, (int, np.integer, str)) else old:
                label = self._label(member)
                if new[label] >= 0:
                    raise ValueError(f"class {self.classes[label]!r} is in two groups; {name!r} is the second")
                new[label] = number
        splits = {}
        for part, split in self._splits.items():
            keep = np.flatnonzero(new[split.labels] >= 0)
            missing = [name for number, name in enumerate(groups) if number not in new[split.labels[keep]]]
            if missing or not groups:
                raise ValueError(f"{part} of {self.name} has no example of {missing or 'any group'}; every class needs one")
            chosen = split.take(keep)
            splits[part] = Split(chosen.images, new[chosen.labels])
        return dataclasses.replace(self, classes=tuple(groups), **splits)

    def _label(self, old: int | str) -> int:
        """Return the number of a class that is given by name or number."""
        if isinstance(old, str) and old in self.classes:
            return self.classes.index(old)
        if not isinstance(old, str) and 0 <= as_integer("a class", old, None) < len(self.classes):
            return operator.index(old)
        raise ValueError(f"{self.name} has no class {old!r}; its classes are {', '.join(map(repr, self.classes))}")

    def map(self, f: Callable[[np.ndarray], ArrayLike]) -> Data:
        """Apply a function to the images of all splits.

        Labels are unchanged. For images on disk, the function is applied whenever they are read.

        Args:
          f: A function of images (n, *space, c) that returns the same number of images, uint8 or float32, as a NumPy or JAX
            array. It must treat each image independently of the others.

        Raises:
          ValueError: `f` returns another number of images, or images of different shapes for different splits.
          TypeError: `f` returns another dtype.

        Example:
          >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
          >>> Data("blank", split, split, tuple("abcde")).map(lambda x: x[:, ::2]).image_shape
          (4, 7, 1)
        """
        return dataclasses.replace(self, **{part: split.map(f) for part, split in self._splits.items()})


def check_standardisation(name: str) -> None:
    """Raise ValueError if a standardisation is unknown."""
    one_of("standardisation", name, STANDARDISATIONS)


def _check_classes(classes: Sequence[str]) -> None:
    if not isinstance(classes, tuple) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a tuple of names, got {classes!r}")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes must hold no name twice, got {classes!r}")


def _check_split(part: str, split: object, classes: tuple[str, ...]) -> None:
    if not isinstance(split, Split):
        raise TypeError(f"{part} must be a Split, got {type(split).__name__}")
    if split.has_targets:
        if classes:
            raise ValueError(
                f"{part} has targets of dtype float32 but classes has {len(classes)} names; needs integers that number the"
                " classes, or classes=() for targets"
            )
        return
    if not classes:
        raise ValueError(f"classes must hold at least one name, as the labels of {part} number the classes, got ()")
    if split.labels.max() >= len(classes):
        raise ValueError(
            f"{part} has label {split.labels.max()} but classes names only {len(classes)}; needs labels 0 to {len(classes) - 1}"
        )
