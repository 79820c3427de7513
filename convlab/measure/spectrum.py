"""The dense matrix of a linear layer: its singular values, rank and null space.

The dense matrix A of a layer that maps images x to activations h is its Jacobian. A small matrix is written out and
decomposed. A convolution on a torus is decomposed frequency by frequency. For other large matrices, only products of the
matrix and its transpose with vectors are used. Matrices can be complex.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from convlab import check
from convlab.algebra.fourier import is_on_torus, transfer_function
from convlab.choices import one_of
from convlab.geometry import as_integer
from convlab.measure.operator import LinearOperator

LARGEST = 2**24  # the most entries of a matrix that "auto" writes out, which takes seconds to decompose
OVERSAMPLING = 5  # the directions of a Krylov block beyond the number of wanted values
CONVERGED = 1e-8  # the relative change of the singular values below which a Krylov space is large enough


def singular_values(operator: LinearOperator, method: str = "auto", *, count: int | None = None) -> Float[np.ndarray, "s"]:
    r"""Return the singular values of the dense matrix, largest first.

    $$A = \sum_q \sigma_q\, u_q v_q^*, \qquad \sigma_1 \ge \sigma_2 \ge \ldots \ge 0$$

    Args:
      operator: The linear operator.
      method: The method, one of four. "dense" decomposes the matrix; it gives all values and is exact. "fourier" decomposes a
        convolution of stride 1 that is "CIRCULAR" along all axes; it gives all values, exact to rounding. "krylov" finds the
        largest values from products with the matrix and its transpose, until their relative change is below 1e-8.
        "auto" is "fourier" if it applies, else "dense" for up to 2**24 entries, else "krylov".
      count: The number of largest values to return. If None, all values, or one with "krylov".

    Returns:
      At most min(rows, columns) numbers.

    Raises:
      ValueError: The method is unknown, `count` is below 1, or "fourier" is used for another operator than it needs.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.measure import conv_operator
      >>> singular_values(conv_operator(jnp.eye(2).reshape(1, 1, 2, 2), Window(1), (2, 1)))
      array([1., 1., 1., 1.], dtype=float32)

    Reference: Sedghi, Gupta and Long 2019, The singular values of convolutional layers; Musco and Musco 2015, Randomized block
    Krylov methods for stronger and faster approximate singular value decomposition.
    """
    _check_operator(operator)
    one_of("method", method, ("auto", *METHODS))
    count = count if count is None else as_integer("count", count)
    if method == "auto":
        method = "fourier" if _circular(operator) else "dense" if math.prod(operator.shape) <= LARGEST else "krylov"
    return METHODS[method](operator, count)[:count]


def matrix_rank(operator: LinearOperator, tolerance: float | None = None) -> int:
    r"""Compute the rank of the dense matrix: the number of singular values above a threshold.

    $$\#\{\, q : \sigma_q > \tau \sigma_1 \,\} \quad \text{with tolerance } \tau$$

    Args:
      operator: The linear operator.
      tolerance: The threshold, as a share of the largest singular value. If None, the threshold is `rounding` of sums that are
        as long as the longer side of the matrix.

    Raises:
      ValueError: The matrix has more than 2**24 entries, too many to write out, and is no convolution on a torus.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.measure import conv_operator
      >>> matrix_rank(conv_operator(jnp.ones((3, 1, 1)), Window(3, padding="CIRCULAR"), (6,)))  # two frequencies map to 0
      4
    """
    _check_operator(operator, tolerance)
    if not _circular(operator):
        _check_small(operator)
    return numerical_rank(singular_values(operator), tolerance, max(operator.shape), operator.dtype)


def null_space(operator: LinearOperator, tolerance: float | None = None) -> Float[np.ndarray, "lost ..."]:
    r"""Return an orthonormal basis of the images that a layer maps to zero.

    $$\{\, x : A x = 0 \,\}$$

    Args:
      operator: The linear operator.
      tolerance: The threshold for singular values, as in `matrix_rank`.

    Returns:
      Basis images, each of the image's shape. Their number is pixels times channels minus the rank.

    Raises:
      ValueError: The matrix has more than 2**24 entries.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.measure import conv_operator
      >>> lost = null_space(conv_operator(jnp.ones((2, 1, 1)), Window(2, padding="VALID"), (4,)))
      >>> (2 * lost / lost[0, 0]).round(3).squeeze()
      array([ 2., -2.,  2., -2.], dtype=float32)
    """
    _check_operator(operator, tolerance)
    _check_small(operator)
    _, sigma, right = np.linalg.svd(np.linalg.qr(_decomposable_matrix(operator), mode="r"))
    rank = numerical_rank(sigma, tolerance, max(operator.shape), operator.dtype)
    return right[rank:].conj().reshape(-1, *operator.input_shape)


def rounding(width: int, dtype: DTypeLike) -> float:
    r"""Return the share of the largest singular value below which another may be rounding error.

    The largest singular value of n x d entries of root mean square 1 is at least $\sqrt{\max(n, d)}$. Rounding each entry to a
    resolution of $\epsilon$ adds a matrix of norm at most about $\tfrac{\epsilon}{2} (\sqrt n + \sqrt d)$. This is a share of
    at most $\epsilon$. A sum of `width` numbers is computed in float32 or finer, with an error of up to `width` times that
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
    r"""Count the singular values above a share of the largest one.

    $$\#\{\, q : \sigma_q > \tau \sigma_1 \,\} \quad \text{with tolerance } \tau$$

    If `tolerance` is None, the share is `rounding`.

    Raises:
      TypeError: `tolerance` is no number.
      ValueError: `tolerance` is negative or not a number.
    """
    if tolerance is not None and not check.number("tolerance", tolerance) >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    threshold = rounding(width, dtype) if tolerance is None else tolerance
    return int(np.sum(sigma > threshold * sigma[0]))


