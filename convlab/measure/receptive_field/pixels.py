"""What of an image reaches one output: the pixels that can, and through which positions of which layers.

`convlab.measure.receptive_field.extent` finds the extent of a receptive field by formula; here its pixels are found one by
one, by following the trace of the network backwards. Nothing cancels on that way, as only whether a number can matter is
followed: a maximum can pass on any of what it looks at, an activation passes on what it is given, and a weight counts unless it
is zero. What has no rule here (a loop) is refused, as what it reads would go unseen.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from convlab.measure.receptive_field import extent as field
from convlab.measure.trace import Place, Step, trace

IMAGE, OUTPUT = "image", "output"

Position = int | Sequence[int] | None  # of an output: an int where there is one axis, None for the central one


def input_dependencies(
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Position = None
) -> dict[str, Bool[np.ndarray, "..."]]:
    r"""Find which pixels, through which positions of every layer, lead to one output.

    $$M^{(l-1)}_{kl} = \bigvee_{ij} M^{(l)}_{ij} \wedge [\, \partial f_l(H)_{ij} / \partial H_{kl} \not\equiv 0 \,]$$

    Args:
      model: A Flax NNX module, or a function of images.
      image_shape: (*space, c) of one image.
      layer: Path of the layer whose output is asked about, as `count` names it; "output" is what the network returns.
      position: Of that output, an int where it has one axis; absent, the central one. Empty where it has no positions: all its
        numbers then.

    Returns:
      Which pixels lead there, by "image", and then which positions of each layer's output, by path in the order of the calls:
      those of which any channel does, through weights that are not zero. The mask of a layer without positions has no axes.

    Raises:
      ValueError: No such layer or position; an output without an axis of channels; which pixels are read depends on the image
        (polyphase pooling); or an operation that is not known, such as a loop.

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
    way = _Way(model, image_shape)
    number = way.of(layer)
    seen = jax.jit(lambda mask: way.back(number, mask))(way.at(number, position))
    return {name: np.asarray(seen[name]) for name in way.numbers}


def receptive_field(
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Position = None
) -> Bool[np.ndarray, "k l"]:
    r"""Find which pixels can change one output: arguments as in `input_dependencies`, of which this is the image.

    Away from borders its extent is $1 + \sum_l (k_l - 1) \prod_{m < l} s_m$ with k taps and stride s: the field in `count`.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> layer = Conv(1, 2, (3, 5), kernel_dilation=(2, 1), rngs=nnx.Rngs(0))
      >>> receptive_field(layer, (7, 9, 1)).sum(0)
      array([0, 0, 3, 3, 3, 3, 3, 0, 0])
    """
    return input_dependencies(model, image_shape, layer, position)[IMAGE]


def with_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 2:
        raise ValueError(f"the network returns shape {shape}; needs (n, *positions, channels)")
    return shape


