"""The identity of a run, as a JSON record.

The record describes the configuration, data, model, optimizer and augmentation of a run. Every process writes the same record
for the same run. A run resumes from a checkpoint only if the records agree.
"""

import dataclasses
import enum
import functools
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np
from flax import nnx

from convlab.data import Data, StoredImages
from convlab.train.config import Config
from convlab.train.step import LinenApply, NnxApply, Trainable

VERSION = 4  # the version of the checkpoint format; a record without a version has version 1
NOT_COMPARED = ("progress", "mesh")  # configuration fields that may change when a run resumes, or between processes
TOTALS = ("epochs", "steps")  # configuration fields that are compared by the number of steps alone


def identity(model: Trainable, data: Data, config: Config, custom: bool, augment: Any, loss: Any = None) -> dict[str, Any]:
    """Describe a run as a JSON record.

    Images on disk are not read: the record has only their number, shape and labels. A function is recorded by its name, without
    the numbers in its closure. A custom optimizer is recorded only as such. Flax modules gain fields from version to version,
    so the key of the model's description names the Flax version.

    Args:
      model: The model to train.
      data: The training, validation and test images.
      config: The configuration of the run.
      custom: Whether a custom optimizer was passed.
      augment: The augmentation, or None.
      loss: The loss, or None for the cross-entropy.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    in_memory = {name: split.images for name, split in splits.items() if split and not isinstance(split.images, StoredImages)}
    name, network = _network(model)
    return {
        "version": VERSION,
        "config": {name: value for name, value in config_to_json(config).items() if name not in TOTALS},
        "steps": config.total_steps(len(data.train)),
        "data": [data.name, len(data.train), *data.image_shape],
        "labels": {name: split and _checksum(split.labels) for name, split in splits.items()},
        "images": {name: _checksum(images) for name, images in in_memory.items()},
        "standardisation": data.standardisation,
        f"model (Flax {flax.__version__})": f"{name} {zlib.crc32(describe(network).encode()):08x}",
        "optimizer": "one that was passed" if custom else "that of the configuration",
        "augment": describe(augment),
        "loss": describe(loss),
    }


def config_to_json(config: Config) -> dict[str, Any]:
    """Convert the compared fields of a configuration to JSON values."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in NOT_COMPARED]
    return json.loads(json.dumps({name: getattr(config, name) for name in names}))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the differences between the records of two runs, over the keys that both have.

    So images may move to disk, and the Flax version may change.
    """
    lines = []
    for name in (name for name in now if name in saved):
        old, new = saved[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name} {difference}" for difference in differences(old, new)]
        elif old != new:
            lines.append(f"{name}: the checkpoint has {old!r}, this run has {new!r}")
    return lines


def describe(value: Any, parents: tuple[int, ...] = ()) -> str:
    """Describe a value by a text that is the same in every process.

    Functions and classes are written by name, arrays by type, and other objects by their public attributes.

    Example:
      >>> describe({"activation": jax.nn.relu, "options": functools.partial(dict, size=3)})
      "{'activation': relu, 'options': partial(dict, (), {'size': 3})}"
    """
    if id(value) in parents:
        return "..."
    inner = functools.partial(describe, parents=(*parents, id(value)))
    if isinstance(value, functools.partial):
        return f"partial({inner(value.func)}, {inner(value.args)}, {inner(value.keywords)})"
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, jax.Array | np.ndarray | nnx.Variable):
        return _name(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {inner(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(inner, value))})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(inner, value)))}}}"
    if hasattr(value, "__dict__"):
        return _name(value) + inner({name: field for name, field in vars(value).items() if not name.startswith("_")})
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def name_of_network(model: Trainable) -> str:
    """Return the name of a model's class, or of its function."""
    return _network(model)[0]


def _network(model: Trainable) -> tuple[str, Any]:
    """Return the name and the module of a model, or its function if it has no module."""
    apply: Any = model.apply
    if isinstance(apply, NnxApply):
        apply = nnx.merge(apply.train, model.parameters, model.model_state)
    elif isinstance(apply, LinenApply):
        apply = apply.module
    return getattr(apply, "__qualname__", _name(apply)), apply


def _name(value: Any) -> str:
    return type(value).__qualname__


def _checksum(array: np.ndarray) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(array)):08x}"  # pyright: ignore[reportArgumentType]
