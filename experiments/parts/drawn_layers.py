"""Random layers, and their implementations as contenders for each derivative."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab.kernels import table, toeplitz
from convlab.kernels.form import OTHERS, Form
from experiments.parts import sweep
from experiments.shared.stopwatch import Contender, compiled

LEFT_OUT = ("toeplitz", "fft")  # the first is chosen wherever it applies, the second on request only
GROUPS, MULTIPLIERS = (1, 7), (0, 4)  # the powers of two between which sizes of depthwise convolutions are drawn

USUAL = (  # images, sides, kernels, strides and channels in and out that networks have
    (1, 8, 32, 64, 128),
    (8, 14, 16, 28, 32, 56),
    (1, 3, 3, 3, 5),
    (1, 1, 1, 2),
    (1, 3, 8, 16, 32, 64, 128),
    (6, 8, 16, 32, 64, 128),
)


class Layer(NamedTuple):
    """The shape of a layer: family, batch, sides of image and kernel, stride, channels of a group in and out, groups."""

    family: str
    n: int
    side: int
    kernel: int
    stride: int
    c: int
    d: int
    groups: int = 1

    @property
    def window(self) -> cl.Window:
        """The pixels that each position reads."""
        return cl.Window((self.kernel, self.kernel), strides=self.stride)

    @property
    def form(self) -> Form:
        """The form, from which the rule chooses."""
        return _form(self.family, self.side, self.kernel, self.stride)

    @property
    def size(self) -> dict[str, int]:
        """The sizes by letter, from which the rule chooses."""
        return {"s": self.groups, "n": self.n, "c": self.c, "d": self.d}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of images, kernels and output, by name."""
        out, taps = self.form.outputs, self.form.taps
        return {
            "x": (self.n, self.side, self.side, self.groups * self.c),
            "v": (*self.form.kernels, *taps, self.c, self.groups * self.d),
            "h": (self.n, *out, self.groups * self.d),
        }

    @property
    def gathered(self) -> int:
        """The number of entries of all windows."""
        return self.n * math.prod((*self.form.outputs, *self.form.taps)) * self.c * self.groups

    @property
    def fits(self) -> bool:
        """Whether the layer is small enough to be timed, and the rule has a choice."""
        _, most_entries, most_products = sweep.LARGEST
        entries = max(self.gathered, *map(math.prod, self.shapes.values()))
        small = self.kernel <= self.side and entries <= most_entries and self.gathered * self.d <= most_products
        return small and not toeplitz.applies(self.form)

    def apply(self, x: jax.Array, v: jax.Array, name: str) -> jax.Array:
        """Compute the layer with an implementation."""
        layer = cl.locally_connected if self.family == "local" else cl.conv
        return layer(x, v, self.window, self.groups, implementation=name)


@functools.cache
def _form(family: str, side: int, kernel: int, stride: int) -> Form:
    return Form(family, cl.Window((kernel, kernel), strides=stride).axes((side, side)))


def draw_layers(family: str, count: int, seed: int, depthwise: bool = False) -> Iterator[Layer]:
    """Draw layers of a family, of sizes as in `sweep`.

    Every second convolution has sizes that networks have. Depthwise convolutions have 2 to 127 groups, with 1 to 15 output
    channels each.
    """
    if family == "local":  # the sweep also limits the number of weights
        yield from (Layer(family, *layer) for layer in sweep.draw_layers(count, seed))
        return
    random = np.random.default_rng((seed, depthwise))
    while count:
        layer = _usual(random) if count % 2 and not depthwise else _random(random, depthwise)
        if layer.fits:
            count -= 1
            yield layer


def _random(random: np.random.Generator, depthwise: bool) -> Layer:
    """Draw a convolution of any sizes."""
    kernel = int(random.integers(1, 8))
    stride = int(random.integers(1, kernel + 1))
    powers = ((0, 8), (2, 6), GROUPS, MULTIPLIERS) if depthwise else ((0, 8), (2, 6), (0, 7), (0, 7))
    n, side, c, d = (int(2 ** random.uniform(*power)) for power in powers)
    return Layer("conv", n, side, kernel, stride, *((1, d, c) if depthwise else (c, d)))


def _usual(random: np.random.Generator) -> Layer:
    """Draw a convolution of sizes that networks have."""
    return Layer("conv", *(int(random.choice(sizes)) for sizes in USUAL))


def derivative(layer: Layer, wrt: str, name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the derivative by `wrt` with an implementation, as a function of the two other arrays."""
    unknown = jax.ShapeDtypeStruct(layer.shapes[wrt], np.float32)
    if wrt == "x":
        return lambda v, g: jax.linear_transpose(lambda x: layer.apply(x, v, name), unknown)(g)[0]
    if wrt == "v":
        return lambda x, g: jax.linear_transpose(lambda v: layer.apply(x, v, name), unknown)(g)[0]
    return lambda x, v: layer.apply(x, v, name)


def contenders(layer: Layer, wrt: str, windows_mib: float) -> list[Contender]:
    """Compile all implementations of a derivative, except those whose windows need more than `windows_mib`."""
    random = np.random.default_rng(0)
    operands = [jnp.asarray(random.standard_normal(layer.shapes[other], np.float32)) for other in OTHERS[wrt]]
    at_once = (layer.family, wrt) != ("conv", "v")  # that gradient gathers the windows of a few images at a time
    names = [
        name
        for name in table.FAMILIES[layer.family].implementations
        if name not in LEFT_OUT
        and not (name == "lax" and jax.default_backend() == "cpu")
        and not (name == "windows" and at_once and 4 * layer.gathered > windows_mib * 2**20)
        and table.applies(name, layer.form, layer.size)
    ]
    return [compiled({"implementation": name}, derivative(layer, wrt, name), operands) for name in names]
