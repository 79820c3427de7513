"""Conversion of arrays between rungs: exact to a freer rung, orthogonal projection to a stricter one.

Every conversion goes over the kernels of one period. So a convolution is written out for all positions only if the other rung
stores them all.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array

from convlab.rungs.layout import Arrays, Layout


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
    for name in ("window", "space", "in_features", "out_features"):
        if getattr(old, name) != getattr(new, name):
            raise ValueError(f"new has {name} {getattr(new, name)}; needs {getattr(old, name)}, as old has")
    kernels = {name: arrays[name] for name in old.tying.arrays}
    if old.tying != new.tying:
        write = new.tying.lift if contains(new, old) else new.tying.project
        kernels = write(old.tying.kernels(kernels, old), new)
    return kernels | ({"bias": transfer_bias(arrays["bias"], new)} if "bias" in arrays else {})


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
    if new.bias_sharing == "position":
        return jnp.broadcast_to(bias, new.bias_shape)
    return bias.reshape(-1, bias.shape[-1]).mean(0)
