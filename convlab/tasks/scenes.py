"""Scenes: where something is, whether it is there, what stands left of what, and what its place says of its kind."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from convlab import check
from convlab.geometry import as_integer
from convlab.tasks.task import Task, deviation, one_by_one

SIDE, BOX = 32, 4  # of scenes with a red and a green box, and of a box
LEFT, GAP, END = (0, 10), 5, 28  # columns of the left box; from there to the right one at least; where that one ends


def red_green(*, moved: bool = False) -> Task:
    """Which of two boxes is on the left, in scenes whose rows betray the class.

    Black images of 32x32 with a red and a green box of 4x4. Class 0 has red on the left, and its boxes begin at rows of
    7 + U{-4..3}; class 1 has green on the left, and rows of 23 + U{-4..3}. A row is drawn for each box by itself. The left box
    begins at a column U{0..9}, the right one between 5 columns further and column 27, uniformly. `moved` exchanges the rows of
    the classes: 16 down, and 16 up.

    Symmetries: a shift of all columns leaves the order; around a torus of rows the two tests are the same images.

    Predicted: a network that cannot know rows (a convolution that is circular, or crops nothing, then global pooling) scores
    alike on both. A network that can know them, by a border or by kernels that differ by position, fails on moved boxes.

    Args:
      moved: Exchange the rows of the classes.

    Example:
      >>> x, y = red_green().sample(jax.random.key(0), 4)
      >>> x.shape, float(x.sum(0).max()) <= 4
      ((4, 32, 32, 3), True)

    Reference: Kayhan and van Gemert 2020, On translation invariance in CNNs, section on the border.
    """

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, rows, first, second = jax.random.split(key, 4)
        y = jax.random.randint(which, (), 0, 2)
        row = jnp.where(y != moved, 23, 7) + jax.random.randint(rows, (2,), -4, 4)
        left = jax.random.randint(first, (), *LEFT)
        right = jax.random.randint(second, (), left + GAP, END)
        at = jnp.arange(SIDE)[:, None]
        down, across = ((at >= begin) & (at < begin + BOX) for begin in (row, jnp.stack([left, right])))
        boxes = down[:, None] & across  # (row, column, box), the left box first
        colours = jnp.where(y, boxes[..., ::-1], boxes)
        return jnp.pad(colours, ((0, 0), (0, 0), (0, 1))).astype(jnp.float32), y

    return Task("red green", (SIDE, SIDE, 3), ("red left", "green left"), one_by_one(draw))


def coordinates(side: int, split: str = "uniform", *, held_out: bool = False, key: PRNGKeyArray | None = None) -> Task:
    """Name the pixel that two numbers stand for: coordinate classification.

    The input is one pixel of two channels, the row and the column, scaled to -1 to 1; the class is the number of that pixel in
    the image, row by row. Of the "uniform" split a fifth of the pixels, drawn at random, is held out; of the "quadrant" split
    the pixels whose row and column are both in the second half (a fifth of four pixels is one).

    Symmetries: none of the input, as every pixel is a class of its own; exchanging rows and columns renames the classes.

    Predicted: networks that are convolutions of the tiled coordinates memorise the training pixels slowly and fail on the held
    out quadrant; with coordinates among the channels of the image the task is trivial at every rung.

    Args:
      side: Pixels along each axis.
      split: "uniform" or "quadrant".
      held_out: Draw the pixels that are held out, not those to train on.
      key: Of the uniform split; absent, key 0.

    Raises:
      ValueError: An unknown split, or fewer than two pixels an axis.

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
        place = jnp.stack(jnp.divmod(y, n))
        return (2 * place / (n - 1) - 1).astype(jnp.float32)[None], y

    return Task(f"coordinates, {split}", (1, 2), tuple(map(str, range(n * n))), one_by_one(draw))


