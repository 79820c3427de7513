"""Several runs of one network: one after the other with one compilation, or all at once in one program."""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Float

from convlab.data import Data, Split, Stored
from convlab.data.feeding import order
from convlab.train.checkpoint import Checkpoints
from convlab.train.checks import check, check_kinds, in_folder
from convlab.train.config import Config, optimizer_of
from convlab.train.fitted import Fitted, measure, padded
from convlab.train.loop import fit
from convlab.train.step import Apply, Augment, Trainable, Tree, Watch, compiled, initial, logits_of, train_step, trainable
from convlab.train.training import are_finite, check_watch

VARIED = ("seed", "learning_rate", "schedule")  # fields of a configuration in which runs of one program may differ
LEFT_OUT = ("patience", "mesh")  # fields that one program of several runs does not have
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Runs(Sequence[Fitted]):
    """Runs of one network, and their results stacked: the k-th run is `runs[k]`."""

    def __init__(self, runs: Sequence[Fitted]):
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Fitted: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "Fitted | Runs":
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    @property
    def parameters(self) -> Tree:
        """Trained arrays, the runs along a new first axis."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(run.parameters for run in self._runs))

    @property
    def rest(self) -> Tree:
        """Arrays that are not trained, stacked likewise."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(run.rest for run in self._runs))

    def scores(self, name: str) -> Float[np.ndarray, "runs rows"]:
        """Gather one figure of the histories, such as "test_accuracy": a row per run, a column per score.

        Raises:
          KeyError: The histories have no such figure.
          ValueError: They are of different lengths.
        """
        return np.array([[row[name] for row in run.history] for run in self._runs])


def compiled_build(build: Callable[[nnx.Rngs], nnx.Module], image_shape: Sequence[int]) -> Callable[[nnx.Rngs], Trainable]:
    """Compile the construction of a network into one small program, to start it from many seeds.

    The program runs once a network, so XLA spends no time on optimising it: a network of three layers is compiled in about one
    second instead of six. Its arrays equal those of `build` up to rounding where all streams start from the
    key of `params`, as in `fit_many`.

    Args:
      build: A function that makes the network from its keys.
      image_shape: The shape of one image, (*space, c).

    Returns:
      A function that takes the place of `build` in `fit_many` and `fit_seeds`.

    Example:
      >>> from convlab.models import MLP
      >>> build = compiled_build(lambda rngs: MLP((3, 1), 2, (), rngs=rngs), (3, 1))
      >>> [array.shape for array in jax.tree.leaves(build(nnx.Rngs(0)).parameters)]
      [(2,), (3, 2)]
    """
    described = trainable(nnx.eval_shape(lambda: build(nnx.Rngs(0))), image_shape)

    def arrays(key: jax.Array) -> tuple[Tree, Tree]:
        made = trainable(build(nnx.Rngs(key)), image_shape)
        return made.parameters, made.rest

    draw = jax.jit(arrays, compiler_options=QUICKLY_COMPILED)

    def start(rngs: nnx.Rngs) -> Trainable:
        parameters, rest = draw(rngs.params.key[...])
        return described._replace(parameters=parameters, rest=rest)

    return start


def fit_seeds(
    build: Callable[[nnx.Rngs], nnx.Module | Trainable],
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    seeds: Sequence[int] = (0, 1, 2),
    **options: Any,
) -> Runs:
    """Fit the same network from several seeds, of its initial arrays and of the order of the images.

    Args:
      build: Makes the network from its keys.
      data: What `convlab.load` returns.
      config: How to train; its seed is replaced.
      seeds: One run each.
      options: As of `fit_many`.

    Raises:
      ValueError: As of `fit_many`.
    """
    return fit_many(build, data, [dataclasses.replace(config, seed=seed) for seed in seeds], **options)


