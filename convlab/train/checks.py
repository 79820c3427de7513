"""Checks of a run's arguments before training, so that errors come early and in plain words."""

import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convlab import check
from convlab.choices import shown
from convlab.data import Data, disk
from convlab.data.splits import is_one_hot, renumbered
from convlab.train.config import Config
from convlab.train.step import Metrics, Trainable, cast, leaves_by_path

Kind = TypeVar("Kind")
# Jitted functions that are only traced. JAX caches their traces, so another run of the same network does not trace again.
_step = jax.jit(
    lambda p, model_state, x, apply, dtype: (apply(cast(p, dtype), model_state, x, jax.random.key(0), True), model_state),
    static_argnums=(3, 4),
)
_augment = jax.jit(lambda images, key, augment: augment(images, key), static_argnums=2)
_loss = jax.jit(lambda logits, labels, loss: loss(logits, labels), static_argnums=2)
update_optimizer = jax.jit(
    lambda p, optimizer: optax.with_extra_args_support(optimizer).update(p, optimizer.init(p), p, value=jnp.zeros(()), grad=p),
    static_argnums=1,
)


def from_folder(name: str, value: Kind | str | os.PathLike[str] | None, kind: type[Kind]) -> Kind | None:
    """Turn a folder into an object such as `Checkpoints`, and return such an object unchanged.

    Raises:
      TypeError: `value` is neither a folder, nor of this kind, nor None.
      ValueError: `value` is an empty text.
    """
    if isinstance(value, str | os.PathLike):
        disk.as_folder(name, value)
        return kind(value)  # pyright: ignore[reportCallIssue]
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{name} must be a folder or {kind.__name__}(folder), got {type(value).__name__}")


def as_data(data: Any, test: Any) -> Data:
    """Return a data set: `data`, or that of a pair of arrays.

    Raises:
      TypeError: `data` is neither a `Data` nor a pair, or `test` belongs to a `Data`.
    """
    if isinstance(data, Data):
        if test is not None:
            raise TypeError(f"test is for a pair of arrays, but data is the data set {data.name!r} with a test split")
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2 and not any(isinstance(part, Data) for part in data):
        return Data.from_arrays(*data, test=test)
    raise TypeError(f"data must be a Data or a pair (x, y) of arrays, got {type(data).__name__}")


def check_types(data: Data, config: Config, optimizer: optax.GradientTransformation | None, **functions: Any) -> None:
    """Raise TypeError if an argument has the wrong type.

    Args:
      data: The data set.
      config: The configuration.
      optimizer: The optimizer, or None.
      **functions: The functions by the names of their arguments. Each is hashable or None.
    """
    if not isinstance(data, Data):
        raise TypeError(f"data must be a Data, got {type(data).__name__}; see convlab.Data.from_arrays for arrays")
    if not isinstance(config, Config):
        raise TypeError(f"config must be a Config, got {type(config).__name__}")
    if optimizer is not None:
        check.optimizer("optimizer", optimizer)
    check_functions(**functions)


def check_functions(**functions: Any) -> None:
    """Raise TypeError if a function cannot be called or is not hashable. Functions can be None.

    Args:
      **functions: The functions by the names of their arguments.
    """
    for name, function in functions.items():
        if function is not None:
            check.function(name, function)
            try:
                hash(function)
            except TypeError as error:
                raise TypeError(f"{name} must be hashable, since programs are compiled for it once: {error}") from None


def check_model(model: Trainable, data: Data, config: Config, augment: Any = None, loss: Any = None) -> tuple[int, ...]:
    """Check that the data can be trained on, and that the model, the augmentation and the loss fit them.

    Returns:
      The shape of the logits of one image.

    Raises:
      ValueError: Something does not fit.
    """
    if config.patience is not None and data.validation is None:
        raise ValueError(
            f"patience {config.patience} needs a validation split, but data {data.name!r} has none: see Data.hold_out"
        )
    shape = None
    for image_shape in dict.fromkeys([data.image_shape, _augmented_shape(augment, data, config.batch_size)]):
        shape = _check_outputs(model, data, config, image_shape)
    return _check_loss(loss, shape, data, config.label_smoothing)


