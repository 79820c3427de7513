"""What of an image each number in a network sees: its receptive field, read off the network's trace.

Along one axis of the image, the number at place (p, q, ...) of any array in the trace depends on the pixels

    low + step_p p + step_q q + ...  to  high + step_p p + step_q q + ...

counted from the first pixel, padding included. A window multiplies the step by its stride and widens high - low by step times
its extent less one; a sum of branches sees from the lowest pixel of any to the highest; a reduction sees from its first place
to its last. What has no rule here is not known, and neither is what depends on it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr

from convlab.calls import Call, layout_of
from convlab.measure.trace import Place, Step, flat, place_of
from convlab.rungs import Layout


class Span(NamedTuple):
    """Which pixels along one axis of the image the numbers of an array see.

    Attributes:
      pixels: Of the image along that axis.
      steps: Per axis of the array, pixels between what neighbours see; None where that differs from place to place.
      low: First pixel that place 0 sees; where a step is None, the first that any place along that axis sees.
      high: Last pixel, likewise.
    """

    pixels: int
    steps: tuple[int | None, ...]
    low: int
    high: int

    @property
    def field(self) -> tuple[int | None, int | None]:
        """Pixels that one number sees and pixels between what neighbours see (None without neighbours); None if not known."""
        steps = [step for step in self.steps if step != 0]
        if not steps:
            return min(self.high - self.low + 1, self.pixels), None
        if len(steps) > 1 or steps[0] is None:
            return None, None
        return self.high - self.low + 1, abs(steps[0])


class Entry(NamedTuple):
    """What enters a layer: the shape of its input, and its layout where what it sees follows from that."""

    shape: tuple[int, ...]
    layout: Layout | None


Seen = Span | None  # None: not known
NOTHING = Span(0, (), 0, -1)


Extent = tuple[int | None, ...]  # along each axis of the images, None where it is not known


def fields(jaxpr: Jaxpr, layers: Sequence[Entry]) -> list[tuple[Extent, Extent]]:
    """Find `Span.field` along all axes of the images, the last argument, for every marked layer and for the first output.

    A layer that stands in a loop is not known.
    """
    steps, places, shapes = flat(jaxpr)
    image, output = places[jaxpr.invars[-1]].number, place_of(jaxpr.outvars[0], places)
    marks = {step.mark: step.outputs[0] for step in steps}
    numbers = [marks.get((number, "output")) for number in range(len(layers))]
    seen = [spans(steps, {image: alone(shapes[image].shape, axis)}, layers) for axis in range(1, len(shapes[image].shape) - 1)]
    found = [[None if number is None else along.get(number, NOTHING) for along in seen] for number in numbers]
    found.append([along.get(output.number, NOTHING) if isinstance(output, Place) else NOTHING for along in seen])
    pairs = [[(None, None) if span is None else span.field for span in along] for along in found]
    return [(tuple(field for field, _ in along), tuple(jump for _, jump in along)) for along in pairs]


def alone(shape: Sequence[int], axis: int) -> Span:
    """An array that sees itself along one axis."""
    return Span(shape[axis], tuple(int(place == axis) for place in range(len(shape))), 0, 0)


def _layer(span: Seen, shape: Sequence[int], layout: Layout | None) -> Seen:
    """A layer sees all channels, and all pixels or those of its window."""
    if span is None or layout is None:
        return span
    first = len(shape) - 1 - (layout.window.rank or 1)
    if layout.tying.by_pixel:
        return _over(span, shape, range(first, len(shape)))
    seen: Seen = _over(span, shape, [len(shape) - 1])
    for place, axis in enumerate(layout.window.axes(shape[first:-1]), first):
        seen = _along(seen, place, axis.stride, -axis.low, axis.dilation * (axis.size - 1))
    return seen


def through(equation: Any, operands: Sequence[Seen]) -> Seen:
    """What the result of one operation sees."""
    if all(span is NOTHING for span in operands):
        return NOTHING
    known = [span for span in operands if span is not None]
    rule = RULES.get(equation.primitive.name)
    return None if rule is None or len(known) < len(operands) else rule(equation, known)


def entries(calls: Sequence[tuple[Any, Call]]) -> list[Entry]:
    """What enters each layer, as the rules of receptive fields ask for it."""
    return [Entry(call.x.shape, layout_of(call.module)) for _, call in calls]


def spans(
    steps: Sequence[Step],
    given: Mapping[int, Seen],
    layers: Sequence[Entry],
    rule: Callable[[Any, Sequence[Seen]], Seen] = through,
) -> dict[int, Seen]:
    """What every array sees along one axis, from what the given ones see, by a rule; what sees nothing is left out.

    The output of a layer sees what its window says, whatever computes it.
    """
    seen, entered = dict(given), {}
    for step in steps:
        operands = [seen.get(part.number, NOTHING) if isinstance(part, Place) else NOTHING for part in step.inputs]
        if all(span is NOTHING for span in operands):
            continue
        result = rule(step.equation, operands)
        if step.mark is not None and layers:
            number, side = step.mark
            if side == "input":
                entered[number] = result
            elif layers[number].layout is not None:
                result = _layer(entered.get(number), *layers[number])
        seen.update(dict.fromkeys(step.outputs, result))
    return seen


def _along(span: Seen, place: int, stride: int = 1, first: int = 0, extent: int = 0) -> Seen:
    """Let place m of one axis see what the places stride * m + first to stride * m + first + extent saw."""
    if span is None or (stride, first, extent) == (1, 0, 0):
        return span
    step = span.steps[place]
    if step is None:
        return None
    low, high = sorted((step * first, step * (first + extent)))
    return _stepping(span, {place: step * stride})._replace(low=span.low + low, high=span.high + high)


def _over(span: Span, shape: Sequence[int], places: Sequence[int]) -> Span:
    """Let every place along these axes see what all of them saw."""
    low, high = span.low, span.high
    for place in places:
        reach = (span.steps[place] or 0) * (shape[place] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return _stepping(span, dict.fromkeys(places, 0))._replace(low=low, high=high)


def _stepping(span: Span, steps: Mapping[int, int | None]) -> Span:
    return span._replace(steps=tuple(steps.get(place, step) for place, step in enumerate(span.steps)))


def _kept(span: Span, places: Iterable[int]) -> Span:
    """What is seen from the array that has only these axes, in this order; -1 is an axis of copies."""
    return span._replace(steps=tuple(0 if place < 0 else span.steps[place] for place in places))


def _union(known: Sequence[Span]) -> Seen:
    """From the lowest to the highest pixel of arrays whose neighbours are equally far apart; all, if one of them sees all."""
    for span in known:
        if set(span.steps) <= {0} and span.low <= 0 and span.high >= span.pixels - 1:
            return span
    if len({span.steps for span in known}) != 1:
        return None if known else NOTHING
    return known[0]._replace(low=min(span.low for span in known), high=max(span.high for span in known))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _elementwise(equation: Any, operands: Sequence[Span]) -> Seen:
    scalar = (0,) * len(_shape(equation.outvars[0]))
    return _union([span._replace(steps=span.steps or scalar) for span in operands if span is not NOTHING])


def _reduce(equation: Any, operands: Sequence[Span]) -> Seen:
    shape, gone = _shape(equation.invars[0]), equation.params["axes"]
    return _kept(_over(operands[0], shape, gone), [place for place in range(len(shape)) if place not in gone])


def _dot(equation: Any, operands: Sequence[Span]) -> Seen:
    """A product of what sees and what does not; the axes of both come first, then those of the left, of the right."""
    if NOTHING not in operands:
        return None
    number = operands.index(NOTHING) ^ 1
    contracted, both = (sides[number] for sides in equation.params["dimension_numbers"])
    shape, rank = _shape(equation.invars[number]), len(_shape(equation.outvars[0]))
    own = [place for place in range(len(shape)) if place not in (*contracted, *both)]
    others = [-1] * (rank - len(both) - len(own))
    return _kept(_over(operands[number], shape, contracted), [*both, *own, *others] if number == 0 else [*both, *others, *own])


def _window(equation: Any, operands: Sequence[Span]) -> Seen:
    seen: Seen = operands[0]
    names = ("window_dimensions", "window_strides", "window_dilation", "base_dilation", "padding")
    numbers = zip(*(equation.params[name] for name in names), strict=True)
    for place, (size, stride, dilation, base, (low, _)) in enumerate(numbers):
        seen = _along(seen, place, stride, -low, dilation * (size - 1)) if base == 1 else None
    return seen


def _pad(equation: Any, operands: Sequence[Span]) -> Seen:
    seen: Seen = operands[0] if operands[1] is NOTHING else None
    for place, (low, high, inside) in enumerate(equation.params["padding_config"]):
        seen = None if inside or high < 0 else _along(seen, place, first=-low)
    return seen


def _slice(equation: Any, operands: Sequence[Span]) -> Seen:
    seen: Seen = operands[0]
    starts, ends = (equation.params[f"{end}_indices"] for end in ("start", "limit"))
    strides, sizes = equation.params["strides"] or (1,) * len(starts), _shape(equation.invars[0])
    for place, (start, end, stride, size) in enumerate(zip(starts, ends, strides, sizes, strict=True)):
        if (start, end, stride) != (0, size, 1):
            seen = None if seen is None or seen.steps[place] is None else _along(seen, place, stride, start)
    return seen


def _reverse(equation: Any, operands: Sequence[Span]) -> Seen:
    seen: Seen = operands[0]
    for place in equation.params["dimensions"]:
        seen = _along(seen, place, -1, _shape(equation.invars[0])[place] - 1)
    return seen


def _concatenate(equation: Any, operands: Sequence[Span]) -> Seen:
    """Channels side by side are a union; shorter pieces before and after the longest are padding if they copy what it sees."""
    place, shapes = equation.params["dimension"], [_shape(piece) for piece in equation.invars]
    pieces = [number for number, span in enumerate(operands) if span is not NOTHING and shapes[number][place]]
    if all(operands[number].steps[place] == 0 for number in pieces):
        return _union([operands[number] for number in pieces])
    longest = max(pieces, key=lambda number: shapes[number][place])
    extents = {operands[number].high - operands[number].low for number in pieces}
    covers = [_over(operands[number], shapes[number], [place]) for number in pieces]
    whole = _over(operands[longest], shapes[longest], [place])
    if len(extents) > 1 or any(cover.low < whole.low or cover.high > whole.high for cover in covers):
        return None
    return _along(operands[longest], place, first=-sum(shape[place] for shape in shapes[:longest]))


def _broadcast(equation: Any, operands: Sequence[Span]) -> Seen:
    old, new = _shape(equation.invars[0]), equation.params["shape"]
    places = {to: place for place, to in enumerate(equation.params["broadcast_dimensions"]) if old[place] == new[to]}
    return _kept(operands[0], [places.get(to, -1) for to in range(len(new))])


def _reshape(equation: Any, operands: Sequence[Span]) -> Seen:
    """Axes are split, or merged; neighbours on merged axes are not equally far apart, unless they see the same."""
    span, old, new = operands[0], _shape(equation.invars[0]), _shape(equation.outvars[0])
    if 0 in old:
        return NOTHING
    steps: dict[int, int | None] = {}
    for merged, split in _groups(old, new):
        step = span.steps[merged[0]]
        if len(merged) > 1 and any(span.steps[place] != 0 for place in merged):
            span, step = _over(span, old, merged), None
        for number, place in enumerate(split):
            steps[place] = None if step is None else step * math.prod(new[later] for later in split[number + 1 :])
    return span._replace(steps=tuple(steps.get(place, 0) for place in range(len(new))))


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which axes become which in a reshape: the shortest runs of equal size, without axes of one place."""
    sides = [[place for place, size in enumerate(shape) if size != 1] for shape in (old, new)]
    while all(sides):
        merged, split = [sides[0].pop(0)], [sides[1].pop(0)]
        while missing := math.prod(old[place] for place in merged) - math.prod(new[place] for place in split):
            run, side = (split, sides[1]) if missing > 0 else (merged, sides[0])
            run.append(side.pop(0))
        yield merged, split


def _squeeze(equation: Any, operands: Sequence[Span]) -> Seen:
    return _kept(operands[0], [q for q in range(len(operands[0].steps)) if q not in equation.params["dimensions"]])


ELEMENTWISE = (
    *("abs", "ceil", "convert_element_type", "copy", "cos", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "log"),
    *("integer_pow", "is_finite", "log1p", "logistic", "name", "neg", "not", "reduce_precision", "round", "rsqrt", "sign"),
    *("sin", "sqrt", "square", "stop_gradient", "tan", "tanh"),
    *("add", "add_any", "and", "clamp", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul", "ne", "or", "pow", "rem"),
    *("select_n", "sub", "xor"),
)
# operation of JAX -> what its result sees, given the operation and what each operand sees
RULES: dict[str, Callable[[Any, Sequence[Span]], Seen]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": lambda equation, operands: _kept(operands[0], equation.params["permutation"]),
    "squeeze": _squeeze,
    "slice": _slice,
    "split": lambda equation, operands: operands[0] if operands[0].steps[equation.params["axis"]] == 0 else None,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
}
