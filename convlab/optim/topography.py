"""A penalty on differences between units that are neighbours on a layer's sheet, for topographic maps."""

import math
import warnings
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import Described, Path, described, left_alone, names_with_reasons
from convlab.choices import did_you_mean, one_of, shown
from convlab.convert import arrange_on_sheet, grid_of, neighbours
from convlab.convert.sheet import Grid
from convlab.optim.leaves import Tree, arrays_at
from convlab.rungs import Layout

Grids = Grid | Mapping[str, Grid | None] | None
Distance = Callable[[Array, Array, Array], Array]  # of two kernels and the taps to compare, over the axis of taps


def neighbour_penalty(
    model: nnx.Module, distance: str = "cosine", grids: Grids = None, *, circular: bool = False
) -> Callable[[Tree], Float[Array, ""]]:
    r"""Penalise differences between the kernels of units that are neighbours on a layer's sheet.

    $$r(\theta) = \sum_{\text{layers}} \frac{1}{|P|} \sum_{(u, u') \in P} \rho(V_u, V_{u'})$$

    The channels of a position lie on a grid, and the grids of all positions side by side make a sheet of units, as
    `convlab.measure.arrange_on_sheet` arranges them. P holds every unit u with the next unit u' in its column, and with the
    next one in its row. With $\langle V, V' \rangle = \sum_{abc} V_{abc} V'_{abc}$, the distance is

    $$\rho = 1 - \frac{\langle V, V' \rangle}{\|V\| \, \|V'\|} \;\;(\text{"cosine"}) \qquad
      \rho = \|V - V'\|^2 \;\;(\text{"squared"})$$

    Only taps that are live at both units are compared. So the penalty pulls kernels together and not towards zeros at the
    border, and equal kernels cost nothing. Unlike "squared", "cosine" does not shrink the kernels.

    A convolution has one kernel per channel, so its sheet has one unit per channel. Tiled layers have one tile on their sheet.
    The kernels of a low-rank layer are those that it mixes. A warning names the layers that are left alone: those without two
    spatial axes or with a single unit, dense or transposed layers, and layers with groups.

    Args:
      model: A Flax NNX module with layers of convlab or Flax. Only its layouts and masks are used.
      distance: The distance between two kernels, "cosine" or "squared".
      grids: The rows and columns into which the channels of a position are laid out. A mapping from layers, by their paths
        such as "stages/0/layer", penalises only these layers. If None, the rows and columns are nearest to each other.
      circular: Whether the first row and column of the sheet follow the last ones, so that the sheet is a torus.

    Returns:
      A function of trees like the model's parameters, for `add_penalty` or a loss.

    Raises:
      ValueError: `distance` or a layer of `grids` is unknown, a grid does not hold the channels, or no layer has a sheet.
      TypeError: An argument has the wrong type.

    Example:
      >>> import optax
      >>> from convlab.layers import LocallyConnected
      >>> from convlab.optim import add_penalty
      >>> layer = LocallyConnected(1, 4, (3, 3), space=(5, 5), rngs=nnx.Rngs(0))
      >>> penalty = neighbour_penalty(layer)
      >>> float(penalty({"kernel": jnp.ones((5, 5, 3, 3, 1, 4)), "bias": jnp.zeros((5, 5, 4))}))
      0.0
      >>> optimizer = optax.chain(add_penalty(penalty, 10.0), optax.adam(1e-3))

    Reference: Lu et al. 2025, End-to-end topographic networks as models of cortical map formation.
    """
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    one_of("distance", distance, DISTANCES)
    check.flag("circular", circular)
    chosen = _chosen(model, grids)

    def penalty(parameters: Tree) -> Float[Array, ""]:
        total = jnp.asarray(0.0)
        for path, (layer, grid) in chosen.items():
            names = layer.layout.tying.arrays
            arrays = arrays_at(parameters, [(*path, name) for name in names])
            if len(arrays) == len(names):
                used = layer.arrays(dict(zip(names, arrays.values(), strict=True)))
                total += _mean_distance(used, layer.layout, grid, DISTANCES[distance], circular)
        return total

    return penalty


