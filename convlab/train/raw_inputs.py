"""A network that takes raw images, as a module."""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

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

    Example:
      >>> model = RawInputs(nnx.Linear(1, 2, use_bias=False, rngs=nnx.Rngs(0)), np.full(1, 5.0), np.full(1, 2.0))
      >>> model(np.full((3, 4, 1), 5, np.uint8)).shape
      (3, 4, 2)
    """

    def __init__(self, network: nnx.Module, mean: np.ndarray, std: np.ndarray):
        self.network = network
        self.mean = Standardisation(jax.numpy.asarray(mean, "float32"))
        self.std = Standardisation(jax.numpy.asarray(std, "float32"))

    def __call__(self, x: Shaped[Array | np.ndarray, "*n k l c"]) -> Float[Array, "..."]:
        """Return the logits of raw images."""
        return self.network(standardise(x, self.mean[...], self.std[...]))  # pyright: ignore[reportCallIssue]


def check_inputs(model: object, data: Data) -> None:
    """Raise ValueError if both the model and `fit` standardise the images."""
    is_nnx = isinstance(model, nnx.Module) and any(isinstance(module, RawInputs) for _, module in nnx.iter_modules(model))
    if is_nnx and data.standardisation != "none":
        raise ValueError(
            f"model standardises its images and the standardisation {data.standardisation!r} of {data.name} does so again;"
            ' needs one of the two: pass fitted.model() without inputs="raw", or data.with_standardisation("none")'
        )
