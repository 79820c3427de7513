"""The extent of a receptive field: a formula for every array in a network's trace.

Along one axis of the image, the element (p, q, ...) of any array in the trace depends on the pixels

    low + step_p p + step_q q + ...  to  high + step_p p + step_q q + ...

counted from the first pixel, padding included. A window multiplies the step by its stride and extends the range high - low by
step times (extent - 1). A sum of branches ranges from the lowest pixel of any branch to the highest. A reduction ranges from
its first element to its last. A transposed convolution divides the step by its stride. Its elements read different numbers of
pixels, so that low and high are unknown (infinite). If an operation has no rule here, the span of its result is unknown (None),
as is every span that depends on it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr

from convlab.calls import Call, layout_of
from convlab.geometry import as_axes
from convlab.measure.trace import ArrayRef, Step, flatten, resolve
from convlab.rungs import Layout

Distance = int | Fraction  # in pixels; a fraction only behind transposed convolutions


class Span(NamedTuple):
    """The pixels along one axis of the image that the elements of an array depend on.

    Attributes:
      pixels: The number of pixels of the image along that axis.
      steps: The distance in pixels between the spans of neighbours, for each axis of the array. None if it varies.
      low: The first pixel that element 0 depends on. If a step is None, the first that any element along that axis depends on.
        Minus infinity if it is not known.
      high: The last such pixel, or infinity.
    """

    pixels: int
    steps: tuple[Distance | None, ...]
    low: Distance | float
    high: Distance | float

    @property
    def field_and_stride(self) -> tuple[int | None, int | None]:
        r"""The receptive field of one element and its effective stride, both in pixels.

        $$\text{high} - \text{low} + 1 \quad \text{and} \quad |\text{step}|$$

        The effective stride is the distance between the receptive fields of neighbours. It is None if there are no
        neighbours. Both are None if they are not known.
        """
        steps = [step for step in self.steps if step != 0]
        if math.isinf(self.high - self.low):
            return None, None
        field = int(self.high - self.low) + 1
        if not steps:
            return min(field, self.pixels), None
        return (None, None) if len(steps) > 1 or steps[0] is None else (field, int(abs(steps[0])))


class LayerInput(NamedTuple):
    """The shape of a layer's input, and the layout that determines its receptive field, or None."""

    shape: tuple[int, ...]
    layout: Layout | None


INDEPENDENT = Span(0, (), 0, -1)  # of an array that does not depend on the images
Extent = tuple[int | None, ...]  # per axis of the images, None if it is not known


def fields(jaxpr: Jaxpr, layers: Sequence[LayerInput]) -> list[tuple[Extent, Extent]]:
    """Compute `Span.field_and_stride` for every marked layer and for the first output.

    Fields are computed along all axes of the images. The images are the last argument of the jaxpr. The field of a layer
    inside a loop is not known.
    """
    steps, references, shapes = flatten(jaxpr)
    image, output = references[jaxpr.invars[-1]].number, resolve(jaxpr.outvars[0], references)
    marks = {step.mark: step.outputs[0] for step in steps}
    numbers = [marks.get((number, "output")) for number in range(len(layers))]
    shape = shapes[image].shape
    by_axis = [spans(steps, {image: image_span(shape, axis)}, layers) for axis in range(1, len(shape) - 1)]
    rows = [[None if number is None else known.get(number, INDEPENDENT) for known in by_axis] for number in numbers]
    rows.append([known.get(output.number, INDEPENDENT) if isinstance(output, ArrayRef) else INDEPENDENT for known in by_axis])
    pairs = [[(None, None) if span is None else span.field_and_stride for span in row] for row in rows]
    return [(tuple(field for field, _ in row), tuple(stride for _, stride in row)) for row in pairs]


def image_span(shape: Sequence[int], axis: int) -> Span:
    """Return the span of the image itself along one axis."""
    return Span(shape[axis], tuple(int(dim == axis) for dim in range(len(shape))), 0, 0)


