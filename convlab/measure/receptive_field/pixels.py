"""The pixels of a receptive field, and the positions of layers between them and the output.

`convlab.measure.receptive_field.extent` computes the extent of a receptive field by formula. This module finds its pixels one
by one, by following the trace of the network backwards. It tracks only whether a number can have an effect, so that nothing
cancels. A maximum can depend on all its operands, an activation on its argument, and a weight counts unless it is zero.
An operation without a rule here, such as a loop, raises an error, because its dependencies would be missed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from convlab import check
from convlab.choices import did_you_mean, shown
from convlab.geometry import as_integer
from convlab.measure.receptive_field.extent import ELEMENTWISE
from convlab.measure.trace import ArrayRef, Step, trace

IMAGE, OUTPUT = "image", "output"

Position = int | Sequence[int] | None  # of an output: an int if there is one axis; None is the central one


def input_dependencies(
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Position = None
) -> dict[str, Bool[np.ndarray, "..."]]:
    r"""Find the pixels and the layers' positions that one output depends on.

    $$M^{(l-1)}_{kl} = \bigvee_{ij} M^{(l)}_{ij} \wedge [\, \partial f_l(H)_{ij} / \partial H_{kl} \not\equiv 0 \,]$$

    Args:
      model: A Flax NNX module, or a function of images.
      image_shape: The shape (*space, c) of one image.
      layer: The path of the layer whose output is traced back, as `count` names it. "output" is the network's output.
      position: The position in that output, an int if there is one axis. If None, the central position. If the output has no
        positions, all its numbers are traced back, and `position` is None or empty.

    Returns:
      A mask of the pixels by "image", and then a mask of each layer's output positions by path, in the order of the calls. A
      position is in the mask if the output depends on any of its channels through nonzero weights. The mask of a layer without
      positions has no axes.

    Raises:
      ValueError: The layer or the position does not exist, or the output has no axis of channels. Or the pixels that are read
        depend on the image (polyphase pooling), or an operation has no rule, such as a loop.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> net = nnx.Sequential(*(Conv(1, 1, (3,), 2, rngs=nnx.Rngs(0)) for _ in range(2)))
      >>> for name, mask in input_dependencies(net, (9, 1), position=[1]).items():
      ...     print(name, *np.flatnonzero(mask))
      image 1 2 3 4 5 6 7
      layers/0 1 2 3
      layers/1 1
    """
    backward = _BackwardTrace(model, image_shape)
    number = backward.number_of(layer)
    masks = jax.jit(lambda mask: backward.follow(number, mask))(backward.mask_at(number, position))
    return {name: np.asarray(masks[name]) for name in backward.numbers}


def receptive_field(
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Position = None
) -> Bool[np.ndarray, "k l"]:
    r"""Find the pixels that can change one output.

    The arguments and errors are those of `input_dependencies`, and the result is its mask of the image. Away from borders, its
    extent is $1 + \sum_l (k_l - 1) \prod_{m < l} s_m$ for k taps and stride s, which is the `receptive_field` in `count`.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> layer = Conv(1, 2, (3, 5), kernel_dilation=(2, 1), rngs=nnx.Rngs(0))
      >>> receptive_field(layer, (7, 9, 1)).sum(0)
      array([0, 0, 3, 3, 3, 3, 3, 0, 0])
    """
    return input_dependencies(model, image_shape, layer, position)[IMAGE]


def check_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a network's output, and check that it has an axis of channels.

    Raises:
      ValueError: The shape has fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"the network returns shape {shape}; needs (n, *positions, channels)")
    return shape


def as_index(space: Sequence[int], position: Position, name: str) -> tuple[int, ...]:
    """Return a position as one index per spatial axis. If it is None, return the central position.

    Raises:
      ValueError: There is no such position. The error calls the array `name`.
    """
    if position is None:
        position = tuple(n // 2 for n in space)
    entries = [position] if isinstance(position, (int, np.integer)) else check.sequence("position", position, "integers")
    index = tuple(as_integer("position", entry, least=None) for entry in entries)
    if len(index) != len(space) or not all(0 <= i < n for i, n in zip(index, space, strict=True)):
        raise ValueError(f"position is {index} but {name} has {tuple(space)} positions")
    return index


class _BackwardTrace:
    """A network's trace, to be followed backwards.

    Arrays that do not depend on the image are computed once. Only the other steps are kept.
    """

    def __init__(self, model: Any, image_shape: Sequence[int]):
        self.program = trace(model, jax.ShapeDtypeStruct((1, *check.image_shape(image_shape)), jnp.float32))
        self.known, self.steps = dict(self.program.arrays), []
        self.numbers = {IMAGE: self.program.images} | self.program.layers()
        for step in self.program.steps:
            if all(number in self.known for number in step.numbers()):
                self.known.update(step.run(self.known))
                continue
            self.steps.append(step)

    def number_of(self, layer: str) -> int:
        """Return the number of a layer's output."""
        if not isinstance(layer, str) or (layer not in self.numbers and layer != OUTPUT):
            names = [*self.numbers, OUTPUT]
            raise ValueError(f"layer {shown(layer)} is not called; needs one of {', '.join(names)}{did_you_mean(layer, names)}")
        return self.numbers.get(layer, self.program.output)

    def space(self, number: int) -> tuple[int, ...]:
        return check_channels(self.program.shapes[number].shape)[1:-1]

    def mask_at(self, number: int, position: Position) -> Array:
        """Return a mask of one position."""
        space = self.space(number)
        return jnp.zeros(space, bool).at[as_index(space, position, "the output")].set(True)

    def follow(self, number: int, mask: Array) -> dict[str, Array]:
        """Return which positions of every named array one array depends on."""
        shapes = self.program.shapes
        reached = {number: jnp.broadcast_to(mask[None, ..., None], shapes[number].shape)}
        for step in reversed(self.steps):
            if any(result in reached for result in step.outputs):
                for operand, mask in self._backward(step, reached):
                    reached[operand] = reached[operand] | mask if operand in reached else mask
        named = {name: reached.get(array, jnp.zeros(shapes[array].shape, bool)) for name, array in self.numbers.items()}
        return {name: mask.any((0, -1)) for name, mask in named.items()}

    def _backward(self, step: Step, reached: Mapping[int, Array]) -> Iterator[tuple[int, Array]]:
        """Yield the entries of each operand that can reach the output, given those of the results."""
        dependent = [
            operand.number for operand in step.inputs if isinstance(operand, ArrayRef) and operand.number not in self.known
        ]
        function, indices = STAND_INS.get(step.name), INDEX_OPERANDS.get(step.name, slice(0))
        if function is None and step.name not in LINEAR:
            raise ValueError(f"operation {step.name} has no rule; needs one to find the inputs that its result depends on")
        if any(isinstance(operand, ArrayRef) and operand.number in dependent for operand in step.inputs[indices]):
            raise ValueError(f"operation {step.name} reads indices that depend on the image; needs fixed dependencies")
        ones = [jnp.ones(self.program.shapes[number].shape, _count_dtype(self.program.shapes[number])) for number in dependent]
        linear = step._replace(inputs=tuple(self._operand(step, index) for index in range(len(step.inputs))))

        def run(*arrays: Array) -> list[Array]:
            values = dict(zip(dependent, arrays, strict=True))
            if function is None:
                return list(linear.run(values).values())
            return [function(step, values, self.known)] * len(step.outputs)

        results, pull_back = jax.vjp(run, *ones)
        cotangents = [
            reached.get(result, jnp.zeros(h.shape, bool)).astype(h.dtype)
            for result, h in zip(step.outputs, results, strict=True)
        ]
        for number, paths in zip(dependent, pull_back(cotangents), strict=True):
            yield number, jnp.real(paths) > 0.5  # the number of paths, up to rounding

    def _operand(self, step: Step, index: int) -> Any:
        """Return an operand of a linear step with its weights replaced by 1, or by 0 if they are zero.

        Indices are kept.
        """
        operand = step.inputs[index]
        if isinstance(operand, ArrayRef) and operand.number not in self.known:
            return operand
        known = jnp.asarray(self.known[operand.number] if isinstance(operand, ArrayRef) else operand)
        is_index = index in range(len(step.inputs))[INDEX_OPERANDS.get(step.name, slice(0))]
        return known if is_index else (known != 0).astype(_count_dtype(known))


