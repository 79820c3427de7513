"""The pure core: a model becomes a function and its arrays, and `train_step` takes a `State` to the next one.

Both are plain JAX: under a mesh (`jax.set_mesh`) the same step runs on all its devices.
"""

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jax import lax
from jaxtyping import Array, Float, Int

from convlab import check
from convlab.data import standardise
from convlab.layers import spatial

Tree = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # of a batch of raw images and a key
ParameterMetrics = Callable[[Tree], Mapping[str, jax.Array]]  # of the parameters: scalars by name


@runtime_checkable
class Apply(Protocol):
    """A network as a pure function: the logits, and the next value of what is not trained (batch statistics, keys)."""

    def __call__(
        self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /
    ) -> tuple[jax.Array, Tree]: ...


class Trainable(NamedTuple):
    """What `fit` trains: a hashable pure function, its parameters, and the arrays that are not trained.

    Attributes:
      apply: The function.
      parameters: Any pytree.
      model_state: Batch statistics, keys; any pytree.
      rows: Paths (`jax.tree_util.keystr`) of the parameters whose first axis is that of output rows: on a mesh with an axis "i"
        each device holds its own rows of them.
    """

    apply: Apply
    parameters: Tree
    model_state: Tree
    rows: tuple[str, ...] = ()


class State(NamedTuple):
    """All that a step changes, as one plain pytree; with the seed it also says which batch comes next."""

    parameters: Tree
    model_state: Tree
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array
    bad: jax.Array  # whether a loss was not finite: from then on the parameters stay as they are
    average: Tree = None

    @property
    def scored(self) -> Tree:
        """The parameters to evaluate: their moving average, where there is one."""
        return self.parameters if self.average is None else self.average


class Recipe(NamedTuple):
    """What of a `Config` is compiled into a step; see there."""

    label_smoothing: float = 0.0
    accumulate: int = 1
    average: float = 0.0
    dtype: str = "float32"


_first = jax.jit(lambda parameters, optimizer: optimizer.init(parameters), static_argnums=1)  # whose traces JAX keeps


def initial(
    model: Trainable,
    optimizer: optax.GradientTransformation,
    seed: int,
    recipe: Recipe,
    remembered: optax.OptState | None = None,
) -> State:
    """State before the first step; its arrays are copies, as steps give up the memory of their input.

    Raises:
      ValueError: What the optimizer should remember is not of this model and optimizer.
      MemoryError: It would not fit into the memory that is free; see `convlab.allow_large_arrays`.
    """
    state = _first.eval_shape(model.parameters, optimizer)
    check.fits({"the parameters": model.parameters, "a gradient": model.parameters, "the optimizer's state": state})
    fresh = optimizer.init(model.parameters)
    if remembered is not None:
        described = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree) for tree in (fresh, remembered)]
        if described[0] != described[1]:
            raise ValueError(
                "optimizer_state is not one of this optimizer for this model; see convlab.transfer_optimizer_state"
            )
        fresh = remembered
    average = model.parameters if recipe.average else None
    step, key, bad = jnp.zeros((), jnp.int32), jax.random.key(seed), jnp.zeros((), bool)
    return jax.tree.map(jnp.copy, State(model.parameters, model.model_state, fresh, key, step, bad, average))


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"], smoothing: float = 0.0) -> Float[Array, " n"]:
    """Negative log-likelihood of each label, or of a target that spreads a share `smoothing` evenly over all classes."""
    if not smoothing:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.losses.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.losses.softmax_cross_entropy(logits, targets)


@dataclasses.dataclass(frozen=True, eq=False)
class NnxApply:
    """Compared by identity: `trainable` makes one object for all networks of the same graphs."""

    train: nnx.GraphDef
    evaluate: nnx.GraphDef

    def __call__(self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        model = nnx.merge(self.train if train else self.evaluate, parameters, model_state)
        logits = model(x)
        nnx.pop(model, nnx.Intermediate)  # what it sows
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))


# By their graphs. Every step compares its network with those that were compiled, and graphs take as long as some steps.
_APPLIES: weakref.WeakValueDictionary[Any, NnxApply] = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class LinenApply:
    """Compared by its module, hashed by the module's class, as a module's fields may hold lists."""

    module: linen.Module

    def __hash__(self) -> int:
        return hash(type(self.module))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinenApply) and self.module == other.module

    def __call__(self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        told: dict[str, Any] = {"train": train} if "train" in inspect.signature(type(self.module).__call__).parameters else {}
        variables, mutable = {"params": parameters, **model_state}, list(model_state) if train else []
        logits, new = self.module.apply(variables, x, rngs={"dropout": key}, mutable=mutable, **told)
        return logits, {**model_state, **new}


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
        nnx.pop(copy, nnx.Intermediate)
        copy.eval()
        evaluation, *_ = nnx.split(copy, nnx.Param, ...)
        copy.train()
        training, parameters, model_state = nnx.split(copy, nnx.Param, ...)
        apply = _APPLIES.setdefault((training, evaluation), NnxApply(training, evaluation))
        return Trainable(apply, nnx.to_pure_dict(parameters), nnx.to_pure_dict(model_state), tuple(_rows(copy)))
    if isinstance(model, linen.Module):
        told: dict[str, Any] = {"train": False} if "train" in inspect.signature(type(model).__call__).parameters else {}
        variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, *image_shape)), **told))
        return Trainable(LinenApply(model), variables.pop("params", {}), variables)
    raise TypeError(f"model must be a Flax NNX module, a Linen module or a Trainable, got {type(model).__name__}")


