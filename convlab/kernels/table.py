"""Which implementations there are, and the measured rule that chooses among them.

| family | name | what it does | wins |
|---|---|---|---|
| local | blocks | a few positions at a time: their windows, then one matrix product each | CPU, batches of 4 and more |
| local | windows | all windows at once, then one batched matrix product | accelerators; smaller batches |
| conv | canonical | XLA's convolution, one of a stack at a time, its gradients too in the layout of XLA's fast path | CPU |
| conv | windows | all windows at once, then one matrix product | CPU, forward with one or two input channels |
| conv | lax | XLA's convolution, a stack as groups, with JAX's own gradients | accelerators |
| conv | toeplitz | the dense matrix of the kernel, then one matrix product | where every position sees every pixel |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from convlab.geometry import Axis
from convlab.kernels import blocks, convolution, toeplitz, windows

Product = Callable[[Array, Array, Any], Array]  # of two of x, v, h, and the form: the third


class Family(NamedTuple):
    """A kind of kernel: how many it holds, and what computes each derivative; those left out are transposes of h."""

    positions: Callable[[tuple[Axis, ...]], tuple[int, ...]]
    implementations: dict[str, dict[str, Product]]
    choose: Callable[[Any, str, dict[str, tuple[int, ...]], str], str]


def _local(form: Any, wrt: str, shapes: dict[str, tuple[int, ...]], platform: str) -> str:
    return "blocks" if platform == "cpu" and shapes["x"][1] >= 4 else "windows"


def _conv(form: Any, wrt: str, shapes: dict[str, tuple[int, ...]], platform: str) -> str:
    if toeplitz.applies(form.axes):
        return "toeplitz"
    if platform != "cpu":
        return "lax"
    return "windows" if wrt == "h" and shapes["x"][-1] <= 2 else "canonical"


FAMILIES = {
    "local": Family(
        lambda axes: tuple(axis.outputs for axis in axes),
        {"blocks": blocks.PRODUCTS, "windows": {"h": windows.local}},
        _local,
    ),
    "conv": Family(
        lambda axes: (),
        {
            "canonical": convolution.PRODUCTS,
            "lax": {"h": convolution.grouped},
            "windows": {"h": windows.conv},
            "toeplitz": {"h": toeplitz.conv},
        },
        _conv,
    ),
}


def choose(form: Any, wrt: str, shapes: dict[str, tuple[int, ...]], platform: str) -> str:
    """Name the implementation for one derivative; "toeplitz" gives way where it does not apply."""
    name = form.implementation
    if name == "auto" or (name == "toeplitz" and not toeplitz.applies(form.axes)):
        return FAMILIES[form.family].choose(form, wrt, shapes, platform)
    return name


def implement(form: Any, name: str, wrt: str, shape: tuple[int, ...]) -> Callable[[Array, Array], Array]:
    """Return the function of the other two arrays that computes the derivative by `wrt`, of `shape`."""
    products = FAMILIES[form.family].implementations[name]
    if wrt in products:
        return lambda p, q: products[wrt](p, q, form)
    h = products["h"]

    def transposed(p: Array, q: Array) -> Array:
        unknown = jax.ShapeDtypeStruct(shape, p.dtype)
        if wrt == "x":  # p is v, q is h
            return jax.linear_transpose(lambda x: h(x, p, form), unknown)(q)[0]
        return jax.linear_transpose(lambda v: h(p, v, form), unknown)(q)[0]

    return transposed
