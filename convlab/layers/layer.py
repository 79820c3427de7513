"""The base class of all layers: the arrays of a layout as Flax variables, and the call."""

import html
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as promote_inexact
from jax.lax import PrecisionLike
from jax.nn.initializers import Initializer
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Padding, Size, Space, Window
from convlab.layers.texts import Text, count_text, in_one_line
from convlab.rungs import RUNGS, Arrays, Layout, Start, Tying, layout_text, make_window
from convlab.signatures import ConstructorSignature

DEFAULT_KERNEL_INIT = nnx.initializers.lecun_normal()
DEFAULT_BIAS_INIT = nnx.initializers.zeros_init()
NO_METADATA: Mapping[str, Any] = MappingProxyType({})

PromoteDtype = Callable[..., Any]  # maps a tuple of arrays and a keyword dtype to the promoted arrays


class Layer(nnx.Module):
    """Base class of the layers of all rungs. Use one of its subclasses.

    Attributes:
      layout: The tying, the window, the channels and everything else that determines the shapes (static). It is None if no
        layout describes the layer, as for a convolution with `input_dilation`.
      bias: The bias per channel or per position and channel, or None.
      mask: The mask of the first array, or None.
    """

    __signature__ = ConstructorSignature(parameters=lambda layer: getattr(layer, "tying", None))
    tying: type[Tying]
    transposed: ClassVar[bool] = False
    options_of_layout: ClassVar[Mapping[str, Any]] = {}  # further arguments with which a layout describes the layer
    layout: Layout  # None where no layout describes the layer, so not among `spatial_layers`
    bias: nnx.Param | None
    mask: Array | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Size | Window,
        strides: Size | None = 1,
        *,
        padding: Padding = "SAME",
        kernel_dilation: Size | None = 1,
        feature_group_count: int = 1,
        use_bias: bool | str = True,
        mask: Array | None = None,
        space: Space | None = None,
        tied_noise: float | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        bias_init: Initializer = DEFAULT_BIAS_INIT,
        promote_dtype: PromoteDtype = promote_inexact,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        **parameters: Any,
    ):
        window = make_window(kernel_size, strides, padding, kernel_dilation, space)
        features = (out_features, in_features) if self.transposed else (in_features, out_features)
        tying = self.tying.from_parameters(parameters)
        self.layout = Layout(tying, window, *features, space, feature_group_count, use_bias, self.transposed)
        self._set_options(mask, dtype, param_dtype, precision, promote_dtype, preferred_element_type)
        metadata: Mapping[str, Any] = kernel_metadata
        kernel_init, bias_init = check_draws(rngs, kernel_init, bias_init, kernel_metadata, bias_metadata)
        for name, array in self.layout.start(rngs.params(), Start(kernel_init, param_dtype, tied_noise)).items():
            setattr(self, name, nnx.Param(array, **metadata))
            metadata = NO_METADATA
        self._set_bias(self.layout, rngs, bias_init, bias_metadata)

    def _set_options(
        self,
        mask: Array | None,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        precision: PrecisionLike,
        promote_dtype: PromoteDtype,
        preferred_element_type: DTypeLike | None,
    ) -> None:
        check.options(precision, preferred_element_type)
        check.dtype("dtype", dtype)
        check.dtype("param_dtype", param_dtype, optional=False)
        check.function("promote_dtype", promote_dtype)
        if mask is not None and not hasattr(mask, "shape"):  # may be abstract
            mask = check.array("mask", mask)
        self.mask = nnx.data(mask)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    def _set_bias(self, layout: Layout, rngs: nnx.Rngs, bias_init: Initializer, metadata: Mapping[str, Any]) -> None:
        biased = layout.bias_sharing is not None
        self.bias = nnx.Param(bias_init(rngs.params(), layout.bias_shape, self.param_dtype), **metadata) if biased else None

    @staticmethod
    def from_layout(layout: Layout, variables: Mapping[str, nnx.Variable] | None = None, **options: Any) -> "Layer":
        """Make the layer that a layout describes, with given variables or newly drawn ones.

        Args:
          layout: The description of the layer.
          variables: The layer's variables by name. If None, the layer draws new ones from `rngs`, one of the options.
          **options: The other arguments of the layer, as in `Conv`.
        """
        kind, features = CLASSES[layout.rung, layout.transposed], (layout.in_features, layout.out_features)

        def build(**arguments: Any) -> Layer:
            return kind(
                in_features=features[layout.transposed],
                out_features=features[not layout.transposed],
                kernel_size=layout.window,
                feature_group_count=layout.groups,
                use_bias=layout.use_bias,
                space=layout.space,
                **vars(layout.tying),
                **kind.options_of_layout,
                **options,
                **arguments,
            )

        if variables is None:
            return build()
        layer = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
        for name, variable in variables.items():
            setattr(layer, name, variable)
        return layer

    def __call__(self, inputs: Float[Array, "*n k l c"], out_sharding: Any = None) -> Float[Array, "*n i j d"]:
        """Apply the layer to images with any number of leading batch axes.

        Args:
          inputs: The images.
          out_sharding: The sharding of the result under a mesh with explicit axes, as in Flax.

        Raises:
          ValueError: The images have other channels, spatial axes or, if the layer knows its pixels, another size.
        """
        h, bias = self._without_bias(inputs, out_sharding)
        return h if bias is None else h + bias

    def _without_bias(self, inputs: Array, out_sharding: Any = None) -> tuple[Array, Array | None]:
        """Apply the layer without its bias. Return the output and the bias, in the dtype of the computation."""
        if out_sharding is not None:
            check.instance("out_sharding", out_sharding, (NamedSharding, PartitionSpec), "a NamedSharding or PartitionSpec")
        inputs = check.array("inputs", inputs)
        arrays = [getattr(self, name)[...] for name in self.tying.arrays]
        arrays[0] = self.masked(arrays[0])
        bias = None if self.bias is None else self.bias[...]
        promoted = self.promote_dtype((inputs, *arrays, bias), dtype=self.dtype)
        inputs, *arrays, bias = check.sequence("the result of promote_dtype", promoted, "arrays")
        self._described().check_images("inputs", inputs)
        return self._apply(inputs, dict(zip(self.tying.arrays, arrays, strict=True)), out_sharding), bias

    def masked(self, array: Array) -> Array:
        """Multiply the first array of the layer by its mask, if there is one.

        Raises:
          ValueError: The mask has another shape.
        """
        if self.mask is None:
            return array
        if jnp.shape(self.mask) != array.shape:
            raise ValueError(f"mask must have the shape of the weights, {array.shape}, got {jnp.shape(self.mask)}")
        return array * self.mask

    def __nnx_repr__(self) -> Text:
        """Describe the layer in one line, also inside other modules. `nnx.display` shows its arrays."""
        return in_one_line(self, lambda: [layout_text(self._described()), count_text(self)])

    def _described(self) -> Layout:
        """Return the layout to show."""
        return self.layout

    def _repr_html_(self) -> str:
        """Return the text of the layer and a drawing of its window. Notebooks call it."""
        layout = self._described()
        drawing = None if layout.tying.by_pixel else layout.window._repr_html_()
        return f"<code>{html.escape(repr(self))}</code>" + (f"<br>{drawing}" if drawing else "")

    def _apply(self, inputs: Array, arrays: Arrays, out_sharding: Any) -> Array:
        """Apply the layer without bias to arrays in the dtype of the computation."""
        return self._apply_layout(self.layout, inputs, arrays, out_sharding)

    def _apply_layout(self, layout: Layout, inputs: Array, arrays: Arrays, out_sharding: Any) -> Array:
        h = layout.apply(inputs, arrays, precision=self.precision, preferred_element_type=self.preferred_element_type)
        return h if out_sharding is None else jax.sharding.reshard(h, out_sharding)


