"""The pure core of training: models as functions of arrays, and the optimizer step.

All of it is plain JAX. Under a mesh (`jax.set_mesh`) the same step runs on all devices of the mesh.
"""

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from convlab import check
from convlab.data import standardise
from convlab.display import short_repr
from convlab.geometry import as_integer
from convlab.layers import spatial_layers

SEEDS = 2**32  # the number of seeds that give distinct random keys
Tree = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # maps a batch of raw images and a key to the augmented batch
Loss = Callable[[jax.Array, jax.Array], jax.Array]  # maps logits and labels to the loss, or to losses whose mean is taken
Metrics = Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]  # maps logits and labels to scalars by name
ParameterMetrics = Callable[[Tree], Mapping[str, jax.Array]]  # maps the parameters to scalars by name


@runtime_checkable
class Apply(Protocol):
    """A network as a pure function that returns the logits and the next model state.

    The model state holds the arrays that are not trained, such as batch statistics and random keys.
    """

    def __call__(
        self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /
    ) -> tuple[jax.Array, Tree]: ...


class Trainable(NamedTuple):
    """A model in the form that `fit` trains: a hashable pure function and its arrays.

    Attributes:
      apply: The network as a pure function.
      parameters: The trained arrays, any pytree.
      model_state: The arrays that are not trained, such as batch statistics and random keys, any pytree.
      rows: The paths (`jax.tree_util.keystr`) of the parameters whose first axis is the output rows. On a mesh with an axis
        "i", each device holds a part of these rows.
    """

    apply: Apply
    parameters: Tree
    model_state: Tree
    rows: tuple[str, ...] = ()

    __repr__ = short_repr


class State(NamedTuple):
    """The state of a run, as one plain pytree that `train_step` maps to the next state.

    Attributes:
      parameters: The trained arrays.
      model_state: The arrays that are not trained.
      optimizer_state: The optimizer's state.
      key: The random key of the run. Each step derives its own key from it.
      step: The number of steps taken. With the seed, it determines the next batch.
      diverged: Whether a loss was not finite. From then on the parameters no longer change.
      ema_parameters: The exponential moving average of the parameters, or None.
    """

    parameters: Tree
    model_state: Tree
    optimizer_state: optax.OptState
    key: jax.Array
    step: jax.Array
    diverged: jax.Array
    ema_parameters: Tree = None

    __repr__ = short_repr

    @property
    def evaluation_parameters(self) -> Tree:
        """The parameters to evaluate: `ema_parameters`, or `parameters` if that is None."""
        return self.parameters if self.ema_parameters is None else self.ema_parameters


class StepOptions(NamedTuple):
    """The options of a `Config` that are compiled into a step.

    Attributes:
      label_smoothing: The share of the target that is spread evenly over all classes.
      accumulation_steps: The number of micro-batches that a batch is split into.
      ema_decay: The decay of the moving average of the parameters. If 0, there is no average.
      dtype: The dtype of images, activations and gradients.
    """

    label_smoothing: float = 0.0
    accumulation_steps: int = 1
    ema_decay: float = 0.0
    dtype: str = "float32"


init_optimizer = jax.jit(lambda parameters, optimizer: optimizer.init(parameters), static_argnums=1)  # JAX caches its traces


