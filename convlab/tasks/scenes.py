"""Tasks on scenes: the order, the presence and the position of objects."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.choices import one_of
from convlab.geometry import as_integer
from convlab.tasks.task import Task, check_noise, make_sampler

SIDE, BOX = 32, 4  # the sides of a scene with a red and a green box, and of a box
LEFT, GAP, END = (0, 10), 5, 28  # range of the left box's first column, smallest distance to that of the right box, its end


def red_green(*, swap_rows: bool = False) -> Task:
    """Make a task that asks for the left one of a red and a green box, with rows that reveal it.

    An image is black and has 32x32 pixels with a red and a green box of 4x4. The label is 0 if the red box is on the left, and
    1 if the green box is. The boxes of class 0 begin at rows 7 + U{-4..3}, and those of class 1 at rows 23 + U{-4..3}. The rows
    of the two boxes are independent. The left box begins at a column U{0..9}, the right box uniformly between 5 columns further
    and column 27. `swap_rows` exchanges the rows of the classes, so that boxes move down by 16 rows in class 0 and up by 16
    rows in class 1.

    Symmetries: A shift of all columns leaves the label unchanged. Images with swapped rows are the same images shifted by 16
    rows around a torus.

    Predicted accuracy: A network that cannot encode rows has the same accuracy on images with and without swapped rows. An
    example is a convolution with global pooling whose padding is circular or crops nothing. A network that can encode rows
    learns them in place of the order of the colours and fails on swapped rows. Kernels that differ by position can encode rows,
    and so can the border of an image.

    Args:
      swap_rows: Whether to exchange the rows of the classes.

    Example:
      >>> x, y = red_green().sample(jax.random.key(0), 4)
      >>> x.shape, float(x.sum(0).max()) <= 4
      ((4, 32, 32, 3), True)

    Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
    """
    check.flag("swap_rows", swap_rows)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        class_key, row_key, left_key, right_key = jax.random.split(key, 4)
        y = jax.random.randint(class_key, (), 0, 2)
        row = jnp.where(y != swap_rows, 23, 7) + jax.random.randint(row_key, (2,), -4, 4)
        left = jax.random.randint(left_key, (), *LEFT)
        right = jax.random.randint(right_key, (), left + GAP, END)
        pixel = jnp.arange(SIDE)[:, None]
        rows, columns = ((pixel >= start) & (pixel < start + BOX) for start in (row, jnp.stack([left, right])))
        boxes = rows[:, None] & columns  # (row, column, box), the left box first
        colours = jnp.where(y, boxes[..., ::-1], boxes)
        return jnp.pad(colours, ((0, 0), (0, 0), (0, 1))).astype(jnp.float32), y

    return Task("red green", (SIDE, SIDE, 3), ("red left", "green left"), make_sampler(draw))


def coordinate_classification(
    side: int, split: str = "uniform", *, held_out: bool = False, key: PRNGKeyArray | None = None
) -> Task:
    """Make a task that asks for the number of a pixel whose coordinates are the input.

    The input names a pixel of a canvas of side x side pixels. An image has one position with two channels: the pixel's row and
    column, each scaled to the range from -1 to 1. The label is the pixel's number in row-major order, side * row + column. So
    there are as many classes as pixels.

    The canvas is split into training pixels and held-out pixels. The "uniform" split holds out a random fifth of the pixels,
    but at least one. The "quadrant" split holds out the pixels whose row and column are both in the second half. The class of a
    held-out pixel never occurs in training, so a network has to infer it from the geometry of the canvas.

    Symmetries: Every pixel is a class, so no shift or permutation of the canvas leaves the label unchanged. Exchanging the two
    channels transposes the canvas, which permutes the labels.

    Predicted accuracy: Consider a convolutional network that maps the coordinates, copied to all positions of the canvas, to a
    score at every position. It memorises the training pixels slowly and fails on the held-out quadrant. Its kernels are shared,
    so they do not depend on the position that must be compared with the input. If every position also has its own coordinates
    as channels (CoordConv), the comparison is trivial at every rung.

    Args:
      side: The number of pixels of the canvas along each axis.
      split: The name of the split, "uniform" or "quadrant".
      held_out: Whether to draw from the held-out pixels instead of the training pixels.
      key: The key of the uniform split. If None, key 0.

    Raises:
      ValueError: `split` is unknown, or `side` is below 2.
      TypeError: `side` is not an integer.

    Example:
      >>> x, y = coordinate_classification(8, "quadrant", held_out=True).sample(jax.random.key(0), 5)
      >>> bool((x > 0).all() and (y >= 32).all())
      True

    Reference: Liu et al. 2018, An intriguing failing of convolutional neural networks and the CoordConv solution, section 3.
    """
    n = as_integer("side", side, least=2)
    one_of("split", split, ("uniform", "quadrant"))
    check.flag("held_out", held_out)
    check.shape_fits("the names of side x side classes", n, n, itemsize=100)
    pixels = jnp.arange(n * n)
    if split == "uniform":
        order = jax.random.permutation(jax.random.key(0) if key is None else check.key("key", key), n * n)
        out = jnp.zeros(n * n, bool).at[order[: max(1, n * n // 5)]].set(True)
    else:
        out = (pixels // n >= n - n // 2) & (pixels % n >= n - n // 2)
    allowed = pixels[out == held_out]

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        y = allowed[jax.random.randint(key, (), 0, len(allowed))]
        position = jnp.stack(jnp.divmod(y, n))
        return (2 * position / (n - 1) - 1).astype(jnp.float32)[None], y

    return Task(f"coordinate classification, {split}", (1, 2), tuple(map(str, range(n * n))), make_sampler(draw))


def template_detection(
    side: int,
    pattern_size: int,
    distractors: int,
    key: PRNGKeyArray,
    *,
    noise: float = 0.0,
    columns: Sequence[int] | None = None,
) -> Task:
    r"""Make a task that asks whether a fixed pattern is present among distractors.

    $$X = \sum_{q} T_{p_q} P_{m_q} + \sigma \epsilon$$

    Here $T_p$ places a pattern at position p, and overlapping patterns add. An image holds `distractors` + 1 patterns at
    uniform positions. In class 1, the first of them is the target. In class 0, the first is a distractor too. All other
    patterns are distractors, drawn from eight different ones. The target and the eight distractors are drawn once, with pixels
    from N(0, 1). The label is class 1 if the target is present, else class 0.

    Symmetries: A shift of all patterns inside the image leaves the label unchanged.

    Predicted number of examples:

    - Convolution with windows of the pattern's size and a maximum over positions: about as many as the pattern has pixels,
      since one kernel learns from all positions together.
    - Locally connected: that many at every position, since every position has its own kernel.
    - Dense: more, since the windows are not known.

    If `columns` restricts the target in training, only shared kernels detect it elsewhere.

    Args:
      side: The number of pixels of an image along each axis.
      pattern_size: The number of pixels of a pattern along each axis.
      distractors: The number of patterns besides the first.
      key: The key of the patterns.
      noise: The standard deviation sigma of the noise of every pixel.
      columns: The first and the last column at which the first pattern may begin. If None, all columns.

    Raises:
      ValueError: The patterns do not fit, a count is below its minimum, or `noise` is negative or not finite.
      TypeError: A count or a column is not an integer.

    Example:
      >>> x, y = template_detection(9, 3, 2, jax.random.key(0)).sample(jax.random.key(1), 4)
      >>> x.shape
      (4, 9, 9, 1)

    Reference: Zhang et al., Dive into Deep Learning, section 7.1 ("Where's Waldo"), for the question.
    """
    n, k = as_integer("side", side), as_integer("pattern_size", pattern_size)
    count, last = as_integer("distractors", distractors, least=0) + 1, n - k
    if last < 0:
        raise ValueError(f"pattern_size is {k}; a pattern of {k} pixels does not fit into {n}")
    ends = [0, last] if columns is None else check.sequence("columns", columns, "the first and the last column")
    if len(ends) != 2:
        raise ValueError(f"columns must be the first and the last column, got {len(ends)} numbers")
    low, high = (as_integer("columns", column, least=0) for column in ends)
    if not 0 <= low <= high <= last:
        raise ValueError(f"columns are {low} to {high}; a pattern of {k} pixels can begin at 0 to {last} of {n}")
    check.shape_fits("patterns of pattern_size", 9, k, k)
    check.shape_fits("an image of side and its distractors", n * n + count * k * k)
    patterns, sigma = jax.random.normal(check.key("key", key), (9, k, k)), check_noise(noise)

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

    return Task("template detection", (n, n, 1), ("absent", "present"), make_sampler(draw))


def flying_pigs(
    side: int,
    pattern_size: int,
    rho: float | jax.Array,
    key: PRNGKeyArray,
    *,
    noise: float = 1.0,
    same_pattern: bool | jax.Array = False,
) -> Task:
    r"""Make a task of birds in the upper half of an image and pigs in the lower half.

    $$P(\text{upper half} \mid y = 1) = P(\text{lower half} \mid y = 0) = (1 + \rho) / 2$$

    An image holds one of two patterns at a uniform position in one half, plus Gaussian noise. The patterns are drawn once, with
    pixels from N(0, 1). The label is the pattern: 1 is a bird, 0 is a pig. A bird is usually in the upper half and a pig in the
    lower half, with the probability above. So rho sets how informative the position is. With `same_pattern`, both classes have
    the same pattern, and only the position is informative.

    Symmetries: At rho = 0, shifts inside a half leave the label unchanged (no pattern crosses the middle). At rho = 1, the half
    determines the label, and the pattern only confirms it. If `side` is even, a shift by half of it around a torus of rows
    exchanges the halves. With `same_pattern`, this shift maps the distribution of one class to that of the other. A circular
    convolution with global pooling gives an image and its shift the same label, so that its accuracy is one half.

    Predicted accuracy: That of a convolution with global pooling does not depend on rho, since it cannot encode the half.
    Locally connected kernels learn the half. They are better than the convolution if the noise hides the pattern and rho is
    near 1. Otherwise they are worse, and the more so the smaller rho is.

    Args:
      side: The number of pixels of an image along each axis, at least twice that of a pattern.
      pattern_size: The number of pixels of a pattern along each axis.
      rho: The informativeness of the position, from 0 (none) to 1 (complete). It may be a tracer, which is not checked.
      key: The key of the two patterns.
      noise: The standard deviation of the noise of every pixel.
      same_pattern: Whether both classes have the first pattern. It may be a tracer.

    Raises:
      ValueError: `rho` is not between 0 and 1, a pattern does not fit into a half, or `noise` is negative or not finite.
      TypeError: A size is not an integer.

    Example:
      >>> x, y = flying_pigs(8, 3, 1.0, jax.random.key(0), noise=0.0).sample(jax.random.key(1), 4)
      >>> bool((((x[:, :4] != 0).any((1, 2, 3))) == y).all())
      True

    Reference: Discussions of teaching texts, for the question: must position be learnt if birds fly and pigs do not?
    """
    n, k = as_integer("side", side), as_integer("pattern_size", pattern_size)
    is_concrete = check.is_concrete(check.number("rho", rho))
    check.flag("same_pattern", same_pattern)
    if (is_concrete and not 0 <= rho <= 1) or 2 * k > n:
        raise ValueError(
            f"rho is {rho} and pattern_size {k} of {n} pixels; needs a rho of 0 to 1, and a pattern of at most half the side"
        )
    check.shape_fits("patterns of pattern_size", 2, k, k)
    patterns, last_row, sigma = jax.random.normal(check.key("key", key), (2, k, k)), n // 2 - k, check_noise(noise)

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

    name = f"flying pigs, rho {rho:g}" if is_concrete else "flying pigs"
    return Task(name, (n, n, 1), ("pig", "bird"), make_sampler(draw))
