"""Transfer of the variables of a Linen module to the same architecture on other rungs.

Linen modules are descriptions and hold no arrays, so their author writes the second module.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, traverse_util

from convlab import check
from convlab.calls import Path, name_of
from convlab.linen import Conv, Layer, layout_of
from convlab.rungs import Layout, transfer


def transfer_variables(
    old: linen.Module, new: linen.Module, variables: Mapping[str, Any], image_shape: Sequence[int]
) -> dict[str, Any]:
    """Convert a Linen module's variables for a second module with layers on other rungs.

    The modules called by the two are paired in the order of their calls. Arrays of every `convlab.linen` layer and
    `linen.Conv` are converted: exactly if the new layer is freer, else to the nearest layer, as in `relax` and `constrain`.
    All other arrays, batch statistics included, are copied under the names of the new module.

    Args:
      old: A module that takes images (n, *image_shape). It gets `train=False` if it has an argument `train`.
      new: The second module.
      variables: The variables of `old`, as `old.init` or training returns them.
      image_shape: The shape (*space, c) of one image.

    Raises:
      ValueError: The two do not call the same modules, or arrays do not fit.

    Example:
      >>> from convlab.linen import Conv, LocallyConnected
      >>> old, new = Conv(2, (3, 3)), LocallyConnected(2, (3, 3))
      >>> variables = old.init(jax.random.key(0), jnp.ones((1, 5, 7, 1)))
      >>> jax.tree.map(jnp.shape, transfer_variables(old, new, variables, (5, 7, 1)))
      {'params': {'bias': (5, 7, 2), 'kernel': (5, 7, 3, 3, 1, 2)}}
    """
    shape = check.image_shape(image_shape)
    (before, _), (after, new_shapes) = (_called(module, shape) for module in (old, new))
    if len(before) != len(after):
        raise ValueError(f"old and new must call the same modules, but {len(before)} and {len(after)} of theirs hold arrays")
    written: dict[Path, Any] = {}
    for (old_path, old_layout), (new_path, new_layout) in zip(before.items(), after.items(), strict=True):
        for kind, tree in variables.items():
            flat: dict[Path, Any] = traverse_util.flatten_dict(dict(tree))  # pyright: ignore[reportAssignmentType]
            arrays = {key[-1]: array for key, array in flat.items() if key[:-1] == old_path}
            if kind == "params" and old_layout is not None and new_layout is not None:
                arrays = transfer(arrays, old_layout, new_layout)
            written |= {(kind, *new_path, name): array for name, array in arrays.items()}
    expected: dict[Path, Any] = traverse_util.flatten_dict(new_shapes)  # pyright: ignore[reportAssignmentType]
    shapes = [{key: array.shape for key, array in flat.items()} for flat in (written, expected)]
    differing = [key for key in {*written, *expected} if shapes[0].get(key) != shapes[1].get(key)]
    if differing:
        raise ValueError(f"variables do not fit the new module: {', '.join(sorted(map(name_of, differing)))}")
    return traverse_util.unflatten_dict(written)


def _called(module: linen.Module, image_shape: Sequence[int]) -> tuple[dict[Path, Layout | None], Any]:
    """Trace a module on one image: return layouts in the order of calls, and all shapes.

    The layouts cover all modules that hold arrays, with None for those that are not spatial layers.
    """
    layouts: dict[Path, Layout | None] = {}

    def record(call, arguments, options, context):
        layer = context.module
        spatial = isinstance(layer, (Layer, Conv, linen.Conv)) and context.method_name == "__call__"
        layout = layout_of(layer, jnp.shape(next(iter((*arguments, *options.values()))))) if spatial else None
        if layouts.setdefault(layer.path, layout) != layout and spatial:
            raise ValueError(f"{name_of(layer.path)} reads images of several sizes but conversion needs one")
        return call(*arguments, **options)

    train: dict[str, Any] = {"train": False} if "train" in inspect.signature(type(module).__call__).parameters else {}
    with linen.intercept_methods(record):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *image_shape)), **train))
    owners = {key[1:-1] for key in traverse_util.flatten_dict(shapes)}
    return {path: layout for path, layout in layouts.items() if path in owners}, shapes
