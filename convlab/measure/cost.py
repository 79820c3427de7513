"""What a rung costs: weights and multiply-adds, layer by layer, exact at borders."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab.geometry import Window, as_axes
from convlab.layers import Layer
from convlab.norm import BatchNorm
from convlab.report.table import print_table, to_table
from convlab.rungs import Layout, lay_window


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
      layout: Rung and window, of spatial layers.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    live: int
    multiply_adds: int
    bytes: int
    layout: Layout | None = None


class Count(NamedTuple):
    """Costs per layer, in the order in which the network names them, and in total."""

    layers: list[Cost]
    total: Cost


def count(model: nnx.Module, image_shape: Sequence[int]) -> Count:
    """Count weights and multiply-adds of a network, or of a single layer, on one image.

    Multiply-adds are those of convlab's layers, `nnx.Conv` and `nnx.Linear`, added up over calls; other layers count their
    weights only.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape). One of shapes only (`nnx.eval_shape`) costs the same, but
        Flax has forgotten the order of its names.
      image_shape: (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images.

    Example:
      >>> from convlab.layers import Conv
      >>> count(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (7, 7, 1)).total.multiply_adds
      722
    """
    definition, state = nnx.split(model)
    clones = []

    def called(state: nnx.State, x: jax.Array) -> jax.Array:
        clone = nnx.merge(definition, state)
        clone.eval()
        clones.append(clone)
        return clone(x)

    with _recorded(Layer, nnx.Linear, nnx.Conv, nnx.BatchNorm, BatchNorm) as calls:
        output = jax.eval_shape(called, state, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    modules, arrays = dict(nnx.iter_modules(clones[-1])), _own(model)
    paths = sorted((path for path in modules if arrays[path]), key=lambda path: _place(model, path))
    rows = [_cost("/".join(map(str, path)), modules[path], arrays[path], calls) for path in paths]
    total = [sum(getattr(row, name) for row in rows) for name in ("weights", "live", "multiply_adds", "bytes")]
    return Count(rows, Cost._make(["total", type(model).__name__, output.shape[1:], *total, None]))


def summary(model: nnx.Module, image_shape: Sequence[int]) -> None:
    """Print what each layer of a network is, reads, returns and costs on one image, and what all cost together.

    Args:
      model: As in `count`.
      image_shape: (*space, c) of one image.

    Raises:
      ValueError: The model does not take such images.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(8, 6), rngs=nnx.Rngs(0))
      >>> summary(nnx.Sequential(layer, nnx.relu), (8, 6, 1))  # doctest: +NORMALIZE_WHITESPACE
                                           Sequential on 8x6x1
      ┏━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━┓
      ┃ layer    ┃ kind             ┃ window    ┃ output ┃ weights ┃  live ┃ multiply adds ┃ bytes ┃
      ┡━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━┩
      │ layers/0 │ LocallyConnected │ 3x3, SAME │ 8x6x4  │   1,920 │ 1,600 │         1,408 │ 7,680 │
      ├──────────┼──────────────────┼───────────┼────────┼─────────┼───────┼───────────────┼───────┤
      │ total    │ Sequential       │           │ 8x6x4  │   1,920 │ 1,600 │         1,408 │ 7,680 │
      └──────────┴──────────────────┴───────────┴────────┴─────────┴───────┴───────────────┴───────┘
    """
    layers, total = count(model, image_shape)
    rows = [_row(cost) for cost in (*layers, total)]
    print_table(f"{total.kind} on {_sizes(image_shape)}", to_table(rows), total=True)


def _row(cost: Cost) -> dict[str, Any]:
    layout = cost.layout
    return {
        "layer": cost.name,
        "kind": cost.kind if layout is None else _kind(cost.kind, layout),
        "window": None if layout is None or layout.rung == "dense" else _window(layout.window),
        "output": _sizes(cost.output_shape),
        "weights": cost.weights,
        "live": cost.live,
        "multiply_adds": cost.multiply_adds or None,
        "bytes": cost.bytes,
    }


def _kind(kind: str, layout: Layout) -> str:
    period = "" if layout.period is None else f", period {_sizes(as_axes('period', layout.period, len(layout.kernel) - 2))}"
    rank = "" if layout.rank is None else f", rank {layout.rank}"
    return f"{kind}{period}{rank}" + f", {layout.groups} groups" * (layout.groups > 1)


def _window(window: Window) -> str:
    """Write a window: its size, what is not usual about it, and its padding."""
    rank = window.rank or 1
    strides, dilation = (as_axes(name, getattr(window, name), rank) for name in ("strides", "dilation"))
    moved = f", stride {_sizes(strides)}" * (max(strides) > 1) + f", dilation {_sizes(dilation)}" * (max(dilation) > 1)
    return f"{_sizes(window.taps(rank))}{moved}, {_padding(window.padding)}"


def _padding(padding: Any) -> str:
    if isinstance(padding, str):
        return padding
    low, high = zip(*padding, strict=True)
    return f"padding {_sizes(low)}" + f" below, {_sizes(high)} above" * (low != high)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _own(model: nnx.Module) -> dict[tuple, list[nnx.Param]]:
    """The trained arrays of every module, by its path, without those of the modules inside it; each array once."""
    own: dict[tuple, list[nnx.Param]] = {path: [] for path, _ in nnx.iter_modules(model)}
    for path, value in nnx.iter_graph(model):
        if isinstance(value, nnx.Param):
            owner = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in own)
            own[owner].append(value)
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


Calls = list[tuple[nnx.Module, tuple[int, ...], tuple[int, ...]]]


@contextlib.contextmanager
def _recorded(*kinds: type[nnx.Module]) -> Iterator[Calls]:
    """Note every call of modules of these kinds: the module, the shape of its input and of its output."""
    calls, originals = [], {kind: kind.__call__ for kind in kinds}

    def recording(original):
        def call(self, *given, **named):
            h = original(self, *given, **named)
            x, *_ = (*given, *named.values())
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


def _cost(name: str, module: nnx.Module, own: Sequence[nnx.Param], calls: Calls) -> Cost:
    """Count one module's own arrays and its calls."""
    weights = live = sum(array.size for array in own)
    size = sum(array.size * array.dtype.itemsize for array in own)
    shape, multiply_adds, layout = (), 0, _layout(module)
    for caller, x, h in calls:
        if caller is module:
            shape, positions = h[1:], math.prod(h[:-1])
            if layout is not None:
                dead, products = _layer_cost(layout, x[-1 - (layout.window.rank or 0) : -1])
                live, multiply_adds = weights - dead, multiply_adds + products
            elif isinstance(module, nnx.Linear):
                multiply_adds += positions * x[-1] * h[-1]
    return Cost(name, type(module).__name__, shape, weights, live, multiply_adds, size, layout)


def _layout(module: nnx.Module) -> Layout | None:
    """Rung and window of a spatial layer; None for all else, also for Flax's convolutions of images spread with zeros."""
    if isinstance(module, Layer):
        return module.layout
    if not isinstance(module, nnx.Conv) or np.any(np.array(module.input_dilation or 1) > 1):
        return None
    window = lay_window(module.kernel_size, module.strides, module.padding, module.kernel_dilation, None)
    return Layout("conv", window, module.in_features, module.out_features, groups=module.feature_group_count)


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
