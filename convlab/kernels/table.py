"""Which implementations there are, and the measured rule that chooses among them.

| family | name | what it does | wins |
|---|---|---|---|
| local | blocks | a few positions at a time: their windows, then one matrix product each | CPU, batches of 4 and more |
| local | windows | all windows at once, then one batched matrix product | accelerators; smaller batches |
| conv | canonical | XLA's convolution, one of a stack at a time, its gradients too in the layout of XLA's fast path | CPU |
| conv | windows | windows, then matrix products | CPU: few channels and small windows; gradients by kernels that are large |
| conv | lax | XLA's convolution, a stack as groups, with JAX's own gradients | accelerators |
| conv | toeplitz | the dense matrix of the kernel, then one matrix product | where every position sees every pixel |
| tiled | as conv | a convolution per kernel, of every p-th position | as conv |
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from convlab.kernels import blocks, convolution, tiled, toeplitz, windows
from convlab.kernels.form import Form, Product


class Family(NamedTuple):
    """What computes each derivative, those left out being transposes of h, and the rule that chooses among them."""

    implementations: dict[str, dict[str, Product]]
    choose: Callable[[Form, str, dict[str, int], str], str]  # of the form, the derivative, sizes by letter, the platform


def _local(form: Form, wrt: str, size: dict[str, int], platform: str) -> str:
    return "blocks" if platform == "cpu" and size["n"] >= 4 else "windows"


def _conv(form: Form, wrt: str, size: dict[str, int], platform: str) -> str:
    if toeplitz.applies(form):
        return "toeplitz"
    if platform != "cpu":
        return "lax"
    c, d = size["c"], size["d"]
    window = c * math.prod(form.taps)
    gathered = window * size["n"] * math.prod(form.outputs)
    fast = {
        "h": c <= 3 and window <= 32 and gathered <= 2**24,
        "x": c < 8 and c * gathered <= 2**24,
        "v": d >= 32 and (c <= 4 or c * d >= 2048),
    }
    return "windows" if fast[wrt] else "canonical"


def _tiled(form: Form, wrt: str, size: dict[str, int], platform: str) -> str:
    if wrt == "x" and not form.has_strides:  # a layer of mirrored kernels, of d channels
        return _conv(form, "h", {**size, "c": size["d"]}, platform)
    return _conv(form, wrt, size, platform)


CONV: dict[str, dict[str, Product]] = {
    "canonical": convolution.PRODUCTS,
    "lax": {"h": convolution.grouped},
    "windows": {"h": windows.conv, "v": windows.gradient_v},
    "toeplitz": {"h": toeplitz.conv},
}


def _over_tiles(name: str) -> dict[str, Product]:
    """The products of a tiled layer by those of one implementation of conv."""

    def conv(wrt: str, p: Array, q: Array, form: Form) -> Array:
        fits = name != "toeplitz" or toeplitz.applies(form)
        return implement(form, name if fits else "canonical", wrt, p, q)

    return {wrt: functools.partial(product, conv=conv) for wrt, product in tiled.PRODUCTS.items()}


FAMILIES = {
    "local": Family({"blocks": blocks.PRODUCTS, "windows": {"h": windows.local}}, _local),
    "conv": Family(CONV, _conv),
    "tiled": Family({name: _over_tiles(name) for name in CONV}, _tiled),
}


def choose(form: Form, wrt: str, size: dict[str, int], platform: str) -> str:
    """Name the implementation for one derivative; "toeplitz" gives way where it does not apply."""
    name = form.implementation
    if name == "auto" or (name == "toeplitz" and not toeplitz.applies(form)):
        return FAMILIES[form.family].choose(form, wrt, size, platform)
    return name


def proxy(form: Form, wrt: str, p: Array, q: Array) -> Array:
    """An array like the derivative in shape, dtype and what `shard_map` tracks; its values mean nothing.

    Transposing by an array that seems the same on all devices would sum over them.
    """
    return jnp.broadcast_to(p.sum() * q.sum(), form.shape(wrt, p, q))


def implement(form: Form, name: str, wrt: str, p: Array, q: Array) -> Array:
    """Compute the derivative by `wrt` from the other two arrays."""
    products = FAMILIES[form.family].implementations[name]
    if wrt in products:
        return products[wrt](p, q, form)
    h, unknown = products["h"], proxy(form, wrt, p, q)
    if wrt == "x":  # p is v, q is h
        return jax.linear_transpose(lambda x: h(x, p, form), unknown)(q)[0]
    return jax.linear_transpose(lambda v: h(p, v, form), unknown)(q)[0]