def fit_many(
    build: Callable[[nnx.Rngs], nnx.Module | Trainable],
    data: Data | Sequence[Data],
    configs: Sequence[Config],
    *,
    vmapped: bool | None = None,
    augment: Augment | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
) -> Runs:
    """Fit the same network in several ways: seeds, learning rates, schedules, or anything else of a configuration.

    Args:
      build: Makes the network from its keys, which are those of each configuration's seed. `compiled_build` makes one that
        compiles in less time.
      data: The data set, or one for every run: with images of one shape and, if vmapped, as many of them in every split.
      configs: One run each. Those that differ in seed, rates and length alone share one compilation.
      vmapped: Train all at once, in one program; None: on accelerators, where it can be. On CPU a network of one small dense
        layer gained 0.3 of its time by it, networks with convolutions lost as much: there one goes after the other.
      augment: As of `fit`.
      checkpoints: Where to save the runs, each in a folder of its own number below; not for runs that are vmapped.
      watch: As of `fit`.

    Raises:
      ValueError: As of `fit`; there is no configuration; or the runs cannot be vmapped: they differ in more than seed, learning
        rate and schedule, have a patience, a mesh, checkpoints or images on disk.
      FloatingPointError: As of `fit`; vmapped runs are looked at when they are scored.
    """
    checkpoints = in_folder("checkpoints", checkpoints, Checkpoints)
    if not configs:
        raise ValueError("configs is empty; needs one configuration, or a seed, at least")
    sets = [data] * len(configs) if isinstance(data, Data) or not isinstance(data, Sequence) else list(data)
    if len(sets) != len(configs):
        raise ValueError(
            f"data holds {len(sets)} data sets for {len(configs)} configurations; needs one of all runs, or of each"
        )
    for one, config in zip(sets, configs, strict=True):
        check_kinds(one, config, None)
    if vmapped is None:
        vmapped = jax.default_backend() != "cpu" and not _obstacle(sets, configs, checkpoints)
    if vmapped:
        if obstacle := _obstacle(sets, configs, checkpoints):
            raise ValueError(f"these runs cannot be vmapped: {obstacle}; pass vmapped=False")
        return Runs(_together(build, sets, configs, augment, watch))
    runs = []
    for number, (one, config) in enumerate(zip(sets, configs, strict=True)):
        own = checkpoints and dataclasses.replace(checkpoints, folder=pathlib.Path(os.fspath(checkpoints.folder), str(number)))
        runs.append(fit(build(nnx.Rngs(config.seed)), one, config, augment=augment, checkpoints=own, watch=watch))
    return Runs(runs)


def _obstacle(sets: Sequence[Data], configs: Sequence[Config], checkpoints: Checkpoints | None) -> str | None:
    """What forbids to train them in one program."""
    names = [field.name for field in dataclasses.fields(Config) if field.name not in VARIED]
    for name in names:
        if any(getattr(config, name) != getattr(configs[0], name) for config in configs):
            return f"they differ in {name}"
    for name in LEFT_OUT:
        if getattr(configs[0], name) is not None:
            return f"they have a {name}"
    if checkpoints is not None:
        return "they are to be saved"
    if len({(_form(one.train), _form(one.test), _form(one.validation)) for one in sets}) > 1:
        return "their data sets have splits of different sizes"
    return "their images are on disk" if any(isinstance(one.train.images, Stored) for one in sets) else None


def _form(split: Split | None) -> tuple[int, ...] | None:
    return None if split is None else split.images.shape


@compiled
def _steps_of_all(state, images, labels, mean, std, rates, *, apply, optimizer, augment, recipe):
    step = functools.partial(train_step, apply=apply, optimizer=optimizer, augment=augment, recipe=recipe)
    return jax.vmap(step)(state, images, labels, mean, std, rates)


@functools.partial(jax.jit, static_argnames="apply")
def _logits_of_all(parameters, rest, images, mean, std, *, apply):
    return jax.vmap(functools.partial(logits_of, apply=apply))(parameters, rest, images, mean, std)


