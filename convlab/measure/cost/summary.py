"""A printed table of a network's costs."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from convlab.choices import one_of
from convlab.geometry import Window, as_axes
from convlab.measure.cost.count import Cost, count
from convlab.report.table import print_table, to_table
from convlab.rungs import Layout


def summary(model: nnx.Module, image_shape: Sequence[int], columns: Sequence[str] | None = None) -> None:
    """Print a table of a network's modules with their receptive fields and costs.

    If some multiply-adds are not known, the table names their operations. It shows "at least" before what is known, and "?" if
    nothing is.

    Args:
      model: A Flax NNX module, as in `count`.
      image_shape: The shape (*space, c) of one image.
      columns: The names of the columns, in order. They are "layer", "kind", "window", "output", and from `Cost`
        "receptive_field", "effective_stride", "weights", "live_weights", "multiply_adds", "bytes", "activations", "intensity"
        (of one image) and "unknown". If None, all but "effective_stride" and "activations", and "unknown" only if needed.

    Raises:
      ValueError: The model does not take such images, or a column is unknown.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(8, 6), rngs=nnx.Rngs(0))
      >>> columns = ("layer", "window", "output", "receptive_field", "weights", "live_weights", "multiply_adds")
      >>> summary(nnx.Sequential(layer, nnx.relu), (8, 6, 1), columns)  # doctest: +NORMALIZE_WHITESPACE
                                          Sequential on 8x6x1
      ┏━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
      ┃ layer    ┃ window    ┃ output ┃ receptive field ┃ weights ┃ live weights ┃ multiply adds ┃
      ┡━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
      │ layers/0 │ 3x3, SAME │ 8x6x4  │ 3x3             │   1,920 │        1,600 │         1,408 │
      ├──────────┼───────────┼────────┼─────────────────┼─────────┼──────────────┼───────────────┤
      │ total    │           │ 8x6x4  │ 3x3             │   1,920 │        1,600 │         1,408 │
      └──────────┴───────────┴────────┴─────────────────┴─────────┴──────────────┴───────────────┘
    """
    for name in columns or ():
        one_of("column", name, COLUMNS)
    layers, total = count(model, image_shape)
    hidden = {*OPTIONAL} - {"unknown" for cost in (*layers, total) if cost.unknown}
    shown = [name for name in COLUMNS if name not in hidden] if columns is None else columns
    rows = [{name: COLUMNS[name](cost) for name in shown} for cost in (*layers, total)]
    print_table(f"{total.kind} on {_sizes(image_shape)}", to_table(rows), total=True)


def _kind(kind: str, layout: Layout) -> str:
    parameters = "".join(
        f", {name} {value if isinstance(value, int) else _sizes(value)}" for name, value in vars(layout.tying).items()
    )
    return f"{kind}{parameters}" + f", {layout.groups} groups" * (layout.groups > 1)


def _window(window: Window) -> str:
    """Format a window: its size, strides and dilation other than 1, and its padding."""
    ndim = window.ndim or 1
    strides, dilation = (as_axes(name, getattr(window, name), ndim) for name in ("strides", "dilation"))
    options = f", stride {_sizes(strides)}" * (max(strides) > 1) + f", dilation {_sizes(dilation)}" * (max(dilation) > 1)
    return f"{_sizes(window.taps(ndim))}{options}, {_padding(window.padding)}"


def _padding(padding: Any) -> str:
    if isinstance(padding, str) or any(isinstance(entry, str) for entry in padding):
        return padding if isinstance(padding, str) else " x ".join(map(str, padding))
    low, high = zip(*padding, strict=True)
    return f"padding {_sizes(low)}" + f" below, {_sizes(high)} above" * (low != high)


def _known(amount: float, cost: Cost) -> float | str | None:
    """Return an amount, or the text of a lower bound if some operations are unknown. None means 0."""
    if not cost.unknown:
        return amount or None
    return f"at least {amount:{',' if isinstance(amount, int) else '.4g'}}" if amount else "?"


def _sizes(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


# The function for each column, from a cost to its cell.
COLUMNS: dict[str, Callable[[Cost], Any]] = {
    "layer": lambda cost: cost.name,
    "kind": lambda cost: cost.kind if cost.layout is None else _kind(cost.kind, cost.layout),
    "window": lambda cost: None if cost.layout is None or cost.layout.tying.by_pixel else _window(cost.layout.window),
    "output": lambda cost: _sizes(cost.output_shape),
    "receptive_field": lambda cost: _sizes(["?" if pixels is None else pixels for pixels in cost.receptive_field]),
    "effective_stride": lambda cost: _sizes(["-" if pixels is None else pixels for pixels in cost.effective_stride]),
    "weights": lambda cost: cost.weights,
    "live_weights": lambda cost: cost.live_weights,
    "multiply_adds": lambda cost: _known(cost.multiply_adds, cost),
    "bytes": lambda cost: cost.bytes,
    "activations": lambda cost: cost.activations or None,
    "intensity": lambda cost: _known(cost.intensity(), cost),
    "unknown": lambda cost: ", ".join(cost.unknown) or None,
}
OPTIONAL = ("effective_stride", "activations", "unknown")
