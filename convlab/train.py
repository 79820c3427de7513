"""Training: a pure step on plain pytrees, and the loop that feeds it.

A model becomes a `Trainable` (a pure function and its arrays), `train_step` takes a `State` to the next one, `fit` repeats it.
Nothing that is compiled depends on the seed, the number of images or their order: runs that differ only in those share one
compilation. The step gets a batch and does not ask where it comes from.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from convlab.data import Data, Stored, batches, standardise
from convlab.data.feeding import order
from convlab.geometry import as_integer

Tree = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # of a batch of raw images and a key
EVALUATION_BATCH = 500
PROGRESS_SECONDS = 0.2


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


@dataclasses.dataclass(frozen=True)
class Config:
    """How to train.

    Args:
      epochs: Passes over the training images.
      steps: Number of batches; overrides `epochs`.
      batch_size: Images a step; the last batch of an epoch goes on into the next one.
      optimizer: A name in `OPTIMIZERS`.
      learning_rate: Its peak.
      schedule: A name in `SCHEDULES`.
      weight_decay: Decoupled, on arrays of two and more axes; only for "adamw".
      seed: Of the order of the images and of dropout (not of the model).
      evaluations: How often the test images are scored, evenly spread, the last time at the end.
      progress: Show a progress bar.

    Raises:
      ValueError: A value out of range or unknown.
    """

    epochs: float = 10
    steps: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.0
    seed: int = 0
    evaluations: int = 10
    progress: bool = True

    def __post_init__(self):
        for name, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; needs one of {', '.join(table)}")
        for name, least in (("batch_size", 1), ("evaluations", 1), ("seed", 0)):
            as_integer(name, getattr(self, name), least)
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay {self.weight_decay} is for optimizer 'adamw', got {self.optimizer!r}")
        if self.steps is not None:
            as_integer("steps", self.steps)
        for name in ("learning_rate",) if self.steps else ("epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")

    def steps_on(self, images: int) -> int:
        """Number of steps on so many training images."""
        return self.steps or max(1, math.ceil(self.epochs * images / self.batch_size))


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {  # all at rate 1: the step scales the updates
    "adam": lambda decay: optax.adam(1.0),
    "adamw": lambda decay: optax.adamw(1.0, weight_decay=decay, mask=_is_matrix),
    "sgd": lambda decay: optax.sgd(1.0),
    "momentum": lambda decay: optax.sgd(1.0, momentum=0.9),
}


def _is_matrix(parameters: Tree) -> Tree:
    return jax.tree.map(lambda p: p.ndim > 1, parameters)


@functools.cache
def _optimizer(name: str, decay: float) -> optax.GradientTransformation:
    """Build an optimizer once, so that equal ones are one object and share compilations."""
    return OPTIMIZERS[name](decay)


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Negative log-likelihood of each label."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


@dataclasses.dataclass(frozen=True)
class _NnxApply:
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
        return Trainable(_NnxApply(training, evaluation), nnx.to_pure_dict(parameters), nnx.to_pure_dict(rest))
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
def _logits(parameters: Tree, rest: Tree, images: Array, mean: Array, std: Array, *, apply: Apply) -> Array:
    return apply(parameters, rest, standardise(images, mean, std), jax.random.key(0), False)[0]


def _pick(images: Any, labels: Any, places: np.ndarray) -> tuple[Any, Any]:
    return images[places], labels[places]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
      apply: The network as a pure function.
      parameters: Trained arrays, a plain pytree.
      rest: Arrays that are not trained, such as batch statistics.
      history: One row per evaluation: step, epoch, seconds, loss (mean since the last row), test_loss, test_accuracy, and
        validation_loss, validation_accuracy where there is such a split.
      config: How it was trained.
      seconds: Wall time of all, compilation included.
      step_seconds: Wall time of a step, compilation and evaluation excluded.
      mean: Of the training pixels, per channel.
      std: Of the training pixels, per channel.
    """

    apply: Apply
    parameters: Tree
    rest: Tree
    history: list[dict[str, float]]
    config: Config
    seconds: float
    step_seconds: float
    mean: np.ndarray
    std: np.ndarray

    def logits(self, images: ArrayLike) -> Float[np.ndarray, "n classes"]:
        """Score raw images, in the units of the data that were fitted.

        Raises:
          ValueError: No image.
        """
        return _score(self.apply, self.parameters, self.rest, np.asarray(images), self.mean, self.std)

    def evaluate(self, images: ArrayLike, labels: ArrayLike) -> dict[str, float]:
        """Return the mean "loss" and the "accuracy" on raw images.

        Raises:
          ValueError: No image, or another number of labels.
        """
        labels = np.asarray(labels)
        if len(labels) != len(np.asarray(images)):
            raise ValueError(f"got {len(np.asarray(images))} images but {len(labels)} labels; needs one label per image")
        return _measure(self.logits(images), labels)

    def model(self) -> nnx.Module:
        """Return the trained NNX module, in evaluation mode; it expects standardised images.

        Raises:
          TypeError: The model was not an NNX module.
        """
        if not isinstance(self.apply, _NnxApply):
            raise TypeError("only an NNX module can be put together again; use logits(images) or apply")
        return nnx.merge(self.apply.evaluate, self.parameters, self.rest)


