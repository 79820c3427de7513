"""Soft constraints: scalar functions of the parameters whose gradients are added to the loss's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from convlab.geometry import Axis, as_axes
from convlab.layers import spatial
from convlab.optim.leaves import Number, Taken, Tree, at_least_zero, found, needed, numbers_at
from convlab.optim.sharing import Projection
from convlab.rungs import Layout

Penalty = Callable[[Tree], Float[Array, ""]]


def add_penalty(penalty: Penalty, weight: Number) -> optax.GradientTransformation:
    r"""Add a penalty's gradient to the loss's.

    $$g \leftarrow g + w \nabla r(\theta)$$

    Args:
      penalty: Any differentiable scalar function of the parameters, r.
      weight: Its weight, w; a number, or a schedule.

    Raises:
      ValueError: The weight is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = optax.chain(add_penalty(lambda p: jnp.sum(p**2), 0.5), optax.sgd(1.0))
      >>> parameters = jnp.array([1.0, 3.0])
      >>> optimizer.update(jnp.zeros(2), optimizer.init(parameters), parameters)[0]
      Array([-1., -3.], dtype=float32)
    """
    at_least_zero(weight=weight)

    def init(params: Tree) -> Taken:
        return Taken(jnp.zeros((), jnp.int32))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Taken]:
        gradient = jax.grad(penalty)(needed(params, "add_penalty"))
        now = numbers_at(state.count, weight)[0]
        updates = jax.tree.map(lambda u, g: u + jnp.asarray(now, u.dtype) * g.astype(u.dtype), updates, gradient)
        return updates, state.next()

    return optax.GradientTransformation(init, update)


def projection_penalty(projection: Projection) -> Penalty:
    r"""Return the squared distance of the parameters from their projection: zero exactly where the constraint holds.

    $$r(\theta) = \sum (\theta - P\theta)^2$$

    With `sharing_projection(model)` it is soft tying, each kernel's distance from the mean over live positions; with
    `sharing_projection(model, to="locally_connected")` it is soft locality, the squared weights outside the windows.

    Args:
      projection: A function of the parameters, such as `sharing_projection(model)`.

    Example:
      >>> float(distance(lambda p: jnp.full_like(p, p.mean()))(jnp.array([1.0, 3.0])))
      2.0
    """

    def penalty(parameters: Tree) -> Float[Array, ""]:
        apart = jax.tree.map(jnp.subtract, parameters, projection(parameters))
        return _total(jnp.sum(each * each) for each in jax.tree.leaves(apart))

    return penalty


def locality_penalty(model: nnx.Module, by: str = "distance", size: Callable[[Array], Array] = jnp.square) -> Penalty:
    r"""Return the size of the kernels of a model, each weight counted by how far it reads from the window's centre.

    $$r(W) = \sum_{ijklcd} \rho_{ijkl} \, s(W_{ijklcd})$$

    Args:
      model: A Flax NNX module with layers of convlab; only its layout is used.
      by: What a weight counts, rho: "distance" (pixels from the centre of the position's window, at most once around the
        image), or "outside" (1 for dense weights outside the window, else 0).
      size: Of a weight, s: `jnp.square` or `jnp.abs`.

    Returns:
      A function of trees like the model's parameters.

    Raises:
      ValueError: `by` is unknown, or the model has no spatial layers.

    Example:
      >>> from convlab.layers import Conv
      >>> layer = Conv(1, 1, (3, 3), rngs=nnx.Rngs(0))
      >>> f"{far(layer, size=jnp.abs)({'kernel': jnp.ones((3, 3, 1, 1)), 'bias': jnp.ones(1)}):.4f}"  # 4 + 4 sqrt(2)
      '9.6569'
    """
    if by not in COUNTED:
        raise ValueError(f"by {by!r} is unknown; needs one of {', '.join(COUNTED)}")
    layouts = {path: layer.layout for path, layer in spatial(model).items()}
    if not layouts:
        raise ValueError("the model has no spatial layers of convlab: nothing is near or far")
    counted = {path: COUNTED[by](layout)[..., None, None] for path, layout in layouts.items()}

    def penalty(parameters: Tree) -> Float[Array, ""]:
        total = jnp.asarray(0.0)
        for path, layout in layouts.items():
            names = layout.tying.arrays
            arrays = found(parameters, [(*path, name) for name in names])
            if len(arrays) == len(names):
                kernels = dict(zip(names, arrays.values(), strict=True))
                v = kernels["kernel"] if layout.tying.by_pixel else layout.tying.kernels(kernels, layout)
                total += jnp.sum(counted[path].astype(v.dtype) * size(v))
        return total

    return penalty


def _from_centre(layout: Layout) -> np.ndarray:
    """Pixels between the centre of a window and what each weight reads: (*window), or (*out, *space) for dense weights."""
    if layout.tying.by_pixel:
        reaches = [_reach(axis) for axis in layout.axes]
    else:
        taps = zip(layout.kernel[:-2], as_axes("dilation", layout.window.dilation, layout.ndim), strict=True)
        reaches = [dilation * (np.arange(size) - (size - 1) / 2) for size, dilation in taps]
    return _over_axes(np.add, [reach**2 for reach in reaches]) ** 0.5


def _outside(layout: Layout) -> np.ndarray:
    """Which dense weights read a pixel outside the window of their position: (*out, *space); of the others none does."""
    if not layout.tying.by_pixel:
        return np.zeros(())
    inside = [(axis.reads[:, :, None] == np.arange(axis.pixels)).any(1) for axis in layout.axes]
    return 1.0 - _over_axes(np.logical_and, inside)


COUNTED = {"distance": _from_centre, "outside": _outside}


def _reach(axis: Axis) -> np.ndarray:
    """Pixels from the centre of each window to each pixel of one axis, the short way where the image repeats: (out, n)."""
    centre = axis.stride * np.arange(axis.outputs) + axis.dilation * (axis.size - 1) / 2 - axis.low
    apart = np.abs(np.arange(axis.pixels) - centre[:, None])
    if axis.mode == "wrap":
        apart = apart % axis.pixels
        apart = np.minimum(apart, axis.pixels - apart)
    return apart


def _over_axes(join: np.ufunc, tables: list[np.ndarray]) -> np.ndarray:
    """Join tables of one spatial axis each, (a), (b) to (a, b) or (i, k), (j, l) to (i, j, k, l)."""
    rank, table = len(tables), tables[0]
    for other in tables[1:]:
        table = join.outer(table, other)
    if tables[0].ndim == 1:
        return table
    return table.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))


def _total(terms) -> Float[Array, ""]:
    return sum(terms, start=jnp.asarray(0.0))
