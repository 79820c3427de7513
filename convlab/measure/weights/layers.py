"""Locality and sharing indices of a network, once or during training.

For every layer, the indices that are defined on its rung are computed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convlab.choices import one_of
from convlab.convert import decompose, repeat
from convlab.layers import spatial_layers
from convlab.measure.weights import shares
from convlab.measure.weights.patches import mean_input_distance
from convlab.rungs import Arrays, Layout, Shared

Index = Callable[[Array, Layout], Array]


def _mean_participation(w: Array, layout: Layout) -> Array:
    """Average the ratio over the units that have weights.

    A unit reads the spatial axes before the channels.
    """
    return jnp.nanmean(shares.inverse_participation_ratio(w, range(w.ndim - 2 - layout.ndim, w.ndim - 2)))


def _mean_neighbour_distance(v: Array, layout: Layout) -> Array:
    """Average the distance of adjacent positions over the axes with more than one position."""
    long_axes = [axis for axis, positions in enumerate(layout.positions) if positions > 1]
    offsets = [np.eye(len(layout.positions), dtype=int)[axis].tolist() for axis in long_axes]
    distances = [shares.neighbour_distance(v, layout.window, _space(layout), offset) for offset in offsets]
    return jnp.mean(jnp.array(distances)) if distances else jnp.array(jnp.nan)


def _space(layout: Layout) -> Sequence[int]:
    assert layout.space is not None
    return layout.space


# The function for each index, of a dense weight, of the kernels of all positions, and of kernels without positions.
DENSE: dict[str, Index] = {
    "shared": lambda w, layout: decompose(w, layout.window, _space(layout))["shared"],
    "local": lambda w, layout: shares.local_share(w, layout.window, _space(layout)),
    "mean_input_distance": lambda w, layout: mean_input_distance(w),
    "inverse_participation_ratio": _mean_participation,
}
LOCAL: dict[str, Index] = {
    "shared": lambda v, layout: shares.tiled_share(v, layout.window, _space(layout)),
    "signal_to_noise": lambda v, layout: shares.signal_to_noise(v, layout.window, _space(layout)),
    "neighbour_distance": _mean_neighbour_distance,
    "inverse_participation_ratio": _mean_participation,
}
PLAIN: dict[str, Index] = {"inverse_participation_ratio": _mean_participation}
NAMES = tuple(dict.fromkeys((*DENSE, *LOCAL, *PLAIN)))


def locality_indices(model: nnx.Module, *names: str) -> list[dict[str, Any]]:
    """Compute how local and how shared the weights of a network's layers are.

    The spatial layers of convlab are measured. Low-rank and tiled layers are lifted to local kernels. An index that is
    defined for one unit is averaged over units.

    Args:
      model: A Flax NNX module.
      names: The indices to compute, out of `NAMES`. If none is given, all that are defined on each layer's rung.

    Returns:
      One row for each layer and index: "layer" (its path), "rung", "index", "value".

    Raises:
      ValueError: An index is unknown.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(8, 6), tied_noise=0, rngs=nnx.Rngs(0))
      >>> for row in locality_indices(nnx.Sequential(layer), "shared", "neighbour_distance"):
      ...     print(row["layer"], row["index"], round(row["value"], 4))
      layers/0 neighbour_distance 0.0
      layers/0 shared 1.0
    """
    rungs = {_name(path): layer.layout.rung for path, layer in spatial_layers(model).items()}
    values = jax.jit(locality_metrics(model, *names))(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    rows = [(*name.rpartition("/")[::2], float(value)) for name, value in values.items()]
    return [{"layer": layer, "rung": rungs[layer], "index": index, "value": value} for layer, index, value in rows]


def locality_metrics(model: nnx.Module, *names: str) -> Callable[[Any], dict[str, Float[Array, ""]]]:
    """Build a function of the parameters that computes the indices of a network.

    `fit(..., parameter_metrics=)` takes such a function.

    Args:
      model: A Flax NNX module; only the layouts of its layers are kept.
      names: The indices to compute, as in `locality_indices`.

    Returns:
      A jittable function of the parameters (plain nested dicts). Its results are named "layer/index".

    Raises:
      ValueError: An index is unknown.

    Example:
      >>> from convlab.models import MLP
      >>> model = MLP((4, 4, 1), 3, (5,), rngs=nnx.Rngs(0))
      >>> list(locality_metrics(model, "inverse_participation_ratio")(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
      ['stages/0/layer/inverse_participation_ratio']
    """
    for name in names:
        one_of("index", name, NAMES)
    layouts = {path: layer.layout for path, layer in spatial_layers(model).items()}

    def metrics(parameters: Any) -> dict[str, Float[Array, ""]]:
        values = {}
        for path, layout in layouts.items():
            table, kernel = _indices_and_weights(_parameters_at(parameters, path), layout)
            chosen = [name for name in table if name in (names or NAMES)]
            values |= {"/".join(filter(None, (_name(path), name))): table[name](kernel, layout) for name in chosen}
        return values

    return metrics


def _name(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _parameters_at(parameters: Mapping, path: Sequence[Any]) -> Any:
    for part in path:
        parameters = parameters[part]
    return parameters


def _indices_and_weights(arrays: Arrays, layout: Layout) -> tuple[dict[str, Index], Array]:
    """Return the indices that are defined on a layer's rung, with the weights to compute them from."""
    if layout.tying.by_pixel:
        return DENSE, arrays["kernel"]
    kernels = layout.tying.kernels(arrays, layout)
    if layout.space is None or layout.tying.within(Shared):
        return PLAIN, kernels
    return LOCAL, layout.zero_dead_taps(repeat(kernels, layout.positions))
