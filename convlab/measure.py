"""What a rung costs: weights and multiply-adds, layer by layer, exact at borders."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.geometry import as_axes
from convlab.layers import Layer
from convlab.rungs import Layout


class Cost(NamedTuple):
    """What one layer, or a whole network, costs.

    Attributes:
      name: Path in the network.
      kind: Class of the layer.
      output_shape: Of one image; empty where the layer was not called.
      weights: Trained numbers, biases included.
      live: Of these, how many can ever matter: kernel entries that read only padding are left out.
      multiply_adds: Products for one image; a tap on padding, a bias and a batch norm cost nothing.
      bytes: Of the weights.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    live: int
    multiply_adds: int
    bytes: int


class Count(NamedTuple):
    """Costs per layer and in total."""

    layers: list[Cost]
    total: Cost


def count(model: nnx.Module, image_shape: Sequence[int]) -> Count:
    """Count weights and multiply-adds of a network, or of a single layer, on one image.

    Multiply-adds are those of convlab's layers and of `nnx.Linear`, added up over calls; other layers count their weights.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape).
      image_shape: (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images.

    Example:
      >>> from convlab.layers import Conv
      >>> count(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (7, 7, 1)).total.multiply_adds
      722
    """
    model = nnx.clone(model)
    model.eval()
    with _recorded(Layer, nnx.Linear) as calls:
        output = jax.eval_shape(model, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    rows = [_cost("/".join(map(str, path)), module, calls) for path, module in nnx.iter_modules(model)]
    rows = sorted((row for row in rows if row.weights), key=lambda row: row.name)
    sums = [sum(getattr(row, name) for row in rows) for name in ("weights", "live", "multiply_adds", "bytes")]
    return Count(rows, Cost("total", type(model).__name__, output.shape[1:], *sums))


Calls = list[tuple[nnx.Module, tuple[int, ...], tuple[int, ...]]]


@contextlib.contextmanager
def _recorded(*kinds: type[nnx.Module]) -> Iterator[Calls]:
    """Note every call of modules of these kinds: the module, the shape of its input and of its output."""
    calls, originals = [], {kind: kind.__call__ for kind in kinds}

    def recording(original):
        def call(self, x, *rest, **named):
            h = original(self, x, *rest, **named)
            calls.append((self, x.shape, h.shape))
            return h

        return call

    try:
        for kind, original in originals.items():
            kind.__call__ = recording(original)
        yield calls
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def _cost(name: str, module: nnx.Module, calls: Calls) -> Cost:
    """Count one module's own arrays, without those of the modules inside it, and its calls."""
    own = [value[...] for value in vars(module).values() if isinstance(value, nnx.Param)]
    weights = live = sum(array.size for array in own)
    shape, multiply_adds = (), 0
    for caller, x, h in calls:
        if caller is module:
            shape, positions = h[1:], math.prod(h[:-1])
            if isinstance(module, Layer):
                dead, products = _layer_cost(module.layout, x[-1 - (module.layout.window.rank or 0) : -1])
                live, multiply_adds = weights - dead, multiply_adds + products
            else:
                multiply_adds += positions * x[-1] * h[-1]
    return Cost(name, type(module).__name__, shape, weights, live, multiply_adds, sum(array.nbytes for array in own))


def _layer_cost(layout: Layout, space: tuple[int, ...]) -> tuple[int, int]:
    """Count the dead entries of a layer's kernels, and its products for one image of `space` pixels."""
    c, d = layout.kernel[-2:]
    dead, products = ENTRIES[layout.rung](layout, layout.window.live(space), space)
    mixing = math.prod(layout.positions) * (layout.rank or 1) * d if layout.rung == "low_rank" else 0
    return dead * c * d, products * c * d + mixing


def _dense(layout: Layout, live: np.ndarray, space: tuple[int, ...]) -> tuple[int, int]:
    return 0, math.prod(layout.positions) * math.prod(space)


def _local(layout: Layout, live: np.ndarray, space: tuple[int, ...]) -> tuple[int, int]:
    return int((~live).sum()), int(live.sum())


def _conv(layout: Layout, live: np.ndarray, space: tuple[int, ...]) -> tuple[int, int]:
    return _never(live, space), int(live.sum())


def _tiled(layout: Layout, live: np.ndarray, space: tuple[int, ...]) -> tuple[int, int]:
    period = as_axes("period", layout.period or 1, len(space))
    places = [tuple(slice(t, None, p) for t, p in zip(tile, period, strict=True)) for tile in np.ndindex(*period)]
    return sum(_never(live[place], space) for place in places), int(live.sum())


def _low_rank(layout: Layout, live: np.ndarray, space: tuple[int, ...]) -> tuple[int, int]:
    return (layout.rank or 1) * _never(live, space), (layout.rank or 1) * int(live.sum())


def _never(live: np.ndarray, space: tuple[int, ...]) -> int:
    """Number of taps that are live nowhere."""
    return int((~live.any(tuple(range(len(space))))).sum())


# rung -> dead entries, and products without the mixing of low rank, of one pair of channels
Entries = Callable[[Layout, np.ndarray, tuple[int, ...]], tuple[int, int]]
ENTRIES: dict[str, Entries] = {
    "dense": _dense,
    "locally_connected": _local,
    "tiled": _tiled,
    "low_rank": _low_rank,
    "conv": _conv,
}
