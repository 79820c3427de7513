"""Several runs of one network: one after the other with one compilation, or all at once in one program."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from convlab.data import Data, Stored
from convlab.train.checkpoint import Checkpoints
from convlab.train.checks import check_kinds, in_folder
from convlab.train.config import Config
from convlab.train.fitted import Fitted
from convlab.train.loop import fit, train
from convlab.train.step import Augment, ParameterMetrics, Trainable, Tree, trainable
from convlab.train.training import Stack

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
    def model_state(self) -> Tree:
        """Arrays that are not trained, stacked likewise."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(run.model_state for run in self._runs))

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
        return made.parameters, made.model_state

    draw = jax.jit(arrays, compiler_options=QUICKLY_COMPILED)

    def start(rngs: nnx.Rngs) -> Trainable:
        parameters, model_state = draw(rngs.params.key[...])
        return described._replace(parameters=parameters, model_state=model_state)

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
    parameter_metrics: ParameterMetrics | None = None,
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
      parameter_metrics: As of `fit`.

    Raises:
      ValueError: As of `fit`; there is no configuration; or the runs cannot be vmapped: they differ in more than seed, learning
        rate and schedule, have a patience, a mesh, checkpoints or images on disk.
      FloatingPointError: As of `fit`; the error names the run, where several are vmapped.
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
    obstacle = _obstacle(sets, configs, checkpoints)
    if vmapped and obstacle:
        raise ValueError(f"these runs cannot be vmapped: {obstacle}; pass vmapped=False")
    if vmapped or (vmapped is None and not obstacle and jax.default_backend() != "cpu"):
        models = [trainable(build(nnx.Rngs(config.seed)), sets[0].image_shape, config.seed) for config in configs]
        return Runs(train(models, Stack(sets, configs, vmapped=True), augment=augment, parameter_metrics=parameter_metrics))
    runs = []
    for number, (one, config) in enumerate(zip(sets, configs, strict=True)):
        own = checkpoints and dataclasses.replace(checkpoints, folder=pathlib.Path(os.fspath(checkpoints.folder), str(number)))
        runs.append(
            fit(
                build(nnx.Rngs(config.seed)), one, config, augment=augment, checkpoints=own, parameter_metrics=parameter_metrics
            )
        )
    return Runs(runs)


def _obstacle(sets: Sequence[Data], configs: Sequence[Config], checkpoints: Checkpoints | None) -> str | None:
    """What forbids to train them in one program."""
    for field in dataclasses.fields(Config):
        if field.name not in VARIED and len({getattr(config, field.name) for config in configs}) > 1:
            return f"they differ in {field.name}"
    for name in LEFT_OUT:
        if getattr(configs[0], name) is not None:
            return f"they have a {name}"
    if checkpoints is not None:
        return "they are to be saved"
    splits = [[one.train, one.test, one.validation] for one in sets]
    if len({tuple(split and split.images.shape for split in each) for each in splits}) > 1:
        return "their data sets have splits of different sizes"
    return "their images are on disk" if any(isinstance(one.train.images, Stored) for one in sets) else None
