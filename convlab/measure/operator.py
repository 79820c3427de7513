"""A linear layer as an operator on images, for linear algebra here and in other libraries."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.display import short_repr
from convlab.extras import require
from convlab.geometry import Space, Window, as_integer, as_space
from convlab.measure.sparse import sparse_matrix
from convlab.ops.conv import conv

if TYPE_CHECKING:
    import scipy.sparse
    from jax.experimental.sparse import BCOO

Function = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True, repr=False)
class LinearOperator:
    """A linear function of one image, or the linear part of an affine function.

    Args:
      function: A function from an image (*space, c) to activations of any shape, such as a layer, or an op with its kernel.
      input_shape: The shape (*space, c) of the image.
      kernel: The kernel, if the function is a convolution.
      window: The window of that convolution.

    Raises:
      ValueError: The function does not take such an image.

    Example:
      >>> LinearOperator(lambda x: 2 * x[1:], (5, 3)).output_shape
      (4, 3)
    """

    function: Function
    input_shape: Sequence[int]
    kernel: Array | None = None
    window: Window | None = None

    __repr__ = short_repr

    def __post_init__(self):
        check.function("function", self.function, "a function of an image")
        sizes = check.sequence("input_shape", self.input_shape, "integers, the shape of an image")
        object.__setattr__(self, "input_shape", tuple(as_integer("input_shape", n) for n in sizes))
        check.shape_fits("an image of input_shape", *self.input_shape, itemsize=4)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the activations."""
        return jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.input_shape, self.dtype)).shape

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The dtype of the image.

        It is that of the kernel, or else JAX's default floating dtype, and complex if the activations are.
        """
        if self.kernel is not None:
            return self.kernel.dtype
        image = jax.ShapeDtypeStruct(self.input_shape, jnp.result_type(float))
        output = jax.eval_shape(self.function, image)
        check.instance("the result of function", output, jax.ShapeDtypeStruct, "one array")
        return jnp.promote_types(image.dtype, output.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (rows, columns) of the matrix: the sizes of the activations and of the image."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    def apply(self, x: Array) -> Array:
        """Return A x.

        $$A x = f(x) - f(0)$$
        """
        return jax.jvp(self.function, (jnp.zeros(self.input_shape, self.dtype),), (x.astype(self.dtype),))[1]

    def apply_transpose(self, y: Array) -> Array:
        r"""Return $A^\top y$, without conjugation."""
        return jax.vjp(self.function, jnp.zeros(self.input_shape, self.dtype))[1](y.astype(self.dtype))[0]

    def matrix(self) -> Float[Array, "outputs pixels"]:
        r"""Write out the matrix, with activations and images as flat vectors.

        $$A_{(ijd),(klc)} = \partial H_{ijd} / \partial X_{klc}$$

        Example:
          >>> conv_operator(jnp.array([1.0, 2.0]).reshape(2, 1, 1), Window(2, padding="VALID"), (3,)).matrix()
          Array([[1., 2., 0.],
                 [0., 1., 2.]], dtype=float32)
        """
        rows, columns = self.shape
        jacobian = jax.jacfwd if columns <= rows else jax.jacrev
        by_pixel = jacobian(self.function, holomorphic=jnp.issubdtype(self.dtype, jnp.complexfloating))
        return by_pixel(jnp.zeros(self.input_shape, self.dtype)).reshape(rows, columns)

    def to_scipy_sparse(self) -> "scipy.sparse.csr_array":
        """Write the matrix as a SciPy array in CSR format, without forming the dense matrix.

        Its entries are the weights of live taps, also those that are 0; weights of taps that read one pixel are added. The bias
        is no part of it. Memory is proportional to the entries. float16 and bfloat16 become float32, since SciPy lacks them.

        `function` must be a layer of convlab, an `nnx.Conv` or `nnx.ConvTranspose`, or a `functools.partial` of an op with its
        kernels and window as keywords.

        Raises:
          TypeError: `function` is no such layer or op.
          ValueError: The layer does not take such images.
          MemoryError: The entries would not fit into the free memory.

        Example:
          >>> operator = conv_operator(jnp.array([1.0, 2.0]).reshape(2, 1, 1), Window(2, padding="VALID"), (3,))
          >>> operator.to_scipy_sparse().toarray()
          array([[1., 2., 0.],
                 [0., 1., 2.]], dtype=float32)
        """
        return sparse_matrix(self.function, tuple(self.input_shape))

    def to_bcoo(self) -> "BCOO":
        """Write the matrix as a sparse array of JAX, without forming the dense matrix.

        Requirements, entries, dtype and errors are those of `to_scipy_sparse`.

        Example:
          >>> operator = conv_operator(jnp.array([1.0, 2.0]).reshape(2, 1, 1), Window(2, padding="VALID"), (3,))
          >>> operator.to_bcoo() @ jnp.array([1.0, 1.0, 1.0])
          Array([3., 3.], dtype=float32)
        """
        from jax.experimental.sparse import BCOO

        return BCOO.from_scipy_sparse(self.to_scipy_sparse())

    def to_lineax(self) -> Any:
        """Return the operator as a `lineax.FunctionLinearOperator` on images, for its solvers.

        Raises:
          ImportError: lineax is not installed.
        """
        return require("lineax", extra="lineax").FunctionLinearOperator(
            self.apply, jax.ShapeDtypeStruct(self.input_shape, self.dtype)
        )


def conv_operator(v: Float[Array, "a b c d"], window: Window, space: Space) -> LinearOperator:
    r"""Return a convolution as a linear function of one image.

    $$(A x)_{ijd} = \sum_{abc} V_{abcd}\, X_{si + ta - p,\, sj + tb - p,\, c}$$

    Args:
      v: The kernel of the convolution.
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.

    Raises:
      ValueError: `v` is not a kernel of this window.
      TypeError: `v` is neither floating nor complex.

    Example:
      >>> conv_operator(jnp.ones((3, 3, 2, 7)), Window(3, 2), (4, 5)).shape
      (42, 40)
    """
    v, ndim = check.kernel("v", v, spatial=1, others="c d")
    check.taps("v", v.shape[:ndim], window)
    space = as_space(space)
    check.shape_fits("an image on space", *space, v.shape[-2], itemsize=v.dtype.itemsize)
    check.equal_shapes("space has {} axes", (len(space),), f"v of shape {v.shape} has {{}}", (ndim,))
    return LinearOperator(functools.partial(conv, v=v, window=window), (*space, v.shape[-2]), v, window.with_ndim(ndim))
