"""Tasks on Gaussian noise and on bits, with predicted numbers of examples for each rung."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import as_integer
from convlab.tasks.task import Task, check_noise, label_sign, make_sampler


def random_patch(patches: int, patch_size: int, noise: float, key: PRNGKeyArray) -> Task:
    r"""Make a task that asks for the sign of a signal in a random patch of noise.

    $$x_q = y\, w^*\, [q = t] + \sigma \epsilon_q, \qquad y \sim \{-1, 1\},\; t \sim \{1 \ldots k\},\;
      \epsilon_q \sim N(0, I_d)$$

    An image is a row of k adjacent patches of d pixels, all with Gaussian noise. One patch t, drawn uniformly, also holds the
    signal $y w^*$. The unit vector w* is the same in all examples. The label is the sign y: class 0 for minus and class 1 for
    plus. This is the dynamic signal distribution (DSD).

    Symmetries: A permutation of the patches leaves the label and the distribution unchanged. Negating x negates y. The same
    rotation of the pixels of all patches gives the task of another w*.

    Predicted number of examples at a fixed error, up to logarithms, for rotation-equivariant training:

    - Convolution: $\sigma^2 (k + d)$. Every example is informative about the one kernel.
    - Locally connected: between $\sigma^2 k d$ and $\sigma^2 k (k + d)$. The kernel of a patch learns only from the examples
      whose signal is in that patch, one in k.
    - Dense: at least $\sigma^2 k^2 d$. A signal must also be found among all k d pixels.

    Args:
      patches: The number of patches k.
      patch_size: The number of pixels d of a patch. A layer with this window size and stride reads one patch at each position.
      noise: The standard deviation sigma of the noise of every pixel. The signal has norm 1.
      key: The key of w*.

    Raises:
      ValueError: A count is below 1, or `noise` is negative or not finite.
      TypeError: A count is not an integer.

    Example:
      >>> task = random_patch(5, 3, 0.5, jax.random.key(0))
      >>> x, y = task.sample(jax.random.key(1), 7)
      >>> x.shape, y.shape
      ((7, 15, 1), (7,))

    Reference: Lahoti et al. 2024, Role of locality and weight sharing in image-based tasks: the DSD task, with theorems that
    separate FCNs from LCNs and LCNs from CNNs.
    """
    k, d = as_integer("patches", patches), as_integer("patch_size", patch_size)
    sigma = check_noise(noise)
    check.shape_fits("an image of patches", k, d)
    signal = jax.random.normal(check.key("key", key), (d,))
    signal = signal / jnp.linalg.norm(signal)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        patch_key, class_key, noise_key = jax.random.split(key, 3)
        y = jax.random.randint(class_key, (), 0, 2)
        t = jax.random.randint(patch_key, (), 0, k)
        x = sigma * jax.random.normal(noise_key, (k, d))
        return x.at[t].add(label_sign(y) * signal).reshape(k * d, 1), y

    return Task("random patch", (k * d, 1), ("minus", "plus"), make_sampler(draw))


def energy_comparison(half_size: int) -> Task:
    r"""Make a task that asks whether the first half of the noise has more energy than the second.

    $$y = \mathrm{sign} \Big( \sum_{i \le d} x_i^2 - \sum_{d < i \le 2d} x_i^2 \Big), \qquad x \sim N(0, I_{2d})$$

    An image is a row of 2 d pixels of Gaussian noise. The label is class 1 if the sum of squares is larger in the first half,
    and class 0 if it is larger in the second.

    Symmetries: An orthogonal map within each half leaves the label unchanged, for example a permutation. Exchanging the halves
    changes it.

    Predicted number of examples:

    - Convolution (one tap, squares, and one weight per half): a number that does not depend on d.
    - Locally connected: of the order of d, the number of squares whose weights it learns.
    - Dense: of the order of $d^2$. Its training commutes with rotations of all pixels, so it has to learn a general quadratic
      form.

    Args:
      half_size: The number of pixels d of each half.

    Raises:
      ValueError: `half_size` is below 1.
      TypeError: `half_size` is not an integer.

    Example:
      >>> x, y = energy_comparison(4).sample(jax.random.key(0), 3)
      >>> energy = (x[..., 0] ** 2).reshape(3, 2, 4).sum(-1)
      >>> bool(((energy[:, 0] > energy[:, 1]) == y).all())
      True

    Reference: Li, Zhang and Arora 2021, Why are convolutional nets more sample-efficient than fully-connected nets?, the
    introduction and the theorem on one distribution, for dense and shared weights. The prediction for locally connected weights
    is ours.
    """
    d = as_integer("half_size", half_size)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (2, d))
        first, second = jnp.sum(x * x, 1)
        return x.reshape(2 * d, 1), (first > second).astype(jnp.int32)

    return Task("energy comparison", (2 * d, 1), ("second", "first"), make_sampler(draw))


def parity(length: int, pattern_size: int, start: int) -> Task:
    r"""Make a task that asks for the parity of neighbouring bits among many irrelevant bits.

    $$y = \prod_{a < k} x_{j + a}, \qquad x \sim \{-1, 1\}^n$$

    An image is a row of n random bits, stored as -1 and 1. The label is the parity of k neighbouring bits: class 1 if an even
    number of them is -1, else class 0. These bits, a k-pattern, have the same position j in every example.

    Symmetries: Negating any bits outside the pattern, or any two bits inside it, leaves the label unchanged.

    Prediction: A convolution with windows of k bits and enough channels learns the task by gradient descent in time polynomial
    in n and 2^k. A dense network of polynomial size does not, for k of the order of log n. Its initial weights do not
    distinguish one set of k bits from another, and any k - 1 bits are independent of the label. Since the pattern has a fixed
    position, the locally connected kernels there can do the same as shared kernels.

    Args:
      length: The number of bits n of an image.
      pattern_size: The number of bits k of the pattern.
      start: The position j of the pattern's first bit, counted from 0.

    Raises:
      ValueError: The pattern does not fit, a count is below 1, or `start` is negative.
      TypeError: A count or `start` is not an integer.

    Example:
      >>> x, y = parity(7, 2, 3).sample(jax.random.key(0), 4)
      >>> bool(((x[:, 3, 0] * x[:, 4, 0] > 0) == y).all())
      True

    Reference: Malach and Shalev-Shwartz 2021, Computational separation between convolutional and fully-connected networks, the
    k-pattern problem.
    """
    n, k = as_integer("length", length), as_integer("pattern_size", pattern_size)
    j = as_integer("start", start, least=0)
    if j > n - k:
        raise ValueError(f"start is {j}; a pattern of {k} bits from there does not fit into {n} bits")

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.rademacher(key, (n, 1), jnp.float32)
        return x, (jnp.prod(x[j : j + k]) > 0).astype(jnp.int32)

    return Task("parity", (n, 1), ("odd", "even"), make_sampler(draw))


def correlation_sign(length: int, distance: int, *, flip_second_half: bool = False) -> Task:
    r"""Make a task that asks for the sign of the correlation of pixels at one distance on a circle.

    $$y = \Big[ \sum_i s_i\, x_i\, x_{i + \delta} > 0 \Big], \qquad x \sim N(0, I_n),\; i \bmod n$$

    An image is a circle of n pixels of Gaussian noise. The label is class 1 if pixels at distance delta have a positive
    correlation over the circle, and class 0 if it is negative. The distance sets how local the relation is. The signs s set
    whether it is the same at all positions. They are 1 everywhere or, with `flip_second_half`, 1 on the first half of the
    circle and -1 on the second.

    Symmetries: If all s are 1, a shift around the circle leaves the label unchanged. With `flip_second_half`, a shift by half
    the circle exchanges the labels, so that a shift-invariant classifier has an accuracy of one half. In both cases, negating
    a suitable set of pixels exchanges the labels, so that both are equally frequent.

    Predicted number of examples: The networks are weighted sums over positions of the squares of a layer's outputs. They
    contain the products of the pixels that a window reads, for which two units are enough. The number of examples is
    proportional to the number of free coefficients of these products. For windows of k pixels, it is k if kernels are shared
    and k n if they are not. For windows of all pixels, it is n / 2 + 1 and n (n + 1) / 2. A window of at most delta pixels
    cannot express the label, nor can shared kernels if s varies.

    Args:
      length: The number of pixels n of the circle.
      distance: The distance delta in pixels, 1 for neighbours. It is less than half the circle, so that no pair counts twice.
      flip_second_half: Whether the signs s are -1 on the second half of the circle.

    Raises:
      ValueError: `distance` is below 1 or at least half of `length`, or the number of steps of `distance` that return to the
        same pixel is odd.
      TypeError: `length` or `distance` is not an integer.

    Example:
      >>> x, y = correlation_sign(8, 3).sample(jax.random.key(0), 5)
      >>> product = x * jnp.roll(x, -3, 1)
      >>> bool(((product.sum((1, 2)) > 0) == y).all())
      True

    Reference: Zhang et al., Dive into Deep Learning, section 7.1, for the question: what if the assumptions do not hold?
    """
    n, delta = as_integer("length", length), as_integer("distance", distance)
    if 2 * delta >= n:
        raise ValueError(f"distance is {delta} on a circle of {n} pixels; needs less than half of it, or pairs count twice")
    steps = n // math.gcd(n, delta)
    if steps % 2:
        raise ValueError(
            f"distance is {delta}, and {steps} steps of it return to the same of {n} pixels; "
            "needs an even number, for equally frequent labels"
        )
    check.flag("flip_second_half", flip_second_half)
    check.shape_fits("an image of length pixels", n)
    s = jnp.where(flip_second_half & (jnp.arange(n) >= n // 2), -1.0, 1.0)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        x = jax.random.normal(key, (n,))
        return x[:, None], (jnp.sum(s * x * jnp.roll(x, -delta)) > 0).astype(jnp.int32)

    name = f"correlation sign, distance {delta}{', second half flipped' * flip_second_half}"
    return Task(name, (n, 1), ("negative", "positive"), make_sampler(draw))
