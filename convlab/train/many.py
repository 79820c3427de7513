"""Several runs of one network, either one after the other or together in one program.

Runs that are trained one after the other share one compilation.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jaxtyping import Float

from convlab import check
from convlab.data import Data, StoredImages
from convlab.geometry import as_integer
from convlab.train.checkpoint import Checkpoints
from convlab.train.checks import check_types, from_folder
from convlab.train.config import Config
from convlab.train.fitted import Fitted
from convlab.train.loop import fit, fit_group
from convlab.train.raw_inputs import check_inputs
from convlab.train.step import SEEDS, Augment, Loss, Metrics, ParameterMetrics, Trainable, Tree, as_trainable
from convlab.train.texts import runs_html
from convlab.train.training import RunGroup

VARIED = ("seed", "learning_rate", "schedule")  # configuration fields in which runs of one program may differ
UNSUPPORTED = ("patience", "mesh")  # configuration fields that must be None if several runs share one program
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class FittedRuns(Sequence[Fitted]):
    """Sequence of runs of one network, with their results stacked.

    The k-th run is `runs[k]`.
    """

    def __init__(self, runs: Sequence[Fitted]):
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"FittedRuns({len(self)} runs" + (f", the first is {self[0]!r})" if self._runs else ")")

    def _repr_html_(self) -> str:
        """Return the mean curves and the last scores of all runs. Notebooks call it."""
        return runs_html(repr(self), [run.history for run in self._runs])

    @overload
    def __getitem__(self, index: int) -> Fitted: ...
    @overload
    def __getitem__(self, index: slice) -> "FittedRuns": ...
    def __getitem__(self, index: int | slice) -> "Fitted | FittedRuns":
        return FittedRuns(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    @property
    def parameters(self) -> Tree:
        """The trained arrays, stacked along a new first axis for the runs."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(run.parameters for run in self._runs))

    @property
    def model_state(self) -> Tree:
        """The arrays that are not trained, stacked along a new first axis for the runs."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(run.model_state for run in self._runs))

    def scores(self, name: str) -> Float[np.ndarray, "runs rows"]:
        """Gather one column of the histories, such as "test_accuracy", for all runs.

        Args:
          name: The name of the column.

        Returns:
          The values, with one row per run and one column per evaluation.

        Raises:
          KeyError: The histories have no column of that name.
          ValueError: The histories differ in length.
        """
        return np.array([[row[name] for row in run.history] for run in self._runs])


def jit_build(build: Callable[[nnx.Rngs], nnx.Module], image_shape: Sequence[int]) -> Callable[[nnx.Rngs], Trainable]:
    """Compile the construction of a network into one small program, to start it from many seeds.

    The program runs once per network, so XLA's optimisations are turned off. A network of three layers then compiles in about
    one second instead of six. The arrays equal those of `build` up to rounding if all streams of `nnx.Rngs` start from the key
    of `params`, as in `fit_many`.

    Args:
      build: A function that makes the network from its keys.
      image_shape: The shape of one image, (*space, c).

    Returns:
      A function that replaces `build` in `fit_many` and `fit_seeds`.

    Example:
      >>> from convlab.models import MLP
      >>> build = jit_build(lambda rngs: MLP((3, 1), 2, (), rngs=rngs), (3, 1))
      >>> [array.shape for array in jax.tree.leaves(build(nnx.Rngs(0)).parameters)]
      [(2,), (3, 2)]
    """
    check.function("build", build, "a function that makes a network from its keys")
    template = as_trainable(_built(nnx.eval_shape(lambda: build(nnx.Rngs(0)))), check.image_shape(image_shape))

    def arrays(key: jax.Array) -> tuple[Tree, Tree]:
        network = as_trainable(build(nnx.Rngs(key)), image_shape)
        return network.parameters, network.model_state

    draw = jax.jit(arrays, compiler_options=QUICKLY_COMPILED)

    def start(rngs: nnx.Rngs) -> Trainable:
        parameters, model_state = draw(rngs.params.key[...])
        return template._replace(parameters=parameters, model_state=model_state)

    return start


def _built(network: Any) -> Any:
    """Return what a function made, and check that it is a network."""
    needed = "a Flax NNX module or a Trainable"
    return check.instance("the result of build", network, (nnx.Module, linen.Module, Trainable), needed)


def fit_seeds(
    build: Callable[[nnx.Rngs], nnx.Module | Trainable],
    data: Data,
    config: Config = Config(),  # noqa: B008 (frozen)
    *,
    seeds: Sequence[int] = (0, 1, 2),
    **options: Any,
) -> FittedRuns:
    """Fit the same network from several seeds.

    The seed determines the initial arrays and the order of the images.

    Args:
      build: A function that makes the network from its keys.
      data: The data set, such as `convlab.load` returns.
      config: The configuration of all runs. Its seed is replaced.
      seeds: The seeds, one per run.
      **options: The keyword arguments of `fit_many`.

    Raises:
      ValueError: An argument is invalid for `fit_many`.
      TypeError: An argument has the wrong type.
    """
    check.instance("config", config, Config, "a Config")
    seeds = [as_integer("seeds", seed, 0, most=SEEDS - 1) for seed in check.sequence("seeds", seeds, "integers")]
    if not seeds:
        raise ValueError("seeds is empty; needs at least one seed")
    return fit_many(build, data, [dataclasses.replace(config, seed=seed) for seed in seeds], **options)


def fit_many(
    build: Callable[[nnx.Rngs], nnx.Module | Trainable],
    data: Data | Sequence[Data],
    configs: Sequence[Config],
    *,
    vmapped: bool | None = None,
    loss: Loss | None = None,
    metrics: Metrics | None = None,
    augment: Augment | None = None,
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    parameter_metrics: ParameterMetrics | None = None,
) -> FittedRuns:
    """Fit the same network once per configuration, one after the other or in one program.

    Args:
      build: A function that makes the network from its keys, which are drawn from the seed of each configuration.
        `jit_build` turns it into one that compiles faster.
      data: The data set of all runs, or one per run. All have the same image shape. If vmapped, each split also has the same
        number of images in all data sets.
      configs: The configurations, one per run. Runs that differ only in seed, learning rate, schedule and number of steps share
        one compilation.
      vmapped: Whether to train all runs at once in one program. If None, only on accelerators, and if the runs allow it. On CPU
        it saved 30 % of the time for one small dense layer, and cost as much for networks with convolutions.
      loss: The loss, as in `fit`.
      metrics: The metrics, as in `fit`.
      augment: The augmentation, as in `fit`.
      checkpoints: The options for saving the runs, or a folder. Each run has a subfolder named after its index. Vmapped runs
        cannot be saved.
      parameter_metrics: The parameter metrics, as in `fit`.

    Returns:
      The runs in the order of `configs`. `runs[k]` is the `Fitted` network of run k, and `runs.parameters` are stacked.

    Raises:
      ValueError: An argument is invalid for `fit`, `configs` is empty, the number of data sets differs from the number of
        configurations, or the runs cannot be vmapped. Vmapped runs may differ only in seed, learning rate and schedule, and
        have no patience, mesh, checkpoints or images on disk.
      FloatingPointError: A loss or a parameter is not finite, as in `fit`. If the runs are vmapped, the error names the run.
    """
    checkpoints = from_folder("checkpoints", checkpoints, Checkpoints)
    configs = check.sequence("configs", configs, "configurations")
    if vmapped is not None:
        check.flag("vmapped", vmapped)
    for config in configs:
        check.instance("configs", config, Config, "a sequence of Config")
    if not configs:
        raise ValueError("configs is empty; needs at least one configuration")
    datasets = [data] * len(configs) if isinstance(data, Data) or not isinstance(data, Sequence) else list(data)
    if len(datasets) != len(configs):
        raise ValueError(
            f"data has {len(datasets)} data sets for {len(configs)} configurations; needs one for all runs, or one per run"
        )
    options: Any = {"loss": loss, "metrics": metrics, "augment": augment, "parameter_metrics": parameter_metrics}
    check.function("build", build, "a function that makes a network from its keys")
    for dataset, config in zip(datasets, configs, strict=True):
        check_types(dataset, config, None, **options)
    obstacle = _vmap_obstacle(datasets, configs, checkpoints)
    if vmapped and obstacle:
        raise ValueError(f"vmapped is True, but the runs cannot be vmapped: {obstacle}; pass vmapped=False")
    if vmapped or (vmapped is None and not obstacle and jax.default_backend() != "cpu"):
        models = []
        for dataset, config in zip(datasets, configs, strict=True):
            model = _built(build(nnx.Rngs(config.seed)))
            check_inputs(model, dataset)
            models.append(as_trainable(model, dataset.image_shape, config.seed))
        return FittedRuns(fit_group(models, RunGroup(datasets, configs, vmapped=True), **options))
    runs = []
    for number, (dataset, config) in enumerate(zip(datasets, configs, strict=True)):
        subfolder = checkpoints and pathlib.Path(os.fspath(checkpoints.folder), str(number))
        saved = checkpoints and dataclasses.replace(checkpoints, folder=subfolder)
        runs.append(fit(_built(build(nnx.Rngs(config.seed))), dataset, config, checkpoints=saved, **options))
    return FittedRuns(runs)


def _vmap_obstacle(datasets: Sequence[Data], configs: Sequence[Config], checkpoints: Checkpoints | None) -> str | None:
    """Return the reason why the runs cannot be trained in one program, or None."""
    for field in dataclasses.fields(Config):
        if field.name not in VARIED and len({getattr(config, field.name) for config in configs}) > 1:
            return f"they differ in {field.name}"
    for name in UNSUPPORTED:
        if getattr(configs[0], name) is not None:
            return f"they have a {name}"
    if checkpoints is not None:
        return "they have checkpoints"
    splits = [[data.train, data.test, data.validation] for data in datasets]
    if len({tuple(split and split.images.shape for split in three) for three in splits}) > 1:
        return "their data sets have splits of different sizes"
    return "their images are on disk" if any(isinstance(data.train.images, StoredImages) for data in datasets) else None
