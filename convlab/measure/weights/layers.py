"""Locality and sharing indices of a network, once or during training.

For every layer, the indices that are defined on its rung are computed.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import Described, Path, described, left_alone, modules_of, names_with_reasons
from convlab.choices import one_of
from convlab.convert import decompose, repeat
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

    The spatial layers of convlab and of Flax are measured, with their masks applied. Low-rank and tiled layers are lifted to
    local kernels. Of a transposed layer, the layer that is transposed is measured. An index that is defined for one unit is
    averaged over units.

    Args:
      model: A Flax NNX module.
      names: The indices to compute, out of `NAMES`. If none is given, all that are defined on each layer's rung.

    Returns:
      One row for each layer and index: "layer" (its path), "rung", "index", "value". The value is nan if the index was asked
      for but is not defined on the layer's rung. A layer that no rung describes has one row, with the reason as its rung, the
      index "none" and the value nan.

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
    layers, alone = _described(model, names), left_alone(model)
    values = jax.jit(_metrics(layers, names))(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    rows = []
    for path in modules_of(model):
        if path in layers:
            layout = layers[path].layout
            indices = sorted(names or _indices_of(layout))
            rows += [(path, layout.rung, index, float(values.get(_name(path, index), math.nan))) for index in indices]
        elif path in alone:
            rows.append((path, alone[path], "none", math.nan))
    return [{"layer": _name(path), "rung": rung, "index": index, "value": value} for path, rung, index, value in rows]


def locality_metrics(model: nnx.Module, *names: str) -> Callable[[Any], dict[str, Float[Array, ""]]]:
    """Build a function of the parameters that computes the indices of a network.

    `fit(..., parameter_metrics=)` takes such a function. A warning names layers that are left alone because no rung describes
    them.

    Args:
      model: A Flax NNX module; only the layouts and masks of its layers are kept.
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
    layers = _described(model, names)
    if alone := left_alone(model):
        warnings.warn(f"locality_metrics leaves alone {names_with_reasons(alone)}", stacklevel=2)
    return _metrics(layers, names)


def _described(model: nnx.Module, names: Sequence[str]) -> dict[Path, Described]:
    """Return the layers to measure, after checking the arguments."""
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    for name in names:
        one_of("index", name, NAMES)
    return described(model)


def _metrics(layers: Mapping[Path, Described], names: Sequence[str]) -> Callable[[Any], dict[str, Float[Array, ""]]]:
    def metrics(parameters: Any) -> dict[str, Float[Array, ""]]:
        values = {}
        for path, layer in layers.items():
            indices, kernel = _indices_of(layer.layout), _weights(layer.arrays(_parameters_at(parameters, path)), layer.layout)
            chosen = [name for name in indices if name in (names or NAMES)]
            values |= {_name(path, name): indices[name](kernel, layer.layout) for name in chosen}
        return values

    return metrics


def _name(path: Sequence[Any], *index: str) -> str:
    return "/".join(map(str, (*path, *index)))


def _parameters_at(parameters: Mapping, path: Sequence[Any]) -> Any:
    for part in path:
        parameters = parameters[part]
    return parameters


def _indices_of(layout: Layout) -> dict[str, Index]:
    """Return the indices that are defined on a layer's rung."""
    if layout.tying.by_pixel:
        return DENSE
    return PLAIN if layout.space is None or layout.tying.within(Shared) else LOCAL


def _weights(arrays: Arrays, layout: Layout) -> Array:
    """Return the weights from which a layer's indices are computed."""
    if layout.tying.by_pixel:
        return arrays["kernel"]
    kernels = layout.tying.kernels(arrays, layout)
    return layout.zero_dead_taps(repeat(kernels, layout.positions)) if _indices_of(layout) is LOCAL else kernels
