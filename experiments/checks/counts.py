"""Checks of claims about numbers of weights, offsets, pixels and multiply-adds."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

import convlab as cl
from experiments.checks import Finding, one, weights


def dense_weights(pixels: int = 10**6, claimed: int = 10**9) -> Finding:
    """Count the weights of a dense layer from every pixel to a thousand units."""
    number = weights(lambda rngs: nnx.Linear(pixels, 1000, use_bias=False, rngs=rngs))
    return one(number == claimed, number)


def offsets(side: int = 1000, least: float = 0, most: float = 10**6) -> Finding:
    """Count the offsets that lead from some pixel of a square image to another."""
    number = math.prod(cl.Window.full((side, side)).taps(2))
    return one(least <= number <= most, number)


def saving_by_sharing(side: int = 20) -> Finding:
    """Check whether sharing divides the entries of V, or its weights, by the number of pixels.

    The check uses a small image.

    The number is the factor for the weights of a megapixel image.
    """
    space = (side, side)
    window = cl.Window.full(space)
    kernel, pixels = math.prod(window.taps(2)), side**2
    slots = math.prod(window.live(space).shape)
    live = int(window.live(space).sum())
    holds = {"slots of V are counted": slots == pixels * kernel, "weights are counted": live == pixels * kernel}
    return Finding(holds, 10**12 / math.prod(cl.Window.full((1000, 1000)).taps(2)))


def weights_of_a_window() -> Finding:
    """Compare the taps of a window that reaches Delta pixels to each side with 4 Delta^2.

    They agree if they differ by less than a quarter.
    """
    ratios = {delta: math.prod(cl.Window(2 * delta + 1).taps(2)) / (4 * delta**2) for delta in (9, 1)}
    return Finding({f"Delta is {delta}": ratio < 5 / 4 for delta, ratio in ratios.items()}, ratios[1])


RULES: dict[str, Callable[[int, int, int, int], int]] = {  # functions of pixels, taps, padding and stride along one axis
    "with stride": lambda n, k, p, s: (n - k + p + s) // s,
    "without stride": lambda n, k, p, s: (n - k + p) // s,
}


def output_sizes(rule: str = "with stride") -> Finding:
    """Compare a rule for output sizes with the positions of windows, over small sizes.

    The positions are those where a window of k taps lies on n + p pixels, s apart.
    """
    x, cases = jnp.zeros((12, 1)), itertools.product(range(3, 12), range(1, 4), range(4), range(1, 4))

    def outputs(n: int, k: int, p: int, s: int) -> int:
        window = cl.Window((k,), s, ((p // 2, p - p // 2),))
        return jax.eval_shape(functools.partial(cl.conv, window=window), x[:n], x[:k, :, None]).shape[0]

    right = [
        sum(first + k <= n + p for first in range(0, n + p, s)) == outputs(n, k, p, s) == RULES[rule](n, k, p, s)
        for n, k, p, s in cases
    ]
    return one(all(right), len(right))


def ten_layers_slice_off(size: int = 5) -> Finding:
    """Return the share of a 240 x 240 image that ten layers without padding lose."""
    space = (240, 240)
    for _ in range(10):
        space = cl.Window(size, padding="VALID").with_ndim(2).output_shape(space)
    number = 1 - math.prod(space) / 240**2
    return one(space == (200, 200) and round(number, 1) == 0.3, number)


def trimmed(before: int = 32, after: int = 28) -> Finding:
    """Compare the share of a square image that trimming removes with 30 %, to a percent."""
    number = 1 - after**2 / before**2
    return one(abs(number - 0.3) < 0.01, number)


def every_pixel_is_used_equally() -> Finding:
    """Count how often pixels are read: the largest count divided by the smallest."""
    uses = {padding: cl.Window((3, 3), padding=padding).coverage((7, 7)) for padding in ("CIRCULAR", "FULL", "SAME")}
    holds = {f"padding is {padding}": bool(reads.max() == reads.min()) for padding, reads in uses.items()}
    return Finding(holds, float(uses["SAME"].max() / uses["SAME"].min()))


def strided_windows_read_every_pixel(sizes: Sequence[tuple[int, int]] = ((3, 4), (3, 3))) -> Finding:
    """Return the least share of pixels that windows of stride 2 read.

    The padding is (k - 1) // 2, and images have even and odd sides.
    """

    def share(size: tuple[int, int], side: int) -> float:
        pads = tuple(((k - 1) // 2, (k - 1) // 2) for k in size)
        return float((cl.Window(size, 2, padding=pads).coverage((side, side)) > 0).mean())

    number = min(share(size, side) for size in sizes for side in (7, 8))
    return one(number == 1, number)


def doubled_channels(inputs: int = 2, outputs: int = 2) -> Finding:
    """Compare the multiply-adds with multiples of the channels in and out with those without."""

    def products(c: int, d: int) -> int:
        layer = nnx.eval_shape(lambda: cl.Conv(c, d, (3, 3), rngs=nnx.Rngs(0)))
        return cl.count(layer, (7, 7, c)).total.multiply_adds

    number = products(5 * inputs, 5 * outputs) / products(5, 5)
    return one(number == 4, number)


def operations(of_a_product: int = 2) -> Finding:
    """Count the operations of a 5 x 5 layer from 128 to 128 channels on 256 x 256 pixels.

    Every multiplication has one addition.
    """
    layer = nnx.eval_shape(lambda: cl.Conv(128, 128, (5, 5), use_bias=False, padding="CIRCULAR", rngs=nnx.Rngs(0)))
    number = of_a_product * cl.count(layer, (256, 256, 128)).total.multiply_adds
    return one(53e9 < number < 54e9, number)


LAYERS = {"Conv": cl.Conv, "LocallyConnected": cl.LocallyConnected}


def parameters_know_no_image(kind: str = "Conv") -> Finding:
    """Compare the weights of a layer for images of 16 x 16 pixels with those for 8 x 8."""
    small, large = (weights(lambda rngs, n=n: LAYERS[kind](2, 3, (3, 3), space=(n, n), rngs=rngs)) for n in (8, 16))
    return one(small == large, large / small)


def fewer_weights(large: int = 5, small: int = 3) -> Finding:
    """Compute the share of weights that two small kernels save, at equal width and equal receptive field."""
    nets = [
        nnx.Sequential(*(cl.Conv(7, 7, (size, size), use_bias=False, rngs=nnx.Rngs(0)) for size in sizes))
        for sizes in ((large,), (small, small))
    ]
    alone, twice = (cl.count(net, (2 * large, 2 * large, 7)).total for net in nets)
    number = 1 - twice.weights / alone.weights
    return one(number > 0 and twice.receptive_field == alone.receptive_field, number)