def initial_state(
    model: Trainable,
    optimizer: optax.GradientTransformation,
    seed: int,
    step_options: StepOptions,
    optimizer_state: optax.OptState | None = None,
) -> State:
    """Make the state before the first step.

    Its arrays are copies, because a step donates the memory of its input.

    Args:
      model: The model.
      optimizer: The Optax gradient transformation.
      seed: The seed of the run's random key.
      step_options: The options that are compiled into a step.
      optimizer_state: The optimizer's state to start from. If None, a new one.

    Raises:
      ValueError: `optimizer_state` belongs to another model or optimizer, or `seed` is out of range.
      TypeError: An argument has the wrong type.
      MemoryError: The state does not fit into free memory. See `convlab.allow_large_arrays`.
    """
    check.instance("model", model, Trainable, "a Trainable, such as as_trainable returns")
    check.instance("step_options", step_options, StepOptions, "a StepOptions")
    check.optimizer("optimizer", optimizer)
    seed = as_integer("seed", seed, 0, most=SEEDS - 1)
    shapes = init_optimizer.eval_shape(model.parameters, optimizer)
    check.fits_in_memory({"the parameters": model.parameters, "a gradient": model.parameters, "the optimizer's state": shapes})
    fresh = optimizer.init(model.parameters)
    if optimizer_state is None:
        optimizer_state = fresh
    else:
        trees = fresh, check.tree("optimizer_state", optimizer_state)
        expected, got = (jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree) for tree in trees)
        if expected != got:
            raise ValueError(
                "optimizer_state does not fit this optimizer and model: needs the same structure, shapes and dtypes as a new"
                " state; see convlab.transfer_optimizer_state"
            )
    ema_parameters = model.parameters if step_options.ema_decay else None
    step, key, diverged = jnp.zeros((), jnp.int32), jax.random.key(seed), jnp.zeros((), bool)
    state = State(model.parameters, model.model_state, optimizer_state, key, step, diverged, ema_parameters)
    return jax.tree.map(jnp.copy, state)


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"], smoothing: float = 0.0) -> Float[Array, " n"]:
    """Compute the softmax cross-entropy of each example, optionally with label smoothing.

    Args:
      logits: The logits.
      labels: The class of each example.
      smoothing: The share of the target that is spread evenly over all classes.

    Raises:
      ValueError: There is not one label per row of logits, or `smoothing` is not between 0 and 1.
      TypeError: The logits are no real floating numbers, or the labels no integers.
    """
    logits, labels = check.floating("logits", logits), check.array("labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels has dtype {labels.dtype}; needs integers, the class of each example")
    check.equal_shapes("labels has shape {}", labels.shape, "logits without their last axis have {}", logits.shape[:-1])
    if not 0 <= check.number("smoothing", smoothing) <= 1:
        raise ValueError(f"smoothing must be between 0 and 1, got {smoothing}")
    if not smoothing:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.losses.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.losses.softmax_cross_entropy(logits, targets)


def mean_loss(loss: Loss | None, logits: Array, labels: Array, smoothing: float = 0.0) -> Float[Array, ""]:
    """Compute the mean of a loss over all examples and elements. If `loss` is None, it is the cross-entropy."""
    return (cross_entropy(logits, labels, smoothing) if loss is None else jnp.asarray(loss(logits, labels))).mean()


@dataclasses.dataclass(frozen=True, eq=False)
class NnxApply:
    """An NNX module as a pure function, compared by identity.

    `as_trainable` makes one object for all networks with the same graph definitions.
    """

    train: nnx.GraphDef
    evaluate: nnx.GraphDef

    def __call__(self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        model = nnx.merge(self.train if train else self.evaluate, parameters, model_state)
        logits = model(x)
        nnx.pop(model, nnx.Intermediate)  # values that the module sows
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))


# Keyed by graph definitions. Each step compares its function with those that were compiled. This is fast for identical objects,
# while comparing graph definitions takes as long as some steps.
_APPLIES: weakref.WeakValueDictionary[Any, NnxApply] = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class LinenApply:
    """A Linen module as a pure function, compared by its module.

    The hash is that of the module's class, since a module with lists in its fields is not hashable.
    """

    module: linen.Module

    def __hash__(self) -> int:
        return hash(type(self.module))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinenApply) and self.module == other.module

    def __call__(self, parameters: Tree, model_state: Tree, x: jax.Array, key: jax.Array, train: bool, /):
        variables, mutable = {"params": parameters, **model_state}, list(model_state) if train else []
        options = _train_argument(self.module, train)
        logits, new = self.module.apply(variables, x, rngs={"dropout": key}, mutable=mutable, **options)
        return logits, {**model_state, **new}


