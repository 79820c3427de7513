"""Computation on several devices, with the batch and the output rows sharded.

The ambient mesh (`jax.set_mesh`) defines the sharding. An axis named "n" splits the batch. An axis named "i" splits the output
rows, and also the kernels if there is one per row. Each device holds an equal number of rows of pixels. It fetches from its
neighbours only the other rows that its windows read. The gradient with respect to the image sends the same rows back. The
gradient with respect to a kernel per position needs no communication between devices that hold different rows. A dense layer
reads every row, so each block of rows goes once round the ring.

An axis splits nothing if it is missing, has size 1 or does not divide the number of images or rows. Nothing is split either if
some axis of the mesh is not of type Auto, for example inside a `shard_map` of the caller.
"""

from collections.abc import Callable, Set

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

from convlab.geometry import OUTSIDE, Axis
from convlab.kernels.form import Form
from convlab.unfold import extend

BATCH, ROWS = "n", "i"
Layer = Callable[[Array, Array, Form], Array]


def axis_size(name: str) -> int:
    """Count the devices along an axis of the ambient mesh.

    The count is 1 if there is no such axis, or if some axis of the mesh is not of type Auto.
    """
    return _sizes().get(name, 1)


def _sizes() -> dict[str, int]:
    """Return the sizes of the axes of the ambient mesh.

    The result is empty if some axis is not of type Auto, since the caller then controls the sharding.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return dict(mesh.shape) if all(kind == AxisType.Auto for kind in mesh.axis_types) else {}


def parts(name: str, count: int, multiple: int = 1) -> int:
    """Count the equal parts of images or rows along an axis of the ambient mesh.

    Args:
      name: The name of the axis: "n" (batch) or "i" (output rows).
      count: The number of images or output rows.
      multiple: The number that must divide the size of each part, for example the period of tiled kernels.

    Returns:
      The size of the axis, or 1 if there is no such axis or it does not divide `count` into such parts.

    Example:
      >>> parts("i", 12)
      1
    """
    size = axis_size(name)
    divides = isinstance(count, int) and count and count % (size * multiple) == 0  # a symbolic batch is not split
    return size if divides else 1


def windowed(
    layer: Layer, x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form
) -> Float[Array, "s n *out d"]:
    r"""Apply a windowed layer on several devices. Device q of p computes its block of B = I / p rows.

    $$H_{qB+i,\,jd} = \sum_{abc} V_{qB+i,\,jabcd} \, X_{qB+i+a,\,j+b,\,c}$$

    Args:
      layer: The function that computes h from x, v and the form on one device.
      x: The images. Their rows are split if p divides their number, else every device holds all rows.
      v: The kernels. They are split like h if there is one per position.
      form: The form of the layer, with the padding and the period of the kernels.
    """
    first, *others = form.axes
    n, p = parts(BATCH, x.shape[1]), parts(ROWS, first.outputs, *form.period[:1])

    def part(x: Array, v: Array) -> Array:
        if p == 1:
            return layer(x, v, form)
        block = first._replace(outputs=first.outputs // p)
        block = block._replace(pixels=block.reach, low=0, high=0)
        return layer(_rows(x, first, p, 2), v, form.with_axes((block, *others)))

    return _shard(part, x, v, (n, p), first_axis=1, split_rows=(first.pixels % p == 0, form.by_position))


def dense(
    product: Callable[[Array, Array], Array], x: Float[Array, "n *pixels c"], w: Float[Array, "*kernel c d"]
) -> Float[Array, "n *out d"]:
    r"""Apply a dense layer on several devices. Device q of p computes its block of B = I / p rows.

    $$H_{qB+i,\,jd} = \sum_{klc} W_{qB+i,\,jklcd} \, X_{klc}$$

    Images are small compared with dense weights, so every device collects all rows and multiplies once. In p products of
    blocks, each product would copy its part of the weights, and the gradient would keep the blocks in any case.

    Args:
      product: The function that computes h from x and w on one device.
      x: The images. Their rows are split if p divides their number, else every device holds all rows.
      w: The weights, whose output rows are split.
    """
    n, p = parts(BATCH, x.shape[0]), parts(ROWS, w.shape[0])
    image_is_split = x.shape[1] % p == 0

    def part(x: Array, w: Array) -> Array:
        if p > 1 and image_is_split:
            local = x.shape[1]
            ring = jnp.concatenate([x, *_neighbour_rows(x, local * (p - 1), 1, 1, ring=True)], 1)  # starts at the local rows
            x = jnp.roll(ring, local * lax.axis_index(ROWS), 1)
        return product(x, w)

    return _shard(part, x, w, (n, p), first_axis=0, split_rows=(image_is_split, True))


def _shard(
    part: Callable[[Array, Array], Array],
    x: Array,
    v: Array,
    counts: tuple[int, int],
    first_axis: int,
    split_rows: tuple[bool, bool],
) -> Array:
    """Run `part` on every device.

    Args:
      part: The function that computes h from x and v on one device.
      x: The images, with batch and rows from axis `first_axis` on, like h.
      v: The kernels, with rows from axis `first_axis` on.
      counts: The number of parts of the batch and of the rows.
      first_axis: The number of axes before the batch.
      split_rows: Whether the rows of x and of v are split.
    """
    batch, rows = (name if size > 1 else None for name, size in zip((BATCH, ROWS), counts, strict=True))
    split = {name for name in (batch, rows) if name}
    if not split:
        return part(x, v)
    lead, (image, kernel) = (None,) * first_axis, (rows if is_split else None for is_split in split_rows)
    specs = (PartitionSpec(*lead, batch, image), PartitionSpec(*lead, kernel))
    out = PartitionSpec(*lead, batch, rows)

    def device_part(*arrays: Array) -> Array:
        return part(*(_varying(array, split.difference(spec)) for array, spec in zip(arrays, specs, strict=True)))

    names = set(_sizes())  # also axes that split nothing: XLA's partitioner aborts on some convolutions next to manual axes
    return jax.jit(jax.shard_map(device_part, in_specs=specs, out_specs=out, axis_names=names))(x, v)


def vary_alike(*arrays: Array) -> list[Array]:
    """Mark arrays as varying along every mesh axis along which one of them varies.

    Inside a `shard_map` of the caller, JAX then sums the gradient of a replicated array over the devices, as for its own
    operations.
    """
    varying = [_varying_axes(array) for array in arrays]
    names = frozenset().union(*varying)
    return [_varying(array, names - present) for array, present in zip(arrays, varying, strict=True)]


def _varying_axes(array: Array) -> frozenset[str]:
    """Return the mesh axes along which an array varies inside a `shard_map`."""
    kind = jax.typeof(array)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # `vma` before JAX 0.10


def _varying(array: Array, names: Set[str]) -> Array:
    """Mark a replicated array as varying along mesh axes, so that JAX sums its gradients over them."""
    if not names:
        return array
    axes = tuple(sorted(names))
    if hasattr(lax, "pcast"):
        return lax.pcast(array, axes, to="varying")
    return lax.pvary(array, axes)  # before JAX 0.9  # pyright: ignore[reportAttributeAccessIssue]


def _rows(x: Array, axis: Axis, p: int, at: int) -> Array:
    """Return on each of p devices the rows that its outputs read along axis `at`, with padding."""
    part, q = axis._replace(outputs=axis.outputs // p), np.arange(p)[:, None]
    reads = axis.stride * part.outputs * q - axis.low + np.arange(part.reach)
    if axis.pixels % p:
        return _select_rows(extend(x, (axis,), at), reads + axis.low, at)
    if axis.mode not in ("zero", "wrap"):  # padding repeats pixels of the image
        reads = OUTSIDE[axis.mode](reads, axis.pixels)
    local, ring = axis.pixels // p, axis.mode == "wrap"
    reads = reads - local * q
    before, after = max(-int(reads.min()), 0), max(int(reads.max()) + 1 - local, 0)
    rows = [*_neighbour_rows(x, before, -1, at, ring), x, *_neighbour_rows(x, after, 1, at, ring)]
    return _select_rows(jnp.concatenate(rows, at), reads + before, at)


def _neighbour_rows(x: Array, rows: int, step: int, at: int, ring: bool) -> list[Array]:
    """Fetch `rows` rows after (step 1) or before (step -1) those of this device from its neighbours.

    Rows are passed on from neighbour to neighbour. Outside the image they are zeros, or on a ring those of the other end.
    """
    p, pieces = lax.axis_size(ROWS), []
    pairs = [(q, (q - step) % p) for q in range(p) if ring or 0 <= q - step < p]
    while rows > 0:
        local = x.shape[at]
        first, last = (0, min(rows, local)) if step == 1 else (local - min(rows, local), local)
        x = lax.ppermute(lax.slice_in_dim(x, first, last, axis=at), ROWS, pairs)
        pieces.append(x)
        rows -= last - first
    return pieces[::step]


def _select_rows(x: Array, reads: np.ndarray, at: int) -> Array:
    """Take the rows reads[q] on device q."""
    q = lax.axis_index(ROWS)
    if (np.diff(reads) == 1).all():
        first, distance = int(reads[0, 0]), int(reads[1, 0] - reads[0, 0])
        return lax.dynamic_slice_in_dim(x, first + distance * q, reads.shape[1], at)
    return jnp.take(x, jnp.asarray(reads)[q], at, mode="clip")
