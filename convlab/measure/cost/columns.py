"""The columns of a table of costs, and their texts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convlab.report.results import ResultTable
from convlab.report.table import to_table
from convlab.rungs import sizes_text, tying_texts, window_text

if TYPE_CHECKING:
    from convlab.measure.cost.count import Cost


def cost_table(
    title: str, layers: Sequence["Cost"], total: "Cost", columns: Sequence[str] | None = None
) -> ResultTable[dict[str, Any]]:
    """Return the costs of layers, and the total last, as rows that print as a table.

    Args:
      title: The title of the table.
      layers: The costs of the layers.
      total: The costs of the whole network.
      columns: The names of the columns, as in `summary`. If None, the usual ones.
    """
    hidden = {*OPTIONAL} - {"unknown" for cost in (*layers, total) if cost.unknown}
    shown = [name for name in COLUMNS if name not in hidden] if columns is None else columns
    rows = [{name: COLUMNS[name](cost) for name in shown} for cost in (*layers, total)]
    return ResultTable(title, rows, to_table, total=True)


def _known(amount: float, cost: "Cost") -> float | str | None:
    """Return an amount, or the text of a lower bound if some operations are unknown. None means 0."""
    if not cost.unknown:
        return amount or None
    return f"at least {amount:{',' if isinstance(amount, int) else '.4g'}}" if amount else "?"


# The function for each column, from a cost to its cell.
COLUMNS: dict[str, Callable[["Cost"], Any]] = {
    "layer": lambda cost: cost.name,
    "kind": lambda cost: cost.kind if cost.layout is None else ", ".join([cost.kind, *tying_texts(cost.layout)]),
    "window": lambda cost: None if cost.layout is None or cost.layout.tying.by_pixel else window_text(cost.layout.window),
    "output": lambda cost: sizes_text(cost.output_shape),
    "receptive_field": lambda cost: sizes_text(["?" if pixels is None else pixels for pixels in cost.receptive_field]),
    "effective_stride": lambda cost: sizes_text(["-" if pixels is None else pixels for pixels in cost.effective_stride]),
    "weights": lambda cost: cost.weights,
    "live_weights": lambda cost: cost.live_weights,
    "multiply_adds": lambda cost: _known(cost.multiply_adds, cost),
    "bytes": lambda cost: cost.bytes,
    "activations": lambda cost: cost.activations or None,
    "intensity": lambda cost: _known(cost.intensity(), cost),
    "unknown": lambda cost: ", ".join(cost.unknown) or None,
}
OPTIONAL = ("effective_stride", "activations", "unknown")
