"""Locality on several devices: output rows and images of the batch computed where they lie.

The ambient mesh (`jax.set_mesh`) says how: an axis named "n" splits the batch, one named "i" the output rows, and their kernels
where these differ by row. A device owns as many rows of pixels as any other and fetches those that its windows read beyond
them from its neighbours, as far as they reach and no further. The gradient by the image sends the same rows back; that by a
kernel per position needs nothing from devices that hold other rows. A dense layer sees every row: there each block of rows
goes once round the ring. An axis that is absent, of size 1, or that does not divide what it should split, splits nothing; nor
does any of a mesh whose axes are not all of type Auto, as inside the caller's own `shard_map`.
"""

from collections.abc import Callable

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
    """Count the devices along an axis of the ambient mesh: 1 where there is no such axis or its mesh is not all Auto."""
    return _sizes().get(name, 1)


def _sizes() -> dict[str, int]:
    """Sizes of the axes of the ambient mesh, none where one of them is not left to JAX: splitting is the caller's then."""
    mesh = jax.sharding.get_abstract_mesh()
    return dict(mesh.shape) if all(kind == AxisType.Auto for kind in mesh.axis_types) else {}


def parts(name: str, count: int, multiple: int = 1) -> int:
    """Count the equal parts into which an axis of the ambient mesh splits `count` things, each a multiple of `multiple`.

    Args:
      name: Of the axis: "n" (batch) or "i" (output rows).
      count: Images, or output rows.
      multiple: What may not be cut: the period of kernels that repeat.

    Returns:
      The size of the axis; 1 where there is no such axis, or where it does not divide them.

    Example:
      >>> parts("i", 12)
      1
    """
    size = axis_size(name)
    return size if count and count % (size * multiple) == 0 else 1


