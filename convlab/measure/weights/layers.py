"""The indices of a whole network: for every layer those that say something on its rung, once or all along training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convlab.convert import decompose, repeat
from convlab.layers import spatial
from convlab.measure.weights import shares as of
from convlab.measure.weights.patches import mean_distance
from convlab.rungs import Arrays, Layout, Shared

Index = Callable[[Array, Layout], Array]


def _participation(w: Array, layout: Layout) -> Array:
    """Average over the units that have weights; a unit reads the spatial axes before the channels."""
    return jnp.nanmean(of.inverse_participation_ratio(w, range(w.ndim - 2 - layout.ndim, w.ndim - 2)))


def _neighbours(v: Array, layout: Layout) -> Array:
    """Average over the spatial axes that have neighbours, of those one position apart."""
    where = [axis for axis, positions in enumerate(layout.positions) if positions > 1]
    offsets = [np.eye(len(layout.positions), dtype=int)[axis].tolist() for axis in where]
    apart = [of.neighbour_distance(v, layout.window, _space(layout), offset) for offset in offsets]
    return jnp.mean(jnp.array(apart)) if apart else jnp.array(jnp.nan)


def _space(layout: Layout) -> Sequence[int]:
    assert layout.space is not None
    return layout.space


# index -> what makes it of a dense weight, of kernels of all positions, or of kernels that say nothing of positions
DENSE: dict[str, Index] = {
    "shared": lambda w, layout: decompose(w, layout.window, _space(layout))["shared"],
    "local": lambda w, layout: of.local_share(w, layout.window, _space(layout)),
    "mean_distance": lambda w, layout: mean_distance(w),
    "inverse_participation_ratio": _participation,
}
LOCAL: dict[str, Index] = {
    "shared": lambda v, layout: of.tile_share(v, layout.window, _space(layout)),
    "signal_to_noise": lambda v, layout: of.signal_to_noise(v, layout.window, _space(layout)),
    "neighbour_distance": _neighbours,
    "inverse_participation_ratio": _participation,
}
PLAIN: dict[str, Index] = {"inverse_participation_ratio": _participation}
NAMES = tuple(dict.fromkeys((*DENSE, *LOCAL, *PLAIN)))


def indices(model: nnx.Module, *names: str) -> list[dict[str, Any]]:
    """Tell how local and how shared the layers of a network are.

    Layers are convlab's. Low rank and tiled ones are lifted to local kernels; indices of a unit are averaged over units.

    Args:
      model: A Flax NNX module.
      names: Indices wanted, of `NAMES`; absent, all that say something on each layer's rung.

    Returns:
      A row a layer and index: "layer" (its path), "rung", "index", "value".

    Raises:
      ValueError: An unknown index.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(8, 6), tied_noise=0, rngs=nnx.Rngs(0))
      >>> for row in indices(nnx.Sequential(layer), "shared", "neighbour_distance"):
      ...     print(row["layer"], row["index"], round(row["value"], 4))
      layers/0 neighbour_distance 0.0
      layers/0 shared 1.0
    """
    rungs = {_name(path): layer.layout.rung for path, layer in spatial(model).items()}
    told = jax.jit(index_metrics(model, *names))(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    split = [(*name.rpartition("/")[::2], float(value)) for name, value in told.items()]
    return [{"layer": layer, "rung": rungs[layer], "index": index, "value": value} for layer, index, value in split]


def index_metrics(model: nnx.Module, *names: str) -> Callable[[Any], dict[str, Float[Array, ""]]]:
    """Make of the indices a function of the network's parameters: what `fit(..., parameter_metrics=)` asks for.

    Args:
      model: A Flax NNX module; only its layout is kept.
      names: As in `indices`.

    Returns:
      A jittable function of the parameters (plain nested dicts); its results are named "layer/index".

    Raises:
      ValueError: An unknown index.

    Example:
      >>> from convlab.models import MLP
      >>> model = MLP((4, 4, 1), 3, (5,), rngs=nnx.Rngs(0))
      >>> list(index_metrics(model, "inverse_participation_ratio")(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
      ['stages/0/layer/inverse_participation_ratio']
    """
    if unknown := {*names} - {*NAMES}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such index; needs some of {', '.join(NAMES)}")
    layouts = {path: layer.layout for path, layer in spatial(model).items()}

    def watch(parameters: Any) -> dict[str, Float[Array, ""]]:
        told = {}
        for path, layout in layouts.items():
            table, kernel = _looked_at(_at(parameters, path), layout)
            chosen = [name for name in table if name in (names or NAMES)]
            told |= {"/".join(filter(None, (_name(path), name))): table[name](kernel, layout) for name in chosen}
        return told

    return watch


def _name(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _at(parameters: Mapping, path: Sequence[Any]) -> Any:
    for part in path:
        parameters = parameters[part]
    return parameters


def _looked_at(arrays: Arrays, layout: Layout) -> tuple[dict[str, Index], Array]:
    """Return the indices that say something on a layer's rung, and the weights that they look at."""
    if layout.tying.by_pixel:
        return DENSE, arrays["kernel"]
    kernels = layout.tying.kernels(arrays, layout)
    if layout.space is None or layout.tying.within(Shared):
        return PLAIN, kernels
    return LOCAL, layout.silence(repeat(kernels, layout.positions))
