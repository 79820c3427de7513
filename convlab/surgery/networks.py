"""Conversion of the spatial layers of whole networks between rungs."""

import fnmatch
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from convlab import check
from convlab.calls import (
    SPATIAL,
    Described,
    Path,
    describe,
    is_stock,
    layouts,
    left_alone,
    modules_of,
    name_of,
    names_with_reasons,
)
from convlab.layers import Layer
from convlab.rungs import Arrays, Layout, contains, conversion_entries, make_tying, transfer, transfer_mask, with_rung

OPTIONS = ("dtype", "param_dtype", "precision", "promote_dtype", "preferred_element_type")  # which a converted layer keeps
Only = str | Sequence[str] | Callable[[str], bool]  # patterns of paths, or a predicate of a path


def relax(
    model: nnx.Module,
    to: str,
    image_shape: Sequence[int],
    *,
    only: Only | None = None,
    optimizer: optax.GradientTransformation | None = None,
    **parameters: Any,
) -> nnx.Module:
    r"""Convert a network's spatial layers to a freer rung, without changing its function.

    $$E'(L\, v) = E(v)$$

    L lifts the kernel v of a layer, and E and E' write the kernels of the two rungs as dense matrices.

    Every convlab layer, `nnx.Conv` or `nnx.ConvTranspose` that is stricter than the rung becomes a layer on that rung. Layers
    that are already as free, and all other modules, are unchanged; `convlab.diff` shows what changed. A warning names
    convolutions that are left alone because no rung describes them, for example with input dilation. If no layer changes, a
    warning says why.

    A mask of weights is kept: the new layer cannot use what the mask removed. Other values than 0 and 1 of a mask become part
    of the kernel.

    The two networks also agree in training mode, with the same batch and dropout keys, until the first update. Their updates
    differ, as the freer network has more parameters.

    A bias per position has several axes. An optimizer's mask such as `ndim > 1` therefore includes it, while
    `convlab.optim.kernel_mask` does not.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape). It is not changed.
      to: The new rung: "conv", "tiled", "low_rank", "locally_connected" or "dense".
      image_shape: The shape (*space, c) of one image. It gives every layer its number of pixels.
      only: The layers to convert, as patterns of their paths ("stages/0/layer", "stages/*") or a predicate of the path. If
        None, all layers.
      optimizer: The optimizer of the later training. Its state and a gradient then count as needed memory.
      **parameters: The parameters of the rung. "tiled" takes `period`, by default 2: an int or one per axis, at most the
        number of positions. "low_rank" takes `rank`, by default 2. The old kernel becomes the first of the mixture, and
        the other kernels start at zero. Both are clipped to what a layer allows. Parameters of other rungs are ignored.

    Returns:
      A network of the same structure, which `constrain` converts back.

    Raises:
      ValueError: The rung is unknown. A layer is not contained in it, such as a tiled layer in a low-rank one, tiles in
        tiles whose period they do not divide, or groups of channels in a tiled or low-rank layer. A layer is never called,
        or called on images of different sizes. A pattern matches no layer. A layer belongs to a subclass that overrides the
        call, to `nnx.WeightNorm` or `nnx.SpectralNorm`, or to stacked layers, or shares an array with another module.
      TypeError: `model` is not a Flax NNX module, or requires more arguments than images.
      MemoryError: The network would not fit; the error gives the bytes. `convlab.allow_large_arrays()` turns the check off.

    Example:
      >>> from convlab.layers import Conv
      >>> model = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)
      >>> relax(model, "dense", (5, 7, 1)).layers[0].kernel.shape
      (5, 7, 5, 7, 1, 2)

    Reference: d'Ascoli et al. 2019, Finding the needle in the haystack with convolutions.
    """
    plan = _plan(model, to, image_shape, only, freer=True, **parameters)
    if optimizer is not None:
        check.instance("optimizer", optimizer, optax.GradientTransformation, "an Optax gradient transformation")
    _warn_of_unchanged("relax", plan, model, to, image_shape, only)
    _fits(model, plan, optimizer)
    return _convert(model, plan)


