"""What of an image reaches one output: the pixels that can, through which positions of which layers, and how much each does.

`convlab.measure.field` finds the extent of a receptive field by formula; here its pixels are found one by one, by following
the trace of the network backwards. Nothing cancels on that way, as only whether a number can matter is followed: a maximum
can pass on any of what it looks at, an activation passes on what it is given, and a weight counts unless it is zero.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from convlab import check
from convlab.measure import field
from convlab.measure.trace import Place, Step, split, trace

IMAGE, OUTPUT = "image", "output"
MANY = 64  # outputs that are followed at a time


def precedents(
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Sequence[int] | None = None
) -> dict[str, Bool[np.ndarray, "..."]]:
    r"""Find which pixels, through which positions of every layer, lead to one output.

    $$M^{(l-1)}_{kl} = \bigvee_{ij} M^{(l)}_{ij} \wedge [\, \partial f_l(H)_{ij} / \partial H_{kl} \not\equiv 0 \,]$$

    Args:
      model: A Flax NNX module, or a function of images.
      image_shape: (*space, c) of one image.
      layer: Path of the layer whose output is asked about, as `count` names it; "output" is what the network returns.
      position: Of that output; absent, the central one. Empty where it has no positions: all its numbers then.

    Returns:
      Which pixels lead there, by "image", and then which positions of each layer's output, by path in the order of the calls:
      those of which any channel does, through weights that are not zero. The mask of a layer without positions has no axes.

    Raises:
      ValueError: No such layer or position, or which pixels are read depends on the image (polyphase pooling).

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> net = nnx.Sequential(*(Conv(1, 1, (3,), 2, rngs=nnx.Rngs(0)) for _ in range(2)))
      >>> for name, mask in precedents(net, (9, 1), position=[1]).items():
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
    model: Any, image_shape: Sequence[int], layer: str = OUTPUT, position: Sequence[int] | None = None
) -> Bool[np.ndarray, "k l"]:
    r"""Find which pixels can change one output: arguments as in `precedents`, of which this is the image.

    Away from borders its extent is $1 + \sum_l (k_l - 1) \prod_{m < l} s_m$ with k taps and stride s: the field in `count`.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> layer = Conv(1, 2, (3, 5), kernel_dilation=(2, 1), rngs=nnx.Rngs(0))
      >>> receptive_field(layer, (7, 9, 1)).sum(0)
      array([0, 0, 3, 3, 3, 3, 3, 0, 0])
    """
    return precedents(model, image_shape, layer, position)[IMAGE]


def coverage(model: Any, image_shape: Sequence[int], layer: str = OUTPUT) -> Int[np.ndarray, "k l"]:
    r"""Count how many positions of an output read each pixel, through all layers in between.

    $$C_{kl} = \sum_{ij} [\, H_{ij} \text{ depends on } X_{kl} \,]$$

    Args:
      model: As in `precedents`.
      image_shape: (*space, c) of one image.
      layer: Whose output is asked about; "output" is what the network returns.

    Raises:
      ValueError: No such layer, or which pixels are read depends on the image.

    Example:
      >>> from flax import nnx
      >>> from convlab.layers import Conv
      >>> coverage(Conv(1, 1, (3, 3), rngs=nnx.Rngs(0)), (4, 3, 1))
      array([[4, 6, 4],
             [6, 9, 6],
             [6, 9, 6],
             [4, 6, 4]])
    """
    way = _Way(model, image_shape)
    number = way.of(layer)
    places = math.prod(way.space(number))

    def pixels(place: Array) -> Array:
        mask = (jnp.arange(places) == place).reshape(way.space(number))
        return way.back(number, mask)[IMAGE].astype(jnp.int32)

    counts = jax.jit(lambda: lax.map(pixels, jnp.arange(places), batch_size=MANY).sum(0))
    return np.asarray(counts(), int)


class Effective(NamedTuple):
    """What of the image an output listens to, on average.

    Attributes:
      map: Mean absolute, or squared, gradient by each pixel, scaled to a sum of 1.
      variance: Of the pixels' places under that weight, along each axis: the square of the field's effective radius.
    """

    map: Float[Array, "k l"]
    variance: Float[Array, "r"]


