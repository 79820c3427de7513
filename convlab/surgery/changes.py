"""Comparison of two networks of the same structure, layer by layer."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx

from convlab.calls import Path, left_alone, modules_of, name_of
from convlab.report.results import ResultTable
from convlab.report.table import Table, to_table
from convlab.rungs import Arrays, ByPixel, Layout, Shared, Untied, transfer, with_rung
from convlab.surgery.networks import arrays_of, layouts, paired


class LayerShares(NamedTuple):
    """Describe how much of one spatial layer is shared and local, as shares of its squared norm.

    The shares are nan for a layer of zeros and for a layer that no rung describes.

    Attributes:
      layer: The path of the layer.
      rung: The name of the rung, or the reason why no rung describes the layer.
      weights: The number of weights, bias included.
      shared: The share that a convolution holds.
      local: The share inside the windows that is not shared.
      rest: The share outside the windows.
    """

    layer: str
    rung: str
    weights: int
    shared: float
    local: float
    rest: float


class Change(NamedTuple):
    """Describe one spatial layer in two networks.

    The shares of the squared norm are nan for a layer of zeros and for a layer that no rung describes.

    Attributes:
      layer: The path of the layer.
      before: The rung in the old network, or the reason why no rung describes the layer.
      after: The rung in the new network, or this reason.
      weights_before: The number of weights in the old network, bias included.
      weights_after: The number of weights in the new network, bias included.
      relative_distance: The distance between the two dense matrices over the norm of the first. It is nan if only the first is
        zero.
      shared: The share of the new layer's squared norm that a convolution holds.
      local: The share inside the windows that is not shared.
      rest: The share outside the windows.
    """

    layer: str
    before: str
    after: str
    weights_before: int
    weights_after: int
    relative_distance: float
    shared: float
    local: float
    rest: float


def diff(old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]) -> ResultTable[Change]:
    r"""Compare the spatial layers of two networks: rungs, numbers of weights, distance, and shares.

    $$\text{relative distance} = \|W' - W\| / \|W\|$$

    W and W' are the dense matrices of a layer before and after, and norms are Frobenius norms.

    Args:
      old: A Flax NNX module.
      new: Another module of the same structure, for example the relaxed, constrained or trained `old`.
      image_shape: The shape (*space, c) of one image.

    Returns:
      The changes of all spatial layers, as a list that prints as a table.

    Raises:
      ValueError: The networks have spatial layers at different paths, or layers with other windows or channels.

    Example:
      >>> from convlab.layers import Conv
      >>> from convlab.surgery import relax
      >>> old = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)))
      >>> [change] = diff(old, relax(old, "dense", (5, 7, 1)), (5, 7, 1))
      >>> change.before, change.after, change.weights_before, change.weights_after, change.relative_distance
      ('conv', 'dense', 20, 2520, 0.0)
    """
    before, after = paired(old, new, image_shape)
    first, second = modules_of(old), modules_of(new)
    changes = {path: _change(path, first[path], second[path], before[path], after[path]) for path in before}
    alone = left_alone(old), left_alone(new)
    for path in alone[0].keys() & alone[1].keys():
        sizes = [_count_weights(modules[path]) for modules in (first, second)]
        changes[path] = Change(name_of(path), alone[0][path], alone[1][path], *sizes, *[math.nan] * 4)
    return ResultTable("changes by layer", [changes[path] for path in first if path in changes], _table)


def shares(model: nnx.Module, image_shape: Sequence[int]) -> ResultTable[LayerShares]:
    r"""Measure how much of every spatial layer of a network is shared and local.

    $$\frac{\|P_\text{conv} W\|^2}{\|W\|^2} + \frac{\|P_\text{local} W\|^2 - \|P_\text{conv} W\|^2}{\|W\|^2}
      + \frac{\|W\|^2 - \|P_\text{local} W\|^2}{\|W\|^2} = 1$$

    W is the dense matrix of a layer, and the P are the nearest convolution and the nearest layer inside the windows, as in
    `convlab.decompose`. No dense matrix is written out for layers inside their windows.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape).
      image_shape: The shape (*space, c) of one image.

    Returns:
      The shares of all spatial layers, as a list that prints as a table.

    Raises:
      ValueError: A layer is never called, or called on images of different sizes.

    Example:
      >>> from convlab.layers import Conv
      >>> [row] = shares(nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0))), (5, 7, 1))
      >>> row.rung, row.weights, round(row.shared, 4)
      ('conv', 20, 1.0)
    """
    modules, known, alone = modules_of(model), layouts(model, image_shape), left_alone(model)
    rows = []
    for path, module in modules.items():
        if path in known:
            parts, rung = _shares(arrays_of(module), known[path]), known[path].rung
        elif path in alone:
            parts, rung = [math.nan] * 3, alone[path]
        else:
            continue
        rows.append(LayerShares(name_of(path), rung, _count_weights(module), *parts))
    return ResultTable("shares by layer", rows, _table)


def _table(rows: Sequence[Change] | Sequence[LayerShares]) -> Table:
    return to_table([row._asdict() for row in rows])


def _count_weights(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def _change(path: Path, old: nnx.Module, new: nnx.Module, before: Layout, after: Layout) -> Change:
    if (before.window, before.in_features, before.out_features) != (after.window, after.in_features, after.out_features):
        raise ValueError(f"{name_of(path)} must have the same window and channels in both networks: {before} and {after}")
    first, second = arrays_of(old), arrays_of(new)
    sizes = [_count_weights(module) for module in (old, new)]
    distance, shares = _distance(first, before, second, after), _shares(second, after)
    return Change._make([name_of(path), before.rung, after.rung, *sizes, distance, *shares])


def _distance(first: Arrays, before: Layout, second: Arrays, after: Layout) -> float:
    common = with_rung(before, (ByPixel if before.tying.by_pixel or after.tying.by_pixel else Untied).name)
    a, b = (transfer(arrays, layout, common)["kernel"] for arrays, layout in ((first, before), (second, after)))
    difference, size = (float(common.tying.squared_norm({"kernel": kernel}, common)) for kernel in (b - a, a))
    return math.sqrt(max(difference, 0.0) / size) if size > 0 else math.nan if difference > 0 else 0.0


def _shares(arrays: Arrays, layout: Layout) -> list[float]:
    """Return the shares of the squared norm by Pythagoras, as `convlab.decompose`, within 0 to 1."""
    squares = [float(layout.tying.squared_norm(arrays, layout))]
    for tying in (Untied, Shared):
        stricter = with_rung(layout, tying.name)
        squares.append(float(stricter.tying.squared_norm(transfer(arrays, layout, stricter), stricter)))
    total, local, shared = squares
    if not total > 0:
        return [math.nan] * 3
    local = min(local, total)
    shared = min(shared, local)
    return [shared / total, (local - shared) / total, (total - local) / total]
