"""The dense matrix of a linear layer: its singular values, rank and null space.

The dense matrix A of a layer that maps images x to activations h is its Jacobian. A small matrix is written out and
decomposed. A convolution on a torus is decomposed frequency by frequency. For other large matrices, only products of the
matrix and its transpose with vectors are used.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.algebra import transfer
from convlab.geometry import Space, Window, as_integer, as_space
from convlab.ops.conv import conv

Function = Callable[[Array], Array]

LARGEST = 2**24  # the most entries of a matrix that "auto" writes out, which takes seconds to decompose
OVERSAMPLING = 5  # the directions of a Krylov block beyond the number of wanted values
CONVERGED = 1e-8  # the relative change of the singular values below which a Krylov space is large enough


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear function of one image, or the linear part of an affine function.

    Args:
      function: A function from an image (*space, c) to activations of any shape.
      shape: The shape (*space, c) of the image.
      kernel: The kernel, if the function is a convolution.
      window: The window of that convolution.

    Raises:
      ValueError: The function does not take such an image.

    Example:
      >>> Linear(lambda x: 2 * x[1:], (5, 3)).output_shape
      (4, 3)
    """

    function: Function
    shape: Sequence[int]
    kernel: Array | None = None
    window: Window | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(as_integer("shape", n) for n in self.shape))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the activations."""
        return jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.shape, self.dtype)).shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the image: the kernel's, or JAX's default floating dtype."""
        return jnp.result_type(float) if self.kernel is None else self.kernel.dtype

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of rows and columns: the sizes of the activations and of the image."""
        return math.prod(self.output_shape), math.prod(self.shape)

    def apply(self, x: Array) -> Array:
        """Return A x."""
        return jax.jvp(self.function, (jnp.zeros(self.shape, self.dtype),), (x.astype(self.dtype),))[1]

    def transpose(self, y: Array) -> Array:
        r"""Return $A^\top y$."""
        return jax.vjp(self.function, jnp.zeros(self.shape, self.dtype))[1](y.astype(self.dtype))[0]

    def matrix(self) -> Float[Array, "outputs pixels"]:
        r"""Write out the matrix, with activations and images as flat vectors.

        $$A_{(ijd),(klc)} = \partial H_{ijd} / \partial X_{klc}$$

        Example:
          >>> convolution(jnp.array([1.0, 2.0]).reshape(2, 1, 1), Window(2, padding="VALID"), (3,)).matrix()
          Array([[1., 2., 0.],
                 [0., 1., 2.]], dtype=float32)
        """
        rows, columns = self.sizes
        jacobian = jax.jacfwd if columns <= rows else jax.jacrev
        return jacobian(self.function)(jnp.zeros(self.shape, self.dtype)).reshape(rows, columns)


def convolution(v: Float[Array, "a b c d"], window: Window, space: Space) -> Linear:
    """Return a convolution as a linear function of one image.

    Args:
      v: The kernel of the convolution.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: `v` is not a kernel of this window.
      TypeError: `v` is not floating.

    Example:
      >>> convolution(jnp.ones((3, 3, 2, 7)), Window(3, 2), (4, 5)).sizes
      (42, 40)
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    check.taps("v", v.shape[:ndim], window)
    check.agree("space has {} axes", (len(space),), f"v of shape {v.shape} has {{}}", (ndim,))
    return Linear(lambda x: conv(x, v, window), (*as_space(space), v.shape[-2]), v, window.with_ndim(ndim))


def singular_values(linear: Linear, method: str = "auto", *, most: int | None = None) -> Float[np.ndarray, "s"]:
    """Return the singular values of the dense matrix, largest first.

    Args:
      linear: The linear function.
      method: The method, one of four. "dense" decomposes the matrix; it gives all values and is exact. "fourier" decomposes a
        "CIRCULAR" convolution of stride 1 frequency by frequency; it gives all values, exact to rounding. "krylov" finds the
        largest values from products with the matrix and its transpose, until they change by less than a share of 1e-8.
        "auto" is "fourier" if it applies, else "dense" for up to 2**24 entries, else "krylov".
      most: The number of largest values to return. If None, all values, or one with "krylov".

    Returns:
      At most min(rows, columns) numbers.

    Raises:
      ValueError: The method is unknown, `most` is below 1, or the function is no convolution on a torus as "fourier" needs.

    Example:
      >>> singular_values(convolution(jnp.eye(2).reshape(1, 1, 2, 2), Window(1), (2, 1)))
      array([1., 1., 1., 1.], dtype=float32)

    Reference: Sedghi, Gupta and Long 2019, The singular values of convolutional layers; Musco and Musco 2015, Randomized block
    Krylov methods for stronger and faster approximate singular value decomposition.
    """
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; needs 'auto' or one of {', '.join(METHODS)}")
    most = most if most is None else as_integer("most", most)
    if method == "auto":
        method = "fourier" if _circular(linear) else "dense" if math.prod(linear.sizes) <= LARGEST else "krylov"
    return METHODS[method](linear, most)[:most]


def matrix_rank(linear: Linear, tolerance: float | None = None) -> int:
    """Compute the rank of the dense matrix: the number of singular values above a threshold.

    Args:
      linear: The linear function.
      tolerance: The threshold, as a share of the largest singular value. If None, the threshold is `rounding` of sums that are
        as long as the longer side of the matrix.

    Raises:
      ValueError: The matrix has more than 2**24 entries, too many to write out, and is no convolution on a torus.

    Example:
      >>> matrix_rank(convolution(jnp.ones((3, 1, 1)), Window(3, padding="CIRCULAR"), (6,)))  # two frequencies map to 0
      4
    """
    if not _circular(linear):
        _check_small(linear)
    return numerical_rank(singular_values(linear), tolerance, max(linear.sizes), linear.dtype)


