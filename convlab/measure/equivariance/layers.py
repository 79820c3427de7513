"""Equivariance by layer: every layer's exact contribution to the loss of shift invariance.

Cut a network after its l-th unit. Run the units up to there on the unshifted images, shift all arrays that cross the cut, and
run the remaining units on them:

    D_l = f_{L..l+1}( T_l f_{l..1}(X) ),    D_0 = f(T X),    D_L = T_L f(X)

T_l shifts each array by delta over its effective stride, rounded down. The effective stride is the distance in pixels between
the receptive fields of neighbouring elements. A transposed convolution divides it by its stride, so its output shifts by the
stride when its input shifts by one. An array without positions (after a flattening or a mean) is not shifted. For any T_l, the
total difference telescopes:

    E = f(T X) - T_L f(X) = sum over l of (D_{l-1} - D_l)

The term D_{l-1} - D_l comes from unit l alone, because it vanishes if f_l T_{l-1} = T_l f_l. If a unit reads windows, one more
cut within the unit separates the border. That cut corrects only the positions whose shifted windows hold other pixels.
"""

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import SPATIAL, is_stock, layout_of
from convlab.geometry import as_axes
from convlab.layers import Layer
from convlab.measure.equivariance.shift import Delta, as_shift, rolled
from convlab.measure.receptive_field import extent
from convlab.measure.receptive_field.extent import Distance, Span
from convlab.measure.trace import NORMS, Program, Step, trace
from convlab.rungs import Shared, make_window
from convlab.rungs.flax_conventions import dilated

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
    contribution. Networks may be nested and have residual connections. Units are convlab's layers, Flax's convolutions, linear
    layers and norms, pooling, and the single operations between them. Other layers of Flax appear as their operations.

    Masks and input dilation are part of a layer. A transposed layer commutes if its output shifts by the stride times the
    shift of its input.

    For some operations the receptive field is not known (polyphase pooling, a loop). The effective stride of their result is
    then assumed to grow by the ratio of input to output positions. If that is no integer, the result is not shifted.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: The network's input; norms and inner products are over all images.
      delta: The shift around a circle in pixels, an int for all spatial axes or one for each.

    Returns:
      One row for each unit and cause that does not commute with the shift:
      - "layer": the path of a layer, or the name of the operation;
      - "kind": the class of the layer, "pooling" or "operation";
      - "cause": "padding" (positions near the border), "sharing" (a separate kernel or bias at each position), "stride" or
        "pooling" (samples at new positions), "flatten", "norm", the operation, or "unknown" for a layer that overrides the
        call or the convolution of its class;
      - "axes": the spatial axes of the images, from 0, along which the shift alone has that error. With padding ("SAME",
        "CIRCULAR"), a convolution has errors along axis 0 only;
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
      ...     print(row["layer"], row["cause"], row["axes"])
      layers/0 padding (0, 1)
      reshape flatten (0, 1)
    """
    return _ErrorByUnit(model, images, delta).rows()


class _Comparison(NamedTuple):
    """A unit's outputs for shifted arrays, and its shifted outputs.

    Attributes:
      actual: The outputs for shifted arrays, by number.
      expected: The shifted outputs for the arrays themselves, by number.
      border: A mask of the positions whose shifted window holds other pixels, False if the unit reads no windows.
      errors: The differences that exceed rounding, by cause and number. At the border the cause is "padding".
    """

    actual: dict[int, Array]
    expected: dict[int, Array]
    border: np.ndarray
    errors: dict[str, dict[int, Array]]


class _ErrorByUnit:
    """Splits the equivariance error of a network between its units."""

    def __init__(self, model: Any, images: Array, delta: Delta):
        images = check.image_batch("images", images)
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
            for cause, axes, error, state in self._errors_of(unit):
                after = self._output_from(number + 1, state)
                product = jnp.real(jnp.vdot(total, before - after))
                contribution = float(product / (total_norm * norm)) if total_norm > 0 else 0.0
                row = {"layer": unit.name, "kind": unit.kind, "cause": cause, "axes": axes}
                rows.append(row | {"error": error, "contribution": contribution})
                before = after
        return rows

    def _errors_of(self, unit: Unit) -> Iterator[tuple[str, tuple[int, ...], float, dict[int, Array]]]:
        """Yield the causes of a unit's error.

        Each cause has a name, the axes of the shifts that have it, a relative error, and the unit's outputs with that error
        corrected.
        """
        actual, expected, border, errors = self._compared(unit, self.delta)
        moved = [axis for axis, pixels in enumerate(self.delta) if pixels] if errors else []
        alone = {axis: self._compared(unit, [pixels * (r == axis) for r, pixels in enumerate(self.delta)]) for axis in moved}
        for cause, parts in errors.items():
            axes = tuple(axis for axis in moved if cause in alone[axis].errors)
            is_part = cause == "padding" and len(errors) > 1
            corrected = {n: jnp.where(border, expected[n], actual[n]) for n in parts} if is_part else {}
            yield cause, axes, _relative(parts, expected), corrected

    def _compared(self, unit: Unit, delta: Sequence[int]) -> "_Comparison":
        """Compare a unit's outputs for shifted arrays with its shifted outputs."""
        actual, outputs = self._run(unit.steps, {}, delta), self._outputs(unit)
        expected = {number: self._shifted(number, delta) for number in outputs}
        border = self._border(unit, outputs[0], delta) if len(outputs) == 1 else np.array(False)
        errors: dict[str, dict[int, Array]] = {}
        for cause, mask in {"padding": border, _cause(unit, self.program): ~border}.items():
            parts = {n: jnp.subtract(*map(_inexact, (actual[n], expected[n]))) * mask for n in outputs}
            if any(_exceeds_rounding(error, expected[number]) for number, error in parts.items()):
                errors[cause] = parts
        return _Comparison(actual, expected, border, errors)

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

    def _shifted(self, number: int, delta: Sequence[int] | None = None) -> Array:
        """Return an array of the unshifted images, shifted by delta over the step, rounded down."""
        shift: dict[int, int] = {}
        for spans, pixels in zip(self.spans, self.delta if delta is None else delta, strict=True):
            if (spatial := _spatial_axis(spans.get(number))) is not None:
                shift[spatial.axis] = pixels // spatial.step
        return rolled(self.values[number], tuple(shift.values()), tuple(shift))

    def _run(self, steps: Sequence[Step], state: Mapping[int, Array], delta: Sequence[int] | None = None) -> dict[int, Array]:
        """Run steps, starting from the arrays in `state`.

        All other inputs are arrays of the unshifted images, shifted at the cut.
        """
        values = dict(state)
        for step in steps:
            for number in step.numbers():
                if number not in values:
                    values[number] = self._shifted(number, delta) if number in self.dependent else self.values[number]
            values.update(step.run(values))
        return values

    def _output_from(self, first: int, state: Mapping[int, Array]) -> Array:
        """Return the network's output when all units from number `first` on run on shifted arrays."""
        values = self._run([step for unit in self.units[first:] for step in unit.steps], state)
        output = self.program.output
        return values[output] if output in values else self._shifted(output)

    def _border(self, unit: Unit, number: int, delta: Sequence[int]) -> np.ndarray:
        """Return a mask of the positions whose shifted window holds other pixels.

        The result is False if the unit reads no windows.
        """
        inputs = self._inputs(unit)
        if len(inputs) != 1:
            return np.array(False)
        (source,), shape = inputs, self.values[number].shape
        border = np.zeros((1,) * len(shape), bool)
        for spans, pixels in zip(self.spans, delta, strict=True):
            start, end = _spatial_axis(spans.get(source)), _spatial_axis(spans.get(number))
            reads = None if start is None or end is None else self._reads(unit, source, number, start.axis, end.axis)
            if start is None or end is None or reads is None:
                return np.array(False)
            changed = reads.changed(pixels // start.step, pixels // end.step)
            border = border | changed.reshape([-1 if axis == end.axis else 1 for axis in range(len(shape))])
        return np.broadcast_to(border, shape)

    def _reads(self, unit: Unit, source: int, number: int, start: int, end: int) -> "_Reads | None":
        """Return what a unit's output along axis `end` reads along axis `start` of its input.

        The result is None if this is not known.
        """
        images, results = (self.values[array].shape for array in (source, number))
        if unit.call is not None:
            module = self.program.calls[unit.call][1].module
            reads = _reads_of_layer(module, images[1:-1], results[1:-1], start - 1) if isinstance(module, SPATIAL) else None
            if reads is not None:
                return reads
        span = extent.spans(unit.steps, {source: extent.image_span(images, start)}, ()).get(number)
        spatial = _spatial_axis(span)
        if span is None or spatial is None or spatial.axis != end or math.isinf(span.high - span.low):
            return None
        step = int(spatial.step)
        table = step * np.arange(results[end])[:, None] + np.arange(int(span.low), int(span.high) + 1)
        return _Reads.of_table(np.where((table >= 0) & (table < images[start]), table, -1), images[start], step)


class _Reads(NamedTuple):
    """The input elements that each output element reads along one axis.

    Attributes:
      links: The numbers of an output, a tap and the input that it reads there, one column for each such triple.
      sizes: The numbers of outputs, taps and inputs.
      padded: A mask of the outputs that read padding.
      stride: The distance in inputs after which outputs repeat.
      period: The number of outputs after which they repeat.
    """

    links: np.ndarray
    sizes: tuple[int, int, int]
    padded: np.ndarray
    stride: int
    period: int

    @staticmethod
    def of_table(reads: np.ndarray, pixels: int, stride: int, dilation: int = 1) -> "_Reads":
        """Return the reads of a table (outputs, taps) of pixels, -1 for padding.

        Every `dilation`-th pixel is an input.
        """
        output, tap = np.nonzero((reads >= 0) & (reads % dilation == 0))
        links = np.stack([output, tap, reads[output, tap] // dilation])
        ratio = Fraction(dilation, stride)
        padded = np.any(reads < 0, 1, keepdims=True)[:, 0]
        return _Reads(links, (*reads.shape, pixels), padded, ratio.denominator, ratio.numerator)

    def transposed(self) -> "_Reads":
        """Return the reads of the transpose: every input reads the outputs that read it."""
        outputs, taps, pixels = self.sizes
        return _Reads(self.links[::-1], (pixels, taps, outputs), np.zeros(pixels, bool), self.period, self.stride)

    def changed(self, input_shift: int, output_shift: int) -> np.ndarray:
        """Return a mask of the outputs that read other inputs after both are shifted.

        Outputs that read padding are included.
        """
        outputs, taps, pixels = self.sizes
        result = np.zeros(outputs, bool)
        if input_shift % pixels:
            result |= self.padded
            periods = output_shift // self.period
            moved = self.links + np.array([self.period * periods, 0, self.stride * periods])[:, None]
            before, after = (np.ravel_multi_index(tuple(links), self.sizes, "wrap") for links in (self.links, moved))
            result[np.setxor1d(np.asarray(before), np.asarray(after)) // (taps * pixels)] = True
        return result


def _reads_of_layer(module: Any, inputs: Sequence[int], outputs: Sequence[int], axis: int) -> _Reads | None:
    """Return what the positions of a layer read along one axis, or None if its windows are not known."""
    layout = layout_of(module, transposed=True)
    if layout is not None:
        if layout.tying.by_pixel:
            return None
        window = layout.window.axes(outputs if layout.transposed else inputs)[axis]
        reads = _Reads.of_table(window.reads, window.pixels, window.stride)
        return reads.transposed() if layout.transposed else reads
    if not is_stock(module) or getattr(module, "input_dilation", None) is None:
        return None
    dilations = as_axes("input_dilation", module.input_dilation, len(inputs))
    options = module.kernel_size, module.strides, module.padding, module.kernel_dilation
    window = make_window(*options, None).axes(dilated(inputs, dilations))[axis]
    return _Reads.of_table(window.reads, inputs[axis], window.stride, dilations[axis])


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
    step: Distance


def _spatial_axis(span: Span | None) -> SpatialAxis | None:
    """Return the one axis along which the spans of neighbours differ by a known step, or None."""
    if span is None or None in span.steps:
        return None
    axes = [SpatialAxis(axis, step) for axis, step in enumerate(span.steps) if step]
    return axes[0] if len(axes) == 1 else None


def _inexact(array: Array) -> Array:
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.float32)


def _exceeds_rounding(error: Array, expected: Array) -> bool:
    return bool(jnp.max(jnp.abs(error)) > ROUNDING * jnp.finfo(error.dtype).eps * jnp.max(jnp.abs(_inexact(expected))))


def _relative(errors: Mapping[int, Array], expected: Mapping[int, Array]) -> float:
    norms = [
        jnp.sqrt(sum(jnp.sum(jnp.abs(_inexact(array)) ** 2) for array in arrays.values())) for arrays in (errors, expected)
    ]
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
    if isinstance(module, SPATIAL) and not is_stock(module):
        return "unknown"
    is_shared = module.tying.within(Shared) if isinstance(module, Layer) else isinstance(module, SPATIAL)
    bias: Any = getattr(module, "bias", None)
    if is_shared and bias is not None and bias[...].ndim > 1:
        window: Any = getattr(layout_of(module, transposed=True), "window", module)
        is_shared = np.max(window.strides or 1) > 1  # then the stride has errors too
    return "stride" if is_shared else "sharing"
