"""Drop-ins for the convolutions of Flax NNX: the same arguments, arrays and results."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as promote_inexact
from jax import lax
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array

from convlab import check
from convlab.geometry import Padding, Size, Space, Window, as_axes
from convlab.layers.layer import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT, NO_METADATA, Layer, PromoteDtype, check_draws
from convlab.rungs import Arrays, Layout, Shared, make_window
from convlab.rungs.flax_conventions import align, alignment, convolve, dilated, reversed_kernel, transposed_window

ConvGeneralDilated = Callable[..., Array]


class _Convolution(Layer):
    """The attributes that the drop-ins have in common with Flax's classes."""

    tying = Shared
    kernel: nnx.Param
    kernel_shape: tuple[int, ...]
    in_features: int
    out_features: int
    kernel_size: tuple[int, ...]
    strides: Any
    padding: Any
    kernel_dilation: Any
    feature_group_count: int

    def _draw(
        self, layout: Layout, rngs: nnx.Rngs, kernel_init: Initializer, bias_init: Initializer, metadata: Sequence[Mapping]
    ) -> None:
        """Draw the arrays as Flax does: first the kernel, then the bias."""
        kernel_init, bias_init = check_draws(rngs, kernel_init, bias_init, *metadata)
        self.kernel = nnx.Param(kernel_init(rngs.params(), self.kernel_shape, self.param_dtype), **metadata[0])
        self._set_bias(layout, rngs, bias_init, metadata[1])

    def _described(self) -> Layout:
        if (layout := self.layout or vars(self).get("unaligned_layout")) is not None:
            return layout
        window = Window(self.kernel_size, self.strides, self.padding, self.kernel_dilation)
        space = vars(self).get("undilated_space")
        return Layout(Shared(), window, self.in_features, self.out_features, space, self.feature_group_count)


