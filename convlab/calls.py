"""Traces of a network on one image: the modules that it calls, their shapes, and their layouts."""

import contextlib
import dataclasses
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Jaxpr

from convlab import check
from convlab.layers import ConvTranspose, Layer
from convlab.rungs import Arrays, Layout, Shared, make_window
from convlab.rungs.flax_conventions import alignment, reversed_kernel, transposed_window

Path = tuple[Any, ...]  # the attribute names and indices that lead to a module
ARRAYS = (jax.Array, np.ndarray)
STOCK = (nnx.Conv, nnx.ConvTranspose)  # Flax's spatial layers
SPATIAL = (Layer, *STOCK)
Mark = Callable[[int, jax.Array], jax.Array]  # takes the number of a call and an array, and returns the array to use
REPLACING = threading.RLock()  # held while methods of classes are replaced, as a single thread can restore them


class Call(NamedTuple):
    """Record one call of a module: the shapes and dtypes of its input and output.

    Attributes:
      module: The module.
      x: The shape and dtype of the input.
      h: The shape and dtype of the output.
    """

    module: nnx.Module
    x: jax.ShapeDtypeStruct
    h: jax.ShapeDtypeStruct


class Trace(NamedTuple):
    """Record what a network computes from one image.

    Attributes:
      calls: The calls with the paths of their modules, in order. The path of a module that is no part of the network is None.
      output: The shape and dtype of the network's first output array.
      jaxpr: The operations.
      entered: The paths of all modules that are called, recorded or not, in the order of their first calls.
    """

    calls: list[tuple[Path | None, Call]]
    output: jax.ShapeDtypeStruct
    jaxpr: Jaxpr
    entered: list[Path]

    def module_of(self, name_stack: str) -> Path:
        """Return the path of the innermost module in whose call an operation with this name stack stands."""
        numbers = SCOPE.findall(name_stack)
        return self.entered[int(numbers[-1])] if numbers else ()


def _unchanged(number: int, array: jax.Array) -> jax.Array:
    return array


@contextlib.contextmanager
def recorded(*kinds: type[nnx.Module], enter: Mark = _unchanged, leave: Mark = _unchanged) -> Iterator[list[Call]]:
    """Record every call of modules of the given classes, except calls nested in such calls.

    Calls whose first argument or output is no array, and those of other threads, are not recorded.

    Args:
      kinds: The classes of modules to record.
      enter: A function of the number of a call and its input, which returns the input to use.
      leave: A function of the number of a call and its output, which returns the output to use.

    Example:
      >>> layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> with recorded(nnx.Linear) as calls:
      ...     _ = layer(jnp.ones((5, 3)))
      >>> calls[0].h.shape
      (5, 2)
    """
    calls, inside, thread = [], [], threading.get_ident()

    def recording(original):
        def call(self, *args, **kwargs):
            if inside or threading.get_ident() != thread:
                return original(self, *args, **kwargs)
            bound = inspect.signature(original).bind(self, *args, **kwargs)
            _, first, *_ = [*bound.arguments, None]
            if not isinstance(bound.arguments.get(first), (*ARRAYS, list, int, float)):
                return original(self, *args, **kwargs)
            x = bound.arguments[first] = enter(len(calls), jnp.asarray(bound.arguments[first]))
            inside.append(self)
            try:
                h = original(*bound.args, **bound.kwargs)
                h = leave(len(calls), jnp.asarray(h)) if isinstance(h, ARRAYS) else h
            except (TypeError, ValueError) as error:
                setattr(error, PATH_ATTRIBUTE, getattr(self, PATH_ATTRIBUTE, None))
                raise
            inside.pop()
            if isinstance(h, ARRAYS):
                calls.append(Call(self, _shape_of(x), _shape_of(h)))
            return h

        return call

    with REPLACING:
        originals = {kind: kind.__call__ for kind in kinds}
        inherited = {kind for kind in kinds if "__call__" not in vars(kind)}
        try:
            for kind, original in originals.items():
                kind.__call__ = recording(original)
            yield calls
        finally:
            for kind, original in originals.items():
                if kind in inherited:
                    del kind.__call__
                else:
                    kind.__call__ = original


SCOPE = re.compile(r"convlab-module-(\d+)")


