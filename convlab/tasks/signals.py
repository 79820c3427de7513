"""Tasks on Gaussian noise and on bits, with predicted numbers of examples for each rung."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab.geometry import as_integer
from convlab.tasks.task import Task, deviation, sampler, side


def random_patch(patches: int, size: int, noise: float, key: PRNGKeyArray) -> Task:
    r"""Make a task that asks for the sign of a signal in a random patch.

    $$x_q = y\, w^*\, [q = t] + \sigma \epsilon_q, \qquad y \sim \{-1, 1\},\; t \sim \{1 \ldots k\},\;
      \epsilon_q \sim N(0, I_d)$$

    This is the dynamic signal distribution. There are k adjacent patches of d pixels, and one unit vector w* for all examples.

    Symmetries: The distribution is invariant under permutations of the patches, and under negation of x and y together. The
    same rotation of the pixels of all patches gives the task of another w*.

    Predicted number of examples at a given error: Up to logarithms, a convolution needs $\sigma^2 (k + d)$ and a locally
    connected layer between $\sigma^2 k d$ and $\sigma^2 k (k + d)$. A dense layer needs at least $\sigma^2 k^2 d$. All are
    trained by rotation-equivariant algorithms.

    Args:
      patches: The number of patches k.
      size: The number of pixels d of a patch. A layer with this window size and stride reads one patch at each position.
      noise: The standard deviation sigma of the noise of every pixel.
      key: The key of w*.

    Raises:
      ValueError: A count is below 1, or `noise` is negative.

    Example:
      >>> task = random_patch(5, 3, 0.5, jax.random.key(0))
      >>> x, y = task.sample(jax.random.key(1), 7)
      >>> x.shape, y.shape
      ((7, 15, 1), (7,))

    Reference: Lahoti et al. 2024, Role of locality and weight sharing in image-based tasks: the DSD task, with theorems that
    separate FCNs from LCNs and LCNs from CNNs.
    """
    k, d = as_integer("patches", patches), as_integer("size", size)
    sigma = deviation(noise)
    signal = jax.random.normal(key, (d,))
    signal = signal / jnp.linalg.norm(signal)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        patch_key, class_key, noise_key = jax.random.split(key, 3)
        y = jax.random.randint(class_key, (), 0, 2)
        t = jax.random.randint(patch_key, (), 0, k)
        x = sigma * jax.random.normal(noise_key, (k, d))
        return x.at[t].add(side(y) * signal).reshape(k * d, 1), y

    return Task("random patch", (k * d, 1), ("minus", "plus"), sampler(draw))


def halves(size: int) -> Task:
    r"""Make a task that asks whether the first half of the noise has more energy than the second.

    $$y = \mathrm{sign} \Big( \sum_{i \le d} x_i^2 - \sum_{d < i \le 2d} x_i^2 \Big), \qquad x \sim N(0, I_{2d})$$

    Symmetries: The label does not change under orthogonal maps within each half. It changes sign if the halves are exchanged.

    Predicted number of examples: A dense network needs of the order of $d^2$, and a locally connected network of the order of
    d. The number for a convolution (one tap, squares, and one weight per half) does not depend on d.

    Args:
      size: The number of pixels d of each half.

    Raises:
      ValueError: `size` is below 1.

    Example:
      >>> x, y = halves(4).sample(jax.random.key(0), 3)
      >>> energy = (x[..., 0] ** 2).reshape(3, 2, 4).sum(-1)
      >>> bool(((energy[:, 0] > energy[:, 1]) == y).all())
      True

    Reference: Li, Zhang and Arora 2021, Why are convolutional nets more sample-efficient than fully-connected nets?, the
    introduction and the theorem on one distribution, for dense and shared weights. The prediction for locally connected weights
    is ours.
    """
    d = as_integer("size", size)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (2, d))
        first, second = jnp.sum(x * x, 1)
        return x.reshape(2 * d, 1), (first > second).astype(jnp.int32)

    return Task("halves", (2 * d, 1), ("second", "first"), sampler(draw))


def parity(length: int, size: int, start: int) -> Task:
    r"""Make a task that asks for the parity of neighbouring bits among many irrelevant bits.

    $$y = \prod_{a < k} x_{j + a}, \qquad x \sim \{-1, 1\}^n$$

    The k relevant bits are called a k-pattern.

    Symmetries: The label does not change if any bits outside the pattern, or any two bits inside it, are negated.

    Prediction: A convolution with windows of k bits and enough channels learns the task by gradient descent in time polynomial
    in n and 2^k. A dense network of polynomial size does not, for k of the order of log n. Any k - 1 bits are independent of
    the label. Since the pattern has a fixed position, the locally connected kernels there can do the same as shared kernels.

    Args:
      length: The number of bits n of an input.
      size: The number of bits k of the pattern.
      start: The position j at which the pattern begins in every example.

    Raises:
      ValueError: The pattern does not fit, or a count is below 1.
      TypeError: A count or `start` is not an integer.

    Example:
      >>> x, y = parity(7, 2, 3).sample(jax.random.key(0), 4)
      >>> bool(((x[:, 3, 0] * x[:, 4, 0] > 0) == y).all())
      True

    Reference: Malach and Shalev-Shwartz 2021, Computational separation between convolutional and fully-connected networks, the
    k-pattern problem.
    """
    n, k, j = as_integer("length", length), as_integer("size", size), as_integer("start", start, least=0)
    if j > n - k:
        raise ValueError(f"start is {j}; a pattern of {k} bits from there does not fit into {n} bits")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.rademacher(key, (n, 1), jnp.float32)
        return x, (jnp.prod(x[j : j + k]) > 0).astype(jnp.int32)

    return Task("parity", (n, 1), ("odd", "even"), sampler(draw))


def pairs(length: int, apart: int, *, by_position: bool = False) -> Task:
    r"""Make a task that asks whether pixels at a given distance on a circle agree in sign.

    $$y = \Big[ \sum_i s_i\, x_i\, x_{i + \delta} > 0 \Big], \qquad x \sim N(0, I_n),\; i \bmod n$$

    The distance sets how local the relation is. The signs s set whether it is the same at all positions. They are 1 everywhere
    or, with `by_position`, 1 on the first half of the circle and -1 on the second.

    Symmetries: If all s are 1, the label does not change under shifts around the circle. With `by_position`, a shift by half
    the circle exchanges the labels, so that a shift-invariant classifier has an accuracy of one half. In both cases, negating
    a suitable set of pixels exchanges the labels, so that both are equally frequent.

    Prediction: Weighted sums over positions of the squares of a layer's outputs contain the products of pixels that its window
    reads. Two units are enough for these products. The number of examples is proportional to the number of free coefficients
    of a rung. For windows of k pixels these are k if shared and k n if untied. For windows of all pixels they are n / 2 + 1 and
    n (n + 1) / 2. A window of at most delta pixels cannot express the label, nor can shared kernels if s varies.

    Args:
      length: The number of pixels n of the circle.
      apart: The distance delta, 1 for neighbours. It is less than half the circle, so that no pair counts twice.
      by_position: Whether the signs s depend on the position.

    Raises:
      ValueError: `apart` is out of range, or the number of steps of `apart` that return to the same pixel is odd.

    Example:
      >>> x, y = pairs(8, 3).sample(jax.random.key(0), 5)
      >>> product = x * jnp.roll(x, -3, 1)
      >>> bool(((product.sum((1, 2)) > 0) == y).all())
      True

    Reference: Zhang et al., Dive into Deep Learning, section 7.1, for the question: what if the assumptions do not hold?
    """
    n, delta = as_integer("length", length), as_integer("apart", apart)
    if 2 * delta >= n:
        raise ValueError(f"apart is {delta} on a circle of {n} pixels; needs less than half of it, or pairs count twice")
    steps = n // math.gcd(n, delta)
    if steps % 2:
        raise ValueError(
            f"apart is {delta}, and {steps} steps of it go round {n} pixels; needs an even number, for equally frequent labels"
        )
    s = jnp.where(by_position & (jnp.arange(n) >= n // 2), -1.0, 1.0)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (n,))
        return x[:, None], (jnp.sum(s * x * jnp.roll(x, -delta)) > 0).astype(jnp.int32)

    return Task(f"pairs {delta} apart{', by position' * by_position}", (n, 1), ("differ", "agree"), sampler(draw))
