"""Conversion of weights between Flax NNX networks and PyTorch, as a `state_dict` of NumPy arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import Path
from convlab.foreign.holders import Holder, fill, holders
from convlab.layers import Conv, ConvTranspose

__all__ = ["from_torch", "from_torch_state_dict", "to_torch", "to_torch_state_dict"]

Names = Mapping[str, str]


def from_torch(kernel: Float[Array, "d c a b"]) -> Float[Array, "a b c d"]:
    """Read the `weight` of `torch.nn.Conv1d`, `Conv2d` or `Conv3d` (OIHW), grouped or not.

    $$V_{abcd} = K_{dcab}$$

    Raises:
      ValueError: The kernel has no spatial axis.

    Example:
      >>> from_torch(jnp.ones((7, 2, 3, 5))).shape
      (3, 5, 2, 7)
    """
    kernel, _ = check.kernel("kernel", kernel, spatial=1, others="d c")
    return jnp.moveaxis(kernel, (1, 0), (-2, -1))


def to_torch(v: Float[Array, "a b c d"]) -> Float[Array, "d c a b"]:
    """Write a kernel as the `weight` of a PyTorch convolution (OIHW).

    $$K_{dcab} = V_{abcd}$$

    Raises:
      ValueError: `v` has no spatial axis.

    Example:
      >>> to_torch(jnp.ones((3, 5, 2, 7))).shape
      (7, 2, 3, 5)
    """
    v, _ = check.kernel("v", v, spatial=1, others="c d")
    return jnp.moveaxis(v, (-1, -2), (0, 1))


def to_torch_state_dict(
    model: nnx.Module, *, flattened: Mapping[str, Sequence[int]] | None = None, names: Names | None = None
) -> dict[str, np.ndarray]:
    """Write the arrays of an NNX network as a PyTorch `state_dict` of NumPy arrays.

    | here | PyTorch | arrays |
    |---|---|---|
    | `nnx.Conv`, `convlab.Conv`, grouped or not | `Conv1d`, `Conv2d`, `Conv3d` | weight (d, c, a, b), bias |
    | `nnx.ConvTranspose`, `convlab.ConvTranspose` | `ConvTranspose1d`, `2d`, `3d` | weight (c, d, a, b), bias |
    | `nnx.Linear` | `Linear` | weight (d, c), bias |
    | `nnx.BatchNorm` and convlab's | `BatchNorm1d`, `2d`, `3d` | weight, bias, running_mean, running_var, num_batches_tracked |
    | `nnx.LayerNorm`, `nnx.GroupNorm` | `LayerNorm`, `GroupNorm` | weight, bias |
    | `nnx.Embed` | `Embedding` | weight |

    `torch.as_tensor` turns each array into a tensor. Settings such as strides, padding and epsilon are not part of a
    `state_dict`. "SAME" padding with stride 2 pads differently from PyTorch's `padding=1`. Flax counts no batches, so
    `num_batches_tracked` is 0; PyTorch uses it only with `momentum=None`.

    Args:
      model: The network. It is not changed.
      flattened: The shapes (*space, c) of flattened images by the name of the linear or normalisation layer that reads them.
        Images are flattened with channels last here and with channels first in PyTorch, so the inputs of this layer are
        reordered. Layers that are not named keep the order of their inputs.
      names: The names in PyTorch by the names here. A key names a layer or a module that holds layers, as in {"layers.3":
        "classifier"}. An empty text removes this part of the names, as in {"layers": ""}. If None, all names are those here,
        with their parts joined by dots.

    Raises:
      ValueError: Layers have no counterpart. The error names all of them.
      TypeError: The model is not a Flax NNX module.

    Example:
      >>> model = nnx.Sequential(nnx.Conv(2, 7, (3, 5), rngs=nnx.Rngs(0)), nnx.relu)
      >>> {name: array.shape for name, array in to_torch_state_dict(model).items()}
      {'layers.0.weight': (7, 2, 3, 5), 'layers.0.bias': (7,)}
    """
    written: dict[str, np.ndarray] = {}
    for layer in _layers(model, flattened, names):
        for name, entry in layer.arrays.items():
            array = entry.write(np.asarray(layer.holder.variables[name][...]))
            written[f"{layer.name}.{entry.name}".removeprefix(".")] = np.ascontiguousarray(
                _reordered(array, entry, layer.shape)
            )
        if isinstance(layer.holder.module, nnx.BatchNorm):
            written[f"{layer.name}.{COUNTER}".removeprefix(".")] = np.zeros((), np.int64)
    return written


def from_torch_state_dict(
    model: nnx.Module,
    state_dict: Mapping[str, Any],
    *,
    flattened: Mapping[str, Sequence[int]] | None = None,
    names: Names | None = None,
) -> nnx.Module:
    """Read a PyTorch `state_dict` into an NNX network, the inverse of `to_torch_state_dict`.

    Args:
      model: The network. It is not changed. The arrays keep its dtypes.
      state_dict: The NumPy arrays or PyTorch tensors by PyTorch's names. `num_batches_tracked` is ignored, and may be missing.
      flattened: The shapes (*space, c) of flattened images, as in `to_torch_state_dict`.
      names: The names in PyTorch by the names here, as in `to_torch_state_dict`.

    Raises:
      ValueError: Layers have no counterpart, or arrays are missing, left over or of other shapes. The error names all of them.
      TypeError: The model is not a Flax NNX module.

    Example:
      >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> state_dict = {"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2)}
      >>> from_torch_state_dict(model, state_dict, names={"layers": ""})(jnp.ones(3))
      Array([3., 3.], dtype=float32)
    """
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    check.mapping("state_dict", state_dict, "arrays by name")
    model = nnx.clone(model)
    remaining, problems = dict(state_dict), []
    for layer in _layers(model, flattened, names):
        arrays = {}
        for name, entry in layer.arrays.items():
            key, variable = f"{layer.name}.{entry.name}".removeprefix("."), layer.holder.variables[name]
            needed = entry.write(np.empty(variable.shape, bool)).shape
            if key not in remaining:
                problems.append(f"{key} is missing")
                continue
            array = _numpy(remaining.pop(key))
            if array.shape != needed:
                problems.append(f"{key} has shape {array.shape} but {'.'.join(map(str, layer.path))} needs {needed}")
                continue
            arrays[name] = jnp.asarray(entry.read(_reordered(array, entry, layer.shape, back=True)), variable.dtype)
        fill(layer.holder.module, arrays)
        if isinstance(layer.holder.module, nnx.BatchNorm):
            remaining.pop(f"{layer.name}.{COUNTER}".removeprefix("."), None)
    problems += [f"{key} has no layer here" for key in remaining]
    if problems:
        raise ValueError(f"state_dict does not fit the model: {'; '.join(problems)}")
    return model


COUNTER = "num_batches_tracked"


class _Entry(NamedTuple):
    """Describe an array in PyTorch: its name, and the functions that write and read its axes.

    Attributes:
      name: The name in PyTorch.
      write: The function from the array here to the array there.
      read: The inverse of `write`.
      features: The axis in PyTorch along which the layer reads features, or None.
    """

    name: str
    write: Callable[[np.ndarray], np.ndarray]
    read: Callable[[np.ndarray], np.ndarray]
    features: int | None


class _TorchLayer(NamedTuple):
    """Hold a layer, its two names, its arrays, and the shape of the images that it reads flattened."""

    path: Path
    name: str
    holder: Holder
    arrays: dict[str, _Entry]
    shape: tuple[int, ...] | None


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _convolution(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (-1, -2), (0, 1))


def _convolution_back(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2))


def _flipped(array: np.ndarray) -> np.ndarray:
    """Write a kernel (a, b, c, d) as (c, d, a, b), with the taps in reverse."""
    return np.flip(np.moveaxis(array, (-2, -1), (0, 1)), tuple(range(2, array.ndim)))


def _flipped_back(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.flip(array, tuple(range(2, array.ndim))), (0, 1), (-2, -1))


BIAS = _Entry("bias", _same, _same, None)
CONVOLUTION = {"kernel": _Entry("weight", _convolution, _convolution_back, None), "bias": BIAS}
TRANSPOSED = {"kernel": _Entry("weight", _flipped, _flipped_back, None), "bias": BIAS}
NORM = {"scale": _Entry("weight", _same, _same, 0), "bias": _Entry("bias", _same, _same, 0)}
STATISTICS = {"mean": _Entry("running_mean", _same, _same, 0), "var": _Entry("running_var", _same, _same, 0)}
TABLE: dict[type[nnx.Module], dict[str, _Entry]] = {  # class -> array here -> array in PyTorch
    nnx.Conv: CONVOLUTION,
    Conv: CONVOLUTION,
    nnx.ConvTranspose: TRANSPOSED,
    ConvTranspose: TRANSPOSED,
    nnx.Linear: {"kernel": _Entry("weight", np.transpose, np.transpose, 1), "bias": BIAS},
    nnx.BatchNorm: NORM | STATISTICS,
    nnx.LayerNorm: NORM,
    nnx.GroupNorm: NORM,
    nnx.Embed: {"embedding": _Entry("weight", _same, _same, None)},
}


def _table(module: nnx.Module) -> dict[str, _Entry] | None:
    """Return the PyTorch arrays of a layer by their names here, or None if it has no counterpart."""
    if isinstance(module, (nnx.ConvTranspose, ConvTranspose)) and module.transpose_kernel:  # (a, b, d, c), reverses its taps
        return CONVOLUTION
    return next((entries for kind, entries in TABLE.items() if isinstance(module, kind)), None)


def _problem(holder: Holder) -> str:
    """Describe why a layer has no counterpart, or return ""."""
    module, table = holder.module, _table(holder.module)
    kind = type(module).__name__
    if table is None or holder.variables.keys() - table.keys():
        return kind
    if table is CONVOLUTION and "bias" in holder.variables and len(holder.variables["bias"].shape) > 1:
        return f"{kind} with a bias per position"
    if getattr(module, "mask", None) is not None:
        return f"{kind} with a mask"
    if np.any(np.array(getattr(module, "input_dilation", None) or 1) != 1):
        return f"{kind} with input_dilation"
    if isinstance(module, nnx.BatchNorm) and len({"scale", "bias"} & holder.variables.keys()) == 1:
        return f"{kind} with one of scale and bias alone"
    return ""


def _layers(model: nnx.Module, flattened: Mapping[str, Sequence[int]] | None, names: Names | None) -> list[_TorchLayer]:
    """Return the layers of a network with their counterparts.

    Raises:
      ValueError: Layers have no counterpart, or an argument names no layer.
    """
    held = {".".join(map(str, path)): (path, holder) for path, holder in holders(model).items()}
    missing = [f"{name or 'the model'} ({problem})" for name, (_, holder) in held.items() if (problem := _problem(holder))]
    if missing:
        raise ValueError(
            f"these layers have no counterpart in PyTorch: {', '.join(missing)}; convlab.constrain(model, to='conv', ...) makes"
            " convolutions of locally connected, tiled and low-rank layers"
        )
    flattened = {} if flattened is None else check.mapping("flattened", flattened, "shapes by the name of a layer")
    names = {} if names is None else check.mapping("names", names, "names in PyTorch by the names here")
    for argument, keys in (("flattened", flattened), ("names", names)):
        for key in keys:
            if not any(name == key or name.startswith(f"{key}.") for name in held):
                raise ValueError(f"{argument} names {key!r}, but the layers are {[*held]}")
    layers, seen = [], {}
    for name, (path, holder) in held.items():
        table = _table(holder.module) or {}
        arrays = {key: entry for key, entry in table.items() if key in holder.variables}
        shape = check.image_shape(flattened[name]) if flattened and name in flattened else None
        if shape is not None:
            _check_flattened(name, holder, arrays, shape)
        there = _renamed(name, names or {})
        if there in seen:
            raise ValueError(f"names maps both {seen[there]} and {name} to {there!r}")
        seen[there] = name
        layers.append(_TorchLayer(path, there, holder, arrays, shape))
    return layers


def _check_flattened(name: str, holder: Holder, arrays: Mapping[str, _Entry], shape: tuple[int, ...]) -> None:
    """Check that a layer reads flattened images of this shape."""
    reads = {holder.variables[key].shape[0] for key, entry in arrays.items() if entry.features is not None}
    if not reads:
        raise ValueError(f"flattened names {name}, but a {type(holder.module).__name__} does not read flattened images")
    if reads != {math.prod(shape)}:
        raise ValueError(
            f"flattened gives {name} images of shape {shape}, {math.prod(shape)} numbers, but it reads {max(reads)}"
        )


def _renamed(name: str, names: Names) -> str:
    """Replace the longest leading part of a name that `names` holds."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (first := ".".join(parts[:length])) in names:
            return ".".join(part for part in (names[first], *parts[length:]) if part)
    return name


def _reordered(array: np.ndarray, entry: _Entry, shape: tuple[int, ...] | None, back: bool = False) -> np.ndarray:
    """Reorder the inputs of a layer from flattened (k, l, c) to flattened (c, k, l), or back."""
    if shape is None or entry.features is None:
        return array
    order = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), -1, 0).ravel()
    return np.take(array, np.argsort(order) if back else order, axis=entry.features)


def _numpy(value: Any) -> np.ndarray:
    """Return an array or a tensor as a NumPy array, in float32 if it is bfloat16, which NumPy lacks."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)
