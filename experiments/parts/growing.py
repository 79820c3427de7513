"""Calls of relax, count and fit on networks and numbers of images that grow."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab.data import Data, Split, StoredImages
from convlab.models import LeNet, NetDeep, Pyramid
from experiments.parts.growth import keeping
from experiments.shared.stopwatch import Contender

RELAX, COUNT, MEMORY, DISK = "relax", "count", "fit, images in memory", "fit, images on disk"
LOCAL = "locally_connected"
WEIGHTS, LAYERS, IMAGES = "weights", "layers", "images"
SPACE, CLASSES = (28, 28), 10  # of the images that are trained on
TESTED = 500  # images
BLOCK_WIDTH = 16  # channels
AROUND = 3  # layers with weights of a `NetDeep` besides its blocks


class Case(NamedTuple):
    """One call on one size.

    Attributes:
      what: The function that is called, and for `fit` where its images are.
      varied: What grows: "weights", "layers" or "images".
      amount: The width of a `Pyramid`, the blocks of a `NetDeep`, or the number of images.
      side: The side of the images that networks other than that of `fit` take.
      folder: The folder of the images that are trained on.
    """

    what: str
    varied: str
    amount: int
    side: int
    folder: str


def write_images(folder: str, count: int) -> None:
    """Write random images of 28x28 bytes and their labels, as NumPy files."""
    draw, path = np.random.default_rng(0), pathlib.Path(folder)
    np.save(path / f"images_{count}.npy", draw.integers(0, 256, (count, *SPACE, 1), np.uint8))
    np.save(path / f"labels_{count}.npy", draw.integers(0, CLASSES, count, np.int32))


def read_images(folder: str, count: int, on_disk: bool) -> Data:
    """Read the images into memory, or leave them in their file as `convlab.load` does with storage="disk"."""
    path = pathlib.Path(folder)
    images = np.load(path / f"images_{count}.npy", mmap_mode="r" if on_disk else None)
    if on_disk:
        file = images
        images = StoredImages(lambda indices: np.asarray(file[indices]), np.arange(count), (*SPACE, 1), file.dtype)
    split = Split(images, np.load(path / f"labels_{count}.npy"))
    return Data("random", split, split.take(np.arange(min(TESTED, count))), tuple(map(str, range(CLASSES))))


def network(build: Callable[[], nnx.Module]) -> nnx.Module:
    """Build a network whose weights are drawn by NumPy, which compiles nothing."""
    graph, shapes = nnx.split(nnx.eval_shape(build))
    draw = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda a: jnp.asarray(0.1 * draw.random(a.shape, np.float32), a.dtype), shapes))


def builder(case: Case, connectivity: str) -> Callable[[], nnx.Module]:
    """Return the function that builds the network of a case of `relax` or `count`."""
    shape = (case.side, case.side, 3)
    options: dict[str, Any] = {"connectivity": connectivity}
    if case.varied == LAYERS:
        return lambda: NetDeep(shape, CLASSES, width=BLOCK_WIDTH, blocks=case.amount, rngs=nnx.Rngs(0), **options)
    features = (case.amount, 2 * case.amount, 4 * case.amount)
    return lambda: Pyramid(shape, CLASSES, features, rngs=nnx.Rngs(0), **options)


def mib(arrays: Any) -> float:
    """Return the size of arrays, or of their shapes, in MiB."""
    return sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(arrays)) / 2**20


def make(case: Case) -> list[Contender]:
    """Return the contenders of a case: its call, and one that drops the result. The labels are columns of its row."""
    labels: dict[str, Any] = {"what": case.what, "varied": case.varied}
    if case.varied == IMAGES:
        return _fit(case, labels | {"size": case.amount})
    shape = (case.side, case.side, 3)
    free = nnx.state(nnx.eval_shape(builder(case, LOCAL)), nnx.Param)
    weights = sum(leaf.size for leaf in jax.tree.leaves(free))
    labels["size"] = weights if case.varied == WEIGHTS else case.amount + AROUND
    if case.what == COUNT:
        model = network(builder(case, LOCAL))
        return keeping(labels, lambda: cl.count(model, shape))
    model = network(builder(case, "conv"))
    return keeping(labels | {"result_mib": mib(free)}, lambda: relaxed(model, shape))


def relaxed(model: nnx.Module, shape: tuple[int, ...]) -> nnx.Module:
    """Relax a network to locally connected layers, and wait for its weights."""
    free = cl.relax(model, LOCAL, shape)
    jax.block_until_ready(nnx.state(free, nnx.Param))
    return free


def _fit(case: Case, labels: dict[str, Any]) -> list[Contender]:
    """Return the contenders that read the images and train LeNet on them for one epoch."""
    model = network(lambda: LeNet((*SPACE, 1), CLASSES, rngs=nnx.Rngs(0)))
    config = cl.Config(epochs=1, evaluations=1, progress=False)
    files = pathlib.Path(case.folder).glob(f"*_{case.amount}.npy")
    labels["images_mib"] = case.amount * np.prod(SPACE).item() / 2**20
    if case.what == DISK:
        labels["disk_mib"] = sum(file.stat().st_size for file in files) / 2**20

    def call() -> tuple[Data, cl.Fitted]:
        data = read_images(case.folder, case.amount, case.what == DISK)
        return data, cl.fit(model, data, config)

    return keeping(labels, call)
