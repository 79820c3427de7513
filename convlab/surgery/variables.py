"""Transfer of the variables of a Linen module to the same architecture on other rungs.

Linen modules are descriptions and hold no arrays, so their author writes the second module.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from convlab import check
from convlab.calls import Path, name_of
from convlab.linen import SPATIAL, ConvLocal, ConvTranspose, described_layout, fuse_kernel, split_kernel
from convlab.rungs import Arrays, Layout, transfer


def transfer_variables(
    old: linen.Module, new: linen.Module, variables: Mapping[str, Any], image_shape: Sequence[int]
) -> dict[str, Any]:
    """Convert a Linen module's variables for a second module with layers on other rungs.

    The modules called by the two are paired in the order of their calls. Arrays of every `convlab.linen` layer, `linen.Conv`
    and `linen.ConvLocal` are converted: exactly if the new layer is freer, else to the nearest layer, as in `relax` and
    `constrain`. The weights that an old layer uses are converted, after its mask. The new layer's mask then removes others.
    All other arrays, batch statistics included, are copied under the names of the new module. A warning names spatial layers
    that are copied although the two modules differ, for example with input dilation.

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
    for name, module in {"old": old, "new": new}.items():
        check.instance(name, module, linen.Module, "a Flax Linen module")
    for kind, tree in check.mapping("variables", variables, "collections of arrays by name").items():
        check.mapping(f"variables: {kind}", tree, "arrays by name")
    shape = check.image_shape(image_shape)
    (before, _), (after, new_shapes) = (_called(module, shape) for module in (old, new))
    if len(before) != len(after):
        raise ValueError(f"old and new must call the same modules, but {len(before)} and {len(after)} of theirs hold arrays")
    written: dict[Path, Any] = {}
    copied = []
    for (old_path, first), (new_path, second) in zip(before.items(), after.items(), strict=True):
        layouts = first.layout, second.layout
        if None in layouts and (first.is_spatial or second.is_spatial) and first.fields != second.fields:
            copied.append(name_of(new_path))
        for kind, tree in variables.items():
            flat: dict[Path, Any] = traverse_util.flatten_dict(dict(tree))  # pyright: ignore[reportAssignmentType]
            arrays = {key[-1]: array for key, array in flat.items() if key[:-1] == old_path}
            if kind == "params" and first.layout is not None and second.layout is not None:
                arrays = second.written(transfer(first.used(arrays), first.layout, second.layout))
            written |= {(kind, *new_path, name): array for name, array in arrays.items()}
    expected: dict[Path, Any] = traverse_util.flatten_dict(new_shapes)  # pyright: ignore[reportAssignmentType]
    shapes = [{key: array.shape for key, array in flat.items()} for flat in (written, expected)]
    differing = [key for key in {*written, *expected} if shapes[0].get(key) != shapes[1].get(key)]
    if differing:
        raise ValueError(f"variables do not fit the new module: {', '.join(sorted(map(name_of, differing)))}")
    if copied:
        warnings.warn(f"transfer_variables copies the arrays of {', '.join(copied)} without conversion", stacklevel=2)
    return traverse_util.unflatten_dict(written)


class _Called(NamedTuple):
    """Describe a module that was called.

    Attributes:
      module: The module.
      layout: The layout that describes what it computes, or None.
    """

    module: Any
    layout: Layout | None

    @property
    def is_spatial(self) -> bool:
        return isinstance(self.module, (*SPATIAL, ConvTranspose, linen.ConvTranspose))

    @property
    def fields(self) -> dict[str, Any]:
        """The class and the fields that determine the function of the arrays."""
        names = [field.name for field in dataclasses.fields(self.module) if field.name not in ("name", "parent", "mask")]
        mask = getattr(self.module, "mask", None)
        fields = {"class": type(self.module), "mask": None if mask is None else np.asarray(mask).tolist()}
        return fields | {name: getattr(self.module, name) for name in names}

    def used(self, arrays: Arrays) -> Arrays:
        """Return the arrays of the layout, given those of the module."""
        mask = getattr(self.module, "mask", None)
        if mask is not None:
            arrays = arrays | {"kernel": arrays["kernel"] * jnp.asarray(mask)}
        if isinstance(self.module, (ConvLocal, linen.ConvLocal)):
            assert self.layout is not None
            arrays = arrays | {"kernel": split_kernel(arrays["kernel"], self.layout)}
        return arrays

    def written(self, arrays: Arrays) -> Arrays:
        """Return the arrays of the module, given those of the layout."""
        mask = getattr(self.module, "mask", None)
        if isinstance(self.module, (ConvLocal, linen.ConvLocal)):
            assert self.layout is not None
            arrays = arrays | {"kernel": fuse_kernel(arrays["kernel"], self.layout)}
        if mask is not None:
            kept = jnp.asarray(mask) != 0
            arrays = arrays | {"kernel": jnp.where(kept, arrays["kernel"] / jnp.where(kept, mask, 1), 0)}
        return arrays


def _called(module: linen.Module, image_shape: Sequence[int]) -> tuple[dict[Path, _Called], Any]:
    """Trace a module on one image: return the modules that hold arrays in the order of calls, and all shapes."""
    called: dict[Path, _Called] = {}

    def record(call, arguments, options, context):
        layer = context.module
        spatial = isinstance(layer, SPATIAL) and context.method_name == "__call__"
        layout = described_layout(layer, jnp.shape(next(iter((*arguments, *options.values()))))) if spatial else None
        if called.setdefault(layer.path, _Called(layer, layout)).layout != layout and spatial:
            raise ValueError(f"{name_of(layer.path)} reads images of several sizes but conversion needs one")
        return call(*arguments, **options)

    train: dict[str, Any] = {"train": False} if "train" in inspect.signature(type(module).__call__).parameters else {}
    with linen.intercept_methods(record):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *image_shape)), **train))
    owners = {key[1:-1] for key in traverse_util.flatten_dict(shapes)}
    return {path: entry for path, entry in called.items() if path in owners}, shapes
