"""Variables of Flax Linen, read into NNX networks and written from them."""

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx, traverse_util
from jaxtyping import Array, Float

from convlab import check
from convlab import linen as drop_ins
from convlab.calls import Path, follow, name_of
from convlab.foreign.holders import Holder, fill, holders
from convlab.geometry import Window
from convlab.layers import Conv, ConvTranspose, Layer
from convlab.linen import Layer as LinenLayer
from convlab.linen import layout_of
from convlab.rungs import Layout, Untied

__all__ = ["from_linen_local", "from_linen_variables", "to_linen_local", "to_linen_variables"]


def from_linen_local(kernel: Float[Array, "i j cab d"], window: Window) -> Float[Array, "i j a b c d"]:
    r"""Read the kernel of `flax.linen.ConvLocal`, which fuses channel and taps, channel first.

    $$V_{ijabcd} = K_{ij,\,(cA + a)B + b,\,d}$$

    Here the kernel has A x B taps.

    Raises:
      ValueError: The fused axis does not hold whole windows.

    Example:
      >>> from_linen_local(jnp.ones((4, 5, 2 * 3 * 3, 7)), Window(3)).shape
      (4, 5, 3, 3, 2, 7)
    """
    kernel, ndim = check.kernel("kernel", kernel, spatial=1, others="cab d")
    size = check.window(window).taps(ndim)
    fused = kernel.shape[-2]
    if fused % math.prod(size):
        raise ValueError(f"kernel fuses {fused} entries, but whole windows of {size} taps need a multiple of {math.prod(size)}")
    kernel = kernel.reshape(*kernel.shape[:ndim], fused // math.prod(size), *size, kernel.shape[-1])
    return jnp.moveaxis(kernel, ndim, -2)


def to_linen_local(v: Float[Array, "i j a b c d"]) -> Float[Array, "i j cab d"]:
    r"""Write a locally connected kernel in the layout of `flax.linen.ConvLocal`.

    $$K_{ij,\,(cA + a)B + b,\,d} = V_{ijabcd}$$

    Here the kernel has A x B taps.

    Raises:
      ValueError: `v` is not a locally connected kernel.

    Example:
      >>> to_linen_local(jnp.ones((4, 5, 3, 3, 2, 7))).shape
      (4, 5, 18, 7)
    """
    v, ndim = check.kernel("v", v, spatial=2, others="c d")
    return jnp.moveaxis(v, -2, ndim).reshape(*v.shape[:ndim], -1, v.shape[-1])


def from_linen_variables(
    variables: Mapping[str, Any], module: linen.Module, image_shape: Sequence[int], *, model: nnx.Module | None = None
) -> nnx.Module:
    """Read the variables of a Linen module into an NNX layer or network of the same function.

    `linen.Conv`, `ConvTranspose`, `Dense` and `BatchNorm` become the NNX layers of these names (`Dense` becomes `Linear`).
    `linen.ConvLocal` and the modules of `convlab.linen` become convlab layers, and `linen.Sequential` becomes
    `nnx.Sequential`. Any other network has code of its own, so its author writes it in NNX and passes it as `model`. The
    modules that hold arrays are then paired in the order of their calls.

    Args:
      variables: The variables of `module`, as `module.init` or a checkpoint returns them.
      module: The Linen module, which takes images (n, *image_shape). It gets `train=False` if it has an argument `train`.
      image_shape: The shape (*space, c) of one image.
      model: An NNX network that calls the same layers. It is not changed. If None, it is built.

    Raises:
      ValueError: Modules have no counterpart, or arrays are missing, left over or of other shapes. The error names all.
      TypeError: `module` is no Linen module, or `model` no NNX module.

    Example:
      >>> module = linen.ConvLocal(7, (3, 3))
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 4, 5, 2)))
      >>> from_linen_variables(variables, module, (4, 5, 2)).kernel.shape
      (4, 5, 3, 3, 2, 7)
    """
    shape = check.image_shape(image_shape)
    check.mapping("variables", variables, "collections of arrays by name")
    if model is not None:
        check.instance("model", model, nnx.Module, "a Flax NNX module")
    called = _called(module, shape)
    model = _built(module, called) if model is None else nnx.clone(model)
    flat = _flat(variables)
    needed = {(kind, *path, name) for path, call in called.items() for kind, name in call.arrays}
    if flat.keys() != needed:
        parts = [("lack", needed - flat.keys()), ("hold, beyond those of the module,", flat.keys() - needed)]
        raise ValueError("; ".join(f"variables {verb} {_listed(keys)}" for verb, keys in parts if keys))
    for path, (call, holder) in _pairs(called, model, shape).items():
        arrays = {}
        for (kind, name), _ in call.arrays.items():
            array, variable = jnp.asarray(flat[kind, *path, name]), holder.variables[name]
            window = _local_window(holder.module)
            if window is not None and array.ndim < len(variable.shape):
                array = from_linen_local(array, window)
            check.equal_shapes(
                f"{name_of((*path, name))} has shape {{}}", array.shape, "the NNX layer needs {}", variable.shape
            )
            arrays[name] = array
        fill(holder.module, arrays)
    return model


def to_linen_variables(model: nnx.Module, module: linen.Module, image_shape: Sequence[int]) -> dict[str, Any]:
    """Write the variables of a Linen module from an NNX network, the inverse of `from_linen_variables`.

    Args:
      model: The NNX layer or network.
      module: The Linen module that calls the same layers in the same order.
      image_shape: The shape (*space, c) of one image.

    Raises:
      ValueError: The two do not call the same layers, or arrays differ in shape.
      TypeError: `module` is no Linen module, or `model` no NNX module.

    Example:
      >>> from convlab import LocallyConnected
      >>> layer = LocallyConnected(2, 7, (3, 3), space=(4, 5), rngs=nnx.Rngs(0))
      >>> jax.tree.map(jnp.shape, to_linen_variables(layer, linen.ConvLocal(7, (3, 3)), (4, 5, 2)))
      {'params': {'bias': (4, 5, 7), 'kernel': (4, 5, 18, 7)}}
    """
    shape = check.image_shape(image_shape)
    written = {}
    for path, (call, holder) in _pairs(_called(module, shape), model, shape).items():
        for (kind, name), needed in call.arrays.items():
            array = holder.variables[name][...]
            array = to_linen_local(array) if len(needed) < array.ndim and isinstance(holder.module, Layer) else array
            check.equal_shapes(
                f"the NNX array {name} has shape {{}}", array.shape, f"{name_of((*path, name))} needs {{}}", needed
            )
            written[kind, *path, name] = array
    return traverse_util.unflatten_dict(written)


def _local_window(module: nnx.Module) -> Window | None:
    return module.layout.window if isinstance(module, Layer) and module.layout is not None else None


class _Call(NamedTuple):
    """Hold a Linen module, the shape of its input, and the shapes of its arrays by collection and name."""

    module: linen.Module
    x: tuple[int, ...]
    arrays: dict[tuple[str, str], tuple[int, ...]]


def _flat(variables: Mapping[str, Any]) -> dict[Path, Any]:
    return traverse_util.flatten_dict(linen.unbox(dict(variables)))  # pyright: ignore[reportReturnType]


def _listed(keys: set[Path]) -> str:
    return ", ".join(sorted(map(name_of, keys)))


def _called(module: linen.Module, image_shape: Sequence[int]) -> dict[Path, _Call]:
    """Return the modules inside a Linen module that hold arrays by path, in the order of their calls."""
    if not isinstance(module, linen.Module):
        raise TypeError(f"module must be a Flax Linen module, got {module!r}")
    calls: dict[Path, _Call] = {}

    def record(call, arguments, options, context):
        if context.method_name == "__call__" and arguments:
            calls.setdefault(context.module.path, _Call(context.module, jnp.shape(arguments[0]), {}))
        return call(*arguments, **options)

    modes: dict[str, Any] = {"train": False, "use_running_average": True}
    takes = inspect.signature(type(module).__call__).parameters
    options: dict[str, Any] = {
        name: value for name, value in modes.items() if name in takes and getattr(module, name, None) is None
    }
    with linen.intercept_methods(record):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *image_shape)), **options))
    for (kind, *path, name), leaf in _flat(shapes).items():
        if tuple(path) not in calls:
            raise ValueError(f"{name_of((*path, name))} belongs to no module whose call takes images")
        calls[tuple(path)].arrays[kind, name] = leaf.shape
    return {path: call for path, call in calls.items() if call.arrays}


