"""Equivariance by layer: every layer's exact contribution to the loss of shift invariance.

Cut a network after its l-th unit. Run the units up to there on the unshifted images, shift all arrays that cross the cut, and
run the remaining units on them:

    D_l = f_{L..l+1}( T_l f_{l..1}(X) ),    D_0 = f(T X),    D_L = T_L f(X)

T_l shifts each array by delta over its effective stride, rounded down. The effective stride is the distance in pixels between
the receptive fields of neighbouring elements. An array without positions (after a flattening or a mean) is not shifted. For
any T_l, the total difference telescopes:

    E = f(T X) - T_L f(X) = sum over l of (D_{l-1} - D_l)

The term D_{l-1} - D_l comes from unit l alone, because it vanishes if f_l T_{l-1} = T_l f_l. If a unit reads windows, one more
cut within the unit separates the border. That cut corrects only the positions whose shifted windows hold other pixels.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import layout_of
from convlab.measure.equivariance.shift import Delta, as_shift, rolled
from convlab.measure.receptive_field import extent
from convlab.measure.receptive_field.extent import Span
from convlab.measure.trace import NORMS, Program, Step, trace
from convlab.rungs import Shared

ROUNDING = 64  # errors up to this multiple of the resolution of the largest number count as rounding


class Unit(NamedTuple):
    """Steps of the trace that belong together: a layer, a pooling, or a single operation.

    Attributes:
      name: The path of the layer, or the name of the operation.
      kind: The class of the layer, "pooling" or "operation".
      call: The number of the layer's call; None if the unit is no layer.
      steps: The unit's steps.
    """

    name: str
    kind: str
    call: int | None
    steps: list[Step]


def equivariance_by_layer(model: Any, images: Float[Array, "n k l c"], delta: Delta = 1) -> list[dict[str, Any]]:
    r"""Find where in a network shift invariance or equivariance is lost.

    $$E = f(T X) - T f(X) = \sum_l (D_{l-1} - D_l), \qquad p_l = \langle D_{l-1} - D_l, E \rangle / (\|E\| \, \|f(X)\|)$$

    D_l is the output when the images are unshifted up to unit l and shifted from there on (see the module). The
    contributions p_l add up to the relative error |E| / |f(X)|. A unit that cancels an error of others has a negative
    contribution. Networks may be nested and have residual connections. Units are convlab's layers, `nnx.Conv`,
    `nnx.Linear`, norms, pooling, and the single operations between them. Other layers of Flax appear as their operations.

    For some operations the receptive field is not known (polyphase pooling, a loop, a convolution that is no layer). The
    effective stride of their result is then assumed to grow by the ratio of input to output positions. If that is no
    integer, the result is not shifted.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: The network's input; norms and inner products are over all images.
      delta: The shift around a circle in pixels, an int for all spatial axes or one for each.

    Returns:
      One row for each unit and cause that does not commute with the shift:
      - "layer": the path of a layer, or the name of the operation;
      - "kind": the class of the layer, "pooling" or "operation";
      - "cause": "padding" (positions near the border), "sharing" (a separate kernel at each position), "stride" or "pooling"
        (samples at new positions), "flatten", "norm", or the operation;
      - "error": the norm of f_l T h - T f_l h over that of f_l h;
      - "contribution": p_l. Errors below rounding are left out, so the contributions add up to the total within rounding.

    Raises:
      ValueError: `delta` has another number of entries than the images have spatial axes. Or the output is all zeros or not
        finite, so that no relative error is defined.
      TypeError: The images are not floating.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> net = nnx.Sequential(Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, lambda h: h.reshape(len(h), -1))
      >>> for row in equivariance_by_layer(net, jnp.arange(30.0).reshape(1, 5, 6, 1)):
      ...     print(row["layer"], row["cause"])
      layers/0 padding
      reshape flatten
    """
    return _ErrorByUnit(model, images, delta).rows()


class _ErrorByUnit:
    """Splits the equivariance error of a network between its units."""

    def __init__(self, model: Any, images: Array, delta: Delta):
        images = check.floating("images", images)
        self.delta = as_shift(delta, images.ndim - 2)
        self.program = trace(model, images)
        self.values = self.program.run(dict(self.program.arrays) | {self.program.images: images})
        self.dependent = self.program.dependent()
        self.units = list(_units(self.program, self.dependent))
        self.readers = collections.Counter(number for step in self.program.steps for number in step.numbers())
        self.spans = [self._spans_along(r + 1) for r in range(len(self.delta))]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each unit and cause with an error."""
        shifted, before = self._shifted(self.program.output), self._output_from(0, {})
        total, norm, rows = before - shifted, jnp.linalg.norm(shifted.ravel()), []
        total_norm = jnp.linalg.norm(total.ravel())
        if not (bool(norm > 0) and bool(jnp.isfinite(norm)) and bool(jnp.isfinite(total_norm))):
            raise ValueError(
                f"images give an output of norm {float(norm)} that changes by {float(total_norm)}; needs a positive and finite"
                " norm for a relative error"
            )
        for number, unit in enumerate(self.units):
            for cause, error, state in self._errors_of(unit):
                after = self._output_from(number + 1, state)
                contribution = float(jnp.sum((before - after) * total) / (total_norm * norm)) if total_norm > 0 else 0.0
                row = {"layer": unit.name, "kind": unit.kind, "cause": cause}
                rows.append(row | {"error": error, "contribution": contribution})
                before = after
        return rows

    def _errors_of(self, unit: Unit) -> Iterator[tuple[str, float, dict[int, Array]]]:
        """Yield the causes of a unit's error.

        Each cause has a name, a relative error, and the unit's outputs with that error corrected.
        """
        actual, outputs = self._run(unit.steps, {}), self._outputs(unit)
        expected = {number: self._shifted(number) for number in outputs}
        errors = {number: jnp.subtract(*map(_float, (actual[number], expected[number]))) for number in outputs}
        if not any(_exceeds_rounding(errors[number], expected[number]) for number in outputs):
            return
        cause, border = _cause(unit, self.program), self._border(unit, outputs[0]) if len(outputs) == 1 else None
        if border is None:
            yield cause, _relative(errors, expected), {}
            return
        (number,) = outputs
        at_border, inside = errors[number] * border, errors[number] * ~border
        inside_counts = _exceeds_rounding(inside, expected[number])
        if _exceeds_rounding(at_border, expected[number]):
            corrected = {number: jnp.where(border, expected[number], actual[number])} if inside_counts else {}
            yield "padding", _relative({number: at_border}, expected), corrected
        if inside_counts:
            yield cause, _relative({number: inside}, expected), {}

    def _outputs(self, unit: Unit) -> list[int]:
        """Return the numbers of a unit's arrays that other units read."""
        inner = collections.Counter(number for step in unit.steps for number in step.numbers())
        return [n for step in unit.steps for n in step.outputs if self.readers[n] > inner[n] or n == self.program.output]

    def _inputs(self, unit: Unit) -> set[int]:
        """Return the numbers of the image-dependent arrays that a unit reads from others."""
        inner = {number for step in unit.steps for number in step.outputs}
        return {n for step in unit.steps for n in step.numbers() if n in self.dependent} - inner

    def _spans_along(self, axis: int) -> dict[int, Span | None]:
        """Compute the spans of all arrays along one axis of the images, unit by unit."""
        images, layers = self.program.images, extent.layer_inputs_of(self.program.calls)
        spans: dict[int, Span | None] = {images: extent.image_span(self.program.shapes[images].shape, axis)}
        for unit in self.units:
            spans = extent.spans(unit.steps, spans, layers, _map_span)
            for number in self._outputs(unit):
                if number in spans and spans[number] is None:
                    spans[number] = self._span_by_size(unit, number, spans)
        return spans

    def _span_by_size(self, unit: Unit, number: int, spans: Mapping[int, Span | None]) -> Span | None:
        """Estimate an unknown span from that of the unit's input.

        The step grows by the ratio of their sizes. If that is no integer, the span stays unknown.
        """
        inputs = [read for read in self._inputs(unit) if spans.get(read) is not None]
        shapes = [self.values[array].shape for array in (*inputs, number)]
        if len(inputs) != 1 or len(shapes[0]) != len(shapes[1]):
            return None
        span, spatial = spans[inputs[0]], _spatial_axis(spans[inputs[0]])
        if span is None or spatial is None or shapes[0][spatial.axis] % shapes[1][spatial.axis]:
            return None
        step = spatial.step * (shapes[0][spatial.axis] // shapes[1][spatial.axis])
        return span._replace(steps=tuple(step if axis == spatial.axis else 0 for axis in range(len(shapes[1]))))

    def _shifted(self, number: int) -> Array:
        """Return an array of the unshifted images, shifted by delta over the step, rounded down."""
        shift: dict[int, int] = {}
        for spans, pixels in zip(self.spans, self.delta, strict=True):
            if (spatial := _spatial_axis(spans.get(number))) is not None:
                shift[spatial.axis] = pixels // spatial.step
        return rolled(self.values[number], tuple(shift.values()), tuple(shift))

    def _run(self, steps: Sequence[Step], state: Mapping[int, Array]) -> dict[int, Array]:
        """Run steps, starting from the arrays in `state`.

        All other inputs are arrays of the unshifted images, shifted at the cut.
        """
        values = dict(state)
        for step in steps:
            for number in step.numbers():
                if number not in values:
                    values[number] = self._shifted(number) if number in self.dependent else self.values[number]
            values.update(step.run(values))
        return values

    def _output_from(self, first: int, state: Mapping[int, Array]) -> Array:
        """Return the network's output when all units from number `first` on run on shifted arrays."""
        values = self._run([step for unit in self.units[first:] for step in unit.steps], state)
        output = self.program.output
        return values[output] if output in values else self._shifted(output)

    def _border(self, unit: Unit, number: int) -> np.ndarray | None:
        """Return a mask of the positions whose shifted window holds other pixels.

        The result is None if the unit reads no windows.
        """
        inputs = self._inputs(unit)
        if len(inputs) != 1:
            return None
        (source,), shape = inputs, self.values[number].shape
        border = np.zeros((1,) * len(shape), bool)
        for spans, pixels in zip(self.spans, self.delta, strict=True):
            start, end = _spatial_axis(spans.get(source)), _spatial_axis(spans.get(number))
            windows = None if start is None or end is None else self._reads(unit, source, number, start.axis, end.axis)
            if start is None or end is None or windows is None:
                return None
            size = self.values[source].shape[start.axis]
            changed = _changed(*windows, pixels // start.step, pixels // end.step, size)
            border = border | changed.reshape([-1 if axis == end.axis else 1 for axis in range(len(shape))])
        return np.broadcast_to(border, shape)

    def _reads(self, unit: Unit, source: int, number: int, start: int, end: int) -> tuple[np.ndarray, int] | None:
        """Return the input elements that each output element of a unit reads, and the stride.

        The elements are counted along axis `start` of the input for each element along axis `end` of the output. Padding is -1.
        The result is None if the elements are not known.
        """
        pixels, outputs = self.values[source].shape[start], self.values[number].shape[end]
        layout = None if unit.call is None else layout_of(self.program.calls[unit.call][1].module)
        if layout is not None and not layout.tying.by_pixel:
            axis = layout.window.axes(self.values[source].shape[1:-1])[start - 1]
            return axis.reads, axis.stride
        start_span = extent.image_span(self.program.shapes[source].shape, start)
        span = extent.spans(unit.steps, {source: start_span}, ()).get(number)
        spatial = _spatial_axis(span)
        if span is None or spatial is None or spatial.axis != end:
            return None
        reads = spatial.step * np.arange(outputs)[:, None] + np.arange(span.low, span.high + 1)
        return np.where((reads >= 0) & (reads < pixels), reads, -1), spatial.step


def _map_span(equation: Any, operands: Sequence[Span | None]) -> Span | None:
    """Return the span of a result.

    In an elementwise operation of a map and an array without positions, such as its mean, the span is the map's.
    """
    maps = [span for span in operands if span is not None and any(span.steps)]
    if equation.primitive.name in extent.ELEMENTWISE and None not in operands and len({span.steps for span in maps}) == 1:
        return maps[0]
    return extent.result_span(equation, operands)


class SpatialAxis(NamedTuple):
    """An axis of an array, and the distance in pixels between the spans of neighbours along it."""

    axis: int
    step: int


def _spatial_axis(span: Span | None) -> SpatialAxis | None:
    """Return the one axis along which the spans of neighbours differ by a known step, or None."""
    if span is None or None in span.steps:
        return None
    axes = [SpatialAxis(axis, step) for axis, step in enumerate(span.steps) if step]
    return axes[0] if len(axes) == 1 else None


def _changed(reads: np.ndarray, stride: int, input_shift: int, output_shift: int, pixels: int) -> np.ndarray:
    """Return a mask of the elements that read other pixels after input and output are shifted.

    Elements that read padding are in the mask too.
    """
    if input_shift % pixels == 0:
        return np.zeros(len(reads), bool)
    return (reads < 0).any(1) | (np.roll(reads, output_shift, 0) != (reads - stride * output_shift) % pixels).any(1)


def _float(array: Array) -> Array:
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)


def _exceeds_rounding(error: Array, expected: Array) -> bool:
    return bool(jnp.max(jnp.abs(error)) > ROUNDING * jnp.finfo(error.dtype).eps * jnp.max(jnp.abs(_float(expected))))


def _relative(errors: Mapping[int, Array], expected: Mapping[int, Array]) -> float:
    norms = [jnp.sqrt(sum(jnp.sum(jnp.square(_float(array))) for array in arrays.values())) for arrays in (errors, expected)]
    return float(norms[0] / norms[1])


def _units(program: Program, dependent: set[int]) -> Iterator[Unit]:
    """Group the steps into units.

    A unit is the steps between the marks of a layer, those of one scope, or a single step.
    """
    layer, unit = None, None
    for step in program.steps:
        mark = step.mark
        if mark is not None and mark[1] == "input":
            layer = mark[0]
        key = ("layer", layer) if layer is not None else ("scope", _scope(step)) if step.scope else ("step", id(step))
        if mark is not None and mark[1] == "output":
            layer = None
        if dependent.isdisjoint(step.outputs):
            continue
        if unit is None or unit[0] != key:
            if unit is not None:
                yield _unit(program, *unit)
            unit = (key, [])
        unit[1].append(step)
    if unit is not None:
        yield _unit(program, *unit)


def _unit(program: Program, key: tuple[str, Any], steps: list[Step]) -> Unit:
    if key[0] == "layer":
        name, call = program.calls[key[1]]
        return Unit(name, type(call.module).__name__, key[1], steps)
    name = _scope(steps[0]) or steps[0].name
    return Unit(name, "pooling" if "pool" in name or name.startswith("reduce_window") else "operation", None, steps)


def _scope(step: Step) -> str:
    return step.scope.split("/")[0]


CAUSES = {"reshape": "flatten", "slice": "stride"}


def _cause(unit: Unit, program: Program) -> str:
    """Return the cause of a unit's error away from borders."""
    if unit.call is None:
        return "pooling" if unit.kind == "pooling" else CAUSES.get(unit.name, unit.name)
    module = program.calls[unit.call][1].module
    if isinstance(module, NORMS):
        return "norm"
    layout = layout_of(module)
    return "stride" if layout is not None and layout.tying.within(Shared) else "sharing"
