"""Attribution: which pixels of an image raise or lower a network's score for a class.

The gradient methods differ only in the derivative that they use for a ReLU. They share one function with that rule as argument.
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
from convlab.choices import one_of, shown
from convlab.geometry import Window
from convlab.measure.trace import ArrayRef, Program, Step, called_jaxpr, on_images, split_model, trace

RULES: dict[str, Callable[[Array, Array], Array]] = {
    "gradient": lambda x, g: jnp.where(x > 0, g, 0),
    "guided": lambda x, g: jnp.where((x > 0) & (g > 0), g, 0),
    "deconvnet": lambda x, g: jnp.where(g > 0, g, 0),
}
"""The gradient with respect to the input x of a ReLU, from that of its output, g, for every rule."""

Target = int | Int[Array, "n"] | Int[np.ndarray, "n"]


def saliency(model: Any, images: Float[Array, "n k l c"], target: Target, rule: str = "gradient") -> Float[Array, "n k l c"]:
    r"""Compute the gradient of a score with respect to every pixel, by one of three rules for ReLUs.

    $$\frac{\partial Y_{n,t}}{\partial X_{nklc}}, \quad \text{where } h = \max(x, 0) \text{ passes back } \;
      g\,[x > 0], \quad g\,[x > 0][g > 0] \;\text{ or }\; g\,[g > 0]$$

    The three rules are "gradient", "guided" (guided backpropagation) and "deconvnet". They apply to `nnx.relu`, `jax.nn.relu`,
    the ReLU inside `jax.nn.relu6`, and `jnp.maximum(x, 0)`. The network is run from its trace, so these are found anywhere in
    it. All other operations use their own gradient under every rule. Among them are other activations (tanh, GELU, leaky
    ReLU), pooling, and `jnp.maximum(0, x)` (which norms contain), `jnp.clip` and `jnp.where`.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images. It returns one score per class, (n, classes).
      images: The network's input.
      target: The class whose score is explained, one for all images or one for each.
      rule: The name of a rule in `RULES`.

    Returns:
      The gradient, in the shape of the images.

    Raises:
      ValueError: The rule or the class is unknown. Or the rule is not "gradient" and there is no ReLU, or one inside a loop
        or a function with a custom derivative, where the rule cannot be applied.
      TypeError: The images are not floating.

    Example:
      >>> net = lambda x: (nnx.relu(x) - 2 * nnx.relu(-x)).reshape(len(x), -1)
      >>> x = jnp.array([3.0, -1.0]).reshape(1, 2, 1)
      >>> [saliency(net, x, 1, rule).ravel().tolist() for rule in RULES]
      [[0.0, 2.0], [0.0, 0.0], [0.0, 1.0]]

    Reference: Simonyan et al. 2014, Zeiler and Fergus 2014, and figure 1 of Springenberg et al. 2015, Striving for simplicity.
    """
    one_of("rule", rule, RULES)
    images = check.image_batch("images", images)
    program = trace(model, images, _inlines_plain if rule == "gradient" else _inlines_relus)
    if rule != "gradient":
        _check_relus(program, rule)

    def score(x: Array, arrays: dict[int, Array]) -> Array:
        values = program.run(dict(arrays) | {program.images: x}, lambda step, values: _step(step, values, rule))
        return jnp.sum(_scores(values[program.output], target))

    return jax.jit(jax.grad(score))(images, program.arrays)


def grad_cam(model: Any, images: Float[Array, "n k l c"], layer: str, target: Target) -> Float[Array, "n i j"]:
    r"""Map where a layer's channels that raise a score are active.

    The weight of a channel is the mean gradient of the score by that channel.

    $$G_{nij} = \max\Big(0, \sum_d H_{nijd} \, \frac{1}{N} \sum_{i'j'} \frac{\partial Y_{n,t}}{\partial H_{ni'j'd}}\Big)$$

    Args:
      model: A Flax NNX module, run in evaluation mode. It returns one score per class, (n, classes).
      images: The network's input.
      layer: The path of a spatial layer, as in `feature_maps`. H is its output, before the activation.
      target: The class whose score is explained, one for all images or one for each.

    Returns:
      A map over the positions of that layer.

    Raises:
      ValueError: The network calls no layer of that name, its output has no positions, or the class is unknown.
      TypeError: The images are not floating.

    Example:
      >>> from convlab.layers import Conv
      >>> net = nnx.Sequential(Conv(1, 3, (3, 3), 2, rngs=nnx.Rngs(0)), nnx.relu, lambda h: h.mean((1, 2)))
      >>> grad_cam(net, jnp.ones((2, 8, 6, 1)), "layers/0", 1).shape
      (2, 4, 3)

    Reference: Selvaraju et al. 2017, Grad-CAM, equations 1 and 2.
    """
    images = check.image_batch("images", images)
    program = trace(model, images, _inlines_plain)
    number = program.number_of(layer)
    if len(program.shapes[number].shape) < 3:
        raise ValueError(f"layer {layer!r} returns shape {program.shapes[number].shape}, which has no positions to map")

    def score(offset: Array, x: Array, arrays: dict[int, Array]) -> tuple[Array, Array]:
        def add(step: Step, values: Mapping[int, Array]) -> dict[int, Array]:
            results = _step(step, values, "gradient")
            return results | {number: results[number] + offset} if number in results else results

        values = program.run(dict(arrays) | {program.images: x}, add)
        return jnp.sum(_scores(values[program.output], target)), values[number]

    offset = jnp.zeros(program.shapes[number].shape, program.shapes[number].dtype)
    gradient, h = jax.jit(jax.grad(score, has_aux=True))(offset, images, program.arrays)
    weight = jnp.mean(gradient, tuple(range(1, h.ndim - 1)), keepdims=True)
    return nnx.relu(jnp.sum(weight * h, -1))


def occlusion(
    model: Any, images: Float[Array, "n k l c"], target: Target, window: Window, *, fill_value: float = 0.0
) -> Float[Array, "n i j"]:
    r"""Measure how much a score falls when a window of the image is hidden.

    $$D_{nij} = Y_{n,t}(X_n) - Y_{n,t}(X_n \text{ with window } ij \text{ at } v)$$

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images. It returns one score per class, (n, classes).
      images: The network's input.
      target: The class whose score is explained, one for all images or one for each.
      window: The window to hide, moved over all of its positions.
      fill_value: The value v of hidden pixels. 0 is the mean of standardised images.

    Returns:
      A map over the positions of the window. It is negative where hiding the window raises the score.

    Raises:
      ValueError: The window fits nowhere, or the class is unknown.
      TypeError: The images are not floating.

    Example:
      >>> net = lambda x: x.reshape(len(x), -1) @ jnp.eye(4)
      >>> occlusion(net, jnp.ones((1, 2, 2, 1)), 2, Window(1)).tolist()
      [[[0.0, 0.0], [1.0, 0.0]]]

    Reference: Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2.
    """
    images = check.image_batch("images", images)
    fill_value = check.number("fill_value", fill_value)
    axes = check.window(window).axes(images.shape[1:-1])
    hidden = [axis.inside for axis in axes]  # per axis (positions, pixels)
    positions = tuple(axis.outputs for axis in axes)
    check.shape_fits("scores at all positions of window", *positions, len(positions))
    state, run = split_model(model)

    def scores(state: Any, x: Array, hidden: list[Array]) -> tuple[Array, Array]:
        def score_at(position: Int[Array, "axes"]) -> Array:
            where = functools.reduce(jnp.logical_and.outer, [mask[i] for mask, i in zip(hidden, position, strict=True)])
            return _scores(run(state, jnp.where(where[..., None], fill_value, x)), target)

        return _scores(run(state, x), target), jax.lax.map(score_at, jnp.indices(positions).reshape(len(positions), -1).T)

    unhidden, occluded = on_images(images, jax.jit(scores), state, images, hidden)
    return (unhidden - occluded).T.reshape(len(images), *positions)


def _step(step: Step, values: Mapping[int, Array], rule: str) -> dict[int, Array]:
    """Run a step, with the derivative of the rule if it is a ReLU."""
    if not _is_relu(step):
        return step.run(values)

    @jax.custom_vjp
    def relu(x: Array) -> Array:
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, g: (RULES[rule](x, g),))
    return {step.outputs[0]: relu(values[step.numbers()[0]])}


def _is_relu(step: Step) -> bool:
    return step.name == "max" and isinstance(step.inputs[0], ArrayRef) and _is_zero(step.inputs[1])


def _is_zero(operand: Any) -> bool:
    return not isinstance(operand, ArrayRef) and np.ndim(operand) == 0 and float(operand) == 0


def _has_relu(jaxpr: Any) -> bool:
    """Return whether an equation of a jaxpr, or of a jaxpr inside it, is a ReLU."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "max" and isinstance(equation.invars[1], Literal) and _is_zero(equation.invars[1].val):
            return True
        if any(_has_relu(part) for value in equation.params.values() for part in _jaxprs_in(value)):
            return True
    return False


