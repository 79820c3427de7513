"""Locally connected layers of random shapes, beside JAX's own op for them."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

import convlab as cl
from experiments.parts.implementations import stepped
from experiments.parts.rooflines import CONV_LOCAL
from experiments.shared.command import Rows
from experiments.shared.progress import track
from experiments.shared.stopwatch import Contender, compiled, interleave

OURS, UNIT = "sweep: local, auto", CONV_LOCAL[1]
LARGEST = 2**23, 2**25, 2**31  # the most weights, entries of windows and multiplications of a shape


class Layer(NamedTuple):
    """The shape of a layer: batch, side of the image, side of the kernel, stride, channels in and out."""

    n: int
    side: int
    k: int
    stride: int
    c: int
    d: int

    @property
    def name(self) -> str:
        """The name of the shape in the rows."""
        return f"n{self.n} side{self.side} k{self.k} s{self.stride} c{self.c} d{self.d}"

    @property
    def outputs(self) -> int:
        """The number of output positions along an axis."""
        return -(-self.side // self.stride)

    @property
    def fits(self) -> bool:
        """Whether the layer is small enough to be timed."""
        windows = self.outputs**2 * self.k**2 * self.c
        sizes = windows * self.d, self.n * windows, self.n * windows * self.d
        return self.k <= self.side and all(size <= most for size, most in zip(sizes, LARGEST, strict=True))

    def arrays(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Draw images, kernels and cotangents."""
        out = (self.outputs, self.outputs)
        shapes = (
            (self.n, self.side, self.side, self.c),
            (*out, self.k, self.k, self.c, self.d),
            (self.n, *out, self.d),
        )
        x, v, g = (jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate(shapes))
        return x, v, g


def draw_layers(count: int, seed: int = 0) -> Iterator[Layer]:
    """Draw layers: kernels of side 1 to 7, strides up to the kernel; other sizes uniform in their logarithm.

    There are 1 to 256 images of side 4 to 64, with 1 to 128 channels.
    """
    random = np.random.default_rng(seed)
    while count:
        k = int(random.integers(1, 8))
        stride = int(random.integers(1, k + 1))
        n, side, c, d = (int(2 ** random.uniform(*powers)) for powers in ((0, 8), (2, 6), (0, 7), (0, 7)))
        layer = Layer(n, side, k, stride, c, d)
        if layer.fits:
            count -= 1
            yield layer


def contenders(layer: Layer) -> Iterator[Contender]:
    """Yield our layer and JAX's, forward and backward."""
    window = cl.Window((layer.k, layer.k), strides=layer.stride)
    x, v, g = layer.arrays()

    def stock(x: jax.Array, v: jax.Array) -> jax.Array:
        strides, sides = (layer.stride,) * 2, (layer.k,) * 2
        return lax.conv_general_dilated_local(x, v, strides, "SAME", sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    labels = {"unit": UNIT, "step": "both"}
    yield compiled({"name": OURS, **labels}, stepped(lambda x, v: cl.locally_connected(x, v, window), "both"), (x, v, g))
    yield compiled({"name": UNIT, **labels}, stepped(stock, "both"), (x, v.reshape(*v.shape[:2], -1, layer.d), g))


def rows(count: int, seconds: float, least: int) -> Rows:
    """Time random layers, one row per layer and contender, with the time and memory relative to JAX's op."""
    made: Rows = []
    for layer in track(list(draw_layers(count)), "random shapes"):
        timed = interleave(list(contenders(layer)), seconds, least)
        unit = timed[-1]
        made += [{"dtype": "float32", "shape": layer.name, **row, "ratio": row["ms"] / unit["ms"]} for row in timed]
    return made