@contextlib.contextmanager
def _scoped(modules: Iterable[nnx.Module]) -> Iterator[list[Path]]:
    """Write the number of each module into the name stacks of the operations in its calls.

    Modules are numbered in the order of their first calls. The list holds their paths, as their tags have them. Calls of public
    methods count too.
    """
    entered: list[Path] = []

    def scoped(original):
        @functools.wraps(original)
        def call(self, *args, **kwargs):
            tag = getattr(self, PATH_ATTRIBUTE, None)
            if tag is None:
                return original(self, *args, **kwargs)
            if tag.path not in entered:
                entered.append(tag.path)
            with jax.named_scope(f"convlab-module-{entered.index(tag.path)}"):
                return original(self, *args, **kwargs)

        return call

    kinds = {kind for module in modules for kind in type(module).__mro__} - {*nnx.Module.__mro__}
    with REPLACING:
        originals = [
            (kind, name, value)
            for kind in kinds
            if issubclass(kind, nnx.Module)
            for name, value in vars(kind).items()
            if (name == "__call__" or not name.startswith("_")) and _is_method(value)
        ]
        try:
            for kind, name, original in originals:
                setattr(kind, name, scoped(original))
            yield entered
        finally:
            for kind, name, original in originals:
                setattr(kind, name, original)


def _is_method(value: Any) -> bool:
    """Return True if an entry of a class becomes a method of its instances."""
    return callable(value) and inspect.isroutine(value) and not isinstance(value, (staticmethod, classmethod))


def _shape_of(array: jax.Array | np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


PATH_ATTRIBUTE = "_pytree__convlab_path"  # with another prefix, Flax takes an attribute of a Linen module for a variable


class _PathTag:
    """Hold the path of a module as one of its attributes, which survives transforms that copy the module.

    Two tags never compare equal, so that JAX reuses no compiled function from its cache.
    """

    def __init__(self, path: Path):
        self.path = path


def follow(
    model: nnx.Module, image_shape: Sequence[int], *kinds: type[nnx.Module], enter: Mark = _unchanged, leave: Mark = _unchanged
) -> Trace:
    """Trace one image through a network in evaluation mode, without computing anything.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape). It is not changed, even if it writes to itself.
      image_shape: The shape (*space, c) of one image.
      kinds: The classes of modules to record.
      enter: A function of the number of a call and its input, as in `recorded`.
      leave: A function of the number of a call and its output, as in `recorded`.

    Raises:
      ValueError: The model does not accept such images.
      TypeError: The model is not a Flax NNX module, or requires more arguments than images. Or `image_shape` is not a sequence
        of integers.

    Example:
      >>> [(path, call)] = follow(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), (5, 7, 3), nnx.Linear).calls
      >>> path, call.h.shape
      (('layers', 0), (1, 5, 7, 2))
    """
    modules_of(model)
    image = jax.ShapeDtypeStruct((1, *check.image_shape(image_shape)), jnp.float32)
    _check_takes_images(model, image)
    model = nnx.clone(model)
    model.eval()
    modules = {path: module for path, module in modules_of(model).items() if not isinstance(module, (nnx.List, nnx.Dict))}
    for path, module in modules.items():
        setattr(module, PATH_ATTRIBUTE, _PathTag(path))
    definition, state = nnx.split(model)
    run = jax.make_jaxpr(lambda state, x: nnx.merge(definition, state)(x), return_shape=True)
    try:
        with recorded(*kinds, enter=enter, leave=leave) as calls, _scoped(modules.values()) as entered:
            traced, output = run(state, image)
    except (TypeError, ValueError) as error:
        tag = getattr(error, PATH_ATTRIBUTE, None)
        where = "" if tag is None else f"{name_of(tag.path)}: "
        raise ValueError(f"image_shape {image.shape[1:]} does not fit {type(model).__name__}: {where}{error}") from error
    first = next(iter(jax.tree.leaves(output)), jax.ShapeDtypeStruct((), jnp.float32))
    paths = [getattr(getattr(call.module, PATH_ATTRIBUTE, None), "path", None) for call in calls]
    return Trace(list(zip(paths, calls, strict=True)), first, traced.jaxpr, entered)


def modules_of(model: nnx.Module) -> dict[Path, nnx.Module]:
    """Return all modules of a network by path, including the network itself. Shared modules occur once.

    Raises:
      TypeError: The model is not a Flax NNX module.
    """
    if not isinstance(model, nnx.Module):
        kind = type(model).__name__
        raise TypeError(f"model must be a Flax NNX module, got {kind}; convlab.surgery.transfer_variables is for Linen modules")
    return {tuple(path): module for path, module in nnx.iter_modules(model)}


def _check_takes_images(model: nnx.Module, image: jax.ShapeDtypeStruct) -> None:
    """Raise TypeError unless the model can be called with images alone."""
    kind = type(model)
    try:
        inspect.signature(kind.__call__).bind(model, image)
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__} must be callable with images alone ({error}): give its other arguments a default,"
            " or wrap it in a module that does"
        ) from None