def _jaxprs_in(value: Any) -> list[Any]:
    """Return the jaxprs in a parameter of an equation."""
    if isinstance(value, (tuple, list)):
        return [part for entry in value for part in _jaxprs_in(entry)]
    return [getattr(value, "jaxpr", value)] if hasattr(value, "eqns") or hasattr(value, "jaxpr") else []


def _inlines_plain(equation: Any) -> bool:
    """Return whether to inline a call.

    Calls with a custom derivative are not inlined, so that they keep it.
    """
    return called_jaxpr(equation) is not None and not equation.primitive.name.startswith("custom_")


def _inlines_relus(equation: Any) -> bool:
    """Return whether to inline a call so that its ReLUs are found.

    Functions with a custom VJP stay calls; those with a custom JVP are inlined if they hold a ReLU, as `nnx.relu` does.
    """
    body, name = called_jaxpr(equation), equation.primitive.name
    return body is not None and name != "custom_vjp_call" and (name != "custom_jvp_call" or _has_relu(body.jaxpr))


def _check_relus(program: Program, rule: str) -> None:
    inner = [
        (step.name, part) for step in program.steps for value in step.equation.params.values() for part in _jaxprs_in(value)
    ]
    closed = [name for name, part in inner if _has_relu(part)]
    if closed or not any(map(_is_relu, program.steps)):
        problem = f"one is inside a {closed[0]}, where it cannot be changed" if closed else "the network has none"
        raise ValueError(f"rule {rule!r} changes the derivative of ReLUs, but {problem}; needs a ReLU outside such functions")


def _scores(scores: Array, target: Target) -> Array:
    """Return the score of each image's target."""
    check.real("the result of model", check.array("the result of model", scores))
    if scores.ndim != 2:
        raise ValueError(f"the model returns shape {scores.shape}; needs one score per class, (n, classes)")
    number = np.asarray(target)
    known = number.dtype.kind in "iu" and number.shape in ((), scores.shape[:1])
    if not known or np.any((number < 0) | (number >= scores.shape[1])):
        raise ValueError(f"target is {shown(target)}; needs a class from 0 to {scores.shape[1] - 1}, or one for each image")
    return scores[jnp.arange(len(scores)), jnp.asarray(number)]
