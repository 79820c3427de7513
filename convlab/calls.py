"""What a network does with one image: which modules it calls, on what shapes, and which of them are convolutions."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.layers import Layer
from convlab.rungs import Layout, lay_window

Path = tuple[Any, ...]  # names and numbers that lead to a module


class Call(NamedTuple):
    """One call of a module: its path in the network, and the shapes of what it got and returned, with one image."""

    path: Path
    module: nnx.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def calls(model: nnx.Module, image_shape: Sequence[int], *kinds: type[nnx.Module]) -> tuple[list[Call], tuple[int, ...]]:
    """Follow one image through a network in evaluation mode, without computing anything.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape); left as it is.
      image_shape: (*space, c) of one image.
      kinds: Which modules are noted.

    Returns:
      The calls in their order, and the shape of the network's output.

    Raises:
      ValueError: The model does not take such images.

    Example:
      >>> [call], _ = calls(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), (5, 7, 3), nnx.Linear)
      >>> call.path, call.output_shape
      (('layers', 0), (1, 5, 7, 2))
    """
    model = nnx.clone(model)
    model.eval()
    with _noted(*kinds) as noted:
        output = jax.eval_shape(model, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    paths = {id(module): path for path, module in nnx.iter_modules(model)}
    return [Call(paths[id(module)], module, *shapes) for module, *shapes in noted], output.shape


@contextlib.contextmanager
def _noted(*kinds: type[nnx.Module]) -> Iterator[list[tuple]]:
    """Note every call of modules of these kinds: the module, the shape of its input and of its output."""
    noted, originals = [], {kind: kind.__call__ for kind in kinds}

    def noting(original):
        def call(self, *given, **named):
            h = original(self, *given, **named)
            x, *_ = (*given, *named.values())
            noted.append((self, x.shape, h.shape))
            return h

        return call

    try:
        for kind, original in originals.items():
            kind.__call__ = noting(original)
        yield noted
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def layout_of(module: nnx.Module) -> Layout | None:
    """Rung and window of a spatial layer; None for all else, also for Flax's convolutions of images spread with zeros."""
    if isinstance(module, Layer):
        return module.layout
    if not isinstance(module, nnx.Conv) or np.any(np.array(module.input_dilation or 1) > 1):
        return None
    window = lay_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    features, groups = (module.in_features, module.out_features), module.feature_group_count
    return Layout("conv", window, *features, groups=groups, use_bias=module.bias is not None)
