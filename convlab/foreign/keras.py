"""Layers and sequential networks of Keras, read from their configurations and weights, without Keras."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convlab import check
from convlab.choices import one_of, shown
from convlab.foreign.holders import filled
from convlab.foreign.keras_local import DATA_FORMATS, from_keras_local, keras_local_window
from convlab.geometry import Window, as_axes
from convlab.layers import Layer
from convlab.ops.pool import max_pool, mean_pool
from convlab.rungs import Layout, Shared, Untied

__all__ = ["from_keras_layer", "from_keras_sequential"]

Step = Callable[..., Any]  # a layer or a function of images
Shape = tuple[int, ...]


def from_keras_layer(
    layer: Any, weights: Sequence[Any] | None = None, *, image_shape: Sequence[int] | None = None
) -> nnx.Module:
    """Turn a Keras layer with its weights into the layer of the same function here.

    Images have channels last, also if Keras has channels first.


    | Keras | here |
    |---|---|
    | `LocallyConnected1D`, `2D` (implementations 1, 2, 3) | `convlab.LocallyConnected` |
    | `Conv1D`, `2D`, `3D`, `DepthwiseConv1D`, `2D` | `convlab.Conv` |
    | `SeparableConv1D`, `2D` | two `convlab.Conv` in a row |
    | `Dense` | `flax.nnx.Linear` |
    | `BatchNormalization` | `flax.nnx.BatchNorm`; call `eval()` for Keras' predictions |

    An activation other than "linear" follows the layer in an `nnx.Sequential`. Keras need not be installed. The names of
    Keras 1 are read too, except convolutions with `dim_ordering="th"`, whose kernels depend on the backend. The biases of
    `LocallyConnected2D` with channels first are read as Keras applies them: it reshapes (i, j, d) to (d, i, j) and does not
    transpose.

    Args:
      layer: A Keras layer, or any object of that class name with `get_config()` and `get_weights()`. Or the layer's entry in
        a saved network: {"class_name": "Conv2D", "config": {...}}.
      weights: The arrays of the layer in the order of `get_weights()`. If None, those of `layer`.
      image_shape: The shape (*space, c) of one input image, channels last. A locally connected layer needs it, unless the
        layer or its configuration has an input shape.

    Raises:
      ValueError: The layer has no counterpart, or its arrays do not fit its configuration.
      TypeError: `layer` is no Keras layer.

    Example:
      >>> config = {"filters": 7, "kernel_size": (3, 3), "padding": "same", "implementation": 2}
      >>> layer = {"class_name": "LocallyConnected2D", "config": config}
      >>> weights = [np.ones((4, 5, 2, 4, 5, 7)), np.ones((4, 5, 7))]
      >>> from_keras_layer(layer, weights, image_shape=(4, 5, 2)).kernel.shape
      (4, 5, 3, 3, 2, 7)
    """
    steps = _convert([*_entries("layer", layer, weights)], image_shape)
    if len(steps) == 1 and isinstance(steps[0], nnx.Module):
        return steps[0]
    return nnx.Sequential(*steps)


def from_keras_sequential(
    model: Any,
    weights: Mapping[str, Sequence[Any]] | Sequence[Any] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
) -> nnx.Sequential:
    """Turn a Keras `Sequential` with its weights into an `nnx.Sequential` of the same function.

    The layers are those of `from_keras_layer`, and `Activation`, `Flatten`, `Dropout`, `ZeroPadding`, `MaxPooling`,
    `AveragePooling`, `GlobalMaxPooling` and `GlobalAveragePooling`. Images have channels last, also if the Keras network has
    channels first. `Flatten` keeps the order of Keras, so that the next layer's weights are those of Keras. In a saved
    .h5 file, the JSON text in the attribute "model_config" is `model`. The group "model_weights" holds the weights by layer,
    in the order of its attributes "weight_names". Call `eval()` on the result for Keras' predictions.

    Args:
      model: A Keras network, a list of layers, or a network's saved description {"class_name": "Sequential", "config": ...}.
      weights: The arrays by the layer's name, or one list in the order of `get_weights()`. If None, those of the layers.
      image_shape: The shape (*space, c) of one input image, channels last. Required if a layer is locally connected and the
        network has no input shape.

    Raises:
      ValueError: Layers have no counterpart, or arrays do not fit the configurations. The error names all such layers.
      TypeError: `model` is neither a network nor a list of layers.

    Example:
      >>> layers = [
      ...     {"class_name": "Conv2D", "config": {"name": "first", "filters": 7, "kernel_size": 3, "activation": "relu"}},
      ...     {"class_name": "Flatten", "config": {"name": "second"}},
      ... ]
      >>> model = from_keras_sequential(layers, {"first": [np.ones((3, 3, 2, 7)), np.ones(7)]})
      >>> model(jnp.ones((1, 5, 4, 2))).shape
      (1, 42)
    """
    return nnx.Sequential(*_convert([*_entries("model", model, weights)], image_shape))


class _Entry(NamedTuple):
    """Hold the class and the configuration of a Keras layer, with the names of Keras 2, and its arrays."""

    kind: str
    config: dict[str, Any]
    weights: list[Any] | None
    input_shape: Shape | None

    @property
    def name(self) -> str:
        return self.config.get("name", self.kind)

    @property
    def ndim(self) -> int:
        """The number of spatial axes, 0 for layers that have none."""
        return int(self.kind[-2]) if self.kind[-2:] in ("1D", "2D", "3D") else 0

    @property
    def channels_first(self) -> bool:
        return (self.config.get("data_format") or DATA_FORMATS[0]) == DATA_FORMATS[1]

    @property
    def arrays(self) -> list[str]:
        """The names of the arrays in the order of Keras."""
        return [name for name in KINDS[self.kind].arrays if self.config.get(SWITCHES.get(name, ""), True)]

    def read(self) -> dict[str, jax.Array]:
        """Return the arrays by name."""
        weights = self.weights or []
        if len(weights) != len(self.arrays):
            needed = f"{len(self.arrays)} ({', '.join(self.arrays)})"
            raise ValueError(f"weights of {self.name} hold {len(weights)} arrays, but {self.kind} needs {needed}")
        named = zip(self.arrays, weights, strict=True)
        return {name: check.inexact(f"weights of {self.name}: {name}", array) for name, array in named}


SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}  # array -> the setting that leaves it out
RENAMED = {  # Keras 1 -> Keras 2
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "bias": "use_bias",
    "output_dim": "units",
    "p": "rate",
    "pool_length": "pool_size",
    "stride": "strides",
    "th": "channels_first",
    "tf": "channels_last",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
}


def _entries(name: str, layer: Any, weights: Any) -> Iterator[_Entry]:
    """Yield all layers with the weights that they are given or, if there are none, hold themselves."""
    flat = [*_described(name, layer)]
    if weights is None:
        yield from flat
    elif isinstance(weights, Mapping):
        unknown = {*weights} - {entry.name for entry in flat}
        if unknown:
            raise ValueError(f"weights hold arrays for {sorted(unknown)}, but the layers are {[entry.name for entry in flat]}")
        yield from (entry._replace(weights=[*weights.get(entry.name, [])]) for entry in flat)
    else:
        remaining = check.sequence("weights", weights, "arrays")
        for entry in flat:
            count = len(entry.arrays) if entry.kind in KINDS else 0
            yield entry._replace(weights=remaining[:count])
            remaining = remaining[count:]
        if remaining and all(entry.kind in KINDS for entry in flat):
            raise ValueError(f"weights hold {len(weights)} arrays, {len(remaining)} more than the layers need")


def _described(name: str, layer: Any) -> Iterator[_Entry]:
    """Yield the layers of a network with the weights that they hold themselves."""
    if isinstance(layer, Sequence) and not isinstance(layer, str):
        for inner in layer:
            yield from _described(name, inner)
    elif isinstance(layer, Mapping) and {"class_name", "config"} <= {*layer}:
        if layer["class_name"] == "Sequential":
            config = layer["config"]
            yield from _described(name, config["layers"] if isinstance(config, Mapping) else config)
        else:
            yield _entry(layer["class_name"], layer["config"], None, None)
    elif type(layer).__name__ == "Sequential" and hasattr(layer, "layers"):
        yield from _described(name, [*getattr(layer, "layers", [])])
    elif hasattr(layer, "get_config") and hasattr(layer, "get_weights"):
        held: Any = layer
        yield _entry(type(held).__name__, held.get_config(), held.get_weights(), getattr(held, "input_shape", None))
    else:
        keys = [*layer] if isinstance(layer, Mapping) else []
        got = f"a mapping of {', '.join(map(str, keys[:6]))}{', ...' * (len(keys) > 6)}" if keys else shown(layer)
        raise TypeError(
            f"{name} must be a Keras layer or Sequential, with get_config() and get_weights(), or a saved description"
            f" {{'class_name': ..., 'config': ...}}, got {got}"
        )


def _entry(kind: str, config: Mapping[str, Any], weights: Sequence[Any] | None, shape: Any) -> _Entry:
    """Write a description with the names of Keras 2."""
    config = {RENAMED.get(name, name): value for name, value in config.items()}
    if "nb_row" in config:
        config["kernel_size"] = (config["nb_row"], config["nb_col"])
    if config.get("data_format") in RENAMED:
        config["data_format"] = RENAMED[config["data_format"]]
        config["dim_ordering"] = True
    shapes = [s for s in (shape, config.get("batch_input_shape"), config.get("batch_shape")) if isinstance(s, (tuple, list))]
    known = [tuple(s[1:]) for s in shapes if all(isinstance(size, int) for size in s[1:])]
    return _Entry(RENAMED.get(kind, kind), config, None if weights is None else [*weights], known[0] if known else None)


def _image_shape(entry: _Entry, channels_first: bool) -> Shape | None:
    """Return the shape (*space, c) of one input image of a layer, or None if it is unknown."""
    shape = entry.input_shape
    return (*shape[1:], shape[0]) if shape and channels_first else shape


class _State(NamedTuple):
    """Hold what is known about the images between two layers.

    Attributes:
      shape: The shape (*space, c) of one image here, or None.
      channels_first: Whether Keras has channels first.
      ndim: The number of spatial axes, 0 after flattening, None if no layer shows it.
    """

    shape: Shape | None
    channels_first: bool
    ndim: int | None


def _convert(entries: list[_Entry], image_shape: Sequence[int] | None) -> list[Step]:
    """Return the layers and functions that compute what Keras layers compute, one after another."""
    spatial = [entry for entry in entries if entry.ndim]
    if len({entry.channels_first for entry in spatial}) > 1:
        raise ValueError(f"layers mix data formats: { ({entry.name: entry.config.get('data_format') for entry in spatial}) }")
    channels_first, ndim = (spatial[0].channels_first, spatial[0].ndim) if spatial else (False, None)
    shape = _image_shape(entries[0], channels_first) if entries else None
    state = _State(shape if image_shape is None else check.image_shape(image_shape), channels_first, ndim)
    steps, missing = [], []
    for entry in entries:
        problem = _problem(entry, state)
        state = state._replace(ndim=0) if entry.kind.startswith(("Flatten", "Global")) else state
        missing += [f"{entry.name} ({problem})"] if problem else []
    if missing:
        raise ValueError(f"these layers have no counterpart: {'; '.join(missing)}")
    state = state._replace(ndim=ndim)
    for entry in entries:
        try:
            made = [*KINDS[entry.kind].make(entry, state), *_activation(entry)]
        except KeyError as error:
            raise ValueError(f"config of {entry.name} lacks {error}, which a {entry.kind} needs") from error
        for step in made:
            state = state._replace(shape=_shape_after(step, state.shape, entry))
        steps += made
    return steps


def _problem(entry: _Entry, state: _State) -> str:
    """Describe why a layer has no counterpart, or return ""."""
    if entry.kind not in KINDS:
        return entry.kind
    config = entry.config
    activation = config.get("activation", "linear")
    if activation is not None and activation not in (*ACTIVATIONS, "linear"):
        return f"activation {activation!r}"
    moved = state.channels_first and state.ndim != 0
    if moved and (activation == "softmax" or entry.kind == "Dense"):
        return f"{'softmax' if activation == 'softmax' else entry.kind} along the last axis of images with channels first"
    if entry.kind in ("Conv2D", "Conv3D") and entry.channels_first and "dim_ordering" in config:
        return "Keras 1 convolution with dim_ordering 'th', whose kernel depends on the backend"
    for name in ("renorm", "virtual_batch_size", "noise_shape", "keepdims", "mode"):
        if config.get(name):
            return f"{name}={config[name]!r}"
    if entry.kind == "Flatten" and entry.channels_first and not state.channels_first:
        return "Flatten with channels first after images with channels last"
    if entry.kind == "BatchNormalization" and state.ndim:
        (axis,) = np.atleast_1d(config.get("axis", -1))
        if axis not in ((1,) if state.channels_first else (-1, state.ndim + 1)):
            return f"BatchNormalization along axis {axis}, which does not hold the channels"
    return ""


def _shape_after(step: Step, shape: Shape | None, entry: _Entry) -> Shape | None:
    """Return the shape of one image after a layer."""
    if shape is None:
        return None
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        if not isinstance(step, nnx.Module):
            return jax.eval_shape(step, x).shape[1:]
        definition, variables = nnx.split(step)
        return jax.eval_shape(lambda variables, x: nnx.merge(definition, variables)(x), variables, x).shape[1:]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{entry.name} does not fit images of shape {shape}: {error}") from error


ACTIVATIONS: dict[str, Step] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def _activation(entry: _Entry) -> list[Step]:
    activation = entry.config.get("activation")
    return [] if activation in (None, "linear") else [ACTIVATIONS[activation]]


def _layer(layout: Layout, arrays: Mapping[str, jax.Array], entry: _Entry) -> Layer:
    dtype = arrays["kernel"].dtype
    return filled(lambda: Layer.from_layout(layout, param_dtype=dtype, rngs=nnx.Rngs(0)), arrays, entry.name)


def _local(entry: _Entry, state: _State) -> list[Step]:
    """Read a locally connected layer."""
    config, arrays = entry.config, entry.read()
    shape = state.shape or _image_shape(entry, state.channels_first)
    if shape is None:
        raise ValueError(f"image_shape is missing: {entry.name} does not show the size of its images, such as (28, 28, 1)")
    if len(shape) != entry.ndim + 1:
        raise ValueError(f"image_shape {shape} has {len(shape)} axes, but {entry.kind} needs {entry.ndim + 1}")
    *space, c = shape
    window = keras_local_window(config["kernel_size"], config.get("strides", 1), config.get("padding", "valid"), space)
    try:
        kernel = from_keras_local(
            arrays["kernel"],
            window,
            space,
            implementation=config.get("implementation", 1),
            data_format=config.get("data_format") or DATA_FORMATS[0],
            out_features=config["filters"],
        )
    except ValueError as error:
        raise ValueError(f"{entry.name}: {error}") from error
    layout = Layout(Untied(), window, c, config["filters"], space, use_bias="position" if "bias" in arrays else False)
    arrays["kernel"] = kernel
    if "bias" in arrays and entry.channels_first and arrays["bias"].size == np.prod(layout.bias_shape):
        arrays["bias"] = jnp.moveaxis(arrays["bias"].reshape(config["filters"], *layout.positions), 0, -1)
    return [_layer(layout, arrays, entry)]


def _window(entry: _Entry, size: str, padding: str | None = None) -> Window:
    """Return the window of a convolution or a pool."""
    config, ndim = entry.config, entry.ndim
    taps = as_axes(f"{entry.name}: {size}", config[size], ndim)
    padding = config.get("padding", "valid") if padding is None else padding
    one_of(f"{entry.name}: padding", str(padding).lower(), ("valid", "same", "causal"))
    strides = taps if size == "pool_size" and config.get("strides") is None else config.get("strides", 1)
    window = Window(taps, strides, str(padding).upper(), config.get("dilation_rate", 1))
    return window.with_ndim(ndim)


def _shared(entry: _Entry, window: Window, kernel: jax.Array, groups: int, bias: jax.Array | None) -> Layer:
    """Make a convolution of a kernel (*window, c, d)."""
    c, d = kernel.shape[-2] * groups, kernel.shape[-1]
    layout = Layout(Shared(), window, c, d, groups=groups, use_bias="channel" if bias is not None else False)
    return _layer(layout, {"kernel": kernel} | ({} if bias is None else {"bias": bias}), entry)


def _conv(entry: _Entry, state: _State) -> list[Step]:
    arrays = entry.read()
    kernel = _with_axes(entry, arrays, "kernel")
    return [_shared(entry, _window(entry, "kernel_size"), kernel, entry.config.get("groups", 1), arrays.get("bias"))]


def _depthwise(entry: _Entry, state: _State) -> list[Step]:
    arrays = entry.read()
    return [_channelwise(entry, _with_axes(entry, arrays, "depthwise_kernel"), arrays.get("bias"))]


def _separable(entry: _Entry, state: _State) -> list[Step]:
    """Read a separable convolution as a depthwise and a 1 x 1 convolution."""
    arrays = entry.read()
    depthwise, pointwise = (_with_axes(entry, arrays, name) for name in ("depthwise_kernel", "pointwise_kernel"))
    point = Window((1,) * entry.ndim, 1, "VALID")
    return [_channelwise(entry, depthwise, None), _shared(entry, point, pointwise, 1, arrays.get("bias"))]


def _channelwise(entry: _Entry, kernel: jax.Array, bias: jax.Array | None) -> Layer:
    """Make a convolution of every channel with its kernels (*window, c, m); outputs are (c, m) fused."""
    *size, c, m = kernel.shape
    return _shared(entry, _window(entry, "kernel_size"), kernel.reshape(*size, 1, c * m), c, bias)


def _with_axes(entry: _Entry, arrays: Mapping[str, jax.Array], name: str) -> jax.Array:
    needed = entry.ndim + 2
    if arrays[name].ndim != needed:
        shape = arrays[name].shape
        raise ValueError(f"weights of {entry.name}: {name} has shape {shape}, but {entry.kind} needs {needed} axes")
    return arrays[name]


def _dense(entry: _Entry, state: _State) -> list[Step]:
    arrays = entry.read()
    if arrays["kernel"].ndim != 2:
        raise ValueError(f"weights of {entry.name}: kernel has shape {arrays['kernel'].shape}, but Dense needs 2 axes")
    c, d = arrays["kernel"].shape
    options = {"use_bias": "bias" in arrays, "param_dtype": arrays["kernel"].dtype}
    return [filled(lambda: nnx.Linear(c, d, **options, rngs=nnx.Rngs(0)), arrays, entry.name)]


def _batch_norm(entry: _Entry, state: _State) -> list[Step]:
    arrays, config = entry.read(), entry.config
    options = {"momentum": config.get("momentum", 0.99), "epsilon": config.get("epsilon", 1e-3)}
    options |= {"use_scale": "gamma" in arrays, "use_bias": "beta" in arrays, "param_dtype": arrays["moving_mean"].dtype}
    names = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
    arrays = {names[name]: array for name, array in arrays.items()}
    return [filled(lambda: nnx.BatchNorm(arrays["mean"].size, **options, rngs=nnx.Rngs(0)), arrays, entry.name)]


def _pool(entry: _Entry, state: _State, pool: Step) -> list[Step]:
    return [functools.partial(pool, window=_window(entry, "pool_size"))]


def _average_pool(x: jax.Array, window: Window) -> jax.Array:
    """Average the pixels of each window. Unlike `mean_pool`, Keras leaves padding out."""
    return mean_pool(x, window) / mean_pool(jnp.ones_like(x[:1, ..., :1]), window)


def _global_pool(entry: _Entry, state: _State, reduce: Step) -> list[Step]:
    return [functools.partial(reduce, axis=tuple(range(1, 1 + entry.ndim)))]


def _zero_padding(entry: _Entry, state: _State) -> list[Step]:
    padding = entry.config.get("padding", 1)
    padding = (padding,) * entry.ndim if isinstance(padding, int) else padding
    padding = (padding,) if entry.ndim == 1 and len(padding) == 2 else padding
    pairs = [(side, side) if isinstance(side, int) else tuple(side) for side in padding]
    return [functools.partial(jnp.pad, pad_width=((0, 0), *pairs, (0, 0)))]


def _dropout(entry: _Entry, state: _State) -> list[Step]:
    return [nnx.Dropout(entry.config["rate"], rngs=nnx.Rngs(0))]


def _flatten(entry: _Entry, state: _State) -> list[Step]:
    """Flatten images in the order in which Keras holds them. `channels_first` makes it move channels last."""
    return [_flatten_channels_first if state.channels_first and not entry.channels_first else _flatten_channels_last]


def _flatten_channels_last(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def _flatten_channels_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


class _Kind(NamedTuple):
    """Describe a Keras class: the function that converts it, and its arrays in the order of Keras."""

    make: Callable[[_Entry, _State], list[Step]]
    arrays: tuple[str, ...] = ()


def _by_ndim(name: str, kind: _Kind, ndims: Sequence[int] = (1, 2, 3)) -> dict[str, _Kind]:
    return {f"{name}{ndim}D": kind for ndim in ndims}


KINDS: dict[str, _Kind] = {
    "Activation": _Kind(lambda entry, state: []),
    "BatchNormalization": _Kind(_batch_norm, ("gamma", "beta", "moving_mean", "moving_variance")),
    "Dense": _Kind(_dense, ("kernel", "bias")),
    "Dropout": _Kind(_dropout),
    "Flatten": _Kind(_flatten),
    "InputLayer": _Kind(lambda entry, state: []),
    **_by_ndim("AveragePooling", _Kind(functools.partial(_pool, pool=_average_pool))),
    **_by_ndim("Conv", _Kind(_conv, ("kernel", "bias"))),
    **_by_ndim("DepthwiseConv", _Kind(_depthwise, ("depthwise_kernel", "bias")), (1, 2)),
    **_by_ndim("GlobalAveragePooling", _Kind(functools.partial(_global_pool, reduce=jnp.mean))),
    **_by_ndim("GlobalMaxPooling", _Kind(functools.partial(_global_pool, reduce=jnp.max))),
    **_by_ndim("LocallyConnected", _Kind(_local, ("kernel", "bias")), (1, 2)),
    **_by_ndim("MaxPooling", _Kind(functools.partial(_pool, pool=max_pool))),
    **_by_ndim("SeparableConv", _Kind(_separable, ("depthwise_kernel", "pointwise_kernel", "bias")), (1, 2)),
    **_by_ndim("ZeroPadding", _Kind(_zero_padding)),
}