class Conv(_Convolution):
    r"""Convolution, a drop-in for `flax.nnx.Conv`: one kernel for all positions.

    $$H_{ijd} = \sum_{abc} V_{abcd} \, X_{i+a,\,j+b,\,c} + u_d$$

    Arguments, arrays, first weights and outputs are those of Flax. In addition, `kernel_size` can be a `Window`, `padding` can
    be any padding of `Window`, and the bias can differ by position. Its gradients are fast on CPU, inside loops too.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The number of taps along each axis. An int means one spatial axis, as in Flax, or one size for all axes
        of `space`. A `Window` also sets strides, padding and dilation.
      strides: The distance between neighbouring outputs in pixels. If None, 1.
      padding: The padding, as in `Window`.
      input_dilation: The distance between neighbouring pixels of the input, with zeros between them. If None, 1. Padding is
        added around the dilated image.
      kernel_dilation: The distance between neighbouring taps in pixels. If None, 1.
      feature_group_count: The number of groups of channels without connections between them.
      use_bias: The kind of bias: "channel" (one number per output channel), "position" (one per position and channel, needs
        `space`), or False for none. True means "position" for dense and locally connected layers, "channel" for the others.
      mask: The array by which the kernel is multiplied, of the same shape. Zeros remove weights. If None, all weights count.
      dtype: The dtype of the computation. If None, the common dtype of the input and the arrays.
      param_dtype: The dtype of the arrays.
      precision: The precision of the multiplications, as in `jax.lax`.
      kernel_init: The initializer of one kernel.
      bias_init: The initializer of the bias.
      conv_general_dilated: The function that convolves. Another than that of `jax.lax` gets the same arguments as in Flax.
      promote_dtype: The function that casts a tuple of input, arrays and bias to `dtype`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      space: The number of input pixels along each spatial axis, before dilation. Required if an array differs by position.
      rngs: The random streams, of which `params` is used.
      kernel_metadata: The metadata of the kernel's variable, such as its sharding.
      bias_metadata: The metadata of the bias's variable.

    Raises:
      ValueError: A value is missing, unknown, out of range or not supported by this rung.
      TypeError: A size is not an integer.

    Example:
      >>> layer = Conv(2, 7, (3, 3), strides=2, padding="CIRCULAR", rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 8, 6, 2))).shape
      ((3, 3, 2, 7), (5, 4, 3, 7))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Size | Window,
        strides: Size | None = 1,
        *,
        padding: Padding = "SAME",
        input_dilation: Size | None = 1,
        kernel_dilation: Size | None = 1,
        feature_group_count: int = 1,
        use_bias: bool | str = True,
        mask: Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        bias_init: Initializer = DEFAULT_BIAS_INIT,
        conv_general_dilated: ConvGeneralDilated = lax.conv_general_dilated,
        promote_dtype: PromoteDtype = promote_inexact,
        preferred_element_type: DTypeLike | None = None,
        space: Space | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        window = make_window(kernel_size, strides, padding, kernel_dilation, space)
        layout = Layout(Shared(), window, in_features, out_features, space, feature_group_count, use_bias)
        dilation = as_axes("input_dilation", 1 if input_dilation is None else input_dilation, layout.ndim)
        self.layout = layout
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = window.taps(layout.ndim)
        self.strides = window.strides
        self.padding = window.padding
        self.input_dilation = dilation
        self.kernel_dilation = window.dilation
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.conv_general_dilated = check.function("conv_general_dilated", conv_general_dilated)
        self._set_options(mask, dtype, param_dtype, precision, promote_dtype, preferred_element_type)
        self.kernel_shape = layout.kernel_shape
        if layout.space is not None:
            layout = dataclasses.replace(layout, space=dilated(layout.space, dilation))
        self._draw(layout, rngs, kernel_init, bias_init, (kernel_metadata, bias_metadata))
        if conv_general_dilated is not lax.conv_general_dilated or max(dilation) > 1:
            self.layout, self.undilated_space = None, self.layout.space  # pyright: ignore[reportAttributeAccessIssue]

    def _apply(self, inputs: Array, arrays: Arrays, out_sharding: Any) -> Array:
        if self.layout is None or out_sharding is not None:
            window = Window(self.kernel_size, self.strides, self.padding, self.kernel_dilation)
            return convolve(
                self.conv_general_dilated,
                inputs,
                arrays["kernel"],
                window,
                self.input_dilation,
                self.feature_group_count,
                self.precision,
                preferred_element_type=self.preferred_element_type,
                out_sharding=out_sharding,
            )
        return super()._apply(inputs, arrays, None)


class ConvTranspose(_Convolution):
    r"""Transposed convolution, a drop-in for `flax.nnx.ConvTranspose`.

    $$X_{klc} = \sum_{ijd :\, i + a = k,\, j + b = l} V_{abcd} \, H_{ijd} + u_c$$

    It enlarges images by its strides. With `transpose_kernel`, it is the transpose of the convolution `Conv(out_features,
    in_features, ...)` of the same kernel V and padding. Otherwise the kernel has its spatial axes reversed and its channels
    exchanged, as in Flax. Arguments, arrays, first weights and outputs are those of Flax. In addition, `kernel_size` can be
    the `Window` of the convolution.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The number of taps along each axis. An int means one spatial axis. A `Window`, that of the convolution, also
        sets strides, padding and dilation.
      strides: The distance between neighbouring copies of the kernel, in pixels of the result. If None, 1.
      padding: The padding as in `jax.lax.conv_transpose`: "SAME", "VALID", "CIRCULAR", or the zeros (low, high) added around
        the dilated input. To undo the change of size of a `Conv` with padding p, give dilation * (size - 1) - p.
      kernel_dilation: The distance between neighbouring taps in pixels. If None, 1.
      use_bias: Whether to add a bias per output channel.
      mask: The array by which the kernel is multiplied, of the same shape. Zeros remove weights. If None, all weights count.
      dtype: The dtype of the computation. If None, the common dtype of the input and the arrays.
      param_dtype: The dtype of the arrays.
      precision: The precision of the multiplications, as in `jax.lax`.
      kernel_init: The initializer of the kernel.
      bias_init: The initializer of the bias.
      transpose_kernel: Whether the kernel is stored as that of the convolution, (a, b, out_features, in_features).
      promote_dtype: The function that casts a tuple of input, kernel and bias to `dtype`.
      preferred_element_type: The dtype of the sums and the result, as in `jax.lax`.
      feature_group_count: The number of groups of channels without connections between them.
      space: The number of pixels of the result along each spatial axis. If None, the number that Flax gives.
      rngs: The random streams, of which `params` is used.
      kernel_metadata: The metadata of the kernel's variable, such as its sharding.
      bias_metadata: The metadata of the bias's variable.

    Raises:
      ValueError: A value is missing, unknown or out of range.
      TypeError: A size is not an integer.

    Example:
      >>> layer = ConvTranspose(2, 7, (3, 3), strides=(2, 2), rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((5, 4, 3, 2))).shape
      ((3, 3, 2, 7), (5, 8, 6, 7))
    """

    transposed = True
    options_of_layout = {"transpose_kernel": True}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Size | Window,
        strides: Size | None = None,
        *,
        padding: Padding = "SAME",
        kernel_dilation: Size | None = None,
        use_bias: bool | str = True,
        mask: Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        bias_init: Initializer = DEFAULT_BIAS_INIT,
        transpose_kernel: bool = False,
        promote_dtype: PromoteDtype = promote_inexact,
        preferred_element_type: DTypeLike | None = None,
        feature_group_count: int = 1,
        space: Space | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check.flag("transpose_kernel", transpose_kernel)
        window = make_window(kernel_size, strides, padding, kernel_dilation, space)
        self.shifts = (0,) * len(window.paddings)
        if not isinstance(kernel_size, Window):
            window = transposed_window(window)
            self.shifts = alignment(window, transpose_kernel)
        layout = Layout(Shared(), window, out_features, in_features, space, feature_group_count, use_bias, True)
        self.unaligned_layout = layout
        self.layout = None if any(self.shifts) else layout  # pyright: ignore[reportAttributeAccessIssue]
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = window.taps(layout.ndim)
        self.strides = window.strides
        self.padding = padding
        self.kernel_dilation = window.dilation
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.transpose_kernel = transpose_kernel
        self._set_options(mask, dtype, param_dtype, precision, promote_dtype, preferred_element_type)
        channels = layout.kernel_shape[-2:]
        self.kernel_shape = (*self.kernel_size, *(channels if transpose_kernel else channels[::-1]))
        self._draw(layout, rngs, kernel_init, bias_init, (kernel_metadata, bias_metadata))

    def _apply(self, inputs: Array, arrays: Arrays, out_sharding: Any) -> Array:
        kernel = arrays["kernel"] if self.transpose_kernel else reversed_kernel(arrays["kernel"])
        return align(self._apply_layout(self.unaligned_layout, inputs, {"kernel": kernel}, out_sharding), self.shifts)
