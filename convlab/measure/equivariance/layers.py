r"""Where in a network shift invariance is lost: the change of the output, shared out to the layers exactly.

Cut a network after its l-th unit, run it on the still image up to there, shift all that crosses the cut, and go on from there:

    D_l = f_{L..l+1}( T_l f_{l..1}(X) ),    D_0 = f(T X),    D_L = T_L f(X)

T_l moves each array by delta over the pixels between what its neighbours see, rounded down; an array without positions (after
a flattening, a mean) stays as it is. Whatever T_l is, the whole change then telescopes,

    E = f(T X) - T_L f(X) = sum over l of (D_{l-1} - D_l)

and D_{l-1} - D_l comes from unit l alone: it vanishes if f_l T_{l-1} = T_l f_l. Within a unit that reads windows, one more cut
sets right the positions near the border, whose shifted windows do not hold the same pixels, and leaves the others.
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
from convlab.measure.receptive_field import extent as field
from convlab.measure.trace import NORMS, Program, Step, trace
from convlab.rungs import Shared

ROUNDING = 64  # of the last place of the largest number: below that, an error is none


class Unit(NamedTuple):
    """Steps that belong together: a layer, a pooling, or a single step."""

    name: str
    kind: str
    call: int | None
    steps: list[Step]


def equivariance_by_layer(model: Any, images: Float[Array, "n k l c"], delta: Delta = 1) -> list[dict[str, Any]]:
    r"""Find where in a network shift invariance, or equivariance, is lost.

    $$E = f(T X) - T f(X) = \sum_l (D_{l-1} - D_l), \qquad p_l = \langle D_{l-1} - D_l, E \rangle / (\|E\| \, \|f(X)\|)$$

    with D_l the output when the image is still up to unit l and shifted from there on (see the module). The parts p_l add up
    to the whole, |E| / |f(X)|; a unit that undoes what others did has a negative part. Any network goes, nested or with
    shortcuts: units are convlab's and Flax's spatial and linear layers and norms, poolings, and what stands between. Where it
    is not known what an operation reads (polyphase pooling, a loop, a convolution that is no layer), its result moves as many
    times slower as it has fewer positions, and stays where that is no whole number.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: What it is given; means and shares are over all of them.
      delta: Pixels by which they move around a circle, along all spatial axes or each.

    Returns:
      A row for each unit and cause that does not commute with the shift: "layer" (path of a layer, else name of the
      operation), "kind", "cause" ("padding": positions near the border; "sharing": a kernel of its own at each position;
      "stride", "pooling": samples between the old ones; "flatten", "norm"; else the operation), "error" (norm of
      f_l T h - T f_l h over that of f_l h) and "part". Errors below rounding are left out, so the parts add up to it.

    Raises:
      ValueError: `delta` has another number of entries than the images have spatial axes; or the output is all zeros or not
        finite, so that no change is relative to it.
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
    return Audit(model, images, delta).rows()