def _together(
    build: Callable[[nnx.Rngs], nnx.Module | Trainable],
    sets: Sequence[Data],
    configs: Sequence[Config],
    augment: Augment | None,
    watch: Watch | None,
) -> list[Fitted]:
    """Train all runs in one program, the runs along the first axis of every array."""
    begin, config = time.perf_counter(), configs[0]
    data = sets[0]
    models = [trainable(build(nnx.Rngs(each.seed)), data.image_shape, each.seed) for each in configs]
    for one in sets:
        check(models[0], one, config)
    moments = np.stack([one.mean for one in sets]), np.stack([one.std for one in sets])
    check_watch(watch, models[0].parameters)
    watched = watch and jax.jit(jax.vmap(watch))
    steps, size, count = config.steps_on(len(data.train)), config.batch_size, len(data.train)
    optimizer: optax.GradientTransformation = optimizer_of(config.optimizer, config.weight_decay)
    apply, rates = models[0].apply, np.stack([each.rates(steps) for each in configs], 1)
    starts = [initial(model, optimizer, each.seed, config.recipe) for model, each in zip(models, configs, strict=True)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    histories, losses, busy = [[] for _ in configs], [], 0.0
    options = {"apply": apply, "optimizer": optimizer, "augment": augment, "recipe": config.recipe}
    scored = config.scored(steps)
    for step in range(1, steps + 1):
        lap = time.perf_counter()
        chosen = [order(range((step - 1) * size, step * size), count, each.seed) for each in configs]
        batches = [(one.train.images[numbers], one.train.labels[numbers]) for one, numbers in zip(sets, chosen, strict=True)]
        state, loss = _steps_of_all(state, *map(np.stack, zip(*batches, strict=True)), *moments, rates[step - 1], **options)
        losses.append(loss)
        if step == 1 or step in scored:
            jax.block_until_ready(state)
        busy += (time.perf_counter() - lap) * (step > 1)
        if step in scored:
            means = np.mean(jax.device_get(losses), 0)
            _check_finite(means, state.parameters, step, configs)
            losses = []
            rows = _score(apply, state.scored, state.rest, sets, moments)
            if watched is not None:
                told = jax.device_get(watched(state.scored))
                rows = [row | {name: float(value[k]) for name, value in told.items()} for k, row in enumerate(rows)]
            for history, loss, row in zip(histories, means.tolist(), rows, strict=True):
                told = {"step": step, "epoch": step * size / count, "seconds": time.perf_counter() - begin}
                history.append(told | {"loss": loss} | row)
    seconds, each_step = time.perf_counter() - begin, busy / max(steps - 1, 1)
    arrays = [jax.tree.map(lambda leaf, k=k: leaf[k], (state.scored, state.rest, state.optimizer)) for k in range(len(configs))]
    return [
        Fitted(apply, parameters, rest, history, each, seconds, each_step, one.mean, one.std, optimizer)
        for (parameters, rest, optimizer), history, each, one in zip(arrays, histories, configs, sets, strict=True)
    ]


def _check_finite(losses: np.ndarray, parameters: Tree, step: int, configs: Sequence[Config]) -> None:
    finite = np.all(jax.tree.leaves(jax.device_get(jax.vmap(are_finite)(parameters))), 0)
    for number, config in enumerate(configs):
        which = f"run {number} (seed {config.seed}, learning_rate {config.learning_rate})"
        if not np.isfinite(losses[number]):
            found = f"the loss of {which} is {losses[number]} at or before step {step}"
            raise FloatingPointError(f"{found}; try a smaller learning_rate")
        if not finite[number]:
            raise FloatingPointError(f"the parameters of {which} are not finite after step {step}; try a smaller learning_rate")


def _score(
    apply: Apply, parameters: Tree, rest: Tree, sets: Sequence[Data], moments: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, float]]:
    """The scores of each run, on its validation and test images."""
    rows: list[dict[str, float]] = [{} for _ in sets]
    for name in ("validation", "test"):
        splits: list[Split] = [split for one in sets if (split := getattr(one, name)) is not None]
        if not splits:
            continue
        parts = []
        for batches in zip(*(padded(split.images) for split in splits), strict=True):
            images, number = np.stack([batch for batch, _ in batches]), batches[0][1]
            parts.append(_logits_of_all(parameters, rest, images, *moments, apply=apply)[:, :number])
        logits = np.concatenate(jax.device_get(parts), 1)
        for row, scores, split in zip(rows, logits, splits, strict=True):
            row.update({f"{name}_{key}": value for key, value in measure(scores, split.labels).items()})
    return rows
