"""Checks of claims about layers as maps: re-indexing, sharing, equivariance and edges."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import data
from experiments.checks import Finding, apart, equal, normal, one
from experiments.checks.composition import composed, kernel_of_two


def reindexing() -> Finding:
    """Re-index a dense weight by offsets, and back."""
    space = (5, 7)
    window, w = cl.Window.full(space), normal(*space, *space, 2, 3)
    v = cl.project_dense_to_local(w, window, space)
    back = cl.lift_local_to_dense(v, window, space)
    live = int(window.live(space).sum())
    slots = math.prod(v.shape[:-2])
    return Finding(
        {"offsets stay inside the image": equal(back, w) and live == math.prod(space) ** 2, "all offsets": slots == live},
        slots / live,
    )


def what_commutes_is_a_convolution(axes: Sequence[int] = (0, 1)) -> Finding:
    """Average a dense weight over shifts and compare it with its projection on convolutions.

    The average commutes with all shifts along `axes`.
    """
    space = (5, 7)
    window = cl.Window(space, padding="CIRCULAR")
    w = normal(*space, *space, 1, 1)
    shifts = itertools.product(*(range(space[axis]) if axis in axes else (0,) for axis in range(2)))
    average = jnp.mean(jnp.stack([jnp.roll(w, (*shift, *shift), (0, 1, 2, 3)) for shift in shifts]), 0)
    v = cl.project_dense_to_conv(w, window, space)
    nearest = cl.lift_conv_to_dense(v, window, space)
    return one(equal(average, nearest), apart(average, nearest))


def shifted_input_shifts_the_output() -> Finding:
    """Move an object by a pixel, inside an image and along its border, and compare the outputs."""
    kernels = normal(3, 3, 2, 3, seed=1), normal(3, 3, 3, 2, seed=2)
    thing = normal(3, 3, 2)

    def wrong(row: int, padding: str) -> float:
        """Return the share of outputs that do not move with the object."""
        higher, lower = (jnp.zeros((11, 13, 2)).at[i : i + 3, 5:8].set(thing) for i in (row, row + 1))
        before, after = (composed(x, *kernels, padding) for x in (higher, lower))
        return float((jnp.abs(after[1:] - before[:-1]).max(-1) > 1e-4).mean())

    shares = {
        "padding is CIRCULAR": wrong(0, "CIRCULAR"),
        "padding is SAME and the object keeps away from the border": wrong(3, "SAME"),
        "padding is SAME and it starts at the border": wrong(0, "SAME"),
    }
    return Finding({name: share == 0 for name, share in shares.items()}, shares["padding is SAME and it starts at the border"])


def one_pixel_windows_are_an_mlp(size: int = 1) -> Finding:
    """Compare a convolution with the dense layer of its middle tap, applied to every pixel's channels."""
    x, v = normal(5, 7, 3), normal(size, size, 3, 4, seed=1)
    h, mlp = cl.conv(x, v, cl.Window((size, size))), x @ v[size // 2, size // 2]
    return one(equal(h, mlp), apart(h, mlp))


def commutation(channels: int = 1) -> Finding:
    """Compare f * g with g * f as layers of some channels, by their largest difference."""
    f, g = normal(3, 2, channels, channels), normal(2, 5, channels, channels, seed=1)
    return one(equal(kernel_of_two(f, g), kernel_of_two(g, f)), apart(kernel_of_two(f, g), kernel_of_two(g, f)))


def edges() -> tuple[jax.Array, jax.Array]:
    """Return the chapter's image of a dark bar, and its kernel."""
    x = jnp.ones((6, 8, 1)).at[:, 2:6].set(0)
    return x, jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1)


def only_vertical_edges() -> Finding:
    """Apply the kernel [1, -1] to a horizontal edge and to a diagonal one: the largest output."""
    x, v = edges()
    window = cl.Window((1, 2), padding="VALID")
    diagonal = jnp.triu(jnp.ones((6, 8)))[..., None]
    diagonal, horizontal = (float(jnp.abs(cl.conv(image, v, window)).max()) for image in (diagonal, x.swapaxes(0, 1)))
    return Finding({"the others are horizontal": horizontal == 0, "the others are diagonal": diagonal == 0}, diagonal)


def kernel_learnt(steps: int = 10, seeds: int = 5) -> Finding:
    """Learn the edge kernel by gradient descent as the chapter does.

    The number is the largest error of a weight over the seeds.
    """
    x, v = edges()
    window = cl.Window((1, 2), padding="VALID")
    target = cl.conv(x, v, window)

    def step(v: jax.Array, _: None) -> tuple[jax.Array, None]:
        return v - 3e-2 * jax.grad(lambda v: jnp.sum((cl.conv(x, v, window) - target) ** 2))(v), None

    draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default
    starts = [draw(jax.random.key(seed), v.shape, jnp.float32) for seed in range(seeds)]
    number = max(apart(jax.lax.scan(step, start, None, steps)[0], v) for start in starts)
    return one(number < 0.1, number)


def smallest_derivative(degree: int = 3, taps: int = 4) -> Finding:
    """Find the least number of taps of a kernel that annihilates all polynomials below a degree.

    The claim holds if that number is `taps`.
    """

    def null(taps: int) -> int:
        powers = np.vander(
            np.arange(taps) - (taps - 1) / 2, degree, increasing=True
        ).T  # a row for every power below the degree
        return taps - int(np.linalg.matrix_rank(powers))

    least = next(taps for taps in range(1, 2 * degree) if null(taps))
    return one(least == taps, least)


def permuted_pixels(layer: str = "dense") -> Finding:
    """Compare a layer's gradient on digits with that on digits whose pixels are permuted.

    The weights of a dense layer are permuted in the same way. The number is the relative change.
    """
    digits = data.load("digits").train.images[:11].reshape(11, 64).astype(np.float32) / 16
    order = np.random.default_rng(0).permutation(64)
    window = cl.Window((3, 3))
    weight, apply = {
        "dense": (normal(64, 5), lambda x, w: jnp.asarray(x) @ w),
        "conv": (normal(3, 3, 1, 5, seed=1), lambda x, v: cl.conv(jnp.asarray(x.reshape(11, 8, 8, 1)), v, window)),
    }[layer]

    def gradient(x: np.ndarray, weight: jax.Array) -> jax.Array:
        return jax.grad(lambda weight: jnp.sum(jax.nn.relu(apply(x, weight)) ** 2))(weight)

    follows = (lambda w: w[order]) if layer == "dense" else lambda w: w
    before, after = follows(gradient(digits, weight)), gradient(digits[:, order], follows(weight))
    number = float(jnp.linalg.norm(after - before) / jnp.linalg.norm(before))
    return one(number < 1e-5, number)


def pooled_circles_cannot_tell_left(padding: str = "CIRCULAR") -> Finding:
    """Apply two layers and global pooling to a box at the left and the same box at the right."""
    x = jnp.zeros((16, 16, 1)).at[6:10, :4].set(1)
    h = jnp.stack([x, jnp.roll(x, 8, 1)])
    for kernel in (normal(3, 3, 1, 5), normal(3, 3, 5, 7, seed=1)):
        h = jax.nn.relu(cl.conv(h, kernel, cl.Window(3, padding=padding)))
    left, right = h.max((1, 2))
    return one(equal(left, right), apart(left, right))
