"""Tasks of theory on Gaussian noise and on bits, in which each rung is known to need its own number of examples."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab.geometry import as_integer
from convlab.tasks.task import Task, deviation, one_by_one, side


def random_patch(patches: int, size: int, noise: float, key: PRNGKeyArray) -> Task:
    r"""A signal of a known size in one patch of many, its sign the class: "dynamic signal distribution".

    $$x_q = y\, w^*\, [q = t] + \sigma \epsilon_q, \qquad y \sim \{-1, 1\},\; t \sim \{1 \ldots k\},\;
      \epsilon_q \sim N(0, I_d)$$

    for k patches of d pixels, side by side, with one unit vector w* for all examples.

    Symmetries: the law is the same with patches permuted, and with x and y negated; rotating the pixels of all patches alike
    gives the task of another w*.

    Predicted need for examples at a given error: convolution $\sigma^2 (k + d)$, locally connected between $\sigma^2 k d$ and
    $\sigma^2 k (k + d)$, dense at least $\sigma^2 k^2 d$, trained by rotation-equivariant algorithms; up to logarithms.

    Args:
      patches: k.
      size: d; a layer with this window and stride sees a patch at each position.
      noise: sigma, of every pixel.
      key: Draws w*.

    Raises:
      ValueError: A count below 1, or a negative noise.

    Example:
      >>> task = random_patch(5, 3, 0.5, jax.random.key(0))
      >>> x, y = task.sample(jax.random.key(1), 7)
      >>> x.shape, y.shape
      ((7, 15, 1), (7,))

    Reference: Lahoti et al. 2024, Role of locality and weight sharing in image-based tasks: the DSD task, and
    its theorems on FCNs against LCNs and on LCNs against CNNs.
    """
    k, d = as_integer("patches", patches), as_integer("size", size)
    sigma = deviation(noise)
    signal = jax.random.normal(key, (d,))
    signal = signal / jnp.linalg.norm(signal)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        where, which, rest = jax.random.split(key, 3)
        y = jax.random.randint(which, (), 0, 2)
        t = jax.random.randint(where, (), 0, k)
        x = sigma * jax.random.normal(rest, (k, d))
        return x.at[t].add(side(y) * signal).reshape(k * d, 1), y

    return Task("random patch", (k * d, 1), ("minus", "plus"), one_by_one(draw))


def halves(size: int) -> Task:
    r"""Which half of the noise has more energy.

    $$y = \mathrm{sign} \Big( \sum_{i \le d} x_i^2 - \sum_{d < i \le 2d} x_i^2 \Big), \qquad x \sim N(0, I_{2d})$$

    Symmetries: orthogonal maps within each half leave the label; exchanging the halves turns it round.

    Predicted need for examples: dense of the order of $d^2$, locally connected of d, convolution (one tap, squares, and a
    weight per half) independent of d.

    Args:
      size: d, pixels of each half.

    Raises:
      ValueError: `size` is below 1.

    Example:
      >>> x, y = halves(4).sample(jax.random.key(0), 3)
      >>> energy = (x[..., 0] ** 2).reshape(3, 2, 4).sum(-1)
      >>> bool(((energy[:, 0] > energy[:, 1]) == y).all())
      True

    Reference: Li, Zhang and Arora 2021, Why are convolutional nets more sample-efficient than fully-connected nets?, the
    introduction and the theorem on one distribution, for dense and shared weights; the need of local ones is ours.
    """
    d = as_integer("size", size)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (2, d))
        first, second = jnp.sum(x * x, 1)
        return x.reshape(2 * d, 1), (first > second).astype(jnp.int32)

    return Task("halves", (2 * d, 1), ("second", "first"), one_by_one(draw))


def parity(length: int, size: int, place: int) -> Task:
    r"""The product of neighbouring bits among many that do not matter: a k-pattern.

    $$y = \prod_{a < k} x_{j + a}, \qquad x \sim \{-1, 1\}^n$$

    Symmetries: bits outside the pattern may be negated, and so may any two inside it.

    Predicted: a convolution with windows of k and enough channels learns it by gradient descent in time polynomial in n and
    2^k, a dense network of polynomial size does not for k of the order of log n; any k - 1 bits say nothing of the label. As
    the pattern stands at one place, kernels of their own there can do what shared ones can.

    Args:
      length: n, bits of an input.
      size: k, bits of the pattern.
      place: j, where it begins; the same in every example.

    Raises:
      ValueError: The pattern does not fit, or a count is below 1.
      TypeError: A count or the place is not an integer.

    Example:
      >>> x, y = parity(7, 2, 3).sample(jax.random.key(0), 4)
      >>> bool(((x[:, 3, 0] * x[:, 4, 0] > 0) == y).all())
      True

    Reference: Malach and Shalev-Shwartz 2021, Computational separation between convolutional and fully-connected networks, the
    k-pattern problem.
    """
    n, k, j = as_integer("length", length), as_integer("size", size), as_integer("place", place, least=0)
    if j > n - k:
        raise ValueError(f"a pattern of {k} bits from place {j} does not fit into {n} bits")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.rademacher(key, (n, 1), jnp.float32)
        return x, (jnp.prod(x[j : j + k]) > 0).astype(jnp.int32)

    return Task("parity", (n, 1), ("odd", "even"), one_by_one(draw))


def pairs(length: int, apart: int, *, by_position: bool = False) -> Task:
    r"""Whether pixels that stand so far apart agree: a relation that is local or not, the same everywhere or not.

    $$y = \Big[ \sum_i s_i\, x_i\, x_{i + \delta} > 0 \Big], \qquad x \sim N(0, I_n),\; i \bmod n$$

    on a circle; s is 1 everywhere or, by position, 1 on the first half of it and -1 on the second.

    Symmetries: a shift round the circle leaves the label where all s are 1; by position one of half the circle turns it round,
    so that what takes no notice of shifts is right half of the time. So does, always, negating some of the pixels: both labels
    come equally often.

    Predicted: squares of a layer's outputs, summed over positions and weighed, are the products that its window sees, and two
    units are enough for these. Need for examples in proportion to the coefficients that a rung leaves free: for windows of k
    pixels k shared and k n of its own at each position, for windows of all pixels n / 2 + 1 and n (n + 1) / 2. A window of at
    most delta pixels, and shared kernels where s varies, do not reach the label with any number.

    Args:
      length: n, pixels of the circle.
      apart: delta, 1 for neighbours; less than half the circle, so that no pair counts twice.
      by_position: Let s vary.

    Raises:
      ValueError: `apart` is out of range, or steps of it come round the circle in an odd number.

    Example:
      >>> x, y = pairs(8, 3).sample(jax.random.key(0), 5)
      >>> product = x * jnp.roll(x, -3, 1)
      >>> bool(((product.sum((1, 2)) > 0) == y).all())
      True

    Reference: of the question, Zhang et al., Dive into Deep Learning, section 7.1: what if the assumptions do not hold?
    """
    n, delta = as_integer("length", length), as_integer("apart", apart)
    if 2 * delta >= n:
        raise ValueError(f"pairs are {delta} apart on a circle of {n} pixels; needs less than half of it, or pairs count twice")
    round_about = n // math.gcd(n, delta)
    if round_about % 2:
        raise ValueError(f"{round_about} steps of {delta} come round {n} pixels; needs an even number, for labels as frequent")
    s = jnp.where(by_position & (jnp.arange(n) >= n // 2), -1.0, 1.0)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (n,))
        return x[:, None], (jnp.sum(s * x * jnp.roll(x, -delta)) > 0).astype(jnp.int32)

    return Task(f"pairs {delta} apart{', by position' * by_position}", (n, 1), ("differ", "agree"), one_by_one(draw))
