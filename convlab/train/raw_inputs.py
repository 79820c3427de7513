"""Raw images: a network that takes them, and checks of their units."""

import warnings

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from convlab import check
from convlab.data import Data, standardise


class Standardisation(nnx.Variable):
    """The numbers that standardise the channels of images, which are not trained."""


class RawInputs(nnx.Module):
    """Network that standardises raw images and then calls another network.

    `convlab.relax`, `convlab.constrain`, `convlab.diff` and `convlab.summary` take it like any network.

    Args:
      network: The network of standardised images.
      mean: The numbers to subtract from each channel (`Data.mean`).
      std: The numbers to divide each channel by (`Data.std`).

    Raises:
      TypeError: `network` cannot be called, or `mean` or `std` holds no real numbers.

    Example:
      >>> model = RawInputs(nnx.Linear(1, 2, use_bias=False, rngs=nnx.Rngs(0)), np.full(1, 5.0), np.full(1, 2.0))
      >>> model(np.full((3, 4, 1), 5, np.uint8)).shape
      (3, 4, 2)
    """

    def __init__(self, network: nnx.Module, mean: np.ndarray, std: np.ndarray):
        self.network = check.function("network", network, "a network, which is called on images")
        self.mean = Standardisation(check.real("mean", check.array("mean", mean)).astype("float32"))
        self.std = Standardisation(check.real("std", check.array("std", std)).astype("float32"))

    def __call__(self, x: Shaped[Array | np.ndarray, "*n k l c"]) -> Float[Array, "..."]:
        """Return the logits of raw images."""
        return self.network(standardise(x, self.mean[...], self.std[...]))  # pyright: ignore[reportCallIssue]


def warn_of_scale(images: np.ndarray, dtype: np.dtype, trained: tuple[float, float]) -> None:
    """Warn if images are far outside of the range of the training pixels, or all near 0 compared with it.

    Dark images and outliers are no reason. Images are far outside if they exceed the range by more than its width, or the range
    of a byte if training images are bytes. They are near 0 if no pixel exceeds a hundredth of the largest training pixel, or 1
    where training images are bytes.

    Args:
      images: The images that the network is called on.
      dtype: The dtype of the training images.
      trained: The least and the largest training pixel.
    """
    if images.size == 0:
        return
    (low, high), (least, most) = trained, (float(images.min()), float(images.max()))
    width, is_bytes = high - low, dtype == np.uint8
    is_outside = least < low - width or most > high + width or (is_bytes and (least < 0 or most > 255))
    peak, largest = max(-least, most), max(-low, high)
    is_near_zero = 0 < peak <= max(largest / 100, min(1, largest / 10) * is_bytes)
    if is_outside or is_near_zero:
        warnings.warn(
            f"images have pixels from {least:g} to {most:g}, but the network was trained on {dtype} images with pixels from"
            f" {low:g} to {high:g}; needs the same units: scale them as in training",
            stacklevel=4,
        )


def check_inputs(model: object, data: Data) -> None:
    """Raise ValueError if both the model and `fit` standardise the images."""
    is_nnx = isinstance(model, nnx.Module) and any(isinstance(module, RawInputs) for _, module in nnx.iter_modules(model))
    if is_nnx and data.standardisation != "none":
        raise ValueError(
            f"model standardises its images and the standardisation {data.standardisation!r} of {data.name} does so again;"
            ' needs one of the two: pass fitted.model() without inputs="raw", or data.with_standardisation("none")'
        )