def _count_dtype(array: Any) -> Any:
    """Return the dtype in which the paths through an array are counted."""
    return array.dtype if jnp.issubdtype(array.dtype, jnp.inexact) else jnp.float32


def _counts(array: Array, result: Any) -> Array:
    """Return counts of paths in the dtype of the counts of a result."""
    dtype = _count_dtype(result)
    return (array if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(array)).astype(dtype)


# A linear stand-in for a nonlinear operation: a sum of the operands that depend on the image.
StandIn = Callable[[Step, Mapping[int, Array], Mapping[int, Any]], Array]


def _sum(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Add all operands."""
    shape_dtype = step.equation.outvars[0].aval
    parts = [values[operand.number] for operand in step.inputs if _is_given(operand, values)]
    zeros = jnp.zeros(shape_dtype.shape, _count_dtype(shape_dtype))
    return sum((_counts(jnp.broadcast_to(operand, shape_dtype.shape), shape_dtype) for operand in parts), zeros)


def _product(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Add all operands, with zero wherever a factor known without the image is zero."""
    factors = [
        known[operand.number] if isinstance(operand, ArrayRef) else operand
        for operand in step.inputs
        if not _is_given(operand, values)
    ]
    return _sum(step, values, known) * math.prod((jnp.asarray(factor) != 0) for factor in factors)


def _select(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Add all cases, or take the chosen case if the choice does not depend on the image."""
    choice, *cases = step.inputs
    if _is_given(choice, values):
        return _sum(step, values, known)
    choice = known[choice.number] if isinstance(choice, ArrayRef) else choice
    zeros = jnp.zeros_like(_sum(step, values, known))
    return lax.select_n(choice, *(values[c.number].astype(zeros.dtype) if _is_given(c, values) else zeros for c in cases))


def _reduce(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,) = values.values()
    return jnp.sum(x, step.equation.params["axes"])


def _sum_along(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Add all entries of all operands along the axes that are transformed or sorted."""
    options, shape_dtype = step.equation.params, step.equation.outvars[0].aval
    axes = tuple(range(-len(options["fft_lengths"]), 0)) if "fft_lengths" in options else (options["dimension"],)
    total = sum(jnp.sum(x, axes, keepdims=True) for x in values.values())
    return _counts(jnp.broadcast_to(total, shape_dtype.shape), shape_dtype)


def _cumulative(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,) = values.values()
    return lax.cumsum(x, step.equation.params["axis"], step.equation.params["reverse"])


def _window_sum(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,), names = values.values(), ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    return lax.reduce_window(x, x.dtype.type(0), lax.add, *(step.equation.params[name] for name in names))


def _is_given(operand: Any, values: Mapping[int, Array]) -> bool:
    return isinstance(operand, ArrayRef) and operand.number in values


STAND_INS: dict[str, StandIn] = {
    **dict.fromkeys((*ELEMENTWISE, "real", "imag", "complex", "conj", "atan2", "nextafter"), _sum),
    **dict.fromkeys(("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "cbrt", "digamma", "lgamma"), _sum),
    "mul": _product,
    "select_n": _select,
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _window_sum),
    **dict.fromkeys(("cummax", "cummin", "cumprod", "cumlogsumexp"), _cumulative),
    **dict.fromkeys(("sort", "fft"), _sum_along),
}
# Linear operations, which need no stand-in.
LINEAR = {
    *("broadcast_in_dim", "concatenate", "conv_general_dilated", "convlab_form", "cumsum", "dot_general", "dynamic_slice"),
    *("dynamic_update_slice", "gather", "pad", "reduce_sum", "reduce_window_sum", "reshape", "rev", "scatter", "scatter-add"),
    *("scatter_add", "slice", "split", "squeeze", "transpose"),
}
# The operands of these operations that are indices to read or write.
INDEX_OPERANDS = {
    **dict.fromkeys(("gather", "scatter", "scatter-add", "scatter_add"), slice(1, 2)),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
}
