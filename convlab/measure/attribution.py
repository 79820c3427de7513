"""What a trained network looks at: the pixels to which a score owes its height.

The ways by gradient differ in one rule alone, what a ReLU passes back; so they are one function of that rule.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Literal
from jaxtyping import Array, Float, Int

from convlab import check
from convlab.geometry import Window
from convlab.measure.trace import Place, Program, Step, called, split, trace

RULES: dict[str, Callable[[Array, Array], Array]] = {
    "gradient": lambda x, g: jnp.where(x > 0, g, 0),
    "guided": lambda x, g: jnp.where((x > 0) & (g > 0), g, 0),
    "deconvnet": lambda x, g: jnp.where(g > 0, g, 0),
}
"""What a ReLU passes back, by name, of what it was given and of what comes back to it."""

Target = int | Int[Array, "n"] | Int[np.ndarray, "n"]


def saliency(model: Any, images: Float[Array, "n k l c"], target: Target, rule: str = "gradient") -> Float[Array, "n k l c"]:
    r"""Tell how each pixel moves a score, with a choice of what ReLUs pass back.

    $$\frac{\partial Y_{n,t}}{\partial X_{nklc}}, \quad \text{where } h = \max(x, 0) \text{ passes back } \;
      g\,[x > 0], \quad g\,[x > 0][g > 0] \;\text{ or }\; g\,[g > 0]$$

    The three rules are "gradient", "guided" (backpropagation) and "deconvnet". A ReLU is `nnx.relu`, `jax.nn.relu`, that in
    `jax.nn.relu6`, or `jnp.maximum(x, 0)`; the network is run as its trace, so that it may stand anywhere. All else passes back
    its gradient under every rule: other activations (tanh, GELU, leaky ReLU), poolings, and ReLUs spelled otherwise, as
    `jnp.maximum(0, x)` (norms have that), `jnp.clip` or `jnp.where`.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images; returns one score per class (n, classes).
      images: What it is given.
      target: Class whose score counts: one for all images, or one each.
      rule: A name in `RULES`.

    Raises:
      ValueError: An unknown rule or class; no ReLU, where the rule is not the gradient; or one in a loop or in a function with
        a derivative of its own, where the rule cannot reach.
      TypeError: The images are not floating.

    Example:
      >>> net = lambda x: (nnx.relu(x) - 2 * nnx.relu(-x)).reshape(len(x), -1)
      >>> x = jnp.array([3.0, -1.0]).reshape(1, 2, 1)
      >>> [saliency(net, x, 1, rule).ravel().tolist() for rule in RULES]
      [[0.0, 2.0], [0.0, 0.0], [0.0, 1.0]]

    Reference: Simonyan et al. 2014; Springenberg et al. 2015, Striving for simplicity, figure 1; Zeiler and Fergus 2014.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is unknown; needs one of {', '.join(RULES)}")
    images = check.floating("images", images)
    program = trace(model, images, _plain if rule == "gradient" else _opens)
    if rule != "gradient":
        _check_relus(program, rule)

    def score(x: Array, arrays: dict[int, Array]) -> Array:
        values = program.run(dict(arrays) | {program.images: x}, lambda step, values: _step(step, values, rule))
        return jnp.sum(_scores(values[program.output], target))

    return jax.jit(jax.grad(score))(images, program.arrays)


def grad_cam(model: Any, images: Float[Array, "n k l c"], layer: str, target: Target) -> Float[Array, "n i j"]:
    r"""Weigh a layer's channels by how much they move a score, and show where those that raise it are active.

    $$G_{nij} = \max\Big(0, \sum_d H_{nijd} \, \frac{1}{N} \sum_{i'j'} \frac{\partial Y_{n,t}}{\partial H_{ni'j'd}}\Big)$$

    Args:
      model: A Flax NNX module, run in evaluation mode; returns one score per class (n, classes).
      images: What it is given.
      layer: Path of a spatial layer, as in `feature_maps`; H is what it returns, before its activation.
      target: Class whose score counts: one for all images, or one each.

    Returns:
      A map with the positions of that layer.

    Raises:
      ValueError: No such layer, one without positions, or an unknown class.
      TypeError: The images are not floating.

    Example:
      >>> from convlab.layers import Conv
      >>> net = nnx.Sequential(Conv(1, 3, (3, 3), 2, rngs=nnx.Rngs(0)), nnx.relu, lambda h: h.mean((1, 2)))
      >>> grad_cam(net, jnp.ones((2, 8, 6, 1)), "layers/0", 1).shape
      (2, 4, 3)

    Reference: Selvaraju et al. 2017, Grad-CAM, equations 1 and 2.
    """
    images = check.floating("images", images)
    program = trace(model, images, _plain)
    number = program.number_of(layer)
    if len(program.shapes[number].shape) < 3:
        raise ValueError(f"layer {layer!r} returns shape {program.shapes[number].shape}, which has no positions to show")

    def score(added: Array, x: Array, arrays: dict[int, Array]) -> tuple[Array, Array]:
        def add(step: Step, values: Mapping[int, Array]) -> dict[int, Array]:
            made = _step(step, values, "gradient")
            return made | {number: made[number] + added} if number in made else made

        values = program.run(dict(arrays) | {program.images: x}, add)
        return jnp.sum(_scores(values[program.output], target)), values[number]

    added = jnp.zeros(program.shapes[number].shape, program.shapes[number].dtype)
    gradient, h = jax.jit(jax.grad(score, has_aux=True))(added, images, program.arrays)
    weight = jnp.mean(gradient, tuple(range(1, h.ndim - 1)), keepdims=True)
    return nnx.relu(jnp.sum(weight * h, -1))