def check_not_stacked(path: Path, module: Any) -> None:
    """Raise ValueError if a module holds the stacked arrays of several layers, as `nnx.vmap` makes."""
    layout, name, axes = layout_of(module, transposed=True), "kernel", 2
    if layout is not None:
        name, *_ = layout.tying.arrays
        axes = len(layout.tying.shapes(layout)[name])
    shape = jnp.shape(getattr(module, name)) if isinstance(module, nnx.Linear) or layout is not None else ()
    if shape and len(shape) != axes:
        raise ValueError(
            f"{name_of(path)} holds stacked layers, as nnx.vmap and nnx.scan make: its {name} has shape {shape}, but one"
            f" layer's has {axes} axes; hold the layers in an nnx.List"
        )


def name_of(path: Path) -> str:
    """Join the parts of a path with slashes."""
    return "/".join(map(str, path)) or "the model"


def is_stock(module: nnx.Module) -> bool:
    """Return True if a spatial layer has the call and the convolution of its own class."""
    ours = Layer.__module__.rpartition(".")[0]
    kind = next(kind for kind in type(module).__mro__ if kind in STOCK or kind.__module__.startswith(ours))
    convolution = getattr(module, "conv_general_dilated", jax.lax.conv_general_dilated)
    return type(module).__call__ is kind.__call__ and convolution is jax.lax.conv_general_dilated


def layout_of(module: nnx.Module, *, transposed: bool = False) -> Layout | None:
    """Return the layout of a spatial layer, or None for any other module.

    It is also None for subclasses that override the call, and for layers that no layout describes. These are layers with input
    dilation, and transposed layers whose "CIRCULAR" padding aligns the result unlike any circular convolution.

    Args:
      module: Any module.
      transposed: Whether to return the layouts of transposed layers too. They describe the layer that is transposed.
    """
    if not isinstance(module, SPATIAL) or not is_stock(module):
        return None
    layout = module.layout if isinstance(module, Layer) else _flax_layout(module)
    return layout if layout is not None and (transposed or not layout.transposed) else None


def _flax_layout(module: Any) -> Layout | None:
    """Return the layout of Flax's convolutions."""
    arguments = module.kernel_size, module.strides
    options: dict[str, Any] = {"use_bias": module.bias is not None}
    if isinstance(module, nnx.Conv):
        if np.any(np.array(module.input_dilation or 1) > 1):
            return None
        window = make_window(*arguments, module.padding, module.kernel_dilation, None)
        options["groups"] = module.feature_group_count
        return Layout(Shared(), window, module.in_features, module.out_features, **options)
    window = transposed_window(make_window(*arguments, module.padding, module.kernel_dilation, None))
    if any(alignment(window, module.transpose_kernel)):
        return None
    return Layout(Shared(), window, module.out_features, module.in_features, transposed=True, **options)


class Described(NamedTuple):
    """Describe a spatial layer, whatever class it has, without its parameters.

    Attributes:
      layout: The layout. Of a transposed layer, it describes the layer that is transposed.
      mask: The mask of the first array, in the layout's orientation, or None.
      is_reversed: Whether the layer holds its kernel reversed, as Flax's transposed convolutions do.
    """

    layout: Layout
    mask: jax.Array | None
    is_reversed: bool

    def arrays(self, parameters: Mapping[str, jax.Array]) -> Arrays:
        """Return the arrays of the layout, given those of the layer: masked and in the layout's orientation."""
        first, *others = self.layout.tying.arrays
        kernel = self.turned(parameters[first])
        return {first: kernel if self.mask is None else kernel * self.mask} | {name: parameters[name] for name in others}

    def turned(self, kernel: jax.Array) -> jax.Array:
        """Turn a kernel from the layer's orientation to the layout's, or back."""
        return reversed_kernel(kernel) if self.is_reversed else kernel


