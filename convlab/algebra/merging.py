"""Layers that are one layer once training is over: a batch norm, branches side by side, one tap before many."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from convlab import check
from convlab.algebra.composition import EXACT
from convlab.algebra.offsets import Reach, reach, settle, spread
from convlab.geometry import Space, Window

Bias = Float[Array, "*out d"] | None


def merge_batch_norm(
    v: Float[Array, "*kernel d"],
    bias: Bias,
    mean: Float[Array, "d"],
    variance: Float[Array, "d"],
    *,
    scale: Float[Array, "d"] | None = None,
    shift: Float[Array, "d"] | None = None,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "*kernel d"], Float[Array, "*out d"]]:
    r"""Fold a batch norm in evaluation into the layer before it.

    $$V'_{abcd} = \alpha_d V_{abcd}, \qquad u'_d = \alpha_d (u_d - \mu_d) + \beta_d,
      \qquad \alpha_d = \gamma_d / \sqrt{\sigma_d^2 + \epsilon}$$

    Args:
      v: Weights of any rung, output channels last (of "low_rank" the basis).
      bias: Of the layer, per channel or per position and channel; None for zeros.
      mean: Running mean of each channel.
      variance: Running variance.
      scale: What the normalised channel is multiplied with; None for ones.
      shift: What is then added; None for zeros.
      epsilon: Added to the variance.

    Returns:
      v: The weights.
      bias: The bias.

    Raises:
      ValueError: The statistics or the bias are not of d channels, or a variance that is known is with `epsilon` not above 0.
      TypeError: `v` is not floating.

    Example:
      >>> one = jnp.ones(1)
      >>> v, bias = merge_batch_norm(jnp.ones((3, 3, 2, 1)), None, 2 * one, 4 * one, epsilon=0.0)
      >>> float(v[0, 0, 0, 0]), bias
      (0.5, Array([-1.], dtype=float32))

    Reference: Ioffe and Szegedy 2015, Batch normalization, algorithm 2.
    """
    v = check.floating("v", v)
    for name, each in {"mean": mean, "variance": variance, "scale": scale, "shift": shift}.items():
        if each is not None:
            check.agree(f"{name} has shape {{}}", jnp.shape(each), "v returns {} channels", v.shape[-1:])
    if bias is not None:
        check.agree("bias has {} channels", jnp.shape(bias)[-1:], "v returns {}", v.shape[-1:])
    square = jnp.asarray(variance) + epsilon
    if check.is_known(square) and not bool(jnp.all(square > 0)):
        raise ValueError(f"variance and epsilon are together down to {square.min()}; need to be above 0, to divide by the root")
    alpha = (1 if scale is None else jnp.asarray(scale)) / jnp.sqrt(square)
    merged = alpha * ((0 if bias is None else jnp.asarray(bias)) - mean) + (0 if shift is None else shift)
    return v * alpha, merged


def merge_branches(
    kernels: Sequence[Float[Array, "... c d"]],
    windows: Sequence[Window],
    biases: Sequence[Float[Array, "d"] | None] = (),
    *,
    space: Space | None = None,
) -> tuple[Float[Array, "a b c d"], Float[Array, "d"], Window]:
    r"""Write convolutions of one image whose outputs are added as one, borders included.

    $$V_{abcd} = \sum_q V^{(q)}_{a - a_q,\, b - b_q,\, cd}, \qquad u_d = \sum_q u^{(q)}_d$$

    where tap (a_q, b_q) of the whole reads what the first tap of branch q reads. A shortcut is a branch with `identity` for a
    kernel and `Window(1, strides)` for a window.

    Args:
      kernels: One of each branch.
      windows: One of each branch.
      biases: One of each branch, None for zeros; none at all for zeros everywhere.
      space: Pixels of the image; needed only for "SAME" with strides, which pads by them.

    Returns:
      v: The kernel.
      bias: The bias.
      window: Where it reads.

    Raises:
      ValueError: No branches; they differ in strides, channels or what lies outside the image; their outputs do not lie alike;
        or a bias is not one number a channel.
      TypeError: A kernel is not floating.

    Example:
      >>> v, bias, window = merge_branches([jnp.ones((3, 1, 1)), jnp.ones((1, 1, 1))], [Window(3), Window(1)])
      >>> v.squeeze(), window.padding
      (Array([1., 2., 1.], dtype=float32), 'SAME')

    Reference: Ding et al. 2021, RepVGG: making VGG-style ConvNets great again.
    """
    if not kernels:
        raise ValueError("kernels is empty: a sum has at least one branch")
    given = [check.kernel(f"kernels[{q}]", v, spatial=1, others="c d") for q, v in enumerate(kernels)]
    arrays, ranks = check.promote(*(v for v, _ in given)), {rank for _, rank in given}
    many = len(arrays)
    biases = biases or [None] * many
    if len(ranks) > 1 or len({v.shape[-2:] for v in arrays}) > 1 or {len(windows), len(biases)} != {many}:
        shapes = [v.shape for v in arrays]
        raise ValueError(
            f"kernels of {shapes} with {len(windows)} windows and {len(biases)} biases are no branches of one layer"
        )
    for q, bias in enumerate(biases):
        if bias is not None:
            check.agree(f"biases[{q}] has shape {{}}", jnp.shape(bias), "its kernel returns {} channels", arrays[q].shape[-1:])
    (rank,) = ranks
    laid, modes = zip(*(reach(v, rank, window, space) for v, window in zip(arrays, windows, strict=True)), strict=True)
    outside = {mode for axes, mode in zip(laid, modes, strict=True) if mode != "zero" or any(max(axis[3:]) for axis in axes)}
    if len(outside) > 1:
        raise ValueError(f"branches read {sorted(outside)} outside the image; needs the same")
    if space is not None and len({window.output_shape(space) for window in windows}) > 1:
        raise ValueError(f"{_named(windows)} have other outputs than each other on {space} pixels; their sum has no meaning")
    whole = [_union(axes, windows, space) for axes in zip(*laid, strict=True)]
    total = jnp.zeros((*(axis.size for axis in whole), *arrays[0].shape[-2:]), arrays[0].dtype)
    for v, axes in zip(arrays, laid, strict=True):
        for number, axis in enumerate(axes):
            v = spread(v, number, axis.step)
        where = tuple(slice(a.low - axis.low, a.low - axis.low + axis.extent) for a, axis in zip(whole, axes, strict=True))
        total = total.at[where].add(v)
    bias = sum((jnp.asarray(bias) for bias in biases if bias is not None), jnp.zeros(total.shape[-1:], total.dtype))
    v, window = settle(total, whole, outside.pop() if outside else "zero")
    return v, bias, window


def merge_pointwise(
    first: Float[Array, "... c e"],
    bias: Float[Array, "e"],
    second: Float[Array, "a b e d"],
    *,
    window: Window | None = None,
    space: Space | None = None,
) -> tuple[Float[Array, "a b c d"], Float[Array, "*out d"]]:
    r"""Write a convolution of one tap with a bias, and then one of many, as one.

    $$V_{abcd} = \sum_e U_{ce} W_{abed}, \qquad u_d = \sum_{abe} W_{abed}\, u_e$$

    One number a channel is exact where the second reads no padding ("VALID", "CIRCULAR", "REFLECT", "EDGE"), or pads the middle
    image with the bias. Where it pads with zeros, taps on padding do not see the bias, and the exact one differs along the
    border: with `window` and `space` it is returned, one number per position and channel.

    Args:
      first: Kernel of one tap, at stride 1.
      bias: Its bias, and what the middle image must be padded with for one number a channel to be exact.
      second: Kernel of the second.
      window: Where the second reads, padding with zeros.
      space: Pixels of the image.

    Returns:
      v: The kernel, with the window of the second.
      bias: The bias (d,), or of zeros outside the image (*out, d).

    Raises:
      ValueError: `first` has several taps, channels disagree, or one of `window` and `space` is missing.
      TypeError: An array is not floating.

    Example:
      >>> one, many = jnp.ones((1, 1, 1)), jnp.ones((3, 1, 1))
      >>> v, bias = merge_pointwise(one, jnp.ones(1), many, window=Window(3), space=(4,))
      >>> bias.squeeze()
      Array([2., 3., 3., 2.], dtype=float32)
    """
    first, rank = check.kernel("first", first, spatial=1, others="c e")
    second, other = check.kernel("second", second, spatial=1, others="e d")
    check.agree("first has {} taps", first.shape[:rank], "one tap an axis of second is {}", (1,) * other)
    check.agree("second reads {} channels", second.shape[-2:-1], "first returns {}", first.shape[-1:])
    check.agree("bias has shape {}", jnp.shape(bias), "first returns {} channels", first.shape[-1:])
    v = jnp.matmul(first, second, precision=EXACT)
    told = jnp.einsum("e,...ed->...d", bias, second, precision=EXACT)
    if window is None and space is None:
        return v, told.sum(tuple(range(rank)))
    if window is None or space is None:
        raise ValueError("window and space say together which taps read padding: give both or none")
    check.taps("second", second.shape[:rank], window)
    return v, jnp.tensordot(jnp.asarray(window.live(space), told.dtype), told, rank, precision=EXACT)


def maximum(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Take the larger of two by one ReLU and two additions: what a network without maxima can build.

    $$\max(a, b) = \mathrm{relu}(a - b) + b$$

    Where they are equal the gradient goes to b alone, as a ReLU passes none at 0; `jnp.maximum` gives half to each. Where
    one is much smaller than the other the sum rounds, and -inf for b gives nan.

    Args:
      a: Any array.
      b: Another.

    Example:
      >>> maximum(jnp.array([1.0, 5.0]), jnp.array([3.0, 2.0]))
      Array([3., 5.], dtype=float32)
    """
    difference = jnp.asarray(a) - b
    return jnp.where(difference > 0, difference, 0) + b


def _union(axes: Sequence[Reach], windows: Sequence[Window], space: Space | None) -> Reach:
    """The reach along one axis of all branches together, tap by pixel."""
    slack = {axis.low + axis.high - axis.extent for axis in axes}
    strides = {axis.stride for axis in axes}
    if len(strides) > 1 or (len(slack) > 1 and space is None):
        raise ValueError(f"{_named(windows)} do not have the same outputs on every image; their sum has no meaning")
    low, after = max(axis.low for axis in axes), max(axis.extent - axis.low for axis in axes)
    return Reach(low + after, strides.pop(), 1, low, max(slack) + after)


def _named(windows: Sequence[Window]) -> str:
    return " and ".join(map(str, windows))
