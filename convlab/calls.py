"""What a network does with one image: which modules it calls, on what shapes, and which of them are convolutions."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.layers import Layer
from convlab.rungs import Layout, lay_window

Path = tuple[Any, ...]  # names and numbers that lead to a module
Mark = Callable[[int, jax.Array], jax.Array]  # of the number of a call, and an array that goes in or comes out


class Call(NamedTuple):
    """A call of a module: shapes and dtypes of what went in and came out."""

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct


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


def follow(model: nnx.Module, image_shape: Sequence[int], *kinds: type[nnx.Module]) -> list[tuple[Path, Call]]:
    """Follow one image through a network in evaluation mode, without computing anything: its calls, with their paths.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape); left as it is.
      image_shape: (*space, c) of one image.
      kinds: Which modules are noted.

    Raises:
      ValueError: The model does not take such images.

    Example:
      >>> [(path, call)] = follow(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), (5, 7, 3), nnx.Linear)
      >>> path, call.h.shape
      (('layers', 0), (1, 5, 7, 2))
    """
    model = nnx.clone(model)
    model.eval()
    with recorded(*kinds) as calls:
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    paths = {id(module): path for path, module in nnx.iter_modules(model)}
    return [(paths[id(call.module)], call) for call in calls]


def layout_of(module: nnx.Module) -> Layout | None:
    """Rung and window of a spatial layer; None for all else, also for Flax's convolutions of images spread with zeros."""
    if isinstance(module, Layer):
        return module.layout
    if not isinstance(module, nnx.Conv) or np.any(np.array(module.input_dilation or 1) > 1):
        return None
    window = lay_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    features, groups = (module.in_features, module.out_features), module.feature_group_count
    return Layout("conv", window, *features, groups=groups, use_bias=module.bias is not None)
