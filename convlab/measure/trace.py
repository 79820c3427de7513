"""The trace of a network as steps on numbered arrays.

Measures can run the steps, change them, or follow them backwards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from convlab import check
from convlab.calls import SPATIAL, Call, recorded
from convlab.choices import did_you_mean, shown
from convlab.norm import BatchNorm

NORMS = (nnx.BatchNorm, BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm)
KINDS = (*SPATIAL, nnx.Linear, nnx.LinearGeneral, nnx.Einsum, *NORMS)


CALLS = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}


def mark_input(number: int, x: jax.Array) -> jax.Array:
    """Mark the input of layer `number` in the trace."""
    return checkpoint_name(x, f"convlab:{number}:input")


def mark_output(number: int, h: jax.Array) -> jax.Array:
    """Mark the output of layer `number` in the trace."""
    return checkpoint_name(h, f"convlab:{number}:output")


def mark_of(equation: Any) -> tuple[int, str] | None:
    """Return the number of a layer's call and "input" or "output", or None if the equation marks neither."""
    if equation.primitive.name != "name" or not equation.params["name"].startswith("convlab:"):
        return None
    _, number, side = equation.params["name"].split(":")
    return int(number), side


class Step(NamedTuple):
    """One operation of a traced network.

    Attributes:
      equation: The operation's equation in JAX's trace.
      inputs: The operands, each an `ArrayRef` or the value of a literal.
      outputs: The numbers of the results.
      scope: The name stack of the operation, separated by slashes.
    """

    equation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    scope: str

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.equation.primitive.name

    @property
    def mark(self) -> tuple[int, str] | None:
        """The number of a layer's call and "input" or "output", or None if the step marks neither."""
        return mark_of(self.equation)

    def numbers(self) -> list[int]:
        """Return the numbers of the arrays that the step reads."""
        return [operand.number for operand in self.inputs if isinstance(operand, ArrayRef)]

    def run(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """Compute the step's results from the values of the arrays by number."""
        operands = [values[operand.number] if isinstance(operand, ArrayRef) else operand for operand in self.inputs]
        primitive = self.equation.primitive
        options = primitive.get_bind_params(self.equation.params)
        functions, options = options if isinstance(options, tuple) else ((), options)
        results = primitive.bind(*functions, *operands, **options)
        return dict(zip(self.outputs, results if primitive.multiple_results else [results], strict=True))


class ArrayRef(NamedTuple):
    """A reference to an array by its number."""

    number: int


class Program(NamedTuple):
    """A traced network.

    Attributes:
      steps: The operations, in the order in which they run.
      arrays: The arrays that do not depend on the images, that is, parameters and constants, by number.
      images: The number of the images.
      output: The number of the result.
      shapes: The shape and dtype of every array, by number.
      calls: The path, and the input's and output's shapes, of each call of a layer.
    """

    steps: list[Step]
    arrays: dict[int, Any]
    images: int
    output: int
    shapes: dict[int, Any]
    calls: list[tuple[str, Call]]

    def dependent(self) -> set[int]:
        """Return the numbers of the arrays that depend on the images."""
        numbers = {self.images}
        for step in self.steps:
            if not numbers.isdisjoint(step.numbers()):
                numbers.update(step.outputs)
        return numbers

    def layers(self) -> dict[str, int]:
        """Return the numbers of the layers' outputs by name, in the order of the calls."""
        marks = [(step.mark, step.outputs[0]) for step in self.steps if step.mark is not None]
        return {self.calls[mark[0]][0]: number for mark, number in marks if mark[1] == "output"}

    def number_of(self, layer: str) -> int:
        """Return the number of a layer's output.

        Raises:
          ValueError: The network calls no layer of that name.
        """
        numbers = self.layers()
        if not isinstance(layer, str) or layer not in numbers:
            raise ValueError(
                f"layer {shown(layer)} is not called; needs one of {', '.join(numbers)}{did_you_mean(layer, numbers)}"
            )
        return numbers[layer]

    def run(
        self, values: dict[int, Any], step: Callable[[Step, Mapping[int, Any]], dict[int, Any]] = Step.run
    ) -> dict[int, Any]:
        """Compute all arrays from the parameters and the images, using `step` to run each step."""
        for operation in self.steps:
            values.update(step(operation, values))
        return values


def trace(model: Any, images: Any, inline: Callable[[Any], bool] = lambda equation: True) -> Program:
    """Trace a network in evaluation mode and number its arrays.

    Args:
      model: A Flax NNX module, or a function of images.
      images: The images, or their shape and dtype.
      inline: A function of an equation that calls another jaxpr; it returns whether to replace the call by the jaxpr's steps.

    Raises:
      ValueError: The network does not return one array that depends on the images.
    """
    names: dict[int, str] = {}
    state, run = split_model(model, lambda module: names.update({id(part): name for name, part in named_modules(module)}))
    with recorded(*KINDS, enter=mark_input, leave=mark_output) as calls:
        closed = on_images(images, jax.make_jaxpr(run), state, jax.ShapeDtypeStruct(images.shape, images.dtype))
    steps, references, shapes = flatten(closed.jaxpr, inline)
    returned = [resolve(variable, references) for variable in closed.jaxpr.outvars]
    if len(returned) != 1 or not isinstance(returned[0], ArrayRef):
        raise ValueError(f"the model returns {closed.jaxpr.outvars}; needs one array that depends on the images")
    arrays = dict(enumerate([*closed.consts, *jax.tree.leaves(state)]))
    paths = unique_names([names.get(id(call.module), type(call.module).__name__) for call in calls])
    return Program(steps, arrays, len(arrays), returned[0].number, shapes, list(zip(paths, calls, strict=True)))


def on_images(images: Any, run: Callable[..., Any], *arguments: Any) -> Any:
    """Run a network, and name the images in the error if it does not accept them.

    Raises:
      ValueError: The network raises a ValueError or a TypeError.
    """
    try:
        return run(*arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the model does not accept images of shape {images.shape}: {error}") from error


def unique_names(names: Sequence[str]) -> list[str]:
    """Append the number of the call to the names of second and later calls.

    Example:
      >>> unique_names(["block", "head", "block"])
      ['block', 'head', 'block (2)']
    """
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name} ({count})" for name, count in zip(names, counts, strict=True)]


def split_model(
    model: Any, on_call: Callable[[nnx.Module], None] = lambda module: None
) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Split a network into its arrays and a function of arrays and images.

    The function runs in evaluation mode. A plain function has no arrays. `on_call` is called with the module whenever the
    function runs.
    """
    if not isinstance(model, nnx.Module):
        check.function("model", model, "a Flax NNX module or a function of images")
        return (), lambda state, x: model(x)
    network = nnx.clone(model)
    network.eval()
    definition, state = nnx.split(network)

    def run(state: Any, x: Any) -> Any:
        merged = nnx.merge(definition, state)
        on_call(merged)
        return merged(x)

    return state, run


def named_modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """Yield the modules of a network with their paths, as `count` writes them."""
    for path, module in nnx.iter_modules(model):
        yield "/".join(map(str, path)) or type(model).__name__, module


def flatten(
    jaxpr: Jaxpr, inline: Callable[[Any], bool] = lambda equation: True
) -> tuple[list[Step], dict[Any, Any], dict[int, Any]]:
    """Flatten a jaxpr into a list of steps.

    References of its variables, and the shapes of all arrays by number, are returned with them.
    """
    references = {variable: ArrayRef(number) for number, variable in enumerate([*jaxpr.constvars, *jaxpr.invars])}
    shapes = {reference.number: variable.aval for variable, reference in references.items()}
    return list(_steps(jaxpr, references, shapes, inline, "")), references, shapes


def resolve(variable: Any, references: Mapping[Any, Any]) -> Any:
    """Return the reference of a jaxpr's variable, or the value of a literal."""
    return variable.val if isinstance(variable, Literal) else references[variable]


def _steps(jaxpr: Jaxpr, references: dict[Any, Any], shapes: dict[int, Any], inline: Callable, scope: str) -> Iterator[Step]:
    """Yield the steps of a jaxpr.

    Every array gets its own number, even if two calls share one jaxpr.
    """
    for equation in jaxpr.eqns:
        inputs = tuple(resolve(variable, references) for variable in equation.invars)
        inner_scope = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        body = called_jaxpr(equation)
        if body is not None and inline(equation):
            inner = dict(zip([*body.jaxpr.constvars, *body.jaxpr.invars], [*body.consts, *inputs], strict=True))
            yield from _steps(body.jaxpr, inner, shapes, inline, inner_scope)
            results = [resolve(variable, inner) for variable in body.jaxpr.outvars]
            references.update(zip(equation.outvars, results, strict=True))
            continue
        outputs = range(len(shapes), len(shapes) + len(equation.outvars))
        shapes.update(zip(outputs, (variable.aval for variable in equation.outvars), strict=True))
        references.update(zip(equation.outvars, map(ArrayRef, outputs), strict=True))
        yield Step(equation, inputs, tuple(outputs), inner_scope)


def called_jaxpr(equation: Any) -> ClosedJaxpr | None:
    """Return the jaxpr that an equation calls, or None if it is no call that can be inlined."""
    if equation.primitive.name not in CALLS:
        return None
    inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params)
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
