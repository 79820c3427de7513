"""How does a convolution follow from a dense layer? A textbook derivation, run on an image.

A dense layer on an image is written with two indices per side and re-indexed by offsets. It is then constrained to the same
kernel everywhere (translation equivariance), to a small window (locality), to both, and to both with channels. Each step is the
orthogonal projection of one dense weight. Once the dense weight is random, which shows what an assumption costs. Once it is a
convolution, which shows that an assumption costs nothing where it holds. The pictures are the dense matrices. Equal weights
have equal colours, and white means no weight.

Answer: 4,096 weights become 225 by translation, 484 by locality, 9 by both. For a convolution nothing changes.

    python -m experiments.derivation                                        (10 seconds on 2 cores)

Reference: Zhang et al., Dive into Deep Learning, section 7.1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import data, report
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import Source

FORMATS = {"change_of_any": ".2g", "change_of_convolution": ".2g"}


@dataclasses.dataclass(frozen=True)
class Config(Source):
    """The settings of the experiment.

    Args:
      data: The name of the data set.
      image: The index of the test image.
      size: The number of taps of the local window along each axis.
      channels: The number of output channels in the last step.
      seed: The seed of the weights.
    """

    image: int = 0
    size: int = 3
    channels: int = 2
    seed: int = 0


SMOKE = Config(size=2)


class Step(NamedTuple):
    """One step of the derivation.

    It holds the assumption, the shape of the kernel, and the maps from the kernel to the dense weight (`lift`) and back
    (`project`).
    """

    name: str
    assumed: str
    weight: str
    shape: tuple[int, ...]
    lift: Callable[[jax.Array], jax.Array]
    project: Callable[[jax.Array], jax.Array]


def steps(space: tuple[int, ...], size: int, channels: int) -> list[Step]:
    """Return the steps of the derivation for images of `space` pixels."""
    full, small = cl.Window.full(space), cl.Window((size,) * len(space))

    def local(name: str, assumed: str, window: cl.Window) -> Step:
        shape = (*space, *window.taps(len(space)), 1, 1)
        lift = lambda v: cl.lift_local_to_dense(v, window, space)  # noqa: E731
        return Step(name, assumed, "V[i,j,a,b]", shape, lift, lambda w: cl.project_dense_to_local(w, window, space))

    def shared(name: str, assumed: str, window: cl.Window, d: int = 1) -> Step:
        shape, weight = (*window.taps(len(space)), 1, d), "V[a,b]" if d == 1 else "V[a,b,c,d]"
        lift = lambda v: cl.lift_conv_to_dense(v, window, space)  # noqa: E731
        return Step(name, assumed, weight, shape, lift, lambda w: cl.project_dense_to_conv(w, window, space))

    return [
        Step("dense", "nothing", "W[i,j,k,l]", (*space, *space, 1, 1), lambda w: w, lambda w: w),
        local("re-indexed", "nothing", full),
        shared("shared", "translation", full),
        local("local", "locality", small),
        shared("convolution", "both", small),
        shared(f"{channels} channels", "both", small, channels),
    ]


def change(step: Step, w: jax.Array, x: jax.Array) -> float:
    """Return the largest change of the output, relative to the largest output, if the weight is projected."""
    before, after = cl.dense(x, w), cl.dense(x, step.lift(step.project(w)))
    return float(jnp.abs(after - before).max() / jnp.abs(before).max())


def run(config: Config) -> Result:
    """Return one row per step, and the dense matrix of each with the index of the weight in every entry."""
    loaded = config.load()
    if not 0 <= config.image < len(loaded.test):
        raise ValueError(f"image must be 0 to {len(loaded.test) - 1}, the test images of {config.dataset}, got {config.image}")
    x = data.standardise(loaded.test.images[config.image : config.image + 1], loaded.mean, loaded.std)[0, ..., :1]
    space, rows, pictures = x.shape[:-1], [], {}
    for step in track(steps(space, config.size, config.channels), "steps"):
        key = jax.random.key(config.seed)
        dense = jax.random.normal(key, (*space, *space, *step.shape[-2:]))
        convolution = cl.lift_conv_to_dense(
            jax.random.normal(key, (*(config.size,) * len(space), *step.shape[-2:])), cl.Window(config.size), space
        )
        numbers = 1 + jnp.arange(np.prod(step.shape), dtype=jnp.float32).reshape(step.shape)
        matrix = np.asarray(step.lift(numbers)).astype(int)
        units = np.moveaxis(matrix[..., 0, :], -1, 0).reshape(-1, int(np.prod(space)))
        pictures[f"{step.name}: {step.weight}"] = units
        rows.append(
            {
                "step": step.name,
                "assumed": step.assumed,
                "weight": step.weight,
                "slots": int(np.prod(step.shape)),
                "weights": len(np.unique(units[units > 0])),
                "change_of_any": change(step, dense, x),
                "change_of_convolution": change(step, convolution, x),
            }
        )
    return Result(rows, pictures)


def draw(rows: Rows, config: Config, pictures: dict[str, np.ndarray]) -> Any:
    """Draw the dense matrix of every step."""
    figure, axes = report.new_figure(len(pictures), rows=2, size=(12.0, 8.5))
    for axis, (title, matrix) in zip(axes, pictures.items(), strict=True):
        report.matrix_picture(axis, matrix, title)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