def null_space(linear: Linear, tolerance: float | None = None) -> Float[np.ndarray, "lost ..."]:
    """Return an orthonormal basis of the images that a layer maps to zero.

    Args:
      linear: The linear function.
      tolerance: The threshold for singular values, as in `matrix_rank`.

    Returns:
      Basis images, each of the image's shape. Their number is pixels times channels minus the rank.

    Raises:
      ValueError: The matrix has more than 2**24 entries.

    Example:
      >>> lost = null_space(convolution(jnp.ones((2, 1, 1)), Window(2, padding="VALID"), (4,)))
      >>> (2 * lost / lost[0, 0]).round(3).squeeze()
      array([ 2., -2.,  2., -2.], dtype=float32)
    """
    _check_small(linear)
    _, sigma, right = np.linalg.svd(np.linalg.qr(_decomposable_matrix(linear), mode="r"))
    return right[numerical_rank(sigma, tolerance, max(linear.sizes), linear.dtype) :].reshape(-1, *linear.shape)


def rounding(width: int, dtype: DTypeLike) -> float:
    r"""Return the share of the largest singular value below which another may be rounding error.

    The largest singular value of n x d entries of root mean square 1 is at least $\sqrt{\max(n, d)}$. Rounding each entry to a
    resolution of $\epsilon$ adds a matrix of norm at most about $\tfrac{\epsilon}{2} (\sqrt n + \sqrt d)$, which is a share
    of at most $\epsilon$. A sum of `width` numbers is computed in float32 or finer, with an error of up to `width` times that
    dtype's resolution.

    Args:
      width: The number of terms in a sum.
      dtype: The dtype of the entries.

    Example:
      >>> rounding(128, jnp.bfloat16) == 2**-7, rounding(128, jnp.float32) == 128 * 2**-23
      (True, True)
    """
    return max(float(jnp.finfo(dtype).eps), width * float(jnp.finfo(_at_least_single(dtype)).eps))


def numerical_rank(sigma: np.ndarray, tolerance: float | None, width: int, dtype: DTypeLike) -> int:
    """Count the singular values above a share of the largest one.

    If `tolerance` is None, the share is `rounding`.
    """
    threshold = rounding(width, dtype) if tolerance is None else tolerance
    return int(np.sum(sigma > threshold * sigma[0]))


def _dense(linear: Linear, most: int | None) -> np.ndarray:
    return np.linalg.svd(_decomposable_matrix(linear), compute_uv=False)


def _fourier(linear: Linear, most: int | None) -> np.ndarray:
    if linear.kernel is None or linear.window is None:
        raise ValueError("method 'fourier' needs a convolution with its kernel and window; build it with `convolution`")
    v = linear.kernel.astype(_at_least_single(linear.dtype))
    symbol = np.asarray(transfer(v, linear.window, linear.shape[:-1]))
    return np.sort(np.linalg.svd(symbol, compute_uv=False), axis=None)[::-1]


def _krylov(linear: Linear, most: int | None) -> np.ndarray:
    """Extend an orthonormal Krylov basis until the largest singular values settle.

    A block finds singular values of multiplicity above one, which the frequencies of a convolution have. A single vector would
    not.
    """
    wanted, (rows, columns) = most or 1, linear.sizes
    apply = jax.jit(lambda x: jax.vmap(linear.apply)(x.reshape(-1, *linear.shape)).reshape(len(x), -1))
    apply_transpose = jax.jit(lambda y: jax.vmap(linear.transpose)(y.reshape(-1, *linear.output_shape)).reshape(len(y), -1))
    random = np.random.default_rng(0)
    basis, images, gram = np.zeros((0, columns)), np.zeros((0, rows)), np.zeros((0, 0))
    block = random.normal(size=(min(wanted + OVERSAMPLING, columns), columns))
    converged, previous = max(CONVERGED, 8 * float(jnp.finfo(linear.dtype).eps)), np.zeros(wanted)
    while True:
        for _ in range(2):  # the second pass removes the rounding errors of the first
            block = block - (block @ basis.T) @ basis
            block = np.linalg.qr(block.T)[0].T
        basis, images = np.concatenate([basis, block]), np.concatenate([images, np.asarray(apply(jnp.asarray(block)))])
        products = images @ images[-len(block) :].T
        gram = np.block([[gram, products[: -len(block)]], [products.T]])
        values = np.sqrt(np.abs(np.linalg.eigvalsh(gram)))[::-1][:wanted]
        if len(basis) == columns or (len(values) == wanted and np.all(np.abs(values - previous) <= converged * values[0])):
            return np.linalg.svd(images, compute_uv=False)[: min(wanted, rows, columns)].astype(linear.dtype)
        previous = np.resize(values, wanted)
        block = np.asarray(apply_transpose(jnp.asarray(images[-len(block) :])))[: columns - len(basis)]


METHODS: dict[str, Callable[[Linear, int | None], np.ndarray]] = {"dense": _dense, "fourier": _fourier, "krylov": _krylov}


def _circular(linear: Linear) -> bool:
    window = linear.window
    return window is not None and window.padding == "CIRCULAR" and bool(np.max(window.strides) == 1)


def _decomposable_matrix(linear: Linear) -> np.ndarray:
    """Return the matrix in a dtype that can be decomposed."""
    return np.asarray(linear.matrix(), _at_least_single(linear.dtype))


def _at_least_single(dtype: DTypeLike) -> np.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _check_small(linear: Linear) -> None:
    if math.prod(linear.sizes) > LARGEST:
        raise ValueError(
            f"the matrix of {linear.sizes} has more than {LARGEST} entries; `singular_values` finds its largest values"
        )
