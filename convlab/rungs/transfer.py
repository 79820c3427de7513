"""The arrays of one layer at another rung: its exact image on a freer one, its orthogonal projection on a stricter one.

Every way from rung to rung leads over the kernels of one period, so that a convolution is never written out for all positions
unless the other rung holds them all.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array

from convlab.rungs.layout import Arrays, Layout


def contains(freer: Layout, stricter: Layout) -> bool:
    """Whether every function of one layout is one of the other, which differs from it by its rung at most.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, at
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> contains(at(conv, "tiled", period=2), conv), contains(conv, at(conv, "tiled", period=2))
      (True, False)
    """
    if type(freer.tying) is type(stricter.tying):
        return freer.tying.holds(stricter.tying)
    return stricter.tying.within(type(freer.tying))


def transfer(arrays: Arrays, old: Layout, new: Layout) -> Arrays:
    r"""Write a layer's arrays at another rung: as its exact image if that is freer, else as the nearest of that rung.

    Nearest is meant in the squared norm of the dense matrix; of low rank, in that of the kernels of all positions. A bias goes
    from channels to positions by repeating it, and back by its mean. The map is linear but for low rank.

    Args:
      arrays: By name, as the layer holds them; "bias" may be among them.
      old: The layout they have.
      new: The layout that is asked for, of the same window, channels and pixels.

    Raises:
      ValueError: The rungs differ, and the layouts say nothing of the pixels.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, at
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> arrays = transfer({"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}, conv, at(conv, "dense"))
      >>> arrays["kernel"].shape, arrays["bias"].shape
      ((5, 7, 5, 7, 1, 2), (5, 7, 2))
    """
    kernels = {name: arrays[name] for name in old.tying.arrays}
    if old.tying != new.tying:
        write = new.tying.lift if contains(new, old) else new.tying.project
        kernels = write(old.tying.kernels(kernels, old), new)
    return kernels | ({"bias": transfer_bias(arrays["bias"], new)} if "bias" in arrays else {})


def on_the_way(old: Layout, new: Layout) -> int:
    """Count the entries of the kernels that a transfer writes: over the old period, and of all positions for a dense layer.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Shared, at
      >>> conv = Layout(Shared(), Window(3), 1, 2, space=(5, 7))
      >>> on_the_way(conv, at(conv, "tiled")), on_the_way(conv, at(conv, "dense"))
      (18, 648)
    """
    tiles = [old.tying.tile(old), *([new.positions] if new.tying.by_pixel else [])]
    return sum(map(math.prod, tiles)) * math.prod(old.kernel)


def transfer_bias(bias: Array, new: Layout) -> Array:
    """Repeat a bias for every position, or take its mean over them, as the layout has it.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.rungs import Untied
      >>> transfer_bias(jnp.ones(2), Layout(Untied(), Window(3), 1, 2, space=(5, 7))).shape
      (5, 7, 2)
    """
    if new.bias_sharing == "position":
        return jnp.broadcast_to(bias, new.bias_shape)
    return bias.reshape(-1, bias.shape[-1]).mean(0)