def template(
    side: int,
    size: int,
    clutter: int,
    key: PRNGKeyArray,
    *,
    noise: float = 0.0,
    columns: Sequence[int] | None = None,
) -> Task:
    r"""Whether a known pattern stands in a scene, among patterns that it could be mistaken for.

    $$X = \sum_{q} T_{p_q} P_{m_q} + \sigma \epsilon$$

    Every scene has `clutter` + 1 patterns at uniform places, with overlaps added. In class 1 the first is the wanted one; all
    others, and the first of class 0, are drawn from eight others of the same law, N(0, 1) a pixel.

    Symmetries: shifts of all patterns, as far as the scene has room.

    Predicted: a convolution with windows of the pattern's size and a maximum over positions needs about as many examples as the
    pattern has pixels, wherever it stands; a locally connected network that many at every position, a dense one more; where
    `columns` keep the wanted pattern to a part of the scene in training, only shared kernels find it elsewhere.

    Args:
      side: Pixels of a scene along each axis.
      size: Of a pattern.
      clutter: Patterns besides the first.
      key: Draws the patterns.
      noise: sigma.
      columns: First and last column at which the first pattern may begin; absent, all.

    Raises:
      ValueError: Patterns do not fit, a count is below its least, or a negative noise.

    Example:
      >>> x, y = template(9, 3, 2, jax.random.key(0)).sample(jax.random.key(1), 4)
      >>> x.shape
      (4, 9, 9, 1)

    Reference: of the question, Zhang et al., Dive into Deep Learning, section 7.1 ("Where's Waldo").
    """
    n, k = as_integer("side", side), as_integer("size", size)
    many, room = as_integer("clutter", clutter, least=0) + 1, n - k
    if room < 0:
        raise ValueError(f"a pattern of {k} pixels does not fit into {n}")
    low, high = (0, room) if columns is None else (as_integer("columns", column, least=0) for column in columns)
    if not 0 <= low <= high <= room:
        raise ValueError(f"columns are {low} to {high} but a pattern of {k} pixels can begin at 0 to {room} of {n}")
    patterns, sigma = jax.random.normal(key, (9, k, k)), deviation(noise)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        which, kinds, places, first, rest = jax.random.split(key, 5)
        y = jax.random.randint(which, (), 0, 2)
        kind = jax.random.randint(kinds, (many,), 1, len(patterns))
        kind = kind.at[0].set(jnp.where(y, 0, kind[0]))
        place = jax.random.randint(places, (many, 2), 0, room + 1)
        place = place.at[0, 1].set(jax.random.randint(first, (), low, high + 1))
        offsets = jnp.arange(k)
        at = place[:, 0, None, None] + offsets[:, None], place[:, 1, None, None] + offsets
        x = sigma * jax.random.normal(rest, (n, n))
        return x.at[at].add(patterns[kind])[..., None], y

    return Task("template", (n, n, 1), ("absent", "there"), one_by_one(draw))


def flying(
    side: int, size: int, rho: float | jax.Array, key: PRNGKeyArray, *, noise: float = 1.0, alike: bool | jax.Array = False
) -> Task:
    r"""Birds above and pigs below, more or less often: a dial between what a thing is and where it stands.

    $$P(\text{upper half} \mid y = 1) = P(\text{lower half} \mid y = 0) = (1 + \rho) / 2$$

    One of two patterns, N(0, 1) a pixel, stands at a uniform place of the half and is the class; everything has noise. Where
    both are alike, the half is all there is.

    Symmetries: at rho = 0 shifts within a half, as far as it has room (no pattern crosses the middle); at rho = 1 the class is
    the half, and the pattern only confirms it. Of an even side, half of it round a torus of rows exchanges the halves: of
    patterns that are alike the shifted image is of the other class, and a circular convolution with global pooling, which gives
    both one label, is right half of the time.

    Predicted: a convolution with global pooling takes no notice of rho; kernels of their own at each position learn the half,
    and win where the pattern drowns in noise and rho is near 1, and lose otherwise, the more the smaller rho.

    Args:
      side: Pixels of an image along each axis, at least twice those of a pattern.
      size: Of a pattern.
      rho: 0 for places that say nothing, 1 for places that say all; may be traced.
      key: Draws the two patterns.
      noise: Standard deviation of every pixel.
      alike: Give both classes the first pattern; may be traced.

    Raises:
      ValueError: rho is not from 0 to 1, a pattern does not fit into a half, or a negative noise.

    Example:
      >>> x, y = flying(8, 3, 1.0, jax.random.key(0), noise=0.0).sample(jax.random.key(1), 4)
      >>> bool((((x[:, :4] != 0).any((1, 2, 3))) == y).all())
      True

    Reference: of the question, discussions of teaching texts: must position be learnt, where birds fly and pigs do not?
    """
    n, k = as_integer("side", side), as_integer("size", size)
    known = check.is_known(rho)
    if (known and not 0 <= rho <= 1) or 2 * k > n:
        raise ValueError(f"rho is {rho} and patterns have {k} of {n} pixels; needs 0 to 1, and at most half the side")
    patterns, room, sigma = jax.random.normal(key, (2, k, k)), n // 2 - k, deviation(noise)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        first, rest = jax.random.split(key)
        which, usual, rows, columns = jax.random.uniform(first, (4,))
        y = (which < 0.5).astype(jnp.int32)
        upper = (usual < (1 + rho) / 2) == (y == 1)
        row = jnp.floor(rows * (room + 1)).astype(int) + jnp.where(upper, 0, n - n // 2)
        column = jnp.floor(columns * (n - k + 1)).astype(int)
        x = sigma * jax.random.normal(rest, (n, n))
        here = jax.lax.dynamic_update_slice(jnp.zeros((n, n)), patterns[jnp.where(alike, 0, y)], (row, column))
        return (x + here)[..., None], y

    return Task(f"flying, rho {rho:g}" if known else "flying", (n, n, 1), ("pig", "bird"), one_by_one(draw))
