"""Whole networks between the rungs: every spatial layer becomes its exact image, or the nearest of a stricter kind."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from convlab import check
from convlab.calls import Path, follow, is_stock, layout_of, modules_of, name_of
from convlab.layers import Layer
from convlab.rungs import Arrays, Layout, at, contains, on_the_way, transfer, tying

Only = str | Sequence[str] | Callable[[str], bool]  # patterns, or a function, of the path


def relax(
    model: nnx.Module,
    to: str,
    image_shape: Sequence[int],
    *,
    only: Only | None = None,
    optimizer: optax.GradientTransformation | None = None,
    **parameters: Any,
) -> nnx.Module:
    """Give a network's spatial layers the freedom of a rung, without changing what it computes.

    Every convlab layer and `nnx.Conv` that is stricter than the rung becomes its exact image there; layers that are as free
    already, and all else, stay as they are. Batch norm takes its statistics per channel, over all images and positions, so
    that the two networks agree in training, too (with the same batch, dropout keys included). A bias by position has several
    axes: an optimizer's mask such as `ndim > 1` then means it, too, where `convlab.optim.kernel_mask` does not.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape); left as it is.
      to: A rung: "tiled", "low_rank", "locally_connected" or "dense".
      image_shape: (*space, c) of one image, as a layer by position needs to know its pixels.
      only: Which layers: patterns of their paths ("stages/0/layer", "stages/*"), or a function of the path.
      optimizer: What it will be trained with: its state, and a gradient, are counted as needed memory.
      **parameters: The parameters of the rung. Of "tiled" `period`, 2 by default: an int, or one per axis; at most the
        positions there are. Of "low_rank" `rank`, 2 by default; the new mixtures start in the first of their kernels, the
        others at zero.

    Returns:
      A network of the same structure; `constrain` takes it back.

    Raises:
      ValueError: An unknown rung; a layer that is not contained in it (tiles in mixtures, or in tiles that they do not
        divide; groups of channels in tiles or mixtures); a layer that is never called, or on images of different sizes;
        patterns that no layer fits; a subclass with a call of its own, a layer inside `nnx.WeightNorm` or `nnx.SpectralNorm`,
        layers that are stacked, and arrays that two layers share.
      TypeError: `model` is no Flax NNX module, or needs more than images.
      MemoryError: It would not fit; the error names the bytes. Inside `convlab.allow_large_arrays()` it goes on all the same.

    Example:
      >>> from convlab.layers import Conv
      >>> model = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)
      >>> relax(model, "dense", (5, 7, 1)).layers[0].kernel.shape
      (5, 7, 5, 7, 1, 2)

    Reference: d'Ascoli et al. 2019, Finding the needle in the haystack with convolutions.
    """
    plan = _plan(model, to, image_shape, only, freer=True, **parameters)
    _fits(model, plan, optimizer)
    return _rebuilt(model, plan)


def constrain(
    model: nnx.Module,
    to: str,
    image_shape: Sequence[int],
    *,
    only: Only | None = None,
    strength: float = 1.0,
    **parameters: Any,
) -> nnx.Module:
    r"""Hold a network's spatial layers to a stricter rung: each becomes the nearest of it, or goes a share of the way.

    $$w \leftarrow w + s (P w - w)$$

    Nearest in the squared norm of the dense matrix, which is an orthogonal projection; of low rank, in that of the kernels.
    Layers that are as strict already stay as they are. What `relax` made of a layer becomes that layer again; only groups of
    channels, which dense layers do not know, come back as zeros between the groups. Arguments and errors as of `relax`.

    Args:
      model: A Flax NNX module; left as it is.
      to: A rung: "conv", "tiled", "low_rank" or "locally_connected".
      image_shape: (*space, c) of one image.
      only: Which layers, as in `relax`.
      strength: The share s of the way to the nearest layer. Below 1 the layers stay at their rung, with other weights; both
        rungs must be linear then, as all but "low_rank" are.
      **parameters: The parameters of the rung, as in `relax`.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> model = nnx.Sequential(LocallyConnected(1, 2, (3, 3), space=(5, 7), rngs=nnx.Rngs(0)))
      >>> constrain(model, "conv", (5, 7, 1)).layers[0].kernel.shape
      (3, 3, 1, 2)
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is a share of the way to the stricter rung, from 0 to 1; got {strength}")
    plan = _plan(model, to, image_shape, only, freer=False, **parameters)
    if strength == 1:
        return _rebuilt(model, plan)
    for path, (old, new) in plan.items():
        if not (old.tying.is_linear and new.tying.is_linear):
            raise ValueError(
                f"{name_of(path)}: from {_named(old)} to {_named(new)} no share of the way leads; needs strength=1"
            )
    return nnx.recursive_map(
        lambda path, node: _pulled(node, *plan[path], strength) if path in plan else node, nnx.clone(model)
    )


