"""What a rung costs: weights, multiply-adds and bytes, layer by layer, exact at borders; and what each layer sees."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convlab.calls import Call, Path, follow, layout_of, modules_of
from convlab.check import bytes_of
from convlab.layers import Layer
from convlab.measure.receptive_field import extent as field
from convlab.measure.trace import entering, leaving
from convlab.norm import BatchNorm
from convlab.rungs import Layout


class Cost(NamedTuple):
    """What one layer, or a whole network, costs.

    Attributes:
      name: Path in the network.
      kind: Class of the layer.
      output_shape: Of one image; empty where the layer was not called, or is none of those that are followed.
      weights: Trained numbers, biases included.
      live: Of these, how many can ever matter: kernel entries that read only padding are left out.
      multiply_adds: Products for one image; a tap on padding, a bias and a batch norm cost nothing.
      bytes: Of the weights.
      activations: Numbers that a layer returns for one image, added up over its calls.
      input_bytes: Of what it is given for one image, likewise.
      output_bytes: Of what it returns, likewise.
      field: Pixels that one output sees along each axis of the image, padding included: the receptive field
        1 + sum over layers of (extent - 1) times the strides before, the largest of all branches. At most the image where the
        output has no position along that axis; None where it is not known.
      jump: Pixels between what neighbouring outputs see; None without neighbours, or where it is not known.
      layout: Rung and window, of spatial layers.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    live: int
    multiply_adds: int
    bytes: int
    activations: int
    input_bytes: int
    output_bytes: int
    field: tuple[int | None, ...] = ()
    jump: tuple[int | None, ...] = ()
    layout: Layout | None = None

    def intensity(self, batch_size: int = 1) -> float:
        """Multiply-adds per byte moved for one batch: weights once, what every layer is given and returns for every image.

        Example:
          >>> cost = count(nnx.Linear(100, 10, use_bias=False, rngs=nnx.Rngs(0)), (100,)).total
          >>> round(cost.intensity(), 2), round(cost.intensity(batch_size=1000), 2)
          (0.23, 2.25)
        """
        moved = self.bytes + batch_size * (self.input_bytes + self.output_bytes)
        return batch_size * self.multiply_adds / moved if moved else 0.0


SUMS = ("weights", "live", "multiply_adds", "bytes", "activations", "input_bytes", "output_bytes")


class Count(NamedTuple):
    """Costs per layer, in the order in which the network names them, and in total."""

    layers: list[Cost]
    total: Cost


def count(model: nnx.Module, image_shape: Sequence[int]) -> Count:
    """Count weights, multiply-adds and bytes of a network, or of a single layer, on one image, and find what each layer sees.

    Multiply-adds are those of convlab's layers, `nnx.Conv` and `nnx.Linear`, added up over calls; other layers count their
    weights only (subclasses with a call of their own, too), and ops that a network calls as functions nothing. A low-rank
    layer counts as r convolutions and their mixture. Shapes and fields are those of the last call, and of the first array
    that the network returns. Nothing is computed: a model of shapes only, from `nnx.eval_shape`, is counted without ever
    being in memory, though Flax forgets in which order it was named.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape).
      image_shape: (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images, or holds layers that are stacked.
      TypeError: `model` is no Flax NNX module, or needs more than images.

    Example:
      >>> from convlab.layers import Conv, Dense
      >>> count(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (7, 7, 1)).total.multiply_adds
      722
      >>> model = nnx.eval_shape(lambda: Dense(1, 1, 3, space=(1000, 1000), use_bias=False, rngs=nnx.Rngs(0)))
      >>> f"{count(model, (1000, 1000, 1)).total.weights:,}"
      '1,000,000,000,000'
    """
    calls, output = _trace(model, image_shape)
    modules, own = modules_of(model), _own(model)
    layers = []
    for path in sorted((path for path in modules if own[path]), key=lambda path: _place(model, path)):
        its_calls = [call for called, call in calls if called == path]
        layers.append(_cost("/".join(map(str, path)), modules[path], own[path], its_calls))
    sums = [sum(getattr(layer, name) for layer in layers) for name in SUMS]
    total = ["total", type(model).__name__, output.h.shape[1:], *sums, output.field, output.jump, None]
    return Count(layers, Cost._make(total))


class Seen(NamedTuple):
    """What one call of a module is given and returns, and what of the image that sees."""

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct
    field: tuple[int | None, ...]
    jump: tuple[int | None, ...]


def _trace(model: nnx.Module, image_shape: Sequence[int]) -> tuple[list[tuple[Path, Seen]], Seen]:
    """Follow one image through the network: the calls of its layers, with their paths, and that of itself."""
    kinds = (Layer, nnx.Linear, nnx.Conv, nnx.BatchNorm, BatchNorm)
    trace = follow(model, image_shape, *kinds, enter=entering, leave=leaving)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls = [*(call for _, call in trace.calls), Call(model, image, trace.output)]
    seen = [
        Seen(*call, *found) for call, found in zip(calls, field.fields(trace.jaxpr, field.entries(trace.calls)), strict=True)
    ]
    return [(path, call) for (path, _), call in zip(trace.calls, seen, strict=False)], seen[-1]


def _own(model: nnx.Module) -> dict[tuple, list[Any]]:
    """The trained arrays, or their shapes, of every module by its path, without those of the modules inside it; each once."""
    own: dict[tuple, list[Any]] = {path: [] for path, _ in nnx.iter_modules(model)}
    for path, value in nnx.iter_graph(model):
        if isinstance(value, nnx.Param):
            owner = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in own)
            own[owner].append(value.get_value())
    return own


def _place(node: Any, path: Sequence[Any]) -> tuple[int, ...]:
    """Where a path leads, by the order in which things were named: Flax itself sorts them by their letters."""
    places = []
    for part in path:
        if isinstance(part, int):
            places.append(part)
            node = node[part]
        else:
            names = node if isinstance(node, Mapping) else vars(node)
            places.append(list(names).index(part))
            node = names[part]
    return tuple(places)


def _cost(name: str, module: nnx.Module, own: Sequence[Any], calls: Sequence[Seen]) -> Cost:
    """Count one module's own arrays and its calls."""
    weights = live = sum(array.size for array in own)
    multiply_adds, layout = 0, layout_of(module)
    for _, x, h, *_ in calls:
        if layout is not None:
            called = dataclasses.replace(layout, space=x.shape[-1 - layout.ndim : -1])
            live, multiply_adds = weights - layout.tying.dead(called), multiply_adds + layout.tying.multiply_adds(called)
        elif isinstance(module, nnx.Linear):
            multiply_adds += h.size * x.shape[-1]
    return Cost(
        name,
        type(module).__name__,
        calls[-1].h.shape[1:] if calls else (),
        weights,
        live,
        multiply_adds,
        bytes=bytes_of(own),
        activations=sum(call.h.size for call in calls),
        input_bytes=sum(bytes_of(call.x) for call in calls),
        output_bytes=sum(bytes_of(call.h) for call in calls),
        field=calls[-1].field if calls else (),
        jump=calls[-1].jump if calls else (),
        layout=layout,
    )
