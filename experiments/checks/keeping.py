"""Checks of claims about the information that a layer keeps, and useful numbers of outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import measure
from experiments.checks import Finding, matrix, normal, one


def rank(h: jax.Array) -> int:
    """Return the dimension of the space that rows span."""
    return int(np.linalg.matrix_rank(np.asarray(h, float), tol=1e-3))


def outputs_beyond_the_patch() -> Finding:
    """Return the dimensions that 32 filters span on 3x3x3 patches, before a ReLU and after."""
    v, x = normal(27, 32), normal(999, 27, seed=1)
    linear, rectified = rank(x @ v), rank(jax.nn.relu(x @ v))
    return Finding({"nothing follows": linear <= 27, "a ReLU follows": rectified <= 27}, rectified)


def one_to_many_fills_little() -> Finding:
    """Return the dimensions that a 1 x 1 layer from one channel to 16 spans.

    They are counted before bias and ReLU, and after.
    """
    v, u, x = normal(1, 16), normal(16, seed=1), normal(999, 1, seed=2)
    linear, bent = rank(x @ v), rank(jax.nn.relu(x @ v + u))
    return Finding({"nothing follows": linear == 1, "bias and ReLU follow": bent == 1}, bent)


def activation_loses_rank(activation: Callable[[jax.Array], jax.Array] = jax.nn.relu, outputs: int = 27) -> Finding:
    """Measure the rank of the responses to many 3x3x3 patches, and of the derivative at one patch.

    The number is the mean rank of the derivative.
    """
    v, x = normal(27, outputs), normal(999, 27, seed=1)
    h, slope = x @ v, jax.vmap(jax.vmap(jax.grad(activation)))(x @ v)
    one_patch = [rank(v * slope[n]) for n in range(99)]
    number = float(np.mean(one_patch))
    holds = {"many patches are asked": rank(activation(h)) < rank(h), "a single patch is asked": number < rank(v)}
    return Finding(holds, number)


def only_reorders(filters: str = "Gaussian") -> Finding:
    """Check whether eight 3 x 3 filters return eight of a patch's nine numbers in some order.

    The number is the ratio of the largest to the smallest stretching of patches.
    """
    v, x = {"Gaussian": normal(9, 8), "ones": jnp.eye(9, 8)}[filters], normal(1, 9, seed=1)
    same = jnp.abs((x @ v).T - x) < 1e-6  # outputs by pixels
    stretch = np.linalg.svd(np.asarray(v), compute_uv=False)
    return one(bool((same.sum(1) == 1).all() and (same.sum(0) <= 1).all()), float(stretch[0] / stretch[-1]))


def filters_lose(side: int = 8) -> Finding:
    """Count the dimensions of an image that generic 3 x 3 filters lose, by their number and padding.

    The number is that of two filters without padding.
    """

    def lost(filters: int, padding: str) -> int:
        return side**2 - int(
            np.linalg.matrix_rank(matrix(normal(3, 3, 1, filters), cl.Window((3, 3), padding=padding), (side,) * 2))
        )

    cases = {"there is one": (1, "VALID"), "there are two": (2, "VALID"), "there are three": (3, "VALID")}
    cases |= {"there is one, and zeros around": (1, "SAME")}
    losses = {name: lost(*case) for name, case in cases.items()}
    return Finding({name: loss > 0 for name, loss in losses.items()}, losses["there are two"])


def only_one_stem_dilutes() -> Finding:
    """Check whether 147 to 64 condenses and 27 to 32 dilutes, by two ratios.

    The ratios are outputs per number read and outputs per new number.
    """
    stems = (cl.Window(7, 2), 64), (cl.Window(3, 2), 32)
    large, small = (measure.stem_report([stem], normal(2, 16, 16, 3), jax.random.key(0))[0] for stem in stems)
    holds = {
        "outputs are set against the pixels they read": large.window_ratio < 1 < small.window_ratio,
        "outputs are set against the pixels new to them": large.stride_ratio < 1 < small.stride_ratio,
    }
    return Finding(holds, large.stride_ratio)