class Audit:
    """A network's steps, what they make of the still images, and how each array moves when the images do."""

    def __init__(self, model: Any, images: Array, delta: Delta):
        images = check.floating("images", images)
        self.delta = as_shift(delta, images.ndim - 2)
        self.program = trace(model, images)
        self.values = self.program.run(dict(self.program.arrays) | {self.program.images: images})
        self.dependent = self.program.dependent()
        self.units = list(_units(self.program, self.dependent))
        self.readers = collections.Counter(number for step in self.program.steps for number in step.numbers())
        self.seen = [self._follow(r + 1) for r in range(len(self.delta))]

    def rows(self) -> list[dict[str, Any]]:
        """Follow the cut through the network."""
        still, before = self._moved(self.program.output), self._finish(0, {})
        error, size, rows = before - still, jnp.linalg.norm(still.ravel()), []
        length = jnp.linalg.norm(error.ravel())
        if not (bool(size > 0) and bool(jnp.isfinite(size)) and bool(jnp.isfinite(length))):
            raise ValueError(
                f"the output has the norm {float(size)}, its change {float(length)}: no change is relative to that"
            )
        for number, unit in enumerate(self.units):
            for cause, apart, state in self._cuts(unit):
                after = self._finish(number + 1, state)
                part = float(jnp.sum((before - after) * error) / (length * size)) if length > 0 else 0.0
                rows.append({"layer": unit.name, "kind": unit.kind, "cause": cause, "error": apart, "part": part})
                before = after
        return rows

    def _cuts(self, unit: Unit) -> Iterator[tuple[str, float, dict[int, Array]]]:
        """For each cause in a unit: its name, its relative error, and what the unit has made once that cause is removed."""
        made, crossing = self._run(unit.steps, {}), self._crossing(unit)
        right = {number: self._moved(number) for number in crossing}
        wrong = {number: jnp.subtract(*map(_float, (made[number], right[number]))) for number in crossing}
        if not any(_counts(wrong[number], right[number]) for number in crossing):
            return
        inside, band = _cause(unit, self.program), self._band(unit, crossing[0]) if len(crossing) == 1 else None
        if band is None:
            yield inside, _relative(wrong, right), {}
            return
        (number,) = crossing
        near, far = wrong[number] * band, wrong[number] * ~band
        if _counts(near, right[number]):
            mended = {number: jnp.where(band, right[number], made[number])} if _counts(far, right[number]) else {}
            yield "padding", _relative({number: near}, right), mended
        if _counts(far, right[number]):
            yield inside, _relative({number: far}, right), {}

    def _crossing(self, unit: Unit) -> list[int]:
        """Numbers of the arrays of a unit that others read."""
        inner = collections.Counter(number for step in unit.steps for number in step.numbers())
        return [n for step in unit.steps for n in step.outputs if self.readers[n] > inner[n] or n == self.program.output]

    def _reading(self, unit: Unit) -> set[int]:
        """Numbers of the arrays that depend on the images and that a unit reads from others."""
        inner = {made for step in unit.steps for made in step.outputs}
        return {n for step in unit.steps for n in step.numbers() if n in self.dependent} - inner

    def _follow(self, place: int) -> dict[int, field.Seen]:
        """How all arrays move along one axis of the images, unit by unit."""
        given, layers = self.program.images, field.entries(self.program.calls)
        seen: dict[int, field.Seen] = {given: field.alone(self.program.shapes[given].shape, place)}
        for unit in self.units:
            seen = field.spans(unit.steps, seen, layers, _moving)
            for number in self._crossing(unit):
                if number in seen and seen[number] is None:
                    seen[number] = self._in_proportion(unit, number, seen)
        return seen

    def _in_proportion(self, unit: Unit, number: int, seen: Mapping[int, field.Seen]) -> field.Seen:
        """How a result moves of which it is not known what it reads: like what the unit is given, by their sizes."""
        given = [each for each in self._reading(unit) if seen.get(each) is not None]
        shapes = [self.values[each].shape for each in (*given, number)]
        if len(given) != 1 or len(shapes[0]) != len(shapes[1]):
            return None
        span, along = seen[given[0]], _axis(seen[given[0]])
        if span is None or along is None or shapes[0][along.place] % shapes[1][along.place]:
            return None
        slower = along.step * (shapes[0][along.place] // shapes[1][along.place])
        return span._replace(steps=tuple(slower if axis == along.place else 0 for axis in range(len(shapes[1]))))

    def _moved(self, number: int) -> Array:
        """What the still images make, shifted: an axis whose neighbours see pixels s apart by delta / s, rounded down."""
        by: dict[int, int] = {}
        for seen, pixels in zip(self.seen, self.delta, strict=True):
            if (found := _axis(seen.get(number))) is not None:
                by[found.place] = pixels // found.step
        return rolled(self.values[number], tuple(by.values()), tuple(by))

    def _run(self, steps: Sequence[Step], state: Mapping[int, Array]) -> dict[int, Array]:
        """Run steps on shifted arrays: those given, and else what the still images make, shifted at the cut."""
        made = dict(state)
        for step in steps:
            for number in step.numbers():
                if number not in made:
                    made[number] = self._moved(number) if number in self.dependent else self.values[number]
            made.update(step.run(made))
        return made

    def _finish(self, unit: int, state: Mapping[int, Array]) -> Array:
        """The output when all units from this one on are run on shifted arrays."""
        made = self._run([step for later in self.units[unit:] for step in later.steps], state)
        output = self.program.output
        return made[output] if output in made else self._moved(output)

    def _band(self, unit: Unit, number: int) -> np.ndarray | None:
        """Positions whose window, shifted, does not hold the same pixels; None where the unit reads no windows."""
        read = self._reading(unit)
        if len(read) != 1:
            return None
        (given,), shape = read, self.values[number].shape
        band = np.zeros((1,) * len(shape), bool)
        for seen, pixels in zip(self.seen, self.delta, strict=True):
            start, end = _axis(seen.get(given)), _axis(seen.get(number))
            laid = None if start is None or end is None else self._reads(unit, given, number, start.place, end.place)
            if start is None or end is None or laid is None:
                return None
            uneven = _uneven(*laid, pixels // start.step, pixels // end.step, self.values[given].shape[start.place])
            band = band | uneven.reshape([-1 if axis == end.place else 1 for axis in range(len(shape))])
        return np.broadcast_to(band, shape)

    def _reads(self, unit: Unit, given: int, number: int, start: int, end: int) -> tuple[np.ndarray, int] | None:
        """What each place along an axis of a unit's output reads along one of its input, -1 for padding; and the stride."""
        pixels, outputs = self.values[given].shape[start], self.values[number].shape[end]
        layout = None if unit.call is None else layout_of(self.program.calls[unit.call][1].module)
        if layout is not None and not layout.tying.by_pixel:
            axis = layout.window.axes(self.values[given].shape[1:-1])[start - 1]
            return axis.reads, axis.stride
        span = field.spans(unit.steps, {given: field.alone(self.program.shapes[given].shape, start)}, ()).get(number)
        along = _axis(span)
        if span is None or along is None or along.place != end:
            return None
        reads = along.step * np.arange(outputs)[:, None] + np.arange(span.low, span.high + 1)
        return np.where((reads >= 0) & (reads < pixels), reads, -1), along.step


def _moving(equation: Any, operands: Sequence[field.Seen]) -> field.Seen:
    """What a result sees, as far as it moves: a map does so also where it meets what sees the whole image, as its mean."""
    maps = [span for span in operands if span is not None and any(span.steps)]
    if equation.primitive.name in field.ELEMENTWISE and None not in operands and len({span.steps for span in maps}) == 1:
        return maps[0]
    return field.through(equation, operands)


class Along(NamedTuple):
    """An axis of an array, and how many pixels neighbours along it see apart."""

    place: int
    step: int


def _axis(span: field.Seen) -> Along | None:
    """The axis along which neighbours see other pixels, if there is exactly one and it is known how far apart."""
    if span is None or None in span.steps:
        return None
    places = [Along(place, step) for place, step in enumerate(span.steps) if step]
    return places[0] if len(places) == 1 else None


def _uneven(reads: np.ndarray, stride: int, came: int, moved: int, pixels: int) -> np.ndarray:
    """Which places, when the input has moved by `came` and they by `moved`, read padding or other pixels than they did."""
    if came % pixels == 0:
        return np.zeros(len(reads), bool)
    return (reads < 0).any(1) | (np.roll(reads, moved, 0) != (reads - stride * moved) % pixels).any(1)


def _float(array: Array) -> Array:
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)


def _counts(wrong: Array, right: Array) -> bool:
    """Whether an error is more than rounding."""
    return bool(jnp.max(jnp.abs(wrong)) > ROUNDING * jnp.finfo(wrong.dtype).eps * jnp.max(jnp.abs(_float(right))))


def _relative(wrong: Mapping[int, Array], right: Mapping[int, Array]) -> float:
    lengths = [jnp.sqrt(sum(jnp.sum(jnp.square(_float(array))) for array in arrays.values())) for arrays in (wrong, right)]
    return float(lengths[0] / lengths[1])


def _units(program: Program, dependent: set[int]) -> Iterator[Unit]:
    """Group the steps: those between the marks of a layer, those of one scope, and single ones."""
    inside, unit = None, None
    for step in program.steps:
        mark = step.mark
        if mark is not None and mark[1] == "input":
            inside = mark[0]
        key = ("layer", inside) if inside is not None else ("scope", _scope(step)) if step.scope else ("step", id(step))
        if mark is not None and mark[1] == "output":
            inside = None
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
    """What a unit loses away from borders is put down to."""
    if unit.call is None:
        return "pooling" if unit.kind == "pooling" else CAUSES.get(unit.name, unit.name)
    module = program.calls[unit.call][1].module
    if isinstance(module, NORMS):
        return "norm"
    layout = layout_of(module)
    return "stride" if layout is not None and layout.tying.within(Shared) else "sharing"