def layouts(model: nnx.Module, image_shape: Sequence[int], paths: Sequence[Path] | None = None) -> dict[Path, Layout]:
    """Find the layout of every spatial layer, its pixels included, by path; or of those asked for.

    Raises:
      ValueError: A layer is never called, or on images of different sizes.
    """
    seen: dict[Path, set[tuple[int, ...]]] = {}
    for path, call in follow(model, image_shape, Layer, nnx.Conv).calls:
        layout = layout_of(call.module)
        if layout is not None:
            seen.setdefault(path, set()).add(call.x.shape[-1 - (layout.window.rank or 1) : -1])
    found = {}
    for path, module in modules_of(model).items():
        layout = layout_of(module)
        if layout is not None and (paths is None or path in paths):
            spaces = seen.get(path, set())
            if len(spaces) != 1:
                sizes = " and ".join(str(space) for space in sorted(spaces)) or "none"
                raise ValueError(f"{name_of(path)} reads images of {sizes} pixels; a layer by position needs one size")
            found[path] = dataclasses.replace(layout, space=spaces.pop())
    return found


def paired(old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]) -> tuple[dict[Path, Layout], dict[Path, Layout]]:
    """Find the layouts of two networks of the same structure.

    Raises:
      ValueError: They have spatial layers at different paths.
    """
    before, after = layouts(old, image_shape), layouts(new, image_shape)
    if before.keys() != after.keys():
        names = ", ".join(name_of(path) for path in before.keys() ^ after.keys())
        raise ValueError(f"the networks do not have the same spatial layers: {names} is in one of them only")
    return before, after


def arrays_of(module: nnx.Module) -> Arrays:
    """Take the arrays of a spatial layer, by name; of a kernel that Flax masks, what is left."""
    layout = layout_of(module)
    names = ("kernel",) if layout is None else layout.tying.arrays
    arrays = {name: getattr(module, name)[...] for name in names}
    mask = getattr(module, "mask", None)
    if mask is not None:
        arrays["kernel"] = arrays["kernel"] * mask
    bias = getattr(module, "bias", None)
    return arrays if bias is None else arrays | {"bias": bias[...]}


def _plan(
    model: nnx.Module, to: str, image_shape: Sequence[int], only: Only | None, *, freer: bool, **parameters: Any
) -> dict[Path, tuple[Layout, Layout]]:
    """Say which layers change, from which layout to which."""
    tying(to, **parameters)
    modules = modules_of(model)
    kinds = {path: module for path, module in modules.items() if isinstance(module, (Layer, nnx.Conv))}
    paths = chosen([path for path, module in kinds.items() if layout_of(module) or not is_stock(module)], only)
    for path in paths:
        _is_understood(path, modules)
    found = layouts(model, image_shape, paths)
    plan = {}
    for path, old in found.items():
        try:
            new = at(old, to, **parameters)
        except ValueError as error:
            raise ValueError(f"{name_of(path)}: {error}") from None
        more, less = (new, old) if freer else (old, new)
        if contains(more, less):
            plan[path] = (old, new)
        elif not contains(less, more):
            wrong = f"is not contained in {_named(new)}: relax it to a freer rung"
            if not freer:
                wrong = f"does not contain {_named(new)}: constrain it to a stricter rung"
            raise ValueError(f"{name_of(path)}: {_named(old)} {wrong}")
    plan = {path: (old, new) for path, (old, new) in plan.items() if old != new}
    _own_their_arrays(plan, modules)
    return plan


def _is_understood(path: Path, modules: dict[Path, nnx.Module]) -> None:
    """Raise ValueError unless a layer computes what its class says, with the arrays that it holds."""
    kind, others = type(modules[path]).__name__, "; leave it out by only="
    if not is_stock(modules[path]):
        raise ValueError(f"{name_of(path)}: {kind} has a call of its own, of which nothing is known{others}")
    for above in (path[:length] for length in range(len(path))):
        if isinstance(modules.get(above), (nnx.WeightNorm, nnx.SpectralNorm)):
            norm = type(modules[above]).__name__
            raise ValueError(f"{name_of(path)}: {norm} computes its arrays anew, by rules for their old shape{others}")


