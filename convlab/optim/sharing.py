"""Projections to shared or local weights, applied to the parameters or to every gradient."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array

from convlab import check
from convlab.calls import Described, described, layouts, left_alone, names_with_reasons
from convlab.geometry import as_integer
from convlab.optim.leaves import CountState, Tree, at_paths, cast_like, check_same_structure, require_parameters
from convlab.rungs import Layout, contains, make_tying, transfer, with_rung

Projection = Callable[[Tree], Tree]
TINY = 1e-5  # rounding of a projected Gaussian weight, relative to the largest


def sharing_projection(
    model: nnx.Module, to: str = "conv", image_shape: Sequence[int] | None = None, **parameters: Any
) -> Projection:
    r"""Return the projection of a model's parameters to a stricter rung.

    $$P = L\, Q$$

    Q projects a kernel orthogonally to the stricter rung, and L lifts it back, as in `convlab.rungs.transfer`.

    A kernel of a freer layer is projected to the rung and lifted back. If that rung has one bias for all positions, a bias
    per position becomes its mean. All other arrays are unchanged.

    With a mask m, the weights that the layer uses are projected: $m \odot P w = L Q (m \odot w)$. Weights that the mask removes
    are unchanged. Of a transposed layer, the layer that is transposed is projected.

    A warning names the layers that are left alone. No rung describes such a layer, or its projection is not linear or needs
    unknown pixels, or its mask removes weights that the rung shares with others. Layers that are already as strict are
    unchanged.

    Args:
      model: A Flax NNX module with layers of convlab or Flax.
      to: The rung, such as "conv" (one kernel in the window) or "locally_connected" (only the weights inside the windows).
        It cannot be "low_rank", whose projection is not linear.
      image_shape: The shape (*space, c) of one image. If None, layers that do not know their pixels may be left alone.
      **parameters: The parameters of the rung, as in `convlab.relax`.

    Returns:
      A function of trees like the model's parameters, which are nested dicts, as in `fit`, or NNX states.

    Raises:
      ValueError: No layer of the model can be projected to `to`.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 2, (3, 3), space=(4, 5), rngs=nnx.Rngs(0))
      >>> kernel = sharing_projection(layer)(nnx.to_pure_dict(nnx.state(layer)))["kernel"]
      >>> bool((kernel[1, 1] == kernel[2, 3]).all())
      True
    """
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    layers, alone, tying = described(model), left_alone(model), make_tying(to, **parameters)
    if image_shape is not None:
        known = layouts(model, image_shape, [*layers])
        layers = {path: layer._replace(layout=known[path]) for path, layer in layers.items()}
    changes = {}
    for path, layer in layers.items():
        free = layer.layout
        if type(free.tying) is not type(tying) and free.tying.within(type(tying)):
            continue
        strict = dataclasses.replace(free, tying=tying)
        if contains(strict, free):
            continue
        if reason := _obstacle(layer, strict):
            alone[path] = reason
            continue
        strict, (name,) = with_rung(free, to, **parameters), free.tying.arrays
        changes[*path, name] = functools.partial(_project_and_lift, layer=layer, strict=strict)
        if free.bias_sharing == "position" and strict.bias_sharing == "channel":
            changes[*path, "bias"] = functools.partial(_mean, axes=free.ndim)
    if not changes:
        rungs, reasons = sorted({layer.layout.rung for layer in layers.values()}), names_with_reasons(alone)
        details = f"; left alone: {reasons}" if alone else ""
        raise ValueError(f"no layer of the model can be projected to {to!r}: its spatial layers are {rungs}{details}")
    if alone:
        warnings.warn(f"sharing_projection leaves alone {names_with_reasons(alone)}", stacklevel=2)
    return at_paths(changes)


def _obstacle(layer: Described, strict: Layout) -> str:
    """Return why a layer has no linear projection to a stricter layout that its mask allows, or ""."""
    free = layer.layout
    if not contains(free, strict):
        return f"is {free.rung} and does not contain {strict.tying}"
    if not (free.tying.is_linear and strict.tying.is_linear):
        return f"is {free.rung}, whose projection to {strict.rung!r} is not linear"
    if free.space is None:
        return "has unknown pixels without image_shape="
    if layer.mask is not None and not _keeps(layer.mask != 0, free, strict):
        return f"has a mask that removes weights which {strict.rung!r} shares with others"
    return ""


def _keeps(kept: Array, free: Layout, strict: Layout) -> bool:
    """Return True if the projection of weights that a mask keeps is zero where the mask removes them."""
    name, *_ = free.tying.arrays
    strict = with_rung(free, strict.rung, **vars(strict.tying))
    weights = kept * jax.random.normal(jax.random.key(0), kept.shape)
    projected = jnp.abs(transfer(transfer({name: weights}, free, strict), strict, free)[name])
    return bool(jnp.max(jnp.where(kept, 0, projected)) <= TINY * jnp.max(projected))


def _project_and_lift(array: Array, layer: Described, strict: Layout) -> Array:
    """Project the weights that a layer uses to the stricter layout, and lift them back.

    The result is divided by the mask.
    """
    (name,), mask = layer.layout.tying.arrays, layer.mask
    lifted = transfer(transfer(layer.arrays({name: array}), layer.layout, strict), strict, layer.layout)[name]
    if mask is not None:
        lifted = jnp.where(mask != 0, lifted / jnp.where(mask != 0, mask, 1), layer.turned(array))
    return layer.turned(lifted).astype(array.dtype)


def project_every(projection: Projection, steps: int) -> optax.GradientTransformation:
    r"""Replace the parameters by their projection at every m-th update.

    $$\theta_{t+1} = P(\theta_t + u_t) \text{ where } m \text{ divides } t + 1, \text{ else } \theta_t + u_t$$

    It must be the last transformation of a chain, so that u is the whole step. The parameters equal their projection up to
    one rounding, and the projection is computed only in the steps that need it.

    With `sharing_projection(model)` it is dynamic weight sharing. With m = 1 under plain gradient descent, with or without
    momentum but not Adam, it trains a convolution. The learning rate of every tap is then divided by the number of
    positions at which it is live. Running batch statistics come from the networks before, so a network with batch norm
    should be scored some steps after a projection.

    Args:
      projection: A function of the parameters, such as `sharing_projection(model)`.
      steps: The number m of updates from one projection to the next.

    Raises:
      ValueError: `steps` is below 1, or an update comes without parameters.
      TypeError: `steps` is not an integer.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), project_every(lambda p: jax.tree.map(jnp.round, p), 2))
      >>> parameters = jnp.array(3.0)
      >>> state = optimizer.init(parameters)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(jnp.array(0.3), state, parameters)
      ...     parameters = optax.apply_updates(parameters, updates)
      ...     print(f"{parameters:.1f}")
      2.7
      2.0

    Reference: Pogodin, Mehta, Lillicrap and Latham 2021.
    """
    steps = as_integer("steps", steps)
    check.function("projection", projection, "a function of the parameters")

    def init(params: Tree) -> CountState:
        return CountState(jnp.zeros((), jnp.int32))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, CountState]:
        parameters, count = require_parameters(params, "project_every"), state.count + 1

        def projected(updates: Tree) -> Tree:
            nearest = projection(optax.apply_updates(parameters, updates))
            check_same_structure(parameters, nearest, "the result of projection")
            return jax.tree.map(jnp.subtract, nearest, parameters)

        updates = lax.cond(count % steps == 0, projected, lambda updates: updates, cast_like(parameters, updates))
        return updates, CountState(count % steps)

    return optax.GradientTransformation(init, update)


def tie_gradients(projection: Projection) -> optax.GradientTransformation:
    r"""Project the gradients, so that kernels that start tied stay tied under any optimizer.

    $$g \leftarrow P g$$

    With `sharing_projection(model)` before plain gradient descent it trains the same convolution as `project_every(..., 1)`
    after it. Under Adam the two differ. This one keeps kernels exactly tied, because every position gets the same gradient.

    Args:
      projection: A linear function of trees like the parameters, such as `sharing_projection(model)`.

    Example:
      >>> optimizer = optax.chain(tie_gradients(lambda g: jnp.full_like(g, g.mean())), optax.sgd(1.0))
      >>> optimizer.update(jnp.array([1.0, 3.0]), optimizer.init(jnp.zeros(2)))[0]
      Array([-2., -2.], dtype=float32)
    """
    check.function("projection", projection, "a function of the gradients")
    return optax.stateless(lambda updates, _: projection(updates))


def _mean(bias: Array, axes: int) -> Array:
    """Set the bias of every position to the mean."""
    return jnp.broadcast_to(bias.mean(tuple(range(axes)), keepdims=True), bias.shape)
