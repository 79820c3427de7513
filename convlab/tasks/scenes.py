"""Tasks on scenes: the order, the presence and the position of objects."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import as_integer
from convlab.tasks.task import Task, deviation, sampler

SIDE, BOX = 32, 4  # the sides of a scene with a red and a green box, and of a box
LEFT, GAP, END = (0, 10), 5, 28  # range of the left box's first column; least distance to the right box; end of the right range


def red_green(*, moved: bool = False) -> Task:
    """Make a task that asks which of two boxes is on the left, in scenes whose rows reveal it.

    Images are black, with 32x32 pixels and a red and a green box of 4x4. Class 0 has red on the left, and its boxes begin at
    rows 7 + U{-4..3}. Class 1 has green on the left, and rows 23 + U{-4..3}. The rows of the two boxes are independent. The
    left box begins at a column U{0..9}, the right box uniformly between 5 columns further and column 27. `moved` exchanges the
    rows of the classes, by 16 rows down for class 0 and 16 rows up for class 1.

    Symmetries: A shift of all columns keeps the order of the boxes. Up to a shift around a torus of rows, the scenes with and
    without `moved` are the same images.

    Prediction: A network that cannot encode rows has the same accuracy on both kinds of scene, for example a convolution that
    is circular or crops nothing, with global pooling. A network that can encode rows, by a border or by kernels that differ by
    position, fails on moved boxes.

    Args:
      moved: Whether to exchange the rows of the classes.

    Example:
      >>> x, y = red_green().sample(jax.random.key(0), 4)
      >>> x.shape, float(x.sum(0).max()) <= 4
      ((4, 32, 32, 3), True)

    Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
    """

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, row_key, left_key, right_key = jax.random.split(key, 4)
        y = jax.random.randint(class_key, (), 0, 2)
        row = jnp.where(y != moved, 23, 7) + jax.random.randint(row_key, (2,), -4, 4)
        left = jax.random.randint(left_key, (), *LEFT)
        right = jax.random.randint(right_key, (), left + GAP, END)
        pixel = jnp.arange(SIDE)[:, None]
        rows, columns = ((pixel >= start) & (pixel < start + BOX) for start in (row, jnp.stack([left, right])))
        boxes = rows[:, None] & columns  # (row, column, box), the left box first
        colours = jnp.where(y, boxes[..., ::-1], boxes)
        return jnp.pad(colours, ((0, 0), (0, 0), (0, 1))).astype(jnp.float32), y

    return Task("red green", (SIDE, SIDE, 3), ("red left", "green left"), sampler(draw))


def coordinates(side: int, split: str = "uniform", *, held_out: bool = False, key: PRNGKeyArray | None = None) -> Task:
    """Make a task of coordinate classification: from row and column to the number of the pixel.

    The input is one pixel with two channels, its row and its column, scaled to the range from -1 to 1. The class is the number
    of that pixel in the image in row-major order. The "uniform" split holds out a random fifth of the pixels, but at least
    one. The "quadrant" split holds out the pixels whose row and column are both in the second half.

    Symmetries: The input has none, since every pixel is a separate class. Exchanging rows and columns permutes the classes.

    Prediction: Convolutional networks on the tiled coordinates memorise the training pixels slowly and fail on the held-out
    quadrant. With coordinates among the channels of the image, the task is trivial at every rung.

    Args:
      side: The number of pixels along each axis.
      split: The name of the split, "uniform" or "quadrant".
      held_out: Whether to draw from the held-out pixels instead of the training pixels.
      key: The key of the uniform split. If None, key 0.

    Raises:
      ValueError: `split` is unknown, or `side` is below 2.

    Example:
      >>> x, y = coordinates(8, "quadrant", held_out=True).sample(jax.random.key(0), 5)
      >>> bool((x > 0).all() and (y >= 32).all())
      True

    Reference: Liu et al. 2018, An intriguing failing of convolutional neural networks and the CoordConv solution, section 3.
    """
    n = as_integer("side", side, least=2)
    if split not in ("uniform", "quadrant"):
        raise ValueError(f"split {split!r} is unknown; needs 'uniform' or 'quadrant'")
    pixels = jnp.arange(n * n)
    if split == "uniform":
        order = jax.random.permutation(jax.random.key(0) if key is None else key, n * n)
        out = jnp.zeros(n * n, bool).at[order[: max(1, n * n // 5)]].set(True)
    else:
        out = (pixels // n >= n - n // 2) & (pixels % n >= n - n // 2)
    allowed = pixels[out == held_out]

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        y = allowed[jax.random.randint(key, (), 0, len(allowed))]
        position = jnp.stack(jnp.divmod(y, n))
        return (2 * position / (n - 1) - 1).astype(jnp.float32)[None], y

    return Task(f"coordinates, {split}", (1, 2), tuple(map(str, range(n * n))), sampler(draw))


def template(
    side: int,
    size: int,
    clutter: int,
    key: PRNGKeyArray,
    *,
    noise: float = 0.0,
    columns: Sequence[int] | None = None,
) -> Task:
    r"""Make a task that asks whether a fixed pattern is present in a scene with distractors.

    $$X = \sum_{q} T_{p_q} P_{m_q} + \sigma \epsilon$$

    Here $T_p$ places a pattern at position p, and overlapping patterns add. Every scene has `clutter` + 1 patterns at uniform
    positions. In class 1, the first is the target pattern. All other patterns, and the first of class 0, are drawn from eight
    distractors. All nine patterns have pixels drawn from N(0, 1).

    Symmetries: The class does not change under shifts of all patterns inside the scene.

    Predicted number of examples: Take a convolution with windows of the pattern's size and a maximum over positions. It needs
    about as many examples as the pattern has pixels, at all positions together. A locally connected network needs that many at
    every position, and a dense network more. If `columns` restricts the target in training, only shared kernels detect it
    elsewhere.

    Args:
      side: The number of pixels of a scene along each axis.
      size: The number of pixels of a pattern along each axis.
      clutter: The number of patterns besides the first.
      key: The key of the patterns.
      noise: The standard deviation sigma of the noise.
      columns: The first and the last column at which the first pattern may begin. If None, all columns.

    Raises:
      ValueError: The patterns do not fit, a count is below its minimum, or `noise` is negative.

    Example:
      >>> x, y = template(9, 3, 2, jax.random.key(0)).sample(jax.random.key(1), 4)
      >>> x.shape
      (4, 9, 9, 1)

    Reference: Zhang et al., Dive into Deep Learning, section 7.1 ("Where's Waldo"), for the question.
    """
    n, k = as_integer("side", side), as_integer("size", size)
    count, last = as_integer("clutter", clutter, least=0) + 1, n - k
    if last < 0:
        raise ValueError(f"size is {k}; a pattern of {k} pixels does not fit into {n}")
    low, high = (0, last) if columns is None else (as_integer("columns", column, least=0) for column in columns)
    if not 0 <= low <= high <= last:
        raise ValueError(f"columns are {low} to {high}; a pattern of {k} pixels can begin at 0 to {last} of {n}")
    patterns, sigma = jax.random.normal(key, (9, k, k)), deviation(noise)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, kind_key, position_key, column_key, noise_key = jax.random.split(key, 5)
        y = jax.random.randint(class_key, (), 0, 2)
        kind = jax.random.randint(kind_key, (count,), 1, len(patterns))
        kind = kind.at[0].set(jnp.where(y, 0, kind[0]))
        position = jax.random.randint(position_key, (count, 2), 0, last + 1)
        position = position.at[0, 1].set(jax.random.randint(column_key, (), low, high + 1))
        offsets = jnp.arange(k)
        pixels = position[:, 0, None, None] + offsets[:, None], position[:, 1, None, None] + offsets
        x = sigma * jax.random.normal(noise_key, (n, n))
        return x.at[pixels].add(patterns[kind])[..., None], y

    return Task("template", (n, n, 1), ("absent", "there"), sampler(draw))


def flying(
    side: int,
    size: int,
    rho: float | jax.Array,
    key: PRNGKeyArray,
    *,
    noise: float = 1.0,
    same_pattern: bool | jax.Array = False,
) -> Task:
    r"""Make a task of birds in the upper half of an image and pigs in the lower half.

    $$P(\text{upper half} \mid y = 1) = P(\text{lower half} \mid y = 0) = (1 + \rho) / 2$$

    This is the probability of the usual half. The image holds one of two patterns, whose pixels are drawn from N(0, 1), at a
    uniform position in one half, plus noise. The pattern is the class: 1 is a bird, 0 is a pig. So rho sets how informative the
    position is. With `same_pattern`, only the position is informative.

    Symmetries: At rho = 0, the class does not change under shifts inside a half (no pattern crosses the middle). At rho = 1,
    the half determines the class, and the pattern only confirms it. If `side` is even, a shift by half of it around a torus of
    rows exchanges the halves. With `same_pattern`, this shift maps the distribution of one class to that of the other. A
    circular convolution with global pooling gives an image and its shift the same label, so that its accuracy is one half.

    Prediction: A convolution with global pooling does not depend on rho. Locally connected kernels learn the half. They are
    better if the noise hides the pattern and rho is near 1. Otherwise they are worse, and the more so the smaller rho is.

    Args:
      side: The number of pixels of an image along each axis, at least twice that of a pattern.
      size: The number of pixels of a pattern along each axis.
      rho: The informativeness of the position, from 0 (none) to 1 (complete). It may be a tracer.
      key: The key of the two patterns.
      noise: The standard deviation of the noise of every pixel.
      same_pattern: Whether both classes have the first pattern. It may be a tracer.

    Raises:
      ValueError: `rho` is not between 0 and 1, a pattern does not fit into a half, or `noise` is negative.

    Example:
      >>> x, y = flying(8, 3, 1.0, jax.random.key(0), noise=0.0).sample(jax.random.key(1), 4)
      >>> bool((((x[:, :4] != 0).any((1, 2, 3))) == y).all())
      True

    Reference: Discussions of teaching texts, for the question: must position be learnt if birds fly and pigs do not?
    """
    n, k = as_integer("side", side), as_integer("size", size)
    known = check.is_known(rho)
    if (known and not 0 <= rho <= 1) or 2 * k > n:
        raise ValueError(f"rho is {rho} and size {k} of {n} pixels; needs a rho of 0 to 1, and a size of at most half the side")
    patterns, last_row, sigma = jax.random.normal(key, (2, k, k)), n // 2 - k, deviation(noise)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        uniform_key, noise_key = jax.random.split(key)
        u_class, u_half, u_row, u_column = jax.random.uniform(uniform_key, (4,))
        y = (u_class < 0.5).astype(jnp.int32)
        is_upper = (u_half < (1 + rho) / 2) == (y == 1)
        row = jnp.floor(u_row * (last_row + 1)).astype(int) + jnp.where(is_upper, 0, n - n // 2)
        column = jnp.floor(u_column * (n - k + 1)).astype(int)
        x = sigma * jax.random.normal(noise_key, (n, n))
        animal = jax.lax.dynamic_update_slice(jnp.zeros((n, n)), patterns[jnp.where(same_pattern, 0, y)], (row, column))
        return (x + animal)[..., None], y

    return Task(f"flying, rho {rho:g}" if known else "flying", (n, n, 1), ("pig", "bird"), sampler(draw))