def _pairs(called: dict[Path, _Call], model: nnx.Module, image_shape: Sequence[int]) -> dict[Path, tuple[_Call, Holder]]:
    """Pair the modules that hold arrays, in the order of their calls."""
    held = holders(model)
    trace = follow(model, image_shape, *{type(holder.module) for holder in held.values()})
    order = [*dict.fromkeys(path for path, _ in trace.calls if path is not None)]
    if missing := held.keys() - {*order}:
        raise ValueError(f"model holds arrays outside the layers that it calls, in {_listed(missing)}")
    if len(order) != len(called):
        raise ValueError(
            f"module and model must call the same layers, but {len(called)} modules hold arrays ({_listed({*called})})"
            f" and {len(order)} NNX modules do ({_listed({*order})})"
        )
    pairs = {path: (call, held[other]) for (path, call), other in zip(called.items(), order, strict=True)}
    for path, (call, holder) in pairs.items():
        names, needed = {*holder.variables}, {name for _, name in call.arrays}
        if names != needed:
            kind = type(holder.module).__name__
            raise ValueError(f"{name_of(path)} has the arrays {sorted(needed)}, but its NNX layer {kind} has {sorted(names)}")
    return pairs


COUNTERPARTS: dict[type[linen.Module], type[nnx.Module]] = {
    linen.Conv: nnx.Conv,
    linen.ConvTranspose: nnx.ConvTranspose,
    linen.Dense: nnx.Linear,
    linen.BatchNorm: nnx.BatchNorm,
    drop_ins.Conv: Conv,
    drop_ins.ConvTranspose: ConvTranspose,
}
LOCAL = (linen.ConvLocal, drop_ins.ConvLocal)
LOCAL_FIELDS = {"features", "mask", "kernel_size", "strides", "padding", "kernel_dilation", "use_bias"}  # those of the layout
UNLIKE = {"promote_dtype"}  # Linen calls it with arrays, NNX with a tuple of arrays
OPTIONS = {"dtype", "param_dtype", "precision", "preferred_element_type", "kernel_init", "bias_init"}