def _augmented_shape(augment: Any, data: Data, size: int) -> tuple[int, ...]:
    """Return the shape of an augmented image.

    Raises:
      ValueError: The augmentation changes the number of images, axes or channels.
    """
    if augment is None:
        return data.image_shape
    before = (size, *data.image_shape)
    images, key = jax.ShapeDtypeStruct(before, data.train.images.dtype), jax.eval_shape(lambda: jax.random.key(0))
    try:
        after = _augment.eval_shape(images, key, augment)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"augment fails on images of shape {before} and a key: {error}") from error
    shape = getattr(after, "shape", None)
    if shape is None or len(shape) != len(before) or (shape[0], shape[-1]) != (before[0], before[-1]):
        got = type(after).__name__ if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"augment returns {got} for images of shape {before}; needs as many images, axes and channels, as each image keeps"
            " its label"
        )
    return shape[1:]


def _check_outputs(model: Trainable, data: Data, config: Config, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Check the logits and the model state of one step, and return the shape of the logits of two images."""
    x = jax.ShapeDtypeStruct((2, *image_shape), config.dtype)
    try:
        (logits, after), model_state = _step.eval_shape(model.parameters, model.model_state, x, model.apply, config.dtype)
    except (ValueError, TypeError) as error:
        if isinstance(error, jax.errors.JAXTypeError):  # not about shapes
            raise
        raise ValueError(
            f"model fails on images of shape {_of_n(x)}: {error}; needs a network of such images, for example made with"
            f" image_shape={image_shape}{_last_channels(image_shape)}"
        ) from error
    if logits.shape[:1] != (2,):
        raise ValueError(f"model returns an array of shape {logits.shape} in a trial with 2 images; needs their axis first")
    if data.classes:
        _check_classes(logits, data)
    before, after = leaves_by_path(model_state), leaves_by_path(after)
    for path in {**before, **after}:
        old, new = before.get(path), after.get(path)
        if old is None or new is None or (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"model changes {path} of the model state from {_describe(old)} to {_describe(new)} in one step;"
                " needs the same shape and dtype in every step"
            )
    return logits.shape


def _last_channels(image_shape: tuple[int, ...]) -> str:
    """Return the advice to move the channels last, if the first axis looks like them and the last does not."""
    order = ", ".join(map(str, (0, *range(2, len(image_shape) + 1), 1)))
    looks = len(image_shape) > 2 and image_shape[0] in (1, 3, 4) and image_shape[-1] > 4
    return f", or images with their channels last: x.transpose({order})" * looks


def _check_classes(logits: Any, data: Data) -> None:
    """Raise ValueError unless there is one logit per class and more than one class."""
    count, labels = len(data.classes), data.train.labels
    if count > 1 and logits.shape == (2, count):
        return
    all_labels = np.concatenate([labels, data.test.labels])
    counted = f"{count} {'class' if count == 1 else 'classes'}, with labels from {all_labels.min()} to {all_labels.max()}"
    problem = f"data {data.name!r} has {counted}"
    if logits.shape == (2, 1):
        problem += ", as integers are classes (for numbers as targets pass floats, such as y[:, None].astype(float))"
    if count == 1:
        raise ValueError(f"{problem}; needs images of at least two classes to tell them apart")
    without = sorted({*range(count)} - {*np.unique(labels).tolist()})
    missing = f"; no training image has {_first(without)}" if without else ""
    hint = f": to number only those in use, {renumbered('y')}" if without else ""
    raise ValueError(
        f"model returns an array of shape {_of_n(logits)} for n images, but {problem}: needs (n, {count}){missing}{hint}"
    )


def _first(numbers: list[int]) -> str:
    """Return the text of the first few class numbers."""
    shown = ", ".join(map(str, numbers[:5]))
    return f"class {shown}" if len(numbers) == 1 else f"classes {shown}{f' and {len(numbers) - 5} more' * (len(numbers) > 5)}"


def _of_n(batch: Any) -> str:
    """Return the text of the shape of a batch of two images, for any number of images."""
    return f"(n{''.join(f', {size}' for size in batch.shape[1:])}{',' * (len(batch.shape) == 1)})"


def _check_loss(loss: Any, shape: Any, data: Data, smoothing: float) -> tuple[int, ...]:
    """Check that a loss takes the logits and labels of two images, and return the shape of the logits of one."""
    targets = data.train.labels
    if loss is None:
        if not data.classes:
            one_hot = ": use y.argmax(-1) for the class of one-hot rows" * is_one_hot(targets)
            raise ValueError(
                f"loss is None, but data {data.name!r} has targets of dtype {targets.dtype} instead of classes; needs a loss,"
                f" such as loss=optax.squared_error, or labels of an integer dtype{one_hot}"
            )
        return shape[1:]
    if smoothing:
        raise ValueError(f"label_smoothing is {smoothing}, which is for the cross-entropy; needs 0 with a loss of its own")
    structs = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((2, *targets.shape[1:]), targets.dtype)
    got = f"logits of shape {structs[0].shape} and labels of shape {structs[1].shape}, in a trial with 2 images"
    hint = "; use y[:, None], so that each target has the shape of its logits" * (shape == (*structs[1].shape, 1))
    try:
        values = _loss.eval_shape(*structs, loss)
    except (TypeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise ValueError(f"loss fails on {got}: {error}{hint}") from error
    if not hasattr(values, "dtype") or not jax.numpy.issubdtype(values.dtype, jax.numpy.floating):
        raise ValueError(f"loss returns {_describe(values)} for {got}; needs floats, whose mean is taken")
    if hint and values.ndim == 0 and _pairs_images(loss, targets.dtype):
        raise ValueError(f"loss pairs each image with every other one for {got}{hint}")
    if values.size > max(struct.size for struct in structs):
        raise ValueError(
            f"loss returns an array of shape {values.shape} for {got}; needs at most one value per element: it"
            f" pairs each image with every other one{hint or ', so reshape the targets to the shape of the logits'}"
        )
    return shape[1:]


def _pairs_images(loss: Any, dtype: Any) -> bool:
    """Return whether a loss makes a table of all pairs of images from logits (n, 1) and targets (n,)."""
    n = 7919  # a prime, which no other axis has
    program = jax.make_jaxpr(loss)(jax.ShapeDtypeStruct((n, 1), np.float32), jax.ShapeDtypeStruct((n,), dtype))
    return f"[{n},{n}]" in str(program)


def check_metrics(metrics: Metrics | None, data: Data, shape: tuple[int, ...], taken: Collection[str]) -> None:
    """Call metrics once on random logits, and check their names.

    Args:
      metrics: The metrics, or None.
      data: The data set.
      shape: The shape of the logits of one image.
      taken: The names of other columns of the history.

    Raises:
      ValueError: The metrics fail, return something else than scalars, or return the name of another column.
      TypeError: The metrics do not return scalars by name.
    """
    for part, split in {"validation": data.validation, "test": data.test}.items() if metrics is not None else ():
        if split is None:
            continue
        logits = np.random.default_rng(0).normal(size=(len(split), *shape)).astype(np.float32)
        with warnings.catch_warnings(action="ignore"):  # of scores that are not defined for random logits
            try:
                row = metrics(logits, split.labels)  # pyright: ignore[reportOptionalCall]
            except Exception as error:
                raise ValueError(
                    f"metrics fails on logits of shape {logits.shape} and labels of shape {split.labels.shape}: {error!r}"
                ) from error
        for name in as_scalars(row):
            if name in ("loss", "accuracy") or f"{part}_{name}" in taken:
                raise ValueError(f"metrics returns {name!r}, but {part}_{name} is another column; choose another name")


def as_scalars(row: Any) -> dict[str, float]:
    """Return the values that metrics return as Python numbers.

    Raises:
      ValueError: A value is not a scalar.
      TypeError: The metrics do not return scalars by name.
    """
    if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
        raise TypeError(f"metrics must return a dict of scalars by name, got {shown(row)}")
    for name, value in row.items():
        if np.shape(value) != () or not isinstance(value, (int, float, np.number, np.ndarray, np.bool_, jax.Array)):
            raise ValueError(f"metrics returns {shown(value)} as {name!r}; needs scalars")
    return {name: float(value) for name, value in row.items()}


def _describe(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.shape} {leaf.dtype}" if hasattr(leaf, "dtype") else type(leaf).__name__


def check_optimizer(optimizer: optax.GradientTransformation, parameters: Any) -> None:
    """Raise ValueError if the optimizer needs arguments that a step does not pass.

    For example, a line search needs `value_fn`.
    """
    try:
        update_optimizer.eval_shape(parameters, optimizer)
    except TypeError as error:
        raise ValueError(
            f"optimizer needs more arguments than a step passes (gradient, parameters, value and grad): {error}"
        ) from error
