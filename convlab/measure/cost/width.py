"""Controls: the width at which one network costs what another does."""

import bisect
import itertools
from collections.abc import Callable, Sequence

import jax
from flax import nnx


def weights_of(model: nnx.Module) -> int:
    """Count the trained numbers of a network, which may be one of shapes only."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def match_width(
    build: Callable[[int], nnx.Module],
    target: int,
    *,
    cost: Callable[[nnx.Module], int] = weights_of,
    widths: Sequence[int] = range(1, 1025),
) -> int:
    """Find the width whose network costs nearest to a target; of two that are equally near, the smaller.

    The networks are built without their numbers, so that no memory is spent, about as many as the number of widths has
    digits in base 2: costs must not fall as widths grow.

    Args:
      build: Makes the network of a width.
      target: What it is to cost: the cost of the network to which it is compared.
      cost: Of a network of shapes only: its weights, or e.g. `lambda model: count(model, shape).total.multiply_adds`.
      widths: The choice, narrowest first.

    Raises:
      ValueError: No widths, or a target that the narrowest exceeds or the widest does not reach.

    Example:
      >>> from convlab.layers import Conv
      >>> match_width(lambda width: Conv(3, width, (5, 5), use_bias=False, rngs=nnx.Rngs(0)), 1000)
      13
    """
    if len(widths) == 0 or any(wide <= narrow for narrow, wide in itertools.pairwise(widths)):
        raise ValueError(f"widths must be at least one width, narrowest first; got {widths}")

    def costs(width: int) -> int:
        return cost(nnx.eval_shape(lambda: build(width)))

    least, most = costs(widths[0]), costs(widths[-1])
    if not least <= target <= most:
        raise ValueError(f"target {target:,} is out of reach: widths {widths[0]} to {widths[-1]} cost {least:,} to {most:,}")
    above = bisect.bisect_left(widths, target, key=costs)
    near = widths[max(above - 1, 0) : above + 1]
    return min(near, key=lambda width: abs(costs(width) - target))