def _layer(span: Span | None, shape: Sequence[int], layout: Layout | None) -> Span | None:
    """Return the span of a layer's output.

    A layer reads all channels, and either all pixels or those in its window.
    """
    if span is None or layout is None:
        return span
    first = len(shape) - 1 - (layout.window.ndim or 1)
    if layout.tying.by_pixel:
        return _merge(span, shape, range(first, len(shape)))
    result: Span | None = _merge(span, shape, [len(shape) - 1])
    if layout.transposed:
        for dim, stride in enumerate(as_axes("strides", layout.window.strides, layout.ndim), first):
            result = _spread(result, dim, 1, stride)
        return result
    for dim, axis in enumerate(layout.window.axes(shape[first:-1]), first):
        result = _slide(result, dim, axis.stride, -axis.low, axis.dilation * (axis.size - 1))
    return result


def result_span(equation: Any, operands: Sequence[Span | None]) -> Span | None:
    """Return the span of the result of one operation."""
    if all(span is INDEPENDENT for span in operands):
        return INDEPENDENT
    known = [span for span in operands if span is not None]
    rule = RULES.get(equation.primitive.name)
    return None if rule is None or len(known) < len(operands) else rule(equation, known)


def layer_inputs_of(calls: Sequence[tuple[Any, Call]]) -> list[LayerInput]:
    """Return the input shape and layout of each called layer."""
    return [LayerInput(call.x.shape, layout_of(call.module, transposed=True)) for _, call in calls]


def spans(
    steps: Sequence[Step],
    start: Mapping[int, Span | None],
    layers: Sequence[LayerInput],
    rule: Callable[[Any, Sequence[Span | None]], Span | None] = result_span,
) -> dict[int, Span | None]:
    """Compute the span of every array along one axis of the image.

    Spans are propagated from given ones with a rule for operations. The output of a layer has the span that follows from
    its window, whatever operations compute it. Arrays that do not depend on the image are left out.
    """
    known, layer_inputs = dict(start), {}
    for step in steps:
        operands = [known.get(part.number, INDEPENDENT) if isinstance(part, ArrayRef) else INDEPENDENT for part in step.inputs]
        if all(span is INDEPENDENT for span in operands):
            continue
        result = rule(step.equation, operands)
        if step.mark is not None and layers:
            number, side = step.mark
            if side == "input":
                layer_inputs[number] = result
            elif layers[number].layout is not None:
                result = _layer(layer_inputs.get(number), *layers[number])
        known.update(dict.fromkeys(step.outputs, result))
    return known


def _slide(span: Span | None, dim: int, stride: int = 1, first: int = 0, extent: int = 0) -> Span | None:
    """Return the span after sliding a window along one axis.

    Element m of the result reads elements stride * m + first to stride * m + first + extent.
    """
    if span is None or (stride, first, extent) == (1, 0, 0):
        return span
    step = span.steps[dim]
    if step is None:
        return None
    low, high = sorted((step * first, step * (first + extent)))
    return _with_steps(span, {dim: step * stride})._replace(low=span.low + low, high=span.high + high)


def _spread(span: Span | None, dim: int, stride: int, dilation: int) -> Span | None:
    """Return the span after a window slides over elements that are `dilation` apart.

    There are zeros between the elements. The steps of the span are exact, but its ends are not known.
    """
    step = None if span is None else span.steps[dim]
    if span is None or step is None:
        return None
    quotient = Fraction(step * stride, dilation)
    steps = {dim: int(quotient) if quotient.denominator == 1 else quotient}
    return _with_steps(span, steps)._replace(low=-math.inf, high=math.inf)


