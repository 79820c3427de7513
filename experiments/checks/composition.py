"""Checks of claims about layers in a row, and about the single layers that equal them."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import convlab as cl
from convlab import algebra
from experiments.checks import Finding, normal, one

PADDINGS = ("VALID", "CIRCULAR", "SAME")


def composed(x: jax.Array, first: jax.Array, second: jax.Array, padding: str) -> jax.Array:
    """Apply two convolutions in a row."""
    for v in (first, second):
        x = cl.conv(x, v, cl.Window(v.shape[:2], padding=padding))
    return x


def kernel_of_two(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the single kernel that equals two convolutions in a row."""
    return algebra.compose(first, second, *(cl.Window(v.shape[:2], padding="VALID") for v in (first, second)))[0]


def two_kernels_are_one() -> Finding:
    """Compare two 3 x 3 layers with one 5 x 5 layer: the number of pixels of 12 x 12 that differ.

    The number is that under zero padding.
    """
    x, first, second = normal(12, 12, 2), normal(3, 3, 2, 3, seed=1), normal(3, 3, 3, 2, seed=2)
    v = kernel_of_two(first, second)
    holds, number = {}, 0
    for padding in PADDINGS:
        twice = composed(x, first, second, padding)
        once = cl.conv(x, v, cl.Window(v.shape[:2], padding=padding))
        number = int((jnp.abs(twice - once).max(-1) > 1e-3).sum())
        holds[f"padding is {padding}"] = number == 0
    return Finding(holds, number)


def dimensions_reached(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the dimension of the set of kernels that two kernels of these shapes compose to.

    It is the rank of the derivative.
    """
    pair = normal(*first), normal(*second, seed=1)
    derivative = jax.jacobian(lambda pair: kernel_of_two(*pair).ravel())(pair)
    parts = [np.asarray(part).reshape(part.shape[0], -1) for part in derivative]
    return int(np.linalg.matrix_rank(np.concatenate(parts, 1)))


def factored(size: int, channels: int, width: int) -> bool:
    """Return True if each of three Gaussian kernels factors into two smaller ones.

    The smaller kernels have `width` channels between them.
    """
    half = size // 2 + 1
    kernels = [normal(size, size, channels, channels, seed=seed) for seed in range(3)]
    results = [algebra.factorise(v, (half, half), width, jax.random.key(seed)) for seed, v in enumerate(kernels)]
    return all(float(result.residual) < 1e-5 for result in results)


def every_kernel_is_two(width: int = 1) -> Finding:
    """Factor 3 x 3 kernels into two 2 x 2 ones: the dimensions of nine that two of them reach.

    The kernels have one channel in and out, and `width` channels between.
    """
    return one(factored(3, 1, width), dimensions_reached((2, 2, 1, width), (2, 2, width, 1)))


def wins_by_one(first: tuple[int, int] = (2, 2), second: tuple[int, int] = (2, 2)) -> Finding:
    """Count the free parameters of a kernel that two smaller ones lack.

    The smaller kernels compose to one of its size, with one channel each.
    """
    number = math.prod(a + b - 1 for a, b in zip(first, second, strict=True))
    number -= dimensions_reached((*first, 1, 1), (*second, 1, 1))
    return one(number == 1, number)


def two_small_are_one_large(size: int = 5, channels: int = 2) -> Finding:
    """Factor kernels into two smaller ones, with just enough channels between and with one fewer.

    The number is the dimensions reached with one channel fewer than enough.
    """
    half = size // 2 + 1
    enough = math.ceil(algebra.middle_width(size, half, half, channels))
    holds = {f"{channels} channels go through {width}": factored(size, channels, width) for width in (enough, enough - 1)}
    return Finding(holds, dimensions_reached((half, half, channels, enough - 1), (half, half, enough - 1, channels)))


def pairs_make_three_taps(draws: int = 10_000) -> Finding:
    """Factor 1 x 3 kernels with and without real roots into two 1 x 2 ones.

    The number is the share of Gaussian kernels that have real roots.
    """

    def factors(*taps: float) -> bool:
        v = jnp.asarray(taps).reshape(1, 3, 1, 1)
        return float(algebra.factorise(v, ((1, 2), (1, 2)), 1, jax.random.key(0)).residual) < 1e-5

    a, b, c = np.random.default_rng(0).standard_normal((3, draws))
    holds = {"the kernel has real roots": factors(1.0, 3.0, 2.0), "it has none": factors(1.0, 0.0, 1.0)}
    return Finding(holds, float((b**2 >= 4 * a * c).mean()))


def trained_kernels(steps: int = 200) -> list[jax.Array]:
    """Train three 3 x 3 layers in a row, with nothing between, to imitate a Gaussian 7 x 7 kernel."""
    x = normal(16, 13, 11, 2)
    target = cl.conv(x, normal(7, 7, 2, 2, seed=1) / 7, cl.Window(7, padding="VALID"))
    shapes = (3, 3, 2, 5), (3, 3, 5, 5), (3, 3, 5, 2)
    kernels = [normal(*shape, seed=seed) / (9 * shape[2]) ** 0.5 for seed, shape in enumerate(shapes)]

    def loss(kernels: list[jax.Array]) -> jax.Array:
        h = x
        for v in kernels:
            h = cl.conv(h, v, cl.Window(3, padding="VALID"))
        return jnp.mean((h - target) ** 2)

    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(kernels: list[jax.Array], state: optax.OptState) -> tuple[list[jax.Array], optax.OptState]:
        updates, state = optimizer.update(jax.grad(loss)(kernels), state)
        return jax.tree.map(jnp.add, kernels, updates), state

    first, state = loss(kernels), optimizer.init(kernels)
    for _ in range(steps):
        kernels, state = step(kernels, state)
    if loss(kernels) > first / 4:
        raise RuntimeError(f"the loss fell only from {first:.3g} to {loss(kernels):.3g}; it must fall to a quarter or less")
    return kernels


def layers_without_relu() -> Finding:
    """Fuse three trained layers into one: the share of pixels that differ under zero padding."""
    kernels = trained_kernels()
    fused = kernel_of_two(kernel_of_two(*kernels[:2]), kernels[2])

    def differ(padding: str, between: str = "nothing") -> float:
        h = x = normal(13, 11, 2, seed=3)
        for number, v in enumerate(kernels):
            h = cl.conv(h, v, cl.Window(3, padding=padding))
            h = jax.nn.relu(h) if between == "a ReLU" and number < 2 else h
        once = cl.conv(x, fused, cl.Window(fused.shape[:2], padding=padding))
        return float((jnp.abs(h - once).max(-1) > 1e-4).mean())

    holds = {f"padding is {padding}": differ(padding) == 0 for padding in PADDINGS}
    holds["a ReLU lies between"] = differ("VALID", "a ReLU") == 0
    return Finding(holds, differ("SAME"))


def even_kernels_drift(layers: int = 6) -> Finding:
    """Measure how far the mean of an impulse moves through layers of two equal taps.

    The layers pad on one side, or on alternating sides.
    """

    def drift(paddings: Sequence[str]) -> float:
        x = jnp.zeros((41, 1)).at[20].set(1.0)
        for padding in paddings:
            x = cl.conv(x, jnp.full((2, 1, 1), 0.5), cl.Window((2,), padding=padding))
        return float((jnp.arange(41) * x[:, 0]).sum()) - 20

    same, turns = drift(["SAME"] * layers), drift(["SAME", "SAME_LOWER"] * (layers // 2))
    return Finding({"all pad on one side": abs(same) == layers / 2, "they pad on sides in turn": turns != 0}, abs(same))
