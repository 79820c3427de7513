"""Matched controls: the width at which one network costs as much as another."""

import bisect
import itertools
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from convlab import check
from convlab.geometry import as_integer


def count_weights(model: nnx.Module) -> int:
    """Count the trainable parameters of a network or of its shapes."""
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def match_width(
    build: Callable[[int], nnx.Module],
    target: int,
    *,
    cost: Callable[[nnx.Module], int] = count_weights,
    widths: Sequence[int] = range(1, 1025),
) -> int:
    r"""Find the width at which a network's cost is nearest to a target.

    $$\arg\min_w \, |\text{cost}(\text{build}(w)) - \text{target}|$$

    Of two equally near widths, the smaller is returned. Only the shapes of networks are built, so no memory is needed. The
    search is a bisection, so costs must not fall as widths grow.

    Args:
      build: A function from a width to the network of that width.
      target: The cost to match, for example that of the network to compare with.
      cost: A function from a network (of shapes only) to its cost. The default counts weights; for multiply-adds, use
        `lambda model: count(model, shape).total.multiply_adds`.
      widths: The candidate widths, in increasing order.

    Raises:
      ValueError: `widths` is empty or not increasing, or the target lies outside the costs of the narrowest and the widest.

    Example:
      >>> from convlab.layers import Conv
      >>> match_width(lambda width: Conv(3, width, (5, 5), use_bias=False, rngs=nnx.Rngs(0)), 1000)
      13
    """
    check.function("build", build, "a function of a width")
    check.function("cost", cost, "a function of a network")
    check.number("target", target)
    if not isinstance(widths, range):
        widths = [as_integer("widths", width) for width in check.sequence("widths", widths, "integers")]
    if len(widths) == 0 or any(wider <= narrower for narrower, wider in itertools.pairwise(widths)):
        raise ValueError(f"widths is {widths}; needs at least one width, in increasing order")

    def costs(width: int) -> int:
        model = check.instance("the result of build", nnx.eval_shape(lambda: build(width)), nnx.Module, "a Flax NNX module")
        check.number("the result of cost", price := cost(model))
        return price

    lowest, highest = costs(widths[0]), costs(widths[-1])
    if not lowest <= target <= highest:
        raise ValueError(
            f"target is {target:,} but widths {widths[0]} to {widths[-1]} cost {lowest:,} to {highest:,}; needs one between"
        )
    above = bisect.bisect_left(widths, target, key=costs)
    candidates = widths[max(above - 1, 0) : above + 1]
    return min(candidates, key=lambda width: abs(costs(width) - target))