def constrain(
    model: nnx.Module,
    to: str,
    image_shape: Sequence[int],
    *,
    only: Only | None = None,
    strength: float = 1.0,
    **parameters: Any,
) -> nnx.Module:
    r"""Project a network's spatial layers to a stricter rung, or move them part of the way.

    $$w \leftarrow w + s (P w - w)$$

    P finds the nearest layer by the squared norm of the dense matrix, which is an orthogonal projection. For low rank the
    norm is that of the kernels. Layers that are already as strict are unchanged. If no layer changes, a warning says why.
    Relaxing a layer and then constraining it to its old rung restores its weights. As an exception, a grouped convolution
    that went through "dense" comes back without groups, with zeros between them. An `nnx.Conv` comes back as a `convlab.Conv`,
    and a transposed convolution as a `convlab.ConvTranspose` with `transpose_kernel`. If several taps of a window read one
    pixel, a layer with a mask may not be the nearest.

    Args:
      model: A Flax NNX module. It is not changed.
      to: The new rung: "conv", "symmetric", "tiled", "low_rank" or "locally_connected".
      image_shape: The shape (*space, c) of one image.
      only: The layers to convert, as in `relax`.
      strength: The share s of the way to the nearest layer. Below 1 the layers keep their rung and get other weights. Both
        rungs must then be linear; all but "low_rank" are.
      **parameters: The parameters of the rung, as in `relax`.

    Raises:
      ValueError: The strength is not from 0 to 1, or below 1 with a rung that is not linear; and all errors of `relax`.
      TypeError: The strength is not a number; and all errors of `relax`.

    Example:
      >>> from convlab.layers import LocallyConnected
      >>> model = nnx.Sequential(LocallyConnected(1, 2, (3, 3), space=(5, 7), rngs=nnx.Rngs(0)))
      >>> constrain(model, "conv", (5, 7, 1)).layers[0].kernel.shape
      (3, 3, 1, 2)
    """
    strength = check.number("strength", strength)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, got {strength}")
    plan = _plan(model, to, image_shape, only, freer=False, **parameters)
    _warn_of_unchanged("constrain", plan, model, to, image_shape, only)
    if strength == 1:
        return _convert(model, plan)
    for path, (old, new) in plan.items():
        if not (old.tying.is_linear and new.tying.is_linear):
            raise ValueError(f"{name_of(path)}: strength below 1 needs linear rungs, got {_describe(old)} and {_describe(new)}")
    return nnx.recursive_map(lambda path, node: _move(node, *plan[path], strength) if path in plan else node, nnx.clone(model))


def paired(old: nnx.Module, new: nnx.Module, image_shape: Sequence[int]) -> tuple[dict[Path, Layout], dict[Path, Layout]]:
    """Return the layouts of two networks of the same structure.

    Raises:
      ValueError: The networks have spatial layers at different paths.
    """
    before, after = layouts(old, image_shape), layouts(new, image_shape)
    if before.keys() != after.keys():
        names = ", ".join(name_of(path) for path in before.keys() ^ after.keys())
        raise ValueError(f"old and new must have the same spatial layers, but only one of them has {names}")
    return before, after


def described_layer(module: nnx.Module) -> Described:
    """Return the description of a spatial layer that is known to have a layout."""
    layer = describe(module)
    assert layer is not None
    return layer


def arrays_of(module: nnx.Module) -> Arrays:
    """Return the arrays of a spatial layer by name, as its layout describes them, with masks applied."""
    layer, bias = described_layer(module), getattr(module, "bias", None)
    arrays = layer.arrays({name: getattr(module, name)[...] for name in layer.layout.tying.arrays})
    return arrays if bias is None else arrays | {"bias": bias[...]}


