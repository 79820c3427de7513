r"""How much a convolution can stretch an image, and how to keep it from that.

On a torus every frequency goes through a c x d matrix of its own, so that the singular values of the dense matrix are those of
these matrices, all together; with zeros outside the dense matrix is a part of one on a larger torus, and stretches no more.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from convlab import check
from convlab.algebra.offsets import reach
from convlab.geometry import Space, Window, as_space


def transfer(v: Float[Array, "a b c d"], window: Window, space: Space) -> Complex[Array, "k l c d"]:
    r"""Return what a convolution on a torus does to each frequency: the Fourier transform of its kernel.

    $$\hat V_{fg} = \sum_{ab} V_{ab}\, e^{-2 \pi i (f a / n + g b / m)}$$

    over pixels (a, b) from the output's own; the images' transforms go through its conjugate.

    Args:
      v: A kernel.
      window: Where each position reads: "CIRCULAR", stride 1.
      space: Pixels along each spatial axis.

    Raises:
      ValueError: Another padding or stride, or `v` is not a kernel of this window.
      TypeError: `v` is not floating.

    Example:
      >>> abs(transfer(jnp.array([0.25, 0.5, 0.25]).reshape(3, 1, 1), Window(3, padding="CIRCULAR"), (4,))).squeeze()
      Array([1. , 0.5, 0. , 0.5], dtype=float32)

    Reference: Sedghi, Gupta and Long 2019, The singular values of convolutional layers, theorem 6.
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    if window.padding != "CIRCULAR" or np.max(window.of_rank(rank).strides) > 1:
        raise ValueError(f"{window} is not the window of a torus; needs padding 'CIRCULAR' and stride 1")
    return jnp.fft.fftn(_wrapped(v, rank, window, as_space(space)), axes=tuple(range(rank)))


def clip_norm(
    v: Float[Array, "a b c d"], window: Window, space: Space, most: float, *, full: bool = True
) -> tuple[Float[Array, "e f c d"], Window]:
    r"""Find the convolution nearest to a circular one that stretches no image by more than `most`.

    $$\hat V_{fg} = P\, \Sigma\, Q^* \;\to\; P \min(\Sigma, \text{most})\, Q^*$$

    frequency by frequency: the orthogonal projection of the dense matrix onto the ball of the operator norm.

    Args:
      v: A kernel.
      window: Where each position reads: "CIRCULAR", stride 1.
      space: Pixels along each spatial axis.
      most: Largest singular value that is left.
      full: Return the projection, which has taps on the whole image; else those of its taps that `window` has, whose norm may
        exceed `most` by a little (`scale_norm` then takes it down).

    Returns:
      v: The kernel.
      window: Its window.

    Raises:
      ValueError: Another padding or stride, `v` is not a kernel of this window, `most` is negative, or, with `full=False`, taps
        of `window` that read one pixel of a small image.
      TypeError: `v` is not floating.

    Example:
      >>> v, window = clip_norm(jnp.array([1.0, 2.0, 1.0]).reshape(3, 1, 1), Window(3, padding="CIRCULAR"), (5,), 4.0)
      >>> v.squeeze().round(3)
      Array([0., 1., 2., 1., 0.], dtype=float32)

    Reference: Sedghi, Gupta and Long 2019, The singular values of convolutional layers, section 3.
    """
    space, most = as_space(space), _bound(most)
    rank, axes = len(space), tuple(range(len(space)))
    left, sigma, right = jnp.linalg.svd(transfer(v, window, space), full_matrices=False)
    clipped = jnp.matmul(left * jnp.minimum(sigma, most)[..., None, :], right, precision="highest")
    whole = jnp.fft.ifftn(clipped, axes=axes).real.astype(jnp.asarray(v).dtype)
    wide = Window(space, padding="CIRCULAR")
    kept = wide if full else window.of_rank(rank)
    places = [axis.reads[0] for axis in kept.axes(space)]
    if any(len(set(reads)) < len(reads) for reads in places):
        raise ValueError(f"{window} has taps that read one pixel of {space}; give full=True")
    return whole[np.ix_(*places)], kept


def norm_bound(v: Float[Array, "a b c d"], window: Window, space: Space) -> Float[Array, ""]:
    """Bound the operator norm of a convolution: the largest singular value on a torus that has room for its padding.

    It is the norm itself where the convolution is circular with stride 1. With zeros outside it exceeds the norm the less the
    larger the image; leaving outputs out, as a stride does, takes nothing from it.

    Args:
      v: A kernel.
      window: Where each position reads; padding with zeros or "CIRCULAR".
      space: Pixels along each spatial axis.

    Raises:
      ValueError: A padding that repeats pixels ("REFLECT", "EDGE"), or `v` is not a kernel of this window.
      TypeError: `v` is not floating.

    Example:
      >>> float(norm_bound(jnp.array([1.0, 2.0, 1.0]).reshape(3, 1, 1), Window(3), (5,)))
      4.0
    """
    v, rank = check.kernel("v", v, spatial=1, others="c d")
    if window.padding in ("REFLECT", "EDGE"):
        raise ValueError(f"{window} shows pixels twice, which this bound does not know; needs zeros or a torus outside")
    check.taps("v", v.shape[:rank], window)
    axes = window.axes(space)
    around = axes[0].mode == "wrap"
    room = tuple(axis.pixels + (0 if around else axis.dilation * (axis.size - 1)) for axis in axes)
    torus = Window(v.shape[:rank], padding="CIRCULAR", dilation=tuple(axis.dilation for axis in axes))
    return jnp.linalg.svd(transfer(v, torus, room), compute_uv=False).max()


def scale_norm(v: Float[Array, "a b c d"], window: Window, space: Space, most: float) -> Float[Array, "a b c d"]:
    """Make a kernel smaller, if it must be, so that its convolution stretches no image by more than `most`.

    Args:
      v: A kernel.
      window: Where each position reads; padding with zeros or "CIRCULAR".
      space: Pixels along each spatial axis.
      most: What `norm_bound`, and with it the operator norm, is at most.

    Raises:
      ValueError: As of `norm_bound`, or `most` is negative.
      TypeError: `v` is not floating.

    Example:
      >>> scale_norm(jnp.array([1.0, 2.0, 1.0]).reshape(3, 1, 1), Window(3), (5,), 1.0).squeeze()
      Array([0.25, 0.5 , 0.25], dtype=float32)
    """
    most = _bound(most)
    bound = norm_bound(v, window, space)
    above = bound > most
    return v * jnp.where(above, most / jnp.where(above, bound, 1), 1)  # a kernel of zeros is not divided by: its gradient is 1


def _bound(most: float) -> float:
    if check.is_known(most) and not most >= 0:
        raise ValueError(f"most is {most}; needs a number from 0 up: what an image may be stretched by")
    return most


def _wrapped(v: Array, rank: int, window: Window, space: tuple[int, ...]) -> Array:
    """Lay a kernel on the torus by the pixels it reads from position 0; taps on one pixel add."""
    axes, _ = reach(v, rank, window, space)
    places = [(axis.step * np.arange(axis.size) - axis.low) % n for axis, n in zip(axes, space, strict=True)]
    return jnp.zeros((*space, *v.shape[-2:]), v.dtype).at[np.ix_(*places)].add(v)
