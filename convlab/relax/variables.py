"""The variables of a Linen module for its twin at another rung, which its author writes: Linen has recipes, not networks."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, traverse_util

from convlab.calls import Path, name_of
from convlab.linen import Layer, layout_of
from convlab.rungs import Layout, transfer


def transfer_variables(
    old: linen.Module, new: linen.Module, variables: Mapping[str, Any], image_shape: Sequence[int]
) -> dict[str, Any]:
    """Write a Linen module's variables for its twin, whose spatial layers are at other rungs.

    The modules of the two are paired in the order in which they are called. Arrays of every `convlab.linen` layer and
    `linen.Conv` become their exact image where the twin's is freer, else the nearest of its rung, as by `relax` and
    `constrain`; all others, batch statistics too, are the twin's as they are, under the twin's names.

    Args:
      old: A module that takes images (n, *image_shape); told `train=False` if it asks for `train`.
      new: Its twin.
      variables: What `old.init` returned, or training left.
      image_shape: (*space, c) of one image.

    Raises:
      ValueError: The two do not call the same modules, or arrays do not fit.

    Example:
      >>> from convlab.linen import Conv, LocallyConnected
      >>> old, new = Conv(2, (3, 3)), LocallyConnected(2, (3, 3))
      >>> variables = old.init(jax.random.key(0), jnp.ones((1, 5, 7, 1)))
      >>> jax.tree.map(jnp.shape, transfer_variables(old, new, variables, (5, 7, 1)))
      {'params': {'bias': (5, 7, 2), 'kernel': (5, 7, 3, 3, 1, 2)}}
    """
    (before, _), (after, wanted) = (_called(module, image_shape) for module in (old, new))
    if len(before) != len(after):
        raise ValueError(f"the modules do not call the same: {len(before)} with arrays of their own, and {len(after)}")
    written: dict[Path, Any] = {}
    for (place, layout), (twin_place, twin) in zip(before.items(), after.items(), strict=True):
        for kind, tree in variables.items():
            flat: dict[Path, Any] = traverse_util.flatten_dict(dict(tree))  # pyright: ignore[reportAssignmentType]
            arrays = {key[-1]: array for key, array in flat.items() if key[:-1] == place}
            if kind == "params" and layout is not None and twin is not None:
                arrays = transfer(arrays, layout, twin)
            written |= {(kind, *twin_place, name): array for name, array in arrays.items()}
    expected: dict[Path, Any] = traverse_util.flatten_dict(wanted)  # pyright: ignore[reportAssignmentType]
    shapes = [{key: array.shape for key, array in flat.items()} for flat in (written, expected)]
    wrong = [key for key in {*written, *expected} if shapes[0].get(key) != shapes[1].get(key)]
    if wrong:
        raise ValueError(f"arrays do not fit the twin: {', '.join(sorted(map(name_of, wrong)))}")
    return traverse_util.unflatten_dict(written)


def _called(module: linen.Module, image_shape: Sequence[int]) -> tuple[dict[Path, Layout | None], Any]:
    """Follow one image: what has arrays of its own, in the order of calls, layouts of spatial layers; and all shapes."""
    found: dict[Path, Layout | None] = {}

    def note(call, arguments, options, context):
        layer = context.module
        spatial = isinstance(layer, (Layer, linen.Conv)) and context.method_name == "__call__"
        layout = layout_of(layer, arguments[0].shape) if spatial else None
        if found.setdefault(layer.path, layout) != layout and spatial:
            raise ValueError(f"{name_of(layer.path)} reads images of several sizes; a layer by position needs one size")
        return call(*arguments, **options)

    told: dict[str, Any] = {"train": False} if "train" in inspect.signature(type(module).__call__).parameters else {}
    with linen.intercept_methods(note):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *image_shape)), **told))
    owners = {key[1:-1] for key in traverse_util.flatten_dict(shapes)}
    return {path: layout for path, layout in found.items() if path in owners}, shapes
