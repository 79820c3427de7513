"""Conversion of arrays between rungs: exact to a freer rung, orthogonal projection to a stricter one.

Every conversion goes over the kernels of one period. So a convolution is written out for all positions only if the other rung
stores them all.
"""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array

from convlab import check
from convlab.rungs.layout import Arrays, Layout
from convlab.rungs.shared import Shared

TINY = 1e-5  # the rounding of a mean of zeros and ones


def contains(freer: Layout, stricter: Layout) -> bool:
    """Return True if every layer of one layout is also a layer of another.

    Both layouts must have the same window, channels and pixels, which is not checked.


    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, with_rung
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> contains(with_rung(conv, "tiled", period=2), conv), contains(conv, with_rung(conv, "tiled", period=2))
      (True, False)
    """
    _check_layouts(freer=freer, stricter=stricter)
    if type(freer.tying) is type(stricter.tying):
        return freer.tying.holds(stricter.tying)
    return stricter.tying.within(type(freer.tying))


def transfer(arrays: Arrays, old: Layout, new: Layout) -> Arrays:
    r"""Convert a layer's arrays to another rung: exactly if it is freer, else to the nearest layer.

    $$V = (E^\top E)^+ E^\top E' V'$$

    E and E' write the kernels of the new and the old rung as dense matrices, as in `convlab.convert`.

    The distance is the Frobenius norm of the dense matrix, and for low rank that of the kernels of all positions. A bias per
    channel is repeated for all positions, and a bias per position is averaged. The map is linear except for low rank.

    Args:
      arrays: The layer's arrays by name, with or without "bias".
      old: The layout of the arrays.
      new: The new layout, with the same window, channels and pixels.

    Raises:
      ValueError: The layouts differ in more than the rung, or the rungs differ and the number of pixels is unknown.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, with_rung
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> arrays = transfer({"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}, conv, with_rung(conv, "dense"))
      >>> arrays["kernel"].shape, arrays["bias"].shape
      ((5, 7, 5, 7, 1, 2), (5, 7, 2))
    """
    _check_layouts(old=old, new=new)
    check.mapping("arrays", arrays, "arrays by name")
    for name in ("window", "space", "in_features", "out_features"):
        if getattr(old, name) != getattr(new, name):
            raise ValueError(f"new has {name} {getattr(new, name)}; needs {getattr(old, name)}, as old has")
    if missing := [name for name in old.tying.arrays if name not in arrays]:
        raise ValueError(f"arrays must hold {' and '.join(missing)} of a {old.rung} layer, got {[*arrays]}")
    kernels = {name: check.array(f"arrays: {name}", arrays[name]) for name in old.tying.arrays}
    for name, shape in old.tying.shapes(old).items():
        check.equal_shapes(f"arrays: {name} has shape {{}}", kernels[name].shape, "old needs {}", shape)
    if old.tying != new.tying:
        write = new.tying.lift if contains(new, old) else new.tying.project
        kernels = write(old.tying.kernels(kernels, old), new)
    return kernels | ({"bias": transfer_bias(arrays["bias"], new)} if "bias" in arrays else {})


def transfer_mask(mask: Array, old: Layout, new: Layout) -> Array:
    """Convert the mask of a layer's first array for a layer on another rung.

    The new layer uses no weight that the mask removes. A weight of a freer layer is removed if it stands for removed weights
    only. A weight of a stricter layer is removed if it is removed at every position.

    Args:
      mask: The mask. Other values than 0 count as 1.
      old: The layout of the layer that has the mask.
      new: The new layout.

    Raises:
      ValueError: A mask that differs by position cannot become the mask of a low-rank layer.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, with_rung
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> mask = jnp.ones((3, 3, 1, 2)).at[0].set(0)  # without the first row of taps
      >>> transfer_mask(mask, conv, with_rung(conv, "dense"))[2, 3, :, 3, 0, 0]  # the pixels of column 3 at position (2, 3)
      Array([1., 0., 1., 1., 1.], dtype=float32)
    """
    _check_layouts(old=old, new=new)
    mask = check.array("mask", mask)
    check.equal_shapes("mask has shape {}", mask.shape, "old needs {}", old.tying.shapes(old)[old.tying.arrays[0]])
    kept = (mask != 0).astype(jnp.float32)
    if old.tying == new.tying:
        return kept.astype(mask.dtype)
    if not old.tying.is_linear:  # the kernels of a mixture
        kept, old = kept.max(0), dataclasses.replace(old, tying=Shared())
    if not new.tying.is_linear:
        if math.prod(old.tying.tile(old)) > 1:
            raise ValueError(f"mask differs by position, as that of a {old.rung} layer: a {new.rung} layer has no such mask")
        kernels = old.tying.kernels({old.tying.arrays[0]: kept}, dataclasses.replace(old, space=None))
        shape = new.tying.shapes(new)[new.tying.arrays[0]]
        return jnp.broadcast_to(kernels.reshape(old.kernel_shape), shape).astype(mask.dtype)
    name, *_ = new.tying.arrays
    reads = jnp.abs(transfer({"kernel": kept}, old, new)[name]) > TINY
    if new.tying.by_pixel:
        reads |= ~(jnp.abs(transfer({"kernel": 1 - kept}, old, new)[name]) > TINY)
    return reads.astype(mask.dtype)


def conversion_entries(old: Layout, new: Layout) -> int:
    """Count the kernel entries that a transfer writes on its way.

    They are those of the old period, and for a dense layer also those of all positions.


    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, with_rung
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> conversion_entries(conv, with_rung(conv, "tiled")), conversion_entries(conv, with_rung(conv, "dense"))
      (18, 648)
    """
    _check_layouts(old=old, new=new)
    tiles = [old.tying.tile(old), *([new.positions] if new.tying.by_pixel else [])]
    return sum(map(math.prod, tiles)) * math.prod(old.kernel_shape)


def transfer_bias(bias: Array, new: Layout) -> Array:
    r"""Repeat a bias for all positions or average it over them, as a layout requires.

    $$u_{ijd} = u_d \qquad \text{or} \qquad u_d = \operatorname{mean}_{ij} u_{ijd}$$

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Untied
      >>> transfer_bias(jnp.ones(2), Layout(Untied(), Window(3), 1, 2, space=(5, 7))).shape
      (5, 7, 2)
    """
    _check_layouts(new=new)
    bias = check.array("bias", bias)
    if jnp.shape(bias)[-1:] != new.bias_shape[-1:]:
        raise ValueError(f"bias has shape {jnp.shape(bias)}; needs {new.bias_shape[-1]} channels, as new has")
    if new.bias_sharing == "position":
        return jnp.broadcast_to(bias, new.bias_shape)
    return bias.reshape(-1, bias.shape[-1]).mean(0)


def _check_layouts(**layouts: Layout) -> None:
    for name, layout in layouts.items():
        check.instance(name, layout, Layout, "a convlab.rungs.Layout")