def effective_field(
    model: Any, images: Float[Array, "n k l c"], position: Sequence[int] | None = None, *, squared: bool = False
) -> Effective:
    r"""Measure how much each pixel moves one output, averaged over images and channels.

    $$R_{kl} \propto \sum_{ncd} \Big| \frac{\partial H_{nijd}}{\partial X_{nklc}} \Big|$$

    Through n layers of k random taps the squared gradient has the variance n (k^2 - 1) / 12 along each axis: the effective
    radius grows with the root of the depth, where the field itself grows with the depth.

    Args:
      model: A Flax NNX module, run in evaluation mode, or a function of images.
      images: What it is given.
      position: Of the output; absent, the central one.
      squared: Weigh pixels by squared gradients rather than absolute ones.

    Raises:
      ValueError: No such position.
      TypeError: The images are not floating.

    Example:
      >>> from convlab.geometry import Window
      >>> from convlab.ops.conv import conv
      >>> x, v = jnp.zeros((1, 31, 1)), jnp.ones((3, 1, 1))
      >>> deep = lambda x: conv(conv(conv(x, v, Window(3)), v, Window(3)), v, Window(3))
      >>> float(effective_field(deep, x).variance[0])
      2.0

    Reference: Luo et al. 2016, Understanding the effective receptive field in deep convolutional neural networks, section 2.
    """
    images = check.floating("images", images)
    state, run = split(model)
    shape = jax.eval_shape(run, state, images).shape
    place = _place(shape[1:-1], position, "the network's output")

    def channel(d: Array) -> Array:
        gradient = jax.grad(lambda x: jnp.sum(run(state, x)[:, *place, d]))(images)
        return jnp.sum(jnp.square(gradient) if squared else jnp.abs(gradient), (0, -1))

    weight = jnp.sum(jax.jit(lambda: lax.map(channel, jnp.arange(shape[-1])))(), 0)
    weight = weight / jnp.sum(weight)
    return Effective(weight, jnp.stack([_variance(weight, axis) for axis in range(weight.ndim)]))


def _variance(weight: Array, axis: int) -> Array:
    along, places = jnp.sum(weight, [other for other in range(weight.ndim) if other != axis]), jnp.arange(weight.shape[axis])
    mean = jnp.sum(along * places)
    return jnp.sum(along * jnp.square(places - mean))


def _place(space: Sequence[int], position: Sequence[int] | None, where: str) -> tuple[int, ...]:
    place = tuple(n // 2 for n in space) if position is None else tuple(position)
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
        return self.program.shapes[number].shape[1:-1]

    def at(self, number: int, position: Sequence[int] | None) -> Array:
        """A mask of one position."""
        space = self.space(number)
        return jnp.zeros(space, bool).at[_place(space, position, "the output")].set(True)

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
        operands = [part for part in step.inputs if isinstance(part, Place) and part.number not in self.known]
        given = [part.number for part in operands if _floats(self.program.shapes[part.number])]
        if not given or not all(_floats(self.program.shapes[made]) for made in step.outputs):
            return
        function = PASSING.get(step.name)
        if function is None and len(given) < len(operands):
            raise ValueError(f"which numbers {step.name} reads depends on the image: what leads to an output is not fixed")
        ones = [jnp.ones(self.program.shapes[number].shape, self.program.shapes[number].dtype) for number in given]

        def run(*arrays: Array) -> list[Array]:
            values = dict(zip(given, arrays, strict=True))
            if function is not None:
                return [function(step, values, self.known)]
            weights = {number: self._weight(number) for number in step.numbers() if number in self.known}
            return list(step.run(weights | values).values())

        results, pull = jax.vjp(run, *ones)
        back = [
            reached.get(made, jnp.zeros(h.shape, bool)).astype(h.dtype) for made, h in zip(step.outputs, results, strict=True)
        ]
        for number, found in zip(given, pull(back), strict=True):
            yield number, found > 0.5  # counts of ways, up to the rounding of whatever computes them

    def _weight(self, number: int) -> Array:
        """1 for a weight and 0 for none."""
        known = jnp.asarray(self.known[number])
        return (known != 0).astype(known.dtype) if _floats(known) else self.known[number]


def _floats(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


# What stands for an operation that passes numbers on but not linearly: a sum, of what it is given from the image.
Passing = Callable[[Step, Mapping[int, Array], Mapping[int, Any]], Array]


def _any(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """All operands alike."""
    form = step.equation.outvars[0].aval
    parts = [values[part.number] for part in step.inputs if isinstance(part, Place) and part.number in values]
    return sum((jnp.broadcast_to(part, form.shape).astype(form.dtype) for part in parts), jnp.zeros(form.shape, form.dtype))


def _product(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """Nothing where a factor that does not come from the image is zero."""
    factors = [known[part.number] if isinstance(part, Place) else part for part in step.inputs if not _in(part, values)]
    return _any(step, values, known) * math.prod((jnp.asarray(factor) != 0) for factor in factors)


def _chosen(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    """All cases, unless it is known without the image which is chosen."""
    which, *cases = step.inputs
    if isinstance(which, Place) and which.number not in known:
        return _any(step, values, known)
    which = known[which.number] if isinstance(which, Place) else which
    form = step.equation.outvars[0].aval
    return lax.select_n(which, *(values[c.number] if _in(c, values) else jnp.zeros(form.shape, form.dtype) for c in cases))


def _over(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,) = values.values()
    return jnp.sum(x, step.equation.params["axes"])


def _windows(step: Step, values: Mapping[int, Array], known: Mapping[int, Any]) -> Array:
    (x,), names = values.values(), ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    return lax.reduce_window(x, x.dtype.type(0), lax.add, *(step.equation.params[name] for name in names))


def _in(part: Any, values: Mapping[int, Array]) -> bool:
    return isinstance(part, Place) and part.number in values


PASSING: dict[str, Passing] = {
    **dict.fromkeys(field.ELEMENTWISE, _any),
    "mul": _product,
    "select_n": _chosen,
    **dict.fromkeys(("reduce_max", "reduce_min"), _over),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _windows),
}
