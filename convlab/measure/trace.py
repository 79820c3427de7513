"""A network's trace as a list of steps on numbered arrays, which measures can run in part, change, or follow backwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from convlab.calls import Call, recorded
from convlab.layers import Layer
from convlab.norm import BatchNorm

NORMS = (nnx.BatchNorm, BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm)
KINDS = (Layer, nnx.Linear, nnx.Conv, *NORMS)


CALLS = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}


def entering(number: int, x: jax.Array) -> jax.Array:
    """Mark the input of layer `number` in the trace."""
    return checkpoint_name(x, f"convlab:{number}:input")


def leaving(number: int, h: jax.Array) -> jax.Array:
    """Mark the output of layer `number` in the trace."""
    return checkpoint_name(h, f"convlab:{number}:output")


class Step(NamedTuple):
    """One operation: its equation in JAX's trace, and the numbers of what it reads and makes; literals stand for themselves."""

    equation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    scope: str

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.equation.primitive.name

    @property
    def mark(self) -> tuple[int, str] | None:
        """The number of a layer's call, and "input" or "output", where this step marks one."""
        if self.name != "name" or not self.equation.params["name"].startswith("convlab:"):
            return None
        _, number, side = self.equation.params["name"].split(":")
        return int(number), side

    def numbers(self) -> list[int]:
        """Numbers of the arrays that are read."""
        return [operand.number for operand in self.inputs if isinstance(operand, Place)]

    def run(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """Compute what the step makes."""
        operands = [values[operand.number] if isinstance(operand, Place) else operand for operand in self.inputs]
        primitive = self.equation.primitive
        options = primitive.get_bind_params(self.equation.params)
        functions, options = options if isinstance(options, tuple) else ((), options)
        results = primitive.bind(*functions, *operands, **options)
        return dict(zip(self.outputs, results if primitive.multiple_results else [results], strict=True))


class Place(NamedTuple):
    """Stands for an array by its number."""

    number: int


class Program(NamedTuple):
    """A traced network.

    Attributes:
      steps: In the order in which they run.
      arrays: What is known without the images: parameters and constants, by number.
      images: Number of the images.
      output: Number of the result.
      shapes: Shape and dtype of every array, by number.
      calls: Of its layers: paths, and what went in and came out.
    """

    steps: list[Step]
    arrays: dict[int, Any]
    images: int
    output: int
    shapes: dict[int, Any]
    calls: list[tuple[str, Call]]

    def dependent(self) -> set[int]:
        """Numbers of the arrays that depend on the images."""
        found = {self.images}
        for step in self.steps:
            if not found.isdisjoint(step.numbers()):
                found.update(step.outputs)
        return found

    def layers(self) -> dict[str, int]:
        """Numbers of what layers return, by name, in the order of the calls."""
        marks = [(step.mark, step.outputs[0]) for step in self.steps if step.mark is not None]
        return {self.calls[mark[0]][0]: number for mark, number in marks if mark[1] == "output"}

    def number_of(self, layer: str) -> int:
        """The number of what a layer returns."""
        numbers = self.layers()
        if layer not in numbers:
            raise ValueError(f"layer {layer!r} is not called; needs one of {', '.join(numbers)}")
        return numbers[layer]

    def run(
        self, values: dict[int, Any], step: Callable[[Step, Mapping[int, Any]], dict[int, Any]] = Step.run
    ) -> dict[int, Any]:
        """Compute all arrays from the parameters and the images, each step as `step` does."""
        for each in self.steps:
            values.update(step(each, values))
        return values


def trace(model: Any, images: Any, opens: Callable[[Any], bool] = lambda equation: True) -> Program:
    """Trace a network in evaluation mode, its calls taken apart where `opens` says so.

    Args:
      model: A Flax NNX module, or a function of images.
      images: Images, or their shape and dtype.
      opens: Of an equation that is a call: whether its steps take its place.
    """
    names: dict[int, str] = {}
    state, run = split(model, lambda module: names.update({id(part): name for name, part in named(module)}))
    with recorded(*KINDS, enter=entering, leave=leaving) as calls:
        closed = jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct(images.shape, images.dtype))
    steps, places, shapes = flat(closed.jaxpr, opens)
    returned = [place_of(variable, places) for variable in closed.jaxpr.outvars]
    if len(returned) != 1 or not isinstance(returned[0], Place):
        raise ValueError(f"the model returns {closed.jaxpr.outvars}; needs one array that depends on the images")
    arrays = dict(enumerate([*closed.consts, *jax.tree.leaves(state)]))
    paths = unique([names.get(id(call.module), type(call.module).__name__) for call in calls])
    return Program(steps, arrays, len(arrays), returned[0].number, shapes, list(zip(paths, calls, strict=True)))


