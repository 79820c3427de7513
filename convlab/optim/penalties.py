"""Soft constraints: scalar functions of the parameters, whose gradients are added to that of the loss."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import described, left_alone, names_with_reasons
from convlab.choices import one_of
from convlab.geometry import Axis, as_axes, over_axes
from convlab.optim.leaves import (
    CountState,
    Number,
    Tree,
    arrays_at,
    at_least_zero,
    check_same_structure,
    numbers_at,
    require_parameters,
)
from convlab.optim.sharing import Projection
from convlab.rungs import Layout

Penalty = Callable[[Tree], Float[Array, ""]]


def add_penalty(penalty: Penalty, weight: Number) -> optax.GradientTransformation:
    r"""Add a penalty's gradient to that of the loss.

    $$g \leftarrow g + w \nabla r(\theta)$$

    Args:
      penalty: The penalty r, any differentiable scalar function of the parameters.
      weight: The weight w, a number or a schedule.

    Raises:
      ValueError: The weight is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = optax.chain(add_penalty(lambda p: jnp.sum(p**2), 0.5), optax.sgd(1.0))
      >>> parameters = jnp.array([1.0, 3.0])
      >>> optimizer.update(jnp.zeros(2), optimizer.init(parameters), parameters)[0]
      Array([-1., -3.], dtype=float32)
    """
    check.function("penalty", penalty, "a function of the parameters")
    at_least_zero(weight=weight)

    def init(params: Tree) -> CountState:
        return CountState(jnp.zeros((), jnp.int32))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, CountState]:
        gradient = jax.grad(lambda params: check.number("the result of penalty", penalty(params)))(
            require_parameters(params, "add_penalty")
        )
        value = numbers_at(state.count, weight)[0]
        updates = jax.tree.map(lambda u, g: u + jnp.asarray(value, u.dtype) * g.astype(u.dtype), updates, gradient)
        return updates, state.next()

    return optax.GradientTransformation(init, update)


def projection_penalty(projection: Projection) -> Penalty:
    r"""Return the squared distance of the parameters from their projection.

    $$r(\theta) = \sum |\theta - P\theta|^2$$

    It is zero exactly if the constraint holds. With `sharing_projection(model)` it is soft tying: the squared distance of
    each kernel from the mean over live positions. With `sharing_projection(model, to="locally_connected")` it is soft
    locality: the squared weights outside the windows.

    Args:
      projection: A function of the parameters, such as `sharing_projection(model)`.

    Example:
      >>> float(projection_penalty(lambda p: jnp.full_like(p, p.mean()))(jnp.array([1.0, 3.0])))
      2.0
    """

    check.function("projection", projection, "a function of the parameters")

    def penalty(parameters: Tree) -> Float[Array, ""]:
        projected = projection(parameters)
        check_same_structure(parameters, projected, "the result of projection")
        difference = jax.tree.map(jnp.subtract, parameters, projected)
        return _total(jnp.sum(jnp.real(leaf * jnp.conj(leaf))) for leaf in jax.tree.leaves(difference))

    return penalty


def locality_penalty(model: nnx.Module, weighting: str = "distance", penalty: Callable[[Array], Array] = jnp.square) -> Penalty:
    r"""Penalise each weight of a model's kernels by its distance from the window's centre.

    $$r(W) = \sum_{ijklcd} \rho_{ijkl} \, s(W_{ijklcd})$$

    Weights are those that a layer uses, after its mask. Of a transposed layer, the position is that of the layer that is
    transposed. A warning names layers that are left alone because no rung describes them, for example with input dilation.

    Args:
      model: A Flax NNX module with layers of convlab or Flax. Only its layouts and masks are used.
      weighting: The factor rho of a weight: "distance" (pixels from the centre of the position's window, the short way around
        on a periodic image), or "outside" (1 for dense weights outside the window, else 0).
      penalty: The penalty s of a weight, an elementwise function such as `jnp.square` or `jnp.abs`. Of complex weights, it
        must be real, as `jnp.abs` is.

    Returns:
      A function of trees like the model's parameters.

    Raises:
      ValueError: `weighting` is unknown, or the model has no spatial layers that a rung describes.
      TypeError: The penalty of complex weights is complex; raised by the function that is returned.

    Example:
      >>> from convlab.layers import Conv
      >>> layer = Conv(1, 1, (3, 3), rngs=nnx.Rngs(0))
      >>> parameters = {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.ones(1)}
      >>> f"{locality_penalty(layer, penalty=jnp.abs)(parameters):.4f}"  # 4 + 4 sqrt(2)
      '9.6569'
    """
    one_of("weighting", weighting, FACTORS)
    check.function("penalty", penalty, "an elementwise function")
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    layers, alone = described(model), names_with_reasons(left_alone(model))
    if not layers:
        raise ValueError(f"model has no spatial layers that a rung describes; left alone: {alone or 'none'}")
    if alone:
        warnings.warn(f"locality_penalty leaves alone {alone}", stacklevel=2)
    factors = {path: FACTORS[weighting](layer.layout)[..., None, None] for path, layer in layers.items()}

    def total_penalty(parameters: Tree) -> Float[Array, ""]:
        total = jnp.asarray(0.0)
        for path, layer in layers.items():
            names = layer.layout.tying.arrays
            arrays = arrays_at(parameters, [(*path, name) for name in names])
            if len(arrays) == len(names):
                used, layout = layer.arrays(dict(zip(names, arrays.values(), strict=True))), layer.layout
                v = used["kernel"] if layout.tying.by_pixel else layout.tying.kernels(used, layout)
                penalties = check.floating("the result of penalty", penalty(v))
                total += jnp.sum(factors[path].astype(penalties.dtype) * penalties)
        return total

    return total_penalty


def _from_centre(layout: Layout) -> np.ndarray:
    """Return the distance between a window's centre and the pixel of each weight, in pixels.

    The shape is (*window), or (*out, *space) for dense weights.
    """
    if layout.tying.by_pixel:
        distances = [_distances(axis) for axis in layout.axes]
    else:
        taps = zip(layout.kernel_shape[:-2], as_axes("dilation", layout.window.dilation, layout.ndim), strict=True)
        distances = [dilation * (np.arange(size) - (size - 1) / 2) for size, dilation in taps]
    return over_axes(np.add, [distance**2 for distance in distances]) ** 0.5


def _outside(layout: Layout) -> np.ndarray:
    """Return 1 for dense weights outside the window of their position, else 0: (*out, *space).

    For layers that are not dense it is the scalar 0.
    """
    if not layout.tying.by_pixel:
        return np.zeros(())
    inside = [(axis.reads[:, :, None] == np.arange(axis.pixels)).any(1) for axis in layout.axes]
    return 1.0 - over_axes(np.logical_and, inside)


FACTORS = {"distance": _from_centre, "outside": _outside}


def _distances(axis: Axis) -> np.ndarray:
    """Return the distance of each pixel of one axis from each window's centre: (out, n).

    If the image repeats, it is the shorter way around.
    """
    centre = axis.stride * np.arange(axis.outputs) + axis.dilation * (axis.size - 1) / 2 - axis.low
    distances = np.abs(np.arange(axis.pixels) - centre[:, None])
    if axis.mode == "wrap":
        distances = distances % axis.pixels
        distances = np.minimum(distances, axis.pixels - distances)
    return distances


def _total(terms) -> Float[Array, ""]:
    return sum(terms, start=jnp.asarray(0.0))