def _built(module: linen.Module, called: dict[Path, _Call]) -> nnx.Module:
    """Build the NNX counterpart of a Linen layer or Sequential, without drawing its arrays."""
    missing: list[str] = []

    def build(inner: Any, path: Path) -> Any:
        if not isinstance(inner, linen.Module):
            return inner
        if isinstance(inner, linen.Sequential):
            return [build(layer, (*path, f"layers_{number}")) for number, layer in enumerate(inner.layers)]
        problem = type(inner).__name__ if path not in called else _problem(inner)
        missing.extend([f"{name_of(path)} ({problem})"] if problem else [])
        return None if problem else _masked(nnx.eval_shape(lambda: _counterpart(inner, called[path].x)), inner)

    def join(built: Any) -> Any:
        return nnx.Sequential(*map(join, built)) if isinstance(built, list) else built

    built = build(module, ())
    if missing:
        raise ValueError(
            f"these modules have no counterpart: {', '.join(missing)}; write the network in NNX and pass it as model="
        )
    return join(built)


def _masked(layer: Any, module: linen.Module) -> nnx.Module:
    """Give a layer the mask of a Linen layer."""
    mask = getattr(module, "mask", None)
    if mask is not None:
        local = isinstance(module, LOCAL)
        layer.mask = nnx.data(from_linen_local(jnp.asarray(mask, float), layer.layout.window) if local else jnp.asarray(mask))
    return layer


def _problem(module: linen.Module) -> str:
    """Describe why a Linen module has no counterpart, or return ""."""
    if isinstance(module, LinenLayer):
        return ""
    kind = type(module)
    if kind in LOCAL:
        known = LOCAL_FIELDS | OPTIONS
    elif kind in COUNTERPARTS:
        known = {"features", *inspect.signature(COUNTERPARTS[kind].__init__).parameters} - UNLIKE
    else:
        return kind.__name__
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name not in {*known, "name", "parent"} and value is not field.default and np.any(value != field.default):
            return f"{kind.__name__} with {field.name}={value!r}"
    return ""


def _counterpart(module: Any, x: tuple[int, ...]) -> nnx.Module:
    """Build the NNX layer of a Linen layer that reads arrays of shape `x`."""
    if isinstance(module, LinenLayer):
        fields, layout = {name for name in OPTIONS if hasattr(module, name)}, layout_of(module, x)
        if layout is None:
            raise ValueError(
                f"module is a {type(module).__name__} that no layout describes (a mask, input dilation or another convolution"
                " function); build the NNX layer yourself and pass it as model"
            )
        return Layer.from_layout(layout, **{n: getattr(module, n) for n in fields}, rngs=nnx.Rngs(0))
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    if isinstance(module, LOCAL):
        ndim = len(values["kernel_size"])
        window = Window(
            *(1 if values[n] is None else values[n] for n in ("kernel_size", "strides", "padding", "kernel_dilation"))
        )
        use_bias = "position" if module.use_bias else False
        layout = Layout(Untied(), window, x[-1], module.features, x[-1 - ndim : -1], use_bias=use_bias)
        return Layer.from_layout(layout, **{n: values[n] for n in OPTIONS if n in values}, rngs=nnx.Rngs(0))
    kind: Any = COUNTERPARTS[type(module)]
    takes = inspect.signature(kind.__init__).parameters
    options = {
        name: value for name, value in values.items() if name in takes and name not in {*UNLIKE, "mask"} and value is not None
    }
    if "num_features" in takes:
        return kind(x[module.axis], **options, rngs=nnx.Rngs(0))
    return kind(x[-1], module.features, **options, rngs=nnx.Rngs(0))
