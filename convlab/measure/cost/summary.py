"""A table of a network's costs."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from convlab import check
from convlab.choices import one_of
from convlab.measure.cost.columns import COLUMNS, cost_table
from convlab.measure.cost.count import count
from convlab.report.results import ResultTable
from convlab.rungs import sizes_text


def summary(model: nnx.Module, image_shape: Sequence[int], columns: Sequence[str] | None = None) -> ResultTable[dict[str, Any]]:
    """Summarise the receptive fields and costs of a network's modules as a table.

    If some multiply-adds are not known, the table names their operations. It shows "at least" before what is known, and "?" if
    nothing is.

    Args:
      model: A Flax NNX module, as in `count`.
      image_shape: The shape (*space, c) of one image.
      columns: The names of the columns, in order. They are "layer", "kind", "window", "output", and from `Cost`
        "receptive_field", "effective_stride", "weights", "live_weights", "multiply_adds", "bytes", "activations", "intensity"
        (of one image) and "unknown". If None, all but "effective_stride" and "activations", and "unknown" only if needed.

    Returns:
      A list with one row of text and numbers per module, and the total last. It prints as a table, in notebooks too. For
      computations, use `count`.

    Raises:
      ValueError: The model does not take such images, or a column is unknown.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(8, 6), rngs=nnx.Rngs(0))
      >>> columns = ("layer", "window", "output", "receptive_field", "weights", "live_weights", "multiply_adds")
      >>> summary(nnx.Sequential(layer, nnx.relu), (8, 6, 1), columns)
                                  Sequential on 8x6x1
      ┏━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━┓
      ┃          ┃           ┃        ┃ receptive ┃         ┃    live ┃ multiply ┃
      ┃ layer    ┃ window    ┃ output ┃ field     ┃ weights ┃ weights ┃     adds ┃
      ┡━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━┩
      │ layers/0 │ 3x3, SAME │ 8x6x4  │ 3x3       │   1,920 │   1,600 │    1,408 │
      ├──────────┼───────────┼────────┼───────────┼─────────┼─────────┼──────────┤
      │ total    │           │ 8x6x4  │ 3x3       │   1,920 │   1,600 │    1,408 │
      └──────────┴───────────┴────────┴───────────┴─────────┴─────────┴──────────┘
    """
    for name in () if columns is None else check.sequence("columns", columns, "names"):
        one_of("column", name, COLUMNS)
    layers, total = count(model, image_shape)
    return cost_table(f"{total.kind} on {sizes_text(image_shape)}", layers, total, columns)
