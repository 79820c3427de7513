"""Costs and receptive fields of a network, layer by layer and exact at borders."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convlab.calls import Call, Path, follow, layout_of, modules_of
from convlab.check import bytes_of
from convlab.layers import Layer
from convlab.measure.receptive_field.extent import fields, layer_inputs_of
from convlab.measure.trace import mark_input, mark_output
from convlab.norm import BatchNorm
from convlab.rungs import Layout


class Cost(NamedTuple):
    """The costs of one layer or of a whole network.

    Attributes:
      name: The path in the network.
      kind: The class of the layer.
      output_shape: The shape of the output for one image. Empty if the layer was not called, or if its calls are not recorded.
      weights: The number of trainable parameters, biases included.
      live_weights: The number of weights that can affect an output. Dead taps, which read only padding at every position, are
        left out.
      multiply_adds: The number of products for one image. Taps on padding, biases and batch norms cost nothing.
      bytes: The bytes of the weights.
      activations: The size of a layer's output for one image, summed over its calls.
      input_bytes: The bytes of a layer's inputs for one image, summed over its calls.
      output_bytes: The bytes of a layer's outputs for one image, summed over its calls.
      receptive_field: The receptive field of one output along each axis of the image, in pixels with padding included. It is
        1 plus the sum over layers of (extent - 1) times the product of earlier strides, and the largest of all branches. It
        is at most the image if the output has no position along that axis. None if it is not known.
      effective_stride: The pixels between the receptive fields of neighbouring outputs, which is the product of the strides.
        None if there are no neighbours, or if it is not known.
      layout: The rung and window of a spatial layer; None for other layers.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    live_weights: int
    multiply_adds: int
    bytes: int
    activations: int
    input_bytes: int
    output_bytes: int
    receptive_field: tuple[int | None, ...] = ()
    effective_stride: tuple[int | None, ...] = ()
    layout: Layout | None = None

    def intensity(self, batch_size: int = 1) -> float:
        r"""Return the arithmetic intensity: multiply-adds per byte moved for one batch.

        $$\frac{n\, m}{b_w + n\, (b_x + b_h)}$$

        Here n is the batch size, m the multiply-adds for one image, and b counts the bytes of weights, inputs and outputs.

        Weights are moved once per batch, and the inputs and outputs of every layer once per image.

        Example:
          >>> cost = count(nnx.Linear(100, 10, use_bias=False, rngs=nnx.Rngs(0)), (100,)).total
          >>> round(cost.intensity(), 2), round(cost.intensity(batch_size=1000), 2)
          (0.23, 2.25)
        """
        moved = self.bytes + batch_size * (self.input_bytes + self.output_bytes)
        return batch_size * self.multiply_adds / moved if moved else 0.0


SUMS = ("weights", "live_weights", "multiply_adds", "bytes", "activations", "input_bytes", "output_bytes")


class Count(NamedTuple):
    """The costs of a network.

    Attributes:
      layers: The costs of every layer, in the order in which the network names them.
      total: The costs of the whole network.
    """

    layers: list[Cost]
    total: Cost


def count(model: nnx.Module, image_shape: Sequence[int]) -> Count:
    r"""Count the weights, multiply-adds and bytes of a network or layer for one image.

    The receptive field of every layer is computed too. Multiply-adds of convlab's layers, `nnx.Conv` and `nnx.Linear` are
    summed over calls. For other layers, and for subclasses with their own `__call__`, only weights are counted. Operations
    that are called as functions are not counted. A low-rank layer counts as r convolutions and their mixture. Shapes and
    receptive fields are those of the last call, and of the first array that the network returns. Nothing is computed, so a
    model of shapes from `nnx.eval_shape` can be counted without being in memory. Flax does not keep the order of names in
    such a model.

    $$\text{multiply-adds of a convolution} = C D \, \#\{\, (i, j, a, b) : (a, b) \text{ reads a pixel at } (i, j) \,\}$$

    for C input and D output channels.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape).
      image_shape: The shape (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images, or holds stacked layers.
      TypeError: `model` is no Flax NNX module, or needs other arguments than images.

    Example:
      >>> from convlab.layers import Conv, Dense
      >>> count(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (7, 7, 1)).total.multiply_adds
      722
      >>> model = nnx.eval_shape(lambda: Dense(1, 1, 3, space=(1000, 1000), use_bias=False, rngs=nnx.Rngs(0)))
      >>> f"{count(model, (1000, 1000, 1)).total.weights:,}"
      '1,000,000,000,000'
    """
    calls, output = _trace(model, image_shape)
    modules, arrays = modules_of(model), _arrays_by_path(model)
    layers = []
    for path in sorted((path for path in modules if arrays[path]), key=lambda path: _definition_order(model, path)):
        module_calls = [call for other, call in calls if other == path]
        layers.append(_cost("/".join(map(str, path)), modules[path], arrays[path], module_calls))
    sums = [sum(getattr(layer, name) for layer in layers) for name in SUMS]
    total = ["total", type(model).__name__, output.h.shape[1:], *sums, output.receptive_field, output.effective_stride, None]
    return Count(layers, Cost._make(total))


