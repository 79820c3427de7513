"""What of an image is kept: in activations, in what they let one draw again, and by the first layers of a network."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from convlab import check
from convlab.geometry import Window, as_axes, as_integer
from convlab.measure.shift import aliased_energy
from convlab.measure.spectrum import Linear, rounding
from convlab.ops.conv import conv
from convlab.ops.pool import max_pool


class Kept(NamedTuple):
    """How many dimensions activations fill.

    Attributes:
      rank: Directions in which they are not zero.
      effective: exp of the entropy of the singular values' shares: how many of equal size would be as spread.
    """

    rank: int
    effective: float


class Stem(NamedTuple):
    """What one layer before the blocks of a network, or all of them together, makes of an image.

    Attributes:
      name: "conv 7x7/2" with the taps and the stride, "max" for pooling, "total".
      channels: Going out.
      window_ratio: Output channels over what one window reads, c_out / (k k c_in): below 1 a window is condensed.
      stride_ratio: Over the pixels that come new with each output, c_out / (s s c_in): below 1 the image is condensed.
      weights: Of the kernel.
      multiply_adds: For one image, taps on padding left out.
      field: Pixels that one output sees along each axis.
      jump: Pixels between neighbouring outputs.
      bound: Dimensions that outputs at one position can fill before the ReLU, min(c_out, k k c_in); of pooling, its channels.
      rank: That they do fill on the given images; of pooling, before it.
      rank_after: That they fill after the ReLU, at most c_out; of pooling, after it.
      aliasing: Share of the energy before striding at frequencies that the stride cannot tell from lower ones.
    """

    name: str
    channels: int
    window_ratio: float
    stride_ratio: float
    weights: int
    multiply_adds: int
    field: tuple[int, ...]
    jump: tuple[int, ...]
    bound: int
    rank: int
    rank_after: int
    aliasing: float


def activation_rank(h: Float[Array, "*n d"], tolerance: float | None = None) -> Kept:
    r"""Tell how many dimensions activations fill: as vectors of d channels, one an example or position.

    $$\text{effective} = \exp\Big(-\sum_q p_q \log p_q\Big), \qquad p_q = \sigma_q / \sum_r \sigma_r$$

    Args:
      h: Activations; all axes but the last are examples.
      tolerance: Singular values that count, as a share of the largest; None for `rounding`: the resolution of the dtype,
        or the channels times that of float32 or finer, however many examples there are.

    Raises:
      ValueError: `h` has fewer than two axes.
      TypeError: `h` is not floating.

    Example:
      >>> activation_rank(jnp.eye(3)[:, :2])
      Kept(rank=2, effective=2.0)

    Reference: of the effective rank, Roy and Vetterli 2007, The effective rank.
    """
    h = check.floating("h", h)
    if h.ndim < 2:
        raise ValueError(f"h has shape {h.shape}; needs axes of examples, then channels")
    flat = np.asarray(h, float).reshape(-1, h.shape[-1])
    sigma = np.linalg.svd(flat, compute_uv=False)
    if sigma[0] == 0:
        return Kept(0, 0.0)
    least = rounding(flat.shape[1], h.dtype) if tolerance is None else tolerance
    share = sigma[sigma > 0] / sigma.sum()
    return Kept(int(np.sum(sigma > least * sigma[0])), float(np.exp(-np.sum(share * np.log(share)))))


def reconstruct(linear: Linear, h: Array, *, tolerance: float = 1e-10, steps: int | None = None) -> Array:
    r"""Draw the image again from what a linear layer made of it: the least-squares one of least norm.

    $$\min_x \|A x - h\|^2, \qquad x \perp \ker A$$

    by conjugate gradients on $A^\top A$, which from zero never leave what the layer sees. What it loses comes back as zero.

    Args:
      linear: The layer.
      h: Activations, of the layer's output shape.
      tolerance: Relative residual of the normal equations at which to stop; not below what the dtype can reach, a hundred times
        its resolution, beyond which the search would diverge.
      steps: At most so many; None for ten times the pixels and channels.

    Raises:
      ValueError: `h` has another shape.

    Example:
      >>> from convlab.measure.spectrum import convolution
      >>> layer = convolution(jnp.array([1.0, 3.0, 1.0]).reshape(3, 1, 1), Window(3), (4,))
      >>> x = jnp.array([1.0, 0.0, 2.0, 1.0])[:, None]
      >>> bool(jnp.allclose(reconstruct(layer, layer.apply(x)), x, atol=1e-4))
      True
    """
    check.agree("h has shape {}", jnp.shape(h), "the layer returns {}", linear.output_shape)

    def normal(x: Array) -> Array:
        return linear.transpose(linear.apply(x))

    h = jnp.asarray(h)
    least = max(tolerance, 100 * float(jnp.finfo(h.dtype).eps))
    x, _ = jax.scipy.sparse.linalg.cg(normal, linear.transpose(h), tol=least, maxiter=steps)
    return x


def reconstruct_by_gradient(
    function: Callable[[Array], Array],
    h: Array,
    shape: Sequence[int],
    key: jax.Array,
    *,
    steps: int = 300,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[Array, float]:
    r"""Look for an image that a network, or part of it, takes to given activations.

    $$\min_x \|f(x) - h\|^2 \,/\, \|h\|^2$$

    by gradient descent from Gaussian noise of a tenth: where f loses something there are many such images, and where it is not
    linear the one that is found may be none.

    Args:
      function: Takes an image to activations.
      h: Activations.
      shape: Of the image.
      key: Draws the start.
      steps: Of the descent.
      optimizer: None for Adam with a step of 0.05.

    Returns:
      x: The image.
      rest: What is left of the objective.

    Raises:
      ValueError: `h` is not of the shape that the function returns.

    Example:
      >>> x, rest = reconstruct_by_gradient(jnp.tanh, jnp.full((2, 1), 0.5), (2, 1), jax.random.key(0))
      >>> x.squeeze().round(2), rest < 1e-6
      (Array([0.55, 0.55], dtype=float32), True)

    Reference: Mahendran and Vedaldi 2015, Understanding deep image representations by inverting them.
    """
    h = check.floating("h", h)
    x = 0.1 * jax.random.normal(key, tuple(shape), h.dtype)
    check.agree("h has shape {}", h.shape, "the function returns {}", jax.eval_shape(function, x).shape)
    descent = optax.adam(0.05) if optimizer is None else optimizer
    scale = jnp.maximum(jnp.sum(h * h), jnp.finfo(h.dtype).tiny)

    def rest(x: Array) -> Array:
        return jnp.sum((function(x) - h) ** 2) / scale

    @jax.jit
    def step(x: Array, state: optax.OptState) -> tuple[Array, optax.OptState]:
        updates, state = descent.update(jax.grad(rest)(x), state, x)
        return jnp.asarray(optax.apply_updates(x, updates)), state

    state = descent.init(x)
    for _ in range(as_integer("steps", steps)):
        x, state = step(x, state)
    return x, float(rest(x))


def stem_report(
    layers: Sequence[tuple[Window, int]],
    images: Float[Array, "n k l c"],
    key: jax.Array,
    *,
    pool: Window | None = None,
    kernels: Sequence[Float[Array, "a b c d"]] | None = None,
) -> list[Stem]:
    """Tell what the first layers of a network, ReLUs between them, make of images: layer by layer and in total.

    Args:
      layers: Window and output channels of each.
      images: What the ranks and the aliasing are measured on; enough that no rank is that of too few positions.
      key: Draws kernels, Gaussian with mean squares of one over what a window reads.
      pool: Window of the max pooling that follows.
      kernels: Of the layers, trained or chosen; None draws them.

    Returns:
      One row a layer, one for pooling, and "total": its ratios are those of the field and the jump, its ranks those of
      the last row, its aliasing the largest.

    Raises:
      ValueError: No layers, or kernels that do not fit them; images without spatial axes, not finite, or all zero.
      TypeError: `images` are not floating, or a width is not an integer.

    Example:
      >>> images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
      >>> first, total = stem_report([(Window(3, 2), 32)], images, jax.random.key(1))
      >>> first.name, round(first.window_ratio, 3), round(first.stride_ratio, 3), first.rank, first.rank_after
      ('conv 3x3/2', 1.185, 2.667, 27, 32)

    Reference: of stems, He et al. 2019, Bag of tricks for image classification.
    """
    if not layers:
        raise ValueError("layers is empty: a stem has at least one")
    if kernels is not None and len(kernels) != len(layers):
        raise ValueError(f"kernels has {len(kernels)} entries but the stem has {len(layers)} layers; needs one of each")
    layers = [(window, as_integer(f"the width in layers[{number}]", width)) for number, (window, width) in enumerate(layers)]
    axes = jnp.ndim(images) - 2
    if axes < 1:
        raise ValueError(f"images has shape {jnp.shape(images)}; needs (n, *space, c)")
    x, space = check.images(images, axes, f"images has shape {jnp.shape(images)}")
    if not bool(jnp.isfinite(x).all() & x.any()):
        raise ValueError("images holds numbers that are not finite, or zeros alone; needs some that say what a layer keeps")
    windows = [window.of_rank(axes) for window, _ in layers]
    field, jump, rows, colours = (1,) * axes, (1,) * axes, [], x.shape[-1]
    for number, (window, (_, width)) in enumerate(zip(windows, layers, strict=True)):
        v = _gaussian(jax.random.fold_in(key, number), window, x, width) if kernels is None else jnp.asarray(kernels[number])
        check.agree(f"kernels[{number}] returns {{}} channels", v.shape[-1:], "its layer is of {}", (width,))
        field, jump = _wider(field, jump, window)
        h = conv(x, v, window)
        products = math.prod(int((axis.reads >= 0).sum()) for axis in window.axes(x.shape[1:-1])) * v.shape[-2] * width
        ranks = min(width, v[..., 0].size), activation_rank(h).rank, activation_rank(jax.nn.relu(h)).rank
        share = float(aliased_energy(conv(x, v, _at_every_pixel(window)), window.strides))
        ratios = _ratios(width, x.shape[-1], window.taps(axes), as_axes("strides", window.strides, axes))
        rows.append(Stem(_name("conv", window, axes), width, *ratios, v.size, products, field, jump, *ranks, share))
        x = jax.nn.relu(h)
    if pool is not None:
        pool, width = pool.of_rank(axes), x.shape[-1]
        field, jump = _wider(field, jump, pool)
        share = float(aliased_energy(max_pool(x, _at_every_pixel(pool)), pool.strides))
        ratios = _ratios(width, width, pool.taps(axes), as_axes("strides", pool.strides, axes))
        kept = activation_rank(max_pool(x, pool)).rank
        rows.append(Stem(_name("max", pool, axes), width, *ratios, 0, 0, field, jump, width, rows[-1].rank_after, kept, share))
    window_ratio, stride_ratio = _ratios(rows[-1].channels, colours, field, jump)
    total = rows[-1]._replace(
        name="total",
        window_ratio=window_ratio,
        stride_ratio=stride_ratio,
        weights=sum(row.weights for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
        aliasing=max(row.aliasing for row in rows),
    )
    return [*rows, total]


def _gaussian(key: jax.Array, window: Window, x: Array, width: int) -> Array:
    shape = (*window.taps(x.ndim - 2), x.shape[-1], width)
    return jax.random.normal(key, shape, x.dtype) / math.sqrt(math.prod(shape[:-1]))


def _at_every_pixel(window: Window) -> Window:
    """The same taps at stride 1, on a torus: nothing of it is the border's."""
    return Window(window.size, 1, "CIRCULAR", window.dilation)


def _wider(field: Sequence[int], jump: Sequence[int], window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pixels that an output sees, and pixels from one to the next, after one more window."""
    rank = len(field)
    sizes, strides, dilations = window.taps(rank), *(as_axes(n, getattr(window, n), rank) for n in ("strides", "dilation"))
    seen = (f + t * (k - 1) * j for f, j, k, t in zip(field, jump, sizes, dilations, strict=True))
    return tuple(seen), tuple(j * s for j, s in zip(jump, strides, strict=True))


def _ratios(width: int, channels: int, taps: Sequence[int], strides: Sequence[int]) -> tuple[float, float]:
    return width / (math.prod(taps) * channels), width / (math.prod(strides) * channels)


def _name(kind: str, window: Window, rank: int) -> str:
    strides = as_axes("strides", window.strides, rank)
    stride = strides[0] if len(set(strides)) == 1 else strides
    return f"{kind} {'x'.join(map(str, window.taps(rank)))}/{stride}"
