"""Images at random places on a canvas, and the training of networks on them."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import data, measure
from experiments.parts.tuned import CHOICE_SEED, HELD_OUT
from experiments.shared.command import Rows
from experiments.shared.settings import Source

MOVED = 200  # the number of test images that are moved to measure shift consistency


@dataclasses.dataclass(frozen=True)
class Canvas(Source):
    """The images, and the training by Adam with a learning rate that is chosen for each network.

    Args:
      margin: The number of empty pixels around a centred image, and its largest distance from the centre. With 0 the canvas is
        the image.
      size: The number of training images. Each stands at one place.
      copies: The number of places for every test image.
      steps: The number of training steps.
      batch_size: The number of images per step.
      rates: The learning rates to choose from. They decay along a cosine.
      seeds: The number of runs, each with its own images, places and initial weights.
    """

    margin: int = 4
    size: int = 1000
    copies: int = 4
    steps: int = 1000
    batch_size: int = 32
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    seeds: int = 5

    def recipe(self, rate: float, seed: int, evaluations: int = 1) -> cl.Config:
        """Return the configuration of `fit`, without a progress bar."""
        return cl.Config(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=rate,
            evaluations=evaluations,
            seed=seed,
            progress=False,
        )


@functools.cache
def loaded(config: Canvas) -> data.Data:
    """Load the images, with a fifth of the training images held out to choose learning rates."""
    return config.load().hold_out(HELD_OUT, seed=0)


def space_of(config: Canvas) -> list[int]:
    """Return the height and width of the canvas."""
    return [n + 2 * config.margin for n in loaded(config).image_shape[:-1]]


def placed(config: Canvas, seed: int, shift: int | None = None, test_shift: int | None = None) -> data.Data:
    """Place each training image at one place, and each other image at several.

    Args:
      config: The images.
      seed: The seed of the training images and of their places.
      shift: The largest distance of training images from the centre. If None, the margin.
      test_shift: The largest distance of validation and test images from the centre. If None, the margin.
    """
    put = functools.partial(
        data.place_on_canvas, loaded(config), space_of(config), size=config.size, copies=config.copies, seed=seed
    )
    train, test = (config.margin if limit is None else limit for limit in (shift, test_shift))
    images = put(test)
    if train != test:
        images = dataclasses.replace(images, train=put(train).train)
    return images.with_standardisation("scale")  # the background stays 0, as the padding is


def centred(config: Canvas) -> jax.Array:
    """Return some test images in the centre of the canvas."""
    return data.centre_on_canvas(jnp.asarray(loaded(config).test.images[:MOVED]), space_of(config))


def scores(fitted: cl.Fitted, images: data.Data) -> dict[str, float]:
    """Return the accuracies of a network on test, training and validation images."""
    last, learnt = fitted.history[-1], fitted.evaluate(images.train.images, images.train.labels)["accuracy"]
    return {"accuracy": last["test_accuracy"], "train_accuracy": learnt, "validation": last["validation_accuracy"]}


def consistency(config: Canvas, fitted: cl.Fitted, by: int) -> float:
    """Return the shift consistency: the share of predictions that stay when images move.

    Centred test images move to every side and corner.

    Args:
      config: The images.
      fitted: The network.
      by: The distance of a move in pixels.
    """
    moves = [move for move in itertools.product((-by, 0, by), repeat=2) if any(move)]
    return measure.shift_consistency(lambda x: jnp.asarray(fitted.logits(np.asarray(x))), centred(config), moves)


def tuned(config: Canvas, name: str, train: Callable[[float, int], Rows], rates: Sequence[float] | None = None) -> Rows:
    """Train a network with every seed, by the learning rate with the best `validation` score, and return all rows.

    Args:
      config: The learning rates and the number of seeds.
      name: The name of the network, which is added to the rows.
      train: A function from a learning rate and a seed to rows, the last of which has the score.
      rates: The learning rates to choose from. If None, the configuration's.
    """
    rate = max(rates or config.rates, key=lambda rate: train(rate, CHOICE_SEED)[-1]["validation"])
    columns: dict[str, Any] = {"network": name, "rate": rate}
    rows = [columns | {"seed": seed} | row for seed in range(config.seeds) for row in train(rate, seed)]
    print(f"{name}, rate {rate}: {rows[-1]['accuracy']:.1%}", flush=True)
    return rows
