"""What a run is: its configuration, data, model, optimizer and augmentation, as plain facts that any process writes alike."""

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

from convlab.data import Data, Stored
from convlab.train.config import Config
from convlab.train.step import LinenApply, NnxApply, Trainable

VERSION = 2  # of what a checkpoint says of its run; those of version 1 do not say which they are
FREE = ("progress", "mesh")  # fields of the configuration that may change when a run goes on, or from process to process


def identity(model: Trainable, data: Data, config: Config, custom: bool, augment: Any) -> dict[str, Any]:
    """Describe a run, as JSON.

    Images on disk are not read: of those only number, shape and labels are told. What a function holds (the numbers of a
    custom optimizer or of a closure) is not told either, only its name. Flax's modules gain fields from version to version, so
    the model's description is one of its version.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    in_memory = {name: split.images for name, split in splits.items() if split and not isinstance(split.images, Stored)}
    name, network = _network(model)
    return {
        "version": VERSION,
        "config": plain(config),
        "data": [data.name, len(data.train), *data.image_shape],
        "labels": {name: split and _checksum(split.labels) for name, split in splits.items()},
        "images": {name: _checksum(images) for name, images in in_memory.items()},
        "standardisation": data.standardisation,
        f"model (Flax {flax.__version__})": f"{name} {zlib.crc32(described(network).encode()):08x}",
        "optimizer": "one that was passed" if custom else "that of the configuration",
        "augment": described(augment),
    }


def plain(config: Config) -> dict[str, Any]:
    """Write a configuration as JSON has it, without what is free."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in FREE]
    return json.loads(json.dumps({name: getattr(config, name) for name in names}))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Tell in which facts two runs differ; images that one of them has on disk, or networks of two versions of Flax, may."""
    told = []
    for name in (name for name in now if name in saved):
        its, mine = saved[name], now[name]
        if isinstance(its, dict) and isinstance(mine, dict):
            told += [f"{name} {difference}" for difference in differences(its, mine)]
        elif its != mine:
            told.append(f"{name}: {its!r} was saved, now {mine!r}")
    return told


def described(value: Any, above: tuple[int, ...] = ()) -> str:
    """Write a value alike in every process: functions and classes by name, arrays by kind, objects by what they hold.

    Example:
      >>> described({"activation": jax.nn.relu, "options": functools.partial(dict, size=3)})
      "{'activation': relu, 'options': partial(dict, (), {'size': 3})}"
    """
    if id(value) in above:
        return "..."
    inner = functools.partial(described, above=(*above, id(value)))
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
        return _name(value) + inner({name: held for name, held in vars(value).items() if not name.startswith("_")})
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def _network(model: Trainable) -> tuple[str, Any]:
    """The module that a function is of, or the function; with its name."""
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
