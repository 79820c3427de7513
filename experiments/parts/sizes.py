"""The networks of the ladder, their controls, and training sets of growing size that all seeds share."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from convlab import data
from experiments.shared.settings import Source

RUNGS: dict[str, dict[str, Any]] = {
    "linear": {},
    "dense": {"connectivity": "dense"},
    "global convolution": {"connectivity": "global_conv"},
    "locally connected": {"connectivity": "locally_connected"},
    "low rank 4": {"connectivity": "low_rank", "rank": 4},
    "tiled 4": {"connectivity": "tiled", "period": 4},
    "tiled 2": {"connectivity": "tiled", "period": 2},
    "convolution": {"connectivity": "conv"},
}
SYMMETRIC = (
    "linear",
    "dense",
)  # networks that learn the same from reordered pixels, if their initial weights are reordered too
REORDERED, FLATTENED, SHIFTED = "reordered pixels", "all pixels read", "shifted in training"


@dataclasses.dataclass(frozen=True)
class Sizes(Source):
    """The networks, and the training sets.

    Args:
      name: The name of the report.
      distances: The largest distances of images from the centre of the canvas, in pixels.
      margin: The number of empty pixels around an image. With 0 the canvas is the image.
      sizes: The numbers of training images.
      steps: The numbers of training steps, one for each size.
      seeds: The number of runs, each with its own images, batch order, places and initial weights.
      rungs: The networks, by the names of their rungs in the figure.
      reordered: The networks that are also trained on reordered pixels, at the first distance.
      flattened: The networks that are also trained with a read-out of all pixels, at the first distance.
      shifted: The networks that are also trained on images shifted at random, at the first distance.
      rates: The learning rates by network. Learning rates that are missing are chosen on validation images.
      choice: The sizes of training sets at which learning rates are chosen. Only the first distance uses more than the first
        size.
      held_out: Whether the validation images are kept out of the training sets.
      doublings: The largest number of times that the steps are doubled while a set is not learnt and the accuracy changes.
      stop: Whether a network skips larger sets after all its seeds reach the target. It never does at the first distance.
      copies: The number of places for every test image.
      features: The numbers of channels of the layers.
      batch_size: The number of images per step.
      target: The accuracy to reach.
    """

    name: str = "ladder"
    distances: tuple[int, ...] = (4, 0)
    margin: int = 4
    sizes: tuple[int, ...] = (62, 250, 1000)
    steps: tuple[int, ...] = (100, 250, 500)
    seeds: int = 3
    rungs: tuple[str, ...] = tuple(RUNGS)
    reordered: tuple[str, ...] = ("locally connected", "convolution")
    flattened: tuple[str, ...] = ()
    shifted: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    choice: tuple[int, ...] = (500, 8000)
    held_out: bool = True
    doublings: int = 0
    stop: bool = False
    copies: int = 4
    features: tuple[int, ...] = (8, 16, 32)
    batch_size: int = 32
    target: float = 0.9


class Curve(NamedTuple):
    """One line of a figure: a network with a distance and a control, trained on sets of every size."""

    rung: str
    distance: int
    control: str = ""

    @property
    def name(self) -> str:
        """The name in the figure and the table."""
        return f"{self.rung}, {self.control}" if self.control else self.rung


def curves_of(config: Sizes) -> Iterator[Curve]:
    """Yield all lines of the figure, those of the first distance first."""
    for distance in config.distances:
        yield from (Curve(rung, distance) for rung in config.rungs)
        if distance == config.distances[0]:
            controls = {REORDERED: config.reordered, FLATTENED: config.flattened, SHIFTED: config.shifted}
            yield from (Curve(rung, distance, control) for control, rungs in controls.items() for rung in rungs)


@functools.cache
def images(config: Sizes, choosing: bool = False) -> data.Data:
    """Load the images. To choose learning rates, a fifth of each class is held out for validation."""
    loaded = images(config, True) if config.held_out and not choosing else config.load()
    return loaded.hold_out(0.2, seed=0) if choosing else dataclasses.replace(loaded, validation=None)


@functools.cache
def training_set(config: Sizes, distance: int, reordered: bool, seed: int, choosing: bool) -> data.Data:
    """Place the images of one seed on the canvas, as many as the largest set has."""
    loaded = images(config, choosing)
    space = [n + 2 * config.margin for n in loaded.image_shape[:-1]]
    placed = data.place_on_canvas(loaded, space, distance, size=max(config.sizes), copies=config.copies, seed=seed)
    if reordered:
        placed = placed.map(functools.partial(data.permute_pixels, key=jax.random.key(seed)))
    return placed.with_standardisation("scale")  # the background stays 0, as the padding is


def places(config: Sizes, distance: int) -> int:
    """Return the number of places where an image may stand."""
    return (2 * distance + 1) ** (len(images(config).image_shape) - 1)


def check(config: Sizes) -> None:
    """Check that the configuration is consistent.

    Raises:
      ValueError: The numbers of sizes and steps differ, a rung is unknown, or a distance exceeds the margin.
    """
    if len(config.steps) != len(config.sizes):
        raise ValueError(f"steps are {config.steps}, but sizes are {config.sizes}; give one number of steps for each size")
    named = (*config.rungs, *config.reordered, *config.flattened, *config.shifted)
    if unknown := [rung for rung in named if rung not in RUNGS]:
        raise ValueError(f"rungs {unknown} are unknown; choose from {', '.join(RUNGS)}")
    if beyond := [distance for distance in config.distances if not 0 <= distance <= config.margin]:
        raise ValueError(f"distances {beyond} do not lie between 0 and margin, {config.margin} pixels, where images fit")
    if empty := [distance for distance in config.distances if not sizes_of(config, Curve("linear", distance))]:
        most = max(len(images(config).train) * places(config, distance) for distance in empty)
        problem = f"sizes {config.sizes} exceed twice the {most} different images at distance {', '.join(map(str, empty))}"
        if len(empty) == len(config.distances):
            raise ValueError(f"{problem}; pass smaller sizes, and their steps")
        print(f"{problem}, which is left out; pass smaller sizes to have it", file=sys.stderr, flush=True)


def sizes_of(config: Sizes, curve: Curve) -> list[int]:
    """Return the sizes up to twice the number of different placed images."""
    different = (1 if curve.control == SHIFTED else places(config, curve.distance)) * len(images(config).train)
    return [size for size in config.sizes if size <= 2 * different]
