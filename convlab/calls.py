"""What a network does with one image: which modules it calls, on what shapes, and which of them are convolutions."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Jaxpr

from convlab.layers import Layer
from convlab.rungs import Layout, Shared, lay_window

Path = tuple[Any, ...]  # names and numbers that lead to a module
Mark = Callable[[int, jax.Array], jax.Array]  # of the number of a call, and an array that goes in or comes out


class Call(NamedTuple):
    """A call of a module: shapes and dtypes of what went in and came out."""

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct


class Trace(NamedTuple):
    """What a network did with one image: its calls, with their paths, its first result, and its operations."""

    calls: list[tuple[Path, Call]]
    output: jax.ShapeDtypeStruct
    jaxpr: Jaxpr


def _as_it_is(number: int, array: jax.Array) -> jax.Array:
    return array


@contextlib.contextmanager
def recorded(*kinds: type[nnx.Module], enter: Mark = _as_it_is, leave: Mark = _as_it_is) -> Iterator[list[Call]]:
    """Note every call of modules of these kinds, without calls inside such calls.

    Args:
      kinds: Which modules.
      enter: Marks what goes into a call, by its number.
      leave: Marks what comes out.

    Example:
      >>> layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> with recorded(nnx.Linear) as calls:
      ...     _ = layer(jnp.ones((5, 3)))
      >>> calls[0].h.shape
      (5, 2)
    """
    calls, inside, originals = [], [], {kind: kind.__call__ for kind in kinds}

    def recording(original):
        def call(self, *given, **named):
            if inside:
                return original(self, *given, **named)
            bound = inspect.signature(original).bind(self, *given, **named)
            _, first, *_ = bound.arguments
            x = bound.arguments[first] = enter(len(calls), jnp.asarray(bound.arguments[first]))
            inside.append(self)
            h = leave(len(calls), original(*bound.args, **bound.kwargs))
            calls.append(Call(inside.pop(), _form(x), _form(h)))
            return h

        return call

    try:
        for kind, original in originals.items():
            kind.__call__ = recording(original)
        yield calls
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def _form(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


PLACE = "_convlab_place"


class _Place:
    """Where a module stands, which it says itself, as transforms make new modules of it; equal to no other, so never cached."""

    def __init__(self, path: Path):
        self.path = path


def follow(
    model: nnx.Module, image_shape: Sequence[int], *kinds: type[nnx.Module], enter: Mark = _as_it_is, leave: Mark = _as_it_is
) -> Trace:
    """Follow one image through a network in evaluation mode, without computing anything.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape); left as it is, whatever it writes into itself.
      image_shape: (*space, c) of one image.
      kinds: Which modules are noted.
      enter: Marks what goes into a call, by its number.
      leave: Marks what comes out.

    Raises:
      ValueError: The model does not take such images, or holds layers that are stacked.
      TypeError: It is no Flax NNX module, or needs more than images.

    Example:
      >>> [(path, call)] = follow(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), (5, 7, 3), nnx.Linear).calls
      >>> path, call.h.shape
      (('layers', 0), (1, 5, 7, 2))
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    modules_of(model)
    _takes_images(model, image)
    model = nnx.clone(model)
    model.eval()
    for path, module in modules_of(model).items():
        if isinstance(module, (Layer, nnx.Conv, nnx.Linear)):
            _stands_alone(path, module)
        if isinstance(module, kinds):
            setattr(module, PLACE, _Place(path))
    definition, state = nnx.split(model)
    run = jax.make_jaxpr(lambda state, x: nnx.merge(definition, state)(x), return_shape=True)
    try:
        with recorded(*kinds, enter=enter, leave=leave) as calls:
            traced, output = run(state, image)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{type(model).__name__} does not take images of {image.shape}: {error}") from error
    first = next(iter(jax.tree.leaves(output)), jax.ShapeDtypeStruct((), jnp.float32))
    return Trace([(getattr(call.module, PLACE).path, call) for call in calls], first, traced.jaxpr)


def modules_of(model: nnx.Module) -> dict[Path, nnx.Module]:
    """The modules that a network holds, itself among them, by path; a shared one once.

    Raises:
      TypeError: It is no Flax NNX module.
    """
    if not isinstance(model, nnx.Module):
        kind = type(model).__name__
        raise TypeError(f"needs a Flax NNX module, got {kind}; for a Linen module there is convlab.relax.transfer_variables")
    return {tuple(path): module for path, module in nnx.iter_modules(model)}


def _takes_images(model: nnx.Module, image: jax.ShapeDtypeStruct) -> None:
    """Raise TypeError unless the model can be called with images alone."""
    kind = type(model)
    try:
        inspect.signature(kind.__call__).bind(model, image)
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__} must be callable with images alone ({error}): give its other arguments a default,"
            " or call it in a module that does"
        ) from None


def _stands_alone(path: Path, module: Any) -> None:
    """Raise ValueError where the arrays of several layers lie in one, which only a transform can call."""
    layout, name, axes = layout_of(module), "kernel", 2
    if layout is not None:
        name, *_ = layout.tying.arrays
        axes = len(layout.tying.shapes(layout)[name])
    shape = jnp.shape(getattr(module, name)) if isinstance(module, nnx.Linear) or layout is not None else ()
    if shape and len(shape) != axes:
        raise ValueError(
            f"{name_of(path)} is of stacked layers (as by nnx.vmap or nnx.scan): its {name} has shape {shape}, one layer's has"
            f" {axes} axes; hold the layers in an nnx.List"
        )


def name_of(path: Path) -> str:
    """Write a path as its parts, divided by strokes."""
    return "/".join(map(str, path)) or "the model"


def is_stock(module: nnx.Module) -> bool:
    """Whether a spatial layer computes what its class says: a subclass may do anything in a call of its own."""
    kind = Layer if isinstance(module, Layer) else nnx.Conv
    convolution = getattr(module, "conv_general_dilated", jax.lax.conv_general_dilated)
    return type(module).__call__ is kind.__call__ and convolution is jax.lax.conv_general_dilated


def layout_of(module: nnx.Module) -> Layout | None:
    """Rung and window of a spatial layer; None for all else.

    Also for subclasses with a call of their own, and for Flax's convolutions of images spread with zeros.
    """
    if not isinstance(module, (Layer, nnx.Conv)) or not is_stock(module):
        return None
    if isinstance(module, Layer):
        return module.layout
    if np.any(np.array(module.input_dilation or 1) > 1):
        return None
    window = lay_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    features, groups = (module.in_features, module.out_features), module.feature_group_count
    return Layout(Shared(), window, *features, groups=groups, use_bias=module.bias is not None)
