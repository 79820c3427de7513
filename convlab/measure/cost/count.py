"""Costs and receptive fields of a network, layer by layer and exact at borders."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convlab.calls import Call, Path, Trace, follow, layout_of, modules_of
from convlab.check import bytes_of
from convlab.display import fields_html, short_repr
from convlab.layers import Layer
from convlab.measure.cost.columns import cost_table
from convlab.measure.cost.products import Key, Tally, tally
from convlab.measure.receptive_field.extent import fields, layer_inputs_of
from convlab.measure.trace import mark_input, mark_of, mark_output
from convlab.norm import BatchNorm
from convlab.report.results import ResultTable
from convlab.rungs import Layout


class Cost(NamedTuple):
    """The costs of one module or of a whole network.

    Attributes:
      name: The path in the network.
      kind: The class of the module.
      output_shape: The shape of the output for one image. Empty if the module was not called, or if its calls are not recorded.
      weights: The number of trainable parameters, biases included.
      live_weights: The number of weights that can affect an output. Dead taps, which read only padding at every position, are
        left out.
      multiply_adds: The number of multiply-adds for one image. Taps on padding, biases and batch norms cost nothing. The number
        is a lower bound if `unknown` names an operation.
      bytes: The bytes of the weights.
      activations: The number of entries of a layer's output for one image, summed over its calls.
      input_bytes: The bytes of a layer's inputs for one image, summed over its calls.
      output_bytes: The bytes of a layer's outputs for one image, summed over its calls.
      receptive_field: The receptive field of one output along each axis of the image, in pixels with padding included. It is
        1 plus the sum over layers of (extent - 1) times the product of earlier strides. Of several branches, the largest
        counts. It is at most the image if the output has no position along that axis. None if it is not known.
      effective_stride: The number of pixels between the receptive fields of neighbouring outputs: the product of the strides.
        None if there are no neighbours, or if it is not known.
      layout: The rung and window of a spatial layer; None for other modules.
      unknown: The names of the operations whose multiply-adds are not known.
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
    unknown: tuple[str, ...] = ()

    __repr__ = short_repr
    _repr_html_ = fields_html

    def intensity(self, batch_size: int = 1) -> float:
        r"""Return the arithmetic intensity: multiply-adds per byte moved for one batch.

        $$\frac{n\, m}{b_w + n\, (b_x + b_h)}$$

        Here n is the batch size, m the multiply-adds for one image, and b counts the bytes of weights, inputs and outputs.

        Weights are moved once per batch, and the inputs and outputs of every layer once per image. The result is a lower bound
        if multiply-adds are unknown.

        Example:
          >>> cost = count(nnx.Linear(100, 10, use_bias=False, rngs=nnx.Rngs(0)), (100,)).total
          >>> round(cost.intensity(), 2), round(cost.intensity(batch_size=1000), 2)
          (0.23, 2.25)
        """
        moved = self.bytes + batch_size * (self.input_bytes + self.output_bytes)
        return batch_size * self.multiply_adds / moved if moved else 0.0


TRACED = ("multiply_adds", "activations", "input_bytes", "output_bytes")


class Count(NamedTuple):
    """The costs of a network. They print as a table.

    Attributes:
      layers: The costs of every module that has weights or operations of its own, in the order of their first calls. Modules
        that are never called come last.
      total: The costs of the whole network.
    """

    layers: list[Cost]
    total: Cost

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str | None:
        """Return the costs as a table in HTML. Notebooks call it."""
        return self._table()._repr_html_()

    def _table(self) -> ResultTable[dict[str, Any]]:
        return cost_table(f"Count of {self.total.kind}", *self)


