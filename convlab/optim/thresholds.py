"""Optimizers that leave weights at exactly zero: what a dense layer keeps is then a connectivity it has learned."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from convlab import check
from convlab.optim.leaves import Mask, Number, Taken, Tree, at_least_zero, kernel_mask, like, needed, numbers_at


def beta_lasso(
    learning_rate: Number, lam: Number, beta: Number, *, momentum: float | None = None, mask: Mask | None = None
) -> optax.GradientTransformation:
    r"""Step down the gradient of loss and L1 penalty, then set every weight to zero that is smaller than beta times lambda.

    $$\theta \leftarrow h_{\beta\lambda}(\theta - \eta (g + \lambda \operatorname{sign} \theta)), \qquad
      h_t(z) = z \text{ where } |z| \ge t, \text{ else } 0$$

    The threshold does not shrink with the learning rate: a weight at zero comes back only when one step carries it over, at
    $\eta |g| \ge \beta\lambda$. So the weights must start far above it: their standard deviation many times beta times lambda,
    or all of a layer dies at once. Starting warns of arrays that would lose more than half of their weights.
    A complete optimizer; with lambda 0 it is `optax.sgd`. Weights that `mask` leaves out get plain gradient steps.

    Args:
      learning_rate: A number, or a schedule.
      lam: The weight of the penalty, lambda; a number, or a schedule.
      beta: The threshold over lambda; a number, or a schedule. The paper's best was 50, at lambda about 1e-5.
      momentum: As in `optax.sgd`; the penalty's gradient goes through it.
      mask: Which arrays: a tree of bools or a function that makes one of the parameters; when absent, `kernel_mask`. Inside
        `optax.inject_hyperparams`, which takes functions for schedules, a function needs static_args="mask".

    Raises:
      ValueError: A number is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = beta_lasso(0.1, lam=0.5, beta=2)
      >>> parameters = {"kernel": jnp.array([[3.0, 1.02]])}
      >>> updates, _ = optimizer.update({"kernel": jnp.zeros((1, 2))}, optimizer.init(parameters), parameters)
      >>> optax.apply_updates(parameters, updates)["kernel"]
      Array([[2.95, 0.  ]], dtype=float32)

    Reference: Neyshabur 2020, Towards Learning Convolutions from Scratch, algorithm 1.
    """
    at_least_zero(learning_rate=learning_rate, lam=lam, beta=beta)
    sgd = optax.sgd(learning_rate, momentum)
    if _is_zero(lam):
        return _with_parameters(sgd)
    cut = _each(_cut, _product(beta, lam), mask=mask, start=_warn_of_the_dying)
    return optax.chain(_each(_add_sign, lam, mask=mask), sgd, cut)


def soft_threshold(
    learning_rate: Number, lam: Number, *, momentum: float | None = None, mask: Mask | None = None
) -> optax.GradientTransformation:
    r"""Step down the gradient of the loss, then shrink every weight towards zero: the proximal gradient of an L1 penalty.

    $$\theta \leftarrow s_{\eta\lambda}(\theta - \eta g), \qquad s_t(z) = \operatorname{sign}(z) \max(|z| - t, 0)$$

    Its fixed points are the minima of the loss plus lambda times the sum of absolute weights. A complete optimizer; with
    lambda 0 it is `optax.sgd`. Weights that `mask` leaves out get plain gradient steps.

    Args:
      learning_rate: A number, or a schedule.
      lam: The weight of the penalty, lambda; a number, or a schedule.
      momentum: As in `optax.sgd`, of the loss alone.
      mask: Which arrays: a tree of bools or a function that makes one of the parameters; when absent, `kernel_mask`. Inside
        `optax.inject_hyperparams`, which takes functions for schedules, a function needs static_args="mask".

    Raises:
      ValueError: A number is negative or not finite, or an update comes without parameters.

    Example:
      >>> optimizer = soft_threshold(0.1, lam=5)
      >>> parameters = {"kernel": jnp.array([[3.0, 0.25]])}
      >>> updates, _ = optimizer.update({"kernel": jnp.zeros((1, 2))}, optimizer.init(parameters), parameters)
      >>> optax.apply_updates(parameters, updates)["kernel"]
      Array([[2.5, 0. ]], dtype=float32)

    Reference: Daubechies, Defrise and De Mol 2004.
    """
    at_least_zero(learning_rate=learning_rate, lam=lam)
    sgd = optax.sgd(learning_rate, momentum)
    if _is_zero(lam):
        return _with_parameters(sgd)
    return optax.chain(sgd, _each(_shrink, _product(learning_rate, lam), mask=mask))


def _with_parameters(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that asks for the parameters like all of this room, also where it has no use for them."""

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        return optimizer.update(updates, state, needed(params, "an L1 penalty"))

    return optax.GradientTransformation(optimizer.init, update)


def _each(
    change: Callable[[Array, Array, Array], Array], number: Number, *, mask: Mask | None, start: Callable | None = None
) -> optax.GradientTransformation:
    """Change the update of every array that `mask` names, given the array and a number or schedule."""

    def init(params: Tree) -> Taken:
        count = jnp.zeros((), jnp.int32)
        if start is not None:
            start(params, *numbers_at(count, number))
        return Taken(count)

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Taken]:
        parameters = needed(params, "an L1 penalty")
        now = numbers_at(state.count, number)[0]
        updates = like(parameters, updates)
        updates = jax.tree.map(lambda u, p: change(u, p, jnp.asarray(now, p.dtype)), updates, parameters)
        return updates, state.next()

    return optax.masked(optax.GradientTransformation(init, update), kernel_mask if mask is None else mask)


def _add_sign(update: Array, parameter: Array, lam: Array) -> Array:
    return update + lam * jnp.sign(parameter)


def _cut(update: Array, parameter: Array, threshold: Array) -> Array:
    return jnp.where(jnp.abs(parameter + update) < threshold, -parameter, update)


def _shrink(update: Array, parameter: Array, shrinkage: Array) -> Array:
    stepped = parameter + update
    return jnp.where(jnp.abs(stepped) <= shrinkage, -parameter, update - shrinkage * jnp.sign(stepped))


def _is_zero(number: Number) -> bool:
    """Whether there is nothing to add: then nothing stands between step and parameters that could round otherwise."""
    return not callable(number) and check.is_known(number) and float(number) == 0


def _product(first: Number, second: Number) -> Number:
    """Multiply two numbers, or schedules."""
    if callable(first) or callable(second):
        return lambda count: math.prod(numbers_at(jnp.asarray(count), first, second))
    return first * second


def _warn_of_the_dying(parameters: Tree, threshold: float | Array) -> None:
    """Warn of arrays of which the first step sets most to zero; of what is traced nothing is known."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        if check.is_known(leaf) and check.is_known(threshold):
            small = float(jnp.mean(jnp.abs(leaf) < threshold))
            if small > 0.5:
                warnings.warn(
                    f"beta_lasso: {small:.0%} of {jax.tree_util.keystr(path) or 'the array'} start below beta * lam ="
                    f" {float(threshold):.3g} and become zero; start larger, or lower beta or lam",
                    stacklevel=2,
                )