def _chosen(model: nnx.Module, grids: Grids) -> dict[Path, tuple[Described, Grid]]:
    """Return the layers to penalise, with the grids of their channels. A warning names the others.

    Raises:
      ValueError: A layer is unknown, or no layer has a sheet.
    """
    layers, alone = described(model), left_alone(model)
    alone |= {path: reason for path, layer in layers.items() if (reason := _obstacle(layer.layout))}
    names = {"/".join(map(str, path)): path for path in (*layers, *alone)}
    wanted = dict(grids) if isinstance(grids, Mapping) else dict.fromkeys(names, grids)
    for name in wanted:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"grids has no layer of the model: {shown(name)}; needs {known}{did_you_mean(name, names)}")
    skipped = names_with_reasons({names[name]: alone[names[name]] for name in wanted if names[name] in alone})
    chosen = {names[name]: grid for name, grid in wanted.items() if names[name] not in alone}
    if not chosen:
        raise ValueError(f"model has no layer whose units lie on a sheet; left alone: {skipped or 'none'}")
    if skipped:
        warnings.warn(f"neighbour_penalty leaves alone {skipped}", stacklevel=3)
    return {path: (layers[path], grid_of(layers[path].layout.out_features, grid, "grids")) for path, grid in chosen.items()}


def _obstacle(layout: Layout) -> str:
    """Return why the units of a layer do not lie on a sheet, or ""."""
    if layout.transposed:
        return "is transposed"
    if layout.tying.by_pixel:
        return f"is {layout.rung}, so that its units do not read windows"
    if layout.ndim != 2:
        return f"has {layout.ndim} spatial axes"
    if layout.groups != 1:
        return f"has {layout.groups} groups, so that its units read different channels"
    return "has a single unit" if layout.out_features * math.prod(layout.tying.tile(layout)) == 1 else ""


def _mean_distance(arrays: dict[str, Array], layout: Layout, grid: Grid, distance: Distance, circular: bool) -> Array:
    """Average the distance over all pairs of neighbours on the sheet of a layer."""
    kernels = layout.tying.kernels(arrays, layout)
    i, j, a, b, c, d = kernels.shape
    live = jnp.ones((i, j, a, b))
    if layout.space is not None and (i, j) == layout.positions:
        live = layout.window.live(layout.space)
    taps = jnp.broadcast_to(jnp.asarray(live, kernels.real.dtype)[..., None, None], (i, j, a, b, 1, d))
    sheet, live = (arrange_on_sheet(array, grid) for array in (kernels, taps))
    distances = []
    for axis in (0, 1):
        if sheet.shape[axis] > 1:
            (one, other), (first, second) = neighbours(sheet, axis, circular), neighbours(live, axis, circular)
            distances.append(distance(one, other, first * second).ravel())
    return jnp.mean(jnp.concatenate(distances))


def _cosine(one: Array, other: Array, taps: Array) -> Array:
    """Return 1 minus the cosine of the angle between kernels, and 1 without a gradient where one is zero.

    It is half of the squared distance between the kernels at unit length, which is exactly zero for equal kernels.
    """
    norms = [jnp.sum(taps * jnp.real(v * jnp.conj(v)), (-3, -2, -1), keepdims=True) for v in (one, other)]
    positive = (norms[0] > 0) & (norms[1] > 0)
    first, second = (jax.lax.rsqrt(jnp.where(positive, norm, 1)) for norm in norms)
    return jnp.where(positive[..., 0, 0, 0], _squared(one * first, other * second, taps) / 2, 1)


def _squared(one: Array, other: Array, taps: Array) -> Array:
    difference = one - other
    return jnp.sum(taps * jnp.real(difference * jnp.conj(difference)), (-3, -2, -1))


DISTANCES: Mapping[str, Distance] = {"cosine": _cosine, "squared": _squared}