def _train_argument(module: linen.Module, train: bool) -> dict[str, Any]:
    """Return `train` as a keyword argument if the module's `__call__` accepts it."""
    return {"train": train} if "train" in inspect.signature(type(module).__call__).parameters else {}


def as_trainable(model: nnx.Module | linen.Module | Trainable, image_shape: Sequence[int], seed: int = 0) -> Trainable:
    """Turn a model into a pure function and its arrays.

    Args:
      model: A Flax NNX module, a Linen module, or a `Trainable`. The arrays of an NNX module are copied. A Linen module is
        initialised here, and called with `train=` if its `__call__` accepts it. A `Trainable` is returned unchanged.
      image_shape: The shape of one image, (*space, c).
      seed: The seed of a Linen module's initial arrays.

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
        options = _train_argument(model, False)
        variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, *image_shape)), **options))
        return Trainable(LinenApply(model), variables.pop("params", {}), variables)
    raise TypeError(f"model must be a Flax NNX module, a Linen module or a Trainable, got {type(model).__name__}")


def _rows(model: nnx.Module) -> Iterator[str]:
    """Yield the paths of the parameters whose first axis is the output rows."""
    for path, module in spatial_layers(model).items():
        for name in module.layout.rows:
            yield "".join(f"[{key!r}]" for key in (*path, name))


STATIC_ARGUMENTS = ("apply", "optimizer", "augment", "step_options", "loss")  # the static arguments of a step
jit_step = functools.partial(jax.jit, static_argnames=STATIC_ARGUMENTS, donate_argnames="state")


@jit_step
def train_step(
    state: State,
    images: Float[Array, "n k l c"],
    labels: Shaped[Array, "n *targets"],
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    learning_rate: Float[Array, ""] | float = 1.0,
    *,
    apply: Apply,
    optimizer: optax.GradientTransformation,
    augment: Augment | None = None,
    step_options: StepOptions = StepOptions(),  # noqa: B008 (immutable)
    loss: Loss | None = None,
) -> tuple[State, Float[Array, ""]]:
    """Take one optimizer step on the mean loss of a batch of raw images.

    The arrays of `state` are donated to the next state and cannot be read afterwards. If the loss is not finite, this step and
    all later steps leave the parameters unchanged.

    Args:
      state: The state before the step.
      images: The raw images.
      labels: The class or the target of each image.
      mean: The numbers to subtract from each channel (`Data.mean`).
      std: The numbers to divide each channel by (`Data.std`).
      learning_rate: The factor of the optimizer's updates. It can change from step to step without another compilation.
      apply: The network as a pure function.
      optimizer: The Optax gradient transformation.
      augment: A function of the raw images and a key of the step, which returns the augmented images.
      step_options: The options that are compiled into the step.
      loss: A function of logits and labels, whose mean is the loss. If None, the cross-entropy.

    Returns:
      The next state and the mean loss before the step.
    """
    key = jax.random.fold_in(state.key, state.step)
    if augment is not None:
        key, augment_key = jax.random.split(key)
        images = augment(images, augment_key)
    images = standardise(images, mean, std)

    def loss_of_batch(parameters, model_state, images, labels, key):
        parameters, x = (cast(tree, step_options.dtype) for tree in (parameters, images))
        logits, model_state = apply(parameters, model_state, x, key, True)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return mean_loss(loss, logits, labels, step_options.label_smoothing), model_state

    value, model_state, gradient = _gradient(loss_of_batch, state, images, labels, key, step_options.accumulation_steps)
    diverged = state.diverged | ~jnp.isfinite(value)
    update = optax.with_extra_args_support(optimizer).update
    updates, optimizer_state = update(gradient, state.optimizer_state, state.parameters, value=value, grad=gradient)
    updates = jax.tree.map(lambda update: jnp.where(diverged, 0, update * jnp.asarray(learning_rate, update.dtype)), updates)
    parameters = optax.apply_updates(state.parameters, updates)
    ema_parameters = state.ema_parameters
    if step_options.ema_decay:
        decay = jnp.minimum(step_options.ema_decay, (1 + state.step) / (10 + state.step))
        mixed = optax.incremental_update(parameters, ema_parameters, 1 - decay)
        ema_parameters = jax.tree.map(lambda new, old: new.astype(old.dtype), mixed, ema_parameters)
    state = State(parameters, model_state, optimizer_state, state.key, state.step + 1, diverged, ema_parameters)
    return state, value


@jit_step  # pyright: ignore[reportCallIssue]
def train_steps(
    state: State,
    images: Float[Array, "t n k l c"],
    labels: Shaped[Array, "t n *targets"],
    mean: Float[Array, " c"],
    std: Float[Array, " c"],
    learning_rates: Float[Array, " t"],
    **options: Any,
) -> tuple[State, Float[Array, " t"]]:
    """Take several optimizer steps in one call, as a scan over `train_step`.

    Args:
      state: The state before the first step.
      images: The raw images of each step.
      labels: The class or the target of each image.
      mean: The numbers to subtract from each channel (`Data.mean`).
      std: The numbers to divide each channel by (`Data.std`).
      learning_rates: The factor of the optimizer's updates in each step.
      **options: The keyword arguments of `train_step`.

    Returns:
      The state after the last step, and the mean loss before each step.
    """

    def body(state, batch):
        images, labels, learning_rate = batch
        return train_step(state, images, labels, mean, std, learning_rate, **options)  # pyright: ignore[reportCallIssue]

    return lax.scan(body, state, (images, labels, learning_rates))


def _gradient(loss: Callable, state: State, images: Array, labels: Array, key: Array, count: int) -> tuple[Array, Tree, Tree]:
    """Compute value, model state and gradient of the mean loss of a batch.

    The gradient is accumulated over `count` micro-batches. Each holds every `count`-th image of the batch.
    """
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    if count == 1:
        (value, model_state), gradient = value_and_gradient(state.parameters, state.model_state, images, labels, key)
        return value, model_state, gradient

    def add(carry, micro_batch):
        model_state, gradient = carry
        (value, model_state), part = value_and_gradient(state.parameters, model_state, *micro_batch)
        return (model_state, jax.tree.map(lambda g, p: g + p / count, gradient, part)), value

    split = [jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0) for a in (images, labels)]
    start = state.model_state, jax.tree.map(jnp.zeros_like, state.parameters)
    (model_state, gradient), values = lax.scan(add, start, (*split, jax.random.split(key, count)))
    return values.mean(), model_state, gradient


def leaves_by_path(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_key_data(call: Callable[[Any], jax.Array], leaf: Any) -> jax.Array:
    """Apply a function to an array, or to the key data of a random key.

    Key data are wrapped as a random key again.
    """
    if not (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)):
        return call(leaf)
    return jax.random.wrap_key_data(call(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))


def cast(tree: Tree, dtype: str) -> Tree:
    """Cast float32 arrays to `dtype` and leave arrays of other dtypes unchanged."""
    return jax.tree.map(lambda a: a.astype(dtype) if a.dtype == jnp.float32 else a, tree)


@functools.partial(jax.jit, static_argnames="apply")
def compute_logits(parameters: Tree, model_state: Tree, images: Array, mean: Array, std: Array, *, apply: Apply) -> Array:
    """Compute the logits of a batch of raw images, replicated on all devices of a mesh."""
    logits = apply(parameters, model_state, standardise(images, mean, std), jax.random.key(0), False)[0]
    empty = jax.sharding.get_abstract_mesh().empty
    return logits if empty else lax.with_sharding_constraint(logits, jax.sharding.PartitionSpec())