def windowed(
    layer: Layer, x: Float[Array, "s n *pixels c"], v: Float[Array, "s *kernel c d"], form: Form
) -> Float[Array, "s n *out d"]:
    r"""Apply a layer of windows part by part; device q of p makes the rows i of its block of B = I / p.

    $$H_{qB+i,\,jd} = \sum_{abc} V_{qB+i,\,jabcd} \, X_{qB+i+a,\,j+b,\,c}$$

    Args:
      layer: Computes h of x, v and the form, on one device.
      x: Images, their rows split like those of h if p divides them too; else every device holds all rows.
      v: Kernels, split like h if there is one per position.
      form: Where each position reads, padding included, and after how many rows the kernels repeat.
    """
    first, *others = form.axes
    n, p = parts(BATCH, x.shape[1]), parts(ROWS, first.outputs, *form.period[:1])

    def part(x: Array, v: Array) -> Array:
        if p == 1:
            return layer(x, v, form)
        block = first._replace(outputs=first.outputs // p)
        block = block._replace(pixels=block.reach, low=0, high=0)
        return layer(_rows(x, first, p, 2), v, form.with_axes((block, *others)))

    return _spread(part, x, v, (n, p), lead=1, divided=(first.pixels % p == 0, form.by_position))


def dense(
    product: Callable[[Array, Array], Array], x: Float[Array, "n *pixels c"], w: Float[Array, "*kernel c d"]
) -> Float[Array, "n *out d"]:
    r"""Apply a dense layer part by part; device q of p makes the rows i of its block of B = I / p from all rows k.

    $$H_{qB+i,\,jd} = \sum_{klc} W_{qB+i,\,jklcd} \, X_{klc}$$

    Images are small beside dense weights, so their blocks are collected and multiplied at once: p products of blocks would each
    copy their part of the weights, and the gradient keeps the blocks in any case.

    Args:
      product: Computes h of x and w, on one device.
      x: Images, their rows split like those of h if p divides them too; else every device holds all rows.
      w: Weights, their output rows split.
    """
    n, p = parts(BATCH, len(x)), parts(ROWS, len(w))
    divided = x.shape[1] % p == 0

    def part(x: Array, w: Array) -> Array:
        if p > 1 and divided:
            own = x.shape[1]
            every = jnp.concatenate([x, *_beyond(x, own * (p - 1), 1, 1, ring=True)], 1)  # from its own rows on
            x = jnp.roll(every, own * lax.axis_index(ROWS), 1)
        return product(x, w)

    return _spread(part, x, w, (n, p), lead=0, divided=(divided, True))


def _spread(
    part: Callable[[Array, Array], Array], x: Array, v: Array, many: tuple[int, int], lead: int, divided: tuple[bool, bool]
) -> Array:
    """Run `part` on every device; after `lead` axes, h and x have batch and rows, v has rows. `divided`: of x, of v."""
    batch, rows = (name if size > 1 else None for name, size in zip((BATCH, ROWS), many, strict=True))
    split = {name for name in (batch, rows) if name}
    if not split:
        return part(x, v)
    whole, (image, kernel) = (None,) * lead, (rows if each else None for each in divided)
    specs = (PartitionSpec(*whole, batch, image), PartitionSpec(*whole, kernel))
    out = PartitionSpec(*whole, batch, rows)

    def each(*arrays: Array) -> Array:
        return part(*(_varying(array, split.difference(spec)) for array, spec in zip(arrays, specs, strict=True)))

    every = set(_sizes())  # also those that split nothing: XLA's partitioner aborts on some convolutions beside manual axes
    return jax.jit(jax.shard_map(each, in_specs=specs, out_specs=out, axis_names=every))(x, v)


def _varying(array: Array, names: set[str]) -> Array:
    """Tell JAX that devices along `names` use the one array for results of their own, so that it sums its gradients."""
    if not names:
        return array
    along = tuple(sorted(names))
    if hasattr(lax, "pcast"):
        return lax.pcast(array, along, to="varying")
    return lax.pvary(array, along)  # before JAX 0.9  # pyright: ignore[reportAttributeAccessIssue]


def _rows(x: Array, axis: Axis, p: int, at: int) -> Array:
    """Give each of p devices the rows that its outputs read along axis `at`, padding included."""
    part, q = axis._replace(outputs=axis.outputs // p), np.arange(p)[:, None]
    reads = axis.stride * part.outputs * q - axis.low + np.arange(part.reach)
    if axis.pixels % p:
        return _pick(extend(x, (axis,), at), reads + axis.low, at)
    if axis.mode not in ("zero", "wrap"):  # what lies outside is a copy of what lies inside
        reads = OUTSIDE[axis.mode](reads, axis.pixels)
    own, ring = axis.pixels // p, axis.mode == "wrap"
    reads = reads - own * q
    below, above = max(-int(reads.min()), 0), max(int(reads.max()) + 1 - own, 0)
    rows = [*_beyond(x, below, -1, at, ring), x, *_beyond(x, above, 1, at, ring)]
    return _pick(jnp.concatenate(rows, at), reads + below, at)


def _beyond(x: Array, rows: int, step: int, at: int, ring: bool) -> list[Array]:
    """Collect the `rows` rows above (step 1) or below (step -1) those of this device, passed on from neighbour to neighbour.

    Beyond the first and the last row lie zeros, or on a ring the other end.
    """
    p, found = lax.axis_size(ROWS), []
    pairs = [(q, (q - step) % p) for q in range(p) if ring or 0 <= q - step < p]
    while rows > 0:
        own = x.shape[at]
        first, last = (0, min(rows, own)) if step == 1 else (own - min(rows, own), own)
        x = lax.ppermute(lax.slice_in_dim(x, first, last, axis=at), ROWS, pairs)
        found.append(x)
        rows -= last - first
    return found[::step]


def _pick(x: Array, reads: np.ndarray, at: int) -> Array:
    """Take the rows reads[q] on device q."""
    q = lax.axis_index(ROWS)
    if (np.diff(reads) == 1).all():
        first, further = int(reads[0, 0]), int(reads[1, 0] - reads[0, 0])
        return lax.dynamic_slice_in_dim(x, first + further * q, reads.shape[1], at)
    return jnp.take(x, jnp.asarray(reads)[q], at, mode="clip")
