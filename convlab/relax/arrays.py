"""The arrays of one layer at another rung: its exact image on a freer one, its orthogonal projection on a stricter one.

Every way from rung to rung leads over the kernels of all positions: `SPREAD` writes a rung as those, `GATHER` finds the rung
nearest to them. What a kernel says where it reads padding is kept on the way, so that mixtures keep their rank.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from convlab import convert
from convlab.geometry import Size, Space, Window, as_axes
from convlab.rungs import RUNGS, Arrays, Layout

FREEDOM = {"conv": 0, "tiled": 1, "low_rank": 1, "locally_connected": 2, "dense": 3}  # neighbours in a chain contain each other


def contains(freer: Layout, stricter: Layout) -> bool:
    """Whether every function of one layout is one of the other, which differs from it by its rung at most.

    Example:
      >>> from convlab.geometry import Window
      >>> conv = Layout("conv", Window(3), 1, 2, space=(5, 7))
      >>> contains(at(conv, "tiled", period=2), conv), contains(conv, at(conv, "tiled", period=2))
      (True, False)
    """
    if freer.rung != stricter.rung:
        return FREEDOM[freer.rung] > FREEDOM[stricter.rung]
    if freer.rung == "tiled":
        rank = freer.window.rank or 1
        pairs = zip(as_axes("period", freer.period or 1, rank), as_axes("period", stricter.period or 1, rank), strict=True)
        return all(p % q == 0 for p, q in pairs)
    return (freer.rank or 0) >= (stricter.rank or 0)


def at(layout: Layout, rung: str, *, period: Size = 2, rank: int = 2) -> Layout:
    """Name the same layer at another rung, in as far as it has the positions (period) and entries (rank) for it.

    Raises:
      ValueError: An unknown rung, a layout without space, or one in groups that the rung does not have.
    """
    own: dict[str, Any] = {"period": None, "rank": None}
    if rung == "tiled":
        periods = as_axes("period", period, len(layout.positions))
        own["period"] = tuple(min(p, i) for p, i in zip(periods, layout.positions, strict=True))
    if rung == "low_rank":
        own["rank"] = min(rank, math.prod(layout.positions), math.prod(layout.kernel))
    groups = 1 if rung == "dense" else layout.groups
    return dataclasses.replace(layout, rung=rung, groups=groups, **own)


def transfer(arrays: Arrays, old: Layout, new: Layout) -> Arrays:
    r"""Write a layer's arrays at another rung: as its exact image if that is freer, else as the nearest of that rung.

    Nearest is meant in the squared norm of the dense matrix; of low rank, in that of the kernels of all positions. A bias goes
    from channels to positions by repeating it, and back by its mean. The map is linear but for low rank.

    Args:
      arrays: By name, as the layer holds them; "bias" may be among them.
      old: The layout they have.
      new: The layout that is asked for, of the same window, channels and pixels.

    Raises:
      ValueError: The layouts say nothing of the pixels.

    Example:
      >>> from convlab.geometry import Window
      >>> conv = Layout("conv", Window(3), 1, 2, space=(5, 7))
      >>> arrays = transfer({"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}, conv, at(conv, "dense"))
      >>> arrays["kernel"].shape, arrays["bias"].shape
      ((5, 7, 5, 7, 1, 2), (5, 7, 2))
    """
    if old.space is None or new.space is None:
        raise ValueError(f"space is missing: where the pixels of a {old.rung} layer are unknown, so are its positions")
    kernels = {name: arrays[name] for name in RUNGS[old.rung].arrays}
    if (old.rung, old.period, old.rank) != (new.rung, new.period, new.rank):
        kernels = GATHER[new.rung](SPREAD[old.rung](kernels, old), old, new)
    return kernels | ({"bias": transfer_bias(arrays["bias"], new)} if "bias" in arrays else {})


def transfer_bias(bias: Array, new: Layout) -> Array:
    """Repeat a bias for every position, or take its mean over them, as the layout has it.

    Example:
      >>> from convlab.geometry import Window
      >>> transfer_bias(jnp.ones(2), Layout("locally_connected", Window(3), 1, 2, space=(5, 7))).shape
      (5, 7, 2)
    """
    if new.bias_sharing == "position":
        return jnp.broadcast_to(bias, new.bias_shape)
    return bias.reshape(-1, bias.shape[-1]).mean(0)


def squared_norm(arrays: Arrays, layout: Layout) -> Array:
    """Sum the squares of the dense matrix that a layer stands for.

    Example:
      >>> from convlab.geometry import Window
      >>> conv = Layout("conv", Window(3), 1, 2, space=(5, 7))
      >>> float(squared_norm({"kernel": jnp.ones((3, 3, 1, 2))}, conv))
      494.0
    """
    if layout.rung == "dense":
        return jnp.sum(arrays["kernel"] ** 2)
    return convert.squared_norm(SPREAD[layout.rung](arrays, layout), *_where(layout))


def _spread_conv(arrays: Arrays, old: Layout) -> Array:
    return jnp.broadcast_to(arrays["kernel"], (*old.positions, *old.kernel))


def _spread_tiled(arrays: Arrays, old: Layout) -> Array:
    v = arrays["kernel"]
    for r, positions in enumerate(old.positions):
        v = v.take(np.arange(positions) % v.shape[r], axis=r)
    return v


def _spread_low_rank(arrays: Arrays, old: Layout) -> Array:
    return convert.lift_low_rank_to_local(arrays["basis"], arrays["weights"])


def _spread_local(arrays: Arrays, old: Layout) -> Array:
    return arrays["kernel"]


def _spread_dense(arrays: Arrays, old: Layout) -> Array:
    return convert.project_dense_to_local(arrays["kernel"], *_where(old))


SPREAD: dict[str, Callable[[Arrays, Layout], Array]] = {
    "conv": _spread_conv,
    "tiled": _spread_tiled,
    "low_rank": _spread_low_rank,
    "locally_connected": _spread_local,
    "dense": _spread_dense,
}


def _gather_conv(v: Array, old: Layout, new: Layout) -> Arrays:
    return {"kernel": convert.project_local_to_conv(v, *_where(new))}


def _gather_tiled(v: Array, old: Layout, new: Layout) -> Arrays:
    return {"kernel": convert.project_local_to_tiled(v, *_where(new), new.period or 1)}


def _gather_low_rank(v: Array, old: Layout, new: Layout) -> Arrays:
    if old.rung == "conv":
        return _mixed(v[(0,) * len(old.positions)], new)
    return dict(zip(("basis", "weights"), convert.project_local_to_low_rank(v, new.rank or 1), strict=True))


def _mixed(kernel: Array, new: Layout) -> Arrays:
    """Write one kernel as a mixture: the others are zero, in proportions that are cosines, so that they learn unlike things."""
    basis = jnp.zeros((new.rank or 1, *kernel.shape), kernel.dtype).at[0].set(kernel)
    many, wave = math.prod(new.positions), np.arange(new.rank or 1)
    weights = np.cos(np.pi / many * (np.arange(many)[:, None] + 0.5) * wave) * np.where(wave, 2**0.5, 1)
    return {"basis": basis, "weights": jnp.asarray(weights.reshape(*new.positions, -1), kernel.dtype)}


def _gather_local(v: Array, old: Layout, new: Layout) -> Arrays:
    live = new.window.live(_where(new)[1])[..., None, None]
    return {"kernel": v if old.rung == "low_rank" else jnp.where(live, v, 0)}


def _gather_dense(v: Array, old: Layout, new: Layout) -> Arrays:
    return {"kernel": convert.lift_local_to_dense(v, *_where(new), old.groups)}


GATHER: dict[str, Callable[[Array, Layout, Layout], Arrays]] = {
    "conv": _gather_conv,
    "tiled": _gather_tiled,
    "low_rank": _gather_low_rank,
    "locally_connected": _gather_local,
    "dense": _gather_dense,
}


def _where(layout: Layout) -> tuple[Window, Space]:
    assert layout.space is not None
    return layout.window, layout.space
