"""Projections to shared or local weights, applied to the parameters or to every gradient."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array

from convlab.geometry import as_integer
from convlab.layers import spatial_layers
from convlab.optim.leaves import CountState, Tree, at_paths, cast_like, require_parameters
from convlab.rungs import Layout, contains, make_tying, transfer, with_rung

Projection = Callable[[Tree], Tree]


def sharing_projection(model: nnx.Module, to: str = "conv", **parameters: Any) -> Projection:
    r"""Return the projection of a model's parameters to a stricter rung.

    $$P = L\, Q$$

    Q projects a kernel orthogonally to the stricter rung, and L lifts it back, as in `convlab.rungs.transfer`.

    A kernel of a freer layer is projected to the rung and lifted back. If that rung has one bias for all positions, a bias
    per position becomes its mean. All other arrays are unchanged.

    Args:
      model: A Flax NNX module with convlab layers.
      to: The rung, such as "conv" (one kernel in the window) or "locally_connected" (only the weights inside the windows).
        It cannot be "low_rank", whose projection is not linear.
      **parameters: The parameters of the rung, as in `convlab.relax`.

    Returns:
      A function of trees like the model's parameters, which are nested dicts, as in `fit`, or NNX states.

    Raises:
      ValueError: No layer of the model is on a freer rung than `to`, or the pixels of one of them are unknown.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 2, (3, 3), space=(4, 5), rngs=nnx.Rngs(0))
      >>> kernel = sharing_projection(layer)(nnx.to_pure_dict(nnx.state(layer)))["kernel"]
      >>> bool((kernel[1, 1] == kernel[2, 3]).all())
      True
    """
    changes = {}
    for path, layer in spatial_layers(model).items():
        free = layer.layout
        strict = dataclasses.replace(free, tying=make_tying(to, **parameters))
        if free.tying != strict.tying and contains(free, strict) and free.tying.is_linear and strict.tying.is_linear:
            strict = with_rung(free, to, **parameters)
            for name in free.tying.arrays:
                changes[*path, name] = functools.partial(_project_and_lift, name=name, free=free, strict=strict)
            if free.bias_sharing == "position" and strict.bias_sharing == "channel":
                changes[*path, "bias"] = functools.partial(_mean, axes=free.ndim)
    if not changes:
        rungs = sorted({layer.layout.rung for layer in spatial_layers(model).values()})
        raise ValueError(f"no layer of the model can be projected to {to!r}: its spatial layers are {rungs}")
    return at_paths(changes)


def _project_and_lift(array: Array, name: str, free: Layout, strict: Layout) -> Array:
    """Project an array to the stricter layout, and lift it back."""
    return transfer(transfer({name: array}, free, strict), strict, free)[name]


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

    def init(params: Tree) -> CountState:
        return CountState(jnp.zeros((), jnp.int32))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, CountState]:
        parameters, count = require_parameters(params, "project_every"), state.count + 1

        def projected(updates: Tree) -> Tree:
            return jax.tree.map(jnp.subtract, projection(optax.apply_updates(parameters, updates)), parameters)

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
    return optax.stateless(lambda updates, _: projection(updates))


def _mean(bias: Array, axes: int) -> Array:
    """Set the bias of every position to the mean."""
    return jnp.broadcast_to(bias.mean(tuple(range(axes)), keepdims=True), bias.shape)