def _score(
    apply: Apply, parameters: Tree, rest: Tree, images: np.ndarray | Stored, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    """Score images in batches of one size, so that their number compiles nothing."""
    if len(images) == 0:
        raise ValueError(f"images is empty: its shape is {images.shape}")
    parts = []
    for first in range(0, len(images), EVALUATION_BATCH):
        part = images[first : first + EVALUATION_BATCH]
        padded = np.concatenate([part, np.zeros((EVALUATION_BATCH - len(part), *part.shape[1:]), part.dtype)])
        parts.append(_logits(parameters, rest, padded, mean, std, apply=apply)[: len(part)])
    return np.concatenate(jax.device_get(parts))


def _measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "loss": float(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean()),
        "accuracy": float((logits.argmax(-1) == labels).mean()),
    }


def fit(
    model: nnx.Module | linen.Module | Trainable,
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    optimizer: optax.GradientTransformation | None = None,
    augment: Augment | None = None,
) -> Fitted:
    """Train a classifier on the training images and score it on the test images.

    Images in memory are put on the device once; images on disk are read ahead, batch by batch. The batches are the same.

    Args:
      model: A Flax NNX module (left as it is), a Linen module, or a `Trainable`; it sees standardised images and returns
        one logit per class.
      data: What `convlab.load` returns.
      config: How to train.
      optimizer: An Optax transformation instead of the one that `config` names.
      augment: Changes every batch of raw training images, with a key; see `convlab.data.chain`. Part of the compiled step.

    Raises:
      ValueError: The model's output is not one logit per class.
      FloatingPointError: The loss is not finite; the error names the step.

    Example:
      >>> fit(convlab.models.MLP((8, 8, 1), 10, rngs=nnx.Rngs(0)), convlab.load("digits")).history[-1]  # doctest: +SKIP
      {'step': 113, ..., 'test_accuracy': 0.96}
    """
    begin = time.perf_counter()
    apply, parameters, rest = trainable(model, data.image_shape, config.seed)
    _check_outputs(apply, parameters, rest, data)
    steps = config.steps_on(len(data.train))
    rates = np.ones(steps, np.float32)
    if optimizer is None:
        optimizer = _optimizer(config.optimizer, config.weight_decay)
        rates = np.asarray(SCHEDULES[config.schedule](config.learning_rate, steps)(jnp.arange(steps)) * rates)
    state = State(parameters, rest, optimizer.init(parameters), jax.random.key(config.seed), jnp.zeros((), jnp.int32))
    state = jax.tree.map(jnp.copy, state)  # steps give up their input's memory; the caller keeps his arrays

    history, losses = [], []
    stopwatch = _Stopwatch()
    scored = {math.ceil(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
    with _progress(config, steps) as show:
        for step, batch in enumerate(feed(data, config, steps), 1):
            state, loss = train_step(
                state, *batch, data.mean, data.std, rates[step - 1], apply=apply, optimizer=optimizer, augment=augment
            )
            losses.append(loss)
            show(step, losses)
            if step == 1 or step in scored:
                jax.block_until_ready(state)
                stopwatch.stop(counted=step > 1)
            if step in scored:
                row = {"step": step, "epoch": step * config.batch_size / len(data.train)}
                row |= {"seconds": time.perf_counter() - begin, "loss": _finite_mean(losses, step)}
                for name, split in (("validation", data.validation), ("test", data.test)):
                    if split is not None:
                        scores = _score(apply, state.parameters, state.rest, split.images, data.mean, data.std)
                        row |= {f"{name}_{k}": v for k, v in _measure(scores, split.labels).items()}
                history.append(row)
                losses.clear()
            if step == 1 or step in scored:
                stopwatch.start()
    seconds = time.perf_counter() - begin
    step_seconds = stopwatch.total / max(steps - 1, 1)
    return Fitted(apply, state.parameters, state.rest, history, config, seconds, step_seconds, data.mean, data.std)


def fit_seeds(
    build: Callable[[nnx.Rngs], nnx.Module],
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Fitted]:
    """Fit the same network from several seeds, of its initial arrays and of the order of the images, with one compilation.

    Args:
      build: Makes the network from its keys.
      data: What `convlab.load` returns.
      config: How to train; its seed is replaced.
      seeds: One run each.

    Raises:
      ValueError: As of `fit`.
    """
    return [fit(build(nnx.Rngs(seed)), data, dataclasses.replace(config, seed=seed)) for seed in seeds]


def feed(data: Data, config: Config, steps: int) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of all steps, from images that stay on the device or are read ahead from disk."""
    size = config.batch_size
    if isinstance(data.train.images, Stored):
        yield from batches(data.train, size, seed=config.seed, stop=steps)
        return
    images, labels, take = data.train.images, data.train.labels, _pick
    if jax.default_backend() != "cpu":  # there the images are on the device already, and NumPy picks faster than XLA
        (images, labels), take = jax.device_put((images, labels)), jax.jit(_pick)
    for step in range(steps):
        yield take(images, labels, order(range(step * size, (step + 1) * size), len(data.train), config.seed))


def _check_outputs(apply: Apply, parameters: Tree, rest: Tree, data: Data) -> None:
    x = jax.ShapeDtypeStruct((2, *data.image_shape), jnp.float32)
    logits, _ = jax.eval_shape(lambda p, r, x: apply(p, r, x, jax.random.key(0), False), parameters, rest, x)
    if logits.shape != (2, len(data.classes)):
        raise ValueError(
            f"the model makes outputs of shape {logits.shape} from 2 images but {data.name} has {len(data.classes)} classes:"
            f" needs {(2, len(data.classes))}"
        )


def _finite_mean(losses: list[jax.Array], step: int) -> float:
    """Return the mean of the losses up to `step`.

    Raises:
      FloatingPointError: One of them is not finite.
    """
    values = np.stack(jax.device_get(losses))
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        first = step - len(values) + int(bad[0]) + 1
        raise FloatingPointError(f"the loss of step {first} is {values[bad[0]]}; try a smaller learning_rate")
    return float(values.mean())


class _Stopwatch:
    """Adds up the time between start and stop, where it counts."""

    def __init__(self):
        self.total, self.begin = 0.0, time.perf_counter()

    def start(self) -> None:
        self.begin = time.perf_counter()

    def stop(self, counted: bool) -> None:
        self.total += (time.perf_counter() - self.begin) * counted


@contextlib.contextmanager
def _progress(config: Config, steps: int) -> Iterator[Callable[[int, list[jax.Array]], None]]:
    """Show step, loss, images per second and time left; yields what tells it how far training is."""
    if not config.progress:
        yield lambda step, losses: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("loss {task.fields[loss]:.3f} · {task.fields[rate]:,.0f} images/s"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task, begin, shown = bar.add_task("training", total=steps, loss=math.nan, rate=0.0), time.perf_counter(), 0.0

        def show(step: int, losses: list[jax.Array]) -> None:
            nonlocal shown
            now = time.perf_counter()
            if step == steps or now - shown > PROGRESS_SECONDS:
                shown, rate = now, step * config.batch_size / (now - begin)
                bar.update(task, completed=step, loss=float(losses[-1]), rate=rate)

        yield show