class MeasuredCall(NamedTuple):
    """One call of a module.

    Attributes:
      module: The module.
      x: The shape and dtype of its input.
      h: The shape and dtype of its output.
      receptive_field: The receptive field of the output.
      effective_stride: The pixels between the receptive fields of neighbouring outputs.
    """

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct
    receptive_field: tuple[int | None, ...]
    effective_stride: tuple[int | None, ...]


def _trace(model: nnx.Module, image_shape: Sequence[int]) -> tuple[list[tuple[Path, MeasuredCall]], MeasuredCall]:
    """Trace one image through the network.

    The result is the calls of its layers, with their paths, and its own call.
    """
    kinds = (Layer, nnx.Linear, nnx.Conv, nnx.BatchNorm, BatchNorm)
    trace = follow(model, image_shape, *kinds, enter=mark_input, leave=mark_output)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls = [*(call for _, call in trace.calls), Call(model, image, trace.output)]
    measured = [
        MeasuredCall(*call, *extent)
        for call, extent in zip(calls, fields(trace.jaxpr, layer_inputs_of(trace.calls)), strict=True)
    ]
    return [(path, call) for (path, _), call in zip(trace.calls, measured, strict=False)], measured[-1]


def _arrays_by_path(model: nnx.Module) -> dict[tuple, list[Any]]:
    """Return the trained arrays, or their shapes, of every module by path.

    Each array is listed once, for the innermost module that holds it.
    """
    arrays: dict[tuple, list[Any]] = {path: [] for path, _ in nnx.iter_modules(model)}
    for path, value in nnx.iter_graph(model):
        if isinstance(value, nnx.Param):
            owner = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in arrays)
            arrays[owner].append(value.get_value())
    return arrays


def _definition_order(node: Any, path: Sequence[Any]) -> tuple[int, ...]:
    """Return the index of every part of a path in the order of definition.

    Flax itself sorts the names alphabetically.
    """
    indices = []
    for part in path:
        if isinstance(part, int):
            indices.append(part)
            node = node[part]
        else:
            names = node if isinstance(node, Mapping) else vars(node)
            indices.append(list(names).index(part))
            node = names[part]
    return tuple(indices)


def _cost(name: str, module: nnx.Module, arrays: Sequence[Any], calls: Sequence[MeasuredCall]) -> Cost:
    """Count the arrays and calls of one module."""
    weights = live_weights = sum(array.size for array in arrays)
    multiply_adds, layout = 0, layout_of(module)
    for _, x, h, *_ in calls:
        if layout is not None:
            called = dataclasses.replace(layout, space=x.shape[-1 - layout.ndim : -1])
            live_weights = weights - layout.tying.dead(called)
            multiply_adds += layout.tying.multiply_adds(called)
        elif isinstance(module, nnx.Linear):
            multiply_adds += h.size * x.shape[-1]
    return Cost(
        name,
        type(module).__name__,
        calls[-1].h.shape[1:] if calls else (),
        weights,
        live_weights,
        multiply_adds,
        bytes=bytes_of(arrays),
        activations=sum(call.h.size for call in calls),
        input_bytes=sum(bytes_of(call.x) for call in calls),
        output_bytes=sum(bytes_of(call.h) for call in calls),
        receptive_field=calls[-1].receptive_field if calls else (),
        effective_stride=calls[-1].effective_stride if calls else (),
        layout=layout,
    )