def _own_their_arrays(paths: Iterable[Path], modules: dict[Path, nnx.Module]) -> None:
    """Raise ValueError where an array of one of these layers is also another module's: the two would no longer be tied."""
    owners: dict[int, list[Path]] = {}
    for path, module in modules.items():
        for name, value in vars(module).items():
            if isinstance(value, nnx.Variable):
                owners.setdefault(id(value), []).append((*path, name))
    for places in owners.values():
        if len(places) > 1 and {place[:-1] for place in places} & {*paths}:
            names = " and ".join(map(name_of, places))
            raise ValueError(f"{names} are one array: tied arrays cannot change apart; share the whole layer, or untie them")


def chosen(paths: Sequence[Path], only: Only | None) -> list[Path]:
    """Pick the layers that are meant: all, those whose path fits a pattern, or those that a function of the path picks.

    Raises:
      ValueError: A pattern fits none.
      TypeError: It is neither patterns nor a function.

    Example:
      >>> chosen([("stages", 0, "layer"), ("stages", 1, "layer")], "stages/1/*")
      [('stages', 1, 'layer')]
    """
    if only is None:
        return list(paths)
    if callable(only) and not isinstance(only, type):
        return [path for path in paths if only(name_of(path))]
    given: list[Any] = [only] if isinstance(only, str) or not isinstance(only, Iterable) else [*only]
    patterns = [pattern for pattern in given if isinstance(pattern, str)]
    if len(patterns) < len(given):
        raise TypeError(f"only must be patterns of paths, such as 'stages/0/*', or a function of the path; got {only!r}")
    names = {path: name_of(path) for path in paths}
    for pattern in patterns:
        if not fnmatch.filter(names.values(), pattern):
            raise ValueError(f"only={pattern!r} fits no layer; there are {', '.join(names.values())}")
    return [path for path, name in names.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _rebuilt(model: nnx.Module, plan: dict[Path, tuple[Layout, Layout]]) -> nnx.Module:
    """Copy a network, with the layers of the plan at their new rung."""

    def built(path: Path, node: Any) -> Any:
        return _layer(node, *plan[path]) if path in plan else node

    return nnx.recursive_map(built, nnx.clone(model))


def _layer(module: Any, old: Layout, new: Layout) -> Layer:
    """Make the layer that a layer becomes, computing as it did."""
    kept = {name: getattr(module, name, None) for name in ("dtype", "param_dtype", "precision", "preferred_element_type")}
    first, *_ = old.tying.arrays
    arrays = transfer(arrays_of(module), old, new)
    held = {name: _holding(array, getattr(module, name, getattr(module, first))) for name, array in arrays.items()}
    return Layer.from_layout(new, held, **kept)


def _pulled(module: Any, old: Layout, new: Layout, strength: float) -> Any:
    """Move the arrays of a layer a share of the way to those of the nearest stricter one."""
    arrays = arrays_of(module)
    nearest = transfer(transfer(arrays, old, new), new, old)
    for name, array in arrays.items():
        setattr(module, name, _holding(array + strength * (nearest[name] - array), getattr(module, name)))
    return module


def _holding(array: jax.Array, old: nnx.Variable) -> nnx.Variable:
    """A variable of the same type, such as one that is not trained; how an array was spread over devices is forgotten."""
    return old.replace(array, **({"out_sharding": None} if "out_sharding" in old.get_metadata() else {}))


def _fits(model: nnx.Module, plan: dict[Path, tuple[Layout, Layout]], optimizer: optax.GradientTransformation | None) -> None:
    """Raise MemoryError unless the network finds room, first with what the transfer needs, then with the optimizer's arrays."""
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: _rebuilt(model, plan)), nnx.Param))
    largest = max((on_the_way(old, new) for old, new in plan.values()), default=0)
    check.fits({"parameters": shapes, "kernels on the way": jax.ShapeDtypeStruct((largest,), jnp.float32)})
    if optimizer is not None:
        state = jax.eval_shape(optimizer.init, shapes)
        check.fits({"parameters": shapes, "a gradient": shapes, "the optimizer's state": state})


def _named(layout: Layout) -> str:
    parameters = " and ".join(f"{name} {value}" for name, value in vars(layout.tying).items())
    return f"{layout.rung} of {parameters}" if parameters else layout.rung
