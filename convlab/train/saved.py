"""Saved networks: a folder of arrays, written by Orbax, and a JSON record, with checksums over both."""

import dataclasses
import json
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from convlab import check
from convlab.constructors import build_network, describe_network, function_name, named_function
from convlab.data import disk
from convlab.report import provenance
from convlab.train.array_files import key_data, read_arrays, write_arrays
from convlab.train.checks import check_functions
from convlab.train.config import Config, make_optimizer
from convlab.train.identity import describe, name_of_network
from convlab.train.step import Loss, NnxApply, Trainable, Tree, as_trainable, init_optimizer, leaves_by_path

if TYPE_CHECKING:
    from convlab.train.fitted import Fitted

VERSION = 1  # the version of the format
RECORD = "saved.json"
TREES = ("parameters", "model_state", "optimizer_state")
PLAIN = ("history", "seconds", "step_seconds")  # the fields of `Fitted` that JSON takes as they are
LOSSES = ("optax", "jax.nn")  # the modules whose losses are saved by name


def write(fitted: "Fitted", path: str | os.PathLike[str], overwrite: bool) -> None:
    """Write a trained network to a folder, as `Fitted.save` does.

    Raises:
      ValueError: The folder exists and may not be replaced.
    """
    folder = disk.as_folder("path", path)
    check.flag("overwrite", overwrite)
    _check_free(folder, overwrite)
    leaves = leaves_by_path({name: getattr(fitted, name) for name in TREES})
    record = {
        "version": VERSION,
        "network": _network(fitted),
        "network_name": name_of_network(Trainable(fitted.apply, fitted.parameters, fitted.model_state)),
        "leaves": [[path, *_form(leaf), _key_impl(leaf)] for path, leaf in leaves.items()],
        "config": {name: value for name, value in _fields(fitted.config).items() if name != "mesh"},
        "loss": function_name(fitted.loss, LOSSES),
        "loss_name": fitted.loss if fitted.loss is None or isinstance(fitted.loss, str) else describe(fitted.loss),
        "mean": fitted.mean.tolist(),
        "std": fitted.std.tolist(),
        "image_shape": list(fitted.image_shape),
        "dtype": np.dtype(fitted.dtype).name,
        "classes": list(fitted.classes),
        "pixel_range": fitted.pixel_range and list(fitted.pixel_range),
        **{name: getattr(fitted, name) for name in PLAIN},
        "provenance": provenance(),
    }
    text = json.dumps(record, indent=1)  # before a file is written
    unique = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    with disk.atomic_folder(unique, unique.with_name(f"{unique.name}.incomplete")) as part:
        write_arrays(part / "arrays", {path: np.array(key_data(leaf)) for path, leaf in leaves.items()})
        (part / RECORD).write_text(text, encoding="utf-8")
    try:
        if folder.exists():
            _check_free(folder, overwrite)
            disk.remove_folder(folder, unique.with_name(f"{unique.name}.removed"))
        unique.rename(folder)
    except BaseException:
        disk.remove_surely(unique)
        raise


def read(
    path: str | os.PathLike[str], model: Any, optimizer: optax.GradientTransformation | None, loss: Loss | None
) -> dict[str, Any]:
    """Read the fields of `Fitted` from a folder, as `Fitted.load` does.

    Raises:
      ValueError: The folder holds no saved network, or another one than `model`.
      DamagedError: A file has changed.
    """
    folder = disk.as_folder("path", path)
    check_functions(loss=loss)
    if optimizer is not None:
        check.optimizer("optimizer", optimizer)
    if not (folder / disk.MANIFEST).exists() and not (folder / RECORD).exists():
        raise ValueError(f"path {folder} holds no saved network; needs a folder that Fitted.save wrote")
    disk.verify_folder(folder)
    if not (folder / RECORD).exists():
        raise ValueError(f"path {folder} holds no saved network, as it has no {RECORD}; needs a folder that Fitted.save wrote")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record["version"] > VERSION:
        raise ValueError(f"path {folder} has format version {record['version']}; this release reads up to version {VERSION}")
    network = _trainable(folder, record, model)
    arrays = _arrays(folder, record)
    trees = {
        "parameters": _fill("parameters", network.parameters, arrays, "the model"),
        "model_state": _fill("model_state", network.model_state, arrays, "the model"),
    }
    config = Config(**record["config"])
    return trees | {
        "apply": network.apply,
        "optimizer_state": _optimizer_state(network.parameters, config, optimizer, arrays),
        "config": config,
        "loss": _loss(record, loss),
        "mean": np.array(record["mean"], np.float32),
        "std": np.array(record["std"], np.float32),
        "image_shape": tuple(record["image_shape"]),
        "dtype": np.dtype(record["dtype"]),
        "classes": tuple(record["classes"]),
        "pixel_range": record.get("pixel_range") and tuple(record["pixel_range"]),
        **{name: record[name] for name in PLAIN},
    }


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
    """Raise ValueError unless a folder can be written: it is missing, or a saved network that may be replaced."""
    if not folder.exists():
        return
    if not (folder / RECORD).exists() or not (folder / disk.MANIFEST).exists():
        raise ValueError(f"path {folder} exists and is no saved network, so it is not replaced; pass another folder")
    if not overwrite:
        raise ValueError(f"path {folder} holds a saved network; pass another folder, or overwrite=True to replace it")