def _plan(
    model: nnx.Module, to: str, image_shape: Sequence[int], only: Only | None, *, freer: bool, **parameters: Any
) -> dict[Path, tuple[Layout, Layout]]:
    """Return the layers to convert, each with its old and new layout, by path."""
    make_tying(to, **parameters)
    modules = modules_of(model)
    alone = left_alone(model)
    layers = [path for path, module in modules.items() if isinstance(module, SPATIAL)]
    paths = [path for path in chosen(layers, only) if path not in alone or not is_stock(modules[path])]
    for path in paths:
        _check_supported(path, modules)
    before = layouts(model, image_shape, paths)
    plan = {}
    for path, old in before.items():
        try:
            new = with_rung(old, to, **parameters)
        except ValueError as error:
            raise ValueError(f"{name_of(path)}: {error}") from None
        outer, inner = (new, old) if freer else (old, new)
        if contains(outer, inner):
            plan[path] = (old, new)
        elif not contains(inner, outer):
            problem, advice = "is not contained in", "relax it to a freer rung"
            if not freer:
                problem, advice = "does not contain", "constrain it to a stricter rung"
            if type(old.tying) is type(new.tying):
                advice = old.tying.comparable(old, freer) or advice
            raise ValueError(f"{name_of(path)}: {_describe(old)} {problem} {_describe(new)}: {advice}")
    plan = {path: (old, new) for path, (old, new) in plan.items() if old != new}
    _check_unshared(plan, modules)
    return plan


def _warn_of_unchanged(
    function: str, plan: dict, model: nnx.Module, to: str, image_shape: Sequence[int], only: Only | None
) -> None:
    """Warn of selected layers that no rung describes, and if no layer changes, with the reason."""
    paths = [path for path, module in modules_of(model).items() if isinstance(module, SPATIAL)]
    selected, alone = chosen(paths, only), left_alone(model)
    if unchanged := {path: alone[path] for path in selected if path in alone}:
        warnings.warn(f"{function} leaves alone {names_with_reasons(unchanged)}", stacklevel=3)
    known = [path for path in selected if path not in alone]
    if plan or (unchanged and not known):
        return
    rungs = sorted({layout.rung for layout in layouts(model, image_shape, known).values()})
    than = "free" if function == "relax" else "strict"
    why = f"all selected layers ({', '.join(rungs)}) are already as {than} as {to!r}"
    if not known:
        why = "only= selects no layer" if paths else "it has no spatial layers"
    warnings.warn(f"{function} changes no layer of {type(model).__name__}: {why}", stacklevel=3)


def _check_supported(path: Path, modules: dict[Path, nnx.Module]) -> None:
    """Raise ValueError unless a layer uses the call of its class with the arrays that it holds."""
    kind, advice = type(modules[path]).__name__, "; exclude it with only="
    if not is_stock(modules[path]):
        raise ValueError(f"{name_of(path)}: {kind} overrides the call of its class, so its function is unknown{advice}")
    for parent in (path[:length] for length in range(len(path))):
        if isinstance(modules.get(parent), (nnx.WeightNorm, nnx.SpectralNorm)):
            norm = type(modules[parent]).__name__
            raise ValueError(f"{name_of(path)}: {norm} recomputes its arrays in their old shape{advice}")


def _check_unshared(paths: Iterable[Path], modules: dict[Path, nnx.Module]) -> None:
    """Raise ValueError if another module shares an array of one of these layers."""
    owners: dict[int, list[Path]] = {}
    for path, module in modules.items():
        for name, value in vars(module).items():
            if isinstance(value, nnx.Variable):
                owners.setdefault(id(value), []).append((*path, name))
    for owner_paths in owners.values():
        if len(owner_paths) > 1 and {path[:-1] for path in owner_paths} & {*paths}:
            names = " and ".join(map(name_of, owner_paths))
            raise ValueError(
                f"{names} are one array, but conversion changes it in one place only; share the whole layer or untie them"
            )