def occlusion(
    model: Any, images: Float[Array, "n k l c"], target: Target, window: Window, *, value: float = 0.0
) -> Float[Array, "n i j"]:
    r"""Tell how far a score falls when a window of the image is hidden.

    $$D_{nij} = Y_{n,t}(X_n) - Y_{n,t}(X_n \text{ with window } ij \text{ at } v)$$

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images; returns one score per class (n, classes).
      images: What it is given.
      target: Class whose score counts: one for all images, or one each.
      window: What is hidden, at each of its positions in turn.
      value: What stands there instead: 0 is the mean of standardised images.

    Returns:
      A map with the positions of the window; negative where what is hidden speaks against the class.

    Raises:
      ValueError: The window fits nowhere, or an unknown class.
      TypeError: The images are not floating.

    Example:
      >>> net = lambda x: x.reshape(len(x), -1) @ jnp.eye(4)
      >>> occlusion(net, jnp.ones((1, 2, 2, 1)), 2, Window(1)).tolist()
      [[[0.0, 0.0], [1.0, 0.0]]]

    Reference: Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2.
    """
    images = check.floating("images", images)
    axes = window.axes(images.shape[1:-1])
    hidden = [(axis.reads[..., None] == np.arange(axis.pixels)).any(1) for axis in axes]  # (positions, pixels) of each axis
    positions = tuple(axis.outputs for axis in axes)
    state, run = split(model)

    def scores(state: Any, x: Array, hidden: list[Array]) -> tuple[Array, Array]:
        def part(place: Int[Array, "axes"]) -> Array:
            where = functools.reduce(jnp.logical_and.outer, [each[i] for each, i in zip(hidden, place, strict=True)])
            return _scores(run(state, jnp.where(where[..., None], value, x)), target)

        return _scores(run(state, x), target), jax.lax.map(part, jnp.indices(positions).reshape(len(positions), -1).T)

    whole, parts = jax.jit(scores)(state, images, hidden)
    return (whole - parts).T.reshape(len(images), *positions)


def _step(step: Step, values: Mapping[int, Array], rule: str) -> dict[int, Array]:
    """Run a step, a ReLU with the rule for what it passes back."""
    if not _is_relu(step):
        return step.run(values)

    @jax.custom_vjp
    def relu(x: Array) -> Array:
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, g: (RULES[rule](x, g),))
    return {step.outputs[0]: relu(values[step.numbers()[0]])}


def _is_relu(step: Step) -> bool:
    return step.name == "max" and isinstance(step.inputs[0], Place) and _is_zero(step.inputs[1])


def _is_zero(operand: Any) -> bool:
    return not isinstance(operand, Place) and np.ndim(operand) == 0 and float(operand) == 0


def _holds_relu(jaxpr: Any) -> bool:
    """Whether an equation of a trace, or of one in it, is a ReLU."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "max" and isinstance(equation.invars[1], Literal) and _is_zero(equation.invars[1].val):
            return True
        if any(_holds_relu(part) for value in equation.params.values() for part in _traces(value)):
            return True
    return False


def _traces(value: Any) -> list[Any]:
    """The traces in a parameter of an equation."""
    if isinstance(value, (tuple, list)):
        return [part for entry in value for part in _traces(entry)]
    return [getattr(value, "jaxpr", value)] if hasattr(value, "eqns") or hasattr(value, "jaxpr") else []


def _plain(equation: Any) -> bool:
    """Whatever has a derivative of its own keeps it."""
    return called(equation) is not None and not equation.primitive.name.startswith("custom_")


def _opens(equation: Any) -> bool:
    """A function with a derivative of its own stays as it is, unless a ReLU stands in it: `nnx.relu` is such a one."""
    body, name = called(equation), equation.primitive.name
    return body is not None and name != "custom_vjp_call" and (name != "custom_jvp_call" or _holds_relu(body.jaxpr))


def _check_relus(program: Program, rule: str) -> None:
    inner = [(step.name, part) for step in program.steps for value in step.equation.params.values() for part in _traces(value)]
    closed = [name for name, part in inner if _holds_relu(part)]
    if closed or not any(map(_is_relu, program.steps)):
        found = f"one stands inside a {closed[0]}, where it cannot be reached" if closed else "there is none"
        raise ValueError(f"rule {rule!r} changes what ReLUs pass back, but {found}; max(x, 0) in plain steps is needed")


def _scores(scores: Array, target: Target) -> Array:
    """The score of each image's target."""
    if scores.ndim != 2:
        raise ValueError(f"the model returns shape {scores.shape}; needs one score per class, (n, classes)")
    number = np.asarray(target)
    known = number.dtype.kind in "iu" and number.shape in ((), scores.shape[:1])
    if not known or np.any((number < 0) | (number >= scores.shape[1])):
        raise ValueError(f"target is {target!r}; needs a class from 0 to {scores.shape[1] - 1}, or one for each image")
    return scores[jnp.arange(len(scores)), jnp.asarray(number)]
