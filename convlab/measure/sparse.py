"""The dense matrices of layers as sparse arrays, from the live taps of their windows."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.calls import check_not_stacked, describe
from convlab.choices import shown
from convlab.convert import check_entries_fit, lift_low_rank_to_local, matrix_entries
from convlab.geometry import Space, Window
from convlab.ops.conv import conv
from convlab.ops.dense import dense
from convlab.ops.local import locally_connected
from convlab.ops.low_rank import low_rank
from convlab.ops.tiled import tiled
from convlab.ops.transposed import conv_transpose, locally_connected_transpose, low_rank_transpose, tiled_transpose
from convlab.rungs import Layout

if TYPE_CHECKING:
    import scipy.sparse


class Kernels(NamedTuple):
    """The kernels of a layer over one period, and the pixels that they read.

    Attributes:
      v: The kernels, (*period, *window, c, d).
      window: The pixels that each position reads. If None, the taps are all pixels.
      space: The number of pixels along each axis.
      groups: The number of groups of channels.
      transposed: Whether the layer is the transpose of the one described.
    """

    v: jax.Array
    window: Window | None
    space: tuple[int, ...]
    groups: int = 1
    transposed: bool = False


def sparse_matrix(function: Callable[..., Any], input_shape: tuple[int, ...]) -> "scipy.sparse.csr_array":
    r"""Write the dense matrix of a layer, or of an op with its kernel, as a sparse array.

    $$A_{(ijd),(klc)} = \sum_{ab \,:\, (i,j) \text{ reads } (k,l) \text{ through } (a,b)} V_{ijabcd}$$

    Args:
      function: The layer, or a `functools.partial` of an op.
      input_shape: The shape (*space, c) of one image.

    Raises:
      TypeError: `function` is neither.
      ValueError: The layer does not take such images.
      MemoryError: The entries would not fit into the free memory.

    Example:
      >>> from convlab.layers import Conv
      >>> sparse_matrix(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (5, 7, 1)).nnz  # 2 channels of 13 * 19 live taps
      494
    """
    return _written_out(_kernels_of(function, input_shape))


def _kernels_of(function: Any, input_shape: tuple[int, ...]) -> Kernels:
    jax.eval_shape(lambda x: function(x), jax.ShapeDtypeStruct(input_shape, jnp.result_type(float)))  # the layer's own errors
    if isinstance(function, nnx.Module) and (layer := describe(function)) is not None:
        check_not_stacked((), function)
        arrays = {name: getattr(function, name)[...] for name in layer.layout.tying.arrays}
        return _of_layout(_on_pixels(layer.layout, input_shape[:-1]), layer.arrays(arrays))
    if isinstance(function, functools.partial) and function.func in (*PERIODS, *TRANSPOSES):
        arguments = inspect.signature(function.func).bind(None, *function.args, **function.keywords).arguments
        return _of_op(function.func, arguments, input_shape[:-1])
    raise TypeError(
        "function must be a layer with a layout, or a functools.partial of an op with its kernels as keywords, got"
        f" {shown(function)}; for other functions use matrix()"
    )


def _on_pixels(layout: Layout, pixels: Space) -> Layout:
    """Return the layout on an image, or for a transposed layer on the positions that it reads."""
    space = layout.space or (layout.window.input_shape(pixels) if layout.transposed else tuple(pixels))
    return dataclasses.replace(layout, space=space)


def _of_layout(layout: Layout, arrays: dict[str, jax.Array]) -> Kernels:
    (window, space), (v, *_) = layout.where, arrays.values()
    window = None if layout.tying.by_pixel else window
    check_entries_fit(layout.positions, window, space, layout.kernel_shape[-2:], v.dtype.itemsize)
    v = v if window is None else layout.tying.kernels(arrays, layout)
    return Kernels(v, window, tuple(space), layout.groups, layout.transposed)


# op -> function from its arrays and the number of axes to the kernels over one period
PERIODS: dict[Callable[..., Any], Callable[[Mapping[str, Any], int], jax.Array]] = {
    conv: lambda arrays, ndim: arrays["v"][(None,) * ndim],
    tiled: lambda arrays, ndim: arrays["v"],
    locally_connected: lambda arrays, ndim: arrays["v"],
    low_rank: lambda arrays, ndim: lift_low_rank_to_local(arrays["basis"], arrays["weights"]),
    dense: lambda arrays, ndim: arrays["w"],
}
TRANSPOSES = {
    conv_transpose: conv,
    tiled_transpose: tiled,
    locally_connected_transpose: locally_connected,
    low_rank_transpose: low_rank,
}


def _of_op(op: Callable[..., Any], arguments: Mapping[str, Any], pixels: tuple[int, ...]) -> Kernels:
    transposed, ndim = op in TRANSPOSES, len(pixels)
    v = PERIODS[TRANSPOSES.get(op, op)](arguments, ndim)
    window = None if "w" in arguments else arguments.get("window") or Window(v.shape[ndim : 2 * ndim])
    space = tuple(arguments["space"]) if transposed else pixels
    return Kernels(v, window, space, arguments.get("groups", 1), transposed)


def _written_out(layer: Kernels) -> "scipy.sparse.csr_array":
    """Write the entries of all live taps, and add those of one pixel."""
    import scipy.sparse

    v = np.asarray(layer.v.astype(jnp.promote_types(layer.v.dtype, jnp.float32)))
    entries = matrix_entries(v, layer.window, layer.space, layer.groups)
    values, rows, columns, shape = entries.transpose() if layer.transposed else entries
    return scipy.sparse.coo_array((values, (rows, columns)), shape=shape).tocsr()