def _network(fitted: "Fitted") -> dict[str, Any] | None:
    """Describe the network by its constructor, or return None if that would not build the same structure."""
    if not isinstance(fitted.apply, NnxApply):
        return None
    description = describe_network(fitted.model())
    if description is None:
        return None
    built = _built(description, fitted.image_shape)
    trained = {name: _forms(getattr(fitted, name)) for name in ("parameters", "model_state")}
    expected = {name: _forms(getattr(built, name)) for name in trained}
    return description if built.apply is fitted.apply and trained == expected else None


def _built(description: Mapping[str, Any], image_shape: tuple[int, ...]) -> Trainable:
    """Build the network of a description, with shapes in place of arrays."""
    return as_trainable(nnx.eval_shape(lambda: build_network(description, nnx.Rngs(0))), image_shape)


def _trainable(folder: pathlib.Path, record: Mapping[str, Any], model: Any) -> Trainable:
    """Return the network to fill with arrays: `model`, or the one that the record describes."""
    shape = tuple(record["image_shape"])
    if model is not None:
        return as_trainable(model, shape, record["config"]["seed"])
    if record["network"] is None:
        raise ValueError(
            f"model is None, but {folder} holds the arrays of {record['network_name']}, which its constructor alone does not"
            " build; needs a network of the same structure, as in Fitted.load(path, model)"
        )
    return _built(record["network"], shape)


def _arrays(folder: pathlib.Path, record: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Read all arrays by path, random keys included."""
    impls = {path: impl for path, _, _, impl in record["leaves"]}
    data = read_arrays(folder / "arrays", impls)
    wrap = jax.random.wrap_key_data
    return {path: wrap(jnp.asarray(data[path]), impl=impl) if impl else jnp.asarray(data[path]) for path, impl in impls.items()}


def _fill(name: str, template: Tree, arrays: Mapping[str, jax.Array], owner: str) -> Tree:
    """Return a tree with the saved arrays in place of its leaves.

    Raises:
      ValueError: Paths, shapes or dtypes differ.
    """
    expected, saved = _forms({name: template}), {path: _form(leaf) for path, leaf in arrays.items() if _is_of(path, name)}
    lines = [
        f"{path}: the folder has {_shown(saved.get(path))}, {owner} has {_shown(expected.get(path))}"
        for path in dict.fromkeys([*saved, *expected])
        if saved.get(path) != expected.get(path)
    ]
    if lines:
        raise ValueError(f"the saved arrays do not fit {owner}. These differ:\n  " + "\n  ".join(lines))
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[path] for path in expected])


def _optimizer_state(
    parameters: Tree, config: Config, optimizer: optax.GradientTransformation | None, arrays: Mapping[str, jax.Array]
) -> Any:
    """Return the optimizer's state, or a dict of its arrays by path if it is not one of the configured optimizer."""
    chosen = optimizer or make_optimizer(config.optimizer, config.weight_decay)
    template = init_optimizer.eval_shape(parameters, chosen)
    try:
        return _fill("optimizer_state", template, arrays, "the optimizer")
    except ValueError:
        if optimizer is not None:
            raise
    prefix = len("['optimizer_state']")
    return {path[prefix:]: leaf for path, leaf in arrays.items() if _is_of(path, "optimizer_state")}


def _loss(record: Mapping[str, Any], loss: Loss | None) -> Loss | str | None:
    """Return the loss of a saved network: the one that is given, else the saved one, else its name."""
    name = record["loss_name"]
    if loss is not None and name != describe(loss):
        raise ValueError(f"loss is {describe(loss)}, but the network was trained with {name or 'the cross-entropy'}")
    return loss if loss is not None else name if record["loss"] is None else named_function(record["loss"], LOSSES)


def _is_of(path: str, name: str) -> bool:
    return path.startswith(f"[{name!r}]")


def _form(leaf: Any) -> tuple[list[int], str]:
    return [*np.shape(leaf)], str(jnp.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype)


def _forms(tree: Tree) -> dict[str, tuple[list[int], str]]:
    return {path: _form(leaf) for path, leaf in leaves_by_path(tree).items()}


def _shown(form: tuple[list[int], str] | None) -> str:
    return "nothing" if form is None else f"{tuple(form[0])} {form[1]}"


def _key_impl(leaf: Any) -> str | None:
    """Return the name of a random key's implementation, or None for any other array."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return str(jax.random.key_impl(leaf)) if is_key else None


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