def _dense(operator: LinearOperator, count: int | None) -> np.ndarray:
    return np.linalg.svd(_decomposable_matrix(operator), compute_uv=False)


def _fourier(operator: LinearOperator, count: int | None) -> np.ndarray:
    if operator.kernel is None or operator.window is None:
        raise ValueError("method 'fourier' needs a convolution with its kernel and window; build it with `conv_operator`")
    v = operator.kernel.astype(_at_least_single(operator.dtype))
    symbol = np.asarray(transfer_function(v, operator.window, operator.input_shape[:-1]))
    return np.sort(np.linalg.svd(symbol, compute_uv=False), axis=None)[::-1]


def _krylov(operator: LinearOperator, count: int | None) -> np.ndarray:
    """Extend an orthonormal Krylov basis until the largest singular values settle.

    A block finds singular values of multiplicity above one, which the frequencies of a convolution have. A single vector would
    not.
    """
    wanted, (rows, columns) = count or 1, operator.shape
    apply = jax.jit(lambda x: jax.vmap(operator.apply)(x.reshape(-1, *operator.input_shape)).reshape(len(x), -1))
    apply_transpose = jax.jit(
        lambda y: jax.vmap(operator.apply_transpose)(y.reshape(-1, *operator.output_shape)).reshape(len(y), -1)
    )
    random = np.random.default_rng(0)
    basis, images, gram = np.zeros((0, columns)), np.zeros((0, rows)), np.zeros((0, 0))
    block = random.normal(size=(min(wanted + OVERSAMPLING, columns), columns))
    converged, previous = max(CONVERGED, 8 * float(jnp.finfo(operator.dtype).eps)), np.zeros(wanted)
    while True:
        for _ in range(2):  # the second pass removes the rounding errors of the first
            block = block - (block @ basis.conj().T) @ basis
            block = np.linalg.qr(block.T)[0].T
        basis, images = np.concatenate([basis, block]), np.concatenate([images, np.asarray(apply(jnp.asarray(block)))])
        products = images @ images[-len(block) :].conj().T
        gram = np.block([[gram, products[: -len(block)]], [products.conj().T]])
        values = np.sqrt(np.abs(np.linalg.eigvalsh(gram)))[::-1][:wanted]
        if len(basis) == columns or (len(values) == wanted and np.all(np.abs(values - previous) <= converged * values[0])):
            values = np.linalg.svd(images, compute_uv=False)[: min(wanted, rows, columns)]
            return values.astype(jnp.finfo(operator.dtype).dtype)
        previous = np.resize(values, wanted)
        block = np.conj(apply_transpose(jnp.asarray(images[-len(block) :].conj())))[: columns - len(basis)]


METHODS: dict[str, Callable[[LinearOperator, int | None], np.ndarray]] = {
    "dense": _dense,
    "fourier": _fourier,
    "krylov": _krylov,
}


def _circular(operator: LinearOperator) -> bool:
    window = operator.window
    return window is not None and is_on_torus(window.with_ndim(len(operator.input_shape) - 1))


def _decomposable_matrix(operator: LinearOperator) -> np.ndarray:
    """Return the matrix in a dtype that can be decomposed."""
    return np.asarray(operator.matrix(), _at_least_single(operator.dtype))


def _at_least_single(dtype: DTypeLike) -> np.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _check_operator(operator: LinearOperator, tolerance: float | None = None) -> None:
    check.instance("operator", operator, LinearOperator, "a LinearOperator, such as `conv_operator` returns")
    if tolerance is not None:
        check.number("tolerance", tolerance)


def _check_small(operator: LinearOperator) -> None:
    if math.prod(operator.shape) > LARGEST:
        raise ValueError(
            f"operator has a matrix of {operator.shape}, which has more than {LARGEST} entries; `singular_values` finds its"
            " largest values"
        )