def chosen(paths: Sequence[Path], only: Only | None) -> list[Path]:
    """Select layers by patterns of their paths or by a predicate. None selects all.

    Raises:
      ValueError: A pattern matches no layer.
      TypeError: `only` is neither a pattern, several patterns nor a function.

    Example:
      >>> chosen([("stages", 0, "layer"), ("stages", 1, "layer")], "stages/1/*")
      [('stages', 1, 'layer')]
    """
    if only is None:
        return list(paths)
    if callable(only) and not isinstance(only, type):
        return [path for path in paths if only(name_of(path))]
    collection: Any = only if isinstance(only, Iterable) and not isinstance(only, str) and np.ndim(only) else [only]  # pyright: ignore
    entries: list[Any] = [*collection]
    patterns = [pattern for pattern in entries if isinstance(pattern, str)]
    if len(patterns) < len(entries):
        raise TypeError(f"only must be patterns of paths, such as 'stages/0/*', or a predicate of the path, got {only!r}")
    names = {path: name_of(path) for path in paths}
    for pattern in patterns:
        if not fnmatch.filter(names.values(), pattern):
            raise ValueError(f"only={pattern!r} matches no layer; the layers are {', '.join(names.values())}")
    return [path for path, name in names.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _convert(model: nnx.Module, plan: dict[Path, tuple[Layout, Layout]]) -> nnx.Module:
    """Copy a network, with the layers of the plan on their new rung."""

    def convert(path: Path, node: Any) -> Any:
        return _convert_layer(node, *plan[path]) if path in plan else node

    return nnx.recursive_map(convert, nnx.clone(model))


def _convert_layer(module: Any, old: Layout, new: Layout) -> Layer:
    """Convert one layer, keeping its dtypes and precision."""
    options = {name: getattr(module, name, None) for name in OPTIONS}
    first, *_ = old.tying.arrays
    arrays = transfer(arrays_of(module), old, new)
    variables = {name: _with_value(array, getattr(module, name, getattr(module, first))) for name, array in arrays.items()}
    layer = Layer.from_layout(new, variables, **{name: value for name, value in options.items() if value is not None})
    mask = described_layer(module).mask
    if mask is not None:
        layer.mask = nnx.data(transfer_mask(mask, old, new))
    return layer


def _move(module: Any, old: Layout, new: Layout, strength: float) -> Any:
    """Move the arrays of a layer a share of the way to those of the nearest stricter layer."""
    arrays, turned = arrays_of(module), described_layer(module).turned
    nearest = transfer(transfer(arrays, old, new), new, old)
    for name, array in arrays.items():
        moved = array + strength * (nearest[name] - array)
        setattr(module, name, _with_value(moved if name == "bias" else turned(moved), getattr(module, name)))
    return module


def _with_value(array: jax.Array, old: nnx.Variable) -> nnx.Variable:
    """Make a variable of the same type, without the sharding of the old array."""
    return old.replace(array, **({"out_sharding": None} if "out_sharding" in old.get_metadata() else {}))


def _fits(model: nnx.Module, plan: dict[Path, tuple[Layout, Layout]], optimizer: optax.GradientTransformation | None) -> None:
    """Raise MemoryError unless a converted network and its training fit into memory.

    The conversion itself is checked first, then the parameters with a gradient and the optimizer's state.
    """
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: _convert(model, plan)), nnx.Param))
    largest = max((conversion_entries(old, new) for old, new in plan.values()), default=0)
    check.fits_in_memory({"parameters": shapes, "kernels during the conversion": jax.ShapeDtypeStruct((largest,), jnp.float32)})
    if optimizer is not None:
        state = jax.eval_shape(optimizer.init, shapes)
        check.fits_in_memory({"parameters": shapes, "a gradient": shapes, "the optimizer's state": state})


def _describe(layout: Layout) -> str:
    parameters = " and ".join(f"{name} {value}" for name, value in vars(layout.tying).items())
    return f"{layout.rung} of {parameters}" if parameters else layout.rung
