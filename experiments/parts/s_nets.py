"""S-nets, a 9x9 layer of stride 2 and two dense ones: convolutional, local and dense, and dense with beta-lasso."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import data as images
from convlab import optim
from experiments.parts.networks import linear
from experiments.shared.settings import Source

LINEAR = "linear classifier"
SGD, LASSO = "S-FC", "S-FC, beta-lasso"
NETS = {  # the first layer, and whether beta-lasso trains it
    "S-CONV": ("conv", False),
    "S-LOCAL": ("locally_connected", False),
    SGD: ("dense", False),
    LASSO: ("dense", True),
}


@dataclasses.dataclass(frozen=True)
class SNets(Source):
    """How S-nets, and the linear classifier beside them, are trained.

    Args:
      flip: Whether every second training image is mirrored.
      shift: The share of their side by which training images are moved, at most.
      width: The channels of the first layer, alpha.
      steps: The steps of training, the same everywhere.
      batch_size: The images of a step.
      learning_rate: The rate of SGD with momentum 0.9, falling along a cosine.
      lam: The weight of the L1 penalty of beta-lasso.
      beta: The threshold of beta-lasso over `lam`.
    """

    flip: bool = False
    shift: float = 1 / 7
    width: int = 8
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.3
    lam: float = 4e-5
    beta: float = 100.0

    def fit(self, name: str, data: images.Data, seed: int) -> cl.Fitted:
        """Train a network by its recipe; the linear classifier by Adam, without augmentation."""
        training = cl.Config(steps=self.steps, batch_size=self.batch_size, seed=seed, evaluations=1, progress=False)
        if name == LINEAR:
            return cl.fit(linear(data, seed), data, training)
        connectivity, is_lasso = NETS[name]
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        optimizer = optim.beta_lasso(rate, self.lam * is_lasso, self.beta, momentum=0.9)
        options: dict[str, Any] = {"width": self.width, "connectivity": connectivity, "rngs": nnx.Rngs(seed)}
        model = cl.models.SNet(data.image_shape, len(data.classes), **options)
        return cl.fit(model, data, training, optimizer=optimizer, augment=augmentation(self, data.image_shape))


@functools.cache
def augmentation(config: SNets, image_shape: tuple[int, ...]) -> Any:
    """What is done to training images; one object, so that the step is compiled once."""
    moved = functools.partial(images.random_crop, pad=round(config.shift * image_shape[0]))
    return images.chain(moved, images.random_flip) if config.flip else images.chain(moved)


def weights_left(model: Any) -> dict[str, int]:
    """Count the weights of each layer that are not zero."""
    layers = {"first": model.stages[0].layer, **dict(zip(("hidden", "last"), model.head.layers, strict=True))}
    return {name: int(np.count_nonzero(layer.kernel[...])) for name, layer in layers.items()}


def first_weights(model: Any, image_shape: tuple[int, ...]) -> tuple[jax.Array, cl.Window]:
    """Return the first weights as a dense weight, and the window that its convolution has."""
    dense: Any = cl.relax(model, "dense", image_shape)
    return dense.stages[0].layer.kernel[...], model.stages[0].layer.layout.window
