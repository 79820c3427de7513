"""The pure core: a model becomes a function and its arrays, and `train_step` takes a `State` to the next one."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jaxtyping import Array, Float, Int

from convlab.data import standardise

Tree = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # of a batch of raw images and a key


class Apply(Protocol):
    """A network as a pure function: the logits, and the next value of what is not trained (batch statistics, keys)."""

    def __call__(
        self, parameters: Tree, rest: Tree, x: jax.Array, key: jax.Array, train: bool, /
    ) -> tuple[jax.Array, Tree]: ...


class Trainable(NamedTuple):
    """What `fit` trains: a hashable pure function, its parameters, and the arrays that are not trained."""

    apply: Apply
    parameters: Tree
    rest: Tree


class State(NamedTuple):
    """All that a step changes, as one plain pytree; with the seed it also says which batch comes next."""

    parameters: Tree
    rest: Tree
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Negative log-likelihood of each label."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


@dataclasses.dataclass(frozen=True)
class NnxApply:
    train: nnx.GraphDef
    evaluate: nnx.GraphDef

    def __call__(self, parameters: Tree, rest: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        model = nnx.merge(self.train if train else self.evaluate, parameters, rest)
        logits = model(x)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))


@dataclasses.dataclass(frozen=True, eq=False)
class _LinenApply:
    """Compared by its module, hashed by the module's class, as a module's fields may hold lists."""

    module: linen.Module

    def __hash__(self) -> int:
        return hash(type(self.module))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LinenApply) and self.module == other.module

    def __call__(self, parameters: Tree, rest: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        told: dict[str, Any] = {"train": train} if "train" in inspect.signature(type(self.module).__call__).parameters else {}
        variables, mutable = {"params": parameters, **rest}, list(rest) if train else []
        logits, new = self.module.apply(variables, x, rngs={"dropout": key}, mutable=mutable, **told)
        return logits, {**rest, **new}


def trainable(model: nnx.Module | linen.Module | Trainable, image_shape: Sequence[int], seed: int = 0) -> Trainable:
    """Turn a model into a pure function and its arrays.

    Args:
      model: A Flax NNX module (its arrays are copied), a Linen module (initialised here; told `train=` if it asks for it),
        or a `Trainable` as it is.
      image_shape: (*space, c) of one image.
      seed: Of a Linen module's initial arrays.

    Raises:
      TypeError: `model` is none of these.
    """
    if isinstance(model, Trainable):
        return model
    if isinstance(model, nnx.Module):
        copy = nnx.clone(model)
        copy.eval()
        evaluation, *_ = nnx.split(copy, nnx.Param, ...)
        copy.train()
        training, parameters, rest = nnx.split(copy, nnx.Param, ...)
        return Trainable(NnxApply(training, evaluation), nnx.to_pure_dict(parameters), nnx.to_pure_dict(rest))
    if isinstance(model, linen.Module):
        told: dict[str, Any] = {"train": False} if "train" in inspect.signature(type(model).__call__).parameters else {}
        variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, *image_shape)), **told))
        return Trainable(_LinenApply(model), variables.pop("params", {}), variables)
    raise TypeError(f"model must be a Flax NNX module, a Linen module or a Trainable, got {type(model).__name__}")


@functools.partial(jax.jit, static_argnames=("apply", "optimizer", "augment"), donate_argnames="state")
def train_step(
    state: State,
    images: Float[Array, "n k l c"],
    labels: Int[Array, " n"],
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    rate: Float[Array, ""] | float = 1.0,
    *,
    apply: Apply,
    optimizer: optax.GradientTransformation,
    augment: Augment | None = None,
) -> tuple[State, Float[Array, ""]]:
    """Take one step down the mean loss of a batch of raw images; return the next state and the loss before the step.

    `rate` scales the optimizer's updates, and so is a learning rate that does not ask for another compilation. `augment`
    changes the images with a key of the step.
    """
    key = jax.random.fold_in(state.key, state.step)
    if augment is not None:
        key, own = jax.random.split(key)
        images = augment(images, own)

    def loss(parameters):
        logits, rest = apply(parameters, state.rest, standardise(images, mean, std), key, True)
        return cross_entropy(logits, labels).mean(), rest

    (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters)
    updates, inner = optimizer.update(gradient, state.optimizer, state.parameters)
    updates = jax.tree.map(lambda update: update * jnp.asarray(rate, update.dtype), updates)
    parameters = optax.apply_updates(state.parameters, updates)
    return State(parameters, rest, inner, state.key, state.step + 1), value


@functools.partial(jax.jit, static_argnames="apply")
def logits_of(parameters: Tree, rest: Tree, images: Array, mean: Array, std: Array, *, apply: Apply) -> Array:
    return apply(parameters, rest, standardise(images, mean, std), jax.random.key(0), False)[0]
