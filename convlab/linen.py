"""Flax Linen modules: one per rung, and drop-ins for Flax's convolutions.

The modules of the rungs have the parameter names and shapes of `convlab.layers`. The fields are named as in
`flax.linen.Conv`. The number of pixels is taken from the images.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from flax.linen.dtypes import promote_dtype
from flax.linen.linear import default_kernel_init
from jax import lax
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Inexact, Shaped

from convlab import check, rungs
from convlab.geometry import Padding, Size, Window, as_axes, as_integer
from convlab.rungs import RUNGS, ByPixel, Layout, Mixed, Periodic, Shared, Start, Tying, Untied, make_window
from convlab.rungs.flax_conventions import align, alignment, convolve, dilated, reversed_kernel, transposed_window

__all__ = ["Conv", "ConvLocal", "ConvTranspose", "Dense", "LocallyConnected", "LowRank", "Symmetric", "Tiled"]


class Layer(linen.Module):
    """Base class of the modules of the rungs other than `Conv`. Use one of its subclasses.

    The fields are documented at `convlab.layers.Conv`.
    """

    features: int
    kernel_size: Size
    strides: Size | None = 1
    padding: Padding = "SAME"
    kernel_dilation: Size | None = 1
    feature_group_count: int = 1
    use_bias: bool | str = True
    tied_noise: float | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    preferred_element_type: DTypeLike | None = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = linen.initializers.zeros_init()

    tying: ClassVar[type[Tying]]

    @linen.compact
    def __call__(self, x: Float[Array, "*n k l c"]) -> Float[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        x = check.array("x", x)
        _check_fields(self)
        layout = _layout(self, self.tying, x.shape)
        start = Start(check.initializer("kernel_init", self.kernel_init), self.param_dtype, self.tied_noise)
        arrays = {}
        for name in self.tying.arrays:
            arrays[name] = self.param(name, lambda key, name=name: layout.start(key, start)[name])
        bias = None
        if layout.bias_sharing is not None:
            bias = self.param("bias", check.initializer("bias_init", self.bias_init), layout.bias_shape, self.param_dtype)
        return layout.forward(
            x,
            arrays,
            bias,
            dtype=self.dtype,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )


class Dense(Layer):
    """Fully connected layer on images, as `convlab.layers.Dense`."""

    tying = ByPixel


class LocallyConnected(Layer):
    """Locally connected layer, as `convlab.layers.LocallyConnected`."""

    tying = Untied


class Tiled(Layer):
    """Tiled layer, whose kernels repeat every `period` positions, as `convlab.layers.Tiled`."""

    tying = Periodic
    period: Size = 2


class LowRank(Layer):
    """Low-rank layer, whose positions mix the same few kernels, as `convlab.layers.LowRank`."""

    tying = Mixed
    rank: int = 2


class Symmetric(Layer):
    """Convolution that is invariant under flips and quarter turns, as `convlab.layers.Symmetric`."""

    tying = rungs.Symmetric


class Convolution(linen.Module):
    """Base class of `Conv` and `ConvLocal`, with the fields of Flax in their order.

    Use one of its subclasses.

    Attributes:
      features: The number of output channels.
      kernel_size: The number of taps along each axis. An int means one spatial axis.
      strides: The distance between neighbouring outputs in pixels. None means 1.
      padding: The padding, as in `convlab.Window`.
      input_dilation: The distance between neighbouring pixels, with zeros between them. None means 1. Above 1, `padding` must
        consist of numbers, as in Flax. They count the zeros that are added around the dilated image.
      kernel_dilation: The distance between neighbouring taps in pixels. None means 1.
      feature_group_count: The number of groups of channels without connections between them.
      use_bias: False, "channel" (one number per output channel), "position" (one per position and channel), or True, which
        means "channel" for `Conv` and "position" for `ConvLocal`.
      mask: The factors of the kernel, an array of its shape. If None, there are none.
      dtype: The dtype of the computation. If None, the common dtype of the input and the arrays.
      param_dtype: The dtype of the arrays.
      precision: The precision of the multiplications, as in `jax.lax`.
      kernel_init: The initializer of the kernel.
      bias_init: The initializer of the bias.
      promote_dtype: The function that casts `(inputs, kernel, bias)`, called with the keyword argument `dtype`.
      conv_general_dilated: The function that convolves, called as `jax.lax.conv_general_dilated`. If None, `convlab.conv`
        convolves. `ConvLocal` does not use it.
      conv_general_dilated_cls: The class whose instance takes the place of `conv_general_dilated`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
    """

    features: int
    kernel_size: Size
    strides: Size | None = 1
    padding: Padding = "SAME"
    input_dilation: Size | None = 1
    kernel_dilation: Size | None = 1
    feature_group_count: int = 1
    use_bias: bool | str = True
    mask: ArrayLike | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = linen.initializers.zeros_init()
    promote_dtype: Callable[..., Any] = promote_dtype
    conv_general_dilated: Callable[..., Array] | None = None
    conv_general_dilated_cls: Any = None
    preferred_element_type: DTypeLike | None = dataclasses.field(default=None, kw_only=True)

    tying: ClassVar[type[Tying]]


class Conv(Convolution):
    r"""Convolution, a drop-in for `flax.linen.Conv`: one kernel for all positions.

    $$H_{ijd} = \sum_{abc} V_{abcd} \, X_{i+a,\,j+b,\,c} + u_d$$

    Fields, arrays, first weights and outputs are those of Flax. `preferred_element_type`, `use_bias="position"` and all
    paddings of `convlab.Window` are additional. Outputs are bitwise those of Flax where both call XLA's convolution. On CPU,
    up to 3 input channels with small windows, several groups, and windows that read all pixels are computed otherwise and
    agree up to rounding. The gradients are fast on CPU also inside loops. The fields are documented at `Convolution`.

    Raises:
      ValueError: A field is out of range or unknown, `mask` has another shape than the kernel, the window fits nowhere, or the
        images have too few axes.
      TypeError: A size is not an integer.

    Example:
      >>> layer = Conv(7, (3, 3), strides=2, padding="CIRCULAR")
      >>> h, variables = layer.init_with_output(jax.random.key(0), jnp.ones((5, 8, 6, 2)))
      >>> h.shape, variables["params"]["kernel"].shape
      ((5, 4, 3, 7), (3, 3, 2, 7))
    """

    tying = Shared

    @linen.compact
    def __call__(self, inputs: Shaped[Array, "*n k l c"]) -> Inexact[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        inputs = check.array("inputs", inputs)
        _check_fields(self)
        layout = _layout(self, self.tying, inputs.shape)
        x, kernel, bias = _promoted(self, inputs, layout.kernel_shape, layout)
        options: dict[str, Any] = {"precision": self.precision, "preferred_element_type": self.preferred_element_type}
        dilation = _dilation(self, layout.ndim)
        function = self.conv_general_dilated if self.conv_general_dilated_cls is None else self.conv_general_dilated_cls()
        if function is None and max(dilation) == 1:
            h = layout.apply(x, {"kernel": kernel}, **options)
        else:
            function = function or lax.conv_general_dilated
            h = convolve(function, x, kernel, layout.window, dilation, layout.groups, **options)
        return h if bias is None else h + bias


class ConvLocal(Convolution):
    r"""Locally connected layer, a drop-in for `flax.linen.ConvLocal`.

    It has a separate kernel at every output position.

    $$H_{ijd} = \sum_{abc} K_{ij,\,(cA + a)B + b,\,d} \, X_{i+a,\,j+b,\,c} + u_{ijd}$$

    for a kernel of A x B taps.

    Fields, arrays and first weights are those of Flax, and outputs agree up to rounding. Flax fuses channel and taps in one
    axis of the kernel, and its fan-in counts all positions. So the outputs start smaller than those of a convolution.
    `LocallyConnected` has neither property. Groups of channels are additional. The fields are documented at `Convolution`.

    Raises:
      ValueError: As in `Conv`.
      TypeError: A size is not an integer.
      MemoryError: The kernel would not fit into the free memory; see `convlab.allow_large_arrays`.

    Example:
      >>> h, variables = ConvLocal(7, (3, 3)).init_with_output(jax.random.key(0), jnp.ones((5, 8, 6, 2)))
      >>> h.shape, variables["params"]["kernel"].shape, variables["params"]["bias"].shape
      ((5, 8, 6, 7), (8, 6, 18, 7), (8, 6, 7))
    """

    tying = Untied

    @linen.compact
    def __call__(self, inputs: Shaped[Array, "*n k l c"]) -> Inexact[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        inputs = check.array("inputs", inputs)
        _check_fields(self)
        layout = _layout(self, self.tying, inputs.shape)
        *size, c, d = layout.kernel_shape
        x, fused, bias = _promoted(self, inputs, (*layout.positions, c * math.prod(size), d), layout)
        kernel = split_kernel(fused, layout)
        gaps = [(0, 0, step - 1) for step in _dilation(self, layout.ndim)]
        if any(gap for _, _, gap in gaps):
            x = lax.pad(x, jnp.zeros((), x.dtype), [*[(0, 0, 0)] * (x.ndim - 1 - layout.ndim), *gaps, (0, 0, 0)])
        h = layout.apply(x, {"kernel": kernel}, precision=self.precision, preferred_element_type=self.preferred_element_type)
        return h if bias is None else h + bias


class ConvTranspose(linen.Module):
    r"""Transposed convolution, a drop-in for `flax.linen.ConvTranspose`.

    It enlarges images by its strides.

    $$H_{kld} = \sum_{ijc :\, i + a = k,\, j + b = l} V_{abdc} \, X_{ijc} + u_d$$

    Here `i + a` stands for the pixel s*i + dilation*a - low of the result, as in `convlab.Window`. With `transpose_kernel`, V
    is the kernel, so that the layer is the transpose of a convolution with this kernel. Otherwise the kernel has the spatial
    axes of V reversed and its channels exchanged.

    Fields, arrays, first weights and outputs are those of Flax. Outputs agree up to rounding.

    Attributes:
      features: The number of output channels.
      kernel_size: The number of taps along each axis. An int means one spatial axis.
      strides: The distance between neighbouring input pixels in pixels of the result. None means 1.
      padding: "SAME" (as many pixels as the stride times those of the input), "VALID" (all pixels that a tap reaches, and at
        least those of "SAME"), "CIRCULAR" (as many as "SAME", of an image that repeats), or an int or a (low, high) pair per
        axis. Numbers count the zeros around the input, with `strides - 1` zeros between its pixels.
      kernel_dilation: The distance between neighbouring taps in pixels of the result. None means 1.
      use_bias: False, True or "channel" (one number per output channel), or "position" (one per pixel and channel).
      mask: The factors of the kernel, an array of its shape. If None, there are none.
      dtype: The dtype of the computation. If None, the common dtype of the input and the arrays.
      param_dtype: The dtype of the arrays.
      precision: The precision of the multiplications, as in `jax.lax`.
      kernel_init: The initializer of the kernel.
      bias_init: The initializer of the bias.
      transpose_kernel: Whether the kernel is stored as that of the convolution whose transpose the layer is.
      promote_dtype: The function that casts `(inputs, kernel, bias)`, called with the keyword argument `dtype`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.

    Raises:
      ValueError: A field is out of range or unknown, `mask` has another shape than the kernel, the images have too few axes,
        or padding leaves no pixel.
      TypeError: A size is not an integer.

    Example:
      >>> layer = ConvTranspose(7, (4, 4), strides=(2, 2), transpose_kernel=True)
      >>> h, variables = layer.init_with_output(jax.random.key(0), jnp.ones((5, 4, 3, 2)))
      >>> h.shape, variables["params"]["kernel"].shape
      ((5, 8, 6, 7), (4, 4, 7, 2))
    """

    features: int
    kernel_size: Size
    strides: Size | None = None
    padding: Padding = "SAME"
    kernel_dilation: Size | None = None
    use_bias: bool | str = True
    mask: ArrayLike | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = linen.initializers.zeros_init()
    transpose_kernel: bool = False
    promote_dtype: Callable[..., Any] = promote_dtype
    preferred_element_type: DTypeLike | None = None

    @linen.compact
    def __call__(self, inputs: Shaped[Array, "*n k l c"]) -> Inexact[Array, "*n i j d"]:
        """Apply the module to images with any number of leading batch axes."""
        inputs = check.array("inputs", inputs)
        _check_fields(self)
        window = make_window(_one_axis(self.kernel_size), self.strides, self.padding, self.kernel_dilation, None)
        window = transposed_window(window)
        positions, c = _sizes(inputs.shape, window)
        space, features = window.input_shape(positions), as_integer("features", self.features)
        layout = Layout(Shared(), window, features, c, space, use_bias=self.use_bias, transposed=True)
        *size, d, c = layout.kernel_shape
        x, kernel, bias = _promoted(self, inputs, (*size, d, c) if self.transpose_kernel else (*size, c, d), layout)
        kernel = kernel if self.transpose_kernel else reversed_kernel(kernel)
        h = layout.apply(x, {"kernel": kernel}, precision=self.precision, preferred_element_type=self.preferred_element_type)
        h = align(h, alignment(window, self.transpose_kernel))
        return h if bias is None else h + bias


def layout_of(module: linen.Module, shape: Sequence[int]) -> Layout | None:
    """Return the layout of a spatial layer whose arrays are those of the layout, or None for any other module.

    It is also None for convolutions with a mask, for `ConvLocal` and for all modules without a `described_layout`.

    Args:
      module: The module.
      shape: The shape (*n, *space, c) of its images.
    """
    if isinstance(module, (linen.ConvLocal, ConvLocal)) or getattr(module, "mask", None) is not None:
        return None
    return described_layout(module, shape)


def described_layout(module: linen.Module, shape: Sequence[int]) -> Layout | None:
    """Return the layout that describes what a spatial layer computes, or None for any other module.

    Spatial layers are the modules of the rungs, `Conv`, `ConvLocal` and those of Flax of the same names. The layout is None
    if it would not describe them: for subclasses that override the call, and for convolutions with input dilation or another
    convolution function. It is also None for `ConvTranspose`.

    Args:
      module: The module.
      shape: The shape (*n, *space, c) of its images.
    """
    kind = next((kind for kind in SPATIAL if isinstance(module, kind)), None)
    if kind is None or type(module).__call__ is not kind.__call__:
        return None
    default = Untied if kind is linen.ConvLocal else Shared
    layout = _layout(module, getattr(module, "tying", default), shape)
    if kind is not Layer:
        changed = (module.conv_general_dilated, module.conv_general_dilated_cls)
        if max(_dilation(module, layout.ndim)) > 1 or any(field is not None for field in changed):
            return None
    return layout


def split_kernel(fused: Array, layout: Layout) -> Float[Array, "i j a b c d"]:
    """Divide the axis in which `ConvLocal` fuses channels and taps, channels first."""
    *size, c, d = layout.kernel_shape
    return jnp.moveaxis(fused.reshape(*layout.positions, c, *size, d), layout.ndim, -2)


def fuse_kernel(kernel: Float[Array, "i j a b c d"], layout: Layout) -> Array:
    """Fuse channels and taps in one axis, as `ConvLocal` does."""
    return jnp.moveaxis(kernel, -2, layout.ndim).reshape(*layout.positions, -1, kernel.shape[-1])


def _check_fields(module: Any) -> None:
    """Check the fields of a module that its layout does not check.

    Raises:
      TypeError: A field has another type.
      ValueError: The precision is unknown.
    """
    check.options(module.precision, module.preferred_element_type)
    check.dtype("dtype", module.dtype)
    check.dtype("param_dtype", module.param_dtype, optional=False)
    for name in ("promote_dtype", "kernel_init", "bias_init"):
        check.function(name, getattr(module, name, print))
    for name in ("conv_general_dilated", "conv_general_dilated_cls"):
        if getattr(module, name, None) is not None:
            check.function(name, getattr(module, name))
    check.flag("transpose_kernel", getattr(module, "transpose_kernel", False))
    if getattr(module, "mask", None) is not None:
        check.array("mask", module.mask)


def _layout(module: Any, tying: type[Tying], shape: Sequence[int]) -> Layout:
    """Return the layout of a module on images of a shape, counted after input dilation."""
    size = module.kernel_size if isinstance(module, Layer) else _one_axis(module.kernel_size)
    window = make_window(size, module.strides, module.padding, module.kernel_dilation, None)
    pixels, c = _sizes(shape, window)
    space = dilated(pixels, _dilation(module, len(pixels)))
    parameters = {field.name: getattr(module, field.name) for field in dataclasses.fields(tying)}
    features = as_integer("features", module.features)
    return Layout(tying.from_parameters(parameters), window, c, features, space, module.feature_group_count, module.use_bias)


def _one_axis(kernel_size: Size | Window) -> Any:
    """Return a kernel size with an int as the size of one axis, as in Flax."""
    return kernel_size if isinstance(kernel_size, (Sequence, np.ndarray, Window)) else (kernel_size,)


def _sizes(shape: Sequence[int], window: Window) -> tuple[tuple[int, ...], int]:
    """Return the number of pixels along each axis and of channels of images of a shape."""
    ndim = window.ndim
    assert ndim is not None
    if len(shape) < ndim + 1:
        raise ValueError(f"inputs has shape {tuple(shape)}; needs {ndim} spatial axes and channels, as {window} has {ndim}")
    return tuple(shape[-1 - ndim : -1]), shape[-1]


def _dilation(module: Any, ndim: int) -> tuple[int, ...]:
    """Return the input dilation along each axis.

    Raises:
      ValueError: It is below 1, or above 1 with padding by name.
    """
    value = getattr(module, "input_dilation", None)
    dilation = as_axes("input_dilation", 1 if value is None else value, ndim)
    padding = module.padding
    if max(dilation) > 1 and any(isinstance(entry, str) for entry in (padding if isinstance(padding, Sequence) else ())):
        raise ValueError(
            f"input_dilation {dilation} needs padding in numbers, got {padding!r}: names do not say whether pixels are added"
            " before or after dilation"
        )
    return dilation


def _promoted(module: Any, inputs: Array, kernel_shape: tuple[int, ...], layout: Layout) -> Any:
    """Declare the parameters of a convolution, and promote them with the input.

    The kernel is multiplied by the mask.

    Raises:
      ValueError: The mask has another shape than the kernel.
      MemoryError: The kernel would not fit into the free memory.
    """
    mask = module.mask
    if mask is not None:
        check.equal_shapes("mask has shape {}", jnp.shape(mask), "the kernel has shape {}", kernel_shape)

    def start(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        if check.is_concrete(key):
            check.fits_in_memory({"the kernel": jax.ShapeDtypeStruct(shape, dtype)})
        return check.initializer("kernel_init", module.kernel_init)(key, shape, dtype)

    kernel = module.param("kernel", start, kernel_shape, module.param_dtype)
    if mask is not None:
        kernel = kernel * jnp.asarray(mask)
    bias = None
    if layout.bias_sharing is not None:
        bias = module.param("bias", check.initializer("bias_init", module.bias_init), layout.bias_shape, module.param_dtype)
    promoted = module.promote_dtype(inputs, kernel, bias, dtype=module.dtype)
    return check.sequence("the result of promote_dtype", promoted, "arrays")


SPATIAL = (Layer, Conv, ConvLocal, linen.Conv, linen.ConvLocal)
MODULES = {module.tying: module for module in (Dense, LocallyConnected, Tiled, LowRank, Conv, Symmetric)}
for _tying in (kind for kind in RUNGS.values() if kind not in MODULES):  # a rung without a class above gets one
    _fields = {field.name: field.default for field in dataclasses.fields(_tying)}
    _members = {"tying": _tying, "__doc__": _tying.__doc__, "__module__": __name__} | _fields
    globals()[_tying.__name__] = type(_tying.__name__, (Layer,), _members | {"__annotations__": dict.fromkeys(_fields, Any)})