def count(model: nnx.Module, image_shape: Sequence[int]) -> Count:
    r"""Count the weights, multiply-adds and bytes of a network or layer for one image.

    Every operation of the traced network counts for the innermost module that calls it. The operations of a plain function
    count for the module that calls the function. Operations inside compiled functions, recomputed blocks, loops and derivatives
    are counted too. A module has a row if it has weights or multiply-adds.

    - Products: those of dot products, convolutions and convlab's layers. Zeros that a convolution inserts as padding, or
      between pixels as `nnx.ConvTranspose` does, are not counted. Elementwise operations, norms and pools count nothing.
    - Convlab's layers: the count of their rung, `Tying.multiply_adds`. It equals that of the operations except for a low-rank
      layer, which counts as r convolutions and their mixture, however it is computed. In derivatives, operations are counted.
    - Loops: the body of a loop of known length counts as often as it runs.
    - Branches: if only one of several branches runs, the cheapest counts.
    - Unknown: branches with different counts, loops of unknown length, decompositions, Fourier transforms, ragged products,
      custom kernels and callbacks are named in `unknown` of their module and of the total. Outputs in a loop of unknown length
      count once.

    Shapes and receptive fields of a module are those of its last call, and those of the network are of the first array that it
    returns. Nothing is computed, so a model of shapes from `nnx.eval_shape` can be counted without being in memory.

    $$\text{multiply-adds of a convolution} = C D \, \#\{\, (i, j, a, b) : (a, b) \text{ reads a pixel at } (i, j) \,\}$$

    Here C and D are the numbers of input and output channels.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape).
      image_shape: The shape (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images.
      TypeError: `model` is no Flax NNX module, or needs other arguments than images.

    Example:
      >>> from convlab.layers import Conv, Dense
      >>> count(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (7, 7, 1)).total.multiply_adds
      722
      >>> model = nnx.eval_shape(lambda: Dense(1, 1, 3, space=(1000, 1000), use_bias=False, rngs=nnx.Rngs(0)))
      >>> f"{count(model, (1000, 1000, 1)).total.weights:,}"
      '1,000,000,000,000'
    """
    modules, arrays = modules_of(model), _arrays_by_path(model)
    trace = follow(model, image_shape, *_layer_kinds(modules, arrays), enter=mark_input, leave=mark_output)
    measured, output = _measure(model, image_shape, trace)
    sums = tally(trace.jaxpr, _Rules(trace))
    layers = [
        _cost(path, modules[path], arrays[path], measured.get(path, []), sums) for path in _rows(model, trace, arrays, sums)
    ]
    total = Cost(
        "total",
        type(model).__name__,
        output.h.shape[1:],
        weights=sum(layer.weights for layer in layers),
        live_weights=sum(layer.live_weights for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
        receptive_field=output.receptive_field,
        effective_stride=output.effective_stride,
        **_traced(sums, None),
    )
    return Count(layers, total)


class MeasuredCall(NamedTuple):
    """One call of a module.

    Attributes:
      module: The module.
      x: The shape and dtype of its input.
      h: The shape and dtype of its output.
      receptive_field: The receptive field of the output.
      effective_stride: The number of pixels between the receptive fields of neighbouring outputs.
    """

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct
    receptive_field: tuple[int | None, ...]
    effective_stride: tuple[int | None, ...]


def _layer_kinds(modules: Mapping[Path, nnx.Module], arrays: Mapping[Path, Sequence[Any]]) -> list[type[nnx.Module]]:
    """Return the classes whose calls are recorded.

    Modules of these classes hold arrays, but no other module with arrays.
    """
    holders = {id(module) for path, module in modules.items() if arrays[path]}
    containers = {
        type(module)
        for module in modules.values()
        if any(id(part) in holders for _, part in nnx.iter_modules(module) if part is not module)
    }
    kinds: dict[type[nnx.Module], None] = dict.fromkeys((Layer, nnx.Linear, nnx.Conv, nnx.BatchNorm, BatchNorm))
    for module in modules.values():
        callers = [kind for kind in type(module).__mro__ if "__call__" in vars(kind)]
        if id(module) in holders and callers and not any(issubclass(kind, callers[0]) for kind in containers):
            kinds[callers[0]] = None
    return [*kinds]


def _measure(
    model: nnx.Module, image_shape: Sequence[int], trace: Trace
) -> tuple[dict[Path | None, list[MeasuredCall]], MeasuredCall]:
    """Compute the receptive fields of all recorded calls, by path, and of the network's own call."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls = [*(call for _, call in trace.calls), Call(model, image, trace.output)]
    *measured, output = [
        MeasuredCall(*call, *extent)
        for call, extent in zip(calls, fields(trace.jaxpr, layer_inputs_of(trace.calls)), strict=True)
    ]
    by_path: dict[Path | None, list[MeasuredCall]] = {}
    for (path, _), call in zip(trace.calls, measured, strict=True):
        by_path.setdefault(path, []).append(call)
    return by_path, output


class _Rules:
    """Assign every equation to a module, and count bytes and the multiply-adds that a rung defines."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.layouts = [_layout_called(call) if isinstance(call.module, Layer) else None for _, call in trace.calls]
        self.running: int | None = None  # the number of the last call that has begun and not ended

    def __call__(self, equation: Any, name_stack: str) -> tuple[Path, Mapping[str, int] | None]:
        """Return the module of an equation and its amounts, or None for the amounts to count its products."""
        path, is_derivative = self.trace.module_of(name_stack), "jvp(" in name_stack
        if (mark := mark_of(equation)) is None:
            by_rung = not is_derivative and self.running is not None and self._counts_by_rung(self.running, path)
            return path, {} if by_rung else None
        (number, side), array = mark, equation.outvars[0].aval
        self.running = number if side == "input" else None
        if side == "input":
            return path, {"input_bytes": bytes_of(array)}
        amounts = {"activations": array.size, "output_bytes": bytes_of(array)}
        if self._counts_by_rung(number, path) and not is_derivative:
            amounts["multiply_adds"] = self._multiply_adds(number, array.size)
        return path, amounts

    def _counts_by_rung(self, number: int, path: Path) -> bool:
        """Return True if a recorded call is that of the layer at a path, counted by its rung."""
        if number >= len(self.layouts):  # the last call began but is not recorded, because its output is no array
            return False
        return self.layouts[number] is not None and self.trace.calls[number][0] == path

    def _multiply_adds(self, number: int, outputs: int) -> int:
        """Return the multiply-adds of a recorded call for all images that its number of outputs makes up."""
        layout, (_, call) = self.layouts[number], self.trace.calls[number]
        assert layout is not None
        images = outputs // max(math.prod(call.h.shape[-1 - layout.ndim :]), 1)
        return images * layout.tying.multiply_adds(layout)


def _layout_called(call: Call | MeasuredCall) -> Layout | None:
    """Return the layout of a spatial layer with the number of pixels in a call."""
    layout = layout_of(call.module, transposed=True)
    if layout is None:
        return None
    images = call.h if layout.transposed else call.x
    return dataclasses.replace(layout, space=images.shape[-1 - layout.ndim : -1])


def _rows(model: nnx.Module, trace: Trace, arrays: Mapping[Path, Sequence[Any]], sums: Tally) -> list[Path]:
    """Return the paths of the modules with arrays or multiply-adds, in the order of their first calls.

    Modules that are never called follow in the order of definition.
    """
    working = {key.owner for key, amount in sums.amounts.items() if amount} | {key.owner for key in sums.unknown}
    paths = {path for path in arrays if arrays[path]} | (working - {None})
    called = [path for path in trace.entered if path in paths]
    return called + sorted(paths.difference(called), key=lambda path: _definition_order(model, path))


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


def _cost(path: Path, module: nnx.Module, arrays: Sequence[Any], calls: Sequence[MeasuredCall], sums: Tally) -> Cost:
    """Count the arrays, calls and operations of one module."""
    weights, dead, last = sum(array.size for array in arrays), 0, calls[-1] if calls else None
    if last is not None and (called := _layout_called(last)) is not None:
        name, *_ = called.tying.arrays
        copies = getattr(module, name).size // math.prod(called.tying.shapes(called)[name])  # of stacked layers
        dead = copies * called.tying.dead(called)
    return Cost(
        "/".join(map(str, path)),
        type(module).__name__,
        last.h.shape[1:] if last else (),
        weights,
        weights - dead,
        bytes=bytes_of(arrays),
        receptive_field=last.receptive_field if last else (),
        effective_stride=last.effective_stride if last else (),
        layout=layout_of(module, transposed=True),
        **_traced(sums, path),
    )


def _traced(sums: Tally, owner: Path | None) -> dict[str, Any]:
    """Return the amounts and unknown operations of a module, or of the whole network for None."""
    unknown = tuple(key.name for key in sums.unknown if key.owner == owner)
    return {name: sums.amounts[Key(owner, name)] for name in TRACED} | {"unknown": unknown}
