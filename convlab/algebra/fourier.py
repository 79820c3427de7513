"""A convolution on a torus, frequency by frequency: every one goes through a matrix of its own."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from convlab import check
from convlab.geometry import Space, Window, as_space


def transfer(v: Float[Array, "a b c d"], window: Window, space: Space) -> Complex[Array, "k l c d"]:
    r"""Return what a convolution on a torus does to each frequency: the Fourier transform of its kernel.

    $$\hat V_{fg} = \sum_{ab} V_{ab}\, e^{-2 \pi i (f a / n + g b / m)}$$

    over pixels (a, b) from the output's own; the images' transforms go through its conjugate. The singular values of these
    c x d matrices, all together, are those of the dense matrix.

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
    window = window.of_rank(rank)
    if window.padding != "CIRCULAR" or np.max(window.strides) > 1:
        raise ValueError(f"{window} is not the window of a torus; needs padding 'CIRCULAR' and stride 1")
    check.taps("v", v.shape[:rank], window)
    pixels = np.ix_(*(axis.reads[0] for axis in window.axes(space)))  # taps on one pixel add
    kernel = jnp.zeros((*as_space(space), *v.shape[-2:]), v.dtype).at[pixels].add(v)
    return jnp.fft.fftn(kernel, axes=tuple(range(rank)))