def describe(module: Any) -> Described | None:
    """Return the description of a spatial layer, or None if no layout describes the module.

    Raises:
      ValueError: The mask is abstract, or has another shape than the weights.
    """
    layout = layout_of(module, transposed=True)
    if layout is None:
        return None
    first, *_ = layout.tying.arrays
    mask, shape = getattr(module, "mask", None), jnp.shape(getattr(module, first))
    if mask is not None and jnp.shape(mask) != shape:
        raise ValueError(f"mask must have the shape of the weights, {shape}, got {jnp.shape(mask)}")
    if isinstance(mask, jax.ShapeDtypeStruct):
        raise ValueError("mask must be an array, got only its shape; needs a model with values")
    is_reversed = isinstance(module, (ConvTranspose, nnx.ConvTranspose)) and not module.transpose_kernel
    layer = Described(layout, None, is_reversed)
    return layer if mask is None else layer._replace(mask=layer.turned(jnp.asarray(mask)))


def described(model: nnx.Module) -> dict[Path, Described]:
    """Return the description of every spatial layer that has a layout, by path.

    Raises:
      ValueError: A layer holds the stacked arrays of several layers. Or its mask is abstract, or has another shape.
      TypeError: The model is not a Flax NNX module.

    Example:
      >>> [(path, layer)] = described(nnx.Sequential(nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)))).items()
      >>> path, layer.layout.rung
      (('layers', 0), 'conv')
    """
    layers = {}
    for path, module in modules_of(model).items():
        if layout_of(module, transposed=True) is None:
            continue
        check_not_stacked(path, module)
        try:
            layers[path] = describe(module)
        except ValueError as error:
            raise ValueError(f"{name_of(path)}: {error}") from None
    return layers


def layouts(model: nnx.Module, image_shape: Sequence[int], paths: Sequence[Path] | None = None) -> dict[Path, Layout]:
    """Return the layouts of all spatial layers, or of those at `paths`, with their pixels, by path.

    Raises:
      ValueError: A layer is never called, or called on images of different sizes.
    """
    if paths is not None:
        paths = check.sequence("paths", paths, "tuples")
        for path in paths:
            check.instance("paths", path, tuple, "a sequence of tuples")
    sizes: dict[Path, set[tuple[int, ...]]] = {}
    for path, module in modules_of(model).items():
        if isinstance(module, (*SPATIAL, nnx.Linear)):
            check_not_stacked(path, module)
    for path, call in follow(model, image_shape, *SPATIAL).calls:
        layout = layout_of(call.module, transposed=True)
        if layout is not None and path is not None:
            images = call.h if layout.transposed else call.x
            sizes.setdefault(path, set()).add(images.shape[-1 - layout.ndim : -1])
    with_pixels = {}
    for path, module in modules_of(model).items():
        layout = layout_of(module, transposed=True)
        if layout is not None and (paths is None or path in paths):
            spaces = sorted(sizes.get(path, ()))
            if not spaces:
                raise ValueError(f"{name_of(path)} is never called, so the pixels that it reads are unknown")
            if len(spaces) > 1:
                names = " and ".join(map(str, spaces))
                verb = "makes" if layout.transposed else "reads"
                raise ValueError(f"{name_of(path)} {verb} images of {names} pixels but conversion needs one size")
            with_pixels[path] = dataclasses.replace(layout, space=spaces[0])
    return with_pixels


def left_alone(model: nnx.Module) -> dict[Path, str]:
    """Return the spatial layers that no layout describes, with the reason, by path."""
    reasons = {}
    for path, module in modules_of(model).items():
        if isinstance(module, SPATIAL) and layout_of(module, transposed=True) is None:
            reasons[path] = _reason(module)
    return reasons


def _reason(module: Any) -> str:
    if getattr(module, "conv_general_dilated", jax.lax.conv_general_dilated) is not jax.lax.conv_general_dilated:
        return "has another conv_general_dilated"
    if not is_stock(module):
        return "overrides the call of its class"
    if np.max(getattr(module, "input_dilation", None) or 1) > 1:
        return f"has input_dilation {module.input_dilation}"
    return f"has padding {module.padding!r}, under which its result is aligned unlike that of a convolution"


def names_with_reasons(alone: Mapping[Path, str]) -> str:
    """List layers that are left alone, with the reasons, for warnings and errors.

    Example:
      >>> names_with_reasons({("layers", 0): "has input_dilation 2"})
      'layers/0, which has input_dilation 2'
    """
    return ", ".join(f"{name_of(path)}, which {reason}" for path, reason in alone.items())