def check_draws(rngs: Any, kernel_init: Any, bias_init: Any, *metadata: Any) -> tuple[Initializer, Initializer]:
    """Return the initializers of kernel and bias, and check the other arguments that new arrays need.

    Raises:
      TypeError: An argument is of another type.
    """
    check.instance("rngs", rngs, nnx.Rngs, "a flax.nnx.Rngs such as nnx.Rngs(0)")
    for name, value in zip(("kernel_metadata", "bias_metadata"), metadata, strict=False):
        check.instance(name, value, Mapping, "a mapping")
    return check.initializer("kernel_init", kernel_init), check.initializer("bias_init", bias_init)


CLASSES: dict[tuple[str, bool], type[Layer]] = {}
"""The class of every rung, by its name and whether it is transposed."""
LAYERS: dict[str, type[Layer]] = {}
"""The class of every rung that is not transposed, by its name."""


def register(*layers: type[Layer]) -> None:
    """Make classes the layers of their rungs."""
    CLASSES.update({(layer.tying.name, layer.transposed): layer for layer in layers})
    LAYERS.update({layer.tying.name: layer for layer in layers if not layer.transposed})


def complete() -> None:
    """Make the layers of rungs without a written class, under the names of their tyings."""
    for tying in RUNGS.values():
        for transposed, ending in ((False, ""), (True, "Transpose")):
            if (tying.name, transposed) not in CLASSES:
                members = {"tying": tying, "transposed": transposed, "__doc__": tying.__doc__, "__module__": __name__}
                layer = globals()[tying.__name__ + ending] = type(tying.__name__ + ending, (Layer,), members)
                register(layer)
