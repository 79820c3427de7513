"""Photographs that packages ship, and their blur by a lens whose kernel turns and widens."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

import convlab as cl
from convlab.extras import require

TEST, TRAIN, VALIDATION = "china.jpg", "flower.jpg", "grace_hopper.jpg"
CONTRAST = 0.1  # the least standard deviation of a square, which leaves out the sky


@dataclasses.dataclass(frozen=True)
class Lens:
    """The settings of the lens and of the camera.

    Args:
      field: The height and width of a picture in pixels.
      taps: The height and width of the kernels.
      nodes: The number of known kernels along each axis.
      noise: The standard deviation of the noise of a pixel, where white is 1.
      widest: The standard deviation of the kernels at the corners along their longer axis, in pixels.
    """

    field: int = 64
    taps: int = 13
    nodes: int = 5
    noise: float = 0.003
    widest: float = 3.0

    @property
    def window(self) -> cl.Window:
        """The window without padding: the scene goes on outside of the picture."""
        return cl.Window(self.taps, padding="VALID")

    @property
    def scene(self) -> int:
        """The height and width of the scene that a picture shows."""
        return self.field + self.taps - 1

    def psfs(self, rows: ArrayLike, columns: ArrayLike) -> Float[np.ndarray, "*n a b"]:
        """Return the kernels at points of the scene.

        They are Gaussians, round in the centre, and long across the radius outside.
        """
        middle, half = (self.scene - 1) / 2, (self.field - 1) / 2
        u, v = (np.asarray(points)[..., None, None] / half - middle / half for points in (rows, columns))
        radius, angle = np.hypot(u, v) / 2**0.5, np.arctan2(u, v)
        a, b = np.mgrid[: self.taps, : self.taps] - (self.taps - 1) / 2
        along, across = b * np.cos(angle) + a * np.sin(angle), a * np.cos(angle) - b * np.sin(angle)
        short, long = 0.6 + 0.2 * radius, 0.6 + (self.widest - 0.6) * radius
        light = np.exp(-((along / short) ** 2 + (across / long) ** 2) / 2)
        return light / light.sum((-2, -1), keepdims=True)

    def known(self) -> tuple[Array, np.ndarray]:
        """Return the known kernels (n, a, b, 1, 1) and their positions (n, 2)."""
        border = (self.taps - 1) / 2
        nodes = np.linspace(border, border + self.field - 1, self.nodes)
        positions = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
        return jnp.asarray(self.psfs(*positions.T)[..., None, None], jnp.float32), positions

    def kernels(self) -> Float[Array, "i j a b 1 1"]:
        """Return the kernel of every pixel of a picture, flipped for a cross-correlation."""
        rows, columns = np.mgrid[: self.field, : self.field] + (self.taps - 1) / 2
        return jnp.asarray(self.psfs(rows, columns)[..., ::-1, ::-1, None, None], jnp.float32)


@functools.cache
def photograph(name: str) -> Float[np.ndarray, "k l"]:
    """Return a photograph of scikit-learn or matplotlib in gray, from 0 to 1."""
    if name == VALIDATION:
        with require("matplotlib.cbook").get_sample_data(name) as file:
            pixels = np.asarray(require("PIL.Image").open(file).convert("RGB"))
    else:
        pixels = require("sklearn.datasets").load_sample_image(name)
    return (pixels @ [0.299, 0.587, 0.114] / 255).astype(np.float32)


def tiles(name: str, side: int, count: int) -> Float[np.ndarray, "n k l 1"]:
    """Return squares of a photograph that do not overlap and have contrast, in an order that is always the same.

    Raises:
      ValueError: The photograph has fewer squares.
    """
    image = photograph(name)
    corners = np.ndindex(image.shape[0] // side, image.shape[1] // side)
    squares = [image[k * side : (k + 1) * side, l * side : (l + 1) * side, None] for k, l in corners]
    squares = [square for square in squares if square.std() > CONTRAST]
    if count > len(squares):
        raise ValueError(f"seeds must be at most {len(squares)}, the squares of {name} with {side} pixels, got {count}")
    return np.stack([squares[number] for number in np.random.default_rng(0).permutation(len(squares))[:count]])


def picture(kernels: Array, scenes: Array, noise: float, key: Any, window: cl.Window) -> Float[Array, "n i j 1"]:
    """Blur scenes by the kernel of every pixel, and add noise."""
    blurred = cl.locally_connected(scenes, kernels, window)
    return blurred + noise * jax.random.normal(key, blurred.shape, blurred.dtype)


def crops(image: Array, side: int, count: int, key: Any) -> Float[Array, "n k l 1"]:
    """Cut random squares of an image, half of them mirrored."""
    corner, mirror = jax.random.split(key)
    most = jnp.asarray(image.shape) - side + 1
    corners = jax.random.randint(corner, (count, 2), 0, most)
    squares = jax.vmap(lambda at: jax.lax.dynamic_slice(image, at, (side, side)))(corners)
    flipped = jax.random.bernoulli(mirror, 0.5, (count, 1, 1))
    return jnp.where(flipped, squares[:, :, ::-1], squares)[..., None]


def mosaic(psfs: Float[np.ndarray, "n a b"]) -> Float[np.ndarray, "k l"]:
    """Return kernels of a square grid side by side, black at their largest entries and white at 0."""
    count, (a, b) = round(len(psfs) ** 0.5), psfs.shape[1:]
    dark = np.pad(1 - psfs / psfs.max((1, 2), keepdims=True), ((0, 0), (1, 1), (1, 1)), constant_values=0.8)
    return dark.reshape(count, count, a + 2, b + 2).swapaxes(1, 2).reshape(count * (a + 2), -1)


def draw_picture(axis: Any, image: Float[np.ndarray, "k l"], title: str) -> None:
    """Draw a gray picture without ticks, from black at 0 to white at 1."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize="x-large")
    axis.set_xticks([])
    axis.set_yticks([])