def as_place(space: Sequence[int], position: Position, where: str) -> tuple[int, ...]:
    if position is None:
        position = tuple(n // 2 for n in space)
    place = (int(position),) if isinstance(position, (int, np.integer)) else tuple(position)
    if len(place) != len(space) or not all(0 <= i < n for i, n in zip(place, space, strict=True)):
        raise ValueError(f"position is {place} but {where} has {tuple(space)} positions")
    return place


class _Way:
    """The way back through a network's trace: what is known without the image, and the steps that read it."""

    def __init__(self, model: Any, image_shape: Sequence[int]):
        self.program = trace(model, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
        self.known, self.steps = dict(self.program.arrays), []
        self.numbers = {IMAGE: self.program.images} | self.program.layers()
        for step in self.program.steps:
            if all(number in self.known for number in step.numbers()):
                self.known.update(step.run(self.known))
                continue
            self.steps.append(step)

    def of(self, layer: str) -> int:
        """The number of a layer's output."""
        if layer not in self.numbers and layer != OUTPUT:
            raise ValueError(f"layer {layer!r} is not called; needs one of {', '.join([*self.numbers, OUTPUT])}")
        return self.numbers.get(layer, self.program.output)

    def space(self, number: int) -> tuple[int, ...]:
        return with_channels(self.program.shapes[number].shape)[1:-1]

    def at(self, number: int, position: Position) -> Array:
        """A mask of one position."""
        space = self.space(number)
        return jnp.zeros(space, bool).at[as_place(space, position, "the output")].set(True)

    def back(self, number: int, mask: Array) -> dict[str, Array]:
        """Which positions of every named array lead to those of one array."""
        shapes = self.program.shapes
        reached = {number: jnp.broadcast_to(mask[None, ..., None], shapes[number].shape)}
        for step in reversed(self.steps):
            if any(made in reached for made in step.outputs):
                for given, found in self._through(step, reached):
                    reached[given] = reached[given] | found if given in reached else found
        named = {name: reached.get(at, jnp.zeros(shapes[at].shape, bool)) for name, at in self.numbers.items()}
        return {name: array.any((0, -1)) for name, array in named.items()}

    def _through(self, step: Step, reached: Mapping[int, Array]) -> Iterator[tuple[int, Array]]:
        """What of its operands a step may pass on to what is reached of its results."""
        given = [part.number for part in step.inputs if isinstance(part, Place) and part.number not in self.known]
        function, where = PASSING.get(step.name), PLACES.get(step.name, slice(0))
        if function is None and step.name not in LINEAR:
            raise ValueError(f"{step.name} is not known here: what leads to an output through it cannot be told")
        if any(isinstance(part, Place) and part.number in given for part in step.inputs[where]):
            raise ValueError(f"which numbers {step.name} reads depends on the image: what leads to an output is not fixed")
        ones = [jnp.ones(self.program.shapes[number].shape, _counted(self.program.shapes[number])) for number in given]
        linear = step._replace(inputs=tuple(self._operand(step, place) for place in range(len(step.inputs))))

        def run(*arrays: Array) -> list[Array]:
            values = dict(zip(given, arrays, strict=True))
            if function is None:
                return list(linear.run(values).values())
            return [function(step, values, self.known)] * len(step.outputs)

        results, pull = jax.vjp(run, *ones)
        back = [
            reached.get(made, jnp.zeros(h.shape, bool)).astype(h.dtype) for made, h in zip(step.outputs, results, strict=True)
        ]
        for number, found in zip(given, pull(back), strict=True):
            yield number, found > 0.5  # counts of ways, up to the rounding of whatever computes them

    def _operand(self, step: Step, place: int) -> Any:
        """An operand of a linear step: where it reads, as it is; a weight as 1 or, for none, 0."""
        part = step.inputs[place]
        if isinstance(part, Place) and part.number not in self.known:
            return part
        known = jnp.asarray(self.known[part.number] if isinstance(part, Place) else part)
        says_where = place in range(len(step.inputs))[PLACES.get(step.name, slice(0))]
        return known if says_where else (known != 0).astype(_counted(known))


def _counted(array: Any) -> Any:
    """The dtype in which ways through an array are counted."""
    return array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.float32


# What stands for an operation that passes numbers on but not linearly: a sum, of what it is given from the image.
Passing = Callable[[Step, Mapping[int, Array], Mapping[int, Any]], Array]


def _any(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """All operands alike."""
    form = step.equation.outvars[0].aval
    parts = [values[part.number] for part in step.inputs if _in(part, values)]
    zeros = jnp.zeros(form.shape, _counted(form))
    return sum((jnp.broadcast_to(part, form.shape).astype(zeros.dtype) for part in parts), zeros)


def _product(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Nothing where a factor that does not come from the image is zero."""
    factors = [known[part.number] if isinstance(part, Place) else part for part in step.inputs if not _in(part, values)]
    return _any(step, values, known) * math.prod((jnp.asarray(factor) != 0) for factor in factors)


def _chosen(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """All cases, unless it is known without the image which is chosen."""
    which, *cases = step.inputs
    if _in(which, values):
        return _any(step, values, known)
    which = known[which.number] if isinstance(which, Place) else which
    zeros = jnp.zeros_like(_any(step, values, known))
    return lax.select_n(which, *(values[c.number].astype(zeros.dtype) if _in(c, values) else zeros for c in cases))


def _over(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,) = values.values()
    return jnp.sum(x, step.equation.params["axes"])


def _along(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Everything along the axes that are transformed or sorted, from all operands."""
    options, form = step.equation.params, step.equation.outvars[0].aval
    axes = tuple(range(-len(options["fft_lengths"]), 0)) if "fft_lengths" in options else (options["dimension"],)
    total = sum(jnp.sum(x, axes, keepdims=True) for x in values.values())
    return jnp.broadcast_to(total, form.shape).astype(_counted(form))


def _before(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,) = values.values()
    return lax.cumsum(x, step.equation.params["axis"], step.equation.params["reverse"])


def _windows(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,), names = values.values(), ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    return lax.reduce_window(x, x.dtype.type(0), lax.add, *(step.equation.params[name] for name in names))


def _in(part: Any, values: Mapping[int, Array]) -> bool:
    return isinstance(part, Place) and part.number in values


PASSING: dict[str, Passing] = {
    **dict.fromkeys((*field.ELEMENTWISE, "real", "imag", "complex", "conj", "atan2", "nextafter"), _any),
    **dict.fromkeys(("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "cbrt", "digamma", "lgamma"), _any),
    "mul": _product,
    "select_n": _chosen,
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin"), _over),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _windows),
    **dict.fromkeys(("cummax", "cummin", "cumprod", "cumlogsumexp"), _before),
    **dict.fromkeys(("sort", "fft"), _along),
}
# Operations that are sums, or leave numbers as they are, and so stand for themselves.
LINEAR = {
    *("broadcast_in_dim", "concatenate", "conv_general_dilated", "convlab_form", "cumsum", "dot_general", "dynamic_slice"),
    *("dynamic_update_slice", "gather", "pad", "reduce_sum", "reduce_window_sum", "reshape", "rev", "scatter", "scatter-add"),
    *("scatter_add", "slice", "split", "squeeze", "transpose"),
}
# Which operands of these say where to read or write.
PLACES = {
    **dict.fromkeys(("gather", "scatter", "scatter-add", "scatter_add"), slice(1, 2)),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
}
