"""Optimizers that set weights to exactly zero, so that a dense layer learns its connections."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from convlab import check
from convlab.optim.leaves import (
    CountState,
    Mask,
    Number,
    Tree,
    at_least_zero,
    cast_like,
    numbers_at,
    require_parameters,
    resolve_mask,
)


def beta_lasso(
    learning_rate: Number, l1_penalty: Number, beta: Number, *, momentum: float | None = None, mask: Mask | None = None
) -> optax.GradientTransformation:
    r"""Take gradient steps of loss and L1 penalty, and set weights below beta times lambda to zero.

    $$\theta \leftarrow h_{\beta\lambda}(\theta - \eta (g + \lambda \operatorname{sign} \theta)), \qquad
      h_t(z) = z \text{ where } |z| \ge t, \text{ else } 0$$

    The threshold does not depend on the learning rate. A weight at zero returns only if one step carries it over the
    threshold, that is, if $\eta |g| \ge \beta\lambda$. The weights must therefore start with a standard deviation of many
    times beta times lambda, or all weights of a layer become zero at once. `init` warns of arrays that would lose more than
    half of their weights.

    It is a complete optimizer. With lambda 0 it is `optax.sgd`. Weights that `mask` excludes take plain gradient steps.

    Args:
      learning_rate: The learning rate eta, a number or a schedule.
      l1_penalty: The weight lambda of the L1 penalty, a number or a schedule.
      beta: The ratio of threshold to lambda, a number or a schedule. The paper's best was 50, at lambda about 1e-5.
      momentum: The momentum, as in `optax.sgd`. The penalty's gradient is part of it.
      mask: The arrays to threshold, as a tree of bools or a function of the parameters that returns one. If None,
        `kernel_mask`. Inside `optax.inject_hyperparams`, which takes functions for schedules, a function needs
        static_args="mask".

    Raises:
      ValueError: A number is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = beta_lasso(0.1, l1_penalty=0.5, beta=2)
      >>> parameters = {"kernel": jnp.array([[3.0, 1.02]])}
      >>> updates, _ = optimizer.update({"kernel": jnp.zeros((1, 2))}, optimizer.init(parameters), parameters)
      >>> optax.apply_updates(parameters, updates)["kernel"]
      Array([[2.95, 0.  ]], dtype=float32)

    Reference: Neyshabur 2020, Towards Learning Convolutions from Scratch, algorithm 1.
    """
    at_least_zero(learning_rate=learning_rate, l1_penalty=l1_penalty, beta=beta)
    momentum = _as_momentum(momentum)
    sgd = optax.sgd(learning_rate, momentum)
    if _is_zero(l1_penalty):
        return _with_parameters(sgd)
    threshold = _change_arrays(_cut_small, _product(beta, l1_penalty), mask=mask, start=_warn_of_dead_arrays)
    return optax.chain(_change_arrays(_add_sign, l1_penalty, mask=mask), sgd, threshold)


def soft_threshold(
    learning_rate: Number, l1_penalty: Number, *, momentum: float | None = None, mask: Mask | None = None
) -> optax.GradientTransformation:
    r"""Take gradient steps of the loss, then shrink weights towards zero (proximal gradient, ISTA).

    $$\theta \leftarrow s_{\eta\lambda}(\theta - \eta g), \qquad s_t(z) = \operatorname{sign}(z) \max(|z| - t, 0)$$

    Its fixed points are the minima of the loss plus lambda times the sum of absolute weights. It is a complete optimizer.
    With lambda 0 it is `optax.sgd`. Weights that `mask` excludes take plain gradient steps.

    Args:
      learning_rate: The learning rate eta, a number or a schedule.
      l1_penalty: The weight lambda of the L1 penalty, a number or a schedule.
      momentum: The momentum of the loss's gradient alone, as in `optax.sgd`.
      mask: The arrays to threshold, as a tree of bools or a function of the parameters that returns one. If None,
        `kernel_mask`. Inside `optax.inject_hyperparams`, which takes functions for schedules, a function needs
        static_args="mask".

    Raises:
      ValueError: A number is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = soft_threshold(0.1, l1_penalty=5)
      >>> parameters = {"kernel": jnp.array([[3.0, 0.25]])}
      >>> updates, _ = optimizer.update({"kernel": jnp.zeros((1, 2))}, optimizer.init(parameters), parameters)
      >>> optax.apply_updates(parameters, updates)["kernel"]
      Array([[2.5, 0. ]], dtype=float32)

    Reference: Daubechies, Defrise and De Mol 2004.
    """
    at_least_zero(learning_rate=learning_rate, l1_penalty=l1_penalty)
    momentum = _as_momentum(momentum)
    sgd = optax.sgd(learning_rate, momentum)
    if _is_zero(l1_penalty):
        return _with_parameters(sgd)
    return optax.chain(sgd, _change_arrays(_shrink, _product(learning_rate, l1_penalty), mask=mask))


def _as_momentum(momentum: float | None) -> float | None:
    return momentum if momentum is None else check.number("momentum", momentum)


def _with_parameters(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Make an optimizer require the parameters, like the other transformations here."""

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        return optimizer.update(updates, state, require_parameters(params, "an L1 penalty"))

    return optax.GradientTransformation(optimizer.init, update)


def _change_arrays(
    change: Callable[[Array, Array, Array], Array], number: Number, *, mask: Mask | None, start: Callable | None = None
) -> optax.GradientTransformation:
    """Change the update of every array that `mask` selects, given the array and a number or schedule."""

    def init(params: Tree) -> CountState:
        count = jnp.zeros((), jnp.int32)
        if start is not None:
            start(params, *numbers_at(count, number))
        return CountState(count)

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, CountState]:
        parameters = require_parameters(params, "an L1 penalty")
        value = numbers_at(state.count, number)[0]
        updates = cast_like(parameters, updates)
        updates = jax.tree.map(lambda u, p: change(u, p, jnp.asarray(value, p.dtype)), updates, parameters)
        return updates, state.next()

    return optax.masked(optax.GradientTransformation(init, update), lambda params: resolve_mask(params, mask))


def _add_sign(update: Array, parameter: Array, l1_penalty: Array) -> Array:
    return update + l1_penalty * jnp.sign(parameter)


def _cut_small(update: Array, parameter: Array, threshold: Array) -> Array:
    return jnp.where(jnp.abs(parameter + update) < threshold, -parameter, update)


def _shrink(update: Array, parameter: Array, shrinkage: Array) -> Array:
    moved = parameter + update
    return jnp.where(jnp.abs(moved) <= shrinkage, -parameter, update - shrinkage * jnp.sign(moved))


def _is_zero(number: Number) -> bool:
    """Return True if a number is concrete and zero."""
    return not callable(number) and check.is_concrete(number) and float(number) == 0


def _product(first: Number, second: Number) -> Number:
    """Multiply two numbers or schedules."""
    if callable(first) or callable(second):
        return lambda count: math.prod(numbers_at(jnp.asarray(count), first, second))
    return first * second


def _warn_of_dead_arrays(parameters: Tree, threshold: float | Array) -> None:
    """Warn if the first step sets more than half of an array to zero. Tracers are not checked."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        if check.is_concrete(leaf) and check.is_concrete(threshold):
            small = float(jnp.mean(jnp.abs(leaf) < threshold))
            if small > 0.5:
                warnings.warn(
                    f"beta_lasso: {small:.0%} of {jax.tree_util.keystr(path) or 'the array'} start below beta * l1_penalty ="
                    f" {float(threshold):.3g} and become zero; use larger initial weights, or a smaller beta or l1_penalty",
                    stacklevel=2,
                )