def unique(names: Sequence[str]) -> list[str]:
    """Number the second and later calls of one layer.

    Example:
      >>> unique(["block", "head", "block"])
      ['block', 'head', 'block (2)']
    """
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name} ({count})" for name, count in zip(names, counts, strict=True)]


def split(model: Any, notice: Callable[[nnx.Module], None] = lambda module: None) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Split a network into its arrays and a function of these and of images, in evaluation mode; a function has no arrays."""
    if not isinstance(model, nnx.Module):
        return (), lambda state, x: model(x)
    copy = nnx.clone(model)
    copy.eval()
    definition, state = nnx.split(copy)

    def run(state: Any, x: Any) -> Any:
        merged = nnx.merge(definition, state)
        notice(merged)
        return merged(x)

    return state, run


def named(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """Yield the modules of a network with their paths, as `count` writes them."""
    for path, module in nnx.iter_modules(model):
        yield "/".join(map(str, path)) or type(model).__name__, module


def flat(
    jaxpr: Jaxpr, opens: Callable[[Any], bool] = lambda equation: True
) -> tuple[list[Step], dict[Any, Any], dict[int, Any]]:
    """Take a trace apart: its steps, the places of its variables, and by number the shapes of all arrays."""
    places = {variable: Place(number) for number, variable in enumerate([*jaxpr.constvars, *jaxpr.invars])}
    shapes = {place.number: variable.aval for variable, place in places.items()}
    return list(_steps(jaxpr, places, shapes, opens, "")), places, shapes


def place_of(variable: Any, places: Mapping[Any, Any]) -> Any:
    """Where a variable of a trace is; a literal stands for itself."""
    return variable.val if isinstance(variable, Literal) else places[variable]


def _steps(jaxpr: Jaxpr, places: dict[Any, Any], shapes: dict[int, Any], opens: Callable, scope: str) -> Iterator[Step]:
    """Take a trace apart; every array gets a number of its own, also where two calls share one trace."""
    for equation in jaxpr.eqns:
        inputs = tuple(place_of(variable, places) for variable in equation.invars)
        inside = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        body = called(equation)
        if body is not None and opens(equation):
            inner = dict(zip([*body.jaxpr.constvars, *body.jaxpr.invars], [*body.consts, *inputs], strict=True))
            yield from _steps(body.jaxpr, inner, shapes, opens, inside)
            results = [place_of(variable, inner) for variable in body.jaxpr.outvars]
            places.update(zip(equation.outvars, results, strict=True))
            continue
        outputs = range(len(shapes), len(shapes) + len(equation.outvars))
        shapes.update(zip(outputs, (variable.aval for variable in equation.outvars), strict=True))
        places.update(zip(equation.outvars, map(Place, outputs), strict=True))
        yield Step(equation, inputs, tuple(outputs), inside)


def called(equation: Any) -> ClosedJaxpr | None:
    """The trace that an equation calls, if it is a call that can be written out."""
    if equation.primitive.name not in CALLS:
        return None
    inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params)
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
