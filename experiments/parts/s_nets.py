"""S-nets: a 9x9 layer of stride 2 on a rung, then two dense layers."""

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
    """The training of S-nets, and of the linear classifier.

    Args:
      flip: Whether every second training image is mirrored.
      shift: The largest shift of training images, as a share of their side.
      width: The number of channels of the first layer, alpha.
      steps: The number of training steps, the same for all networks.
      batch_size: The number of images per step.
      learning_rate: The learning rate of SGD with momentum 0.9, which decays along a cosine.
      l1_penalty: The weight of the L1 penalty of beta-lasso.
      beta: The threshold of beta-lasso divided by `l1_penalty`.
    """

    flip: bool = False
    shift: float = 1 / 7
    width: int = 8
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.3
    l1_penalty: float = 4e-5
    beta: float = 100.0

    def fit(self, name: str, data: images.Data, seed: int) -> cl.Fitted:
        """Train a network by its recipe. The linear classifier is trained by Adam, without augmentation."""
        training = cl.Config(steps=self.steps, batch_size=self.batch_size, seed=seed, evaluations=1, progress=False)
        if name == LINEAR:
            return cl.fit(linear(data, seed), data, training)
        connectivity, is_lasso = NETS[name]
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        optimizer = optim.beta_lasso(rate, self.l1_penalty * is_lasso, self.beta, momentum=0.9)
        options: dict[str, Any] = {"width": self.width, "connectivity": connectivity, "rngs": nnx.Rngs(seed)}
        model = cl.models.SNet(data.image_shape, len(data.classes), **options)
        return cl.fit(model, data, training, optimizer=optimizer, augment=augmentation(self, data.image_shape))


@functools.cache
def augmentation(config: SNets, image_shape: tuple[int, ...]) -> Any:
    """Return the augmentation of training images.

    It is always the same object, so that the step is compiled once.
    """
    moved = functools.partial(images.random_crop, pad=round(config.shift * image_shape[0]))
    return images.chain(moved, images.random_flip) if config.flip else images.chain(moved)


def weights_left(model: Any) -> dict[str, int]:
    """Count the nonzero weights of each layer."""
    layers = {
        "first_weights": model.stages[0].layer,
        **dict(zip(("hidden_weights", "last_weights"), model.head.layers, strict=True)),
    }
    return {name: int(np.count_nonzero(layer.kernel[...])) for name, layer in layers.items()}


def first_weights(model: Any, image_shape: tuple[int, ...]) -> tuple[jax.Array, cl.Window]:
    """Return the weights of the first layer as a dense weight, and the window of its convolution."""
    dense: Any = cl.relax(model, "dense", image_shape)
    return dense.stages[0].layer.kernel[...], model.stages[0].layer.layout.window
