"""The table of implementations, and the measured rule that chooses among them.

| family | name | algorithm | fastest for |
|---|---|---|---|
| local | blocks | windows of a few positions at a time, then one matrix product per position | CPU, many images |
| local | windows | all windows at once, then one batched matrix product | accelerators, few images, no overlap |
| conv | canonical | XLA's convolution, one of a stack at a time, with gradients in the layout of XLA's fast path | CPU |
| conv | windows | windows, then matrix products | CPU: no overlap, few channels and small windows, gradients by the kernel |
| conv | lax | XLA's convolution, with the stack as groups and JAX's gradients | accelerators |
| conv | depthwise | one multiplication of the shifted image for every tap | CPU, groups of one input channel |
| conv | fft | product of Fourier transforms | large kernels, on request only (see `spectral`) |
| conv | toeplitz | the dense matrix of the kernel, then one matrix product | positions that all read every pixel |
| tiled | as conv | one convolution per kernel, at every p-th position | as conv |
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array

from convlab.kernels import blocks, convolution, depthwise, spectral, tiled, toeplitz, windows
from convlab.kernels.form import Form, Product, known_sizes, mirrored, proxy
from convlab.kernels.thresholds import CPU, Thresholds


class Family(NamedTuple):
    """Hold the implementations of a family and the rule that chooses among them.

    Attributes:
      implementations: The functions that compute derivatives, by implementation and derivative. Gradients that are missing
        are computed as transposes of h.
      choose: The rule. It maps the form, the derivative, the sizes by letter, the platform and the thresholds of the CPU to an
        implementation's name.
    """

    implementations: dict[str, dict[str, Product]]
    choose: Callable[[Form, str, dict[str, int], str, Thresholds], str]


def _local(form: Form, wrt: str, size: dict[str, int], platform: str, thresholds: Thresholds = CPU) -> str:
    if platform != "cpu" or size["n"] < thresholds.local_min_images or form.is_disjoint:
        return "windows"
    few = size["n"] <= thresholds.local_images_per_feature * size["d"]  # windows take little memory beside the kernels
    return "windows" if few and wrt != "x" else "blocks"


def _conv(form: Form, wrt: str, size: dict[str, int], platform: str, thresholds: Thresholds = CPU) -> str:
    if toeplitz.applies(form):
        return "toeplitz"
    if platform != "cpu":
        return "lax"
    c, d = size["c"], size["d"]
    if c == 1 and size["s"] > 1 and d <= thresholds.depthwise_max_multiplier:
        return "depthwise"
    window, outputs = c * math.prod(form.taps), math.prod(form.outputs)
    gathered = window * size["n"] * outputs
    if form.is_disjoint and (wrt != "h" or window == c):  # gathering and its transpose are reshapes
        fast = True
    elif wrt == "h":
        is_odd = c % 2 == 1 and c > 1  # XLA's convolution then takes up to seven times as long as with one channel more
        few = d < thresholds.forward_min_features and window <= thresholds.forward_max_window
        small = c <= thresholds.forward_max_channels and (few or (is_odd and window <= 2 * thresholds.forward_max_window))
        fast = small and thresholds.forward_min_eager * form.eager <= gathered <= thresholds.forward_max_entries
    elif wrt == "x":
        fewest = thresholds.image_min_strided if form.has_strides else thresholds.image_min_channels
        fast = c < fewest and c * gathered <= thresholds.image_max_entries
    else:
        many = not form.has_strides and outputs >= thresholds.kernel_min_positions
        large = c <= thresholds.kernel_max_channels or c * d >= thresholds.kernel_min_products
        few = size["n"] < thresholds.kernel_min_images and gathered <= thresholds.kernel_max_entries
        fast = few or (d >= thresholds.kernel_min_features and (many or large))
    return "windows" if fast else "canonical"


def _tiled(form: Form, wrt: str, size: dict[str, int], platform: str, thresholds: Thresholds = CPU) -> str:
    tile = (0,) * form.ndim
    if wrt == "x" and not form.has_strides:  # this gradient is a tiled layer of mirrored kernels, with channels exchanged
        swapped = tiled.form_at(form.with_axes(map(mirrored, form.axes)), tile)
        return _conv(swapped, "h", {**size, "c": size["d"], "d": size["c"]}, platform, thresholds)
    return _conv(tiled.form_at(form, tile), wrt, size, platform, thresholds)


CONV: dict[str, dict[str, Product]] = {
    "canonical": convolution.PRODUCTS,
    "lax": {"h": convolution.grouped},
    "windows": {"h": windows.conv, "v": windows.gradient_v},
    "toeplitz": {"h": toeplitz.conv},
    "fft": {"h": spectral.conv},
    "depthwise": depthwise.PRODUCTS,
}


def _over_tiles(name: str) -> dict[str, Product]:
    """Make the products of a tiled layer from those of one implementation of conv."""

    def conv(wrt: str, p: Array, q: Array, form: Form) -> Array:
        fits = applies(name, form, known_sizes(wrt, p, q))
        return implement(form, name if fits else "canonical", wrt, p, q)

    return {wrt: functools.partial(product, conv=conv) for wrt, product in tiled.PRODUCTS.items()}


FAMILIES = {
    "local": Family({"blocks": blocks.PRODUCTS, "windows": windows.LOCAL}, _local),
    "conv": Family(CONV, _conv),
    "tiled": Family({name: _over_tiles(name) for name in CONV}, _tiled),
}


def choose(form: Form, wrt: str, size: dict[str, int], platform: str, thresholds: Thresholds = CPU) -> str:
    """Return the name of the implementation for one derivative.

    If an implementation does not apply, the rule chooses another.
    """
    name = form.implementation
    if name == "auto" or not applies(name, form, size):
        return FAMILIES[form.family].choose(form, wrt, size, platform, thresholds)
    return name


def applies(name: str, form: Form, size: dict[str, int]) -> bool:
    """Return True if an implementation can compute a form."""
    limits = {"toeplitz": toeplitz.applies(form), "depthwise": size["c"] == 1, "fft": spectral.applies(form)}
    return limits.get(name, True)


def implement(form: Form, name: str, wrt: str, p: Array, q: Array) -> Array:
    """Compute the derivative by `wrt` from the other two arrays, with the implementation `name`."""
    products = FAMILIES[form.family].implementations[name]
    if wrt in products:
        return products[wrt](p, q, form)
    h, unknown = products["h"], proxy(form, wrt, p, q)
    if wrt == "x":  # p is v, q is h
        return jax.linear_transpose(lambda x: h(x, p, form), unknown)(q)[0]
    return jax.linear_transpose(lambda v: h(p, v, form), unknown)(q)[0]