def _rows(model: nnx.Module) -> Iterator[str]:
    """Paths of the parameters whose first axis is that of output rows."""
    for path, module in spatial(model).items():
        for name in module.layout.rows:
            yield "".join(f"[{key!r}]" for key in (*path, name))


FIXED = ("apply", "optimizer", "augment", "recipe")  # arguments for which a program is compiled
# A function of a state, compiled once for all that is fixed in a run; it gives up the memory of the state.
compiled = functools.partial(jax.jit, static_argnames=FIXED, donate_argnames="state")


@compiled
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
    recipe: Recipe = Recipe(),  # noqa: B008 (immutable)
) -> tuple[State, Float[Array, ""]]:
    """Take one step down the mean loss of a batch of raw images; return the next state and the loss before the step.

    The state is consumed: its arrays give their memory to the next state, and cannot be read any more.

    `rate` scales the optimizer's updates, and so is a learning rate that does not ask for another compilation. `augment`
    changes the images with a key of the step. A loss that is not finite leaves the parameters as they
    were before the step, and all steps after it do.
    """
    key = jax.random.fold_in(state.key, state.step)
    if augment is not None:
        key, own = jax.random.split(key)
        images = augment(images, own)
    images = standardise(images, mean, std)

    def loss(parameters, model_state, images, labels, key):
        low, x = (cast(tree, recipe.dtype) for tree in (parameters, images))
        logits, model_state = apply(low, model_state, x, key, True)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return cross_entropy(logits, labels, recipe.label_smoothing).mean(), model_state

    value, model_state, gradient = _gradient(loss, state, images, labels, key, recipe.accumulate)
    bad = state.bad | ~jnp.isfinite(value)
    update = optax.with_extra_args_support(optimizer).update
    updates, inner = update(gradient, state.optimizer, state.parameters, value=value, grad=gradient)
    updates = jax.tree.map(lambda update: jnp.where(bad, 0, update * jnp.asarray(rate, update.dtype)), updates)
    parameters = optax.apply_updates(state.parameters, updates)
    average = state.average
    if recipe.average:
        decay = jnp.minimum(recipe.average, (1 + state.step) / (10 + state.step))
        mixed = optax.incremental_update(parameters, average, 1 - decay)
        average = jax.tree.map(lambda new, old: new.astype(old.dtype), mixed, average)
    return State(parameters, model_state, inner, state.key, state.step + 1, bad, average), value


@compiled  # pyright: ignore[reportCallIssue]
def train_steps(
    state: State,
    images: Float[Array, "t n k l c"],
    labels: Int[Array, "t n"],
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    rates: Float[Array, " t"],
    **options: Any,
) -> tuple[State, Float[Array, " t"]]:
    """Take one step after the other in one call; see `train_step`."""

    def body(state, batch):
        images, labels, rate = batch
        return train_step(state, images, labels, mean, std, rate, **options)  # pyright: ignore[reportCallIssue]

    return lax.scan(body, state, (images, labels, rates))


def _gradient(loss: Callable, state: State, images: Array, labels: Array, key: Array, pieces: int) -> tuple[Array, Tree, Tree]:
    """Value, model state and gradient of the mean loss, over a batch that is taken in pieces of every `pieces`-th image."""
    both = jax.value_and_grad(loss, has_aux=True)
    if pieces == 1:
        (value, model_state), gradient = both(state.parameters, state.model_state, images, labels, key)
        return value, model_state, gradient

    def add(carry, piece):
        model_state, gradient = carry
        (value, model_state), part = both(state.parameters, model_state, *piece)
        return (model_state, jax.tree.map(lambda g, p: g + p / pieces, gradient, part)), value

    cut = [jnp.moveaxis(a.reshape(-1, pieces, *a.shape[1:]), 1, 0) for a in (images, labels)]
    start = state.model_state, jax.tree.map(jnp.zeros_like, state.parameters)
    (model_state, gradient), values = lax.scan(add, start, (*cut, jax.random.split(key, pieces)))
    return values.mean(), model_state, gradient


def by_path(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def of_numbers(call: Callable[[Any], jax.Array], leaf: Any) -> jax.Array:
    """Call a function of an array; of a random key it sees the numbers, and a key is made of what it returns."""
    if not (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)):
        return call(leaf)
    return jax.random.wrap_key_data(call(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))


def cast(tree: Tree, dtype: str) -> Tree:
    """Bring single precision to `dtype`, and leave all that was chosen otherwise."""
    return jax.tree.map(lambda a: a.astype(dtype) if a.dtype == jnp.float32 else a, tree)


@functools.partial(jax.jit, static_argnames="apply")
def logits_of(parameters: Tree, model_state: Tree, images: Array, mean: Array, std: Array, *, apply: Apply) -> Array:
    """Score a batch; every device of a mesh gets all scores."""
    logits = apply(parameters, model_state, standardise(images, mean, std), jax.random.key(0), False)[0]
    empty = jax.sharding.get_abstract_mesh().empty
    return logits if empty else lax.with_sharding_constraint(logits, jax.sharding.PartitionSpec())