def _merge(span: Span, shape: Sequence[int], dims: Sequence[int]) -> Span:
    """Return the span if every element along these axes depends on the pixels of all of them."""
    low, high = span.low, span.high
    for dim in dims:
        reach = (span.steps[dim] or 0) * (shape[dim] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return _with_steps(span, dict.fromkeys(dims, 0))._replace(low=low, high=high)


def _with_steps(span: Span, steps: Mapping[int, Distance | None]) -> Span:
    return span._replace(steps=tuple(steps.get(dim, step) for dim, step in enumerate(span.steps)))


def _select_axes(span: Span, dims: Iterable[int]) -> Span:
    """Return the span of the array with only these axes, in this order, where -1 is a broadcast axis."""
    return span._replace(steps=tuple(0 if dim < 0 else span.steps[dim] for dim in dims))


def _union(known: Sequence[Span]) -> Span | None:
    """Return the span from the lowest to the highest pixel of arrays with equal steps.

    If one array depends on all pixels, the span is that array's.
    """
    for span in known:
        if set(span.steps) <= {0} and span.low <= 0 and span.high >= span.pixels - 1:
            return span
    if len({span.steps for span in known}) != 1:
        return None if known else INDEPENDENT
    return known[0]._replace(low=min(span.low for span in known), high=max(span.high for span in known))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _elementwise(equation: Any, operands: Sequence[Span]) -> Span | None:
    scalar = (0,) * len(_shape(equation.outvars[0]))
    return _union([span._replace(steps=span.steps or scalar) for span in operands if span is not INDEPENDENT])


def _reduce(equation: Any, operands: Sequence[Span]) -> Span | None:
    shape, reduced = _shape(equation.invars[0]), equation.params["axes"]
    return _select_axes(_merge(operands[0], shape, reduced), [dim for dim in range(len(shape)) if dim not in reduced])


def _dot(equation: Any, operands: Sequence[Span]) -> Span | None:
    """Return the span of a product of an array that depends on the image and one that does not.

    The result's axes are the batch axes, then those of the left operand, then those of the right.
    """
    if INDEPENDENT not in operands:
        return None
    number = operands.index(INDEPENDENT) ^ 1
    contracted, batch = (sides[number] for sides in equation.params["dimension_numbers"])
    shape, ndim = _shape(equation.invars[number]), len(_shape(equation.outvars[0]))
    remaining = [dim for dim in range(len(shape)) if dim not in (*contracted, *batch)]
    others = [-1] * (ndim - len(batch) - len(remaining))
    return _select_axes(
        _merge(operands[number], shape, contracted),
        [*batch, *remaining, *others] if number == 0 else [*batch, *others, *remaining],
    )


def _window(equation: Any, operands: Sequence[Span]) -> Span | None:
    result: Span | None = operands[0]
    names = ("window_dimensions", "window_strides", "window_dilation", "base_dilation", "padding")
    numbers = zip(*(equation.params[name] for name in names), strict=True)
    for dim, (size, stride, dilation, base, (low, _)) in enumerate(numbers):
        result = _slide(result, dim, stride, -low, dilation * (size - 1)) if base == 1 else None
    return result


def _convolve(equation: Any, operands: Sequence[Span]) -> Span | None:
    """Return the span of a convolution with a kernel that does not depend on the image."""
    options, size = equation.params, _shape(equation.invars[1])
    if operands[1] is not INDEPENDENT or options["batch_group_count"] > 1:
        return None
    inputs, kernel, outputs = options["dimension_numbers"]
    result: Span | None = _merge(operands[0], _shape(equation.invars[0]), [inputs[1]])
    numbers = [options[name] for name in ("window_strides", "rhs_dilation", "lhs_dilation", "padding")]
    for dim, taps, stride, dilation, base, (low, _) in zip(inputs[2:], kernel[2:], *numbers, strict=True):
        plain = base == 1
        result = _slide(result, dim, stride, -low, dilation * (size[taps] - 1)) if plain else _spread(result, dim, stride, base)
    return None if result is None else _select_axes(result, [inputs[outputs.index(dim)] for dim in range(len(outputs))])


def _pad(equation: Any, operands: Sequence[Span]) -> Span | None:
    result: Span | None = operands[0] if operands[1] is INDEPENDENT else None
    for dim, (low, high, inside) in enumerate(equation.params["padding_config"]):
        result = None if inside or high < 0 else _slide(result, dim, first=-low)
    return result


def _slice(equation: Any, operands: Sequence[Span]) -> Span | None:
    result: Span | None = operands[0]
    starts, ends = (equation.params[f"{end}_indices"] for end in ("start", "limit"))
    strides, sizes = equation.params["strides"] or (1,) * len(starts), _shape(equation.invars[0])
    for dim, (start, end, stride, size) in enumerate(zip(starts, ends, strides, sizes, strict=True)):
        if (start, end, stride) != (0, size, 1):
            result = None if result is None or result.steps[dim] is None else _slide(result, dim, stride, start)
    return result


def _reverse(equation: Any, operands: Sequence[Span]) -> Span | None:
    result: Span | None = operands[0]
    for dim in equation.params["dimensions"]:
        result = _slide(result, dim, -1, _shape(equation.invars[0])[dim] - 1)
    return result


def _concatenate(equation: Any, operands: Sequence[Span]) -> Span | None:
    """Return the span of concatenated arrays.

    Channels form a union. Along other axes, shorter pieces can be padding of the longest. The pieces are padding if they
    copy elements of the longest, so that they depend on no other pixels.
    """
    dim, shapes = equation.params["dimension"], [_shape(piece) for piece in equation.invars]
    pieces = [number for number, span in enumerate(operands) if span is not INDEPENDENT and shapes[number][dim]]
    if all(operands[number].steps[dim] == 0 for number in pieces):
        return _union([operands[number] for number in pieces])
    longest = max(pieces, key=lambda number: shapes[number][dim])
    extents = {operands[number].high - operands[number].low for number in pieces}
    covers = [_merge(operands[number], shapes[number], [dim]) for number in pieces]
    full = _merge(operands[longest], shapes[longest], [dim])
    if len(extents) > 1 or any(cover.low < full.low or cover.high > full.high for cover in covers):
        return None
    return _slide(operands[longest], dim, first=-sum(shape[dim] for shape in shapes[:longest]))


def _broadcast(equation: Any, operands: Sequence[Span]) -> Span | None:
    old, new = _shape(equation.invars[0]), equation.params["shape"]
    dims = {to: dim for dim, to in enumerate(equation.params["broadcast_dimensions"]) if old[dim] == new[to]}
    return _select_axes(operands[0], [dims.get(to, -1) for to in range(len(new))])


def _reshape(equation: Any, operands: Sequence[Span]) -> Span | None:
    """Return the span after splitting or merging axes.

    A merged axis has no constant step, unless its elements all depend on the same pixels.
    """
    span, old, new = operands[0], _shape(equation.invars[0]), _shape(equation.outvars[0])
    if 0 in old:
        return INDEPENDENT
    steps: dict[int, Distance | None] = {}
    for merged, split in _groups(old, new):
        step = span.steps[merged[0]]
        if len(merged) > 1 and any(span.steps[dim] != 0 for dim in merged):
            span, step = _merge(span, old, merged), None
        for number, dim in enumerate(split):
            steps[dim] = None if step is None else step * math.prod(new[later] for later in split[number + 1 :])
    return span._replace(steps=tuple(steps.get(dim, 0) for dim in range(len(new))))


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which axes become which in a reshape.

    Groups are the shortest runs of equal size. Axes of size 1 are left out.
    """
    sides = [[dim for dim, size in enumerate(shape) if size != 1] for shape in (old, new)]
    while all(sides):
        merged, split = [sides[0].pop(0)], [sides[1].pop(0)]
        while imbalance := math.prod(old[dim] for dim in merged) - math.prod(new[dim] for dim in split):
            run, side = (split, sides[1]) if imbalance > 0 else (merged, sides[0])
            run.append(side.pop(0))
        yield merged, split


def _squeeze(equation: Any, operands: Sequence[Span]) -> Span | None:
    return _select_axes(operands[0], [q for q in range(len(operands[0].steps)) if q not in equation.params["dimensions"]])


ELEMENTWISE = (
    *("abs", "ceil", "convert_element_type", "copy", "cos", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "log"),
    *("integer_pow", "is_finite", "log1p", "logistic", "name", "neg", "not", "reduce_precision", "round", "rsqrt", "sign"),
    *("sin", "sqrt", "square", "stop_gradient", "tan", "tanh"),
    *("add", "add_any", "and", "clamp", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul", "ne", "or", "pow", "rem"),
    *("select_n", "sub", "xor"),
)
# The function for each JAX primitive that computes the span of its result from the equation and the operands' spans.
RULES: dict[str, Callable[[Any, Sequence[Span]], Span | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
    "conv_general_dilated": _convolve,
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": lambda equation, operands: _select_axes(operands[0], equation.params["permutation"]),
    "squeeze": _squeeze,
    "slice": _slice,
    "split": lambda equation, operands: operands[0] if operands[0].steps[equation.params["axis"]] == 0 else None,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
}
