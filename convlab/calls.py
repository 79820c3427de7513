"""Traces of a network on one image: the modules that it calls, their shapes, and their layouts."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Jaxpr

from convlab import check
from convlab.layers import Layer
from convlab.rungs import Layout, Shared, make_window

Path = tuple[Any, ...]  # the attribute names and indices that lead to a module
Mark = Callable[[int, jax.Array], jax.Array]  # takes the number of a call and an array, and returns the array to use


class Call(NamedTuple):
    """Record one call of a module: the shapes and dtypes of its input and output.

    Attributes:
      module: The module.
      x: The shape and dtype of the input.
      h: The shape and dtype of the output.
    """

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct


class Trace(NamedTuple):
    """Record what a network computes from one image.

    Attributes:
      calls: The calls with the paths of their modules, in order.
      output: The shape and dtype of the network's first output array.
      jaxpr: The operations.
    """

    calls: list[tuple[Path, Call]]
    output: jax.ShapeDtypeStruct
    jaxpr: Jaxpr


def _unchanged(number: int, array: jax.Array) -> jax.Array:
    return array


@contextlib.contextmanager
def recorded(*kinds: type[nnx.Module], enter: Mark = _unchanged, leave: Mark = _unchanged) -> Iterator[list[Call]]:
    """Record every call of modules of the given classes, except calls nested in such calls.

    Args:
      kinds: The classes of modules to record.
      enter: A function of the number of a call and its input, which returns the input to use.
      leave: A function of the number of a call and its output, which returns the output to use.

    Example:
      >>> layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> with recorded(nnx.Linear) as calls:
      ...     _ = layer(jnp.ones((5, 3)))
      >>> calls[0].h.shape
      (5, 2)
    """
    calls, inside, originals = [], [], {kind: kind.__call__ for kind in kinds}

    def recording(original):
        def call(self, *args, **kwargs):
            if inside:
                return original(self, *args, **kwargs)
            bound = inspect.signature(original).bind(self, *args, **kwargs)
            _, first, *_ = bound.arguments
            x = bound.arguments[first] = enter(len(calls), jnp.asarray(bound.arguments[first]))
            inside.append(self)
            try:
                h = leave(len(calls), original(*bound.args, **bound.kwargs))
            except (TypeError, ValueError) as error:
                setattr(error, PATH_ATTRIBUTE, getattr(self, PATH_ATTRIBUTE, None))
                raise
            calls.append(Call(inside.pop(), _shape_of(x), _shape_of(h)))
            return h

        return call

    try:
        for kind, original in originals.items():
            kind.__call__ = recording(original)
        yield calls
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def _shape_of(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


PATH_ATTRIBUTE = "_convlab_path"


class _PathTag:
    """Hold the path of a module as one of its attributes, which survives transforms that copy the module.

    Two tags never compare equal, so that JAX reuses no compiled function from its cache.
    """

    def __init__(self, path: Path):
        self.path = path


def follow(
    model: nnx.Module, image_shape: Sequence[int], *kinds: type[nnx.Module], enter: Mark = _unchanged, leave: Mark = _unchanged
) -> Trace:
    """Trace one image through a network in evaluation mode, without computing anything.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape). It is not changed, even if it writes to itself.
      image_shape: The shape (*space, c) of one image.
      kinds: The classes of modules to record.
      enter: A function of the number of a call and its input, as in `recorded`.
      leave: A function of the number of a call and its output, as in `recorded`.

    Raises:
      ValueError: The model does not accept such images, or contains stacked layers.
      TypeError: The model is not a Flax NNX module, or requires more arguments than images. Or `image_shape` is not a sequence
        of integers.

    Example:
      >>> [(path, call)] = follow(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), (5, 7, 3), nnx.Linear).calls
      >>> path, call.h.shape
      (('layers', 0), (1, 5, 7, 2))
    """
    modules_of(model)
    image = jax.ShapeDtypeStruct((1, *check.image_shape(image_shape)), jnp.float32)
    _check_takes_images(model, image)
    model = nnx.clone(model)
    model.eval()
    for path, module in modules_of(model).items():
        if isinstance(module, (Layer, nnx.Conv, nnx.Linear)):
            _check_not_stacked(path, module)
        if isinstance(module, kinds):
            setattr(module, PATH_ATTRIBUTE, _PathTag(path))
    definition, state = nnx.split(model)
    run = jax.make_jaxpr(lambda state, x: nnx.merge(definition, state)(x), return_shape=True)
    try:
        with recorded(*kinds, enter=enter, leave=leave) as calls:
            traced, output = run(state, image)
    except (TypeError, ValueError) as error:
        tag = getattr(error, PATH_ATTRIBUTE, None)
        where = "" if tag is None else f"{name_of(tag.path)}: "
        raise ValueError(f"image_shape {image.shape[1:]} does not fit {type(model).__name__}: {where}{error}") from error
    first = next(iter(jax.tree.leaves(output)), jax.ShapeDtypeStruct((), jnp.float32))
    return Trace([(getattr(call.module, PATH_ATTRIBUTE).path, call) for call in calls], first, traced.jaxpr)


def modules_of(model: nnx.Module) -> dict[Path, nnx.Module]:
    """Return all modules of a network by path, including the network itself. Shared modules occur once.

    Raises:
      TypeError: The model is not a Flax NNX module.
    """
    if not isinstance(model, nnx.Module):
        kind = type(model).__name__
        raise TypeError(f"model must be a Flax NNX module, got {kind}; convlab.surgery.transfer_variables is for Linen modules")
    return {tuple(path): module for path, module in nnx.iter_modules(model)}


def _check_takes_images(model: nnx.Module, image: jax.ShapeDtypeStruct) -> None:
    """Raise TypeError unless the model can be called with images alone."""
    kind = type(model)
    try:
        inspect.signature(kind.__call__).bind(model, image)
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__} must be callable with images alone ({error}): give its other arguments a default,"
            " or wrap it in a module that does"
        ) from None


def _check_not_stacked(path: Path, module: Any) -> None:
    """Raise ValueError if a module holds the stacked arrays of several layers, as `nnx.vmap` makes."""
    layout, name, axes = layout_of(module), "kernel", 2
    if layout is not None:
        name, *_ = layout.tying.arrays
        axes = len(layout.tying.shapes(layout)[name])
    shape = jnp.shape(getattr(module, name)) if isinstance(module, nnx.Linear) or layout is not None else ()
    if shape and len(shape) != axes:
        raise ValueError(
            f"{name_of(path)} holds stacked layers, as nnx.vmap and nnx.scan make: its {name} has shape {shape}, but one"
            f" layer's has {axes} axes; hold the layers in an nnx.List"
        )


def name_of(path: Path) -> str:
    """Join the parts of a path with slashes."""
    return "/".join(map(str, path)) or "the model"


def is_stock(module: nnx.Module) -> bool:
    """Return True if a spatial layer has the call and the convolution of its own class."""
    kind = Layer if isinstance(module, Layer) else nnx.Conv
    convolution = getattr(module, "conv_general_dilated", jax.lax.conv_general_dilated)
    return type(module).__call__ is kind.__call__ and convolution is jax.lax.conv_general_dilated


def layout_of(module: nnx.Module) -> Layout | None:
    """Return the layout of a spatial layer, or None for any other module.

    It is also None for subclasses that override the call, and for Flax convolutions with input dilation.
    """
    if not isinstance(module, (Layer, nnx.Conv)) or not is_stock(module):
        return None
    if isinstance(module, Layer):
        return module.layout
    if np.any(np.array(module.input_dilation or 1) > 1):
        return None
    window = make_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    features, groups = (module.in_features, module.out_features), module.feature_group_count
    return Layout(Shared(), window, *features, groups=groups, use_bias=module.bias is not None)
