"""The transfer function of a convolution on a torus: one matrix per frequency."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from convlab import check
from convlab.geometry import Space, Window, as_space


def transfer_function(v: Float[Array, "a b c d"], window: Window, space: Space) -> Complex[Array, "k l c d"]:
    r"""Return the transfer function of a convolution on a torus: the Fourier transform of its kernel.

    $$\hat V_{fg} = \sum_{ab} V_{ab}\, e^{-2 \pi i (f a / n + g b / m)}$$

    Here (a, b) are the offsets of the taps from the output position, and n and m count pixels. Since convolution means
    cross-correlation, the Fourier transform of the image at frequency (f, g) is multiplied by $\hat V$ at (-f, -g). For a real
    kernel, that is the conjugate of $\hat V_{fg}$. The singular values of the c x d matrices of all frequencies are those of
    the dense matrix.

    Args:
      v: The kernel of a convolution.
      window: The pixels that each position reads, with padding "CIRCULAR" along all axes and stride 1.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: The padding is not "CIRCULAR" along all axes, the stride is not 1, or `v` is not a kernel of this window.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> abs(transfer_function(jnp.array([0.25, 0.5, 0.25]).reshape(3, 1, 1), Window(3, padding="CIRCULAR"), (4,))).squeeze()
      Array([1. , 0.5, 0. , 0.5], dtype=float32)

    Reference: Sedghi, Gupta and Long 2019, The singular values of convolutional layers, theorem 6.
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    check.taps("v", v.shape[:ndim], window)
    window = window.with_ndim(ndim)
    if not is_on_torus(window):
        raise ValueError(f"{window} is no window on a torus; needs padding 'CIRCULAR' along all axes and stride 1")
    check.shape_fits("the frequencies of space", *as_space(space), *v.shape[-2:], itemsize=8)
    pixels = np.ix_(*(axis.reads[0] for axis in window.axes(space)))  # taps that read the same pixel add
    kernel = jnp.zeros((*as_space(space), *v.shape[-2:]), v.dtype).at[pixels].add(v)
    return jnp.fft.fftn(kernel, axes=tuple(range(ndim)))


def is_on_torus(window: Window) -> bool:
    """Return True if a window repeats the image along all axes and has stride 1.

    Raises:
      ValueError: The number of spatial axes is open.
    """
    return {*window.paddings} == {"CIRCULAR"} and bool(np.max(window.strides) == 1)
